// SPDX-License-Identifier: LGPL-2.1-or-later
//! The source in postcopy: the switch, the background copy, the pause and the recovery (QEMU 7.2, `postcopy_start` and
//! what follows it in `migration/migration.c`).
//!
//! ```text
//! source                                       destination
//! END... of precopy-only devices, DISCARD...  -->
//! PACKAGED { LISTEN FULL... PING 3 RUN }      -->   loads it while pages arrive, starts the guest
//! ```
//! QEMU loses the guest if the destination fails to load the devices. If both ends are libsavevm, RUN is not in the
//! package, which ends with PING and EOF instead. The source sends RUN after the destination has reported that the devices
//! are loaded. Until then the source can continue its guest.
//!
//! ```text
//! PACKAGED { LISTEN FULL... PING 0x53564d03 EOF }  -->   loads devices
//! PART... (pages that these ask for)               -->
//!                                                  <--   PONG 0x53564d03 (devices are loaded)
//! RUN, PING 4                                      -->   starts the guest
//!                                                  <--   PONG 4 (the guest was handed over)
//! PART... (pages)  END... PING 0x53564d07          -->   receives the remaining pages
//!                                                  <--   PONG 0x53564d07 (all pages arrived)
//! EOF                                              -->
//!                                                  <--   SHUT 0
//! ```
//! PING 0x53564d07 is `message::PING_ALL_SENT`. After its PONG the source needs nothing more, so a lost SHUT does not
//! delay the end. `docs/stream-format.md` has all messages.

use super::ending::record_downtime;
use super::rate::Rate;
use super::shared::Shared;
use super::worker::{NOW, Next, POLL, Source, Step, set_rate_limit};
use crate::channel::{Channel, memory};
use crate::error::{self, Error, Result};
use crate::file::MigFile;
use crate::migration::core::{AskBitmap, Core, PAUSED, RECOVERY_FAILED};
use crate::migration::return_path::message;
use crate::migration::return_path::reader::{Reader, Verdict, refusal};
use crate::migration::status::Status;
use crate::savevm::fault::FaultPoint;
use crate::savevm::host::{Flags, with_big_lock};
use crate::savevm::owner::Owner;
use crate::savevm::save::{self, Completion, Disks};
use crate::savevm::{Vm, command, switchover};
use crate::wire;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// The content of the package: listen, all devices, and what ends it.
fn package(vm: &Vm, peer_is_libsavevm: bool, is_stopped: bool) -> Result<Vec<u8>> {
    let writer = Arc::new(memory::Writer::new());
    let file = MigFile::new(writer.clone(), true);
    command::postcopy_listen(vm, &file);
    save::complete_precopy(vm, &file, Completion::All(Disks::Keep)).map_err(|error| file.explain(error))?;
    if peer_is_libsavevm {
        if is_stopped {
            command::ping(vm, &file, message::PING_GUEST_STOPPED);
        }
        command::ping(vm, &file, message::PING_LOADED);
        file.put_byte(wire::EOF);
    } else {
        command::ping(vm, &file, message::PING_PACKAGE_END);
        command::postcopy_run(vm, &file);
    }
    file.close()?;
    Ok(writer.take())
}

impl Source {
    pub(super) fn start_postcopy(&mut self, m: &Shared) -> Result<Next> {
        let (core, vm, host) = (&m.core, &m.core.vm, m.core.vm.host());
        let peer_is_libsavevm = self.peer_is_libsavevm();
        if peer_is_libsavevm && core.status() == Status::Active {
            core.enter(Status::Device)?;
        }
        vm.set_flags(Flags::IN_POSTCOPY, true);
        self.disks_inactive = true;
        let file = self.file()?;
        let stream = with_big_lock(&*host, || {
            error::check("disks_inactivate", host.disks_inactivate())?;
            switchover::send_start(vm, file);
            save::complete_precopy(vm, file, Completion::Live).map_err(|error| file.explain(error))?;
            if let Some(ram) = vm.slot.ram() {
                ram.send_discards(file)?;
                command::ping(vm, file, message::PING_DISCARDED);
            }
            package(vm, peer_is_libsavevm, self.guest_is_stopped(&*host))
        })?;
        set_rate_limit(file, core.params().max_postcopy_bandwidth);
        file.flush();
        self.check()?;
        if !peer_is_libsavevm {
            // A destination that has the whole package may start the guest.
            core.commit()?;
        }
        let file = self.file()?;
        let sent = command::packaged(vm, file, &stream).and_then(|()| {
            file.flush();
            file.check()
        });
        if let Err(error) = sent {
            // It is loaded only when it is whole, and it never was.
            core.uncommit();
            return Err(error);
        }
        self.packaged_at = core.now();
        self.next = Step::Postcopy { handed: !peer_is_libsavevm };
        if !peer_is_libsavevm {
            self.handed_over(m)?;
        }
        Ok(NOW)
    }

    /// The destination runs the guest, or will, whatever happens here.
    fn handed_over(&mut self, m: &Shared) -> Result<()> {
        let core = &m.core;
        core.fault_point();
        core.enter(Status::PostcopyActive)?;
        // The owner stays unknown until the destination has shown that the guest arrived.
        if let Some(stopped) = self.stopped_at {
            record_downtime(core, stopped);
        }
        if core.vm.slot.ram().is_some() {
            command::ping(&core.vm, self.file()?, message::PING_HANDED_OVER);
        }
        Ok(())
    }

    /// Sends RUN once the destination has said that it can.
    fn hand_over(&mut self, m: &Shared) -> Result<bool> {
        let core = &m.core;
        let Some(answer) = self.reader.as_ref().and_then(|reader| reader.loaded()) else {
            if core.now().saturating_sub(self.packaged_at) > core.params().switchover_timeout {
                let text = "the destination did not report in time that the devices are loaded";
                return Err(Error::new(libc::ETIMEDOUT, text));
            }
            return Ok(false);
        };
        answer?;
        core.fault_point();
        self.file()?.check()?;
        core.commit()?;
        let file = self.file()?;
        file.flush();
        file.check().inspect_err(|_| core.uncommit())?;
        command::postcopy_run(&core.vm, file);
        if let Err(error) = file.check() {
            // Not all of the command was taken.
            core.uncommit();
            return Err(error);
        }
        self.handed_over(m)?;
        self.next = Step::Postcopy { handed: true };
        Ok(true)
    }

    /// Background copy, with what is asked for first; the RAM handler minds that.
    pub(super) fn postcopy(&mut self, m: &Shared, handed: bool) -> Result<Next> {
        let handed = handed || self.hand_over(m)?;
        match self.copy(m, handed) {
            Err(error) if handed => self.broken(m, error),
            other => other,
        }
    }

    fn copy(&mut self, m: &Shared, handed: bool) -> Result<Next> {
        let (core, vm) = (&m.core, &m.core.vm);
        self.note_arrival(core);
        self.check()?;
        let max_bandwidth = core.params().max_postcopy_bandwidth;
        let urgent = self.reader.as_ref().map_or(0, |reader| reader.take_requested());
        if let Some(next) = self.pace(core, max_bandwidth)?.filter(|_| urgent == 0) {
            return Ok(next);
        }
        if !handed && urgent == 0 {
            // The guest is stopped until RUN, which must not wait behind pages that were not requested.
            self.keep_alive(core)?;
            return Ok(POLL);
        }
        let threshold = self.rate.last.threshold;
        let pending = save::pending(vm, self.file()?, threshold);
        core.stats.get().remaining = pending;
        self.see(core, pending.total(), 0);
        if handed && (pending.total() == 0 || pending.total() < threshold) {
            return self.complete_postcopy(m);
        }
        self.make_room(urgent, handed)?;
        let next = self.round(core, vm, true);
        set_rate_limit(self.file()?, max_bandwidth);
        next
    }

    /// What the guest waits for goes out at once, over the rate limit (QEMU 7.2's urgent requests). The limit moves only as
    /// far as that takes, with the heads of the pages, so that the background copy keeps to it.
    fn make_room(&self, urgent: u64, handed: bool) -> Result<()> {
        let file = self.file()?;
        let limit = file.status().rate_limit();
        let room = i64::try_from(urgent.saturating_add(urgent / 64)).unwrap_or(i64::MAX);
        let needed = file.rate_used().saturating_add(room);
        if !handed {
            file.status().set_rate_limit(needed);
        } else if urgent > 0 && limit > 0 {
            file.status().set_rate_limit(limit.max(needed));
        }
        Ok(())
    }

    fn complete_postcopy(&mut self, m: &Shared) -> Result<Next> {
        let (core, vm, host) = (&m.core, &m.core.vm, m.core.vm.host());
        let file = self.file()?;
        core.fault_point();
        let limit = core.params().switchover_timeout;
        with_big_lock(&*host, || save::complete_postcopy_sections(vm, file));
        core.fault_point();
        file.check()?;
        core.stats.get().rounds += 1;
        if self.reader.is_some() {
            // The verdict may be lost when the destination has ended already. So EOF follows when nothing is needed any more.
            // A QEMU answers as well, after it has loaded all pages.
            command::ping(vm, file, message::PING_ALL_SENT);
            file.check()?;
            self.all_sent = true;
        }
        let (file, reader) = (self.file()?, self.reader.as_ref());
        if let Some(reader) = reader {
            core.wait_for("the destination's answer that all pages arrived", limit, || reader.all_arrived())?;
        }
        save::end_of_stream(file);
        let peer_is_libsavevm = reader.is_some_and(|reader| reader.peer_is_libsavevm());
        if !peer_is_libsavevm {
            // Only libsavevm ends without EOF once all pages arrived.
            file.check()?;
        }
        let verdict = match reader {
            Some(reader) => core.wait_for("the destination's verdict", limit, || reader.verdict().map(Ok)),
            None => Ok(Verdict::Shut(0, None)),
        };
        let (lost, verdict) = match verdict {
            Ok(Verdict::Shut(0, _)) => (false, Ok(())),
            Ok(Verdict::Shut(value, text)) => (false, Err(refusal(value, text.as_deref()))),
            Ok(Verdict::Broken(error)) | Err(error) => (true, Err(error)),
        };
        if let Err(error) = verdict.and_then(|()| file.check()) {
            // A QEMU is known to have all pages, but may never have started the guest.
            let arrived = self.arrived || reader.is_some_and(|reader| reader.handed_over());
            let is_whole_there = peer_is_libsavevm || (lost && arrived);
            if !is_whole_there {
                return Err(error);
            }
            log::info!("the destination has all of the guest, but its verdict was lost: {error}");
            // Ends the reader, which may still wait.
            let ended = core.link.close();
            self.close_reader(ended);
        }
        self.succeed(m)
    }

    /// Whether the destination has said that it did not start the guest, and will not. It says so only on the connection
    /// over which RUN was sent, and a destination that has said that the guest arrived can't say it.
    fn was_not_started(&mut self, core: &Core, verdict: Option<&Verdict>) -> bool {
        self.note_arrival(core);
        let said = matches!(verdict, Some(Verdict::Shut(message::SHUT_CANCELLED | message::SHUT_NOT_STARTED, Some(_))));
        said && !self.arrived && self.peer_is_libsavevm() && core.stats.get().recoveries == 0
    }

    /// Sets the owner once the destination has shown that the guest arrived.
    fn note_arrival(&mut self, core: &Core) {
        if !self.arrived && self.reader.as_ref().is_some_and(|reader| reader.handed_over()) {
            self.arrived = true;
            core.set_owner(Owner::There);
        }
    }

    /// The owner after the hand-over. RUN, or the package, may be lost on its way.
    pub(super) fn owner_in_postcopy(&mut self, core: &Core) -> Owner {
        self.note_arrival(core);
        if self.arrived { Owner::There } else { Owner::Unknown }
    }

    /// An error after the hand-over: pauses where the rest can be sent over another connection.
    fn broken(&mut self, m: &Shared, error: Error) -> Result<Next> {
        let core = &m.core;
        core.fault_point();
        // What the destination has sent before the break counts. Without a reason SHUT may be a damaged message of a
        // destination that goes on.
        let verdict = self.reader.as_ref().and_then(|reader| reader.final_verdict(core));
        let refused = matches!(verdict, Some(Verdict::Shut(1.., Some(_))));
        if self.was_not_started(core, verdict.as_ref()) {
            // The guest is whole here: no page was changed since it stopped.
            core.uncommit();
            return Err(error);
        }
        if refused || core.vm.is_poisoned() || core.vm.slot.ram().is_none() || m.requests.abandon.load(SeqCst) {
            return Err(error);
        }
        core.set_pause_error(PAUSED, &core.name_peer(error));
        let owner = self.owner_in_postcopy(core);
        core.set_owner(owner);
        self.disconnect(core);
        // A connection that was offered for an earlier break is of no use any more.
        drop(m.requests.recovery_channel.take());
        core.enter(Status::PostcopyPaused)?;
        self.next = Step::Paused { since: core.now() };
        Ok(NOW)
    }

    fn disconnect(&mut self, core: &Core) {
        self.earlier_bytes = self.transferred();
        let ended = core.link.drop_channel();
        self.close_reader(ended);
        if let Some(file) = self.file.take() {
            let _ = file.close();
        }
        self.channel = None;
    }

    pub(super) fn paused(&mut self, m: &Shared, since: Duration) -> Result<Next> {
        let core = &m.core;
        if m.requests.abandon.load(SeqCst) {
            return Err(Error::new(libc::ECANCELED, "the paused postcopy was aborted"));
        }
        let late = core.params().recover_timeout.is_some_and(|limit| core.now().saturating_sub(since) > limit);
        let recovery_channel = m.requests.recovery_channel.take();
        let Some(channel) = recovery_channel else {
            return if late {
                Err(Error::new(libc::ETIMEDOUT, "the paused postcopy was not recovered in time"))
            } else {
                Ok(POLL)
            };
        };
        core.enter(Status::PostcopyRecover)?;
        match self.recover(m, channel) {
            Ok(()) => {
                core.enter(Status::PostcopyActive)?;
                {
                    let mut info = core.stats.get();
                    info.recoveries += 1;
                    info.pause_error = None;
                }
                self.arrived = true;
                core.set_owner(Owner::There);
                self.next = Step::Postcopy { handed: true };
            }
            Err(_) if self.is_completed_there(core) => {
                core.enter(Status::PostcopyActive)?;
                *core.recovery.lock() = None;
                return self.succeed(m);
            }
            Err(error) => {
                core.set_pause_error(RECOVERY_FAILED, &error);
                self.disconnect(core);
                core.enter(Status::PostcopyPaused)?;
            }
        }
        *core.recovery.lock() = None;
        Ok(NOW)
    }

    /// Whether the destination has answered a recovery with the verdict of a completed migration: the answer that all pages
    /// arrived was lost.
    fn is_completed_there(&self, core: &Core) -> bool {
        let Some(reader) = self.reader.as_ref().filter(|reader| self.all_sent && reader.peer_is_libsavevm()) else {
            return false;
        };
        matches!(reader.final_verdict(core), Some(Verdict::Shut(0, _)))
    }

    /// What arrived is asked for, the handlers get ready, and the destination agrees.
    fn recover(&mut self, m: &Shared, channel: Arc<dyn Channel>) -> Result<()> {
        let (core, vm) = (&m.core, &m.core.vm);
        vm.fault_point(FaultPoint::Recovery);
        self.attach(m, channel, core.info().peer_is_libsavevm)?;
        let reader = self.reader.as_ref().ok_or_else(|| Error::invalid("a recovery needs the return path"))?;
        let limit = core.params().handshake_timeout;
        let ask = self.ask_bitmap(core, reader, limit)?;
        *core.recovery.lock() = Some(Arc::clone(&ask));
        if let Some(ram) = vm.slot.ram() {
            for block in ram.blocks() {
                ask(&block)?;
            }
        }
        save::resume_prepare(vm, core.address())?;
        let file = self.file()?;
        set_rate_limit(file, core.params().max_postcopy_bandwidth);
        command::postcopy_resume(vm, file);
        file.check()?;
        let ack = core.wait_for("the destination's agreement to go on", limit, || reader.resume_ack())?;
        if ack != message::RESUME_ACK_VALUE {
            return Err(Error::invalid(format!("the destination does not go on: RESUME_ACK {ack}")));
        }
        self.rate = Rate::new(core.now(), self.transferred());
        self.steering.flow.interrupt(core.now());
        Ok(())
    }

    /// The file is used between two commands only, so a second one over the same channel does no harm.
    fn ask_bitmap(&self, core: &Arc<Core>, reader: &Reader, limit: Duration) -> Result<AskBitmap> {
        let (weak, state) = (Arc::downgrade(core), reader.state());
        let channel = self.channel.clone().ok_or_else(|| Error::new(libc::ENOTCONN, "there is no connection"))?;
        Ok(Arc::new(move |block: &[u8]| {
            let core = weak.upgrade().ok_or_else(|| Error::new(libc::ENOTCONN, "the migration is over"))?;
            core.vm.fault_point(FaultPoint::Recovery);
            let file = MigFile::new(Arc::clone(&channel), true);
            command::recv_bitmap(&core.vm, &file, block)?;
            file.check()?;
            core.wait_for("a received bitmap", limit, || state.bitmap(block))
        }))
    }
}
