/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a preflight and a rehearsal cost with 1,000 devices of 20 kinds with 20 fields each, over a unix socket, and whether that
 * is within the goals:
 *
 *   - the verdict takes one round trip and at most 2 ms;
 *   - a migration with a preflight starts at most 3 ms later than without;
 *   - a rehearsal pauses the guest for at most 1.2 times the time of saving the devices.
 *
 * The pause is the time from vm_stop to vm_start, as the host sees it. It is compared with qemu_save_device_state() of the same
 * devices into a buffer in memory, once after each rehearsal.
 *
 * Prints Markdown, and exits with status 1 if a goal is missed. Times are elapsed times; the medians of ROUNDS runs count.
 */
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "migration/vmstate.h"
#include "savevm.h"
#include "savevm/file.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DEVICES 1000
#define KINDS 20
#define FIELDS 20
#define ROUNDS 201

typedef struct State {
    uint32_t numbers[FIELDS];
} State;

typedef struct Host {
    pthread_mutex_t mutex;
    SaveVM *vm;
    bool runs;
    uint64_t stopped_at, paused; /* ns */
    State states[DEVICES];
} Host;

static _Thread_local bool locked;
static VMStateField fields[KINDS][FIELDS + 1];
static VMStateDescription kinds[KINDS];
static char names[KINDS][16], field_names[FIELDS][16];
static int missed;

static uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void host_lock(void *host)
{
    pthread_mutex_lock(&((Host *)host)->mutex);
    locked = true;
}

static void host_unlock(void *host)
{
    locked = false;
    pthread_mutex_unlock(&((Host *)host)->mutex);
}

static bool host_locked(void *host)
{
    (void)host;
    return locked;
}

static int vm_stop(void *host)
{
    ((Host *)host)->runs = false;
    ((Host *)host)->stopped_at = now();
    return 0;
}

static int vm_start(void *host)
{
    Host *this = host;

    this->paused = now() - this->stopped_at;
    this->runs = true;
    return 0;
}

static bool vm_running(void *host)
{
    return ((Host *)host)->runs;
}

static void reset(void *host)
{
    memset(((Host *)host)->states, 0, sizeof(((Host *)host)->states));
}

static void quiet(void *host, SaveVMReportLevel level, const char *text)
{
    (void)host, (void)level, (void)text;
}

/* Descriptions with as many different fields as those of a machine. */
static void describe(void)
{
    static const VMStateField number = VMSTATE_UINT32(numbers[0], State);

    for (int at = 0; at < FIELDS; at++) {
        snprintf(field_names[at], sizeof(field_names[at]), "register_%d", at);
    }
    for (int kind = 0; kind < KINDS; kind++) {
        snprintf(names[kind], sizeof(names[kind]), "device-%d", kind);
        for (int at = 0; at < FIELDS; at++) {
            fields[kind][at] = number;
            fields[kind][at].name = field_names[(at + kind) % FIELDS];
            fields[kind][at].offset = (size_t)at * sizeof(uint32_t);
        }
        kinds[kind] = (VMStateDescription){
            .name = names[kind], .version_id = 1, .minimum_version_id = 1, .fields = fields[kind],
        };
    }
}

static Host *host_new(unsigned devices, bool runs)
{
    Host *host = calloc(1, sizeof(*host));
    SaveVMHostOps ops = SAVEVM_HOST_OPS_INIT;

    pthread_mutex_init(&host->mutex, NULL);
    host->runs = runs;
    ops.lock = host_lock;
    ops.unlock = host_unlock;
    ops.locked = host_locked;
    ops.vm_stop = vm_stop;
    ops.vm_start = vm_start;
    ops.vm_running = vm_running;
    ops.reset = reset;
    ops.report = quiet;
    host->vm = savevm_new(&ops, host);
    savevm_set_current(host->vm);
    for (unsigned at = 0; at < devices; at++) {
        vmstate_register(NULL, (int)(at / KINDS), &kinds[at % KINDS], &host->states[at]);
    }
    savevm_set_current(NULL);
    return host;
}

static void host_free(Host *host)
{
    savevm_free(host->vm);
    pthread_mutex_destroy(&host->mutex);
    free(host);
}

static void fail(const char *what, Error *err)
{
    fprintf(stderr, "%s: %s\n", what, err ? error_get_pretty(err) : "failed");
    exit(2);
}

static const char *uri(void)
{
    static char text[64];
    static unsigned count;

    snprintf(text, sizeof(text), "unix:/tmp/savevm-bench-%d-%u", (int)getpid(), count++);
    return text;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static double median_ms(uint64_t *times)
{
    qsort(times, ROUNDS, sizeof(*times), compare);
    return (double)times[ROUNDS / 2] / 1e6;
}

typedef int VisitFn(SaveVM *vm, const char *uri, const SaveVMParams *params, Error **errp);

/* The time of saving the devices into memory, in ns. */
static uint64_t save(Host *source)
{
    uint64_t start, end;

    savevm_set_current(source->vm);
    host_lock(source);
    QEMUFile *f = savevm_file_to_buffer();
    start = now();
    if (qemu_save_device_state(f) < 0) {
        fail("save", NULL);
    }
    end = now();
    qemu_fclose(f);
    host_unlock(source);
    savevm_set_current(NULL);
    return end - start;
}

/* The median time of a visit, in ms; those of the pause and of a save after each visit in `pause` and `saved`. */
static double visit(VisitFn *act, unsigned devices, double *pause, double *saved)
{
    Host *source = host_new(devices, true), *destination = host_new(devices, false);
    uint64_t times[ROUNDS], pauses[ROUNDS], saves[ROUNDS];
    const char *where = uri();
    Error *err = NULL;
    SaveVMMigration *in = savevm_incoming(destination->vm, where, NULL, &err);

    if (!in) {
        fail("incoming", err);
    }
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start = now();

        if (act(source->vm, where, NULL, &err) < 0) {
            fail("visit", err);
        }
        times[round] = now() - start;
        pauses[round] = source->paused;
        saves[round] = saved ? save(source) : 0;
    }
    savevm_migration_free(in);
    host_free(source);
    host_free(destination);
    if (saved) {
        *pause = median_ms(pauses);
        *saved = median_ms(saves);
    }
    return median_ms(times);
}

/* The median time from the begin of a migration to its first round, in ms. */
static double setup(bool preflight)
{
    uint64_t times[ROUNDS];

    for (int round = 0; round < ROUNDS; round++) {
        Host *source = host_new(DEVICES, true), *destination = host_new(DEVICES, false);
        SaveVMParams params = SAVEVM_PARAMS_INIT;
        SaveVMInfo info = SAVEVM_INFO_INIT;
        const char *where = uri();
        Error *err = NULL;
        SaveVMMigration *in = savevm_incoming(destination->vm, where, NULL, &err), *out;

        params.no_preflight = !preflight;
        out = savevm_migrate(source->vm, where, &params, &err);
        if (!in || !out || savevm_migration_wait(out, &err) < 0) {
            fail("migration", err);
        }
        savevm_migration_query(out, &info);
        times[round] = info.setup_time_us * 1000;
        savevm_migration_free(out);
        savevm_migration_free(in);
        host_free(source);
        host_free(destination);
    }
    return median_ms(times);
}

static void goal(const char *what, double value, const char *unit, double most)
{
    bool good = value <= most;

    printf("| %s | %.2f%s | at most %.1f%s%s |\n", what, value, unit, most, unit, good ? "" : ", missed");
    missed |= !good;
}

int main(void)
{
    double pause, saved;

    describe();
    double one = visit(savevm_preflight, 1, NULL, NULL), all = visit(savevm_preflight, DEVICES, NULL, NULL);
    double with = setup(true), without = setup(false);
    double rehearsed = visit(savevm_rehearse, DEVICES, &pause, &saved);

    printf("| | | goal |\n|---|---|---|\n");
    printf("| preflight of 1 device, with the connection | %.2f ms | |\n", one);
    printf("| preflight of %d devices, with the connection | %.2f ms | |\n", DEVICES, all);
    goal("more for the devices", all - one, " ms", 2);
    printf("| start of a migration without, with a preflight | %.2f, %.2f ms | |\n", without, with);
    goal("later", with - without, " ms", 3);
    printf("| rehearsal of %d devices, with the connection | %.2f ms | |\n", DEVICES, rehearsed);
    printf("| pause of the guest, time of saving the devices | %.3f, %.3f ms | |\n", pause, saved);
    goal("pause in relation to saving", pause / saved, "", 1.2);
    return missed;
}
