// SPDX-License-Identifier: LGPL-2.1-or-later
//! Looking into a stream without loading it. Nothing here touches a context or its devices, and no lock is needed. What was
//! read does not change any more: any threads may ask for it at the same time.

use crate::ffi::marshal::c_error;
use crate::ffi::marshal::c_file::file_ref;
use crate::ffi::marshal::castable;
use crate::ffi::marshal::guard::{guard, guard_error};
use crate::ffi::marshal::inspected::{Inspected, inspected, read_bytes, read_file};
use crate::ffi::marshal::opaque::{Error as CError, QEMUFile, SaveVMInspect};
use crate::ffi::marshal::results::code;
use crate::ffi::marshal::structs::{SizedStruct, c_enum, give_sized};
pub use crate::ffi::types::inspect_items::*;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;

/// # Safety
/// `errp` is NULL or points to NULL.
unsafe fn give(read: crate::error::Result<Inspected>, errp: *mut *mut CError) -> *mut SaveVMInspect {
    match read {
        Ok(inspected) => castable::give(inspected),
        Err(err) => {
            // SAFETY: as the caller promised.
            unsafe { c_error::give(errp, err) };
            ptr::null_mut()
        }
    }
}

/// Fills in what is found of a read stream; -ENOENT where there is nothing.
///
/// # Safety
/// `s` is NULL or a read stream; `to` is NULL or begins with its size.
unsafe fn tell<T: SizedStruct>(
    s: *const SaveVMInspect,
    to: *mut T,
    find: impl FnOnce(&Inspected) -> Option<T>,
) -> c_int {
    guard(-libc::EIO, || {
        // SAFETY: as the caller promised.
        let Some(inspected) = (unsafe { inspected(s) }) else { return -libc::EINVAL };
        // SAFETY: as above.
        find(inspected).map_or(-libc::ENOENT, |found| code(unsafe { give_sized(to, &found) }))
    })
}

/// Reads a stream that is in memory, without loading anything. `data` is only read during the call: the result has copies of what
/// it returns. A damaged stream is no failure: the
/// result has what comes before the damage, and savevm_inspect_summary() describes the damage. `max_memory` limits the bytes
/// that are kept (0: 1 GiB).
///
/// Returns: the stream, to be freed with savevm_inspect_free(); NULL if `data` is NULL.
///
/// # Safety
/// `data` is valid for `length` bytes during the call; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_inspect_buffer(
    data: *const c_void,
    length: usize,
    max_memory: usize,
    errp: *mut *mut CError,
) -> *mut SaveVMInspect {
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, ptr::null_mut(), || give(read_bytes(data.cast(), length, max_memory), errp)) }
}

/// As savevm_inspect_buffer(), from the position of `f` to its end. Long streams need little memory. `f` is still owned by the
/// caller, and is at its end.
///
/// Returns: the stream, to be freed with savevm_inspect_free(); NULL if `f` can't be read.
///
/// # Safety
/// `f` is NULL or a file; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_inspect_file(
    f: *mut QEMUFile,
    max_memory: usize,
    errp: *mut *mut CError,
) -> *mut SaveVMInspect {
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, ptr::null_mut(), || give(read_file(file_ref(f), max_memory), errp)) }
}

/// Frees a stream that was read, and the strings and bytes that were obtained from it.
///
/// # Safety
/// `s` is NULL or what one of the two functions gave, and is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_inspect_free(s: *mut SaveVMInspect) {
    // SAFETY: the contract of the function.
    guard((), || drop(unsafe { castable::take(s) }));
}

/// Returns the properties of the whole stream.
///
/// Returns:
///   0        `summary` is filled in
///   -EINVAL  NULL, or the size of `summary` is too small
///
/// # Safety
/// `s` is NULL or a read stream; `summary` is NULL or begins with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_inspect_summary(s: *const SaveVMInspect, summary: *mut SaveVMInspectSummary) -> c_int {
    // SAFETY: the contract of the function.
    unsafe { tell(s, summary, |inspected| Some(inspected.summary())) }
}

/// Returns one item of the stream; `index` counts them in the order of the stream.
///
/// Returns:
///   0        `item` is filled in
///   -ENOENT  there are not so many items
///   -EINVAL  NULL, or the size of `item` is too small
///
/// # Safety
/// `s` is NULL or a read stream; `item` is NULL or begins with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_inspect_item(
    s: *const SaveVMInspect,
    index: usize,
    item: *mut SaveVMInspectItem,
) -> c_int {
    // SAFETY: the contract of the function.
    unsafe { tell(s, item, |inspected| inspected.item(index)) }
}

/// Returns one block of guest memory in the stream.
///
/// Returns:
///   0        `block` is filled in
///   -ENOENT  there are not so many blocks
///   -EINVAL  NULL, or the size of `block` is too small
///
/// # Safety
/// `s` is NULL or a read stream; `block` is NULL or begins with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_inspect_block(
    s: *const SaveVMInspect,
    index: usize,
    block: *mut SaveVMInspectBlock,
) -> c_int {
    // SAFETY: the contract of the function.
    unsafe { tell(s, block, |inspected| inspected.block(index)) }
}

/// Calls `field` for each field of an item's device, in the order of the stream, on the calling thread.
///
/// Returns:
///   0         all fields were passed
///   -ENOENT   the item is not the whole state of a device
///   -ENODATA  the stream does not describe the device
///   -EILSEQ   the description does not match the state; the fields that match were passed
///   -EINVAL   NULL
///   other     what `field` returned that was not 0
///
/// # Safety
/// `s` is NULL or a read stream, and `field` does not free it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_inspect_fields(
    s: *const SaveVMInspect,
    item: usize,
    field: SaveVMInspectFieldFn,
    opaque: *mut c_void,
) -> c_int {
    guard(-libc::EIO, || {
        // SAFETY: the contract of the function.
        let (Some(inspected), Some(field)) = (unsafe { inspected(s) }, field) else { return -libc::EINVAL };
        // SAFETY: the contract of the function.
        unsafe { inspected.fields(item, field, opaque) }
    })
}

/// Writes the stream to `out` as JSON.
///
/// Returns:
///   0        everything is written
///   -EINVAL  NULL, or an unknown format
///   -errno   the error of `out`
///
/// # Safety
/// `s` is NULL or a read stream; `out` is NULL or a file for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_inspect_document(
    s: *const SaveVMInspect,
    format: MaybeUninit<SaveVMInspectFormat>,
    out: *mut QEMUFile,
) -> c_int {
    guard(-libc::EIO, || {
        // SAFETY: the contract of the function.
        match unsafe { (inspected(s), file_ref(out)) } {
            (Some(inspected), Some(out)) => {
                c_enum(format).map_or(-libc::EINVAL, |format| inspected.document(format, out))
            }
            _ => -libc::EINVAL,
        }
    })
}
