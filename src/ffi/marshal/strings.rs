// SPDX-License-Identifier: LGPL-2.1-or-later
//! Strings that come from C and go to it.
//!
//! A string that goes to C has no zero inside: one that the library has there, for instance from a stream, is replaced by
//! U+FFFD.

use crate::wire::limits::IDSTR_MAX;
use std::ffi::{CStr, CString, c_char, c_void};

/// The text for C, with every zero replaced.
pub fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

/// Longest string that is read from C in bytes: more is taken for one without an end.
const STRING_MAX: usize = 1 << 16;

/// The bytes of a C string, or `None` for NULL.
///
/// # Safety
/// `string` must be NULL or a terminated string (or at least `STRING_MAX` readable bytes).
pub unsafe fn string(string: *const c_char) -> Option<Vec<u8>> {
    // SAFETY: as the caller promised.
    unsafe { bounded(string, STRING_MAX) }
}

/// The bytes of a name: one more than an idstr may have, so that a longer one shows.
///
/// # Safety
/// `string` must be NULL, or a terminated string, or 256 readable bytes.
pub unsafe fn name(string: *const c_char) -> Option<Vec<u8>> {
    // SAFETY: as the caller promised.
    unsafe { bounded(string, IDSTR_MAX + 1) }
}

/// # Safety
/// `string` must be NULL, or a terminated string, or `most` readable bytes.
unsafe fn bounded(string: *const c_char, most: usize) -> Option<Vec<u8>> {
    if string.is_null() {
        return None;
    }
    // SAFETY: `strnlen` reads to the end or for `most` bytes, and the slice is what it read.
    unsafe {
        let len = libc::strnlen(string, most);
        Some(std::slice::from_raw_parts(string.cast::<u8>(), len).to_vec())
    }
}

/// Takes over a string that C allocated with malloc().
///
/// # Safety
/// `string` must be NULL or a terminated string from malloc() that no other code frees.
pub unsafe fn take_malloced(string: *mut c_char) -> Option<Vec<u8>> {
    if string.is_null() {
        return None;
    }
    // SAFETY: as the caller promised; it is not used after it was freed.
    unsafe {
        let bytes = CStr::from_ptr(string).to_bytes().to_vec();
        libc::free(string.cast::<c_void>());
        Some(bytes)
    }
}

/// A copy of a string that C frees; NULL where there is no memory.
pub fn malloced(string: &CStr) -> *mut c_char {
    // SAFETY: a terminated string.
    unsafe { libc::strdup(string.as_ptr()) }
}
