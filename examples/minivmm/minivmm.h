/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * minivmm: a hypervisor of one CPU, some memory and four devices, small enough to be read in one sitting.
 *
 *   main.c     the command line               kvm.c      the CPU on /dev/kvm
 *   monitor.c  commands from standard input   soft.c     the CPU in software
 *   machine.c  what everything hangs on       ram.c serial.c timer.c disk.c  the devices
 *   migrate.c  migration and snapshots        guest.c    the program inside
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

/* A way to run a CPU. All but run() are called with the big lock. */
typedef struct Accel {
    bool (*open)(Machine *m);                         /* false, and says why, if it is not to be had */
    void (*close)(Machine *m);
    void (*run)(Machine *m);                          /* runs the guest until it is held; without the lock */
    void (*hold)(Machine *m, bool hold);              /* lets run() return, or lets it run again */
    bool (*log_dirty)(Machine *m, bool on);           /* takes note of written pages from now on */
    bool (*take_dirty)(Machine *m, uint64_t *bitmap); /* adds those written since the last call; any thread */
} Accel;

extern const Accel accel_kvm, accel_soft;

/* A device at some ports. Offsets count from the first one; called with the big lock. */
typedef struct Ports {
    uint16_t first, count;
    uint32_t (*read)(void *opaque, unsigned int offset);
    void (*write)(void *opaque, unsigned int offset, uint32_t value);
} Ports;

struct Machine {
    const Accel *accel;
    uint8_t *ram;
    uint64_t ram_size;
    uint64_t rate;          /* pages that the guest writes per millisecond */
    const char *disk_path;  /* NULL: no disk */
    bool start_paused;      /* -S: the first start is left to the user */
    SaveVM *savevm;

    pthread_mutex_t lock;   /* the big lock; through machine_lock() */
    pthread_cond_t changed; /* one of the next three */
    bool running, parked, quit;
    pthread_t vcpu;
    int64_t clock_offset;   /* of the machine's clock to the host's, ns; its value itself while the machine is stopped */

    struct { const Ports *ports; void *opaque; } port_map[8];
    void *cpu, *memory, *serial, *timer, *disk; /* each belongs to the file of that name */
};

/* machine.c. With the big lock, but for the lock itself and what says otherwise. What takes a void pointer is called by
 * libsavevm as well. */
bool machine_init(Machine *m);               /* without; it comes up stopped */
void machine_destroy(Machine *m);            /* without */
void machine_lock(void *machine);
void machine_unlock(void *machine);
bool machine_locked(void *machine);          /* whether this thread holds it */
int machine_stop(void *machine);             /* 0 */
int machine_start(void *machine);            /* 0 */
void machine_halt(Machine *m);               /* as machine_stop(), but from the vCPU's thread: when it returns */
bool machine_running(void *machine);
int64_t host_clock(void);                    /* ns; goes on always, without the lock */
int64_t machine_clock(Machine *m);           /* ns; stands still with the machine */
void machine_set_clock(Machine *m, int64_t now);
void machine_wait(Machine *m, int64_t deadline); /* for a change, at most until then on host_clock() */
void machine_map_ports(Machine *m, const Ports *ports, void *opaque);
uint32_t machine_in(Machine *m, uint16_t port);              /* without: for the vCPU's thread */
void machine_out(Machine *m, uint16_t port, uint32_t value); /* without: for the vCPU's thread */

/* The devices, with the big lock. init returns false and says why if it failed. */
bool ram_init(Machine *m);
void ram_destroy(Machine *m);
uint64_t ram_hash(Machine *m);
void serial_init(Machine *m);
void serial_destroy(Machine *m);
void timer_init(Machine *m);
void timer_destroy(Machine *m);
bool disk_init(Machine *m);
void disk_destroy(Machine *m);
int disk_release(void *machine);             /* the other side may have the file now; 0 or -errno */
int disk_acquire(void *machine);             /* it is ours again; 0 or -errno */

/* migrate.c, from the main thread, without the lock. Those that return bool print why if it failed. */
bool migrate_to(Machine *m, const char *uri);   /* begins; goes on in the background */
bool migrate_from(Machine *m, const char *uri); /* the same */
bool migrate_set(const char *name, uint64_t value); /* false: there is no such parameter */
void migrate_cancel(void);
void migrate_print(void);                       /* how it stands */
bool migrate_guest_is_here(void);               /* and not at the other side, or still to come */
bool snapshot_save(Machine *m, const char *path);
bool snapshot_load(Machine *m, const char *path);
void migrate_end(void);                         /* ends what goes on in the background */

/* monitor.c: waits until the deadline on host_clock(), and meanwhile runs commands, until `quit` or the input's end. */
void monitor_run(Machine *m, bool from_stdin, int64_t deadline);

#endif /* MINIVMM_H */
