// SPDX-License-Identifier: LGPL-2.1-or-later
//! The user's handle of an outgoing migration. Any thread can begin, query, control and end the migration. The `Source` does the
//! work, on a separate thread or in the steps that the host calls.

use super::shared::Shared;
use super::worker::{Next, Source};
use crate::channel::Cancel;
use crate::error::{Error, Result};
use crate::migration::core::{Core, Migration};
use crate::migration::deadline::check_params;
use crate::migration::endpoint::{CONNECT_TIMEOUT, Endpoint};
use crate::migration::further;
use crate::migration::params::Params;
use crate::migration::status::Status;
use crate::migration::trace::Event;
use crate::savevm::Vm;
use crate::savevm::host::without_big_lock;
use crate::savevm::unwind::{catch, retry};
use crate::sync::{Mutex, Rank};
use crate::sys::spawn_prompt;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// Limit for the report of a cancel to the destination.
const FAREWELL_LIMIT: Duration = Duration::from_millis(300);
/// How long a step sleeps at most, so that nothing that was missed is missed for long.
const NAP_MAX: Duration = Duration::from_millis(200);

/// See the module. Dropping the last reference does not end the migration: see `end`.
pub struct Outgoing {
    shared: Arc<Shared>,
    /// The worker, between two steps.
    work: Mutex<Option<Box<Source>>>,
    /// Whether the migration has a thread of its own; else the host calls `step`.
    own_thread: bool,
}

impl Migration for Outgoing {
    fn core(&self) -> &Core {
        &self.shared.core
    }
}

impl Outgoing {
    /// Begins to migrate. Errors here are those of the moment: a blocker, another migration, a bad parameter; the
    /// connection comes later. `own_thread` selects the thread that does the work.
    pub fn start(vm: &Arc<Vm>, to: Endpoint, params: Params) -> Result<Arc<Self>> {
        vm.check_migratable()?;
        check_params(&params, params.postcopy)?;
        further::check(vm, &params, to.uri())?;
        let own_thread = params.own_thread;
        let core = Arc::new(Core::new(vm, params, false, to.text())?);
        vm.prepare_global_state()?;
        vm.slot.acquire("an outgoing migration")?;
        vm.ownership.check("a migration").inspect_err(|_| vm.slot.release())?;
        vm.slot.check_blockers("migration").inspect_err(|_| vm.slot.release())?;
        vm.begin_global_state();
        if core.params().share_memory {
            vm.slot.share_memory();
        }
        core.trace.write(core.now(), &Event::Trace { side: "source", uri: &to.text() });
        let shared = Arc::new(Shared::new(core));
        let work = Mutex::new(Rank::OutgoingWork, Some(Box::new(Source::new(to))));
        let this = Arc::new(Self { shared, work, own_thread });
        this.shared.core.set_address(Arc::as_ptr(&this) as usize);
        vm.slot.set_observer(Some(this.shared.core.watcher()));
        this.shared.core.advance(Status::Setup);
        if let Err(error) = this.shared.core.start_watch() {
            this.shared.core.set_error(error.clone());
            this.shared.core.advance(Status::Failed);
            this.shared.release_slot();
            return Err(error);
        }
        if own_thread {
            this.start_thread()?;
        }
        Ok(this)
    }

    fn start_thread(self: &Arc<Self>) -> Result<()> {
        let this = Arc::clone(self);
        let body = move || while !matches!(this.run_step(), Ok(false) | Err(_)) {};
        if let Err(err) = spawn_prompt("savevm-source", body) {
            let error = Error::io("starting the migration's thread", &err);
            self.shared.core.set_error(error.clone());
            self.shared.core.advance(Status::Failed);
            self.shared.release_slot();
            return Err(error);
        }
        Ok(())
    }

    /// Does one step of a migration without a thread of its own: connects, sends a round, or hands the guest over.
    ///
    /// It waits as long as the step takes, at most as long as the deadlines allow, and releases the big lock meanwhile.
    /// Returns false when the migration is over. `EBUSY` if another thread does the work.
    pub fn step(&self) -> Result<bool> {
        match self.own_thread && !self.core().status().is_final() {
            true => Err(Error::new(libc::EBUSY, "the migration has a thread of its own that does the work")),
            false => self.run_step(),
        }
    }

    fn run_step(&self) -> Result<bool> {
        let Some(mut work) = self.work.lock().take() else {
            return match self.shared.core.status().is_final() {
                true => Ok(false),
                false => Err(Error::new(libc::EBUSY, "another thread does the work of this migration")),
            };
        };
        let (vm, host) = (Arc::clone(&self.shared.core.vm), self.shared.core.vm.host());
        let mut next = Next::Done;
        without_big_lock(&*host, || {
            let generation = self.shared.core.status_machine.generation();
            vm.on_thread(|| {
                let _working = self.shared.core.working();
                next = catch(&vm, || work.step(&self.shared)).unwrap_or_else(|error| self.abort(&mut work, &error));
            });
            let Next::After(time) = next else { return };
            *self.work.lock() = Some(work);
            if !time.is_zero() {
                self.shared.core.status_machine.wait_changed(generation, time.min(NAP_MAX));
            }
        });
        Ok(next != Next::Done)
    }

    /// Ends the work after a panic in it. What that left half done is in `work`.
    fn abort(&self, work: &mut Source, error: &Error) -> Next {
        if !retry(&self.shared.core.vm, || work.abort(&self.shared, error.clone())) {
            self.shared.finish(Status::Failed);
        }
        Next::Done
    }

    /// Ends the migration. When it returns `Ok`, within a second, the guest is and runs where it was. `EBUSY` where it
    /// is too late: the destination may have the guest, or has it. Any thread; the big lock is released meanwhile.
    pub fn cancel(&self) -> Result<()> {
        match self.shared.core.begin_cancel("the destination has, or may have, the guest", || self.await_farewell())? {
            true => {
                self.work_off();
                self.shared.core.wait_cancelled()
            }
            false => Ok(()),
        }
    }

    /// Lets the worker report the cancel to the destination, before the connection is closed. The worker may be inside a
    /// write that the destination does not take.
    fn await_farewell(&self) {
        let core = &self.shared.core;
        if core.is_called_back() {
            return;
        }
        if self.own_thread {
            core.wait_quietly(FAREWELL_LIMIT, || {
                self.shared.requests.farewell.load(SeqCst) || core.status().is_final()
            });
        } else {
            let _ = self.run_step();
        }
    }

    /// Does at once what the host would do in its steps, unless another thread is at it.
    fn work_off(&self) {
        if !self.own_thread {
            while let Ok(true) = self.run_step() {}
        }
    }

    /// Lets the guest move after `pause_before_switchover`.
    pub fn continue_(&self) -> Result<()> {
        if self.shared.core.status() != Status::PreSwitchover {
            let text = format!("nothing to go on with: the migration is {}", self.shared.core.status());
            return Err(Error::invalid(text));
        }
        self.shared.requests.continue_.store(true, SeqCst);
        self.shared.core.status_machine.notify();
        Ok(())
    }

    /// Switches to postcopy as soon as what only precopy can send is through.
    pub fn start_postcopy(&self) -> Result<()> {
        if !self.shared.core.params().postcopy {
            return Err(Error::invalid("enable postcopy before the migration begins"));
        }
        if self.shared.core.status().is_final() {
            return Err(Error::invalid(format!("the migration is {}", self.shared.core.status())));
        }
        self.shared.core.request_postcopy();
        Ok(())
    }

    /// Breaks the connection of a running postcopy on purpose, so that it can be recovered over another one.
    pub fn pause(&self) -> Result<()> {
        self.shared.core.pause()
    }

    /// Takes a paused postcopy up again over a new connection, which is made here.
    pub fn recover(&self, to: &Endpoint) -> Result<()> {
        self.shared.core.check_paused(self.shared.released.load(SeqCst))?;
        self.shared.core.vm.check_not_poisoned()?;
        let limit = self.shared.core.params().connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        let host = self.shared.core.vm.host();
        let connect = || self.shared.core.connect(to, limit, &Cancel::new()?);
        let recovery_channel =
            without_big_lock(&*host, connect).inspect_err(|error| self.shared.core.report_failed_recovery(error))?;
        self.shared.core.offer(&self.shared.requests.recovery_channel, recovery_channel, &self.shared.released)
    }

    /// Asks the destination which pages of a block arrived, and waits until `PostcopyRam::received` was called. For
    /// `resume_prepare` callbacks.
    pub fn request_bitmap(&self, block: &[u8]) -> Result<()> {
        let asked = self.shared.core.recovery.lock().clone();
        let ask = asked.ok_or_else(|| Error::invalid("a bitmap can be asked for in a recovery only"))?;
        ask(block)
    }

    /// Changes what may change while it runs.
    pub fn set_params(&self, params: &Params) -> Result<()> {
        check_params(params, self.shared.core.params().postcopy)?;
        self.shared.core.change_params(params);
        Ok(())
    }

    /// The parameters of the moment.
    pub fn params(&self) -> Params {
        self.shared.core.params()
    }

    /// Ends what is still under way, as far as that can be: cancels, or gives a broken postcopy up, or waits for the
    /// verdict.
    pub fn end(&self) {
        self.shared.requests.abandon.store(true, SeqCst);
        self.shared.core.status_machine.notify();
        // Where it is too late it ends by itself. The host may still be hearing of the end: nothing is called after this.
        let _ = self.cancel();
        loop {
            self.work_off();
            if self.wait_within(NAP_MAX).is_some() {
                return;
            }
        }
    }
}
