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

static const QEMUFileOps *ops_of(GlueChannel *c)
{
    return c->ops;
}

/* Advances the position of a channel, or keeps the reason of a failure. */
static ssize_t channel_done(GlueChannel *c, bool write, ssize_t ret, Error *err)
{
    if (ret > 0) {
        c->position += ret;
    } else if (ret < 0) {
        g_free(c->failure[write]);
        c->failure[write] = err ? g_strdup(error_get_pretty(err)) : NULL;
    }
    error_free(err);
    return ret;
}

/* A coroutine that reads or writes is suspended in QEMU's functions. */

static ssize_t channel_read(void *channel, uint8_t *buf, size_t len)
{
    GlueChannel *c = channel;
    Error *err = NULL;
    ssize_t ret = ops_of(c)->get_buffer(c->opaque, buf, c->position, len, &err);

    return channel_done(c, false, ret, err);
}

static ssize_t channel_writev(void *channel, const struct iovec *iov, int count)
{
    GlueChannel *c = channel;
    Error *err = NULL;
    ssize_t ret;

    if (!ops_of(c)->writev_buffer) {
        /* A buffer of compressed pages, which is never flushed to a channel. */
        return iov_size(iov, count);
    }
    ret = ops_of(c)->writev_buffer(c->opaque, (struct iovec *)iov, count,
                                   c->position, &err);
    return channel_done(c, true, ret, err);
}

static int channel_shutdown(void *channel)
{
    GlueChannel *c = channel;

    return ops_of(c)->shut_down
           ? ops_of(c)->shut_down(c->opaque, true, true, NULL) : -ENOSYS;
}

static int channel_set_blocking(void *channel, bool blocking)
{
    GlueChannel *c = channel;

    /* As in QEMU, channels that do not support this report no error. */
    if (ops_of(c)->set_blocking) {
        ops_of(c)->set_blocking(c->opaque, blocking, NULL);
    }
    return 0;
}

static int channel_close(void *channel)
{
    GlueChannel *c = channel;

    return ops_of(c)->close ? ops_of(c)->close(c->opaque, NULL) : 0;
}

static void channel_free(void *channel)
{
    GlueChannel *c = channel;

    g_free(c->failure[false]);
    g_free(c->failure[true]);
    g_free(c);
}

static const SaveVMChannelOps channel_ops = {
    .size = sizeof(SaveVMChannelOps),
    .read = channel_read,
    .writev = channel_writev,
    .shutdown = channel_shutdown,
    .set_blocking = channel_set_blocking,
    .close = channel_close,
    .free = channel_free,
    .error = glue_channel_error,
};

QEMUFile *qemu_fopen_ops(void *opaque, const QEMUFileOps *ops)
{
    GlueChannel *c = g_new0(GlueChannel, 1);

    c->opaque = opaque;
    c->ops = ops;
    return savevm_file_from_channel(&channel_ops, c, !ops->get_buffer);
}

QEMUFile *qemu_file_get_return_path(QEMUFile *f)
{
    GlueChannel *c = savevm_file_channel(f);

    return c && ops_of(c)->get_return_path
           ? ops_of(c)->get_return_path(c->opaque) : NULL;
}

int64_t qemu_ftell(QEMUFile *f)
{
    return qemu_file_total_transferred(f);
}

int64_t qemu_ftell_fast(QEMUFile *f)
{
    return qemu_file_total_transferred_fast(f);
}

void qemu_update_position(QEMUFile *f, size_t size)
{
    GlueChannel *c = savevm_file_channel(f);

    c->position += size;
    qemu_file_credit_transfer(f, size);
}

void qemu_file_update_transfer(QEMUFile *f, int64_t len)
{
    qemu_file_acct_rate_limit(f, len);
}
