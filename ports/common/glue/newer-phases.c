/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The phases that QEMU 10.0 and 7.2 have with other arguments, and what only the
 * newer versions ask of a host.
 */
#include "qemu/osdep.h"
#include "migration/migration.h"
#include "migration/migration-stats.h"
#include "migration/multifd.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "migration/snapshot.h"
#include "migration/trace.h"
#include "net/announce.h"
#include "glue.h"

#if GLUE_VERSION >= 1002
typedef SaveCompletePrecopyThreadHandler SaveThread;
#else
typedef SaveLiveCompletePrecopyThreadHandler SaveThread;
#endif

int qemu_savevm_state_setup(QEMUFile *f, Error **errp)
{
    return savevm_state_setup(f, errp);
}

int qemu_savevm_state_complete_precopy_non_iterable(QEMUFile *f,
                                                    bool in_postcopy)
{
    int ret = savevm_state_complete_precopy_non_iterable(f, in_postcopy);
    Error *err = NULL;

    /* Keeps the error for query-migrate. */
    if (ret && qemu_file_get_error_obj(f, &err) && err) {
        migrate_set_error(migrate_get_current(), err);
        error_free(err);
    }
    return ret;
}

int qemu_savevm_state_complete_precopy(QEMUFile *f, bool iterable_only)
{
    int ret = qemu_savevm_state_complete_precopy_iterable(f, false);

    if (!ret && !iterable_only) {
        ret = qemu_savevm_state_complete_precopy_non_iterable(f, false);
    }
    return ret ? ret : qemu_fflush(f);
}

/* Starts the guest. Runs in the main loop, outside of the load. */
static void run_bh(void *opaque)
{
    MigrationIncomingState *mis = opaque;

    trace_vmstate_downtime_checkpoint("dst-postcopy-bh-enter");
    cpu_synchronize_all_post_init();
    trace_vmstate_downtime_checkpoint("dst-postcopy-bh-cpu-synced");
    qemu_announce_self(&mis->announce_timer, migrate_announce_params());
    trace_vmstate_downtime_checkpoint("dst-postcopy-bh-announced");
    dirty_bitmap_mig_before_vm_start();
    if (!autostart) {
        runstate_set(RUN_STATE_PAUSED);
    } else if (migration_block_activate(NULL)) {
        /* Without disks the guest stays paused until the user continues it. */
        trace_vmstate_downtime_checkpoint("dst-postcopy-bh-cache-invalidated");
        vm_start();
    }
    trace_vmstate_downtime_checkpoint("dst-postcopy-bh-vm-started");
}

void glue_start_guest(MigrationIncomingState *mis)
{
#if GLUE_VERSION >= 1002
    /* Without a return path, the state is POSTCOPY_ACTIVE already. */
    if (mis->state == MIGRATION_STATUS_POSTCOPY_DEVICE) {
        migrate_set_state(&mis->state, MIGRATION_STATUS_POSTCOPY_DEVICE,
                          MIGRATION_STATUS_POSTCOPY_ACTIVE);
    }
#endif
    migration_bh_schedule(run_bh, mis);
}

void load_snapshot_resume(RunState state)
{
    vm_resume(state);
    if (state == RUN_STATE_RUNNING && runstate_get() == RUN_STATE_SUSPENDED) {
        qemu_system_wakeup_request(QEMU_WAKEUP_REASON_OTHER, &error_abort);
    }
}

/* Threads of devices that send beside the main stream, and the rate limit */

static bool host_threads(void *host)
{
    return multifd_device_state_supported();
}

static void host_threads_abort(void *host)
{
    multifd_abort_device_state_save_threads();
}

static void host_thread_start(void *host, void *function, const char *idstr,
                              uint32_t instance_id, void *device)
{
    multifd_spawn_device_state_save_thread((SaveThread)function, (char *)idstr,
                                           instance_id, device);
}

static bool host_threads_join(void *host)
{
    if (migrate_has_error(migrate_get_current())) {
        multifd_abort_device_state_save_threads();
    }
    return multifd_join_device_state_save_threads();
}

static bool host_rate_exceeded(void *host, QEMUFile *f)
{
    return migration_rate_exceeded(f);
}

#if GLUE_VERSION >= 1002
static bool host_keeps_descriptors(void *host)
{
    return migrate_mode() == MIG_MODE_CPR_EXEC;
}
#endif

void glue_newer_host_ops(SaveVMHostOps *ops)
{
#if GLUE_VERSION >= 1002
    ops->keeps_descriptors = host_keeps_descriptors;
#endif
    ops->device_threads = host_threads;
    ops->device_thread_start = host_thread_start;
    ops->device_threads_abort = host_threads_abort;
    ops->device_threads_join = host_threads_join;
    ops->rate_exceeded = host_rate_exceeded;
}
