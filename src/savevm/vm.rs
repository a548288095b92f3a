// SPDX-License-Identifier: LGPL-2.1-or-later
//! A context: one virtual machine with its devices, its host and its limits.

use super::fault::FaultPoint;
use super::global_state::GlobalState;
use super::handler::Handler;
use super::host::{Flags, Host, Level, NoHost, without_big_lock};
use super::incoming::Incoming;
use super::load_state::LoadState;
use super::load_threads::LoadThreads;
use super::owner::{Owner, Ownership};
use super::profile::Profile;
use super::registry::{Entry, Registrant, Registration, Registry, Rules};
use super::slot::MigrationSlot;
use crate::error::{Error, Phase, Result};
use crate::file::MigFile;
use crate::sync::{Mutex, Rank, RwLock};
use crate::vmstate::Recorder;
use crate::wire::limits::Limits;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

/// One virtual machine: its devices, its host and its limits. Any thread may use it.
pub struct Vm {
    /// The devices.
    pub registry: Registry,
    /// The place of the migration or snapshot in progress, and what the driver keeps between migrations.
    pub slot: MigrationSlot,
    /// Which side has the guest.
    pub ownership: Ownership,
    /// The guest's run state in streams.
    pub global_state: GlobalState,
    host: RwLock<Arc<dyn Host>>,
    incoming: RwLock<Option<Arc<dyn Incoming>>>,
    limits: Mutex<Limits>,
    strict: AtomicBool,
    poisoned: AtomicBool,
    flags: AtomicU32,
    load_state: LoadState,
    profile: AtomicU64,
    layout: AtomicUsize,
    description: Mutex<Option<Recorder>>,
    load_threads: Arc<LoadThreads>,
    thread_hook: OnceLock<ThreadHook>,
    /// The fault that a test has armed.
    #[cfg(test)]
    pub faults: super::fault::Faults,
}

/// Runs its second argument while the context is the current one of the thread. QEMU's functions, which have no context
/// argument, act on the current context.
pub type ThreadHook = fn(&Arc<Vm>, &mut dyn FnMut());

/// Owns the migration slot of a context. Dropping it releases the slot.
pub struct MigrationGuard<'a>(&'a Vm);

impl Drop for MigrationGuard<'_> {
    fn drop(&mut self) {
        self.0.slot.release();
    }
}

impl Default for Vm {
    fn default() -> Self {
        Self::new(Arc::new(NoHost))
    }
}

impl Vm {
    /// Creates a context without devices.
    pub fn new(host: Arc<dyn Host>) -> Self {
        Self {
            registry: Registry::default(),
            slot: MigrationSlot::default(),
            ownership: Ownership::default(),
            global_state: GlobalState::default(),
            host: RwLock::new(Rank::VmHost, host),
            incoming: RwLock::new(Rank::VmIncoming, None),
            limits: Mutex::new(Rank::VmLimits, Limits::default()),
            strict: AtomicBool::new(false),
            poisoned: AtomicBool::new(false),
            flags: AtomicU32::new(0),
            load_state: LoadState::default(),
            profile: AtomicU64::new(0),
            layout: AtomicUsize::new(0),
            description: Mutex::new(Rank::VmDescription, None),
            load_threads: Arc::default(),
            thread_hook: OnceLock::new(),
            #[cfg(test)]
            faults: super::fault::Faults::default(),
        }
    }

    /// Returns the host.
    pub fn host(&self) -> Arc<dyn Host> {
        Arc::clone(&self.host.read())
    }

    /// Replaces the host.
    pub fn set_host(&self, host: Arc<dyn Host>) {
        *self.host.write() = host;
    }

    /// Returns the handler of the commands of an incoming stream.
    pub fn incoming(&self) -> Option<Arc<dyn Incoming>> {
        self.incoming.read().clone()
    }

    /// Sets the handler of the commands of an incoming stream.
    pub fn set_incoming(&self, incoming: Option<Arc<dyn Incoming>>) {
        *self.incoming.write() = incoming;
    }

    /// Returns the limits for incoming streams.
    pub fn limits(&self) -> Limits {
        *self.limits.lock()
    }

    /// Sets the limits for incoming streams.
    pub fn set_limits(&self, limits: Limits) {
        *self.limits.lock() = limits;
    }

    /// Returns whether doubtful registrations and incomplete streams are errors.
    pub fn is_strict(&self) -> bool {
        self.strict.load(Relaxed)
    }

    /// Sets whether doubtful registrations and incomplete streams are errors.
    pub fn set_strict(&self, strict: bool) {
        self.strict.store(strict, Relaxed);
    }

    /// Returns the semantics of the context.
    #[inline]
    pub fn profile(&self) -> Profile {
        Profile(self.profile.load(Relaxed))
    }

    /// Returns what `set_layout` was given, or 0.
    #[inline]
    pub fn layout(&self) -> usize {
        self.layout.load(Relaxed)
    }

    /// Sets the semantics of the context, and the layout of the tables that are registered without one of their own.
    /// The engine does not use the layout: it is the address of a constant of the C interface, or 0.
    pub fn set_layout(&self, profile: Profile, layout: usize) {
        self.profile.store(profile.0, Relaxed);
        self.layout.store(layout, Relaxed);
    }

    /// Returns the description of the stream that was begun by `header` or `setup`, if one was. It is then the caller's.
    pub(super) fn take_description(&self) -> Option<Recorder> {
        self.description.lock().take()
    }

    /// Keeps a description of the stream for a later phase, or drops the one that was kept.
    pub(super) fn keep_description(&self, recorder: Option<Recorder>) {
        *self.description.lock() = recorder;
    }

    /// Returns the threads that devices have started for a load.
    pub fn load_threads(&self) -> &Arc<LoadThreads> {
        &self.load_threads
    }

    /// Marks the context as unusable after an internal error and reports the error. From now on everything that starts
    /// an operation fails with `EIO`; operations in progress end with an error.
    pub fn poison(&self, what: &str) -> Error {
        self.poisoned.store(true, SeqCst);
        let error = Error::new(libc::EIO, format!("internal error, the context cannot be used any more: {what}"));
        // This runs while a panic is handled: a second one in the report must not escape.
        catch_unwind(AssertUnwindSafe(|| self.report(error.clone()))).unwrap_or(error)
    }

    /// Returns whether an internal error made the context unusable.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.load(SeqCst)
    }

    /// Fails with `EIO` if an internal error made the context unusable.
    pub fn check_not_poisoned(&self) -> Result<()> {
        match self.is_poisoned() {
            false => Ok(()),
            true => Err(Error::new(libc::EIO, "the context cannot be used after an internal error")),
        }
    }

    /// Sets the owner of the guest by an operator's decision. `EBUSY` while a migration or a snapshot is in progress.
    pub fn override_owner(&self, owner: Owner) -> Result<()> {
        self.slot.acquire("an operator's decision")?;
        let before = self.ownership.owner();
        self.ownership.set(owner, "an operator decided so");
        self.ownership.clear_without_disks();
        self.slot.release();
        let text = format!("an operator set the owner of the guest from {before:?} to {owner:?}");
        self.host().report(Level::Warning, &text);
        Ok(())
    }

    /// Acquires the migration slot for the operation `what`. `EBUSY` while another operation has it.
    pub fn acquire_slot(&self, what: &'static str) -> Result<MigrationGuard<'_>> {
        self.check_not_poisoned()?;
        self.slot.acquire(what)?;
        Ok(MigrationGuard(self))
    }

    /// As `acquire_slot`, for an operation that replaces a lazy restore in progress.
    pub fn acquire_slot_from_restore(&self, what: &'static str) -> Result<MigrationGuard<'_>> {
        self.check_not_poisoned()?;
        self.slot.acquire_from_restore(what)?;
        Ok(MigrationGuard(self))
    }

    /// Marks a step at which tests provoke a panic. Does nothing outside of tests.
    #[inline]
    pub fn fault_point(&self, _point: FaultPoint) {
        #[cfg(test)]
        self.faults.pass(_point);
    }

    /// Returns the flags of the host and of the driver.
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

    /// Returns what the load loop keeps between sections.
    pub fn load_state(&self) -> &LoadState {
        &self.load_state
    }

    /// Sets the function that makes this the current context of a thread. Only the first call has an effect.
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

    /// Reports an error to the host, unless it was reported before. Returns the error.
    pub fn report(&self, error: Error) -> Error {
        if !error.is_reported() {
            self.host().report(Level::Error, &error.to_string());
        }
        error.reported()
    }

    /// As `report`, unless the caller of the operation in progress gets the error.
    pub fn report_unless_returned(&self, error: Error) -> Error {
        if self.slot.returns_errors() {
            log::debug!("the caller gets the error: {error}");
            return error;
        }
        self.report(error)
    }

    /// Reports an error of a stream, unless the caller gets it, and latches it on the file. An error while the stream or the
    /// snapshot is being cancelled is expected and only logged.
    pub fn report_on(&self, file: &MigFile, error: Error) -> Error {
        let error = if self.slot.is_ending() || self.slot.saving.check().is_err() {
            log::debug!("error after a cancel: {error}");
            error
        } else {
            self.report_unless_returned(error)
        };
        file.set_error_detail(error.clone());
        error
    }

    /// Registers a device.
    pub fn register<H: Handler + 'static>(&self, new: Registration<H>) -> Result<()> {
        self.check_not_poisoned().map_err(|err| self.report(err.in_phase(Phase::Register)))?;
        self.fault_point(FaultPoint::Register);
        if let Some((name, ours)) = self.global_state.make_way(&new.name, new.registrant) {
            self.unregister_name(None, name, ours.opaque);
        }
        let rules = Rules { strict: self.is_strict(), unique: self.profile().has(Profile::REFUSE_DUPLICATES) };
        let mut warnings = Vec::new();
        let result = self.registry.register(new, rules, &mut warnings);
        for text in warnings {
            self.host().report(Level::Warning, &text);
        }
        result.map_err(|err| self.report(err.in_phase(Phase::Register)))
    }

    /// The driver is about to begin a migration or a snapshot: registers the section with the run state, unless the program
    /// has one of that name or a driver of its own.
    pub fn prepare_global_state(&self) -> Result<()> {
        if self.incoming().is_some() {
            return Ok(());
        }
        self.global_state.register(|name| self.registry.find(name, 0).is_some(), |section| self.register(section))
    }

    /// The driver begins a migration or a snapshot, and has the slot.
    pub fn begin_global_state(&self) {
        self.global_state.begin(self.flags().has(Flags::GLOBAL_STATE));
    }

    /// Whether a section of this kind would be read, although no device is registered for it yet.
    pub fn would_read_global_state(&self, name: &[u8], instance: u32, version: u32) -> bool {
        self.incoming().is_none() && self.global_state.would_read(name, instance, version)
    }

    /// Removes devices by name and opaque pointer. Waits until no other thread runs a callback of them, and releases
    /// the big lock meanwhile. No callback of them starts afterwards.
    pub fn unregister_name(&self, path: Option<&[u8]>, name: &[u8], opaque: usize) {
        let removed = self.registry.unregister_name(path, name, opaque);
        self.drain(&removed);
    }

    /// Removes devices by description and opaque pointer. Waits as `unregister_name` does.
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

    /// Fails if the context is unusable or a device forbids migration. The error names the first such device.
    pub fn check_migratable(&self) -> Result<()> {
        self.check_not_poisoned()?;
        match self.non_migratable().into_iter().next() {
            Some(name) => Err(Error::invalid(format!("State blocked by non-migratable device '{name}'"))),
            None => Ok(()),
        }
    }

    /// Returns the names of all devices that forbid migration, in order.
    pub fn non_migratable(&self) -> Vec<String> {
        self.registry.walk().filter(|call| call.handler.is_unmigratable()).map(|call| call.name()).collect()
    }

    /// Returns whether the guest has not yet unplugged a failover device.
    pub fn guest_unplug_pending(&self) -> bool {
        self.registry.walk().any(|call| call.handler.unplug_pending())
    }
}
