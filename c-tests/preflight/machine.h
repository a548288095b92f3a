/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A machine that is made from a plan, so that two of them can differ in anything that a preflight compares. */
#ifndef PREFLIGHT_MACHINE_H
#define PREFLIGHT_MACHINE_H

#include "harness.h"
#include "migration/register.h"
#include "migration/vmstate.h"
#include "savevm.h"
#include "savevm/ram.h"

#include <stdatomic.h>

#define DEVICES_MAX 8
#define BLOCKS_MAX 3
#define BLOCK_LENGTH 65536

typedef struct Inner {
    uint32_t x, y;
} Inner;

/* The state of every device. */
typedef struct State {
    uint32_t a, b, c;
    uint64_t wide, mask;
    uint8_t bytes[16];
    uint16_t values[8];
    uint16_t ports[8];
    uint16_t port_count; /* set when the machine is made, and not sent */
    uint16_t queue[8];
    uint16_t queued; /* sent before `queue` */
    bool has_extra;
    uint32_t extra;
    Inner inner, inners[3];
    int load_result;
} State;

typedef struct Device {
    const char *name;
    uint32_t instance;
    /* A description, or a table of functions. */
    const VMStateDescription *vmsd;
    const SaveVMHandlers *handlers;
    int version, alias;
} Device;

typedef struct Block {
    const char *name;
    uint64_t length, page_size, address;
    bool shared;
} Block;

typedef struct Plan {
    const char *machine;
    unsigned int page_bits, page_bits_min;
    uint8_t uuid; /* 0: none */
    const char *capabilities[3];
    Device devices[DEVICES_MAX];
    Block blocks[BLOCKS_MAX];
    bool ignore_shared;
    SaveVMParams params;
    SaveVMLimits limits;
    State initial;
    bool no_reset;
    uint32_t flags; /* SAVEVM_FLAG_* */
} Plan;

typedef struct Machine {
    /* It comes first: see harness_host_lock(). */
    HarnessLock lock;
    Plan plan;
    SaveVM *vm;
    SaveVMRam *ram;
    void *memory[BLOCKS_MAX];
    State states[DEVICES_MAX];
    atomic_bool runs;
    atomic_int stops, resets, loads, log_starts;
    /* All that was reported, line by line. */
    char reports[16384];
    pthread_mutex_t reporting;
} Machine;

/* The plan of a machine that fits itself. */
Plan plan_default(void);

/* The device of that name in a plan. */
Device *plan_device(Plan *plan, const char *name);

Machine *machine_new(const Plan *plan, bool runs);
void machine_free(Machine *machine);

/* Whether `part` was reported. */
bool machine_reported(Machine *machine, const char *part);

extern const VMStateDescription vmstate_timer, vmstate_nic, vmstate_disk;
extern const SaveVMHandlers serial_handlers;

#endif
