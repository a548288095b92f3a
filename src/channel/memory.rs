// SPDX-License-Identifier: LGPL-2.1-or-later
//! Channels over memory: bytes to read, a collector of writes, and two connected ends for tests.

use super::{Channel, StallLimit, aborted, closed, stalled};
use crate::sync::{Condvar, Mutex, MutexGuard, Rank};
use crate::sys::{IoVec, Span, advance};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The state of this side of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    ShutDown,
    Closed,
}

impl State {
    fn check(self) -> io::Result<()> {
        match self {
            Self::Open => Ok(()),
            Self::ShutDown => Err(aborted()),
            Self::Closed => Err(closed()),
        }
    }

    /// Advances the state, never backwards: a closed channel stays closed.
    fn advance(&mut self, to: Self) {
        if *self != Self::Closed {
            *self = to;
        }
    }
}

fn wrong_direction() -> io::Error {
    closed()
}

/// Reads bytes that it owns.
#[derive(Debug)]
pub struct Reader {
    bytes: Vec<u8>,
    at: AtomicUsize,
    state: Mutex<State>,
}

impl Reader {
    /// Returns a channel that reads `bytes` and then the end of the stream.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), at: AtomicUsize::new(0), state: Mutex::new(Rank::MemoryChannel, State::Open) }
    }

    /// Returns how many bytes were not read yet.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at.load(Ordering::Relaxed)
    }
}

impl Channel for Reader {
    fn read(&self, into: Span<'_>) -> io::Result<usize> {
        // The lock prevents two readers from reading the same bytes.
        let state = self.state.lock();
        state.check()?;
        let left = &self.bytes[self.at.load(Ordering::Relaxed)..];
        let some = &left[..left.len().min(into.len())];
        into.store(some);
        self.at.fetch_add(some.len(), Ordering::Relaxed);
        Ok(some.len())
    }

    fn write_all(&self, _pieces: &mut [IoVec]) -> io::Result<()> {
        self.state.lock().check()?;
        Err(wrong_direction())
    }

    fn shutdown(&self) -> io::Result<()> {
        self.state.lock().advance(State::ShutDown);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.state.lock().advance(State::Closed);
        Ok(())
    }
}

#[derive(Debug)]
struct Written {
    bytes: Vec<u8>,
    state: State,
}

/// Collects what is written. The bytes stay readable after `close`.
#[derive(Debug)]
pub struct Writer(Mutex<Written>);

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    /// Returns an empty channel.
    pub fn new() -> Self {
        Self(Mutex::new(Rank::MemoryChannel, Written { bytes: Vec::new(), state: State::Open }))
    }

    /// Returns an empty channel that has memory for so many bytes. The system has provided that memory already, so a write takes
    /// no page fault. If it is not available, the channel begins without it.
    pub fn with_memory(len: usize) -> Self {
        let mut bytes = Vec::new();
        if bytes.try_reserve(len).is_ok() {
            bytes.resize(len, 0);
            bytes.clear();
        }
        Self(Mutex::new(Rank::MemoryChannel, Written { bytes, state: State::Open }))
    }

    /// Returns a copy of the bytes that were written.
    pub fn contents(&self) -> Vec<u8> {
        self.0.lock().bytes.clone()
    }

    /// Returns the bytes that were written, and empties the channel.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().bytes)
    }

    /// Returns how many bytes were written since the last `take`.
    pub fn len(&self) -> usize {
        self.0.lock().bytes.len()
    }

    /// Returns whether nothing was written since the last `take`.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns address and length of the bytes that were written, for C. They are valid until the next write or `take`,
    /// or until the channel is dropped.
    pub fn view(&self) -> (*const u8, usize) {
        let written = self.0.lock();
        (written.bytes.as_ptr(), written.bytes.len())
    }
}

impl Channel for Writer {
    fn read(&self, _into: Span<'_>) -> io::Result<usize> {
        self.0.lock().state.check()?;
        Err(wrong_direction())
    }

    fn write_all(&self, pieces: &mut [IoVec]) -> io::Result<()> {
        let mut written = self.0.lock();
        written.state.check()?;
        let total: usize = pieces.iter().map(IoVec::len).sum();
        // All of a guest's memory may be written here, so a failed allocation must not abort the program.
        written.bytes.try_reserve(total).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
        pieces.iter().for_each(|piece| piece.append_to(&mut written.bytes));
        advance(pieces, total);
        Ok(())
    }

    fn shutdown(&self) -> io::Result<()> {
        self.0.lock().state.advance(State::ShutDown);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.0.lock().state.advance(State::Closed);
        Ok(())
    }

    fn collected(&self) -> Option<(*const u8, usize)> {
        Some(self.view())
    }
}

#[derive(Debug)]
struct Shared {
    /// `lanes[n]` holds the bytes that end `n` wrote and the other end has not read.
    lanes: [VecDeque<u8>; 2],
    states: [State; 2],
}

#[derive(Debug)]
struct Link {
    shared: Mutex<Shared>,
    changed: Condvar,
    capacity: usize,
}

/// One of two connected ends; see `pair`.
#[derive(Debug)]
pub struct End {
    link: Arc<Link>,
    side: usize,
    stall: StallLimit,
}

/// Returns two connected ends, like a socket pair. Each direction holds up to `capacity` bytes (at least one); a writer
/// waits for room. After one end is shut down or closed, the other end reads the remaining bytes and then the end of
/// the stream. Its writes fail with `ErrorKind::BrokenPipe`.
pub fn pair(capacity: usize) -> (Arc<End>, Arc<End>) {
    let shared = Mutex::new(Rank::MemoryChannel, Shared { lanes: Default::default(), states: [State::Open; 2] });
    let link = Arc::new(Link { shared, changed: Condvar::new(), capacity: capacity.max(1) });
    let end = |side| Arc::new(End { link: link.clone(), side, stall: StallLimit::new() });
    (end(0), end(1))
}

impl End {
    /// Waits until the other end has changed something. `since` is the start of this wait.
    fn wait<'a>(&self, shared: MutexGuard<'a, Shared>, since: Instant) -> io::Result<MutexGuard<'a, Shared>> {
        let Some(limit) = self.stall.get() else {
            return Ok(self.link.changed.wait(shared));
        };
        let left = limit.checked_sub(since.elapsed()).ok_or_else(stalled)?;
        Ok(self.link.changed.wait_timeout(shared, left))
    }

    fn end(&self, state: State) {
        self.link.shared.lock().states[self.side].advance(state);
        self.link.changed.notify_all();
    }

    /// Sends all of `bytes`.
    fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        let mut shared = self.link.shared.lock();
        let mut since = Instant::now();
        while !bytes.is_empty() {
            shared.states[self.side].check()?;
            if shared.states[1 - self.side] != State::Open {
                return Err(io::Error::from_raw_os_error(libc::EPIPE));
            }
            let lane = &mut shared.lanes[self.side];
            let (now, later) = bytes.split_at(bytes.len().min(self.link.capacity - lane.len()));
            if now.is_empty() {
                shared = self.wait(shared, since)?;
                continue;
            }
            lane.extend(now);
            bytes = later;
            since = Instant::now();
            self.link.changed.notify_all();
        }
        Ok(())
    }
}

impl Channel for End {
    fn read(&self, into: Span<'_>) -> io::Result<usize> {
        let since = Instant::now();
        let mut shared = self.link.shared.lock();
        loop {
            shared.states[self.side].check()?;
            let lane = &mut shared.lanes[1 - self.side];
            let count = lane.len().min(into.len());
            if count > 0 {
                let bytes: Vec<u8> = lane.drain(..count).collect();
                into.store(&bytes);
                self.link.changed.notify_all();
                return Ok(count);
            }
            if shared.states[1 - self.side] != State::Open {
                return Ok(0);
            }
            shared = self.wait(shared, since)?;
        }
    }

    fn write_all(&self, pieces: &mut [IoVec]) -> io::Result<()> {
        self.link.shared.lock().states[self.side].check()?;
        let mut bytes = Vec::new();
        for piece in &mut *pieces {
            bytes.clear();
            piece.append_to(&mut bytes);
            self.send(&bytes)?;
        }
        advance(pieces, usize::MAX);
        Ok(())
    }

    fn shutdown(&self) -> io::Result<()> {
        self.end(State::ShutDown);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.end(State::Closed);
        Ok(())
    }

    fn is_duplex(&self) -> bool {
        true
    }

    fn set_stall_limit(&self, limit: Option<Duration>) {
        self.stall.set(limit);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.end(State::Closed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use std::io::ErrorKind;
    use std::thread;

    #[test]
    fn reader_returns_its_bytes_once() {
        let reader = Reader::new(pattern(10_000));
        assert_eq!(read_some(&reader, 3).unwrap(), pattern(3));
        assert_eq!(reader.remaining(), 9_997);
        assert_eq!(read_to_end(&reader).unwrap(), &pattern(10_000)[3..]);
        assert_eq!(read_some(&reader, 1).unwrap(), b"");
        assert_eq!(write(&reader, b"x").unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert!(!reader.is_duplex());
    }

    #[test]
    fn writer_collects_its_bytes() {
        let writer = Writer::default();
        assert!(writer.is_empty());
        write(&writer, &pattern(5_000)).unwrap();
        write(&writer, b"end").unwrap();
        let all = [pattern(5_000), b"end".to_vec()].concat();
        assert_eq!(writer.contents(), all);
        assert_eq!((writer.view().1, writer.len()), (5_003, 5_003));
        assert_eq!(read_some(&writer, 1).unwrap_err().raw_os_error(), Some(libc::EBADF));
        writer.close().unwrap();
        assert_eq!(write(&writer, b"x").unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert_eq!(writer.take(), all);
        assert!(writer.is_empty());
    }

    #[test]
    fn shutdown_is_permanent_and_close_overrides_it() {
        for channel in [&Reader::new(*b"abc") as &dyn Channel, &Writer::new()] {
            channel.shutdown().unwrap();
            assert_eq!(read_some(channel, 1).unwrap_err().kind(), ErrorKind::ConnectionAborted);
            assert_eq!(write(channel, b"x").unwrap_err().kind(), ErrorKind::ConnectionAborted);
            channel.close().unwrap();
            channel.shutdown().unwrap();
            assert_eq!(read_some(channel, 1).unwrap_err().raw_os_error(), Some(libc::EBADF));
        }
    }

    #[test]
    fn pair_carries_both_directions_with_small_capacity() {
        let (left, right) = pair(7);
        assert!(left.is_duplex());
        let echo = thread::spawn(move || {
            let bytes = read_some(&*right, 100).unwrap();
            assert!(bytes.len() <= 7);
            write(&*right, &bytes).unwrap();
            read_to_end(&*right).unwrap()
        });
        write(&*left, b"ping").unwrap();
        assert_eq!(read_some(&*left, 100).unwrap(), b"ping");
        write(&*left, &pattern(20_000)).unwrap();
        left.close().unwrap();
        assert_eq!(echo.join().unwrap(), pattern(20_000));
    }

    #[test]
    fn shutdown_ends_waits_of_a_pair() {
        let (left, _right) = pair(16);
        shutdown_ends(&left, |left| read_some(left, 1));
        let (left, _right) = pair(16);
        shutdown_ends(&left, |left| write(left, &pattern(17)));
    }

    #[test]
    fn other_end_reads_the_end_of_the_stream() {
        let (left, right) = pair(16);
        write(&*left, b"last").unwrap();
        let waiter = right.clone();
        let drained = ended_by(
            move || {
                let first = read_some(&*waiter, 16)?;
                read_some(&*waiter, 16).map(|second| (first, second))
            },
            || left.shutdown().unwrap(),
        );
        assert_eq!(drained.unwrap(), (b"last".to_vec(), Vec::new()));
        assert_eq!(write(&*right, b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        let (left, right) = pair(1);
        let result = ended_by(move || write(&*right, b"xx"), || drop(left));
        assert_eq!(result.unwrap_err().kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn pair_ends_waits_at_the_stall_limit() {
        let (left, _right) = pair(4);
        left.set_stall_limit(Some(Duration::from_millis(20)));
        assert_eq!(read_some(&*left, 1).unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(write(&*left, b"12345").unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
