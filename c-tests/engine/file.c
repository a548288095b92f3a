/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every function of QEMUFile, in memory and over descriptors, with results and bytes. */
#include "harness.h"
#include "migration/qemu-file.h"
#include "backend.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER 32768

__attribute__((constructor)) static void before(void)
{
    harness_before = backend_start;
}

/* A reader of what was written to `f`, which is closed. */
static QEMUFile *turned(QEMUFile *f)
{
    size_t len = 0;
    const uint8_t *bytes = backend_bytes(f, &len);
    QEMUFile *in = backend_reader(bytes, len);

    CHECK_EQ(qemu_fclose(f), 0);
    return in;
}

static void fill(uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        bytes[i] = (uint8_t)(i * 31 + i / 251);
    }
}

TEST(numbers)
{
    QEMUFile *f = backend_writer();
    int8_t s8 = -5;
    int16_t s16 = -300;
    int32_t s32 = -70000;
    int64_t s64 = -5000000000;
    uint8_t u8 = 200;
    uint16_t u16 = 60000;
    uint32_t u32 = 4000000000;
    uint64_t u64 = 0x8000000000000001;

    qemu_put_byte(f, 0x1ff);
    qemu_put_byte(f, -1);
    qemu_put_sbyte(f, -2);
    qemu_put_be16(f, 0x12345);
    qemu_put_be32(f, 0x89abcdef);
    qemu_put_be64(f, 0x0123456789abcdef);
    qemu_put_sbe16(f, -1);
    qemu_put_sbe32(f, -2);
    qemu_put_sbe64(f, -3);
    qemu_put_8s(f, &u8);
    qemu_put_be16s(f, &u16);
    qemu_put_be32s(f, &u32);
    qemu_put_be64s(f, &u64);
    qemu_put_s8s(f, &s8);
    qemu_put_sbe16s(f, &s16);
    qemu_put_sbe32s(f, &s32);
    qemu_put_sbe64s(f, &s64);
    trace_written("numbers", f);
    f = turned(f);
    trace("%d %u %d", qemu_get_byte(f), qemu_get_ubyte(f), qemu_get_sbyte(f));
    trace("%x", qemu_get_be16(f));
    trace("%x", qemu_get_be32(f));
    trace("%llx", (unsigned long long)qemu_get_be64(f));
    trace("%d", qemu_get_sbe16(f));
    trace("%d", qemu_get_sbe32(f));
    trace("%lld", (long long)qemu_get_sbe64(f));
    qemu_get_8s(f, &u8);
    qemu_get_be16s(f, &u16);
    qemu_get_be32s(f, &u32);
    qemu_get_be64s(f, &u64);
    qemu_get_s8s(f, &s8);
    qemu_get_sbe16s(f, &s16);
    qemu_get_sbe32s(f, &s32);
    qemu_get_sbe64s(f, &s64);
    trace("%u %u %u %llu %d %d %d %lld", u8, u16, u32, (unsigned long long)u64, s8, s16, s32, (long long)s64);
    trace("error %d", qemu_file_get_error(f));
    trace("past the end %d, error %d", qemu_get_byte(f), qemu_file_get_error(f));
    qemu_get_be64s(f, &u64);
    trace("and on %llu, close %d", (unsigned long long)u64, qemu_fclose(f));
}

/* A number of which only some bytes are there. */
TEST(numbers_that_are_cut)
{
    for (size_t len = 0; len < 8; len++) {
        QEMUFile *f = backend_reader("\x11\x22\x33\x44\x55\x66\x77\x88", len);

        trace("%zu bytes: %llx, error %d", len, (unsigned long long)qemu_get_be64(f), qemu_file_get_error(f));
        qemu_fclose(f);
    }
}

TEST(strings)
{
    QEMUFile *f = backend_writer();
    char text[256], name[256];

    memset(name, 'n', 255);
    name[255] = 0;
    qemu_put_counted_string(f, "");
    qemu_put_counted_string(f, "name");
    qemu_put_counted_string(f, name);
    trace_written("strings", f);
    f = turned(f);
    for (unsigned i = 0; i < 3; i++) {
        trace("%zu '%s'", qemu_get_counted_string(f, text), text);
    }
    trace("%zu '%s' %d", qemu_get_counted_string(f, text), text, qemu_file_get_error(f));
    qemu_fclose(f);
    f = backend_reader("\x05hell", 5);
    memset(text, '#', sizeof(text));
    trace("cut: %zu, error %d", qemu_get_counted_string(f, text), qemu_file_get_error(f));
    qemu_fclose(f);
}

TEST(buffers_around_the_size_of_the_file_buffer)
{
    static const size_t sizes[] = { 0, 1, 4096, BUFFER - 1, BUFFER, BUFFER + 1, 3 * BUFFER + 7 };
    static uint8_t out[4 * BUFFER], in[4 * BUFFER];

    fill(out, sizeof(out));
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (unsigned j = 0; j < sizeof(sizes) / sizeof(sizes[0]); j++) {
            QEMUFile *f = backend_writer();
            const uint8_t *bytes;
            size_t len = 0;

            qemu_put_byte(f, 1);
            qemu_put_buffer(f, out, sizes[i]);
            qemu_put_buffer(f, out + 1, sizes[j]);
            bytes = backend_bytes(f, &len);
            CHECK_EQ(len, 1 + sizes[i] + sizes[j]);
            trace_digest("buffers", bytes, len);
            f = turned(f);
            memset(in, 0, sizeof(in));
            qemu_get_byte(f);
            CHECK_EQ(qemu_get_buffer(f, in, sizes[i]), sizes[i]);
            CHECK_MEM(in, sizes[i], out, sizes[i]);
            CHECK_EQ(qemu_get_buffer(f, in, sizes[j]), sizes[j]);
            CHECK_MEM(in, sizes[j], out + 1, sizes[j]);
            trace("more: %zu, error %d", qemu_get_buffer(f, in, 10), qemu_file_get_error(f));
            qemu_fclose(f);
        }
    }
}

TEST(short_reads)
{
    uint8_t in[16];
    QEMUFile *f = backend_reader("abcdefgh", 8);

    memset(in, '.', sizeof(in));
    trace("%zu of 5", qemu_get_buffer(f, in, 5));
    trace("%zu of 9, error %d", qemu_get_buffer(f, in + 5, 9), qemu_file_get_error(f));
    trace_bytes("in", in, sizeof(in));
    trace("close %d", qemu_fclose(f));
}

TEST(peeking_and_skipping)
{
    QEMUFile *f = backend_reader("0123456789", 10);
    uint8_t *at = NULL;
    uint8_t in[4];

    trace("%c%c%c", qemu_peek_byte(f, 0), qemu_peek_byte(f, 1), qemu_peek_byte(f, 2));
    trace("%zu %.4s", qemu_peek_buffer(f, &at, 4, 0), "");
    trace("%.4s", at);
    trace("%zu", qemu_peek_buffer(f, &at, 4, 3));
    trace("%.4s", at);
    trace("%zu", qemu_peek_buffer(f, &at, 8, 5));
    trace("%.5s, error %d", at, qemu_file_get_error(f));
    qemu_file_skip(f, 2);
    trace("%c", qemu_get_byte(f));
    /* More than is there is not skipped. */
    qemu_file_skip(f, 100);
    trace("%c", qemu_peek_byte(f, 0));
    qemu_file_skip(f, 4);
    trace("%zu %.3s", qemu_get_buffer(f, in, 4), in);
    trace("%d", qemu_peek_byte(f, 0));
    trace("%zu", qemu_peek_buffer(f, &at, 1, 0));
    trace("close %d", qemu_fclose(f));
}

TEST(in_place)
{
    static uint8_t out[3 * BUFFER], in[3 * BUFFER];
    uint8_t *at = in;
    QEMUFile *f;

    fill(out, sizeof(out));
    f = backend_reader(out, sizeof(out));
    trace("%zu, moved %d", qemu_get_buffer_in_place(f, &at, 100), at != in);
    CHECK_MEM(at, 100, out, 100);
    at = in;
    trace("%zu, moved %d", qemu_get_buffer_in_place(f, &at, BUFFER - 1), at != in);
    CHECK_MEM(at, BUFFER - 1, out + 100, BUFFER - 1);
    at = in;
    trace("%zu, moved %d", qemu_get_buffer_in_place(f, &at, BUFFER), at != in);
    CHECK_MEM(at, BUFFER, out + 99 + BUFFER, BUFFER);
    at = in;
    trace("%zu, error %d", qemu_get_buffer_in_place(f, &at, BUFFER), qemu_file_get_error(f));
    trace("close %d", qemu_fclose(f));
}

TEST(async_and_copied_in_turns)
{
    static uint8_t pages[100][64];
    QEMUFile *f = backend_writer();
    const uint8_t *bytes;
    size_t len = 0;

    fill(pages[0], sizeof(pages));
    for (unsigned i = 0; i < 100; i++) {
        qemu_put_be16(f, i);
        qemu_put_buffer_async(f, pages[99 - i], 64, false);
        qemu_put_byte(f, 0xee);
        qemu_put_buffer(f, pages[i], 64);
    }
    bytes = backend_bytes(f, &len);
    trace_digest("in turns", bytes, len);
    trace("total %lld", (long long)backend_transferred(f));
    CHECK_EQ(qemu_fclose(f), 0);
}

/* Neighbours in memory, and more pieces than one write takes. */
TEST(async_pieces)
{
    static uint8_t pages[300][16];
    QEMUFile *f = backend_writer();
    const uint8_t *bytes;
    size_t len = 0;

    fill(pages[0], sizeof(pages));
    for (unsigned i = 0; i < 300; i++) {
        qemu_put_buffer_async(f, pages[i], 16, false);
    }
    for (unsigned i = 300; i-- > 0;) {
        qemu_put_buffer_async(f, pages[i], 16, false);
    }
    qemu_put_buffer_async(f, pages[0], 0, false);
    trace("fast total %lld", (long long)backend_transferred(f));
    bytes = backend_bytes(f, &len);
    trace_digest("pieces", bytes, len);
    CHECK_EQ(qemu_fclose(f), 0);
}

/* What is remembered is read at the flush, and with may_free the pages are given back. */
TEST(async_is_read_late_and_freed)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *memory = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    QEMUFile *f = backend_writer();
    const uint8_t *bytes;
    size_t len = 0;

    memset(memory, 1, 2 * page);
    qemu_put_buffer_async(f, memory, page, true);
    qemu_put_buffer_async(f, memory + page, page, false);
    memset(memory, 2, 2 * page);
    bytes = backend_bytes(f, &len);
    trace("first %d, last %d of %zu", bytes[0], bytes[len - 1], len / page);
    trace("in memory %d %d", memory[0], memory[page]);
    CHECK_EQ(qemu_fclose(f), 0);
    munmap(memory, 2 * page);
}

#if SAVEVM_QEMU_VERSION < 800
TEST(totals_and_rate)
{
    QEMUFile *f = backend_writer();
    static uint8_t bytes[1000];

    trace("%lld %lld", (long long)qemu_file_total_transferred(f), (long long)qemu_file_total_transferred_fast(f));
    qemu_put_buffer(f, bytes, 1000);
    trace("fast %lld", (long long)qemu_file_total_transferred_fast(f));
    trace("slow %lld", (long long)qemu_file_total_transferred(f));
    qemu_file_credit_transfer(f, 50);
    trace("credited %lld", (long long)qemu_file_total_transferred(f));
    trace("rate %lld, limited %d", (long long)qemu_file_get_rate_limit(f), qemu_file_rate_limit(f));
    qemu_file_set_rate_limit(f, 1999);
    trace("rate %lld, limited %d", (long long)qemu_file_get_rate_limit(f), qemu_file_rate_limit(f));
    qemu_put_buffer(f, bytes, 1000);
    trace("limited %d", qemu_file_rate_limit(f));
    qemu_file_reset_rate_limit(f);
    qemu_file_acct_rate_limit(f, 1999);
    trace("limited %d", qemu_file_rate_limit(f));
    qemu_file_acct_rate_limit(f, 1);
    trace("limited %d", qemu_file_rate_limit(f));
    qemu_file_set_rate_limit(f, -1);
    trace("rate %lld, limited %d", (long long)qemu_file_get_rate_limit(f), qemu_file_rate_limit(f));
    qemu_put_buffer_async(f, bytes, 1000, false);
    trace("fast %lld", (long long)qemu_file_total_transferred_fast(f));
    qemu_file_set_error(f, -EIO);
    trace("limited %d", qemu_file_rate_limit(f));
    trace("close %d", qemu_fclose(f));
}

#endif

TEST(the_first_error_stays)
{
    QEMUFile *f = backend_writer();
    QEMUFile *g = backend_writer();
#if SAVEVM_QEMU_VERSION < 800
    Error *err = (Error *)&f;
#else
    /* What is there stays there if the file has no error. */
    Error *err = NULL;
#endif

    qemu_file_set_error(f, 0);
    trace("%d", qemu_file_get_error(f));
    qemu_put_byte(f, 1);
    qemu_file_set_error(f, -ENOSPC);
    qemu_file_set_error(f, -EIO);
    qemu_put_byte(f, 2);
    qemu_put_be64(f, 3);
    qemu_put_counted_string(f, "x");
    qemu_put_buffer(f, (const uint8_t *)"y", 1);
    qemu_put_buffer_async(f, (const uint8_t *)"z", 1, false);
    trace("%d, %d", qemu_file_get_error(f), qemu_file_get_error_obj(f, NULL));
#if SAVEVM_QEMU_VERSION >= 701
    trace("any %d %d %d", qemu_file_get_error_obj_any(f, g, NULL), qemu_file_get_error_obj_any(g, f, NULL),
          qemu_file_get_error_obj_any(g, g, NULL));
    trace("any of none %d %d", qemu_file_get_error_obj_any(NULL, f, NULL), qemu_file_get_error_obj_any(NULL, NULL, NULL));
#endif
    CHECK_EQ(qemu_file_get_error_obj(g, &err), 0);
    CHECK(err == NULL);
    trace("fast %lld", (long long)backend_transferred(f));
    trace("close %d %d", qemu_fclose(f), qemu_fclose(g));
}

#if SAVEVM_QEMU_VERSION < 800
TEST(one_file_into_another)
{
    QEMUFile *f = backend_writer();
    QEMUFile *source = backend_writer();

    qemu_put_be32(source, 0x01020304);
    qemu_put_buffer(source, (const uint8_t *)"xyz", 3);
    trace("moved %d", qemu_put_qemu_file(f, source));
    trace("moved %d", qemu_put_qemu_file(f, source));
    qemu_put_byte(source, 9);
    trace("moved %d", qemu_put_qemu_file(f, source));
    trace_written("moved", f);
    qemu_file_set_error(source, -EIO);
    CHECK_EQ(qemu_fclose(f), 0);
    trace("close %d", qemu_fclose(source));
}

TEST(modes)
{
    QEMUFile *f = backend_writer();
    QEMUFile *g = backend_reader("", 0);

    trace("writable %d %d", qemu_file_is_writable(f), qemu_file_is_writable(g));
    trace("modes %d %d %d %d %d %d", qemu_file_mode_is_not_valid("rb"), qemu_file_mode_is_not_valid("wb"),
          qemu_file_mode_is_not_valid("r"), qemu_file_mode_is_not_valid("rw"), qemu_file_mode_is_not_valid(""),
          qemu_file_mode_is_not_valid("rb+"));
    qemu_fclose(f);
    qemu_fclose(g);
}

#endif

/* Descriptors */

TEST(through_a_regular_file)
{
    char path[] = "/tmp/savevm-file-XXXXXX";
    int fd = mkstemp(path);
    QEMUFile *f = backend_fd(dup(fd), true);
    static uint8_t out[100000], in[100000];

    fill(out, sizeof(out));
    qemu_put_buffer(f, out, sizeof(out));
    trace("close %d", qemu_fclose(f));
    lseek(fd, 0, SEEK_SET);
    f = backend_fd(fd, false);
    trace("%zu", qemu_get_buffer(f, in, sizeof(in)));
    CHECK_MEM(in, sizeof(in), out, sizeof(out));
    trace("%d, error %d", qemu_get_byte(f), qemu_file_get_error(f));
    trace("close %d", qemu_fclose(f));
    unlink(path);
}

static void *reads_all(void *opaque)
{
    static uint8_t in[1 << 20];
    QEMUFile *f = opaque;

    return (void *)qemu_get_buffer(f, in, sizeof(in));
}

static void carried(int from, int to)
{
    static uint8_t out[1 << 20];
    QEMUFile *f = backend_fd(to, true);
    QEMUFile *g = backend_fd(from, false);
    pthread_t thread;
    void *got;

    pthread_create(&thread, NULL, reads_all, g);
    fill(out, sizeof(out));
    qemu_put_buffer(f, out, sizeof(out));
    trace("close %d", qemu_fclose(f));
    pthread_join(thread, &got);
    trace("got %zu, error %d", (size_t)got, qemu_file_get_error(g));
    trace("%d, error %d", qemu_get_byte(g), qemu_file_get_error(g));
    trace("close %d", qemu_fclose(g));
}

TEST(through_a_pipe_and_a_socket)
{
    int fds[2];

    REQUIRE(pipe(fds) == 0);
    carried(fds[0], fds[1]);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    carried(fds[0], fds[1]);
}

TEST(the_way_back)
{
    int fds[2];
    QEMUFile *f, *back, *g;

    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    f = backend_fd(fds[0], true);
    back = qemu_file_get_return_path(f);
    REQUIRE(back != NULL);
#if SAVEVM_QEMU_VERSION < 800
    trace("writable %d", qemu_file_is_writable(back));
#endif
    g = backend_fd(fds[1], true);
    qemu_put_be32(g, 77);
    qemu_fflush(g);
    trace("came back %u", qemu_get_be32(back));
    trace("close %d", qemu_fclose(g));
    trace("%d, error %d", qemu_get_byte(back), qemu_file_get_error(back));
    qemu_fclose(back);
    qemu_fclose(f);
}

TEST(the_reader_is_gone)
{
    int fds[2];
    QEMUFile *f;

    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    f = backend_fd(fds[0], true);
    close(fds[1]);
    qemu_put_byte(f, 1);
    qemu_fflush(f);
    trace("failed %d", qemu_file_get_error(f) < 0);
    trace("limited %d", backend_rate_exceeded(f));
    qemu_fclose(f);
}

static void *reads_one(void *opaque)
{
    return (void *)(intptr_t)qemu_get_byte(opaque);
}

TEST(shutdown_wakes_a_reader)
{
    int fds[2];
    QEMUFile *f;
    pthread_t thread;

    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    f = backend_fd(fds[0], false);
    pthread_create(&thread, NULL, reads_one, f);
    harness_sleep_ms(50);
    trace("shutdown %d", qemu_file_shutdown(f));
    pthread_join(thread, NULL);
    trace("error %d", qemu_file_get_error(f));
    qemu_fclose(f);
    close(fds[1]);
}

static void *writes_much(void *opaque)
{
    static uint8_t out[8 << 20];

    qemu_put_buffer(opaque, out, sizeof(out));
    qemu_fflush(opaque);
    return NULL;
}

TEST(shutdown_wakes_a_writer)
{
    int fds[2];
    QEMUFile *f;
    pthread_t thread;

    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    f = backend_fd(fds[0], true);
    pthread_create(&thread, NULL, writes_much, f);
    harness_sleep_ms(50);
    trace("shutdown %d", qemu_file_shutdown(f));
    pthread_join(thread, NULL);
    trace("error %d, limited %d", qemu_file_get_error(f), backend_rate_exceeded(f));
    qemu_put_byte(f, 1);
    qemu_fflush(f);
    qemu_fclose(f);
    close(fds[1]);
}

/* QEMU's channels over memory cannot be shut down, nor can pipes. */
TEST(blocking_can_be_switched)
{
    int fds[2];
    QEMUFile *f;

    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    f = backend_fd(fds[0], false);
    backend_set_blocking(f, false);
    backend_set_blocking(f, true);
    trace("written %zd", write(fds[1], "abc", 3));
    trace("%c", qemu_get_byte(f));
    qemu_fclose(f);
    close(fds[1]);
}
