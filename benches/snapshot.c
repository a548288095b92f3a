/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One snapshot in a process of its own, for snapshot.py:
 *     snapshot save FILE MIB stream|mapped THREADS buffered|direct CONTENT    prints the pause and the whole time, in ms
 *     snapshot load FILE MIB THREADS buffered|direct                          prints the time of the load, in ms
 *     snapshot first FILE MIB THREADS [INDEX]                                 prints the time from the call of a lazy load to the
 *                                                                             guest's first access to memory, and ends
 *     snapshot lazy FILE MIB THREADS [INDEX]                                  also prints the time to the end of all reading
 *     snapshot index FILE MIB THREADS INDEX                                   as lazy, and checks that the index was written
 *     snapshot touch MIB                                                      writes to so much memory and frees it
 * There are 20 devices besides memory. The guest is a thread that touches pages in random order.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "migration/vmstate.h"
#include "savevm.h"
#include "savevm/ram.h"

#define DEVICES 20

typedef struct Device {
    uint32_t words[64];
} Device;

static const VMStateDescription device_description = {
    .name = "device",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) { VMSTATE_UINT32_ARRAY(words, Device, 64), VMSTATE_END_OF_LIST() },
};

static Device devices[DEVICES];
static uint8_t *memory;
static uint64_t size;
static atomic_bool running;
static _Atomic double stopped_at, started_at, touched_at;

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static int vm_stop(void *host)
{
    (void)host;
    stopped_at = now_ms();
    running = false;
    return 0;
}

static int vm_start(void *host)
{
    (void)host;
    started_at = now_ms();
    running = true;
    return 0;
}

static bool vm_running(void *host)
{
    (void)host;
    return running;
}

static void *guest(void *started)
{
    uint64_t random = 88172645463325252u;
    unsigned sum = 0;
    *(atomic_bool *)started = true;
    while (!running) {
    }
    for (;;) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        sum += *(volatile uint8_t *)(memory + random % size);
        if (touched_at == 0) {
            touched_at = now_ms();
        }
        usleep(100);
    }
    return (void *)(uintptr_t)sum;
}

static void fail(const char *what, Error *err)
{
    fprintf(stderr, "%s: %s\n", what, err ? error_get_pretty(err) : "failed");
    exit(1);
}

static void read_content(const char *path)
{
    int fd = open(path, O_RDONLY);
    for (uint64_t at = 0; fd >= 0 && at < size;) {
        ssize_t count = read(fd, memory + at, size - at);
        if (count <= 0) {
            break;
        }
        at += (uint64_t)count;
    }
    close(fd);
}

static uint8_t *map_memory(uint64_t length)
{
    uint8_t *mapped = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) {
        fail("mmap", NULL);
    }
    madvise(mapped, length, MADV_HUGEPAGE);
    return mapped;
}

/* The host of a virtual machine must then not allocate memory in the measurement that follows. */
static int touch(uint64_t length)
{
    uint8_t *mapped = map_memory(length);
    for (uint64_t at = 0; at < length; at += 4096) {
        mapped[at] = 1;
    }
    return munmap(mapped, length) < 0;
}

int main(int argc, char **argv)
{
    SaveVMHostOps host = SAVEVM_HOST_OPS_INIT;
    SaveVMRamOptions ram_options = SAVEVM_RAM_OPTIONS_INIT;
    SaveVMRamBlock block = SAVEVM_RAM_BLOCK_INIT;
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;
    Error *err = NULL;
    char uri[4096];
    if (argc == 3 && strcmp(argv[1], "touch") == 0) {
        return touch(strtoull(argv[2], NULL, 10) << 20);
    }
    if (argc < 5) {
        fail("snapshot save|load|first|lazy|index FILE MIB ...", NULL);
    }
    bool saves = strcmp(argv[1], "save") == 0;
    snprintf(uri, sizeof(uri), "file:%s", argv[2]);
    size = strtoull(argv[3], NULL, 10) << 20;
    memory = map_memory(size);
    host.vm_stop = vm_stop;
    host.vm_start = vm_start;
    host.vm_running = vm_running;
    ram_options.log = SAVEVM_RAM_LOG_MARKS;
    block.name = "ram";
    block.host = memory;
    block.length = size;
    SaveVM *vm = savevm_new(&host, NULL);
    savevm_set_current(vm);
    SaveVMRam *ram = savevm_ram_new(vm, &ram_options, NULL, NULL, &err);
    if (!ram || savevm_ram_add_block(ram, &block, &err) < 0) {
        fail("RAM", err);
    }
    for (int at = 0; at < DEVICES; at++) {
        vmstate_register(NULL, at, &device_description, &devices[at]);
    }
    const char *const *more = (const char *const *)argv + (saves ? 5 : 4);
    options.threads = (uint32_t)atoi(more[0]);
    options.direct = more[1] && strcmp(more[1], "direct") == 0;
    if (saves) {
        options.format = strcmp(argv[4], "mapped") == 0 ? SAVEVM_SNAPSHOT_MAPPED : SAVEVM_SNAPSHOT_STREAM;
        read_content(more[2]);
        running = true;
        double begin = now_ms();
        if (savevm_snapshot_save(vm, uri, &options, &err) < 0) {
            fail("save", err);
        }
        printf("%.3f %.3f\n", started_at - stopped_at, now_ms() - begin);
        return 0;
    }
    if (strcmp(argv[1], "load") == 0) {
        double begin = now_ms();
        if (savevm_snapshot_load(vm, uri, &options, &err) < 0) {
            fail("load", err);
        }
        printf("%.3f\n", now_ms() - begin);
        return 0;
    }
    pthread_t thread;
    atomic_bool started = false;
    options.lazy = true;
    options.index = more[1];
    pthread_create(&thread, NULL, guest, &started);
    while (!started) {
    }
    double begin = now_ms();
    if (savevm_snapshot_load(vm, uri, &options, &err) < 0) {
        fail("lazy load", err);
    }
    /* A machine that was stopped is started by its hypervisor. */
    vm_start(NULL);
    while (touched_at == 0) {
        usleep(20);
    }
    if (strcmp(argv[1], "first") == 0) {
        printf("%.3f\n", touched_at - begin);
        fflush(stdout);
        _exit(0);
    }
    if (savevm_restore_wait(vm, &err) < 0) {
        fail("lazy load", err);
    }
    printf("%.3f %.3f\n", touched_at - begin, now_ms() - begin);
    if (strcmp(argv[1], "index") == 0 && access(more[1], F_OK) != 0) {
        fail("no index", NULL);
    }
    return 0;
}
