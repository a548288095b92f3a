// SPDX-License-Identifier: LGPL-2.1-or-later
//! The deadline for the beginning of a connection: header and configuration must have arrived within
//! `Params::handshake_timeout`. The limit holds for all reads together, so a client that sends a byte now and then can't
//! hold the worker.

use crate::error::Described;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// The deadline of the reads of one connection. It starts with the first byte, or with `start`.
pub(super) struct Handshake {
    limit: Duration,
    epoch: Instant,
    /// Nanoseconds from `epoch` to the deadline; 0 before it is known.
    deadline: AtomicU64,
    over: AtomicBool,
}

impl Handshake {
    pub fn new(limit: Duration) -> Self {
        let (deadline, over) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { limit, epoch: Instant::now(), deadline, over }
    }

    /// Starts the time of a connection that was accepted, or of what follows on it.
    pub fn start(&self, limit: Duration) {
        self.over.store(false, SeqCst);
        let deadline = self.epoch.elapsed() + limit.min(self.limit);
        self.deadline.store(u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX).max(1), SeqCst);
    }

    /// Forgets the connection before. The time of the next one starts with its first byte, or with `start`.
    pub fn reset(&self) {
        self.deadline.store(0, SeqCst);
        self.over.store(false, SeqCst);
    }

    /// A byte has arrived.
    pub fn received(&self) {
        if !self.over.load(SeqCst) && self.deadline.load(SeqCst) == 0 {
            self.start(self.limit);
        }
    }

    /// The header and the configuration are complete: no limit from here on.
    pub fn finish(&self) {
        self.over.store(true, SeqCst);
    }

    /// The time that a read may take; `None`: as long as the connection allows.
    pub fn left(&self) -> io::Result<Option<Duration>> {
        if self.over.load(SeqCst) {
            return Ok(None);
        }
        match self.deadline.load(SeqCst) {
            0 => Ok(None),
            deadline => match Duration::from_nanos(deadline).checked_sub(self.epoch.elapsed()) {
                Some(left) if !left.is_zero() => Ok(Some(left)),
                _ => Err(self.too_late()),
            },
        }
    }

    /// The error of a read at the deadline.
    pub fn too_late(&self) -> io::Error {
        let text = format!("the header and the configuration did not arrive within {:?}", self.limit);
        io::Error::new(io::ErrorKind::TimedOut, Described { errno: libc::ETIMEDOUT, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn the_limit_is_for_all_reads_and_starts_with_the_first_byte() {
        let handshake = Handshake::new(Duration::from_secs(600));
        assert!(handshake.left().unwrap().is_none(), "a source that is not connected yet has time");
        handshake.received();
        assert!(handshake.left().unwrap().unwrap() <= Duration::from_secs(600));
        let handshake = Handshake::new(Duration::from_millis(30));
        handshake.received();
        std::thread::sleep(Duration::from_millis(40));
        handshake.received();
        assert_eq!(Error::io("x", &handshake.left().unwrap_err()).errno(), libc::ETIMEDOUT);
        handshake.finish();
        assert!(handshake.left().unwrap().is_none());
    }
}
