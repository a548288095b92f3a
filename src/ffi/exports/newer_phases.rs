// SPDX-License-Identifier: LGPL-2.1-or-later
//! Names of phases that QEMU has from 8.0 on and that 7.2 does not use for another function. A QEMU tree declares them. For
//! other programs the functions of `driver_phases` are declared, which these names call. The same for a function of
//! `migration/vmstate.h`, which calls one of `abi`.
//!
//! # Safety
//! The contracts of the functions that they call.
#![expect(clippy::missing_safety_doc, reason = "one contract for all of them, at the head of the module")]
#![expect(missing_docs, reason = "each is QEMU's name of a documented function")]

use super::abi::{SAVEVM_ABI_OWN_VERSION, savevm_abi_vmstate_save};
use super::driver_phases::*;
use crate::ffi::abi;
use crate::ffi::marshal::castable;
use crate::ffi::marshal::current;
use crate::ffi::marshal::guard::guard;
use crate::ffi::marshal::opaque::{Error as CError, JSONWriter, QEMUFile, SaveVMAbi};
use crate::ffi::vmstate::types::VMStateDescription;
use crate::savevm::host::Flags;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;

/// Defines functions with the names of QEMU, each by one call.
macro_rules! names {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? = $call:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $type),*) $(-> $result)? {
            // SAFETY: the contract of the module.
            unsafe { $call }
        }
    )*};
}

names! {
    qemu_savevm_state_prepare(errp: *mut *mut CError) -> c_int = savevm_state_prepare(errp);
    qemu_savevm_state_pending_estimate(must_precopy: *mut u64, can_postcopy: *mut u64) =
        savevm_state_pending(false, must_precopy, can_postcopy);
    qemu_savevm_state_pending_exact(must_precopy: *mut u64, can_postcopy: *mut u64) =
        savevm_state_pending(true, must_precopy, can_postcopy);
    qemu_savevm_state_complete_precopy_iterable(f: *mut QEMUFile, in_postcopy: bool) -> c_int =
        savevm_state_complete_precopy_iterable(f, in_postcopy);
    qemu_savevm_state_postcopy_prepare(f: *mut QEMUFile, errp: *mut *mut CError) -> bool =
        savevm_state_postcopy_prepare(f, errp) == 0;
    qemu_savevm_maybe_send_switchover_start(f: *mut QEMUFile) = savevm_send_switchover_start(f);
    qemu_loadvm_load_state_buffer(
        idstr: *const c_char, instance_id: u32, buf: *mut c_char, len: usize, errp: *mut *mut CError
    ) -> bool = savevm_load_state_buffer(idstr, instance_id, buf, len, errp) == 0;
    qemu_loadvm_start_load_thread(function: SaveVMLoadThread, opaque: *mut c_void) = {
        // A thread that could not be started was reported, and the load fails.
        savevm_start_load_thread(function, opaque);
    };
}

#[unsafe(no_mangle)]
pub extern "C" fn qemu_loadvm_approve_switchover() -> c_int {
    savevm_approve_switchover()
}

#[unsafe(no_mangle)]
pub extern "C" fn should_send_vmdesc() -> bool {
    guard(false, || !current::current().flags().has(Flags::NO_VMDESC))
}

/// The description is of the context's layout.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmstate_save_state_with_err(
    f: *mut QEMUFile,
    vmsd: *const VMStateDescription,
    opaque: *mut c_void,
    vmdesc: *mut JSONWriter,
    errp: *mut *mut CError,
) -> c_int {
    let layout = abi::of_context(&current::current());
    let layout = layout.map_or(ptr::null(), |abi| castable::lend::<SaveVMAbi>(abi).cast_const());
    // SAFETY: the contract of the module.
    unsafe { savevm_abi_vmstate_save(layout, f, vmsd.cast(), opaque, vmdesc, SAVEVM_ABI_OWN_VERSION, errp) }
}
