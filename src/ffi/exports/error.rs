// SPDX-License-Identifier: LGPL-2.1-or-later
//! Errors for C.

use crate::ffi::marshal::c_error::{self, owned};
use crate::ffi::marshal::castable;
use crate::ffi::marshal::guard::guard;
use crate::ffi::marshal::opaque::Error;
use crate::ffi::marshal::results::code;
use crate::ffi::marshal::strings;
use crate::ffi::marshal::structs::give_sized;
pub use crate::ffi::types::error_info::*;
use std::ffi::{c_char, c_int};
use std::ptr;

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
        // SAFETY: the contract of the function.
        drop(unsafe { castable::take(err) });
    });
}

/// Stores a new error in `*errp`, for a callback that reports its failure through an `Error **`. `error` is an errno value, with
/// either sign; 0 means EINVAL. Does nothing if `errp` is NULL or an error is stored already. qapi/error.h has QEMU's functions,
/// which take a format.
///
/// Thread: any. Lock: either. QEMU: error_setg_errno, util/error.c.
///
/// # Safety
/// `errp` is NULL or points to NULL or an error; `text` is NULL or a terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_error_set(errp: *mut *mut Error, error: c_int, text: *const c_char) {
    guard((), || {
        // SAFETY: the contract of the function.
        let text = unsafe { strings::string(text) }.map(|text| String::from_utf8_lossy(&text).into_owned());
        let text = text.unwrap_or_else(|| "failed without a text".to_owned());
        let errno = if error == 0 { libc::EINVAL } else { error.saturating_abs() };
        // SAFETY: as above.
        unsafe { c_error::give(errp, crate::error::Error::new(errno, text)) };
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

/// Stores one of the problems that an error of a preflight contains in `problem`. The most serious ones come first.
///
/// Returns:
///   0        `problem` is filled in
///   -ENOENT  there is no problem with that index. To visit all problems, count from 0 until this result
///   -EINVAL  NULL, or the size of `problem` is too small
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `err` is NULL or an error of this library; `problem` is NULL or begins with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_error_problem(err: *const Error, index: usize, problem: *mut SaveVMProblem) -> c_int {
    guard(-libc::EIO, || {
        // SAFETY: the contract of the function.
        let Some(owned) = (unsafe { owned(err) }) else { return -libc::EINVAL };
        let Some(found) = owned.problems.get(index) else { return -libc::ENOENT };
        // SAFETY: the contract of the function.
        code(unsafe { give_sized(problem, found) })
    })
}
