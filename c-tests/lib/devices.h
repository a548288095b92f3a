/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A device whose every callback writes a line of the trace. The test sets what
 * a callback returns, and which callbacks there are.
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
    /* What save_live_pending adds. */
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
    HAS_LEGACY = HAS_SAVE_STATE | HAS_LOAD_STATE,
    HAS_ALL = (1 << 14) - 1,
    HAS_LIVE = HAS_ALL & ~HAS_SAVE_STATE,
};

/* Everything on and well: active, 1 from an iteration, 0 from the others. */
void device_init(Device *device, const char *name, unsigned callbacks);

/* Initialises and registers it. */
void device_add(Device *device, const char *name, int instance_id, int version_id, unsigned callbacks);

#endif
