/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * QEMU 5.2 and 7.2: headers and functions that the common files of the glue call
 * by the names of QEMU 10.0.
 */
#ifndef MIGRATION_LIBSAVEVM_OLDER_H
#define MIGRATION_LIBSAVEVM_OLDER_H

#include "sysemu/cpus.h"
#include "sysemu/replay.h"
#include "sysemu/runstate.h"
#include "sysemu/sysemu.h"
#include "sysemu/xen.h"

#define bql_lock() qemu_mutex_lock_iothread()
#define bql_unlock() qemu_mutex_unlock_iothread()
#define bql_locked() qemu_mutex_iothread_locked()

/* The context of a disk is locked while the disk is used. */
#define LOCK_CONTEXT(bs) aio_context_acquire(bdrv_get_aio_context(bs))
#define UNLOCK_CONTEXT(bs) aio_context_release(bdrv_get_aio_context(bs))

/* A stopped guest that is resumed stays stopped. */
#define runstate_get() \
    (runstate_is_running() ? RUN_STATE_RUNNING : RUN_STATE_PAUSED)
#define vm_resume(state)               \
    do {                               \
        if (state == RUN_STATE_RUNNING) { \
            vm_start();                \
        }                              \
    } while (0)
#define load_snapshot_resume(state) vm_resume(state)
#define migration_block_inactivate() (bdrv_inactivate_all() == 0)

#define qemu_file_transferred(f) qemu_file_total_transferred(f)
#define migration_is_running() \
    migration_is_running(migrate_get_current()->state)
#define migrate_init(ms, errp) glue_migrate_init(ms, errp)
int glue_migrate_init(MigrationState *ms, Error **errp);
#define migrate_can_snapshot(errp) true
#define GLOBAL_STATE_STORE() global_state_store()

/* Functions that report their errors themselves. */
#define postcopy_ram_supported_by_host(mis, errp) \
    postcopy_ram_supported_by_host(mis)
#define ram_postcopy_incoming_init(mis, errp) ram_postcopy_incoming_init(mis)
#define migration_incoming_enable_colo(errp) migration_incoming_enable_colo()
#define colo_init_ram_cache(errp) colo_init_ram_cache()

#endif /* MIGRATION_LIBSAVEVM_OLDER_H */
