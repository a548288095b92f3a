// SPDX-License-Identifier: LGPL-2.1-or-later
//! Which side has the guest of a context.

use crate::ffi::exports::info::SaveVMOwner;
use crate::ffi::marshal::convert::{c_owner, owner_from_c};
use crate::ffi::marshal::current;
use crate::ffi::marshal::guard::{guard, guard_error};
use crate::ffi::marshal::opaque::{Error as CError, SaveVM};
use crate::ffi::marshal::results::code_or_error;
use crate::ffi::marshal::structs::c_enum;
use std::ffi::c_int;
use std::mem::MaybeUninit;

/// Returns which side has the guest of `vm` (NULL: this thread's context), as far as this side knows.
///
/// The context keeps the answer: it is valid at any time, also after the handle of the migration was freed.
///
/// A new context is SAVEVM_OWNER_HERE. savevm_incoming() makes it SAVEVM_OWNER_THERE until the guest has arrived, and leaves
/// it so if it ends before it changed a device: such a machine has no guest. A load that fails after it changed a device
/// leaves SAVEVM_OWNER_TORN. savevm_snapshot_load() and qemu_loadvm_state() make it SAVEVM_OWNER_HERE when they loaded
/// everything. Unless it is SAVEVM_OWNER_HERE, savevm_migrate(), savevm_snapshot_save(), savevm_snapshot_save_file() and
/// savevm_ram_snapshot() fail with -EPERM and a text that says where the guest is.
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
/// SAVEVM_OWNER_HERE, and no migration or snapshot has stopped the guest and decides what follows.
///
/// Call it with the lock, and start the guest before the lock is released: so no migration comes in between.
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
///   -EPERM  the whole guest is not here; `*errp` says where it is, or why it is not whole
///   -EBUSY  a migration or a snapshot has stopped the guest and decides what follows
///
/// Thread: any. Lock: either. Since 0.1.
///
/// # Safety
/// `vm` is NULL or a context; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_check_may_run(vm: *mut SaveVM, errp: *mut *mut CError) -> c_int {
    // SAFETY: the contract of the function.
    let body = || unsafe { code_or_error(current::from_c(vm).ownership.check_may_run(), errp) };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -libc::EIO, body) }
}

/// Sets the owner of the guest of `vm` (NULL: this thread's context) by the decision of an operator who sees both sides. The
/// library can't check the decision: SAVEVM_OWNER_HERE for a guest that runs elsewhere makes two of it. The host gets a
/// warning that names the change (SaveVMHostOps.report).
///
/// Returns:
///   0        the owner is set
///   -EBUSY   a migration or a snapshot of the context is in progress; a paused postcopy is
///   -EINVAL  `owner` is no SaveVMOwner
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
