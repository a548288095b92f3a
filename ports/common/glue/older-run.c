/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The start of the guest in postcopy and of a migration into a snapshot, as QEMU
 * has them up to 7.2.
 */
#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "block/block.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/ram.h"
#include "migration/trace.h"
#include "net/announce.h"
#include "glue.h"

/* Starts the guest. Runs in the main loop, outside of the load. */
static void run_bh(void *opaque)
{
    MigrationIncomingState *mis = opaque;
    Error *err = NULL;

    trace_loadvm_postcopy_handle_run_bh("enter");
    cpu_synchronize_all_post_init();
    trace_loadvm_postcopy_handle_run_bh("after cpu sync");
    qemu_announce_self(&mis->announce_timer, migrate_announce_params());
    trace_loadvm_postcopy_handle_run_bh("after announce");
    bdrv_activate_all(&err);
    if (err) {
        /* Without disks the guest stays paused until the user continues it. */
        error_report_err(err);
        autostart = false;
    }
    trace_loadvm_postcopy_handle_run_bh("after invalidate cache");
    dirty_bitmap_mig_before_vm_start();
    if (autostart) {
        vm_start();
    } else {
        runstate_set(RUN_STATE_PAUSED);
    }
    qemu_bh_delete(mis->bh);
    trace_loadvm_postcopy_handle_run_bh("return");
}

void glue_start_guest(MigrationIncomingState *mis)
{
    mis->bh = qemu_bh_new(run_bh, mis);
    qemu_bh_schedule(mis->bh);
}

#undef migrate_init
int glue_migrate_init(MigrationState *ms, Error **errp)
{
    if (migrate_use_block()) {
        error_setg(errp, "Block migration and snapshots are incompatible");
        return -EINVAL;
    }
    migrate_init(ms);
    memset(&ram_counters, 0, sizeof(ram_counters));
    memset(&compression_counters, 0, sizeof(compression_counters));
    return 0;
}
