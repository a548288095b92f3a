/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Migration and snapshots: the only file that knows how the library is driven. Here, phase by phase. */
#include "minivmm.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct {
    Machine *machine;
    pthread_t thread;
    bool has_thread;
    char *uri;
    const char *_Atomic status;
    _Atomic(QEMUFile *) file;
    atomic_bool cancelled;
    _Atomic uint64_t transferred, remaining, rounds;
    _Atomic int64_t begin, set_up, stopped, end; /* host_clock() */
    _Atomic int64_t downtime_limit;              /* ms */
    _Atomic int64_t max_bandwidth;               /* MiB/s; 0: no limit */
} migration = { .status = "none", .downtime_limit = 300 };

static bool failed(const char *what, Error *err)
{
    fprintf(stderr, "minivmm: %s: %s\n", what, err ? error_get_pretty(err) : "failed");
    error_free(err);
    return false;
}

/* Sends memory while the guest runs, until what is left can be sent within the allowed downtime. */
static int precopy(QEMUFile *f)
{
    double bandwidth = 0; /* bytes per ns */
    while (qemu_file_get_error(f) == 0) {
        uint64_t only = 0, compatible = 0, post = 0;
        uint64_t threshold = (uint64_t)(bandwidth * 1e6 * (double)migration.downtime_limit);
        qemu_savevm_state_pending(f, threshold, &only, &compatible, &post);
        migration.remaining = only + compatible + post;
        if (migration.remaining <= threshold) {
            return 0;
        }
        int64_t before = qemu_file_total_transferred(f), start = host_clock();
        migration.rounds += qemu_savevm_state_iterate(f, false) > 0;
        while (migration.max_bandwidth && !migration.cancelled &&
               qemu_file_total_transferred(f) - before > (host_clock() - start) / 1000 * migration.max_bandwidth) {
            nanosleep(&(struct timespec) { .tv_nsec = 1000000 }, NULL);
        }
        int64_t sent = qemu_file_total_transferred(f) - before;
        bandwidth = (double)sent / (double)(host_clock() - start + 1);
        migration.transferred = (uint64_t)(before + sent);
    }
    return qemu_file_get_error(f);
}

static int hand_over(Machine *m, QEMUFile *f)
{
    migration.stopped = host_clock();
    migration.status = "device";
    machine_stop(m);
    int error = qemu_savevm_state_complete_precopy(f, false, true);
    migration.transferred = (uint64_t)qemu_file_total_transferred(f);
    return error ? error : qemu_file_get_error(f);
}

static void *outgoing(void *opaque)
{
    Machine *m = opaque;
    QEMUFile *f = migration.file;
    migration.begin = host_clock();
    migration.status = "setup";
    qemu_savevm_state_header(f);
    qemu_savevm_state_setup(f);
    migration.set_up = host_clock();
    migration.status = "active";
    int error = precopy(f);
    machine_lock(m);
    bool ran = m->running;
    error = error ? error : hand_over(m, f);
    migration.file = NULL;
    int closed = qemu_fclose(f);
    error = error ? error : closed;
    qemu_savevm_state_cleanup();
    if (error && disk_acquire(m) == 0 && ran) {
        machine_start(m);
    }
    machine_unlock(m);
    migration.end = host_clock();
    migration.remaining = error ? migration.remaining : 0;
    migration.status = !error ? "completed" : migration.cancelled ? "cancelled" : "failed";
    return NULL;
}

static void *incoming(void *opaque)
{
    Machine *m = opaque;
    Error *err = NULL;
    QEMUFile *f = savevm_file_open(migration.uri, false, &err);
    if (!f) {
        failed(migration.uri, err);
        migration.status = "failed";
        return NULL;
    }
    migration.begin = host_clock();
    migration.status = "active";
    machine_lock(m);
    int error = qemu_loadvm_state(f);
    qemu_fclose(f);
    error = error ? error : disk_acquire(m);
    migration.status = error ? "failed" : "completed";
    migration.end = host_clock();
    if (!error && !m->start_paused) {
        machine_start(m);
    }
    machine_unlock(m);
    return NULL;
}

static bool begin(Machine *m, const char *uri, void *(*run)(void *), const char *status)
{
    migrate_end();
    free(migration.uri);
    migration.uri = strdup(uri);
    migration.cancelled = false;
    migration.rounds = migration.transferred = migration.remaining = 0;
    migration.status = status;
    migration.has_thread = pthread_create(&migration.thread, NULL, run, m) == 0;
    return migration.has_thread;
}

bool migrate_to(Machine *m, const char *uri)
{
    Error *err = NULL;
    if (migration.file || migrate_incoming()) {
        return failed(uri, NULL);
    }
    migration.file = savevm_file_open(uri, true, &err);
    return migration.file ? begin(m, uri, outgoing, "setup") : failed(uri, err);
}

bool migrate_from(Machine *m, const char *uri)
{
    migration.machine = m;
    return begin(m, uri, incoming, "inmigrate");
}

bool migrate_incoming(void)
{
    return migration.machine && strcmp(migration.status, "completed") != 0;
}

void migrate_cancel(void)
{
    migration.cancelled = true;
    if (migration.file) {
        qemu_file_shutdown(migration.file);
    }
}

bool migrate_set(const char *name, const char *value)
{
    bool downtime = strcmp(name, "downtime-limit") == 0;
    if (!downtime && strcmp(name, "max-bandwidth") != 0) {
        return false;
    }
    *(downtime ? &migration.downtime_limit : &migration.max_bandwidth) = atoll(value);
    return true;
}

static double ms(int64_t from, int64_t to)
{
    return (double)(to - from) / 1e6;
}

void migrate_print(FILE *out)
{
    bool done = strcmp(migration.status, "completed") == 0;
    fprintf(out, "Migration status: %s\n", migration.status);
    if (migration.begin && !migration.machine) {
        fprintf(out, "total time: %.1f ms\n", ms(migration.begin, done ? migration.end : host_clock()));
        fprintf(out, "transferred: %.1f MiB\nremaining: %.1f MiB\nrounds: %llu\n",
                (double)migration.transferred / 1048576, (double)migration.remaining / 1048576,
                (unsigned long long)migration.rounds);
    }
    if (done && !migration.machine) {
        fprintf(out, "setup: %.1f ms\nprecopy: %.1f ms\ndowntime: %.1f ms\n", ms(migration.begin, migration.set_up),
                ms(migration.set_up, migration.stopped), ms(migration.stopped, migration.end));
    }
}

/* Locked and stopped from the first to the last byte, so one round is enough. */
static int save_all(QEMUFile *f)
{
    qemu_savevm_state_header(f);
    qemu_savevm_state_setup(f);
    while (qemu_file_get_error(f) == 0 && qemu_savevm_state_iterate(f, false) == 0) {
    }
    int error = qemu_file_get_error(f);
    error = error ? error : qemu_savevm_state_complete_precopy(f, false, false);
    qemu_savevm_state_cleanup();
    return error ? error : qemu_file_get_error(f);
}

/* The machine is stopped meanwhile. What it was before, it is again after a save; and after a load it runs. */
static bool snapshot(Machine *m, const char *path, bool save)
{
    char uri[4096];
    Error *err = NULL;
    snprintf(uri, sizeof(uri), "file:%s", path);
    QEMUFile *f = migration.file ? NULL : savevm_file_open(uri, save, &err);
    if (!f) {
        return failed(path, err);
    }
    machine_lock(m);
    bool runs = m->running || (!save && !m->start_paused);
    machine_stop(m);
    int error = save ? save_all(f) : qemu_loadvm_state(f);
    int closed = qemu_fclose(f);
    error = error ? error : closed;
    error = error ? error : disk_acquire(m);
    if (runs && (save || error == 0)) {
        machine_start(m);
    }
    m->start_paused = false;
    machine_unlock(m);
    return error == 0 || failed(path, NULL);
}

bool snapshot_save(Machine *m, const char *path)
{
    return snapshot(m, path, true);
}

bool snapshot_load(Machine *m, const char *path)
{
    return snapshot(m, path, false);
}

void migrate_end(void)
{
    if (migration.has_thread) {
        pthread_join(migration.thread, NULL);
        migration.has_thread = false;
    }
}
