// SPDX-License-Identifier: LGPL-2.1-or-later
//! Watches a migration while its worker waits: the deadline, and a peer that does nothing.
//!
//! A thread of its own, because the worker may be inside a write that the peer does not take. It holds no lock while it
//! calls the host. It is joined before the last status.

use super::core::Core;
use super::deadline::NOTICED_WITHIN;
use super::endpoint::{DESTINATION_STALL, SOURCE_STALL};
use super::progress::{Stall, StallReason};
use super::trace::Event;
use crate::error::{Error, Result};
use crate::file::Writes;
use crate::savevm::slot::StallEvent;
use crate::savevm::unwind::catch;
use crate::sync::{Condvar, Mutex, Rank};
use crate::sys::spawn;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A source whose peer does not read, or does not answer, for so long is stalled.
const NOTICE: Duration = Duration::from_secs(5);
/// A destination whose peer sends nothing for so long is stalled. A waiting source sends a byte every five seconds.
const NOTICE_INCOMING: Duration = Duration::from_secs(15);
/// Longest time between two looks.
const TICK: Duration = Duration::from_millis(500);
/// Shortest one.
const TICK_MIN: Duration = Duration::from_millis(2);

/// The reasons of a stall: what the speeds show, and what the peer shows.
#[derive(Default)]
struct Reasons {
    speeds: Option<Stall>,
    peer: Option<Stall>,
    /// The reason that the host was told last.
    reported: StallReason,
}

#[derive(Default)]
struct State {
    stop: bool,
}

/// What the thread shares with the migration.
struct Shared {
    state: Mutex<State>,
    stopped: Condvar,
}

/// See the module.
pub(super) struct Watch {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    reasons: Mutex<Reasons>,
    /// The file in use.
    writes: Mutex<Option<Arc<Writes>>>,
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
            writes: Mutex::new(Rank::MigrationWatch, None),
            began: Instant::now(),
            asked: AtomicU64::new(0),
        }
    }
}

/// What the thread has seen of the peer.
#[derive(Default)]
struct Seen {
    bytes: u64,
    since: Option<Instant>,
}

impl Seen {
    /// Returns for how long nothing moved, while this side waits for the peer.
    fn still(&mut self, bytes: u64, waits: bool) -> Duration {
        let moved = std::mem::replace(&mut self.bytes, bytes) != bytes;
        if moved || !waits {
            self.since = None;
            return Duration::ZERO;
        }
        self.since.get_or_insert_with(Instant::now).elapsed()
    }
}

impl Watch {
    /// The file over which the source sends from now on.
    pub fn set_writes(&self, writes: Option<Arc<Writes>>) {
        *self.writes.lock() = writes;
    }

    /// Runs `wait`, in which the source waits for an answer.
    pub fn asking<T>(&self, wait: impl FnOnce() -> T) -> T {
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1);
        self.asked.store(now, SeqCst);
        let result = wait();
        self.asked.store(0, SeqCst);
        result
    }

    fn asked_for(&self) -> Duration {
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

/// Sleeps for a tick. Returns false when the thread is to end.
fn sleep(shared: &Shared, tick: Duration) -> bool {
    let until = Instant::now() + tick;
    let mut state = shared.state.lock();
    while !state.stop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        state = shared.stopped.wait_timeout(state, left);
    }
    false
}

fn watch(core: &Weak<Core>, shared: &Shared) {
    let mut seen = Seen::default();
    let mut tick = TICK_MIN;
    while sleep(shared, tick) {
        let Some(core) = core.upgrade() else { return };
        let vm = Arc::clone(&core.vm);
        let look = || {
            let _working = core.working();
            if core.deadline_missed() > NOTICED_WITHIN {
                // The worker has not noticed: it waits for the peer or for a callback.
                core.check_deadline(|| ());
            }
            core.look_at_peer(&mut seen)
        };
        let Ok(notice) = vm.on_thread(|| catch(&vm, look)) else { return };
        tick = core.deadline_left().unwrap_or(TICK).min(notice / 4).clamp(TICK_MIN, TICK);
    }
}

impl Core {
    /// Starts the thread.
    pub fn start_watch(self: &Arc<Self>) -> Result<()> {
        let (weak, shared) = (Arc::downgrade(self), Arc::clone(&self.watch.shared));
        let thread = spawn("savevm-watch", move || watch(&weak, &shared));
        let thread = thread.map_err(|err| Error::io("starting the thread that watches a migration", &err))?;
        *self.watch.thread.lock() = Some(thread);
        Ok(())
    }

    /// Looks whether the peer does its part. Returns how long it may take for that.
    fn look_at_peer(&self, seen: &mut Seen) -> Duration {
        let limit = self.params().stall_timeout;
        if self.incoming {
            let notice = (limit.unwrap_or(DESTINATION_STALL) / 2).min(NOTICE_INCOMING);
            let still = seen.still(self.stats.received(), self.stats.is_reading());
            self.set_peer_stall(StallReason::PeerNotSending, still, notice);
            return notice;
        }
        let notice = (limit.unwrap_or(SOURCE_STALL) / 2).min(NOTICE);
        let (sent, is_writing) = self.watch.writes.lock().as_ref().map_or((0, false), |writes| writes.get());
        let still = seen.still(sent, is_writing);
        let asked = self.watch.asked_for();
        match still > notice {
            true => self.set_peer_stall(StallReason::PeerNotReading, still, notice),
            false => self.set_peer_stall(StallReason::PeerNotAnswering, asked, notice),
        }
        notice
    }

    fn set_peer_stall(&self, reason: StallReason, time: Duration, notice: Duration) {
        let side = if self.incoming { "the source" } else { "the destination" };
        let stall = (time > notice).then(|| Stall::peer(reason, side, time));
        self.change_stall(|reasons| reasons.peer = stall);
    }

    /// Sets the reason of a stall that the speeds show.
    pub fn set_stall(&self, stall: Option<Stall>) {
        self.change_stall(|reasons| reasons.speeds = stall);
    }

    fn change_stall(&self, change: impl FnOnce(&mut Reasons)) {
        let (stall, is_new) = {
            let mut reasons = self.watch.reasons.lock();
            change(&mut reasons);
            let stall = reasons.peer.clone().or_else(|| reasons.speeds.clone()).unwrap_or_default();
            let before = std::mem::replace(&mut reasons.reported, stall.reason);
            (stall.clone(), before != stall.reason)
        };
        self.stats.get().stall = stall.clone();
        if !is_new {
            return;
        }
        let Stall { reason, excess, text } = stall;
        self.trace.write(self.now(), &Event::Stalled { reason: reason.name(), excess, text: &text });
        let event =
            StallEvent { incoming: self.incoming, migration: self.address(), reason: reason as i32, excess, text };
        // The worker goes on after a panic in the host.
        let _ = catch(&self.vm, || self.vm.host().migration_stalled(&event));
    }
}
