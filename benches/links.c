/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One end of a migration over a network, for links.py: a machine with RAM only, whose guest writes to a quarter of the memory at
 * a constant rate.
 *
 * usage: links incoming|outgoing URI MIB CHANNELS none|zlib|zstd|auto KIB_PER_SECOND FILE [CERTIFICATES]
 * FILE has the first content of the memory. The destination prints "ready" when it listens. At the end the source prints the
 * seconds of the migration, the time at which the guest stopped, MiB that were sent, and a checksum of the memory. The
 * destination prints the time at which the guest started, and the checksum.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

#define PAGE ((size_t)4096)
/* The guest writes once in each of these. */
#define TICK_NS 10000000
#define TICKS_PER_SECOND 100

typedef struct Machine {
    uint8_t *memory;
    size_t length;
    size_t pages_per_tick;
    pthread_mutex_t lock;
    bool runs;
    /* When the guest stopped or started, in seconds since 1970. */
    double changed;
} Machine;

static void set_running(Machine *machine, bool runs)
{
    pthread_mutex_lock(&machine->lock);
    machine->runs = runs;
    machine->changed = seconds(CLOCK_REALTIME);
    pthread_mutex_unlock(&machine->lock);
}

static int vm_stop(void *opaque)
{
    set_running(opaque, false);
    return 0;
}

static int vm_start(void *opaque)
{
    set_running(opaque, true);
    return 0;
}

static bool vm_running(void *opaque)
{
    Machine *machine = opaque;
    pthread_mutex_lock(&machine->lock);
    bool runs = machine->runs;
    pthread_mutex_unlock(&machine->lock);
    return runs;
}

static const SaveVMHostOps host_ops = {
    .size = sizeof(SaveVMHostOps), .vm_stop = vm_stop, .vm_start = vm_start, .vm_running = vm_running,
};

/* The guest. It writes to one page after the other of the second quarter of the memory. */
static void *guest(void *opaque)
{
    Machine *machine = opaque;
    size_t from = machine->length / 4, end = machine->length / 2, at = from;
    for (;;) {
        nanosleep(&(struct timespec){ .tv_nsec = TICK_NS }, NULL);
        pthread_mutex_lock(&machine->lock);
        for (size_t page = 0; machine->runs && page < machine->pages_per_tick; page++) {
            ++*(volatile uint32_t *)(machine->memory + at);
            at = at + PAGE < end ? at + PAGE : from;
        }
        pthread_mutex_unlock(&machine->lock);
    }
    return NULL;
}

static uint64_t sum(const Machine *machine)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < machine->length / 8; i++) {
        sum = sum * 31 + ((const uint64_t *)machine->memory)[i];
    }
    return sum;
}

static SaveVM *context(Machine *machine)
{
    SaveVM *vm = savevm_new(&host_ops, machine);
    ram_new(vm, NULL, NULL, NULL, machine->memory, machine->length, false);
    return vm;
}

static void incoming(Machine *machine, const char *uri, const SaveVMParams *params)
{
    Error *err = NULL;
    SaveVMMigration *in = savevm_incoming(context(machine), uri, params, &err);
    check(in != NULL, "incoming", err);
    printf("ready\n");
    fflush(stdout);
    check(savevm_migration_wait(in, &err) == 0, "incoming", err);
    printf("%.6f %llu\n", machine->changed, (unsigned long long)sum(machine));
}

static void outgoing(Machine *machine, const char *uri, const SaveVMParams *params, const char *content)
{
    Error *err = NULL;
    pthread_t thread;
    SaveVMInfo info = SAVEVM_INFO_INIT;
    int file = open(content, O_RDONLY);
    for (size_t at = 0; at < machine->length;) {
        ssize_t got = read(file, machine->memory + at, machine->length - at);
        check(got > 0, content, NULL);
        at += (size_t)got;
    }
    SaveVM *vm = context(machine);
    set_running(machine, true);
    check(pthread_create(&thread, NULL, guest, machine) == 0, "there is no thread", NULL);
    SaveVMMigration *out = savevm_migrate(vm, uri, params, &err);
    check(out && savevm_migration_wait(out, &err) == 0, "migrate", err);
    savevm_migration_query(out, &info);
    printf("%.6f %.6f %.3f %llu\n", 1e-6 * (double)info.total_time_us, machine->changed, (double)info.transferred / 1048576,
           (unsigned long long)sum(machine));
}

int main(int argc, char **argv)
{
    static const char *const names[] = { "none", "zlib", "zstd", "auto" };
    static Machine machine = { .lock = PTHREAD_MUTEX_INITIALIZER };
    SaveVMParams params = SAVEVM_PARAMS_INIT;
    SaveVMTls tls = SAVEVM_TLS_INIT;
    int method = 0;

    check(argc == 8 || argc == 9, "usage: links incoming|outgoing URI MIB CHANNELS METHOD KIB_PER_SECOND FILE [CERTIFICATES]",
          NULL);
    machine.length = strtoul(argv[3], NULL, 0) << 20;
    machine.pages_per_tick = (strtoul(argv[6], NULL, 0) << 10) / PAGE / TICKS_PER_SECOND;
    params.channels = (uint32_t)strtoul(argv[4], NULL, 0);
    while (method < 3 && strcmp(names[method], argv[5]) != 0) {
        method++;
    }
    params.compression = (SaveVMCompression)method;
    if (argc == 9) {
        tls.dir = argv[8];
        tls.hostname = "localhost";
        params.tls = &tls;
    }
    machine.memory = mmap(NULL, machine.length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(machine.memory != MAP_FAILED, "there is no memory", NULL);
    madvise(machine.memory, machine.length, MADV_HUGEPAGE);
    if (strcmp(argv[1], "incoming") == 0) {
        incoming(&machine, argv[2], &params);
    } else {
        outgoing(&machine, argv[2], &params, argv[7]);
    }
    fflush(stdout);
    _exit(0);
}
