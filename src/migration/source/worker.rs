// SPDX-License-Identifier: LGPL-2.1-or-later
//! The work of the source, a step at a time: setup, rounds, stopping the guest. `connect.rs` has the first step and `ending.rs`
//! the end; `switchover.rs` and `postcopy.rs` have the steps that hand the guest over.
//!
//! Locks are those of `SaveVMHandlers`: header, setup, pending and rounds run outside the big lock; stopping the guest,
//! completion, disks and cleanup inside. No lock is held while waiting for the network, except by a handler that writes.

use super::rate::Rate;
use super::shared::Shared;
use super::steering_state::Steering;
use crate::channel::{Channel, Sink, Uri};
use crate::error::{self, Error, Phase, Result};
use crate::file::MigFile;
use crate::migration::core::Core;
use crate::migration::endpoint::Endpoint;
use crate::migration::further::Further;
use crate::migration::params::Params;
use crate::migration::preflight;
use crate::migration::progress::Decision;
use crate::migration::return_path::message;
use crate::migration::return_path::reader::Reader;
use crate::migration::status::Status;
use crate::migration::trace::Event;
use crate::savevm::host::{Flags, with_big_lock};
use crate::savevm::save::{self, Round};
use crate::savevm::{Vm, command};
use crate::wire::preflight::Purpose;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// What comes after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another one, after so long or when something happens.
    After(Duration),
    /// Nothing: it is over.
    Done,
}

/// At once.
pub(super) const NOW: Next = Next::After(Duration::ZERO);
/// How often a wait for the operator or the guest looks around.
pub(super) const POLL: Next = Next::After(Duration::from_millis(50));
/// After a round that sent nothing.
const IDLE: Next = Next::After(Duration::from_millis(5));
/// How often an idle connection is kept alive.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// How long the switch to postcopy waits for the connection's queue to empty.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// What the next step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Connect,
    Setup,
    Unplug,
    Iterate,
    /// Stop the guest, to end in precopy or to begin postcopy.
    Stop {
        postcopy: bool,
    },
    /// Waits until the operator continues the migration.
    PreSwitchover {
        postcopy: bool,
    },
    Complete,
    StartPostcopy,
    /// The guest is there, or (not `handed`) about to be.
    Postcopy {
        handed: bool,
    },
    Paused {
        since: Duration,
    },
}

impl Step {
    /// The phase in the trace and the statistics.
    fn phase(self) -> Phase {
        match self {
            Self::Connect => Phase::Connect,
            Self::Setup => Phase::Setup,
            Self::Unplug => Phase::WaitUnplug,
            Self::Iterate => Phase::Iterate,
            Self::Stop { .. } => Phase::Stop,
            Self::PreSwitchover { .. } => Phase::PreSwitchover,
            Self::Complete | Self::StartPostcopy | Self::Postcopy { handed: false } => Phase::Complete,
            Self::Postcopy { handed: true } => Phase::Postcopy,
            Self::Paused { .. } => Phase::Paused,
        }
    }
}

/// See the module.
pub(super) struct Source {
    pub next: Step,
    /// `None` once it was used.
    pub to: Option<Endpoint>,
    /// The further connections, if the migration uses some.
    pub further: Option<Arc<Further>>,
    pub file: Option<MigFile>,
    pub channel: Option<Arc<dyn Channel>>,
    pub reader: Option<Reader>,
    pub rate: Rate,
    /// Bytes of earlier connections.
    pub earlier_bytes: u64,
    /// `save_setup` was called: there is something to clean up.
    pub set_up: bool,
    /// The guest ran when it was stopped here.
    pub was_running: bool,
    /// When it was stopped.
    pub stopped_at: Option<Duration>,
    /// The disks were released.
    pub disks_inactive: bool,
    /// The stream goes into a regular file: no destination can start the guest by itself.
    pub to_file: bool,
    /// That file, which is replaced only by a whole stream. Dropping it leaves the previous file.
    pub sink: Option<Sink>,
    pub throttle: u32,
    kept_alive: Duration,
    /// When the source began to wait for the queue to empty.
    draining: Option<Duration>,
    /// When the package of a postcopy went out.
    pub packaged_at: Duration,
    /// The destination has shown that it got the guest in postcopy.
    pub arrived: bool,
    /// Postcopy: every page was sent, and the destination was asked whether all arrived.
    pub all_sent: bool,
    /// Progress, and when to stop the guest.
    pub steering: Steering,
}

impl Source {
    pub fn new(to: Endpoint) -> Self {
        let to_file = matches!(&to, Endpoint::Uri(Uri::File { .. }));
        Self {
            next: Step::Connect,
            to: Some(to),
            further: None,
            file: None,
            channel: None,
            reader: None,
            rate: Rate::default(),
            earlier_bytes: 0,
            set_up: false,
            was_running: false,
            stopped_at: None,
            disks_inactive: false,
            to_file,
            sink: None,
            throttle: 0,
            kept_alive: Duration::ZERO,
            draining: None,
            packaged_at: Duration::ZERO,
            arrived: false,
            all_sent: false,
            steering: Steering::default(),
        }
    }

    /// Does what is next.
    pub fn step(&mut self, m: &Shared) -> Next {
        m.core.check_deadline(|| self.report_cancel(m));
        if let Some(error) = m.core.interrupted() {
            return self.abort(m, error);
        }
        m.core.phase(Some(self.next.phase()));
        m.core.fault_point();
        // A guest that is over there needs the rest, for as long as there is a way to send it.
        let usable = if m.core.status().is_postcopy() { Ok(()) } else { m.core.vm.check_not_poisoned() };
        let result = usable.and_then(|()| match self.next {
            Step::Connect => self.connect(m),
            Step::Setup => self.setup(m),
            Step::Unplug => self.wait_unplug(m),
            Step::Iterate => self.iterate(m),
            Step::Stop { postcopy } => self.stop(m, postcopy),
            Step::PreSwitchover { postcopy } => self.pre_switchover(m, postcopy),
            Step::Complete => self.complete(m),
            Step::StartPostcopy => self.start_postcopy(m),
            Step::Postcopy { handed } => self.postcopy(m, handed),
            Step::Paused { since } => self.paused(m, since),
        });
        result.unwrap_or_else(|error| self.abort(m, error))
    }

    /// The file; there is one from the end of `connect` on, but while a postcopy is paused.
    pub fn file(&self) -> Result<&MigFile> {
        self.file.as_ref().ok_or_else(|| Error::new(libc::ENOTCONN, "there is no connection"))
    }

    /// The first error of the connection, in either direction.
    pub fn check(&self) -> Result<()> {
        if let Some(error) = self.reader.as_ref().and_then(|reader| reader.trouble()) {
            return Err(error);
        }
        self.file()?.check()
    }

    pub fn transferred(&self) -> u64 {
        let here = self.file.as_ref().map_or(0, |file| file.total_transferred_fast().max(0) as u64);
        self.earlier_bytes + here
    }

    pub fn go(&mut self, step: Step) -> Result<Next> {
        self.next = step;
        Ok(NOW)
    }

    /// The reader of the return path.
    pub(super) fn reader(&self) -> Result<&Reader> {
        self.reader.as_ref().ok_or_else(|| Error::new(libc::ENOTSUP, "there is no return path"))
    }

    fn setup(&mut self, m: &Shared) -> Result<Next> {
        let (core, vm) = (&m.core, &m.core.vm);
        let params = core.params();
        vm.set_flags(Flags::POSTCOPY_RAM, params.postcopy && vm.slot.ram().is_some());
        let round_trip = self.hello(m, true)?;
        if let Some(reader) = self.reader.as_ref().filter(|reader| params.preflight && reader.knows_preflight()) {
            preflight::ask(core, self.file()?, reader, Purpose::Migrate)?;
        }
        self.settle_format(&params);
        if params.postcopy {
            command::postcopy_advise(vm, self.file()?);
        }
        self.set_up = true;
        self.note_round_trip(round_trip);
        let file = self.file()?;
        save::setup(vm, file)?;
        file.flush();
        self.check()?;
        if vm.guest_unplug_pending() {
            core.enter(Status::WaitUnplug)?;
            self.kept_alive = core.now();
            return self.go(Step::Unplug);
        }
        self.begin_rounds(m)
    }

    fn wait_unplug(&mut self, m: &Shared) -> Result<Next> {
        self.check()?;
        if m.core.vm.guest_unplug_pending() {
            self.keep_alive(&m.core)?;
            return Ok(POLL);
        }
        self.begin_rounds(m)
    }

    /// Sends a keepalive while the source waits, because the destination aborts if the source is silent.
    pub fn keep_alive(&mut self, core: &Core) -> Result<()> {
        let now = core.now();
        if self.reader.is_some() && now.saturating_sub(self.kept_alive) >= KEEPALIVE {
            self.kept_alive = now;
            command::ping(&core.vm, self.file()?, message::PING_KEEPALIVE);
        }
        Ok(())
    }

    fn begin_rounds(&mut self, m: &Shared) -> Result<Next> {
        m.core.fault_point();
        m.core.enter(Status::Active)?;
        let now = m.core.now();
        m.core.stats.get().setup_time = now;
        self.rate = Rate::new(now, self.transferred());
        self.begin_steering(&m.core);
        self.go(Step::Iterate)
    }

    /// Prepares the devices for the switch to postcopy. Returns whether the destination has read everything that was sent. The
    /// package of a postcopy follows everything that is queued in the connections: a megabyte, or 100,000 records of zero
    /// pages. The guest runs while the queues empty.
    fn is_drained(&mut self, core: &Core) -> Result<bool> {
        let Some(since) = self.draining else {
            self.draining = Some(core.now());
            save::postcopy_prepare(&core.vm, self.file()?)?;
            if self.reader.is_some() {
                command::ping(&core.vm, self.file()?, message::PING_DRAINED);
            }
            return Ok(self.reader.is_none());
        };
        let Some(reader) = &self.reader else { return Ok(true) };
        match reader.pong(message::PING_DRAINED) {
            Some(answer) => answer.map(|()| true),
            None => Ok(core.now().saturating_sub(since) > DRAIN_MAX),
        }
    }

    /// Ends a window where it is time. How long the rate limit asks to wait, if it does.
    pub fn pace(&mut self, core: &Core, max_bandwidth: u64) -> Result<Option<Next>> {
        let (now, sent) = (core.now(), self.transferred());
        if self.rate.update(now, sent) {
            let file = self.file()?;
            file.reset_rate();
            set_rate_limit(file, max_bandwidth);
            let (number, left) = {
                let mut info = core.stats.get();
                info.transferred = info.transferred.max(sent);
                (info.rounds, info.remaining)
            };
            self.show_progress(core, &core.params());
            let (last, dirty_rate, throttle) = (self.rate.last, self.rate.dirty_rate, self.throttle);
            let bandwidth = last.bandwidth;
            core.trace.write(now, &Event::Round { number, bytes: sent, bandwidth, dirty_rate, throttle });
            core.trace.write(now, &Event::Pending { left, threshold: last.threshold });
        }
        let file = self.file()?;
        if file.rate_limit_reached() {
            file.flush();
            self.check()?;
            let now = core.now();
            self.rate.wait(now);
            return Ok(Some(Next::After(self.rate.left(now).max(Duration::from_millis(1)))));
        }
        Ok(None)
    }

    fn iterate(&mut self, m: &Shared) -> Result<Next> {
        let (core, vm) = (&m.core, &m.core.vm);
        self.check()?;
        let params = core.params();
        if let Some(next) = self.pace(core, params.max_bandwidth)? {
            return Ok(next);
        }
        let threshold = self.threshold(core, &params);
        let pending = save::pending(vm, self.file()?, threshold);
        core.stats.get().remaining = pending;
        let too_fast = self.rate.too_fast(core.now(), self.transferred(), pending.total());
        core.stats.get().dirty_rate = self.rate.dirty_rate;
        self.converge(core, &params, too_fast);
        if self.steer(core, &params, pending, threshold) == Decision::Switch {
            return self.go(Step::Stop { postcopy: false });
        }
        let may_stop = pending.precopy_only <= threshold && self.is_approved(core);
        if core.is_postcopy_requested() && may_stop && !self.needs_precopy(core) {
            return if self.is_drained(core)? { self.go(Step::Stop { postcopy: true }) } else { Ok(POLL) };
        }
        let next = self.round(core, vm, false)?;
        if self.steering.unapproved {
            // Little is left, so rounds without a pause would send empty sections until the approval.
            self.file()?.flush();
            return Ok(IDLE);
        }
        Ok(next)
    }

    /// Whether the guest must not be handed over with postcopy: a QEMU starts the guest of a postcopy whether it ran or not.
    /// A guest that is stopped needs no postcopy, because it dirties nothing.
    fn needs_precopy(&self, core: &Core) -> bool {
        let host = core.vm.host();
        !self.peer_is_libsavevm() && host.knows_run_state() && !with_big_lock(&*host, || host.vm_running())
    }

    /// One call of every handler.
    pub fn round(&mut self, core: &Core, vm: &Vm, postcopy: bool) -> Result<Next> {
        let before = self.transferred();
        let file = self.file()?;
        let round = save::iterate(vm, file, postcopy);
        if postcopy {
            // A device or a processor of the destination waits for these pages.
            file.flush();
        }
        self.check()?;
        match round {
            Ok(Round::Done(_)) => {
                core.stats.get().rounds += 1;
            }
            Ok(Round::Again) => {}
            Err(ret) => return Err(self.file()?.cause("save_live_iterate", ret)),
        }
        let sent = self.transferred();
        core.stats.get().transferred = sent;
        // Handlers that have nothing to send and yet something left must not cost a CPU.
        if sent != before {
            return Ok(NOW);
        }
        self.file()?.flush();
        Ok(IDLE)
    }

    fn converge(&mut self, core: &Core, params: &Params, too_fast: bool) {
        if !params.auto_converge || !too_fast || self.throttle >= params.throttle_max {
            return;
        }
        let step = if self.throttle == 0 { params.throttle_initial } else { params.throttle_increment };
        self.set_throttle(core, (self.throttle + step).min(params.throttle_max));
    }

    fn set_throttle(&mut self, core: &Core, percent: u32) {
        if percent != self.throttle && core.vm.host().throttle(percent) {
            self.throttle = percent;
            core.stats.get().throttle = percent;
        }
    }

    fn stop(&mut self, m: &Shared, postcopy: bool) -> Result<Next> {
        let (core, host) = (&m.core, m.core.vm.host());
        self.note_stop(core, postcopy);
        let ret = with_big_lock(&*host, || {
            if let Some(error) = core.interrupted() {
                return Err(error);
            }
            core.vm.ownership.hold(true);
            self.was_running = host.vm_running();
            core.vm.global_state.store(!self.guest_is_stopped(&*host));
            self.stopped_at = Some(core.now());
            error::check("vm_stop", if self.was_running { host.vm_stop() } else { 0 })
        });
        core.trace.write(core.now(), &Event::Downtime { time: None });
        ret?;
        core.fault_point();
        if core.params().pause_before_switchover {
            core.enter(Status::PreSwitchover)?;
            self.kept_alive = core.now();
            return self.go(Step::PreSwitchover { postcopy });
        }
        self.go(if postcopy { Step::StartPostcopy } else { Step::Complete })
    }

    fn pre_switchover(&mut self, m: &Shared, postcopy: bool) -> Result<Next> {
        self.check()?;
        if !m.requests.continue_.load(SeqCst) {
            self.keep_alive(&m.core)?;
            return Ok(POLL);
        }
        m.core.enter(Status::Device)?;
        self.go(if postcopy { Step::StartPostcopy } else { Step::Complete })
    }
}

/// Bytes per second, as the file counts them: in a window.
pub(super) fn set_rate_limit(file: &MigFile, max_bandwidth: u64) {
    let limit = i64::try_from(max_bandwidth / 10).unwrap_or(i64::MAX);
    file.status().set_rate_limit(if max_bandwidth == 0 { 0 } else { limit.max(1) });
}
