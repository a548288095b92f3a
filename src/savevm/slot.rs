// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a machine keeps for the migration driver: what forbids migration, who drives it now, who watches, and how RAM
//! takes part in postcopy.

use crate::error::{Error, Result};
use crate::file::MigFile;
use crate::sync::{Mutex, MutexGuard, Rank, RwLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A change that the host is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MigrationEvent {
    /// Whether the machine comes in (or goes out).
    pub incoming: bool,
    /// QEMU's name of the new status.
    pub status: &'static str,
    /// Its number.
    pub number: i32,
    /// The driver's state, as an address.
    pub migration: usize,
}

/// One section that was saved or loaded.
#[derive(Clone, Copy, Debug)]
pub struct SectionTime<'a> {
    /// Name of the device.
    pub name: &'a [u8],
    /// Instance.
    pub instance: u32,
    /// Type byte.
    pub tag: u8,
    /// Bytes, with head and footer where it was saved.
    pub bytes: u64,
    /// How long it took.
    pub time: Duration,
}

/// Somebody who watches the sections go by. Called on the thread and under the locks of the phase.
pub trait Observer: Send + Sync {
    /// A section was saved, well or not, or loaded.
    fn section(&self, section: &SectionTime<'_>);
}

/// Where a destination's RAM asks for pages. Any thread.
pub trait PageSource: Send + Sync {
    /// Asks the source to send `len` bytes from `start` on of a block soon. An error where the connection is broken:
    /// ask again after `PostcopyRam::resumed`.
    fn request_pages(&self, block: &[u8], start: u64, len: u32) -> Result<()>;
}

/// How RAM takes part in postcopy. All results that are errors end the migration, or pause it where it can be recovered.
pub trait PostcopyRam: Send + Sync {
    /// Names of all blocks, for a recovery.
    fn blocks(&self) -> Vec<Vec<u8>>;

    /// Source, guest stopped, with the big lock: sends POSTCOPY_RAM_DISCARD for what was sent but changed since.
    fn send_discards(&self, file: &MigFile) -> Result<()>;
    /// Source, any thread, without the lock: the guest waits for these bytes; `None` is the block of the last request.
    fn pages_requested(&self, block: Option<&[u8]>, start: u64, len: u32) -> Result<()>;
    /// Source, in a recovery: which pages of a block arrived, a bit each, little-endian. All others are to be sent.
    fn received(&self, block: &[u8], bits: &[u8]) -> Result<()>;

    /// Destination: postcopy may come.
    fn advise(&self) -> Result<()> {
        Ok(())
    }
    /// Destination: before the first discard.
    fn prepare_discard(&self) -> Result<()> {
        Ok(())
    }
    /// Destination: throw away `len` bytes from `start` on of a block.
    fn discard(&self, block: &[u8], start: u64, len: u64) -> Result<()>;
    /// Destination: from now on ask for what is missing. Pages are loaded by the RAM handler's `load_state`, without the
    /// lock, on another thread than the devices.
    /// `migration` is the address by which the host knows the migration.
    fn listen(&self, source: Arc<dyn PageSource>, migration: usize) -> Result<()>;
    /// Destination: the connection broke.
    fn paused(&self) {}
    /// Destination: it is back; ask again for all that the guest waits for.
    fn resumed(&self) {}
    /// Destination, in a recovery: which pages of a block arrived, a bit each, little-endian.
    fn received_bits(&self, block: &[u8]) -> Result<Vec<u8>>;
    /// Destination: everything arrived, or (not `complete`) nothing more will: wakes all threads that wait for pages.
    fn end(&self, complete: bool);

    /// Destination, a running postcopy fails: no more pages will arrive, and the guest is about to be stopped.
    ///
    /// Threads that wait for a missing page keep waiting, and so does a thread that touches one now: nothing reads zeros
    /// in place of the guest's data. A CPU that waits may be unable to stop. After `grace` missing pages become
    /// unreadable, so that such a CPU leaves the wait with an error and the host can stop the guest.
    ///
    /// The caller then stops the guest and calls `release`:
    /// ```text
    /// ram.abort(grace);
    /// let stopped = !host.vm_running() || host.vm_stop() >= 0;
    /// ram.release(stopped);
    /// ```
    /// Any thread, with or without the big lock. Does not wait.
    fn abort(&self, _grace: Duration) {}

    /// Destination, after `abort`: wakes all threads that wait for pages. If the guest is `stopped`, missing pages read as
    /// zero from now on. If it may run, they stay unreadable until the next load begins or the memory is removed.
    fn release(&self, _stopped: bool) {
        self.end(false);
    }
}

#[derive(Default)]
struct Inner {
    blockers: Vec<(u64, String)>,
    last_blocker: u64,
    driver: Option<&'static str>,
    /// Somebody wants what the driver does to end.
    ending: bool,
}

/// See the module.
pub struct Slot {
    inner: Mutex<Inner>,
    ram: RwLock<Option<Arc<dyn PostcopyRam>>>,
    observer: RwLock<Option<Arc<dyn Observer>>>,
    /// Nanoseconds that the devices took last time, from the stopped guest to the destination's word.
    device_cost: AtomicU64,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Rank::MigrationSlot, Inner::default()),
            ram: RwLock::new(Rank::SlotRam, None),
            observer: RwLock::new(Rank::SlotObserver, None),
            device_cost: AtomicU64::new(0),
        }
    }
}

impl Slot {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Forbids migration, with a reason for people. The number takes it back. `EBUSY` while one is under way.
    pub fn block(&self, reason: &str) -> Result<u64> {
        let mut inner = self.inner();
        if let Some(driver) = inner.driver {
            let text = format!("disallowing migration blocker ({driver} in progress) for: {reason}");
            return Err(Error::new(libc::EBUSY, text));
        }
        inner.last_blocker += 1;
        let number = inner.last_blocker;
        inner.blockers.push((number, reason.to_owned()));
        Ok(number)
    }

    /// Takes a blocker back; whether there was one with that number.
    pub fn unblock(&self, number: u64) -> bool {
        let mut inner = self.inner();
        let before = inner.blockers.len();
        inner.blockers.retain(|(other, _)| *other != number);
        inner.blockers.len() != before
    }

    /// The reasons that forbid migration.
    pub fn blockers(&self) -> Vec<String> {
        self.inner().blockers.iter().map(|(_, reason)| reason.clone()).collect()
    }

    /// Makes this the one driver of the machine. `EBUSY` where there is another.
    pub fn begin(&self, what: &'static str) -> Result<()> {
        let mut inner = self.inner();
        match inner.driver {
            Some(other) => Err(Error::new(libc::EBUSY, format!("{what}: {other} is in progress"))),
            None => {
                inner.driver = Some(what);
                inner.ending = false;
                Ok(())
            }
        }
    }

    /// The driver is done.
    pub fn end(&self) {
        let mut inner = self.inner();
        inner.driver = None;
        inner.ending = false;
    }

    /// Somebody wants what the driver does to end, so that its stream breaks.
    pub fn set_ending(&self) {
        self.inner().ending = true;
    }

    /// Whether somebody wants that.
    pub fn is_ending(&self) -> bool {
        self.inner().ending
    }

    /// How RAM takes part in postcopy, where it does.
    pub fn ram(&self) -> Option<Arc<dyn PostcopyRam>> {
        self.ram.read().clone()
    }

    /// Says how RAM takes part in postcopy.
    pub fn set_ram(&self, ram: Option<Arc<dyn PostcopyRam>>) {
        *self.ram.write() = ram;
    }

    /// Who watches.
    pub fn observer(&self) -> Option<Arc<dyn Observer>> {
        self.observer.read().clone()
    }

    /// Says who watches.
    pub fn set_observer(&self, observer: Option<Arc<dyn Observer>>) {
        *self.observer.write() = observer;
    }

    /// What the devices cost last time.
    pub fn device_cost(&self) -> Duration {
        Duration::from_nanos(self.device_cost.load(Relaxed))
    }

    /// Remembers what the devices cost.
    pub fn set_device_cost(&self, cost: Duration) {
        self.device_cost.store(u64::try_from(cost.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blockers_are_counted_and_refused_during_a_migration() {
        let slot = Slot::default();
        let (one, two) = (slot.block("a device").unwrap(), slot.block("another").unwrap());
        assert_eq!(slot.blockers(), ["a device", "another"]);
        assert!(slot.unblock(one) && !slot.unblock(one));
        assert_eq!(slot.blockers(), ["another"]);
        slot.begin("an outgoing migration").unwrap();
        assert_eq!(slot.block("late").unwrap_err().errno(), libc::EBUSY);
        assert!(slot.begin("a snapshot").unwrap_err().message().contains("an outgoing migration is in progress"));
        assert!(slot.unblock(two));
        slot.end();
        slot.block("now").unwrap();
    }
}
