// SPDX-License-Identifier: LGPL-2.1-or-later
//! Pieces of memory to write: of the library's buffer or of guest memory.

use std::io;

/// One piece to write; the layout of `struct iovec`.
///
/// It holds an address, not a borrow: guest memory changes while it is sent. The memory stays mapped until the write is
/// done (the contract of `qemu_put_buffer_async`).
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct IoVec(libc::iovec);

// SAFETY: an address and a length; what is behind them is only touched by system calls and raw copies.
unsafe impl Send for IoVec {}

impl Default for IoVec {
    /// An empty piece.
    fn default() -> Self {
        Self(libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 })
    }
}

impl IoVec {
    /// A piece that starts at `start`.
    ///
    /// # Safety
    /// The memory must stay readable until the piece was written or dropped.
    pub unsafe fn new(start: *const u8, len: usize) -> Self {
        Self(libc::iovec { iov_base: start.cast_mut().cast(), iov_len: len })
    }

    /// The piece over a slice that outlives it.
    pub fn from_static(slice: &'static [u8]) -> Self {
        // SAFETY: 'static memory stays readable.
        unsafe { Self::new(slice.as_ptr(), slice.len()) }
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.0.iov_len
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.0.iov_len == 0
    }

    /// Start address.
    pub fn address(&self) -> *const u8 {
        self.0.iov_base.cast()
    }

    /// One past its last byte.
    pub fn end(&self) -> *const u8 {
        self.address().wrapping_add(self.len())
    }

    /// The piece extended by the `count` bytes behind it, which must be readable as well.
    pub fn grown(self, count: usize) -> Self {
        Self(libc::iovec { iov_len: self.0.iov_len + count, ..self.0 })
    }

    /// The first `count` bytes, or all if there are fewer.
    pub fn first(self, count: usize) -> Self {
        Self(libc::iovec { iov_len: self.0.iov_len.min(count), ..self.0 })
    }

    /// Appends the bytes to `out`.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        // SAFETY: the creator promised that the memory is readable. The copy is raw: a guest may write meanwhile.
        unsafe {
            let old = out.len();
            out.reserve(self.len());
            std::ptr::copy_nonoverlapping(self.address(), out.as_mut_ptr().add(old), self.len());
            out.set_len(old + self.len());
        }
    }

    /// The piece without its first `count` bytes. Panics if it has fewer.
    pub fn behind(mut self, count: usize) -> Self {
        assert!(count <= self.len());
        self.consume(count);
        self
    }

    fn consume(&mut self, count: usize) {
        self.0.iov_base = self.0.iov_base.wrapping_byte_add(count);
        self.0.iov_len -= count;
    }

    pub(super) fn as_raw(pieces: &[Self]) -> *const libc::iovec {
        pieces.as_ptr().cast()
    }
}

/// Calls `write` with a piece over `bytes`. The piece must not be kept.
pub fn with_piece<T>(bytes: &[u8], write: impl FnOnce(IoVec) -> T) -> T {
    // SAFETY: the slice outlives the call, and `write` does not keep the piece.
    write(unsafe { IoVec::new(bytes.as_ptr(), bytes.len()) })
}

/// Removes `count` written bytes from the front and returns the rest.
pub fn advance(mut pieces: &mut [IoVec], mut count: usize) -> &mut [IoVec] {
    while let Some(first) = pieces.first_mut() {
        if count < first.len() {
            first.consume(count);
            break;
        }
        count -= first.len();
        pieces = &mut pieces[1..];
    }
    pieces
}

/// Releases whole sent pages (`MADV_DONTNEED`); they read as zero afterwards. Only for pieces that were queued as
/// releasable: their owner no longer needs the content.
pub fn release_pages(piece: IoVec) -> io::Result<()> {
    // SAFETY: who queued the piece as releasable gave its content up; the kernel checks the range itself.
    match unsafe { libc::madvise(piece.0.iov_base, piece.0.iov_len, libc::MADV_DONTNEED) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advance_crosses_pieces() {
        let mut pieces = [IoVec::from_static(b"abc"), IoVec::from_static(b"defg")];
        let rest = advance(&mut pieces, 4);
        let mut out = Vec::new();
        rest.iter().for_each(|piece| piece.append_to(&mut out));
        assert_eq!(out, b"efg");
        assert!(advance(rest, 3).is_empty());
    }
}
