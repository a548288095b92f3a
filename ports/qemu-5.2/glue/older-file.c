/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * QEMUFile over the functions that QEMU opens it with up to 7.0. The unit tests
 * link this file as well.
 */
#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "migration/qemu-file.h"
#include "glue.h"
#include "savevm/file.h"

typedef struct Channel {
    void *opaque;
    const QEMUFileOps *ops;
    int64_t position;
} Channel;

/* By this reference the linker takes program-file.c from its archive. */
static void *program __attribute__((used)) = glue_program_ops;

static ssize_t advance(Channel *c, ssize_t ret)
{
    c->position += ret > 0 ? ret : 0;
    return ret;
}

/* A coroutine that reads or writes is suspended in QEMU's functions. */

static ssize_t channel_read(void *channel, uint8_t *buf, size_t len,
                            Error **errp)
{
    Channel *c = channel;

    return advance(c, c->ops->get_buffer(c->opaque, buf, c->position, len,
                                         errp));
}

static ssize_t channel_writev(void *channel, const struct iovec *iov, int count,
                              Error **errp)
{
    Channel *c = channel;

    if (!c->ops->writev_buffer) {
        /* A buffer of compressed pages, which is never flushed to a channel. */
        return iov_size(iov, count);
    }
    return advance(c, c->ops->writev_buffer(c->opaque, (struct iovec *)iov,
                                            count, c->position, errp));
}

static int channel_shutdown(void *channel)
{
    Channel *c = channel;

    return c->ops->shut_down ? c->ops->shut_down(c->opaque, true, true, NULL)
                             : -ENOSYS;
}

static int channel_set_blocking(void *channel, bool blocking)
{
    Channel *c = channel;

    /* As in QEMU, channels that do not support this report no error. */
    if (c->ops->set_blocking) {
        c->ops->set_blocking(c->opaque, blocking, NULL);
    }
    return 0;
}

static int channel_close(void *channel)
{
    Channel *c = channel;

    return c->ops->close ? c->ops->close(c->opaque, NULL) : 0;
}

static const SaveVMChannelOps channel_ops = {
    .size = sizeof(SaveVMChannelOps),
    .read = channel_read,
    .writev = channel_writev,
    .shutdown = channel_shutdown,
    .set_blocking = channel_set_blocking,
    .close = channel_close,
    .free = g_free,
};

QEMUFile *qemu_fopen_ops(void *opaque, const QEMUFileOps *ops)
{
    Channel *c = g_new0(Channel, 1);

    c->opaque = opaque;
    c->ops = ops;
    return savevm_file_from_channel(&channel_ops, c, !ops->get_buffer);
}

/* The hooks get what the file was opened with. */
void qemu_file_set_hooks(QEMUFile *f, const QEMUFileHooks *hooks)
{
    Channel *c = savevm_file_channel(f);

    savevm_file_set_opaque_hooks(f, hooks, c->opaque);
}

QEMUFile *qemu_file_get_return_path(QEMUFile *f)
{
    Channel *c = savevm_file_channel(f);

    return c && c->ops->get_return_path ? c->ops->get_return_path(c->opaque)
                                        : NULL;
}
