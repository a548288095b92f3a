// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm/abi.h`: how a QEMU version lays out the tables of its devices.

use crate::ffi::marshal::structs::sized_structs;
use std::mem::MaybeUninit;

/// A member of a table, by the names of QEMU's struct and member. A C file that names an unknown one does not compile.
#[expect(non_camel_case_types, reason = "the names of QEMU's structs and members")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMAbiMemberId {
    /// `SaveVMHandlers.save_state`
    SAVEVM_ABI_SaveVMHandlers_save_state = 0,
    /// `SaveVMHandlers.save_cleanup`
    SAVEVM_ABI_SaveVMHandlers_save_cleanup = 1,
    /// `SaveVMHandlers.save_live_complete_postcopy`
    SAVEVM_ABI_SaveVMHandlers_save_live_complete_postcopy = 2,
    /// `SaveVMHandlers.save_live_complete_precopy`
    SAVEVM_ABI_SaveVMHandlers_save_live_complete_precopy = 3,
    /// `SaveVMHandlers.is_active`
    SAVEVM_ABI_SaveVMHandlers_is_active = 4,
    /// `SaveVMHandlers.has_postcopy`
    SAVEVM_ABI_SaveVMHandlers_has_postcopy = 5,
    /// `SaveVMHandlers.is_active_iterate`
    SAVEVM_ABI_SaveVMHandlers_is_active_iterate = 6,
    /// `SaveVMHandlers.save_live_iterate`
    SAVEVM_ABI_SaveVMHandlers_save_live_iterate = 7,
    /// `SaveVMHandlers.save_setup`
    SAVEVM_ABI_SaveVMHandlers_save_setup = 8,
    /// `SaveVMHandlers.save_live_pending`
    SAVEVM_ABI_SaveVMHandlers_save_live_pending = 9,
    /// `SaveVMHandlers.load_state`
    SAVEVM_ABI_SaveVMHandlers_load_state = 10,
    /// `SaveVMHandlers.load_setup`
    SAVEVM_ABI_SaveVMHandlers_load_setup = 11,
    /// `SaveVMHandlers.load_cleanup`
    SAVEVM_ABI_SaveVMHandlers_load_cleanup = 12,
    /// `SaveVMHandlers.resume_prepare`
    SAVEVM_ABI_SaveVMHandlers_resume_prepare = 13,
    /// `SaveVMHandlers.state_pending_estimate`
    SAVEVM_ABI_SaveVMHandlers_state_pending_estimate = 14,
    /// `SaveVMHandlers.state_pending_exact`
    SAVEVM_ABI_SaveVMHandlers_state_pending_exact = 15,
    /// `SaveVMHandlers.switchover_ack_needed`
    SAVEVM_ABI_SaveVMHandlers_switchover_ack_needed = 16,
    /// `SaveVMHandlers.save_prepare`
    SAVEVM_ABI_SaveVMHandlers_save_prepare = 17,
    /// `SaveVMHandlers.save_live_complete_precopy_thread`
    SAVEVM_ABI_SaveVMHandlers_save_live_complete_precopy_thread = 18,
    /// `SaveVMHandlers.load_state_buffer`
    SAVEVM_ABI_SaveVMHandlers_load_state_buffer = 19,
    /// `SaveVMHandlers.switchover_start`
    SAVEVM_ABI_SaveVMHandlers_switchover_start = 20,
    /// `SaveVMHandlers.save_complete`
    SAVEVM_ABI_SaveVMHandlers_save_complete = 21,
    /// `SaveVMHandlers.save_complete_precopy_thread`
    SAVEVM_ABI_SaveVMHandlers_save_complete_precopy_thread = 22,
    /// `SaveVMHandlers.save_postcopy_prepare`
    SAVEVM_ABI_SaveVMHandlers_save_postcopy_prepare = 23,
    /// `SaveVMHandlers.save_query_pending`
    SAVEVM_ABI_SaveVMHandlers_save_query_pending = 24,
    /// `VMStateDescription.name`
    SAVEVM_ABI_VMStateDescription_name = 25,
    /// `VMStateDescription.unmigratable`
    SAVEVM_ABI_VMStateDescription_unmigratable = 26,
    /// `VMStateDescription.early_setup`
    SAVEVM_ABI_VMStateDescription_early_setup = 27,
    /// `VMStateDescription.version_id`
    SAVEVM_ABI_VMStateDescription_version_id = 28,
    /// `VMStateDescription.minimum_version_id`
    SAVEVM_ABI_VMStateDescription_minimum_version_id = 29,
    /// `VMStateDescription.minimum_version_id_old`
    SAVEVM_ABI_VMStateDescription_minimum_version_id_old = 30,
    /// `VMStateDescription.load_state_old`
    SAVEVM_ABI_VMStateDescription_load_state_old = 31,
    /// `VMStateDescription.priority`
    SAVEVM_ABI_VMStateDescription_priority = 32,
    /// `VMStateDescription.pre_load`
    SAVEVM_ABI_VMStateDescription_pre_load = 33,
    /// `VMStateDescription.pre_load_errp`
    SAVEVM_ABI_VMStateDescription_pre_load_errp = 34,
    /// `VMStateDescription.post_load`
    SAVEVM_ABI_VMStateDescription_post_load = 35,
    /// `VMStateDescription.post_load_errp`
    SAVEVM_ABI_VMStateDescription_post_load_errp = 36,
    /// `VMStateDescription.pre_save`
    SAVEVM_ABI_VMStateDescription_pre_save = 37,
    /// `VMStateDescription.pre_save_errp`
    SAVEVM_ABI_VMStateDescription_pre_save_errp = 38,
    /// `VMStateDescription.post_save`
    SAVEVM_ABI_VMStateDescription_post_save = 39,
    /// `VMStateDescription.needed`
    SAVEVM_ABI_VMStateDescription_needed = 40,
    /// `VMStateDescription.dev_unplug_pending`
    SAVEVM_ABI_VMStateDescription_dev_unplug_pending = 41,
    /// `VMStateDescription.fields`
    SAVEVM_ABI_VMStateDescription_fields = 42,
    /// `VMStateDescription.subsections`
    SAVEVM_ABI_VMStateDescription_subsections = 43,
    /// `VMStateField.name`
    SAVEVM_ABI_VMStateField_name = 44,
    /// `VMStateField.err_hint`
    SAVEVM_ABI_VMStateField_err_hint = 45,
    /// `VMStateField.offset`
    SAVEVM_ABI_VMStateField_offset = 46,
    /// `VMStateField.size`
    SAVEVM_ABI_VMStateField_size = 47,
    /// `VMStateField.start`
    SAVEVM_ABI_VMStateField_start = 48,
    /// `VMStateField.num`
    SAVEVM_ABI_VMStateField_num = 49,
    /// `VMStateField.num_offset`
    SAVEVM_ABI_VMStateField_num_offset = 50,
    /// `VMStateField.size_offset`
    SAVEVM_ABI_VMStateField_size_offset = 51,
    /// `VMStateField.info`
    SAVEVM_ABI_VMStateField_info = 52,
    /// `VMStateField.flags`
    SAVEVM_ABI_VMStateField_flags = 53,
    /// `VMStateField.vmsd`
    SAVEVM_ABI_VMStateField_vmsd = 54,
    /// `VMStateField.version_id`
    SAVEVM_ABI_VMStateField_version_id = 55,
    /// `VMStateField.struct_version_id`
    SAVEVM_ABI_VMStateField_struct_version_id = 56,
    /// `VMStateField.field_exists`
    SAVEVM_ABI_VMStateField_field_exists = 57,
    /// `VMStateInfo.name`
    SAVEVM_ABI_VMStateInfo_name = 58,
    /// `VMStateInfo.get`
    SAVEVM_ABI_VMStateInfo_get = 59,
    /// `VMStateInfo.put`
    SAVEVM_ABI_VMStateInfo_put = 60,
    /// `VMStateInfo.load`
    SAVEVM_ABI_VMStateInfo_load = 61,
    /// `VMStateInfo.save`
    SAVEVM_ABI_VMStateInfo_save = 62,
    /// `MigPendingData.precopy_bytes`
    SAVEVM_ABI_MigPendingData_precopy_bytes = 63,
    /// `MigPendingData.stopcopy_bytes`
    SAVEVM_ABI_MigPendingData_stopcopy_bytes = 64,
    /// `MigPendingData.postcopy_bytes`
    SAVEVM_ABI_MigPendingData_postcopy_bytes = 65,
}

/// The type of a member. SAVEVM_ABI_MEMBER() determines it.
#[expect(non_camel_case_types, reason = "the names of the C interface")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMAbiKind {
    /// `int`
    SAVEVM_ABI_INT32 = 1,
    /// `unsigned`, or an enumeration
    SAVEVM_ABI_UINT32 = 2,
    /// `bool`
    SAVEVM_ABI_BOOL8 = 3,
    /// `size_t`
    SAVEVM_ABI_SIZE = 4,
    /// a pointer to data
    SAVEVM_ABI_POINTER = 5,
    /// `void (*)(void *opaque)`
    SAVEVM_ABI_VOID = 6,
    /// `bool (*)(void *opaque)`
    SAVEVM_ABI_BOOL = 7,
    /// `int (*)(void *opaque)`
    SAVEVM_ABI_INT = 8,
    /// `int (*)(void *opaque, Error **errp)`
    SAVEVM_ABI_INT_ERRP = 9,
    /// `bool (*)(void *opaque, Error **errp)`
    SAVEVM_ABI_BOOL_ERRP = 10,
    /// `int (*)(void *opaque, int version_id)`
    SAVEVM_ABI_INT_VERSION = 11,
    /// `bool (*)(void *opaque, int version_id)`
    SAVEVM_ABI_BOOL_VERSION = 12,
    /// `bool (*)(void *opaque, int version_id, Error **errp)`
    SAVEVM_ABI_BOOL_VERSION_ERRP = 13,
    /// `void (*)(QEMUFile *f, void *opaque)`
    SAVEVM_ABI_VOID_FILE = 14,
    /// `int (*)(QEMUFile *f, void *opaque)`
    SAVEVM_ABI_INT_FILE = 15,
    /// `int (*)(QEMUFile *f, void *opaque, Error **errp)`
    SAVEVM_ABI_INT_FILE_ERRP = 16,
    /// `bool (*)(QEMUFile *f, void *opaque, Error **errp)`
    SAVEVM_ABI_BOOL_FILE_ERRP = 17,
    /// `int (*)(QEMUFile *f, void *opaque, int version_id)`
    SAVEVM_ABI_INT_FILE_VERSION = 18,
    /// `int (*)(MigrationState *s, void *opaque)`
    SAVEVM_ABI_INT_MIGRATION = 19,
    /// `save_live_pending` of QEMU 7.2
    SAVEVM_ABI_PENDING = 20,
    /// `void (*)(void *opaque, uint64_t *must_precopy, uint64_t *can_postcopy)`
    SAVEVM_ABI_STATE_PENDING = 21,
    /// `bool (*)(SaveLiveCompletePrecopyThreadData *d, Error **errp)`
    SAVEVM_ABI_SAVE_THREAD = 22,
    /// `bool (*)(void *opaque, char *buf, size_t len, Error **errp)`
    SAVEVM_ABI_LOAD_BUFFER = 23,
    /// `void (*)(void *opaque, MigPendingData *pending, bool exact, bool final)` (QEMU 11.1). It adds to `pending`, which is
    /// zero. The library calls it with `final` false.
    SAVEVM_ABI_QUERY_PENDING = 24,
    /// `VMStateInfo.get`
    SAVEVM_ABI_GET = 25,
    /// `VMStateInfo.put`
    SAVEVM_ABI_PUT = 26,
    /// `VMStateInfo.load` of QEMU 11.1, with an `Error **`
    SAVEVM_ABI_LOAD_ERRP = 27,
    /// `VMStateInfo.save` of QEMU 11.1, with an `Error **`
    SAVEVM_ABI_SAVE_ERRP = 28,
    /// `uint64_t`, where that is not the same type as `size_t`
    SAVEVM_ABI_UINT64 = 29,
}

/// A constant of QEMU's headers: a value of MigrationPriority, or a bit of VMStateField.flags.
#[expect(non_camel_case_types, reason = "the names of QEMU's constants")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMAbiConstantId {
    /// `MIG_PRI_UNINITIALIZED`
    SAVEVM_ABI_MIG_PRI_UNINITIALIZED = 0,
    /// `MIG_PRI_LOW`
    SAVEVM_ABI_MIG_PRI_LOW = 1,
    /// `MIG_PRI_DEFAULT`
    SAVEVM_ABI_MIG_PRI_DEFAULT = 2,
    /// `MIG_PRI_IOMMU`
    SAVEVM_ABI_MIG_PRI_IOMMU = 3,
    /// `MIG_PRI_PCI_BUS`
    SAVEVM_ABI_MIG_PRI_PCI_BUS = 4,
    /// `MIG_PRI_VIRTIO_MEM`
    SAVEVM_ABI_MIG_PRI_VIRTIO_MEM = 5,
    /// `MIG_PRI_APIC`
    SAVEVM_ABI_MIG_PRI_APIC = 6,
    /// `MIG_PRI_GICV3_ITS`
    SAVEVM_ABI_MIG_PRI_GICV3_ITS = 7,
    /// `MIG_PRI_GICV3`
    SAVEVM_ABI_MIG_PRI_GICV3 = 8,
    /// `MIG_PRI_MAX`
    SAVEVM_ABI_MIG_PRI_MAX = 9,
    /// `VMS_SINGLE`
    SAVEVM_ABI_VMS_SINGLE = 10,
    /// `VMS_POINTER`
    SAVEVM_ABI_VMS_POINTER = 11,
    /// `VMS_ARRAY`
    SAVEVM_ABI_VMS_ARRAY = 12,
    /// `VMS_STRUCT`
    SAVEVM_ABI_VMS_STRUCT = 13,
    /// `VMS_VARRAY_INT32`
    SAVEVM_ABI_VMS_VARRAY_INT32 = 14,
    /// `VMS_BUFFER`
    SAVEVM_ABI_VMS_BUFFER = 15,
    /// `VMS_ARRAY_OF_POINTER`
    SAVEVM_ABI_VMS_ARRAY_OF_POINTER = 16,
    /// `VMS_VARRAY_UINT16`
    SAVEVM_ABI_VMS_VARRAY_UINT16 = 17,
    /// `VMS_VBUFFER`
    SAVEVM_ABI_VMS_VBUFFER = 18,
    /// `VMS_MULTIPLY`
    SAVEVM_ABI_VMS_MULTIPLY = 19,
    /// `VMS_VARRAY_UINT8`
    SAVEVM_ABI_VMS_VARRAY_UINT8 = 20,
    /// `VMS_VARRAY_UINT32`
    SAVEVM_ABI_VMS_VARRAY_UINT32 = 21,
    /// `VMS_MUST_EXIST`
    SAVEVM_ABI_VMS_MUST_EXIST = 22,
    /// `VMS_ALLOC`
    SAVEVM_ABI_VMS_ALLOC = 23,
    /// `VMS_MULTIPLY_ELEMENTS`
    SAVEVM_ABI_VMS_MULTIPLY_ELEMENTS = 24,
    /// `VMS_VSTRUCT`
    SAVEVM_ABI_VMS_VSTRUCT = 25,
    /// `VMS_END`
    SAVEVM_ABI_VMS_END = 26,
}

/// One member of a table; see SAVEVM_ABI_MEMBER().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMAbiMember {
    /// The member.
    pub member: MaybeUninit<SaveVMAbiMemberId>,
    /// Its type.
    pub kind: MaybeUninit<SaveVMAbiKind>,
    /// Its offset in bytes.
    pub offset: usize,
}

/// The value of a constant; see SAVEVM_ABI_CONSTANT().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMAbiConstant {
    /// The constant.
    pub constant: MaybeUninit<SaveVMAbiConstantId>,
    /// Its value.
    pub value: u32,
}

/// Bits of `SaveVMAbiDescription.semantics`. `save_setup` runs inside the big lock (QEMU 8.2).
pub const SAVEVM_SEMANTICS_SETUP_LOCKED: u64 = 1 << 0;
/// A second registration of a name and instance is refused (QEMU 8.2, which exits).
pub const SAVEVM_SEMANTICS_REFUSE_DUPLICATES: u64 = 1 << 1;
/// A round visits all devices, and is complete if all of them are (QEMU 9.0).
pub const SAVEVM_SEMANTICS_ITERATE_ALL: u64 = 1 << 2;
/// A failure of save_setup, and of precopy_notify after it, is returned (QEMU 9.1).
pub const SAVEVM_SEMANTICS_SETUP_ERRORS: u64 = 1 << 3;
/// CPUs are synchronised after the live devices and before all other devices are saved (QEMU 10.0).
pub const SAVEVM_SEMANTICS_SYNC_CPUS_LATE: u64 = 1 << 4;
/// SWITCHOVER_START is sent and understood (QEMU 10.0). SAVEVM_FLAG_NO_SWITCHOVER_START omits it for older machine types.
pub const SAVEVM_SEMANTICS_SWITCHOVER_START: u64 = 1 << 5;
/// The description of the stream begins with the configuration section (QEMU 8.2).
pub const SAVEVM_SEMANTICS_DESCRIBE_CONFIGURATION: u64 = 1 << 6;
/// The description of the stream names null pointers in arrays (QEMU 10.0).
pub const SAVEVM_SEMANTICS_DESCRIBE_NULLS: u64 = 1 << 7;
/// Lists of fields must have their end marker VMS_END, and names of subsections must begin with their parent's name
/// (QEMU 8.0).
pub const SAVEVM_SEMANTICS_CHECK_DESCRIPTIONS: u64 = 1 << 8;
/// The dump of a description has the number of elements of arrays: savevm_describe(), -dump-vmstate (QEMU 8.1).
pub const SAVEVM_SEMANTICS_DUMP_COUNTS: u64 = 1 << 9;
/// A subsection that cannot be loaded sets the error of the file (QEMU 8.2).
pub const SAVEVM_SEMANTICS_LATCH_SUBSECTIONS: u64 = 1 << 10;
/// The description of the stream has spaces inside of brackets and before colons (up to QEMU 5.2).
pub const SAVEVM_SEMANTICS_DESCRIBE_SPACED: u64 = 1 << 11;
/// precopy_notify is not called with SAVEVM_PRECOPY_SETUP if a device failed (QEMU 9.0).
pub const SAVEVM_SEMANTICS_SKIP_SETUP_NOTICE: u64 = 1 << 12;
/// load_cleanup is called after a load that failed in load_setup, too (QEMU 9.2).
pub const SAVEVM_SEMANTICS_CLEAN_FAILED_SETUP: u64 = 1 << 13;
/// All switches of QEMU version `qemu_version`, in addition to the other bits that are set.
pub const SAVEVM_SEMANTICS_OF_VERSION: u64 = 1 << 30;

sized_structs! {
    SaveVMAbiDescription, SAVEVM_ABI_DESCRIPTION_INIT, pending_size;
}

/// How the tables of a QEMU version are laid out, and which semantics they expect. A port compiles the description in QEMU's
/// tree, so the compiler provides all offsets. A member that is not listed does not exist in the version.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMAbiDescription {
    /// sizeof(SaveVMAbiDescription).
    pub size: usize,
    /// The version of QEMU: major * 100 + minor.
    pub qemu_version: u32,
    /// SAVEVM_SEMANTICS_*.
    pub semantics: u64,
    /// Size of a SaveVMHandlers of the version in bytes.
    pub handlers_size: usize,
    /// Size of a VMStateDescription of the version in bytes.
    pub description_size: usize,
    /// Size of a VMStateField of the version in bytes.
    pub field_size: usize,
    /// Size of a VMStateInfo of the version in bytes.
    pub info_size: usize,
    /// The members of all structs, in any order.
    pub members: *const SaveVMAbiMember,
    /// Number of members.
    pub member_count: usize,
    /// The constants.
    pub constants: *const SaveVMAbiConstant,
    /// Number of constants.
    pub constant_count: usize,
    /// Size of a MigPendingData of the version in bytes, the argument of save_query_pending. 0: the version has none.
    pub pending_size: usize,
}
