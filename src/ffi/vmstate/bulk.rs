// SPDX-License-Identifier: LGPL-2.1-or-later
//! Memory of the device to a file's buffer and back, many integers at a time and without a stop on the way.
//!
//! No slice is ever made of the device's memory: a file may call C in the middle, to flush or to read on.

use super::swap;
use crate::file::{BUFFER_SIZE, MigFile};
use std::ptr;

/// Bytes that are peeked at once; a multiple of every width.
const CHUNK: usize = 8192;
/// Bytes that go over the stack where the file's buffer is nearly full.
const REST: usize = 256;

/// Puts `bytes` bytes from `from`: integers of `width` bytes each.
///
/// # Safety
/// The memory must be readable, and `bytes` a multiple of `width` (1, 2, 4 or 8).
#[inline]
pub(super) unsafe fn put(file: &MigFile, from: *const u8, bytes: usize, width: usize) {
    if let Some(room) = file.reserve(bytes) {
        // SAFETY: as the caller promised; the room is as large, and the file's own.
        unsafe { swap::copy(from, room, bytes, width) };
        file.commit(bytes);
    } else {
        // SAFETY: as the caller promised.
        unsafe { put_long(file, from, bytes, width) };
    }
}

/// # Safety
/// As `put`.
#[inline(never)]
unsafe fn put_long(file: &MigFile, from: *const u8, bytes: usize, width: usize) {
    let mut done = 0;
    while done < bytes && file.error() == 0 {
        // SAFETY: inside the caller's memory.
        let from = unsafe { from.add(done) };
        done += match reserve_most(file, bytes - done) {
            Some((room, size)) => {
                // SAFETY: as in `put`.
                unsafe { swap::copy(from, room, size, width) };
                file.commit(size);
                size
            }
            // What fills the buffer goes another way, and makes the file flush.
            None => {
                let mut rest = [0; REST];
                let rest = &mut rest[..(bytes - done).min(REST)];
                // SAFETY: inside the caller's memory.
                unsafe { swap::copy(from, rest.as_mut_ptr(), rest.len(), width) };
                file.put(rest);
                rest.len()
            }
        };
    }
}

/// Room for up to `most` bytes, as much as can be found with few questions: `most`, or a multiple of every width that is
/// larger than `REST`.
fn reserve_most(file: &MigFile, most: usize) -> Option<(*mut u8, usize)> {
    let first = if most < BUFFER_SIZE { most } else { BUFFER_SIZE - 8 };
    let sizes = std::iter::successors(Some(first), |size| Some(size / 16 * 8));
    sizes.take_while(|size| *size > REST).find_map(|size| Some((file.reserve(size)?, size)))
}

/// Gets `count` integers of `width` bytes each to `into`. Returns how many came whole: where the stream ends, one more is
/// stored, whose missing bytes are zero.
///
/// # Safety
/// The memory must be writable for all of them, and `width` 1, 2, 4 or 8.
#[inline]
pub(super) unsafe fn get(file: &MigFile, into: *mut u8, count: usize, width: usize) -> usize {
    let mut done = 0;
    while done < count {
        let want = ((count - done) * width).min(CHUNK);
        let whole = file.peek(want, 0) / width;
        // SAFETY: inside the caller's memory, and so many bytes were peeked.
        unsafe { swap::copy(file.peeked(0), into.add(done * width), whole * width, width) };
        file.skip(whole * width);
        done += whole;
        if whole * width < want {
            // SAFETY: inside the caller's memory.
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
    // SAFETY: as the caller promised.
    unsafe { swap::copy(bytes.as_ptr(), into, width, width) };
}

/// Makes bytes that were loaded as booleans 0 or 1.
///
/// # Safety
/// The memory must be writable.
pub(super) unsafe fn normalise(at: *mut u8, count: usize) {
    for at in (0..count).map(|index| at.wrapping_add(index)) {
        // SAFETY: as the caller promised.
        unsafe { ptr::write(at, u8::from(ptr::read(at) != 0)) };
    }
}
