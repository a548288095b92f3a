/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Migration and snapshots: the only file that knows that the guest can move. libsavevm does the work, on threads of its
 * own; here it is told how to hold the guest and where its memory is, and what the user wants.
 */
#include "minivmm.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MIB 1048576.0
#define MS 1000.0 /* from us */

static SaveVM *vm;
static SaveVMMigration *outgoing; /* the last one, also when it is over */
static SaveVMMigration *incoming; /* the one that this process began with */
static SaveVMParams params = SAVEVM_PARAMS_INIT;

/* Prints the error, where there is one. */
static bool failed(const char *what, Error *err)
{
    if (err) {
        fprintf(stderr, "minivmm: %s: %s\n", what, error_get_pretty(err));
    }
    error_free(err);
    return false;
}

/* What libsavevm asks of the machine. */

static const char *machine_name(void *machine)
{
    return "minivmm";
}

static void show_event(void *machine, const SaveVMEvent *event)
{
    printf("[%s] %s\n", event->incoming ? "incoming" : "outgoing", event->status_name);
    fflush(stdout);
}

bool migrate_init(Machine *m)
{
    SaveVMHostOps host_ops = SAVEVM_HOST_OPS_INIT;
    host_ops.lock = machine_lock;
    host_ops.unlock = machine_unlock;
    host_ops.locked = machine_locked;
    host_ops.vm_stop = machine_stop;
    host_ops.vm_start = machine_start;
    host_ops.vm_running = machine_running;
    host_ops.machine_name = machine_name;
    host_ops.disks_inactivate = disk_release;
    host_ops.disks_activate = disk_acquire;
    host_ops.migration_event = show_event;
    SaveVMRamBlock block = SAVEVM_RAM_BLOCK_INIT;
    block.name = "memory";
    block.host = m->ram;
    block.length = m->ram_size;
    Error *err = NULL;
    vm = savevm_new(&host_ops, m);
    savevm_set_current(vm); /* devices register themselves there, on this thread */
    SaveVMRamOptions options = SAVEVM_RAM_OPTIONS_INIT;
    SaveVMRamOps log_ops = SAVEVM_RAM_OPS_INIT;
    options.log = m->accel->log;
    if (m->accel->log_ops) {
        m->accel->log_ops(&log_ops);
    }
    m->ram_module = savevm_ram_new(vm, &options, &log_ops, m, &err);
    return (m->ram_module && savevm_ram_add_block(m->ram_module, &block, &err) == 0) || failed("memory", err);
}

/* The migration by which the guest left, or else that by which it came; NULL: neither. */
static SaveVMMigration *current(void)
{
    return outgoing ? outgoing : incoming;
}

/* Statistics of that migration. Without one, zero: no status, and the guest is here. */
static SaveVMInfo query(void)
{
    SaveVMInfo info = SAVEVM_INFO_INIT;
    info.status_name = "none";
    savevm_migration_query(current(), &info);
    return info;
}

bool migrate_may_start(void)
{
    Error *err = NULL;
    return savevm_check_may_run(vm, &err) == 0 || failed("cont", err);
}

static bool is_postcopy(SaveVMStatus status)
{
    return status == SAVEVM_STATUS_POSTCOPY_ACTIVE || status == SAVEVM_STATUS_POSTCOPY_PAUSED ||
           status == SAVEVM_STATUS_POSTCOPY_RECOVER;
}

bool migrate_memory_is_here(void)
{
    return outgoing || !is_postcopy(query().status);
}

/* What the user asks of libsavevm. */

void migrate_to(Machine *m, const char *uri)
{
    Error *err = NULL;
    SaveVMMigration *begun = savevm_migrate(vm, uri, &params, &err); /* not if the guest is gone or torn */
    if (begun) {
        savevm_migration_free(outgoing);
        outgoing = begun;
    } else {
        failed(uri, err);
    }
}

void migrate_trace(const char *path)
{
    params.trace = path;
}

/* Whether it becomes a postcopy is up to the source, where it can be one. */
bool migrate_from(Machine *m, const char *uri, bool start)
{
    Error *err = NULL;
    SaveVMParams in = params;
    in.no_autostart = !start;
    in.postcopy = savevm_ram_check_postcopy(m->ram_module, NULL) == 0;
    /* The source is a minivmm as well: a stream that was damaged so that it seems to end does not start a second guest. */
    if (strncmp(uri, "unix:", strlen("unix:")) == 0 || strncmp(uri, "tcp:", strlen("tcp:")) == 0) {
        in.return_path = SAVEVM_RETURN_PATH_ON;
    }
    incoming = savevm_incoming(vm, uri, &in, &err);
    return incoming || failed(uri, err);
}

static void report(int ret, const char *what)
{
    if (ret < 0) {
        fprintf(stderr, "minivmm: %s\n", what);
    }
}

void migrate_cancel(Machine *m, const char *unused)
{
    report(savevm_migration_cancel(current()), "there is no migration that could still be cancelled");
}

void migrate_start_postcopy(Machine *m, const char *unused)
{
    report(savevm_migration_start_postcopy(outgoing), "no migration runs that may become a postcopy");
}

void migrate_pause(Machine *m, const char *unused)
{
    report(savevm_migration_pause(current()), "no postcopy runs");
}

void migrate_recover(Machine *m, const char *uri)
{
    Error *err = NULL;
    savevm_migration_recover(current(), uri, &err);
    failed(uri, err);
}

void migrate_set(Machine *m, const char *argument)
{
    char name[32], digits[10], more;
    bool pair = sscanf(argument, "%31s %9[0-9] %c", name, digits, &more) == 2;
    unsigned long number = pair ? strtoul(digits, NULL, 10) : 0;
    if (pair && strcmp(name, "downtime-limit") == 0) {
        params.downtime_limit_ms = (uint32_t)number;
    } else if (pair && strcmp(name, "max-bandwidth") == 0) {
        params.max_bandwidth = (uint64_t)number << 20;
    } else if (pair && strcmp(name, "max-postcopy-bandwidth") == 0) {
        params.max_postcopy_bandwidth = (uint64_t)number << 20;
    } else if (strcmp(argument, "postcopy-ram on") == 0) {
        params.postcopy = true;
    } else if (strcmp(argument, "postcopy-ram off") == 0) {
        params.postcopy = false;
    } else {
        fprintf(stderr, "minivmm: no such parameter, or not with such a value: %s\n", argument);
    }
    savevm_migration_set_params(outgoing, &params, NULL); /* of a migration that runs, as far as they may change then */
}

void migrate_info(Machine *m, const char *unused)
{
    SaveVMInfo info = query();
    uint64_t left = info.remaining_precopy_only + info.remaining_compatible + info.remaining_postcopy_only;
    printf("Migration status: %s\n", info.status_name);
    printf("transferred: %.1f MiB\n", info.transferred / MIB);
    printf("remaining: %.1f MiB\n", left / MIB);
    printf("throughput: %.1f MiB/s\n", info.bandwidth / MIB);
    printf("rounds: %" PRIu64 "\n", info.rounds);
    printf("page requests: %" PRIu64 "\n", info.page_requests);
    printf("recoveries: %" PRIu64 "\n", info.recoveries);
    printf("setup: %.1f ms\n", info.setup_time_us / MS);
    printf("precopy: %.1f ms\n", info.precopy_time_us / MS);
    printf("switchover: %.1f ms\n", info.switchover_time_us / MS);
    printf("postcopy: %.1f ms\n", info.postcopy_time_us / MS);
    printf("paused: %.1f ms\n", info.paused_time_us / MS);
    printf("expected downtime: %.1f ms\n", info.expected_downtime_us / MS);
    printf("downtime: %.1f ms\n", info.downtime_us / MS);
    if (info.status == SAVEVM_STATUS_FAILED) {
        Error *err = NULL;
        savevm_migration_wait(current(), &err);
        failed("migration", err);
    }
}

typedef int SnapshotFn(SaveVM *vm, const char *uri, const SaveVMSnapshotOptions *options, Error **errp);

static bool snapshot(SnapshotFn *act, const char *path)
{
    char uri[4096];
    Error *err = NULL;
    snprintf(uri, sizeof(uri), "file:%s", path);
    return act(vm, uri, NULL, &err) == 0 || failed(path, err);
}

void snapshot_save(Machine *m, const char *path)
{
    if (snapshot(savevm_snapshot_save, path)) {
        printf("saved\n");
    }
}

/* The guest that was here before is gone, wherever it was. The one from the file runs if this machine did. */
void snapshot_load(Machine *m, const char *path)
{
    machine_lock(m);
    bool loaded = disk_acquire(m) == 0 && snapshot(savevm_snapshot_load, path);
    machine_unlock(m);
    if (loaded) {
        migrate_end();
        printf("loaded\n");
    }
}

void migrate_end(void)
{
    savevm_migration_free(outgoing);
    savevm_migration_free(incoming);
    outgoing = NULL;
    incoming = NULL;
}
