/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The machine: its lock, its clock, its ports, the thread of its vCPU, and what libsavevm may ask of it. */
#include "minivmm.h"
#include <stdlib.h>
#include <time.h>

/* The lock. Each thread remembers whether it holds it: the library asks, and so may you in an assertion. */

static _Thread_local bool lock_held;

void machine_lock(void *machine)
{
    Machine *m = machine;
    pthread_mutex_lock(&m->lock);
    lock_held = true;
}

void machine_unlock(void *machine)
{
    Machine *m = machine;
    lock_held = false;
    pthread_mutex_unlock(&m->lock);
}

bool machine_locked(void *machine)
{
    (void)machine;
    return lock_held;
}

void machine_wait(Machine *m, int64_t deadline)
{
    struct timespec until = { .tv_sec = deadline / 1000000000, .tv_nsec = deadline % 1000000000 };
    pthread_cond_timedwait(&m->changed, &m->lock, &until);
}

/* The clock. */

int64_t host_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

int64_t machine_clock(Machine *m)
{
    return m->clock_offset + (m->running ? host_clock() : 0);
}

void machine_set_clock(Machine *m, int64_t now)
{
    m->clock_offset = now - (m->running ? host_clock() : 0);
}

/* Running and stopping. The vCPU's thread parks itself whenever the machine does not run. */

static void *vcpu_thread(void *opaque)
{
    Machine *m = opaque;
    machine_lock(m);
    while (!m->quit) {
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
    machine_unlock(m);
    return NULL;
}

void machine_halt(Machine *m)
{
    int64_t now = machine_clock(m);
    m->running = false;
    machine_set_clock(m, now);
    m->accel->hold(m, true);
    pthread_cond_broadcast(&m->changed);
}

int machine_stop(void *machine)
{
    Machine *m = machine;
    if (m->running) {
        machine_halt(m);
    }
    while (!m->parked) {
        pthread_cond_wait(&m->changed, &m->lock);
    }
    return 0;
}

int machine_start(void *machine)
{
    Machine *m = machine;
    if (!m->running) {
        int64_t now = machine_clock(m);
        m->running = true;
        machine_set_clock(m, now);
        pthread_cond_broadcast(&m->changed);
    }
    return 0;
}

bool machine_running(void *machine)
{
    return ((Machine *)machine)->running;
}

/* Ports. */

#define PORT_MAPS (sizeof(((Machine *)0)->port_map) / sizeof(((Machine *)0)->port_map[0]))

void machine_map_ports(Machine *m, const Ports *ports, void *opaque)
{
    for (size_t at = 0; at < PORT_MAPS; at++) {
        if (!m->port_map[at].ports) {
            m->port_map[at].ports = ports;
            m->port_map[at].opaque = opaque;
            return;
        }
    }
    abort(); /* make the map larger */
}

static const Ports *find_ports(Machine *m, uint16_t port, void **opaque)
{
    for (size_t at = 0; at < PORT_MAPS && m->port_map[at].ports; at++) {
        const Ports *ports = m->port_map[at].ports;
        if (port >= ports->first && port - ports->first < ports->count) {
            *opaque = m->port_map[at].opaque;
            return ports;
        }
    }
    return NULL;
}

uint32_t machine_in(Machine *m, uint16_t port)
{
    void *opaque;
    machine_lock(m);
    const Ports *ports = find_ports(m, port, &opaque);
    uint32_t value = ports ? ports->read(opaque, port - ports->first) : UINT32_MAX;
    machine_unlock(m);
    return value;
}

void machine_out(Machine *m, uint16_t port, uint32_t value)
{
    void *opaque;
    machine_lock(m);
    const Ports *ports = find_ports(m, port, &opaque);
    if (ports) {
        ports->write(opaque, port - ports->first, value);
    }
    machine_unlock(m);
}

static const char *machine_name(void *machine)
{
    (void)machine;
    return "minivmm";
}

/* What libsavevm may ask of this hypervisor. */
static void introduce(Machine *m)
{
    const SaveVMHostOps ops = {
        .size = sizeof(ops),
        .lock = machine_lock,
        .unlock = machine_unlock,
        .locked = machine_locked,
        .vm_stop = machine_stop,
        .vm_start = machine_start,
        .vm_running = machine_running,
        .machine_name = machine_name,
        .disks_inactivate = disk_release,
        .disks_activate = disk_acquire,
    };
    m->savevm = savevm_new(&ops, m);
    savevm_set_current(m->savevm); /* devices register themselves there, on this thread */
}

bool machine_init(Machine *m)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&m->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&m->lock, NULL);

    introduce(m);
    machine_lock(m);
    bool good = ram_init(m) && disk_init(m);
    if (good) {
        serial_init(m);
        timer_init(m);
        good = m->accel->open(m) && pthread_create(&m->vcpu, NULL, vcpu_thread, m) == 0;
    }
    while (good && !m->parked) {
        pthread_cond_wait(&m->changed, &m->lock);
    }
    machine_unlock(m);
    return good;
}

void machine_destroy(Machine *m)
{
    machine_lock(m);
    machine_stop(m);
    m->quit = true;
    pthread_cond_broadcast(&m->changed);
    machine_unlock(m);
    pthread_join(m->vcpu, NULL);
    machine_lock(m);
    m->accel->close(m);
    timer_destroy(m);
    serial_destroy(m);
    disk_destroy(m);
    ram_destroy(m);
    machine_unlock(m);
    savevm_set_current(NULL);
    savevm_free(m->savevm);
    pthread_cond_destroy(&m->changed);
    pthread_mutex_destroy(&m->lock);
}
