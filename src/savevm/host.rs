// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the engine asks of the hypervisor around it. Every method has the meaning of "the host has none of this".

use super::slot::MigrationEvent;
use crate::sync::{Rank, check_order};
use crate::vmstate::VmStateHost;
use std::ffi::CStr;

/// What the stream carries and what state the migration is in, from the host and from the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u32);

impl Flags {
    /// No configuration section is written or expected.
    pub const NO_CONFIGURATION: Self = Self(1);
    /// No footers are written or expected.
    pub const NO_FOOTERS: Self = Self(2);
    /// No description follows the end.
    pub const NO_VMDESC: Self = Self(4);
    /// The guest was handed over; live devices with postcopy go on.
    pub const IN_POSTCOPY: Self = Self(8);
    /// Continuous replication: device states without a header.
    pub const IN_COLO: Self = Self(16);
    /// Postcopy of RAM is agreed on.
    pub const POSTCOPY_RAM: Self = Self(32);
    /// The machine's UUID is not written; one that comes is compared all the same.
    pub const NO_UUID: Self = Self(64);
    /// Sections of live devices are refused: what they hold comes another way.
    pub const NO_LIVE_LOAD: Self = Self(128);

    /// Whether all bits of `other` are set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// How bad a report is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is odd and was gone past.
    Warning,
}

/// Notices around the phases of precopy (QEMU 7.2's `PrecopyNotifyReason`, of which the engine sends three).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum PrecopyNotice {
    /// All handlers were set up.
    Setup = 0,
    /// The guest is stopped and the rest follows.
    Complete = 3,
    /// The migration is over, well or not.
    Cleanup = 4,
}

/// The hypervisor.
pub trait Host: VmStateHost + Send + Sync {
    /// Takes the big lock.
    fn lock(&self) {}
    /// Gives the big lock back.
    fn unlock(&self) {}
    /// Whether this thread holds the big lock.
    fn locked(&self) -> bool {
        false
    }
    /// Stops the guest; 0 or a negative errno.
    fn vm_stop(&self) -> i32 {
        0
    }
    /// Lets the guest run; 0 or a negative errno.
    fn vm_start(&self) -> i32 {
        0
    }
    /// Whether the guest runs.
    fn vm_running(&self) -> bool {
        false
    }
    /// Puts the machine into the state that it is in after power-on, before a snapshot is loaded into it.
    fn reset(&self) {}
    /// Brings the CPUs' state to where their devices save it from.
    fn cpu_synchronize_states(&self) {}
    /// Prepares the CPUs for a load.
    fn cpu_synchronize_pre_load(&self) {}
    /// Gives the loaded state to the CPUs.
    fn cpu_synchronize_post_load(&self) {}
    /// The machine's name in the configuration section.
    fn machine_name(&self) -> Vec<u8> {
        b"none".to_vec()
    }
    /// The machine's UUID, where it has one.
    fn uuid(&self) -> Option<[u8; 16]> {
        None
    }
    /// log2 of the target's page size.
    fn target_page_bits(&self) -> u32 {
        12
    }
    /// log2 of the smallest page size that the target could have.
    fn target_page_bits_min(&self) -> u32 {
        self.target_page_bits()
    }
    /// Names of the enabled capabilities that both sides must share.
    fn capabilities(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }
    /// The path of the object behind an address, where it has one.
    fn object_path(&self, _object: usize) -> Option<Vec<u8>> {
        None
    }
    /// Gives the disks up; 0 or a negative errno.
    fn disks_inactivate(&self) -> i32 {
        0
    }
    /// Takes the disks over; 0 or a negative errno.
    fn disks_activate(&self) -> i32 {
        0
    }
    /// Slows the guest down by so many percent; false where the host can't.
    fn throttle(&self, _percent: u32) -> bool {
        false
    }
    /// Tells the host where precopy stands; 0 or a negative errno, which is reported and gone past.
    fn precopy_notify(&self, _notice: PrecopyNotice) -> i32 {
        0
    }
    /// Stream and state flags, asked each time they matter.
    fn flags(&self) -> Flags {
        Flags::default()
    }
    /// Union of the page sizes of all RAM blocks, for POSTCOPY_ADVISE.
    fn ram_page_sizes(&self) -> u64 {
        1 << self.target_page_bits()
    }
    /// Whether `ram_fits` has an answer.
    fn knows_ram(&self) -> bool {
        false
    }
    /// Whether the machine has a block of RAM of that name which has, or can be given, so many bytes. `None`: nobody knows,
    /// and the section "ram" may be in a format of its own.
    fn ram_fits(&self, _block: &str, _length: u64) -> Option<bool> {
        None
    }
    /// Tells people. Without a host it goes to the log.
    fn report(&self, level: Level, text: &str) {
        match level {
            Level::Error => log::error!("{text}"),
            Level::Warning => log::warn!("{text}"),
        }
    }
    /// Gives an error to C in the host's own form, at the address of an `Error *`; false where it has none of its own.
    fn give_error(&self, _errp: usize, _errno: i32, _text: &CStr) -> bool {
        false
    }
    /// Takes and frees an error in the host's own form, by its address; its text. `None` where it has none of its own.
    fn take_error(&self, _error: usize) -> Option<String> {
        None
    }
    /// A migration changed its status. Any thread, any lock; no lock of the library is held.
    fn migration_event(&self, _event: &MigrationEvent) {}
    /// Monotonic time for the driver's measurements, for a host with a clock of its own.
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

/// A host that has nothing.
pub struct NoHost;

impl Host for NoHost {}

impl VmStateHost for NoHost {}
