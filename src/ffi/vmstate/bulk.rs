// SPDX-License-Identifier: LGPL-2.1-or-later
//! Copies many integers at once between the device's memory and a file's buffer.
//!
//! No slice is made of the device's memory, because a file may call C in the middle, to flush or to read more.

use super::swap;
use crate::file::{BUFFER_SIZE, MigFile};
use std::ptr;

/// Bytes that are peeked at once. A multiple of every width.
const CHUNK: usize = 8192;
/// Bytes that are copied over the stack if the file's buffer is nearly full.
const STACK_BYTES: usize = 256;

/// Writes `bytes` bytes from `from`: integers of `width` bytes each.
///
/// # Safety
/// The memory must be readable, and `bytes` a multiple of `width` (1, 2, 4 or 8).
#[inline]
pub(super) unsafe fn put(file: &MigFile, from: *const u8, bytes: usize, width: usize) {
    if let Some(room) = file.reserve(bytes) {
        // SAFETY: `from` is readable for `bytes` bytes (contract of `put`); `room` is the file's own memory of that
        // size.
        unsafe { swap::copy(from, room, bytes, width) };
        file.commit(bytes);
    } else {
        // SAFETY: the contract of `put_long` is the contract of `put`.
        unsafe { put_long(file, from, bytes, width) };
    }
}

/// # Safety
/// As `put`.
#[inline(never)]
unsafe fn put_long(file: &MigFile, from: *const u8, bytes: usize, width: usize) {
    let mut done = 0;
    while done < bytes && file.error() == 0 {
        // SAFETY: `done` is less than `bytes`, the length of the memory.
        let from = unsafe { from.add(done) };
        done += match reserve_most(file, bytes - done) {
            Some((room, size)) => {
                // SAFETY: `size` bytes are left at `from`; `room` is the file's own memory of that size.
                unsafe { swap::copy(from, room, size, width) };
                file.commit(size);
                size
            }
            // Bytes that fill the buffer are written by `put`, which flushes the file.
            None => {
                let mut rest = [0; STACK_BYTES];
                let rest = &mut rest[..(bytes - done).min(STACK_BYTES)];
                // SAFETY: `rest.len()` bytes are left at `from`.
                unsafe { swap::copy(from, rest.as_mut_ptr(), rest.len(), width) };
                file.put(rest);
                rest.len()
            }
        };
    }
}

/// Reserves up to `most` bytes with few attempts: `most`, or a multiple of every width that is larger than
/// `STACK_BYTES`.
fn reserve_most(file: &MigFile, most: usize) -> Option<(*mut u8, usize)> {
    let first = if most < BUFFER_SIZE { most } else { BUFFER_SIZE - 8 };
    let sizes = std::iter::successors(Some(first), |size| Some(size / 16 * 8));
    sizes.take_while(|size| *size > STACK_BYTES).find_map(|size| Some((file.reserve(size)?, size)))
}

/// Reads `count` integers of `width` bytes each into `into`. Returns how many are complete. If the stream ends, one
/// more is stored, whose missing bytes are zero.
///
/// # Safety
/// The memory must be writable for all of them, and `width` 1, 2, 4 or 8.
#[inline]
pub(super) unsafe fn get(file: &MigFile, into: *mut u8, count: usize, width: usize) -> usize {
    let mut done = 0;
    while done < count {
        let want = ((count - done) * width).min(CHUNK);
        let whole = file.peek(want, 0) / width;
        // SAFETY: `into` has room for `count` integers, of which these are a part; the file has as many peeked bytes.
        unsafe { swap::copy(file.peeked(0), into.add(done * width), whole * width, width) };
        file.skip(whole * width);
        done += whole;
        if whole * width < want {
            // SAFETY: `done` is less than `count`, so `into` has room for this integer.
            unsafe { get_last(file, into.add(done * width), width) };
            break;
        }
    }
    done
}

/// # Safety
/// As `get` of one.
#[cold]
unsafe fn get_last(file: &MigFile, into: *mut u8, width: usize) {
    let mut bytes = [0; 8];
    file.get(&mut bytes[..width]);
    // SAFETY: `into` is writable for `width` bytes (contract of `get_last`).
    unsafe { swap::copy(bytes.as_ptr(), into, width, width) };
}

/// Makes loaded booleans 0 or 1.
///
/// # Safety
/// The memory must be writable.
pub(super) unsafe fn normalise(at: *mut u8, count: usize) {
    for at in (0..count).map(|index| at.wrapping_add(index)) {
        // SAFETY: `at` is inside the writable memory (contract of `normalise`).
        unsafe { ptr::write(at, u8::from(ptr::read(at) != 0)) };
    }
}
