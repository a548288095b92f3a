// SPDX-License-Identifier: LGPL-2.1-or-later
//! How the work of the source ends: the guest has moved, or it stays, and everything is released.

use super::shared::Shared;
use super::worker::{Next, Source};
use crate::error::{self, Error, Result};
use crate::migration::core::Core;
use crate::migration::return_path::message;
use crate::migration::status::Status;
use crate::migration::trace::Event;
use crate::savevm::host::{Flags, with_big_lock};
use crate::savevm::owner::Owner;
use crate::savevm::{command, save};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

impl Source {
    /// The guest has moved, or the stream is whole.
    pub fn succeed(&mut self, m: &Shared) -> Result<Next> {
        let core = &m.core;
        core.fault_point();
        if let Some(stopped) = self.stopped_at.filter(|_| !core.status().is_postcopy()) {
            let time = record_downtime(core, stopped);
            self.note_downtime(core, time);
        }
        core.set_owner(Owner::There);
        {
            let mut info = core.stats.get();
            info.transferred = info.transferred.max(self.transferred());
            info.remaining = Default::default();
        }
        self.release(m, true);
        m.finish(Status::Completed);
        Ok(Next::Done)
    }

    /// It failed or was cancelled. Where the destination can't have the guest, it runs on here.
    pub fn abort(&mut self, m: &Shared, error: Error) -> Next {
        let core = &m.core;
        core.fault_point();
        let (cancelled, error) = match core.interrupted() {
            Some(cancelled) => (true, cancelled),
            None if error.code() == -libc::EIO && !core.vm.is_poisoned() => {
                (false, self.final_error(core).unwrap_or(error))
            }
            None => (false, error),
        };
        let error = if cancelled { error } else { self.suggest(core, core.name_peer(error)) };
        if cancelled {
            self.report_cancel(m);
        }
        let committed = core.status_machine.is_committed();
        let owner = match (committed, core.status().is_postcopy()) {
            (false, _) => Owner::Here,
            (true, true) => self.owner_in_postcopy(core),
            (true, false) => Owner::Unknown,
        };
        let error = match committed {
            true => not_ours(error, owner == Owner::There),
            false => error,
        };
        core.set_owner(owner);
        // First of all, so that nothing more gets out that could start the destination.
        let ended = core.link.close();
        self.close_reader(ended);
        let failed = if committed { Ok(()) } else { self.rollback(core) };
        self.release(m, ended);
        let restarted = failed.is_ok();
        if let Err(more) = failed {
            let text = format!("{}; then, going on here: {}", error.message(), more.message());
            core.set_error(error.with_message(text));
        } else {
            core.set_error(error);
        }
        m.finish(if cancelled && restarted { Status::Cancelled } else { Status::Failed });
        Next::Done
    }

    /// Adds what to set if the destination may be a QEMU that refused postcopy after several connections. It gives no reason.
    fn suggest(&self, core: &Core, error: Error) -> Error {
        let asked = self.further.is_some() && core.params().postcopy;
        if !asked || self.peer_is_libsavevm() || core.status().is_postcopy() {
            return error;
        }
        let text = format!(
            "{} (a QEMU before 10.1 has no postcopy after several connections: disable postcopy, or set channels to 1)",
            error.message()
        );
        error.with_message(text)
    }

    /// Reports to the destination that the migration was cancelled here. Only libsavevm understands that.
    pub(super) fn report_cancel(&self, m: &Shared) {
        const LIMIT: Duration = Duration::from_millis(100);
        let file = self.file.as_ref().filter(|file| self.peer_is_libsavevm() && file.error() == 0);
        if let Some(file) = file {
            m.core.link.set_stall_limit(LIMIT);
            command::ping(&m.core.vm, file, message::PING_CANCELLED);
        }
        m.requests.farewell.store(true, SeqCst);
        m.core.status_machine.notify();
    }

    /// A connection that breaks may do so because the destination gave up.
    pub(super) fn final_error(&self, core: &Core) -> Option<Error> {
        self.reader.as_ref().and_then(|reader| reader.final_error(core))
    }

    /// Takes the disks and the guest back.
    fn rollback(&mut self, core: &Core) -> Result<()> {
        core.fault_point();
        let host = core.vm.host();
        with_big_lock(&*host, || {
            if std::mem::take(&mut self.disks_inactive) {
                take_disks_back(core)?;
            }
            core.vm.ownership.hold(false);
            if self.stopped_at.is_some() && std::mem::take(&mut self.was_running) {
                error::check("vm_start", host.vm_start())?;
            }
            Ok(())
        })?;
        if let Some(stopped) = self.stopped_at.take() {
            record_downtime(core, stopped);
        }
        Ok(())
    }

    /// Ends a connection that no migration uses.
    pub(super) fn end_visit(&mut self, m: &Shared) {
        let ended = m.core.link.close();
        self.close_reader(ended);
        self.release(m, ended);
    }

    pub fn close_reader(&mut self, connection_ended: bool) {
        if let Some(mut reader) = self.reader.take() {
            reader.stop(connection_ended);
        }
    }

    /// Releases everything that was taken, in any case.
    fn release(&mut self, m: &Shared, connection_ended: bool) {
        let (core, vm) = (&m.core, &m.core.vm);
        if self.throttle != 0 {
            vm.host().throttle(0);
            self.throttle = 0;
        }
        if let Some(file) = self.file.take() {
            // Its error was looked at before, where it means something.
            let _ = file.close();
        }
        self.close_reader(connection_ended);
        core.link.drop_channel();
        self.channel = None;
        self.sink = None;
        // An endpoint that was not used yet may own a descriptor.
        self.to = None;
        if std::mem::take(&mut self.set_up) {
            with_big_lock(&*vm.host(), || save::cleanup(vm));
        }
        vm.set_flags(Flags::IN_POSTCOPY, false);
        vm.set_flags(Flags::POSTCOPY_RAM, false);
    }
}

/// The guest runs again, here or there: writes down how long it was stopped.
pub(super) fn record_downtime(core: &Core, stopped_at: Duration) -> Duration {
    let time = core.now().saturating_sub(stopped_at);
    core.stats.get().downtime = time;
    core.trace.write(core.now(), &Event::Downtime { time: Some(time) });
    time
}

/// Activates the disks of a guest that stays here; with the big lock. Without them the guest may not run.
fn take_disks_back(core: &Core) -> Result<()> {
    let ownership = &core.vm.ownership;
    error::check("disks_activate", core.vm.host().disks_activate()).map_err(|error| {
        ownership.set_without_disks(error.to_string());
        let text = format!("{}, so the guest is here, stays stopped and may not run", error.message());
        error.with_message(text)
    })?;
    ownership.clear_without_disks();
    Ok(())
}

/// The error of a migration whose guest is not this side's any more.
fn not_ours(error: Error, handed: bool) -> Error {
    let cause = error.message();
    let text = match handed {
        true => format!("{cause}; the guest was handed over and does not run here"),
        false => format!(
            "{cause}; the destination may run the guest, so it stays stopped here until an operator with access to both sides \
             decides"
        ),
    };
    error.with_message(text)
}
