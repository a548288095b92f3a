/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a byte and what a device cost. The same source is linked with libsavevm
 * and with QEMU 7.2's objects (c-tests/lib/backend.h); compare.py sets the two side by
 * side. Prints one line per measure: its name, a tab, nanoseconds of processor
 * time per operation, the best of several rounds.
 */
#include "migration/qemu-file.h"
#include "migration/register.h"
#include "migration/savevm.h"
#include "backend.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 25
#define STREAM (512u << 10) /* stays in the cache */
#define PAGE 4096u

static uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void result(const char *name, double best)
{
    printf("%s\t%.3f\n", name, best);
    fflush(stdout);
}

static uint8_t *stream;
static volatile uint64_t sink;

/* Puts: /dev/null takes the bytes, so only the file is measured. */
#define BENCH_PUT(name, size, statement)                               \
    static void bench_##name(void)                                     \
    {                                                                  \
        double best = 1e9;                                             \
                                                                       \
        for (unsigned round = 0; round < ROUNDS; round++) {            \
            QEMUFile *f = backend_fd(open("/dev/null", O_WRONLY), true);  \
            unsigned count = 16 * STREAM / (size);                      \
            uint64_t start = now();                                    \
            double each;                                               \
                                                                       \
            for (unsigned i = 0; i < count; i++) {                     \
                statement;                                             \
            }                                                          \
            qemu_fflush(f);                                            \
            each = (double)(now() - start) / count;                    \
            best = each < best ? each : best;                          \
            qemu_fclose(f);                                            \
        }                                                              \
        result(#name, best);                                           \
    }

/* Gets: from memory. */
#define BENCH_GET(name, size, statement)                               \
    static void bench_##name(void)                                     \
    {                                                                  \
        double best = 1e9;                                             \
                                                                       \
        for (unsigned round = 0; round < ROUNDS; round++) {            \
            QEMUFile *f = backend_reader(stream, STREAM);                 \
            unsigned count = STREAM / (size);                          \
            uint64_t start = now();                                    \
            uint64_t sum = 0;                                          \
            double each;                                               \
                                                                       \
            for (unsigned i = 0; i < count; i++) {                     \
                statement;                                             \
            }                                                          \
            each = (double)(now() - start) / count;                    \
            sink = sum;                                                \
            best = each < best ? each : best;                          \
            qemu_fclose(f);                                            \
        }                                                              \
        result(#name, best);                                           \
    }

static uint8_t page[PAGE];

BENCH_PUT(put_byte, 1, qemu_put_byte(f, (int)i))
BENCH_PUT(put_be16, 2, qemu_put_be16(f, i))
BENCH_PUT(put_be32, 4, qemu_put_be32(f, i))
BENCH_PUT(put_be64, 8, qemu_put_be64(f, i))
BENCH_PUT(page_out, PAGE, qemu_put_buffer(f, page, PAGE))
BENCH_PUT(page_out_async, PAGE, qemu_put_buffer_async(f, stream + (size_t)(i % (STREAM / PAGE)) * PAGE, PAGE, false))
BENCH_GET(get_byte, 1, sum += (uint64_t)qemu_get_byte(f))
BENCH_GET(get_be16, 2, sum += qemu_get_be16(f))
BENCH_GET(get_be32, 4, sum += qemu_get_be32(f))
BENCH_GET(get_be64, 8, sum += qemu_get_be64(f))
BENCH_GET(page_in, PAGE, sum += qemu_get_buffer(f, page, PAGE))

/* Pages over a socket, with the other end in a thread that only moves bytes. */

#define SOCKET_BYTES (64u << 20)

typedef struct Peer {
    int fd;
    bool feeds;
} Peer;

static void *peer_main(void *opaque)
{
    Peer *peer = opaque;
    static uint8_t room[256 << 10];
    size_t left = SOCKET_BYTES;

    while (left > 0) {
        size_t some = left < sizeof(room) ? left : sizeof(room);
        ssize_t count = peer->feeds ? write(peer->fd, room, some) : read(peer->fd, room, some);

        if (count <= 0) {
            break;
        }
        left -= (size_t)count;
    }
    return NULL;
}

static double socket_round(bool in)
{
    int fds[2];
    Peer peer;
    pthread_t thread;
    QEMUFile *f;
    uint64_t start;
    double each;

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0) {
        perror("socketpair");
        exit(1);
    }
    peer.fd = fds[1];
    peer.feeds = in;
    f = backend_fd(fds[0], !in);
    pthread_create(&thread, NULL, peer_main, &peer);
    start = now();
    for (unsigned i = 0; i < SOCKET_BYTES / PAGE; i++) {
        if (in) {
            qemu_get_buffer(f, page, PAGE);
        } else {
            qemu_put_buffer(f, page, PAGE);
        }
    }
    qemu_fflush(f);
    each = (double)(now() - start) / (SOCKET_BYTES / PAGE);
    pthread_join(thread, NULL);
    qemu_fclose(f);
    close(fds[1]);
    return each;
}

static void bench_socket(const char *name, bool in)
{
    double best = 1e9;

    for (unsigned round = 0; round < 5; round++) {
        double each = socket_round(in);

        best = each < best ? each : best;
    }
    result(name, best);
}

static void bench_socket_out(void)
{
    bench_socket("socket_out", false);
}

static void bench_socket_in(void)
{
    bench_socket("socket_in", true);
}

/* Devices */

static void save_state(QEMUFile *f, void *opaque)
{
    qemu_put_be32(f, *(uint32_t *)opaque);
}

static int load_state(QEMUFile *f, void *opaque, int version_id)
{
    (void)version_id;
    *(uint32_t *)opaque = qemu_get_be32(f);
    return 0;
}

static const SaveVMHandlers handlers = { .save_state = save_state, .load_state = load_state };

static void name_of(char *name, size_t room, unsigned number)
{
    snprintf(name, room, "0000:00:%02x.%u/device-%u", number & 31, number & 7, number);
}

typedef struct Costs {
    double add;
    double save;
    double load;
    double remove;
} Costs;

static double per_device(uint64_t start, unsigned count)
{
    return (double)(now() - start) / count;
}

static void keep_best(double *best, double each)
{
    if (*best == 0 || each < *best) {
        *best = each;
    }
}

static void once(unsigned count, Costs *best)
{
    uint32_t *state = calloc(count, sizeof(*state));
    char (*names)[64] = calloc(count, sizeof(*names));
    QEMUFile *out = backend_writer();
    QEMUFile *in;
    const uint8_t *bytes;
    size_t len = 0;
    uint64_t start;

    for (unsigned i = 0; i < count; i++) {
        name_of(names[i], sizeof(names[i]), i);
    }
    start = now();
    for (unsigned i = 0; i < count; i++) {
        register_savevm_live(names[i], -1, 1, &handlers, &state[i]);
    }
    keep_best(&best->add, per_device(start, count));

    start = now();
    qemu_save_device_state(out);
    keep_best(&best->save, per_device(start, count));

    bytes = backend_bytes(out, &len);
    in = backend_reader(bytes + 8, len - 8);
    start = now();
    if (backend_load_sections(in) != 0) {
        fprintf(stderr, "the devices cannot be loaded\n");
        exit(1);
    }
    keep_best(&best->load, per_device(start, count));
    qemu_fclose(in);
    qemu_fclose(out);

    start = now();
    for (unsigned i = 0; i < count; i++) {
        unregister_savevm(NULL, names[i], &state[i]);
    }
    keep_best(&best->remove, per_device(start, count));
    free(names);
    free(state);
}

/* At least twice, and for up to two seconds: many devices take QEMU longer. */
static void bench_devices(unsigned count)
{
    Costs best = { 0, 0, 0, 0 };
    char name[64];
    uint64_t start = now();

    for (unsigned i = 0; i < 2 || (i < 50 && now() - start < 2000000000u); i++) {
        once(count, &best);
    }
    snprintf(name, sizeof(name), "register_%u", count);
    result(name, best.add);
    snprintf(name, sizeof(name), "save_%u", count);
    result(name, best.save);
    snprintf(name, sizeof(name), "load_%u", count);
    result(name, best.load);
    snprintf(name, sizeof(name), "unregister_%u", count);
    result(name, best.remove);
}

static void devices_few_and_many(void)
{
    bench_devices(256);
    bench_devices(16384);
}

static const struct {
    const char *name;
    void (*run)(void);
} benches[] = {
    { "put_byte", bench_put_byte },
    { "put_be16", bench_put_be16 },
    { "put_be32", bench_put_be32 },
    { "put_be64", bench_put_be64 },
    { "get_byte", bench_get_byte },
    { "get_be16", bench_get_be16 },
    { "get_be32", bench_get_be32 },
    { "get_be64", bench_get_be64 },
    { "page_out", bench_page_out },
    { "page_out_async", bench_page_out_async },
    { "page_in", bench_page_in },
    { "socket_out", bench_socket_out },
    { "socket_in", bench_socket_in },
    { "devices", devices_few_and_many },
};

/* With arguments only the bench of that name; behind "devices", how many. */
int main(int argc, char **argv)
{
    backend_start();
    stream = calloc(1, STREAM);
    for (unsigned i = 0; i < STREAM; i++) {
        stream[i] = (uint8_t)(i * 7);
    }
    for (int i = 2; i < argc; i++) {
        bench_devices((unsigned)strtoul(argv[i], NULL, 10));
    }
    for (size_t i = 0; argc < 3 && i < sizeof(benches) / sizeof(benches[0]); i++) {
        if (argc < 2 || strcmp(argv[1], benches[i].name) == 0) {
            benches[i].run();
        }
    }
    free(stream);
    return 0;
}
