/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The machine: its lock, its clock, its ports, its memory, and the thread of its vCPU. */
#define _GNU_SOURCE
#include "minivmm.h"
#include <string.h>
#include <sys/mman.h>
#include <time.h>

/* The lock. Each thread remembers whether it holds it: the library asks, and so may you in an assertion. */

static _Thread_local bool lock_held;

void machine_lock(void *machine)
{
    pthread_mutex_lock(&((Machine *)machine)->lock);
    lock_held = true;
}

void machine_unlock(void *machine)
{
    lock_held = false;
    pthread_mutex_unlock(&((Machine *)machine)->lock);
}

bool machine_locked(void *machine)
{
    (void)machine;
    return lock_held;
}

void machine_wait(Machine *m, int64_t deadline)
{
    struct timespec until = { .tv_sec = deadline / 1000000000, .tv_nsec = deadline % 1000000000 };
    pthread_cond_clockwait(&m->changed, &m->lock, CLOCK_MONOTONIC, &until);
}

/* The clock. */

int64_t host_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

int64_t machine_clock(const Machine *m)
{
    return m->clock_offset + (m->running ? host_clock() : 0);
}

void machine_set_clock(Machine *m, int64_t now)
{
    m->clock_offset = now - (m->running ? host_clock() : 0);
}

/* Running and stopping. The vCPU's thread parks itself whenever the machine does not run. */

static __attribute__((noreturn)) void *vcpu_thread(void *opaque)
{
    Machine *m = opaque;
    machine_lock(m);
    for (;;) {
        if (m->running) {
            m->parked = false;
            m->accel->hold(m, false);
            machine_unlock(m);
            m->accel->run(m);
            machine_lock(m);
        } else {
            m->parked = true;
            pthread_cond_broadcast(&m->changed);
            pthread_cond_wait(&m->changed, &m->lock);
        }
    }
}

static void set_running(Machine *m, bool running)
{
    int64_t now = machine_clock(m);
    m->running = running;
    machine_set_clock(m, now);
    pthread_cond_broadcast(&m->changed);
}

int machine_start(void *machine)
{
    set_running(machine, true);
    return 0;
}

void machine_halt(Machine *m)
{
    set_running(m, false);
    m->accel->hold(m, true);
}

int machine_stop(void *machine)
{
    Machine *m = machine;
    machine_halt(m);
    while (!m->parked) {
        pthread_cond_wait(&m->changed, &m->lock);
    }
    return 0;
}

bool machine_running(void *machine)
{
    return ((Machine *)machine)->running;
}

/* Ports. */

static const Device *const devices[] = { &serial, &timer, &disk };

static const Device *find_device(uint16_t port)
{
    for (size_t at = 0; at < sizeof(devices) / sizeof(devices[0]); at++) {
        if (port >= devices[at]->first_port && port - devices[at]->first_port < devices[at]->ports) {
            return devices[at];
        }
    }
    return NULL;
}

uint32_t machine_in(Machine *m, uint16_t port)
{
    const Device *device = find_device(port);
    machine_lock(m);
    uint32_t value = device ? device->read(m, port) : UINT32_MAX;
    machine_unlock(m);
    return value;
}

void machine_out(Machine *m, uint16_t port, uint32_t value)
{
    const Device *device = find_device(port);
    machine_lock(m);
    if (device) {
        device->write(m, port, value);
    }
    machine_unlock(m);
}

/* Memory: four sums side by side, because one alone would wait for each multiplication. */
uint64_t machine_hash(const Machine *m)
{
    uint64_t sum[4] = { 1, 2, 3, 4 }, word[4];
    for (uint64_t at = 0; at < m->ram_size; at += sizeof(sum)) {
        memcpy(word, m->ram + at, sizeof(word));
        for (int lane = 0; lane < 4; lane++) {
            sum[lane] = ((sum[lane] << 29 | sum[lane] >> 35) ^ word[lane]) * 0x9e3779b97f4a7c15u;
        }
    }
    return sum[0] ^ sum[1] << 1 ^ sum[2] << 2 ^ sum[3] << 3;
}

bool machine_init(Machine *m)
{
    m->ram = mmap(NULL, m->ram_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m->ram == MAP_FAILED) {
        perror("minivmm: memory");
        return false;
    }
    madvise(m->ram, m->ram_size, MADV_HUGEPAGE);
    bool good = migrate_init(m) && m->accel->open(m);
    for (size_t at = 0; good && at < sizeof(devices) / sizeof(devices[0]); at++) {
        good = devices[at]->init(m);
    }
    m->parked = true;
    return good && pthread_create(&m->vcpu, NULL, vcpu_thread, m) == 0;
}
