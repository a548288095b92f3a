// SPDX-License-Identifier: LGPL-2.1-or-later
//! Watches a migration while its worker waits: the deadline, and a peer that does nothing.
//!
//! This runs on a separate thread, because the worker may be blocked in a write that the peer does not read. The thread holds no
//! lock while it calls the host. It is joined before the last status is set.

use super::core::Core;
use super::deadline::NOTICED_WITHIN;
use super::endpoint::{DESTINATION_STALL, SOURCE_STALL};
use super::progress::{Stall, StallReason};
use super::trace::Event;
use super::watch_state::{Probe, Reasons, Shared};
use crate::error::{Error, Result};
use crate::savevm::slot::StallEvent;
use crate::savevm::unwind::catch;
use crate::sys::spawn;
use std::cmp::Reverse;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// A source whose peer does not read, or does not answer, for so long is stalled.
const NOTICE: Duration = Duration::from_secs(5);
/// A destination whose peer sends nothing for so long is stalled. A waiting source sends a byte every five seconds.
const NOTICE_INCOMING: Duration = Duration::from_secs(15);
/// Longest time between two looks.
const TICK: Duration = Duration::from_millis(500);
/// Shortest one.
const TICK_MIN: Duration = Duration::from_millis(2);

/// What the thread has seen of the peer.
#[derive(Default)]
struct Peer {
    main: Seen,
    further: Vec<Seen>,
}

/// What it has seen of one connection.
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

impl Peer {
    /// Names the further connections on which nothing has moved for longer than `notice`, while this side waits for the peer.
    /// Returns the longest time as well.
    fn still(&mut self, further: &[Probe], notice: Duration) -> Option<(String, Duration)> {
        self.further.resize_with(further.len(), Seen::default);
        let mut still: Vec<(Duration, usize)> = further
            .iter()
            .zip(&mut self.further)
            .zip(1..)
            .map(|((probe, seen), number)| {
                let (bytes, waits) = probe();
                (seen.still(bytes, waits), number)
            })
            .filter(|(time, _)| *time > notice)
            .collect();
        // Where nothing has moved for longest comes first: the others may wait for it.
        still.sort_by_key(|(time, number)| (Reverse(*time), *number));
        let (time, _) = *still.first()?;
        let numbers: Vec<_> = still.iter().map(|(_, number)| number.to_string()).collect();
        let word = if numbers.len() == 1 { "connection" } else { "connections" };
        Some((format!(" over {word} {} of {}", numbers.join(", "), further.len()), time))
    }
}

fn watch(core: &Weak<Core>, shared: &Shared) {
    let mut seen = Peer::default();
    let mut tick = TICK_MIN;
    while shared.sleep(tick) {
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
    fn look_at_peer(&self, seen: &mut Peer) -> Duration {
        let limit = self.params().stall_timeout;
        let (side, reason, notice, (bytes, waits), asked) = match self.incoming {
            true => {
                let notice = (limit.unwrap_or(DESTINATION_STALL) / 2).min(NOTICE_INCOMING);
                let moved = (self.stats.received(), self.stats.is_reading());
                ("the source", StallReason::PeerNotSending, notice, moved, Duration::ZERO)
            }
            false => {
                let notice = (limit.unwrap_or(SOURCE_STALL) / 2).min(NOTICE);
                let moved = self.watch.writes.lock().as_ref().map_or((0, false), |writes| writes.get());
                ("the destination", StallReason::PeerNotReading, notice, moved, self.watch.asked_for())
            }
        };
        let main = seen.main.still(bytes, waits);
        let further = seen.still(&self.watch.further(), notice);
        let stall = match further {
            // The main connection of a destination waits as well while another one does.
            Some((place, time)) if self.incoming || main <= notice => Some(Stall::peer(reason, side, &place, time)),
            Some((place, time)) => Some(Stall::peer(reason, side, &format!("{place} and the main one"), time)),
            None if main > notice => Some(Stall::peer(reason, side, "", main)),
            None if asked > notice => Some(Stall::peer(StallReason::PeerNotAnswering, side, "", asked)),
            None => None,
        };
        self.change_stall(|reasons| reasons.peer = stall);
        notice
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
