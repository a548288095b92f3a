/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A machine that is nothing but RAM, and a guest that is one thread: it goes
 * over its memory in an order that looks random, checks what it finds in a page
 * and changes it. Its position is in its memory as well, so the side that has the
 * memory has the guest.
 */
#ifndef GUEST_H
#define GUEST_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "savevm.h"
#include "savevm/ram.h"

#define GUEST_PAGE 4096

typedef struct Guest {
    SaveVM *vm;
    SaveVMRam *ram;
    uint8_t *memory;
    size_t length;
    bool mark;               /* report every write by savevm_ram_set_dirty() */
    bool log;                /* report every write by log_sync */
    _Atomic uint64_t *dirty; /* the log, a bit for each page */
    unsigned pause_us;       /* between two steps, more where it is throttled and obeys */
    bool obeys;
    bool leaves;             /* its CPU leaves an access to memory that is unreadable, as vm_stop must allow */

    pthread_t cpu;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool run, runs, quit;
    _Atomic uint64_t steps;  /* by this machine */
    atomic_bool broken;      /* found a page that can't be */
    atomic_bool *ran;        /* set by each step, unless NULL */
    atomic_int logs;         /* log_start less log_stop */
    _Atomic uint64_t longest_ns; /* longest step since the start */
    atomic_int throttle, most_throttle; /* in percent: now, and the most of it */
} Guest;

/* How the memory is made. */
typedef enum { MEMORY_PRIVATE, MEMORY_SHARED, MEMORY_HUGE } Memory;

/* A stopped machine; NULL where there is no such memory. `ops` NULL: defaults; its callbacks are the guest's own. */
Guest *guest_new(Memory kind, size_t length, const SaveVMRamOptions *options);
void guest_free(Guest *guest);

/* Writes the first content: half of the pages stay zero. */
void guest_fill(Guest *guest);

void guest_start(Guest *guest);
void guest_stop(Guest *guest);

/* The longest time that a guest was stopped, by its own clock, over all machines. */
uint64_t guest_gap_ms(const Guest *guest);

/* Whether all pages of a stopped guest are what they must be after all its steps, in all machines together. */
bool guest_whole(Guest *guest);

/* As guest_whole() for a copy of a guest's memory. */
bool memory_whole(const uint8_t *memory, size_t length);

#endif
