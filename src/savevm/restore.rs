// SPDX-License-Identifier: LGPL-2.1-or-later
//! Lazy restores: a snapshot's devices are loaded and the guest runs, while RAM still reads pages from the file.
//!
//! The driver sets the plan, RAM serves the pages, and this module keeps what both and the waiting threads know.
//!
//! | stage | meaning | next |
//! |---|---|---|
//! | `None` | no lazy restore, or the last one was replaced | `Loading` |
//! | `Loading` | RAM serves pages, the devices are being loaded, the guest is stopped | `Running`, `Ended` |
//! | `Running` | everything is loaded but pages; the guest may run | `Ended` |
//! | `Ended` | all pages are in memory, or the restore failed | `Loading` |
//!
//! While a restore is `Running` it occupies the migration slot, so that migrations, snapshots and checkpoints are refused. Only
//! another load of a snapshot takes its place.

use super::chain_pages::ChainPages;
use crate::error::{Error, Result};
use crate::sync::{Condvar, Mutex, MutexGuard, Rank};
use crate::wire::page_index::BlockPages;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{self, ThreadId};

/// How memory is loaded lazily.
#[derive(Debug, Default)]
pub struct LazyPlan {
    /// Where the pages of a stream are. `None` if pages have fixed places, which RAM finds in the stream.
    pub index: Option<PageIndex>,
    /// A file to write with the places of the pages.
    pub index_file: Option<IndexFile>,
    /// Where the pages of a chain of snapshots are. The stream has no pages then.
    pub chain: Option<Arc<ChainPages>>,
    /// A file with the order in which a guest touched its pages first. If it does not exist, it is written.
    pub working_set: Option<PathBuf>,
}

/// A file to write with the index of a stream.
#[derive(Debug)]
pub struct IndexFile {
    /// Its path.
    pub path: PathBuf,
    /// Its contents.
    pub bytes: Vec<u8>,
}

/// Where the pages of a stream are in its file.
#[derive(Debug, Default)]
pub struct PageIndex {
    /// All blocks.
    pub blocks: Vec<Arc<BlockPages>>,
    /// Offsets in the stream at which the states of RAM's sections end, in ascending order.
    pub section_ends: Vec<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    None,
    Loading,
    Running,
    Ended,
}

#[derive(Default)]
struct Inner {
    stage: Stage,
    error: Option<Error>,
    /// The thread that ends the restore. It can't wait for itself.
    thread: Option<ThreadId>,
}

/// Statistics of the latest lazy restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoreInfo {
    /// Pages are still read.
    pub active: bool,
    /// Bytes that are read from the file in total.
    pub total: u64,
    /// Bytes that have been read.
    pub loaded: u64,
    /// Number of times that a thread had to wait for a page.
    pub faults: u64,
}

/// The lazy restore of a context. Any thread; see the module.
pub struct Restore {
    inner: Mutex<Inner>,
    changed: Condvar,
    total: AtomicU64,
    loaded: AtomicU64,
    faults: AtomicU64,
}

impl Default for Restore {
    fn default() -> Self {
        let inner = Mutex::new(Rank::SlotRestore, Inner::default());
        let (total, loaded, faults) = Default::default();
        Self { inner, changed: Condvar::new(), total, loaded, faults }
    }
}

impl Restore {
    /// RAM: serves pages from now on, of which `total` bytes are in the file.
    pub fn begin(&self, total: u64) {
        let mut inner = self.inner.lock();
        *inner = Inner { stage: Stage::Loading, ..Inner::default() };
        self.total.store(total, Relaxed);
        self.loaded.store(0, Relaxed);
        self.faults.store(0, Relaxed);
    }

    /// RAM: bytes were read from the file.
    pub fn count_loaded(&self, bytes: u64) {
        self.loaded.fetch_add(bytes, Relaxed);
    }

    /// RAM: a thread waits for a page.
    pub fn count_fault(&self) {
        self.faults.fetch_add(1, Relaxed);
    }

    /// RAM: the calling thread will end the restore.
    pub fn set_thread(&self) {
        self.inner.lock().thread = Some(thread::current().id());
    }

    /// Driver: all devices are loaded, and the guest may run. Fails if a page could not be read. Without a lazy restore,
    /// does nothing.
    pub fn arm(&self) -> Result<()> {
        let mut inner = self.inner.lock();
        match (&inner.error, inner.stage) {
            (Some(error), Stage::Loading | Stage::Ended) => return Err(error.clone()),
            (_, Stage::Loading) => inner.stage = Stage::Running,
            _ => {}
        }
        Ok(())
    }

    /// RAM: a page can't be read. Returns whether the guest may run already.
    pub fn fail(&self, error: &Error) -> bool {
        let mut inner = self.inner.lock();
        inner.error.get_or_insert_with(|| error.clone());
        inner.stage == Stage::Running
    }

    /// Waits until no pages are read any more. Returns how the latest restore ended. `EINPROGRESS` on the thread that
    /// ends it. The caller does not hold the big lock.
    pub fn wait(&self) -> Result<()> {
        let mut inner = self.inner.lock();
        while matches!(inner.stage, Stage::Loading | Stage::Running) {
            if inner.thread == Some(thread::current().id()) {
                return Err(Error::new(libc::EINPROGRESS, "a lazy restore ends after this callback has returned"));
            }
            inner = self.changed.wait(inner);
        }
        inner.error.clone().map_or(Ok(()), Err)
    }

    /// Returns statistics of the latest restore.
    pub fn info(&self) -> RestoreInfo {
        let active = self.is_active();
        let [total, loaded, faults] = [&self.total, &self.loaded, &self.faults].map(|count| count.load(Relaxed));
        RestoreInfo { active, total, loaded: loaded.min(total), faults }
    }

    /// Whether pages are still read.
    pub fn is_active(&self) -> bool {
        matches!(self.inner.lock().stage, Stage::Loading | Stage::Running)
    }

    /// Forgets how the last restore ended, before a load without one.
    pub fn forget(&self) {
        *self.inner.lock() = Inner::default();
    }

    /// Locks the stage. Returns whether the restore occupies the migration slot.
    pub(super) fn hold(&self) -> (bool, RestoreGuard<'_>) {
        let inner = self.inner.lock();
        (inner.stage == Stage::Running, RestoreGuard(self, inner))
    }
}

/// Keeps the stage from changing.
pub(super) struct RestoreGuard<'a>(&'a Restore, MutexGuard<'a, Inner>);

impl RestoreGuard<'_> {
    /// Ends the restore and wakes the waiting threads.
    pub fn end(mut self, result: Result<()>) {
        self.1.stage = Stage::Ended;
        if let Err(error) = result {
            self.1.error.get_or_insert(error);
        }
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_before_the_guest_runs_fails_the_load() {
        let restore = Restore::default();
        restore.wait().unwrap();
        restore.arm().unwrap();
        restore.begin(4096);
        assert!(restore.is_active() && !restore.fail(&Error::invalid("cut")) && restore.arm().is_err());
        restore.hold().1.end(Ok(()));
        assert_eq!(restore.wait().unwrap_err().message(), "cut");
        assert!(restore.arm().is_err());
        restore.begin(0);
        restore.arm().unwrap();
        assert!(restore.fail(&Error::invalid("late")) && restore.hold().0);
        restore.hold().1.end(Err(Error::invalid("later")));
        assert_eq!(restore.wait().unwrap_err().message(), "late");
        restore.forget();
        restore.wait().unwrap();
    }
}
