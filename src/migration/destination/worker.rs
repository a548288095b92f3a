// SPDX-License-Identifier: LGPL-2.1-or-later
//! The work of the destination: accept, load, take the guest over or say why not.
//!
//! The big lock is held while devices are called and while the guest and the disks change hands, and given up while bytes
//! are waited for between two sections: QEMU keeps its main loop from waiting with a coroutine.

use super::commands::Commands;
use super::handle::{Acceptor, Incoming, Package};
use super::meter::Metered;
use crate::channel::Channel;
use crate::error::{self, Error, Phase, Result};
use crate::file::MigFile;
use crate::migration::endpoint::DESTINATION_STALL;
use crate::migration::params::Choice;
use crate::migration::return_path::message::Message;
use crate::migration::status::Status;
use crate::savevm::fault::FaultPoint;
use crate::savevm::host::{Flags, Level, PostcopyState, with_big_lock};
use crate::savevm::load::{self, LoadEnd};
use crate::savevm::owner::Owner;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// Longest wait for another thread that is inside a device.
pub(super) const DEVICE_LIMIT: Duration = Duration::from_secs(86_400);
/// The same once everything has failed.
const LAST_LIMIT: Duration = Duration::from_secs(10);
/// How often a paused postcopy looks around.
const POLL: Duration = Duration::from_millis(50);

/// A broken connection shows at the file; other errors would come again.
fn is_broken(file: &MigFile) -> bool {
    file.status().first_error().is_some_and(|first| first.errno() == libc::EIO)
}

impl Incoming {
    /// Everything, from the connection to the last status.
    pub(super) fn run(self: &Arc<Self>, acceptor: &Acceptor) {
        let vm = &self.core.vm;
        vm.set_incoming(Some(Arc::new(Commands(Arc::clone(self)))));
        let result = self.load(acceptor);
        let result = result.and_then(|()| self.conclude());
        if let Err(error) = result {
            self.give_up(error);
        }
    }

    fn load(self: &Arc<Self>, acceptor: &Acceptor) -> Result<()> {
        let (core, vm) = (&self.core, &self.core.vm);
        let params = core.params();
        vm.set_flags(Flags::POSTCOPY_RAM, params.postcopy && vm.slot.ram().is_some());
        core.phase(Some(Phase::Connect));
        core.fault_point();
        let channel = acceptor.accept(params.connect_timeout, &self.core.cancel)?;
        let file = self.attach(&channel)?;
        core.enter(Status::Active)?;
        core.phase(Some(Phase::Load));
        core.fault_point();
        let mut end = match load::stream(vm, &file) {
            Err(error) if error.phase() == Some(Phase::LoadSetup) => {
                with_big_lock(&*vm.host(), || load::cleanup(vm));
                return Err(error);
            }
            // Cleaned up by the loader, unless pages may still come.
            other => other,
        };
        if !self.package.lock().listening {
            return self.close_plain(end);
        }
        let mut file = file;
        loop {
            match end {
                Ok(LoadEnd::Finished) => break,
                // RUN beside the package: the same stream goes on.
                Ok(LoadEnd::HandedOver) => {}
                Err(error) => {
                    self.await_run(&file);
                    if let Some(Err(cause)) = &self.package.lock().done {
                        return Err(cause.clone());
                    }
                    file = self.recover_from(file, error)?;
                }
            }
            end = load::sections(vm, &file);
        }
        self.end_postcopy()
    }

    fn attach(&self, channel: &Arc<dyn Channel>) -> Result<MigFile> {
        if !self.core.link.set(channel) {
            return Err(Error::new(libc::ECANCELED, "the migration was cancelled"));
        }
        channel.set_stall_limit(Some(self.core.params().stall_timeout.unwrap_or(DESTINATION_STALL)));
        let (inner, stats) = (Arc::clone(channel), Arc::clone(&self.core.stats));
        Ok(MigFile::new(Arc::new(Metered { inner, stats }), false))
    }

    fn close_plain(&self, end: Result<LoadEnd>) -> Result<()> {
        match end? {
            LoadEnd::Finished => Ok(()),
            LoadEnd::HandedOver => Err(Error::invalid("the stream was handed over to nobody")),
        }
    }

    /// Waits for the thread that loads the package.
    pub(super) fn wait_package(&self, done: impl Fn(&Package) -> bool) -> Result<()> {
        self.core.wait_for("the package", DEVICE_LIMIT, || done(&self.package.lock()).then_some(Ok(())))
    }

    /// The stream ended in postcopy: the devices must be loaded and the guest be started, and then all is here.
    fn end_postcopy(&self) -> Result<()> {
        let vm = &self.core.vm;
        self.wait_package(|package| package.done.is_some())?;
        if let Some(Err(error)) = &self.package.lock().done {
            return Err(error.clone());
        }
        if !self.package.lock().running {
            return Err(Error::invalid("the stream of a postcopy ended before the guest was started"));
        }
        if let Some(ram) = vm.slot.ram().filter(|_| vm.flags().has(Flags::POSTCOPY_RAM)) {
            ram.end(true);
        }
        vm.ownership.loaded();
        *self.postcopy.lock() = PostcopyState::End;
        with_big_lock(&*vm.host(), || load::cleanup(vm));
        // All of the guest is here, but what failed on the way is told.
        vm.check_unbroken()
    }

    /// A source that is QEMU has no guest once the package is out, which may still be loaded where the connection breaks
    /// behind it. So it comes to its end, unless its devices wait for pages.
    fn await_run(&self, broken: &MigFile) {
        if is_broken(broken) && !self.peer_is_libsavevm.load(SeqCst) {
            let ended = |package: &Package| package.running || package.done.is_some();
            self.wait_device(|package| ended(package) || self.core.interrupted().is_some(), LAST_LIMIT);
        }
    }

    /// In a running postcopy a broken connection may come back; this waits for it.
    fn recover_from(&self, broken: MigFile, error: Error) -> Result<MigFile> {
        let core = &self.core;
        let ram = core.vm.slot.ram().filter(|_| core.vm.flags().has(Flags::POSTCOPY_RAM));
        let running = core.status().is_postcopy() && self.package.lock().running;
        // Who spoke over a connection that was not agreed on yet need not be the source.
        let passing = is_broken(&broken) || core.status() == Status::PostcopyRecover;
        let (Some(ram), true) = (ram, running && passing && !self.abandoned.load(SeqCst)) else {
            return Err(error);
        };
        core.vm.host().report(Level::Warning, &format!("postcopy is paused: {error}"));
        core.link.drop_channel();
        self.sender.close();
        drop(broken);
        if core.status() != Status::PostcopyRecover {
            // What was offered for an earlier break is of no use any more; while a recovery is tried, it is for the next.
            drop(self.back.take());
        }
        ram.paused();
        core.enter(Status::PostcopyPaused)?;
        core.phase(Some(Phase::Paused));
        core.fault_point();
        let channel = self.wait_back()?;
        core.vm.fault_point(FaultPoint::Recovery);
        let file = self.attach(&channel)?;
        let back = file.return_path().ok_or_else(|| Error::new(libc::ENOTSUP, "a recovery needs a way back"))?;
        self.sender.open(back);
        core.enter(Status::PostcopyRecover)?;
        core.phase(Some(Phase::Load));
        core.fault_point();
        Ok(file)
    }

    fn wait_back(&self) -> Result<Arc<dyn Channel>> {
        let core = &self.core;
        let since = core.now();
        loop {
            if self.abandoned.load(SeqCst) {
                return Err(Error::new(libc::ECANCELED, "the paused postcopy was given up"));
            }
            if core.params().recover_timeout.is_some_and(|limit| core.now().saturating_sub(since) > limit) {
                return Err(Error::new(libc::ETIMEDOUT, "nobody recovered the paused postcopy"));
            }
            let generation = core.status_machine.generation();
            let acceptor = self.back.take();
            match acceptor
                .map(|acceptor| acceptor.accept(Some(POLL), &self.core.cancel).map_err(|error| (acceptor, error)))
            {
                Some(Ok(channel)) if channel.is_duplex() => return Ok(channel),
                Some(Ok(_)) => {
                    let text = "the recovery failed: there is no way back on this kind of connection";
                    core.vm.host().report(Level::Warning, text);
                }
                Some(Err((acceptor, error))) if error.errno() == libc::ETIMEDOUT => {
                    self.back.lock().get_or_insert(acceptor);
                }
                Some(Err((_, error))) => {
                    core.vm.host().report(Level::Warning, &format!("the recovery failed: {error}"));
                }
                None => core.status_machine.wait_changed(generation, POLL),
            }
        }
    }

    /// Everything is loaded: takes the guest over and says so.
    fn conclude(&self) -> Result<()> {
        let core = &self.core;
        core.fault_point();
        if self.package.lock().running {
            // A source that misses this learns it from its operator; the guest is here.
            let _ = self.sender.send_final(Message::Shut(0), core.params().switchover_timeout);
        } else {
            self.take_over()?;
        }
        self.let_go();
        self.finish(Status::Completed);
        Ok(())
    }

    fn take_over(&self) -> Result<()> {
        let core = &self.core;
        core.phase(Some(Phase::Start));
        core.fault_point();
        let host = core.vm.host();
        let limit = core.params().switchover_timeout;
        let asks = self.peer_is_libsavevm.load(SeqCst) || core.params().return_path == Choice::On;
        if asks && !self.asked.load(SeqCst) {
            // A zero where a section should begin looks like EOF, but the source is not there yet.
            return Err(Error::invalid("the stream ends where the source can't have ended it: it is damaged"));
        }
        core.commit()?;
        // A source that is QEMU starts its guest again when it misses the verdict: only what it got lets us start.
        let first = self.sender.is_open() && !self.peer_is_libsavevm.load(SeqCst);
        // Only an end of this library goes on when it hears that the guest could not be started here.
        let may_refuse = self.sender.is_open() && self.peer_is_libsavevm.load(SeqCst);
        with_big_lock(&*host, || self.take_disks())?;
        if first {
            self.sender.send_final(Message::Shut(0), limit).map_err(|error| {
                let text = format!("the source can't be told that it may let go of the guest: {}", error.message());
                Error::new(error.errno(), text)
            })?;
        }
        self.ours.store(!may_refuse, SeqCst);
        core.set_owner(Owner::Here);
        with_big_lock(&*host, || {
            self.run_guest()?;
            self.ours.store(true, SeqCst);
            Ok(())
        })?;
        if !first {
            let _ = self.sender.send_final(Message::Shut(0), limit);
        }
        Ok(())
    }

    /// Releases what was taken, in any case.
    fn let_go(&self) {
        self.sender.close();
        self.core.link.drop_channel();
        self.core.vm.set_flags(Flags::POSTCOPY_RAM, false);
    }

    pub(super) fn finish(&self, status: Status) {
        self.core.phase(None);
        self.released();
        if !self.core.advance(status) {
            self.core.advance(Status::Cancelled);
        }
    }

    /// It failed or was cancelled: the guest does not start here any more, and the source is told why.
    pub(super) fn give_up(&self, error: Error) {
        let (core, vm) = (&self.core, &self.core.vm);
        // A package that is still loaded starts no guest whose pages are given up here.
        core.status_machine.refuse();
        core.fault_point();
        let (cancelled, error) = match core.interrupted() {
            Some(cancelled) => (true, cancelled),
            None => (false, error),
        };
        self.settle_owner();
        if self.package.lock().listening && *self.postcopy.lock() != PostcopyState::End {
            if let Some(ram) = vm.slot.ram().filter(|_| vm.flags().has(Flags::POSTCOPY_RAM)) {
                ram.end(false);
                self.stop_guest();
            }
            self.wait_device(|package| package.done.is_some(), LAST_LIMIT);
            *self.postcopy.lock() = PostcopyState::End;
            with_big_lock(&*vm.host(), || load::cleanup(vm));
            // The other thread may have called a device meanwhile.
            self.settle_owner();
        }
        let ours = self.ours.load(SeqCst);
        if self.disks.swap(false, SeqCst) && !ours {
            // Given back as they were found, before the source takes them; if that fails there is nobody left to tell.
            let host = vm.host();
            let _ = with_big_lock(&*host, || host.disks_inactivate());
        }
        if ours && !core.status().is_postcopy() {
            // A source that hears of a failure takes the guest back.
            self.sender.close();
        } else {
            self.tell_failure(&error);
        }
        core.set_error(error);
        self.let_go();
        self.finish(if cancelled { Status::Cancelled } else { Status::Failed });
    }

    /// The owner of a guest whose load has ended without success.
    fn settle_owner(&self) {
        self.core.set_owner(match (self.core.vm.ownership.is_partial(), self.ours.load(SeqCst)) {
            (true, _) => Owner::Torn,
            (false, true) => Owner::Here,
            (false, false) => Owner::There,
        });
    }

    /// A guest whose last pages will not come runs on zeros in their places: nothing of what it makes of them may reach its
    /// disks. It could not be stopped before they were given up, since a CPU that waits for one does not stop.
    fn stop_guest(&self) {
        let host = self.core.vm.host();
        let stopped =
            with_big_lock(&*host, || error::check("vm_stop", if host.vm_running() { host.vm_stop() } else { 0 }));
        if let Err(error) = stopped {
            log::error!("a guest without all of its memory could not be stopped: {error}");
        }
    }

    /// Tells the source why it ends. The source may be gone; then it knows.
    pub(super) fn tell_failure(&self, error: &Error) {
        if self.sender.is_open() {
            if self.peer_is_libsavevm.load(SeqCst) {
                let _ = self.sender.send(Message::ErrorText(error.to_string()));
            }
            let _ = self.sender.send_final(Message::Shut(1), Duration::from_millis(500));
            self.sender.close();
        }
    }

    /// Waits for the other thread, whatever the status is.
    pub(super) fn wait_device(&self, done: impl Fn(&Package) -> bool, limit: Duration) {
        let since = Instant::now();
        loop {
            let generation = self.core.status_machine.generation();
            if done(&self.package.lock()) || since.elapsed() > limit {
                return;
            }
            self.core.status_machine.wait_changed(generation, POLL);
        }
    }
}
