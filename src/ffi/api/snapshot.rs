// SPDX-License-Identifier: LGPL-2.1-or-later
//! Snapshots.

use crate::ffi::context;
use crate::ffi::file::file_ref;
use crate::ffi::guard::guard;
use crate::ffi::migration::{code, parse_uri};
use crate::ffi::types::{Error as CError, QEMUFile, SaveVM};
use crate::migration::{snapshot_load, snapshot_save, snapshot_save_to};
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

/// Saves everything of `vm` (NULL: this thread's context) to a file of the caller's, from the header to cleanup. The guest
/// is stopped and the lock held; it is given up for setup. 0, or -errno, which `f` then has with what is known of it.
///
/// # Safety
/// `vm` is NULL or a context; `f` is NULL or a file that is open for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_snapshot_save_file(vm: *mut SaveVM, f: *mut QEMUFile) -> c_int {
    guard(-libc::EIO, || {
        // SAFETY: the contract of the function.
        let (vm, file) = unsafe { (context::from_c(vm), file_ref(f)) };
        let Some(file) = file else { return -libc::EINVAL };
        context::with(&vm, || match snapshot_save_to(&vm, file) {
            Ok(()) => 0,
            Err(err) => {
                file.set_error_detail(err);
                file.error()
            }
        })
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
