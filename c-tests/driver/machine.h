/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A machine whose callbacks, all of those from which the library calls, do what
 * a test wants.
 */
#ifndef DRIVER_MACHINE_H
#define DRIVER_MACHINE_H

#include "harness.h"
#include "migration/qemu-file.h"
#include "migration/register.h"
#include "migration/savevm.h"
#include "migration/vmstate.h"
#include "savevm.h"
#include "savevm/ram.h"

#include <stdatomic.h>

typedef struct Machine {
    /* It comes first: see harness_host_lock(). */
    HarnessLock lock;
    SaveVM *vm;
    atomic_bool runs, disks;
    SaveVMRam *ram;
    uint8_t *memory;
    atomic_int logs, plugged;
    /* The migration, from the first event on. */
    _Atomic(void *) migration;
    bool is_source;
    /* The last event looks back. */
    bool is_last;
    uint32_t number;
} Machine;

extern Machine source, destination;

/* How many machines run the guest. */
extern atomic_int running_guests;

/* What is done, where, on which side. */
typedef int Action(Machine *machine, QEMUFile *f);

typedef struct Plan {
    Machine *machine;
    const char *place;
    Action *action;
    atomic_int done;
} Plan;

extern Plan plan;

/* Two of its devices. */
extern const SaveVMHandlers plain_device;
extern const VMStateDescription vmstate_described;

/* Two fresh machines, and what is done on one of them. */
void machines_begin(Machine *machine, const char *place, Action *action);

/* Both are free, and go. */
void machines_end(void);

#endif
