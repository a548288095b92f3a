// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reads the members of descriptions, fields and infos: as those of QEMU 7.2, or by the offsets of a layout.
//!
//! The interpreter is compiled once for each `Layout`. `Native` and `Hooked` have no size and read the members of structs, so that
//! descriptions of QEMU 7.2 are as fast as without this module, and those of 10.2 nearly so.

use super::types::{
    ErrorHookFn, GetFn, HookFn, HookedDescription, PutFn, TestFn, VMStateDescription, VMStateField, VMStateInfo,
};
use crate::ffi::abi::{Abi, Struct};
use crate::ffi::marshal::opaque::{Error as CError, JSONWriter, QEMUFile};
use crate::ffi::types::abi::SaveVMAbiKind as Kind;
use crate::ffi::types::abi::SaveVMAbiMemberId::{self as Id, *};
use std::ffi::{c_char, c_int, c_void};
use std::ptr::NonNull;

/// The layout of QEMU 7.2.
#[derive(Clone, Copy)]
pub(crate) struct Native;

/// The layout of QEMU 10.2: a description has hooks that return an error.
#[derive(Clone, Copy)]
pub(crate) struct Hooked;

/// A layout in which only descriptions differ from QEMU 7.2.
#[derive(Clone, Copy)]
pub(crate) struct Descriptions(pub(in crate::ffi) &'static Abi);

/// A layout that differs in more.
#[derive(Clone, Copy)]
pub(crate) struct Described(pub(in crate::ffi) &'static Abi);

/// A hook of a description. `None` if there is none.
#[derive(Clone, Copy)]
pub(crate) enum Hook {
    None,
    /// Returns 0 or a negative errno.
    Code(HookFn),
    /// Returns nothing.
    Void(unsafe extern "C" fn(opaque: *mut c_void)),
    /// Returns whether it succeeded, else an error.
    Error(ErrorHookFn),
}

/// `VMStateDescription.post_load`
pub(crate) type LoadedFn = unsafe extern "C" fn(opaque: *mut c_void, version_id: c_int) -> c_int;

/// The hook after a load, which receives the stream's version.
#[derive(Clone, Copy)]
pub(crate) enum LoadedHook {
    None,
    Code(LoadedFn),
    Error(unsafe extern "C" fn(opaque: *mut c_void, version_id: c_int, errp: *mut *mut CError) -> bool),
}

/// `VMStateDescription.load_state_old` of QEMU 5.0 to 6.2.
pub(crate) type LoadOldFn = unsafe extern "C" fn(f: *mut QEMUFile, opaque: *mut c_void, version_id: c_int) -> c_int;

/// `VMStateInfo.load` of QEMU 11.1.
pub(crate) type LoadErrorFn = unsafe extern "C" fn(
    f: *mut QEMUFile,
    pv: *mut c_void,
    size: usize,
    field: *const VMStateField,
    errp: *mut *mut CError,
) -> bool;
/// `VMStateInfo.save` of QEMU 11.1.
pub(crate) type SaveErrorFn = unsafe extern "C" fn(
    f: *mut QEMUFile,
    pv: *mut c_void,
    size: usize,
    field: *const VMStateField,
    vmdesc: *mut JSONWriter,
    errp: *mut *mut CError,
) -> bool;

/// How an info of the program reads an element.
#[derive(Clone, Copy)]
pub(crate) enum Getter {
    None,
    Code(GetFn),
    Error(LoadErrorFn),
}

/// How an info of the program writes an element.
#[derive(Clone, Copy)]
pub(crate) enum Putter {
    None,
    Code(PutFn),
    Error(SaveErrorFn),
}

/// `VMStateField.field_exists`
pub(crate) type ExistsFn = unsafe extern "C" fn(opaque: *mut c_void, version_id: c_int) -> bool;

/// Declares the members that are read as they are: the function, the struct, the member and its type in QEMU 7.2.
macro_rules! plain_members {
    ($($name:ident $table:ident $member:ident $id:ident $of:ident $type:ty;)*) => {
        /// A layout of descriptions, fields and infos.
        ///
        /// # Safety
        /// The pointers that the functions receive must be tables of this layout that stay as they are.
        pub(crate) trait Layout: Copy + 'static {
            $(unsafe fn $name(self, table: NonNull<$table>) -> $type;)*
            /// The flags as those of QEMU 7.2.
            unsafe fn field_flags(self, field: NonNull<VMStateField>) -> u32;
            /// The flags with the values of this layout.
            unsafe fn own_flags(self, field: NonNull<VMStateField>) -> u32;
            unsafe fn next_field(self, field: NonNull<VMStateField>) -> NonNull<VMStateField>;
            unsafe fn after(self, description: *const VMStateDescription) -> *const VMStateDescription;
            unsafe fn pre_load(self, description: NonNull<VMStateDescription>) -> Hook;
            unsafe fn post_load(self, description: NonNull<VMStateDescription>) -> LoadedHook;
            unsafe fn pre_save(self, description: NonNull<VMStateDescription>) -> Hook;
            unsafe fn post_save(self, description: NonNull<VMStateDescription>) -> Hook;
            /// Returns the function that loads versions below the minimum, and the oldest of them.
            #[inline(always)]
            unsafe fn load_old(self, _description: NonNull<VMStateDescription>) -> Option<(LoadOldFn, c_int)> {
                None
            }
            unsafe fn getter(self, info: NonNull<VMStateInfo>) -> Getter;
            unsafe fn putter(self, info: NonNull<VMStateInfo>) -> Putter;
            /// Whether infos are as those of QEMU 7.2, as the library's own are in every layout.
            const NATIVE_INFOS: bool;
        }

        impl Layout for Native {
            $(
                #[inline(always)]
                unsafe fn $name(self, table: NonNull<$table>) -> $type {
                    // SAFETY: a table of this layout (contract of `Layout`).
                    unsafe { (*table.as_ptr()).$member }
                }
            )*
            native_members!();
            const NATIVE_INFOS: bool = true;
        }

        impl Layout for Hooked {
            $(
                #[inline(always)]
                unsafe fn $name(self, table: NonNull<$table>) -> $type {
                    // SAFETY: a table of this layout (contract of `Layout`).
                    unsafe { hooked_or_native!($of $member table) }
                }
            )*
            hooked_members!();
            const NATIVE_INFOS: bool = true;
        }

        impl Layout for Descriptions {
            $(
                #[inline(always)]
                unsafe fn $name(self, table: NonNull<$table>) -> $type {
                    // SAFETY: a table of this layout (contract of `Layout`).
                    unsafe { read_or_native!($of self $table $member $id table) }
                }
            )*
            described_hooks!();
            native_fields!();
            const NATIVE_INFOS: bool = true;
        }

        impl Layout for Described {
            $(
                #[inline]
                unsafe fn $name(self, table: NonNull<$table>) -> $type {
                    // SAFETY: a table of this layout (contract of `Layout`), and a number, a pointer or a function that
                    // may be NULL, of the width that the types of the member have.
                    unsafe { self.0.read($id, table.cast()) }
                }
            )*
            described_hooks!();
            const NATIVE_INFOS: bool = false;

            unsafe fn field_flags(self, field: NonNull<VMStateField>) -> u32 {
                // SAFETY: a table of this layout (contract of `Layout`).
                self.0.flags(unsafe { self.own_flags(field) })
            }

            unsafe fn own_flags(self, field: NonNull<VMStateField>) -> u32 {
                // SAFETY: as above.
                unsafe { self.0.read(SAVEVM_ABI_VMStateField_flags, field.cast()) }
            }

            unsafe fn next_field(self, field: NonNull<VMStateField>) -> NonNull<VMStateField> {
                // SAFETY: the entry has a name, so another entry follows it.
                unsafe { field.byte_add(self.0.size(Struct::Field)) }
            }

            unsafe fn getter(self, info: NonNull<VMStateInfo>) -> Getter {
                // SAFETY: a table of this layout (contract of `Layout`).
                unsafe {
                    match function(self.0, SAVEVM_ABI_VMStateInfo_load, info.cast()) {
                        Some(load) => Getter::Error(load),
                        None => function(self.0, SAVEVM_ABI_VMStateInfo_get, info.cast()).map_or(Getter::None, Getter::Code),
                    }
                }
            }

            unsafe fn putter(self, info: NonNull<VMStateInfo>) -> Putter {
                // SAFETY: a table of this layout (contract of `Layout`).
                unsafe {
                    match function(self.0, SAVEVM_ABI_VMStateInfo_save, info.cast()) {
                        Some(save) => Putter::Error(save),
                        None => function(self.0, SAVEVM_ABI_VMStateInfo_put, info.cast()).map_or(Putter::None, Putter::Code),
                    }
                }
            }
        }
    };
}

macro_rules! read_or_native {
    (description $self:ident $table:ident $member:ident $id:ident $at:ident) => {
        $self.0.read($id, $at.cast())
    };
    (required $self:ident $table:ident $member:ident $id:ident $at:ident) => {
        $self.0.read_required($id, $at.cast())
    };
    (field $self:ident $table:ident $member:ident $id:ident $at:ident) => {
        (*$at.as_ptr()).$member
    };
}

macro_rules! hooked_or_native {
    (field $member:ident $at:ident) => {
        (*$at.as_ptr()).$member
    };
    ($description:ident $member:ident $at:ident) => {
        (*$at.cast::<HookedDescription>().as_ptr()).$member
    };
}

/// Fields and infos as those of QEMU 7.2.
macro_rules! native_fields {
    () => {
        #[inline(always)]
        unsafe fn field_flags(self, field: NonNull<VMStateField>) -> u32 {
            // SAFETY: a table of this layout (contract of `Layout`).
            unsafe { (*field.as_ptr()).flags }
        }

        unsafe fn own_flags(self, field: NonNull<VMStateField>) -> u32 {
            // SAFETY: as above. The flags of such fields have the values of QEMU 7.2.
            unsafe { self.field_flags(field) }
        }

        #[inline(always)]
        unsafe fn next_field(self, field: NonNull<VMStateField>) -> NonNull<VMStateField> {
            // SAFETY: the entry has a name, so another entry follows it.
            unsafe { field.add(1) }
        }

        #[inline(always)]
        unsafe fn getter(self, info: NonNull<VMStateInfo>) -> Getter {
            // SAFETY: a table of this layout (contract of `Layout`).
            unsafe { (*info.as_ptr()).get }.map_or(Getter::None, Getter::Code)
        }

        #[inline(always)]
        unsafe fn putter(self, info: NonNull<VMStateInfo>) -> Putter {
            // SAFETY: a table of this layout (contract of `Layout`).
            unsafe { (*info.as_ptr()).put }.map_or(Putter::None, Putter::Code)
        }
    };
}

macro_rules! native_hooks {
    ($($name:ident)*) => {$(
        #[inline(always)]
        unsafe fn $name(self, description: NonNull<VMStateDescription>) -> Hook {
            // SAFETY: a table of this layout (contract of `Layout`).
            unsafe { (*description.as_ptr()).$name }.map_or(Hook::None, Hook::Code)
        }
    )*};
}

macro_rules! native_members {
    () => {
        native_fields!();
        native_hooks!(pre_load pre_save post_save);

        #[inline(always)]
        unsafe fn post_load(self, description: NonNull<VMStateDescription>) -> LoadedHook {
            // SAFETY: a table of this layout (contract of `Layout`).
            unsafe { (*description.as_ptr()).post_load }.map_or(LoadedHook::None, LoadedHook::Code)
        }

        #[inline(always)]
        unsafe fn after(self, description: *const VMStateDescription) -> *const VMStateDescription {
            description.wrapping_add(1)
        }
    };
}

macro_rules! hooked_members {
    () => {
        native_fields!();

        #[inline(always)]
        unsafe fn pre_load(self, description: NonNull<VMStateDescription>) -> Hook {
            // SAFETY: a table of this layout (contract of `Layout`).
            let table = unsafe { description.cast::<HookedDescription>().as_ref() };
            either(table.pre_load_errp, table.pre_load)
        }

        #[inline(always)]
        unsafe fn post_load(self, description: NonNull<VMStateDescription>) -> LoadedHook {
            // SAFETY: a table of this layout (contract of `Layout`).
            let table = unsafe { description.cast::<HookedDescription>().as_ref() };
            match table.post_load_errp {
                Some(hook) => LoadedHook::Error(hook),
                None => table.post_load.map_or(LoadedHook::None, LoadedHook::Code),
            }
        }

        #[inline(always)]
        unsafe fn pre_save(self, description: NonNull<VMStateDescription>) -> Hook {
            // SAFETY: a table of this layout (contract of `Layout`).
            let table = unsafe { description.cast::<HookedDescription>().as_ref() };
            either(table.pre_save_errp, table.pre_save)
        }

        #[inline(always)]
        unsafe fn post_save(self, description: NonNull<VMStateDescription>) -> Hook {
            // SAFETY: a table of this layout (contract of `Layout`).
            unsafe { description.cast::<HookedDescription>().as_ref() }.post_save.map_or(Hook::None, Hook::Code)
        }

        #[inline(always)]
        unsafe fn after(self, description: *const VMStateDescription) -> *const VMStateDescription {
            description.wrapping_byte_add(size_of::<HookedDescription>())
        }
    };
}

macro_rules! described_hooks {
    () => {
        #[inline(always)]
        unsafe fn pre_load(self, description: NonNull<VMStateDescription>) -> Hook {
            let ids = (SAVEVM_ABI_VMStateDescription_pre_load_errp, SAVEVM_ABI_VMStateDescription_pre_load);
            // SAFETY: a table of this layout (contract of `Layout`).
            unsafe { hook(self.0, ids, description.cast()) }
        }

        #[inline(always)]
        unsafe fn post_load(self, description: NonNull<VMStateDescription>) -> LoadedHook {
            // SAFETY: a table of this layout (contract of `Layout`).
            unsafe {
                match function(self.0, SAVEVM_ABI_VMStateDescription_post_load_errp, description.cast()) {
                    Some(hook) => LoadedHook::Error(hook),
                    None => function(self.0, SAVEVM_ABI_VMStateDescription_post_load, description.cast())
                        .map_or(LoadedHook::None, LoadedHook::Code),
                }
            }
        }

        #[inline(always)]
        unsafe fn pre_save(self, description: NonNull<VMStateDescription>) -> Hook {
            let ids = (SAVEVM_ABI_VMStateDescription_pre_save_errp, SAVEVM_ABI_VMStateDescription_pre_save);
            // SAFETY: a table of this layout (contract of `Layout`).
            unsafe { hook(self.0, ids, description.cast()) }
        }

        #[inline(always)]
        unsafe fn post_save(self, description: NonNull<VMStateDescription>) -> Hook {
            let id = SAVEVM_ABI_VMStateDescription_post_save;
            // SAFETY: a table of this layout (contract of `Layout`).
            unsafe {
                if self.0.read::<*const ()>(id, description.cast()).is_null() {
                    return Hook::None;
                }
                if self.0.is(id, Kind::SAVEVM_ABI_VOID) {
                    return function(self.0, id, description.cast()).map_or(Hook::None, Hook::Void);
                }
                function(self.0, id, description.cast()).map_or(Hook::None, Hook::Code)
            }
        }

        unsafe fn load_old(self, description: NonNull<VMStateDescription>) -> Option<(LoadOldFn, c_int)> {
            let oldest = SAVEVM_ABI_VMStateDescription_minimum_version_id_old;
            // SAFETY: a table of this layout (contract of `Layout`). A member that the layout lacks is read as 0.
            unsafe {
                let load = function(self.0, SAVEVM_ABI_VMStateDescription_load_state_old, description.cast())?;
                Some((load, self.0.read(oldest, description.cast())))
            }
        }

        unsafe fn after(self, description: *const VMStateDescription) -> *const VMStateDescription {
            description.wrapping_byte_add(self.0.size(Struct::Description))
        }
    };
}

plain_members! {
    description_name VMStateDescription name SAVEVM_ABI_VMStateDescription_name required *const c_char;
    description_version VMStateDescription version_id SAVEVM_ABI_VMStateDescription_version_id required c_int;
    minimum_version VMStateDescription minimum_version_id SAVEVM_ABI_VMStateDescription_minimum_version_id required c_int;
    needed VMStateDescription needed SAVEVM_ABI_VMStateDescription_needed description Option<TestFn>;
    fields VMStateDescription fields SAVEVM_ABI_VMStateDescription_fields required *const VMStateField;
    subsections VMStateDescription subsections SAVEVM_ABI_VMStateDescription_subsections required *const *const VMStateDescription;
    unplug_pending VMStateDescription dev_unplug_pending SAVEVM_ABI_VMStateDescription_dev_unplug_pending description Option<TestFn>;
    priority VMStateDescription priority SAVEVM_ABI_VMStateDescription_priority description u32;
    field_name VMStateField name SAVEVM_ABI_VMStateField_name field *const c_char;
    hint VMStateField err_hint SAVEVM_ABI_VMStateField_err_hint field *const c_char;
    offset VMStateField offset SAVEVM_ABI_VMStateField_offset field usize;
    field_size VMStateField size SAVEVM_ABI_VMStateField_size field usize;
    start VMStateField start SAVEVM_ABI_VMStateField_start field usize;
    num VMStateField num SAVEVM_ABI_VMStateField_num field c_int;
    num_offset VMStateField num_offset SAVEVM_ABI_VMStateField_num_offset field usize;
    size_offset VMStateField size_offset SAVEVM_ABI_VMStateField_size_offset field usize;
    info VMStateField info SAVEVM_ABI_VMStateField_info field *const VMStateInfo;
    inner VMStateField vmsd SAVEVM_ABI_VMStateField_vmsd field *const VMStateDescription;
    field_version VMStateField version_id SAVEVM_ABI_VMStateField_version_id field c_int;
    struct_version VMStateField struct_version_id SAVEVM_ABI_VMStateField_struct_version_id field c_int;
    exists VMStateField field_exists SAVEVM_ABI_VMStateField_field_exists field Option<ExistsFn>;
    info_name VMStateInfo name SAVEVM_ABI_VMStateInfo_name field *const c_char;
}

/// Reads a member that is a function, or NULL.
///
/// # Safety
/// `table` must be a struct of `abi` that has the member, and `F` the type of the member's kind.
#[inline(always)]
unsafe fn function<F: Copy>(abi: &Abi, id: Id, table: NonNull<u8>) -> Option<F> {
    const { assert!(size_of::<Option<F>>() == size_of::<usize>()) };
    // SAFETY: the contract of the function; NULL is `None`.
    unsafe { abi.read::<Option<F>>(id, table) }
}

/// Returns the hook with an error, or the one without if there is none.
#[inline(always)]
fn either(with_error: Option<ErrorHookFn>, plain: Option<HookFn>) -> Hook {
    match with_error {
        Some(hook) => Hook::Error(hook),
        None => plain.map_or(Hook::None, Hook::Code),
    }
}

/// Reads a hook that has a form with an error and one without.
///
/// # Safety
/// `table` must be a description of `abi`.
#[inline(always)]
unsafe fn hook(abi: &Abi, (with_error, plain): (Id, Id), table: NonNull<u8>) -> Hook {
    // SAFETY: the contract of the function; the types are those of the kinds that these members have.
    unsafe {
        match function(abi, with_error, table) {
            Some(hook) => Hook::Error(hook),
            None => either(None, function(abi, plain, table)),
        }
    }
}

/// Reads `unmigratable`, which is an `int` up to QEMU 7.2 and a `bool` since. `abi` is `None` for QEMU 7.2.
///
/// # Safety
/// `description` must be a description of `abi`.
pub(super) unsafe fn is_unmigratable(abi: Option<&Abi>, description: NonNull<VMStateDescription>) -> bool {
    let id = SAVEVM_ABI_VMStateDescription_unmigratable;
    // SAFETY: the contract of the function.
    unsafe {
        match abi {
            None => description.as_ref().unmigratable != 0,
            Some(abi) if abi.is(id, Kind::SAVEVM_ABI_BOOL8) => abi.read::<u8>(id, description.cast()) != 0,
            Some(abi) => abi.read::<c_int>(id, description.cast()) != 0,
        }
    }
}

/// Reads `early_setup`. `abi` is `None` for QEMU 7.2.
///
/// # Safety
/// `description` must be a description of `abi`.
pub(super) unsafe fn is_early(abi: Option<&Abi>, description: NonNull<VMStateDescription>) -> bool {
    let id = SAVEVM_ABI_VMStateDescription_early_setup;
    // SAFETY: the contract of the function.
    abi.is_some_and(|abi| unsafe { abi.read::<u8>(id, description.cast()) } != 0)
}

/// Runs an expression with the `Layout` of an `Option<&'static Abi>`; `None` is QEMU 7.2.
macro_rules! with_layout {
    ($abi:expr, |$layout:ident| $body:expr) => {
        match $abi.map(|abi| (abi, abi.reader)) {
            None | Some((_, $crate::ffi::abi::Reader::Native)) => {
                let $layout = $crate::ffi::vmstate::layout::Native;
                $body
            }
            Some((_, $crate::ffi::abi::Reader::Hooked)) => {
                let $layout = $crate::ffi::vmstate::layout::Hooked;
                $body
            }
            Some((abi, $crate::ffi::abi::Reader::Descriptions)) => {
                let $layout = $crate::ffi::vmstate::layout::Descriptions(abi);
                $body
            }
            Some((abi, $crate::ffi::abi::Reader::All)) => {
                let $layout = $crate::ffi::vmstate::layout::Described(abi);
                $body
            }
        }
    };
}
pub(super) use with_layout;
