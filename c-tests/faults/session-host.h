/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The virtual machines of a random session: what their callbacks check, and their guests. */
#ifndef FAULTS_SESSION_HOST_H
#define FAULTS_SESSION_HOST_H

#include "session.h"

#include "migration/vmstate.h"
#include "savevm/ram.h"

#define HOSTS 3
#define SLOTS 2
#define PAGE 4096
#define PAGES 512
#define EXTRA_PAGES 16

typedef struct Device {
    uint32_t value;
    uint8_t bytes[64];
} Device;

extern const VMStateDescription vmstate_device;

/* A migration and the lock that keeps it from being freed during a call. */
typedef struct Slot {
    pthread_rwlock_t lock;
    SaveVMMigration *_Atomic migration;
    bool outgoing;
} Slot;

/* A virtual machine. */
typedef struct Host {
    Session *session;
    unsigned number;
    SaveVM *vm;
    SaveVMRam *ram;
    uint8_t *memory, *extra;
    pthread_mutex_t big;
    atomic_bool running, quit;
    atomic_bool had_guest; /* the guest runs here, or did */
    pthread_t guest;
    Device device, plugged;
    Slot slots[SLOTS];
    pthread_mutex_t address_lock;
    char address[300]; /* what its incoming migration listened on last */
    atomic_uint addresses;
    atomic_bool saved;
    atomic_llong blocker;
    atomic_bool has_extra, has_plugged;
} Host;

struct Session {
    Journal *journal;
    char directory[200];
    Host hosts[HOSTS];
    atomic_int guests;
    atomic_bool copied; /* a snapshot was loaded: there may be two guests */
};

void violation(Session *session, const char *text);
/* A number below `limit`. */
uint64_t draw(uint64_t *seed, uint64_t limit);

void host_lock(void *opaque);
void host_unlock(void *opaque);
/* Whether this thread holds the lock of a machine. */
bool holds_lock(void);
int vm_start(void *opaque);

void host_init(Host *host, Session *session, unsigned number);
/* Frees the machine. Its migrations are freed. */
void host_free(Host *host);

#endif
