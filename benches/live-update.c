/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The gap that a guest measures when a new process takes it over: by a live
 * update, in which both processes map the same memory, and by a migration over
 * a Unix socket. The guest is a thread that reads a clock, writes to a random
 * page and keeps its longest gap in its memory. Each run has two new processes.
 * The two kinds take turns. Meanwhile a thread of the new process only reads the
 * clock and sleeps as the guest does: its longest gap is that of the machine.
 *
 * usage: live-update [MIB [RUNS [EVERY [DEVICES]]]]
 *   MIB      memory of the guest (default 4096), all of it written before
 *   RUNS     live updates (default 50)
 *   EVERY    a migration follows every so many live updates (default 5)
 *   DEVICES  devices with 256 bytes each (default 20)
 *
 * Prints the least gap, the median and the 99th percentile of both, of the thread
 * that only reads the clock, and of the difference in each run. Fails if the 99th percentile of the live
 * updates is above 10 ms.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "migration/qemu-file-types.h"
#include "migration/register.h"

#define PAGE 4096
#define DEVICE_BYTES 256
#define DEVICES_MAX 1000
#define RUNS_MAX 1000
#define GOAL_MS 10.0
/* Steps of the guest before it moves and before it reports. */
#define STEPS 200
/* The guest's sleep between two steps. A guest that writes faster than the connection would not migrate. */
#define STEP_US 20
/* Gaps of the clock's thread that are kept, and the least of them in ms. */
#define GAPS_MAX 100000
#define GAP_LEAST_MS 0.1

/* The start of guest memory. */
typedef struct Gauge {
    /* When the guest began to measure. */
    double began;
    double last, longest;
    uint64_t steps;
} Gauge;

/* A gap of the thread that only reads the clock. */
typedef struct Gap {
    double end, length;
} Gap;

/* What a run has measured. */
typedef struct Found {
    double guest, clock;
} Found;

static size_t length;
static int device_count = 20;
static uint8_t states[DEVICES_MAX][DEVICE_BYTES];
static uint8_t *memory;
static SaveVM *vm;
static SaveVMRam *ram;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static atomic_bool running;
static bool parked = true;

static Gap gaps[GAPS_MAX];
static atomic_int gap_count;

/* The thread that only reads the clock. */
static void *read_clock(void *unused)
{
    /* Its own page faults are no gaps of the machine. */
    memset(gaps, 1, sizeof(gaps));
    for (double last = now_ms(); gap_count < GAPS_MAX;) {
        usleep(STEP_US);
        double now = now_ms();
        if (now - last >= GAP_LEAST_MS) {
            gaps[gap_count] = (Gap) { .end = now, .length = now - last };
            gap_count++;
        }
        last = now;
    }
    return unused;
}

/* Its longest gap since a time. */
static double longest_gap(double since)
{
    double longest = 0;
    for (int at = 0; at < gap_count; at++) {
        if (gaps[at].end >= since && gaps[at].length > longest) {
            longest = gaps[at].length;
        }
    }
    return longest;
}

static void *guest(void *unused)
{
    Gauge *gauge = (Gauge *)memory;
    uint64_t random = 88172645463325252u;

    for (;;) {
        pthread_mutex_lock(&lock);
        while (!running) {
            parked = true;
            pthread_cond_broadcast(&changed);
            pthread_cond_wait(&changed, &lock);
        }
        parked = false;
        pthread_mutex_unlock(&lock);
        while (running) {
            double now = now_ms();
            random = random * 6364136223846793005u + 1442695040888963407u;
            uint8_t *page = memory + PAGE + (random >> 20) % (length / PAGE - 1) * PAGE;
            if (gauge->steps == STEPS) {
                gauge->longest = 0;
                gauge->began = now;
            } else if (now - gauge->last > gauge->longest) {
                gauge->longest = now - gauge->last;
            }
            gauge->last = now;
            gauge->steps++;
            ++*page;
            savevm_ram_set_dirty(ram, memory, PAGE);
            savevm_ram_set_dirty(ram, page, PAGE);
            usleep(STEP_US);
        }
    }
    return unused;
}

static int vm_stop(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&lock);
    running = false;
    while (!parked) {
        pthread_cond_wait(&changed, &lock);
    }
    pthread_mutex_unlock(&lock);
    return 0;
}

static int vm_start(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&lock);
    running = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return 0;
}

static bool vm_running(void *unused)
{
    (void)unused;
    return running;
}

static void device_save(QEMUFile *f, void *opaque)
{
    qemu_put_buffer(f, opaque, DEVICE_BYTES);
}

static int device_load(QEMUFile *f, void *opaque, int version)
{
    (void)version;
    qemu_get_buffer(f, opaque, DEVICE_BYTES);
    return 0;
}

static const SaveVMHandlers handlers = { .save_state = device_save, .load_state = device_load };

/* A machine in the memory of the file, or in new memory (-1). Its guest does not run. */
static void machine(int file)
{
    SaveVMHostOps host = SAVEVM_HOST_OPS_INIT;
    SaveVMRamOptions options = SAVEVM_RAM_OPTIONS_INIT;
    Error *err = NULL;
    pthread_t thread;

    if (file >= 0) {
        memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    } else {
        memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        madvise(memory, length, MADV_HUGEPAGE);
    }
    check(memory != MAP_FAILED, "memory", NULL);
    host.vm_stop = vm_stop;
    host.vm_start = vm_start;
    host.vm_running = vm_running;
    vm = savevm_new(&host, NULL);
    savevm_set_current(vm);
    options.log = SAVEVM_RAM_LOG_MARKS;
    ram = ram_new(vm, &options, NULL, NULL, memory, length, file >= 0);
    check(file < 0 || savevm_ram_set_descriptor(ram, "ram", file, &err) == 0, "descriptor", err);
    for (int at = 0; at < device_count; at++) {
        char name[32];
        snprintf(name, sizeof(name), "device-%d", at);
        check(register_savevm_live(name, 0, 1, &handlers, states[at]) == 0, name, NULL);
    }
    check(pthread_create(&thread, NULL, guest, NULL) == 0, "thread", NULL);
}

static void wait_for_steps(uint64_t steps)
{
    while (*(volatile uint64_t *)&((Gauge *)memory)->steps < steps) {
        usleep(500);
    }
}

static SaveVMParams parameters(void)
{
    SaveVMParams params = SAVEVM_PARAMS_INIT;
    params.max_bandwidth = UINT64_MAX;
    return params;
}

static int old_process(bool update, const char *uri, int file)
{
    SaveVMParams params = parameters();
    Error *err = NULL;

    machine(file);
    *(Gauge *)memory = (Gauge) { .last = now_ms() };
    vm_start(NULL);
    wait_for_steps(STEPS + 1);
    SaveVMMigration *out = update ? savevm_live_update(ram, uri, &params, &err) : savevm_migrate(vm, uri, &params, &err);
    check(out && savevm_migration_wait(out, &err) == 0, "the old process", err);
    return 0;
}

/* Prints the longest gap of the guest, and of the thread that only reads the clock. */
static int new_process(bool update, const char *uri)
{
    SaveVMPassedBlock block = SAVEVM_PASSED_BLOCK_INIT;
    SaveVMParams params = parameters();
    SaveVMMigration *in;
    Error *err = NULL;
    pthread_t clock;

    check(pthread_create(&clock, NULL, read_clock, NULL) == 0, "thread", NULL);
    if (update) {
        SaveVMLiveUpdate *passed = savevm_live_update_accept(uri, &err);
        check(passed && savevm_live_update_block(passed, 0, &block) == 0, "the new process", err);
        machine(block.descriptor);
        in = savevm_live_update_load(passed, vm, &params, &err);
    } else {
        machine(-1);
        in = savevm_incoming(vm, uri, &params, &err);
    }
    check(in && savevm_migration_wait(in, &err) == 0, "the new process", err);
    wait_for_steps(((Gauge *)memory)->steps + STEPS);
    vm_stop(NULL);
    printf("%f %f\n", ((Gauge *)memory)->longest, longest_gap(((Gauge *)memory)->began));
    return 0;
}

static pid_t start(char *const arguments[], int output)
{
    pid_t child = fork();
    if (child == 0) {
        if (output >= 0) {
            dup2(output, STDOUT_FILENO);
        }
        execv("/proc/self/exe", arguments);
        _exit(127);
    }
    return child;
}

/* One run. */
static Found move(bool update, int file)
{
    Found found;
    char path[64], uri[80], number[16], mib[16], devices[16], text[64] = "";
    int output[2], status;

    snprintf(path, sizeof(path), "/tmp/savevm-bench-%d", (int)getpid());
    snprintf(uri, sizeof(uri), "unix:%s", path);
    snprintf(number, sizeof(number), "%d", file);
    snprintf(mib, sizeof(mib), "%zu", length >> 20);
    snprintf(devices, sizeof(devices), "%d", device_count);
    unlink(path);
    check(pipe(output) == 0, "pipe", NULL);
    char *kind = update ? "update" : "migrate";
    pid_t new = start((char *[]) { "live-update", "new", kind, uri, number, mib, devices, NULL }, output[1]);
    close(output[1]);
    while (access(path, F_OK) != 0) {
        check(waitpid(new, &status, WNOHANG) == 0, "the new process", NULL);
        usleep(1000);
    }
    /* It is bound before it listens. */
    usleep(20000);
    pid_t old = start((char *[]) { "live-update", "old", kind, uri, number, mib, devices, NULL }, -1);
    check(waitpid(old, &status, 0) == old && status == 0, "the old process", NULL);
    check(waitpid(new, &status, 0) == new && status == 0, "the new process", NULL);
    check(read(output[0], text, sizeof(text) - 1) > 0, "the gap", NULL);
    close(output[0]);
    unlink(path);
    check(sscanf(text, "%lf %lf", &found.guest, &found.clock) == 2, "the gaps", NULL);
    return found;
}

/* Prints a row. Returns the 99th percentile. */
static double row(const char *what, double *times, int count)
{
    int over = 0, most = count * 99 / 100;

    qsort(times, count, sizeof(*times), by_value);
    for (int at = 0; at < count; at++) {
        over += times[at] > GOAL_MS;
    }
    printf("| %s | %d | %.2f | %.2f | %.2f | %d |\n", what, count, times[0], times[count / 2], times[most], over);
    return times[most];
}

/* Prints the rows of a kind. Returns whether the goal is met. */
static bool rows(const char *what, const Found *found, int count)
{
    static double guests[RUNS_MAX], clocks[RUNS_MAX], more[RUNS_MAX];

    for (int at = 0; at < count; at++) {
        guests[at] = found[at].guest;
        clocks[at] = found[at].clock;
        more[at] = guests[at] - clocks[at];
    }
    double most = row(what, guests, count);
    row("a thread that only reads the clock, meanwhile", clocks, count);
    row("how much longer the guest's gap is", more, count);
    return most <= GOAL_MS;
}

/* A file with random bytes. */
static int filled(void)
{
    int file = memfd_create("guest", 0);
    check(file >= 0 && ftruncate(file, (off_t)length) == 0, "memfd", NULL);
    uint64_t *words = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0), random = 1;
    check(words != MAP_FAILED, "memory", NULL);
    for (size_t at = 0; at < length / sizeof(*words); at++) {
        words[at] = random = random * 6364136223846793005u + 1442695040888963407u;
    }
    munmap(words, length);
    return file;
}

int main(int argc, char **argv)
{
    static Found updates[RUNS_MAX], migrations[RUNS_MAX];

    if (argc == 7) {
        length = strtoull(argv[5], NULL, 10) << 20;
        device_count = atoi(argv[6]);
        bool update = strcmp(argv[2], "update") == 0;
        return strcmp(argv[1], "old") == 0 ? old_process(update, argv[3], atoi(argv[4])) : new_process(update, argv[3]);
    }
    length = (argc > 1 ? strtoull(argv[1], NULL, 10) : 4096) << 20;
    int runs = argc > 2 ? atoi(argv[2]) : 50, every = argc > 3 ? atoi(argv[3]) : 5, migrated = 0;
    device_count = argc > 4 ? atoi(argv[4]) : 20;
    check(runs > 0 && runs <= RUNS_MAX && every > 0 && device_count <= DEVICES_MAX, "the arguments", NULL);
    int file = filled();
    for (int run = 0; run < runs; run++) {
        updates[run] = move(true, file);
        if (run % every == every - 1) {
            migrations[migrated++] = move(false, file);
        }
    }
    printf("The longest gap that a guest of %zu MiB with %d devices measures, in ms (goal of a live update: %.0f)\n\n"
           "| | runs | least | median | 99%% | above %.0f |\n|---|---|---|---|---|---|\n", length >> 20, device_count, GOAL_MS,
           GOAL_MS);
    bool good = rows("live update", updates, runs);
    if (migrated > 0) {
        rows("migration over a Unix socket", migrations, migrated);
    }
    return good ? 0 : 1;
}
