// SPDX-License-Identifier: LGPL-2.1-or-later
//! A buffer that is written through a shared reference, and spans that a channel reads into.
//!
//! A `QEMUFile` is used by C through plain pointers and from inside callbacks, so its buffer can't be borrowed mutably.
//! `ByteBuffer` copies in and out and never hands out a Rust reference to its content.

use super::IoVec;
use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::ptr;

/// A fixed number of bytes with interior mutability; used by one thread at a time (`!Sync`).
pub struct ByteBuffer<const SIZE: usize>(Box<[UnsafeCell<u8>; SIZE]>);

/// Number of bytes of a buffer that hold data: never more than its size.
#[derive(Default)]
pub struct Level<const SIZE: usize>(Cell<usize>);

impl<const SIZE: usize> Level<SIZE> {
    /// The number.
    #[inline]
    pub fn get(&self) -> usize {
        self.0.get()
    }

    /// Sets the number. Panics if it is larger than the buffer.
    #[inline]
    pub fn set(&self, count: usize) {
        assert!(count <= SIZE);
        self.0.set(count);
    }
}

impl<const SIZE: usize> Default for ByteBuffer<SIZE> {
    /// Zero bytes.
    fn default() -> Self {
        let bytes: Box<[UnsafeCell<u8>]> = (0..SIZE).map(|_| UnsafeCell::new(0)).collect();
        match bytes.try_into() {
            Ok(bytes) => Self(bytes),
            Err(_) => unreachable!("as many cells were collected"),
        }
    }
}

impl<const SIZE: usize> ByteBuffer<SIZE> {
    #[inline]
    fn at(&self, at: usize, len: usize) -> *mut u8 {
        let part = &self.0[at..at + len];
        UnsafeCell::raw_get(part.as_ptr())
    }

    /// The address of byte `at`, which may be one past the last.
    #[inline]
    pub fn address(&self, at: usize) -> *mut u8 {
        self.at(at, 0)
    }

    /// Copies `bytes` to `at`. Panics if they do not fit.
    #[inline]
    pub fn store(&self, at: usize, bytes: &[u8]) {
        let to = self.at(at, bytes.len());
        // SAFETY: `to` is valid for that length, `!Sync` rules out another thread, and `copy` allows an overlap.
        unsafe { ptr::copy(bytes.as_ptr(), to, bytes.len()) }
    }

    /// Copies a fixed number of bytes to `at`. Returns false if they do not fit.
    #[inline]
    pub fn store_array<const N: usize>(&self, at: usize, bytes: [u8; N]) -> bool {
        if at > SIZE.saturating_sub(N) {
            return false;
        }
        // SAFETY: the bytes fit, `!Sync` rules out another thread, and bytes have no alignment.
        unsafe { UnsafeCell::raw_get(self.0.as_ptr().add(at)).cast::<[u8; N]>().write(bytes) };
        true
    }

    /// Copies a fixed number of bytes from `at`. `None` beyond the end of the buffer.
    #[inline]
    pub fn load_array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        if at > SIZE.saturating_sub(N) {
            return None;
        }
        // SAFETY: the bytes are there, and bytes have no alignment.
        Some(unsafe { UnsafeCell::raw_get(self.0.as_ptr().add(at)).cast::<[u8; N]>().read() })
    }

    /// Copies a fixed number of bytes from `at`. `None` beyond the level.
    #[inline]
    pub fn load_below<const N: usize>(&self, at: usize, level: &Level<SIZE>) -> Option<[u8; N]> {
        let level = level.get();
        if at >= level || level - at < N {
            return None;
        }
        // SAFETY: the bytes are below the level, which is not above the size; they have no alignment.
        Some(unsafe { UnsafeCell::raw_get(self.0.as_ptr().add(at)).cast::<[u8; N]>().read() })
    }

    /// Copies bytes from `at` to `into`. Panics beyond the end of the buffer.
    #[inline]
    pub fn load_into(&self, at: usize, into: &mut [u8]) {
        let from = self.at(at, into.len());
        // SAFETY: both are valid for that length; an overlap is allowed.
        unsafe { ptr::copy(from, into.as_mut_ptr(), into.len()) }
    }

    /// Moves `len` bytes from `from` to the start of the buffer.
    pub fn move_to_start(&self, from: usize, len: usize) {
        let source = self.at(from, len);
        // SAFETY: both ranges lie in the buffer; an overlap is allowed.
        unsafe { ptr::copy(source, self.at(0, len), len) }
    }

    /// `len` bytes at `at`, as a piece to write. It must be written or dropped before the buffer is dropped.
    pub fn piece(&self, at: usize, len: usize) -> IoVec {
        // SAFETY: the bytes are in the buffer; the file that owns it drops its pieces first.
        unsafe { IoVec::new(self.at(at, len), len) }
    }

    /// The bytes from `at` on, as the destination of a read.
    pub fn span(&self, at: usize) -> Span<'_> {
        let len = SIZE - at;
        Span { start: self.at(at, len), len, life: PhantomData }
    }
}

/// Bytes of the library that are sent without a copy.
#[derive(Debug, Default)]
pub struct SendBuffer(Vec<u8>);

impl SendBuffer {
    /// The bytes, to be changed when no piece of them is in use.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// `len` bytes at `at`, as a piece to write. It must be written or dropped before the buffer is changed or dropped.
    pub fn piece(&self, at: usize, len: usize) -> IoVec {
        let bytes = &self.0[at..at + len];
        // SAFETY: the bytes are in the buffer; the thread that owns it writes its pieces first.
        unsafe { IoVec::new(bytes.as_ptr(), bytes.len()) }
    }
}

/// Memory that a channel may write into. It may alias anything: only raw copies touch it.
#[derive(Clone, Copy)]
pub struct Span<'a> {
    start: *mut u8,
    len: usize,
    life: PhantomData<&'a UnsafeCell<u8>>,
}

impl<'a> Span<'a> {
    /// The span over a mutable slice.
    pub fn from_slice(slice: &'a mut [u8]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), life: PhantomData }
    }

    /// A span over memory of a C caller.
    ///
    /// # Safety
    /// `start` must be valid for writes of `len` bytes for as long as the span lives.
    pub unsafe fn from_raw(start: *mut u8, len: usize) -> Self {
        Self { start, len, life: PhantomData }
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Start address.
    pub fn address(&self) -> *mut u8 {
        self.start
    }

    /// The rest after the first `count` bytes. Panics if there are fewer.
    pub fn skip(self, count: usize) -> Self {
        assert!(count <= self.len);
        // SAFETY: the result is within the span or one past its end.
        Self { start: unsafe { self.start.add(count) }, len: self.len - count, life: PhantomData }
    }

    /// The first `count` bytes, or all if there are fewer.
    pub fn first(self, count: usize) -> Self {
        Self { len: self.len.min(count), ..self }
    }

    /// Copies `bytes` to the start. Panics if they do not fit.
    pub fn store(&self, bytes: &[u8]) {
        assert!(bytes.len() <= self.len);
        // SAFETY: the span is valid for writes of its length; an overlap is allowed.
        unsafe { ptr::copy(bytes.as_ptr(), self.start, bytes.len()) }
    }

    /// Copies from `buffer`, starting at its byte `at`. Panics if either range is too short.
    pub fn store_from<const SIZE: usize>(&self, buffer: &ByteBuffer<SIZE>, at: usize, len: usize) {
        assert!(len <= self.len);
        // SAFETY: both are valid for that length; an overlap is allowed.
        unsafe { ptr::copy(buffer.at(at, len), self.start, len) }
    }
}

/// Removes `count` bytes from the front of the spans, and returns the rest.
pub fn advance_spans<'s, 'm>(mut spans: &'s mut [Span<'m>], mut count: usize) -> &'s mut [Span<'m>] {
    while let Some(first) = spans.first_mut() {
        if count < first.len() {
            *first = first.skip(count);
            break;
        }
        count -= first.len();
        spans = &mut spans[1..];
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_and_loads() {
        let buffer = ByteBuffer::<8>::default();
        buffer.store(2, &[1, 2, 3, 4]);
        assert_eq!(buffer.load_array::<4>(2), Some([1, 2, 3, 4]));
        buffer.move_to_start(3, 3);
        assert_eq!(buffer.load_array::<3>(0), Some([2, 3, 4]));
        assert_eq!(buffer.load_array::<3>(6), None);
        let level = Level::default();
        assert_eq!(buffer.load_below::<1>(0, &level), None);
        level.set(3);
        assert_eq!(buffer.load_below::<3>(0, &level), Some([2, 3, 4]));
        for at in [1, 3, usize::MAX] {
            assert_eq!(buffer.load_below::<3>(at, &level), None);
        }
        assert!(!buffer.store_array(7, [1, 2]));
        let mut out = [0; 2];
        Span::from_slice(&mut out).skip(1).store(&[9]);
        assert_eq!(out, [0, 9]);
    }

    #[test]
    #[should_panic(expected = "count <= SIZE")]
    fn a_level_above_the_size_panics() {
        Level::<8>::default().set(9);
    }

    #[test]
    #[should_panic(expected = "range end index 9")]
    fn a_store_past_the_end_panics() {
        ByteBuffer::<8>::default().store(6, &[1, 2, 3]);
    }
}
