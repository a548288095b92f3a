// SPDX-License-Identifier: LGPL-2.1-or-later
//! A device as the phases see it, independent of the interface through which it was registered.

use super::priority;
use crate::error::{Error, Result};
use crate::file::MigFile;
use crate::vmstate::Recorder;
pub use crate::vmstate::layout::Digests;
use crate::wire::preflight::RamBlock;
use std::cell::LazyCell;

/// The optional callbacks of a handler, with QEMU 7.2's names (`include/migration/register.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callback {
    /// Saves the whole state of a device that is not live.
    SaveState,
    /// Called after the migration, successful or not.
    SaveCleanup,
    /// Saves the rest of the state while the guest runs at the destination.
    SaveLiveCompletePostcopy,
    /// Saves the rest of the state while the guest is stopped.
    SaveLiveCompletePrecopy,
    /// Saves one round.
    SaveLiveIterate,
    /// Called before the rounds.
    SaveSetup,
    /// Returns how much is left.
    SaveLivePending,
    /// Loads a section.
    LoadState,
    /// Called before the load.
    LoadSetup,
    /// Called after the load.
    LoadCleanup,
    /// Called when a broken postcopy is recovered.
    ResumePrepare,
    /// Called before a migration starts (8.2).
    SavePrepare,
    /// Returns whether the device approves the switchover itself (8.1).
    SwitchoverAckNeeded,
    /// Called on the destination when the source switches over (10.0).
    SwitchoverStart,
    /// Sends a part of the end of precopy on a thread of its own (10.0).
    SaveThread,
    /// Loads a buffer that came outside of the main stream (10.0).
    LoadStateBuffer,
    /// Called before the switch to postcopy (10.1).
    SavePostcopyPrepare,
}

/// A function of a device that the host runs on a thread of its own, and its argument, both as addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaveThread {
    /// The function.
    pub function: usize,
    /// The device's pointer.
    pub opaque: usize,
}

/// The amount that is left to send, in bytes. Each handler adds to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// To be sent before the guest runs at the destination.
    pub precopy_only: u64,
    /// To be sent at any time.
    pub compatible: u64,
    /// To be sent after the guest has stopped at the source.
    pub postcopy_only: u64,
}

impl Pending {
    /// Returns the sum.
    pub fn total(&self) -> u64 {
        self.precopy_only.saturating_add(self.compatible).saturating_add(self.postcopy_only)
    }
}

/// A registered device.
///
/// The methods that return `i32` return the result of the callback. They are called only if `has` returns true for
/// them. A method that a device does not implement means what a NULL member means in C.
///
/// The big lock is held for `save_state`, `save_cleanup` and both completions. It is not held for `save_setup` and
/// `save_live_pending`. It is held for `save_live_iterate` in a snapshot, and not in a migration. It may be held or not for
/// `is_active` and `has_postcopy`.
pub trait Handler: Send + Sync {
    /// Returns whether the device has a callback. Asked each time, since a table may change while it is registered.
    fn has(&self, callback: Callback) -> bool;
    /// Returns whether the device takes part. True by default.
    fn is_active(&self) -> bool {
        true
    }
    /// Returns whether the device takes part in rounds. True by default.
    fn is_active_iterate(&self) -> bool {
        true
    }
    /// Returns whether the device can send after the guest has moved. False by default.
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
    /// `load_cleanup`. QEMU 7.2 ignores its result.
    fn load_cleanup(&self) -> i32 {
        0
    }
    /// The last section of a live device was loaded, whole.
    fn load_ended(&self) -> Result<()> {
        Ok(())
    }
    /// `save_prepare` (8.2).
    fn save_prepare(&self) -> Result<()> {
        Ok(())
    }
    /// `switchover_ack_needed` (8.1).
    fn switchover_ack_needed(&self) -> bool {
        false
    }
    /// `switchover_start` (10.0).
    fn switchover_start(&self) -> i32 {
        0
    }
    /// Returns the function of the thread at the end of precopy (10.0).
    fn save_thread(&self) -> Option<SaveThread> {
        None
    }
    /// `load_state_buffer` (10.0). The device may change the bytes at `data`.
    fn load_state_buffer(&self, _data: &mut [u8]) -> Result<()> {
        Err(Error::new(libc::ENOTSUP, "the device has no load_state_buffer"))
    }
    /// `save_postcopy_prepare` (10.1).
    fn save_postcopy_prepare(&self, _file: &MigFile) -> Result<()> {
        Ok(())
    }
    /// Returns how much is left: an exact number, or an estimate (8.0). Devices of older layouts have one callback for
    /// both, which receives the file.
    fn state_pending(&self, file: &LazyCell<MigFile>, exact: bool, pending: Pending) -> Pending {
        self.save_live_pending(file, if exact { u64::MAX } else { 0 }, pending)
    }
    /// `resume_prepare`, with the address of the driver's state.
    fn resume_prepare(&self, _migration: usize) -> i32 {
        0
    }
    /// Saves the whole state, by `save_state` or the description. Records what is written for the vmdesc.
    fn save(&self, file: &MigFile, recorder: Option<&Recorder>) -> Result<()>;
    /// Loads the payload of a section, by `load_state` or the description.
    fn load(&self, file: &MigFile, version: i32) -> Result<()>;

    /// Returns whether the device has a VMStateDescription, which is saved whole without a `save_state`.
    fn is_description(&self) -> bool {
        false
    }
    /// Returns the oldest version that the description can load.
    fn oldest_version(&self) -> i32 {
        i32::MIN
    }
    /// For RAM in QEMU's format: returns whether there is such a block and it can have that length in bytes. `None` if
    /// the device is no RAM, or if that is unknown.
    fn ram_fits(&self, _block: &str, _length: u64) -> Option<bool> {
        None
    }
    /// For RAM: returns whether it can have fixed places in a file, as `memory_plan` or the stream's capability
    /// "mapped-ram" says.
    fn maps_ram(&self) -> bool {
        false
    }
    /// For RAM in QEMU's format: returns the blocks, if they are known, and whether it leaves out shared ones.
    fn ram_blocks(&self) -> Option<(Vec<RamBlock>, bool)> {
        None
    }
    /// Returns the digest of the layout of the state, if the device has a description. Calls no hook of the device. With the big
    /// lock.
    fn layout_digest(&self, _known: &mut Digests) -> Option<u64> {
        None
    }
    /// Returns the layout of the state as JSON, if the device has a description. `saving` also asks the hooks of the device
    /// which parts would be saved now. With the big lock.
    fn layout(&self, _saving: bool) -> Option<Vec<u8>> {
        None
    }
    /// Returns the priority, of `savevm::priority`. Devices with higher priorities are saved first.
    fn priority(&self) -> i32 {
        priority::DEFAULT
    }
    /// Returns whether the description is saved during setup (8.0).
    fn is_early(&self) -> bool {
        false
    }
    /// Returns whether the description forbids migration.
    fn is_unmigratable(&self) -> bool {
        false
    }
    /// Returns whether the device has a state to save now.
    fn is_needed(&self) -> bool {
        true
    }
    /// Returns whether streams may leave the state out: the description decides for each save whether it is needed.
    fn is_optional(&self) -> bool {
        false
    }
    /// Returns whether the guest has not yet unplugged the device.
    fn unplug_pending(&self) -> bool {
        false
    }
}
