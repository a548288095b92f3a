/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * minivmm: a hypervisor of one CPU, some memory and three devices, small enough to be read in one sitting.
 *
 *   main.c     the command line and the monitor     serial.c timer.c disk.c  the devices
 *   machine.c  what everything hangs on             kvm.c soft.c             the CPU, on /dev/kvm and without
 *   migrate.c  migration and snapshots              guest/                   the program inside
 *
 * Devices only register themselves with libsavevm; they do not know what a migration is. Only migrate.c does.
 *
 * One lock, the "big" one, guards the machine and its devices: it is held by whoever touches them, and given back while
 * the guest runs, while somebody waits, and while memory is sent.
 */
#ifndef MINIVMM_H
#define MINIVMM_H

#include "guest/guest.h"
#include "savevm.h"
#include "savevm/ram.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>

typedef struct Machine Machine;

#define KICK SIGURG /* to the vCPU's thread: it interrupts whoever has a handler for it, and nobody else */

/* A way to run a CPU. With the big lock, but for run(). */
typedef struct Accel {
    bool (*open)(Machine *m);           /* false, and says why, if it is not to be had */
    void (*run)(Machine *m);            /* runs the guest while the machine runs; KICK comes when it does not any more */
    SaveVMRamLog log;                   /* how it is known what the guest wrote */
    void (*log_ops)(SaveVMRamOps *ops); /* sets the functions of the log, which take the machine; NULL: none */
} Accel;

extern const Accel accel_kvm __attribute__((weak)); /* not there where KVM can't be */
extern const Accel accel_soft;

/* A device with some ports. With the big lock. */
typedef struct Device {
    uint16_t first_port, ports;
    bool (*init)(Machine *m); /* registers its state; false, and says why, if it failed */
    void (*port)(Machine *m, uint16_t port, bool write, uint32_t *value);
} Device;

extern const Device serial, timer, disk;

struct Machine {
    const Accel *accel;
    uint8_t *ram;
    uint64_t ram_size;
    SaveVMRam *ram_module;  /* what libsavevm knows of it */
    uint64_t pages;         /* for the guest to work on */
    uint64_t rate;          /* of them, to write per tick */
    const char *disk_path;  /* NULL: no disk */

    pthread_mutex_t lock;   /* the big lock; through machine_lock() */
    pthread_cond_t changed; /* one of the next two */
    atomic_bool running;    /* for the vCPU's thread, which reads it without the lock */
    bool parked;            /* that thread is, and touches nothing */
    pthread_t vcpu;
};

/* machine.c. With the big lock, but for what says otherwise. What takes a void pointer is called by libsavevm as well. */
bool machine_init(Machine *m);      /* without the lock; it comes up stopped; false, and says why, if it failed */
void machine_lock(void *machine);
void machine_unlock(void *machine);
bool machine_locked(void *machine); /* whether this thread holds the lock */
int machine_start(void *machine);   /* 0 */
int machine_stop(void *machine);    /* 0; when it returns, nothing writes to memory any more */
bool machine_running(void *machine);
void machine_halt(Machine *m);      /* begins to stop */
void machine_port(Machine *m, uint16_t port, bool write, uint32_t *value); /* without the lock, by the vCPU's thread */

/* timer.c and disk.c, with the big lock. Those of the disk return 0 or -errno. */
void timer_run(bool run);        /* the machine's time goes on, or stands still, with its CPU */
int disk_release(void *machine); /* the other side may have the disk now */
int disk_acquire(void *machine); /* it is ours again; if not, it has said so */

/* A command of the monitor, with what stands behind its name. From the main thread, without the lock. */
typedef void Command(Machine *m, const char *argument);

/* migrate.c. Where a bool is false, it has said why. */
Command migrate_to, migrate_cancel, migrate_start_postcopy, migrate_pause, migrate_recover, migrate_set, migrate_info;
Command snapshot_save, snapshot_load;
bool migrate_init(Machine *m);     /* with the lock, before the devices register themselves */
void migrate_trace(const char *path); /* the file for the trace of migrations; the string is not copied */
bool migrate_from(Machine *m, const char *uri, bool start); /* begins, and goes on in the background */
bool migrate_may_start(void);      /* the whole guest is here, and no migration has stopped it */
bool migrate_memory_is_here(void); /* all of it: none follows in a postcopy; says nothing */
void migrate_end(void);            /* ends what goes on in the background */

#endif /* MINIVMM_H */
