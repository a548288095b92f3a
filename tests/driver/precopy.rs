// SPDX-License-Identifier: LGPL-2.1-or-later
//! Precopy when all goes well, and when something simple does not.

use super::link::{Break, fragile};
use super::machine::{Machine, Progress, Stage};
use savevm::channel::{Channel, Uri};
use savevm::error::Result;
use savevm::migration::{Choice, Endpoint, Incoming, Migration, Outgoing, Owner, Params, Status};
use savevm::savevm::host::Flags;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

/// Limit for everything that happens at once on a machine that is not busy.
pub const LONG: Duration = Duration::from_secs(120);

/// Parameters whose waits are short.
pub fn quick() -> Params {
    let limit = Duration::from_secs(15);
    Params {
        handshake_timeout: limit,
        switchover_timeout: limit,
        stall_timeout: Some(limit),
        connect_timeout: Some(limit),
        ..Params::default()
    }
}

pub fn over(channel: &Arc<impl Channel + 'static>) -> Endpoint {
    Endpoint::Channel(Arc::clone(channel) as _)
}

/// Takes the result of cancelling. A busy machine may need more than the second after which the library reports `ETIMEDOUT`.
pub fn cancelled(migration: &dyn Migration, result: Result<()>) {
    if let Err(error) = result {
        assert_eq!(error.errno(), libc::ETIMEDOUT, "{error}");
        assert!(migration.wait_within(LONG).is_some(), "it does not end");
    }
}

/// Waits until a condition holds; `state` describes the present state in the panic at the time limit.
pub fn wait_until(done: impl Fn() -> bool, state: impl Fn() -> String) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < LONG, "{}", state());
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until a side reaches a state, before which it must not end.
pub fn wait_status(status: impl Fn() -> Status, want: Status, what: &str) {
    let instead = |status| format!("{what}: waiting for {want}, it is {status}");
    let done = || {
        let now = status();
        assert!(now == want || !now.is_final(), "{}", instead(now));
        now == want
    };
    wait_until(done, || instead(status()));
}

/// Both ends of a migration that has begun.
pub struct Run {
    pub out: Arc<Outgoing>,
    pub into: Arc<Incoming>,
}

impl Run {
    pub fn start(
        source: &Machine,
        destination: &Machine,
        ends: (Arc<impl Channel + 'static>, Arc<impl Channel + 'static>),
        params: (Params, Params),
    ) -> Self {
        let into = Incoming::start(&destination.vm, over(&ends.1), params.1).unwrap();
        let out = Outgoing::start(&source.vm, over(&ends.0), params.0).unwrap();
        Self { out, into }
    }

    /// Waits for both; neither may hang.
    pub fn wait(&self, what: &str) -> (Result<()>, Result<()>) {
        let ended = |result: Option<Result<()>>, side: &str, status: Status| {
            result.unwrap_or_else(|| panic!("{what}: the {side} hangs in {status}"))
        };
        let out = ended(self.out.wait_within(LONG), "source", self.out.info().status);
        let into = ended(self.into.wait_within(LONG), "destination", self.into.info().status);
        for (vm, owner) in [(self.out.vm(), self.out.info().owner), (self.into.vm(), self.into.info().owner)] {
            assert_eq!(vm.ownership.owner(), owner, "{what}: the owner of the context and of its migration");
            assert_eq!(vm.ownership.may_run(), owner == Owner::Here, "{what}");
        }
        (out, into)
    }
}

/// The guest moved as a whole.
pub fn check_moved(source: &Machine, destination: &Machine, stage: &Stage, what: &str) {
    assert!(!source.host.is_running() && destination.host.is_running(), "{what}: the side that runs");
    assert_eq!(source.state(), destination.state(), "{what}: state");
    source.check_balanced(what);
    destination.check_balanced(what);
    stage.check(what);
}

/// The guest stayed as if nothing had been.
pub fn check_stayed(source: &Machine, destination: &Machine, stage: &Stage, what: &str) {
    assert!(source.host.is_running() && !destination.host.is_running(), "{what}: the side that runs");
    source.check_balanced(what);
    destination.check_balanced(what);
    stage.check(what);
}

#[test]
fn a_guest_moves() {
    for (return_path, extensions) in [(Choice::Auto, true), (Choice::On, false), (Choice::Off, true)] {
        let what = format!("return path {return_path:?}, extensions {extensions}");
        let (source, destination, stage) = Machine::two();
        let params = Params { return_path, extensions, ..quick() };
        let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (params, quick()));
        let (out, into) = run.wait(&what);
        out.unwrap();
        into.unwrap();
        check_moved(&source, &destination, &stage, &what);
        let info = run.out.info();
        assert_eq!((info.status, info.owner), (Status::Completed, Owner::There));
        assert_eq!(info.return_path, return_path != Choice::Off);
        assert!(info.rounds > 0 && info.transferred > 100 && info.device_bytes > 8, "{info:?}");
        assert_eq!(info.devices[0].0, "dev");
        let events = source.host.events.lock().unwrap().clone();
        assert_eq!(events, ["setup", "active", "completed"], "{what}");
        let events = destination.host.events.lock().unwrap().clone();
        assert_eq!(events, ["setup", "active", "completed"], "{what}");
    }
}

#[test]
fn a_guest_that_is_stopped_at_the_source_stays_stopped() {
    let (source, destination, stage) = Machine::two();
    source.host.stop_guest();
    let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (quick(), quick()));
    let (out, into) = run.wait("stopped guest");
    out.and(into).unwrap();
    assert!(!source.host.is_running() && !destination.host.is_running());
    assert_eq!(run.into.info().owner, Owner::Here);
    stage.check("stopped guest");
}

#[test]
fn the_destination_learns_that_the_source_was_cancelled() {
    for own_thread in [true, false] {
        let (source, destination, stage) = Machine::two();
        let params = Params { pause_before_switchover: true, own_thread, ..quick() };
        let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (params, quick()));
        while !own_thread && run.out.info().status != Status::PreSwitchover {
            run.out.step().unwrap();
        }
        wait_status(|| run.out.info().status, Status::PreSwitchover, "it waits");
        cancelled(&*run.out, run.out.cancel());
        let (out, into) = run.wait("cancelled at the source");
        assert_eq!(out.unwrap_err().errno(), libc::ECANCELED);
        let error = into.unwrap_err();
        assert!(error.to_string().contains("the migration was cancelled at the source"), "{error}");
        assert_eq!((error.errno(), run.into.info().status), (libc::ECANCELED, Status::Failed));
        check_stayed(&source, &destination, &stage, "cancelled at the source");
    }
}

#[test]
fn the_section_globalstate_says_whether_the_guest_ran() {
    for stopped in [true, false] {
        for return_path in [Choice::On, Choice::Off] {
            let what = format!("stopped {stopped}, return path {return_path:?}");
            let (source, destination, stage) = Machine::two();
            source.host.flags.store(Flags::GLOBAL_STATE.0, SeqCst);
            if stopped {
                source.host.stop_guest();
            }
            let params = Params { extensions: false, return_path, ..quick() };
            let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (params, quick()));
            let (out, into) = run.wait(&what);
            out.and(into).unwrap();
            assert_eq!((source.host.is_running(), destination.host.is_running()), (false, !stopped), "{what}");
            assert_eq!(destination.vm.global_state.received(), Some(if stopped { c"paused" } else { c"running" }));
            assert_eq!(run.into.info().owner, Owner::Here, "{what}");
            stage.check(&what);
        }
    }
}

#[test]
fn the_run_state_goes_through_a_file_as_well() {
    for stopped in [true, false] {
        let (source, destination, stage) = Machine::two();
        source.host.flags.store(Flags::GLOBAL_STATE.0, SeqCst);
        if stopped {
            source.host.stop_guest();
        }
        let path = super::rest::scratch("state");
        let file = || Endpoint::Uri(Uri::File { path: path.clone(), offset: 0 });
        Outgoing::start(&source.vm, file(), quick()).unwrap().wait().unwrap();
        Incoming::start(&destination.vm, file(), quick()).unwrap().wait().unwrap();
        assert_eq!((source.host.is_running(), destination.host.is_running()), (false, !stopped));
        stage.check("through a file");
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn the_big_lock_is_given_up_while_a_step_waits_and_works() {
    use savevm::savevm::host::Host;
    let (source, destination, stage) = Machine::two();
    let params = Params { own_thread: false, ..quick() };
    let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (params, quick()));
    source.host.lock();
    while run.out.step().unwrap() {}
    assert!(source.host.locked());
    source.host.unlock();
    let (out, into) = run.wait("steps inside the lock");
    out.and(into).unwrap();
    check_moved(&source, &destination, &stage, "steps inside the lock");
}

#[test]
fn a_host_may_bring_its_own_thread() {
    let (source, destination, stage) = Machine::two();
    let params = Params { own_thread: false, ..quick() };
    let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (params, quick()));
    let mut progress = Progress::default();
    let mut steps = 0;
    while run.out.step().unwrap() {
        progress.look(run.out.info());
        steps += 1;
    }
    assert!(steps > 3 && !run.out.step().unwrap());
    let (out, into) = run.wait("steps");
    out.and(into).unwrap();
    check_moved(&source, &destination, &stage, "steps");
}

#[test]
fn the_destinations_words_reach_the_source_and_the_guest_runs_on() {
    let (source, destination, stage) = Machine::two();
    destination.device.fail_load.store(true, SeqCst);
    let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (quick(), quick()));
    let (out, into) = run.wait("refusal");
    let text = out.unwrap_err().to_string();
    assert!(text.contains("'dev'") && text.contains("does not want to"), "{text}");
    assert!(into.unwrap_err().to_string().contains("does not want to"));
    check_stayed(&source, &destination, &stage, "refusal");
    for (machine, side) in [(&source, "source"), (&destination, "destination")] {
        let reports = machine.host.reports.lock().unwrap().clone();
        let named = reports.iter().filter(|text| text.contains("does not want to"));
        assert_eq!(named.count(), 1, "{side}: {reports:?}");
    }
    assert_eq!((run.out.info().status, run.out.info().owner), (Status::Failed, Owner::Here));
}

#[test]
fn disks_that_cannot_be_taken_over_leave_the_guest_where_it_was() {
    let (source, destination, stage) = Machine::two();
    destination.host.fail_disks.store(true, SeqCst);
    let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (quick(), quick()));
    let (out, into) = run.wait("disks");
    assert!(out.unwrap_err().to_string().contains("disks_activate"));
    assert!(into.is_err());
    check_stayed(&source, &destination, &stage, "disks");
}

#[test]
fn blockers_and_a_second_migration_are_refused_with_a_reason() {
    let (source, destination, _stage) = Machine::two();
    let number = source.vm.slot.block("passthrough device in use").unwrap();
    let (here, there) = fragile(-1, -1, Break::Whole);
    let error = Outgoing::start(&source.vm, over(&here), quick()).err().unwrap();
    assert!(error.message().contains("passthrough device in use"), "{error}");
    assert!(source.vm.slot.unblock(number));
    let into = Incoming::start(&destination.vm, over(&there), quick()).unwrap();
    assert_eq!(Incoming::start(&destination.vm, over(&there), quick()).err().unwrap().errno(), libc::EBUSY);
    cancelled(&*into, into.cancel());
    assert_eq!(into.info().status, Status::Cancelled);
    into.end();
}

/// Whether there is more than a slow link can carry.
fn stay_active(source: &Machine, so: bool) {
    source.ram.ballast.store(if so { 1000 } else { 0 }, SeqCst);
    source.ram.writes.store(if so { u32::MAX } else { 0 }, SeqCst);
}

#[test]
fn pause_before_switchover_waits_for_the_word() {
    let (source, destination, stage) = Machine::two();
    stay_active(&source, true);
    let params = Params { pause_before_switchover: true, max_bandwidth: 20_000, ..quick() };
    let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (params, quick()));
    wait_status(|| run.out.info().status, Status::Active, "before the pause");
    assert!(run.out.continue_().is_err());
    stay_active(&source, false);
    wait_status(|| run.out.info().status, Status::PreSwitchover, "pause");
    assert!(!source.host.is_running() && !destination.host.is_running());
    thread::sleep(Duration::from_millis(80));
    run.out.continue_().unwrap();
    let (out, into) = run.wait("pause");
    out.and(into).unwrap();
    check_moved(&source, &destination, &stage, "pause");
    let events = source.host.events.lock().unwrap().clone();
    assert_eq!(events, ["setup", "active", "pre-switchover", "device", "completed"]);
}

#[test]
fn cancelling_ends_it_within_a_second_and_the_guest_runs_on() {
    for wait in [Status::Setup, Status::Active, Status::PreSwitchover] {
        let what = format!("cancel in {wait}");
        let (source, destination, stage) = Machine::two();
        // No answer arrives in setup.
        stay_active(&source, wait != Status::PreSwitchover);
        let params = Params { pause_before_switchover: true, max_bandwidth: 20_000, ..quick() };
        let (here, there) = fragile(-1, -1, Break::Whole);
        let into = (wait != Status::Setup).then(|| Incoming::start(&destination.vm, over(&there), quick()).unwrap());
        let out = Outgoing::start(&source.vm, over(&here), params).unwrap();
        wait_status(|| out.info().status, wait, &what);
        let since = Instant::now();
        cancelled(&*out, out.cancel());
        assert!(since.elapsed() < LONG / 4, "{what}");
        assert_eq!(out.info().status, Status::Cancelled);
        assert_eq!(out.wait().unwrap_err().errno(), libc::ECANCELED);
        let reports = source.host.reports.lock().unwrap().clone();
        assert!(reports.is_empty(), "{what}: {reports:?}");
        if let Some(into) = into {
            assert!(into.wait_within(LONG).unwrap().is_err(), "{what}");
        }
        check_stayed(&source, &destination, &stage, &what);
    }
}

#[test]
fn a_silent_destination_is_given_up_in_time() {
    let (source, destination, stage) = Machine::two();
    let (here, _there) = fragile(-1, -1, Break::Whole);
    let params = Params { handshake_timeout: Duration::from_millis(100), ..quick() };
    let since = Instant::now();
    let out = Outgoing::start(&source.vm, over(&here), params).unwrap();
    let error = out.wait_within(LONG).unwrap().unwrap_err();
    assert!(error.errno() == libc::ETIMEDOUT && since.elapsed() < LONG / 4, "{error}");
    check_stayed(&source, &destination, &stage, "silence");
}

#[test]
fn cancel_after_the_guest_moved_is_too_late_on_both_sides() {
    let (source, destination, _stage) = Machine::two();
    let ends = fragile(-1, -1, Break::Whole);
    let run = Run::start(&source, &destination, ends, (quick(), quick()));
    let (out, into) = run.wait("whole");
    out.and(into).unwrap();
    assert_eq!(run.out.cancel().unwrap_err().errno(), libc::EBUSY);
    assert_eq!(run.into.cancel().unwrap_err().errno(), libc::EBUSY);
}
