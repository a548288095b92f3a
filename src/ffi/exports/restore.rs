// SPDX-License-Identifier: LGPL-2.1-or-later
//! Lazy restores: snapshots whose memory is read while the guest runs.

use crate::ffi::marshal::current;
use crate::ffi::marshal::guard::{guard, guard_error};
use crate::ffi::marshal::opaque::{Error as CError, SaveVM};
use crate::ffi::marshal::results::{answer_or_error, code};
use crate::ffi::marshal::structs::{self, sized_structs};
use crate::savevm::host::without_big_lock;
use std::ffi::c_int;

/// Statistics of the latest lazy restore of a context.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMRestoreInfo {
    /// sizeof(SaveVMRestoreInfo).
    pub size: usize,
    /// Whether pages are still read.
    pub active: bool,
    /// Bytes to read from the file in total. Zero pages are not counted.
    pub total_bytes: u64,
    /// Bytes that have been read.
    pub loaded_bytes: u64,
    /// Number of times that a thread touched a page that was not in memory yet and had to be read.
    pub faults: u64,
}

sized_structs! {
    SaveVMRestoreInfo, SAVEVM_RESTORE_INFO_INIT, faults;
}

/// Waits until a lazy restore has read all pages (SaveVMSnapshotOptions.lazy).
///
/// Returns:
///   0             all memory is loaded, or the context has had no lazy restore
///   -ECANCELED    another load replaced the restore, or the RAM was freed
///   -EINPROGRESS  called from a callback of the restore, which ends after the callback returns
///   -errno        a page could not be read: the guest was stopped, and savevm_owner() is SAVEVM_OWNER_TORN
///
/// Thread: any but a vCPU's. Lock: either; released while waiting.
///
/// # Safety
/// `vm` is NULL or a context; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_restore_wait(vm: *mut SaveVM, errp: *mut *mut CError) -> c_int {
    let body = || {
        // SAFETY: the contract of the function.
        let vm = unsafe { current::from_c(vm) };
        let wait = || without_big_lock(&*vm.host(), || vm.slot.restore.wait());
        // SAFETY: the contract of the function.
        current::with(&vm, || unsafe { answer_or_error(wait(), errp) })
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -libc::EIO, body) }
}

/// Returns statistics of the latest lazy restore; without one, zeros.
///
/// Returns:
///   0        `info` is filled in
///   -EINVAL  NULL, or the size of `info` is too small
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `vm` is NULL or a context; `info` is NULL or begins with its size and is writable for that.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_restore_query(vm: *mut SaveVM, info: *mut SaveVMRestoreInfo) -> c_int {
    guard(-libc::EIO, || {
        // SAFETY: the contract of the function.
        let now = unsafe { current::from_c(vm) }.slot.restore.info();
        let numbers = SaveVMRestoreInfo {
            size: size_of::<SaveVMRestoreInfo>(),
            active: now.active,
            total_bytes: now.total,
            loaded_bytes: now.loaded,
            faults: now.faults,
        };
        // SAFETY: the contract of the function.
        code(unsafe { structs::give_sized(info, &numbers) })
    })
}
