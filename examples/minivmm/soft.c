/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A CPU in software, for machines without /dev/kvm: it has the guest's program built in, its registers are the
 * program's variables, and one instruction is a call of guest_step(). It keeps its own log of dirty pages.
 */
#include "minivmm.h"
#include "migration/vmstate.h"
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#define REGISTERS (sizeof(Guest) / sizeof(uint64_t))

typedef struct SoftCpu {
    union {
        Guest guest;
        uint64_t registers[REGISTERS];
    };
    bool started;
    atomic_bool held;
    atomic_bool logging;
    _Atomic uint64_t *dirty; /* a bit for each page */
} SoftCpu;

static Machine *the_machine; /* the program knows only one */

uint64_t *cpu_memory(uint64_t address)
{
    return (uint64_t *)(the_machine->ram + address);
}

/* After the write, never before it: the log may be taken in between, and the page would be sent as it was. */
void cpu_wrote(uint64_t address)
{
    SoftCpu *cpu = the_machine->cpu;
    if (cpu->logging) {
        atomic_fetch_or(&cpu->dirty[address / PAGE_SIZE / 64], 1ull << address / PAGE_SIZE % 64);
    }
}

uint32_t cpu_in(uint16_t port)
{
    return machine_in(the_machine, port);
}

void cpu_out(uint16_t port, uint32_t value)
{
    machine_out(the_machine, port, value);
}

static void soft_run(Machine *m)
{
    SoftCpu *cpu = m->cpu;
    if (!cpu->started) {
        guest_start(&cpu->guest, (m->ram_size - GUEST_WORK) / PAGE_SIZE, m->rate);
        cpu->started = true;
    }
    while (!cpu->held) {
        guest_step(&cpu->guest);
    }
}

static void soft_hold(Machine *m, bool hold)
{
    ((SoftCpu *)m->cpu)->held = hold;
}

static bool soft_log_dirty(Machine *m, bool on)
{
    ((SoftCpu *)m->cpu)->logging = on;
    return true;
}

static bool soft_take_dirty(Machine *m, uint64_t *bitmap)
{
    SoftCpu *cpu = m->cpu;
    for (uint64_t word = 0; word < m->ram_size / PAGE_SIZE / 64; word++) {
        bitmap[word] |= atomic_exchange(&cpu->dirty[word], 0);
    }
    return true;
}

/* The program trusts its registers; those that come in a stream must keep it within its memory. */
static int soft_post_load(void *opaque, int version_id)
{
    const Guest *g = &((SoftCpu *)opaque)->guest;
    (void)version_id;
    return g->pages == (the_machine->ram_size - GUEST_WORK) / PAGE_SIZE && g->at < g->pages ? 0 : -EINVAL;
}

static const VMStateDescription vmstate_cpu = {
    .name = "cpu-soft",
    .version_id = 1,
    .minimum_version_id = 1,
    .post_load = soft_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_BOOL(started, SoftCpu),
        VMSTATE_UINT64_ARRAY(registers, SoftCpu, REGISTERS),
        VMSTATE_END_OF_LIST()
    }
};

static bool soft_open(Machine *m)
{
    the_machine = m;
    SoftCpu *cpu = m->cpu = calloc(1, sizeof(*cpu));
    cpu->dirty = calloc(m->ram_size / PAGE_SIZE / 64, sizeof(uint64_t));
    vmstate_register(NULL, 0, &vmstate_cpu, cpu);
    return true;
}

static void soft_close(Machine *m)
{
    SoftCpu *cpu = m->cpu;
    vmstate_unregister(NULL, &vmstate_cpu, cpu);
    free(cpu->dirty);
    free(cpu);
}

const Accel accel_soft = {
    .open = soft_open,
    .close = soft_close,
    .run = soft_run,
    .hold = soft_hold,
    .log_dirty = soft_log_dirty,
    .take_dirty = soft_take_dirty,
};
