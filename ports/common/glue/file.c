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

static ssize_t channel_read(void *ioc, uint8_t *buf, size_t len, Error **errp)
{
    return glue_result(qio_channel_read(ioc, (char *)buf, len, errp));
}

static ssize_t channel_writev(void *ioc, const struct iovec *iov, int count,
                              Error **errp)
{
    return glue_result(qio_channel_writev(ioc, iov, count, errp));
}

static int channel_wait(void *ioc, bool write)
{
    GIOCondition condition = write ? G_IO_OUT : G_IO_IN;

    if (qemu_in_coroutine()) {
        qio_channel_yield(ioc, condition);
    } else {
        qio_channel_wait(ioc, condition);
    }
    return 0;
}

static int channel_shutdown(void *ioc)
{
    if (!qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_SHUTDOWN)) {
        return -ENOSYS;
    }
    return glue_result(qio_channel_shutdown(ioc, QIO_CHANNEL_SHUTDOWN_BOTH,
                                            NULL));
}

static int channel_set_blocking(void *ioc, bool blocking)
{
    /* As in QEMU, channels that do not support this report no error. */
    qio_channel_set_blocking(ioc, blocking, NULL);
    return 0;
}

static int channel_close(void *ioc)
{
    return qio_channel_close(ioc, NULL);
}

/* The channel of a file is its QIOChannel. */
static QEMUFile *file_over(QIOChannel *ioc, bool writable)
{
    SaveVMChannelOps ops = {
        .size = sizeof(SaveVMChannelOps),
        .read = channel_read,
        .writev = channel_writev,
        .wait = channel_wait,
        .shutdown = channel_shutdown,
        .set_blocking = channel_set_blocking,
        .close = channel_close,
        .free = object_unref,
    };

#if GLUE_VERSION >= 1000
    glue_newer_channel_ops(&ops);
#endif
    object_ref(OBJECT(ioc));
    return savevm_file_from_channel(&ops, ioc, writable);
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
    return savevm_file_channel(f);
}
