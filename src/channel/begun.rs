// SPDX-License-Identifier: LGPL-2.1-or-later
//! A connection whose first bytes were already read to identify it. Readers of the channel receive these bytes again.

use super::{Channel, PositionedFile};
use crate::sys::{IoVec, Span};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// See the module.
pub struct Begun {
    first: Vec<u8>,
    taken: AtomicUsize,
    inner: Arc<dyn Channel>,
}

impl Begun {
    /// Returns the channel `inner`, which brings `first` before everything else.
    pub fn new(first: Vec<u8>, inner: Arc<dyn Channel>) -> Self {
        Self { first, taken: AtomicUsize::new(0), inner }
    }
}

impl Channel for Begun {
    fn read(&self, into: Span<'_>) -> io::Result<usize> {
        let rest = &self.first[self.taken.load(Relaxed)..];
        if rest.is_empty() {
            return self.inner.read(into);
        }
        let count = rest.len().min(into.len());
        into.store(&rest[..count]);
        self.taken.fetch_add(count, Relaxed);
        Ok(count)
    }

    fn read_scattered(&self, into: &[Span<'_>]) -> io::Result<usize> {
        match self.taken.load(Relaxed) < self.first.len() {
            true => into.first().map_or(Ok(0), |first| self.read(*first)),
            false => self.inner.read_scattered(into),
        }
    }

    fn write_all(&self, pieces: &mut [IoVec]) -> io::Result<()> {
        self.inner.write_all(pieces)
    }

    fn send_descriptor(&self, byte: u8, fd: RawFd) -> io::Result<()> {
        self.inner.send_descriptor(byte, fd)
    }

    fn take_descriptor(&self) -> io::Result<Option<OwnedFd>> {
        self.inner.take_descriptor()
    }

    fn shutdown(&self) -> io::Result<()> {
        self.inner.shutdown()
    }

    fn end_reads(&self) -> io::Result<()> {
        self.inner.end_reads()
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn name(&self) -> Option<String> {
        self.inner.name()
    }

    fn peer_end(&self) -> Option<String> {
        self.inner.peer_end()
    }

    fn peer_has_closed(&self) -> bool {
        self.inner.peer_has_closed()
    }

    fn positioned(&self) -> io::Result<Option<PositionedFile>> {
        match self.taken.load(Relaxed) < self.first.len() {
            true => Ok(None),
            false => self.inner.positioned(),
        }
    }

    fn in_flight(&self) -> u64 {
        self.inner.in_flight()
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
}

#[cfg(test)]
mod tests {
    use super::super::memory;
    use super::super::testing::*;
    use super::*;

    #[test]
    fn first_bytes_are_read_once_more() {
        let (near, far) = memory::pair(16);
        write(&*near, b"stream").unwrap();
        let first = read_some(&*far, 2).unwrap();
        let begun = Begun::new(first, far);
        assert_eq!(read_some(&begun, 1).unwrap(), b"s");
        assert_eq!(read_some(&begun, 9).unwrap(), b"t");
        assert_eq!(read_some(&begun, 9).unwrap(), b"ream");
    }

    #[test]
    fn what_the_channel_knows_of_its_peer_is_forwarded() {
        check_forwards(&Begun::new(b"x".to_vec(), Arc::new(Known(memory::pair(16).0))));
    }
}
