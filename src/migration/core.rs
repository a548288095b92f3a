// SPDX-License-Identifier: LGPL-2.1-or-later
//! What both ends share: status, parameters, statistics, the connection, the error, the trace.

use super::ending::Ending;
use super::link::Link;
use super::params::{DeadlineAction, Params};
use super::progress::{Percent, Stall};
use super::stats::{DeviceOrder, DeviceTime, Info, Stats};
use super::status::{Status, StatusMachine};
use super::trace::{Event, Trace};
use super::watch_state::Watch;
use crate::channel::{Cancel, Role, Security};
use crate::error::{Error, Phase, Result, Side};
use crate::savevm::Vm;
use crate::savevm::fault::FaultPoint;
use crate::savevm::host::{Level, without_big_lock};
use crate::savevm::owner::{Owner, Remembered};
use crate::savevm::slot::{MigrationEvent, Observer, SectionTime};
use crate::savevm::unwind::catch;
use crate::sync::{Mutex, Rank};
use crate::wire;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Limit for the end of a cancelled migration.
const CANCEL_LIMIT: Duration = Duration::from_secs(1);

/// Texts for `Core::set_pause_error`.
pub(super) const PAUSED: &str = "postcopy is paused";
pub(super) const RECOVERY_FAILED: &str = "the recovery failed";

thread_local! {
    /// Addresses of the migrations that this thread works for, from the outermost call on.
    static WORKS_FOR: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// While it exists, this thread works for a migration. A callback on this thread can't wait for the end of that migration.
pub(super) struct Working;

impl Drop for Working {
    fn drop(&mut self) {
        WORKS_FOR.with_borrow_mut(|bases| bases.pop());
    }
}

/// Asks for a received bitmap and waits for it.
pub(super) type AskBitmap = Arc<dyn Fn(&[u8]) -> Result<()> + Send + Sync>;

/// See the module.
pub struct Core {
    pub(super) vm: Arc<Vm>,
    pub(super) status_machine: StatusMachine,
    pub(super) link: Link,
    /// Ends the waits for a connection.
    pub(super) cancel: Cancel,
    /// How all connections are protected.
    pub(super) security: Security,
    pub(super) stats: Arc<Stats>,
    pub(super) trace: Trace,
    /// How to ask for bitmaps, while a recovery is under way.
    pub(super) recovery: Mutex<Option<AskBitmap>>,
    phase: Mutex<Option<(Phase, Duration)>>,
    params: Mutex<Params>,
    error: Mutex<Option<Error>>,
    /// Why the migration is being cancelled, if the user did not ask for that.
    interruption: Mutex<Option<Error>>,
    pub(super) ending: Ending,
    pub(super) watch: Watch,
    pub(super) incoming: bool,
    /// The other end, for messages.
    peer: String,
    /// The address that the host knows this migration by.
    address: AtomicU64,
    began: Instant,
    /// When it began and (not 0) ended, by the host's clock.
    began_ns: u64,
    ended_ns: AtomicU64,
}

impl Core {
    /// `peer` names the other end for messages.
    pub fn new(vm: &Arc<Vm>, params: Params, incoming: bool, peer: String) -> Result<Self> {
        let began = Instant::now();
        let role = if incoming { Role::Destination } else { Role::Source };
        let security = Security::new(params.tls.as_deref(), role)?;
        let trace = match &params.trace {
            Some(path) => Trace::create(path)?,
            None => Trace::default(),
        };
        Ok(Self {
            vm: Arc::clone(vm),
            status_machine: StatusMachine::default(),
            link: Link::default(),
            cancel: Cancel::new()?,
            security,
            stats: Arc::default(),
            trace,
            recovery: Mutex::new(Rank::BitmapRequest, None),
            phase: Mutex::new(Rank::MigrationPhase, None),
            params: Mutex::new(Rank::MigrationParams, params),
            error: Mutex::new(Rank::MigrationError, None),
            interruption: Mutex::new(Rank::MigrationError, None),
            ending: Ending::default(),
            watch: Watch::default(),
            incoming,
            peer,
            address: AtomicU64::new(0),
            began,
            began_ns: vm.host().clock_ns().unwrap_or(0),
            ended_ns: AtomicU64::new(0),
        })
    }

    /// Sets the address by which the host knows this migration.
    pub fn set_address(&self, address: usize) {
        self.address.store(address as u64, Relaxed);
    }

    pub fn address(&self) -> usize {
        self.address.load(Relaxed) as usize
    }

    /// A step of the driver at which tests can make the library panic.
    pub fn fault_point(&self) {
        self.vm.fault_point(FaultPoint::Driver);
    }

    /// Returns the time since the migration began.
    pub fn now(&self) -> Duration {
        match self.vm.host().clock_ns() {
            Some(ns) => Duration::from_nanos(ns.saturating_sub(self.began_ns)),
            None => self.began.elapsed(),
        }
    }

    pub fn params(&self) -> Params {
        self.params.lock().clone()
    }

    /// Returns the deadline, if there is one, and what happens then.
    pub(super) fn deadline(&self) -> Option<(Duration, DeadlineAction)> {
        let params = self.params.lock();
        params.deadline.map(|deadline| (deadline, params.deadline_action))
    }

    /// Changes the parameters that may change while the migration runs.
    pub fn change_params(&self, new: &Params) {
        self.params.lock().change(new);
        self.status_machine.notify();
    }

    pub fn status(&self) -> Status {
        self.status_machine.status()
    }

    /// Changes the status and reports it to the host. Returns false if the change is not allowed.
    pub fn advance(&self, to: Status) -> bool {
        if to.is_final() {
            let end = u64::try_from(self.now().as_nanos()).unwrap_or(u64::MAX).max(1);
            let _ = self.ended_ns.compare_exchange(0, end, Relaxed, Relaxed);
        }
        self.status_machine.advance(to, &|status| {
            let _working = self.working();
            // Threads that wait for the end also wait for this report, so a panic in it must not escape.
            let _ = catch(&self.vm, || self.report_status(status));
        })
    }

    fn report_status(&self, status: Status) {
        let number = status as i32;
        let (what, peer) = match self.incoming {
            true => ("incoming migration from", &self.peer),
            false => ("outgoing migration to", &self.peer),
        };
        log::info!("{what} {peer}: {status}");
        self.trace.write(self.now(), &Event::Status { status: status.name() });
        self.vm.host().migration_event(&MigrationEvent {
            incoming: self.incoming,
            status: status.name(),
            number,
            migration: self.address(),
            error: match status {
                Status::PostcopyPaused => self.stats.get().pause_error.clone(),
                Status::Failed | Status::Cancelled => self.error(),
                _ => None,
            },
        });
    }

    /// A postcopy is about to pause because of `error`, or its recovery failed (`what`). Reported, and kept for queries.
    pub fn set_pause_error(&self, what: &str, error: &Error) {
        self.vm.host().report(Level::Warning, &format!("{what}: {error}"));
        self.trace.write(self.now(), &Event::Error { text: &error.to_string() });
        self.stats.get().pause_error = Some(error.clone());
    }

    /// A recovery failed before the status changed for it: the host hears of it all the same.
    pub fn report_failed_recovery(&self, error: &Error) {
        self.set_pause_error(RECOVERY_FAILED, error);
        if self.status() == Status::PostcopyPaused {
            let _working = self.working();
            let _ = catch(&self.vm, || self.report_status(Status::PostcopyPaused));
        }
    }

    /// Begins another phase in the trace and the statistics; `None` ends the last one.
    pub fn phase(&self, next: Option<Phase>) {
        let now = self.now();
        let before = {
            let mut phase = self.phase.lock();
            if phase.as_ref().map(|(name, _)| *name) == next {
                return;
            }
            std::mem::replace(&mut *phase, next.map(|name| (name, now)))
        };
        if let Some((name, since)) = before {
            self.stats.phase(name, now.saturating_sub(since));
            self.trace.write(now, &Event::Phase { phase: name, end: true });
        }
        if let Some(name) = next {
            self.trace.write(now, &Event::Phase { phase: name, end: false });
        }
    }

    /// Changes the status, or returns why that is not possible any more.
    pub fn enter(&self, to: Status) -> Result<()> {
        if self.advance(to) {
            return Ok(());
        }
        Err(self.interrupted().unwrap_or_else(|| {
            let text = format!("the migration can't go from {} to {to}", self.status());
            Error::new(libc::EIO, text)
        }))
    }

    /// Fails if the further connections failed, or if pages arrived that the main connection did not wait for.
    pub(super) fn check_further_settled(&self) -> Result<()> {
        self.check_further()?;
        self.vm.slot.connections().and_then(|connections| connections.unsettled_error()).map_or(Ok(()), Err)
    }

    /// Fails with the first error of a further connection. If there is none, later ones are ignored.
    pub(super) fn settle_further(&self) -> Result<()> {
        self.vm.slot.connections().map_or(Ok(()), |connections| connections.settle())
    }

    /// Fails with the first error of a further connection.
    pub(super) fn check_further(&self) -> Result<()> {
        self.vm.slot.connections().and_then(|connections| connections.error()).map_or(Ok(()), Err)
    }

    /// Returns the error of a migration that is being cancelled.
    pub fn interrupted(&self) -> Option<Error> {
        let wanted = matches!(self.status(), Status::Cancelling | Status::Cancelled);
        let reason = || self.interruption.lock().clone();
        wanted.then(|| reason().unwrap_or_else(|| Error::new(libc::ECANCELED, "the migration was cancelled")))
    }

    /// Sets why the migration is about to be cancelled.
    pub(super) fn set_interruption(&self, reason: Error) {
        self.interruption.lock().get_or_insert(reason);
    }

    /// Source: keeps the load times that the destination reports. Devices that are not registered here are ignored.
    pub fn note_load_times<'a>(&self, times: impl Iterator<Item = (&'a [u8], u32, Duration)>) {
        let known: Vec<_> =
            times.filter(|(name, instance, _)| self.vm.registry.find(name, *instance).is_some()).collect();
        for (name, instance, time) in &known {
            self.vm.slot.device_costs.set_loaded(name, *instance, *time);
        }
        self.stats.set_load_times(&known);
    }

    /// Adds how the peer's process ended to the error of a connection that broke, if that can be known. Before the connection
    /// is closed here.
    pub fn name_peer(&self, error: Error) -> Error {
        let broke = error.code() == -libc::EIO && self.interrupted().is_none() && !self.link.is_closed_here();
        match broke.then(|| self.link.peer_end()).flatten() {
            Some(end) if !error.message().contains(&end) => {
                let side = if self.incoming { "source" } else { "destination" };
                let text = format!("{} (the {side}: {end})", error.message());
                error.with_more(text)
            }
            _ => error,
        }
    }

    /// Breaks the connection of a running postcopy.
    pub fn pause(&self) -> Result<()> {
        match self.status() {
            Status::PostcopyActive => {
                self.link.drop_channel();
                Ok(())
            }
            status => Err(Error::invalid(format!("only a running postcopy can be paused, this is {status}"))),
        }
    }

    /// Returns an error unless this is a paused postcopy that is not `over`.
    pub fn check_paused(&self, over: bool) -> Result<()> {
        match self.status() {
            Status::PostcopyPaused if !over => Ok(()),
            status => Err(Error::invalid(format!("only a paused postcopy can be recovered, this is {status}"))),
        }
    }

    /// Stores `offered` for the thread that waits in a paused postcopy that is not `over`; drops an earlier offer.
    pub fn offer<T>(&self, place: &Mutex<Option<T>>, offered: T, over: &AtomicBool) -> Result<()> {
        let before = {
            // Inside of it, so that the end does not miss it.
            let mut place = place.lock();
            self.check_paused(over.load(SeqCst))?;
            place.replace(offered)
        };
        drop(before);
        self.status_machine.notify();
        Ok(())
    }

    /// Passes the point of no return. An error if the migration is being cancelled, or if the context is poisoned.
    pub fn commit(&self) -> Result<()> {
        self.vm.check_not_poisoned()?;
        if !self.status_machine.commit() {
            return Err(self.interrupted().unwrap_or_else(|| Error::new(libc::EIO, "the migration is over")));
        }
        if !self.incoming {
            self.set_owner(Owner::Unknown);
        }
        Ok(())
    }

    /// Source: takes `commit` back, because the destination can't start the guest.
    pub fn uncommit(&self) {
        self.status_machine.uncommit();
        self.set_owner(Owner::Here);
    }

    /// Keeps the first error and reports it, unless it is that of a requested cancellation.
    pub fn set_error(&self, error: Error) {
        let side = if self.incoming { Side::Destination } else { Side::Source };
        let error = error.at_side(side);
        self.trace.write(self.now(), &Event::Error { text: &error.to_string() });
        let wished = error.errno() == libc::ECANCELED && self.interrupted().is_some();
        let error = if wished {
            log::info!("{error}");
            error
        } else {
            self.vm.report(error)
        };
        self.error.lock().get_or_insert(error);
    }

    pub fn error(&self) -> Option<Error> {
        self.error.lock().clone()
    }

    /// Sets the owner of the context, and of this migration's statistics.
    pub fn set_owner(&self, owner: Owner) {
        let peer = &self.peer;
        let reason = match (owner, self.incoming) {
            (Owner::Here, _) => String::new(),
            (Owner::There, false) => format!("the guest moved to {peer}"),
            (Owner::There, true) => format!("no guest has arrived from {peer}"),
            (Owner::Unknown, _) => format!("the guest may run at {peer}, which was about to start it"),
            (Owner::Torn, _) => format!("loading from {peer} failed after it had changed devices or memory"),
        };
        self.vm.ownership.set(owner, reason);
        self.stats.get().owner = owner;
    }

    /// Sets the owner that the context had before.
    pub fn restore_owner(&self, before: &Remembered) {
        self.stats.get().owner = self.vm.ownership.restore(before);
    }

    /// Returns the statistics.
    pub fn info(&self) -> Info {
        let time = match self.ended_ns.load(Relaxed) {
            0 => self.now(),
            end => Duration::from_nanos(end),
        };
        let arrived = self.vm.slot.ram().filter(|_| self.incoming).and_then(|ram| ram.arrived());
        let mut info = self.stats.get();
        if let Some((pages, all)) = arrived {
            info.percent = info.percent.max(Percent::of(pages, all));
        }
        // A query during the end may have returned slightly more.
        info.total_time = info.total_time.max(time);
        info.transferred = info.transferred.max(self.stats.received());
        let status = self.status();
        if status == Status::Completed {
            info.percent = 100;
        }
        if status.is_final() {
            (info.expected_total, info.stall) = (Some(info.total_time), Stall::default());
        }
        // The worker may have been waiting since it made the estimate.
        info.expected_total = info.expected_total.map(|expected| expected.max(info.total_time));
        Info { status, ..info.clone() }
    }

    /// Marks this thread as working for the migration.
    pub(super) fn working(&self) -> Working {
        WORKS_FOR.with_borrow_mut(|bases| bases.push(std::ptr::from_ref(self).addr()));
        Working
    }

    /// Returns whether this thread is in a callback of the migration.
    pub fn is_called_back(&self) -> bool {
        WORKS_FOR.with_borrow(|bases| bases.contains(&std::ptr::from_ref(self).addr()))
    }

    /// Begins to cancel. Returns whether the caller has to wait for the end. `EBUSY` if it is too late.
    /// `before_close` runs after the migration can't succeed any more and before the connection is closed.
    pub fn begin_cancel(&self, too_late: &str, before_close: impl FnOnce()) -> Result<bool> {
        if !self.advance(Status::Cancelling) && self.status() != Status::Cancelling {
            // After the end, success means the same: the guest is where a cancelled migration leaves it.
            let owner = self.stats.get().owner;
            return match self.status().is_final() && (owner == Owner::Here) != self.incoming {
                true => Ok(false),
                false => Err(Error::new(libc::EBUSY, format!("it is too late: {too_late}"))),
            };
        }
        self.vm.slot.set_ending();
        self.cancel.cancel();
        before_close();
        self.link.close();
        self.status_machine.notify();
        Ok(true)
    }

    /// Waits until a cancelled migration has released everything. In a callback of the migration it does not wait, because
    /// the end comes after the callback returns.
    pub fn wait_cancelled(&self) -> Result<()> {
        if self.is_called_back() {
            return Err(Error::new(libc::EINPROGRESS, "the migration ends when this callback has returned"));
        }
        match self.wait(Some(CANCEL_LIMIT)) {
            Some(_) => Ok(()),
            None => Err(Error::new(libc::ETIMEDOUT, "cancelling: a callback of a device or of the host takes long")),
        }
    }

    /// Waits for the end and returns the migration's error. The big lock is released while this thread waits.
    fn wait(&self, limit: Option<Duration>) -> Option<Result<()>> {
        let status = match self.is_called_back() {
            // The end is reported after the callback that reports it has returned, so there is nothing to wait for.
            true if self.status().is_final() => self.status(),
            true => {
                let text = "a callback of the migration can't wait for its end";
                return Some(Err(Error::new(libc::EDEADLK, text)));
            }
            false => {
                let host = self.vm.host();
                without_big_lock(&*host, || self.status_machine.wait_final(limit))?
            }
        };
        Some(match status {
            Status::Completed | Status::Colo => Ok(()),
            _ => Err(self.error().unwrap_or_else(|| Error::new(libc::EIO, format!("the migration is {status}")))),
        })
    }

    /// Waits until `look` returns a result, at most for `limit`. Fails if the migration is cancelled.
    pub fn wait_for<T>(&self, what: &str, limit: Duration, look: impl Fn() -> Option<Result<T>>) -> Result<T> {
        self.watch.asking(|| self.wait_until(what, limit, look))
    }

    fn wait_until<T>(&self, what: &str, limit: Duration, look: impl Fn() -> Option<Result<T>>) -> Result<T> {
        let since = Instant::now();
        loop {
            let generation = self.status_machine.generation();
            if let Some(found) = look() {
                return found;
            }
            if let Some(error) = self.interrupted() {
                return Err(error);
            }
            let Some(left) = limit.checked_sub(since.elapsed()).filter(|left| !left.is_zero()) else {
                return Err(Error::new(libc::ETIMEDOUT, format!("{what}: not within {limit:?}")));
            };
            self.status_machine.wait_changed(generation, left);
        }
    }

    /// Waits until `done`, whatever the status is. False after `limit`.
    pub fn wait_quietly(&self, limit: Duration, done: impl Fn() -> bool) -> bool {
        const POLL: Duration = Duration::from_millis(50);
        let since = Instant::now();
        loop {
            let generation = self.status_machine.generation();
            if done() {
                return true;
            }
            let Some(left) = limit.checked_sub(since.elapsed()).filter(|left| !left.is_zero()) else { return false };
            self.status_machine.wait_changed(generation, left.min(POLL));
        }
    }

    /// Returns an observer of sections that feeds the statistics and the trace.
    pub fn watcher(self: &Arc<Self>) -> Arc<dyn Observer> {
        Arc::new(Watcher { core: Arc::downgrade(self) })
    }
}

/// What both ends offer their user.
pub trait Migration {
    /// The part that both ends share.
    #[doc(hidden)]
    fn core(&self) -> &Core;

    /// The machine.
    fn vm(&self) -> &Arc<Vm> {
        &self.core().vm
    }

    /// Waits for the end and returns the migration's error. The big lock is released meanwhile.
    fn wait(&self) -> Result<()> {
        self.core().wait(None).unwrap_or(Ok(()))
    }

    /// As `wait`, but no longer than `limit`.
    fn wait_within(&self, limit: Duration) -> Option<Result<()>> {
        self.core().wait(Some(limit))
    }

    /// Returns the statistics.
    fn info(&self) -> Info {
        self.core().info()
    }

    /// What was measured of the device at that place of an order, among those that are saved whole.
    fn device(&self, order: DeviceOrder, index: usize) -> Option<DeviceTime> {
        self.core().stats.device_by(order, index)
    }

    /// The first error, once there is one.
    fn error(&self) -> Option<Error> {
        self.core().error()
    }
}

struct Watcher {
    core: std::sync::Weak<Core>,
}

impl Observer for Watcher {
    fn section(&self, section: &SectionTime<'_>) {
        let Some(core) = self.core.upgrade() else { return };
        let name = String::from_utf8_lossy(section.name);
        if section.tag == wire::SECTION_FULL {
            core.stats.device(&name, section.instance, section.time, section.bytes);
            let costs = &core.vm.slot.device_costs;
            match core.incoming {
                true => costs.set_loaded_here(section.name, section.instance, section.bytes, section.time),
                false => costs.set_saved(section.name, section.instance, section.bytes, section.time),
            }
        }
        let (instance, tag, bytes, time) = (section.instance, section.tag, section.bytes, section.time);
        core.trace.write(core.now(), &Event::Device { name: &name, instance, tag, bytes, time });
    }
}
