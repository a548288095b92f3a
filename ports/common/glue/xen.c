/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Xen's files with the devices only. Xen's tools migrate the memory. */
#include "qemu/osdep.h"
#include "qapi/qapi-commands-migration.h"
#include "block/block.h"
#include "io/channel-file.h"
#include "migration/global_state.h"
#include "migration/migration.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "glue.h"

static QEMUFile *xen_file(const char *path, bool writable, const char *name,
                          Error **errp)
{
    int flags = writable ? O_WRONLY | O_CREAT | O_TRUNC : O_RDONLY | O_BINARY;
    QIOChannelFile *ioc = qio_channel_file_new_path(path, flags, 0660, errp);
    QEMUFile *f;

    if (!ioc) {
        return NULL;
    }
    qio_channel_set_name(QIO_CHANNEL(ioc), name);
    f = writable ? qemu_file_new_output(QIO_CHANNEL(ioc))
                 : qemu_file_new_input(QIO_CHANNEL(ioc));
    object_unref(OBJECT(ioc));
    return f;
}

static void xen_save_stopped(const char *filename, bool give_disks_up,
                             Error **errp)
{
    QEMUFile *f = xen_file(filename, true, "migration-xen-save-state", errp);
    int saved, closed;

    if (!f) {
        return;
    }
    saved = qemu_save_device_state(f);
    closed = qemu_fclose(f);
    if (saved < 0 || closed < 0) {
        error_setg(errp, "An IO error has occurred");
    } else if (give_disks_up && !migration_block_inactivate()) {
        error_setg(errp, "%s: the disks could not be inactivated", __func__);
    }
}

void qmp_xen_save_devices_state(const char *filename, bool has_live, bool live,
                                Error **errp)
{
    bool running = runstate_is_running();

    vm_stop(RUN_STATE_SAVE_VM);
    global_state_store_running();
    /*
     * In a live migration, Xen's tools stop the guest before this call, and
     * start it again if the migration fails. The other side then needs the
     * disks.
     */
    xen_save_stopped(filename, (!has_live || live) && !running, errp);
    if (running) {
        vm_start();
    }
}

void qmp_xen_load_devices_state(const char *filename, Error **errp)
{
    Error *err = NULL;
    QEMUFile *f;
    int ret;

    if (runstate_is_running()) {
        error_setg(errp, "Cannot update device state while vm is running");
        return;
    }
    vm_stop(RUN_STATE_RESTORE_VM);
    f = xen_file(filename, false, "migration-xen-load-state", errp);
    if (!f) {
        return;
    }
    /* QEMU's cleanup of an incoming migration requires a yank instance. */
    yank_register_instance(MIGRATION_YANK_INSTANCE, NULL);
    ret = savevm_load_state(f, &err);
    qemu_fclose(f);
    if (ret < 0) {
        error_propagate_prepend(errp, err, "An IO error has occurred: ");
    }
    migration_incoming_state_destroy();
}
