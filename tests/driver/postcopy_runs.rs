// SPDX-License-Identifier: LGPL-2.1-or-later
//! Postcopy: the switch, pages on request, breaks at every byte, recovery.

use super::link::{Break, Fragile, corrupting, fragile};
use super::machine::{Machine, PAGES, Stage, UNTIL_TOLD};
use super::precopy::{LONG, Run, over, quick, wait_status, wait_until};
use savevm::channel::{Uri, memory};
use savevm::error::Error;
use savevm::file::MigFile;
use savevm::migration::{Endpoint, Incoming, Migration, Owner, Params, Status};
use savevm::savevm::host::Flags;
use savevm::savevm::{command, save};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

pub fn params(extensions: bool) -> Params {
    // Slow enough that the switch comes in the middle, and not so slow that a run takes long.
    Params {
        postcopy: true,
        extensions,
        max_bandwidth: 100_000,
        downtime_limit: Duration::from_micros(500),
        recover_timeout: Some(10 * LONG),
        ..quick()
    }
}

pub fn machines() -> (Machine, Machine, Arc<Stage>) {
    let (source, destination, stage) = Machine::two();
    source.ram.writes.store(u32::MAX, SeqCst);
    (source.with_postcopy(), destination.with_postcopy(), stage)
}

pub fn start(source: &Machine, destination: &Machine, ends: &(Arc<Fragile>, Arc<Fragile>), params: Params) -> Run {
    source.ram.postcopy.setup_waits.store(true, SeqCst);
    let run = Run::start(source, destination, ends.clone(), (params.clone(), params));
    // It may be over already, where the connection breaks early.
    let _ = run.out.start_postcopy();
    source.ram.postcopy.setup_waits.store(false, SeqCst);
    run
}

/// Touches every page of the destination, the last first, as soon as its guest runs.
pub struct Guest {
    over: Arc<AtomicBool>,
    thread: thread::JoinHandle<Option<Vec<u64>>>,
}

impl Guest {
    /// The migration is over: what the guest saw, if it ran.
    pub fn join(self) -> Option<Vec<u64>> {
        self.over.store(true, SeqCst);
        self.thread.join().unwrap()
    }
}

pub fn guest(destination: &Machine) -> Guest {
    let (host, ram) = (Arc::clone(&destination.host), Arc::clone(&destination.ram));
    let over = Arc::new(AtomicBool::new(false));
    let over_there = Arc::clone(&over);
    let thread = thread::spawn(move || {
        while !host.is_running() {
            if over_there.load(SeqCst) && !host.is_running() {
                return None;
            }
            thread::sleep(Duration::from_millis(1));
        }
        let mut values: Vec<_> = (0..PAGES).rev().map(|page| ram.touch(page)).collect::<Option<_>>()?;
        values.reverse();
        Some(values)
    });
    Guest { over, thread }
}

pub fn check_whole(source: &Machine, destination: &Machine, stage: &Stage, what: &str) {
    assert!(!source.host.is_running() && destination.host.is_running(), "{what}: the side that runs");
    assert_eq!(source.state(), destination.state(), "{what}: state");
    assert_eq!(destination.ram.postcopy.ended(), Some(true), "{what}: the end was reported");
    source.check_balanced(what);
    destination.check_balanced(what);
    stage.check(what);
}

pub fn reports(source: &Machine, destination: &Machine) -> String {
    format!("{:?} {:?}", source.host.reports.lock().unwrap(), destination.host.reports.lock().unwrap())
}

/// Breaks a postcopy that both are in: the destination may run the guest before the source has moved on.
pub fn pause_postcopy(run: &Run) {
    wait_status(|| run.into.info().status, Status::PostcopyActive, "the destination in postcopy");
    wait_status(|| run.out.info().status, Status::PostcopyActive, "the source in postcopy");
    run.out.pause().unwrap();
}

#[test]
fn the_guest_runs_over_there_while_its_pages_follow() {
    for extensions in [true, false] {
        let what = format!("postcopy, extensions {extensions}");
        let (source, destination, stage) = machines();
        let ends = fragile(-1, -1, Break::Whole);
        let slow = Params { max_postcopy_bandwidth: 2_000, ..params(extensions) };
        source.ram.ballast.store(50, SeqCst);
        source.ram.postcopy.on_request_only.store(true, SeqCst);
        let run = start(&source, &destination, &ends, slow);
        let guest = guest(&destination);
        let (out, into) = run.wait(&what);
        assert!(out.is_ok() && into.is_ok(), "{what}: {out:?} {into:?} {}", reports(&source, &destination));
        assert_eq!(guest.join(), Some(source.ram.contents()), "{what}");
        check_whole(&source, &destination, &stage, &what);
        let events = source.host.events.lock().unwrap().clone();
        let expected: &[&str] = match extensions {
            true => &["setup", "active", "device", "postcopy-active", "completed"],
            false => &["setup", "active", "postcopy-active", "completed"],
        };
        assert_eq!(events, expected, "{what}");
        assert!(run.out.info().page_requests > 0 && run.into.info().page_requests > 0, "{what}");
        assert!(run.out.info().rounds > 0, "{what}: in the end nothing was left to send");
    }
}

#[test]
fn pages_that_are_asked_for_do_not_wait_for_the_rate_limit() {
    let (source, destination, stage) = machines();
    source.ram.ballast.store(50, SeqCst);
    // Three pages in a window of 100 ms.
    let slow = Params { max_postcopy_bandwidth: 2_000, pause_before_switchover: true, ..params(true) };
    let run = start(&source, &destination, &fragile(-1, -1, Break::Whole), slow);
    wait_status(|| run.out.info().status, Status::PreSwitchover, "the pause");
    // No window ends any more, so that the background copy sends the pages of one window.
    source.host.freeze();
    run.out.continue_().unwrap();
    wait_status(|| run.into.info().status, Status::PostcopyActive, "the destination in postcopy");
    wait_status(|| run.out.info().status, Status::PostcopyActive, "the source in postcopy");
    let missing = || (0..PAGES).filter(|page| !destination.ram.postcopy.has(*page)).collect::<Vec<_>>();
    let left = missing();
    assert!(left.len() > 7, "the limit holds the background copy back: {left:?}");
    for page in [left[left.len() - 1], left[left.len() - 2]] {
        assert_eq!(destination.ram.touch(page), Some(source.ram.contents()[page]), "page {page}");
    }
    assert!(missing().contains(&left[4]), "pages that were not requested wait");
    *source.host.frozen.lock().unwrap() = None;
    let (out, into) = run.wait("urgent pages");
    out.and(into).unwrap();
    check_whole(&source, &destination, &stage, "urgent pages");
}

#[test]
fn devices_may_read_pages_that_are_missing() {
    for extensions in [true, false] {
        let what = format!("a device reads, extensions {extensions}");
        let (source, destination, stage) = machines();
        *destination.device.reads.lock().unwrap() = Some(Arc::clone(&destination.ram));
        let run = start(&source, &destination, &fragile(-1, -1, Break::Whole), params(extensions));
        let (out, into) = run.wait(&what);
        out.and(into).unwrap();
        // Without them the background copy goes on meanwhile, and may be faster.
        assert!(run.out.info().page_requests > 0 || !extensions, "{what}");
        check_whole(&source, &destination, &stage, &what);
    }
}

#[test]
fn the_guest_goes_when_what_only_precopy_sends_is_through() {
    let (source, destination, stage) = machines();
    let ((source, early), (destination, arrived)) = (source.with_early(1 << 20), destination.with_early(1));
    let pausing = Params { pause_before_switchover: true, max_bandwidth: 20_000, ..params(true) };
    let run = start(&source, &destination, &fragile(-1, -1, Break::Whole), pausing);
    let (mut classes, since) = ((false, false), Instant::now());
    while run.out.info().status != Status::PreSwitchover {
        assert!(since.elapsed() < LONG, "{:?}", run.out.info());
        let left = run.out.info().remaining;
        classes = (classes.0 || left.precopy_only > 0, classes.1 || left.compatible > 0);
        if classes == (true, true) {
            early.left.store(1, SeqCst);
        }
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!((early.left.load(SeqCst), classes), (0, (true, true)));
    assert!(!source.host.is_running() && !destination.host.is_running());
    run.out.continue_().unwrap();
    let (out, into) = run.wait("precopy only");
    out.and(into).unwrap();
    assert_eq!(arrived.left.load(SeqCst), 0);
    check_whole(&source, &destination, &stage, "precopy only");
    let events = source.host.events.lock().unwrap().clone();
    assert_eq!(events, ["setup", "active", "pre-switchover", "device", "postcopy-active", "completed"]);
}

#[test]
fn devices_that_do_not_load_give_the_guest_back() {
    let (source, destination, stage) = machines();
    destination.device.fail_load.store(true, SeqCst);
    let run = start(&source, &destination, &fragile(-1, -1, Break::Whole), params(true));
    let (out, into) = run.wait("refusal");
    assert!(out.unwrap_err().to_string().contains("does not want to"));
    assert!(into.is_err());
    assert!(source.host.is_running() && !destination.host.is_running());
    assert_eq!(run.out.info().owner, Owner::Here);
    source.check_balanced("refusal");
    destination.check_balanced("refusal");
    stage.check("refusal");
}

/// A section of the type FULL with the device's whole state.
fn put_device(file: &MigFile) {
    const ID: u32 = 9;
    file.put_byte(4);
    file.put_be32(ID);
    file.put(b"\x03dev\0\0\0\0\0\0\0\x01");
    file.put_be64(7);
    file.put_byte(0x7e);
    file.put_be32(ID);
}

/// A package with the handover, as `put` fills it behind LISTEN.
fn package(source: &Machine, put: impl Fn(&MigFile)) -> Vec<u8> {
    let inside = Arc::new(memory::Writer::new());
    let package = MigFile::new(Arc::clone(&inside) as _, true);
    command::postcopy_listen(&source.vm, &package);
    put(&package);
    package.close().unwrap();
    inside.contents()
}

/// What becomes of a stream that has these packages and is through at once, while the connection stays.
fn load_packages(packages: impl Fn(&Machine) -> Vec<Vec<u8>>) -> Error {
    let (source, destination, stage) = machines();
    destination.device.fail_load.store(true, SeqCst);
    fail_to_load((source, destination, stage), packages, 0)
}

/// How a stream fails that has these packages, and this byte behind them.
fn fail_to_load(
    (source, destination, stage): (Machine, Machine, Arc<Stage>),
    packages: impl Fn(&Machine) -> Vec<Vec<u8>>,
    last: u8,
) -> Error {
    source.vm.set_flags(Flags::POSTCOPY_RAM, true);
    let (there, here) = memory::pair(1 << 16);
    let stream = MigFile::new(there, true);
    save::header(&source.vm, &stream);
    command::postcopy_advise(&source.vm, &stream);
    for package in packages(&source) {
        command::packaged(&source.vm, &stream, &package).unwrap();
    }
    stream.put_byte(last);
    stream.flush();
    // No limit is reached: what it waits for has happened.
    let limit = 10 * LONG;
    let params =
        Params { handshake_timeout: limit, switchover_timeout: limit, stall_timeout: Some(limit), ..params(true) };
    let into = Incoming::start(&destination.vm, over(&here), params).unwrap();
    let error = into.wait_within(LONG).expect("it ends").unwrap_err();
    assert_eq!((into.info().status, into.info().owner), (Status::Failed, Owner::Torn));
    assert!(!destination.host.is_running());
    destination.check_balanced("stream is through");
    stage.check("stream is through");
    error
}

#[test]
fn devices_that_do_not_load_end_a_postcopy_whose_stream_is_through() {
    let error = load_packages(|source| vec![package(source, put_device)]);
    assert!(error.to_string().contains("does not want to"), "{error}");
}

#[test]
fn each_package_is_waited_for() {
    const EOF: u8 = 0;
    for _ in 0..100 {
        let error = load_packages(|source| vec![vec![EOF], package(source, put_device)]);
        assert!(error.to_string().contains("does not want to"), "{error}");
    }
}

#[test]
fn failed_device_load_leaves_the_guest_at_the_source() {
    let machines = machines();
    machines.1.device.slow.store(200, SeqCst);
    let devices_and_run = |source: &Machine| {
        let vm = Arc::clone(&source.vm);
        vec![package(source, |file| {
            put_device(file);
            command::postcopy_run(&vm, file);
        })]
    };
    let error = fail_to_load(machines, devices_and_run, 0x99);
    assert!(error.to_string().contains("0x99"), "{error}");
}

#[test]
fn a_break_while_the_devices_load_is_recovered_where_the_guest_is_gone() {
    let (source, destination, stage) = machines();
    source.ram.ballast.store(50, SeqCst);
    destination.device.slow.store(UNTIL_TOLD, SeqCst);
    source.ram.postcopy.on_request_only.store(true, SeqCst);
    let slow = Params { max_postcopy_bandwidth: 2_000, ..params(false) };
    let run = start(&source, &destination, &fragile(-1, -1, Break::Whole), slow);
    wait_status(|| run.into.info().status, Status::Device, "devices");
    wait_status(|| run.out.info().status, Status::PostcopyActive, "handed over");
    run.out.pause().unwrap();
    destination.device.slow.store(0, SeqCst);
    source.ram.postcopy.on_request_only.store(false, SeqCst);
    recover_all(&run, "devices load");
    let (out, into) = run.wait("devices load");
    assert!(out.is_ok() && into.is_ok(), "{out:?} {into:?}");
    check_whole(&source, &destination, &stage, "devices load");
}

/// In which time both ends of a postcopy begin the recovery that they were offered.
const NOTICED: Duration = Duration::from_secs(2);

/// Recovers whatever is paused, over a connection that holds, until both ends are done.
pub fn recover_all(run: &Run, what: &str) {
    let since = Instant::now();
    loop {
        let (out, into) = (run.out.info().status, run.into.info().status);
        if out == Status::PostcopyPaused && into == Status::Completed {
            // The last answers were lost. Only libsavevm is asked for them again.
            let (here, there) = fragile(-1, -1, Break::Whole);
            if run.into.recover(over(&there)).is_ok() {
                run.out.recover(&over(&here)).unwrap();
                wait_until(|| run.out.info().status.is_final(), || format!("{what}: {:?}", run.out.info()));
                assert_eq!(run.out.info().status, Status::Completed, "{what}");
                continue;
            }
        }
        if out.is_final() || into.is_final() {
            // A paused postcopy has no peer to recover with.
            if out == Status::PostcopyPaused {
                run.out.end();
            } else if into == Status::PostcopyPaused {
                run.into.end();
            }
            if out.is_final() && into.is_final() {
                return;
            }
        }
        assert!(since.elapsed() < LONG, "{what}: the source is {out}, the destination {into}");
        if out == Status::PostcopyPaused && into == Status::PostcopyPaused {
            let (here, there) = fragile(-1, -1, Break::Whole);
            let offered = run.into.recover(over(&there)).and_then(|()| run.out.recover(&over(&here)));
            if let Err(error) = offered {
                // A side has accepted the offer of the round before since its status was read. With TLS it does not answer
                // another one.
                let expected = ["only a paused postcopy can be recovered", "did not complete the handshake"];
                assert!(expected.iter().any(|text| error.message().contains(text)), "{what}: {error}");
            }
            // Let them notice, unless the recovery has failed already.
            let (offered, paused) = (Instant::now(), |status| status == Status::PostcopyPaused);
            while paused(run.out.info().status) && paused(run.into.info().status) && offered.elapsed() < NOTICED {
                thread::sleep(Duration::from_millis(1));
            }
        } else if out == Status::PostcopyPaused || into == Status::PostcopyPaused {
            // The other side sees the break by its own.
            let _ = if out == Status::PostcopyPaused { run.into.pause() } else { run.out.pause() };
        }
        thread::sleep(Duration::from_millis(1));
    }
}

pub fn lengths(params: Params) -> (i64, i64) {
    let (source, destination, _stage) = machines();
    let ends = fragile(-1, -1, Break::Whole);
    let run = start(&source, &destination, &ends, params);
    let (out, into) = run.wait("whole");
    out.and(into).unwrap();
    (ends.1.read_so_far(), ends.0.read_so_far())
}

pub fn one_cut(ends: (Arc<Fragile>, Arc<Fragile>), params: Params, what: &str) -> bool {
    let (source, destination, stage) = machines();
    let run = start(&source, &destination, &ends, params);
    let guest = guest(&destination);
    recover_all(&run, what);
    let (out, into) = run.wait(what);
    let values = guest.join();
    match (&out, &into) {
        (Ok(()), Ok(())) => {
            check_whole(&source, &destination, &stage, what);
            assert_eq!(values, Some(source.ram.contents()), "{what}");
        }
        (Err(_), Err(_)) => {
            let owner = run.out.info().owner;
            assert!(stage.guests() <= 1, "{what}");
            assert_eq!(source.host.is_running(), owner == Owner::Here, "{what}");
            // A break before the handover leaves the guest at the source. After it, the source knows where the guest is.
            assert!(owner != Owner::There || destination.host.is_running(), "{what}: {owner:?} {out:?}");
        }
        (Err(error), Ok(())) => {
            // The verdict was lost behind the end.
            assert!(run.out.info().owner != Owner::Here && destination.host.is_running(), "{what}: {error}");
        }
        (Ok(()), Err(error)) => panic!("{what}: the source released the guest, but the destination: {error}"),
    }
    source.check_balanced(what);
    destination.check_balanced(what);
    stage.check(what);
    run.out.info().recoveries > 0
}

#[test]
fn a_break_at_every_byte_is_recovered_or_leaves_the_guest_where_it_was() {
    for extensions in [true, false] {
        let (forth, back) = lengths(params(extensions));
        let mut recovered = 0;
        for at in (0..forth).step_by(if extensions { 1 } else { 3 }) {
            let what = format!("postcopy (extensions {extensions}) breaks to the destination at {at}");
            let how = if at % 2 == 0 { Break::Whole } else { Break::Half };
            recovered += u32::from(one_cut(fragile(at, -1, how), params(extensions), &what));
        }
        for at in 0..back {
            let what = format!("postcopy (extensions {extensions}) breaks to the source at {at}");
            let how = if at % 2 == 0 { Break::Whole } else { Break::Half };
            recovered += u32::from(one_cut(fragile(-1, at, how), params(extensions), &what));
        }
        assert!(recovered > 10, "only {recovered} breaks were recovered");
    }
}

#[test]
fn silence_in_a_postcopy_is_a_break() {
    let limit = Duration::from_millis(80);
    let params =
        Params { stall_timeout: Some(limit), switchover_timeout: limit, handshake_timeout: limit, ..params(true) };
    let (forth, back) = lengths(self::params(true));
    let mut recovered = 0;
    for at in (0..forth).step_by(9) {
        let what = format!("postcopy, silence to the destination at {at}");
        recovered += u32::from(one_cut(fragile(at, -1, Break::Silent), params.clone(), &what));
    }
    for at in (0..back).step_by(5) {
        let what = format!("postcopy, silence to the source at {at}");
        recovered += u32::from(one_cut(fragile(-1, at, Break::Silent), params.clone(), &what));
    }
    assert!(recovered > 0);
}

#[test]
fn a_corrupted_byte_in_a_postcopy_never_makes_two_guests_and_never_hangs() {
    let limit = Duration::from_millis(100);
    let short = Params {
        stall_timeout: Some(limit),
        switchover_timeout: limit,
        handshake_timeout: limit,
        recover_timeout: Some(limit),
        ..params(true)
    };
    let (forth, _) = lengths(params(true));
    for at in (0..forth).step_by(3) {
        let what = format!("postcopy, byte {at} corrupted");
        let (source, destination, stage) = machines();
        let run = start(&source, &destination, &corrupting(at, if at % 2 == 0 { 0x5a } else { 0 }), short.clone());
        let _ = run.wait(&what);
        run.out.end();
        assert!(stage.guests() <= 1, "{what}");
        source.check_balanced(&what);
        destination.check_balanced(&what);
        stage.check(&what);
    }
}

#[test]
fn paused_postcopy_without_recovery_fails_at_its_time_limit() {
    let (source, destination, stage) = machines();
    let slow =
        Params { max_postcopy_bandwidth: 1_000, recover_timeout: Some(Duration::from_millis(200)), ..params(true) };
    source.ram.ballast.store(100, SeqCst);
    source.ram.postcopy.on_request_only.store(true, SeqCst);
    let run = start(&source, &destination, &fragile(-1, -1, Break::Whole), slow);
    pause_postcopy(&run);
    let (out, into) = run.wait("not recovered");
    assert!(out.unwrap_err().message().contains("was not recovered in time"));
    assert!(into.unwrap_err().message().contains("was not recovered in time"));
    // The destination may not have shown yet that it got the guest.
    assert!(run.out.info().owner != Owner::Here && run.into.info().owner == Owner::Torn);
    // Pages are lost, so neither side continues the guest.
    assert!(!source.host.is_running() && !destination.host.is_running());
    assert_eq!(destination.ram.postcopy.ended(), Some(false));
    source.check_balanced("not recovered");
    destination.check_balanced("not recovered");
    stage.check("not recovered");
}

#[test]
fn a_postcopy_that_the_host_steps_ends_with_its_handle() {
    for paused in [true, false] {
        let what = format!("the handle goes, paused: {paused}");
        let (source, destination, stage) = machines();
        source.ram.ballast.store(50, SeqCst);
        let params = Params { own_thread: false, max_postcopy_bandwidth: 2_000, ..params(true) };
        let run = start(&source, &destination, &fragile(-1, -1, Break::Whole), params);
        let steps_to = |status: Status| {
            while run.out.info().status != status {
                assert!(run.out.step().unwrap(), "{what}: it ended as {}", run.out.info().status);
            }
        };
        steps_to(Status::PostcopyActive);
        if paused {
            run.out.pause().unwrap();
            steps_to(Status::PostcopyPaused);
        }
        run.out.end();
        let info = run.out.info();
        if paused {
            // The destination may not have shown yet that it got the guest.
            assert!(info.status == Status::Failed && info.owner != Owner::Here, "{what}");
        } else {
            assert_eq!((info.status, info.owner), (Status::Completed, Owner::There), "{what}");
        }
        run.into.end();
        assert_eq!(run.into.wait().is_ok(), !paused, "{what}");
        source.check_balanced(&what);
        destination.check_balanced(&what);
        stage.check(&what);
        source.vm.slot.acquire("the next one").unwrap();
    }
}

/// Both ends of a postcopy that is paused.
fn paused(source: &Machine, destination: &Machine) -> Run {
    paused_with(source, destination, params(true))
}

fn paused_with(source: &Machine, destination: &Machine, params: Params) -> Run {
    source.ram.ballast.store(50, SeqCst);
    source.ram.postcopy.on_request_only.store(true, SeqCst);
    let slow = Params { max_postcopy_bandwidth: 2_000, ..params };
    let run = start(source, destination, &fragile(-1, -1, Break::Whole), slow);
    pause_postcopy(&run);
    source.ram.postcopy.on_request_only.store(false, SeqCst);
    wait_status(|| run.out.info().status, Status::PostcopyPaused, "the source's pause");
    wait_status(|| run.into.info().status, Status::PostcopyPaused, "the destination's pause");
    run
}

/// Waits until both ends together have reported that so often.
fn wait_reports((source, destination): (&Machine, &Machine), text: &str, times: usize) {
    wait_until(|| reports(source, destination).matches(text).count() >= times, || reports(source, destination));
}

#[test]
fn a_stranger_does_not_end_a_paused_postcopy() {
    let (source, destination, stage) = machines();
    let run = paused(&source, &destination);
    let (stranger, there) = memory::pair(100);
    let words = MigFile::new(stranger, true);
    words.put(b"GET / HTTP/1.0\r\n\r\n");
    words.flush();
    run.into.recover(over(&there)).unwrap();
    wait_reports((&source, &destination), "section type", 1);
    recover_all(&run, "a stranger");
    let (out, into) = run.wait("a stranger");
    out.and(into).unwrap();
    check_whole(&source, &destination, &stage, "a stranger");
}

#[test]
fn a_silent_stranger_delays_a_recovery_by_the_limit_of_the_handshake() {
    let (source, destination, stage) = machines();
    let limit = Duration::from_secs(3);
    let run = paused_with(
        &source,
        &destination,
        Params { handshake_timeout: limit, stall_timeout: Some(10 * LONG), recover_timeout: None, ..params(true) },
    );
    let (_silent, there) = memory::pair(100);
    let since = Instant::now();
    run.into.recover(over(&there)).unwrap();
    wait_reports((&source, &destination), "postcopy is paused", 3);
    assert!(since.elapsed() >= limit);
    wait_status(|| run.into.info().status, Status::PostcopyPaused, "the destination's second pause");
    recover_all(&run, "a silent stranger");
    let (out, into) = run.wait("a silent stranger");
    out.and(into).unwrap();
    check_whole(&source, &destination, &stage, "a silent stranger");
    // The limit does not hold for the pages that follow.
    assert_eq!(reports(&source, &destination).matches("postcopy is paused").count(), 3);
}

#[test]
fn strangers_at_a_listener_do_not_delay_a_recovery() {
    let (source, destination, stage) = machines();
    let params = Params { handshake_timeout: 100 * LONG, recover_timeout: None, ..params(true) };
    let run = paused_with(&source, &destination, params);
    let path = super::rest::scratch("recovery");
    let at = || Endpoint::Uri(Uri::Unix(path.clone()));
    run.into.recover(at()).unwrap();
    let _silent: Vec<_> = (0..3).map(|_| UnixStream::connect(&path).unwrap()).collect();
    for bytes in [&b"GET / HTTP/1.0\r\n\r\n"[..], b"\x08\0\x02\0\x04", b""] {
        UnixStream::connect(&path).unwrap().write_all(bytes).unwrap();
    }
    wait_reports((&source, &destination), "closed a connection that did not begin a recovery", 3);
    run.out.recover(&at()).unwrap();
    let (out, into) = run.wait("strangers at a listener");
    out.and(into).unwrap();
    assert!(!path.exists() || UnixStream::connect(&path).is_err(), "the listener is closed");
    check_whole(&source, &destination, &stage, "strangers at a listener");
}

#[test]
fn a_connection_that_is_offered_while_another_is_tried_is_not_lost() {
    let (source, destination, stage) = machines();
    let run = paused(&source, &destination);
    let ((_gone, closed), (here, sound)) = (fragile(0, -1, Break::Whole), fragile(-1, -1, Break::Whole));
    let into = Arc::clone(&run.into);
    closed.when_accepted(move || into.recover(Endpoint::Channel(sound)).unwrap());
    run.into.recover(over(&closed)).unwrap();
    run.out.recover(&Endpoint::Channel(here)).unwrap();
    let (out, into) = run.wait("offered meanwhile");
    out.and(into).unwrap();
    check_whole(&source, &destination, &stage, "offered meanwhile");
}

#[test]
fn a_connection_without_a_way_back_does_not_end_a_paused_postcopy() {
    let (source, destination, stage) = machines();
    let run = paused(&source, &destination);
    run.into.recover(Endpoint::Channel(Arc::new(memory::Reader::new(*b"no way back")))).unwrap();
    run.out.recover(&Endpoint::Channel(Arc::new(memory::Writer::new()))).unwrap();
    wait_reports((&source, &destination), "the recovery failed", 2);
    recover_all(&run, "no way back");
    let (out, into) = run.wait("no way back");
    out.and(into).unwrap();
    check_whole(&source, &destination, &stage, "no way back");
}

#[test]
fn postcopy_that_was_not_agreed_on_is_refused() {
    let (source, destination, stage) = machines();
    let late = Params { preflight: false, ..quick() };
    let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (params(true), late));
    let (out, into) = run.wait("no agreement");
    assert!(into.unwrap_err().to_string().contains("POSTCOPY_ADVISE"));
    assert!(out.unwrap_err().to_string().contains("POSTCOPY_ADVISE"));
    assert!(source.host.is_running());
    stage.check("no agreement");
    let (here, _) = fragile(-1, -1, Break::Whole);
    let run = savevm::migration::Outgoing::start(&source.vm, Endpoint::Channel(here), quick()).unwrap();
    assert!(run.start_postcopy().is_err());
    run.end();
}
