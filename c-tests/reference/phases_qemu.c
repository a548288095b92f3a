/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The phases of backend.h, with the functions of QEMU's savevm.c, in the order
 * in which its migration.c calls them. Compiled with QEMU's flags against
 * QEMU's headers.
 */
#include "qemu/osdep.h"
#include "migration/migration.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#if SAVEVM_QEMU_VERSION >= 1000
#include "migration/migration-stats.h"
#include "migration/misc.h"
#include "qobject/json-writer.h"
#endif

#include "reference/host_qemu.h"

#if SAVEVM_QEMU_VERSION < 1000

void backend_header(QEMUFile *f)
{
    qemu_savevm_state_header(f);
}

void backend_setup(QEMUFile *f)
{
    qemu_savevm_state_setup(f);
}

void backend_pending(QEMUFile *f, uint64_t threshold)
{
    uint64_t sums[3];

    qemu_savevm_state_pending(f, threshold, &sums[0], &sums[1], &sums[2]);
    trace("pending %" PRIu64 " %" PRIu64 " %" PRIu64, sums[0], sums[1],
          sums[2]);
}

int backend_complete(QEMUFile *f, bool live_only, bool inactivate_disks)
{
    return qemu_savevm_state_complete_precopy(f, live_only, inactivate_disks);
}

#if SAVEVM_QEMU_VERSION >= 600
int backend_complete_devices(QEMUFile *f, bool in_postcopy,
                             bool inactivate_disks)
{
    return qemu_savevm_state_complete_precopy_non_iterable(f, in_postcopy,
                                                           inactivate_disks);
}
#else
int backend_complete_devices(QEMUFile *f, bool in_postcopy,
                             bool inactivate_disks)
{
    bool before = backend.in_postcopy;
    int ret;

    backend.in_postcopy |= in_postcopy;
    ret = backend_complete(f, false, inactivate_disks);
    backend.in_postcopy = before;
    return ret;
}
#endif

int backend_load(QEMUFile *f)
{
    host_incoming(f);
    return qemu_loadvm_state(f);
}

int backend_load_sections(QEMUFile *f)
{
    return qemu_loadvm_state_main(f, host_incoming(f));
}

int backend_load_devices(QEMUFile *f)
{
    host_incoming(f);
    return qemu_load_device_state(f);
}

void backend_load_cleanup(void)
{
    qemu_loadvm_state_cleanup();
}

void backend_rate_set(QEMUFile *f, int64_t limit)
{
    qemu_file_set_rate_limit(f, limit);
}

void backend_rate_reset(QEMUFile *f)
{
    qemu_file_reset_rate_limit(f);
}

bool backend_rate_exceeded(QEMUFile *f)
{
    return qemu_file_rate_limit(f);
}

void backend_set_blocking(QEMUFile *f, bool block)
{
    qemu_file_set_blocking(f, block);
}

uint64_t backend_transferred(QEMUFile *f)
{
    return qemu_file_total_transferred_fast(f);
}

#else

/* Traces what a phase returned, and reports its error. */
static void failed(const char *phase, int ret, Error *err, const char *expected)
{
    trace("%s: %d", phase, ret);
    if (err && expected) {
        trace("its error is the device's: %d",
              strstr(error_get_pretty(err), expected) != NULL);
    }
    if (err) {
        error_report_err(err);
    }
}

static int reported(int ret, Error *err)
{
    if (err) {
        error_report_err(err);
    }
    return ret;
}

/* The writer of the description is the driver's. */

static void describe(bool wanted)
{
    MigrationState *s = migrate_get_current();

    g_clear_pointer(&s->vmdesc, json_writer_free);
    if (wanted) {
        s->vmdesc = json_writer_new(false);
    }
}

void backend_prepare(const char *expected)
{
    Error *err = NULL;
    int ret = qemu_savevm_state_prepare(&err);

    failed("prepare", ret, err, expected);
}

void backend_header(QEMUFile *f)
{
    host_forget_error();
    describe(should_send_vmdesc());
    qemu_savevm_state_header(f);
}

void backend_setup_expecting(QEMUFile *f, const char *expected)
{
    Error *err = NULL;
    int ret = qemu_savevm_state_setup(f, &err);

    failed("setup", ret, err, expected);
}

void backend_setup(QEMUFile *f)
{
    backend_setup_expecting(f, NULL);
}

void backend_pending(QEMUFile *f, uint64_t threshold)
{
    uint64_t must, can;

    qemu_savevm_state_pending_estimate(&must, &can);
    trace("estimate %" PRIu64 " %" PRIu64, must, can);
    qemu_savevm_state_pending_exact(&must, &can);
    trace("exact %" PRIu64 " %" PRIu64, must, can);
}

/* Before the switch to postcopy, the driver calls the halves itself. */
int backend_complete(QEMUFile *f, bool live_only, bool inactivate_disks)
{
    int ret;

    if (!backend.in_postcopy) {
        ret = qemu_savevm_state_complete_precopy(f, live_only);
        if (!live_only) {
            describe(false);
        }
        return ret;
    }
    ret = live_only ? qemu_savevm_state_complete_precopy_iterable(f, true)
                    : backend_complete_devices(f, true, false);
    return ret ? ret : qemu_fflush(f);
}

int backend_complete_devices(QEMUFile *f, bool in_postcopy,
                             bool inactivate_disks)
{
    int ret;

    if (in_postcopy || backend.in_postcopy) {
        describe(false);
    }
    ret = qemu_savevm_state_complete_precopy_non_iterable(f, in_postcopy);
    describe(false);
    return ret;
}

void backend_postcopy_prepare(QEMUFile *f, const char *expected)
{
#if SAVEVM_QEMU_VERSION >= 1001
    Error *err = NULL;
    bool ret = qemu_savevm_state_postcopy_prepare(f, &err);

    failed("postcopy_prepare", ret, err, expected);
#else
    failed("postcopy_prepare", true, NULL, expected);
#endif
}

void backend_switchover_start(QEMUFile *f)
{
    qemu_savevm_maybe_send_switchover_start(f);
}

void backend_approve_switchover(void)
{
    trace("approve: %d", qemu_loadvm_approve_switchover());
}

void backend_load_buffer(const char *idstr, uint32_t instance_id, char *bytes,
                         size_t len, const char *expected)
{
    Error *err = NULL;
    bool ret = qemu_loadvm_load_state_buffer(idstr, instance_id, bytes, len,
                                             &err);

    failed("load_buffer", ret, err, expected);
}

void backend_load_thread(MigrationLoadThread function, void *opaque)
{
    qemu_loadvm_start_load_thread(function, opaque);
}

void backend_error(Error **errp, const char *text)
{
    error_setg(errp, "%s", text);
}

/* Since 10.2, a load returns its error. */
#if SAVEVM_QEMU_VERSION >= 1002
#define ERRP , &err
#else
#define ERRP
#endif

int backend_load(QEMUFile *f)
{
    MigrationIncomingState *mis = host_incoming(f);
    Error *err = NULL;
    int ret;

    host_forget_error();
    ret = qemu_loadvm_state(f ERRP);
    if (!mis->have_listen_thread) {
        qemu_loadvm_state_cleanup(mis);
    }
    return reported(ret, err);
}

int backend_load_sections(QEMUFile *f)
{
    Error *err = NULL;
    int ret = qemu_loadvm_state_main(f, host_incoming(f) ERRP);

    return reported(ret, err);
}

int backend_load_devices(QEMUFile *f)
{
    Error *err = NULL;
    int ret;

    host_incoming(f);
    ret = qemu_load_device_state(f ERRP);
    return reported(ret, err);
}

void backend_load_cleanup(void)
{
    qemu_loadvm_state_cleanup(migration_incoming_get_current());
}

/* The driver's limit is that of a second. */
void backend_rate_set(QEMUFile *f, int64_t limit)
{
    migration_rate_set(limit * (1000 / BUFFER_DELAY));
}

void backend_rate_reset(QEMUFile *f)
{
    migration_rate_reset();
}

bool backend_rate_exceeded(QEMUFile *f)
{
    return migration_rate_exceeded(f);
}

void backend_set_blocking(QEMUFile *f, bool block)
{
#if SAVEVM_QEMU_VERSION >= 1002
    qemu_file_set_blocking(f, block, &error_abort);
#else
    qemu_file_set_blocking(f, block);
#endif
}

uint64_t backend_transferred(QEMUFile *f)
{
    return qemu_file_transferred(f);
}
#endif
