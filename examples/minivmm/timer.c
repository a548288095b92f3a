/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A timer and a clock. The timer counts the machine's time, which stops while the machine is stopped and is migrated with it.
 * The clock is the host's real-time clock, which does not stop.
 *
 * This device uses QEMU's older interface: a function that saves the state and one that loads it.
 */
#define _GNU_SOURCE
#include "minivmm.h"
#include "migration/qemu-file-types.h"
#include "migration/register.h"
#include <time.h>

#define SECOND 1000000000u /* ns */
#define TICK (SECOND / TICKS_PER_SECOND)

static uint64_t offset; /* ns; running: machine time minus host time; stopped: machine time */

static uint64_t host_time(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

void timer_run(bool run)
{
    offset += run ? -host_time(CLOCK_MONOTONIC) : host_time(CLOCK_MONOTONIC);
}

static uint64_t ticks(void)
{
    return (offset + host_time(CLOCK_MONOTONIC)) / TICK;
}

/* Waits for the next tick. Returns early if the machine is stopped meanwhile. */
static void rest(Machine *m)
{
    uint64_t wake = (ticks() + 1) * TICK - offset;
    struct timespec until = { .tv_sec = (time_t)(wake / SECOND), .tv_nsec = (long)(wake % SECOND) };
    if (m->running) {
        pthread_cond_clockwait(&m->changed, &m->lock, CLOCK_MONOTONIC, &until);
    }
}

static void timer_port(Machine *m, uint16_t port, bool write, uint32_t *value)
{
    if (port == CLOCK_TIME) {
        *value = (uint32_t)(host_time(CLOCK_REALTIME) / 1000);
    } else {
        rest(m);
        *value = (uint32_t)ticks();
    }
}

static void timer_reset(void)
{
    offset = 0;
}

/* Only called while the machine is stopped. */
static void timer_save(QEMUFile *f, void *opaque)
{
    qemu_put_be64(f, offset);
}

/* Every value is valid. The file keeps its error, and the library checks it. */
static int timer_load(QEMUFile *f, void *opaque, int version_id)
{
    offset = qemu_get_be64(f);
    return 0;
}

static const SaveVMHandlers timer_handlers = { .save_state = timer_save, .load_state = timer_load };

static bool timer_init(Machine *m)
{
    return register_savevm_live("timer", 0, 1, &timer_handlers, NULL) == 0;
}

const Device timer = { TIMER_TICK, 8, timer_init, timer_port, timer_reset };
