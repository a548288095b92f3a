// SPDX-License-Identifier: LGPL-2.1-or-later
//! The snapshot that a context saves: its progress, and its cancellation from another thread. Any thread, with or without the
//! big lock.

use crate::channel::Cancel;
use crate::error::{Error, Result};
use crate::sync::{Mutex, Rank};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Statistics of the latest snapshot that was saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SavingInfo {
    /// It is still saved.
    pub active: bool,
    /// Bytes of memory to save.
    pub total: u64,
    /// Bytes of memory that are saved.
    pub saved: u64,
    /// How long the guest was stopped, so far as it has ended.
    pub stopped: Duration,
    /// How long the save took, or has taken so far.
    pub duration: Duration,
}

#[derive(Default)]
struct Inner {
    info: SavingInfo,
    began: Option<Instant>,
    cancel: Option<Arc<Cancel>>,
}

/// See the module.
pub struct Saving(Mutex<Inner>);

impl Default for Saving {
    fn default() -> Self {
        Self(Mutex::new(Rank::SlotSaving, Inner::default()))
    }
}

/// A save in progress. Dropping it ends the save.
pub struct SavingGuard<'a> {
    saving: &'a Saving,
    cancel: Arc<Cancel>,
}

impl Saving {
    /// Begins a save. The caller has the migration slot.
    pub fn begin(&self) -> Result<SavingGuard<'_>> {
        let cancel = Arc::new(Cancel::new()?);
        let info = SavingInfo { active: true, ..SavingInfo::default() };
        *self.0.lock() = Inner { info, began: Some(Instant::now()), cancel: Some(Arc::clone(&cancel)) };
        Ok(SavingGuard { saving: self, cancel })
    }

    /// RAM: this number of bytes is saved. Without a save, does nothing.
    pub fn set_total(&self, bytes: u64) {
        let mut inner = self.0.lock();
        if inner.info.active {
            inner.info.total = bytes;
        }
    }

    /// Cancels the save. Returns whether one is in progress.
    pub fn cancel(&self) -> bool {
        // Channels are called without the lock.
        let cancel = self.0.lock().cancel.clone();
        cancel.inspect(|cancel| cancel.cancel()).is_some()
    }

    /// Fails if the save was cancelled.
    pub fn check(&self) -> Result<()> {
        match self.0.lock().cancel.as_ref().is_some_and(|cancel| cancel.is_cancelled()) {
            true => Err(Error::new(libc::ECANCELED, "the snapshot was cancelled")),
            false => Ok(()),
        }
    }

    /// Returns statistics of the latest save. `remaining` are the bytes of memory that are still to be saved, if it is in
    /// progress.
    pub fn info(&self, remaining: u64) -> SavingInfo {
        let inner = self.0.lock();
        let mut info = inner.info;
        if info.active {
            info.saved = info.total.saturating_sub(remaining);
            info.duration = inner.began.map_or(Duration::ZERO, |began| began.elapsed());
        }
        info
    }
}

impl SavingGuard<'_> {
    /// For the waits of the save.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// The guest was stopped for this time.
    pub fn set_stopped(&self, time: Duration) {
        self.saving.0.lock().info.stopped = time;
    }

    /// Returns the result of the save. After a cancellation, any error is that.
    pub fn end<T>(self, result: Result<T>, remaining: u64) -> Result<T> {
        let info = self.saving.info(if result.is_ok() { 0 } else { remaining });
        self.saving.0.lock().info = info;
        result.map_err(|error| match self.saving.check() {
            Err(cancelled) if error.errno() != libc::ECANCELED => cancelled,
            _ => error,
        })
    }
}

impl Drop for SavingGuard<'_> {
    fn drop(&mut self) {
        let mut inner = self.saving.0.lock();
        inner.info.active = false;
        inner.cancel = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn save_is_cancelled_only_while_it_lasts() {
        let saving = Saving::default();
        assert!(!saving.cancel() && saving.check().is_ok());
        saving.set_total(7);
        let guard = saving.begin().unwrap();
        saving.set_total(100);
        assert_eq!((saving.info(30).saved, saving.info(30).total, saving.info(0).active), (70, 100, true));
        guard.set_stopped(Duration::from_millis(2));
        assert!(saving.cancel());
        assert_eq!(saving.check().unwrap_err().errno(), libc::ECANCELED);
        let error = guard.end(Err::<(), _>(Error::invalid("broken pipe")), 40).unwrap_err();
        assert_eq!(error.errno(), libc::ECANCELED);
        assert!(!saving.cancel() && saving.check().is_ok());
        let info = saving.info(0);
        assert_eq!((info.active, info.saved, info.stopped), (false, 60, Duration::from_millis(2)));
        let guard = saving.begin().unwrap();
        assert!(saving.cancel());
        // It came too late.
        guard.end(Ok(()), 0).unwrap();
    }
}
