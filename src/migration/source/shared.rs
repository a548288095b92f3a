// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the handle of an outgoing migration and its worker share: the migration core and the user's requests.

use crate::channel::Channel;
use crate::migration::core::Core;
use crate::migration::status::Status;
use crate::sync::{Mutex, Rank};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// What the user has requested since the migration began.
pub(super) struct Requests {
    /// Continue after pause-before-switchover.
    pub continue_: AtomicBool,
    /// A cancelled migration has reported that to the destination, or can't.
    pub farewell: AtomicBool,
    /// The handle is being freed: do not wait for a recovery any longer.
    pub abandon: AtomicBool,
    /// The new connection of a recovery.
    pub recovery_channel: Mutex<Option<Arc<dyn Channel>>>,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            continue_: AtomicBool::new(false),
            farewell: AtomicBool::new(false),
            abandon: AtomicBool::new(false),
            recovery_channel: Mutex::new(Rank::OutgoingRecovery, None),
        }
    }
}

/// See the module.
pub(super) struct Shared {
    pub core: Arc<Core>,
    pub requests: Requests,
    /// The migration slot of the context was released.
    pub released: AtomicBool,
}

impl Shared {
    pub fn new(core: Arc<Core>) -> Self {
        Self { core, requests: Requests::default(), released: AtomicBool::new(false) }
    }

    /// Ends the work: the context is free for the next migration. Comes before the last status.
    pub fn finish(&self, status: Status) {
        self.core.phase(None);
        self.release_slot();
        if !self.core.advance(status) {
            // A request to cancel came in between; the migration is over all the same.
            self.core.advance(Status::Cancelled);
        }
    }

    /// Releases the context's migration slot, once.
    pub fn release_slot(&self) {
        if !self.released.swap(true, SeqCst) {
            // Dropping an unused recovery channel closes it: its other end waits for this one.
            drop(self.requests.recovery_channel.take());
            self.core.watch.stop();
            self.core.vm.slot.set_observer(None);
            self.core.vm.slot.set_connections(None);
            self.core.vm.ownership.hold(false);
            self.core.vm.slot.release();
        }
    }
}
