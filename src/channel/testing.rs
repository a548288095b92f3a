// SPDX-License-Identifier: LGPL-2.1-or-later
//! Helpers for the tests of channels.

use super::Channel;
use crate::sys::{IoVec, Span};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// The longest time in which a wait must end after its cause, also on a busy machine.
pub const SOON: Duration = Duration::from_secs(50);

/// Reads once.
pub fn read_some(channel: &dyn Channel, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; most];
    let count = channel.read(Span::from_slice(&mut bytes))?;
    bytes.truncate(count);
    Ok(bytes)
}

/// Reads to the end, in pieces of an odd size.
pub fn read_to_end(channel: &dyn Channel) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let bytes = read_some(channel, 4093)?;
        if bytes.is_empty() {
            return Ok(all);
        }
        all.extend(bytes);
    }
}

/// Writes bytes that the test leaks, in pieces of odd sizes, some of them empty.
pub fn write(channel: &dyn Channel, bytes: &[u8]) -> io::Result<()> {
    let bytes: &'static [u8] = Vec::from(bytes).leak();
    let mut pieces: Vec<_> = bytes.chunks(997).map(IoVec::from_static).collect();
    pieces.insert(0, IoVec::from_static(b""));
    pieces.insert(pieces.len() / 2, IoVec::from_static(b""));
    channel.write_all(&mut pieces)
}

/// Bytes that do not repeat early.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect()
}

/// A path in the temporary directory that no other test uses.
pub fn scratch_path(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("savevm-test-{name}-{}-{number}", std::process::id()))
}

/// Runs `wait` in a thread, then `end`, and returns the result of `wait`, which must end soon.
pub fn ended_by<T: Send + 'static>(wait: impl FnOnce() -> T + Send + 'static, end: impl FnOnce()) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(wait()));
    let early = receiver.recv_timeout(Duration::from_millis(50));
    assert!(early.is_err(), "the wait ended before anything ended it");
    let before = Instant::now();
    end();
    let result = receiver.recv_timeout(SOON).expect("the wait did not end");
    assert!(before.elapsed() < SOON);
    result
}

/// Checks that `channel.shutdown()` ends `wait` with the error of this side, and that later calls return the same
/// error.
pub fn shutdown_ends<C, T>(channel: &Arc<C>, wait: impl FnOnce(&C) -> io::Result<T> + Send + 'static)
where
    C: Channel + 'static,
    T: Send + std::fmt::Debug + 'static,
{
    let waiter = channel.clone();
    let result = ended_by(move || wait(&waiter), || channel.shutdown().unwrap());
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    assert_eq!(read_some(&**channel, 1).unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    assert_eq!(write(&**channel, b"x").unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
}

/// A channel that forwards bytes, and knows how its peer is and how many bytes are on their way.
pub struct Known(pub Arc<dyn Channel>);

impl Known {
    pub const PEER_END: &str = "its process was killed";
    pub const IN_FLIGHT: u64 = 1234;
}

impl Channel for Known {
    fn read(&self, into: Span<'_>) -> io::Result<usize> {
        self.0.read(into)
    }

    fn write_all(&self, pieces: &mut [IoVec]) -> io::Result<()> {
        self.0.write_all(pieces)
    }

    fn shutdown(&self) -> io::Result<()> {
        self.0.shutdown()
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn name(&self) -> Option<String> {
        Some("known".to_owned())
    }

    fn peer_end(&self) -> Option<String> {
        Some(Self::PEER_END.to_owned())
    }

    fn in_flight(&self) -> u64 {
        Self::IN_FLIGHT
    }

    fn is_duplex(&self) -> bool {
        true
    }

    fn set_stall_limit(&self, limit: Option<Duration>) {
        self.0.set_stall_limit(limit);
    }
}

/// Checks that `wrapper`, a channel over `Known`, forwards what `Known` knows.
pub fn check_forwards(wrapper: &dyn Channel) {
    assert_eq!(wrapper.name().as_deref(), Some("known"));
    assert_eq!(wrapper.peer_end().as_deref(), Some(Known::PEER_END));
    assert_eq!(wrapper.in_flight(), Known::IN_FLIGHT);
    assert!(wrapper.is_duplex() && wrapper.has_peer());
}
