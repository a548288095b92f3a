// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where the bytes of a file come from and go to. No buffering, no policy: that is `file/`.
//!
//! A channel is shared (`Arc`) by a file and its return path, is used by one reader and one writer at a time, and may be
//! shut down from any thread at any moment, which ends every wait in it.

mod connect;
pub mod exec;
pub mod fd;
mod listen;
pub mod memory;
mod named_fd;
mod sink;
mod uri;
mod wait;

pub use connect::connect;
pub use listen::Listener;
pub use named_fd::NamedFd;
pub use sink::Sink;
pub use uri::Uri;
pub use wait::Cancel;

use crate::sys::{IoVec, Span};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A source or sink of bytes.
///
/// After `shutdown` from this side, reads and writes fail with `ErrorKind::ConnectionAborted`; after `close`, with
/// `EBADF`. The stall limit ends a wait with `ErrorKind::TimedOut`.
pub trait Channel: Send + Sync {
    /// Reads at least one byte, waiting for it; 0 is the end of the stream. `into` must not be empty.
    fn read(&self, into: Span<'_>) -> io::Result<usize>;

    /// As `read`, into several places in their order; a channel that can't fills in the first alone. None is empty.
    fn read_scattered(&self, into: &[Span<'_>]) -> io::Result<usize> {
        into.first().map_or(Ok(0), |first| self.read(*first))
    }

    /// Writes everything, waiting as needed. The pieces are consumed on the way.
    fn write_all(&self, pieces: &mut [IoVec]) -> io::Result<()>;

    /// Ends both directions: waits in other threads end, later reads and writes fail.
    /// `ErrorKind::Unsupported` where the channel can't.
    fn shutdown(&self) -> io::Result<()>;

    /// Closes the channel for both files that may share it. What it holds is freed with the last of them.
    fn close(&self) -> io::Result<()>;

    /// What the channel leads to, for error messages: a URI, if it was made from one.
    fn name(&self) -> Option<String> {
        None
    }

    /// Whether bytes can flow in both directions, so that there can be a return path.
    fn is_duplex(&self) -> bool {
        false
    }

    /// Whether somebody is at the other end who reads the stream, and not a command that may only store it.
    fn has_peer(&self) -> bool {
        self.is_duplex()
    }

    /// Whether a wait may be left to the host: only channels of the host know the difference.
    fn set_blocking(&self, _blocking: bool) -> io::Result<()> {
        Ok(())
    }

    /// How long one wait for the peer may take before it is an error (`ErrorKind::TimedOut`); `None` is for ever.
    fn set_stall_limit(&self, _limit: Option<Duration>) {}

    /// What a channel to memory has collected: address and length, valid until the next write.
    fn collected(&self) -> Option<(*const u8, usize)> {
        None
    }

    /// The host's own pointer for a channel of the host, as an address.
    fn host_channel(&self) -> Option<usize> {
        None
    }
}

/// The limit of one wait, changed while others wait: it holds from the next wait on.
#[derive(Debug)]
struct StallLimit(AtomicU64);

impl StallLimit {
    const NONE: u64 = u64::MAX;

    const fn new() -> Self {
        Self(AtomicU64::new(Self::NONE))
    }

    fn set(&self, limit: Option<Duration>) {
        let nanos = limit.map(|limit| u64::try_from(limit.as_nanos()).unwrap_or(Self::NONE));
        self.0.store(nanos.unwrap_or(Self::NONE), Ordering::Relaxed);
    }

    fn get(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            Self::NONE => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }
}

/// This side shut the channel down.
fn aborted() -> io::Error {
    io::Error::from_raw_os_error(libc::ECONNABORTED)
}

/// This side closed the channel.
fn closed() -> io::Error {
    io::Error::from_raw_os_error(libc::EBADF)
}

/// The peer did nothing for as long as the stall limit allows.
fn stalled() -> io::Error {
    io::Error::from_raw_os_error(libc::ETIMEDOUT)
}

#[cfg(test)]
mod testing;
