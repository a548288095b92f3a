// SPDX-License-Identifier: LGPL-2.1-or-later
//! The structures of `migration/vmstate.h`, laid out as in QEMU 7.2. The hand-written header must have the same layout.

use crate::ffi::marshal::opaque::{Error as CError, JSONWriter, QEMUFile};
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::mem::offset_of;

/// The encoding of one element.
#[repr(C)]
pub struct VMStateInfo {
    /// Name of the type in the vmdesc, or NULL.
    pub name: *const c_char,
    /// Reads an element. Returns 0 or a negative errno.
    pub get: Option<GetFn>,
    /// Writes an element. Returns 0 or a negative errno.
    pub put: Option<PutFn>,
}

/// `VMStateInfo.get`
pub type GetFn =
    unsafe extern "C" fn(f: *mut QEMUFile, pv: *mut c_void, size: usize, field: *const VMStateField) -> c_int;
/// `VMStateInfo.put`
pub type PutFn = unsafe extern "C" fn(
    f: *mut QEMUFile,
    pv: *mut c_void,
    size: usize,
    field: *const VMStateField,
    vmdesc: *mut JSONWriter,
) -> c_int;

// SAFETY: an info is constant; the name is a constant string and the functions may run on any thread.
unsafe impl Sync for VMStateInfo {}

/// One field of a description. A NULL name ends the table.
#[repr(C)]
pub struct VMStateField {
    /// Name, unique or numbered in the vmdesc.
    pub name: *const c_char,
    /// Hint for a failed check, or NULL.
    pub err_hint: *const c_char,
    /// Offset in the state, in bytes.
    pub offset: usize,
    /// Size of an element, in bytes.
    pub size: usize,
    /// Containers: offset of the link, or size of a key. Variable arrays in place: size of the array in bytes, or 0.
    pub start: usize,
    /// Number of elements, or the factor for it.
    pub num: c_int,
    /// Offset of the count in the state, in bytes.
    pub num_offset: usize,
    /// Offset of the size in the state, in bytes.
    pub size_offset: usize,
    /// Encoding of the elements, unless they are structures.
    pub info: *const VMStateInfo,
    /// `VMS_*`
    pub flags: c_uint,
    /// Description of the elements, if they are structures.
    pub vmsd: *const VMStateDescription,
    /// First version that has the field.
    pub version_id: c_int,
    /// Version of a VSTRUCT.
    pub struct_version_id: c_int,
    /// Decides instead of the version whether the field is present.
    pub field_exists: Option<unsafe extern "C" fn(opaque: *mut c_void, version_id: c_int) -> bool>,
}

/// A hook that receives the state.
pub type HookFn = unsafe extern "C" fn(opaque: *mut c_void) -> c_int;
/// A predicate over the state.
pub type TestFn = unsafe extern "C" fn(opaque: *mut c_void) -> bool;

/// The description of a device's or structure's state.
#[repr(C)]
pub struct VMStateDescription {
    /// Name; a subsection's begins with its parent's and a slash.
    pub name: *const c_char,
    /// If not 0, migration is blocked while the device is registered.
    pub unmigratable: c_int,
    /// The version that is saved, and the newest that is loaded.
    pub version_id: c_int,
    /// The oldest version that is loaded.
    pub minimum_version_id: c_int,
    /// `MigrationPriority`
    pub priority: c_uint,
    /// Called before loading.
    pub pre_load: Option<HookFn>,
    /// Called after loading.
    pub post_load: Option<unsafe extern "C" fn(opaque: *mut c_void, version_id: c_int) -> c_int>,
    /// Called before saving.
    pub pre_save: Option<HookFn>,
    /// Called after saving.
    pub post_save: Option<HookFn>,
    /// Returns whether the state is saved.
    pub needed: Option<TestFn>,
    /// Returns whether the guest still has to release the device.
    pub dev_unplug_pending: Option<TestFn>,
    /// The fields.
    pub fields: *const VMStateField,
    /// The subsections, up to a NULL; or NULL.
    pub subsections: *const *const VMStateDescription,
}

/// A hook that returns whether it succeeded, else an error.
pub type ErrorHookFn = unsafe extern "C" fn(opaque: *mut c_void, errp: *mut *mut CError) -> bool;

/// The description of QEMU 10.2, whose hooks may return an error. Members without a comment are those of `VMStateDescription`.
#[repr(C)]
#[allow(missing_docs)]
pub struct HookedDescription {
    pub name: *const c_char,
    /// Whether migration is blocked while the device is registered.
    pub unmigratable: u8,
    /// Whether the state is saved while the migration is set up.
    pub early_setup: u8,
    pub version_id: c_int,
    pub minimum_version_id: c_int,
    pub priority: c_uint,
    pub pre_load: Option<HookFn>,
    /// Called instead of `pre_load`.
    pub pre_load_errp: Option<ErrorHookFn>,
    pub post_load: Option<unsafe extern "C" fn(opaque: *mut c_void, version_id: c_int) -> c_int>,
    /// Called instead of `post_load`.
    pub post_load_errp:
        Option<unsafe extern "C" fn(opaque: *mut c_void, version_id: c_int, errp: *mut *mut CError) -> bool>,
    pub pre_save: Option<HookFn>,
    /// Called instead of `pre_save`.
    pub pre_save_errp: Option<ErrorHookFn>,
    pub post_save: Option<HookFn>,
    pub needed: Option<TestFn>,
    pub dev_unplug_pending: Option<TestFn>,
    pub fields: *const VMStateField,
    pub subsections: *const *const VMStateDescription,
}

const WORD: usize = size_of::<usize>();
/// Two ints after a name take one word on 64-bit machines and two on 32-bit ones.
const INTS: usize = 16usize.next_multiple_of(WORD);
const ONE_INT: usize = 4usize.next_multiple_of(WORD);

const _: () = {
    assert!(size_of::<VMStateInfo>() == 3 * WORD);
    assert!(offset_of!(VMStateInfo, get) == WORD);

    assert!(offset_of!(VMStateField, num) == 5 * WORD);
    assert!(offset_of!(VMStateField, num_offset) == 5 * WORD + ONE_INT);
    assert!(offset_of!(VMStateField, info) == 7 * WORD + ONE_INT);
    assert!(offset_of!(VMStateField, flags) == 8 * WORD + ONE_INT);
    assert!(offset_of!(VMStateField, vmsd) == 8 * WORD + 2 * ONE_INT);
    assert!(offset_of!(VMStateField, version_id) == 9 * WORD + 2 * ONE_INT);
    assert!(offset_of!(VMStateField, field_exists) == 9 * WORD + 2 * ONE_INT + 8);
    assert!(size_of::<VMStateField>() == 10 * WORD + 2 * ONE_INT + 8);

    assert!(offset_of!(VMStateDescription, pre_load) == WORD + INTS);
    assert!(offset_of!(VMStateDescription, fields) == 7 * WORD + INTS);
    assert!(size_of::<VMStateDescription>() == 9 * WORD + INTS);
    assert!(offset_of!(HookedDescription, pre_load) == WORD + INTS);
    assert!(offset_of!(HookedDescription, fields) == 10 * WORD + INTS);
    assert!(size_of::<HookedDescription>() == 12 * WORD + INTS);
};
