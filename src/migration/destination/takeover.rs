// SPDX-License-Identifier: LGPL-2.1-or-later
//! The end of a destination: it starts the guest and reports success, or it reports the failure.

use super::shared::Failure;
use super::stage::Stage;
use super::worker::{LAST_LIMIT, Worker};
use crate::error::{self, Error, Result};
use crate::migration::params::Choice;
use crate::migration::return_path::message::Message;
use crate::migration::status::Status;
use crate::savevm::host::{Flags, Level, with_big_lock};
use crate::savevm::incoming::PostcopyState;
use crate::savevm::load;
use crate::savevm::owner::Owner;
use std::time::Duration;

/// How long a guest without all of its memory may take to stop, before its missing pages become unreadable.
const STOP_GRACE: Duration = Duration::from_secs(2);

impl Worker {
    /// Everything is loaded in precopy: takes the disks, starts the guest, and sends the verdict.
    pub(super) fn take_over(&self) -> Result<()> {
        let core = &self.shared.core;
        let sender = &self.shared.sender;
        let host = core.vm.host();
        let limit = core.params().switchover_timeout;
        let (peer_is_libsavevm, source_asked) = (self.shared.peer_is_libsavevm(), self.state().source_asked);
        let asks = peer_is_libsavevm || core.params().return_path == Choice::On;
        if asks && !source_asked {
            // A zero where a section should begin looks like EOF, but the source has not ended the stream.
            return Err(Error::invalid("the stream ends where the source can't have ended it: it is damaged"));
        }
        load::check_live_ended(&core.vm)?;
        core.check_further_settled()?;
        core.commit()?;
        // A source that is QEMU starts its guest again if it misses the verdict. So the guest starts here only after the
        // channel has taken the verdict.
        let verdict_first = sender.is_open() && !peer_is_libsavevm;
        // Only libsavevm takes the guest back when it hears that it could not be started here.
        let may_refuse = sender.is_open() && peer_is_libsavevm;
        with_big_lock(&*host, || self.take_disks())?;
        if verdict_first {
            sender.send_final(Message::Shut(0), limit).map_err(|error| {
                let text = format!("the verdict could not be sent to the source: {}", error.message());
                error.with_message(text)
            })?;
        }
        self.state().guest_is_here = !may_refuse;
        with_big_lock(&*host, || {
            // With this lock the host may start a guest that is here. So the owner is settled before the lock is released.
            core.set_owner(Owner::Here);
            self.run_guest().inspect_err(|_| self.settle_owner())?;
            self.state().guest_is_here = true;
            Ok(())
        })?;
        self.enter(Stage::Finish)
    }

    /// The guest is here with all of its memory: sends the verdict and ends the migration.
    pub(super) fn conclude(&self) -> Result<()> {
        if self.shared.sender.is_open() {
            self.shared.send_times();
            // A source that misses this learns it from its operator.
            let _ = self.shared.sender.send_final(Message::Shut(0), self.shared.core.params().switchover_timeout);
        }
        self.release();
        self.finish(Status::Completed);
        Ok(())
    }

    /// Gives the loaded state to the CPUs, takes the disks over and starts the guest. An error leaves the guest to a source
    /// that takes it back.
    pub(super) fn start_guest(&self) -> Result<()> {
        let host = self.shared.core.vm.host();
        // Only libsavevm takes the guest back when it hears that it could not be started here.
        self.state().guest_is_here = !self.shared.peer_is_libsavevm();
        with_big_lock(&*host, || {
            host.cpu_synchronize_post_load();
            self.take_disks()?;
            // Within the lock, because the host may start a guest that is here.
            self.shared.core.set_owner(Owner::Here);
            self.run_guest().inspect_err(|_| self.settle_owner())?;
            self.state().guest_is_here = true;
            Ok(())
        })
    }

    /// Takes the disks over; with the big lock.
    fn take_disks(&self) -> Result<()> {
        error::check("disks_activate", self.shared.core.vm.host().disks_activate())?;
        self.state().has_disks = true;
        self.shared.core.vm.ownership.clear_without_disks();
        Ok(())
    }

    /// Starts the guest, unless it was stopped at the source or is to be left stopped; with the big lock.
    fn run_guest(&self) -> Result<()> {
        let core = &self.shared.core;
        let is_stopped = self.state().guest_is_stopped || core.vm.global_state.was_stopped();
        if let Some(name) = core.vm.global_state.received().filter(|_| is_stopped) {
            log::info!("the guest was '{}' at its source, and stays stopped", name.to_string_lossy());
        }
        match core.params().autostart && !is_stopped {
            true => error::check("vm_start", core.vm.host().vm_start()),
            false => Ok(()),
        }
    }

    /// Releases the connection, in any case.
    fn release(&self) {
        self.shared.sender.close();
        self.shared.core.link.drop_channel();
        self.shared.core.vm.set_flags(Flags::POSTCOPY_RAM, false);
    }

    /// Ends the work: the context is free for the next migration. Comes with the last status.
    pub(super) fn finish(&self, status: Status) {
        let core = &self.shared.core;
        core.phase(None);
        self.state().stage = Stage::Done;
        self.shared.release_slot();
        if !core.advance(status) {
            // A request to cancel came in between; the migration is over all the same.
            core.advance(Status::Cancelled);
        }
    }

    /// The migration failed or was cancelled: this side does not start the guest any more and sends the reason to the source.
    pub(super) fn abort(&self, error: Error) {
        let core = &self.shared.core;
        // A package that is still being loaded starts no guest from here on.
        core.status_machine.refuse();
        self.state().stage = Stage::Done;
        core.fault_point();
        let (cancelled, error) = match core.interrupted() {
            Some(cancelled) => (true, cancelled),
            None => (false, error),
        };
        self.settle_owner();
        self.abort_postcopy();
        // The package's thread may have called a device meanwhile.
        self.settle_owner();
        let (guest_is_here, had_disks) = {
            let mut state = self.state();
            (state.guest_is_here, std::mem::take(&mut state.has_disks))
        };
        if had_disks && !guest_is_here {
            // Released as they were taken, before the source takes them. A failure can't be reported any more.
            let host = core.vm.host();
            let _ = with_big_lock(&*host, || host.disks_inactivate());
        }
        if guest_is_here && !core.status().is_postcopy() {
            // A source that hears of a failure takes the guest back.
            self.shared.sender.close();
        } else {
            let failure = match (cancelled, guest_is_here) {
                (true, _) => Failure::Cancelled,
                (false, false) => Failure::NotStarted,
                (false, true) => Failure::Started,
            };
            self.shared.send_failure(&error, failure);
        }
        core.set_error(error);
        self.release();
        self.finish(if cancelled { Status::Cancelled } else { Status::Failed });
    }

    /// Sets the owner of a guest whose load has ended without success.
    fn settle_owner(&self) {
        let core = &self.shared.core;
        let ownership = &core.vm.ownership;
        let guest_is_here = self.state().guest_is_here;
        match (ownership.is_partial(), guest_is_here, &self.shared.owner_before) {
            (true, ..) => core.set_owner(Owner::Torn),
            (false, true, _) => core.set_owner(Owner::Here),
            (false, false, Some(before)) if ownership.is_untouched() => core.restore_owner(before),
            (false, false, _) => core.set_owner(Owner::There),
        }
    }

    /// Ends a postcopy whose missing pages will not come.
    fn abort_postcopy(&self) {
        {
            let state = self.state();
            if !state.package.listening || state.postcopy == PostcopyState::End {
                return;
            }
        }
        // RUN may be in progress on the package's thread. It is refused from now on.
        if self.shared.core.status_machine.is_committed() {
            self.wait_state(LAST_LIMIT, |state| state.started || state.package.loaded.is_some());
        }
        let guest_is_here = self.state().guest_is_here;
        match self.postcopy_ram() {
            Some(ram) if guest_is_here => {
                // First of all no thread reads zeros where the guest's data should be, not even one that waits now.
                ram.abort(STOP_GRACE);
                ram.release(self.stop_guest());
            }
            // The guest has never run here and will not: devices that wait for pages go on.
            Some(ram) => ram.end(false),
            None => {}
        }
        self.wait_state(LAST_LIMIT, |state| state.package.loaded.is_some());
        self.close_postcopy();
    }

    /// Stops a guest whose missing pages will not come. Returns whether it is stopped.
    fn stop_guest(&self) -> bool {
        let host = self.shared.core.vm.host();
        let stopped =
            with_big_lock(&*host, || error::check("vm_stop", if host.vm_running() { host.vm_stop() } else { 0 }));
        if let Err(error) = &stopped {
            let text = format!("a guest without all of its memory could not be stopped: {error}");
            host.report(Level::Error, &text);
        }
        stopped.is_ok()
    }
}
