/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One side of a migration: a context whose host has a lock that knows its
 * holder, a RAM of a few pages, and a device. The two sides share which one runs.
 */
#ifndef DRIVER_SIDE_H
#define DRIVER_SIDE_H

#include "harness.h"
#include "migration/qemu-file.h"
#include "migration/register.h"
#include "migration/savevm.h"
#include "savevm.h"
#include "savevm/ram.h"

#include <stdatomic.h>

#define PAGES 16

typedef struct Side {
    /* It comes first: see harness_host_lock(). */
    HarnessLock lock;
    SaveVM *vm;
    /* The thread that made it. */
    pthread_t maker;
    atomic_bool runs;
    atomic_uint cleanups, setups, events, resets;
    /* Statuses of the events, joined by blanks. */
    char statuses[256];

    /* RAM: a page is a number. */
    atomic_ullong pages[PAGES];
    pthread_mutex_t mutex;
    bool dirty[PAGES], received[PAGES];
    bool keep_dirty;
    /* A postcopy sends no page until this is cleared, however long the test takes to pause it. */
    atomic_bool hold;
    /* It is saved in a snapshot, whose rounds have the lock. */
    bool snapshot;
    int requests[4 * PAGES];
    unsigned request_count;
    bool postcopy;
    atomic_bool listening;
    atomic_int ended;
    uint8_t bits[8];
    _Atomic(MigrationIncomingState *) source;

    /* The device. */
    uint64_t state;
    atomic_bool fail_load;
} Side;

/* How many sides run the guest; never more than one. */
extern atomic_int guests;

/* A side with its context; the one that `runs` has something in its pages. */
void side_init(Side *side, bool runs, bool postcopy);
void side_free(Side *side);

/* Two sides, the first of which runs. */
void sides_init(Side *source, Side *destination, bool postcopy);
void sides_free(Side *source, Side *destination);

/* Checks that both hold the same, that `to` runs, and that cleanups match. */
void check_moved(Side *from, Side *to);

/* A URI for an unused socket. */
const char *side_uri(void);

#endif
