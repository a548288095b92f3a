// SPDX-License-Identifier: LGPL-2.1-or-later
//! Errors for C.

use super::types::SaveVMErrorInfo;
use crate::ffi::error::{Owned, owned};
use crate::ffi::guard::guard;
use crate::ffi::types::Error;
use std::ffi::c_char;
use std::ptr;

/// The error in words: where, what was expected, what came. The string is the error's. NULL for NULL.
///
/// # Safety
/// `err` is NULL or an error of this library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn error_get_pretty(err: *const Error) -> *const c_char {
    // SAFETY: the contract of the function.
    unsafe { owned(err) }.map_or(ptr::null(), |error| error.pretty.as_ptr())
}

/// Frees an error and everything that was read from it. NULL is allowed.
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

/// The parts of the error, for a program to read; they are the error's. NULL for NULL.
///
/// # Safety
/// `err` is NULL or an error of this library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_error_info(err: *const Error) -> *const SaveVMErrorInfo {
    // SAFETY: the contract of the function.
    unsafe { owned(err) }.map_or(ptr::null(), |error| &raw const error.info)
}
