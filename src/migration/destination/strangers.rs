// SPDX-License-Identifier: LGPL-2.1-or-later
//! Connections that are not yet known to be the source's, because any client can connect to a listener. `sorter.rs` examines
//! those of a new migration, `candidates.rs` those of a recovery.

use crate::channel::{Channel, fill};
use crate::migration::core::Core;
use crate::savevm::host::Level;
use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Connections that are examined at the same time, besides those of the source.
pub(super) const STRANGERS_MAX: usize = 16;
/// If so many are examined, those that have not begun within this time are closed.
const CROWDED_LIMIT: Duration = Duration::from_secs(5);

/// The connections that are being examined, and since when.
#[derive(Default)]
pub(super) struct Pending(Vec<(Weak<dyn Channel>, Instant)>);

impl Pending {
    pub fn add(&mut self, channel: &Arc<dyn Channel>) {
        self.0.push((Arc::downgrade(channel), Instant::now()));
    }

    pub fn remove(&mut self, channel: &Arc<dyn Channel>) {
        self.0.retain(|(other, _)| !std::ptr::addr_eq(other.as_ptr(), Arc::as_ptr(channel)));
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Removes those that have had enough time for a beginning, to make room for others.
    pub fn take_late(&mut self) -> Self {
        let late = |(_, since): &(Weak<dyn Channel>, Instant)| since.elapsed() >= CROWDED_LIMIT;
        Self(self.0.extract_if(.., |entry| late(entry)).collect())
    }

    /// Ends the waits of the threads that examine them. Channels are called, so no lock may be held.
    pub fn shut_down(self) {
        for channel in self.0.iter().filter_map(|(channel, _)| channel.upgrade()) {
            let _ = channel.shutdown();
        }
    }
}

/// Reads bytes until a deadline. Returns false if the connection ends before they are there.
pub(super) fn read_first(channel: &dyn Channel, into: &mut [u8], until: Instant) -> io::Result<bool> {
    let count = fill(channel, into, || {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        channel.set_stall_limit(Some(left));
        Ok(())
    })?;
    Ok(count == into.len())
}

/// Reports that a connection was closed, for this reason, and that the migration waits for the next one.
pub(super) fn report(core: &Core, reason: &str) {
    let text = format!("closed a connection that is not the source's; waiting for the next: {reason}");
    core.vm.host().report(Level::Warning, &text);
}
