// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where the bytes of a file come from and go to. No buffering, no policy: that is `file/`.
//!
//! A channel is shared (`Arc`) by a file and its return path, is used by one reader and one writer at a time, and may be
//! shut down from any thread at any moment, which ends every wait in it.

use crate::sys::{IoVec, Span};
use std::io;
use std::time::Duration;

/// A source or sink of bytes.
pub trait Channel: Send + Sync {
    /// Reads at least one byte, waiting for it; 0 is the end of the stream.
    fn read(&self, into: Span<'_>) -> io::Result<usize>;

    /// Writes everything, waiting as needed. The pieces are consumed on the way.
    fn write_all(&self, pieces: &mut [IoVec]) -> io::Result<()>;

    /// Ends both directions: waits in other threads end, later reads and writes fail.
    /// `ErrorKind::Unsupported` where the channel can't.
    fn shutdown(&self) -> io::Result<()>;

    /// Closes the channel for both files that may share it. What it holds is freed with the last of them.
    fn close(&self) -> io::Result<()>;

    /// Whether bytes can flow in both directions, so that there can be a return path.
    fn is_duplex(&self) -> bool {
        false
    }

    /// Whether a wait may be left to the host: only channels of the host know the difference.
    fn set_blocking(&self, _blocking: bool) -> io::Result<()> {
        Ok(())
    }

    /// How long one wait for the peer may take before it is an error (`ErrorKind::TimedOut`); `None` is for ever.
    fn set_stall_limit(&self, _limit: Option<Duration>) {}

    /// The host's own pointer for a channel of the host, as an address.
    fn host_channel(&self) -> Option<usize> {
        None
    }
}
