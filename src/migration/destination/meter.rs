// SPDX-License-Identifier: LGPL-2.1-or-later
//! Counts what arrives, so that an incoming migration can tell how far it is while a thread waits for the rest.

use crate::channel::Channel;
use crate::migration::stats::Stats;
use crate::sys::{IoVec, Span};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A connection whose bytes are counted as they are read.
pub(super) struct Metered {
    pub inner: Arc<dyn Channel>,
    pub stats: Arc<Stats>,
}

impl Metered {
    fn count(&self, read: io::Result<usize>) -> io::Result<usize> {
        read.inspect(|count| self.stats.add_received(*count as u64))
    }
}

impl Channel for Metered {
    fn read(&self, into: Span<'_>) -> io::Result<usize> {
        self.count(self.inner.read(into))
    }

    fn read_scattered(&self, into: &[Span<'_>]) -> io::Result<usize> {
        self.count(self.inner.read_scattered(into))
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

    fn name(&self) -> Option<String> {
        self.inner.name()
    }

    fn is_duplex(&self) -> bool {
        self.inner.is_duplex()
    }

    fn has_peer(&self) -> bool {
        self.inner.has_peer()
    }

    fn set_blocking(&self, blocking: bool) -> io::Result<()> {
        self.inner.set_blocking(blocking)
    }

    fn set_stall_limit(&self, limit: Option<Duration>) {
        self.inner.set_stall_limit(limit);
    }

    fn collected(&self) -> Option<(*const u8, usize)> {
        self.inner.collected()
    }

    fn host_channel(&self) -> Option<usize> {
        self.inner.host_channel()
    }
}
