/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How good the estimates of the time to the end are: migrations of guests that write steadily, over a unix socket and with a
 * bandwidth limit. Looks at each migration every 10 ms. Prints, for each, what was estimated at half time, and how far that was
 * from the actual time; then the distribution of these errors.
 *
 * usage: estimate [RUNS]     50 runs of 1 to 6 seconds
 * Fails if a percentage fell, or if an estimate at half time was wrong by more than 20%.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

#define PAGE 4096
#define LOOKS 100000
#define GOAL 0.2

/* Which pages a guest writes to. */
typedef enum Pattern { ALL, HALF, SWEEP, HOT } Pattern;

static const char *const names[] = { "random pages", "random pages of one half", "one page after the other", "mostly a tenth" };

/* A guest with its dirty log. */
typedef struct Guest {
    uint8_t *memory;
    size_t pages;
    _Atomic uint64_t *log;
    Pattern pattern;
    double rate; /* pages per second */
    atomic_bool quit;
    atomic_bool running;
} Guest;

static void nap(long ms)
{
    nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000 }, NULL);
}

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Writes pages at a steady rate while the guest runs. */
static void *guest_run(void *opaque)
{
    Guest *guest = opaque;
    uint64_t state = 88172645463325252ULL, swept = 0;
    double began = seconds(CLOCK_MONOTONIC), written = 0;
    while (!atomic_load(&guest->quit)) {
        nap(2);
        double due = (seconds(CLOCK_MONOTONIC) - began) * guest->rate;
        for (; written < due; written++) {
            uint64_t random = random_next(&state) >> 8, page = random % guest->pages;
            if (guest->pattern == HALF) {
                page = guest->pages / 4 + random % (guest->pages / 2);
            } else if (guest->pattern == SWEEP) {
                page = swept++ % guest->pages;
            } else if (guest->pattern == HOT && random % 1000 < 900) {
                page = guest->pages / 3 + page % (guest->pages / 10);
            }
            if (atomic_load(&guest->running)) {
                guest->memory[page * PAGE + random % PAGE]++;
                atomic_fetch_or(&guest->log[page / 64], 1ULL << page % 64);
            }
        }
    }
    return NULL;
}

static int log_start(void *opaque)
{
    Guest *guest = opaque;
    for (size_t word = 0; word < guest->pages / 64; word++) {
        atomic_store(&guest->log[word], 0);
    }
    return 0;
}

static int log_sync(void *opaque, const SaveVMRamBlock *block, uint64_t *bitmap, size_t words)
{
    Guest *guest = opaque;
    (void)block;
    for (size_t word = 0; word < words; word++) {
        bitmap[word] = atomic_exchange(&guest->log[word], 0);
    }
    return 0;
}

static void log_stop(void *opaque)
{
    (void)opaque;
}

static int vm_stop(void *opaque)
{
    atomic_store(&((Guest *)opaque)->running, false);
    return 0;
}

static int vm_start(void *opaque)
{
    atomic_store(&((Guest *)opaque)->running, true);
    return 0;
}

static bool vm_running(void *opaque)
{
    return atomic_load(&((Guest *)opaque)->running);
}

static SaveVM *machine(Guest *guest, size_t pages)
{
    guest->pages = pages;
    guest->log = calloc(pages / 64, sizeof(uint64_t));
    guest->memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(guest->memory != MAP_FAILED && guest->log, "there is no memory", NULL);
    SaveVMHostOps host = SAVEVM_HOST_OPS_INIT;
    host.vm_stop = vm_stop;
    host.vm_start = vm_start;
    host.vm_running = vm_running;
    SaveVM *vm = savevm_new(&host, guest);
    SaveVMRamOps ops = SAVEVM_RAM_OPS_INIT;
    ops.log_start = log_start;
    ops.log_sync = log_sync;
    ops.log_stop = log_stop;
    ram_new(vm, NULL, &ops, guest, guest->memory, pages * PAGE, false);
    return vm;
}

static int by_size(const void *a, const void *b)
{
    double x = fabs(*(const double *)a), y = fabs(*(const double *)b);
    return (x > y) - (x < y);
}

/* Migrates a guest. Returns by how much the estimate at half time was wrong, as a part of the actual time. */
static double migrate(int run, bool *fell)
{
    static struct { double at, total; } looks[LOOKS];
    static const double loads[] = { 0, 0.1, 0.25, 0.4, 0.55 };
    size_t pages = run % 2 ? 6144 : 12288, count = 0;
    double speed = 20e6, load = loads[run % 5];
    Guest near = { .pattern = (Pattern)(run / 5 % 4), .running = true }, far = { .running = false };
    char uri[64];
    snprintf(uri, sizeof(uri), "unix:/tmp/savevm-estimate-%d", (int)getpid());
    SaveVM *source = machine(&near, pages), *target = machine(&far, pages);
    uint64_t state = (uint64_t)run + 1;
    for (size_t word = 0; word < pages * PAGE / 8; word++) {
        ((uint64_t *)near.memory)[word] = random_next(&state);
    }
    near.rate = load * speed / PAGE;
    pthread_t thread;
    check(pthread_create(&thread, NULL, guest_run, &near) == 0, "there is no thread", NULL);
    SaveVMParams params = SAVEVM_PARAMS_INIT;
    params.max_bandwidth = (uint64_t)speed;
    Error *err = NULL;
    unlink(uri + strlen("unix:"));
    SaveVMMigration *in = savevm_incoming(target, uri, &params, &err);
    check(in != NULL, "incoming", err);
    SaveVMMigration *out = savevm_migrate(source, uri, &params, &err);
    check(out != NULL, "migrate", err);
    SaveVMInfo info = SAVEVM_INFO_INIT, there = SAVEVM_INFO_INIT;
    uint32_t percent = 0, arrived = 0;
    do {
        nap(10);
        savevm_migration_query(out, &info);
        savevm_migration_query(in, &there);
        *fell |= info.percent < percent || there.percent < arrived;
        percent = info.percent;
        arrived = there.percent;
        if (count < LOOKS && info.status != SAVEVM_STATUS_COMPLETED) {
            looks[count].at = (double)info.total_time_us;
            looks[count++].total = (double)info.expected_total_time_us;
        }
    } while (info.status != SAVEVM_STATUS_COMPLETED && info.status != SAVEVM_STATUS_FAILED);
    check(savevm_migration_wait(out, &err) == 0, "migrate", err);
    check(savevm_migration_wait(in, &err) == 0, "incoming", err);
    savevm_migration_query(out, &info);
    double actual = (double)info.total_time_us, half = 0;
    for (size_t look = 0; look < count && looks[look].at <= actual / 2; look++) {
        half = looks[look].total;
    }
    atomic_store(&near.quit, true);
    pthread_join(thread, NULL);
    double error = half > 0 ? half / actual - 1 : 1;
    printf("%3d  %-26s writes %3.0f%% of %.0f MB/s, %3zu MB: %.2f s, at half time %.2f s, %+.1f%%\n", run + 1, names[near.pattern],
           100 * load, speed / 1e6, pages * PAGE / 1000000, actual / 1e6, half / 1e6, 100 * error);
    fflush(stdout);
    savevm_migration_free(out);
    savevm_migration_free(in);
    savevm_free(source);
    savevm_free(target);
    munmap(near.memory, pages * PAGE);
    munmap(far.memory, pages * PAGE);
    free((void *)near.log);
    free((void *)far.log);
    return error;
}

int main(int argc, char **argv)
{
    int runs = argc > 1 ? atoi(argv[1]) : 50, wrong = 0;
    double *errors = calloc((size_t)(runs > 0 ? runs : 1), sizeof(double));
    bool fell = false;
    check(errors && runs > 0, "usage: estimate [RUNS]", NULL);
    for (int run = 0; run < runs; run++) {
        errors[run] = migrate(run, &fell);
        wrong += fabs(errors[run]) > GOAL;
    }
    qsort(errors, (size_t)runs, sizeof(double), by_size);
    printf("\nerror at half time of %d migrations: median %.1f%%, 75%% %.1f%%, 90%% %.1f%%, most %.1f%%; %d above %.0f%%%s\n", runs,
           100 * fabs(errors[runs / 2]), 100 * fabs(errors[runs * 3 / 4]), 100 * fabs(errors[runs * 9 / 10]),
           100 * fabs(errors[runs - 1]), wrong, 100 * GOAL, fell ? "; a percentage fell" : "");
    free(errors);
    return fell || wrong > 0;
}
