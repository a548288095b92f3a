/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * minivmm: a small hypervisor with one CPU, memory and three devices. It shows how to use libsavevm.
 *
 *   main.c     command line and monitor                       serial.c timer.c disk.c  devices
 *   machine.c  lock, memory, ports, thread of the vCPU        kvm.c soft.c             CPU on /dev/kvm, and in software
 *   migrate.c  migration, snapshots and checkpoints           progress.c               shows the progress of a migration
 *   guest/     the guest's program
 *
 * Devices register their state with libsavevm. Only migrate.c starts migrations and snapshots.
 *
 * One lock, the big lock, protects the machine and its devices. A thread holds it while it accesses them. It is released
 * while the guest runs, while a thread waits, and while memory is sent.
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

#define KICK SIGURG /* signal that interrupts the vCPU's thread; ignored by a program without a handler for it */

/* An implementation of the CPU. All functions are called with the big lock, except run(). */
typedef struct Accel {
    bool (*open)(Machine *m);           /* false, with a message, if the CPU is not available */
    void (*reset)(Machine *m);          /* sets the state after power-on; the machine is stopped */
    void (*run)(Machine *m);            /* runs the guest until the machine stops; KICK interrupts it then */
    SaveVMRamLog log;                   /* source of the dirty log */
    void (*log_ops)(SaveVMRamOps *ops); /* sets the functions of the dirty log; their `opaque` is the Machine; may be NULL */
} Accel;

extern const Accel accel_kvm __attribute__((weak)); /* NULL in builds without KVM */
extern const Accel accel_soft;

/* A device with I/O ports. Its functions are called with the big lock. */
typedef struct Device {
    uint16_t first_port, ports;
    bool (*init)(Machine *m); /* registers the device's state; false, with a message, on failure */
    void (*port)(Machine *m, uint16_t port, bool write, uint32_t *value);
    void (*reset)(void); /* sets the state after power-on; the machine is stopped */
} Device;

extern const Device serial, timer, disk;

#define HUGE_PAGE_SIZE (2u << 20)

struct Machine {
    const Accel *accel;
    uint8_t *ram;
    uint64_t ram_size;
    bool huge;              /* the memory has huge pages */
    int memory_file;        /* the file of the memory, which a live update passes on; -1: private memory */
    SaveVMRam *ram_module;  /* libsavevm's RAM device for this memory */
    uint64_t pages;         /* number of pages that the guest writes to */
    uint64_t rate;          /* number of pages that the guest writes per tick */
    const char *disk_path;  /* NULL: no disk */

    pthread_mutex_t lock;   /* the big lock; taken with machine_lock() */
    pthread_cond_t changed; /* signalled when `running` or `parked` changes */
    atomic_bool running;    /* the machine runs; the vCPU's thread reads it without the lock */
    bool parked;            /* the vCPU's thread is stopped and accesses nothing */
    pthread_t vcpu;
};

/* machine.c. Called with the big lock unless noted. libsavevm also calls the functions that take a void pointer. */
bool machine_init(Machine *m);      /* without the lock; creates a stopped machine; false, with a message, on failure */
void machine_lock(void *machine);
void machine_unlock(void *machine);
bool machine_locked(void *machine); /* whether this thread holds the lock */
int machine_start(void *machine);   /* 0 */
int machine_stop(void *machine);    /* returns 0 after the vCPU has stopped; from then on, the guest does not write to memory */
bool machine_running(void *machine);
void machine_reset(void *machine);  /* sets the state after power-on of the CPU and all devices */
void machine_halt(Machine *m);      /* begins to stop the machine, and does not wait */
void machine_port(Machine *m, uint16_t port, bool write, uint32_t *value); /* without the lock, by the vCPU's thread */

/* timer.c and disk.c. Called with the big lock. The disk's functions return 0 or -errno. */
void timer_run(bool run);        /* starts or stops the machine's time */
int disk_release(void *machine); /* unlocks the disk, so that the other side can lock it */
int disk_acquire(void *machine); /* locks the disk; prints a message on failure */

/* A command of the monitor with its argument. Called on the main thread, without the lock. */
typedef void Command(Machine *m, const char *argument);

/* migrate.c. A function that returns false has printed the reason, unless noted. */
Command migrate_to, migrate_cancel, migrate_start_postcopy, migrate_pause, migrate_recover, migrate_set, migrate_info;
Command migrate_devices;
Command migrate_preflight, migrate_rehearse;
Command snapshot_save, snapshot_load, snapshot_cancel, snapshot_info;
Command checkpoint_make, checkpoint_return, checkpoint_free;
Command update_to;
bool update_accept(Machine *m, const char *uri); /* waits for the old process; before machine_init() */
bool update_load(Machine *m, bool start); /* begins to load the guest of the old process */
bool migrate_init(Machine *m);     /* with the lock, before devices are registered */
void migrate_tls(const char *dir); /* the directory of certificates, or "off" */
void migrate_trace(const char *path); /* the file for the trace of migrations; the string is not copied */
bool migrate_from(Machine *m, const char *uri, bool start); /* starts to listen, and returns */
bool migrate_may_start(void);      /* whether this side has the complete guest, and no migration has stopped it */
bool migrate_memory_is_here(void); /* whether all memory has arrived; prints nothing */
void migrate_end(void);            /* cancels or abandons all migrations, and frees them */

/* progress.c. libsavevm calls progress_stalled(). */
void progress_begin(SaveVMMigration *migration); /* prints a line per second until the migration has ended */
void progress_end(void);                         /* before the migration is freed */
void progress_stalled(void *machine, const SaveVMStallEvent *event);
void progress_info(const SaveVMInfo *info);
void progress_devices(SaveVMMigration *migration);

#endif /* MINIVMM_H */
