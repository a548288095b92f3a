/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How long a checkpoint and a rollback take: a machine with random bytes in its memory, 20 devices, and 100 pages that change
 * before each of the two. Beside it, a snapshot in a file that is saved and loaded again. Then how long the guest is stopped
 * for an incremental snapshot, with 57 MiB of changed pages in a guest of twice the size. Prints Markdown: medians and the
 * 99th percentile.
 *
 * usage: checkpoint [MIB [PAGES [RUNS [DIRECTORY]]]]   1024 MiB, 100 pages, 2000 runs, /dev/shm
 *
 * Fails if a goal is missed: a median of 1 ms for checkpoint and rollback together, 5 ms for the pause.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "migration/qemu-file-types.h"
#include "migration/register.h"

#define PAGE 4096
#define DEVICES 20
#define DEVICE_BYTES 256
#define FILE_RUNS 5
#define GOAL_MS 1.0
#define CHAIN_RUNS 50
#define CHANGED_MIB 57
#define PAUSE_GOAL_MS 5.0

static uint8_t *memory;
static size_t length;
static uint8_t states[DEVICES][DEVICE_BYTES];
static uint64_t seed = 88172645463325252u;

/* The guest is stopped by the library between these two. */
static double stopped_at, pause_ms;
static atomic_bool running = true;

static int vm_stop(void *host)
{
    (void)host;
    running = false;
    stopped_at = now_ms();
    return 0;
}

static int vm_start(void *host)
{
    (void)host;
    running = true;
    pause_ms = now_ms() - stopped_at;
    return 0;
}

static bool vm_running(void *host)
{
    (void)host;
    return running;
}

static uint64_t next(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static void save(QEMUFile *f, void *opaque)
{
    qemu_put_buffer(f, opaque, DEVICE_BYTES);
}

static int load(QEMUFile *f, void *opaque, int version)
{
    (void)version;
    qemu_get_buffer(f, opaque, DEVICE_BYTES);
    return 0;
}

static const SaveVMHandlers handlers = { .save_state = save, .load_state = load };

static SaveVM *machine(bool huge)
{
    SaveVMHostOps host = SAVEVM_HOST_OPS_INIT;
    host.vm_stop = vm_stop;
    host.vm_start = vm_start;
    host.vm_running = vm_running;
    SaveVM *vm = savevm_new(&host, NULL);
    SaveVMRamOptions options = SAVEVM_RAM_OPTIONS_INIT;

    memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(memory != MAP_FAILED, "memory", NULL);
    madvise(memory, length, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    for (size_t at = 0; at < length / 8; at++) {
        ((uint64_t *)memory)[at] = next();
    }
    options.log = SAVEVM_RAM_LOG_MARKS;
    savevm_set_current(vm);
    ram_new(vm, &options, NULL, NULL, memory, length, false);
    for (int device = 0; device < DEVICES; device++) {
        char name[32];
        snprintf(name, sizeof(name), "device-%d", device);
        check(register_savevm_live(name, 0, 1, &handlers, states[device]) == 0, name, NULL);
    }
    return vm;
}

/* The guest's writes, and their duration. */
static double dirty(int pages)
{
    double start = now_ms();
    for (int i = 0; i < pages; i++) {
        memory[next() % (length / PAGE) * PAGE]++;
    }
    return now_ms() - start;
}

/* Prints a row, and returns the median. */
static double row(const char *what, double *times, int count)
{
    qsort(times, count, sizeof(*times), by_value);
    printf("| %s | %.3f | %.3f |\n", what, times[count / 2], times[count * 99 / 100]);
    return times[count / 2];
}

static double measure(bool huge, int pages, int runs)
{
    SaveVM *vm = machine(huge);
    double *made = calloc(runs, sizeof(double)), *undone = calloc(runs, sizeof(double));
    double *pair = calloc(runs, sizeof(double)), *wrote = calloc(runs, sizeof(double)), *freed = calloc(runs, sizeof(double));
    Error *err = NULL;
    double start = now_ms();
    SaveVMCheckpoint *base = savevm_checkpoint(vm, &err);

    check(base, "checkpoint", err);
    printf("\n%zu MiB in %s pages, %d pages written before each call, %d devices; first checkpoint %.2f ms\n\n"
           "| ms | median | 99%% |\n|---|---|---|\n", length >> 20, huge ? "huge" : "4 KiB", pages, DEVICES, now_ms() - start);
    for (int run = 0; run < runs; run++) {
        dirty(pages);
        start = now_ms();
        SaveVMCheckpoint *checkpoint = savevm_checkpoint(vm, &err);
        made[run] = now_ms() - start;
        check(checkpoint, "checkpoint", err);
        wrote[run] = dirty(pages);
        start = now_ms();
        check(savevm_rollback(checkpoint, &err) == 0, "rollback", err);
        undone[run] = now_ms() - start;
        pair[run] = made[run] + undone[run];
        start = now_ms();
        savevm_checkpoint_free(checkpoint);
        freed[run] = now_ms() - start;
        check(savevm_rollback(base, &err) == 0, "rollback", err);
    }
    row("checkpoint", made, runs);
    row("rollback", undone, runs);
    row("the guest's writes, each of which copies a page", wrote, runs);
    row("free", freed, runs);
    double median = row("checkpoint and rollback", pair, runs);
    savevm_checkpoint_free(base);
    free(made);
    free(undone);
    free(pair);
    free(wrote);
    free(freed);
    return median;
}

/* The rival: a snapshot in a file. */
static void measure_file(const char *directory)
{
    SaveVM *vm = machine(true);
    double times[FILE_RUNS];
    char uri[256];
    Error *err = NULL;

    snprintf(uri, sizeof(uri), "file:%s/savevm-bench-%d", directory, (int)getpid());
    for (int run = 0; run < FILE_RUNS; run++) {
        double start = now_ms();
        check(savevm_snapshot_save(vm, uri, NULL, &err) == 0, "save", err);
        check(savevm_snapshot_load(vm, uri, NULL, &err) == 0, "load", err);
        times[run] = now_ms() - start;
    }
    unlink(uri + strlen("file:"));
    row("snapshot in a file, saved and loaded", times, FILE_RUNS);
}

static double snapshot(SaveVM *vm, const char *uri, const char *parent)
{
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;
    Error *err = NULL;
    double start = now_ms();

    options.parent = parent;
    check(savevm_snapshot_save(vm, uri, &options, &err) == 0, "save", err);
    return now_ms() - start;
}

/* A guest that goes on writing: 10,000 pages in a second, unless it is stopped. */
static void *write_on(void *over)
{
    uint64_t random = 1234567;

    while (!*(atomic_bool *)over) {
        for (int i = 0; i < 10 && running; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            memory[(random >> 20) % (length / PAGE) * PAGE]++;
        }
        usleep(1000);
    }
    return NULL;
}

/* Returns the median pause. The pages are in a row, or anywhere. The guest may write further pages during the snapshot. */
static double measure_incremental(const char *directory, bool huge, bool scattered, bool writes_on)
{
    SaveVM *vm = machine(huge);
    atomic_bool over = false;
    pthread_t guest;
    double pauses[CHAIN_RUNS], times[CHAIN_RUNS];
    char uris[CHAIN_RUNS + 1][256];
    int pages = CHANGED_MIB * (1 << 20) / PAGE;

    for (int i = 0; i <= CHAIN_RUNS; i++) {
        snprintf(uris[i], sizeof(uris[i]), "file:%s/savevm-bench-%d-%d", directory, (int)getpid(), i);
    }
    double full = snapshot(vm, uris[0], NULL), full_pause = pause_ms;
    double first = snapshot(vm, uris[0], "");
    printf("\n%zu MiB in %s pages, %d MiB of %s pages changed. Full snapshot: stopped for %.0f ms of %.0f ms; that begins a\n"
           "chain: %.1f ms of %.0f ms\n\n| ms | median | 99%% |\n|---|---|---|\n", length >> 20, huge ? "huge" : "4 KiB",
           CHANGED_MIB, !scattered ? "consecutive" : writes_on ? "scattered (and 39 MiB/s more)" : "scattered", full_pause, full,
           pause_ms, first);
    if (writes_on) {
        check(pthread_create(&guest, NULL, write_on, &over) == 0, "thread", NULL);
    }
    for (int run = 0; run < CHAIN_RUNS; run++) {
        if (scattered) {
            dirty(pages);
        } else {
            size_t start = next() % (length / PAGE - pages);
            for (int i = 0; i < pages; i++) {
                memory[(start + i) * PAGE]++;
            }
        }
        times[run] = snapshot(vm, uris[run + 1], uris[run]);
        pauses[run] = pause_ms;
    }
    over = true;
    if (writes_on) {
        pthread_join(guest, NULL);
    }
    for (int i = 0; i <= CHAIN_RUNS; i++) {
        unlink(uris[i] + strlen("file:"));
    }
    row("the whole call", times, CHAIN_RUNS);
    double median = row("the guest is stopped", pauses, CHAIN_RUNS);
    munmap(memory, length);
    return median;
}

int main(int argc, char **argv)
{
    length = (argc > 1 ? strtoul(argv[1], NULL, 0) : 1024) << 20;
    int pages = argc > 2 ? atoi(argv[2]) : 100, runs = argc > 3 ? atoi(argv[3]) : 2000;

    double small = measure(false, pages, runs);
    munmap(memory, length);
    double huge = measure(true, pages, runs);
    munmap(memory, length);
    const char *directory = argc > 4 ? argv[4] : "/dev/shm";
    measure_file(directory);
    munmap(memory, length);
    length *= 2;
    double pause = 0;
    for (int kind = 0; kind < 6; kind++) {
        double median = measure_incremental(directory, kind & 1, kind & 6, kind & 4);
        pause = median > pause ? median : pause;
    }
    printf("\ngoals: at most %.0f ms for checkpoint and rollback, %.0f ms for the pause of an incremental snapshot\n", GOAL_MS,
           PAUSE_GOAL_MS);
    return small > GOAL_MS || huge > GOAL_MS || pause > PAUSE_GOAL_MS;
}
