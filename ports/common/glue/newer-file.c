/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Parts of QEMUFile that QEMU has from 10.0 on: descriptors in a stream, access
 * to a position, and the process-wide count of bytes. The unit tests link this
 * file as well.
 */
#include "qemu/osdep.h"
#include "io/channel.h"
#include "migration/qemu-file.h"
#include "migration/migration-stats.h"
#include "glue.h"
#include "savevm/file.h"

#if GLUE_VERSION >= 1002
#define READ_FLAGS QIO_CHANNEL_READ_FLAG_FD_PRESERVE_BLOCKING
#else
#define READ_FLAGS 0
#endif

bool qemu_file_is_seekable(QEMUFile *f)
{
    return qio_channel_has_feature(savevm_file_channel(f),
                                   QIO_CHANNEL_FEATURE_SEEKABLE);
}

/* The count of the process includes the bytes that this file still queues. */
uint64_t qemu_file_transferred(QEMUFile *f)
{
    return stat64_get(&mig_stats.qemu_file_transferred) + savevm_file_queued(f);
}

static ssize_t count_written(ssize_t ret)
{
    if (ret > 0) {
        stat64_add(&mig_stats.qemu_file_transferred, ret);
    }
    return glue_result(ret);
}

static ssize_t channel_writev(void *ioc, const struct iovec *iov, int count,
                              Error **errp)
{
    return count_written(qio_channel_writev(ioc, iov, count, errp));
}

static ssize_t channel_pwrite(void *ioc, const uint8_t *buf, size_t len,
                              off_t offset, Error **errp)
{
    return count_written(qio_channel_pwrite(ioc, (char *)buf, len, offset,
                                            errp));
}

static ssize_t channel_pread(void *ioc, uint8_t *buf, size_t len, off_t offset,
                             Error **errp)
{
    return glue_result(qio_channel_pread(ioc, (char *)buf, len, offset, errp));
}

static off_t channel_seek(void *ioc, off_t offset, int whence, Error **errp)
{
    return glue_result(qio_channel_io_seek(ioc, offset, whence, errp));
}

static ssize_t channel_read_fds(void *ioc, uint8_t *buf, size_t len, int **fds,
                                size_t *fd_count, Error **errp)
{
    bool pass = qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_FD_PASS);
    struct iovec iov = { buf, len };

    return glue_result(qio_channel_readv_full(ioc, &iov, 1, pass ? fds : NULL,
                                              pass ? fd_count : NULL,
                                              READ_FLAGS, errp));
}

static ssize_t channel_write_fd(void *ioc, uint8_t byte, int fd, Error **errp)
{
    struct iovec iov = { &byte, 1 };

    return glue_result(qio_channel_writev_full(ioc, &iov, 1, &fd, 1, 0, errp));
}

void glue_newer_channel_ops(SaveVMChannelOps *ops)
{
    ops->writev = channel_writev;
    ops->pwrite = channel_pwrite;
    ops->pread = channel_pread;
    ops->seek = channel_seek;
    ops->read_fds = channel_read_fds;
    ops->write_fd = channel_write_fd;
}
