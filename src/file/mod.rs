// SPDX-License-Identifier: LGPL-2.1-or-later
//! `QEMUFile`: a buffered stream of bytes over a channel (replaces QEMU 7.2's `migration/qemu-file.c`).
//!
//! One thread at a time reads or writes. Any thread may latch an error, shut the file down or change the rate limit. C
//! holds plain pointers to a file while its callbacks run, so everything works through `&self`, and no borrow is held
//! across a call into a channel.
//!
//! - `write.rs`: puts bytes, queues memory without a copy, flushes.
//! - `read.rs`: gets and peeks bytes.
//! - `codec.rs`: lets `wire` encode to and decode from a file.
//! - `descriptors.rs`: puts and gets open descriptors.
//! - `status.rs`: the error latch, totals and rate limit.
//! - `pending_error.rs`: depth and pending error of the VMState interpreter.
//! - `remaining.rs`: reads the remaining bytes without the buffer.
//! - `seek.rs`: moves the position of a stream in a regular file.
//! - `references.rs`: the lifetime of a file that C closes during a load.

mod codec;
mod descriptors;
mod pending_error;
mod read;
mod references;
mod remaining;
mod seek;
mod status;
#[cfg(test)]
mod tests;
mod write;

use crate::channel::Channel;
use crate::error::{Error, Result, io_text};
use crate::sys::{ByteBuffer, Level};
use status::Status;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use write::Queue;

pub use pending_error::PendingError;
pub use references::References;
pub use remaining::RemainingReader;
pub use write::Writes;

/// Size of the buffer of a file in bytes, and the limit of a peek (QEMU 7.2's `IO_BUF_SIZE`).
pub const BUFFER_SIZE: usize = 32768;

/// The host's functions that a file keeps for RAM over a transport of its own (QEMU 7.2's `QEMUFileHooks`, for RDMA).
#[derive(Clone, Copy, Debug, Default)]
pub struct RamHooks {
    /// The address of the table, or 0.
    pub table: usize,
    /// The pointer that the functions of a table up to QEMU 7.0 get. `None`: they get none.
    pub opaque: Option<usize>,
}

/// A stream of bytes that is read or written. C sees it as `QEMUFile`.
pub struct MigFile {
    /// Position in the buffer of the next byte.
    index: Cell<usize>,
    /// Reading: number of bytes in the buffer. Writing: always 0.
    filled: Level<BUFFER_SIZE>,
    /// Number of bytes that went through the channel.
    through: Cell<u64>,
    buffer: ByteBuffer<BUFFER_SIZE>,
    queue: Queue,
    status: Status,
    writes: Arc<Writes>,
    pending_error: PendingError,
    references: References,
    /// Number of bytes that were allocated because the stream asked for them.
    allocated: Cell<usize>,
    /// An address that the host keeps with the file, or 0.
    host_data: AtomicUsize,
    ram_hooks: Cell<RamHooks>,
    writable: bool,
    channel: Arc<dyn Channel>,
}

impl MigFile {
    /// Creates a file over a channel, for writing or for reading.
    pub fn new(channel: Arc<dyn Channel>, writable: bool) -> Self {
        Self {
            index: Cell::new(0),
            filled: Level::default(),
            through: Cell::new(0),
            buffer: ByteBuffer::default(),
            queue: Queue::new(writable),
            status: Status::default(),
            writes: Arc::default(),
            pending_error: PendingError::default(),
            references: References::default(),
            allocated: Cell::new(0),
            host_data: AtomicUsize::new(0),
            ram_hooks: Cell::default(),
            writable,
            channel,
        }
    }

    /// Counts memory that is allocated because the stream asks for it. Returns false, and counts nothing, if the sum
    /// would exceed `limit` bytes.
    pub fn charge(&self, bytes: usize, limit: usize) -> bool {
        let sum = self.allocated.get().saturating_add(bytes);
        if sum <= limit {
            self.allocated.set(sum);
        }
        sum <= limit
    }

    /// Returns the number of bytes that were allocated because the stream asked for them.
    pub fn allocated(&self) -> usize {
        self.allocated.get()
    }

    /// Continues the count of allocations of another file: a package and the stream around it share one limit.
    pub fn continue_count_of(&self, other: &Self) {
        self.allocated.set(other.allocated.get());
    }

    /// Returns the address that the host keeps with the file. The library does not use it.
    pub fn host_data(&self) -> &AtomicUsize {
        &self.host_data
    }

    /// Returns the host's hooks of RAM.
    pub fn ram_hooks(&self) -> RamHooks {
        self.ram_hooks.get()
    }

    /// Sets the host's hooks of RAM.
    pub fn set_ram_hooks(&self, hooks: RamHooks) {
        self.ram_hooks.set(hooks);
    }

    /// Returns whether the file is for writing.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Returns the channel.
    pub fn channel(&self) -> &Arc<dyn Channel> {
        &self.channel
    }

    /// Returns the part that any thread may use while another one reads or writes.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Returns the count of what the channel took.
    pub fn writes(&self) -> Arc<Writes> {
        Arc::clone(&self.writes)
    }

    /// Returns the state of the VMState interpreter.
    pub fn pending_error(&self) -> &PendingError {
        &self.pending_error
    }

    /// Returns the references besides the owner's.
    pub fn references(&self) -> &References {
        &self.references
    }

    /// Returns a reader of the remaining bytes. Fails with `EINVAL` on a file for writing, or with the first error of
    /// the file.
    pub fn remaining(&self) -> Result<RemainingReader<'_>> {
        if self.writable {
            return Err(Error::invalid("the file is for writing"));
        }
        self.check().map(|()| RemainingReader(self))
    }

    /// Returns the offset in the stream of the next byte.
    pub fn position(&self) -> u64 {
        if self.writable {
            self.through.get() + self.queued()
        } else {
            self.through.get() - (self.filled.get() - self.index.get()) as u64
        }
    }

    /// Creates a file for the opposite direction over the same channel, or `None` if the channel has one direction
    /// only.
    pub fn return_path(&self) -> Option<Self> {
        self.channel.is_duplex().then(|| Self::new(Arc::clone(&self.channel), !self.writable))
    }

    /// Shuts the file down, from any thread: waits end, and no more bytes are read or written (QEMU 7.2's
    /// `qemu_file_shutdown`). Latches `-EIO` first, so that no reader takes the zeros that it gets for data.
    pub fn shutdown(&self) -> Result<()> {
        self.status.set_shutdown();
        self.status.latch(Error::new(libc::EIO, "the file was shut down"));
        self.channel.shutdown().map_err(|err| match err.kind() {
            std::io::ErrorKind::Unsupported => Error::new(libc::ENOSYS, "this channel can't be shut down"),
            _ => Error::new(libc::EIO, format!("shutting the channel down: {}", io_text(&err))),
        })
    }

    /// The error behind the negative result `ret` of a callback that used the file: the file's first error, if the file
    /// has failed and the cause is known, else that the callback returned `ret`.
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

    /// Flushes and closes the file. Returns its first error, or the error of closing. The file is unusable afterwards.
    pub fn close(&self) -> Result<()> {
        self.flush();
        let closed = self.channel.close().map_err(|err| Error::io("closing the channel", &err));
        self.check().and(closed)
    }
}
