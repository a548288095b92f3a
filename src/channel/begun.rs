// SPDX-License-Identifier: LGPL-2.1-or-later
//! A connection whose first bytes were already read to identify it. Readers of the channel receive these bytes again.

use super::{Channel, PositionedFile};
use crate::sys::{IoVec, Span};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

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
    fn wrapped(&self) -> Option<&dyn Channel> {
        Some(&*self.inner)
    }

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

    fn shutdown(&self) -> io::Result<()> {
        self.inner.shutdown()
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn positioned(&self) -> io::Result<Option<PositionedFile>> {
        match self.taken.load(Relaxed) < self.first.len() {
            true => Ok(None),
            false => self.inner.positioned(),
        }
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
