// SPDX-License-Identifier: LGPL-2.1-or-later
//! State that a migration shares with the thread that watches it. `watch.rs` has the thread.

use super::progress::{Stall, StallReason};
use crate::file::Writes;
use crate::sync::{Condvar, Mutex, Rank};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The reasons of a stall: what the speeds show, and what the peer shows.
#[derive(Default)]
pub(super) struct Reasons {
    pub speeds: Option<Stall>,
    pub peer: Option<Stall>,
    /// The reason that the host was told last.
    pub reported: StallReason,
}

/// Returns the bytes that a further connection has moved, and whether this side waits for its peer.
pub(super) type Probe = Box<dyn Fn() -> (u64, bool) + Send + Sync>;

#[derive(Default)]
struct State {
    stop: bool,
}

/// What the thread shares with the migration.
pub(super) struct Shared {
    state: Mutex<State>,
    stopped: Condvar,
}

/// The thread that watches a migration, and what it knows.
pub(super) struct Watch {
    pub shared: Arc<Shared>,
    pub thread: Mutex<Option<JoinHandle<()>>>,
    pub reasons: Mutex<Reasons>,
    /// The further connections, in the order of their numbers.
    further: Mutex<Arc<[Probe]>>,
    /// The file in use.
    pub writes: Mutex<Option<Arc<Writes>>>,
    began: Instant,
    /// Nanoseconds since `began` at which the source began to wait for an answer; 0: it does not wait.
    asked: AtomicU64,
}

impl Default for Watch {
    fn default() -> Self {
        let state = Mutex::new(Rank::MigrationWatch, State::default());
        Self {
            shared: Arc::new(Shared { state, stopped: Condvar::new() }),
            thread: Mutex::new(Rank::MigrationWatch, None),
            reasons: Mutex::new(Rank::MigrationWatch, Reasons::default()),
            further: Mutex::new(Rank::MigrationWatch, Arc::new([])),
            writes: Mutex::new(Rank::MigrationWatch, None),
            began: Instant::now(),
            asked: AtomicU64::new(0),
        }
    }
}

impl Shared {
    /// Sleeps for a tick. Returns false when the thread is to end.
    pub fn sleep(&self, tick: Duration) -> bool {
        let until = Instant::now() + tick;
        let mut state = self.state.lock();
        while !state.stop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            state = self.stopped.wait_timeout(state, left);
        }
        false
    }
}

impl Watch {
    /// The file over which the source sends from now on.
    pub fn set_writes(&self, writes: Option<Arc<Writes>>) {
        *self.writes.lock() = writes;
    }

    /// The further connections of the migration.
    pub fn set_further(&self, further: Vec<Probe>) {
        *self.further.lock() = further.into();
    }

    /// Returns the further connections.
    pub fn further(&self) -> Arc<[Probe]> {
        Arc::clone(&self.further.lock())
    }

    /// Runs `wait`, in which the source waits for an answer.
    pub fn asking<T>(&self, wait: impl FnOnce() -> T) -> T {
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1);
        self.asked.store(now, SeqCst);
        let result = wait();
        self.asked.store(0, SeqCst);
        result
    }

    /// Returns for how long the source has waited for an answer.
    pub fn asked_for(&self) -> Duration {
        match self.asked.load(SeqCst) {
            0 => Duration::ZERO,
            since => self.began.elapsed().saturating_sub(Duration::from_nanos(since)),
        }
    }

    /// Ends the thread and joins it, unless this is the thread.
    pub fn stop(&self) {
        self.shared.state.lock().stop = true;
        self.shared.stopped.notify_all();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != thread::current().id()) {
            // A panic of it was caught there.
            let _ = thread.join();
        }
    }
}
