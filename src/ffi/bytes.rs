// SPDX-License-Identifier: LGPL-2.1-or-later
//! Strings and structs that C hands over.

use crate::wire::limits::IDSTR_MAX;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::MaybeUninit;

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
/// `string` must be NULL or a terminated string from malloc() that nobody else frees.
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

/// Copies a struct that begins with its size: members that the caller does not have stay zero, which is their default.
///
/// # Safety
/// `from` must be NULL or point to a struct of which all-zero is a valid value, that begins with its size in bytes as a
/// `size_t`, and is readable for that size.
pub unsafe fn sized_struct<T: Copy>(from: *const T) -> Option<T> {
    if from.is_null() {
        return None;
    }
    // SAFETY: all-zero is valid, the size stands first, and no more than both sides have is copied.
    unsafe {
        let size = from.cast::<usize>().read();
        let mut copy = MaybeUninit::<T>::zeroed();
        std::ptr::copy_nonoverlapping(from.cast::<u8>(), copy.as_mut_ptr().cast::<u8>(), size.min(size_of::<T>()));
        Some(copy.assume_init())
    }
}

/// Fills in a struct that begins with its size as far as the caller has room for it; the size stays the caller's. 0;
/// `-EINVAL` for NULL.
///
/// # Safety
/// `to` must be NULL or begin with its size in bytes as a `size_t`, and be writable for that; so does `T` begin.
pub unsafe fn give_sized<T: Copy>(to: *mut T, from: &T) -> c_int {
    const FIRST: usize = size_of::<usize>();
    if to.is_null() {
        return -libc::EINVAL;
    }
    // SAFETY: as the caller promised.
    let room = unsafe { to.cast::<usize>().read() }.min(size_of::<T>());
    if room > FIRST {
        let from = std::ptr::from_ref(from).cast::<u8>();
        // SAFETY: as the caller promised.
        unsafe { std::ptr::copy_nonoverlapping(from.add(FIRST), to.cast::<u8>().add(FIRST), room - FIRST) };
    }
    0
}
