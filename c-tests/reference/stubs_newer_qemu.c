/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* As stubs_qemu.c: what only the savevm.c of QEMU 10.0 and newer calls. */
#include "qemu/osdep.h"
#include "exec/page-vary.h"
#include "migration/colo.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/postcopy-ram.h"
#include "migration/ram.h"
#include "qapi/error.h"
#include "qemu/error-report.h"

#include "reference/host_qemu.h"

#if SAVEVM_QEMU_VERSION >= 1002
#define ERRP_1002 , Error **errp
#define COLO_ARGUMENTS Error **errp
#else
#define ERRP_1002
#define COLO_ARGUMENTS void
#endif

/* The machine's properties. Other files see this object as a constant. */
TargetPageBits target_page;

void host_refresh(void)
{
    target_page.decided = true;
    target_page.bits = backend.page_bits;
    target_page.mask = -1ull << backend.page_bits;
}

#if SAVEVM_QEMU_VERSION >= 1001
int migration_legacy_page_bits(void)
#else
/* The header that declares this function also declares the constant. */
int qemu_target_page_bits_min(void);
int qemu_target_page_bits_min(void)
#endif
{
    return backend.page_bits_min;
}

bool migrate_dirty_bitmaps(void)
{
    return false;
}

bool migrate_switchover_ack(void)
{
    return backend.switchover_ack;
}

bool migrate_send_switchover_start(void)
{
    return !backend.no_switchover_start;
}

/* The error of a migration, of which only the presence counts. */

static bool has_error;

void migrate_set_error(MigrationState *s, const Error *error)
{
    has_error = true;
}

bool migrate_has_error(MigrationState *s)
{
    return has_error;
}

void host_forget_error(void)
{
    has_error = false;
}

/* Threads of devices run at once. */

bool multifd_device_state_supported(void)
{
    return backend.device_threads;
}

#if SAVEVM_QEMU_VERSION >= 1001
void multifd_spawn_device_state_save_thread(
    SaveCompletePrecopyThreadHandler hdlr, char *idstr, uint32_t instance_id,
    void *opaque)
{
    SaveCompletePrecopyThreadData data = {
#else
void multifd_spawn_device_state_save_thread(
    SaveLiveCompletePrecopyThreadHandler hdlr, char *idstr,
    uint32_t instance_id, void *opaque)
{
    SaveLiveCompletePrecopyThreadData data = {
#endif
        .hdlr = hdlr,
        .idstr = idstr,
        .instance_id = instance_id,
        .handler_opaque = opaque,
    };
    Error *err = NULL;

    trace("host: thread of %s %u", idstr, instance_id);
    if (!hdlr(&data, &err)) {
        migrate_set_error(migrate_get_current(), err);
        error_report_err(err);
    }
}

void multifd_abort_device_state_save_threads(void)
{
    trace("host: threads_abort");
}

bool multifd_join_device_state_save_threads(void)
{
    trace("host: threads_join");
    return !has_error;
}

/* What commands ask for */

int migrate_send_rp_switchover_ack(MigrationIncomingState *mis)
{
    trace("host: switchover_ack");
    return 0;
}

bool postcopy_ram_supported_by_host(MigrationIncomingState *mis, Error **errp)
{
    return true;
}

int ram_postcopy_incoming_init(MigrationIncomingState *mis ERRP_1002)
{
    trace("host: postcopy_advise");
    return 0;
}

/* Instead of the thread that would read on. */
#if SAVEVM_QEMU_VERSION >= 1002
int postcopy_incoming_setup(MigrationIncomingState *mis, Error **errp)
{
    trace("host: postcopy_listen");
    return 0;
}
#else
int postcopy_ram_incoming_setup(MigrationIncomingState *mis)
{
    return 0;
}

void postcopy_thread_create(MigrationIncomingState *mis, QemuThread *thread,
                            const char *name, void *(*fn)(void *), int joinable)
{
    trace("host: postcopy_listen");
}
#endif

/* The bottom half that starts the guest is taken for the start. */
void migration_bh_schedule(QEMUBHFunc *cb, void *opaque)
{
    trace("host: postcopy_run");
}

void migrate_set_state(MigrationStatus *state, MigrationStatus old_state,
                       MigrationStatus new_state)
{
    if (new_state == MIGRATION_STATUS_POSTCOPY_ACTIVE) {
        trace("host: postcopy_resume");
    }
}

int migration_incoming_enable_colo(COLO_ARGUMENTS)
{
    trace("host: enable_colo");
#if SAVEVM_QEMU_VERSION >= 1002
    if (backend.enable_colo) {
        error_setg(errp, "no memory for COLO");
    }
#endif
    return backend.enable_colo;
}

int colo_init_ram_cache(COLO_ARGUMENTS)
{
    return 0;
}
