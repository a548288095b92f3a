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
} SoftCpu;

static SoftCpu cpu;
static Machine *machine;
static atomic_bool held, logging;
static _Atomic uint64_t *dirty; /* a bit for each page */

uint64_t *cpu_memory(uint64_t address)
{
    return (uint64_t *)(machine->ram + address);
}

/* After the write, never before it: the log may be taken in between, and the page would be sent as it was. */
void cpu_wrote(uint64_t address)
{
    if (logging) {
        atomic_fetch_or(&dirty[address / PAGE_SIZE / 64], 1ull << address / PAGE_SIZE % 64);
    }
}

uint32_t cpu_in(uint16_t port)
{
    return machine_in(machine, port);
}

void cpu_out(uint16_t port, uint32_t value)
{
    machine_out(machine, port, value);
}

static void soft_run(Machine *m)
{
    if (!cpu.started) {
        guest_start(&cpu.guest, (m->ram_size - GUEST_WORK) / PAGE_SIZE, m->rate);
        cpu.started = true;
    }
    while (!held) {
        guest_step(&cpu.guest);
    }
}

static void soft_hold(Machine *m, bool hold)
{
    (void)m;
    held = hold;
}

static int soft_log_dirty(Machine *m, bool on)
{
    (void)m;
    logging = on;
    return 0;
}

static int soft_take_dirty(Machine *m, uint64_t *bitmap)
{
    for (uint64_t word = 0; word < m->ram_size / PAGE_SIZE / 64; word++) {
        bitmap[word] = atomic_exchange(&dirty[word], 0);
    }
    return 0;
}

/* The program trusts its registers; those that come in a stream must keep it within its memory. */
static int soft_post_load(void *opaque, int version_id)
{
    const Guest *g = &cpu.guest;
    (void)opaque, (void)version_id;
    return g->pages == (machine->ram_size - GUEST_WORK) / PAGE_SIZE && g->at < g->pages ? 0 : -EINVAL;
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
    machine = m;
    dirty = calloc(m->ram_size / PAGE_SIZE / 64, sizeof(uint64_t));
    return dirty && vmstate_register(NULL, 0, &vmstate_cpu, &cpu) == 0;
}

const Accel accel_soft = { soft_open, soft_run, soft_hold, soft_log_dirty, soft_take_dirty };
