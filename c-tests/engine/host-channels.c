/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files over a channel of the host's own functions: their results, errors, offsets and descriptors. */
/* QEMU 10.0 declares access at an offset and descriptors. */
#define SAVEVM_QEMU_VERSION 1000
#include "harness.h"
#include "migration/qemu-file.h"
#include "savevm.h"
#include "savevm/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct Own {
    uint8_t bytes[1 << 18];
    size_t put;
    size_t got;
    size_t step;          /* at most so many bytes per call */
    unsigned again;       /* every so many calls says -EAGAIN */
    unsigned calls;
    atomic_uint waits;
    bool wait_for_write;
    int wait_result;
    int failure;
    atomic_uint shutdowns;
    unsigned closes;
    unsigned frees;
    int blocking;
    int close_result;
} Own;

static bool says_again(Own *own)
{
    return own->again && ++own->calls % own->again == 0;
}

static ptrdiff_t own_read(void *channel, uint8_t *buf, size_t len, Error **errp)
{
    Own *own = channel;

    if (own->failure) {
        savevm_error_set(errp, -own->failure, "the reason of the channel");
        return own->failure;
    }
    if (says_again(own)) {
        return -EAGAIN;
    }
    len = len < own->step ? len : own->step;
    len = len < own->put - own->got ? len : own->put - own->got;
    memcpy(buf, own->bytes + own->got, len);
    own->got += len;
    return (ptrdiff_t)len;
}

static ptrdiff_t own_writev(void *channel, const struct iovec *iov, int count, Error **errp)
{
    Own *own = channel;
    size_t left = own->step;

    CHECK(count > 0 && count <= 64);
    if (own->failure) {
        savevm_error_set(errp, -own->failure, "the reason of the channel");
        return own->failure;
    }
    if (says_again(own)) {
        return -EAGAIN;
    }
    for (int i = 0; i < count && left > 0; i++) {
        size_t some = iov[i].iov_len < left ? iov[i].iov_len : left;

        memcpy(own->bytes + own->put, iov[i].iov_base, some);
        own->put += some;
        left -= some;
    }
    return (ptrdiff_t)(own->step - left);
}

static int own_wait(void *channel, bool write)
{
    Own *own = channel;

    own->waits++;
    own->wait_for_write = write;
    return own->wait_result;
}

static int own_shutdown(void *channel)
{
    ((Own *)channel)->shutdowns++;
    return 0;
}

static int own_blocking(void *channel, bool blocking)
{
    ((Own *)channel)->blocking = blocking;
    return 0;
}

static int own_close(void *channel)
{
    Own *own = channel;

    own->closes++;
    return own->close_result;
}

static void own_free(void *channel)
{
    ((Own *)channel)->frees++;
}

/* Access at an offset, in steps, and the position. */

static ptrdiff_t own_pread(void *channel, uint8_t *buf, size_t len, off_t offset, Error **errp)
{
    Own *own = channel;
    size_t left = (size_t)offset < sizeof(own->bytes) ? sizeof(own->bytes) - (size_t)offset : 0;

    if (own->failure) {
        savevm_error_set(errp, -own->failure, "the reason of the channel");
        return own->failure;
    }
    len = len < own->step ? len : own->step;
    len = len < left ? len : left;
    memcpy(buf, own->bytes + offset, len);
    return (ptrdiff_t)len;
}

static ptrdiff_t own_pwrite(void *channel, const uint8_t *buf, size_t len, off_t offset, Error **errp)
{
    Own *own = channel;

    if (own->failure) {
        savevm_error_set(errp, -own->failure, "the reason of the channel");
        return own->failure;
    }
    len = len < own->step ? len : own->step;
    memcpy(own->bytes + offset, buf, len);
    return (ptrdiff_t)len;
}

static off_t own_seek(void *channel, off_t offset, int whence, Error **errp)
{
    Own *own = channel;

    (void)errp;
    CHECK(whence == SEEK_SET || (whence == SEEK_CUR && offset == 0));
    if (whence == SEEK_SET) {
        own->got = (size_t)offset;
        own->put = (size_t)offset;
    }
    return (off_t)own->got;
}

/* Each byte comes with an open descriptor. */
static ptrdiff_t own_read_fds(void *channel, uint8_t *buf, size_t len, int **fds, size_t *fd_count, Error **errp)
{
    ptrdiff_t ret = own_read(channel, buf, len < 1 ? len : 1, errp);

    if (ret == 1) {
        *fds = malloc(sizeof(int));
        (*fds)[0] = open("/dev/null", O_RDONLY);
        *fd_count = 1;
    }
    return ret;
}

static ptrdiff_t own_write_fd(void *channel, uint8_t byte, int fd, Error **errp)
{
    struct iovec iov = { &byte, 1 };

    CHECK(fcntl(fd, F_GETFD) >= 0);
    return own_writev(channel, &iov, 1, errp);
}

static const SaveVMChannelOps own_ops = {
    .size = sizeof(SaveVMChannelOps),
    .read = own_read,
    .writev = own_writev,
    .wait = own_wait,
    .shutdown = own_shutdown,
    .set_blocking = own_blocking,
    .close = own_close,
    .free = own_free,
    .pread = own_pread,
    .pwrite = own_pwrite,
    .seek = own_seek,
    .write_fd = own_write_fd,
};

static Own own;

static void own_start(void)
{
    memset(&own, 0, sizeof(own));
    own.step = sizeof(own.bytes);
    own.blocking = -1;
}

static void fill(uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        bytes[i] = (uint8_t)(i * 13 + i / 241);
    }
}

TEST(own_functions)
{
    static uint8_t out[100000], in[100000];
    static const size_t steps[] = { 1 << 18, 1000, 7, 1 };

    fill(out, sizeof(out));
    for (unsigned i = 0; i < 4; i++) {
        QEMUFile *f;

        own_start();
        own.step = steps[i];
        own.again = i ? 3 : 0;
        f = savevm_file_from_channel(&own_ops, &own, true);
        REQUIRE(f != NULL);
        CHECK(savevm_file_channel(f) == &own);
        qemu_put_buffer(f, out, 50000);
        qemu_put_buffer_async(f, out + 50000, 50000, false);
        CHECK_EQ(qemu_fclose(f), 0);
        CHECK_MEM(own.bytes, own.put, out, sizeof(out));
        CHECK_EQ(own.closes, 1);
        CHECK_EQ(own.frees, 1);
        CHECK(!own.again || (own.waits > 0 && own.wait_for_write));
        f = savevm_file_from_channel(&own_ops, &own, false);
        own.waits = 0;
        CHECK_EQ(qemu_get_buffer(f, in, sizeof(in)), sizeof(in));
        CHECK_MEM(in, sizeof(in), out, sizeof(out));
        CHECK_EQ(qemu_get_byte(f), 0);
        CHECK_EQ(qemu_file_get_error(f), -EIO);
        CHECK(!own.again || (own.waits > 0 && !own.wait_for_write));
        CHECK_EQ(qemu_fclose(f), -EIO);
        CHECK_EQ(own.closes, 2);
        CHECK_EQ(own.frees, 2);
    }
}

/* Returns a file whose first byte could not be written. */
static QEMUFile *start_and_fail_to_write(void)
{
    QEMUFile *f;

    own_start();
    own.failure = -ENOSPC;
    f = savevm_file_from_channel(&own_ops, &own, true);
    qemu_put_byte(f, 1);
    qemu_fflush(f);
    return f;
}

TEST(own_functions_that_fail)
{
    QEMUFile *f;

    f = start_and_fail_to_write();
    CHECK(qemu_file_get_error(f) < 0);
    CHECK(qemu_fclose(f) < 0);
    CHECK_EQ(own.closes, 1);
    CHECK_EQ(own.frees, 1);

    own_start();
    own.again = 1;
    own.wait_result = -ETIMEDOUT;
    f = savevm_file_from_channel(&own_ops, &own, false);
    CHECK_EQ(qemu_get_byte(f), 0);
    CHECK(qemu_file_get_error(f) < 0);
    CHECK_EQ(own.waits, 1);
    qemu_fclose(f);

    own_start();
    own.close_result = -EIO;
    f = savevm_file_from_channel(&own_ops, &own, true);
    CHECK_EQ(qemu_fclose(f), -EIO);
}

TEST(own_functions_beside_read_and_write)
{
    QEMUFile *f, *back;

    own_start();
    f = savevm_file_from_channel(&own_ops, &own, true);
    qemu_file_set_blocking(f, false);
    CHECK_EQ(own.blocking, 0);
    qemu_file_set_blocking(f, true);
    CHECK_EQ(own.blocking, 1);
    back = qemu_file_get_return_path(f);
    REQUIRE(back != NULL);
    CHECK(!qemu_file_is_writable(back));
    CHECK_EQ(qemu_file_shutdown(f), 0);
    CHECK_EQ(own.shutdowns, 1);
    CHECK_EQ(qemu_file_get_error(f), -EIO);
    CHECK_EQ(own.frees, 0);
    qemu_fclose(back);
    CHECK_EQ(own.frees, 0);
    qemu_fclose(f);
    CHECK_EQ(own.frees, 1);
    CHECK_EQ(own.closes, 2);
}

/* As in QEMU, the error of a channel is -EIO. Its text says the reason. */
static void check_reason(QEMUFile *f)
{
    Error *err = NULL;

    CHECK_EQ(qemu_file_get_error_obj(f, &err), -EIO);
    CHECK(err && strstr(error_get_pretty(err), "the reason of the channel"));
    error_free(err);
}

TEST(error_of_an_own_function_is_the_error_of_the_file)
{
    QEMUFile *f;

    f = start_and_fail_to_write();
    check_reason(f);
    qemu_fclose(f);
    f = savevm_file_from_channel(&own_ops, &own, false);
    CHECK_EQ(qemu_get_byte(f), 0);
    check_reason(f);
    qemu_fclose(f);
    f = savevm_file_from_channel(&own_ops, &own, true);
    qemu_put_buffer_at(f, (const uint8_t *)"x", 1, 5);
    check_reason(f);
    qemu_fclose(f);
}

TEST(access_at_an_offset)
{
    uint8_t in[10];
    QEMUFile *f;

    own_start();
    own.step = 3;
    f = savevm_file_from_channel(&own_ops, &own, true);
    qemu_put_buffer(f, (const uint8_t *)"begin", 5);
    CHECK_EQ(savevm_file_queued(f), 5);
    CHECK(savevm_file_data(f) == NULL);
    savevm_file_set_data(f, &own);
    CHECK(savevm_file_data(f) == &own);
    qemu_put_buffer_at(f, (const uint8_t *)"0123456789", 10, 100);
    CHECK_EQ(savevm_file_queued(f), 0);
    CHECK_EQ(memcmp(own.bytes, "begin", 5), 0);
    CHECK_EQ(memcmp(own.bytes + 100, "0123456789", 10), 0);
    qemu_set_offset(f, 200, SEEK_SET);
    qemu_put_byte(f, 'x');
    CHECK_EQ(qemu_fclose(f), 0);
    CHECK_EQ(own.bytes[200], 'x');

    own.got = 0;
    f = savevm_file_from_channel(&own_ops, &own, false);
    CHECK_EQ(qemu_get_byte(f), 'b');
    CHECK_EQ(qemu_get_buffer_at(f, in, sizeof(in), 100), sizeof(in));
    CHECK_EQ(memcmp(in, "0123456789", 10), 0);
    qemu_set_offset(f, 200, SEEK_SET);
    own.put = 201;
    CHECK_EQ(qemu_get_offset(f), 200);
    CHECK_EQ(qemu_get_byte(f), 'x');
    CHECK_EQ(qemu_file_get_error(f), 0);
    CHECK_EQ(qemu_get_buffer_at(f, in, sizeof(in), sizeof(own.bytes) - 5), 0);
    CHECK_EQ(qemu_file_get_error(f), -EIO);
    qemu_fclose(f);
}

TEST(channel_without_offsets)
{
    QEMUFile *f = savevm_file_to_buffer();

    qemu_put_buffer_at(f, (const uint8_t *)"x", 1, 5);
    CHECK_EQ(qemu_file_get_error(f), -EIO);
    qemu_fclose(f);
}

TEST(descriptors_of_an_own_channel)
{
    SaveVMChannelOps ops = own_ops;
    QEMUFile *f;
    int fd;

    own_start();
    f = savevm_file_from_channel(&ops, &own, true);
    CHECK_EQ(qemu_file_put_fd(f, 0), 0);
    qemu_put_byte(f, 7);
    CHECK_EQ(qemu_fclose(f), 0);
    ops.read_fds = own_read_fds;
    f = savevm_file_from_channel(&ops, &own, false);
    fd = qemu_file_get_fd(f);
    CHECK(fd >= 0 && fcntl(fd, F_GETFD) >= 0);
    close(fd);
    CHECK_EQ(qemu_get_byte(f), 7);
    /* The descriptor of the last byte is closed with the file. */
    CHECK_EQ(qemu_fclose(f), 0);
}

TEST(own_functions_that_are_missing)
{
    SaveVMChannelOps ops = SAVEVM_CHANNEL_OPS_INIT;
    ops.read = own_read;
    QEMUFile *f;

    own_start();
    CHECK(savevm_file_from_channel(NULL, &own, true) == NULL);
    CHECK(savevm_file_from_channel(&ops, &own, true) == NULL);
    f = savevm_file_from_channel(&ops, &own, false);
    REQUIRE(f != NULL);
    CHECK_EQ(qemu_file_shutdown(f), -ENOSYS);
    qemu_file_set_blocking(f, true);
    CHECK(qemu_file_get_return_path(f) == NULL);
    qemu_fclose(f);
    ops.size = sizeof(size_t);
    CHECK(savevm_file_from_channel(&ops, &own, false) == NULL);
}
