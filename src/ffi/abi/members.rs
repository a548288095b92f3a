// SPDX-License-Identifier: LGPL-2.1-or-later
//! The members and constants that the library knows, with the types that a member may have.

use crate::ffi::types::abi::SaveVMAbiConstantId as Constant;
use crate::ffi::types::abi::SaveVMAbiKind::{self as Kind, *};
use crate::ffi::types::abi::SaveVMAbiMemberId as Id;

/// What the library knows of a member.
pub(super) struct Known {
    pub id: Id,
    /// Name as in an error text.
    pub name: &'static str,
    /// The struct: index in `STRUCTS`.
    pub of: usize,
    /// The types that it may have.
    pub kinds: &'static [Kind],
}

/// Returns the width of a type in bytes.
pub(super) const fn width(kind: Kind) -> usize {
    match kind {
        SAVEVM_ABI_INT32 | SAVEVM_ABI_UINT32 => 4,
        SAVEVM_ABI_BOOL8 => 1,
        SAVEVM_ABI_UINT64 => 8,
        _ => size_of::<usize>(),
    }
}

/// The structs of a layout.
pub(super) const STRUCTS: [&str; 5] =
    ["SaveVMHandlers", "VMStateDescription", "VMStateField", "VMStateInfo", "MigPendingData"];

/// The types of a `uint64_t`, which is a `size_t` on 64-bit machines.
const WORDS: &[Kind] =
    if size_of::<usize>() == 8 { &[SAVEVM_ABI_SIZE, SAVEVM_ABI_UINT64] } else { &[SAVEVM_ABI_UINT64] };

/// All members, by their number.
pub(super) const MEMBERS: [Known; 66] = [
    Known {
        id: Id::SAVEVM_ABI_SaveVMHandlers_save_state,
        name: "SaveVMHandlers.save_state",
        of: 0,
        kinds: &[SAVEVM_ABI_VOID_FILE],
    },
    Known {
        id: Id::SAVEVM_ABI_SaveVMHandlers_save_cleanup,
        name: "SaveVMHandlers.save_cleanup",
        of: 0,
        kinds: &[SAVEVM_ABI_VOID],
    },
    Known {
        id: Id::SAVEVM_ABI_SaveVMHandlers_save_live_complete_postcopy,
        name: "SaveVMHandlers.save_live_complete_postcopy",
        of: 0,
        kinds: &[SAVEVM_ABI_INT_FILE],
    },
    Known {
        id: Id::SAVEVM_ABI_SaveVMHandlers_save_live_complete_precopy,
        name: "SaveVMHandlers.save_live_complete_precopy",
        of: 0,
        kinds: &[SAVEVM_ABI_INT_FILE],
    },
    Known {
        id: Id::SAVEVM_ABI_SaveVMHandlers_is_active,
        name: "SaveVMHandlers.is_active",
        of: 0,
        kinds: &[SAVEVM_ABI_BOOL],
    },
    Known {
        id: Id::SAVEVM_ABI_SaveVMHandlers_has_postcopy,
        name: "SaveVMHandlers.has_postcopy",
        of: 0,
        kinds: &[SAVEVM_ABI_BOOL],
    },
    Known {
        id: Id::SAVEVM_ABI_SaveVMHandlers_is_active_iterate,
        name: "SaveVMHandlers.is_active_iterate",
        of: 0,
        kinds: &[SAVEVM_ABI_BOOL],
    },
    Known {
        id: Id::SAVEVM_ABI_SaveVMHandlers_save_live_iterate,
        name: "SaveVMHandlers.save_live_iterate",
        of: 0,
        kinds: &[SAVEVM_ABI_INT_FILE],
    },
    Known {
        id: Id::SAVEVM_ABI_SaveVMHandlers_save_setup,
        name: "SaveVMHandlers.save_setup",
        of: 0,
        kinds: &[SAVEVM_ABI_INT_FILE, SAVEVM_ABI_INT_FILE_ERRP],
    },
    Known {
        id: Id::SAVEVM_ABI_SaveVMHandlers_save_live_pending,
        name: "SaveVMHandlers.save_live_pending",
        of: 0,
        kinds: &[SAVEVM_ABI_PENDING],
    },
    Known {
        id: Id::SAVEVM_ABI_SaveVMHandlers_load_state,
        name: "SaveVMHandlers.load_state",
        of: 0,
        kinds: &[SAVEVM_ABI_INT_FILE_VERSION],
    },
    Known {
        id: Id::SAVEVM_ABI_SaveVMHandlers_load_setup,
        name: "SaveVMHandlers.load_setup",
        of: 0,
        kinds: &[SAVEVM_ABI_INT_FILE, SAVEVM_ABI_INT_FILE_ERRP],
    },
    Known {
        id: Id::SAVEVM_ABI_SaveVMHandlers_load_cleanup,
        name: "SaveVMHandlers.load_cleanup",
        of: 0,
        kinds: &[SAVEVM_ABI_INT],
    },
    Known {
        id: Id::SAVEVM_ABI_SaveVMHandlers_resume_prepare,
        name: "SaveVMHandlers.resume_prepare",
        of: 0,
        kinds: &[SAVEVM_ABI_INT_MIGRATION],
    },
    Known {
        id: Id::SAVEVM_ABI_SaveVMHandlers_state_pending_estimate,
        name: "SaveVMHandlers.state_pending_estimate",
        of: 0,
        kinds: &[SAVEVM_ABI_STATE_PENDING],
    },
    Known {
        id: Id::SAVEVM_ABI_SaveVMHandlers_state_pending_exact,
        name: "SaveVMHandlers.state_pending_exact",
        of: 0,
        kinds: &[SAVEVM_ABI_STATE_PENDING],
    },
    Known {
        id: Id::SAVEVM_ABI_SaveVMHandlers_switchover_ack_needed,
        name: "SaveVMHandlers.switchover_ack_needed",
        of: 0,
        kinds: &[SAVEVM_ABI_BOOL],
    },
    Known {
        id: Id::SAVEVM_ABI_SaveVMHandlers_save_prepare,
        name: "SaveVMHandlers.save_prepare",
        of: 0,
        kinds: &[SAVEVM_ABI_INT_ERRP],
    },
    Known {
        id: Id::SAVEVM_ABI_SaveVMHandlers_save_live_complete_precopy_thread,
        name: "SaveVMHandlers.save_live_complete_precopy_thread",
        of: 0,
        kinds: &[SAVEVM_ABI_SAVE_THREAD],
    },
    Known {
        id: Id::SAVEVM_ABI_SaveVMHandlers_load_state_buffer,
        name: "SaveVMHandlers.load_state_buffer",
        of: 0,
        kinds: &[SAVEVM_ABI_LOAD_BUFFER],
    },
    Known {
        id: Id::SAVEVM_ABI_SaveVMHandlers_switchover_start,
        name: "SaveVMHandlers.switchover_start",
        of: 0,
        kinds: &[SAVEVM_ABI_INT],
    },
    Known {
        id: Id::SAVEVM_ABI_SaveVMHandlers_save_complete,
        name: "SaveVMHandlers.save_complete",
        of: 0,
        kinds: &[SAVEVM_ABI_INT_FILE],
    },
    Known {
        id: Id::SAVEVM_ABI_SaveVMHandlers_save_complete_precopy_thread,
        name: "SaveVMHandlers.save_complete_precopy_thread",
        of: 0,
        kinds: &[SAVEVM_ABI_SAVE_THREAD],
    },
    Known {
        id: Id::SAVEVM_ABI_SaveVMHandlers_save_postcopy_prepare,
        name: "SaveVMHandlers.save_postcopy_prepare",
        of: 0,
        kinds: &[SAVEVM_ABI_BOOL_FILE_ERRP],
    },
    Known {
        id: Id::SAVEVM_ABI_SaveVMHandlers_save_query_pending,
        name: "SaveVMHandlers.save_query_pending",
        of: 0,
        kinds: &[SAVEVM_ABI_QUERY_PENDING],
    },
    Known {
        id: Id::SAVEVM_ABI_VMStateDescription_name,
        name: "VMStateDescription.name",
        of: 1,
        kinds: &[SAVEVM_ABI_POINTER],
    },
    Known {
        id: Id::SAVEVM_ABI_VMStateDescription_unmigratable,
        name: "VMStateDescription.unmigratable",
        of: 1,
        kinds: &[SAVEVM_ABI_INT32, SAVEVM_ABI_BOOL8],
    },
    Known {
        id: Id::SAVEVM_ABI_VMStateDescription_early_setup,
        name: "VMStateDescription.early_setup",
        of: 1,
        kinds: &[SAVEVM_ABI_BOOL8],
    },
    Known {
        id: Id::SAVEVM_ABI_VMStateDescription_version_id,
        name: "VMStateDescription.version_id",
        of: 1,
        kinds: &[SAVEVM_ABI_INT32],
    },
    Known {
        id: Id::SAVEVM_ABI_VMStateDescription_minimum_version_id,
        name: "VMStateDescription.minimum_version_id",
        of: 1,
        kinds: &[SAVEVM_ABI_INT32],
    },
    Known {
        id: Id::SAVEVM_ABI_VMStateDescription_minimum_version_id_old,
        name: "VMStateDescription.minimum_version_id_old",
        of: 1,
        kinds: &[SAVEVM_ABI_INT32],
    },
    Known {
        id: Id::SAVEVM_ABI_VMStateDescription_load_state_old,
        name: "VMStateDescription.load_state_old",
        of: 1,
        kinds: &[SAVEVM_ABI_INT_FILE_VERSION],
    },
    Known {
        id: Id::SAVEVM_ABI_VMStateDescription_priority,
        name: "VMStateDescription.priority",
        of: 1,
        kinds: &[SAVEVM_ABI_UINT32, SAVEVM_ABI_INT32],
    },
    Known {
        id: Id::SAVEVM_ABI_VMStateDescription_pre_load,
        name: "VMStateDescription.pre_load",
        of: 1,
        kinds: &[SAVEVM_ABI_INT],
    },
    Known {
        id: Id::SAVEVM_ABI_VMStateDescription_pre_load_errp,
        name: "VMStateDescription.pre_load_errp",
        of: 1,
        kinds: &[SAVEVM_ABI_BOOL_ERRP],
    },
    Known {
        id: Id::SAVEVM_ABI_VMStateDescription_post_load,
        name: "VMStateDescription.post_load",
        of: 1,
        kinds: &[SAVEVM_ABI_INT_VERSION],
    },
    Known {
        id: Id::SAVEVM_ABI_VMStateDescription_post_load_errp,
        name: "VMStateDescription.post_load_errp",
        of: 1,
        kinds: &[SAVEVM_ABI_BOOL_VERSION_ERRP],
    },
    Known {
        id: Id::SAVEVM_ABI_VMStateDescription_pre_save,
        name: "VMStateDescription.pre_save",
        of: 1,
        kinds: &[SAVEVM_ABI_INT],
    },
    Known {
        id: Id::SAVEVM_ABI_VMStateDescription_pre_save_errp,
        name: "VMStateDescription.pre_save_errp",
        of: 1,
        kinds: &[SAVEVM_ABI_BOOL_ERRP],
    },
    Known {
        id: Id::SAVEVM_ABI_VMStateDescription_post_save,
        name: "VMStateDescription.post_save",
        of: 1,
        kinds: &[SAVEVM_ABI_INT, SAVEVM_ABI_VOID],
    },
    Known {
        id: Id::SAVEVM_ABI_VMStateDescription_needed,
        name: "VMStateDescription.needed",
        of: 1,
        kinds: &[SAVEVM_ABI_BOOL],
    },
    Known {
        id: Id::SAVEVM_ABI_VMStateDescription_dev_unplug_pending,
        name: "VMStateDescription.dev_unplug_pending",
        of: 1,
        kinds: &[SAVEVM_ABI_BOOL],
    },
    Known {
        id: Id::SAVEVM_ABI_VMStateDescription_fields,
        name: "VMStateDescription.fields",
        of: 1,
        kinds: &[SAVEVM_ABI_POINTER],
    },
    Known {
        id: Id::SAVEVM_ABI_VMStateDescription_subsections,
        name: "VMStateDescription.subsections",
        of: 1,
        kinds: &[SAVEVM_ABI_POINTER],
    },
    Known { id: Id::SAVEVM_ABI_VMStateField_name, name: "VMStateField.name", of: 2, kinds: &[SAVEVM_ABI_POINTER] },
    Known {
        id: Id::SAVEVM_ABI_VMStateField_err_hint,
        name: "VMStateField.err_hint",
        of: 2,
        kinds: &[SAVEVM_ABI_POINTER],
    },
    Known { id: Id::SAVEVM_ABI_VMStateField_offset, name: "VMStateField.offset", of: 2, kinds: &[SAVEVM_ABI_SIZE] },
    Known { id: Id::SAVEVM_ABI_VMStateField_size, name: "VMStateField.size", of: 2, kinds: &[SAVEVM_ABI_SIZE] },
    Known { id: Id::SAVEVM_ABI_VMStateField_start, name: "VMStateField.start", of: 2, kinds: &[SAVEVM_ABI_SIZE] },
    Known { id: Id::SAVEVM_ABI_VMStateField_num, name: "VMStateField.num", of: 2, kinds: &[SAVEVM_ABI_INT32] },
    Known {
        id: Id::SAVEVM_ABI_VMStateField_num_offset,
        name: "VMStateField.num_offset",
        of: 2,
        kinds: &[SAVEVM_ABI_SIZE],
    },
    Known {
        id: Id::SAVEVM_ABI_VMStateField_size_offset,
        name: "VMStateField.size_offset",
        of: 2,
        kinds: &[SAVEVM_ABI_SIZE],
    },
    Known { id: Id::SAVEVM_ABI_VMStateField_info, name: "VMStateField.info", of: 2, kinds: &[SAVEVM_ABI_POINTER] },
    Known {
        id: Id::SAVEVM_ABI_VMStateField_flags,
        name: "VMStateField.flags",
        of: 2,
        kinds: &[SAVEVM_ABI_UINT32, SAVEVM_ABI_INT32],
    },
    Known { id: Id::SAVEVM_ABI_VMStateField_vmsd, name: "VMStateField.vmsd", of: 2, kinds: &[SAVEVM_ABI_POINTER] },
    Known {
        id: Id::SAVEVM_ABI_VMStateField_version_id,
        name: "VMStateField.version_id",
        of: 2,
        kinds: &[SAVEVM_ABI_INT32],
    },
    Known {
        id: Id::SAVEVM_ABI_VMStateField_struct_version_id,
        name: "VMStateField.struct_version_id",
        of: 2,
        kinds: &[SAVEVM_ABI_INT32],
    },
    Known {
        id: Id::SAVEVM_ABI_VMStateField_field_exists,
        name: "VMStateField.field_exists",
        of: 2,
        kinds: &[SAVEVM_ABI_BOOL_VERSION],
    },
    Known { id: Id::SAVEVM_ABI_VMStateInfo_name, name: "VMStateInfo.name", of: 3, kinds: &[SAVEVM_ABI_POINTER] },
    Known { id: Id::SAVEVM_ABI_VMStateInfo_get, name: "VMStateInfo.get", of: 3, kinds: &[SAVEVM_ABI_GET] },
    Known { id: Id::SAVEVM_ABI_VMStateInfo_put, name: "VMStateInfo.put", of: 3, kinds: &[SAVEVM_ABI_PUT] },
    Known { id: Id::SAVEVM_ABI_VMStateInfo_load, name: "VMStateInfo.load", of: 3, kinds: &[SAVEVM_ABI_LOAD_ERRP] },
    Known { id: Id::SAVEVM_ABI_VMStateInfo_save, name: "VMStateInfo.save", of: 3, kinds: &[SAVEVM_ABI_SAVE_ERRP] },
    Known {
        id: Id::SAVEVM_ABI_MigPendingData_precopy_bytes,
        name: "MigPendingData.precopy_bytes",
        of: 4,
        kinds: WORDS,
    },
    Known {
        id: Id::SAVEVM_ABI_MigPendingData_stopcopy_bytes,
        name: "MigPendingData.stopcopy_bytes",
        of: 4,
        kinds: WORDS,
    },
    Known {
        id: Id::SAVEVM_ABI_MigPendingData_postcopy_bytes,
        name: "MigPendingData.postcopy_bytes",
        of: 4,
        kinds: WORDS,
    },
];

/// All types, by their number minus one.
pub(super) const KINDS: [Kind; 29] = [
    SAVEVM_ABI_INT32,
    SAVEVM_ABI_UINT32,
    SAVEVM_ABI_BOOL8,
    SAVEVM_ABI_SIZE,
    SAVEVM_ABI_POINTER,
    SAVEVM_ABI_VOID,
    SAVEVM_ABI_BOOL,
    SAVEVM_ABI_INT,
    SAVEVM_ABI_INT_ERRP,
    SAVEVM_ABI_BOOL_ERRP,
    SAVEVM_ABI_INT_VERSION,
    SAVEVM_ABI_BOOL_VERSION,
    SAVEVM_ABI_BOOL_VERSION_ERRP,
    SAVEVM_ABI_VOID_FILE,
    SAVEVM_ABI_INT_FILE,
    SAVEVM_ABI_INT_FILE_ERRP,
    SAVEVM_ABI_BOOL_FILE_ERRP,
    SAVEVM_ABI_INT_FILE_VERSION,
    SAVEVM_ABI_INT_MIGRATION,
    SAVEVM_ABI_PENDING,
    SAVEVM_ABI_STATE_PENDING,
    SAVEVM_ABI_SAVE_THREAD,
    SAVEVM_ABI_LOAD_BUFFER,
    SAVEVM_ABI_QUERY_PENDING,
    SAVEVM_ABI_GET,
    SAVEVM_ABI_PUT,
    SAVEVM_ABI_LOAD_ERRP,
    SAVEVM_ABI_SAVE_ERRP,
    SAVEVM_ABI_UINT64,
];

/// All constants, by their number.
pub(super) const CONSTANTS: [(Constant, &str); 27] = [
    (Constant::SAVEVM_ABI_MIG_PRI_UNINITIALIZED, "MIG_PRI_UNINITIALIZED"),
    (Constant::SAVEVM_ABI_MIG_PRI_LOW, "MIG_PRI_LOW"),
    (Constant::SAVEVM_ABI_MIG_PRI_DEFAULT, "MIG_PRI_DEFAULT"),
    (Constant::SAVEVM_ABI_MIG_PRI_IOMMU, "MIG_PRI_IOMMU"),
    (Constant::SAVEVM_ABI_MIG_PRI_PCI_BUS, "MIG_PRI_PCI_BUS"),
    (Constant::SAVEVM_ABI_MIG_PRI_VIRTIO_MEM, "MIG_PRI_VIRTIO_MEM"),
    (Constant::SAVEVM_ABI_MIG_PRI_APIC, "MIG_PRI_APIC"),
    (Constant::SAVEVM_ABI_MIG_PRI_GICV3_ITS, "MIG_PRI_GICV3_ITS"),
    (Constant::SAVEVM_ABI_MIG_PRI_GICV3, "MIG_PRI_GICV3"),
    (Constant::SAVEVM_ABI_MIG_PRI_MAX, "MIG_PRI_MAX"),
    (Constant::SAVEVM_ABI_VMS_SINGLE, "VMS_SINGLE"),
    (Constant::SAVEVM_ABI_VMS_POINTER, "VMS_POINTER"),
    (Constant::SAVEVM_ABI_VMS_ARRAY, "VMS_ARRAY"),
    (Constant::SAVEVM_ABI_VMS_STRUCT, "VMS_STRUCT"),
    (Constant::SAVEVM_ABI_VMS_VARRAY_INT32, "VMS_VARRAY_INT32"),
    (Constant::SAVEVM_ABI_VMS_BUFFER, "VMS_BUFFER"),
    (Constant::SAVEVM_ABI_VMS_ARRAY_OF_POINTER, "VMS_ARRAY_OF_POINTER"),
    (Constant::SAVEVM_ABI_VMS_VARRAY_UINT16, "VMS_VARRAY_UINT16"),
    (Constant::SAVEVM_ABI_VMS_VBUFFER, "VMS_VBUFFER"),
    (Constant::SAVEVM_ABI_VMS_MULTIPLY, "VMS_MULTIPLY"),
    (Constant::SAVEVM_ABI_VMS_VARRAY_UINT8, "VMS_VARRAY_UINT8"),
    (Constant::SAVEVM_ABI_VMS_VARRAY_UINT32, "VMS_VARRAY_UINT32"),
    (Constant::SAVEVM_ABI_VMS_MUST_EXIST, "VMS_MUST_EXIST"),
    (Constant::SAVEVM_ABI_VMS_ALLOC, "VMS_ALLOC"),
    (Constant::SAVEVM_ABI_VMS_MULTIPLY_ELEMENTS, "VMS_MULTIPLY_ELEMENTS"),
    (Constant::SAVEVM_ABI_VMS_VSTRUCT, "VMS_VSTRUCT"),
    (Constant::SAVEVM_ABI_VMS_END, "VMS_END"),
];
