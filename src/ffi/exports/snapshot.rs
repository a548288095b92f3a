// SPDX-License-Identifier: LGPL-2.1-or-later
//! Snapshots.

use crate::error::{Error, Result};
use crate::ffi::marshal::c_file::file_ref;
use crate::ffi::marshal::convert::parse_uri;
use crate::ffi::marshal::guard::{guard, guard_error};
use crate::ffi::marshal::opaque::{Error as CError, QEMUFile, SaveVM};
use crate::ffi::marshal::results::code_or_error;
use crate::ffi::marshal::structs::{c_enums, sized_structs};
use crate::ffi::marshal::{current, structs};
use crate::file::MigFile;
use crate::migration::{check, snapshot_load, snapshot_save, snapshot_save_to};
use std::ffi::{c_char, c_int};
use std::io::Read;
use std::mem::MaybeUninit;

/// Format of a snapshot.
#[expect(non_camel_case_types, reason = "the names of the C interface")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMSnapshotFormat {
    /// QEMU's migration stream, as savevm_migrate() sends it.
    SAVEVM_SNAPSHOT_STREAM = 0,
    /// A file in which each page of guest memory has a fixed place. Not available yet: -ENOTSUP.
    SAVEVM_SNAPSHOT_MAPPED = 1,
}

c_enums! {
    SaveVMSnapshotFormat: SAVEVM_SNAPSHOT_STREAM, SAVEVM_SNAPSHOT_MAPPED;
}

/// How a snapshot is saved or loaded.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMSnapshotOptions {
    /// sizeof(SaveVMSnapshotOptions).
    pub size: usize,
    /// Format; default SAVEVM_SNAPSHOT_STREAM.
    pub format: MaybeUninit<SaveVMSnapshotFormat>,
}

sized_structs! {
    SaveVMSnapshotOptions, SAVEVM_SNAPSHOT_OPTIONS_INIT, format;
}

/// # Safety
/// `options` must be NULL or begin with its size.
unsafe fn check_options(options: *const SaveVMSnapshotOptions) -> Result<()> {
    // SAFETY: as the caller promised.
    let Some(options) = unsafe { structs::sized_struct(options) }? else { return Ok(()) };
    match structs::c_enum(options.format)? {
        SaveVMSnapshotFormat::SAVEVM_SNAPSHOT_STREAM => Ok(()),
        SaveVMSnapshotFormat::SAVEVM_SNAPSHOT_MAPPED => {
            Err(Error::new(libc::ENOTSUP, "SAVEVM_SNAPSHOT_MAPPED is not supported yet: use SAVEVM_SNAPSHOT_STREAM"))
        }
    }
}

/// Stops the guest of `vm` (NULL: this thread's context), saves everything to `uri` (as savevm_migrate() takes it), and
/// starts the guest again if it ran, also after a failure. Inside the lock, which is taken if the calling thread does not
/// hold it, and given up for setup. 0, or -errno and `*errp`: -EPERM if the whole guest is not here (savevm_owner()).
///
/// `file:PATH` replaces a regular file only by a whole snapshot. The new file is written beside it, synced, and renamed, and
/// the directory is synced, while the guest runs again. A full disk, a crash or a kill leaves the previous file as it was,
/// and no part of a snapshot under its name. Until then both files take room. `file:PATH,offset=N` leaves the first N bytes of
/// the file alone and writes behind them in place, as do files whose directory can't be written to, files that are not
/// regular, and all other kinds of URI.
///
/// # Safety
/// `vm` is NULL or a context; `uri` is NULL or a terminated string; `options` is NULL (defaults) or begins with its
/// size; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_snapshot_save(
    vm: *mut SaveVM,
    uri: *const c_char,
    options: *const SaveVMSnapshotOptions,
    errp: *mut *mut CError,
) -> c_int {
    let body = || {
        // SAFETY: the contract of the function.
        let (vm, uri) =
            unsafe { (current::from_c(vm), parse_uri(uri).and_then(|uri| check_options(options).map(|()| uri))) };
        // SAFETY: the contract of the function.
        current::with(&vm, || unsafe { code_or_error(uri.and_then(|uri| snapshot_save(&vm, &uri)), errp) })
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -libc::EIO, body) }
}

/// Saves everything of `vm` (NULL: this thread's context) to a file of the caller's, from the header to cleanup. The guest
/// is stopped and the lock held; it is given up for setup. 0, or -errno, which `f` then has with what is known of it: -EBUSY
/// while a migration or a snapshot is under way.
///
/// # Safety
/// `vm` is NULL or a context; `f` is NULL or a file that is open for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_snapshot_save_file(vm: *mut SaveVM, f: *mut QEMUFile) -> c_int {
    guard(-libc::EIO, || {
        // SAFETY: the contract of the function.
        let (vm, file) = unsafe { (current::from_c(vm), file_ref(f)) };
        let Some(file) = file else { return -libc::EINVAL };
        current::with(&vm, || match snapshot_save_to(&vm, file) {
            Ok(()) => 0,
            Err(err) => {
                file.set_error_detail(err);
                file.error()
            }
        })
    })
}

/// Reads a stream of at most `length` bytes from where `f` stands and checks whether it would load into `vm` (NULL: this
/// thread's context), without changing anything there: whether it is whole up to the mark of its end, of a machine that is
/// configured as this one, and of devices, versions and blocks of RAM (SaveVMHostOps.ram_fits) that are here; whether every
/// page lies in its block. What only a device can find wrong, values inside of its state, is not looked at. Machines whose
/// sections have no footers take everything: nothing says there where a state ends. `f` stays the caller's; where it stands
/// afterwards is not said. The machine's devices must not change meanwhile.
///
/// 0: nothing speaks against loading. Else -errno and `*errp`: -ENOMSG where no stream begins, -EINVAL where it would not
/// load, or the error of reading.
///
/// # Safety
/// `vm` is NULL or a context; `f` is NULL or a file; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_snapshot_check_file(
    vm: *mut SaveVM,
    f: *mut QEMUFile,
    length: u64,
    errp: *mut *mut CError,
) -> c_int {
    let body = || {
        // SAFETY: the contract of the function.
        let (vm, file) = unsafe { (current::from_c(vm), file_ref(f)) };
        let rest = file.ok_or_else(|| Error::invalid("the file is NULL")).and_then(MigFile::remaining);
        // SAFETY: the contract of the function.
        current::with(&vm, || unsafe { code_or_error(rest.and_then(|rest| check(&vm, rest.take(length))), errp) })
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -libc::EIO, body) }
}

/// Stops the guest of `vm` (NULL: this thread's context), resets the machine (SaveVMHostOps.reset), loads everything from
/// `uri`, and starts the guest again if it ran. A regular file is checked before (see savevm_snapshot_check_file()): where
/// that fails nothing was touched, and the guest runs on. After a later failure it stays stopped: its devices hold a part
/// of each of two states. Inside the lock, as saving. 0, or -errno and `*errp`.
///
/// # Safety
/// `vm` is NULL or a context; `uri` is NULL or a terminated string; `options` is NULL (defaults) or begins with its
/// size; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_snapshot_load(
    vm: *mut SaveVM,
    uri: *const c_char,
    options: *const SaveVMSnapshotOptions,
    errp: *mut *mut CError,
) -> c_int {
    let body = || {
        // SAFETY: the contract of the function.
        let (vm, uri) =
            unsafe { (current::from_c(vm), parse_uri(uri).and_then(|uri| check_options(options).map(|()| uri))) };
        // SAFETY: the contract of the function.
        current::with(&vm, || unsafe { code_or_error(uri.and_then(|uri| snapshot_load(&vm, &uri)), errp) })
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -libc::EIO, body) }
}
