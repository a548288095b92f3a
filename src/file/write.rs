// SPDX-License-Identifier: LGPL-2.1-or-later
//! Putting. Bytes are copied to the buffer; memory of the guest may be queued between them without a copy.
//!
//! The buffer is filled from its start; what was put since the last queued piece is the *tail* and becomes a piece of
//! its own when memory is queued behind it or the file is flushed. Nothing is put once an error is latched.

use super::{BUFFER_SIZE, MigFile};
use crate::error::Error;
use crate::sys::{IoVec, release_pages};
use std::cell::{Cell, RefCell};

/// Most pieces in one write (QEMU 7.2's `MAX_IOV_SIZE`).
const MAX_PIECES: usize = 64;

/// Pieces that wait for the flush.
#[derive(Default)]
pub(super) struct Queue {
    pieces: RefCell<Vec<IoVec>>,
    /// The piece behind them, which grows while its neighbours in memory come; empty where there is none.
    last: Cell<IoVec>,
    /// Pieces whose pages may be given back once they were sent.
    releasable: RefCell<Vec<IoVec>>,
    /// Bytes in all pieces.
    bytes: Cell<u64>,
    /// Start of the tail in the buffer.
    tail: Cell<usize>,
    /// End of the buffer for puts: 0 where nothing may be put, as on a file for reading and while a write is under way.
    room: Cell<usize>,
}

impl Queue {
    pub(super) fn new(writable: bool) -> Self {
        Self { room: Cell::new(if writable { BUFFER_SIZE } else { 0 }), ..Self::default() }
    }
}

impl MigFile {
    /// Bytes that were put and are not yet written.
    pub(super) fn queued(&self) -> u64 {
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
    pub fn put_array<const N: usize>(&self, bytes: [u8; N]) {
        if !self.try_put(bytes) {
            self.put(&bytes);
        }
    }

    /// Puts a few bytes where the buffer has room behind them and nothing stands in the way. It can't panic.
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

    /// Puts bytes, through the buffer.
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

    /// As `may_put`; an error is latched where there was none.
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
            self.set_error_detail(Error::new(libc::EBADF, "a file for reading was written to"));
        } else if self.queue.room.get() == 0 {
            self.set_error_detail(Error::new(libc::EBUSY, "the file was written to from inside its own channel"));
        }
    }

    /// Queues memory to be sent without a copy. It must stay as it is until the next flush; with `may_release` its
    /// pages are given back to the system afterwards.
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

    /// As `put_async`, for memory that follows the last piece; whether it does and nothing stands in the way. It can't
    /// panic.
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

    /// Writes out everything that was put. Does nothing on a file for reading or after a shutdown.
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
            match self.channel.write_all(&mut pieces) {
                Ok(()) => self.status.credit_transfer(bytes as i64),
                Err(err) => {
                    let what = format_args!("writing {bytes} bytes to {}", self.channel_name());
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
                log::warn!("giving {} sent bytes back to the system: {err}", piece.len());
            }
        }
    }

    /// Room for `len` bytes in one piece at the end of the buffer, to be filled by the caller and put with
    /// `commit`. `None` where it is not there without a flush.
    pub fn reserve(&self, len: usize) -> Option<*mut u8> {
        let index = self.index.get();
        (self.may_put() && len < BUFFER_SIZE - index).then(|| self.buffer.address(index))
    }

    /// Puts the first `len` bytes of what was reserved.
    pub fn commit(&self, len: usize) {
        if self.reserve(len).is_some() {
            self.index.set(self.index.get() + len);
        }
    }

    /// Moves what waits in the buffer of `from` to this file and empties it; how many bytes that was
    /// (QEMU 7.2's `qemu_put_qemu_file`, for files that only collect).
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
