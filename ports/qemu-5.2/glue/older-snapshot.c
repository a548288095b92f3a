/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Snapshots in disk images, with the arguments that QEMU 5.2 gives them. */
#include "qemu/osdep.h"
#include "block/block_int.h"
#include "migration/qemu-file.h"
#include "migration/snapshot.h"
#include "glue.h"

/* version.h defines macros with these names. */
#undef bdrv_all_can_snapshot
#undef bdrv_all_delete_snapshot
#undef bdrv_all_goto_snapshot
#undef bdrv_all_create_snapshot
#undef bdrv_all_find_vmstate_bs
#undef save_snapshot
#undef load_snapshot

bool glue_all_can_snapshot(Error **errp)
{
    BlockDriverState *bs;

    if (bdrv_all_can_snapshot(&bs)) {
        return true;
    }
    error_setg(errp, "Device '%s' is writable but does not support snapshots",
               bdrv_get_device_or_node_name(bs));
    return false;
}

int glue_all_has_snapshot(const char *name)
{
    BlockDriverState *bs;

    return bdrv_all_find_snapshot(name, &bs) >= 0;
}

int glue_all_delete_snapshot(const char *name, Error **errp)
{
    BlockDriverState *bs;
    int ret = bdrv_all_delete_snapshot(name, &bs, errp);

    if (ret < 0) {
        error_prepend(errp, "Error while deleting snapshot on device '%s': ",
                      bdrv_get_device_or_node_name(bs));
    }
    return ret;
}

int glue_all_goto_snapshot(const char *name, Error **errp)
{
    BlockDriverState *bs;
    int ret = bdrv_all_goto_snapshot(name, &bs, errp);

    if (ret < 0) {
        error_prepend(errp, "Could not load snapshot '%s' on '%s': ", name,
                      bdrv_get_device_or_node_name(bs));
    }
    return ret;
}

int glue_all_create_snapshot(QEMUSnapshotInfo *sn, BlockDriverState *bs,
                             uint64_t size, Error **errp)
{
    BlockDriverState *bad;
    int ret = bdrv_all_create_snapshot(sn, bs, size, &bad);

    if (ret < 0) {
        error_setg(errp, "Error while creating snapshot on '%s'",
                   bdrv_get_device_or_node_name(bad));
    }
    return ret;
}

/* The error without a device, which QEMU words differently for a load. */
static const char *no_device;

BlockDriverState *glue_all_find_vmstate_bs(Error **errp)
{
    BlockDriverState *bs = bdrv_all_find_vmstate_bs();

    if (!bs) {
        error_setg(errp, "%s", no_device);
    }
    return bs;
}

int save_snapshot(const char *name, Error **errp)
{
    no_device = "No block device can accept snapshots";
    return glue_save_snapshot(name, true, NULL, false, NULL, errp) ? 0 : -1;
}

int load_snapshot(const char *name, Error **errp)
{
    no_device = "No block device supports snapshots";
    return glue_load_snapshot(name, NULL, false, NULL, errp) ? 0 : -1;
}

/* The file of the VM state in an image */

static ssize_t vmstate_read(void *opaque, uint8_t *buf, int64_t pos,
                            size_t size, Error **errp)
{
    return bdrv_load_vmstate(opaque, buf, pos, size);
}

static ssize_t vmstate_write(void *opaque, struct iovec *iov, int count,
                             int64_t pos, Error **errp)
{
    QEMUIOVector vector;
    int ret;

    qemu_iovec_init_external(&vector, iov, count);
    ret = bdrv_writev_vmstate(opaque, &vector, pos);
    return ret < 0 ? ret : vector.size;
}

static int vmstate_close(void *opaque, Error **errp)
{
    return bdrv_flush(opaque);
}

QEMUFile *glue_vmstate_file(BlockDriverState *bs, bool writable)
{
    static const QEMUFileOps read_ops = {
        .get_buffer = vmstate_read,
        .close = vmstate_close,
    };
    static const QEMUFileOps write_ops = {
        .writev_buffer = vmstate_write,
        .close = vmstate_close,
    };

    return qemu_fopen_ops(bs, writable ? &write_ops : &read_ops);
}
