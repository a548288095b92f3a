// SPDX-License-Identifier: LGPL-2.1-or-later
//! An outgoing migration as its user holds it: begun, watched, steered and ended from any thread. The work is done by the
//! `Source`, on a thread of its own or in the steps of the host.

use super::worker::{Next, Source};
use crate::channel::{self, Cancel, Channel};
use crate::error::{Error, Result};
use crate::migration::core::{Core, Migration};
use crate::migration::endpoint::{CONNECT_TIMEOUT, Endpoint};
use crate::migration::params::Params;
use crate::migration::status::Status;
use crate::migration::trace::Event;
use crate::savevm::Vm;
use crate::savevm::host::without_big_lock;
use crate::savevm::unwind::{contained, persisted};
use crate::sync::{Mutex, Rank};
use crate::sys::spawn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

/// How long a step sleeps at most, so that nothing that was missed is missed for long.
const NAP_MAX: Duration = Duration::from_millis(200);

/// What the user asked for since it began.
pub(super) struct Requests {
    /// Go on after pause-before-switchover.
    pub continue_: AtomicBool,
    /// Switch to postcopy.
    pub postcopy: AtomicBool,
    /// The handle goes: don't wait for a recovery any longer.
    pub abandon: AtomicBool,
    /// The new connection of a recovery.
    pub recovery_channel: Mutex<Option<Arc<dyn Channel>>>,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            continue_: AtomicBool::new(false),
            postcopy: AtomicBool::new(false),
            abandon: AtomicBool::new(false),
            recovery_channel: Mutex::new(Rank::OutgoingRecovery, None),
        }
    }
}

/// See the module. Dropping the last reference does not end the migration: see `end`.
pub struct Outgoing {
    pub(super) core: Arc<Core>,
    pub(super) requests: Requests,
    /// Where the host steps: the work, between two steps.
    work: Mutex<Option<Box<Source>>>,
    /// The machine is free for the next one.
    released: AtomicBool,
}

impl Migration for Outgoing {
    fn core(&self) -> &Core {
        &self.core
    }
}

impl Outgoing {
    /// Begins to migrate. Errors here are those of the moment: a blocker, another migration, a bad parameter; the
    /// connection comes later. `own_thread` decides who does the work.
    pub fn start(vm: &Arc<Vm>, to: Endpoint, params: Params) -> Result<Arc<Self>> {
        vm.check_migratable()?;
        let own_thread = params.own_thread;
        let core = Arc::new(Core::new(vm, params, false)?);
        vm.slot.begin("an outgoing migration")?;
        let reasons = vm.slot.blockers();
        if !reasons.is_empty() {
            vm.slot.end();
            return Err(Error::new(libc::EACCES, format!("migration is blocked: {}", reasons.join("; "))));
        }
        core.trace.write(core.now(), &Event::Trace { side: "source", uri: &to.text() });
        let (requests, released) = Default::default();
        let this = Arc::new(Self { core, requests, work: Mutex::new(Rank::OutgoingWork, None), released });
        this.core.set_address(Arc::as_ptr(&this) as usize);
        vm.slot.set_observer(Some(this.core.watcher()));
        this.core.advance(Status::Setup);
        *this.work.lock() = Some(Box::new(Source::new(to)));
        if own_thread {
            this.start_thread()?;
        }
        Ok(this)
    }

    fn start_thread(self: &Arc<Self>) -> Result<()> {
        let this = Arc::clone(self);
        let body = move || while !matches!(this.step(), Ok(false) | Err(_)) {};
        if let Err(err) = spawn("savevm-source", body) {
            let error = Error::io("starting the migration's thread", &err);
            self.core.set_error(error.clone());
            self.core.advance(Status::Failed);
            self.released();
            return Err(error);
        }
        Ok(())
    }

    fn released(&self) {
        if !self.released.swap(true, SeqCst) {
            // A connection that nobody took up any more: its other end waits for this one.
            drop(self.requests.recovery_channel.take());
            self.core.vm.slot.set_observer(None);
            self.core.vm.slot.end();
        }
    }

    /// Does a piece of the work: connects, or a round, or a switchover. It waits as long as the piece takes, at most as
    /// the deadlines allow, and gives the big lock up meanwhile. False when all is done; `EBUSY` where another thread is at
    /// it.
    pub fn step(self: &Arc<Self>) -> Result<bool> {
        let Some(mut work) = self.work.lock().take() else {
            return match self.core.status().is_final() {
                true => Ok(false),
                false => Err(Error::new(libc::EBUSY, "another thread does the work of this migration")),
            };
        };
        let (vm, host) = (Arc::clone(&self.core.vm), self.core.vm.host());
        let mut next = Next::Done;
        without_big_lock(&*host, || {
            let generation = self.core.status_machine.generation();
            host.on_thread(&vm, &mut || {
                let _working = self.core.working();
                next = contained(&vm, || work.step(self)).unwrap_or_else(|error| self.give_up(&mut work, &error));
            });
            let Next::After(time) = next else { return };
            *self.work.lock() = Some(work);
            if !time.is_zero() {
                self.core.status_machine.wait_changed(generation, time.min(NAP_MAX));
            }
        });
        Ok(next != Next::Done)
    }

    /// Ends the work after a panic in it. What that left half done is in `work`.
    fn give_up(self: &Arc<Self>, work: &mut Source, error: &Error) -> Next {
        if !persisted(&self.core.vm, || work.give_up(self, error.clone())) {
            self.finish(Status::Failed);
        }
        Next::Done
    }

    /// The work is over: the machine is free for the next one. Comes before the last status.
    pub(super) fn finish(&self, status: Status) {
        self.core.phase(None);
        self.released();
        if !self.core.advance(status) {
            // A wish to cancel came between; it is over all the same.
            self.core.advance(Status::Cancelled);
        }
    }

    pub(super) fn connect(&self, to: &Endpoint, limit: Duration) -> Result<Arc<dyn Channel>> {
        match to {
            Endpoint::Channel(channel) => Ok(Arc::clone(channel)),
            Endpoint::Uri(uri) => channel::connect(uri, Some(limit), &self.core.cancel),
        }
    }

    /// Ends the migration. When it returns `Ok`, within a second, the guest is and runs where it was. `EBUSY` where it
    /// is too late: the destination may have the guest, or has it. Any thread; the big lock is given up meanwhile.
    pub fn cancel(self: &Arc<Self>) -> Result<()> {
        match self.core.begin_cancel("the destination has, or may have, the guest")? {
            true => {
                self.work_off();
                self.core.wait_cancelled()
            }
            false => Ok(()),
        }
    }

    /// Does at once what the host would do in its steps, unless another thread is at it.
    fn work_off(self: &Arc<Self>) {
        if !self.core.params().own_thread {
            while let Ok(true) = self.step() {}
        }
    }

    /// Lets the guest move after `pause_before_switchover`.
    pub fn resume(&self) -> Result<()> {
        if self.core.status() != Status::PreSwitchover {
            let text = format!("nothing to go on with: the migration is {}", self.core.status());
            return Err(Error::invalid(text));
        }
        self.requests.continue_.store(true, SeqCst);
        self.core.status_machine.notify();
        Ok(())
    }

    /// Switches to postcopy as soon as what only precopy can send is through.
    pub fn start_postcopy(&self) -> Result<()> {
        if !self.core.params().postcopy {
            return Err(Error::invalid("enable postcopy before the migration begins"));
        }
        if self.core.status().is_final() {
            return Err(Error::invalid(format!("the migration is {}", self.core.status())));
        }
        self.requests.postcopy.store(true, SeqCst);
        self.core.status_machine.notify();
        Ok(())
    }

    /// Breaks the connection of a running postcopy on purpose, so that it can be recovered over another one.
    pub fn pause(&self) -> Result<()> {
        self.core.pause()
    }

    /// Takes a paused postcopy up again over a new connection, which is made here.
    pub fn recover(&self, to: &Endpoint) -> Result<()> {
        self.core.check_paused(self.released.load(SeqCst))?;
        self.core.vm.check_unbroken()?;
        let limit = self.core.params().connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        let host = self.core.vm.host();
        let recovery_channel = without_big_lock(&*host, || match to {
            Endpoint::Channel(channel) => Ok(Arc::clone(channel)),
            Endpoint::Uri(uri) => channel::connect(uri, Some(limit), &Cancel::new()?),
        })?;
        self.core.offer(&self.requests.recovery_channel, recovery_channel, &self.released)
    }

    /// Asks the destination which pages of a block arrived, and waits until `PostcopyRam::received` was told. For
    /// `resume_prepare` callbacks.
    pub fn request_bitmap(&self, block: &[u8]) -> Result<()> {
        let asked = self.core.recovery.lock().clone();
        let ask = asked.ok_or_else(|| Error::invalid("a bitmap can be asked for in a recovery only"))?;
        ask(block)
    }

    /// Changes what may change while it runs.
    pub fn set_params(&self, params: &Params) {
        self.core.change_params(params);
    }

    /// The parameters of the moment.
    pub fn params(&self) -> Params {
        self.core.params()
    }

    /// Ends what is still under way, as far as that can be: cancels, or gives a broken postcopy up, or waits for the
    /// verdict.
    pub fn end(self: &Arc<Self>) {
        self.requests.abandon.store(true, SeqCst);
        self.core.status_machine.notify();
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
