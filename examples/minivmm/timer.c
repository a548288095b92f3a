/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A timer that counts ticks, and a clock.
 *
 * The old way to migrate a device, as many have it still: one function that writes the state and one that reads it.
 * The ticks count on the machine's own clock, which does not move while the machine is stopped; that clock travels here.
 */
#include "minivmm.h"
#include "migration/qemu-file-types.h"
#include "migration/register.h"
#include <errno.h>

#define TIMER_VERSION 1
#define MICROSECOND 1000

static struct {
    int64_t period; /* ns; 0: it does not tick */
    int64_t start;  /* on the machine's clock, ns */
    uint64_t latch; /* the time of the last read of CLOCK_LOW, ns */
} state;

static uint32_t timer_read(Machine *m, uint16_t port)
{
    switch (port) {
    case TIMER_TICKS:
        return state.period ? (uint32_t)((machine_clock(m) - state.start) / state.period) : 0;
    case CLOCK_LOW:
        state.latch = (uint64_t)host_clock();
        return (uint32_t)state.latch;
    case CLOCK_HIGH:
        return (uint32_t)(state.latch >> 32);
    default:
        return UINT32_MAX;
    }
}

/* Waiting ends early when the machine is stopped: the guest looks at the ticks again when it goes on. */
static void timer_write(Machine *m, uint16_t port, uint32_t value)
{
    if (port == TIMER_PERIOD) {
        state.period = (int64_t)value * MICROSECOND;
        state.start = machine_clock(m);
    } else if (port == TIMER_WAIT && state.period && m->running) {
        machine_wait(m, host_clock() + state.period - (machine_clock(m) - state.start) % state.period);
    }
}

static void timer_save(QEMUFile *f, void *opaque)
{
    qemu_put_sbe64(f, state.period);
    qemu_put_sbe64(f, state.start);
    qemu_put_be64(f, state.latch);
    qemu_put_sbe64(f, machine_clock(opaque));
}

static int timer_load(QEMUFile *f, void *opaque, int version_id)
{
    if (version_id != TIMER_VERSION) {
        return -EINVAL;
    }
    state.period = qemu_get_sbe64(f);
    state.start = qemu_get_sbe64(f);
    state.latch = qemu_get_be64(f);
    int64_t now = qemu_get_sbe64(f);
    if (state.period < 0 || state.start < 0 || now < state.start || now > INT64_MAX / 4) {
        return -EINVAL;
    }
    machine_set_clock(opaque, now);
    return 0;
}

static const SaveVMHandlers timer_handlers = { .save_state = timer_save, .load_state = timer_load };

static bool timer_init(Machine *m)
{
    return register_savevm_live("timer", 0, TIMER_VERSION, &timer_handlers, m) == 0;
}

const Device timer = { TIMER_PERIOD, 20, timer_init, timer_read, timer_write };
