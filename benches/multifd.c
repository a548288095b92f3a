/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What moving RAM over several connections costs: one migration over a socket to another process.
 *
 * usage: multifd ADDRESS MIB CHANNELS none|zlib|zstd|auto FILE touched|fresh
 * FILE has the content of the memory, which must be as long. The source's memory is a private mapping of it, of which every page was
 * written to. The destination's memory was written to before ("touched"), or is new ("fresh"). Prints seconds, CPU seconds of the
 * source and of the destination, and MiB on the wire.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

#define HUGE_PAGE ((size_t)2 << 20)

static size_t length;
static SaveVMParams params = SAVEVM_PARAMS_INIT;

static double now(void)
{
    return seconds(CLOCK_MONOTONIC);
}

/* CPU seconds of this process so far. */
static double cpu(void)
{
    return seconds(CLOCK_PROCESS_CPUTIME_ID);
}

/* New memory, aligned so that all of it can have huge pages, as QEMU's. */
static uint8_t *memory_new(bool touched)
{
    uint8_t *memory = mmap(NULL, length + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(memory != MAP_FAILED, "there is no memory", NULL);
    memory += (HUGE_PAGE - (uintptr_t)memory % HUGE_PAGE) % HUGE_PAGE;
    madvise(memory, length, MADV_HUGEPAGE);
    if (touched) {
        memset(memory, 0, length);
    }
    return memory;
}

/* The dirty log of a hypervisor whose guest is stopped, as QEMU's in this measurement. */
static int log_start(void *opaque)
{
    (void)opaque;
    return 0;
}

static int log_sync(void *opaque, const SaveVMRamBlock *block, uint64_t *bitmap, size_t words)
{
    (void)opaque, (void)block, (void)bitmap, (void)words;
    return 0;
}

static void log_stop(void *opaque)
{
    (void)opaque;
}

static SaveVM *machine(uint8_t *memory)
{
    SaveVMRamOps ops = SAVEVM_RAM_OPS_INIT;
    ops.log_start = log_start;
    ops.log_sync = log_sync;
    ops.log_stop = log_stop;
    SaveVM *vm = savevm_new(NULL, NULL);
    ram_new(vm, NULL, &ops, NULL, memory, length, false);
    return vm;
}

static void destination(const char *uri, const uint8_t *content, bool touched, int ready)
{
    uint8_t *memory = memory_new(touched);
    Error *err = NULL;
    SaveVMMigration *in = savevm_incoming(machine(memory), uri, &params, &err);
    check(in != NULL, "incoming", err);
    check(write(ready, "", 1) == 1, "the parent is gone", NULL);
    double used = cpu();
    check(savevm_migration_wait(in, &err) == 0, "incoming", err);
    used = cpu() - used;
    check(memcmp(memory, content, length) == 0, "the memory did not arrive", NULL);
    check(write(ready, &used, sizeof(used)) == sizeof(used), "the parent is gone", NULL);
    savevm_migration_free(in);
    _exit(0);
}

int main(int argc, char **argv)
{
    static const char *const names[] = { "none", "zlib", "zstd", "auto" };
    int up[2], file, status, method = 0;
    char ready;
    double used;

    check(argc == 7, "usage: multifd ADDRESS MIB CHANNELS none|zlib|zstd|auto FILE touched|fresh", NULL);
    length = strtoul(argv[2], NULL, 0) << 20;
    params.channels = (uint32_t)strtoul(argv[3], NULL, 0);
    while (method < 3 && strcmp(names[method], argv[4]) != 0) {
        method++;
    }
    params.compression = (SaveVMCompression)method;
    file = open(argv[5], O_RDONLY);
    uint8_t *content = mmap(NULL, length, PROT_READ, MAP_PRIVATE, file, 0);
    check(file >= 0 && content != MAP_FAILED, argv[5], NULL);
    uint8_t *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    check(memory != MAP_FAILED && madvise(memory, length, MADV_POPULATE_WRITE) == 0, "there is no memory", NULL);
    check(pipe(up) == 0, "pipe", NULL);
    pid_t child = fork();
    if (child == 0) {
        destination(argv[1], content, strcmp(argv[6], "touched") == 0, up[1]);
    }
    check(read(up[0], &ready, 1) == 1, "the destination failed", NULL);
    SaveVM *vm = machine(memory);
    Error *err = NULL;
    double time = now(), sender = cpu();
    SaveVMMigration *out = savevm_migrate(vm, argv[1], &params, &err);
    check(out && savevm_migration_wait(out, &err) == 0, "migrate", err);
    time = now() - time;
    sender = cpu() - sender;
    SaveVMInfo info = SAVEVM_INFO_INIT;
    savevm_migration_query(out, &info);
    check(read(up[0], &used, sizeof(used)) == sizeof(used), "the destination failed", NULL);
    waitpid(child, &status, 0);
    check(status == 0, "the destination failed", NULL);
    savevm_migration_free(out);
    printf("%.3f %.3f %.3f %.1f\n", time, sender, used, (double)info.transferred / 1048576);
    return 0;
}
