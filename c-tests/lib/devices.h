/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A device whose every callback writes a line of the trace. The test sets what
 * a callback returns, and which callbacks there are. It has the table of the
 * version SAVEVM_QEMU_VERSION. Callbacks that the version does not have are left
 * out; save_complete (10.1) is that at the end of precopy.
 */
#ifndef DEVICES_H
#define DEVICES_H

#include "migration/register.h"

typedef struct Device Device;

struct Device {
    const char *name;
    SaveVMHandlers ops;
    /* What the callbacks of these names return. */
    bool is_active;
    bool has_postcopy;
    bool is_active_iterate;
    int save_setup;
    int save_live_iterate;
    int save_live_complete_precopy;
    int save_live_complete_postcopy;
    int load_state;
    int load_setup;
    int load_cleanup;
    int resume_prepare;
    int save_prepare;
    int switchover_start;
    bool switchover_ack_needed;
    /* With an error that has the text DEVICE_ERROR. */
    bool thread_fails;
    bool buffer_fails;
    bool postcopy_prepare_fails;
    /* What save_live_pending adds; from 8.0 on, the others can be sent in postcopy. */
    uint64_t pending[3];
    /* Called in every callback that traces, after its line; may be NULL. */
    void (*hook)(Device *device, const char *callback, QEMUFile *f);
    void *data;
    /* The callbacks' payload begins with this many more bytes. */
    unsigned extra;
    /* What the last load_state read. */
    char loaded[300];
    unsigned loads;
};

/* Which callbacks a device has. */
enum {
    HAS_SAVE_STATE = 1 << 0,
    HAS_SAVE_CLEANUP = 1 << 1,
    HAS_COMPLETE_POSTCOPY = 1 << 2,
    HAS_COMPLETE_PRECOPY = 1 << 3,
    HAS_IS_ACTIVE = 1 << 4,
    HAS_HAS_POSTCOPY = 1 << 5,
    HAS_IS_ACTIVE_ITERATE = 1 << 6,
    HAS_ITERATE = 1 << 7,
    HAS_SETUP = 1 << 8,
    HAS_PENDING = 1 << 9,
    HAS_LOAD_STATE = 1 << 10,
    HAS_LOAD_SETUP = 1 << 11,
    HAS_LOAD_CLEANUP = 1 << 12,
    HAS_RESUME_PREPARE = 1 << 13,
    HAS_COUNT = 14,
    HAS_LEGACY = HAS_SAVE_STATE | HAS_LOAD_STATE,
    HAS_ALL = (1 << HAS_COUNT) - 1,
    HAS_LIVE = HAS_ALL & ~HAS_SAVE_STATE,
    /* These are of newer versions. */
    HAS_PREPARE = 1 << 14,           /* 8.2 */
    HAS_ACK_NEEDED = 1 << 15,        /* 8.1 */
    HAS_SWITCHOVER_START = 1 << 16,  /* 10.0 */
    HAS_THREAD = 1 << 17,            /* 10.0 */
    HAS_LOAD_BUFFER = 1 << 18,       /* 10.0 */
    HAS_POSTCOPY_PREPARE = 1 << 19,  /* 10.1 */
};

/* In the text of each error of a device. */
#define DEVICE_ERROR "the device has no time"

/* Everything on and well: active, 1 from an iteration, 0 from the others. */
void device_init(Device *device, const char *name, unsigned callbacks);

/*
 * qemu_savevm_state_complete_postcopy(). From 10.1 on, QEMU asks other questions
 * than the library, which leaves out devices without postcopy: so questions are
 * not traced, and a test leaves out such devices itself.
 */
void device_complete_postcopy(QEMUFile *f);

/* Initialises and registers it. */
void device_add(Device *device, const char *name, int instance_id, int version_id, unsigned callbacks);

#endif
