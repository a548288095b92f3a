// SPDX-License-Identifier: LGPL-2.1-or-later
//! The user's handle of an incoming migration: requests to the worker, and the worker's results.
//!
//! The worker does the work on a thread of its own.

use super::acceptor::Acceptor;
use super::answering::Answering;
use super::commands::Commands;
use super::entrance::Entrance;
use super::shared::{Failure, Shared};
use super::worker::Worker;
use crate::channel::Uri;
use crate::error::{Error, Result};
use crate::migration::core::{Core, Migration};
use crate::migration::endpoint::Endpoint;
use crate::migration::further;
use crate::migration::params::Params;
use crate::migration::status::Status;
use crate::migration::trace::Event;
use crate::savevm::Vm;
use crate::savevm::host::{Level, with_big_lock};
use crate::savevm::owner::Owner;
use crate::savevm::slot::PageSource;
use crate::savevm::unwind::{catch, retry};
use crate::sys::{spawn, spawn_prompt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

/// Limit for telling the source of a cancelled migration.
const CANCEL_MESSAGE_LIMIT: Duration = Duration::from_millis(300);

/// See the module. Dropping the last reference does not end the migration: see `end`.
pub struct Incoming {
    shared: Arc<Shared>,
    uri: Option<Uri>,
    answering: Answering,
}

impl Migration for Incoming {
    fn core(&self) -> &Core {
        &self.shared.core
    }
}

impl Incoming {
    /// Listens, and loads what arrives. The guest is stopped and its devices are registered.
    ///
    /// Fails at once if another migration is in progress or if it can't listen.
    pub fn start(vm: &Arc<Vm>, from: Endpoint, params: Params) -> Result<Arc<Self>> {
        vm.check_not_poisoned()?;
        further::check(vm, &params, from.uri())?;
        let from_text = from.text();
        let core = Arc::new(Core::new(vm, params, true, from_text.clone())?);
        vm.prepare_global_state()?;
        vm.slot.acquire("an incoming migration")?;
        vm.slot.check_no_checkpoints("an incoming migration").inspect_err(|_| vm.slot.release())?;
        let acceptor = Acceptor::open(from).inspect_err(|_| vm.slot.release())?;
        vm.begin_global_state();
        if core.params().share_memory {
            vm.slot.share_memory();
        }
        let runs = warn_if_running(vm);
        let owner_before = (runs || vm.ownership.owner() != Owner::Here).then(|| vm.ownership.remember());
        core.trace.write(core.now(), &Event::Trace { side: "destination", uri: &from_text });
        core.set_owner(Owner::There);
        vm.ownership.begin_load();
        let shared = Arc::new(Shared::new(core, owner_before));
        let this = Arc::new(Self { shared: Arc::clone(&shared), uri: acceptor.uri(), answering: Answering::default() });
        let core = &shared.core;
        core.set_address(Arc::as_ptr(&this) as usize);
        vm.slot.set_observer(Some(core.watcher()));
        core.advance(Status::Setup);
        if let Err(error) = core.start_watch() {
            core.set_error(error.clone());
            shared.release_slot();
            core.advance(Status::Failed);
            return Err(error);
        }
        let worker = Arc::new(Worker::new(Arc::clone(&shared)));
        if let Err(err) = spawn_prompt("savevm-load", move || work(&worker, acceptor)) {
            let error = Error::io("starting the migration's thread", &err);
            core.set_error(error.clone());
            shared.release_slot();
            core.advance(Status::Failed);
            return Err(error);
        }
        Ok(this)
    }

    /// The address that the migration listens on, with the port that the system chose in place of port 0.
    pub fn uri(&self) -> Option<&Uri> {
        self.uri.as_ref()
    }

    /// Cancels the migration.
    ///
    /// Returns `Ok` within a second: the guest does not run here and this migration will not start it. `EBUSY` if the
    /// guest is here. Any thread; the big lock is released meanwhile.
    pub fn cancel(&self) -> Result<()> {
        match self.core().begin_cancel("the guest is here", || self.send_cancelled())? {
            true => self.core().wait_cancelled(),
            false => Ok(()),
        }
    }

    /// Reports to the source that the guest will not be started here, before the connection is closed. The source may have
    /// sent all of the guest and wait for the verdict.
    ///
    /// On a thread of its own, since a channel may not take the message.
    fn send_cancelled(&self) {
        if !self.shared.sender.is_open() {
            return;
        }
        let (shared, sent) = (Arc::clone(&self.shared), Arc::new(AtomicBool::new(false)));
        let (done, error) = (Arc::clone(&sent), Error::new(libc::ECANCELED, "the migration was cancelled"));
        let body = move || {
            shared.send_failure(&error, Failure::Cancelled);
            done.store(true, SeqCst);
            shared.core.status_machine.notify();
        };
        if spawn("savevm-verdict", body).is_ok() {
            self.core().wait_quietly(CANCEL_MESSAGE_LIMIT, || sent.load(SeqCst));
        }
    }

    /// Breaks the connection of a running postcopy, so that it can be recovered over another one.
    pub fn pause(&self) -> Result<()> {
        self.core().pause()
    }

    /// Listens for the source of a paused postcopy, and continues over the connection that it makes.
    ///
    /// If the postcopy is completed and the source missed that, its attempt to recover is answered with the verdict.
    pub fn recover(&self, from: Endpoint) -> Result<()> {
        let Shared { core, requests, released, .. } = &*self.shared;
        if core.status() == Status::Completed && self.shared.may_answer() {
            return self.answer(from);
        }
        core.check_paused(released.load(SeqCst))?;
        core.vm.check_not_poisoned()?;
        let acceptor = Acceptor::open(from).inspect_err(|error| core.report_failed_recovery(error))?;
        core.offer(&requests.recovery_acceptor, acceptor, released)
    }

    /// Answers the source of a completed postcopy, which missed that it is completed.
    fn answer(&self, from: Endpoint) -> Result<()> {
        self.answering.start(&self.shared.core, Acceptor::open(from)?)
    }

    /// Requests pages for the guest of a postcopy.
    pub fn request_pages(&self, block: &[u8], start: u64, len: u32) -> Result<()> {
        self.shared.request_pages(block, start, len)
    }

    /// Ends what is still in progress: cancels it, or aborts a paused postcopy, or waits until it is complete.
    pub fn end(&self) {
        self.answering.stop(&self.shared.core);
        self.shared.requests.abandon.store(true, SeqCst);
        self.core().status_machine.notify();
        // A migration that is too late to be cancelled ends by itself.
        let _ = self.cancel();
        // No callback comes after this.
        let _ = self.wait();
    }
}

/// Reports a guest that runs here, which an incoming migration replaces. Returns whether there is one.
fn warn_if_running(vm: &Vm) -> bool {
    let host = vm.host();
    let runs = with_big_lock(&*host, || host.vm_running());
    if runs {
        host.report(Level::Warning, "an incoming migration begins while a guest runs here, which it will replace");
    }
    runs
}

/// The worker's thread.
fn work(worker: &Arc<Worker>, acceptor: Acceptor) {
    let core = &worker.shared.core;
    let vm = &core.vm;
    let mut entrance = Entrance::new(acceptor);
    vm.on_thread(|| {
        let _working = core.working();
        let run = || {
            vm.set_incoming(Some(Arc::new(Commands(Arc::clone(worker)))));
            worker.run(&mut entrance);
        };
        let Err(error) = catch(vm, run) else { return };
        entrance.close();
        if !retry(vm, || worker.abort(error.clone())) {
            worker.finish(Status::Failed);
        }
    });
}
