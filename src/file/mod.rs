// SPDX-License-Identifier: LGPL-2.1-or-later
//! `QEMUFile`: a buffered stream of bytes over a channel (replaces QEMU 7.2's `migration/qemu-file.c`).
//!
//! One thread at a time puts or gets; any thread may latch an error, shut the file down or change the rate limit. C holds
//! plain pointers to a file while its callbacks run, so everything works through `&self` and no borrow is held across a
//! call into a channel.
//!
//! - `write.rs`: putting, queueing memory without a copy, flushing.
//! - `read.rs`: getting and peeking.
//! - `codec.rs`: the file as what `wire` encodes to and decodes from.
//! - `status.rs`: the error latch, totals and rate limit.
//! - `trail.rs`: depth and pending error of the VMState interpreter.
//! - `rest.rs`: reading on without the buffer.
//! - `lease.rs`: how long a file lives that C closes.

mod codec;
mod lease;
mod read;
mod rest;
mod status;
#[cfg(test)]
mod tests;
mod trail;
mod write;

use crate::channel::Channel;
use crate::error::{Error, Result, system_text};
use crate::sys::{ByteBuffer, Level};
use status::Status;
use std::cell::Cell;
use std::sync::Arc;
use write::Queue;

pub use lease::Leases;
pub use rest::Rest;
pub use trail::Trail;

/// Size of a file's buffer in bytes, and so the furthest that can be peeked (QEMU 7.2's `IO_BUF_SIZE`).
pub const BUFFER_SIZE: usize = 32768;

/// A stream of bytes to write or to read, as C's `QEMUFile`.
pub struct MigFile {
    /// Next byte of the buffer to put or get.
    index: Cell<usize>,
    /// Reading: how many bytes of the buffer hold data. Writing: always 0.
    filled: Level<BUFFER_SIZE>,
    /// Bytes that went through the channel; `position()` adds what the buffer holds.
    through: Cell<u64>,
    buffer: ByteBuffer<BUFFER_SIZE>,
    queue: Queue,
    status: Status,
    trail: Trail,
    leases: Leases,
    /// Bytes that were allocated because the stream asked for them.
    allocated: Cell<usize>,
    writable: bool,
    channel: Arc<dyn Channel>,
}

impl MigFile {
    /// A file over a channel: for writing, or for reading.
    pub fn new(channel: Arc<dyn Channel>, writable: bool) -> Self {
        Self {
            index: Cell::new(0),
            filled: Level::default(),
            through: Cell::new(0),
            buffer: ByteBuffer::default(),
            queue: Queue::new(writable),
            status: Status::default(),
            trail: Trail::default(),
            leases: Leases::default(),
            allocated: Cell::new(0),
            writable,
            channel,
        }
    }

    /// Counts memory that is allocated because the stream asks for it, unless that makes more than `limit` bytes in sum.
    pub fn charge(&self, bytes: usize, limit: usize) -> bool {
        let sum = self.allocated.get().saturating_add(bytes);
        if sum <= limit {
            self.allocated.set(sum);
        }
        sum <= limit
    }

    /// Bytes that were allocated because the stream asked for them.
    pub fn allocated(&self) -> usize {
        self.allocated.get()
    }

    /// Goes on with the count of another file: a package and the stream around it have one limit.
    pub fn continue_count_of(&self, other: &Self) {
        self.allocated.set(other.allocated.get());
    }

    /// Whether the file is for writing.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// The channel below.
    pub fn channel(&self) -> &Arc<dyn Channel> {
        &self.channel
    }

    /// The parts that any thread may use while another one puts or gets.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// What the VMState interpreter keeps with the file.
    pub fn trail(&self) -> &Trail {
        &self.trail
    }

    /// Who works with the file besides its owner.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// What is still to be read, without a part in it for the buffer: `-EINVAL` where the file is for writing, or its
    /// first error.
    pub fn rest(&self) -> Result<Rest<'_>> {
        if self.writable {
            return Err(Error::invalid("the file is for writing"));
        }
        self.check().map(|()| Rest(self))
    }

    /// Offset in the stream of the next byte that is put or got.
    pub fn position(&self) -> u64 {
        if self.writable {
            self.through.get() + self.queued()
        } else {
            self.through.get() - (self.filled.get() - self.index.get()) as u64
        }
    }

    /// A file for the opposite direction over the same channel, or `None` where bytes flow one way only.
    pub fn return_path(&self) -> Option<Self> {
        self.channel.is_duplex().then(|| Self::new(Arc::clone(&self.channel), !self.writable))
    }

    /// Stops the file from any thread: waits end and nothing more goes in or out. Latches `-EIO` first, so that no
    /// reader takes the zeros that it gets from now on for data (QEMU 7.2's `qemu_file_shutdown`).
    pub fn shutdown(&self) -> Result<()> {
        self.status.set_shutdown();
        self.status.latch(Error::new(libc::EIO, "the file was shut down"));
        self.channel.shutdown().map_err(|err| match err.kind() {
            std::io::ErrorKind::Unsupported => Error::new(libc::ENOSYS, "this channel can't be shut down"),
            _ => Error::new(libc::EIO, format!("shutting the channel down: {}", system_text(&err))),
        })
    }

    /// The error behind the negative result `ret` of a callback that used the file: the file's first error, if the file has
    /// failed and the cause is known, else that the callback returned `ret`.
    pub fn cause(&self, callback: &str, ret: i32) -> Error {
        self.status.detail().unwrap_or_else(|| Error::from_callback(callback, ret))
    }

    /// The file's first error, if its cause is known, in place of an error that came from it.
    pub fn explain(&self, later: Error) -> Error {
        self.status.detail().unwrap_or(later)
    }

    /// The name of the channel, for error messages.
    fn channel_name(&self) -> String {
        self.channel.name().unwrap_or_else(|| "the channel".to_owned())
    }

    /// Flushes and closes; the first error of the file's life, or of closing. The file is spent afterwards.
    pub fn close(&self) -> Result<()> {
        self.flush();
        let closed = self.channel.close().map_err(|err| Error::io("closing the channel", &err));
        self.check().and(closed)
    }
}
