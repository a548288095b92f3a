// SPDX-License-Identifier: LGPL-2.1-or-later
//! An outgoing migration as its user holds it: begun, watched, steered and ended from any thread. The work is done by the
//! `Source`, on a thread of its own or in the steps of the host.

use super::base::{Base, Migration, lock, take, unlocked};
use super::source::{Next, Source};
use super::trace::Event;
use super::{Params, Status};
use crate::channel::{self, Cancel, Channel, Uri};
use crate::error::{Error, Result};
use crate::savevm::Vm;
use crate::savevm::unwind::{contained, persisted};
use crate::sys::spawn;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Where a stream goes or comes from.
pub enum Endpoint {
    /// To be connected to, or listened on.
    Uri(Uri),
    /// Connected already.
    Channel(Arc<dyn Channel>),
}

impl Endpoint {
    /// For people.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Uri(uri) => uri.to_string(),
            Self::Channel(_) => "a channel of the host".to_owned(),
        }
    }
}

/// How long a step sleeps at most, so that nothing that was missed is missed for long.
const NAP_MAX: Duration = Duration::from_millis(200);

/// What the user asked for since it began.
#[derive(Default)]
pub(super) struct Wishes {
    /// Go on after pause-before-switchover.
    pub go_on: AtomicBool,
    /// Switch to postcopy.
    pub postcopy: AtomicBool,
    /// The handle goes: don't wait for a recovery any longer.
    pub abandon: AtomicBool,
    /// The new connection of a recovery.
    pub fresh: Mutex<Option<Arc<dyn Channel>>>,
}

/// See the module. Dropping the last reference does not end the migration: see `end`.
pub struct Outgoing {
    pub(super) base: Arc<Base>,
    pub(super) wishes: Wishes,
    /// Where the host steps: the work, between two steps.
    work: Mutex<Option<Box<Source>>>,
    /// The machine is free for the next one.
    released: AtomicBool,
}

impl Migration for Outgoing {
    fn base(&self) -> &Base {
        &self.base
    }
}

impl Outgoing {
    /// Begins to migrate. Errors here are those of the moment: a blocker, another migration, a bad parameter; the
    /// connection comes later. `own_thread` decides who does the work.
    pub fn start(vm: &Arc<Vm>, to: Endpoint, params: Params) -> Result<Arc<Self>> {
        vm.check_migratable()?;
        let own_thread = params.own_thread;
        let base = Arc::new(Base::new(vm, params, false)?);
        vm.slot.begin("an outgoing migration")?;
        let reasons = vm.slot.blockers();
        if !reasons.is_empty() {
            vm.slot.end();
            return Err(Error::new(libc::EACCES, format!("migration is blocked: {}", reasons.join("; "))));
        }
        base.trace.write(base.now(), &Event::Trace { side: "source", uri: &to.text() });
        let (wishes, work, released) = Default::default();
        let this = Arc::new(Self { base, wishes, work, released });
        this.base.set_address(Arc::as_ptr(&this) as usize);
        vm.slot.set_observer(Some(this.base.watcher()));
        this.base.advance(Status::Setup);
        *lock(&this.work) = Some(Box::new(Source::new(to)));
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
            self.base.set_error(error.clone());
            self.base.advance(Status::Failed);
            self.released();
            return Err(error);
        }
        Ok(())
    }

    fn released(&self) {
        if !self.released.swap(true, SeqCst) {
            // A connection that nobody took up any more: its other end waits for this one.
            drop(take(&self.wishes.fresh));
            self.base.vm.slot.set_observer(None);
            self.base.vm.slot.end();
        }
    }

    /// Does a piece of the work: connects, or a round, or a switchover. It waits as long as the piece takes, at most as
    /// the deadlines allow, and gives the big lock up meanwhile. False when all is done; `EBUSY` where another thread is at
    /// it.
    pub fn step(self: &Arc<Self>) -> Result<bool> {
        let Some(mut work) = lock(&self.work).take() else {
            return match self.base.status().is_final() {
                true => Ok(false),
                false => Err(Error::new(libc::EBUSY, "another thread does the work of this migration")),
            };
        };
        let (vm, host) = (Arc::clone(&self.base.vm), self.base.vm.host());
        let mut next = Next::Done;
        unlocked(&*host, || {
            let bell = self.base.machine.bell();
            host.on_thread(&vm, &mut || {
                let _working = self.base.working();
                next = contained(&vm, || work.step(self)).unwrap_or_else(|error| self.give_up(&mut work, &error));
            });
            let Next::After(time) = next else { return };
            *lock(&self.work) = Some(work);
            if !time.is_zero() {
                self.base.machine.wait_bell(bell, time.min(NAP_MAX));
            }
        });
        Ok(next != Next::Done)
    }

    /// Ends the work after a panic in it. What that left half done is in `work`.
    fn give_up(self: &Arc<Self>, work: &mut Source, error: &Error) -> Next {
        if !persisted(&self.base.vm, || work.give_up(self, error.clone())) {
            self.finish(Status::Failed);
        }
        Next::Done
    }

    /// The work is over: the machine is free for the next one. Comes before the last status.
    pub(super) fn finish(&self, status: Status) {
        self.base.phase(None);
        self.released();
        if !self.base.advance(status) {
            // A wish to cancel came between; it is over all the same.
            self.base.advance(Status::Cancelled);
        }
    }

    pub(super) fn connect(&self, to: &Endpoint, limit: Duration) -> Result<Arc<dyn Channel>> {
        match to {
            Endpoint::Channel(channel) => Ok(Arc::clone(channel)),
            Endpoint::Uri(uri) => channel::connect(uri, Some(limit), &self.base.cancel),
        }
    }

    /// Ends the migration. When it returns `Ok`, within a second, the guest is and runs where it was. `EBUSY` where it
    /// is too late: the destination may have the guest, or has it. Any thread; the big lock is given up meanwhile.
    pub fn cancel(self: &Arc<Self>) -> Result<()> {
        match self.base.begin_cancel("the destination has, or may have, the guest")? {
            true => {
                self.work_off();
                self.base.wait_cancelled()
            }
            false => Ok(()),
        }
    }

    /// Does at once what the host would do in its steps, unless another thread is at it.
    fn work_off(self: &Arc<Self>) {
        if !self.base.params().own_thread {
            while let Ok(true) = self.step() {}
        }
    }

    /// Lets the guest move after `pause_before_switchover`.
    pub fn resume(&self) -> Result<()> {
        if self.base.status() != Status::PreSwitchover {
            let text = format!("nothing to go on with: the migration is {}", self.base.status());
            return Err(Error::invalid(text));
        }
        self.wishes.go_on.store(true, SeqCst);
        self.base.machine.ring();
        Ok(())
    }

    /// Switches to postcopy as soon as what only precopy can send is through.
    pub fn start_postcopy(&self) -> Result<()> {
        if !self.base.params().postcopy {
            return Err(Error::invalid("enable postcopy before the migration begins"));
        }
        if self.base.status().is_final() {
            return Err(Error::invalid(format!("the migration is {}", self.base.status())));
        }
        self.wishes.postcopy.store(true, SeqCst);
        self.base.machine.ring();
        Ok(())
    }

    /// Breaks the connection of a running postcopy on purpose, so that it can be recovered over another one.
    pub fn pause(&self) -> Result<()> {
        self.base.pause()
    }

    /// Takes a paused postcopy up again over a new connection, which is made here.
    pub fn recover(&self, to: &Endpoint) -> Result<()> {
        self.base.check_paused(self.released.load(SeqCst))?;
        self.base.vm.check_unbroken()?;
        let limit = self.base.params().connect_timeout.unwrap_or(super::CONNECT_TIMEOUT);
        let host = self.base.vm.host();
        let fresh = unlocked(&*host, || match to {
            Endpoint::Channel(channel) => Ok(Arc::clone(channel)),
            Endpoint::Uri(uri) => channel::connect(uri, Some(limit), &Cancel::new()?),
        })?;
        self.base.offer(&self.wishes.fresh, fresh, &self.released)
    }

    /// Asks the destination which pages of a block arrived, and waits until `PostcopyRam::received` was told. For
    /// `resume_prepare` callbacks.
    pub fn request_bitmap(&self, block: &[u8]) -> Result<()> {
        let asked = lock(&self.base.recovery).clone();
        let ask = asked.ok_or_else(|| Error::invalid("a bitmap can be asked for in a recovery only"))?;
        ask(block)
    }

    /// Changes what may change while it runs.
    pub fn set_params(&self, params: &Params) {
        self.base.change_params(params);
    }

    /// The parameters of the moment.
    pub fn params(&self) -> Params {
        self.base.params()
    }

    /// Ends what is still under way, as far as that can be: cancels, or gives a broken postcopy up, or waits for the
    /// verdict.
    pub fn end(self: &Arc<Self>) {
        self.wishes.abandon.store(true, SeqCst);
        self.base.machine.ring();
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
