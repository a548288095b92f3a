/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * minivmm: a hypervisor of one CPU, some memory and three devices, small enough to be read in one sitting.
 *
 *   main.c     the command line and the monitor     serial.c timer.c disk.c  the devices
 *   machine.c  what everything hangs on             guest.c                  the program inside
 *   migrate.c  migration and snapshots              kvm.c soft.c             the CPU, on /dev/kvm and without
 *
 * Devices only register themselves with libsavevm; they do not know what a migration is. Only migrate.c does.
 *
 * One lock, the "big" one, guards the machine and its devices: it is held by whoever touches them, and given back while
 * the guest runs, while somebody waits, and while memory is sent.
 */
#ifndef MINIVMM_H
#define MINIVMM_H

#include "guest.h"
#include "savevm.h"
#include <pthread.h>
#include <stdio.h>

typedef struct Machine Machine;

/* A way to run a CPU. With the big lock, but for run() and take_dirty(). */
typedef struct Accel {
    bool (*open)(Machine *m);                        /* false, and says why, if it is not to be had */
    void (*run)(Machine *m);                         /* runs the guest until it is held */
    void (*hold)(Machine *m, bool hold);             /* lets run() return, or lets it run again */
    int (*log_dirty)(Machine *m, bool on);           /* notes written pages from now on, or not; 0 or -errno */
    int (*take_dirty)(Machine *m, uint64_t *bitmap); /* sets a bit for each one, and forgets them; 0 or -errno */
} Accel;

extern const Accel accel_kvm, accel_soft;

/* A device with some ports. With the big lock. */
typedef struct Device {
    uint16_t first_port, ports;
    bool (*init)(Machine *m); /* false, and says why, if it failed */
    uint32_t (*read)(Machine *m, uint16_t port);
    void (*write)(Machine *m, uint16_t port, uint32_t value);
} Device;

extern const Device serial, timer, disk;

struct Machine {
    const Accel *accel;
    uint8_t *ram;
    uint64_t ram_size;
    uint64_t rate;          /* pages that the guest writes per millisecond */
    const char *disk_path;  /* NULL: no disk */
    bool start_paused;      /* -S: the first start is left to the user */

    pthread_mutex_t lock;   /* the big lock; through machine_lock() */
    pthread_cond_t changed; /* one of the next two */
    bool running, parked;
    pthread_t vcpu;
    int64_t clock_offset;   /* of the machine's clock to the host's, ns; its value itself while the machine is stopped */
};

/* machine.c. With the big lock, but for what says otherwise. What takes a void pointer is called by libsavevm as well. */
bool machine_init(Machine *m);               /* it comes up stopped; false, and says why, if it failed */
void machine_lock(void *machine);
void machine_unlock(void *machine);
bool machine_locked(void *machine);          /* whether this thread holds the lock */
int machine_stop(void *machine);             /* 0; when it returns, nothing writes to memory any more */
int machine_start(void *machine);            /* 0 */
bool machine_running(void *machine);
void machine_halt(Machine *m);               /* begins to stop */
int64_t host_clock(void);                    /* ns; goes on always */
int64_t machine_clock(const Machine *m);     /* ns; stands still with the machine */
void machine_set_clock(Machine *m, int64_t now);
void machine_wait(Machine *m, int64_t deadline); /* for a change, at most until then on host_clock() */
uint32_t machine_in(Machine *m, uint16_t port);  /* this and the next without the lock, by the vCPU's thread */
void machine_out(Machine *m, uint16_t port, uint32_t value);
uint64_t machine_hash(const Machine *m);         /* of its memory */

/* disk.c, with the big lock; 0 or -errno. */
int disk_release(void *machine);             /* the other side may have the file now */
int disk_acquire(void *machine);             /* it is ours again */

/* migrate.c, from the main thread, without the lock but where it says so. Those that return bool print why if it failed. */
bool migrate_init(Machine *m);                              /* with the lock, before the devices register */
bool migrate_to(const char *uri);                           /* begins; goes on in the background */
bool migrate_from(Machine *m, const char *uri);             /* the same */
bool migrate_set(const char *name, const char *value);      /* false: there is no such parameter; says nothing */
bool migrate_recover(const char *uri);                      /* a postcopy whose connection broke goes on over another */
void migrate_command(int (*out)(MigrationState *), int (*in)(MigrationIncomingState *)); /* for what is under way */
void migrate_print(void);                                   /* how it stands */
bool migrate_guest_is_here(void);                           /* and not at the other side, or still to come */
bool migrate_memory_is_here(void);                          /* all of it: none follows in a postcopy */
bool snapshot_save(const char *uri);
bool snapshot_load(Machine *m, const char *uri);
void migrate_end(void);                                     /* ends what goes on in the background */

#endif /* MINIVMM_H */
