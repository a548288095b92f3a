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
#include <stdlib.h>

#define TIMER_VERSION 1
#define MICROSECOND 1000

typedef struct Timer {
    Machine *m;
    int64_t period; /* ns; 0: it does not tick */
    int64_t start;  /* on the machine's clock, ns */
    uint64_t latch; /* the time of the last read of CLOCK_LOW, ns */
} Timer;

static uint32_t timer_read(void *opaque, unsigned int offset)
{
    Timer *t = opaque;
    switch (TIMER_PERIOD + offset) {
    case TIMER_TICKS:
        return t->period ? (uint32_t)((machine_clock(t->m) - t->start) / t->period) : 0;
    case CLOCK_LOW:
        t->latch = (uint64_t)host_clock();
        return (uint32_t)t->latch;
    case CLOCK_HIGH:
        return (uint32_t)(t->latch >> 32);
    default:
        return UINT32_MAX;
    }
}

/* Ends early when the machine is stopped: the guest looks at the ticks again when it goes on. */
static void rest(Timer *t)
{
    if (t->period && t->m->running) {
        machine_wait(t->m, host_clock() + t->period - (machine_clock(t->m) - t->start) % t->period);
    }
}

static void timer_write(void *opaque, unsigned int offset, uint32_t value)
{
    Timer *t = opaque;
    switch (TIMER_PERIOD + offset) {
    case TIMER_PERIOD:
        t->period = (int64_t)value * MICROSECOND;
        t->start = machine_clock(t->m);
        break;
    case TIMER_WAIT:
        rest(t);
        break;
    }
}

static void timer_save(QEMUFile *f, void *opaque)
{
    Timer *t = opaque;
    qemu_put_sbe64(f, t->period);
    qemu_put_sbe64(f, t->start);
    qemu_put_be64(f, t->latch);
    qemu_put_sbe64(f, machine_clock(t->m));
}

static int timer_load(QEMUFile *f, void *opaque, int version_id)
{
    Timer *t = opaque;
    if (version_id != TIMER_VERSION) {
        return -EINVAL;
    }
    t->period = qemu_get_sbe64(f);
    t->start = qemu_get_sbe64(f);
    t->latch = qemu_get_be64(f);
    int64_t now = qemu_get_sbe64(f);
    if (t->period < 0 || t->start < 0 || now < t->start || now > INT64_MAX / 4) {
        return -EINVAL;
    }
    machine_set_clock(t->m, now);
    return 0;
}

static const SaveVMHandlers timer_handlers = { .save_state = timer_save, .load_state = timer_load };
static const Ports timer_ports = { TIMER_PERIOD, 20, timer_read, timer_write };

void timer_init(Machine *m)
{
    Timer *t = m->timer = calloc(1, sizeof(*t));
    t->m = m;
    machine_map_ports(m, &timer_ports, t);
    register_savevm_live("timer", 0, TIMER_VERSION, &timer_handlers, t);
}

void timer_destroy(Machine *m)
{
    unregister_savevm(NULL, "timer", m->timer);
    free(m->timer);
}
