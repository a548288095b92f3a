// SPDX-License-Identifier: LGPL-2.1-or-later
//! The host: what the engine asks of the hypervisor. The default of a method is for a host that does not have the
//! feature.

use super::handler::SaveThread;
use super::slot::{MigrationEvent, StallEvent};
use crate::error::Error;
use crate::file::MigFile;
use crate::sync::{Rank, check_order};
use crate::vmstate::VmStateHost;
use std::ffi::CStr;

/// Flags of the stream and of the migration, from the host and from the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u32);

impl Flags {
    /// No configuration section is written or expected.
    pub const NO_CONFIGURATION: Self = Self(1);
    /// No footers are written or expected.
    pub const NO_FOOTERS: Self = Self(2);
    /// No description of the stream follows EOF.
    pub const NO_VMDESC: Self = Self(4);
    /// The guest runs at the destination; live devices with postcopy continue.
    pub const IN_POSTCOPY: Self = Self(8);
    /// Continuous replication: device states without a header.
    pub const IN_COLO: Self = Self(16);
    /// Both sides use postcopy of RAM.
    pub const POSTCOPY_RAM: Self = Self(32);
    /// The machine's UUID is not written. A received UUID is compared nevertheless.
    pub const NO_UUID: Self = Self(64);
    /// Sections of live devices are refused, because their content arrives another way.
    pub const NO_LIVE_LOAD: Self = Self(128);
    /// SWITCHOVER_START is not sent, because the other side may not know it.
    pub const NO_SWITCHOVER_START: Self = Self(512);
    /// The host calls the cleanup of devices after a load itself.
    pub const HOST_CLEANS_LOAD: Self = Self(2048);
    /// Devices of the destination must approve the switchover.
    pub const SWITCHOVER_ACK: Self = Self(1024);

    /// The driver sends the guest's run state as QEMU's section "globalstate".
    pub const GLOBAL_STATE: Self = Self(256);

    /// Returns whether all bits of `other` are set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Severity of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is unexpected and was ignored.
    Warning,
}

/// Notices around the phases of precopy (QEMU 7.2's `PrecopyNotifyReason`, of which the engine sends three).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum PrecopyNotice {
    /// All handlers were set up.
    Setup = 0,
    /// The guest is stopped, and the rest of its state follows.
    Complete = 3,
    /// The migration ended, successfully or not.
    Cleanup = 4,
}

/// The hypervisor.
pub trait Host: VmStateHost + Send + Sync {
    /// Takes the big lock.
    fn lock(&self) {}
    /// Releases the big lock.
    fn unlock(&self) {}
    /// Returns whether this thread holds the big lock.
    fn locked(&self) -> bool {
        false
    }
    /// Stops the guest. Returns 0 or a negative errno.
    fn vm_stop(&self) -> i32 {
        0
    }
    /// Starts the guest. Returns 0 or a negative errno.
    fn vm_start(&self) -> i32 {
        0
    }
    /// Returns whether the guest runs.
    fn vm_running(&self) -> bool {
        false
    }
    /// Whether `vm_running` has an answer. If not, a guest is started at the destination whether it ran or not.
    fn knows_run_state(&self) -> bool {
        false
    }
    /// Resets the machine to its state after power-on, before a snapshot is loaded.
    fn reset(&self) {}
    /// Returns whether `reset` has an effect.
    fn knows_reset(&self) -> bool {
        false
    }
    /// Copies the state of the CPUs to the devices that save it.
    fn cpu_synchronize_states(&self) {}
    /// Prepares the CPUs for a load.
    fn cpu_synchronize_pre_load(&self) {}
    /// Copies the loaded state to the CPUs.
    fn cpu_synchronize_post_load(&self) {}
    /// Returns the machine's name for the configuration section.
    fn machine_name(&self) -> Vec<u8> {
        b"none".to_vec()
    }
    /// Returns the machine's UUID, if it has one.
    fn uuid(&self) -> Option<[u8; 16]> {
        None
    }
    /// Returns log2 of the target's page size.
    fn target_page_bits(&self) -> u32 {
        12
    }
    /// Returns log2 of the smallest page size that the target can have.
    fn target_page_bits_min(&self) -> u32 {
        self.target_page_bits()
    }
    /// Returns the names of the enabled capabilities that both sides must share.
    fn capabilities(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }
    /// Returns the path of the object at an address, if it has one.
    fn object_path(&self, _object: usize) -> Option<Vec<u8>> {
        None
    }
    /// Inactivates the disks, so that the other side can use them. Returns 0 or a negative errno.
    fn disks_inactivate(&self) -> i32 {
        0
    }
    /// Activates the disks on this side. Returns 0 or a negative errno.
    fn disks_activate(&self) -> i32 {
        0
    }
    /// Throttles the CPUs of the guest by a percentage. Returns false if the host cannot do that.
    fn throttle(&self, _percent: u32) -> bool {
        false
    }
    /// Notifies the host of a phase of precopy. A negative result is reported and otherwise ignored.
    fn precopy_notify(&self, _notice: PrecopyNotice) -> i32 {
        0
    }
    /// Returns the flags of the host. The engine asks each time it needs them.
    fn flags(&self) -> Flags {
        Flags::default()
    }
    /// Returns the union of the page sizes of all RAM blocks, for POSTCOPY_ADVISE.
    fn ram_page_sizes(&self) -> u64 {
        1 << self.target_page_bits()
    }
    /// Returns whether `ram_fits` can answer.
    fn knows_ram(&self) -> bool {
        false
    }
    /// Returns whether the machine has a RAM block of that name with that length in bytes, or one that can be resized
    /// to it.
    /// `None` if that is unknown: the section "ram" may have a format of its own.
    fn ram_fits(&self, _block: &str, _length: u64) -> Option<bool> {
        None
    }
    /// Reports a message to the user. By default it goes to the log.
    fn report(&self, level: Level, text: &str) {
        match level {
            Level::Error => log::error!("{text}"),
            Level::Warning => log::warn!("{text}"),
        }
    }
    /// Stores an error in the host's own form at the address of an `Error *`. Returns false if the host has no such
    /// form.
    fn give_error(&self, _errp: usize, _errno: i32, _text: &CStr) -> bool {
        false
    }
    /// Frees an error in the host's own form at an address, and returns its text. `None` if the host has no such form.
    fn take_error(&self, _error: usize) -> Option<String> {
        None
    }
    /// Returns whether no more may be sent for now, for a host that limits the rate itself. Asked before each device of a
    /// round.
    fn rate_exceeded(&self, file: &MigFile) -> bool {
        file.rate_limit_reached()
    }
    /// Returns whether `start_save_thread` works now.
    fn has_save_threads(&self) -> bool {
        false
    }
    /// Runs the function of a device on a thread of its own.
    fn start_save_thread(&self, _thread: SaveThread, _idstr: &[u8], _instance: u32) {}
    /// Asks the threads to end soon.
    fn abort_save_threads(&self) {}
    /// Waits for all threads. Returns false if one failed.
    fn join_save_threads(&self) -> bool {
        true
    }
    /// A migration changed its status. Any thread, any lock; no lock of the library is held.
    fn migration_event(&self, _event: &MigrationEvent) {}
    /// A migration makes no progress, or makes progress again. Any thread, any lock; no lock of the library is held.
    fn migration_stalled(&self, _event: &StallEvent) {}
    /// A lazy restore ended, with an error if a page could not be read. Any thread, without the big lock.
    fn restore_ended(&self, _error: Option<&Error>) {}
    /// Returns the monotonic time in ns, for a host with a clock of its own.
    fn clock_ns(&self) -> Option<u64> {
        None
    }
}

/// Runs `body` with the host's big lock. Takes the lock unless this thread holds it, and releases it afterwards, also
/// if `body` panics.
pub fn with_big_lock<T>(host: &dyn Host, body: impl FnOnce() -> T) -> T {
    struct Unlock<'a>(&'a dyn Host);
    impl Drop for Unlock<'_> {
        fn drop(&mut self) {
            self.0.unlock();
        }
    }
    let _unlock = (!host.locked()).then(|| {
        check_order(Rank::BigLock);
        host.lock();
        Unlock(host)
    });
    body()
}

/// Runs `body` without the host's big lock. If this thread holds the lock, releases it and takes it again afterwards,
/// also if `body` panics.
pub fn without_big_lock<T>(host: &dyn Host, body: impl FnOnce() -> T) -> T {
    struct Relock<'a>(&'a dyn Host);
    impl Drop for Relock<'_> {
        fn drop(&mut self) {
            check_order(Rank::BigLock);
            self.0.lock();
        }
    }
    let _relock = host.locked().then(|| {
        host.unlock();
        Relock(host)
    });
    body()
}

/// A host without features.
pub struct NoHost;

impl Host for NoHost {}

impl VmStateHost for NoHost {}
