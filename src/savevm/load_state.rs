// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a load keeps between sections. Any thread may ask.

use super::incoming::PostcopyState;
use super::registry::{Call, Registry};
use super::section_ids::SectionIds;
use crate::sync::{Mutex, Rank};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

/// The section ids of the stream and the state of postcopy.
pub struct LoadState {
    sections: Mutex<SectionIds>,
    postcopy: Mutex<PostcopyState>,
    /// Whether the devices that the stream left out were reported.
    absent_reported: AtomicBool,
    /// Whether RAM has fixed places in the file.
    mapped: AtomicBool,
    /// Devices that have not approved the switchover yet.
    acks: AtomicU32,
    /// A stream was begun whose devices were not asked yet whether they must approve the switchover.
    uncounted: AtomicBool,
    /// The return path was opened before that.
    opened_early: AtomicBool,
}

impl Default for LoadState {
    fn default() -> Self {
        Self {
            sections: Mutex::new(Rank::LoadingSections, SectionIds::default()),
            postcopy: Mutex::new(Rank::LoadingPostcopy, PostcopyState::default()),
            absent_reported: AtomicBool::new(false),
            mapped: AtomicBool::new(false),
            acks: AtomicU32::new(0),
            uncounted: AtomicBool::new(false),
            opened_early: AtomicBool::new(false),
        }
    }
}

impl LoadState {
    /// Forgets what an earlier stream left.
    pub(super) fn reset(&self) {
        *self.sections.lock() = SectionIds::default();
        self.absent_reported.store(false, SeqCst);
        self.mapped.store(false, SeqCst);
        self.acks.store(0, SeqCst);
        self.uncounted.store(true, SeqCst);
        self.opened_early.store(false, SeqCst);
    }

    /// Records that RAM has fixed places in the file (mapped-ram).
    pub(super) fn set_mapped(&self) {
        self.mapped.store(true, SeqCst);
    }

    /// Returns whether RAM has fixed places in the file.
    pub fn is_mapped(&self) -> bool {
        self.mapped.load(SeqCst)
    }

    /// Returns whether the devices that the stream left out were reported, and notes that they are now.
    pub(super) fn report_absent_once(&self) -> bool {
        !self.absent_reported.swap(true, SeqCst)
    }

    /// Sets how many devices must approve the switchover. Returns whether no approval is left to wait for, and the return path
    /// is open already.
    pub(super) fn set_acks(&self, count: u32) -> bool {
        self.acks.store(count, SeqCst);
        self.uncounted.store(false, SeqCst);
        self.opened_early.swap(false, SeqCst) && count == 0
    }

    /// The return path was opened. Returns whether no approval is left to wait for.
    pub(super) fn return_path_opened(&self) -> bool {
        let uncounted = self.uncounted.load(SeqCst);
        self.opened_early.store(uncounted, SeqCst);
        !uncounted && self.acks.load(SeqCst) == 0
    }

    /// Counts an approval. Returns how many are left, or `None` if none was expected.
    pub(super) fn ack(&self) -> Option<u32> {
        self.acks.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).ok().map(|before| before - 1)
    }

    /// Returns whether the stream had a section of a device.
    pub(super) fn has_device(&self, call: &Call<'_>) -> bool {
        self.sections.lock().has_device(call.ticket())
    }

    /// Records that a device sends with a section id from now on, in a version of its state. A live device is
    /// unfinished until its END section has come.
    pub(super) fn add_section(&self, id: u32, call: &Call<'_>, version: i32, is_live: bool) {
        let (mut sections, ticket) = (self.sections.lock(), call.ticket());
        sections.insert(id, (ticket, version));
        sections.set_unfinished(ticket, is_live);
    }

    /// Records that the END section of a live device has come.
    pub(super) fn end_section(&self, call: &Call<'_>) {
        self.sections.lock().set_unfinished(call.ticket(), false);
    }

    /// Returns whether a live device has started and its END section has not come.
    pub(super) fn is_unfinished(&self, call: &Call<'_>) -> bool {
        self.sections.lock().is_unfinished(call.ticket())
    }

    /// Returns the device that sends with a section id and the version of its state, unless the device was
    /// unregistered.
    pub(super) fn section<'r>(&self, registry: &'r Registry, id: u32) -> Option<(Call<'r>, i32)> {
        let (ticket, version) = *self.sections.lock().get(id)?;
        Some((registry.find_again(ticket)?, version))
    }

    /// Exchanges the postcopy state, for a host that keeps none of its own. `None` leaves the state as it is. Returns
    /// the state before.
    pub fn postcopy_state(&self, new: Option<PostcopyState>) -> PostcopyState {
        let mut state = self.postcopy.lock();
        let before = *state;
        *state = new.unwrap_or(before);
        before
    }
}
