/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * VMState: describes the state of a device by a table of its fields.
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
 * This header has the structures and functions. It includes the macros that
 * fill the structures: migration/vmstate-fields.h (general macros) and
 * migration/vmstate-scalars.h (short forms for common types).
 *
 * Layout, values and meaning are those of QEMU 7.2 (migration/vmstate.c,
 * migration/vmstate-types.c, include/migration/vmstate.h), or of the version
 * that SAVEVM_QEMU_VERSION selects (savevm/qemu-version.h). Tables may be shared
 * between devices and threads. libsavevm only reads them, and keeps pointers
 * to them while a device is registered.
 */
#ifndef QEMU_VMSTATE_H
#define QEMU_VMSTATE_H

#include "savevm/qemu-version.h"
#include "qemu/typedefs.h"
#include "hw/vmstate-if.h"
#ifdef SAVEVM_QEMU_INLINE_
#include "savevm/abi.h"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* An entry of the table, and functions to write and read an element. */
typedef struct VMStateField VMStateField;
typedef struct VMStateInfo VMStateInfo;

/* Collects the description of the stream. */
#if SAVEVM_QEMU_VERSION < 600
#define SAVEVM_JSON_ QJSON
#else
#define SAVEVM_JSON_ JSONWriter
#endif

/*
 * Functions that write one element of a field to the stream, and read it.
 *
 * `pv` points to the element. `size` is its size in bytes (for a bitmap, in
 * bits). `field` is the entry of the table. `vmdesc` is NULL unless a
 * description of the stream is collected. Both functions return 0 or a negative
 * errno value; an error of the file need not be returned. Lock: held.
 */
struct VMStateInfo {
    const char *name; /* type name in the description of the stream */
    /* Reads the element from `f`. */
    int (*get)(QEMUFile *f, void *pv, size_t size, const VMStateField *field);
    /* Writes the element to `f`. */
    int (*put)(QEMUFile *f, void *pv, size_t size, const VMStateField *field,
               SAVEVM_JSON_ *vmdesc);
};

/*
 * Bits of VMStateField.flags. At most one of the six array flags (VMS_ARRAY,
 * VMS_VARRAY_*) may be set. "The state" is the structure that a description
 * describes. "The element" is the object that `info` or `vmsd` is applied to.
 */
enum VMStateFlags {
    /* One element in the state. The same as no flag. */
    VMS_SINGLE            = 0x1,
    /* The field is a pointer to the element or array. */
    VMS_POINTER           = 0x2,
    /* An array of `num` elements of `size` bytes. */
    VMS_ARRAY             = 0x4,
    /* The element is a structure, described by `vmsd`. */
    VMS_STRUCT            = 0x8,
    /* The number of elements is the int32_t of the state at `num_offset`. */
    VMS_VARRAY_INT32      = 0x10,
    /* Plain bytes. The same as no flag. */
    VMS_BUFFER            = 0x20,
    /*
     * The array has pointers to the elements. A NULL pointer is saved as
     * VMS_NULLPTR_MARKER, and must be NULL when it is loaded.
     */
    VMS_ARRAY_OF_POINTER  = 0x40,
    /* As VMS_VARRAY_INT32, with an uint16_t. */
    VMS_VARRAY_UINT16     = 0x80,
    /* The size of an element is the int32_t of the state at `size_offset`. */
    VMS_VBUFFER           = 0x100,
    /* With VMS_VBUFFER: the size is multiplied by `size`. */
    VMS_MULTIPLY          = 0x200,
    /* As VMS_VARRAY_INT32, with an uint8_t. */
    VMS_VARRAY_UINT8      = 0x400,
    /* As VMS_VARRAY_INT32, with an uint32_t; it must fit in an int. */
    VMS_VARRAY_UINT32     = 0x800,
    /* It is an error if the field does not exist in this version. */
    VMS_MUST_EXIST        = 0x1000,
    /*
     * With VMS_POINTER: a load allocates the whole array with malloc() and
     * stores the pointer. An earlier array is not freed. The elements of an
     * array of pointers are not allocated.
     */
    VMS_ALLOC             = 0x2000,
    /* With VMS_VARRAY_*: the count is multiplied by `num`. */
    VMS_MULTIPLY_ELEMENTS = 0x4000,
    /* As VMS_STRUCT, with the version `struct_version_id`. */
    VMS_VSTRUCT           = 0x8000,
#if SAVEVM_QEMU_VERSION >= 800
    /* The entry that ends the table, see VMSTATE_END_OF_LIST(). */
    VMS_END               = 0x10000
#endif
};

/*
 * Order in which devices are saved and loaded: higher priorities first, equal
 * priorities in order of registration.
 */
typedef enum {
#if SAVEVM_QEMU_VERSION >= 1001
    MIG_PRI_UNINITIALIZED = 0, /* not set: MIG_PRI_DEFAULT */
    MIG_PRI_LOW,        /* behind the devices that do not set it */
    MIG_PRI_DEFAULT,
#else
    MIG_PRI_DEFAULT = 0,
#endif
    MIG_PRI_IOMMU,      /* ahead of the PCI devices behind it */
    MIG_PRI_PCI_BUS,    /* ahead of the IOMMU */
#if SAVEVM_QEMU_VERSION >= 601
    MIG_PRI_VIRTIO_MEM, /* ahead of the IOMMU */
#endif
#if SAVEVM_QEMU_VERSION >= 1002
    MIG_PRI_APIC,       /* ahead of PCI devices */
#endif
    MIG_PRI_GICV3_ITS,  /* ahead of PCI devices */
    MIG_PRI_GICV3,      /* ahead of the ITS */
    MIG_PRI_MAX
} MigrationPriority;

/*
 * One entry of the table. The macros fill it; members that they do not set are
 * zero. An entry with the name NULL ends the table. From QEMU 8.0 on, it must
 * have the flag VMS_END.
 *
 * The field exists if `field_exists` returns true; if that is NULL, the field
 * exists if the version of the stream is at least `version_id`. Nested
 * structures without VMS_VSTRUCT use the version of their description.
 */
struct VMStateField {
    const char *name;      /* in the description of the stream, and in errors */
    const char *err_hint;  /* advice for the user if an _EQUAL check fails */
    size_t offset;         /* of the field in the state, in bytes */
    size_t size;           /* of an element, in bytes */
    /* lists: offset of the link in an element; trees: size of a key; arrays
     * with VMS_VARRAY_* in the state: bytes of the array, 0 if not known */
    size_t start;
    int num;               /* number of elements, or a factor of it */
    size_t num_offset;     /* of the count in the state, see VMS_VARRAY_* */
    size_t size_offset;    /* of the size in the state, see VMS_VBUFFER */
    const VMStateInfo *info;        /* writes and reads an element */
    enum VMStateFlags flags;        /* VMS_*, or'ed */
    const VMStateDescription *vmsd; /* instead of `info`, see VMS_STRUCT */
    int version_id;                 /* the first version that has the field */
    int struct_version_id;          /* of the element, see VMS_VSTRUCT */
    /* `opaque` is the state, `version_id` the stream's version. */
    bool (*field_exists)(void *opaque, int version_id);
};

/*
 * The description of a device or structure. All functions may be NULL. They get
 * the state. An int result is 0 or a negative errno value, which ends the save
 * or load; so does false, with an error. Of a function and its form with an
 * error, only the latter is called. Lock: held.
 */
struct VMStateDescription {
    const char *name;       /* of a subsection: "parent's name/own name" */
#if SAVEVM_QEMU_VERSION >= 800
    bool unmigratable;      /* true: forbids migration while registered */
    bool early_setup;       /* true: saved in setup, before the live devices */
#else
    int unmigratable;       /* not 0: forbids migration while registered */
#endif
    int version_id;         /* version written, and newest version read */
    int minimum_version_id; /* oldest version read */
#if SAVEVM_QEMU_VERSION < 700
    int minimum_version_id_old; /* oldest version that load_state_old reads */
#endif
    MigrationPriority priority; /* used if it is registered itself */
#if SAVEVM_QEMU_VERSION < 700
    LoadStateHandler *load_state_old; /* reads versions before the minimum,
                                         without the fields and other hooks */
#endif
    int (*pre_load)(void *opaque);   /* before the first field is read */
#if SAVEVM_QEMU_VERSION >= 1002
    bool (*pre_load_errp)(void *opaque, Error **errp);
#endif
    int (*post_load)(void *opaque, int version_id); /* the stream's version */
#if SAVEVM_QEMU_VERSION >= 1002
    bool (*post_load_errp)(void *opaque, int version_id, Error **errp);
#endif
    int (*pre_save)(void *opaque);   /* before the first field is written */
#if SAVEVM_QEMU_VERSION >= 1002
    bool (*pre_save_errp)(void *opaque, Error **errp);
#endif
    int (*post_save)(void *opaque);  /* after the fields, also if one failed */
    bool (*needed)(void *opaque);    /* whether it is saved; NULL: yes */
    /* whether the guest has yet to unplug the device; NULL: no */
    bool (*dev_unplug_pending)(void *opaque);

    const VMStateField *fields; /* in the order of the stream */
    /* ends with NULL; may be NULL */
#if SAVEVM_QEMU_VERSION >= 900
    const VMStateDescription *const *subsections;
#else
    const VMStateDescription **subsections;
#endif
};

/*
 * Kinds of elements: objects of the library, compared by address. Integers are
 * big-endian in the stream. With `_equal`, a load fails if the value in the
 * stream differs from that of the device; with `_le`, if it is negative or
 * larger.
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
extern const VMStateInfo vmstate_info_timer;     /* by SaveVMHostOps */
extern const VMStateInfo vmstate_info_buffer;    /* bytes, unchanged */
extern const VMStateInfo vmstate_info_unused_buffer; /* zeros; ignored */
extern const VMStateInfo vmstate_info_bitmap;    /* 64-bit words */
extern const VMStateInfo vmstate_info_tmp;       /* VMSTATE_WITH_TMP */
extern const VMStateInfo vmstate_info_qtailq;    /* VMSTATE_QTAILQ_V */
extern const VMStateInfo vmstate_info_qlist;     /* VMSTATE_QLIST_V */
extern const VMStateInfo vmstate_info_gtree;     /* VMSTATE_GTREE_V */
#if SAVEVM_QEMU_VERSION >= 1000
extern const VMStateInfo vmstate_info_fd; /* VMSTATE_FD */
#endif

/* Represents a NULL in an array of pointers in the stream: an ASCII zero. */
#define VMS_NULLPTR_MARKER (0x30U)
/* Writes and reads that marker. The library uses it; tables need not. */
extern const VMStateInfo vmstate_info_nullptr;

/* Instance id that selects the highest one of that name plus one. */
#define VMSTATE_INSTANCE_ID_ANY -1

/*
 * Registers a device in the current context: `base` is saved and loaded as
 * `vmsd` describes. The path of `obj`, which may be NULL, is the prefix of the
 * section name. `alias_id` is a second instance id that older streams use for
 * the device, or -1; `required_for_version` is then the oldest version that
 * uses it. Nothing is copied: `vmsd` and `base` must stay valid until
 * vmstate_unregister(). Lock: held.
 *
 * Returns:
 *   0              the device is registered
 *   -EINVAL        `vmsd` is NULL, or the alias is for a version that `vmsd`
 *                  does not read; strict context: `vmsd` can't read its own
 *                  version
 *   -EEXIST        strict context: that name and instance is registered
 *   -ENAMETOOLONG  strict context: the name has more than 255 bytes
 *   -EIO           the context is broken, see savevm_is_broken()
 *
 * On failure, stores the reason in `*errp` (unless `errp` is NULL). A program
 * for QEMU as well should test for a negative result: QEMU returns -1.
 */
#ifdef SAVEVM_QEMU_INLINE_
static inline int vmstate_register_with_alias_id(VMStateIf *obj,
                                                 uint32_t instance_id,
                                                 const VMStateDescription *vmsd,
                                                 void *base, int alias_id,
                                                 int required_for_version,
                                                 Error **errp)
{
    return savevm_abi_vmstate_register(SAVEVM_QEMU_ABI, obj, instance_id, vmsd,
                                       base, alias_id, required_for_version,
                                       errp);
}
#else
int vmstate_register_with_alias_id(VMStateIf *obj, uint32_t instance_id,
                                   const VMStateDescription *vmsd,
                                   void *base, int alias_id,
                                   int required_for_version, Error **errp);
#endif

/* As vmstate_register_with_alias_id(), without an alias and an error. */
static inline int vmstate_register(VMStateIf *obj, int instance_id,
                                   const VMStateDescription *vmsd,
                                   void *opaque)
{
    return vmstate_register_with_alias_id(obj, (uint32_t)instance_id, vmsd,
                                          opaque, -1, 0, NULL);
}

#if SAVEVM_QEMU_VERSION >= 802
/* As vmstate_register(), with the highest instance of the name plus one. */
static inline int vmstate_register_any(VMStateIf *obj,
                                       const VMStateDescription *vmsd,
                                       void *opaque)
{
    return vmstate_register_with_alias_id(obj,
                                          (uint32_t)VMSTATE_INSTANCE_ID_ANY,
                                          vmsd, opaque, -1, 0, NULL);
}
#endif

/*
 * Unregisters all devices with this `vmsd` and this `opaque`, if there are any.
 * `obj` is ignored. After it returns, none of their callbacks runs in another
 * thread. Lock: held, released while waiting for a callback to end.
 */
void vmstate_unregister(VMStateIf *obj, const VMStateDescription *vmsd,
                        void *opaque);

/*
 * vmstate_save_state() writes `opaque` as `vmsd` describes, in the version of
 * `vmsd` or, with the _v form, in `version_id`. `vmdesc` is that of the caller,
 * or NULL. vmstate_load_state() reads what was written in version `version_id`;
 * after a failure `opaque` may be loaded partially.
 * For handlers and VMStateInfo functions with nested structures.
 *
 * They return 0, or a negative errno value: the result of a callback, the error
 * of the file, or -EINVAL. With an `errp`, they store the reason in it.
 *
 * vmstate_save_needed(), in newer versions vmstate_section_needed(), returns
 * the result of `needed`; true if that is NULL.
 */
#ifdef SAVEVM_QEMU_INLINE_
#include "migration/vmstate-versions.h"
#elif SAVEVM_QEMU_VERSION >= 1002
int vmstate_load_state(QEMUFile *f, const VMStateDescription *vmsd,
                       void *opaque, int version_id, Error **errp);
int vmstate_save_state(QEMUFile *f, const VMStateDescription *vmsd,
                       void *opaque, JSONWriter *vmdesc, Error **errp);
int vmstate_save_state_v(QEMUFile *f, const VMStateDescription *vmsd,
                         void *opaque, JSONWriter *vmdesc, int version_id,
                         Error **errp);
bool vmstate_section_needed(const VMStateDescription *vmsd, void *opaque);
#else
int vmstate_load_state(QEMUFile *f, const VMStateDescription *vmsd,
                       void *opaque, int version_id);
int vmstate_save_state(QEMUFile *f, const VMStateDescription *vmsd,
                       void *opaque, SAVEVM_JSON_ *vmdesc);
#if SAVEVM_QEMU_VERSION >= 802
int vmstate_save_state_with_err(QEMUFile *f, const VMStateDescription *vmsd,
                                void *opaque, JSONWriter *vmdesc,
                                Error **errp);
int vmstate_save_state_v(QEMUFile *f, const VMStateDescription *vmsd,
                         void *opaque, JSONWriter *vmdesc, int version_id,
                         Error **errp);
bool vmstate_section_needed(const VMStateDescription *vmsd, void *opaque);
#else
int vmstate_save_state_v(QEMUFile *f, const VMStateDescription *vmsd,
                         void *opaque, SAVEVM_JSON_ *vmdesc, int version_id);
bool vmstate_save_needed(const VMStateDescription *vmsd, void *opaque);
#endif
#endif

/* These exist in QEMU only. They belong to its memory API. */
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
