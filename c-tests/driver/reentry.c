/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Callbacks that fail, that take devices away or bring some, and that call the
 * library back, in every place from which it calls: nothing hangs, there is one
 * guest, and afterwards the machine is free.
 */
#include "../harness.h"
#include "migration/qemu-file.h"
#include "migration/register.h"
#include "migration/savevm.h"
#include "migration/vmstate.h"
#include "savevm.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMORY (64 * 4096)

typedef struct Machine {
    /* It comes first: see harness_host_lock(). */
    HarnessLock lock;
    SaveVM *vm;
    atomic_bool runs, disks;
    SaveVMRam *ram;
    uint8_t *memory;
    atomic_int logs, plugged;
    /* The migration, from the first event on. */
    _Atomic(void *) migration;
    bool is_source;
    /* The last event looks back. */
    bool is_last;
    uint32_t number;
} Machine;

static Machine source, destination;
static atomic_int guests;

/* What is done, where, on which side. */
typedef int Action(Machine *machine, QEMUFile *f);

static struct {
    Machine *machine;
    const char *place;
    Action *action;
    atomic_int done;
} plan;

/* The places of both sides, in the order in which they are met. */
static const char *const source_places[] = {
    "setup",   "is_active", "pending", "iterate",   "complete",   "save",   "pre_save", "cleanup",
    "vm_stop", "notify",    "event",   "log_start", "log_sync",   "log_stop", "disks_inactivate",
};
static const char *const destination_places[] = {
    "load_setup", "is_active", "load", "load_live", "post_load", "load_cleanup", "disks_activate", "vm_start", "event",
};

/* Every callback comes by here, the first two times before the end; what the action returns, or 0. */
static int at(Machine *machine, const char *place, QEMUFile *f)
{
    if (!plan.action || plan.machine != machine || strcmp(plan.place, place) != 0 || plan.done++ > 1) {
        return 0;
    }
    return plan.action(machine, f);
}

static int vm_stop(void *host)
{
    Machine *machine = host;
    int ret = at(machine, "vm_stop", NULL);

    if (ret == 0 && atomic_exchange(&machine->runs, false)) {
        guests--;
    }
    return ret;
}

static int vm_start(void *host)
{
    Machine *machine = host;
    int ret = at(machine, "vm_start", NULL);

    if (ret == 0 && !atomic_exchange(&machine->runs, true)) {
        CHECK(machine->disks);
        CHECK_EQ(guests++, 0);
    }
    return ret;
}

static bool vm_running(void *host)
{
    return ((Machine *)host)->runs;
}

static int disks_inactivate(void *host)
{
    Machine *machine = host;
    int ret = at(machine, "disks_inactivate", NULL);

    machine->disks = machine->disks && ret < 0;
    return ret;
}

static int disks_activate(void *host)
{
    Machine *machine = host;
    int ret = at(machine, "disks_activate", NULL);

    machine->disks = machine->disks || ret == 0;
    return ret;
}

static int notify(void *host, int notice)
{
    (void)notice;
    return at(host, "notify", NULL);
}

/* The last event finds all as it will be found by everybody. */
static void look_back(Machine *machine)
{
    SaveVMInfo info = { .size = sizeof(info) };

    plan.done++;
    if (machine->is_source) {
        CHECK_EQ(savevm_migrate_wait(machine->migration, NULL), 0);
        CHECK_EQ(savevm_migrate_cancel(machine->migration), 0);
        CHECK_EQ(savevm_migrate_step(machine->migration), 0);
        CHECK_EQ(savevm_migrate_query(machine->migration, &info), 0);
    } else {
        CHECK_EQ(savevm_incoming_wait(machine->migration, NULL), 0);
        CHECK_EQ(savevm_incoming_cancel(machine->migration), 0);
        CHECK_EQ(savevm_incoming_query(machine->migration, &info), 0);
    }
    CHECK_STR(info.status_name, "completed");
    CHECK(savevm_add_blocker(machine->vm, "free already", NULL) > 0);
}

static void event(void *host, const SaveVMEvent *event)
{
    Machine *machine = host;

    machine->migration = event->migration;
    at(machine, "event", NULL);
    if (machine->is_last && strcmp(event->status_name, "completed") == 0) {
        look_back(machine);
    }
}

static void quiet(void *host, int level, const char *text)
{
    (void)host, (void)level, (void)text;
}

static const SaveVMHostOps host_ops = {
    .size = sizeof(SaveVMHostOps),
    .lock = harness_host_lock,
    .unlock = harness_host_unlock,
    .locked = harness_host_locked,
    .vm_stop = vm_stop,
    .vm_start = vm_start,
    .vm_running = vm_running,
    .disks_inactivate = disks_inactivate,
    .disks_activate = disks_activate,
    .precopy_notify = notify,
    .migration_event = event,
    .report = quiet,
};

static int log_start(void *opaque)
{
    Machine *machine = opaque;
    int ret = at(machine, "log_start", NULL);

    machine->logs += ret == 0;
    return ret;
}

static int log_sync(void *opaque, const SaveVMRamBlock *block, uint64_t *bitmap, size_t words)
{
    (void)block, (void)bitmap;
    CHECK_EQ(words, 1);
    return at(opaque, "log_sync", NULL);
}

static void log_stop(void *opaque)
{
    Machine *machine = opaque;

    CHECK(harness_locked(&machine->lock));
    machine->logs--;
    at(machine, "log_stop", NULL);
}

static const SaveVMRamOps ram_ops = {
    .size = sizeof(SaveVMRamOps),
    .log = SAVEVM_RAM_LOG_HOST,
    .log_start = log_start,
    .log_sync = log_sync,
    .log_stop = log_stop,
};

static bool is_active(void *opaque)
{
    at(opaque, "is_active", NULL);
    return true;
}

static int put(Machine *machine, const char *place, QEMUFile *f, int done)
{
    int ret = at(machine, place, f);

    qemu_put_be32(f, 0x12345678);
    return ret ? ret : done;
}

static int setup(QEMUFile *f, void *opaque)
{
    return put(opaque, "setup", f, 0);
}

static int iterate(QEMUFile *f, void *opaque)
{
    return put(opaque, "iterate", f, 1);
}

static int complete(QEMUFile *f, void *opaque)
{
    return put(opaque, "complete", f, 0);
}

static void save(QEMUFile *f, void *opaque)
{
    put(opaque, "save", f, 0);
}

static void pending(QEMUFile *f, void *opaque, uint64_t threshold, uint64_t *a, uint64_t *b, uint64_t *c)
{
    (void)threshold, (void)a, (void)b, (void)c;
    at(opaque, "pending", f);
}

static void cleanup(void *opaque)
{
    at(opaque, "cleanup", NULL);
}

static int get(Machine *machine, const char *place, QEMUFile *f)
{
    int ret = at(machine, place, f);

    return qemu_get_be32(f) != 0x12345678 ? -EINVAL : ret;
}

static int load(QEMUFile *f, void *opaque, int version)
{
    (void)version;
    return get(opaque, "load", f);
}

static int load_live(QEMUFile *f, void *opaque, int version)
{
    (void)version;
    return get(opaque, "load_live", f);
}

static int load_setup(QEMUFile *f, void *opaque)
{
    return at(opaque, "load_setup", f);
}

static int load_cleanup(void *opaque)
{
    return at(opaque, "load_cleanup", NULL);
}

static const SaveVMHandlers plain = { .save_state = save, .load_state = load };
static const SaveVMHandlers live = {
    .is_active = is_active,
    .save_setup = setup,
    .save_live_pending = pending,
    .save_live_iterate = iterate,
    .save_live_complete_precopy = complete,
    .save_cleanup = cleanup,
    .load_setup = load_setup,
    .load_state = load_live,
    .load_cleanup = load_cleanup,
};

static int pre_save(void *opaque)
{
    return at(opaque, "pre_save", NULL);
}

static int post_load(void *opaque, int version)
{
    (void)version;
    return at(opaque, "post_load", NULL);
}

static const VMStateDescription described = {
    .name = "described",
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_save = pre_save,
    .post_load = post_load,
    .fields = (VMStateField[]){ VMSTATE_UINT32(number, Machine), VMSTATE_END_OF_LIST() },
};

static void machine_init(Machine *machine, bool is_source)
{
    static const HarnessLock fresh = HARNESS_LOCK_INIT;
    SaveVMRamBlock block = { .size = sizeof(block), .name = "ram", .length = MEMORY };

    memset(machine, 0, sizeof(*machine));
    machine->lock = fresh;
    machine->is_source = machine->runs = machine->disks = is_source;
    guests += is_source;
    machine->memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(machine->memory != MAP_FAILED);
    memset(machine->memory, is_source, MEMORY);
    block.host = machine->memory;
    machine->vm = savevm_new(&host_ops, machine);
    machine->ram = savevm_ram_new(machine->vm, &ram_ops, machine, NULL);
    CHECK_EQ(savevm_ram_add_block(machine->ram, &block, NULL), 0);
    savevm_set_current(machine->vm);
    CHECK_EQ(register_savevm_live("live", 0, 1, &live, machine), 0);
    CHECK_EQ(register_savevm_live("plain", 0, 1, &plain, machine), 0);
    CHECK_EQ(register_savevm_live("other", 0, 1, &plain, machine), 0);
    CHECK_EQ(vmstate_register(NULL, 0, &described, machine), 0);
    savevm_set_current(NULL);
}

/* The machine is free, and goes. */
static void machine_free(Machine *machine)
{
    CHECK(!machine->lock.held && !savevm_is_broken(machine->vm));
    CHECK_EQ(machine->logs, 0);
    CHECK(savevm_add_blocker(machine->vm, "free", NULL) > 0);
    CHECK_EQ(savevm_ram_free(machine->ram), 0);
    savevm_free(machine->vm);
    munmap(machine->memory, MEMORY);
}

/* Two fresh machines, and what is done on one of them. */
static void begin(Machine *machine, const char *place, Action *action)
{
    machine_init(&source, true);
    machine_init(&destination, false);
    plan.machine = machine;
    plan.place = place;
    plan.action = action;
    plan.done = 0;
}

static void end(void)
{
    guests = 0;
    machine_free(&source);
    machine_free(&destination);
}

static void migrate_once(Machine *machine, const char *place, Action *action)
{
    static unsigned count;
    SaveVMParams params = { .size = sizeof(params), .handshake_timeout_ms = 3000, .switchover_timeout_ms = 3000 };
    SaveVMInfo info = { .size = sizeof(info) };
    char uri[64];
    int sent, came;

    snprintf(uri, sizeof(uri), "unix:/tmp/savevm-reentry-%d-%u", (int)getpid(), count++);
    begin(machine, place, action);
    source.is_last = destination.is_last = action == NULL;
    MigrationIncomingState *in = savevm_incoming(destination.vm, uri, &params, NULL);
    MigrationState *out = savevm_migrate(source.vm, uri, &params, NULL);
    REQUIRE(in && out);
    sent = savevm_migrate_wait(out, NULL);
    savevm_migrate_query(out, &info);
    if (sent < 0) {
        savevm_incoming_cancel(in);
    }
    came = savevm_incoming_wait(in, NULL);
    savevm_incoming_free(in);
    savevm_migrate_free(out);
    plan.machine = NULL;
    if (!CHECK(plan.done > 0) || !CHECK(info.owner != SAVEVM_OWNER_HERE || (source.runs && came < 0)) ||
        !CHECK(info.owner != SAVEVM_OWNER_THERE || (sent == 0 && came == 0 && destination.runs)) ||
        !CHECK(guests <= 1)) {
        fprintf(stderr, "%s of the %s: sent %d, came %d, owner %d, source %d, destination %d\n", place,
                machine->is_source ? "source" : "destination", sent, came, info.owner, source.runs, destination.runs);
    }
    end();
}

static void everywhere(Action *action)
{
    for (unsigned i = 0; i < sizeof(source_places) / sizeof(source_places[0]); i++) {
        migrate_once(&source, source_places[i], action);
    }
    for (unsigned i = 0; i < sizeof(destination_places) / sizeof(destination_places[0]); i++) {
        migrate_once(&destination, destination_places[i], action);
    }
}

static int nothing(Machine *machine, QEMUFile *f)
{
    (void)machine, (void)f;
    return 0;
}

TEST(every_place_is_met)
{
    everywhere(nothing);
}

static int fail(Machine *machine, QEMUFile *f)
{
    (void)machine;
    if (f) {
        qemu_file_set_error(f, -ENOSPC);
    }
    return -EIO;
}

TEST(callbacks_that_fail)
{
    everywhere(fail);
}

/* In the middle of its own callback, too. */
static int take_away(Machine *machine, QEMUFile *f)
{
    (void)f;
    unregister_savevm(NULL, "live", machine);
    unregister_savevm(NULL, "plain", machine);
    vmstate_unregister(NULL, &described, machine);
    return 0;
}

TEST(callbacks_that_take_devices_away)
{
    everywhere(take_away);
}

static int bring(Machine *machine, QEMUFile *f)
{
    (void)f;
    CHECK_EQ(register_savevm_live("plugged", -1, 1, &plain, machine), 0);
    return 0;
}

TEST(callbacks_that_bring_devices)
{
    everywhere(bring);
}

/* Whatever begins something finds the machine busy, and tells. */
static int begin_another(Machine *machine, QEMUFile *f)
{
    QEMUFile *own = savevm_file_to_buffer();
    Error *err = NULL;

    (void)f;
    CHECK_EQ(savevm_snapshot_save(machine->vm, "file:/dev/null", &err), -EBUSY);
    CHECK_HAS(error_get_pretty(err), "in progress");
    error_free(err);
    CHECK_EQ(savevm_snapshot_load(machine->vm, "file:/dev/null", NULL), -EBUSY);
    CHECK_EQ(savevm_snapshot_save_file(machine->vm, own), -EBUSY);
    CHECK(savevm_ram_snapshot(machine->ram, "file:/dev/null", NULL) < 0);
    CHECK(!savevm_migrate(machine->vm, "file:/dev/null", NULL, NULL));
    CHECK(!savevm_incoming(machine->vm, "file:/dev/null", NULL, NULL));
    CHECK_EQ(savevm_add_blocker(machine->vm, "late", NULL), -EBUSY);
    qemu_fclose(own);
    return 0;
}

TEST(callbacks_that_begin_another)
{
    everywhere(begin_another);
}

/* Once it is over, which the last event tells, the machine is free. */
TEST(the_last_event)
{
    migrate_once(&source, "", NULL);
    CHECK_EQ(plan.done, 2);
}

static int look(Machine *machine, QEMUFile *f)
{
    SaveVMInfo info = { .size = sizeof(info) };
    SaveVMRamInfo ram = { .size = sizeof(ram) };

    (void)f;
    savevm_ram_set_dirty(machine->ram, machine->memory, 4096);
    CHECK_EQ(savevm_ram_query(machine->ram, &ram), 0);
    if (machine->is_source) {
        CHECK_EQ(savevm_migrate_query(machine->migration, &info), 0);
        CHECK_EQ(savevm_migrate_step(machine->migration), -EBUSY);
    } else {
        CHECK_EQ(savevm_incoming_query(machine->migration, &info), 0);
    }
    return 0;
}

TEST(callbacks_that_look)
{
    everywhere(look);
}

/* It would wait for itself. */
static int wait_for_the_end(Machine *machine, QEMUFile *f)
{
    Error *err = NULL;
    int ret = machine->is_source ? savevm_migrate_wait(machine->migration, &err)
                                 : savevm_incoming_wait(machine->migration, &err);

    (void)f;
    CHECK_EQ(ret, -EDEADLK);
    CHECK_HAS(error_get_pretty(err), "callback");
    error_free(err);
    return 0;
}

TEST(callbacks_that_wait_for_the_end)
{
    everywhere(wait_for_the_end);
}

static int cancel(Machine *machine, QEMUFile *f)
{
    int ret = machine->is_source ? savevm_migrate_cancel(machine->migration)
                                 : savevm_incoming_cancel(machine->migration);

    (void)f;
    CHECK(ret == -EINPROGRESS || ret == -EBUSY);
    return 0;
}

TEST(callbacks_that_cancel)
{
    everywhere(cancel);
}

/* A device that saves and loads all devices in the middle of it. */
static int run_phases(Machine *machine, QEMUFile *f)
{
    static _Thread_local bool inside;
    QEMUFile *own;
    size_t len;
    const uint8_t *bytes;

    (void)machine, (void)f;
    if (inside) {
        return 0;
    }
    inside = true;
    own = savevm_file_to_buffer();
    CHECK_EQ(qemu_save_device_state(own), 0);
    bytes = savevm_file_buffer(own, &len);
    QEMUFile *back = savevm_file_from_buffer(bytes + 8, len - 8);
    if (machine->is_source) {
        CHECK_EQ(qemu_load_device_state(back), 0);
    }
    qemu_fclose(back);
    qemu_fclose(own);
    inside = false;
    return 0;
}

TEST(callbacks_that_run_phases)
{
    everywhere(run_phases);
}

/* A snapshot of the source that the destination loads; both have the lock the whole time. */
static void snapshot_once(Machine *machine, const char *place, Action *action)
{
    char path[64], uri[80];
    int saved, loaded;

    snprintf(path, sizeof(path), "/tmp/savevm-reentry-%d", (int)getpid());
    snprintf(uri, sizeof(uri), "file:%s", path);
    begin(machine, place, action);
    saved = savevm_snapshot_save(source.vm, uri, NULL);
    loaded = savevm_snapshot_load(destination.vm, uri, NULL);
    plan.machine = NULL;
    unlink(path);
    if (!CHECK(plan.done > 0) || !CHECK(loaded < 0 || saved == 0 || strcmp(place, "vm_start") == 0) ||
        !CHECK(source.runs || strcmp(place, "vm_start") == 0) || !CHECK(!destination.runs)) {
        fprintf(stderr, "%s of the %s: saved %d, loaded %d\n", place, machine->is_source ? "source" : "destination",
                saved, loaded);
    }
    end();
}

static void every_place_of_a_snapshot(Action *action)
{
    static const char *const saving[] = {
        "setup",   "is_active", "iterate", "complete",  "save",     "pre_save",
        "vm_stop", "vm_start",  "notify",  "log_start", "log_sync", "log_stop", "cleanup",
    };
    static const char *const loading[] = { "load_setup", "load", "load_live", "post_load", "load_cleanup" };

    for (unsigned i = 0; i < sizeof(saving) / sizeof(saving[0]); i++) {
        snapshot_once(&source, saving[i], action);
    }
    for (unsigned i = 0; i < sizeof(loading) / sizeof(loading[0]); i++) {
        snapshot_once(&destination, loading[i], action);
    }
}

TEST(callbacks_in_a_snapshot)
{
    static Action *const actions[] = { nothing, fail, take_away, bring, begin_another, run_phases };

    for (unsigned i = 0; i < sizeof(actions) / sizeof(actions[0]); i++) {
        every_place_of_a_snapshot(actions[i]);
    }
}
