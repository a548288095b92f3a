/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How fast RAM moves: 1 GiB of random bytes over a unix socket to another
 * process, by a bare loop of writev() and recv(), and by a migration of an idle
 * guest, in turns. Prints the best of each, the CPU seconds of
 * sender and receiver, and what the guest lost.
 *
 * usage: ram [MIB [RUNS]]     Fails if a goal is missed: 85% of the bare loop, 10 ms of downtime.
 *        ram MIB RUNS DIR     The migration uses TLS with the certificates of DIR; no goals.
 *        ram MIB warm         Only makes the system ready for the run of another program.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "savevm.h"
#include "savevm/ram.h"

#define PAGE 4096
#define PAGES_AT_ONCE 32
/* The bare loop makes so much of its memory present at once: the kernel is slower where it has to in the middle of a copy. */
#define PREPARED ((size_t)1 << 20)
#define HUGE_PAGE ((size_t)2 << 20)

static size_t length;
/* The directory of certificates, if there is one. */
static const char *certificates;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* What moving the memory once took, in seconds. */
typedef struct Cost {
    double time, sender, receiver, downtime;
} Cost;

/* CPU seconds of this process so far. */
static double cpu(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
        1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

/* Memory that may have huge pages if it is advised to. */
static uint8_t *memory_new(void)
{
    uint8_t *memory = mmap(NULL, length + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return memory + (HUGE_PAGE - (uintptr_t)memory % HUGE_PAGE) % HUGE_PAGE;
}

static uint64_t sum(const uint8_t *memory)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < length / 8; i++) {
        sum = sum * 31 + ((const uint64_t *)memory)[i];
    }
    return sum;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void check(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "%s\n", what);
        exit(1);
    }
}

/*
 * Touches as much memory as a destination needs and gives it back. Where this system is a guest itself, its host may have
 * to find each page first, which takes many times as long as a copy, and the first program would pay for it.
 */
static void warm_up(void)
{
    pid_t child = fork();
    if (child == 0) {
        uint8_t *memory = memory_new();
        madvise(memory, length, MADV_HUGEPAGE);
        memset(memory, 1, length);
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

/* Pages as pieces, in writes of 128 KiB and with nothing between them; the receiver puts them in place at once. */
static Cost bare(const uint8_t *source)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) {
        die("socketpair");
    }
    pid_t child = fork();
    if (child == 0) {
        close(pair[0]);
        uint8_t *target = memory_new();
        double used = cpu();
        size_t at = 0, step = PAGES_AT_ONCE * PAGE;
        while (at < length) {
            if (at % PREPARED == 0) {
                madvise(target + at, length - at < PREPARED ? length - at : PREPARED, MADV_POPULATE_WRITE);
            }
            ssize_t got = recv(pair[1], target + at, length - at < step ? length - at : step, MSG_WAITALL);
            if (got <= 0) {
                die("recv");
            }
            at += (size_t)got;
        }
        used = cpu() - used;
        _exit(write(pair[1], &used, sizeof(used)) != sizeof(used));
    }
    close(pair[1]);
    Cost cost = { .time = now(), .sender = cpu() };
    for (size_t at = 0; at < length;) {
        struct iovec pieces[PAGES_AT_ONCE];
        int count = 0;
        for (size_t from = at; from < length && count < PAGES_AT_ONCE; from += PAGE - from % PAGE) {
            pieces[count++] = (struct iovec){ (void *)(source + from), PAGE - from % PAGE };
        }
        ssize_t sent = writev(pair[0], pieces, count);
        if (sent <= 0) {
            die("writev");
        }
        at += (size_t)sent;
    }
    check(read(pair[0], &cost.receiver, sizeof(double)) == sizeof(double), "the receiver of the bare loop failed");
    cost.time = now() - cost.time;
    cost.sender = cpu() - cost.sender;
    int status;
    waitpid(child, &status, 0);
    close(pair[0]);
    check(status == 0, "the receiver of the bare loop failed");
    return cost;
}

static SaveVM *machine(uint8_t *memory)
{
    SaveVM *vm = savevm_new(NULL, NULL);
    SaveVMRam *ram = savevm_ram_new(vm, NULL, NULL, NULL, NULL);
    SaveVMRamBlock block = SAVEVM_RAM_BLOCK_INIT;
    block.name = "pc.ram";
    block.host = memory;
    block.length = length;
    check(ram && savevm_ram_add_block(ram, &block, NULL) == 0, "there is no RAM");
    return vm;
}

static const SaveVMParams *params(void)
{
    static SaveVMTls tls = SAVEVM_TLS_INIT;
    static SaveVMParams params = SAVEVM_PARAMS_INIT;
    tls.dir = certificates;
    tls.hostname = "localhost";
    params.tls = certificates ? &tls : NULL;
    return &params;
}

static void destination(int to_parent, int from_parent, const char *uri)
{
    uint8_t *target = memory_new();
    /* Guests get huge pages, also from QEMU; the bare loop is slower with them. */
    madvise(target, length, MADV_HUGEPAGE);
    SaveVM *vm = machine(target);
    Error *err = NULL;
    SaveVMMigration *in = savevm_incoming(vm, uri, params(), &err);
    check(in != NULL, err ? error_get_pretty(err) : "incoming");
    check(write(to_parent, "", 1) == 1, "the parent is gone");
    double used = cpu();
    check(savevm_migration_wait(in, &err) == 0, err ? error_get_pretty(err) : "incoming");
    used = cpu() - used;
    check(write(to_parent, &used, sizeof(used)) == sizeof(used), "the parent is gone");
    uint64_t have = sum(target), want;
    check(read(from_parent, &want, sizeof(want)) == sizeof(want) && have == want, "the memory did not arrive");
    savevm_migration_free(in);
    _exit(0);
}

static Cost migrate(SaveVM *vm, uint64_t want)
{
    char uri[64], ready;
    int up[2], down[2];
    snprintf(uri, sizeof(uri), "unix:/tmp/savevm-bench-%d", (int)getpid());
    unlink(uri + strlen("unix:"));
    if (pipe(up) != 0 || pipe(down) != 0) {
        die("pipe");
    }
    pid_t child = fork();
    if (child == 0) {
        destination(up[1], down[0], uri);
    }
    Error *err = NULL;
    check(read(up[0], &ready, 1) == 1, "the destination failed");
    SaveVMInfo info = SAVEVM_INFO_INIT;
    Cost cost = { .time = now(), .sender = cpu() };
    SaveVMMigration *out = savevm_migrate(vm, uri, params(), &err);
    check(out && savevm_migration_wait(out, &err) == 0, err ? error_get_pretty(err) : "migrate");
    cost.time = now() - cost.time;
    cost.sender = cpu() - cost.sender;
    savevm_migration_query(out, &info);
    cost.downtime = (double)info.downtime_us * 1e-6;
    check(read(up[0], &cost.receiver, sizeof(double)) == sizeof(double), "the destination failed");
    savevm_migration_free(out);
    /* The destination only checks the memory and exits: this side may migrate again. */
    check(savevm_override_owner(vm, SAVEVM_OWNER_HERE, &err) == 0, err ? error_get_pretty(err) : "owner");
    check(write(down[1], &want, sizeof(want)) == sizeof(want), "the destination is gone");
    int status;
    waitpid(child, &status, 0);
    check(status == 0, "the destination failed");
    for (int i = 0; i < 2; i++) {
        close(up[i]);
        close(down[i]);
    }
    unlink(uri + strlen("unix:"));
    return cost;
}

int main(int argc, char **argv)
{
    length = (argc > 1 ? strtoul(argv[1], NULL, 0) : 1024) << 20;
    if (argc > 2 && strcmp(argv[2], "warm") == 0) {
        warm_up();
        return 0;
    }
    int runs = argc > 2 ? atoi(argv[2]) : 5;
    certificates = argc > 3 ? argv[3] : NULL;
    uint8_t *source = memory_new();
    /* As QEMU advises the memory of its guests. */
    madvise(source, length, MADV_HUGEPAGE);
    uint64_t random = 88172645463325252ULL;
    for (size_t i = 0; i < length / 8; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        ((uint64_t *)source)[i] = random;
    }
    uint64_t want = sum(source);
    double best_bare = 1e9, best = 1e9, least = 1e9, most = 0, gb = (double)length / 1e9;
    SaveVM *vm = machine(source);
    for (int run = 0; run < runs; run++) {
        warm_up();
        Cost loop = bare(source);
        warm_up();
        Cost whole = migrate(vm, want);
        printf("bare loop %.2f GB/s (CPU %.2f s, %.2f s)   migration %.2f GB/s (CPU %.2f s, %.2f s), downtime %.2f ms\n",
               gb / loop.time, loop.sender, loop.receiver, gb / whole.time, whole.sender, whole.receiver,
               1e3 * whole.downtime);
        fflush(stdout);
        best_bare = loop.time < best_bare ? loop.time : best_bare;
        best = whole.time < best ? whole.time : best;
        least = whole.downtime < least ? whole.downtime : least;
        most = whole.downtime > most ? whole.downtime : most;
    }
    printf("best: %.2f GB/s of %.2f GB/s (%.0f%%, goal 85%%), downtime %.2f to %.2f ms (goal 10 ms)\n", gb / best,
           gb / best_bare, 100 * best_bare / best, 1e3 * least, 1e3 * most);
    return !certificates && (best_bare / best < 0.85 || least > 0.01);
}
