/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * VMState: a device's state as a table of its fields, instead of code.
 *
 *     static const VMStateDescription vmstate_clock = {
 *         .name = "clock",
 *         .version_id = 2,
 *         .minimum_version_id = 1,
 *         .fields = (const VMStateField[]) {
 *             VMSTATE_UINT64(ticks, ClockState),
 *             VMSTATE_BOOL_V(running, ClockState, 2),
 *             VMSTATE_END_OF_LIST()
 *         }
 *     };
 *     ...
 *     vmstate_register(NULL, 0, &vmstate_clock, clock);
 *
 * This header has the structures and the calls; it includes the macros that
 * fill the structures: migration/vmstate-fields.h (the general ones) and
 * migration/vmstate-scalars.h (short forms for common types).
 *
 * Layout, values and meaning are those of QEMU 7.2: migration/vmstate.c,
 * migration/vmstate-types.c, include/migration/vmstate.h. Tables may be shared
 * between devices and threads; libsavevm only reads them, and keeps pointers
 * into them while a device is registered.
 */
#ifndef QEMU_VMSTATE_H
#define QEMU_VMSTATE_H

#include "qemu/typedefs.h"
#include "hw/vmstate-if.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A line of the table, and how an element is put and got; both below. */
typedef struct VMStateField VMStateField;
typedef struct VMStateInfo VMStateInfo;

/*
 * How one element of a field gets into the stream and out of it.
 *
 * `pv` points to the element, `size` is its size in bytes (for a bitmap, in
 * bits). Most kinds need nothing else; `field` is for those that are built of
 * other descriptions. `vmdesc` is NULL unless a description of the stream is
 * being collected. Both run with the big lock held and return 0 or a negative
 * errno value; errors of the file itself need not be returned.
 */
struct VMStateInfo {
    const char *name; /* as it appears in the description of the stream */
    /* Reads the element from `f`. */
    int (*get)(QEMUFile *f, void *pv, size_t size, const VMStateField *field);
    /* Writes it. */
    int (*put)(QEMUFile *f, void *pv, size_t size, const VMStateField *field,
               JSONWriter *vmdesc);
};

/*
 * What VMStateField.flags is made of. At most one of the six array flags
 * (VMS_ARRAY, VMS_VARRAY_*) may be set. "The state" is the structure that a
 * description is about, "the element" what `info` or `vmsd` is applied to.
 */
enum VMStateFlags {
    /* One element, in place. Says nothing that no flag would not say. */
    VMS_SINGLE            = 0x1,
    /* `offset` leads to a pointer; the element or array is where it points. */
    VMS_POINTER           = 0x2,
    /* `num` elements in a row, each `size` bytes from the one before. */
    VMS_ARRAY             = 0x4,
    /* The element is a structure: descend into `vmsd`. */
    VMS_STRUCT            = 0x8,
    /* The number of elements is the int32_t of the state at `num_offset`. */
    VMS_VARRAY_INT32      = 0x10,
    /* Plain bytes. Says nothing that no flag would not say. */
    VMS_BUFFER            = 0x20,
    /*
     * The array holds pointers to the elements. A NULL among them goes into
     * the stream as VMS_NULLPTR_MARKER and has to be NULL when loading, too.
     */
    VMS_ARRAY_OF_POINTER  = 0x40,
    /* As VMS_VARRAY_INT32, with an uint16_t. */
    VMS_VARRAY_UINT16     = 0x80,
    /* The size of an element is the int32_t of the state at `size_offset`. */
    VMS_VBUFFER           = 0x100,
    /* With VMS_VBUFFER: that many times `size` bytes. */
    VMS_MULTIPLY          = 0x200,
    /* As VMS_VARRAY_INT32, with an uint8_t. */
    VMS_VARRAY_UINT8      = 0x400,
    /* As VMS_VARRAY_INT32, with an uint32_t; it has to fit an int. */
    VMS_VARRAY_UINT32     = 0x800,
    /* That the field does not exist in this version is an error. */
    VMS_MUST_EXIST        = 0x1000,
    /*
     * With VMS_POINTER: loading allocates the whole array first, with
     * malloc(), and stores the pointer. What it pointed to before is not
     * freed; the elements of an array of pointers are not allocated.
     */
    VMS_ALLOC             = 0x2000,
    /* With VMS_VARRAY_*: that many times `num` elements. */
    VMS_MULTIPLY_ELEMENTS = 0x4000,
    /* VMS_STRUCT with the version in `struct_version_id`, not vmsd's own. */
    VMS_VSTRUCT           = 0x8000
};

/*
 * The order in which devices are saved and loaded: higher ones first, equal
 * ones as they were registered.
 */
typedef enum {
    MIG_PRI_DEFAULT = 0,
    MIG_PRI_IOMMU,      /* ahead of the PCI devices behind it */
    MIG_PRI_PCI_BUS,    /* ahead of the IOMMU */
    MIG_PRI_VIRTIO_MEM, /* ahead of the IOMMU */
    MIG_PRI_GICV3_ITS,  /* ahead of PCI devices */
    MIG_PRI_GICV3,      /* ahead of the ITS */
    MIG_PRI_MAX
} MigrationPriority;

/*
 * One line of the table. The macros below fill it; members that they do not
 * name are zero. A NULL name ends the table.
 *
 * The field is there if `field_exists` says so, or where that is NULL, if the
 * stream's version is at least `version_id`. Nested structures that are not
 * VMS_VSTRUCT always use their description's own version.
 */
struct VMStateField {
    const char *name;      /* in the description of the stream, and in errors */
    const char *err_hint;  /* advice for the user if an _EQUAL check fails */
    size_t offset;         /* of the field in the state, in bytes */
    size_t size;           /* of an element, in bytes */
    /* lists: offset of the link in an element; trees: size of a key; arrays
     * with VMS_VARRAY_* in the state: bytes of the array, 0 if not known */
    size_t start;
    int num;               /* number of elements, or the factor for it */
    size_t num_offset;     /* of the count in the state, see VMS_VARRAY_* */
    size_t size_offset;    /* of the size in the state, see VMS_VBUFFER */
    const VMStateInfo *info;        /* how an element is put and got */
    enum VMStateFlags flags;        /* VMS_*, or'ed */
    const VMStateDescription *vmsd; /* instead of `info`, see VMS_STRUCT */
    int version_id;                 /* the first version that has the field */
    int struct_version_id;          /* of the element, see VMS_VSTRUCT */
    /* `opaque` is the state, `version_id` the stream's version. */
    bool (*field_exists)(void *opaque, int version_id);
};

/*
 * The table and what surrounds it. All hooks may be NULL, get the state, and
 * run with the big lock held; those that return int return 0 or a negative
 * errno value, which ends the save or load.
 */
struct VMStateDescription {
    const char *name;       /* of a subsection: "parent's name/own name" */
    int unmigratable;       /* not 0: no migration while it is registered */
    int version_id;         /* what is written, and the newest that is read */
    int minimum_version_id; /* the oldest that is read */
    MigrationPriority priority; /* counts where it is registered itself */
    int (*pre_load)(void *opaque);   /* before the first field is read */
    int (*post_load)(void *opaque, int version_id); /* the stream's version */
    int (*pre_save)(void *opaque);   /* before the first field is written */
    int (*post_save)(void *opaque);  /* after a failed field as well */
    bool (*needed)(void *opaque);    /* whether to save it at all; NULL: yes */
    /* whether the guest has not yet let go of the device; NULL: it has */
    bool (*dev_unplug_pending)(void *opaque);

    const VMStateField *fields; /* in the order of the stream */
    const VMStateDescription **subsections; /* ends with NULL; may be NULL */
};

/*
 * The kinds of elements. These are objects of the library, compared by
 * address; integers go big-endian. `_equal` refuses a stream that has another
 * value than the device; `_le` one that has a negative or a larger value.
 */
extern const VMStateInfo vmstate_info_bool;

extern const VMStateInfo vmstate_info_int8;
extern const VMStateInfo vmstate_info_int16;
extern const VMStateInfo vmstate_info_int32;
extern const VMStateInfo vmstate_info_int64;

extern const VMStateInfo vmstate_info_uint8;
extern const VMStateInfo vmstate_info_uint16;
extern const VMStateInfo vmstate_info_uint32;
extern const VMStateInfo vmstate_info_uint64;

extern const VMStateInfo vmstate_info_int32_equal;
extern const VMStateInfo vmstate_info_uint8_equal;
extern const VMStateInfo vmstate_info_uint16_equal;
extern const VMStateInfo vmstate_info_uint32_equal;
extern const VMStateInfo vmstate_info_uint64_equal;
extern const VMStateInfo vmstate_info_int32_le;

extern const VMStateInfo vmstate_info_cpudouble; /* upper half first */
extern const VMStateInfo vmstate_info_timer;     /* through the host */
extern const VMStateInfo vmstate_info_buffer;    /* bytes as they are */
extern const VMStateInfo vmstate_info_unused_buffer; /* zeros; ignored */
extern const VMStateInfo vmstate_info_bitmap;    /* 64-bit words */
extern const VMStateInfo vmstate_info_tmp;       /* VMSTATE_WITH_TMP */
extern const VMStateInfo vmstate_info_qtailq;    /* VMSTATE_QTAILQ_V */
extern const VMStateInfo vmstate_info_qlist;     /* VMSTATE_QLIST_V */
extern const VMStateInfo vmstate_info_gtree;     /* VMSTATE_GTREE_V */

/* Stands in the stream for a NULL in an array of pointers: an ASCII zero. */
#define VMS_NULLPTR_MARKER (0x30U)
/* Puts and expects that marker; the library uses it, a table need not. */
extern const VMStateInfo vmstate_info_nullptr;

/* The instance id that means "the next free one". */
#define VMSTATE_INSTANCE_ID_ANY -1

/*
 * Registers a device with the current context: from now on `base` is saved
 * and loaded as `vmsd` says. `obj` gives the prefix of the section's name and
 * may be NULL. `alias_id` is a second instance id under which older streams
 * know the device, -1 for none; `required_for_version` then is the oldest
 * version that still needs it. Nothing is copied: `vmsd` and `base` have to
 * stay until vmstate_unregister(). Big lock held.
 *
 * Returns 0, or -1 and stores the reason in `*errp` (unless `errp` is NULL).
 */
int vmstate_register_with_alias_id(VMStateIf *obj, uint32_t instance_id,
                                   const VMStateDescription *vmsd,
                                   void *base, int alias_id,
                                   int required_for_version, Error **errp);

/* The same without an alias. */
static inline int vmstate_register(VMStateIf *obj, int instance_id,
                                   const VMStateDescription *vmsd,
                                   void *opaque)
{
    return vmstate_register_with_alias_id(obj, (uint32_t)instance_id, vmsd,
                                          opaque, -1, 0, NULL);
}

/*
 * Takes back all registrations of this `vmsd` with this `opaque`; none is
 * fine, too. `obj` is not looked at. Big lock held.
 */
void vmstate_unregister(VMStateIf *obj, const VMStateDescription *vmsd,
                        void *opaque);

/*
 * Writes `opaque` as `vmsd` says, in its own version; in a given version with
 * the _v form. `vmdesc` is what the caller was given, or NULL. For handlers
 * and VMStateInfo callbacks that have structures inside. Returns 0 or a
 * negative errno value.
 */
int vmstate_save_state(QEMUFile *f, const VMStateDescription *vmsd,
                       void *opaque, JSONWriter *vmdesc);
int vmstate_save_state_v(QEMUFile *f, const VMStateDescription *vmsd,
                         void *opaque, JSONWriter *vmdesc, int version_id);

/*
 * Reads what vmstate_save_state() wrote in version `version_id`. Returns 0 or
 * a negative errno value; `opaque` may then be half loaded.
 */
int vmstate_load_state(QEMUFile *f, const VMStateDescription *vmsd,
                       void *opaque, int version_id);

/* What the `needed` hook says; true if there is none. */
bool vmstate_save_needed(const VMStateDescription *vmsd, void *opaque);

/* These exist inside QEMU only, where they belong to its memory API. */
#ifdef QEMU_OSDEP_H
struct MemoryRegion;
void vmstate_register_ram(struct MemoryRegion *memory, DeviceState *dev);
void vmstate_unregister_ram(struct MemoryRegion *memory, DeviceState *dev);
void vmstate_register_ram_global(struct MemoryRegion *memory);
bool vmstate_check_only_migratable(const VMStateDescription *vmsd);
#endif

#ifdef __cplusplus
}
#endif

#include "migration/vmstate-fields.h"
#include "migration/vmstate-scalars.h"

#endif /* QEMU_VMSTATE_H */
