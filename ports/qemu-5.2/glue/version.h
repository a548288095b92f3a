/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * QEMU 5.2: what the common files of the glue call by another name or with
 * other arguments. glue.h is included after QEMU's headers, so the macros do
 * not change these.
 */
#ifndef MIGRATION_LIBSAVEVM_VERSION_H
#define MIGRATION_LIBSAVEVM_VERSION_H

#include "block/snapshot.h"
#include "migration/qemu-file-channel.h"
#include "older.h"

#define GLUE_VERSION 502

typedef int GlueRunning;

#define GLOBAL_STATE_CODE() do { } while (0)
#define bdrv_activate_all(errp) bdrv_invalidate_cache_all(errp)
#define qemu_file_new_input(ioc) qemu_fopen_channel_input(ioc)
#define qemu_file_new_output(ioc) qemu_fopen_channel_output(ioc)
#define qemu_real_host_page_size() qemu_real_host_page_size

/* Trace events that have other names or texts, and their format. */
#define message_with_timestamp true
#define trace_event_iter_init_all(iter) trace_event_iter_init(iter, NULL)
#define trace_loadvm_postcopy_handle_listen(text) do { } while (0)
#define trace_loadvm_postcopy_handle_run_bh(text) do { } while (0)

/* There is no yank. */
#define migration_ioc_unregister_yank_from_file(f) do { } while (0)
#define yank_register_instance(instance, errp) true

/* The writer of descriptions, which QEMU 5.2 calls QJSON. */
typedef struct JSONWriter JSONWriter;

#define qemu_file_total_transferred(f) qemu_ftell(f)

/*
 * Snapshots. A snapshot has all disks. older-snapshot.c implements the
 * functions in terms of those of QEMU 5.2.
 */
#define SHUTDOWN_CAUSE_SNAPSHOT_LOAD SHUTDOWN_CAUSE_NONE
#define bdrv_all_can_snapshot(has_devices, devices, errp) \
    glue_all_can_snapshot(errp)
#define bdrv_all_has_snapshot(name, has_devices, devices, errp) \
    glue_all_has_snapshot(name)
#define bdrv_all_delete_snapshot(name, has_devices, devices, errp) \
    glue_all_delete_snapshot(name, errp)
#define bdrv_all_goto_snapshot(name, has_devices, devices, errp) \
    glue_all_goto_snapshot(name, errp)
#define bdrv_all_create_snapshot(sn, bs, size, has_devices, devices, errp) \
    glue_all_create_snapshot(sn, bs, size, errp)
#define bdrv_all_find_vmstate_bs(vmstate, has_devices, devices, errp) \
    glue_all_find_vmstate_bs(errp)

bool glue_all_can_snapshot(Error **errp);
int glue_all_has_snapshot(const char *name);
int glue_all_delete_snapshot(const char *name, Error **errp);
int glue_all_goto_snapshot(const char *name, Error **errp);
int glue_all_create_snapshot(QEMUSnapshotInfo *sn, BlockDriverState *bs,
                             uint64_t size, Error **errp);
BlockDriverState *glue_all_find_vmstate_bs(Error **errp);

/* As QEMU has these functions from 6.0 on. */
bool glue_save_snapshot(const char *name, bool overwrite, const char *vmstate,
                        bool has_devices, strList *devices, Error **errp);
bool glue_load_snapshot(const char *name, const char *vmstate,
                        bool has_devices, strList *devices, Error **errp);
#define save_snapshot glue_save_snapshot
#define load_snapshot glue_load_snapshot

#endif /* MIGRATION_LIBSAVEVM_VERSION_H */
