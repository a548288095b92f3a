/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A header as a QEMU that is newer than the library might have it. It is made
 * up: it has what QEMU 11.x is known to change, at places that no version has.
 *
 *  - save_query_pending in place of the two state_pending callbacks
 *  - infos with load and save, which have an Error **
 *  - VMS_END at another bit
 *  - the members of VMStateField in another order, without err_hint
 */
#ifndef NEWER_H
#define NEWER_H

#include "hw/vmstate-if.h"
#include "qemu/typedefs.h"

typedef struct VMStateField VMStateField;
typedef struct VMStateInfo VMStateInfo;

typedef struct MigPendingData {
    bool reserved;
    uint64_t total_bytes;
    uint64_t postcopy_bytes;
    uint64_t precopy_bytes;
    uint64_t stopcopy_bytes;
    uint32_t switchover_ack_pending;
} MigPendingData;

typedef struct SaveVMHandlers {
    void (*save_state)(QEMUFile *f, void *opaque);
    int (*save_prepare)(void *opaque, Error **errp);
    int (*save_setup)(QEMUFile *f, void *opaque, Error **errp);
    void (*save_cleanup)(void *opaque);
    int (*save_complete)(QEMUFile *f, void *opaque);
    bool (*is_active)(void *opaque);
    bool (*has_postcopy)(void *opaque);
    bool (*is_active_iterate)(void *opaque);
    int (*save_live_iterate)(QEMUFile *f, void *opaque);
    bool (*save_postcopy_prepare)(QEMUFile *f, void *opaque, Error **errp);
    void (*save_query_pending)(void *opaque, MigPendingData *pending, bool exact, bool final);
    int (*load_state)(QEMUFile *f, void *opaque, int version_id);
    bool (*load_state_buffer)(void *opaque, char *buf, size_t len, Error **errp);
    int (*load_setup)(QEMUFile *f, void *opaque, Error **errp);
    int (*load_cleanup)(void *opaque);
    int (*resume_prepare)(MigrationState *s, void *opaque);
    int (*switchover_start)(void *opaque);
} SaveVMHandlers;

struct VMStateInfo {
    const char *name;
    bool (*save)(QEMUFile *f, void *pv, size_t size, const VMStateField *field, JSONWriter *vmdesc, Error **errp);
    bool (*load)(QEMUFile *f, void *pv, size_t size, const VMStateField *field, Error **errp);
    int (*get)(QEMUFile *f, void *pv, size_t size, const VMStateField *field);
    int (*put)(QEMUFile *f, void *pv, size_t size, const VMStateField *field, JSONWriter *vmdesc);
};

enum VMStateFlags {
    VMS_SINGLE = 0x1,
    VMS_POINTER = 0x2,
    VMS_ARRAY = 0x4,
    VMS_STRUCT = 0x8,
    VMS_VARRAY_UINT32 = 0x800,
    VMS_END = 0x40000,
};

typedef enum {
    MIG_PRI_UNINITIALIZED = 0,
    MIG_PRI_LOW,
    MIG_PRI_DEFAULT,
    MIG_PRI_MAX,
} MigrationPriority;

struct VMStateField {
    const char *name;
    size_t offset;
    size_t size;
    size_t size_offset;
    size_t start;
    int num;
    size_t num_offset;
    const VMStateInfo *info;
    enum VMStateFlags flags;
    const VMStateDescription *vmsd;
    int version_id;
    int struct_version_id;
    bool (*field_exists)(void *opaque, int version_id);
};

struct VMStateDescription {
    const char *name;
    bool unmigratable;
    bool early_setup;
    int version_id;
    int minimum_version_id;
    MigrationPriority priority;
    bool (*pre_save_errp)(void *opaque, Error **errp);
    bool (*post_load_errp)(void *opaque, int version_id, Error **errp);
    bool (*needed)(void *opaque);
    const VMStateField *fields;
    const VMStateDescription *const *subsections;
};

/* An object of the library, which has the layout of QEMU 7.2. */
extern const VMStateInfo vmstate_info_uint32;

#endif
