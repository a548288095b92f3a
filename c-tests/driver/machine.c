/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "machine.h"
#include "savevm/ram.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define MEMORY (64 * 4096)

Machine source, destination;
atomic_int running_guests;
Plan plan;

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
        running_guests--;
    }
    return ret;
}

static int vm_start(void *host)
{
    Machine *machine = host;
    int ret = at(machine, "vm_start", NULL);

    if (ret == 0 && !atomic_exchange(&machine->runs, true)) {
        CHECK(machine->disks);
        CHECK_EQ(running_guests++, 0);
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

static int notify(void *host, SaveVMPrecopyNotice notice)
{
    (void)notice;
    return at(host, "notify", NULL);
}

/* The last event finds all as it will be found by everybody. */
static void look_back(Machine *machine)
{
    SaveVMInfo info = SAVEVM_INFO_INIT;

    plan.done++;
    if (machine->is_source) {
        CHECK_EQ(savevm_migration_wait(machine->migration, NULL), 0);
        CHECK_EQ(savevm_migration_cancel(machine->migration), -EBUSY); /* the guest has moved */
        CHECK_EQ(savevm_migration_step(machine->migration), 0);
        CHECK_EQ(savevm_migration_query(machine->migration, &info), 0);
    } else {
        CHECK_EQ(savevm_migration_wait(machine->migration, NULL), 0);
        CHECK_EQ(savevm_migration_cancel(machine->migration), -EBUSY); /* the guest has moved */
        CHECK_EQ(savevm_migration_query(machine->migration, &info), 0);
    }
    CHECK_EQ(info.status, SAVEVM_STATUS_COMPLETED);
    CHECK(savevm_add_blocker(machine->vm, "free already", NULL) > 0);
}

static void event(void *host, const SaveVMEvent *event)
{
    Machine *machine = host;

    machine->migration = event->migration;
    at(machine, "event", NULL);
    if (machine->is_last && event->status == SAVEVM_STATUS_COMPLETED) {
        look_back(machine);
    }
}

static void quiet(void *host, SaveVMReportLevel level, const char *text)
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

const SaveVMHandlers plain_device = { .save_state = save, .load_state = load };
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

const VMStateDescription vmstate_described = {
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
    SaveVMRamBlock block = SAVEVM_RAM_BLOCK_INIT;
    block.name = "ram";
    block.length = MEMORY;

    memset(machine, 0, sizeof(*machine));
    machine->lock = fresh;
    machine->is_source = machine->runs = machine->disks = is_source;
    running_guests += is_source;
    machine->memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(machine->memory != MAP_FAILED);
    memset(machine->memory, is_source, MEMORY);
    block.host = machine->memory;
    machine->vm = savevm_new(&host_ops, machine);
    SaveVMRamOptions ram_options = SAVEVM_RAM_OPTIONS_INIT;
    ram_options.log = SAVEVM_RAM_LOG_HOST;
    machine->ram = savevm_ram_new(machine->vm, &ram_options, &ram_ops, machine, NULL);
    CHECK_EQ(savevm_ram_add_block(machine->ram, &block, NULL), 0);
    savevm_set_current(machine->vm);
    CHECK_EQ(register_savevm_live("live", 0, 1, &live, machine), 0);
    CHECK_EQ(register_savevm_live("plain", 0, 1, &plain_device, machine), 0);
    CHECK_EQ(register_savevm_live("other", 0, 1, &plain_device, machine), 0);
    CHECK_EQ(vmstate_register(NULL, 0, &vmstate_described, machine), 0);
    savevm_set_current(NULL);
}

/* The machine is free, and goes. */
static void machine_free(Machine *machine)
{
    CHECK(!machine->lock.held && !savevm_is_broken(machine->vm));
    CHECK_EQ(machine->logs, 0);
    CHECK(savevm_add_blocker(machine->vm, "free", NULL) > 0);
    savevm_ram_free(machine->ram);
    savevm_free(machine->vm);
    munmap(machine->memory, MEMORY);
}

void machines_begin(Machine *machine, const char *place, Action *action)
{
    machine_init(&source, true);
    machine_init(&destination, false);
    plan.machine = machine;
    plan.place = place;
    plan.action = action;
    plan.done = 0;
}

void machines_end(void)
{
    running_guests = 0;
    machine_free(&source);
    machine_free(&destination);
}
