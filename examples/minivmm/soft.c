/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A CPU in software, for machines without /dev/kvm. The guest's program is compiled into minivmm. The program's variables are
 * the registers of the CPU, and one call of guest_step() is one instruction.
 */
#include "minivmm.h"
#include "migration/vmstate.h"
#include <errno.h>
#include <setjmp.h>

#define REGISTERS (sizeof(Guest) / sizeof(uint64_t))

typedef union SoftCpu {
    Guest guest;
    uint64_t registers[REGISTERS];
} SoftCpu;

static SoftCpu cpu;
static Machine *machine;

/*
 * In postcopy a page may be missing. The vCPU then waits inside the access until the page arrives; while a postcopy is paused,
 * it waits without limit. KICK ends the wait with siglongjmp(). guest_step() changes nothing before its first access to memory,
 * so it can be repeated from the start when the machine runs again.
 */

static sigjmp_buf next_step;
static volatile sig_atomic_t in_access;

static void on_kick(int signal)
{
    if (in_access) {
        in_access = false;
        siglongjmp(next_step, 1);
    }
}

uint64_t *cpu_memory(uint64_t address)
{
    uint64_t *memory = (uint64_t *)(machine->ram + address);
    in_access = true;
    if (!machine->running) { /* KICK arrived before `in_access` was set */
        in_access = false;
        siglongjmp(next_step, 1);
    }
    (void)*(volatile uint64_t *)memory;
    in_access = false;
    return memory;
}

/* Marks the page in the library's dirty log. Call it after the write: the library may send the page between the two. */
void cpu_wrote(uint64_t address)
{
    savevm_ram_set_dirty(machine->ram_module, machine->ram + address, PAGE_SIZE);
}

uint32_t cpu_in(uint16_t port)
{
    uint32_t value = UINT32_MAX;
    machine_port(machine, port, false, &value);
    return value;
}

void cpu_out(uint16_t port, uint32_t value)
{
    machine_port(machine, port, true, &value);
}

static void soft_run(Machine *m)
{
    sigsetjmp(next_step, 1);
    while (m->running) {
        guest_step(&cpu.guest);
    }
}

/* The program does not check its registers. Loaded values must keep it within its memory. */
static int soft_post_load(void *opaque, int version_id)
{
    const Guest *g = &cpu.guest;
    return g->pages == machine->pages && g->at < g->pages ? 0 : -EINVAL;
}

static const VMStateDescription vmstate_cpu = {
    .name = "cpu-soft",
    .version_id = 1,
    .minimum_version_id = 1,
    .post_load = soft_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64_ARRAY(registers, SoftCpu, REGISTERS),
        VMSTATE_END_OF_LIST()
    }
};

static void soft_reset(Machine *m)
{
    cpu.guest = (Guest) { .pages = m->pages, .rate = m->rate };
}

static bool soft_open(Machine *m)
{
    machine = m;
    soft_reset(m);
    sigaction(KICK, &(struct sigaction) { .sa_handler = on_kick }, NULL);
    return vmstate_register(NULL, 0, &vmstate_cpu, &cpu) == 0;
}

const Accel accel_soft = { soft_open, soft_reset, soft_run, SAVEVM_RAM_LOG_MARKS, NULL };
