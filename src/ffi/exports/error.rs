// SPDX-License-Identifier: LGPL-2.1-or-later
//! Errors for C.

use crate::ffi::marshal::c_error::{Owned, owned};
use crate::ffi::marshal::guard::guard;
use crate::ffi::marshal::opaque::Error;
use std::ffi::{c_char, c_int};
use std::ptr;

/// Which side of a migration or snapshot an error is from.
#[expect(non_camel_case_types, reason = "the names of the C interface")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMSide {
    /// Neither side.
    SAVEVM_SIDE_NONE = 0,
    /// The source, which saves.
    SAVEVM_SIDE_SOURCE = 1,
    /// The destination, which loads.
    SAVEVM_SIDE_DESTINATION = 2,
}

/// The parts of an error, for a program to read. Unknown numbers are -1, and unknown strings are NULL. Strings are owned by
/// the error.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMErrorInfo {
    /// sizeof(SaveVMErrorInfo) of the library.
    pub size: usize,
    /// The positive errno.
    pub error: c_int,
    /// The side that failed.
    pub side: SaveVMSide,
    /// Offset in the stream in bytes.
    pub offset: i64,
    /// Type byte of the section.
    pub section_type: c_int,
    /// Version of the registered device.
    pub version_have: c_int,
    /// Version in the stream.
    pub version_want: c_int,
    /// Section id.
    pub section_id: i64,
    /// Instance id of the device.
    pub instance_id: i64,
    /// The cause without the place: what was expected and what was found.
    pub message: *const c_char,
    /// The phase.
    pub phase: *const c_char,
    /// Name of the device.
    pub idstr: *const c_char,
    /// VMState path to the field.
    pub path: *const c_char,
}

/// Returns the error as text: where it happened, what was expected and what was found.
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `err` is NULL or an error of this library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn error_get_pretty(err: *const Error) -> *const c_char {
    // SAFETY: the contract of the function.
    unsafe { owned(err) }.map_or(ptr::null(), |error| error.pretty.as_ptr())
}

/// Frees an error, and the strings that were obtained from it.
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `err` is NULL or an error of this library that is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn error_free(err: *mut Error) {
    guard((), || {
        if !err.is_null() {
            // SAFETY: the contract of the function.
            drop(unsafe { Box::from_raw(err.cast::<Owned>()) });
        }
    });
}

/// Returns the parts of an error, for a program to read. They are owned by the error.
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `err` is NULL or an error of this library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_error_info(err: *const Error) -> *const SaveVMErrorInfo {
    // SAFETY: the contract of the function.
    unsafe { owned(err) }.map_or(ptr::null(), |error| &raw const error.info)
}
