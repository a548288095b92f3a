/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files over every channel: a host's own functions, and every kind of URI. */
/* For access at an offset and descriptors. */
#define SAVEVM_QEMU_VERSION 1000
#include "harness.h"
#include "migration/qemu-file.h"
#include "savevm.h"
#include "savevm/file.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* A host's own channel */

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

TEST(own_functions_that_fail)
{
    QEMUFile *f;

    own_start();
    own.failure = -ENOSPC;
    f = savevm_file_from_channel(&own_ops, &own, true);
    qemu_put_byte(f, 1);
    qemu_fflush(f);
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

    own_start();
    own.failure = -ENOSPC;
    f = savevm_file_from_channel(&own_ops, &own, true);
    qemu_put_byte(f, 1);
    qemu_fflush(f);
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

/* URIs */

static char directory[64];

static void temporary(void)
{
    strcpy(directory, "/tmp/savevm-channels-XXXXXX");
    REQUIRE(mkdtemp(directory) != NULL);
}

static void clean(const char *name)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    unlink(path);
    rmdir(directory);
}

typedef struct Opening {
    const char *uri;
    bool writable;
    QEMUFile *f;
    Error *err;
} Opening;

static void *opens(void *opaque)
{
    Opening *opening = opaque;

    opening->f = savevm_file_open(opening->uri, opening->writable, &opening->err);
    return NULL;
}

/* Both ends of a URI, one in a thread. `ready` is a path that appears once it can be connected to. */
static void carried(const char *uri, const char *ready, bool duplex)
{
    Opening reading = { .uri = uri, .writable = false };
    Opening writing = { .uri = uri, .writable = true };
    pthread_t thread;
    QEMUFile *back;

    pthread_create(&thread, NULL, opens, &reading);
    if (ready) {
        WAIT_FOR(harness_listens(ready));
    }
    for (unsigned i = 0; i < 200 && !writing.f; i++) {
        error_free(writing.err);
        writing.err = NULL;
        opens(&writing);
        if (!writing.f) {
            harness_sleep_ms(10);
        }
    }
    pthread_join(thread, NULL);
    REQUIRE(writing.f && reading.f);
    CHECK(reading.err == NULL && writing.err == NULL);
    qemu_put_be64(writing.f, 0xfeedface);
    qemu_fflush(writing.f);
    CHECK_EQ(qemu_get_be64(reading.f), 0xfeedface);
    back = qemu_file_get_return_path(reading.f);
    CHECK_EQ(back != NULL, duplex);
    if (back) {
        QEMUFile *front = qemu_file_get_return_path(writing.f);

        qemu_put_be32(back, 1234);
        qemu_fflush(back);
        CHECK_EQ(qemu_get_be32(front), 1234);
        qemu_fclose(back);
        qemu_fclose(front);
    }
    CHECK_EQ(qemu_fclose(writing.f), 0);
    CHECK_EQ(qemu_get_byte(reading.f), 0);
    CHECK_EQ(qemu_file_get_error(reading.f), -EIO);
    qemu_fclose(reading.f);
}

TEST(unix_socket)
{
    char uri[128];

    temporary();
    snprintf(uri, sizeof(uri), "unix:%s/s", directory);
    carried(uri, uri + 5, true);
    clean("s");
}

/* A port that was free a moment ago. */
static unsigned free_port(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    REQUIRE(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    REQUIRE(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    close(fd);
    return ntohs(address.sin_port);
}

TEST(tcp)
{
    char uri[64];

    snprintf(uri, sizeof(uri), "tcp:127.0.0.1:%u", free_port());
    carried(uri, NULL, true);
}

TEST(a_regular_file)
{
    char uri[128];
    Error *err = NULL;
    QEMUFile *f;

    temporary();
    snprintf(uri, sizeof(uri), "file:%s/f", directory);
    f = savevm_file_open(uri, true, &err);
    REQUIRE(f != NULL);
    qemu_put_counted_string(f, "in a file");
    CHECK_EQ(qemu_fclose(f), 0);
    f = savevm_file_open(uri, false, &err);
    REQUIRE(f != NULL);
    CHECK_EQ(qemu_get_byte(f), 9);
    CHECK_EQ(qemu_get_byte(f), 'i');
    CHECK_EQ(qemu_fclose(f), 0);
    /* Writing again begins anew. */
    f = savevm_file_open(uri, true, &err);
    CHECK_EQ(qemu_fclose(f), 0);
    f = savevm_file_open(uri, false, &err);
    CHECK_EQ(qemu_get_byte(f), 0);
    CHECK_EQ(qemu_fclose(f), -EIO);
    clean("f");
}

TEST(a_descriptor)
{
    int fds[2];
    char uri[32];
    Error *err = NULL;
    QEMUFile *out, *in;

    REQUIRE(pipe(fds) == 0);
    snprintf(uri, sizeof(uri), "fd:%d", fds[1]);
    out = savevm_file_open(uri, true, &err);
    REQUIRE(out != NULL);
    qemu_put_be32(out, 5);
    CHECK_EQ(qemu_fclose(out), 0);
    /* To read, it waits until there is something. */
    snprintf(uri, sizeof(uri), "fd:%d", fds[0]);
    in = savevm_file_open(uri, false, &err);
    REQUIRE(in != NULL);
    CHECK_EQ(qemu_get_be32(in), 5);
    CHECK_EQ(qemu_fclose(in), 0);
    CHECK(fcntl(fds[0], F_GETFD) < 0);
    CHECK(fcntl(fds[1], F_GETFD) < 0);
}

TEST(a_command)
{
    char uri[160];
    Error *err = NULL;
    QEMUFile *f;

    temporary();
    snprintf(uri, sizeof(uri), "exec:cat >%s/f", directory);
    f = savevm_file_open(uri, true, &err);
    REQUIRE(f != NULL);
    qemu_put_counted_string(f, "through a command");
    CHECK_EQ(qemu_fclose(f), 0);
    snprintf(uri, sizeof(uri), "exec:cat %s/f", directory);
    f = savevm_file_open(uri, false, &err);
    REQUIRE(f != NULL);
    CHECK_EQ(qemu_get_byte(f), 17);
    qemu_fclose(f);
    f = savevm_file_open("exec:cat >/dev/null; exit 3", true, &err);
    REQUIRE(f != NULL);
    qemu_put_byte(f, 1);
    CHECK(qemu_fclose(f) < 0);
    clean("f");
}

TEST(uris_that_lead_nowhere)
{
    static const char *const list[] = {
        "",          "nothing", "x:y",          "unix:", "tcp:",          "tcp:127.0.0.1",
        "tcp::",     "fd:",     "fd:x",         "fd:-1", "fd:123456",     "fd:99999999999999",
        "file:",     "exec:",   "unix:/no/such/directory/socket", "file:/no/such/directory/file",
        "tcp:127.0.0.1:99999",  "tcp:127.0.0.1:x",
    };

    for (unsigned i = 0; i < 2 * sizeof(list) / sizeof(list[0]); i++) {
        Error *err = NULL;

        if (!CHECK(savevm_file_open(list[i / 2], i % 2, &err) == NULL) || !CHECK(err != NULL)) {
            fprintf(stderr, "    with %s\n", list[i / 2]);
            continue;
        }
        CHECK(savevm_error_info(err)->error > 0);
        CHECK(*error_get_pretty(err));
        error_free(err);
    }
    CHECK(savevm_file_open(NULL, true, NULL) == NULL);
    CHECK(savevm_file_open("nothing", true, NULL) == NULL);
}

TEST(connect_without_a_listener_fails)
{
    char uri[64];
    Error *err = NULL;

    snprintf(uri, sizeof(uri), "tcp:127.0.0.1:%u", free_port());
    CHECK(savevm_file_open(uri, true, &err) == NULL);
    CHECK_EQ(savevm_error_info(err)->error, ECONNREFUSED);
    error_free(err);
}

/* A peer may never connect, or send nothing. */
TEST(accept_without_a_peer_times_out)
{
    SaveVMLimits limits = SAVEVM_LIMITS_INIT;
    limits.open_timeout_ms = 50;
    char uris[5][128];
    bool writable[5] = { false, false, false, false, true };
    int fds[2];

    temporary();
    REQUIRE(pipe(fds) == 0);
    CHECK_EQ(savevm_set_limits(NULL, &limits), 0);
    snprintf(uris[0], sizeof(uris[0]), "unix:%s/s", directory);
    snprintf(uris[1], sizeof(uris[1]), "tcp:127.0.0.1:%u", free_port());
    snprintf(uris[2], sizeof(uris[2]), "fd:%d", fds[0]);
    snprintf(uris[3], sizeof(uris[3]), "exec:sleep 60");
    snprintf(uris[4], sizeof(uris[4]), "file:%s/f", directory);
    REQUIRE(mkfifo(uris[4] + 5, 0600) == 0);
    for (unsigned i = 0; i < 5; i++) {
        Error *err = NULL;

        CHECK(savevm_file_open(uris[i], writable[i], &err) == NULL);
        REQUIRE(err != NULL);
        CHECK_EQ(savevm_error_info(err)->error, ETIMEDOUT);
        CHECK(strstr(error_get_pretty(err), uris[i]) != NULL);
        error_free(err);
    }
    CHECK(fcntl(fds[0], F_GETFD) < 0);
    close(fds[1]);
    limits.open_timeout_ms = 0;
    CHECK_EQ(savevm_set_limits(NULL, &limits), 0);
    clean("f");
}

/* Directions */

TEST(memory_flows_one_way)
{
    QEMUFile *out = savevm_file_to_buffer();
    QEMUFile *in = savevm_file_from_buffer("a", 1);
    size_t len = 99;

    CHECK(savevm_file_buffer(in, &len) == NULL);
    CHECK_EQ(len, 99);
    CHECK(qemu_file_get_return_path(in) == NULL);
    CHECK(savevm_file_channel(in) == NULL);
    qemu_put_byte(in, 1);
    CHECK_EQ(qemu_file_get_error(in), -EBADF);
    CHECK_EQ(qemu_get_byte(out), 0);
    CHECK_EQ(qemu_file_get_error(out), -EBADF);
    qemu_fclose(in);
    qemu_fclose(out);
}

TEST(room_in_the_buffer)
{
    QEMUFile *f = savevm_file_to_buffer();
    uint8_t *room = savevm_file_reserve(f, 100);
    const uint8_t *bytes;
    size_t len = 0;

    REQUIRE(room != NULL);
    memset(room, 'r', 100);
    savevm_file_commit(f, 60);
    qemu_put_byte(f, '!');
    bytes = savevm_file_buffer(f, &len);
    CHECK_EQ(len, 61);
    CHECK_EQ(bytes[59], 'r');
    CHECK_EQ(bytes[60], '!');
    CHECK(savevm_file_reserve(f, 1 << 20) == NULL);
    qemu_file_set_error(f, -EIO);
    CHECK(savevm_file_reserve(f, 1) == NULL);
    qemu_fclose(f);
}

TEST(wrong_descriptors)
{
    int fds[2];

    CHECK(savevm_file_from_fd(-1, true) == NULL);
    CHECK(savevm_file_from_fd(12345, false) == NULL);
    REQUIRE(pipe(fds) == 0);
    CHECK(savevm_file_from_fd(fds[0], true) == NULL);
    CHECK(savevm_file_from_fd(fds[1], false) == NULL);
    CHECK(savevm_file_from_fd(open("/", O_RDONLY), false) == NULL);
}

/* The program never chose what SIGPIPE does, so it would end here. */
TEST(a_reader_that_went_away_raises_no_signal)
{
    int fds[3][2];
    char path[160];

    signal(SIGPIPE, SIG_DFL);
    REQUIRE(pipe(fds[0]) == 0);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds[1]) == 0);
    temporary();
    snprintf(path, sizeof(path), "%s/f", directory);
    REQUIRE(mkfifo(path, 0600) == 0);
    fds[2][0] = open(path, O_RDONLY | O_NONBLOCK);
    fds[2][1] = open(path, O_WRONLY);
    for (unsigned i = 0; i < 3; i++) {
        QEMUFile *f = savevm_file_from_fd(fds[i][1], true);

        REQUIRE(f != NULL);
        close(fds[i][0]);
        qemu_put_byte(f, 1);
        qemu_fflush(f);
        CHECK_EQ(qemu_file_get_error(f), -EIO);
        CHECK_EQ(qemu_fclose(f), -EIO);
    }
    clean("f");
}
