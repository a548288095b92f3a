// SPDX-License-Identifier: LGPL-2.1-or-later
//! Counts received bytes, so that an incoming migration can report progress while a thread waits for the rest.

use super::handshake::Handshake;
use crate::channel::Channel;
use crate::migration::stats::Stats;
use crate::sys::{IoVec, Span};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A connection whose bytes are counted as they are read. Pages with fixed places are not counted: RAM reads them past this
/// channel.
pub(super) struct Metered {
    pub inner: Arc<dyn Channel>,
    pub stats: Arc<Stats>,
    pub handshake: Arc<Handshake>,
    /// The limit of one wait after the handshake.
    pub stall: Duration,
}

impl Metered {
    /// Does one read, which ends at the deadline of the handshake.
    fn limited(&self, read: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
        let left = self.handshake.left()?;
        if let Some(left) = left {
            self.inner.set_stall_limit(Some(left.min(self.stall)));
        }
        self.stats.set_reading(true);
        let result = read();
        self.stats.set_reading(false);
        if left.is_some() {
            self.inner.set_stall_limit(Some(self.stall));
        }
        let late =
            |err: &io::Error| err.kind() == io::ErrorKind::TimedOut && left.is_some_and(|left| left < self.stall);
        let count = result.map_err(|err| if late(&err) { self.handshake.too_late() } else { err })?;
        self.handshake.received();
        self.stats.add_received(count as u64);
        Ok(count)
    }
}

impl Channel for Metered {
    fn wrapped(&self) -> Option<&dyn Channel> {
        Some(&*self.inner)
    }

    fn read(&self, into: Span<'_>) -> io::Result<usize> {
        self.limited(|| self.inner.read(into))
    }

    fn read_scattered(&self, into: &[Span<'_>]) -> io::Result<usize> {
        self.limited(|| self.inner.read_scattered(into))
    }

    fn write_all(&self, pieces: &mut [IoVec]) -> io::Result<()> {
        self.inner.write_all(pieces)
    }

    fn shutdown(&self) -> io::Result<()> {
        self.inner.shutdown()
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }
}
