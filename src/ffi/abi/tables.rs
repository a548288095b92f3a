// SPDX-License-Identifier: LGPL-2.1-or-later
//! The members, priorities and flags of QEMU 5.2 to 10.2 in order (`include/migration/register.h` and `vmstate.h`). The
//! ports compare the layouts with the headers of the trees.

use super::layout::Slot;
use super::members::{MEMBERS, STRUCTS, width};
use crate::ffi::types::abi::SaveVMAbiConstantId::{self as Constant, *};
use crate::ffi::types::abi::SaveVMAbiKind::{self as Kind, *};
use crate::ffi::types::abi::SaveVMAbiMember;
use crate::ffi::types::abi::SaveVMAbiMemberId::{self as Id, *};
use std::mem::MaybeUninit;

/// L1: 4.0 to 7.2.
pub(super) const L1: &[(Id, Kind)] = &[
    (SAVEVM_ABI_SaveVMHandlers_save_state, SAVEVM_ABI_VOID_FILE),
    (SAVEVM_ABI_SaveVMHandlers_save_cleanup, SAVEVM_ABI_VOID),
    (SAVEVM_ABI_SaveVMHandlers_save_live_complete_postcopy, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_save_live_complete_precopy, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_is_active, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_SaveVMHandlers_has_postcopy, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_SaveVMHandlers_is_active_iterate, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_SaveVMHandlers_save_live_iterate, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_save_setup, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_save_live_pending, SAVEVM_ABI_PENDING),
    (SAVEVM_ABI_SaveVMHandlers_load_state, SAVEVM_ABI_INT_FILE_VERSION),
    (SAVEVM_ABI_SaveVMHandlers_load_setup, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_load_cleanup, SAVEVM_ABI_INT),
    (SAVEVM_ABI_SaveVMHandlers_resume_prepare, SAVEVM_ABI_INT_MIGRATION),
];

/// L2: 8.0.
pub(super) const L2: &[(Id, Kind)] = &[
    (SAVEVM_ABI_SaveVMHandlers_save_state, SAVEVM_ABI_VOID_FILE),
    (SAVEVM_ABI_SaveVMHandlers_save_cleanup, SAVEVM_ABI_VOID),
    (SAVEVM_ABI_SaveVMHandlers_save_live_complete_postcopy, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_save_live_complete_precopy, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_is_active, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_SaveVMHandlers_has_postcopy, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_SaveVMHandlers_is_active_iterate, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_SaveVMHandlers_save_live_iterate, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_save_setup, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_state_pending_estimate, SAVEVM_ABI_STATE_PENDING),
    (SAVEVM_ABI_SaveVMHandlers_state_pending_exact, SAVEVM_ABI_STATE_PENDING),
    (SAVEVM_ABI_SaveVMHandlers_load_state, SAVEVM_ABI_INT_FILE_VERSION),
    (SAVEVM_ABI_SaveVMHandlers_load_setup, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_load_cleanup, SAVEVM_ABI_INT),
    (SAVEVM_ABI_SaveVMHandlers_resume_prepare, SAVEVM_ABI_INT_MIGRATION),
];

/// L3: 8.1.
pub(super) const L3: &[(Id, Kind)] = &[
    (SAVEVM_ABI_SaveVMHandlers_save_state, SAVEVM_ABI_VOID_FILE),
    (SAVEVM_ABI_SaveVMHandlers_save_cleanup, SAVEVM_ABI_VOID),
    (SAVEVM_ABI_SaveVMHandlers_save_live_complete_postcopy, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_save_live_complete_precopy, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_is_active, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_SaveVMHandlers_has_postcopy, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_SaveVMHandlers_is_active_iterate, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_SaveVMHandlers_save_live_iterate, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_save_setup, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_state_pending_estimate, SAVEVM_ABI_STATE_PENDING),
    (SAVEVM_ABI_SaveVMHandlers_state_pending_exact, SAVEVM_ABI_STATE_PENDING),
    (SAVEVM_ABI_SaveVMHandlers_load_state, SAVEVM_ABI_INT_FILE_VERSION),
    (SAVEVM_ABI_SaveVMHandlers_load_setup, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_load_cleanup, SAVEVM_ABI_INT),
    (SAVEVM_ABI_SaveVMHandlers_resume_prepare, SAVEVM_ABI_INT_MIGRATION),
    (SAVEVM_ABI_SaveVMHandlers_switchover_ack_needed, SAVEVM_ABI_BOOL),
];

/// L4: 8.2 and 9.0, in another order.
pub(super) const L4: &[(Id, Kind)] = &[
    (SAVEVM_ABI_SaveVMHandlers_save_state, SAVEVM_ABI_VOID_FILE),
    (SAVEVM_ABI_SaveVMHandlers_save_prepare, SAVEVM_ABI_INT_ERRP),
    (SAVEVM_ABI_SaveVMHandlers_save_setup, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_save_cleanup, SAVEVM_ABI_VOID),
    (SAVEVM_ABI_SaveVMHandlers_save_live_complete_postcopy, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_save_live_complete_precopy, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_is_active, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_SaveVMHandlers_has_postcopy, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_SaveVMHandlers_is_active_iterate, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_SaveVMHandlers_save_live_iterate, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_state_pending_estimate, SAVEVM_ABI_STATE_PENDING),
    (SAVEVM_ABI_SaveVMHandlers_state_pending_exact, SAVEVM_ABI_STATE_PENDING),
    (SAVEVM_ABI_SaveVMHandlers_load_state, SAVEVM_ABI_INT_FILE_VERSION),
    (SAVEVM_ABI_SaveVMHandlers_load_setup, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_load_cleanup, SAVEVM_ABI_INT),
    (SAVEVM_ABI_SaveVMHandlers_resume_prepare, SAVEVM_ABI_INT_MIGRATION),
    (SAVEVM_ABI_SaveVMHandlers_switchover_ack_needed, SAVEVM_ABI_BOOL),
];

/// L5: 9.1 and 9.2, with errors of setup.
pub(super) const L5: &[(Id, Kind)] = &[
    (SAVEVM_ABI_SaveVMHandlers_save_state, SAVEVM_ABI_VOID_FILE),
    (SAVEVM_ABI_SaveVMHandlers_save_prepare, SAVEVM_ABI_INT_ERRP),
    (SAVEVM_ABI_SaveVMHandlers_save_setup, SAVEVM_ABI_INT_FILE_ERRP),
    (SAVEVM_ABI_SaveVMHandlers_save_cleanup, SAVEVM_ABI_VOID),
    (SAVEVM_ABI_SaveVMHandlers_save_live_complete_postcopy, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_save_live_complete_precopy, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_is_active, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_SaveVMHandlers_has_postcopy, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_SaveVMHandlers_is_active_iterate, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_SaveVMHandlers_save_live_iterate, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_state_pending_estimate, SAVEVM_ABI_STATE_PENDING),
    (SAVEVM_ABI_SaveVMHandlers_state_pending_exact, SAVEVM_ABI_STATE_PENDING),
    (SAVEVM_ABI_SaveVMHandlers_load_state, SAVEVM_ABI_INT_FILE_VERSION),
    (SAVEVM_ABI_SaveVMHandlers_load_setup, SAVEVM_ABI_INT_FILE_ERRP),
    (SAVEVM_ABI_SaveVMHandlers_load_cleanup, SAVEVM_ABI_INT),
    (SAVEVM_ABI_SaveVMHandlers_resume_prepare, SAVEVM_ABI_INT_MIGRATION),
    (SAVEVM_ABI_SaveVMHandlers_switchover_ack_needed, SAVEVM_ABI_BOOL),
];

/// L6: 10.0.
pub(super) const L6: &[(Id, Kind)] = &[
    (SAVEVM_ABI_SaveVMHandlers_save_state, SAVEVM_ABI_VOID_FILE),
    (SAVEVM_ABI_SaveVMHandlers_save_prepare, SAVEVM_ABI_INT_ERRP),
    (SAVEVM_ABI_SaveVMHandlers_save_setup, SAVEVM_ABI_INT_FILE_ERRP),
    (SAVEVM_ABI_SaveVMHandlers_save_cleanup, SAVEVM_ABI_VOID),
    (SAVEVM_ABI_SaveVMHandlers_save_live_complete_postcopy, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_save_live_complete_precopy, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_save_live_complete_precopy_thread, SAVEVM_ABI_SAVE_THREAD),
    (SAVEVM_ABI_SaveVMHandlers_is_active, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_SaveVMHandlers_has_postcopy, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_SaveVMHandlers_is_active_iterate, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_SaveVMHandlers_save_live_iterate, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_state_pending_estimate, SAVEVM_ABI_STATE_PENDING),
    (SAVEVM_ABI_SaveVMHandlers_state_pending_exact, SAVEVM_ABI_STATE_PENDING),
    (SAVEVM_ABI_SaveVMHandlers_load_state, SAVEVM_ABI_INT_FILE_VERSION),
    (SAVEVM_ABI_SaveVMHandlers_load_state_buffer, SAVEVM_ABI_LOAD_BUFFER),
    (SAVEVM_ABI_SaveVMHandlers_load_setup, SAVEVM_ABI_INT_FILE_ERRP),
    (SAVEVM_ABI_SaveVMHandlers_load_cleanup, SAVEVM_ABI_INT),
    (SAVEVM_ABI_SaveVMHandlers_resume_prepare, SAVEVM_ABI_INT_MIGRATION),
    (SAVEVM_ABI_SaveVMHandlers_switchover_ack_needed, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_SaveVMHandlers_switchover_start, SAVEVM_ABI_INT),
];

/// L7: 10.1 and 10.2, in another order.
pub(super) const L7: &[(Id, Kind)] = &[
    (SAVEVM_ABI_SaveVMHandlers_save_state, SAVEVM_ABI_VOID_FILE),
    (SAVEVM_ABI_SaveVMHandlers_save_prepare, SAVEVM_ABI_INT_ERRP),
    (SAVEVM_ABI_SaveVMHandlers_save_setup, SAVEVM_ABI_INT_FILE_ERRP),
    (SAVEVM_ABI_SaveVMHandlers_save_cleanup, SAVEVM_ABI_VOID),
    (SAVEVM_ABI_SaveVMHandlers_save_complete, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_save_complete_precopy_thread, SAVEVM_ABI_SAVE_THREAD),
    (SAVEVM_ABI_SaveVMHandlers_is_active, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_SaveVMHandlers_has_postcopy, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_SaveVMHandlers_is_active_iterate, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_SaveVMHandlers_save_live_iterate, SAVEVM_ABI_INT_FILE),
    (SAVEVM_ABI_SaveVMHandlers_save_postcopy_prepare, SAVEVM_ABI_BOOL_FILE_ERRP),
    (SAVEVM_ABI_SaveVMHandlers_state_pending_estimate, SAVEVM_ABI_STATE_PENDING),
    (SAVEVM_ABI_SaveVMHandlers_state_pending_exact, SAVEVM_ABI_STATE_PENDING),
    (SAVEVM_ABI_SaveVMHandlers_load_state, SAVEVM_ABI_INT_FILE_VERSION),
    (SAVEVM_ABI_SaveVMHandlers_load_state_buffer, SAVEVM_ABI_LOAD_BUFFER),
    (SAVEVM_ABI_SaveVMHandlers_load_setup, SAVEVM_ABI_INT_FILE_ERRP),
    (SAVEVM_ABI_SaveVMHandlers_load_cleanup, SAVEVM_ABI_INT),
    (SAVEVM_ABI_SaveVMHandlers_resume_prepare, SAVEVM_ABI_INT_MIGRATION),
    (SAVEVM_ABI_SaveVMHandlers_switchover_ack_needed, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_SaveVMHandlers_switchover_start, SAVEVM_ABI_INT),
];

/// 5.0 to 6.2.
pub(super) const DESCRIPTION_5_0: &[(Id, Kind)] = &[
    (SAVEVM_ABI_VMStateDescription_name, SAVEVM_ABI_POINTER),
    (SAVEVM_ABI_VMStateDescription_unmigratable, SAVEVM_ABI_INT32),
    (SAVEVM_ABI_VMStateDescription_version_id, SAVEVM_ABI_INT32),
    (SAVEVM_ABI_VMStateDescription_minimum_version_id, SAVEVM_ABI_INT32),
    (SAVEVM_ABI_VMStateDescription_minimum_version_id_old, SAVEVM_ABI_INT32),
    (SAVEVM_ABI_VMStateDescription_priority, SAVEVM_ABI_UINT32),
    (SAVEVM_ABI_VMStateDescription_load_state_old, SAVEVM_ABI_INT_FILE_VERSION),
    (SAVEVM_ABI_VMStateDescription_pre_load, SAVEVM_ABI_INT),
    (SAVEVM_ABI_VMStateDescription_post_load, SAVEVM_ABI_INT_VERSION),
    (SAVEVM_ABI_VMStateDescription_pre_save, SAVEVM_ABI_INT),
    (SAVEVM_ABI_VMStateDescription_post_save, SAVEVM_ABI_INT),
    (SAVEVM_ABI_VMStateDescription_needed, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_VMStateDescription_dev_unplug_pending, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_VMStateDescription_fields, SAVEVM_ABI_POINTER),
    (SAVEVM_ABI_VMStateDescription_subsections, SAVEVM_ABI_POINTER),
];

/// 7.0 to 7.2.
pub(super) const DESCRIPTION_7_0: &[(Id, Kind)] = &[
    (SAVEVM_ABI_VMStateDescription_name, SAVEVM_ABI_POINTER),
    (SAVEVM_ABI_VMStateDescription_unmigratable, SAVEVM_ABI_INT32),
    (SAVEVM_ABI_VMStateDescription_version_id, SAVEVM_ABI_INT32),
    (SAVEVM_ABI_VMStateDescription_minimum_version_id, SAVEVM_ABI_INT32),
    (SAVEVM_ABI_VMStateDescription_priority, SAVEVM_ABI_UINT32),
    (SAVEVM_ABI_VMStateDescription_pre_load, SAVEVM_ABI_INT),
    (SAVEVM_ABI_VMStateDescription_post_load, SAVEVM_ABI_INT_VERSION),
    (SAVEVM_ABI_VMStateDescription_pre_save, SAVEVM_ABI_INT),
    (SAVEVM_ABI_VMStateDescription_post_save, SAVEVM_ABI_INT),
    (SAVEVM_ABI_VMStateDescription_needed, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_VMStateDescription_dev_unplug_pending, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_VMStateDescription_fields, SAVEVM_ABI_POINTER),
    (SAVEVM_ABI_VMStateDescription_subsections, SAVEVM_ABI_POINTER),
];

/// 8.0 to 10.1.
pub(super) const DESCRIPTION_8_0: &[(Id, Kind)] = &[
    (SAVEVM_ABI_VMStateDescription_name, SAVEVM_ABI_POINTER),
    (SAVEVM_ABI_VMStateDescription_unmigratable, SAVEVM_ABI_BOOL8),
    (SAVEVM_ABI_VMStateDescription_early_setup, SAVEVM_ABI_BOOL8),
    (SAVEVM_ABI_VMStateDescription_version_id, SAVEVM_ABI_INT32),
    (SAVEVM_ABI_VMStateDescription_minimum_version_id, SAVEVM_ABI_INT32),
    (SAVEVM_ABI_VMStateDescription_priority, SAVEVM_ABI_UINT32),
    (SAVEVM_ABI_VMStateDescription_pre_load, SAVEVM_ABI_INT),
    (SAVEVM_ABI_VMStateDescription_post_load, SAVEVM_ABI_INT_VERSION),
    (SAVEVM_ABI_VMStateDescription_pre_save, SAVEVM_ABI_INT),
    (SAVEVM_ABI_VMStateDescription_post_save, SAVEVM_ABI_INT),
    (SAVEVM_ABI_VMStateDescription_needed, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_VMStateDescription_dev_unplug_pending, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_VMStateDescription_fields, SAVEVM_ABI_POINTER),
    (SAVEVM_ABI_VMStateDescription_subsections, SAVEVM_ABI_POINTER),
];

/// 10.2, with hooks that return an error.
pub(super) const DESCRIPTION_10_2: &[(Id, Kind)] = &[
    (SAVEVM_ABI_VMStateDescription_name, SAVEVM_ABI_POINTER),
    (SAVEVM_ABI_VMStateDescription_unmigratable, SAVEVM_ABI_BOOL8),
    (SAVEVM_ABI_VMStateDescription_early_setup, SAVEVM_ABI_BOOL8),
    (SAVEVM_ABI_VMStateDescription_version_id, SAVEVM_ABI_INT32),
    (SAVEVM_ABI_VMStateDescription_minimum_version_id, SAVEVM_ABI_INT32),
    (SAVEVM_ABI_VMStateDescription_priority, SAVEVM_ABI_UINT32),
    (SAVEVM_ABI_VMStateDescription_pre_load, SAVEVM_ABI_INT),
    (SAVEVM_ABI_VMStateDescription_pre_load_errp, SAVEVM_ABI_BOOL_ERRP),
    (SAVEVM_ABI_VMStateDescription_post_load, SAVEVM_ABI_INT_VERSION),
    (SAVEVM_ABI_VMStateDescription_post_load_errp, SAVEVM_ABI_BOOL_VERSION_ERRP),
    (SAVEVM_ABI_VMStateDescription_pre_save, SAVEVM_ABI_INT),
    (SAVEVM_ABI_VMStateDescription_pre_save_errp, SAVEVM_ABI_BOOL_ERRP),
    (SAVEVM_ABI_VMStateDescription_post_save, SAVEVM_ABI_INT),
    (SAVEVM_ABI_VMStateDescription_needed, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_VMStateDescription_dev_unplug_pending, SAVEVM_ABI_BOOL),
    (SAVEVM_ABI_VMStateDescription_fields, SAVEVM_ABI_POINTER),
    (SAVEVM_ABI_VMStateDescription_subsections, SAVEVM_ABI_POINTER),
];

/// 5.0 to 10.2.
pub(super) const FIELD: &[(Id, Kind)] = &[
    (SAVEVM_ABI_VMStateField_name, SAVEVM_ABI_POINTER),
    (SAVEVM_ABI_VMStateField_err_hint, SAVEVM_ABI_POINTER),
    (SAVEVM_ABI_VMStateField_offset, SAVEVM_ABI_SIZE),
    (SAVEVM_ABI_VMStateField_size, SAVEVM_ABI_SIZE),
    (SAVEVM_ABI_VMStateField_start, SAVEVM_ABI_SIZE),
    (SAVEVM_ABI_VMStateField_num, SAVEVM_ABI_INT32),
    (SAVEVM_ABI_VMStateField_num_offset, SAVEVM_ABI_SIZE),
    (SAVEVM_ABI_VMStateField_size_offset, SAVEVM_ABI_SIZE),
    (SAVEVM_ABI_VMStateField_info, SAVEVM_ABI_POINTER),
    (SAVEVM_ABI_VMStateField_flags, SAVEVM_ABI_UINT32),
    (SAVEVM_ABI_VMStateField_vmsd, SAVEVM_ABI_POINTER),
    (SAVEVM_ABI_VMStateField_version_id, SAVEVM_ABI_INT32),
    (SAVEVM_ABI_VMStateField_struct_version_id, SAVEVM_ABI_INT32),
    (SAVEVM_ABI_VMStateField_field_exists, SAVEVM_ABI_BOOL_VERSION),
];

/// 5.0 to 10.2.
pub(super) const INFO: &[(Id, Kind)] = &[
    (SAVEVM_ABI_VMStateInfo_name, SAVEVM_ABI_POINTER),
    (SAVEVM_ABI_VMStateInfo_get, SAVEVM_ABI_GET),
    (SAVEVM_ABI_VMStateInfo_put, SAVEVM_ABI_PUT),
];

/// Priorities from 0 up.
pub(super) const PRIORITIES_5_0: &[Constant] = &[
    SAVEVM_ABI_MIG_PRI_DEFAULT,
    SAVEVM_ABI_MIG_PRI_IOMMU,
    SAVEVM_ABI_MIG_PRI_PCI_BUS,
    SAVEVM_ABI_MIG_PRI_GICV3_ITS,
    SAVEVM_ABI_MIG_PRI_GICV3,
    SAVEVM_ABI_MIG_PRI_MAX,
];

/// 6.1 to 10.0.
pub(super) const PRIORITIES_6_1: &[Constant] = &[
    SAVEVM_ABI_MIG_PRI_DEFAULT,
    SAVEVM_ABI_MIG_PRI_IOMMU,
    SAVEVM_ABI_MIG_PRI_PCI_BUS,
    SAVEVM_ABI_MIG_PRI_VIRTIO_MEM,
    SAVEVM_ABI_MIG_PRI_GICV3_ITS,
    SAVEVM_ABI_MIG_PRI_GICV3,
    SAVEVM_ABI_MIG_PRI_MAX,
];

/// 10.1.
pub(super) const PRIORITIES_10_1: &[Constant] = &[
    SAVEVM_ABI_MIG_PRI_UNINITIALIZED,
    SAVEVM_ABI_MIG_PRI_LOW,
    SAVEVM_ABI_MIG_PRI_DEFAULT,
    SAVEVM_ABI_MIG_PRI_IOMMU,
    SAVEVM_ABI_MIG_PRI_PCI_BUS,
    SAVEVM_ABI_MIG_PRI_VIRTIO_MEM,
    SAVEVM_ABI_MIG_PRI_GICV3_ITS,
    SAVEVM_ABI_MIG_PRI_GICV3,
    SAVEVM_ABI_MIG_PRI_MAX,
];

/// 10.2.
pub(super) const PRIORITIES_10_2: &[Constant] = &[
    SAVEVM_ABI_MIG_PRI_UNINITIALIZED,
    SAVEVM_ABI_MIG_PRI_LOW,
    SAVEVM_ABI_MIG_PRI_DEFAULT,
    SAVEVM_ABI_MIG_PRI_IOMMU,
    SAVEVM_ABI_MIG_PRI_PCI_BUS,
    SAVEVM_ABI_MIG_PRI_VIRTIO_MEM,
    SAVEVM_ABI_MIG_PRI_APIC,
    SAVEVM_ABI_MIG_PRI_GICV3_ITS,
    SAVEVM_ABI_MIG_PRI_GICV3,
    SAVEVM_ABI_MIG_PRI_MAX,
];

/// The flags from bit 0 up. VMS_END exists from 8.0 on.
pub(super) const FLAGS: &[Constant] = &[
    SAVEVM_ABI_VMS_SINGLE,
    SAVEVM_ABI_VMS_POINTER,
    SAVEVM_ABI_VMS_ARRAY,
    SAVEVM_ABI_VMS_STRUCT,
    SAVEVM_ABI_VMS_VARRAY_INT32,
    SAVEVM_ABI_VMS_BUFFER,
    SAVEVM_ABI_VMS_ARRAY_OF_POINTER,
    SAVEVM_ABI_VMS_VARRAY_UINT16,
    SAVEVM_ABI_VMS_VBUFFER,
    SAVEVM_ABI_VMS_MULTIPLY,
    SAVEVM_ABI_VMS_VARRAY_UINT8,
    SAVEVM_ABI_VMS_VARRAY_UINT32,
    SAVEVM_ABI_VMS_MUST_EXIST,
    SAVEVM_ABI_VMS_ALLOC,
    SAVEVM_ABI_VMS_MULTIPLY_ELEMENTS,
    SAVEVM_ABI_VMS_VSTRUCT,
    SAVEVM_ABI_VMS_END,
];

/// The structs of QEMU 7.2, in the order of `STRUCTS`.
const NATIVE: [&[(Id, Kind)]; STRUCTS.len()] = [L1, DESCRIPTION_7_0, FIELD, INFO, &[]];

/// Returns the members with the offsets that a C compiler gives them.
fn placed(members: &[(Id, Kind)]) -> impl Iterator<Item = (Id, Kind, usize)> {
    members.iter().scan(0usize, |end, (id, kind)| {
        let offset = end.next_multiple_of(width(*kind));
        *end = offset + width(*kind);
        Some((*id, *kind, offset))
    })
}

/// Returns the size that a C compiler gives a struct.
fn size(members: &[(Id, Kind)]) -> usize {
    let end = placed(members).last().map_or(0, |(_, kind, offset)| offset + width(kind));
    end.next_multiple_of(size_of::<usize>())
}

/// Returns the members of a struct as a program describes them, and the size of the struct.
pub(super) fn laid_out(members: &[(Id, Kind)]) -> (Vec<SaveVMAbiMember>, usize) {
    let described =
        |(id, kind, offset)| SaveVMAbiMember { member: MaybeUninit::new(id), kind: MaybeUninit::new(kind), offset };
    (placed(members).map(described).collect(), size(members))
}

/// Returns the places of the members of a struct, and its size.
pub(super) fn slots(members: &[(Id, Kind)]) -> ([Slot; MEMBERS.len()], usize) {
    let mut slots = [Slot::default(); MEMBERS.len()];
    for (id, kind, offset) in placed(members) {
        slots[id as usize] = Slot { offset: offset as u16, kind: kind as u8 };
    }
    (slots, size(members))
}

/// Returns the members of a struct in QEMU 7.2.
pub(super) fn native(of: usize) -> &'static [(Id, Kind)] {
    NATIVE[of]
}
