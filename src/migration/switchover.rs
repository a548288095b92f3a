// SPDX-License-Identifier: LGPL-2.1-or-later
//! How precopy ends: the rest, the devices, the question whether all is loaded, EOF, and the verdict.
//!
//! ```text
//! source                                destination
//! END..., FULL..., disks given up  -->
//! PING loaded                      -->  all of that is loaded
//!                                  <--  PONG loaded
//! EOF                              -->  may start: takes the disks, starts the guest
//! VMDESCRIPTION                    -->
//!                                  <--  SHUT 0: it is here; (own ends) SHUT 1: it is not and will not be
//! ```

use super::answers::{Verdict, refusal};
use super::base::{Base, locked};
use super::outgoing::Outgoing;
use super::return_path;
use super::source::{Next, Source};
use crate::error::Result;
use crate::savevm::command;
use crate::savevm::save;
use std::sync::Arc;

impl Source {
    /// The guest is stopped: everything else goes.
    pub(super) fn complete(&mut self, m: &Arc<Outgoing>) -> Result<Next> {
        let (base, vm, host) = (&m.base, &m.base.vm, m.base.vm.host());
        let started = base.now();
        // Set before, since a host that fails half-way has given some of them up.
        self.disks_inactive = true;
        let file = self.file()?;
        file.status().set_rate_limit(0);
        let ending = locked(&*host, || save::prepare_completion(vm, file, true))?;
        self.check()?;
        self.ask_loaded(m)?;
        if base.stats.get().device_bytes > 0 {
            vm.slot.set_device_cost(base.now().saturating_sub(started));
        }
        base.commit()?;
        let file = self.file()?;
        save::end_of_stream(file);
        if let Some(error) = file.status().first_error() {
            // The one byte that would have started the destination was not taken.
            base.machine.uncommit();
            return Err(error);
        }
        save::finish(vm, file, &ending);
        self.verdict(m)?;
        self.succeed(m)
    }

    /// Waits for the destination's word that everything up to here is loaded. Whatever it answers to, QEMU included,
    /// answers in order.
    fn ask_loaded(&self, m: &Arc<Outgoing>) -> Result<()> {
        let Some(answers) = &self.answers else { return Ok(()) };
        command::ping(&m.base.vm, self.file()?, return_path::PING_LOADED);
        self.check()?;
        let limit = m.base.params().switchover_timeout;
        m.base.wait_for("the destination's word that everything is loaded", limit, || answers.loaded())
    }

    /// Behind EOF: how did it end over there?
    pub(super) fn verdict(&mut self, m: &Arc<Outgoing>) -> Result<()> {
        let base = &m.base;
        let Some(answers) = &self.answers else { return self.close_unanswered(base) };
        let limit = base.params().switchover_timeout;
        let verdict = base.wait_for("the destination's verdict", limit, || answers.verdict().map(Ok))?;
        match verdict {
            Verdict::Shut(0, _) => Ok(()),
            Verdict::Shut(value, text) => {
                if answers.extended() {
                    base.machine.uncommit();
                }
                Err(refusal(value, text.as_deref()))
            }
            Verdict::Broken(error) => Err(error),
        }
    }

    /// Without a return path all that can be known is whether the bytes went out.
    fn close_unanswered(&mut self, base: &Base) -> Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let sent = file.total_transferred_fast().max(0) as u64;
        let closed = file.close();
        self.earlier_bytes += sent;
        if closed.is_err() && self.to_file {
            base.machine.uncommit();
        }
        closed
    }

    /// Whether both ends are of this library.
    pub(super) fn extended(&self) -> bool {
        self.answers.as_ref().is_some_and(|answers| answers.extended())
    }
}
