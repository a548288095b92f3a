/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Prints the layout of the tables of the QEMU version that SAVEVM_QEMU_VERSION
 * selects: sizes, members with type and offset, and constants. The numbers of
 * members, types and constants are those of savevm/abi.h.
 *
 * With MEMBERS_OF_TREE, the headers are those of a QEMU tree of that version,
 * which need not be configured. QOM, GLib and generated headers are not needed
 * for the tables.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#ifdef MEMBERS_OF_TREE
#define VMSTATE_IF_H
#define coroutine_mixed_fn
#define SAVEVM_PLAIN_NAMES
#include "qemu/typedefs.h"
typedef struct VMStateIf VMStateIf;
#if SAVEVM_QEMU_VERSION < 600
typedef struct JSONWriter JSONWriter; /* for savevm/abi.h */
#endif
#endif
#include "migration/register.h"
#include "migration/vmstate.h"
#include "savevm/abi.h"

#define HANDLER(name) SAVEVM_ABI_MEMBER(SaveVMHandlers, name)
#define DESCRIPTION(name) SAVEVM_ABI_MEMBER(VMStateDescription, name)
#define FIELD(name) SAVEVM_ABI_MEMBER(VMStateField, name)
#define INFO(name) SAVEVM_ABI_MEMBER(VMStateInfo, name)

static const SaveVMAbiMember members[] = {
    HANDLER(save_state),
    HANDLER(save_cleanup),
    HANDLER(is_active),
    HANDLER(has_postcopy),
    HANDLER(is_active_iterate),
    HANDLER(save_live_iterate),
    HANDLER(save_setup),
    HANDLER(load_state),
    HANDLER(load_setup),
    HANDLER(load_cleanup),
    HANDLER(resume_prepare),
#if SAVEVM_QEMU_VERSION < 800
    HANDLER(save_live_pending),
#else
    HANDLER(state_pending_estimate),
    HANDLER(state_pending_exact),
#endif
#if SAVEVM_QEMU_VERSION >= 801
    HANDLER(switchover_ack_needed),
#endif
#if SAVEVM_QEMU_VERSION >= 802
    HANDLER(save_prepare),
#endif
#if SAVEVM_QEMU_VERSION >= 1000
    HANDLER(load_state_buffer),
    HANDLER(switchover_start),
#endif
#if SAVEVM_QEMU_VERSION >= 1001
    HANDLER(save_complete),
    HANDLER(save_complete_precopy_thread),
    HANDLER(save_postcopy_prepare),
#else
    HANDLER(save_live_complete_postcopy),
    HANDLER(save_live_complete_precopy),
#if SAVEVM_QEMU_VERSION >= 1000
    HANDLER(save_live_complete_precopy_thread),
#endif
#endif

    DESCRIPTION(name),
    DESCRIPTION(unmigratable),
#if SAVEVM_QEMU_VERSION >= 800
    DESCRIPTION(early_setup),
#endif
    DESCRIPTION(version_id),
    DESCRIPTION(minimum_version_id),
#if SAVEVM_QEMU_VERSION < 700
    DESCRIPTION(minimum_version_id_old),
    DESCRIPTION(load_state_old),
#endif
    DESCRIPTION(priority),
    DESCRIPTION(pre_load),
    DESCRIPTION(post_load),
    DESCRIPTION(pre_save),
#if SAVEVM_QEMU_VERSION >= 1002
    DESCRIPTION(pre_load_errp),
    DESCRIPTION(post_load_errp),
    DESCRIPTION(pre_save_errp),
#endif
    DESCRIPTION(post_save),
    DESCRIPTION(needed),
    DESCRIPTION(dev_unplug_pending),
    DESCRIPTION(fields),
    DESCRIPTION(subsections),

    FIELD(name),
    FIELD(err_hint),
    FIELD(offset),
    FIELD(size),
    FIELD(start),
    FIELD(num),
    FIELD(num_offset),
    FIELD(size_offset),
    FIELD(info),
    FIELD(flags),
    FIELD(vmsd),
    FIELD(version_id),
    FIELD(struct_version_id),
    FIELD(field_exists),

    INFO(name),
    INFO(get),
    INFO(put),
};

#define CONSTANT(name) SAVEVM_ABI_CONSTANT(name)

static const SaveVMAbiConstant constants[] = {
#if SAVEVM_QEMU_VERSION >= 1001
    CONSTANT(MIG_PRI_UNINITIALIZED),
    CONSTANT(MIG_PRI_LOW),
#endif
    CONSTANT(MIG_PRI_DEFAULT),
    CONSTANT(MIG_PRI_IOMMU),
    CONSTANT(MIG_PRI_PCI_BUS),
#if SAVEVM_QEMU_VERSION >= 601
    CONSTANT(MIG_PRI_VIRTIO_MEM),
#endif
#if SAVEVM_QEMU_VERSION >= 1002
    CONSTANT(MIG_PRI_APIC),
#endif
    CONSTANT(MIG_PRI_GICV3_ITS),
    CONSTANT(MIG_PRI_GICV3),
    CONSTANT(MIG_PRI_MAX),
    CONSTANT(VMS_SINGLE),
    CONSTANT(VMS_POINTER),
    CONSTANT(VMS_ARRAY),
    CONSTANT(VMS_STRUCT),
    CONSTANT(VMS_VARRAY_INT32),
    CONSTANT(VMS_BUFFER),
    CONSTANT(VMS_ARRAY_OF_POINTER),
    CONSTANT(VMS_VARRAY_UINT16),
    CONSTANT(VMS_VBUFFER),
    CONSTANT(VMS_MULTIPLY),
    CONSTANT(VMS_VARRAY_UINT8),
    CONSTANT(VMS_VARRAY_UINT32),
    CONSTANT(VMS_MUST_EXIST),
    CONSTANT(VMS_ALLOC),
    CONSTANT(VMS_MULTIPLY_ELEMENTS),
    CONSTANT(VMS_VSTRUCT),
#if SAVEVM_QEMU_VERSION >= 800
    CONSTANT(VMS_END),
#endif
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

int main(void)
{
    printf("sizes %zu %zu %zu %zu\n", sizeof(SaveVMHandlers),
           sizeof(VMStateDescription), sizeof(VMStateField),
           sizeof(VMStateInfo));
    for (size_t i = 0; i < COUNT(members); i++) {
        printf("member %u %u %zu\n", (unsigned)members[i].member,
               (unsigned)members[i].kind, members[i].offset);
    }
    for (size_t i = 0; i < COUNT(constants); i++) {
        printf("constant %u %u\n", (unsigned)constants[i].constant,
               (unsigned)constants[i].value);
    }
    return 0;
}
