// SPDX-License-Identifier: LGPL-2.1-or-later
//! Connections that break where a test wants it.

use savevm::channel::{Channel, memory};
use savevm::sys::{IoVec, Span};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How a connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// Both directions at once.
    Whole,
    /// Only the direction that is counted; the other goes on.
    Half,
    /// No end gets an error, but nothing more arrives.
    Silent,
    /// Not at all: what comes trickles in, a few bytes at a time.
    Never,
}

/// What becomes of one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    Replace(u8),
    Lose,
}

/// One end: after so many bytes were read from it, the connection breaks.
pub struct Fragile {
    inner: Arc<dyn Channel>,
    left: AtomicI64,
    how: Break,
    /// Bytes that were read in all.
    read: AtomicI64,
    /// Offset of a byte that is damaged, and how.
    damage: Mutex<Option<(i64, Damage)>>,
    shut: AtomicBool,
    stall: Mutex<Option<Duration>>,
    /// The action at the time of the accept.
    happens: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// How the peer's process is after the break.
    peer_end: Mutex<Option<&'static str>>,
}

impl Fragile {
    fn new(inner: Arc<dyn Channel>, left: i64, how: Break, damage: Option<(i64, Damage)>) -> Arc<Self> {
        let (left, read) = (AtomicI64::new(left), AtomicI64::new(0));
        let (shut, stall, happens, peer_end) = Default::default();
        Arc::new(Self { inner, left, how, read, damage: Mutex::new(damage), shut, stall, happens, peer_end })
    }

    /// Lets the connection know how the peer's process ended.
    pub fn know_peer_end(&self, how: &'static str) {
        *self.peer_end.lock().unwrap() = Some(how);
    }

    /// Runs an action when the connection is accepted, before it is read.
    pub fn when_accepted(&self, happens: impl FnOnce() + Send + 'static) {
        *self.happens.lock().unwrap() = Some(Box::new(happens));
    }

    /// Damages the byte that is so many bytes behind what was read so far.
    pub fn damage(&self, after: i64, how: Damage) {
        *self.damage.lock().unwrap() = Some((self.read_so_far() + after, how));
    }

    pub fn read_so_far(&self) -> i64 {
        self.read.load(SeqCst)
    }

    /// Waits for what never comes.
    fn silence(&self) -> io::Result<usize> {
        let since = Instant::now();
        while !self.shut.load(SeqCst) {
            if self.stall.lock().unwrap().is_some_and(|limit| since.elapsed() > limit) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    }
}

impl Channel for Fragile {
    fn read(&self, into: Span<'_>) -> io::Result<usize> {
        let left = self.left.load(SeqCst);
        if left == 0 {
            match self.how {
                Break::Silent => return self.silence(),
                Break::Whole => drop(self.inner.shutdown()),
                Break::Half | Break::Never => {}
            }
            return Ok(0);
        }
        let mut most = if left < 0 { into.len() } else { into.len().min(left as usize) };
        if self.how == Break::Never {
            most = most.min(3);
            thread::sleep(Duration::from_micros(50));
        }
        let damage = *self.damage.lock().unwrap();
        if let Some((place, Damage::Lose)) = damage.filter(|(place, _)| *place >= self.read_so_far()) {
            let before = (place - self.read_so_far()) as usize;
            if before == 0 {
                self.read.fetch_add(self.inner.read(Span::from_slice(&mut [0]))? as i64, SeqCst);
            } else {
                most = most.min(before);
            }
        }
        let count = self.inner.read(into.first(most))?;
        let at = self.read.fetch_add(count as i64, SeqCst);
        let damage = *self.damage.lock().unwrap();
        if let Some((place, Damage::Replace(byte))) =
            damage.filter(|(place, _)| (at..at + count as i64).contains(place))
        {
            into.skip((place - at) as usize).store(&[byte]);
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
        self.shut.store(true, SeqCst);
        self.inner.shutdown()
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn is_duplex(&self) -> bool {
        true
    }

    fn peer_end(&self) -> Option<String> {
        self.peer_end.lock().unwrap().map(str::to_owned)
    }

    fn set_stall_limit(&self, limit: Option<Duration>) {
        *self.stall.lock().unwrap() = limit;
        self.inner.set_stall_limit(limit);
        let happens = self.happens.lock().unwrap().take();
        if let Some(happens) = happens {
            happens();
        }
    }
}

/// Two connected ends. `to_destination` and `to_source`: the number of bytes after which each direction breaks (-1: never).
pub fn fragile(to_destination: i64, to_source: i64, how: Break) -> (Arc<Fragile>, Arc<Fragile>) {
    let (source, destination) = memory::pair(1 << 16);
    (Fragile::new(source, to_source, how, None), Fragile::new(destination, to_destination, how, None))
}

/// As `fragile` without breaking, with one byte to the destination replaced.
pub fn corrupting(at: i64, byte: u8) -> (Arc<Fragile>, Arc<Fragile>) {
    let (source, destination) = memory::pair(1 << 16);
    (
        Fragile::new(source, -1, Break::Whole, None),
        Fragile::new(destination, -1, Break::Whole, Some((at, Damage::Replace(byte)))),
    )
}

/// A source's end that does not send certain bytes, by themselves or at the beginning of a write.
pub struct Refuses {
    end: Arc<dyn Channel>,
    /// Whether these are the bytes, of which the first 16 are shown, and their number.
    these: fn(&[u8], usize) -> bool,
    /// From these bytes on nothing is sent any more, and the source does not notice. Else writing them fails.
    silently: bool,
    silent: AtomicBool,
}

impl Refuses {
    pub fn new(end: Arc<dyn Channel>, silently: bool, these: fn(&[u8], usize) -> bool) -> Arc<Self> {
        Arc::new(Self { end, these, silently, silent: AtomicBool::new(false) })
    }

    /// EOF is a single byte by itself.
    pub fn eof(end: Arc<Fragile>) -> Arc<Self> {
        Self::new(end, false, |_, len| len == 1)
    }

    /// The command POSTCOPY_RUN.
    pub fn run(end: Arc<dyn Channel>, silently: bool) -> Arc<Self> {
        Self::new(end, silently, |bytes, _| bytes.starts_with(&[8, 0, 5, 0, 0]))
    }
}

impl Channel for Refuses {
    fn read(&self, into: Span<'_>) -> io::Result<usize> {
        self.end.read(into)
    }

    fn write_all(&self, pieces: &mut [IoVec]) -> io::Result<()> {
        let mut bytes = Vec::new();
        pieces.iter().for_each(|piece| piece.append_to(&mut bytes));
        if (self.these)(&bytes[..bytes.len().min(16)], bytes.len()) {
            if !self.silently {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.silent.store(true, SeqCst);
        }
        if self.silent.load(SeqCst) {
            return Ok(());
        }
        self.end.write_all(pieces)
    }

    fn shutdown(&self) -> io::Result<()> {
        self.end.shutdown()
    }

    fn close(&self) -> io::Result<()> {
        self.end.close()
    }

    fn is_duplex(&self) -> bool {
        true
    }

    fn set_stall_limit(&self, limit: Option<Duration>) {
        self.end.set_stall_limit(limit);
    }
}
