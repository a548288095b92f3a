// SPDX-License-Identifier: LGPL-2.1-or-later
//! Puts bytes. They are copied to the buffer. Memory of the guest may be queued between them without a copy.
//!
//! The buffer is filled from its start. The bytes since the last queued piece are the *tail*. The tail becomes a piece
//! when memory is queued behind it or the file is flushed. After an error is latched, further bytes are dropped.

use super::{BUFFER_SIZE, MigFile};
use crate::error::{self, Error};
use crate::sys::{IoVec, release_pages};
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Limit of the pieces in one write (QEMU 7.2's `MAX_IOV_SIZE`).
const MAX_PIECES: usize = 64;

/// What the channel took, for another thread that watches whether the peer reads.
#[derive(Debug, Default)]
pub struct Writes {
    sent: AtomicU64,
    is_writing: AtomicBool,
}

impl Writes {
    fn begin(&self) {
        self.is_writing.store(true, Relaxed);
    }

    fn end(&self, bytes: u64) {
        self.is_writing.store(false, Relaxed);
        self.sent.fetch_add(bytes, Relaxed);
    }

    /// Returns the bytes of all writes that have ended, and whether one is in progress.
    pub fn get(&self) -> (u64, bool) {
        (self.sent.load(Relaxed), self.is_writing.load(Relaxed))
    }
}

/// The pieces that wait for a flush.
#[derive(Default)]
pub(super) struct Queue {
    pieces: RefCell<Vec<IoVec>>,
    /// The last piece, which grows while memory that follows it is queued. Empty if there is none.
    last: Cell<IoVec>,
    /// Pieces whose pages may be released after they were sent.
    releasable: RefCell<Vec<IoVec>>,
    /// Number of bytes in all pieces.
    bytes: Cell<u64>,
    /// Start of the tail in the buffer.
    tail: Cell<usize>,
    /// Size of the buffer, or 0 while nothing may be put: on a file for reading, and during a write to the channel.
    room: Cell<usize>,
}

impl Queue {
    pub(super) fn new(writable: bool) -> Self {
        Self { room: Cell::new(if writable { BUFFER_SIZE } else { 0 }), ..Self::default() }
    }
}

impl MigFile {
    /// Returns the number of bytes that were put and not yet written.
    pub fn queued(&self) -> u64 {
        self.queue.bytes.get() + (self.index.get() - self.queue.tail.get()) as u64
    }

    /// Puts one byte.
    #[inline]
    pub fn put_byte(&self, value: u8) {
        self.put_array([value]);
    }

    /// Puts a big-endian 16-bit value.
    #[inline]
    pub fn put_be16(&self, value: u16) {
        self.put_array(value.to_be_bytes());
    }

    /// Puts a big-endian 32-bit value.
    #[inline]
    pub fn put_be32(&self, value: u32) {
        self.put_array(value.to_be_bytes());
    }

    /// Puts a big-endian 64-bit value.
    #[inline]
    pub fn put_be64(&self, value: u64) {
        self.put_array(value.to_be_bytes());
    }

    /// Puts a few bytes, whose number is known at compile time.
    #[inline]
    pub(super) fn put_array<const N: usize>(&self, bytes: [u8; N]) {
        if !self.try_put(bytes) {
            self.put(&bytes);
        }
    }

    /// Puts a few bytes if the buffer has room for more than them and the file has no error. Never panics.
    #[inline]
    pub fn try_put<const N: usize>(&self, bytes: [u8; N]) -> bool {
        let index = self.index.get();
        let fits = index + N < self.queue.room.get() && self.error() == 0 && self.buffer.store_array(index, bytes);
        if fits {
            self.index.set(index + N);
        }
        fits
    }

    #[inline]
    fn may_put(&self) -> bool {
        self.queue.room.get() > 0 && self.error() == 0
    }

    /// Puts bytes.
    pub fn put(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.may_put_or_latch() {
            let index = self.index.get();
            let (now, later) = bytes.split_at(bytes.len().min(BUFFER_SIZE - index));
            self.buffer.store(index, now);
            self.index.set(index + now.len());
            bytes = later;
            if self.index.get() == BUFFER_SIZE {
                self.flush();
            }
        }
    }

    /// As `may_put`. Latches an error if nothing may be put.
    #[inline]
    fn may_put_or_latch(&self) -> bool {
        let may = self.may_put();
        if !may {
            self.latch_refusal();
        }
        may
    }

    #[cold]
    fn latch_refusal(&self) {
        if !self.writable {
            self.set_error_detail(Error::new(libc::EBADF, "cannot write to a file for reading"));
        } else if self.queue.room.get() == 0 {
            self.set_error_detail(Error::new(libc::EBUSY, "cannot write to a file from a callback of its own channel"));
        }
    }

    /// Queues memory that is sent without a copy. It must not change until the next flush. With `may_release`, its
    /// pages are released to the system afterwards.
    pub fn put_async(&self, piece: IoVec, may_release: bool) {
        if piece.is_empty() || !self.may_put_or_latch() {
            return;
        }
        self.queue_tail();
        if may_release {
            self.queue.releasable.borrow_mut().push(piece);
        }
        self.queue_piece(piece);
        if self.queue.pieces.borrow().len() >= MAX_PIECES - 2 {
            self.flush();
        }
    }

    /// As `put_async`, for memory that follows the last piece. Returns false, and does nothing, if it does not follow
    /// or nothing may be put. Never panics.
    #[inline]
    pub fn try_put_async(&self, piece: IoVec) -> bool {
        self.may_put() && self.index.get() == self.queue.tail.get() && self.extend_last(piece)
    }

    #[inline]
    fn extend_last(&self, piece: IoVec) -> bool {
        let last = self.queue.last.get();
        let follows = !last.is_empty() && last.end() == piece.address();
        if follows {
            self.queue.last.set(last.grown(piece.len()));
            self.queue.bytes.set(self.queue.bytes.get() + piece.len() as u64);
        }
        follows
    }

    fn queue_piece(&self, piece: IoVec) {
        if self.extend_last(piece) {
            return;
        }
        let before = self.queue.last.replace(piece);
        if !before.is_empty() {
            self.queue.pieces.borrow_mut().push(before);
        }
        self.queue.bytes.set(self.queue.bytes.get() + piece.len() as u64);
    }

    fn queue_tail(&self) {
        let (tail, index) = (self.queue.tail.get(), self.index.get());
        if index > tail {
            self.queue_piece(self.buffer.piece(tail, index - tail));
            self.queue.tail.set(index);
        }
    }

    /// Writes all bytes that were put to the channel. Does nothing on a file for reading or after a shutdown.
    pub fn flush(&self) {
        if !self.writable || self.status.is_shutdown() || self.queue.room.get() == 0 {
            return;
        }
        self.queue_tail();
        let mut pieces = self.queue.pieces.take();
        pieces.push(self.queue.last.take());
        let bytes = self.queue.bytes.get();
        if bytes > 0 {
            self.queue.room.set(0);
            self.writes.begin();
            let written = self.channel.write_all(&mut pieces);
            self.writes.end(bytes);
            match written {
                Ok(()) => self.status.credit_transfer(bytes as i64),
                Err(err) => {
                    let what = format_args!("writing {} to {}", error::size(bytes), self.channel_name());
                    self.set_error_detail(Error::channel(what, &err).at_offset(self.through.get()));
                }
            }
            self.queue.room.set(BUFFER_SIZE);
        }
        self.release_sent();
        pieces.clear();
        self.queue.pieces.replace(pieces);
        self.queue.bytes.set(0);
        self.queue.tail.set(0);
        self.index.set(0);
        self.through.set(self.through.get() + bytes);
    }

    fn release_sent(&self) {
        for piece in self.queue.releasable.take() {
            if let Err(err) = release_pages(piece) {
                log::warn!("cannot release {} of sent memory to the system: {err}", error::size(piece.len() as u64));
            }
        }
    }

    /// Returns the address of `len` free bytes at the end of the buffer, or `None` if they need a flush first. The
    /// caller fills them and calls `commit`.
    pub fn reserve(&self, len: usize) -> Option<*mut u8> {
        let index = self.index.get();
        (self.may_put() && len < BUFFER_SIZE - index).then(|| self.buffer.address(index))
    }

    /// Puts the first `len` bytes after they were reserved and filled.
    pub fn commit(&self, len: usize) {
        if self.reserve(len).is_some() {
            self.index.set(self.index.get() + len);
        }
    }

    /// Moves the bytes in the buffer of `from` to this file. Returns their number (QEMU 7.2's `qemu_put_qemu_file`, for
    /// files that only collect).
    pub fn put_buffered(&self, from: &Self) -> usize {
        let len = if from.writable { from.index.get() } else { 0 };
        if len > 0 {
            let mut bytes = vec![0; len];
            from.buffer.load_into(0, &mut bytes);
            self.put(&bytes);
            from.queue.pieces.borrow_mut().clear();
            from.queue.last.take();
            from.queue.bytes.set(0);
            from.queue.tail.set(0);
            from.index.set(0);
            from.through.set(from.through.get() + len as u64);
        }
        len
    }
}
