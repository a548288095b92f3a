/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Migration and snapshots: the only file that knows that the guest can move. libsavevm does the work, on its own thread. */
#include "minivmm.h"
#include <inttypes.h>
#include <string.h>

static MigrationState *outgoing;         /* the last one, also when it is over */
static MigrationIncomingState *incoming; /* the one that this process began with */
static SaveVMParams params = { .size = sizeof(params) };

static bool failed(const char *what, Error *err)
{
    fprintf(stderr, "minivmm: %s: %s\n", what, err ? error_get_pretty(err) : "the disk is not to be had");
    error_free(err);
    return false;
}

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

bool migrate_to(Machine *m, const char *uri)
{
    if (!migrate_guest_is_here()) {
        fprintf(stderr, "minivmm: the guest is not here\n");
        return false;
    }
    Error *err = NULL;
    MigrationState *begun = savevm_migrate(m->savevm, uri, &params, &err);
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
    incoming = savevm_incoming(m->savevm, uri, &params, &err);
    return incoming || failed(uri, err);
}

void migrate_cancel(void)
{
    if (savevm_migrate_cancel(outgoing) < 0) {
        fprintf(stderr, "minivmm: there is nothing to cancel\n");
    }
}

bool migrate_set(const char *name, uint64_t value)
{
    if (strcmp(name, "downtime-limit") == 0) {
        params.downtime_limit_ms = (uint32_t)value;
    } else if (strcmp(name, "max-bandwidth") == 0) {
        params.max_bandwidth = value << 20;
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

static void print_outgoing(const SaveVMInfo *info)
{
    uint64_t left = info->remaining_precopy_only + info->remaining_compatible + info->remaining_postcopy_only;
    printf("throughput: %" PRIu64 " MiB/s\n", info->bandwidth >> 20);
    printf("remaining: %" PRIu64 " MiB\n", left >> 20);
    printf("rounds: %" PRIu64 "\n", info->rounds);
    print_time("setup", info->setup_time_us);
    print_time("precopy", info->total_time_us - info->setup_time_us - info->downtime_us);
    print_time("expected downtime", info->expected_downtime_us);
    print_time("downtime", info->downtime_us);
}

void migrate_print(void)
{
    SaveVMInfo info;
    if (!query(&info)) {
        printf("Migration status: none\n");
        return;
    }
    printf("Migration status: %s\n", info.status_name);
    print_time("total time", info.total_time_us);
    print_time("devices", info.device_time_us);
    printf("transferred: %" PRIu64 " MiB\n", info.transferred >> 20);
    if (outgoing) {
        print_outgoing(&info);
    }
    if (strcmp(info.status_name, "failed") == 0) {
        Error *err = NULL;
        outgoing ? savevm_migrate_wait(outgoing, &err) : savevm_incoming_wait(incoming, &err);
        printf("error: %s\n", error_get_pretty(err));
        error_free(err);
    }
}

bool snapshot_save(Machine *m, const char *path)
{
    char uri[4096];
    Error *err = NULL;
    snprintf(uri, sizeof(uri), "file:%s", path);
    return savevm_snapshot_save(m->savevm, uri, &err) == 0 || failed(path, err);
}

/* The guest that was here before is gone, wherever it was; the one from the file runs, unless -S wants it otherwise. */
bool snapshot_load(Machine *m, const char *path)
{
    char uri[4096];
    Error *err = NULL;
    snprintf(uri, sizeof(uri), "file:%s", path);
    machine_lock(m);
    bool loaded = disk_acquire(m) == 0 && savevm_snapshot_load(m->savevm, uri, &err) == 0;
    if (loaded && !m->start_paused) {
        machine_start(m);
    }
    machine_unlock(m);
    if (loaded) {
        migrate_end();
    }
    return loaded || failed(path, err);
}

void migrate_end(void)
{
    savevm_migrate_free(outgoing);
    savevm_incoming_free(incoming);
    outgoing = NULL;
    incoming = NULL;
}
