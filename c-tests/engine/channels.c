/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files over the library's channels: every kind of URI, memory and descriptors. */
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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

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
