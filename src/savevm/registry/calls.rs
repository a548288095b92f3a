// SPDX-License-Identifier: LGPL-2.1-or-later
//! Counts the callbacks that run, so that a removal can wait for those on other threads.

use super::entry::{Entry, Ticket};
use crate::sync::{Condvar, Mutex, Rank};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

thread_local! {
    /// Addresses of the entries whose callbacks run on this thread.
    static RUNNING: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Keeps an entry while one of its callbacks runs. `unregister` on another thread waits for the drop.
pub struct Call<'a> {
    entry: Arc<Entry>,
    calls: &'a Calls,
}

impl std::ops::Deref for Call<'_> {
    type Target = Entry;
    fn deref(&self) -> &Entry {
        &self.entry
    }
}

impl Call<'_> {
    /// Returns a ticket with which the same entry can be entered again later.
    pub fn ticket(&self) -> Ticket {
        Ticket(self.entry.key)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let address = self.entry.address();
        RUNNING.with_borrow_mut(|running| {
            if let Some(at) = running.iter().rposition(|other| *other == address) {
                running.swap_remove(at);
            }
        });
        self.entry.calls.fetch_sub(1, SeqCst);
        if self.entry.removed.load(SeqCst) {
            let _lock = self.calls.drain.lock();
            self.calls.ended.notify_all();
        }
    }
}

/// The calls of one registry.
pub(super) struct Calls {
    /// Held between the check for calls and the wait for the end of one.
    drain: Mutex<()>,
    /// A call of a removed entry ended.
    ended: Condvar,
}

impl Default for Calls {
    fn default() -> Self {
        Self { drain: Mutex::new(Rank::RegistryIdle, ()), ended: Condvar::new() }
    }
}

impl Calls {
    /// Enters an entry, unless it was removed.
    pub fn enter(&self, entry: Arc<Entry>) -> Option<Call<'_>> {
        entry.calls.fetch_add(1, SeqCst);
        RUNNING.with_borrow_mut(|running| running.push(entry.address()));
        let call = Call { entry, calls: self };
        (!call.removed.load(SeqCst)).then_some(call)
    }

    /// Marks removed entries, so that no further callback starts. Returns whether another thread still runs one.
    pub fn is_busy(&self, removed: &[Arc<Entry>]) -> bool {
        for entry in removed {
            entry.removed.store(true, SeqCst);
        }
        removed.iter().any(|entry| entry.calls.load(SeqCst) > on_this_thread(entry))
    }

    /// Waits until no other thread runs a callback of the removed entries.
    pub fn drain(&self, removed: &[Arc<Entry>]) {
        let mut lock = self.drain.lock();
        while self.is_busy(removed) {
            lock = self.ended.wait(lock);
        }
    }
}

/// Returns how many callbacks of an entry run on this thread.
fn on_this_thread(entry: &Entry) -> usize {
    let address = entry.address();
    RUNNING.with_borrow(|running| running.iter().filter(|other| **other == address).count())
}
