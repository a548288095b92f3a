// SPDX-License-Identifier: LGPL-2.1-or-later
//! Connections that break where a test wants it.

use savevm::channel::{Channel, memory};
use savevm::sys::{IoVec, Span};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::time::Duration;

/// How a connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// Both directions at once.
    Whole,
    /// Only the direction that is counted; the other goes on.
    Half,
}

/// One end: after so many bytes were read from it, the connection breaks.
pub struct Fragile {
    inner: Arc<dyn Channel>,
    left: AtomicI64,
    how: Break,
    /// Bytes that were read in all.
    read: AtomicI64,
    /// Offset of a byte that is replaced, and what by.
    flip: Option<(i64, u8)>,
}

impl Fragile {
    pub fn read_so_far(&self) -> i64 {
        self.read.load(SeqCst)
    }
}

impl Channel for Fragile {
    fn read(&self, into: Span<'_>) -> io::Result<usize> {
        let left = self.left.load(SeqCst);
        if left == 0 {
            if self.how == Break::Whole {
                let _ = self.inner.shutdown();
            }
            return Ok(0);
        }
        let most = if left < 0 { into.len() } else { into.len().min(left as usize) };
        let count = self.inner.read(into.first(most))?;
        let at = self.read.fetch_add(count as i64, SeqCst);
        if let Some((flip, byte)) = self.flip.filter(|(flip, _)| (at..at + count as i64).contains(flip)) {
            into.skip((flip - at) as usize).store(&[byte]);
        }
        if left > 0 {
            self.left.fetch_sub(count as i64, SeqCst);
        }
        Ok(count)
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

    fn is_duplex(&self) -> bool {
        true
    }

    fn set_stall_limit(&self, limit: Option<Duration>) {
        self.inner.set_stall_limit(limit);
    }
}

/// Two connected ends. `to_destination` and `to_source` say after how many bytes each direction breaks (-1: never).
pub fn fragile(to_destination: i64, to_source: i64, how: Break) -> (Arc<Fragile>, Arc<Fragile>) {
    let (source, destination) = memory::pair(1 << 16);
    let end = |inner: Arc<memory::End>, left| {
        Arc::new(Fragile { inner, left: AtomicI64::new(left), how, read: AtomicI64::new(0), flip: None })
    };
    (end(source, to_source), end(destination, to_destination))
}

/// As `fragile` without breaking, with one byte to the destination replaced.
pub fn corrupting(at: i64, byte: u8) -> (Arc<Fragile>, Arc<Fragile>) {
    let (source, destination) = memory::pair(1 << 16);
    let end = |inner: Arc<memory::End>, flip| {
        let (left, read) = (AtomicI64::new(-1), AtomicI64::new(0));
        Arc::new(Fragile { inner, left, how: Break::Whole, read, flip })
    };
    (end(source, None), end(destination, Some((at, byte))))
}

/// A source's end that does not take a single byte by itself, which is what EOF is.
pub struct RefusesEof(pub Arc<Fragile>);

impl Channel for RefusesEof {
    fn read(&self, into: Span<'_>) -> io::Result<usize> {
        self.0.read(into)
    }

    fn write_all(&self, pieces: &mut [IoVec]) -> io::Result<()> {
        if pieces.iter().map(IoVec::len).sum::<usize>() == 1 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.0.write_all(pieces)
    }

    fn shutdown(&self) -> io::Result<()> {
        self.0.shutdown()
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn is_duplex(&self) -> bool {
        true
    }
}
