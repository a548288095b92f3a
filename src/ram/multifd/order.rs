// SPDX-License-Identifier: LGPL-2.1-or-later
//! The order that SYNC keeps between the loading thread and the threads of the connections.

use crate::error::{Error, Result};
use crate::ram::block::Block;
use crate::ram::{Counters, Ram};
use crate::savevm::connections::{Connections, Settings};
use crate::sync::{Condvar, Mutex, Rank};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// How often a wait looks at the progress of the connections.
const POLL: Duration = Duration::from_millis(200);

/// How far a connection is.
#[derive(Clone, Copy, Default)]
struct Progress {
    /// SYNCs that it reached.
    synced: u64,
    /// Packets with pages since the last SYNC.
    loose: u64,
    /// The source closed it.
    ended: bool,
}

#[derive(Default)]
struct State {
    progress: Vec<Progress>,
    /// SYNCs behind which the connections may read on.
    released: u64,
    error: Option<Error>,
}

/// What the loading thread and the connections' threads share.
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
    /// Bytes that arrived on all connections.
    bytes: AtomicU64,
    pub connections: Arc<dyn Connections>,
    pub settings: Settings,
    pub page_bits: u32,
    /// The blocks, and whether each is not sent.
    pub blocks: Vec<(Arc<Block>, bool)>,
    pub counters: Arc<Counters>,
}

impl Shared {
    /// The state of `count` connections that nothing has arrived on.
    pub fn new(ram: &Ram, connections: Arc<dyn Connections>, count: usize, blocks: &[Arc<Block>]) -> Self {
        let progress = vec![Progress::default(); count];
        Self {
            state: Mutex::new(Rank::MultifdReceive, State { progress, ..State::default() }),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            settings: connections.settings(),
            connections,
            page_bits: ram.page_bits,
            blocks: blocks.iter().map(|block| (Arc::clone(block), ram.is_ignored(block))).collect(),
            counters: Arc::clone(&ram.counters),
        }
    }

    /// Ends the waits of the threads.
    pub fn end(&self) {
        self.stop.store(true, SeqCst);
        {
            // A thread that has looked at `stop` before waits already.
            let _state = self.state.lock();
        }
        self.changed.notify_all();
    }

    /// Whether the threads are to end.
    pub fn stops(&self) -> bool {
        self.stop.load(SeqCst)
    }

    /// Names a connection for errors.
    pub fn name(&self, number: usize) -> String {
        format!("connection {} of {}", number + 1, self.settings.count)
    }

    /// Bytes arrived over a connection.
    pub fn arrived(&self, number: usize, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.connections.received(number, bytes as u64);
    }

    /// A packet with pages is loaded.
    pub fn loaded(&self, number: usize) {
        self.state.lock().progress[number].loose += 1;
    }

    /// The source closed a connection.
    pub fn ended(&self, number: usize) {
        self.state.lock().progress[number].ended = true;
        self.changed.notify_all();
    }

    /// A connection is at a SYNC. Waits until it may read on.
    pub fn reach_sync(&self, number: usize) {
        let mut state = self.state.lock();
        let progress = &mut state.progress[number];
        progress.loose = 0;
        progress.synced += 1;
        let synced = progress.synced;
        self.changed.notify_all();
        while state.released < synced && !self.stops() {
            state = self.changed.wait(state);
        }
    }

    /// A connection failed.
    pub fn fail(&self, error: Error) {
        if self.stops() {
            return;
        }
        self.state.lock().error.get_or_insert_with(|| error.clone());
        self.changed.notify_all();
        self.connections.failed(error);
    }

    /// Waits until every connection is at its next SYNC, and lets all of them read on.
    pub fn sync(&self) -> Result<()> {
        let result = self.wait_for_all();
        self.connections.set_late(None);
        result
    }

    fn wait_for_all(&self) -> Result<()> {
        let (mut seen, mut since) = (self.bytes.load(Relaxed), Instant::now());
        let mut state = self.state.lock();
        loop {
            if let Some(error) = &state.error {
                return Err(error.clone());
            }
            let next = state.released + 1;
            let late = state.progress.iter().position(|progress| progress.synced < next);
            let Some(late) = late else {
                state.released = next;
                self.changed.notify_all();
                return Ok(());
            };
            if state.progress[late].ended {
                let text = format!("the source closed {} before all of its pages arrived", self.name(late));
                return Err(Error::new(libc::EIO, text));
            }
            let bytes = self.bytes.load(Relaxed);
            if bytes != seen {
                (seen, since) = (bytes, Instant::now());
            }
            if since.elapsed() >= self.settings.stall {
                let text = format!("{} brought no pages within {:?}", self.name(late), self.settings.stall);
                return Err(Error::new(libc::ETIMEDOUT, text));
            }
            self.connections.set_late(Some(late));
            drop(self.changed.wait_timeout(state, POLL.min(self.settings.stall)));
            // Without the lock, because it looks at the connections.
            let is_abandoned = self.connections.is_abandoned();
            state = self.state.lock();
            if is_abandoned && state.progress[late].synced < next && state.error.is_none() {
                let text =
                    format!("the source closed the main connection before all pages arrived over {}", self.name(late));
                return Err(Error::new(libc::EIO, text));
            }
        }
    }

    /// The load ends: whether pages have arrived that no SYNC follows.
    pub fn check_settled(&self) -> Result<()> {
        let state = self.state.lock();
        let loose = |progress: &Progress| progress.loose > 0 || progress.synced > state.released;
        match state.progress.iter().position(loose) {
            None => Ok(()),
            Some(number) => {
                let text = format!("{} brought pages that the main connection did not wait for", self.name(number));
                Err(Error::invalid(text))
            }
        }
    }
}
