// SPDX-License-Identifier: LGPL-2.1-or-later
//! A device as the phases see it, whatever interface it was registered through.

use crate::error::Result;
use crate::file::MigFile;
use crate::vmstate::Recorder;

/// Optional callbacks of a handler, by QEMU 7.2's names (`include/migration/register.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callback {
    /// Whole state of a device that is not live.
    SaveState,
    /// After the migration, well or not.
    SaveCleanup,
    /// Rest of the state, with the guest running on the destination.
    SaveLiveCompletePostcopy,
    /// Rest of the state, with the guest stopped.
    SaveLiveCompletePrecopy,
    /// One round.
    SaveLiveIterate,
    /// Before the rounds.
    SaveSetup,
    /// How much is left.
    SaveLivePending,
    /// Any section that comes in.
    LoadState,
    /// Before the load.
    LoadSetup,
    /// After the load.
    LoadCleanup,
    /// Back after a broken postcopy.
    ResumePrepare,
}

/// What is left to send, in bytes. Handlers add to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Before the destination's guest runs.
    pub precopy_only: u64,
    /// At any time.
    pub compatible: u64,
    /// After the source's guest stopped.
    pub postcopy_only: u64,
}

impl Pending {
    /// Everything that is left.
    pub fn total(&self) -> u64 {
        self.precopy_only.saturating_add(self.compatible).saturating_add(self.postcopy_only)
    }
}

/// A registered device.
///
/// The methods that return `i32` hand on what the callback returned. They are only called where `has` said yes; what a
/// device does not implement means what a NULL member means. The lock
/// rule of each is the one of the C member: `save_state`, `save_cleanup` and both completions run inside the big lock;
/// `is_active`, `has_postcopy` inside or outside; `save_live_iterate` outside in a migration and inside for a snapshot;
/// `save_setup` and `save_live_pending` outside.
pub trait Handler: Send + Sync {
    /// Whether there is such a callback. Asked each time: a table may change while it is registered.
    fn has(&self, callback: Callback) -> bool;
    /// False for a device that says that it takes no part; true for one that does not say.
    fn is_active(&self) -> bool {
        true
    }
    /// As `is_active`, for rounds alone.
    fn is_active_iterate(&self) -> bool {
        true
    }
    /// Whether it can send after the guest moved; false for one that does not say.
    fn has_postcopy(&self) -> bool {
        false
    }
    /// `save_setup`.
    fn save_setup(&self, _file: &MigFile) -> i32 {
        0
    }
    /// `save_live_iterate`.
    fn save_live_iterate(&self, _file: &MigFile) -> i32 {
        1
    }
    /// `save_live_pending`.
    fn save_live_pending(&self, _file: &MigFile, _threshold: u64, pending: Pending) -> Pending {
        pending
    }
    /// `save_live_complete_precopy`.
    fn save_live_complete_precopy(&self, _file: &MigFile) -> i32 {
        0
    }
    /// `save_live_complete_postcopy`.
    fn save_live_complete_postcopy(&self, _file: &MigFile) -> i32 {
        0
    }
    /// `save_cleanup`.
    fn save_cleanup(&self) {}
    /// `load_setup`.
    fn load_setup(&self, _file: &MigFile) -> i32 {
        0
    }
    /// `load_cleanup`; its result means nothing in QEMU 7.2.
    fn load_cleanup(&self) -> i32 {
        0
    }
    /// `resume_prepare`, with the driver's state as an address.
    fn resume_prepare(&self, _migration: usize) -> i32 {
        0
    }
    /// The whole state: `save_state`, or the description. What was written is recorded for the vmdesc.
    fn save(&self, file: &MigFile, recorder: Option<&Recorder>) -> Result<()>;
    /// A section's payload: `load_state`, or the description.
    fn load(&self, file: &MigFile, version: i32) -> Result<()>;

    /// Whether it is a VMStateDescription, which is saved whole without a `save_state`.
    fn is_description(&self) -> bool {
        false
    }
    /// The oldest version that the description can read.
    fn oldest_version(&self) -> i32 {
        i32::MIN
    }
    /// For RAM in QEMU's format: whether it has such a block, and that can have so many bytes. `None`: the state is
    /// something else, or nobody knows.
    fn ram_fits(&self, _block: &str, _length: u64) -> Option<bool> {
        None
    }
    /// Order of saving; higher goes first.
    fn priority(&self) -> i32 {
        0
    }
    /// Whether the description forbids migration.
    fn is_unmigratable(&self) -> bool {
        false
    }
    /// Whether the description has anything to say now.
    fn is_needed(&self) -> bool {
        true
    }
    /// Whether the guest has yet to let the device go.
    fn unplug_pending(&self) -> bool {
        false
    }
}
