/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * QEMUFile over QIOChannel, as QEMU has it from 7.1 on. The unit tests link this
 * file as well, so it may use only QEMU's io and util.
 */
#include "qemu/osdep.h"
#include "qemu/coroutine.h"
#include "migration/qemu-file.h"
#include "glue.h"
#include "savevm/file.h"

static ssize_t channel_done(GlueChannel *c, bool write, ssize_t ret, Error *err)
{
    if (ret >= 0) {
        return ret;
    }
    if (ret == QIO_CHANNEL_ERR_BLOCK) {
        return -EAGAIN;
    }
    g_free(c->failure[write]);
    c->failure[write] = err ? g_strdup(error_get_pretty(err)) : NULL;
    error_free(err);
    return -EIO;
}

static ssize_t channel_read(void *channel, uint8_t *buf, size_t len)
{
    GlueChannel *c = channel;
    Error *err = NULL;
    ssize_t ret = glue_read(c, buf, len, &err);

    return channel_done(c, false, ret, err);
}

static ssize_t channel_writev(void *channel, const struct iovec *iov, int count)
{
    GlueChannel *c = channel;
    Error *err = NULL;
    ssize_t ret = qio_channel_writev(c->ioc, iov, count, &err);

    if (ret > 0) {
        c->written += ret;
        glue_account(ret);
    }
    return channel_done(c, true, ret, err);
}

static int channel_wait(void *channel, bool write)
{
    GlueChannel *c = channel;
    GIOCondition condition = write ? G_IO_OUT : G_IO_IN;

    if (qemu_in_coroutine()) {
        qio_channel_yield(c->ioc, condition);
    } else {
        qio_channel_wait(c->ioc, condition);
    }
    return 0;
}

static int channel_shutdown(void *channel)
{
    GlueChannel *c = channel;

    if (!qio_channel_has_feature(c->ioc, QIO_CHANNEL_FEATURE_SHUTDOWN)) {
        return -ENOSYS;
    }
    return qio_channel_shutdown(c->ioc, QIO_CHANNEL_SHUTDOWN_BOTH, NULL) < 0
           ? -EIO : 0;
}

static int channel_set_blocking(void *channel, bool blocking)
{
    GlueChannel *c = channel;

    /* As in QEMU, channels that do not support this report no error. */
    qio_channel_set_blocking(c->ioc, blocking, NULL);
    return 0;
}

static int channel_close(void *channel)
{
    GlueChannel *c = channel;

    return qio_channel_close(c->ioc, NULL);
}

static void channel_free(void *channel)
{
    GlueChannel *c = channel;

    glue_channel_clear(c);
    object_unref(OBJECT(c->ioc));
    g_free(c->failure[false]);
    g_free(c->failure[true]);
    g_free(c);
}

static const SaveVMChannelOps channel_ops = {
    .size = sizeof(SaveVMChannelOps),
    .read = channel_read,
    .writev = channel_writev,
    .wait = channel_wait,
    .shutdown = channel_shutdown,
    .set_blocking = channel_set_blocking,
    .close = channel_close,
    .free = channel_free,
    .error = glue_channel_error,
};

static QEMUFile *file_over(QIOChannel *ioc, bool writable)
{
    GlueChannel *c = g_new0(GlueChannel, 1);

    object_ref(OBJECT(ioc));
    c->ioc = ioc;
    return savevm_file_from_channel(&channel_ops, c, writable);
}

QEMUFile *qemu_file_new_output(QIOChannel *ioc)
{
    return file_over(ioc, true);
}

QEMUFile *qemu_file_new_input(QIOChannel *ioc)
{
    return file_over(ioc, false);
}

QIOChannel *qemu_file_get_ioc(QEMUFile *f)
{
    GlueChannel *c = savevm_file_channel(f);

    return c->ioc;
}
