/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The functions that save, load and register a description of the QEMU version
 * that SAVEVM_QEMU_VERSION selects, with the arguments of that version. Part of
 * migration/vmstate.h.
 */
#ifndef MIGRATION_VMSTATE_VERSIONS_H
#define MIGRATION_VMSTATE_VERSIONS_H

#include "migration/vmstate.h"

#ifdef SAVEVM_QEMU_INLINE_

#ifdef __cplusplus
extern "C" {
#endif

/* Names that end in an underscore are internal. */
static inline int savevm_save_(QEMUFile *f, const VMStateDescription *vmsd,
                               void *opaque, SAVEVM_JSON_ *vmdesc,
                               int version_id, Error **errp)
{
    return savevm_abi_vmstate_save(SAVEVM_QEMU_ABI, f, vmsd, opaque,
                                   (struct JSONWriter *)vmdesc, version_id,
                                   errp);
}

#if SAVEVM_QEMU_VERSION >= 1002
static inline int vmstate_load_state(QEMUFile *f,
                                     const VMStateDescription *vmsd,
                                     void *opaque, int version_id,
                                     Error **errp)
{
    return savevm_abi_vmstate_load(SAVEVM_QEMU_ABI, f, vmsd, opaque,
                                   version_id, errp);
}

static inline int vmstate_save_state(QEMUFile *f,
                                     const VMStateDescription *vmsd,
                                     void *opaque, JSONWriter *vmdesc,
                                     Error **errp)
{
    return savevm_save_(f, vmsd, opaque, vmdesc, SAVEVM_ABI_OWN_VERSION, errp);
}
#else
static inline int vmstate_load_state(QEMUFile *f,
                                     const VMStateDescription *vmsd,
                                     void *opaque, int version_id)
{
    return savevm_abi_vmstate_load(SAVEVM_QEMU_ABI, f, vmsd, opaque,
                                   version_id, NULL);
}

static inline int vmstate_save_state(QEMUFile *f,
                                     const VMStateDescription *vmsd,
                                     void *opaque, SAVEVM_JSON_ *vmdesc)
{
    return savevm_save_(f, vmsd, opaque, vmdesc, SAVEVM_ABI_OWN_VERSION, NULL);
}
#endif

#if SAVEVM_QEMU_VERSION >= 802 && SAVEVM_QEMU_VERSION < 1002
static inline int vmstate_save_state_with_err(QEMUFile *f,
                                              const VMStateDescription *vmsd,
                                              void *opaque, JSONWriter *vmdesc,
                                              Error **errp)
{
    return savevm_save_(f, vmsd, opaque, vmdesc, SAVEVM_ABI_OWN_VERSION, errp);
}
#endif

#if SAVEVM_QEMU_VERSION >= 802
static inline int vmstate_save_state_v(QEMUFile *f,
                                       const VMStateDescription *vmsd,
                                       void *opaque, JSONWriter *vmdesc,
                                       int version_id, Error **errp)
{
    return savevm_save_(f, vmsd, opaque, vmdesc, version_id, errp);
}

static inline bool vmstate_section_needed(const VMStateDescription *vmsd,
                                          void *opaque)
{
    return savevm_abi_vmstate_needed(SAVEVM_QEMU_ABI, vmsd, opaque);
}
#else
static inline int vmstate_save_state_v(QEMUFile *f,
                                       const VMStateDescription *vmsd,
                                       void *opaque, SAVEVM_JSON_ *vmdesc,
                                       int version_id)
{
    return savevm_save_(f, vmsd, opaque, vmdesc, version_id, NULL);
}

static inline bool vmstate_save_needed(const VMStateDescription *vmsd,
                                       void *opaque)
{
    return savevm_abi_vmstate_needed(SAVEVM_QEMU_ABI, vmsd, opaque);
}
#endif

/* savevm_register_vmstate() with the layout of this version, whatever layout
 * the context has. */
static inline int savevm_register_(SaveVM *vm, VMStateIf *obj,
                                   uint32_t instance_id,
                                   const VMStateDescription *vmsd,
                                   void *opaque, int alias_id,
                                   int required_for_version, Error **errp)
{
    SaveVM *before = vm ? savevm_set_current(vm) : NULL;
    int ret = savevm_abi_vmstate_register(SAVEVM_QEMU_ABI, obj, instance_id,
                                          vmsd, opaque, alias_id,
                                          required_for_version, errp);

    if (vm) {
        savevm_set_current(before);
    }
    return ret;
}
#define savevm_register_vmstate savevm_register_

#ifdef __cplusplus
}
#endif

#endif /* SAVEVM_QEMU_INLINE_ */

#endif /* MIGRATION_VMSTATE_VERSIONS_H */
