// SPDX-License-Identifier: LGPL-2.1-or-later
//! A context: one virtual machine with its devices, its host and its limits.

use super::fault::FaultPoint;
use super::handler::Handler;
use super::host::{Flags, Host, Level, NoHost, without_big_lock};
use super::incoming::Incoming;
use super::load_state::LoadState;
use super::owner::{Owner, Ownership};
use super::registry::{Entry, Registrant, Registration, Registry};
use super::slot::Slot;
use crate::error::{Error, Phase, Result};
use crate::file::MigFile;
use crate::sync::{Mutex, Rank, RwLock};
use crate::wire::limits::Limits;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

/// One virtual machine: its devices, its host, its limits.
pub struct Vm {
    /// The devices.
    pub registry: Registry,
    /// What the driver keeps here.
    pub slot: Slot,
    /// Which side has the guest.
    pub ownership: Ownership,
    host: RwLock<Arc<dyn Host>>,
    incoming: RwLock<Option<Arc<dyn Incoming>>>,
    limits: Mutex<Limits>,
    strict: AtomicBool,
    broken: AtomicBool,
    flags: AtomicU32,
    load_state: LoadState,
    thread_hook: OnceLock<ThreadHook>,
    /// The panic that a test wants.
    #[cfg(test)]
    pub faults: super::fault::Faults,
}

/// Runs a body with a context as the current one of the thread: QEMU's functions, which name none, act on it.
pub type ThreadHook = fn(&Arc<Vm>, &mut dyn FnMut());

/// The one driver of a machine, until this goes.
pub struct Driving<'a>(&'a Vm);

impl Drop for Driving<'_> {
    fn drop(&mut self) {
        self.0.slot.end();
    }
}

impl Default for Vm {
    fn default() -> Self {
        Self::new(Arc::new(NoHost))
    }
}

impl Vm {
    /// A machine without devices.
    pub fn new(host: Arc<dyn Host>) -> Self {
        Self {
            registry: Registry::default(),
            slot: Slot::default(),
            ownership: Ownership::default(),
            host: RwLock::new(Rank::VmHost, host),
            incoming: RwLock::new(Rank::VmIncoming, None),
            limits: Mutex::new(Rank::VmLimits, Limits::default()),
            strict: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            flags: AtomicU32::new(0),
            load_state: LoadState::default(),
            thread_hook: OnceLock::new(),
            #[cfg(test)]
            faults: super::fault::Faults::default(),
        }
    }

    /// The hypervisor.
    pub fn host(&self) -> Arc<dyn Host> {
        Arc::clone(&self.host.read())
    }

    /// Puts another hypervisor in place.
    pub fn set_host(&self, host: Arc<dyn Host>) {
        *self.host.write() = host;
    }

    /// Who answers the commands of an incoming stream.
    pub fn incoming(&self) -> Option<Arc<dyn Incoming>> {
        self.incoming.read().clone()
    }

    /// Says who answers the commands of an incoming stream.
    pub fn set_incoming(&self, incoming: Option<Arc<dyn Incoming>>) {
        *self.incoming.write() = incoming;
    }

    /// What streams may ask for.
    pub fn limits(&self) -> Limits {
        *self.limits.lock()
    }

    /// Changes what streams may ask for.
    pub fn set_limits(&self, limits: Limits) {
        *self.limits.lock() = limits;
    }

    /// Whether doubtful registrations are errors.
    pub fn set_strict(&self, strict: bool) {
        self.strict.store(strict, Relaxed);
    }

    /// Gives the machine up after a mistake of the library's own, and tells people: from now on it refuses whatever begins
    /// something. What was under way ends with an error.
    pub fn give_up(&self, what: &str) -> Error {
        self.broken.store(true, SeqCst);
        let error = Error::new(libc::EIO, format!("internal failure, this context is given up: {what}"));
        // There is nobody left to catch a second one.
        let told = catch_unwind(AssertUnwindSafe(|| self.report(error.clone())));
        told.unwrap_or(error)
    }

    /// Whether it was given up.
    pub fn is_broken(&self) -> bool {
        self.broken.load(SeqCst)
    }

    /// An error where it was given up.
    pub fn check_unbroken(&self) -> Result<()> {
        match self.is_broken() {
            false => Ok(()),
            true => Err(Error::new(libc::EIO, "this context was given up after an internal failure")),
        }
    }

    /// Sets the owner of the guest by an operator's decision. `EBUSY` while a migration or a snapshot is in progress.
    pub fn override_owner(&self, owner: Owner) -> Result<()> {
        self.slot.begin("an operator's decision")?;
        let before = self.ownership.owner();
        self.ownership.set(owner, "an operator decided so");
        self.slot.end();
        let text = format!("an operator set the owner of the guest from {before:?} to {owner:?}");
        self.host().report(Level::Warning, &text);
        Ok(())
    }

    /// Begins to drive the machine.
    pub fn drive(&self, what: &'static str) -> Result<Driving<'_>> {
        self.check_unbroken()?;
        self.slot.begin(what)?;
        Ok(Driving(self))
    }

    /// Marks a step at which tests provoke a panic. Does nothing outside of tests.
    #[inline]
    pub fn fault_point(&self, _point: FaultPoint) {
        #[cfg(test)]
        self.faults.pass(_point);
    }

    /// The host's flags and the driver's.
    pub fn flags(&self) -> Flags {
        Flags(self.flags.load(Relaxed) | self.host().flags().0)
    }

    /// Sets or clears flags of the driver.
    pub fn set_flags(&self, flags: Flags, on: bool) {
        if on {
            self.flags.fetch_or(flags.0, Relaxed);
        } else {
            self.flags.fetch_and(!flags.0, Relaxed);
        }
    }

    /// What the load loop keeps between sections.
    pub fn load_state(&self) -> &LoadState {
        &self.load_state
    }

    /// Sets how this becomes the current context of a thread. Only the first call has an effect.
    pub fn set_thread_hook(&self, hook: ThreadHook) {
        let _ = self.thread_hook.set(hook);
    }

    /// Runs `body` with this as the current context of the thread.
    pub fn on_thread<T>(self: &Arc<Self>, body: impl FnOnce() -> T) -> T {
        let Some(hook) = self.thread_hook.get() else { return body() };
        let (mut body, mut result) = (Some(body), None);
        hook(self, &mut || result = body.take().map(|body| body()));
        result.expect("a thread hook runs its argument")
    }

    /// Tells people of an error, once, and hands it on.
    pub fn report(&self, error: Error) -> Error {
        if !error.is_told() {
            self.host().report(Level::Error, &error.to_string());
        }
        error.told()
    }

    /// As `report`, for what went wrong with a file's stream, where it is latched: while somebody ends the stream, that is
    /// no news.
    pub fn report_on(&self, file: &MigFile, error: Error) -> Error {
        let error = if self.slot.is_ending() {
            log::debug!("after it was cancelled: {error}");
            error
        } else {
            self.report(error)
        };
        file.set_error_detail(error.clone());
        error
    }

    /// Adds a device.
    pub fn register<H: Handler + 'static>(&self, new: Registration<H>) -> Result<()> {
        self.check_unbroken().map_err(|err| self.report(err.in_phase(Phase::Register)))?;
        self.fault_point(FaultPoint::Register);
        let mut warnings = Vec::new();
        let result = self.registry.register(new, self.strict.load(Relaxed), &mut warnings);
        for text in warnings {
            self.host().report(Level::Warning, &text);
        }
        result.map_err(|err| self.report(err.in_phase(Phase::Register)))
    }

    /// Removes devices by name and opaque pointer. When it returns, no callback of theirs runs in another thread and
    /// none will start; while it waits for one it gives the big lock up.
    pub fn unregister_name(&self, path: Option<&[u8]>, name: &[u8], opaque: usize) {
        let removed = self.registry.unregister_name(path, name, opaque);
        self.drain(&removed);
    }

    /// Removes devices by description and opaque pointer; waits as `unregister_name` does.
    pub fn unregister(&self, registrant: Registrant) {
        let removed = self.registry.unregister(registrant);
        self.drain(&removed);
    }

    fn drain(&self, removed: &[Arc<Entry>]) {
        if !self.registry.is_busy(removed) {
            return;
        }
        without_big_lock(&*self.host(), || self.registry.drain(removed));
    }

    /// That the machine was given up, or the first device that forbids migration, as an error.
    pub fn check_migratable(&self) -> Result<()> {
        self.check_unbroken()?;
        match self.non_migratable().into_iter().next() {
            Some(name) => Err(Error::invalid(format!("State blocked by non-migratable device '{name}'"))),
            None => Ok(()),
        }
    }

    /// Names of all devices that forbid migration, in order.
    pub fn non_migratable(&self) -> Vec<String> {
        self.registry.walk().filter(|call| call.handler.is_unmigratable()).map(|call| call.name()).collect()
    }

    /// Whether a guest has yet to let a device go.
    pub fn guest_unplug_pending(&self) -> bool {
        self.registry.walk().any(|call| call.handler.unplug_pending())
    }
}
