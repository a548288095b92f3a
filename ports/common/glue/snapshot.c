/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Snapshots in disk images. */
#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "block/block_int.h"
#include "block/qdict.h"
#include "migration/global_state.h"
#include "migration/migration.h"
#include "migration/qemu-file.h"
#include "migration/ram.h"
#include "migration/savevm.h"
#include "migration/snapshot.h"
#include "glue.h"
/* The disks of a snapshot, in the form that QEMU's block functions take. */
typedef struct Disks {
    bool has_devices;
    strList *devices;
} Disks;

static int save_vmstate(QEMUFile *f, Error **errp)
{
    MigrationState *ms = migrate_get_current();
    int ret;

    if (migration_is_running()) {
        error_setg(errp, "There's a migration process in progress");
        return -EINVAL;
    }
    ret = migrate_init(ms, errp);
    if (ret) {
        return ret;
    }
    ms->to_dst_file = f;
    ret = savevm_snapshot_save_file(NULL, f);
    ms->to_dst_file = NULL;
    if (ret) {
        error_setg_errno(errp, -ret, "Error while writing VM state");
    }
    migrate_set_state(&ms->state, MIGRATION_STATUS_SETUP,
                      ret ? MIGRATION_STATUS_FAILED
                          : MIGRATION_STATUS_COMPLETED);
    return ret;
}

/* Writes the VM state to the image of `bs`; stores its length in `*size`. */
static bool write_vmstate(BlockDriverState *bs, uint64_t *size, Error **errp)
{
    QEMUFile *f;
    int saved, closed;

    LOCK_CONTEXT(bs);
    f = glue_vmstate_file(bs, true);
    saved = save_vmstate(f, errp);
    *size = qemu_file_transferred(f);
    closed = qemu_fclose(f);
    UNLOCK_CONTEXT(bs);
    if (saved == 0 && closed < 0) {
        error_setg_errno(errp, -closed, "Error while closing VM state");
    }
    return saved == 0 && closed >= 0;
}

static void describe_snapshot(QEMUSnapshotInfo *sn, const char *name)
{
    g_autoptr(GDateTime) now = g_date_time_new_now_local();
    g_autofree char *automatic = g_date_time_format(now, "vm-%Y%m%d%H%M%S");

    memset(sn, 0, sizeof(*sn));
    pstrcpy(sn->name, sizeof(sn->name), name ? name : automatic);
    sn->date_sec = g_date_time_to_unix(now);
    sn->date_nsec = g_date_time_get_microsecond(now) * 1000;
    sn->vm_clock_nsec = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
    sn->icount = replay_mode == REPLAY_MODE_NONE ? -1ULL
                                                 : replay_get_current_icount();
}

/* Returns whether `name` is free; with `overwrite`, deletes older snapshots. */
static bool name_is_free(const char *name, bool overwrite, Disks disks,
                         Error **errp)
{
    int found;

    if (!name) {
        return true;
    }
    if (overwrite) {
        return bdrv_all_delete_snapshot(name, disks.has_devices, disks.devices,
                                        errp) >= 0;
    }
    found = bdrv_all_has_snapshot(name, disks.has_devices, disks.devices, errp);
    if (found == 1) {
        error_setg(errp, "Snapshot '%s' already exists in one or more devices",
                   name);
    }
    return found == 0;
}

static bool save_stopped(BlockDriverState *bs, const char *name, Disks disks,
                         Error **errp)
{
    QEMUSnapshotInfo sn;
    uint64_t size;

    describe_snapshot(&sn, name);
    if (!write_vmstate(bs, &size, errp)) {
        return false;
    }
    /* bdrv_all_create_snapshot() acquires each disk's AioContext itself. */
    if (bdrv_all_create_snapshot(&sn, bs, size, disks.has_devices,
                                 disks.devices, errp) < 0) {
        bdrv_all_delete_snapshot(sn.name, disks.has_devices, disks.devices,
                                 NULL);
        return false;
    }
    return true;
}

bool save_snapshot(const char *name, bool overwrite, const char *vmstate,
                   bool has_devices, strList *devices, Error **errp)
{
    Disks disks = { has_devices, devices };
    RunState before = runstate_get();
    BlockDriverState *bs;
    bool saved;

    GLOBAL_STATE_CODE();
    if (!migrate_can_snapshot(errp) || migration_is_blocked(errp)) {
        return false;
    }
    if (!replay_can_snapshot()) {
        error_setg(errp, "Record/replay does not allow making snapshot "
                   "right now. Try once more later.");
        return false;
    }
    if (!bdrv_all_can_snapshot(has_devices, devices, errp) ||
        !name_is_free(name, overwrite, disks, errp)) {
        return false;
    }
    bs = bdrv_all_find_vmstate_bs(vmstate, has_devices, devices, errp);
    if (!bs) {
        return false;
    }
    if (GLOBAL_STATE_STORE()) {
        error_setg(errp, "Error saving global state");
        return false;
    }
    vm_stop(RUN_STATE_SAVE_VM);
    bdrv_drain_all_begin();
    saved = save_stopped(bs, name, disks, errp);
    bdrv_drain_all_end();
    vm_resume(before);
    return saved;
}

/* Returns the length of the VM state in the snapshot `name`; 0: none. */
static uint64_t vmstate_size(BlockDriverState *bs, const char *name,
                             Error **errp)
{
    QEMUSnapshotInfo sn;
    int ret;

    LOCK_CONTEXT(bs);
    ret = bdrv_snapshot_find(bs, &sn, name);
    UNLOCK_CONTEXT(bs);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Snapshot '%s' was not found", name);
        return 0;
    }
    if (sn.vm_state_size == 0) {
        error_setg(errp, "This is a disk-only snapshot. Revert to it "
                   " offline using qemu-img");
    }
    return sn.vm_state_size;
}

/* Opens the image of `bs` again to read a snapshot's state; NULL on failure. */
static BlockDriverState *open_aside(BlockDriverState *bs, const char *name)
{
    BlockDriverState *aside;
    QDict *options;

    bdrv_refresh_filename(bs);
    options = qdict_clone_shallow(bs->full_open_options);
    qdict_put_null(options, "backing");
    qdict_flatten(options);
    qdict_put_str(options, BDRV_OPT_READ_ONLY, "on");
    qdict_put_str(options, BDRV_OPT_FORCE_SHARE, "on");
    aside = bdrv_open(NULL, NULL, options, bs->open_flags & BDRV_O_NOCACHE,
                      NULL);
    if (aside && bdrv_snapshot_load_tmp_by_id_or_name(aside, name, NULL) < 0) {
        g_clear_pointer(&aside, bdrv_unref);
    }
    return aside;
}

/* Checks the state of a snapshot; true if it is valid or can't be checked. */
static bool check_vmstate(BlockDriverState *bs, const char *name, uint64_t size,
                          Error **errp)
{
    BlockDriverState *aside = open_aside(bs, name);
    Error *err = NULL;
    QEMUFile *f;
    int ret;

    if (!aside) {
        return true;
    }
    f = glue_vmstate_file(aside, false);
    ret = savevm_snapshot_check_file(NULL, f, size, &err);
    qemu_fclose(f);
    bdrv_unref(aside);
    /* If the image was resized since, the state is at another offset. */
    if (ret == 0 || ret == -ENOMSG) {
        error_free(err);
        return true;
    }
    error_propagate_prepend(errp, err, "Snapshot '%s' is not loaded, and "
                            "nothing was changed: ", name);
    return false;
}

static bool load_drained(BlockDriverState *bs, const char *name, Disks disks,
                         Error **errp)
{
    MigrationIncomingState *mis = migration_incoming_get_current();
    Error *err = NULL;
    int ret;

    if (bdrv_all_goto_snapshot(name, disks.has_devices, disks.devices,
                               errp) < 0 ||
        !yank_register_instance(MIGRATION_YANK_INSTANCE, errp)) {
        return false;
    }
    qemu_system_reset(SHUTDOWN_CAUSE_SNAPSHOT_LOAD);
    LOCK_CONTEXT(bs);
    mis->from_src_file = glue_vmstate_file(bs, false);
    ret = savevm_load_state(mis->from_src_file, &err);
    migration_incoming_state_destroy();
    UNLOCK_CONTEXT(bs);
    if (ret < 0) {
        error_propagate_prepend(errp, err, "Error %d while loading VM state: ",
                                ret);
    }
    return ret >= 0;
}

/* Returns the disk with the VM state of a loadable snapshot, or NULL. */
static BlockDriverState *find_loadable(const char *name, const char *vmstate,
                                       Disks disks, Error **errp)
{
    BlockDriverState *bs;
    uint64_t size;
    int found;

    if (!migrate_can_snapshot(errp) ||
        !bdrv_all_can_snapshot(disks.has_devices, disks.devices, errp)) {
        return NULL;
    }
    found = bdrv_all_has_snapshot(name, disks.has_devices, disks.devices, errp);
    if (found == 0) {
        error_setg(errp, "Snapshot '%s' does not exist in one or more devices",
                   name);
    }
    if (found <= 0) {
        return NULL;
    }
    bs = bdrv_all_find_vmstate_bs(vmstate, disks.has_devices, disks.devices,
                                  errp);
    if (!bs) {
        return NULL;
    }
    size = vmstate_size(bs, name, errp);
    return size && check_vmstate(bs, name, size, errp) ? bs : NULL;
}

/* Whether the guest ran before the caller stopped it to load a snapshot. */
static bool ran_until_load;

static void run_state_changed(void *opaque, GlueRunning running, RunState state)
{
    ran_until_load = state == RUN_STATE_RESTORE_VM;
}

static void machine_done(Notifier *notifier, void *unused)
{
    qemu_add_vm_change_state_handler(run_state_changed, NULL);
}

/* In QEMU 5.2, the list of handlers is initialised after the constructors. */
static void __attribute__((constructor)) watch_run_state(void)
{
    static Notifier notifier = { .notify = machine_done };

    qemu_add_machine_init_done_notifier(&notifier);
}

bool load_snapshot(const char *name, const char *vmstate, bool has_devices,
                   strList *devices, Error **errp)
{
    Disks disks = { has_devices, devices };
    BlockDriverState *bs = find_loadable(name, vmstate, disks, errp);
    bool loaded, ran = ran_until_load;

    ran_until_load = false;
    if (!bs) {
        if (ran) {
            vm_start();
        }
        return false;
    }
    /* Pending events and requests belong to the state that is replaced. */
    replay_flush_events();
    bdrv_drain_all_begin();
    loaded = load_drained(bs, name, disks, errp);
    bdrv_drain_all_end();
    return loaded;
}
