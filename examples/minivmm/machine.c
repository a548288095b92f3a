/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The machine: its lock, its memory, its ports, and the thread of its vCPU. */
#include "minivmm.h"
#include <sys/mman.h>

/* The lock. `lock_held` records whether the thread holds it, for SaveVMHostOps.locked. */

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
    return lock_held;
}

/* Running and stopping. The vCPU's thread waits in vcpu_thread() while the machine is stopped. */

static __attribute__((noreturn)) void *vcpu_thread(void *machine)
{
    Machine *m = machine;
    machine_lock(m);
    for (;;) {
        m->parked = !m->running;
        if (m->running) {
            timer_run(true);
            machine_unlock(m);
            m->accel->run(m);
            machine_lock(m);
            timer_run(false);
        } else {
            pthread_cond_broadcast(&m->changed);
            pthread_cond_wait(&m->changed, &m->lock);
        }
    }
}

int machine_start(void *machine)
{
    Machine *m = machine;
    m->running = true;
    pthread_cond_broadcast(&m->changed);
    return 0;
}

void machine_halt(Machine *m)
{
    m->running = false;
    pthread_cond_broadcast(&m->changed);
    pthread_kill(m->vcpu, KICK);
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

/* Devices. */

static const Device *const devices[] = { &serial, &timer, &disk };
#define DEVICES (sizeof(devices) / sizeof(devices[0]))

void machine_port(Machine *m, uint16_t port, bool write, uint32_t *value)
{
    machine_lock(m);
    for (size_t at = 0; at < DEVICES; at++) {
        if (port >= devices[at]->first_port && port < devices[at]->first_port + devices[at]->ports) {
            devices[at]->port(m, port, write, value);
        }
    }
    machine_unlock(m);
}

void machine_reset(void *machine)
{
    Machine *m = machine;
    m->accel->reset(m);
    for (size_t at = 0; at < DEVICES; at++) {
        devices[at]->reset();
    }
}

bool machine_init(Machine *m)
{
    int kind = m->memory_file >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
    /* Without a reservation, a huge page that is missing would kill the process at the guest's first access. */
    kind |= m->huge ? MAP_HUGETLB : MAP_NORESERVE;
    m->ram = mmap(NULL, m->ram_size, PROT_READ | PROT_WRITE, kind, m->memory_file, 0);
    if (m->ram == MAP_FAILED) {
        perror("minivmm: memory");
        return false;
    }
    madvise(m->ram, m->ram_size, MADV_HUGEPAGE);
    m->pages = (m->ram_size - GUEST_WORK) / PAGE_SIZE;
    machine_lock(m);
    bool good = migrate_init(m) && m->accel->open(m);
    for (size_t at = 0; good && at < DEVICES; at++) {
        good = devices[at]->init(m);
    }
    m->parked = true;
    good = good && pthread_create(&m->vcpu, NULL, vcpu_thread, m) == 0;
    machine_unlock(m);
    return good;
}
