// SPDX-License-Identifier: LGPL-2.1-or-later
//! The worker of the destination: its stage, its step function, and the steps that read the stream.
//!
//! Two threads work here. The worker's own thread reads the stream. In postcopy, a second thread loads the package
//! (`package.rs`); it changes the stage once, at a RUN inside the package. The big lock is held while devices are called and
//! while the guest and the disks are handed over. It is released while the worker waits for bytes between two sections. (QEMU
//! waits in a coroutine instead, so its main loop continues.)

use super::entrance::Entrance;
use super::handshake::Handshake;
use super::meter::Metered;
use super::shared::Shared;
use super::stage::Stage;
use crate::channel::Channel;
use crate::error::{Error, Phase, Result};
use crate::file::MigFile;
use crate::migration::endpoint::DESTINATION_STALL;
use crate::savevm::host::{Flags, with_big_lock};
use crate::savevm::incoming::{LoadEnd, PostcopyState};
use crate::savevm::load;
use crate::savevm::slot::PostcopyRam;
use crate::sync::{Mutex, MutexGuard, Rank};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, OnceLock};
use std::thread::{self, ThreadId};
use std::time::Duration;

/// Limit for waiting for another thread that is inside a device.
pub(super) const DEVICE_LIMIT: Duration = Duration::from_secs(86_400);
/// The same limit after everything has failed.
pub(super) const LAST_LIMIT: Duration = Duration::from_secs(10);
/// How often a paused postcopy looks for a new connection.
pub(super) const POLL: Duration = Duration::from_millis(50);

/// The package of a postcopy, which a thread of its own loads.
#[derive(Default)]
pub(super) struct Package {
    /// LISTEN was processed: the worker may read on.
    pub listening: bool,
    /// How loading it ended.
    pub loaded: Option<Result<()>>,
}

/// The stage of the worker, and what it knows of the source and the guest.
pub(super) struct State {
    pub stage: Stage,
    pub postcopy: PostcopyState,
    pub package: Package,
    /// The source asked whether everything is loaded, which it does just before EOF.
    pub source_asked: bool,
    /// The guest was stopped at the source, and stays so here.
    pub guest_is_stopped: bool,
    /// Postcopy: the source has sent everything, and it arrived.
    pub all_arrived: bool,
    /// The source has released the guest: it is here, whether it runs or not.
    pub guest_is_here: bool,
    /// The guest was started, or left stopped on request, and runs or is stopped here with pages missing.
    pub started: bool,
    /// The disks were taken over.
    pub has_disks: bool,
}

/// Closes the listener and the file before the last status, so that they are closed when a wait for it returns.
fn close(entrance: &mut Entrance, file: &mut Option<MigFile>) {
    drop(file.take());
    entrance.close();
}

/// See the module.
pub(super) struct Worker {
    pub shared: Arc<Shared>,
    state: Mutex<State>,
    thread: OnceLock<ThreadId>,
    /// The deadline for the beginning of the stream.
    pub handshake: Arc<Handshake>,
}

impl Worker {
    pub fn new(shared: Arc<Shared>) -> Self {
        let state = State {
            stage: Stage::Accept,
            postcopy: PostcopyState::None,
            package: Package::default(),
            source_asked: false,
            guest_is_stopped: false,
            all_arrived: false,
            guest_is_here: false,
            started: false,
            has_disks: false,
        };
        let handshake = Arc::new(Handshake::new(shared.core.params().handshake_timeout));
        Self { shared, state: Mutex::new(Rank::IncomingState, state), thread: OnceLock::new(), handshake }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Whether this is the thread that reads the stream.
    pub fn on_own_thread(&self) -> bool {
        self.thread.get() == Some(&thread::current().id())
    }

    /// The RAM, if it takes part in postcopy.
    pub fn postcopy_ram(&self) -> Option<Arc<dyn PostcopyRam>> {
        let vm = &self.shared.core.vm;
        vm.slot.ram().filter(|_| vm.flags().has(Flags::POSTCOPY_RAM))
    }

    /// Does all of the work, from the connection to the last status.
    pub fn run(&self, entrance: &mut Entrance) {
        let _ = self.thread.set(thread::current().id());
        let mut file = None;
        loop {
            let stage = self.state().stage;
            if stage == Stage::Done {
                return;
            }
            if let Err(error) = self.step(stage, entrance, &mut file) {
                let core = &self.shared.core;
                // What ended the main connection may be the failure of a further one.
                let error = core.check_further().err().unwrap_or_else(|| core.name_peer(error));
                close(entrance, &mut file);
                return self.abort(error);
            }
        }
    }

    /// Does the step of a stage. It ends in another stage, or with an error that ends the migration.
    fn step(&self, stage: Stage, entrance: &mut Entrance, file: &mut Option<MigFile>) -> Result<()> {
        if let Some(phase) = stage.phase() {
            self.shared.core.phase(Some(phase));
        }
        self.shared.core.fault_point();
        match stage {
            Stage::Accept => self.accept(entrance, file),
            Stage::Load => self.load(file),
            Stage::Listen | Stage::Running | Stage::Recover => self.receive_pages(file),
            Stage::Paused => self.wait_recovery(file),
            Stage::TakeOver => self.take_over(),
            Stage::Finish => {
                close(entrance, file);
                self.conclude()
            }
            Stage::Done => Ok(()),
        }
    }

    /// Enters another stage and its status. An error if that is not possible any more.
    pub fn enter(&self, to: Stage) -> Result<()> {
        let from = self.state().stage;
        if !from.may_become(to) {
            return Err(Error::new(libc::EIO, format!("the destination can't go from {from:?} to {to:?}")));
        }
        if let Some(status) = to.status() {
            self.shared.core.enter(status)?;
        }
        self.state().stage = to;
        self.shared.core.status_machine.notify();
        Ok(())
    }

    /// Waits for the state, whatever the status is. False after `limit`.
    pub fn wait_state(&self, limit: Duration, done: impl Fn(&State) -> bool) -> bool {
        self.shared.core.wait_quietly(limit, || done(&self.state()))
    }

    /// Longest wait until bytes arrive, outside of the handshake.
    pub(super) fn stall_limit(&self) -> Duration {
        self.shared.core.params().stall_timeout.unwrap_or(DESTINATION_STALL)
    }

    /// Makes a channel the connection in use.
    pub fn attach(&self, channel: &Arc<dyn Channel>) -> Result<MigFile> {
        let core = &self.shared.core;
        if !core.link.set(channel) {
            return Err(Error::new(libc::ECANCELED, "the migration was cancelled"));
        }
        let stall = self.stall_limit();
        channel.set_stall_limit(Some(stall));
        let (inner, stats, handshake) = (Arc::clone(channel), Arc::clone(&core.stats), Arc::clone(&self.handshake));
        Ok(MigFile::new(Arc::new(Metered { inner, stats, handshake, stall }), false))
    }

    /// Loads a whole stream, or its beginning up to the package of a postcopy.
    fn load(&self, file: &mut Option<MigFile>) -> Result<()> {
        let vm = &self.shared.core.vm;
        let end = load::opened(vm, connected(file)?);
        if matches!(&end, Err(error) if error.phase() == Some(Phase::LoadSetup)) {
            // The engine leaves the cleanup to the caller in this case, and in no other.
            with_big_lock(&*vm.host(), || load::cleanup(vm));
        }
        if self.state().package.listening {
            return self.stream_ended(file, end);
        }
        match end? {
            LoadEnd::Finished => self.enter(Stage::TakeOver),
            LoadEnd::HandedOver => Err(Error::invalid("the stream was handed over without a worker")),
        }
    }

    fn receive_pages(&self, file: &mut Option<MigFile>) -> Result<()> {
        let end = load::sections(&self.shared.core.vm, connected(file)?);
        self.stream_ended(file, end)
    }

    /// The stream of a postcopy ended, well or not.
    fn stream_ended(&self, file: &mut Option<MigFile>, end: Result<LoadEnd>) -> Result<()> {
        match end {
            Ok(LoadEnd::Finished) => {
                let core = &self.shared.core;
                core.wait_for("loading the package", DEVICE_LIMIT, || self.state().package.loaded.clone())?;
                match self.check_all_arrived() {
                    Ok(()) => self.end_postcopy(),
                    Err(error) => self.stream_failed(file, error),
                }
            }
            // RUN outside of the package: the same stream goes on.
            Ok(LoadEnd::HandedOver) => Ok(()),
            Err(error) => self.stream_failed(file, error),
        }
    }

    /// The source has sent all pages of a postcopy.
    pub fn note_all_sent(&self) -> Result<()> {
        if !self.on_own_thread() {
            return Err(Error::invalid("the source asks for all pages inside of a package"));
        }
        if !self.shared.peer_is_libsavevm() && self.state().stage == Stage::Listen {
            // RUN is in the package, which another thread still loads.
            let core = &self.shared.core;
            core.wait_for("loading the package", DEVICE_LIMIT, || self.state().package.loaded.clone())?;
        }
        if self.state().stage != Stage::Running {
            return Err(Error::invalid("the source asks for all pages before the guest runs here"));
        }
        if !self.postcopy_ram().is_none_or(|ram| ram.is_complete()) {
            return Err(Error::invalid("the source has sent all pages, but some did not arrive"));
        }
        self.state().all_arrived = true;
        Ok(())
    }

    /// A zero where a section should begin looks like EOF. Before its EOF a libsavevm asks whether everything arrived; of
    /// another source the RAM may know.
    fn check_all_arrived(&self) -> Result<()> {
        let (stage, all_arrived) = {
            let state = self.state();
            (state.stage, state.all_arrived)
        };
        let complete = match (stage, self.postcopy_ram()) {
            (Stage::Running, Some(ram)) => (all_arrived || !self.shared.peer_is_libsavevm()) && ram.is_complete(),
            (Stage::Running, None) => true,
            _ => return Err(Error::invalid("the stream of a postcopy ended before the guest was started")),
        };
        match complete {
            true => Ok(()),
            false => Err(Error::invalid("the stream ends before all pages arrived: it is damaged")),
        }
    }

    /// The stream of a postcopy is complete, and the guest runs here with all of its memory.
    pub(super) fn end_postcopy(&self) -> Result<()> {
        let core = &self.shared.core;
        if let Some(ram) = self.postcopy_ram() {
            ram.end(true);
        }
        core.vm.ownership.loaded();
        self.close_postcopy();
        self.shared.completed_postcopy.store(true, SeqCst);
        // All of the guest is here; an internal failure on the way is reported all the same.
        core.vm.check_not_poisoned()?;
        self.enter(Stage::Finish)
    }

    /// Ends the load of a postcopy: no more pages are requested, and the handlers clean up.
    pub fn close_postcopy(&self) {
        self.state().postcopy = PostcopyState::End;
        self.shared.pages_open.store(false, SeqCst);
        let vm = &self.shared.core.vm;
        with_big_lock(&*vm.host(), || load::cleanup(vm));
    }
}

/// The file of the connection in use.
fn connected(file: &Option<MigFile>) -> Result<&MigFile> {
    file.as_ref().ok_or_else(|| Error::new(libc::ENOTCONN, "there is no connection"))
}
