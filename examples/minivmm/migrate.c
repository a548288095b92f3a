/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Migration and snapshots. libsavevm migrates on threads of its own. This file gives it the functions of the machine and the
 * guest's memory, and implements the user's commands.
 */
#include "minivmm.h"
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MIB 1048576.0
#define MS 1000.0 /* from us */

static SaveVM *vm;
static SaveVMMigration *outgoing; /* the latest outgoing migration, also after it ended */
static SaveVMMigration *incoming; /* the migration of --incoming */
static SaveVMParams params = SAVEVM_PARAMS_INIT;
static SaveVMTls tls = SAVEVM_TLS_INIT;

/* Prints and frees the error, if there is one. Returns false. */
static bool failed(const char *what, Error *err)
{
    if (err) {
        fprintf(stderr, "minivmm: %s: %s\n", what, error_get_pretty(err));
    }
    error_free(err);
    return false;
}

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

/* Functions that libsavevm calls. */

static const char *machine_name(void *machine)
{
    return "minivmm";
}

/* A guest that is stopped here stays stopped at the destination, also after a way through a file. */
static uint32_t stream_flags(void *machine)
{
    return SAVEVM_FLAG_GLOBAL_STATE;
}

static void show_event(void *machine, const SaveVMEvent *event)
{
    printf("[%s] %s\n", event->incoming ? "incoming" : "outgoing", event->status_name);
    fflush(stdout);
}

static void show_report(void *machine, SaveVMReportLevel level, const char *text)
{
    fprintf(stderr, "[library] %s: %s\n", level == SAVEVM_REPORT_ERROR ? "error" : "warning", text);
}

static void show_restore_end(void *machine, const char *error)
{
    printf("[restore] %s\n", error ? error : "all memory is loaded");
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
    host_ops.reset = machine_reset;
    host_ops.stream_flags = stream_flags;
    host_ops.disks_inactivate = disk_release;
    host_ops.disks_activate = disk_acquire;
    host_ops.migration_event = show_event;
    host_ops.report = show_report;
    host_ops.migration_stalled = progress_stalled;
    host_ops.restore_ended = show_restore_end;
    SaveVMRamBlock block = SAVEVM_RAM_BLOCK_INIT;
    block.name = "memory";
    block.host = m->ram;
    block.length = m->ram_size;
    block.page_size = m->huge ? HUGE_PAGE_SIZE : 0;
    block.shared = m->memory_file >= 0;
    Error *err = NULL;
    vm = savevm_new(&host_ops, m);
    savevm_set_current(vm); /* this thread registers devices in this context */
    SaveVMRamOptions options = SAVEVM_RAM_OPTIONS_INIT;
    SaveVMRamOps log_ops = SAVEVM_RAM_OPS_INIT;
    options.log = m->accel->log;
    if (m->accel->log_ops) {
        m->accel->log_ops(&log_ops);
    }
    m->ram_module = savevm_ram_new(vm, &options, &log_ops, m, &err);
    bool good = m->ram_module && savevm_ram_add_block(m->ram_module, &block, &err) == 0;
    if (good && block.shared) {
        good = savevm_ram_set_descriptor(m->ram_module, block.name, m->memory_file, &err) == 0;
    }
    return good || failed("memory", err);
}

/* Returns the outgoing migration, else the incoming one, else NULL. */
static SaveVMMigration *current(void)
{
    return outgoing ? outgoing : incoming;
}

/* Returns the statistics of current(); without a migration, zeros and the status "none". */
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

/* Commands of the user. */

/* Replaces the previous outgoing migration by the one that was begun, or prints why none was. */
static void set_outgoing(SaveVMMigration *begun, const char *uri, Error *err)
{
    if (begun) {
        progress_end();
        savevm_migration_free(outgoing);
        outgoing = begun;
        progress_begin(outgoing);
    } else {
        failed(uri, err);
    }
}

void migrate_to(Machine *m, const char *uri)
{
    Error *err = NULL;
    SaveVMMigration *begun = savevm_migrate(vm, uri, &params, &err); /* fails if this side does not have the guest */
    set_outgoing(begun, uri, err);
}

/* Prints all problems that the destination has with this guest, one in a line. */
static void show_problems(const Error *err)
{
    static const char *const severities[] = { "note", "warning", "risk", "error" };
    SaveVMProblem problem = SAVEVM_PROBLEM_INIT;
    for (size_t at = 0; savevm_error_problem(err, at, &problem) == 0; at++) {
        const char *idstr = problem.idstr ? problem.idstr : "machine", *path = problem.path ? problem.path : "";
        printf("%s: %s: %s%s%s\n", severities[problem.severity], idstr, path, *path ? ": " : "", problem.message);
    }
}

/* Prints the devices that take longest to load, as the rehearsal has measured them. */
static void show_costs(void)
{
    SaveVMDeviceCost cost = SAVEVM_DEVICE_COST_INIT;
    for (size_t at = 0; at < 8 && savevm_device_cost(vm, SAVEVM_DEVICES_BY_LOAD_TIME, at, &cost) == 0; at++) {
        printf("%s: %" PRIu64 " bytes, save %" PRIu64 " us, load %" PRIu64 " us\n", cost.name, cost.bytes, cost.save_time_us,
               cost.load_time_us);
    }
}

typedef int VisitFn(SaveVM *vm, const char *uri, const SaveVMParams *params, Error **errp);

/* The destination goes on waiting afterwards. */
static bool visit(VisitFn *act, const char *uri, const char *success)
{
    Error *err = NULL;
    if (act(vm, uri, &params, &err) == 0) {
        printf("%s\n", success);
        return true;
    }
    show_problems(err);
    return failed(uri, err);
}

void migrate_preflight(Machine *m, const char *uri)
{
    visit(savevm_preflight, uri, "nothing prevents the migration");
}

void migrate_rehearse(Machine *m, const char *uri)
{
    if (visit(savevm_rehearse, uri, "the destination has loaded all devices")) {
        show_costs();
    }
}

void migrate_trace(const char *path)
{
    params.trace = path;
}

void migrate_tls(const char *dir)
{
    static char kept[4096];
    snprintf(kept, sizeof(kept), "%s", dir);
    tls.dir = kept;
    params.tls = strcmp(dir, "off") == 0 ? NULL : &tls;
}

static void set_tls_hostname(const char *name)
{
    static char kept[256];
    snprintf(kept, sizeof(kept), "%s", name);
    tls.hostname = kept;
}

/* The source decides whether to use postcopy. This side allows it if the machine supports it. */
bool migrate_from(Machine *m, const char *uri, bool start)
{
    Error *err = NULL;
    SaveVMParams in = params;
    in.no_autostart = !start;
    in.postcopy = savevm_ram_check_postcopy(m->ram_module, NULL) == 0;
    /* The source is a minivmm as well and opens a return path. Requiring it rejects a damaged stream that ends too early. */
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
    report(savevm_migration_cancel(current()), "no migration can be cancelled now");
}

void migrate_start_postcopy(Machine *m, const char *unused)
{
    report(savevm_migration_start_postcopy(outgoing), "no migration can switch to postcopy now");
}

void migrate_pause(Machine *m, const char *unused)
{
    report(savevm_migration_pause(current()), "no postcopy is in progress");
}

void migrate_recover(Machine *m, const char *uri)
{
    Error *err = NULL;
    savevm_migration_recover(current(), uri, &err);
    failed(uri, err);
}

/* Parameters in ms. */
static bool set_time(const char *name, uint32_t ms)
{
    const struct {
        const char *name;
        uint32_t *value;
    } times[] = {
        { "downtime-limit", &params.downtime_limit_ms },
        { "downtime-limit-max", &params.downtime_limit_max_ms },
        { "downtime-step", &params.downtime_step_ms },
        { "downtime-step-interval", &params.downtime_step_interval_ms },
        { "deadline", &params.deadline_ms },
    };
    for (size_t at = 0; at < sizeof(times) / sizeof(times[0]); at++) {
        if (strcmp(name, times[at].name) == 0) {
            *times[at].value = ms;
            return true;
        }
    }
    return false;
}

static bool set_deadline_action(const char *argument)
{
    if (strcmp(argument, "deadline-action cancel") == 0) {
        params.deadline_action = SAVEVM_DEADLINE_CANCEL;
    } else if (strcmp(argument, "deadline-action postcopy") == 0) {
        params.deadline_action = SAVEVM_DEADLINE_POSTCOPY;
    } else if (strcmp(argument, "deadline-action force") == 0) {
        params.deadline_action = SAVEVM_DEADLINE_FORCE;
    } else {
        return false;
    }
    return true;
}

void migrate_set(Machine *m, const char *argument)
{
    char name[32], digits[10], more;
    bool pair = sscanf(argument, "%31s %9[0-9] %c", name, digits, &more) == 2;
    unsigned long number = pair ? strtoul(digits, NULL, 10) : 0;
    bool done = (pair && set_time(name, (uint32_t)number)) || set_deadline_action(argument);
    if (done) {
        /* It was a time or an action. */
    } else if (pair && strcmp(name, "max-bandwidth") == 0) {
        params.max_bandwidth = (uint64_t)number << 20;
    } else if (pair && strcmp(name, "max-postcopy-bandwidth") == 0) {
        params.max_postcopy_bandwidth = (uint64_t)number << 20;
    } else if (strncmp(argument, "tls-dir ", strlen("tls-dir ")) == 0) {
        migrate_tls(argument + strlen("tls-dir "));
    } else if (strncmp(argument, "tls-hostname ", strlen("tls-hostname ")) == 0) {
        set_tls_hostname(argument + strlen("tls-hostname "));
    } else if (pair && strcmp(name, "channels") == 0) {
        params.channels = (uint32_t)number;
    } else if (pair && strcmp(name, "compression-level") == 0) {
        params.compression_level = (int)number;
    } else if (strcmp(argument, "compression none") == 0) {
        params.compression = SAVEVM_COMPRESSION_NONE;
    } else if (strcmp(argument, "compression zlib") == 0) {
        params.compression = SAVEVM_COMPRESSION_ZLIB;
    } else if (strcmp(argument, "compression zstd") == 0) {
        params.compression = SAVEVM_COMPRESSION_ZSTD;
    } else if (strcmp(argument, "compression auto") == 0) {
        params.compression = SAVEVM_COMPRESSION_AUTO;
    } else if (strcmp(argument, "postcopy-ram on") == 0) {
        params.postcopy = true;
    } else if (strcmp(argument, "postcopy-ram off") == 0) {
        params.postcopy = false;
    } else {
        fprintf(stderr, "minivmm: unknown parameter or invalid value: %s\n", argument);
    }
    if (outgoing) {
        Error *err = NULL;
        savevm_migration_set_params(outgoing, &params, &err); /* also for a migration in progress */
        failed("set", err);
    }
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
    progress_info(&info);
    printf("expected downtime: %.1f ms\n", info.expected_downtime_us / MS);
    printf("downtime: %.1f ms\n", info.downtime_us / MS);
    if (info.status == SAVEVM_STATUS_FAILED) {
        Error *err = NULL;
        savevm_migration_wait(current(), &err);
        failed("migration", err);
    }
}

void migrate_devices(Machine *m, const char *unused)
{
    progress_devices(current());
}

typedef int SnapshotFn(SaveVM *vm, const char *uri, const SaveVMSnapshotOptions *options, Error **errp);

/* A snapshot to save or load. The texts of the options are in it. */
typedef struct Request {
    char words[4096], parent[4096 + 8], index[4096 + 8];
    const char *path;
    SaveVMSnapshotOptions options;
} Request;

/* Parses "FILE word word ..."; the words are optional and in any order. Returns NULL after a message. */
static Request *parse(const char *argument, bool saving)
{
    Request *request = calloc(1, sizeof(*request));
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;
    char *rest = NULL;
    snprintf(request->words, sizeof(request->words), "%s", argument);
    request->path = strtok_r(request->words, " ", &rest);
    for (char *word; (word = strtok_r(NULL, " ", &rest)); ) {
        const char *file = NULL; /* of `parent` and `working-set` */
        if (strcmp(word, "direct") == 0) {
            options.direct = true;
        } else if (saving && strcmp(word, "mapped") == 0) {
            options.format = SAVEVM_SNAPSHOT_MAPPED;
        } else if (saving && strcmp(word, "background") == 0) {
            options.background = true;
        } else if (saving && strcmp(word, "parent") == 0 && (file = strtok_r(NULL, " ", &rest))) {
            snprintf(request->parent, sizeof(request->parent), "file:%s", file);
            options.parent = strcmp(file, "none") == 0 ? "" : request->parent; /* `none` begins a chain */
        } else if (!saving && strcmp(word, "lazy") == 0) {
            options.lazy = true;
        } else if (!saving && strcmp(word, "chain") == 0) {
            options.parent = ""; /* changes are logged from now on */
        } else if (!saving && strcmp(word, "working-set") == 0 && (file = strtok_r(NULL, " ", &rest))) {
            options.working_set = file;
        } else {
            fprintf(stderr, "minivmm: '%s' is not an option of %s, or its FILE is missing; `help` lists all commands\n", word,
                    saving ? "savevm" : "loadvm");
            free(request);
            return NULL;
        }
    }
    request->options = options;
    return request;
}

static bool snapshot(SnapshotFn *act, const char *path, const SaveVMSnapshotOptions *options)
{
    char uri[4096];
    Error *err = NULL;
    snprintf(uri, sizeof(uri), "file:%s", path);
    return act(vm, uri, options, &err) == 0 || failed(path, err);
}

static atomic_bool background_ended;

static void *save_and_free(void *opaque)
{
    Request *request = opaque;
    if (snapshot(savevm_snapshot_save, request->path, &request->options)) {
        printf(request->options.background ? "[snapshot] saved\n" : "saved\n");
    }
    fflush(stdout);
    free(request);
    background_ended = true;
    return NULL;
}

/* With `background` the monitor goes on when the save has begun, so that the next command can cancel it. */
void snapshot_save(Machine *m, const char *argument)
{
    Request *request = parse(argument, true);
    SaveVMSnapshotInfo info = SAVEVM_SNAPSHOT_INFO_INIT;
    pthread_t thread;
    if (!request) {
        return;
    }
    if (!request->options.background) {
        save_and_free(request);
        return;
    }
    background_ended = false;
    if (pthread_create(&thread, NULL, save_and_free, request) != 0) {
        free(request);
        fprintf(stderr, "minivmm: no thread can be started\n");
        return;
    }
    pthread_detach(thread);
    while (!background_ended && savevm_snapshot_query(vm, &info) == 0 && !info.active) {
        usleep(1000);
    }
}

void snapshot_cancel(Machine *m, const char *unused)
{
    if (savevm_snapshot_cancel(vm) < 0) {
        fprintf(stderr, "minivmm: no snapshot is being saved\n");
    }
}

void snapshot_info(Machine *m, const char *unused)
{
    SaveVMSnapshotInfo info = SAVEVM_SNAPSHOT_INFO_INIT;
    savevm_snapshot_query(vm, &info);
    printf("Snapshot: %s, %.1f of %.1f MiB of memory saved, guest stopped for %.1f ms, %.1f ms in total\n",
           info.active ? "being saved" : "none in progress", info.saved_bytes / MIB, info.total_bytes / MIB,
           info.stopped_time_us / MS, info.total_time_us / MS);
}

/* Replaces the guest by that of the snapshot, which runs if the machine ran before. A lazy load keeps the places of a stream's
 * pages in FILE.index, so that the next one starts at once. */
void snapshot_load(Machine *m, const char *argument)
{
    Request *request = parse(argument, false);
    if (!request) {
        return;
    }
    snprintf(request->index, sizeof(request->index), "%s.index", request->path);
    request->options.index = request->options.lazy ? request->index : NULL;
    double start = now_ms();
    machine_lock(m);
    bool loaded = disk_acquire(m) == 0 && snapshot(savevm_snapshot_load, request->path, &request->options);
    machine_unlock(m);
    double duration = now_ms() - start;
    free(request);
    if (loaded) {
        migrate_end();
        printf("loaded in %.1f ms\n", duration);
    }
}

/* Live update: a new minivmm takes the running guest over, with its memory in place. */

static SaveVMLiveUpdate *update; /* what the old process has passed */

void update_to(Machine *m, const char *uri)
{
    Error *err = NULL;
    SaveVMMigration *begun = savevm_live_update(m->ram_module, uri, &params, &err);
    set_outgoing(begun, uri, err);
}

bool update_accept(Machine *m, const char *uri)
{
    SaveVMPassedBlock block = SAVEVM_PASSED_BLOCK_INIT;
    Error *err = NULL;
    update = savevm_live_update_accept(uri, &err);
    if (!update || savevm_live_update_block(update, 0, &block) != 0) {
        return failed(uri, err);
    }
    m->memory_file = block.descriptor;
    m->ram_size = block.length;
    return true;
}

bool update_load(Machine *m, bool start)
{
    Error *err = NULL;
    SaveVMParams in = params;
    in.no_autostart = !start;
    incoming = savevm_live_update_load(update, vm, &in, &err);
    return incoming || failed("live update", err);
}

/* Checkpoints. Their numbers begin with 1. */

#define MAX_CHECKPOINTS 64

static SaveVMCheckpoint *checkpoints[MAX_CHECKPOINTS];

/* Returns the place of a checkpoint, or NULL after a message. */
static SaveVMCheckpoint **find_checkpoint(const char *number)
{
    unsigned long at = strtoul(number, NULL, 10);
    if (at == 0 || at > MAX_CHECKPOINTS || !checkpoints[at - 1]) {
        fprintf(stderr, "minivmm: there is no checkpoint %s\n", number);
        return NULL;
    }
    return &checkpoints[at - 1];
}

void checkpoint_make(Machine *m, const char *unused)
{
    Error *err = NULL;
    size_t at = 0;
    while (at < MAX_CHECKPOINTS && checkpoints[at]) {
        at++;
    }
    if (at == MAX_CHECKPOINTS) {
        fprintf(stderr, "minivmm: there are %d checkpoints; free one\n", MAX_CHECKPOINTS);
        return;
    }
    double start = now_ms();
    checkpoints[at] = savevm_checkpoint(vm, &err);
    if (checkpoints[at]) {
        printf("checkpoint %zu, %.2f ms\n", at + 1, now_ms() - start);
    } else {
        failed("checkpoint", err);
    }
}

void checkpoint_return(Machine *m, const char *number)
{
    SaveVMCheckpoint **checkpoint = find_checkpoint(number);
    Error *err = NULL;
    double start = now_ms();
    if (checkpoint && (savevm_rollback(*checkpoint, &err) == 0 || failed("rollback", err))) {
        printf("rolled back, %.2f ms\n", now_ms() - start);
    }
}

void checkpoint_free(Machine *m, const char *number)
{
    SaveVMCheckpoint **checkpoint = find_checkpoint(number);
    if (checkpoint) {
        savevm_checkpoint_free(*checkpoint);
        *checkpoint = NULL;
    }
}

void migrate_end(void)
{
    progress_end();
    savevm_migration_free(outgoing);
    savevm_migration_free(incoming);
    outgoing = NULL;
    incoming = NULL;
}
