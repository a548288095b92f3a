// SPDX-License-Identifier: LGPL-2.1-or-later
//! The commands of a stream, as an incoming migration executes them.

use super::package;
use super::stage::Stage;
use super::worker::{DEVICE_LIMIT, Worker};
use crate::error::{Error, Result};
use crate::file::MigFile;
use crate::migration::further;
use crate::migration::return_path::message::{self, Message};
use crate::savevm::fault::FaultPoint;
use crate::savevm::host::Level;
use crate::savevm::incoming::{self, LoadEnd, Opened, PostcopyState};
use crate::savevm::load;
use crate::savevm::slot::PageSource;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// The engine holds a trait object of its own, so that the worker can share a reference to itself.
pub(super) struct Commands(pub Arc<Worker>);

impl incoming::Incoming for Commands {
    fn open_return_path(&self, file: &MigFile) -> Result<()> {
        let shared = &self.0.shared;
        if shared.sender.is_open() {
            return Err(Error::new(libc::EEXIST, "the return path is open already"));
        }
        let back = file.return_path();
        shared.sender.open(back.ok_or_else(|| Error::new(libc::ENOTSUP, "this connection has no return path"))?);
        shared.core.stats.get().return_path = true;
        Ok(())
    }

    fn negotiates(&self) -> bool {
        self.0.negotiates()
    }

    fn negotiate(&self, file: &MigFile, refused: Vec<Error>) -> Result<Opened> {
        self.0.negotiate(file, refused)
    }

    fn header_loaded(&self) {
        self.0.handshake.finish();
    }

    fn is_strict(&self) -> bool {
        self.0.shared.core.params().strict
    }

    fn pong(&self, value: u32) -> Result<()> {
        let (worker, shared) = (&self.0, &self.0.shared);
        match value {
            _ if message::announced_channels(value).is_some() => {
                further::check_announced(&shared.core.params(), value)?;
            }
            message::PING_LOADED => {
                // Before the answer, so that the guest stays at its source.
                load::check_absent(&shared.core.vm, shared.core.params().strict)?;
                shared.core.settle_further()?;
                worker.state().source_asked = true;
            }
            message::PING_DEVICE_TIMES => shared.wants_times.store(true, SeqCst),
            message::PING_CANCELLED => {
                return Err(Error::new(libc::ECANCELED, "the migration was cancelled at the source"));
            }
            message::PING_GUEST_STOPPED => worker.state().guest_is_stopped = true,
            message::PING_ALL_SENT => {
                worker.note_all_sent()?;
                // Before the answer, behind which the source needs nothing but the verdict.
                shared.send_times();
            }
            // The RUN of a source without our extensions follows in the same package: it is too late to cancel.
            message::PING_PACKAGE_END if !worker.on_own_thread() && !shared.peer_is_libsavevm() => {
                shared.core.commit()?;
            }
            _ => {}
        }
        let sent = shared.sender.send(Message::Pong(value));
        if worker.on_own_thread() {
            // In a package an error is of no importance: the thread that reads the stream sees the break.
            sent?;
        }
        if value == message::PING_HELLO && shared.core.params().extensions {
            shared.core.stats.get().peer_is_libsavevm = true;
            shared.sender.send(Message::Pong(message::PONG_HELLO))?;
            if worker.negotiates() {
                shared.sender.send(Message::Pong(message::PONG_PREFLIGHT))?;
            }
        }
        Ok(())
    }

    fn switchover_ack(&self) -> Result<()> {
        self.0.shared.sender.send(Message::SwitchoverAck)
    }

    fn postcopy_state(&self, new: Option<PostcopyState>) -> PostcopyState {
        let mut state = self.0.state();
        let before = state.postcopy;
        state.postcopy = new.unwrap_or(before);
        before
    }

    fn postcopy_advise(&self, _ram: Option<(u64, u64)>) -> Result<()> {
        if !self.0.shared.core.params().postcopy {
            return Err(Error::new(libc::ENOTSUP, "postcopy is not enabled on this side"));
        }
        self.0.postcopy_ram().map_or(Ok(()), |ram| ram.advise())
    }

    fn postcopy_prepare_discard(&self) -> Result<()> {
        let Some(ram) = self.0.postcopy_ram() else { return Ok(()) };
        ram.prepare_discard()?;
        let mut state = self.0.state();
        if state.postcopy == PostcopyState::Advise {
            state.postcopy = PostcopyState::Discard;
        }
        Ok(())
    }

    fn postcopy_discard(&self, block: &[u8], start: u64, len: u64) -> Result<()> {
        let ram = self.0.postcopy_ram().ok_or_else(|| Error::new(libc::ENOTSUP, "no RAM takes part in postcopy"))?;
        ram.discard(block, start, len)
    }

    fn postcopy_listen(&self) -> Result<()> {
        let (worker, shared) = (&self.0, &self.0.shared);
        if worker.on_own_thread() {
            return Err(Error::new(libc::EPERM, "POSTCOPY_LISTEN outside of a package"));
        }
        shared.core.interrupted().map_or(Ok(()), Err)?;
        shared.pages_open.store(true, SeqCst);
        if let Some(ram) = worker.postcopy_ram() {
            let source: Arc<dyn PageSource> = Arc::clone(shared) as _;
            ram.listen(source, shared.core.address())?;
        }
        worker.state().package.listening = true;
        shared.core.status_machine.notify();
        Ok(())
    }

    fn postcopy_run(&self) -> Result<()> {
        let (worker, core) = (&self.0, &self.0.shared.core);
        if worker.on_own_thread() {
            // RUN outside of the package: the source has received the PONG for the devices, or it sent RUN in error.
            core.wait_for("loading the package", DEVICE_LIMIT, || worker.state().package.loaded.clone())?;
        } else {
            // The worker enters `listen` on its own thread.
            core.wait_for("reading on", DEVICE_LIMIT, || (worker.state().stage != Stage::Load).then_some(Ok(())))?;
        }
        core.commit()?;
        worker.start_guest()?;
        worker.enter(Stage::Running)?;
        worker.state().started = true;
        core.status_machine.notify();
        Ok(())
    }

    fn postcopy_resume(&self) -> Result<()> {
        let (worker, core) = (&self.0, &self.0.shared.core);
        if worker.state().stage != Stage::Recover {
            core.vm.host().report(Level::Warning, "POSTCOPY_RESUME without a recovery: ignored");
            return Ok(());
        }
        core.vm.fault_point(FaultPoint::Recovery);
        core.link.set_stall_limit(worker.stall_limit());
        worker.enter(Stage::Running)?;
        {
            let mut info = core.stats.get();
            info.recoveries += 1;
            info.pause_error = None;
        }
        worker.shared.sender.send(Message::ResumeAck(message::RESUME_ACK_VALUE))?;
        if let Some(ram) = worker.postcopy_ram() {
            ram.resumed();
        }
        Ok(())
    }

    fn recv_bitmap(&self, block: &[u8]) -> Result<()> {
        let worker = &self.0;
        if worker.state().stage != Stage::Recover {
            return Err(Error::new(libc::EPERM, "RECV_BITMAP outside of a recovery"));
        }
        worker.shared.core.vm.fault_point(FaultPoint::Recovery);
        let ram = worker.postcopy_ram().ok_or_else(|| Error::new(libc::ENOTSUP, "no RAM takes part in postcopy"))?;
        let bits = ram.received_bits(block)?;
        worker.shared.sender.send_bitmap(block.to_vec(), bits)
    }

    fn devices_need_lock(&self) -> bool {
        // While pages are received behind LISTEN, the package's thread loads devices with the lock, and may wait for pages.
        !(self.0.on_own_thread() && self.0.state().package.listening)
    }

    fn loads_packages(&self) -> bool {
        self.0.on_own_thread() && !self.0.state().package.listening
    }

    fn load_package(&self, stream: Vec<u8>, depth: u32) -> Result<LoadEnd> {
        package::start(&self.0, stream, depth)
    }

    fn main_loop_done(&self) -> bool {
        self.0.state().package.listening
    }
}
