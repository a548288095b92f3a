// SPDX-License-Identifier: LGPL-2.1-or-later
//! Results as C gets them: 0 or -errno, and the error.

use crate::error::Result;
use crate::ffi::marshal::opaque::Error as CError;
use crate::ffi::marshal::{c_error, current};
use std::ffi::c_int;

/// 0, or what QEMU's functions return for the error: -errno, but -EIO for all errors of a channel.
pub(in crate::ffi) fn code(result: Result<()>) -> c_int {
    result.map_or_else(|err| err.code(), |()| 0)
}

/// 0, or -errno with the error in `*errp`. Without `errp` the error is reported to the host of the current context.
///
/// # Safety
/// `errp` must be NULL or point to NULL.
pub(in crate::ffi) unsafe fn code_or_error(result: Result<()>, errp: *mut *mut CError) -> c_int {
    let code = result.as_ref().map_or_else(|error| -error.errno(), |()| 0);
    // SAFETY: as the caller promised.
    unsafe { value_or_error(result, errp) };
    code
}

/// The value, or `None` with the error in `*errp`. Without `errp` the error is reported to the host of the current context.
///
/// # Safety
/// `errp` must be NULL or point to NULL.
pub(in crate::ffi) unsafe fn value_or_error<T>(result: Result<T>, errp: *mut *mut CError) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(err) if errp.is_null() => {
            current::current().report(err);
            None
        }
        Err(err) => {
            // SAFETY: as the caller promised.
            unsafe { c_error::give(errp, err) };
            None
        }
    }
}

/// As `code_or_error`, for a function that answers a question, and for QEMU's functions: without `errp` the caller wants the
/// number alone.
///
/// # Safety
/// `errp` must be NULL or point to NULL.
pub(in crate::ffi) unsafe fn answer_or_error(answer: Result<()>, errp: *mut *mut CError) -> c_int {
    answer.map_or_else(
        |error| {
            let code = -error.errno();
            // SAFETY: as the caller promised.
            unsafe { c_error::give(errp, error) };
            code
        },
        |()| 0,
    )
}
