// SPDX-License-Identifier: LGPL-2.1-or-later
//! The beginning of a connection: the header and the configuration must have arrived within `Params::handshake_timeout`.
//!
//! Any client may connect to a socket that listens. A connection that does not begin as a stream (another magic number, an
//! early end, silence) is closed and reported, and the worker accepts the next one. A client that sends a byte now and then
//! can't hold the worker: the limit is for all reads together.

use super::acceptor::Acceptor;
use super::worker::Worker;
use crate::error::{Described, Result};
use crate::file::{BUFFER_SIZE, MigFile};
use crate::savevm::host::{Flags, Level};
use crate::wire;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Longest wait for the magic number, which a source sends as soon as it is connected.
const MAGIC_LIMIT: Duration = Duration::from_secs(5);
/// Bytes of magic number and version; with the head of the configuration section.
const MAGIC_LEN: usize = 8;
const HEAD_LEN: usize = MAGIC_LEN + 5;

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

    /// Starts the time of a connection that was accepted.
    pub fn start(&self, limit: Duration) {
        let deadline = self.epoch.elapsed() + limit.min(self.limit);
        self.deadline.store(u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX).max(1), SeqCst);
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

impl Worker {
    /// Accepts connections until one begins as a stream.
    pub(super) fn accept_source(&self, acceptor: &Acceptor) -> Result<MigFile> {
        let core = &self.shared.core;
        let params = core.params();
        let since = Instant::now();
        loop {
            let left = params.connect_timeout.map(|limit| limit.saturating_sub(since.elapsed()));
            let channel = acceptor.accept(left, &core.cancel)?;
            let file = self.attach(&channel)?;
            if params.one_connection || !acceptor.accepts_more() {
                return Ok(file);
            }
            self.handshake.start(MAGIC_LIMIT);
            let Err(reason) = self.begins_as_stream(&file) else { return Ok(file) };
            if let Some(error) = core.interrupted() {
                return Err(error);
            }
            let text =
                format!("a connection was closed that is not the source's, and the next is waited for: {reason}");
            core.vm.host().report(Level::Warning, &text);
            core.link.drop_channel();
            drop(file);
        }
    }

    /// Looks at the beginning without consuming it. What is wrong with a complete one is for the load to say.
    fn begins_as_stream(&self, file: &MigFile) -> std::result::Result<(), String> {
        let vm = &self.shared.core.vm;
        let mut head = [0; HEAD_LEN];
        let missing =
            || file.status().first_error().map_or_else(|| "it ends".to_owned(), |error| error.message().to_owned());
        if file.peek_into(&mut head[..4], 0) < 4 {
            return Err(missing());
        }
        let magic = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        if magic != wire::FILE_MAGIC {
            return Err(format!("it begins with 0x{magic:08x}, expected 0x{:08x}", wire::FILE_MAGIC));
        }
        self.handshake.start(self.shared.core.params().handshake_timeout);
        if vm.flags().has(Flags::NO_CONFIGURATION) {
            return if file.peek(MAGIC_LEN, 0) < MAGIC_LEN { Err(missing()) } else { Ok(()) };
        }
        if file.peek_into(&mut head, 0) < HEAD_LEN {
            return Err(missing());
        }
        let name = u32::from_be_bytes([head[9], head[10], head[11], head[12]]) as usize;
        let whole = HEAD_LEN.saturating_add(name);
        if head[8] == wire::CONFIGURATION && whole <= BUFFER_SIZE && file.peek(whole, 0) < whole {
            return Err(missing());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn the_limit_is_for_all_reads_and_starts_with_the_first_byte() {
        let handshake = Handshake::new(Duration::from_millis(30));
        assert!(handshake.left().unwrap().is_none(), "a source that is not connected yet has time");
        handshake.received();
        assert!(handshake.left().unwrap().unwrap() <= Duration::from_millis(30));
        std::thread::sleep(Duration::from_millis(40));
        handshake.received();
        assert_eq!(Error::io("x", &handshake.left().unwrap_err()).errno(), libc::ETIMEDOUT);
        handshake.finish();
        assert!(handshake.left().unwrap().is_none());
    }
}
