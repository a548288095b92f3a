// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm/abi.h`: layouts of other QEMU versions, and registration with one of them.

use crate::error::Error;
use crate::ffi::abi::{self, Abi};
use crate::ffi::exports::register::register;
use crate::ffi::marshal::c_file::file_ref;
use crate::ffi::marshal::castable::{self, Castable, Unique};
use crate::ffi::marshal::guard::{guard, guard_error};
use crate::ffi::marshal::opaque::{Error as CError, JSONWriter, QEMUFile, SaveVM, SaveVMAbi, VMStateIf};
use crate::ffi::marshal::results::{code, code_or_error, value_or_error};
use crate::ffi::marshal::{c_error, current, strings, structs};
use crate::ffi::types::abi::SaveVMAbiDescription;
use crate::ffi::types::handler_table::SaveVMHandlers;
use crate::ffi::vmstate::types::VMStateDescription;
use crate::ffi::vmstate::{load_with, needed_with, save_with};
use crate::savevm::profile::Profile;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;

/// Value of `version_id` in savevm_abi_vmstate_save() that means the version of the description.
pub const SAVEVM_ABI_OWN_VERSION: c_int = -1;

impl Castable for SaveVMAbi {
    type Object = Abi;
    type Ownership = Unique;
}

/// Returns the layout behind a C pointer; `None` for NULL and for one that is QEMU 7.2's.
///
/// # Safety
/// `abi` must be NULL or come from savevm_abi_new() or savevm_abi_of_qemu().
unsafe fn from_c(abi: *const SaveVMAbi) -> Option<&'static Abi> {
    // SAFETY: the contract of the function; layouts are never freed.
    unsafe { castable::object(abi) }
}

/// Makes a layout from its description. It is never freed, because devices and files refer to it: make one per version.
///
/// Returns: the layout; NULL with an error that names the member if offsets overlap or are out of range, if a type is unknown, or
/// if a member is missing that every layout must have or that the semantics need.
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `description` is NULL or begins with its size; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_abi_new(
    description: *const SaveVMAbiDescription,
    errp: *mut *mut CError,
) -> *const SaveVMAbi {
    let make = || {
        // SAFETY: the contract of the function.
        let description = unsafe { structs::sized_struct(description) }?;
        let description = description.ok_or_else(|| Error::invalid("savevm_abi_new: the description is NULL"))?;
        // SAFETY: as above.
        unsafe { abi::create(&description) }.map_err(|error| {
            let version = description.qemu_version;
            Error::invalid(format!("layout of QEMU {}.{}: {}", version / 100, version % 100, error.message()))
        })
    };
    let body = || {
        // SAFETY: `errp` is NULL or points to NULL (contract of the function).
        unsafe { value_or_error(make(), errp) }.map_or(ptr::null(), |abi| castable::give::<SaveVMAbi>(abi).cast_const())
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, ptr::null(), body) }
}

/// Returns the layout of a QEMU version: major * 100 + minor, from 500 to 1002. Returns NULL for another version.
///
/// Thread: any. Lock: either.
#[unsafe(no_mangle)]
pub extern "C" fn savevm_abi_of_qemu(version: u32) -> *const SaveVMAbi {
    guard(ptr::null(), || abi::known(version).map_or(ptr::null(), |abi| castable::lend::<SaveVMAbi>(abi).cast_const()))
}

/// Sets the layout of the tables that a program registers in a context through QEMU's names, and the semantics of the context.
/// `vm` NULL means the current context of the thread. `abi` NULL means QEMU 7.2. Devices that are registered already keep their
/// layout.
///
/// Returns:
///   0       the layout is set
///   -EBUSY  a migration or snapshot of the context is in progress
///
/// Thread: any. Lock: held.
///
/// # Safety
/// `vm` is NULL or a context; `abi` is NULL or a layout; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_set_abi(vm: *mut SaveVM, abi: *const SaveVMAbi, errp: *mut *mut CError) -> c_int {
    let body = || {
        // SAFETY: the contract of the function.
        let (vm, abi) = unsafe { (current::from_c(vm), from_c(abi)) };
        let result = vm.slot.check_idle("savevm_set_abi").map(|()| {
            vm.set_layout(abi.map_or(Profile::NONE, |abi| abi.profile), abi.map_or(0, |abi| ptr::from_ref(abi).addr()));
        });
        // SAFETY: `errp` is NULL or points to NULL (contract of the function).
        unsafe { code_or_error(result, errp) }
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -libc::EIO, body) }
}

/// Registers a device in the current context of the thread, with a table of a layout. Otherwise as register_savevm_live().
///
/// Thread: any. Lock: held.
///
/// # Safety
/// `ops` is NULL or a table of `abi`, which is NULL (QEMU 7.2) or a layout. Otherwise as register_savevm_live().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_abi_register_savevm_live(
    abi: *const SaveVMAbi,
    idstr: *const c_char,
    instance_id: u32,
    version_id: c_int,
    ops: *const c_void,
    opaque: *mut c_void,
) -> c_int {
    guard(-libc::EIO, || {
        let vm = current::current();
        let ops = ops.cast::<SaveVMHandlers>();
        // SAFETY: the contract of the function.
        code(unsafe {
            register(&vm, from_c(abi), strings::name(idstr), (instance_id as c_int, version_id), ops, opaque)
        })
    })
}

/// Registers a device in the current context of the thread, with a description of a layout. Otherwise as
/// vmstate_register_with_alias_id(). Remove it with vmstate_unregister().
///
/// Thread: any. Lock: held.
///
/// # Safety
/// `vmsd` is NULL or a description of `abi`, which is NULL (QEMU 7.2) or a layout. Otherwise as
/// vmstate_register_with_alias_id().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_abi_vmstate_register(
    abi: *const SaveVMAbi,
    obj: *mut VMStateIf,
    instance_id: u32,
    vmsd: *const c_void,
    opaque: *mut c_void,
    alias_id: c_int,
    required_for_version: c_int,
    errp: *mut *mut CError,
) -> c_int {
    let body = || {
        let (vm, device) = (current::current(), (vmsd.cast::<VMStateDescription>(), opaque));
        let aliases = (alias_id, required_for_version);
        // SAFETY: the contract of the function.
        let result =
            unsafe { crate::ffi::vmstate::register::register(&vm, from_c(abi), obj, instance_id, device, aliases) };
        // SAFETY: `errp` is NULL or points to NULL (contract of the function).
        unsafe { code_or_error(result, errp) }
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -libc::EIO, body) }
}

/// Gives the error behind a code to C, and leaves it with the file for the caller above.
///
/// # Safety
/// `f` is NULL or an open file; `errp` is NULL or points to NULL.
unsafe fn give_pending(f: *mut QEMUFile, ret: c_int, errp: *mut *mut CError) {
    if ret == 0 {
        return;
    }
    // SAFETY: the contract of the function.
    if let Some(file) = unsafe { file_ref(f) } {
        let error = file.pending_error().take(ret);
        file.pending_error().set(error.clone());
        // SAFETY: as above.
        unsafe { c_error::give(errp, error) };
    }
}

/// Saves `opaque` as a description of a layout describes it, as vmstate_save_state_v() does. `version_id` may be
/// SAVEVM_ABI_OWN_VERSION.
///
/// Returns: 0; otherwise the result of a hook or info, or -EINVAL, with an error.
///
/// Thread: the one that saves. Lock: as for the device.
///
/// # Safety
/// `vmsd` is NULL or a description of `abi`, which is NULL (QEMU 7.2) or a layout. Otherwise as vmstate_save_state().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_abi_vmstate_save(
    abi: *const SaveVMAbi,
    f: *mut QEMUFile,
    vmsd: *const c_void,
    opaque: *mut c_void,
    vmdesc: *mut JSONWriter,
    version_id: c_int,
    errp: *mut *mut CError,
) -> c_int {
    let body = || {
        let version = (version_id != SAVEVM_ABI_OWN_VERSION).then_some(version_id);
        // SAFETY: the contract of the function.
        unsafe {
            let ret = save_with(&current::current(), from_c(abi), f, vmsd.cast(), opaque, vmdesc, version);
            give_pending(f, ret, errp);
            ret
        }
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -libc::EIO, body) }
}

/// Loads `opaque` as a description of a layout describes it, as vmstate_load_state() does.
///
/// Returns: 0 or QEMU's codes, with an error.
///
/// Thread: the one that loads. Lock: as for the device.
///
/// # Safety
/// `vmsd` is NULL or a description of `abi`, which is NULL (QEMU 7.2) or a layout. Otherwise as vmstate_load_state().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_abi_vmstate_load(
    abi: *const SaveVMAbi,
    f: *mut QEMUFile,
    vmsd: *const c_void,
    opaque: *mut c_void,
    version_id: c_int,
    errp: *mut *mut CError,
) -> c_int {
    let body = || {
        // SAFETY: the contract of the function.
        unsafe {
            let ret = load_with(&current::current(), from_c(abi), f, vmsd.cast(), opaque, version_id);
            give_pending(f, ret, errp);
            ret
        }
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -libc::EIO, body) }
}

/// Returns the result of the `needed` hook of a description of a layout: whether the state is saved. Returns true without a hook,
/// and false if `vmsd` is NULL. QEMU: vmstate_section_needed, migration/vmstate.c.
///
/// Thread: the one that saves. Lock: as for the device.
///
/// # Safety
/// `vmsd` is NULL or a description of `abi` for `opaque`; `abi` is NULL (QEMU 7.2) or a layout.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_abi_vmstate_needed(
    abi: *const SaveVMAbi,
    vmsd: *const c_void,
    opaque: *mut c_void,
) -> bool {
    // SAFETY: the contract of the function.
    guard(false, || unsafe { needed_with(from_c(abi), vmsd.cast(), opaque) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_descriptions_and_unknown_versions_give_no_layout() {
        let mut error = ptr::null_mut();
        // SAFETY: NULL is allowed.
        assert!(unsafe { savevm_abi_new(ptr::null(), &raw mut error) }.is_null());
        // SAFETY: the error came from the call above.
        let error = unsafe { c_error::take(error, 0) }.unwrap();
        assert!(error.message().contains("NULL"));
        assert!(savevm_abi_of_qemu(1100).is_null() && !savevm_abi_of_qemu(1000).is_null());
    }
}
