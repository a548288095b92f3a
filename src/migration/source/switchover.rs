// SPDX-License-Identifier: LGPL-2.1-or-later
//! How precopy ends: the rest, the devices, the question whether all is loaded, EOF, and the verdict.
//!
//! ```text
//! source                                destination
//! END..., FULL..., disks released  -->
//! PING loaded                      -->  all of that is loaded
//!                                  <--  PONG loaded
//! EOF                              -->  may start: takes the disks, starts the guest
//! VMDESCRIPTION                    -->
//!                                  <--  SHUT 0: it is here; (own ends) SHUT 1: it is not and will not be
//! ```

use super::shared::Shared;
use super::worker::{Next, Source};
use crate::error::Result;
use crate::migration::core::Core;
use crate::migration::return_path::message;
use crate::migration::return_path::reader::{Verdict, refusal};
use crate::savevm::command;
use crate::savevm::host::{Host, with_big_lock};
use crate::savevm::save;

impl Source {
    /// The guest is stopped: everything else goes.
    pub(super) fn complete(&mut self, m: &Shared) -> Result<Next> {
        let (core, vm, host) = (&m.core, &m.core.vm, m.core.vm.host());
        // Set before, since a host that fails half-way has given some of them up.
        self.disks_inactive = true;
        let file = self.file()?;
        file.status().set_rate_limit(0);
        let ending =
            with_big_lock(&*host, || save::prepare_completion(vm, file)).map_err(|error| file.explain(error))?;
        self.check()?;
        core.fault_point();
        self.ask_loaded(m)?;
        core.fault_point();
        core.commit()?;
        let file = self.file()?;
        save::end_of_stream(file);
        // On an error the one byte that would have started the destination was not taken.
        file.check().inspect_err(|_| core.uncommit())?;
        save::finish(vm, file, &ending);
        core.fault_point();
        self.verdict(m)?;
        self.succeed(m)
    }

    /// Waits for the destination's word that everything up to here is loaded. Whatever it answers to, QEMU included,
    /// answers in order.
    fn ask_loaded(&self, m: &Shared) -> Result<()> {
        let Some(reader) = &self.reader else { return Ok(()) };
        let vm = &m.core.vm;
        if self.peer_is_libsavevm() && self.guest_is_stopped(&*vm.host()) {
            command::ping(vm, self.file()?, message::PING_GUEST_STOPPED);
        }
        command::ping(vm, self.file()?, message::PING_LOADED);
        self.check()?;
        let limit = m.core.params().switchover_timeout;
        m.core.wait_for("the destination's word that everything is loaded", limit, || reader.loaded())
    }

    /// Behind EOF: how did it end over there?
    pub(super) fn verdict(&mut self, m: &Shared) -> Result<()> {
        let core = &m.core;
        let Some(reader) = &self.reader else { return self.close_unanswered(core) };
        let limit = core.params().switchover_timeout;
        let verdict = core.wait_for("the destination's verdict", limit, || reader.verdict().map(Ok))?;
        match verdict {
            Verdict::Shut(0, _) => Ok(()),
            Verdict::Shut(value, text) => {
                if reader.peer_is_libsavevm() {
                    core.uncommit();
                }
                Err(refusal(value, text.as_deref()))
            }
            Verdict::Broken(error) => Err(error),
        }
    }

    /// Without a return path all that can be known is whether the bytes went out.
    fn close_unanswered(&mut self, core: &Core) -> Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let sent = file.total_transferred_fast().max(0) as u64;
        let closed = file.close();
        self.earlier_bytes += sent;
        let closed = match self.sink.take() {
            Some(sink) => sink.finish(closed),
            None => closed,
        };
        if closed.is_err() && self.to_file {
            core.uncommit();
        }
        closed
    }

    /// Whether the guest was stopped before this migration stopped it, and must stay so at the destination.
    pub(super) fn guest_is_stopped(&self, host: &dyn Host) -> bool {
        !self.was_running && host.knows_run_state()
    }

    /// Whether both ends are of this library.
    pub(super) fn peer_is_libsavevm(&self) -> bool {
        self.reader.as_ref().is_some_and(|reader| reader.peer_is_libsavevm())
    }
}
