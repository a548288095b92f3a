/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The part of QEMU that its savevm.c calls and that a test wants to see:
 * every call becomes a line of the trace, with the words of backend_savevm.c.
 * stubs_older_qemu.c has what QEMU 5.2 and 7.2 add, stubs_newer_qemu.c that of 10.0 and
 * 10.2.
 */
#include "qemu/osdep.h"
#include "migration/colo.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/postcopy-ram.h"
#include "migration/qemu-file.h"
#include "migration/ram.h"
#include "qemu/uuid.h"
#if SAVEVM_QEMU_VERSION >= 1000
#include "migration/options.h"
#include "qapi/error.h"
#include "system/cpus.h"
#include "system/system.h"
#define CAPABILITIES capabilities
#else
#include "sysemu/cpus.h"
#include "sysemu/sysemu.h"
#define CAPABILITIES enabled_capabilities
#endif

#include "reference/host_qemu.h"

static MigrationState outgoing;
static MigrationIncomingState incoming;
static PostcopyState postcopy;

QemuUUID qemu_uuid;
bool qemu_uuid_set;
int autostart;
int only_migratable;
bool xen_allowed;

/* What the tests change is copied before every question. */
MigrationState *migrate_get_current(void)
{
    outgoing.send_configuration = !backend.no_configuration;
    outgoing.send_section_footer = !backend.no_footers;
    outgoing.CAPABILITIES[MIGRATION_CAPABILITY_X_IGNORE_SHARED] =
        backend.x_ignore_shared;
#if SAVEVM_QEMU_VERSION >= 900
    outgoing.CAPABILITIES[MIGRATION_CAPABILITY_MAPPED_RAM] = backend.mapped_ram;
#endif
    qemu_uuid_set = backend.uuid != NULL;
    if (backend.uuid) {
        memcpy(qemu_uuid.data, backend.uuid, sizeof(qemu_uuid.data));
    }
    qdev_get_machine();
    host_refresh();
    return &outgoing;
}

MigrationIncomingState *migration_incoming_get_current(void)
{
    return &incoming;
}

void host_start(void)
{
    qemu_mutex_init(&incoming.rp_mutex);
    qemu_mutex_init(&incoming.page_request_mutex);
#if SAVEVM_QEMU_VERSION >= 700
    qemu_mutex_init(&incoming.postcopy_prio_thread_mutex);
#endif
    qemu_event_init(&incoming.main_thread_load_event, false);
    qemu_sem_init(&incoming.postcopy_pause_sem_fault, 0);
    incoming.page_requested = g_tree_new((GCompareFunc)strcmp);
    migrate_get_current();
}

MigrationIncomingState *host_incoming(QEMUFile *f)
{
    incoming.from_src_file = f;
    incoming.state = MIGRATION_STATUS_POSTCOPY_RECOVER;
    migrate_get_current();
    return &incoming;
}

bool migrate_validate_uuid(void)
{
    return backend.uuid != NULL;
}

bool migration_in_postcopy(void)
{
    return backend.in_postcopy;
}

bool migration_in_colo_state(void)
{
    return backend.in_colo;
}

bool migrate_postcopy_ram(void)
{
    host_refresh();
    return backend.postcopy_ram;
}

#if SAVEVM_QEMU_VERSION >= 700
bool migrate_postcopy_preempt(void)
{
    return false;
}
#endif

uint64_t ram_pagesize_summary(void)
{
    return backend.ram_page_sizes;
}

/* What the host is asked for while saving and loading */

void cpu_synchronize_all_states(void)
{
    trace("host: cpu_synchronize_states");
}

void cpu_synchronize_all_pre_loadvm(void)
{
    trace("host: cpu_synchronize_pre_load");
}

void cpu_synchronize_all_post_init(void)
{
    trace("host: cpu_synchronize_post_load");
}

int precopy_notify(PrecopyNotifyReason reason, Error **errp)
{
    trace("host: precopy_notify %d", reason);
#if SAVEVM_QEMU_VERSION >= 1000
    if (backend.precopy_notify) {
        error_setg(errp, "the host is not ready");
    }
#endif
    return backend.precopy_notify;
}

/* What commands ask for */

QEMUFile *__real_qemu_file_get_return_path(QEMUFile *f);
QEMUFile *__wrap_qemu_file_get_return_path(QEMUFile *f);

QEMUFile *__wrap_qemu_file_get_return_path(QEMUFile *f)
{
    /* A test may ask for one as well. */
    if (incoming.from_src_file) {
        trace("host: open_return_path");
    }
    return __real_qemu_file_get_return_path(f);
}

void migrate_send_rp_pong(MigrationIncomingState *mis, uint32_t value)
{
    trace("host: pong 0x%x", value);
}

PostcopyState postcopy_state_get(void)
{
    return postcopy;
}

PostcopyState postcopy_state_set(PostcopyState new_state)
{
    PostcopyState before = postcopy;

    postcopy = new_state;
    return before;
}

int backend_postcopy_state(int state)
{
    PostcopyState before = postcopy;

    if (state >= 0) {
        postcopy = state;
    }
    return before;
}

int postcopy_notify(enum PostcopyNotifyReason reason, Error **errp)
{
    return 0;
}

int postcopy_ram_prepare_discard(MigrationIncomingState *mis)
{
    trace("host: postcopy_prepare_discard");
    postcopy = POSTCOPY_INCOMING_DISCARD;
    return 0;
}

int ram_discard_range(const char *block, uint64_t start, size_t length)
{
    trace("host: postcopy_discard %s 0x%" PRIx64 " 0x%zx", block, start,
          length);
    return backend.discard;
}

void migrate_send_rp_resume_ack(MigrationIncomingState *mis, uint32_t value)
{
}

RAMBlock *qemu_ram_block_by_name(const char *name)
{
    return (RAMBlock *)name;
}

void migrate_send_rp_recv_bitmap(MigrationIncomingState *mis, char *block_name)
{
    trace("host: recv_bitmap %s", block_name);
}

void migration_incoming_disable_colo(void)
{
}

void dirty_bitmap_mig_cancel_incoming(void)
{
}
