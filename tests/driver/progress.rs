// SPDX-License-Identifier: LGPL-2.1-or-later
//! Progress, stalls, the downtime limit and the deadline.

use super::link::{Break, fragile};
use super::machine::{Machine, Progress};
use super::postcopy_runs::pause_postcopy;
use super::precopy::{LONG, Run, cancelled, check_moved, check_stayed, over, quick, wait_status, wait_until};
use super::rest::scratch;
use savevm::channel::Uri;
use savevm::migration::{DeadlineAction, DeviceOrder, Endpoint, Migration, Outgoing, Params, StallReason, Status};
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

/// Parameters with which a guest that writes never fits.
fn endless() -> Params {
    Params { max_bandwidth: 50_000, downtime_limit: Duration::from_micros(1), ..quick() }
}

/// A guest that writes for ever, and a destination.
fn busy() -> (Machine, Machine, std::sync::Arc<super::machine::Stage>) {
    let (source, destination, stage) = Machine::two();
    source.ram.ballast.store(3_000, SeqCst);
    source.ram.writes.store(u32::MAX, SeqCst);
    (source, destination, stage)
}

/// The text of the first report of this reason.
pub fn has_stall(machine: &Machine, reason: StallReason) -> Option<String> {
    let stalls = machine.host.stalls.lock().unwrap();
    stalls.iter().find(|(number, _)| *number == reason as i32).map(|(_, text)| text.clone())
}

#[test]
fn percent_rises_to_100_and_the_expected_time_becomes_the_actual_one() {
    for postcopy in [false, true] {
        let what = format!("postcopy {postcopy}");
        let (source, destination, stage) = busy();
        let (source, destination) =
            if postcopy { (source.with_postcopy(), destination.with_postcopy()) } else { (source, destination) };
        let params = Params { postcopy, max_postcopy_bandwidth: 50_000, ..endless() };
        let into = Params { postcopy, ..quick() };
        let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (params, into));
        let mut progress = Progress::default();
        let since = Instant::now();
        loop {
            let info = run.out.info();
            if info.status == Status::Completed {
                break;
            }
            assert!(info.percent < 100 && since.elapsed() < LONG, "{what}: {info:?}");
            assert!(info.expected_total.is_none_or(|expected| expected >= info.total_time), "{what}");
            progress.look(info);
            if since.elapsed() > 400 * MS {
                source.ram.writes.store(0, SeqCst);
                let _ = run.out.start_postcopy();
            }
            thread::sleep(2 * MS);
        }
        let (out, into) = run.wait(&what);
        out.and(into).unwrap();
        check_moved(&source, &destination, &stage, &what);
        let info = run.out.info();
        progress.look(info.clone());
        assert_eq!((info.percent, info.expected_total), (100, Some(info.total_time)), "{what}");
        assert_eq!(run.into.info().percent, 100, "{what}");
        assert!(info.prediction.is_some() && info.stall.reason == StallReason::None, "{what}");
    }
}

#[test]
fn deadline_with_cancel_leaves_the_guest_running_and_says_why() {
    let (source, destination, stage) = busy();
    let params = Params { deadline: Some(600 * MS), ..endless() };
    let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (params, quick()));
    let (out, into) = run.wait("deadline");
    let error = out.unwrap_err();
    assert_eq!(error.errno(), libc::ETIMEDOUT);
    assert!(error.to_string().contains("deadline of 600ms"), "{error}");
    assert!(into.is_err());
    assert_eq!(run.out.info().status, Status::Cancelled);
    check_stayed(&source, &destination, &stage, "deadline");
    let events = source.host.event_errors.lock().unwrap().clone();
    assert!(events.iter().any(|(status, text)| *status == "cancelled" && text.contains("deadline")), "{events:?}");
}

#[test]
fn deadline_ends_a_write_that_the_peer_does_not_take() {
    let (source, _destination, _stage) = busy();
    source.ram.ballast.store(900_000, SeqCst);
    let ends = fragile(-1, -1, Break::Whole);
    let params = Params {
        deadline: Some(300 * MS),
        stall_timeout: Some(LONG),
        return_path: savevm::migration::Choice::Off,
        ..quick()
    };
    let out = Outgoing::start(&source.vm, over(&ends.0), params).unwrap();
    let error = out.wait_within(LONG / 2).expect("it ends before the stall limit").unwrap_err();
    assert_eq!(error.errno(), libc::ETIMEDOUT, "{error}");
    assert!(source.host.is_running());
}

#[test]
fn deadline_with_force_moves_a_guest_that_never_fits() {
    let (source, destination, stage) = busy();
    let params = |deadline| Params { deadline: Some(deadline), deadline_action: DeadlineAction::Force, ..endless() };
    let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (params(10 * LONG), quick()));
    // A deadline does not hide that there is no progress.
    let stalled = || has_stall(&source, StallReason::DirtyRate).or(has_stall(&source, StallReason::MaxBandwidth));
    wait_until(|| stalled().is_some(), || format!("{:?}", run.out.info()));
    assert_eq!(run.out.info().status, Status::Active);
    run.out.set_params(&params(MS)).unwrap();
    let (out, into) = run.wait("force");
    out.and(into).unwrap();
    check_moved(&source, &destination, &stage, "force");
}

#[test]
fn deadline_with_postcopy_needs_postcopy_and_hands_the_guest_over() {
    let (source, destination, stage) = busy();
    let (source, destination) = (source.with_postcopy(), destination.with_postcopy());
    let params = Params { deadline: Some(400 * MS), deadline_action: DeadlineAction::Postcopy, ..endless() };
    let ends = fragile(-1, -1, Break::Whole);
    let refused = Outgoing::start(&source.vm, over(&ends.0), params.clone()).err().unwrap();
    assert!(refused.message().contains("postcopy is not enabled"), "{refused}");
    let params = Params { postcopy: true, ..params };
    let into = Params { postcopy: true, ..quick() };
    let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (params, into));
    let (out, into) = run.wait("postcopy");
    out.and(into).unwrap();
    check_moved(&source, &destination, &stage, "postcopy");
    assert!(source.host.events.lock().unwrap().contains(&"postcopy-active"));
}

#[test]
fn downtime_limit_rises_in_steps_until_the_guest_fits() {
    let (source, destination, stage) = busy();
    let params = Params {
        downtime_limit_max: Some(Duration::from_secs(10)),
        downtime_step: Some(Duration::from_secs(2)),
        downtime_step_interval: 100 * MS,
        ..endless()
    };
    let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (params, quick()));
    wait_until(|| run.out.info().downtime_limit >= Duration::from_secs(2), || format!("{:?}", run.out.info()));
    let (out, into) = run.wait("steps");
    out.and(into).unwrap();
    check_moved(&source, &destination, &stage, "steps");
    assert!(run.out.info().downtime_limit <= Duration::from_secs(10));
}

#[test]
fn a_guest_that_writes_too_fast_is_reported_with_the_numbers() {
    let (source, destination, stage) = busy();
    let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (endless(), quick()));
    let found = || has_stall(&source, StallReason::DirtyRate).or(has_stall(&source, StallReason::MaxBandwidth));
    wait_until(|| found().is_some(), || format!("{:?}", run.out.info()));
    let text = found().unwrap();
    assert!(text.contains("the guest writes") && text.contains("/s"), "{text}");
    wait_until(|| run.out.info().stall.reason != StallReason::None, || format!("{:?}", run.out.info()));
    source.ram.writes.store(0, SeqCst);
    let (out, into) = run.wait("stall");
    out.and(into).unwrap();
    check_moved(&source, &destination, &stage, "stall");
    assert_eq!(
        source.host.stalls.lock().unwrap().last().map(|(number, _)| *number),
        Some(0),
        "it makes progress again"
    );
}

#[test]
fn devices_above_the_limit_keep_the_guest_here_and_are_named() {
    let (source, destination, stage) = Machine::two();
    source.vm.slot.device_costs.set_saved(b"dev", 0, 10, Duration::from_secs(1));
    let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (quick(), quick()));
    let state = || format!("{:?}", run.out.info());
    wait_until(|| has_stall(&source, StallReason::Devices).is_some(), state);
    let text = has_stall(&source, StallReason::Devices).unwrap();
    assert!(text.contains("'dev' instance 0 (save 1.0s") && text.contains("the limit is 300ms"), "{text}");
    assert_eq!(run.out.info().status, Status::Active);
    run.out.set_params(&Params { downtime_limit: Duration::from_secs(5), ..quick() }).unwrap();
    let (out, into) = run.wait("devices");
    out.and(into).unwrap();
    check_moved(&source, &destination, &stage, "devices");
    let prediction = run.out.info().prediction.unwrap();
    assert!(prediction.save == Duration::from_secs(1) && prediction.total() >= prediction.save);
}

#[test]
fn a_peer_that_does_not_read_is_reported() {
    let (source, _destination, _stage) = busy();
    source.ram.ballast.store(900_000, SeqCst);
    let ends = fragile(-1, -1, Break::Whole);
    let (stall_timeout, return_path) = (Some(20_000 * MS), savevm::migration::Choice::Off);
    let params = Params { stall_timeout, return_path, ..quick() };
    let out = Outgoing::start(&source.vm, over(&ends.0), params).unwrap();
    let state = || format!("{:?}", out.info());
    wait_until(|| has_stall(&source, StallReason::PeerNotReading).is_some(), state);
    assert!(out.wait_within(LONG).unwrap().is_err(), "the stall limit ends it");
    assert!(source.host.is_running());
}

#[test]
fn a_source_that_is_silent_is_reported_by_the_destination() {
    let (_source, destination, _stage) = busy();
    let ends = fragile(-1, -1, Break::Whole);
    let params = Params { stall_timeout: Some(20_000 * MS), one_connection: true, ..quick() };
    let into = savevm::migration::Incoming::start(&destination.vm, over(&ends.1), params).unwrap();
    let state = || format!("{:?}", into.info());
    wait_until(|| has_stall(&destination, StallReason::PeerNotSending).is_some(), state);
    assert!(has_stall(&destination, StallReason::PeerNotSending).unwrap().contains("the source has sent nothing"));
    assert!(into.wait_within(LONG).unwrap().is_err());
}

#[test]
fn load_times_of_the_destination_reach_the_source_and_its_next_prediction() {
    let (source, destination, stage) = Machine::two();
    destination.device.slow.store(40, SeqCst);
    let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (quick(), quick()));
    let (out, into) = run.wait("times");
    out.and(into).unwrap();
    check_moved(&source, &destination, &stage, "times");
    let device = run.out.device(DeviceOrder::LoadTime, 0).unwrap();
    assert!(device.load.is_some_and(|load| load >= 40 * MS), "{device:?}");
    let cost = source.vm.slot.device_costs.get(b"dev", 0).unwrap();
    assert!(cost.load.is_some_and(|load| load >= 40 * MS), "{cost:?}");
    // The guest comes back.
    let run = Run::start(&destination, &source, fragile(-1, -1, Break::Whole), (quick(), quick()));
    let (out, into) = run.wait("back");
    out.and(into).unwrap();
    let third = Machine::third(&stage);
    let run = Run::start(&source, &third, fragile(-1, -1, Break::Whole), (quick(), quick()));
    let (out, into) = run.wait("again");
    out.and(into).unwrap();
    let prediction = run.out.info().prediction.unwrap();
    assert!(prediction.load >= 40 * MS && prediction.total() > prediction.load, "{prediction:?}");
}

#[test]
fn a_source_that_was_cancelled_is_named_at_the_destination() {
    let (source, destination, stage) = busy();
    let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (endless(), quick()));
    wait_status(|| run.out.info().status, Status::Active, "active");
    cancelled(&*run.out, run.out.cancel());
    let (out, into) = run.wait("cancelled");
    assert_eq!(out.unwrap_err().errno(), libc::ECANCELED);
    let text = into.unwrap_err().to_string();
    assert!(text.contains("cancelled at the source"), "{text}");
    check_stayed(&source, &destination, &stage, "cancelled");
}

#[test]
fn a_recovery_that_fails_at_once_is_an_event_on_both_sides() {
    let (source, destination, _stage) = busy();
    let (source, destination) = (source.with_postcopy(), destination.with_postcopy());
    let (out, into) = (Params { postcopy: true, ..endless() }, Params { postcopy: true, ..quick() });
    let out = Params { max_postcopy_bandwidth: 10_000, recover_timeout: None, ..out };
    let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (out, into));
    source.ram.postcopy.on_request_only.store(true, SeqCst);
    run.out.start_postcopy().unwrap();
    pause_postcopy(&run);
    source.ram.postcopy.on_request_only.store(false, SeqCst);
    for status in [&|| run.out.info().status, &|| run.into.info().status] as [&dyn Fn() -> Status; 2] {
        wait_status(status, Status::PostcopyPaused, "paused");
    }
    let nowhere = || Endpoint::Uri(Uri::Unix("/nonexistent/socket".into()));
    assert!(run.out.recover(&nowhere()).is_err() && run.into.recover(nowhere()).is_err());
    let named = |machine: &Machine| {
        let errors = machine.host.event_errors.lock().unwrap();
        errors.iter().any(|(status, text)| *status == "postcopy-paused" && text.contains("/nonexistent/socket"))
    };
    assert!(named(&source) && named(&destination), "events");
    for error in [run.out.info().pause_error, run.into.info().pause_error] {
        assert!(error.unwrap().to_string().contains("/nonexistent/socket"));
    }
    source.ram.writes.store(0, SeqCst);
    let path = scratch("recovery");
    run.into.recover(Endpoint::Uri(Uri::Unix(path.clone()))).unwrap();
    run.out.recover(&Endpoint::Uri(Uri::Unix(path))).unwrap();
    run.out.set_params(&Params { postcopy: true, ..quick() }).unwrap();
    let (out, into) = run.wait("recovered");
    out.and(into).unwrap();
}
