// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a context keeps for the migration driver: the blockers, the operation in progress, the observer, and the part
//! of RAM in postcopy. Any thread, with or without the big lock.

use super::checkpoint::CheckpointRam;
use super::device_costs::DeviceCosts;
use super::memory_plan::MemoryPlan;
use super::restore::Restore;
use super::saving::Saving;
use crate::error::{Error, Result};
use crate::file::MigFile;
use crate::savevm::connections::{Compression, Connections};
use crate::sync::{Mutex, MutexGuard, Rank, RwLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

/// A change of the status of a migration, as the host receives it.
#[derive(Clone, Debug)]
pub struct MigrationEvent {
    /// Whether the migration is incoming.
    pub incoming: bool,
    /// QEMU's name of the new status.
    pub status: &'static str,
    /// Number of the new status.
    pub number: i32,
    /// Address of the driver's state.
    pub migration: usize,
    /// Why a postcopy paused, a recovery failed or the migration ended without success.
    pub error: Option<Error>,
}

/// A migration makes no progress, or makes progress again, as the host receives it.
#[derive(Clone, Debug)]
pub struct StallEvent {
    /// Whether the migration is incoming.
    pub incoming: bool,
    /// Address of the driver's state.
    pub migration: usize,
    /// Number of the reason; 0: it makes progress again.
    pub reason: i32,
    /// By how many bytes per second the guest writes faster than memory is sent.
    pub excess: u64,
    /// The reason in words; empty if it makes progress again.
    pub text: String,
}

/// One section that was saved or loaded.
#[derive(Clone, Copy, Debug)]
pub struct SectionTime<'a> {
    /// Name of the device, with its path.
    pub name: &'a [u8],
    /// Instance id of the device.
    pub instance: u32,
    /// Type byte of the section.
    pub tag: u8,
    /// Size in bytes, with header and footer if the section was saved.
    pub bytes: u64,
    /// Duration.
    pub time: Duration,
}

/// Receives the time of each section. Called on the thread and with the locks of the phase.
pub trait Observer: Send + Sync {
    /// A section was saved, successfully or not, or loaded.
    fn section(&self, section: &SectionTime<'_>);
}

/// What the dirty log of RAM has shown since setup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogTotals {
    /// Number of reads of the log. 0 if the host marks pages as it writes to them.
    pub reads: u64,
    /// Bytes that were shown as written, also those that were still to be sent.
    pub written: u64,
}

/// Requests pages for the RAM of a destination. Any thread.
pub trait PageSource: Send + Sync {
    /// Asks the source to send `len` bytes of a block from `start` soon. Fails if the connection is broken: ask again
    /// after `PostcopyRam::resumed`.
    fn request_pages(&self, block: &[u8], start: u64, len: u32) -> Result<()>;
}

/// The part of RAM in postcopy. An error ends the migration, or pauses it if it can be recovered.
pub trait PostcopyRam: Send + Sync {
    /// Returns the names of all blocks, for a recovery.
    fn blocks(&self) -> Vec<Vec<u8>>;

    /// Source, in precopy: what the dirty log has shown so far. `None` if the RAM does not know.
    fn log_totals(&self) -> Option<LogTotals> {
        None
    }
    /// Destination, while a load is in progress: how many pages have arrived at least once, and the number of all pages. `None`
    /// if the RAM does not know.
    fn arrived(&self) -> Option<(u64, u64)> {
        None
    }
    /// Returns whether the RAM can send and receive pages over further connections.
    fn takes_connections(&self) -> bool {
        false
    }
    /// Fails if the RAM can't compress in this way.
    fn check_compression(&self, _compression: Compression, _level: i32) -> Result<()> {
        Ok(())
    }

    /// Source, guest stopped, with the big lock: sends POSTCOPY_RAM_DISCARD for all pages that changed after they were
    /// sent.
    fn send_discards(&self, file: &MigFile) -> Result<()>;
    /// Source, any thread, without the lock: the guest waits for these bytes. `None` means the block of the last
    /// request.
    fn pages_requested(&self, block: Option<&[u8]>, start: u64, len: u32) -> Result<()>;
    /// Source, in a recovery: the pages of a block that arrived, one bit each, little-endian. All others must be sent.
    fn received(&self, block: &[u8], bits: &[u8]) -> Result<()>;

    /// Destination: postcopy may follow.
    fn advise(&self) -> Result<()> {
        Ok(())
    }
    /// Destination: before the first discard.
    fn prepare_discard(&self) -> Result<()> {
        Ok(())
    }
    /// Destination: discard `len` bytes of a block from `start`.
    fn discard(&self, block: &[u8], start: u64, len: u64) -> Result<()>;
    /// Destination: from now on request missing pages. The RAM handler's `load_state` loads pages without the lock, on
    /// another thread than the devices.
    /// `migration` is the address by which the host knows the migration.
    fn listen(&self, source: Arc<dyn PageSource>, migration: usize) -> Result<()>;
    /// Destination: the connection broke.
    fn paused(&self) {}
    /// Destination: the connection is back. Request again all pages for which the guest waits.
    fn resumed(&self) {}
    /// Destination, in a recovery: returns the pages of a block that arrived, one bit each, little-endian.
    fn received_bits(&self, block: &[u8]) -> Result<Vec<u8>>;
    /// Destination: whether no page is missing. True if the RAM does not know.
    fn is_complete(&self) -> bool {
        true
    }
    /// Destination: everything arrived, or (not `complete`) nothing more will: wakes all threads that wait for pages.
    fn end(&self, complete: bool);

    /// Destination, a running postcopy fails: no more pages will arrive, and the guest is about to be stopped.
    ///
    /// Threads that wait for a missing page keep waiting, and so does a thread that touches one now: nothing reads
    /// zeros in place of the guest's data. A CPU that waits may be unable to stop. After `grace` missing pages become
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

    /// Checks whether this machine can load memory lazily. Any thread, with or without the big lock.
    fn check_lazy(&self) -> Result<()> {
        Err(Error::new(libc::ENOTSUP, "the machine's RAM can't be loaded lazily: it is not the library's"))
    }

    /// Ends a lazy restore whose guest is stopped or will not run again: pages that were not read are zero. If the guest
    /// runs nevertheless, they are unreadable. Waits for the threads that read, without the big lock.
    fn end_lazy(&self) {}

    /// Destination, after `abort`: wakes all threads that wait for pages. If the guest is `stopped`, missing pages read
    /// as zero from now on. If it may run, they stay unreadable until the next load begins or the memory is removed.
    fn release(&self, _stopped: bool) {
        self.end(false);
    }
}

#[derive(Default)]
struct Inner {
    blockers: Vec<(u64, String)>,
    last_blocker: u64,
    driver: Option<&'static str>,
    /// The operation was cancelled.
    ending: bool,
    /// The caller of the operation gets its error.
    returns_errors: bool,
    /// Number of checkpoints.
    checkpoints: usize,
}

/// The migration slot of a context. See the module.
pub struct MigrationSlot {
    /// In the operation in progress, both sides map the same shared memory, which is not sent.
    shares_memory: AtomicBool,
    inner: Mutex<Inner>,
    ram: RwLock<Option<Arc<dyn PostcopyRam>>>,
    checkpoint_ram: RwLock<Option<Arc<dyn CheckpointRam>>>,
    observer: RwLock<Option<Arc<dyn Observer>>>,
    /// What the devices cost in a switchover, as far as earlier migrations and rehearsals have shown.
    pub device_costs: DeviceCosts,
    memory_plan: RwLock<Arc<MemoryPlan>>,
    /// The lazy restore.
    pub restore: Restore,
    /// The snapshot that is saved.
    pub saving: Saving,
    connections: RwLock<Option<Arc<dyn Connections>>>,
}

/// The name under which a lazy restore occupies the slot.
const RESTORE: &str = "a lazy restore";

impl Default for MigrationSlot {
    fn default() -> Self {
        Self {
            shares_memory: AtomicBool::new(false),
            inner: Mutex::new(Rank::MigrationSlot, Inner::default()),
            ram: RwLock::new(Rank::SlotRam, None),
            checkpoint_ram: RwLock::new(Rank::SlotCheckpointRam, None),
            observer: RwLock::new(Rank::SlotObserver, None),
            device_costs: DeviceCosts::default(),
            memory_plan: RwLock::new(Rank::SlotMemoryPlan, Arc::default()),
            restore: Restore::default(),
            saving: Saving::default(),
            connections: RwLock::new(Rank::SlotConnections, None),
        }
    }
}

impl MigrationSlot {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Forbids migration, with a reason for error texts. Returns the number for `unblock`. `EBUSY` during an operation.
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

    /// Removes a blocker. Returns whether there was one with that number.
    pub fn unblock(&self, number: u64) -> bool {
        let mut inner = self.inner();
        let before = inner.blockers.len();
        inner.blockers.retain(|(other, _)| *other != number);
        inner.blockers.len() != before
    }

    /// Returns the reasons that forbid migration.
    pub fn blockers(&self) -> Vec<String> {
        self.inner().blockers.iter().map(|(_, reason)| reason.clone()).collect()
    }

    /// Fails with `EACCES` and the reasons if `what` is forbidden.
    pub fn check_blockers(&self, what: &str) -> Result<()> {
        match self.blockers() {
            reasons if reasons.is_empty() => Ok(()),
            reasons => Err(Error::new(libc::EACCES, format!("{what} is blocked: {}", reasons.join("; ")))),
        }
    }

    /// Fails with `EBUSY` while an operation is in progress, which `what` would disturb.
    pub fn check_idle(&self, what: &str) -> Result<()> {
        match self.inner().driver {
            Some(other) => Err(Error::new(libc::EBUSY, format!("{what}: {other} is in progress"))),
            None => Ok(()),
        }
    }

    /// Starts the operation `what`. `EBUSY` while another one is in progress.
    pub fn acquire(&self, what: &'static str) -> Result<()> {
        self.take(what, None)
    }

    /// As `acquire`, for an operation that replaces a lazy restore in progress.
    pub fn acquire_from_restore(&self, what: &'static str) -> Result<()> {
        self.take(what, Some(RESTORE))
    }

    fn take(&self, what: &'static str, replaced: Option<&str>) -> Result<()> {
        let mut inner = self.inner();
        match inner.driver {
            Some(other) if replaced != Some(other) => {
                let advice = if other == RESTORE { "; wait for it with savevm_restore_wait()" } else { "" };
                Err(Error::new(libc::EBUSY, format!("{what} is refused: {other} is in progress{advice}")))
            }
            _ => {
                inner.driver = Some(what);
                (inner.ending, inner.returns_errors) = (false, false);
                Ok(())
            }
        }
    }

    /// Ends the operation. A lazy restore that it has begun, or has not replaced, occupies the slot from now on.
    pub fn release(&self) {
        self.shares_memory.store(false, SeqCst);
        let (running, _stage) = self.restore.hold();
        let mut inner = self.inner();
        inner.driver = running.then_some(RESTORE);
        (inner.ending, inner.returns_errors) = (false, false);
    }

    /// Ends the lazy restore and releases the slot, unless another operation has it.
    pub fn end_restore(&self, result: Result<()>) {
        let (_, stage) = self.restore.hold();
        {
            let mut inner = self.inner();
            if inner.driver == Some(RESTORE) {
                inner.driver = None;
            }
        }
        stage.end(result);
    }

    /// Records that the operation was cancelled, so that errors of its stream are expected.
    pub fn set_ending(&self) {
        self.inner().ending = true;
    }

    /// Returns whether the operation was cancelled.
    pub fn is_ending(&self) -> bool {
        self.inner().ending
    }

    /// Records that the caller of the operation gets its error, so that the host gets no report of it as well.
    pub fn set_returns_errors(&self) {
        self.inner().returns_errors = true;
    }

    /// Returns whether the caller of the operation gets its error.
    pub fn returns_errors(&self) -> bool {
        self.inner().returns_errors
    }

    /// Returns the part of RAM in postcopy, if it takes one.
    pub fn ram(&self) -> Option<Arc<dyn PostcopyRam>> {
        self.ram.read().clone()
    }

    /// Sets the part of RAM in postcopy.
    pub fn set_ram(&self, ram: Option<Arc<dyn PostcopyRam>>) {
        *self.ram.write() = ram;
    }

    /// Says that both sides of the operation in progress map the same shared memory. `release` ends that.
    pub fn share_memory(&self) {
        self.shares_memory.store(true, SeqCst);
    }

    /// Returns whether both sides of the operation in progress map the same shared memory.
    pub fn shares_memory(&self) -> bool {
        self.shares_memory.load(SeqCst)
    }

    /// Returns the RAM that takes part in checkpoints, if there is one.
    pub fn checkpoint_ram(&self) -> Option<Arc<dyn CheckpointRam>> {
        self.checkpoint_ram.read().clone()
    }

    /// Sets the RAM that takes part in checkpoints.
    pub fn set_checkpoint_ram(&self, ram: Option<Arc<dyn CheckpointRam>>) {
        *self.checkpoint_ram.write() = ram;
    }

    /// Counts a new checkpoint.
    pub fn add_checkpoint(&self) {
        self.inner().checkpoints += 1;
    }

    /// Counts the end of a checkpoint.
    pub fn remove_checkpoint(&self) {
        let mut inner = self.inner();
        inner.checkpoints = inner.checkpoints.saturating_sub(1);
    }

    /// Fails with `EBUSY` while checkpoints exist, which `what` would make useless.
    pub fn check_no_checkpoints(&self, what: &str) -> Result<()> {
        match self.inner().checkpoints {
            0 => Ok(()),
            count => Err(Error::new(
                libc::EBUSY,
                format!("{what}: {count} checkpoints of the machine exist; free them first"),
            )),
        }
    }

    /// Returns the observer.
    pub fn observer(&self) -> Option<Arc<dyn Observer>> {
        self.observer.read().clone()
    }

    /// Sets the observer.
    pub fn set_observer(&self, observer: Option<Arc<dyn Observer>>) {
        *self.observer.write() = observer;
    }

    /// Returns how the snapshot in progress saves or loads memory. Without a snapshot: the default.
    pub fn memory_plan(&self) -> Arc<MemoryPlan> {
        Arc::clone(&self.memory_plan.read())
    }

    /// Sets how the snapshot in progress saves or loads memory.
    pub fn set_memory_plan(&self, plan: MemoryPlan) {
        *self.memory_plan.write() = Arc::new(plan);
    }

    /// Returns the further connections of the migration in progress, if it has some.
    pub fn connections(&self) -> Option<Arc<dyn Connections>> {
        self.connections.read().clone()
    }

    /// Sets the further connections of the migration in progress.
    pub fn set_connections(&self, connections: Option<Arc<dyn Connections>>) {
        *self.connections.write() = connections;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocker_is_removed_once_and_refused_during_a_migration() {
        let slot = MigrationSlot::default();
        let (one, two) = (slot.block("a device").unwrap(), slot.block("another").unwrap());
        assert_eq!(slot.blockers(), ["a device", "another"]);
        assert!(slot.unblock(one) && !slot.unblock(one));
        assert_eq!(slot.blockers(), ["another"]);
        slot.acquire("an outgoing migration").unwrap();
        assert_eq!(slot.block("late").unwrap_err().errno(), libc::EBUSY);
        assert!(slot.acquire("a snapshot").unwrap_err().message().contains("an outgoing migration is in progress"));
        assert!(slot.unblock(two));
        slot.release();
        slot.block("now").unwrap();
    }
}
