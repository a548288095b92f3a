/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One snapshot in a process of its own, for snapshot.py:
 *     snapshot save FILE MIB stream|mapped THREADS buffered|direct CONTENT    prints the pause and the whole time, in ms
 *     snapshot chain FILE MIB stream|mapped THREADS buffered|direct CONTENT   saves a chain: FILE, FILE.1, FILE.2 and FILE.3, with
 *                                                                             57 MiB of changed pages between each two
 *     snapshot load FILE MIB THREADS buffered|direct                          prints the time of the load, in ms
 *     snapshot read FILE MIB THREADS buffered|direct                          the same for a bare loop that reads the file into new
 *                                                                             memory, without the library
 *     snapshot first FILE MIB THREADS [INDEX]                                 prints the time from the call of a lazy load to the
 *                                                                             guest's first access to memory, and the longest gap
 *                                                                             that a thread which only reads the clock had
 *                                                                             meanwhile, and ends
 *     snapshot lazy FILE MIB THREADS [INDEX]                                  as first, and then the time to the end of all reading
 *     snapshot index FILE MIB THREADS INDEX                                   as lazy, and checks that the index was written
 *     snapshot touch MIB                                                      writes to so much memory and frees it
 * There are 20 devices besides memory. The guest is a thread that touches pages in random order. It sleeps while it is stopped.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"
#include "migration/vmstate.h"

#define DEVICES 20
#define PAGE 4096
#define CHILDREN 3
#define CHANGED_PAGES (57 << 20 >> 12)
/* The bare loop reads so much at a time. */
#define PIECE (2 << 20)
#define READERS_MAX 16

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
static SaveVM *vm;
static SaveVMRam *ram;
static double stopped_at, started_at;
static _Atomic double touched_at, longest_gap;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool running;
static atomic_bool asleep;

static int vm_stop(void *host)
{
    (void)host;
    stopped_at = now_ms();
    pthread_mutex_lock(&lock);
    running = false;
    pthread_mutex_unlock(&lock);
    return 0;
}

static int vm_start(void *host)
{
    (void)host;
    started_at = now_ms();
    pthread_mutex_lock(&lock);
    running = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return 0;
}

static bool vm_running(void *host)
{
    (void)host;
    return running;
}

static void *guest(void *unused)
{
    uint64_t random = 88172645463325252u;
    unsigned sum = 0;

    (void)unused;
    pthread_mutex_lock(&lock);
    while (!running) {
        asleep = true;
        pthread_cond_wait(&changed, &lock);
    }
    pthread_mutex_unlock(&lock);
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

static void *read_clock(void *unused)
{
    for (double last = now_ms();;) {
        usleep(20);
        double now = now_ms();
        if (now - last > longest_gap) {
            longest_gap = now - last;
        }
        last = now;
    }
    return unused;
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
    check(mapped != MAP_FAILED, "mmap", NULL);
    madvise(mapped, length, MADV_HUGEPAGE);
    return mapped;
}

/* The host of a virtual machine must then not allocate memory in the measurement that follows. */
static int touch(uint64_t length)
{
    uint8_t *mapped = map_memory(length);
    for (uint64_t at = 0; at < length; at += PAGE) {
        mapped[at] = 1;
    }
    return munmap(mapped, length) < 0;
}

static void machine(void)
{
    SaveVMHostOps host = SAVEVM_HOST_OPS_INIT;
    SaveVMRamOptions options = SAVEVM_RAM_OPTIONS_INIT;

    host.vm_stop = vm_stop;
    host.vm_start = vm_start;
    host.vm_running = vm_running;
    options.log = SAVEVM_RAM_LOG_MARKS;
    vm = savevm_new(&host, NULL);
    savevm_set_current(vm);
    ram = ram_new(vm, &options, NULL, NULL, memory, size, false);
    for (int at = 0; at < DEVICES; at++) {
        vmstate_register(NULL, at, &device_description, &devices[at]);
    }
}

static void save(const char *uri, const SaveVMSnapshotOptions *options)
{
    Error *err = NULL;
    check(savevm_snapshot_save(vm, uri, options, &err) == 0, "save", err);
}

/* Changes pages all over memory. */
static void change_pages(void)
{
    static uint64_t random = 1;
    for (int changes = 0; changes < CHANGED_PAGES; changes++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        uint8_t *page = memory + (random >> 20) % (size / PAGE) * PAGE;
        memcpy(page, &random, sizeof(random));
        savevm_ram_set_dirty(ram, page, PAGE);
    }
}

static void save_chain(const char *uri, SaveVMSnapshotOptions options)
{
    char parent[4096], child[4096];

    options.parent = "";
    save(uri, &options);
    strcpy(parent, uri);
    for (int number = 1; number <= CHILDREN; number++) {
        change_pages();
        snprintf(child, sizeof(child), "%s.%d", uri, number);
        options.parent = parent;
        save(child, &options);
        strcpy(parent, child);
    }
}

static int read_fd = -1;
static _Atomic uint64_t read_next;

static void *read_pieces(void *unused)
{
    for (uint64_t at; (at = atomic_fetch_add(&read_next, PIECE)) < size;) {
        madvise(memory + at, PIECE, MADV_POPULATE_WRITE);
        check(pread(read_fd, memory + at, PIECE, (off_t)at) == PIECE, "read", NULL);
    }
    return unused;
}

/* Reads the file from its start on: places and contents of the pages do not matter. */
static void read_all(const char *path, bool direct, int threads)
{
    pthread_t others[READERS_MAX];

    check(threads > 0 && threads <= READERS_MAX, "the number of threads", NULL);
    read_fd = open(path, O_RDONLY | (direct ? O_DIRECT : 0));
    check(read_fd >= 0, path, NULL);
    for (int at = 1; at < threads; at++) {
        check(pthread_create(&others[at], NULL, read_pieces, NULL) == 0, "thread", NULL);
    }
    read_pieces(NULL);
    for (int at = 1; at < threads; at++) {
        pthread_join(others[at], NULL);
    }
}

static void load(const char *uri, const SaveVMSnapshotOptions *options)
{
    Error *err = NULL;
    check(savevm_snapshot_load(vm, uri, options, &err) == 0, "load", err);
}

/* A lazy load. Prints the times. */
static void restore(const char *uri, SaveVMSnapshotOptions options, bool only_first)
{
    pthread_t thread, clock;
    Error *err = NULL;

    check(pthread_create(&thread, NULL, guest, NULL) == 0 && pthread_create(&clock, NULL, read_clock, NULL) == 0, "thread", NULL);
    while (!asleep || longest_gap == 0) {
        usleep(100);
    }
    longest_gap = 0;
    options.lazy = true;
    double begin = now_ms();
    load(uri, &options);
    /* A machine that was stopped is started by its hypervisor. */
    vm_start(NULL);
    while (touched_at == 0) {
        usleep(20);
    }
    printf("%.3f %.3f", touched_at - begin, longest_gap);
    if (!only_first) {
        check(savevm_restore_wait(vm, &err) == 0, "lazy load", err);
        printf(" %.3f", now_ms() - begin);
    }
    printf("\n");
}

int main(int argc, char **argv)
{
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;
    char uri[4000];

    if (argc == 3 && strcmp(argv[1], "touch") == 0) {
        return touch(strtoull(argv[2], NULL, 10) << 20);
    }
    check(argc >= 5, "snapshot save|chain|load|read|first|lazy|index FILE MIB ...", NULL);
    const char *command = argv[1];
    bool saves = strcmp(command, "save") == 0, chain = strcmp(command, "chain") == 0;
    const char *const *more = (const char *const *)argv + (saves || chain ? 5 : 4);
    snprintf(uri, sizeof(uri), "file:%s", argv[2]);
    size = strtoull(argv[3], NULL, 10) << 20;
    memory = map_memory(size);
    options.threads = (uint32_t)atoi(more[0]);
    options.direct = more[1] && strcmp(more[1], "direct") == 0;
    machine();
    if (saves || chain) {
        options.format = strcmp(argv[4], "mapped") == 0 ? SAVEVM_SNAPSHOT_MAPPED : SAVEVM_SNAPSHOT_STREAM;
        read_content(more[2]);
        running = true;
    }
    double begin = now_ms();
    if (chain) {
        save_chain(uri, options);
    } else if (saves) {
        save(uri, &options);
        printf("%.3f %.3f\n", started_at - stopped_at, now_ms() - begin);
    } else if (strcmp(command, "load") == 0) {
        load(uri, &options);
        printf("%.3f\n", now_ms() - begin);
    } else if (strcmp(command, "read") == 0) {
        read_all(argv[2], options.direct, atoi(more[0]));
        printf("%.3f\n", now_ms() - begin);
    } else {
        options.index = more[1];
        restore(uri, options, strcmp(command, "first") == 0);
        check(strcmp(command, "index") != 0 || access(more[1], F_OK) == 0, "no index", NULL);
    }
    fflush(stdout);
    /* The threads of a restore and of the guest may still run. */
    _exit(0);
}
