// SPDX-License-Identifier: LGPL-2.1-or-later
//! Which side has the guest of a context. The answer belongs to the context and outlives every migration.
//!
//! | event | caller | owner before | owner after |
//! |---|---|---|---|
//! | the context is created | `Vm::new` | | `Here` |
//! | an outgoing migration begins | source | `Here`, else refused | `Here` |
//! | the source sends what lets the destination start the guest | source | `Here` | `Unknown` |
//! | the destination can't have received it, or refused the guest | source | `Unknown` | `Here` |
//! | the destination has shown that it has the guest | source | `Unknown` | `There` |
//! | an incoming migration begins; a guest that runs here is reported | destination | any | `There` |
//! | it ends before a device was called | destination | `There` | see below |
//! | it ends after all was loaded, and the source keeps the guest | destination | `There` | `There` |
//! | it ends after a device was called and before all was loaded | destination | `There`, `Here` (postcopy) | `Torn` |
//! | the source has released the guest to this side | destination | `There` | `Here` |
//! | a snapshot load resets the machine | snapshot | any | `Torn` |
//! | a snapshot load, or `qemu_loadvm_state()`, loaded everything | snapshot, host | any | `Here` |
//! | a rollback to a checkpoint resets the machine | checkpoint | `Here`, `Torn`, else refused | `Torn` |
//! | a rollback restored everything | checkpoint | `Torn` | `Here` |
//! | `qemu_loadvm_state()` and its siblings failed after a device was called | host | any | `Torn` |
//! | an operator decides; refused during a migration or snapshot | operator | any | any |
//!
//! A fresh destination has no guest, so a context whose incoming migration waits is `There`. It stays `There` if that
//! migration ends before it changed a device: the guest is still at its source, and starting the reset machine here would
//! put a second one on the same disks. Another incoming migration, a snapshot load or an operator changes that. Two cases
//! differ, because the context had an owner before: if the guest ran here when the migration began, or if the owner was
//! not `Here`, the owner before the migration is restored.
//!
//! A guest that is here may not run without its disks. If `disks_activate` fails when the source takes the guest back, the
//! owner is `Here` and `may_run` is false, until the disks are activated by a later migration or an operator decides.
//!
//! A host with a migration driver of its own (`SaveVMHostOps.incoming`; a QEMU port) decides for itself who runs the guest, as
//! QEMU does. Its loads through QEMU's functions change nothing here, so that its context stays `Here`.
//!
//! All functions may be called from any thread with or without the host's big lock. They call nothing.

use crate::error::{Error, Result};
use crate::sync::{Mutex, MutexGuard, Rank};
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

/// The side that has the guest, as far as this context knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(i32)]
pub enum Owner {
    /// This side.
    #[default]
    Here = 0,
    /// The other side.
    There = 1,
    /// The other side may have it: the connection broke while the guest changed hands.
    Unknown = 2,
    /// No side has it here: a load failed after it had changed devices or memory.
    Torn = 3,
}

#[derive(Default)]
struct State {
    owner: Owner,
    /// Why the owner is not `Here`, as a clause for error texts.
    reason: String,
    /// A driver has stopped the guest and will start it again, or hand it over.
    held: bool,
    /// Why the disks of a guest that is here are inactive.
    without_disks: Option<String>,
}

/// An owner and its reason, to be restored later.
#[derive(Debug)]
pub struct Remembered {
    owner: Owner,
    reason: String,
}

/// No device was called since the load began.
const UNTOUCHED: u8 = 0;
/// A device was called, and not everything is loaded.
const PARTIAL: u8 = 1;
/// Everything is loaded.
const WHOLE: u8 = 2;

/// The ownership of one context. See the module.
pub struct Ownership {
    state: Mutex<State>,
    /// How far a load is. Set for every section, so that it takes no lock.
    load: AtomicU8,
}

impl Default for Ownership {
    fn default() -> Self {
        Self { state: Mutex::new(Rank::Ownership, State::default()), load: AtomicU8::new(UNTOUCHED) }
    }
}

impl Ownership {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The owner.
    pub fn owner(&self) -> Owner {
        self.state().owner
    }

    /// Whether the host may start the guest or let it run.
    pub fn may_run(&self) -> bool {
        let state = self.state();
        state.owner == Owner::Here && !state.held && state.without_disks.is_none()
    }

    /// `EPERM` with the reason, unless the host may start the guest or let it run.
    pub fn check_may_run(&self) -> Result<()> {
        self.check("running the guest")?;
        let (held, without_disks) = {
            let state = self.state();
            (state.held, state.without_disks.clone())
        };
        if let Some(cause) = without_disks {
            let text = format!(
                "running the guest is refused: its disks are not active ({cause}); an operator who has activated them has to \
                 set the owner"
            );
            return Err(Error::new(libc::EPERM, text));
        }
        if held {
            let text =
                "running the guest is refused: a migration or a snapshot has stopped it and decides what follows";
            return Err(Error::new(libc::EBUSY, text));
        }
        Ok(())
    }

    /// `EPERM` with the reason, unless the whole guest is here. `what` names what is refused.
    pub fn check(&self, what: &str) -> Result<()> {
        let (owner, reason) = {
            let state = self.state();
            (state.owner, state.reason.clone())
        };
        let advice = match owner {
            Owner::Here => return Ok(()),
            Owner::There => "",
            Owner::Unknown => "; an operator who sees both sides has to decide",
            Owner::Torn => "; load a whole guest first",
        };
        Err(Error::new(libc::EPERM, format!("{what} is refused: {reason}{advice}")))
    }

    /// Changes the owner. `reason` says why the guest is not here, as a clause.
    pub fn set(&self, owner: Owner, reason: impl Into<String>) {
        let reason = reason.into();
        let before = {
            let mut state = self.state();
            state.reason.clone_from(&reason);
            std::mem::replace(&mut state.owner, owner)
        };
        if before != owner {
            let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
            log::info!("the owner of the guest changes from {before:?} to {owner:?}{reason}");
        }
    }

    /// Returns the owner of the moment, for `restore`.
    pub fn remember(&self) -> Remembered {
        let state = self.state();
        Remembered { owner: state.owner, reason: state.reason.clone() }
    }

    /// Sets a remembered owner. Returns it.
    pub fn restore(&self, remembered: &Remembered) -> Owner {
        self.set(remembered.owner, remembered.reason.clone());
        remembered.owner
    }

    /// The disks of the guest that is here could not be activated.
    pub fn set_without_disks(&self, cause: impl Into<String>) {
        self.state().without_disks = Some(cause.into());
    }

    /// The disks are active, or an operator has said so.
    pub fn clear_without_disks(&self) {
        self.state().without_disks = None;
    }

    /// Marks the guest as stopped by a driver, or releases it.
    pub fn hold(&self, held: bool) {
        self.state().held = held;
    }

    /// Whether a driver has stopped the guest and will start it again, or hand it over.
    pub fn is_held(&self) -> bool {
        self.state().held
    }

    /// A load begins.
    pub fn begin_load(&self) {
        self.load.store(UNTOUCHED, SeqCst);
    }

    /// A device is about to be called by the load.
    pub fn touch(&self) {
        self.load.store(PARTIAL, SeqCst);
    }

    /// The load has loaded everything.
    pub fn loaded(&self) {
        self.load.store(WHOLE, SeqCst);
    }

    /// Whether the load has called a device and has not loaded everything.
    pub fn is_partial(&self) -> bool {
        self.load.load(SeqCst) == PARTIAL
    }

    /// Whether the load has changed nothing since it began.
    pub fn is_untouched(&self) -> bool {
        self.load.load(SeqCst) == UNTOUCHED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_guest_that_is_here_may_run() {
        let ownership = Ownership::default();
        assert!(ownership.may_run() && ownership.check("x").is_ok() && ownership.check_may_run().is_ok());
        ownership.hold(true);
        assert!(!ownership.may_run() && ownership.check("x").is_ok());
        assert_eq!(ownership.check_may_run().unwrap_err().errno(), libc::EBUSY);
        ownership.hold(false);
        for owner in [Owner::There, Owner::Unknown, Owner::Torn] {
            ownership.set(owner, "the guest moved to unix:/x");
            assert!(!ownership.may_run() && ownership.owner() == owner);
            for error in [ownership.check("a migration").unwrap_err(), ownership.check_may_run().unwrap_err()] {
                assert_eq!(error.errno(), libc::EPERM);
                assert!(error.message().contains("is refused: the guest moved to unix:/x"), "{error}");
            }
        }
        ownership.set(Owner::Here, "");
        assert!(ownership.may_run());
    }

    #[test]
    fn a_guest_without_its_disks_may_not_run() {
        let ownership = Ownership::default();
        ownership.set_without_disks("disks_activate returned -5");
        assert!(!ownership.may_run() && ownership.check("a migration").is_ok());
        let error = ownership.check_may_run().unwrap_err();
        assert!(error.message().contains("disks are not active (disks_activate returned -5)"), "{error}");
        ownership.clear_without_disks();
        assert!(ownership.may_run());
    }

    #[test]
    fn a_remembered_owner_comes_back_with_its_reason() {
        let ownership = Ownership::default();
        ownership.set(Owner::Unknown, "the guest may run elsewhere");
        let before = ownership.remember();
        ownership.set(Owner::There, "no guest has arrived");
        assert_eq!(ownership.restore(&before), Owner::Unknown);
        assert!(ownership.check("x").unwrap_err().message().contains("may run elsewhere"));
    }

    #[test]
    fn a_load_is_partial_between_its_first_device_and_its_end() {
        let ownership = Ownership::default();
        ownership.begin_load();
        assert!(!ownership.is_partial() && ownership.is_untouched());
        ownership.touch();
        assert!(ownership.is_partial() && !ownership.is_untouched());
        ownership.loaded();
        assert!(!ownership.is_partial() && !ownership.is_untouched());
        ownership.touch();
        ownership.begin_load();
        assert!(!ownership.is_partial());
    }
}
