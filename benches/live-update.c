/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The gap that a guest measures when a new process takes it over: by a live
 * update, in which both processes map the same memory, and by a migration over
 * a Unix socket. The guest is a thread that reads a clock, writes to a random
 * page and keeps its longest gap in its memory. Each run has two new processes.
 * The two kinds take turns.
 *
 * usage: live-update [MIB [RUNS [EVERY [DEVICES]]]]
 *   MIB      memory of the guest (default 4096), all of it written before
 *   RUNS     live updates (default 50)
 *   EVERY    a migration follows every so many live updates (default 5)
 *   DEVICES  devices with 256 bytes each (default 20)
 *
 * Prints the least gap, the median and the 99th percentile of both. Fails if
 * the median or the 99th percentile of the live updates is above 10 ms.
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

/* The start of guest memory. */
typedef struct Gauge {
    double last, longest;
    uint64_t steps;
} Gauge;

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
            } else if (now - gauge->last > gauge->longest) {
                gauge->longest = now - gauge->last;
            }
            gauge->last = now;
            gauge->steps++;
            ++*page;
            savevm_ram_set_dirty(ram, memory, PAGE);
            savevm_ram_set_dirty(ram, page, PAGE);
            /* A guest that writes faster than the connection would not migrate. */
            usleep(20);
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

/* Prints the longest gap of the guest. */
static int new_process(bool update, const char *uri)
{
    SaveVMPassedBlock block = SAVEVM_PASSED_BLOCK_INIT;
    SaveVMParams params = parameters();
    SaveVMMigration *in;
    Error *err = NULL;

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
    printf("%f\n", ((Gauge *)memory)->longest);
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

/* One run. Returns the gap. */
static double move(bool update, int file)
{
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
    return strtod(text, NULL);
}

/* Prints a row. Returns whether the goal is met. */
static bool row(const char *what, double *gaps, int count)
{
    qsort(gaps, count, sizeof(*gaps), by_value);
    double median = gaps[count / 2], most = gaps[count * 99 / 100];
    printf("| %s | %d | %.2f | %.2f | %.2f |\n", what, count, gaps[0], median, most);
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
    static double updates[RUNS_MAX], migrations[RUNS_MAX];

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
           "| | runs | least | median | 99%% |\n|---|---|---|---|---|\n", length >> 20, device_count, GOAL_MS);
    bool good = row("live update", updates, runs);
    if (migrated > 0) {
        row("migration over a Unix socket", migrations, migrated);
    }
    return good ? 0 : 1;
}
