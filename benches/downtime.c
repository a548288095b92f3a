/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The downtime of postcopy: the time from vm_stop at the source to vm_start at
 * the destination, both in this process. Two guests take turns: one that wrote
 * to all of its memory, and a larger one that wrote to none of it, whose pages
 * are records of nine bytes, so that a hundred thousand of them fit into the
 * connection. Postcopy is requested when a part of the memory was sent. A run in
 * which precopy is faster does not count.
 *
 * usage: downtime [MIB [RUNS [BUSY [PERCENT]]]]
 *   MIB      memory of the untouched guest (default 16384); the touched one
 *            has a sixteenth of it
 *   RUNS     migrations of each guest (default 15)
 *   BUSY     processes that use a processor meanwhile (default 0)
 *   PERCENT  part of the memory that is sent before postcopy is requested
 *            (default 5)
 *
 * Prints the least, the median, the ninth decile and the greatest downtime of
 * both, and the ratio of the medians: a ratio is of use also on a machine that
 * does other things. Fails if the untouched guest's median is above 10 ms and
 * above three times the other's.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "savevm.h"
#include "savevm/ram.h"

#define PAGE 4096
#define BUSY_MAX 64
#define RUNS_MAX 1000
#define GOAL_MS 10.0
#define GOAL_RATIO 3.0

/* Memory of the guest of this run, in bytes. */
static size_t length;
/* The untouched guest has so many times the memory of the touched one. */
#define LARGER 16

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return 1e3 * (double)time.tv_sec + 1e-6 * (double)time.tv_nsec;
}

typedef struct Machine {
    SaveVM *vm;
    SaveVMRam *ram;
    uint8_t *memory;
    pthread_mutex_t lock;
    atomic_bool runs;
    /* When the guest was stopped and started last, in milliseconds. */
    _Atomic double stopped, started;
} Machine;

static _Thread_local Machine *held;

static void lock(void *opaque)
{
    pthread_mutex_lock(&((Machine *)opaque)->lock);
    held = opaque;
}

static void unlock(void *opaque)
{
    held = NULL;
    pthread_mutex_unlock(&((Machine *)opaque)->lock);
}

static bool locked(void *opaque)
{
    return held == opaque;
}

static int vm_stop(void *opaque)
{
    Machine *machine = opaque;
    machine->stopped = now();
    machine->runs = false;
    return 0;
}

static int vm_start(void *opaque)
{
    Machine *machine = opaque;
    machine->runs = true;
    machine->started = now();
    return 0;
}

static bool vm_running(void *opaque)
{
    return ((Machine *)opaque)->runs;
}

static void fail(const char *what, Error *err)
{
    fprintf(stderr, "%s: %s\n", what, err ? error_get_pretty(err) : "failed");
    exit(1);
}

static void machine_init(Machine *machine, bool runs)
{
    SaveVMHostOps ops = SAVEVM_HOST_OPS_INIT;
    ops.lock = lock;
    ops.unlock = unlock;
    ops.locked = locked;
    ops.vm_stop = vm_stop;
    ops.vm_start = vm_start;
    ops.vm_running = vm_running;
    SaveVMRamOptions options = SAVEVM_RAM_OPTIONS_INIT;
    options.log = SAVEVM_RAM_LOG_MARKS;
    SaveVMRamBlock block = SAVEVM_RAM_BLOCK_INIT;
    Error *err = NULL;

    memset(machine, 0, sizeof(*machine));
    pthread_mutex_init(&machine->lock, NULL);
    machine->runs = runs;
    machine->memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (machine->memory == MAP_FAILED) {
        fail("memory", NULL);
    }
    block.name = "memory";
    block.host = machine->memory;
    block.length = length;
    machine->vm = savevm_new(&ops, machine);
    machine->ram = savevm_ram_new(machine->vm, &options, NULL, machine, &err);
    if (!machine->ram || savevm_ram_add_block(machine->ram, &block, &err) != 0) {
        fail("RAM", err);
    }
}

static void machine_free(Machine *machine)
{
    savevm_ram_free(machine->ram);
    savevm_free(machine->vm);
    munmap(machine->memory, length);
}

/* One migration; its downtime in milliseconds, or -1 if precopy was faster. */
static double migrate(bool touched, unsigned percent)
{
    Machine source, destination;
    SaveVMParams params = SAVEVM_PARAMS_INIT;
    SaveVMInfo info = SAVEVM_INFO_INIT;
    char uri[64];
    Error *err = NULL;

    params.postcopy = true;
    /* Precopy would end by itself when this little is left. */
    params.downtime_limit_ms = 1;
    snprintf(uri, sizeof(uri), "unix:/tmp/savevm-downtime-%d", (int)getpid());
    machine_init(&source, true);
    machine_init(&destination, false);
    for (size_t at = 0; touched && at < length; at += PAGE) {
        memset(source.memory + at, (int)(at / PAGE % 251 + 1), PAGE);
    }
    SaveVMMigration *in = savevm_incoming(destination.vm, uri, &params, &err);
    SaveVMMigration *out = in ? savevm_migrate(source.vm, uri, &params, &err) : NULL;
    if (!out) {
        fail("begin", err);
    }
    uint64_t left;
    do {
        usleep(200);
        savevm_migration_query(out, &info);
        left = info.remaining_precopy_only + info.remaining_compatible + info.remaining_postcopy_only;
    } while (info.status < SAVEVM_STATUS_ACTIVE ||
             (info.status == SAVEVM_STATUS_ACTIVE && (left == 0 || left > length / 100 * (100 - percent))));
    savevm_migration_start_postcopy(out);
    if (savevm_migration_wait(out, &err) != 0 || savevm_migration_wait(in, &err) != 0) {
        fail("migration", err);
    }
    savevm_migration_query(out, &info);
    double downtime = info.postcopy_time_us > 0 ? destination.started - source.stopped : -1;
    savevm_migration_free(out);
    savevm_migration_free(in);
    machine_free(&source);
    machine_free(&destination);
    return downtime;
}

static int compare(const void *one, const void *two)
{
    double a = *(const double *)one, b = *(const double *)two;
    return (a > b) - (a < b);
}

/* Prints the distribution; its median. */
static double report(const char *what, double *times, unsigned count)
{
    if (count == 0) {
        printf("%-10s precopy was faster in all runs\n", what);
        return 0;
    }
    qsort(times, count, sizeof(*times), compare);
    printf("%-10s n %3u  least %7.2f  median %7.2f  ninth decile %7.2f  greatest %7.2f ms\n", what, count, times[0],
           times[count / 2], times[count * 9 / 10], times[count - 1]);
    return times[count / 2];
}

int main(int argc, char **argv)
{
    unsigned mib = argc > 1 ? (unsigned)atoi(argv[1]) : 16384, runs = argc > 2 ? (unsigned)atoi(argv[2]) : 15;
    unsigned busy = argc > 3 ? (unsigned)atoi(argv[3]) : 0, percent = argc > 4 ? (unsigned)atoi(argv[4]) : 5;
    static double times[2][RUNS_MAX];
    unsigned counts[2] = { 0, 0 };
    pid_t children[BUSY_MAX];

    if (mib < LARGER || runs == 0 || runs > RUNS_MAX || busy > BUSY_MAX || percent >= 100) {
        fprintf(stderr, "usage: downtime [MIB [RUNS [BUSY [PERCENT]]]]\n");
        return 2;
    }
    for (unsigned i = 0; i < busy; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (volatile unsigned long work = 0;; work++) {
            }
        }
    }
    for (unsigned run = 0; run < runs; run++) {
        /* The order changes from run to run. */
        for (unsigned turn = 0; turn < 2; turn++) {
            unsigned touched = (run + turn) % 2;
            length = ((size_t)mib << 20) / (touched ? LARGER : 1);
            double time = migrate(touched, percent);
            if (time >= 0) {
                times[touched][counts[touched]++] = time;
            }
        }
    }
    for (unsigned i = 0; i < busy; i++) {
        kill(children[i], SIGKILL);
        waitpid(children[i], NULL, 0);
    }
    printf("%u MiB, %u busy processes, postcopy after %u%%\n", mib, busy, percent);
    double untouched = report("untouched", times[0], counts[0]), touched = report("touched", times[1], counts[1]);
    double ratio = touched > 0 ? untouched / touched : 0;
    printf("ratio of the medians %.2f\n", ratio);
    bool missed = untouched > GOAL_MS && ratio > GOAL_RATIO;
    if (missed) {
        printf("missed: at most %.0f ms, or %.0f times the touched guest's\n", GOAL_MS, GOAL_RATIO);
    }
    return missed;
}
