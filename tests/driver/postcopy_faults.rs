// SPDX-License-Identifier: LGPL-2.1-or-later
//! Postcopy after RUN: damaged and lost bytes, lost verdicts, and a postcopy that is aborted.

use super::link::{Break, Damage, Fragile, Refuses, fragile};
use super::machine::{Machine, PAGES};
use super::postcopy_runs::{check_whole, guest, machines, params, recover_all, start};
use super::precopy::{LONG, Run, cancelled, over, quick, wait_status, wait_until};
use super::rest::scratch;
use savevm::channel::Uri;
use savevm::migration::{Endpoint, Incoming, Migration, Outgoing, Owner, Params, Status};
use savevm::savevm::host::Flags;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// Parameters of a postcopy whose pages follow slowly, with short limits.
fn slow(extensions: bool) -> Params {
    Params {
        max_postcopy_bandwidth: 2_000,
        switchover_timeout: Duration::from_secs(3),
        stall_timeout: Some(Duration::from_secs(4)),
        recover_timeout: None,
        ..params(extensions)
    }
}

/// A postcopy whose guest runs at the destination, with pages missing until it requests them.
fn running(source: &Machine, destination: &Machine, ends: &(Arc<Fragile>, Arc<Fragile>), params: Params) -> Run {
    source.ram.ballast.store(50, SeqCst);
    source.ram.postcopy.on_request_only.store(true, SeqCst);
    let run = start(source, destination, ends, params);
    let status = || {
        let status = run.into.info().status;
        assert!(!status.is_final(), "the destination ended: {:?}", run.into.error());
        status
    };
    wait_status(status, Status::PostcopyActive, "the destination in postcopy");
    wait_status(|| run.out.info().status, Status::PostcopyActive, "the source in postcopy");
    run
}

/// One damaged byte behind RUN: both sides go on in the end, whatever the byte was. Whether they had to recover.
fn damaged(extensions: bool, to_source: bool, after: i64, damage: Damage) -> bool {
    let what = format!("extensions {extensions}, to the source {to_source}, {damage:?} at {after}");
    let (source, destination, stage) = machines();
    let ends = fragile(-1, -1, Break::Whole);
    let run = running(&source, &destination, &ends, slow(extensions));
    if to_source { &ends.0 } else { &ends.1 }.damage(after, damage);
    let guest = guest(&destination);
    recover_all(&run, &what);
    let (out, into) = run.wait(&what);
    guest.join();
    assert!(out.is_ok() && into.is_ok(), "{what}: {out:?} {into:?}");
    assert!(!source.host.is_running() && destination.host.is_running(), "{what}");
    assert_eq!(destination.ram.postcopy.ended(), Some(true), "{what}");
    assert!((0..PAGES).all(|page| destination.ram.postcopy.has(page)), "{what}: all pages arrived");
    assert_eq!((run.out.info().owner, run.into.info().owner), (Owner::There, Owner::Here), "{what}");
    source.check_balanced(&what);
    destination.check_balanced(&what);
    stage.check(&what);
    run.out.info().recoveries > 0
}

#[test]
fn a_damaged_or_lost_byte_to_the_destination_is_recovered() {
    for extensions in [true, false] {
        let mut recovered = 0;
        for after in 0..24 {
            let damage = match after % 3 {
                0 => Damage::Replace(0x5a),
                1 => Damage::Replace(0),
                _ => Damage::Lose,
            };
            // Behind what is being read at this moment.
            recovered += u32::from(damaged(extensions, false, 240 + after, damage));
        }
        assert!(recovered > 4, "extensions {extensions}: only {recovered} were noticed");
    }
}

#[test]
fn a_damaged_or_lost_byte_to_the_source_is_recovered() {
    for extensions in [true, false] {
        let mut recovered = 0;
        for after in 0..24 {
            let damage = match after % 3 {
                0 => Damage::Replace(1),
                1 => Damage::Replace(0xa5),
                _ => Damage::Lose,
            };
            recovered += u32::from(damaged(extensions, true, after, damage));
        }
        assert!(recovered > 2, "extensions {extensions}: only {recovered} were noticed");
    }
}

#[test]
fn a_guest_without_its_pages_is_stopped_before_they_can_be_read() {
    for extensions in [true, false] {
        let what = format!("extensions {extensions}");
        let (source, destination, stage) = machines();
        let params = Params { recover_timeout: Some(Duration::from_millis(100)), ..slow(extensions) };
        let run = running(&source, &destination, &fragile(-1, -1, Break::Whole), params);
        run.out.pause().unwrap();
        let (out, into) = run.wait(&what);
        assert!(out.is_err() && into.is_err(), "{what}");
        assert!(!source.host.is_running() && !destination.host.is_running(), "{what}");
        assert_eq!(run.into.info().owner, Owner::Torn, "{what}");
        stage.check(&what);
    }
}

#[test]
fn a_guest_that_does_not_stop_never_reads_missing_pages() {
    let (source, destination, stage) = machines();
    let params = Params { recover_timeout: Some(Duration::from_millis(100)), ..slow(true) };
    let run = running(&source, &destination, &fragile(-1, -1, Break::Whole), params);
    destination.host.fail_stop.store(true, SeqCst);
    run.out.pause().unwrap();
    let (out, into) = run.wait("it does not stop");
    assert!(out.is_err() && into.is_err());
    assert_eq!(run.into.info().owner, Owner::Torn);
    assert_eq!(destination.ram.postcopy.ended(), None, "pages stay missing");
    destination.check_balanced("it does not stop");
    stage.check("it does not stop");
}

#[test]
fn a_destination_that_is_cancelled_before_the_end_gives_the_guest_back() {
    for extensions in [true, false] {
        let what = format!("extensions {extensions}");
        let (source, destination, stage) = Machine::two();
        let params = Params { extensions, ..quick() };
        let measure = |left| {
            let (source, destination, _stage) = Machine::two();
            source.vm.set_flags(Flags::NO_VMDESC, true);
            destination.vm.set_flags(Flags::NO_VMDESC, true);
            let ends = fragile(left, -1, Break::Whole);
            let run = Run::start(&source, &destination, ends.clone(), (params.clone(), params.clone()));
            let (out, into) = run.wait("whole");
            out.and(into).unwrap();
            ends.1.read_so_far()
        };
        source.vm.set_flags(Flags::NO_VMDESC, true);
        destination.vm.set_flags(Flags::NO_VMDESC, true);
        // Everything but EOF arrives.
        let ends = fragile(measure(-1) - 1, -1, Break::Silent);
        let run = Run::start(&source, &destination, ends, (params.clone(), params.clone()));
        wait_until(|| run.out.info().owner == Owner::Unknown, || format!("{what}: {:?}", run.out.info()));
        cancelled(&*run.into, run.into.cancel());
        let (out, into) = run.wait(&what);
        let error = out.unwrap_err().to_string();
        assert!(into.is_err() && !destination.host.is_running(), "{what}");
        if extensions {
            assert!(error.contains("cancelled"), "{what}: {error}");
            assert_eq!(run.out.info().owner, Owner::Here, "{what}: {error}");
            assert!(source.host.is_running(), "{what}");
        }
        assert_eq!(run.into.info().status, Status::Cancelled, "{what}");
        source.check_balanced(&what);
        destination.check_balanced(&what);
        stage.check(&what);
    }
}

/// Bytes to the source of a whole postcopy. The last eight are the verdict, those before report that all pages arrived.
fn answers() -> i64 {
    let (source, destination, _stage) = machines();
    let ends = fragile(-1, -1, Break::Whole);
    let run = start(&source, &destination, &ends, params(true));
    let (out, into) = run.wait("whole");
    out.and(into).unwrap();
    ends.0.read_so_far()
}

#[test]
fn a_lost_verdict_keeps_no_side_waiting() {
    let back = answers();
    for left in back - 8..back {
        for how in [Break::Whole, Break::Half, Break::Silent] {
            if how == Break::Silent && left % 4 != 0 {
                // Each silence lasts as long as its limit.
                continue;
            }
            let what = format!("{how:?} at {left} of {back}");
            let (source, destination, stage) = machines();
            let params = Params { max_postcopy_bandwidth: 0, ..slow(true) };
            let run = start(&source, &destination, &fragile(-1, left, how), params);
            let (out, into) = run.wait(&what);
            assert!(out.is_ok() && into.is_ok(), "{what}: {out:?} {into:?}");
            assert_eq!((run.out.info().owner, run.into.info().owner), (Owner::There, Owner::Here), "{what}");
            check_whole(&source, &destination, &stage, &what);
        }
    }
}

#[test]
fn a_lost_report_that_all_pages_arrived_is_given_again_in_a_recovery() {
    let back = answers();
    for left in back - 16..back - 8 {
        let what = format!("{left} of {back}");
        let (source, destination, stage) = machines();
        let params = Params { max_postcopy_bandwidth: 0, recover_timeout: None, ..params(true) };
        let run = start(&source, &destination, &fragile(-1, left, Break::Whole), params);
        wait_status(|| run.out.info().status, Status::PostcopyPaused, &what);
        wait_status(|| run.into.info().status, Status::Completed, &what);
        assert_eq!(run.out.info().owner, Owner::There, "{what}");
        // A client that is not the source gets no answer and changes nothing.
        let (stranger, there) = fragile(-1, -1, Break::Whole);
        run.into.recover(over(&there)).unwrap();
        drop(stranger);
        let (here, there) = fragile(-1, -1, Break::Whole);
        run.into.recover(over(&there)).unwrap();
        run.out.recover(&over(&here)).unwrap();
        let (out, into) = run.wait(&what);
        assert!(out.is_ok() && into.is_ok(), "{what}: {out:?} {into:?}");
        assert_eq!((run.out.info().owner, run.into.info().owner), (Owner::There, Owner::Here), "{what}");
        check_whole(&source, &destination, &stage, &what);
        // The next one waits for a source that does not come, and ends with the handle.
        run.into.recover(over(&fragile(-1, -1, Break::Whole).1)).unwrap();
        run.into.end();
    }
}

#[test]
fn silent_clients_do_not_delay_a_lost_report_that_is_given_again() {
    let left = answers() - 10;
    let (source, destination, stage) = machines();
    let params =
        Params { max_postcopy_bandwidth: 0, recover_timeout: None, handshake_timeout: 100 * LONG, ..params(true) };
    let run = start(&source, &destination, &fragile(-1, left, Break::Whole), params);
    wait_status(|| run.out.info().status, Status::PostcopyPaused, "the source's pause");
    wait_status(|| run.into.info().status, Status::Completed, "the destination");
    let path = scratch("verdict");
    let at = || Endpoint::Uri(Uri::Unix(path.clone()));
    run.into.recover(at()).unwrap();
    let _silent: Vec<_> = [&b""[..], b"\x08", b"\x08\0"]
        .iter()
        .map(|bytes| {
            let mut client = UnixStream::connect(&path).unwrap();
            client.write_all(bytes).unwrap();
            client
        })
        .collect();
    UnixStream::connect(&path).unwrap().write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    run.out.recover(&at()).unwrap();
    let (out, into) = run.wait("silent clients");
    assert!(out.is_ok() && into.is_ok(), "{out:?} {into:?}");
    assert_eq!((run.out.info().owner, run.into.info().owner), (Owner::There, Owner::Here));
    check_whole(&source, &destination, &stage, "silent clients");
    run.into.end();
}

#[test]
fn a_destination_that_is_cancelled_before_it_reads_run_gives_the_guest_back() {
    let (source, destination, stage) = machines();
    let (here, there) = fragile(-1, -1, Break::Whole);
    let into = Incoming::start(&destination.vm, over(&there), slow(true)).unwrap();
    let out = Outgoing::start(&source.vm, over(&Refuses::run(here, true)), slow(true)).unwrap();
    let run = Run { out, into };
    run.out.start_postcopy().unwrap();
    wait_status(|| run.out.info().status, Status::PostcopyActive, "RUN was sent");
    cancelled(&*run.into, run.into.cancel());
    let (out, into) = run.wait("cancelled before RUN");
    let error = out.unwrap_err().to_string();
    assert!(error.contains("cancelled at the destination") && into.is_err(), "{error}");
    assert_eq!((run.out.info().owner, run.into.info().status), (Owner::Here, Status::Cancelled), "{error}");
    assert!(source.host.is_running() && !destination.host.is_running());
    source.check_balanced("cancelled before RUN");
    destination.check_balanced("cancelled before RUN");
    stage.check("cancelled before RUN");
}

#[test]
fn a_destination_that_can_not_start_the_guest_of_a_postcopy_gives_it_back() {
    for disks in [true, false] {
        let what = format!("the disks fail: {disks}");
        let (source, destination, stage) = machines();
        let fails = if disks { &destination.host.fail_disks } else { &destination.host.fail_start };
        fails.store(true, SeqCst);
        let run = start(&source, &destination, &fragile(-1, -1, Break::Whole), params(true));
        let (out, into) = run.wait(&what);
        let error = out.unwrap_err().to_string();
        assert!(error.contains("the destination failed") && into.is_err(), "{what}: {error}");
        assert_eq!((run.out.info().owner, run.into.info().owner), (Owner::Here, Owner::Torn), "{what}: {error}");
        assert!(source.host.is_running() && !destination.host.is_running(), "{what}");
        source.check_balanced(&what);
        destination.check_balanced(&what);
        stage.check(&what);
    }
}

#[test]
fn a_lost_end_keeps_no_side_waiting() {
    let whole = fragile(-1, -1, Break::Whole);
    {
        let (source, destination, _stage) = machines();
        let run = start(&source, &destination, &whole, params(true));
        let (out, into) = run.wait("whole");
        out.and(into).unwrap();
    }
    // EOF is the last byte.
    let forth = whole.1.read_so_far() - 1;
    for how in [Break::Whole, Break::Half, Break::Silent] {
        let what = format!("{how:?} at {forth}");
        let (source, destination, stage) = machines();
        let params = Params { max_postcopy_bandwidth: 0, ..slow(true) };
        let run = start(&source, &destination, &fragile(forth, -1, how), params);
        let (out, into) = run.wait(&what);
        assert!(out.is_ok() && into.is_ok(), "{what}: {out:?} {into:?}");
        check_whole(&source, &destination, &stage, &what);
    }
}

#[test]
fn a_stopped_guest_stays_stopped_in_a_postcopy() {
    for extensions in [true, false] {
        let what = format!("a stopped guest, extensions {extensions}");
        let (source, destination, stage) = machines();
        source.host.stop_guest();
        // Without the extensions it is a QEMU, which starts the guest of a postcopy in any case: precopy completes instead.
        source.host.flags.store(if extensions { 0 } else { Flags::GLOBAL_STATE.0 }, SeqCst);
        let run = start(&source, &destination, &fragile(-1, -1, Break::Whole), params(extensions));
        let (out, into) = run.wait(&what);
        out.and(into).unwrap();
        assert!(!source.host.is_running() && !destination.host.is_running(), "{what}");
        assert_eq!(source.state(), destination.state(), "{what}");
        assert_eq!((run.out.info().owner, run.into.info().owner), (Owner::There, Owner::Here), "{what}");
        assert_eq!(source.host.events.lock().unwrap().contains(&"postcopy-active"), extensions, "{what}");
        stage.check(&what);
    }
}

#[test]
fn query_and_event_say_why_a_postcopy_paused() {
    let (source, destination, stage) = machines();
    let run = running(&source, &destination, &fragile(-1, -1, Break::Whole), slow(true));
    run.out.pause().unwrap();
    wait_status(|| run.out.info().status, Status::PostcopyPaused, "the source's pause");
    wait_status(|| run.into.info().status, Status::PostcopyPaused, "the destination's pause");
    for (machine, info) in [(&source, run.out.info()), (&destination, run.into.info())] {
        let error = info.pause_error.expect("the query has the error").to_string();
        let errors = || machine.host.event_errors.lock().unwrap().clone();
        wait_until(|| !errors().is_empty(), || "no event has the error".to_owned());
        assert_eq!(errors(), [("postcopy-paused", error)]);
    }
    source.ram.postcopy.on_request_only.store(false, SeqCst);
    recover_all(&run, "why it paused");
    let (out, into) = run.wait("why it paused");
    out.and(into).unwrap();
    assert!(run.out.info().pause_error.is_none() && run.into.info().pause_error.is_none());
    check_whole(&source, &destination, &stage, "why it paused");
}
