/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Parts of QEMUFile that QEMU has from 10.0 on: descriptors in a stream, access
 * to a position, and the process-wide count of bytes. The unit tests link this
 * file as well.
 */
#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/units.h"
#include "io/channel.h"
#include "migration/qemu-file.h"
#include "migration/migration-stats.h"
#include "migration/vmstate.h"
#include "glue.h"
#if GLUE_VERSION >= 1002
#include "migration/misc.h"
#define READ_FLAGS QIO_CHANNEL_READ_FLAG_FD_PRESERVE_BLOCKING
#else
#define READ_FLAGS 0
#endif
#include "savevm/file.h"

/* A function of QEMU 7.2 that the library still has. */
int64_t qemu_file_total_transferred_fast(QEMUFile *f);

static GlueChannel *channel_of(QEMUFile *f)
{
    return savevm_file_channel(f);
}

#if GLUE_VERSION < 1002
int vmstate_save_state_with_err(QEMUFile *f, const VMStateDescription *vmsd,
                                void *opaque, JSONWriter *vmdesc, Error **errp)
{
    int ret = vmstate_save_state(f, vmsd, opaque, vmdesc);

    if (ret) {
        error_setg(errp, "Save of '%s' failed: %d", vmsd->name, ret);
    }
    return ret;
}
#endif

bool vmstate_section_needed(const VMStateDescription *vmsd, void *opaque)
{
    return !vmsd->needed || vmsd->needed(opaque);
}

/* Bytes. The count of the process includes those that files still queue. */

void glue_account(uint64_t bytes)
{
    stat64_add(&mig_stats.qemu_file_transferred, bytes);
}

uint64_t qemu_file_transferred(QEMUFile *f)
{
    uint64_t queued = qemu_file_total_transferred_fast(f) -
                      channel_of(f)->written;

    return stat64_get(&mig_stats.qemu_file_transferred) + queued;
}

int qemu_fflush(QEMUFile *f)
{
    return savevm_file_flush(f);
}

int qemu_file_get_to_fd(QEMUFile *f, int fd, size_t size)
{
    uint8_t buffer[16 * KiB];

    while (size > 0) {
        size_t count = qemu_get_buffer(f, buffer, MIN(size, sizeof(buffer)));

        if (count == 0) {
            return qemu_file_get_error(f);
        }
        if (qemu_write_full(fd, buffer, count) != count) {
            return -errno;
        }
        size -= count;
    }
    return 0;
}

/* Access to a position */

bool qemu_file_is_seekable(QEMUFile *f)
{
    return qio_channel_has_feature(channel_of(f)->ioc,
                                   QIO_CHANNEL_FEATURE_SEEKABLE);
}

/* Sets the error of an access that did not do all of `expected` bytes. */
static bool access_failed(QEMUFile *f, ssize_t done, size_t expected,
                          const char *access, Error *err)
{
    if (done == expected && !err) {
        return false;
    }
    if (!err && done == QIO_CHANNEL_ERR_BLOCK) {
        qemu_file_set_error(f, -EAGAIN);
        return true;
    }
    if (!err) {
        error_setg(&err, "Partial %s of size %zd, expected %zu", access, done,
                   expected);
    }
    qemu_file_set_error_obj(f, -EIO, err);
    return true;
}

void qemu_put_buffer_at(QEMUFile *f, const uint8_t *buf, size_t buflen,
                        off_t pos)
{
    Error *err = NULL;
    ssize_t done;

    if (qemu_fflush(f)) {
        return;
    }
    done = qio_channel_pwrite(channel_of(f)->ioc, (char *)buf, buflen, pos,
                              &err);
    if (!access_failed(f, done, buflen, "write", err)) {
        glue_account(buflen);
    }
}

size_t qemu_get_buffer_at(QEMUFile *f, const uint8_t *buf, size_t buflen,
                          off_t pos)
{
    Error *err = NULL;
    ssize_t done;

    if (qemu_file_get_error(f)) {
        return 0;
    }
    done = qio_channel_pread(channel_of(f)->ioc, (char *)buf, buflen, pos,
                             &err);
    return access_failed(f, done, buflen, "read", err) ? 0 : done;
}

static off_t seek(QEMUFile *f, off_t offset, int whence)
{
    Error *err = NULL;
    off_t ret;

    qemu_fflush(f);
    ret = qio_channel_io_seek(channel_of(f)->ioc, offset, whence, &err);
    if (ret == (off_t)-1) {
        qemu_file_set_error_obj(f, -EIO, err);
    }
    return ret;
}

void qemu_set_offset(QEMUFile *f, off_t offset, int whence)
{
    savevm_file_drop_input(f);
    seek(f, offset, whence);
}

off_t qemu_get_offset(QEMUFile *f)
{
    return seek(f, 0, SEEK_CUR);
}

/* Descriptors. Each comes with one byte, a blank. */

ssize_t glue_read(GlueChannel *c, uint8_t *buf, size_t len, Error **errp)
{
    bool pass = qio_channel_has_feature(c->ioc, QIO_CHANNEL_FEATURE_FD_PASS);
    struct iovec iov = { buf, len };
    g_autofree int *fds = NULL;
    size_t count = 0;
    ssize_t ret = qio_channel_readv_full(c->ioc, &iov, 1, pass ? &fds : NULL,
                                         pass ? &count : NULL, READ_FLAGS,
                                         errp);

    if (count) {
        c->fds = g_renew(int, c->fds, c->fd_count + count);
        memcpy(c->fds + c->fd_count, fds, count * sizeof(int));
        c->fd_count += count;
    }
    return ret;
}

void glue_channel_clear(GlueChannel *c)
{
    size_t i;

    for (i = 0; i < c->fd_count; i++) {
        warn_report("qemu_fclose: received fd %d was never claimed", c->fds[i]);
        close(c->fds[i]);
    }
    g_free(c->fds);
}

int qemu_file_put_fd(QEMUFile *f, int fd)
{
    struct iovec iov = { (void *)" ", 1 };
    Error *err = NULL;

    qemu_fflush(f);
    if (qio_channel_writev_full(channel_of(f)->ioc, &iov, 1, &fd, 1, 0,
                                &err) < 1) {
        error_report_err(error_copy(err));
        qemu_file_set_error_obj(f, -EIO, err);
        return -1;
    }
    return 0;
}

int qemu_file_get_fd(QEMUFile *f)
{
    GlueChannel *c = channel_of(f);
    Error *err = NULL;
    int fd;

    if (!qio_channel_has_feature(c->ioc, QIO_CHANNEL_FEATURE_FD_PASS)) {
        error_setg(&err, "%s does not support fd passing", c->ioc->name);
        error_report_err(error_copy(err));
        qemu_file_set_error_obj(f, -EIO, err);
        return -1;
    }
    /* Reads the byte with which the descriptor comes, if it did not come. */
    qemu_peek_byte(f, 0);
    if (!c->fd_count) {
        return -1;
    }
    qemu_get_byte(f);
    fd = c->fds[0];
    c->fd_count--;
    memmove(c->fds, c->fds + 1, c->fd_count * sizeof(int));
    return fd;
}

/* A program that replaces itself keeps its descriptors with their numbers. */
static bool numbers_stay(void)
{
#if GLUE_VERSION >= 1002
    return migrate_mode() == MIG_MODE_CPR_EXEC;
#else
    return false;
#endif
}

static int get_fd(QEMUFile *f, void *pv, size_t size, const VMStateField *field)
{
    int32_t *fd = pv;

    if (numbers_stay()) {
        qemu_get_sbe32s(f, fd);
        return 0;
    }
    *fd = qemu_file_get_fd(f);
    return 0;
}

static int put_fd(QEMUFile *f, void *pv, size_t size, const VMStateField *field,
                  JSONWriter *vmdesc)
{
    int32_t *fd = pv;

    if (numbers_stay()) {
        qemu_put_sbe32s(f, fd);
        return 0;
    }
    return qemu_file_put_fd(f, *fd);
}

const VMStateInfo vmstate_info_fd = {
    .name = "fd",
    .get = get_fd,
    .put = put_fd,
};
