/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "machine.h"
#include "migration/qemu-file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static int vm_stop(void *host)
{
    Machine *machine = host;

    machine->stops++;
    machine->runs = false;
    return 0;
}

static int vm_start(void *host)
{
    ((Machine *)host)->runs = true;
    return 0;
}

static bool vm_running(void *host)
{
    return ((Machine *)host)->runs;
}

static const char *machine_name(void *host)
{
    return ((Machine *)host)->plan.machine;
}

static unsigned int page_bits(void *host)
{
    return ((Machine *)host)->plan.page_bits;
}

static unsigned int page_bits_min(void *host)
{
    return ((Machine *)host)->plan.page_bits_min;
}

static bool uuid(void *host, uint8_t *bytes)
{
    Machine *machine = host;

    memset(bytes, machine->plan.uuid, 16);
    return machine->plan.uuid;
}

static const char *const *capabilities(void *host)
{
    return ((Machine *)host)->plan.capabilities;
}

static uint32_t stream_flags(void *host)
{
    return ((Machine *)host)->plan.flags;
}

static void reset(void *host)
{
    Machine *machine = host;

    CHECK(harness_locked(&machine->lock) && !machine->runs);
    machine->resets++;
    for (int at = 0; at < DEVICES_MAX; at++) {
        machine->states[at] = machine->plan.initial;
    }
}

static void report(void *host, SaveVMReportLevel level, const char *text)
{
    Machine *machine = host;
    size_t used;

    (void)level;
    pthread_mutex_lock(&machine->reporting);
    used = strlen(machine->reports);
    snprintf(machine->reports + used, sizeof(machine->reports) - used, "%s\n", text);
    pthread_mutex_unlock(&machine->reporting);
}

bool machine_reported(Machine *machine, const char *part)
{
    pthread_mutex_lock(&machine->reporting);
    bool found = strstr(machine->reports, part);
    pthread_mutex_unlock(&machine->reporting);
    return found;
}

static int log_start(void *opaque)
{
    ((Machine *)opaque)->log_starts++;
    return 0;
}

static int log_sync(void *opaque, const SaveVMRamBlock *block, uint64_t *bitmap, size_t words)
{
    (void)opaque, (void)block, (void)bitmap, (void)words;
    return 0;
}

static void log_stop(void *opaque)
{
    (void)opaque;
}

static void serial_save(QEMUFile *f, void *opaque)
{
    qemu_put_be32(f, ((State *)opaque)->a);
}

static int serial_load(QEMUFile *f, void *opaque, int version)
{
    State *state = opaque;

    (void)version;
    state->a = qemu_get_be32(f);
    return state->load_result;
}

const SaveVMHandlers serial_handlers = { .save_state = serial_save, .load_state = serial_load };

static const VMStateDescription vmstate_inner = {
    .name = "inner",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (VMStateField[]){ VMSTATE_UINT32(x, Inner), VMSTATE_UINT32(y, Inner), VMSTATE_END_OF_LIST() },
};

const VMStateDescription vmstate_timer = {
    .name = "timer",
    .version_id = 2,
    .minimum_version_id = 1,
    .fields = (VMStateField[]){
        VMSTATE_UINT32(a, State),
        VMSTATE_UINT32(b, State),
        VMSTATE_UINT32_V(c, State, 2),
        VMSTATE_END_OF_LIST(),
    },
};

const VMStateDescription vmstate_nic = {
    .name = "nic",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (VMStateField[]){
        VMSTATE_UINT8_ARRAY(bytes, State, 16),
        VMSTATE_UINT16_ARRAY(values, State, 8),
        VMSTATE_VARRAY_UINT16_UNSAFE(ports, State, port_count, 0, vmstate_info_uint16, uint16_t),
        VMSTATE_END_OF_LIST(),
    },
};

const VMStateDescription vmstate_disk = {
    .name = "disk",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (VMStateField[]){
        VMSTATE_UINT64(wide, State),
        VMSTATE_STRUCT(inner, State, 1, vmstate_inner, Inner),
        VMSTATE_STRUCT_ARRAY(inners, State, 3, 1, vmstate_inner, Inner),
        VMSTATE_UINT16(queued, State),
        VMSTATE_VARRAY_UINT16_UNSAFE(queue, State, queued, 0, vmstate_info_uint16, uint16_t),
        VMSTATE_END_OF_LIST(),
    },
};

Plan plan_default(void)
{
    SaveVMParams params = SAVEVM_PARAMS_INIT;
    SaveVMLimits limits = SAVEVM_LIMITS_INIT;
    Plan plan = {
        .machine = "test-1.0",
        .page_bits = 12,
        .page_bits_min = 12,
        .uuid = 7,
        .capabilities = { "x-shared" },
        .devices = {
            { .name = "timer", .vmsd = &vmstate_timer, .alias = -1 },
            { .name = "nic", .vmsd = &vmstate_nic, .alias = -1 },
            { .name = "nic", .instance = 1, .vmsd = &vmstate_nic, .alias = -1 },
            { .name = "disk", .vmsd = &vmstate_disk, .alias = -1 },
            { .name = "serial", .handlers = &serial_handlers, .version = 3 },
        },
        .blocks = { { .name = "ram", .length = BLOCK_LENGTH }, { .name = "vga", .length = BLOCK_LENGTH } },
        .initial = { .port_count = 4, .queued = 2 },
        .params = params,
        .limits = limits,
    };
    return plan;
}

Device *plan_device(Plan *plan, const char *name)
{
    for (int at = 0; at < DEVICES_MAX; at++) {
        if (plan->devices[at].name && strcmp(plan->devices[at].name, name) == 0) {
            return &plan->devices[at];
        }
    }
    CHECK(!"such a device");
    harness_end();
}

static void add_ram(Machine *machine)
{
    SaveVMRamOptions options = SAVEVM_RAM_OPTIONS_INIT;
    SaveVMRamOps ops = SAVEVM_RAM_OPS_INIT;

    ops.log_start = log_start;
    ops.log_sync = log_sync;
    ops.log_stop = log_stop;
    options.log = SAVEVM_RAM_LOG_HOST;
    options.ignore_shared = machine->plan.ignore_shared;
    machine->ram = savevm_ram_new(machine->vm, &options, &ops, machine, NULL);
    REQUIRE(machine->ram != NULL);
    for (int at = 0; at < BLOCKS_MAX && machine->plan.blocks[at].name; at++) {
        const Block *plan = &machine->plan.blocks[at];
        SaveVMRamBlock block = SAVEVM_RAM_BLOCK_INIT;
        /* Twice as much, for an address that is aligned to a larger page. */
        char *memory = mmap(NULL, 2 * plan->length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        REQUIRE(memory != MAP_FAILED);
        machine->memory[at] = memory;
        block.name = plan->name;
        block.length = plan->length;
        block.page_size = plan->page_size;
        block.guest_address = plan->address;
        block.shared = plan->shared;
        block.host = memory + (-(uintptr_t)memory & (plan->length - 1));
        CHECK_EQ(savevm_ram_add_block(machine->ram, &block, NULL), 0);
    }
}

Machine *machine_new(const Plan *plan, bool runs)
{
    static const HarnessLock fresh = HARNESS_LOCK_INIT;
    Machine *machine = calloc(1, sizeof(*machine));
    SaveVMHostOps ops = SAVEVM_HOST_OPS_INIT;

    REQUIRE(machine != NULL);
    machine->lock = fresh;
    machine->plan = *plan;
    machine->runs = runs;
    pthread_mutex_init(&machine->reporting, NULL);
    ops.lock = harness_host_lock;
    ops.unlock = harness_host_unlock;
    ops.locked = harness_host_locked;
    ops.vm_stop = vm_stop;
    ops.vm_start = vm_start;
    ops.vm_running = vm_running;
    ops.machine_name = machine_name;
    ops.target_page_bits = page_bits;
    ops.target_page_bits_min = page_bits_min;
    ops.uuid = uuid;
    ops.capabilities = capabilities;
    ops.stream_flags = stream_flags;
    ops.reset = plan->no_reset ? NULL : reset;
    ops.report = report;
    machine->vm = savevm_new(&ops, machine);
    savevm_set_limits(machine->vm, &machine->plan.limits);
    add_ram(machine);
    savevm_set_current(machine->vm);
    for (int at = 0; at < DEVICES_MAX; at++) {
        const Device *device = &machine->plan.devices[at];
        State *state = &machine->states[at];

        *state = plan->initial;
        if (device->vmsd) {
            CHECK_EQ(vmstate_register_with_alias_id(NULL, device->instance, device->vmsd, state, device->alias, 1, NULL), 0);
        } else if (device->handlers) {
            CHECK_EQ(register_savevm_live(device->name, device->instance, device->version, device->handlers, state), 0);
        }
    }
    savevm_set_current(NULL);
    return machine;
}

void machine_free(Machine *machine)
{
    CHECK(!machine->lock.held && !savevm_is_broken(machine->vm));
    savevm_ram_free(machine->ram);
    savevm_free(machine->vm);
    for (int at = 0; at < BLOCKS_MAX && machine->memory[at]; at++) {
        munmap(machine->memory[at], 2 * machine->plan.blocks[at].length);
    }
    pthread_mutex_destroy(&machine->reporting);
    free(machine);
}
