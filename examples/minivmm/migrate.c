/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Migration and snapshots: the only file that knows that the guest can move. libsavevm does the work, on threads of its
 * own; here it is told how to hold the guest and where its memory is, and what the user wants.
 */
#include "minivmm.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static SaveVM *context;
static SaveVMRam *ram;
static MigrationState *outgoing;         /* the last one, also when it is over */
static MigrationIncomingState *incoming; /* the one that this process began with */
static SaveVMParams params = { .size = sizeof(params) };

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
    (void)machine;
    return "minivmm";
}

static void show_event(void *machine, const SaveVMEvent *event)
{
    (void)machine;
    printf("[%s] %s\n", event->incoming ? "incoming" : "outgoing", event->status_name);
    fflush(stdout);
}

static int log_start(void *machine)
{
    return ((Machine *)machine)->accel->log_dirty(machine, true);
}

static int log_sync(void *machine, const SaveVMRamBlock *block, uint64_t *bitmap, size_t words)
{
    (void)block, (void)words; /* there is one block only */
    return ((Machine *)machine)->accel->take_dirty(machine, bitmap);
}

static void log_stop(void *machine)
{
    ((Machine *)machine)->accel->log_dirty(machine, false);
}

bool migrate_init(Machine *m)
{
    const SaveVMHostOps host_ops = {
        .size = sizeof(host_ops),
        .lock = machine_lock,
        .unlock = machine_unlock,
        .locked = machine_locked,
        .vm_stop = machine_stop,
        .vm_start = machine_start,
        .vm_running = machine_running,
        .machine_name = machine_name,
        .disks_inactivate = disk_release,
        .disks_activate = disk_acquire,
        .migration_event = show_event,
    };
    const SaveVMRamOps ram_ops = {
        .size = sizeof(ram_ops),
        .log_start = log_start,
        .log_sync = log_sync,
        .log_stop = log_stop,
    };
    const SaveVMRamBlock block = {
        .size = sizeof(block), .name = "memory", .host = m->ram, .length = m->ram_size,
    };
    Error *err = NULL;
    context = savevm_new(&host_ops, m);
    savevm_set_current(context); /* devices register themselves there, on this thread */
    ram = savevm_ram_new(context, &ram_ops, m, &err);
    return (ram && savevm_ram_add_block(ram, &block, &err) == 0) || failed("memory", err);
}

/* What the user asks of libsavevm. */

/* How the guest left, or else how it came; whether there is something to tell. */
static bool query(SaveVMInfo *info)
{
    *info = (SaveVMInfo) { .size = sizeof(*info) };
    return outgoing ? savevm_migrate_query(outgoing, info) == 0
                    : incoming && savevm_incoming_query(incoming, info) == 0;
}

bool migrate_guest_is_here(void)
{
    SaveVMInfo info;
    return !query(&info) || info.owner == SAVEVM_OWNER_HERE;
}

bool migrate_memory_is_here(void)
{
    SaveVMInfo info;
    return outgoing || !query(&info) || strncmp(info.status_name, "postcopy", strlen("postcopy")) != 0;
}

bool migrate_to(const char *uri)
{
    if (!migrate_guest_is_here()) {
        fprintf(stderr, "minivmm: the guest is not here\n");
        return false;
    }
    Error *err = NULL;
    MigrationState *begun = savevm_migrate(context, uri, &params, &err);
    if (!begun) {
        return failed(uri, err);
    }
    savevm_migrate_free(outgoing);
    outgoing = begun;
    return true;
}

bool migrate_from(Machine *m, const char *uri)
{
    Error *err = NULL;
    params.no_autostart = m->start_paused;
    incoming = savevm_incoming(context, uri, &params, &err);
    return incoming || failed(uri, err);
}

bool migrate_recover(const char *uri)
{
    Error *err = NULL;
    int ret = outgoing ? savevm_migrate_recover(outgoing, uri, &err) : savevm_incoming_recover(incoming, uri, &err);
    return ret == 0 || failed(uri, err);
}

void migrate_command(int (*out)(MigrationState *), int (*in)(MigrationIncomingState *))
{
    int ret = outgoing || !in ? out(outgoing) : in(incoming);
    if (ret < 0) {
        fprintf(stderr, "minivmm: not now: %s\n", strerror(-ret));
    }
}

bool migrate_set(const char *name, const char *value)
{
    uint64_t number = strcmp(value, "on") == 0 ? 1 : strtoull(value, NULL, 10);
    if (strcmp(name, "downtime-limit") == 0) {
        params.downtime_limit_ms = (uint32_t)number;
    } else if (strcmp(name, "max-bandwidth") == 0) {
        params.max_bandwidth = number << 20;
    } else if (strcmp(name, "max-postcopy-bandwidth") == 0) {
        params.max_postcopy_bandwidth = number << 20;
    } else if (strcmp(name, "postcopy-ram") == 0) {
        params.postcopy = number != 0;
    } else {
        return false;
    }
    savevm_migrate_set_params(outgoing, &params);
    return true;
}

static void print_time(const char *label, uint64_t us)
{
    printf("%s: %" PRIu64 ".%" PRIu64 " ms\n", label, us / 1000, us / 100 % 10);
}

void migrate_print(void)
{
    SaveVMInfo info;
    if (!query(&info)) {
        printf("Migration status: none\n");
        return;
    }
    uint64_t left = info.remaining_precopy_only + info.remaining_compatible + info.remaining_postcopy_only;
    printf("Migration status: %s\n", info.status_name);
    printf("transferred: %" PRIu64 " MiB\n", info.transferred >> 20);
    printf("remaining: %" PRIu64 " MiB\n", left >> 20);
    printf("throughput: %" PRIu64 " MiB/s\n", info.bandwidth >> 20);
    printf("rounds: %" PRIu64 "\n", info.rounds);
    printf("page requests: %" PRIu64 "\n", info.page_requests);
    printf("recoveries: %" PRIu64 "\n", info.recoveries);
    print_time("setup", info.setup_time_us);
    print_time("precopy", info.precopy_time_us);
    print_time("switchover", info.switchover_time_us);
    print_time("postcopy", info.postcopy_time_us);
    print_time("paused", info.paused_time_us);
    print_time("devices", info.device_time_us);
    print_time("expected downtime", info.expected_downtime_us);
    print_time("downtime", info.downtime_us);
    if (strcmp(info.status_name, "failed") == 0) {
        Error *err = NULL;
        outgoing ? savevm_migrate_wait(outgoing, &err) : savevm_incoming_wait(incoming, &err);
        failed("migration", err);
    }
}

bool snapshot_save(const char *uri)
{
    Error *err = NULL;
    return savevm_snapshot_save(context, uri, &err) == 0 || failed(uri, err);
}

/* The guest that was here before is gone, wherever it was. The one from the file runs if that one did. */
bool snapshot_load(Machine *m, const char *uri)
{
    Error *err = NULL;
    machine_lock(m);
    bool loaded = disk_acquire(m) == 0 && savevm_snapshot_load(context, uri, &err) == 0;
    machine_unlock(m);
    if (loaded) {
        migrate_end();
    }
    return loaded || failed(uri, err);
}

void migrate_end(void)
{
    savevm_migrate_free(outgoing);
    savevm_incoming_free(incoming);
    outgoing = NULL;
    incoming = NULL;
}
