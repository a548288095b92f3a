// SPDX-License-Identifier: LGPL-2.1-or-later
//! Snapshots.

use crate::ffi::context;
use crate::ffi::guard::guard;
use crate::ffi::migration::{code, parse_uri};
use crate::ffi::types::{Error as CError, SaveVM};
use crate::migration::{snapshot_load, snapshot_save};
use std::ffi::{c_char, c_int};

/// Stops the guest of `vm` (NULL: this thread's context), saves everything to `uri` (as savevm_migrate() takes it), and
/// starts the guest again if it ran, also after a failure. Inside the lock, which is taken if the calling thread does not
/// hold it, and given up for setup. 0, or -errno and `*errp`.
///
/// # Safety
/// `vm` is NULL or a context; `uri` is NULL or a terminated string; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_snapshot_save(vm: *mut SaveVM, uri: *const c_char, errp: *mut *mut CError) -> c_int {
    guard(-libc::EIO, || {
        // SAFETY: the contract of the function.
        let (vm, uri) = unsafe { (context::from_c(vm), parse_uri(uri)) };
        // SAFETY: the contract of the function.
        context::with(&vm, || unsafe { code(errp, uri.and_then(|uri| snapshot_save(&vm, &uri))) })
    })
}

/// Stops the guest of `vm` (NULL: this thread's context), resets the machine (SaveVMHostOps.reset), loads everything from
/// `uri`, and starts the guest again if it ran.
/// After a failure it stays stopped: its devices hold a part of each of two states. Inside the lock, as saving. 0, or
/// -errno and `*errp`.
///
/// # Safety
/// `vm` is NULL or a context; `uri` is NULL or a terminated string; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_snapshot_load(vm: *mut SaveVM, uri: *const c_char, errp: *mut *mut CError) -> c_int {
    guard(-libc::EIO, || {
        // SAFETY: the contract of the function.
        let (vm, uri) = unsafe { (context::from_c(vm), parse_uri(uri)) };
        // SAFETY: the contract of the function.
        context::with(&vm, || unsafe { code(errp, uri.and_then(|uri| snapshot_load(&vm, &uri))) })
    })
}
