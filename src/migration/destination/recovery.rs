// SPDX-License-Identifier: LGPL-2.1-or-later
//! The destination's side of a broken postcopy: pausing, and continuing over a new connection.

use super::candidates::Candidates;
use super::stage::Stage;
use super::worker::{LAST_LIMIT, POLL, Worker};
use crate::channel::Channel;
use crate::error::{Error, Result};
use crate::file::MigFile;
use crate::migration::core::PAUSED;
use crate::savevm::fault::FaultPoint;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// Whether the connection is broken, rather than what came over it.
fn is_broken(file: &MigFile) -> bool {
    file.error() == -libc::EIO
}

impl Worker {
    /// The stream of a postcopy ended with an error. Once the guest runs here, every error pauses the postcopy, as in
    /// QEMU 7.2: the source still has the missing pages, and sends them over another connection.
    pub(super) fn stream_failed(&self, file: &mut Option<MigFile>, error: Error) -> Result<()> {
        if file.as_ref().is_some_and(is_broken) {
            self.wait_run();
        }
        let (stage, loaded) = {
            let state = self.state();
            (state.stage, state.package.loaded.clone())
        };
        if let Some(Err(cause)) = loaded {
            return Err(cause);
        }
        if stage == Stage::Running && self.state().all_arrived {
            // Only EOF is missing, which the source sends once it knows that. So no source is needed any more.
            return self.end_postcopy();
        }
        let abandoned = self.shared.requests.abandon.load(SeqCst);
        match self.postcopy_ram() {
            Some(ram) if matches!(stage, Stage::Running | Stage::Recover) && !abandoned => {
                let core = &self.shared.core;
                core.set_pause_error(PAUSED, &core.name_peer(error));
                core.link.drop_channel();
                self.shared.sender.close();
                drop(file.take());
                if stage == Stage::Running {
                    // A listener of an earlier break is of no use. One that was offered during a recovery is for the next.
                    drop(self.shared.requests.recovery_acceptor.take());
                }
                ram.paused();
                self.enter(Stage::Paused)
            }
            _ => Err(error),
        }
    }

    /// A source without the extensions releases the guest with the package, which may still be loading when the
    /// connection breaks after it. So loading is completed first, unless devices wait for pages.
    fn wait_run(&self) {
        if !self.shared.peer_is_libsavevm() {
            let core = &self.shared.core;
            self.wait_state(LAST_LIMIT, |state| {
                state.started || state.package.loaded.is_some() || core.interrupted().is_some()
            });
        }
    }

    /// Waits until the source is connected again.
    pub(super) fn wait_recovery(&self, file: &mut Option<MigFile>) -> Result<()> {
        let channel = self.accept_recovery()?;
        self.shared.core.vm.fault_point(FaultPoint::Recovery);
        let new = self.attach(&channel)?;
        // A client that is silent is not the source. Until RESUME the source waits no longer for an answer, either.
        self.shared.core.link.set_stall_limit(self.stall_limit().min(self.shared.core.params().handshake_timeout));
        let back = new.return_path().ok_or_else(|| Error::new(libc::ENOTSUP, "a recovery needs a return path"))?;
        self.shared.sender.open(back);
        *file = Some(new);
        self.enter(Stage::Recover)
    }

    fn accept_recovery(&self) -> Result<Arc<dyn Channel>> {
        let (core, requests) = (&self.shared.core, &self.shared.requests);
        let since = core.now();
        let (mut candidates, mut listening) = (Candidates::new(core), None);
        loop {
            if requests.abandon.load(SeqCst) {
                return Err(Error::new(libc::ECANCELED, "the paused postcopy was aborted"));
            }
            if core.params().recover_timeout.is_some_and(|limit| core.now().saturating_sub(since) > limit) {
                return Err(Error::new(libc::ETIMEDOUT, "the paused postcopy was not recovered in time"));
            }
            let generation = core.status_machine.generation();
            for error in candidates.take_refused() {
                let text = format!("closed a connection that did not begin a recovery: {}", error.message());
                core.report_failed_recovery(&error.with_message(text));
            }
            if let Some(channel) = candidates.take_source() {
                return Ok(channel);
            }
            // One that was offered meanwhile replaces the one before.
            listening = requests.recovery_acceptor.take().or(listening);
            let Some(acceptor) = listening.take_if(|_| !candidates.is_full()) else {
                core.status_machine.wait_changed(generation, POLL);
                continue;
            };
            match acceptor.accept(Some(candidates.accept_limit(POLL)), &core.cancel) {
                Ok(channel) if channel.is_duplex() && acceptor.accepts_more() => {
                    candidates.examine(channel);
                    listening = Some(acceptor);
                }
                Ok(channel) if channel.is_duplex() => match core.secure_accepted(channel) {
                    Ok(secured) => return Ok(secured),
                    Err(error) => core.report_failed_recovery(&error),
                },
                Ok(_) => {
                    let text = "this kind of connection has no return path";
                    core.report_failed_recovery(&Error::new(libc::ENOTSUP, text));
                }
                Err(error) if error.errno() == libc::ETIMEDOUT => listening = Some(acceptor),
                Err(error) => core.report_failed_recovery(&error),
            }
        }
    }
}
