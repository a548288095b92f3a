// SPDX-License-Identifier: LGPL-2.1-or-later
//! Which side has the guest of a context.

use crate::ffi::exports::info::SaveVMOwner;
use crate::ffi::marshal::convert::{c_owner, owner_from_c};
use crate::ffi::marshal::current;
use crate::ffi::marshal::guard::{guard, guard_error};
use crate::ffi::marshal::opaque::{Error as CError, SaveVM};
use crate::ffi::marshal::results::{answer_or_error, code_or_error};
use crate::ffi::marshal::structs::c_enum;
use std::ffi::{CStr, c_char, c_int};
use std::mem::MaybeUninit;

/// Returns which side has the guest of `vm` (NULL: this thread's context), as far as this side knows.
///
/// The context stores the owner, so the answer is also valid after the migration was freed.
///
/// A new context is SAVEVM_OWNER_HERE. savevm_incoming() makes it SAVEVM_OWNER_THERE until the guest has arrived. It stays
/// SAVEVM_OWNER_THERE if the incoming migration ends before it changed a device, because such a machine has no guest. A load that
/// fails after it changed a device leaves SAVEVM_OWNER_TORN. savevm_snapshot_load() and qemu_loadvm_state() make it
/// SAVEVM_OWNER_HERE when they loaded everything. Unless it is SAVEVM_OWNER_HERE, savevm_migrate(), savevm_snapshot_save(),
/// savevm_snapshot_save_file() and savevm_ram_snapshot() fail with -EPERM and an error that states which side has the guest.
///
/// A host with SaveVMHostOps.incoming has a migration driver of its own. Its context stays SAVEVM_OWNER_HERE.
///
/// Thread: any. Lock: either. Since 0.1.
///
/// # Safety
/// `vm` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_owner(vm: *mut SaveVM) -> SaveVMOwner {
    // SAFETY: the contract of the function.
    guard(SaveVMOwner::SAVEVM_OWNER_UNKNOWN, || c_owner(unsafe { current::from_c(vm) }.ownership.owner()))
}

/// Returns whether the host may start the guest of `vm` (NULL: this thread's context), or let it run: the owner is
/// SAVEVM_OWNER_HERE, its disks are active as far as the library knows (`disks_activate` did not fail when the guest was taken
/// back), and no migration or snapshot has stopped the guest and decides what follows.
///
/// Call it with the lock, and start the guest before you release the lock. Otherwise a migration could begin in between.
///
/// Thread: any. Lock: either. Since 0.1.
///
/// # Safety
/// `vm` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_may_run(vm: *mut SaveVM) -> bool {
    // SAFETY: the contract of the function.
    guard(false, || unsafe { current::from_c(vm) }.ownership.may_run())
}

/// As savevm_may_run(), with the reason.
///
/// Returns:
///   0       the host may start the guest
///   -EPERM  this side does not have the complete guest with its disks; `*errp` states the reason
///   -EBUSY  a migration or a snapshot has stopped the guest and decides what follows
///
/// Thread: any. Lock: either. Since 0.1.
///
/// # Safety
/// `vm` is NULL or a context; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_check_may_run(vm: *mut SaveVM, errp: *mut *mut CError) -> c_int {
    // SAFETY: the contract of the function.
    let body = || unsafe { answer_or_error(current::from_c(vm).ownership.check_may_run(), errp) };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -libc::EIO, body) }
}

/// Returns the run state that the guest of `vm` (NULL: this thread's context) had at its source, by QEMU's name ("running",
/// "paused", "guest-panicked", ...), as received in the last migration or snapshot that was loaded. Returns NULL if none was
/// received. The string is constant.
///
/// The library's driver does not start a guest that was not "running". The host may use the name to report the reason to its
/// user.
///
/// Thread: any. Lock: either. Since 0.1. QEMU: global_state_get_runstate, migration/global_state.c.
///
/// # Safety
/// `vm` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_received_run_state(vm: *mut SaveVM) -> *const c_char {
    let state = || {
        // SAFETY: the contract of the function.
        let name = unsafe { current::from_c(vm) }.global_state.received();
        name.map_or(std::ptr::null(), CStr::as_ptr)
    };
    guard(std::ptr::null(), state)
}

/// Sets the owner of the guest of `vm` (NULL: this thread's context). Use it only after an operator with access to both sides has
/// decided which side has the guest. The library can't check the decision: if SAVEVM_OWNER_HERE is set while the guest runs on
/// the other side, the guest runs twice. The change is reported as a warning (SaveVMHostOps.report).
///
/// Returns:
///   0        the owner is set
///   -EBUSY   a migration (also a paused postcopy) or a snapshot of the context is in progress
///   -EINVAL  `owner` is not a SaveVMOwner
///
/// Thread: any. Lock: either. Since 0.1.
///
/// # Safety
/// `vm` is NULL or a context; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_override_owner(
    vm: *mut SaveVM,
    owner: MaybeUninit<SaveVMOwner>,
    errp: *mut *mut CError,
) -> c_int {
    let body = || {
        // SAFETY: the contract of the function.
        let vm = unsafe { current::from_c(vm) };
        let set = c_enum(owner).and_then(|owner| vm.override_owner(owner_from_c(owner)));
        // SAFETY: the contract of the function.
        unsafe { code_or_error(set, errp) }
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -libc::EIO, body) }
}
