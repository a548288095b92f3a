// SPDX-License-Identifier: LGPL-2.1-or-later
//! Snapshots, convergence, the trace, sockets, and everything at once from many threads.

use super::link::{Break, fragile};
use super::machine::{Machine, Progress};
use super::precopy::{LONG, Run, check_moved, check_stayed, over, quick, wait_status, wait_until};
use savevm::channel::Uri;
use savevm::migration::{
    Choice, Endpoint, Incoming, Migration, Outgoing, Owner, Params, SnapshotOptions, Status, snapshot_load,
    snapshot_save,
};
use savevm::savevm::host::Host;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

pub fn scratch(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, SeqCst);
    std::env::temp_dir().join(format!("savevm-driver-{name}-{}-{number}", std::process::id()))
}

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn a_snapshot_comes_back() {
    let (source, destination, _stage) = Machine::two();
    let path = scratch("snapshot");
    let uri = Uri::File { path: path.clone(), offset: 0 };
    // RAM expects rounds without the lock: that is a migration's rule, so a snapshot breaks it on purpose.
    snapshot_save(&source.vm, &uri, &SnapshotOptions::default()).unwrap();
    assert!(source.host.is_running(), "it runs on");
    source.check_balanced("saving");
    let inside = "save_live_iterate inside the lock";
    let mut violations = std::mem::take(&mut *source.host.stage.violations.lock().unwrap());
    violations.retain(|text| !text.contains(inside));
    assert!(violations.is_empty(), "{violations:?}");
    assert_eq!(source.host.resets.load(SeqCst), 0, "saving resets nothing");
    snapshot_load(&destination.vm, &uri, &SnapshotOptions::default()).unwrap();
    assert_eq!(destination.host.resets.load(SeqCst), 1, "what the snapshot does not hold is as after power-on");
    assert!(!destination.host.is_running(), "it did not run before");
    assert_eq!(destination.state(), source.state());
    destination.check_balanced("loading");
    destination.host.stage.check("loading");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_migration_to_a_file_replaces_it_with_a_whole_stream_only() {
    for fails in [true, false] {
        let (source, destination, stage) = Machine::two();
        let place = scratch("file");
        std::fs::create_dir(&place).unwrap();
        let path = place.join("state");
        std::fs::write(&path, "before").unwrap();
        let file = || Endpoint::Uri(Uri::File { path: path.clone(), offset: 0 });
        source.host.fail_stop.store(fails, SeqCst);
        let out = Outgoing::start(&source.vm, file(), quick()).unwrap();
        assert_eq!(out.wait_within(LONG).unwrap().is_err(), fails);
        assert_eq!(std::fs::read(&path).unwrap() == b"before", fails);
        assert_eq!(std::fs::read_dir(&place).unwrap().count(), 1, "no hidden file is left");
        assert_eq!((out.info().owner == Owner::Here, source.host.is_running()), (fails, fails));
        if !fails {
            Incoming::start(&destination.vm, file(), quick()).unwrap().wait_within(LONG).unwrap().unwrap();
            check_moved(&source, &destination, &stage, "through a file");
        }
        std::fs::remove_dir_all(place).unwrap();
    }
}

#[test]
fn failed_snapshot_reports_the_cause_and_leaves_only_a_loaded_guest_stopped() {
    let (source, destination, stage) = Machine::two();
    let nowhere = Uri::File { path: "/nonexistent/snapshot".into(), offset: 0 };
    assert!(
        snapshot_save(&source.vm, &nowhere, &SnapshotOptions::default())
            .unwrap_err()
            .message()
            .contains("/nonexistent")
    );
    assert!(source.host.is_running());
    let blocker = source.vm.slot.block("a busy disk").unwrap();
    assert!(
        snapshot_save(&source.vm, &nowhere, &SnapshotOptions::default())
            .unwrap_err()
            .message()
            .contains("blocked: a busy disk")
    );
    assert!(source.vm.slot.unblock(blocker));
    let full = Uri::File { path: "/dev/full".into(), offset: 0 };
    let before = source.host.reports.lock().unwrap().len();
    let error = snapshot_save(&source.vm, &full, &SnapshotOptions::default()).unwrap_err();
    assert!(source.host.is_running(), "a full disk does not stop the guest");
    let reports = source.host.reports.lock().unwrap()[before..].to_vec();
    assert!(reports.is_empty(), "the caller gets the error, and decides whether to report it: {error}\n{reports:#?}");
    let path = scratch("broken");
    std::fs::write(&path, b"QEVM\0\0\0\x03\x07").unwrap();
    let uri = Uri::File { path: path.clone(), offset: 0 };
    assert!(snapshot_load(&source.vm, &uri, &SnapshotOptions::default()).is_err());
    assert!(source.host.is_running() && source.host.resets.load(SeqCst) == 0, "nothing was touched");
    snapshot_save(&source.vm, &uri, &SnapshotOptions::default()).unwrap();
    let whole = std::fs::read(&path).unwrap();
    // After the end mark only the description follows, which no destination needs: 6, its length, and JSON.
    let end = whole.iter().position(|byte| *byte == b'{').unwrap() - 6;
    for len in 0..=end {
        std::fs::write(&path, &whole[..len]).unwrap();
        assert!(snapshot_load(&source.vm, &uri, &SnapshotOptions::default()).is_err(), "cut at {len}");
        assert!(source.host.is_running() && source.host.resets.load(SeqCst) == 0, "cut at {len}");
    }
    std::fs::write(&path, &whole).unwrap();
    source.device.fail_load.store(true, SeqCst);
    assert!(snapshot_load(&source.vm, &uri, &SnapshotOptions::default()).is_err());
    assert!(!source.host.is_running() && stage.guests() == 0, "only the device could know");
    destination.check_balanced("not used");
    source.check_balanced("failing");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn over_a_socket_with_a_trace() {
    let (source, destination, stage) = Machine::two();
    let (socket, trace) = (scratch("socket"), scratch("trace"));
    let uri = || Endpoint::Uri(Uri::Unix(socket.clone()));
    let into = Incoming::start(&destination.vm, uri(), quick()).unwrap();
    let out = Outgoing::start(&source.vm, uri(), Params { trace: Some(trace.clone()), ..quick() }).unwrap();
    let run = Run { out, into };
    let (out, into) = run.wait("socket");
    out.and(into).unwrap();
    check_moved(&source, &destination, &stage, "socket");
    let text = std::fs::read_to_string(&trace).unwrap();
    assert!(text.lines().all(|line| line.starts_with("{\"t_ns\":") && line.ends_with('}')), "{text}");
    let status = |line: &str| line.split_once("\"event\":\"status\",\"status\":\"").map(|(_, name)| name.to_owned());
    let statuses: Vec<_> = text.lines().filter_map(status).collect();
    let events: Vec<_> = source.host.events.lock().unwrap().iter().map(|name| format!("{name}\"}}")).collect();
    assert_eq!(statuses, events, "the trace has every change that was reported to the host");
    for part in ["\"event\":\"trace\"", "\"completed\"", "\"idstr\":\"dev\"", "\"edge\":\"end\",\"duration_ns\""] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let phases: Vec<_> = run.out.info().phases.iter().map(|(phase, _)| phase.name()).collect();
    assert_eq!(phases, ["connect", "setup", "iterate", "stop", "complete"]);
    std::fs::remove_file(trace).unwrap();
}

#[test]
fn nothing_of_the_host_is_called_once_a_migration_was_ended() {
    let (source, destination, stage) = Machine::two();
    source.host.slow_event.store(30, SeqCst);
    destination.host.slow_event.store(30, SeqCst);
    let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (quick(), quick()));
    let since = Instant::now();
    while !(run.out.info().status.is_final() && run.into.info().status.is_final()) {
        assert!(since.elapsed() < LONG);
        thread::sleep(Duration::from_micros(100));
    }
    // The status is final, and is being reported to the host.
    run.out.end();
    assert_eq!(source.host.events.lock().unwrap().last(), Some(&"completed"));
    run.into.end();
    assert_eq!(destination.host.events.lock().unwrap().last(), Some(&"completed"));
    check_moved(&source, &destination, &stage, "slow events");
}

#[test]
fn a_guest_that_cannot_start_over_there_runs_on_here() {
    let (source, destination, stage) = Machine::two();
    destination.host.fail_start.store(true, SeqCst);
    let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (quick(), quick()));
    let (out, into) = run.wait("no start");
    assert!(out.unwrap_err().to_string().contains("vm_start"));
    assert!(into.is_err());
    assert_eq!((run.out.info().owner, run.into.info().owner), (Owner::Here, Owner::There));
    check_stayed(&source, &destination, &stage, "no start");
}

#[test]
fn a_guest_that_cannot_start_where_the_source_let_go_is_there_all_the_same() {
    for (return_path, extensions) in [(Choice::On, false), (Choice::Off, true)] {
        let what = format!("no start, return path {return_path:?}, extensions {extensions}");
        let (source, destination, stage) = Machine::two();
        destination.host.fail_start.store(true, SeqCst);
        let params = Params { return_path, extensions, ..quick() };
        let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (params, quick()));
        let (out, into) = run.wait(&what);
        assert!(out.is_ok() && into.unwrap_err().to_string().contains("vm_start"), "{what}");
        assert_eq!((run.out.info().owner, run.into.info().owner), (Owner::There, Owner::Here), "{what}");
        assert_eq!(stage.guests(), 0, "{what}");
        // With its disks: an operator with access to both sides may start it.
        destination.host.fail_start.store(false, SeqCst);
        destination.host.lock();
        destination.host.vm_start();
        destination.host.unlock();
        check_moved(&source, &destination, &stage, &what);
    }
}

#[test]
fn migrate_fails_if_no_destination_listens() {
    let (source, destination, stage) = Machine::two();
    let out = Outgoing::start(&source.vm, Endpoint::Uri(Uri::Unix(scratch("nobody"))), quick()).unwrap();
    assert!(out.wait_within(LONG).unwrap().is_err());
    check_stayed(&source, &destination, &stage, "no listener");
    assert_eq!(source.host.stops.load(SeqCst), 0, "the guest noticed nothing");
}

#[test]
fn a_guest_that_is_too_fast_is_slowed_down_until_it_fits() {
    let (source, destination, stage) = Machine::two();
    source.ram.ballast.store(3_000, SeqCst);
    source.ram.writes.store(u32::MAX, SeqCst);
    // 12 pages of 3 kB and a guest that dirties one with each round: 60 kB/s never get that below 600 bytes.
    let params = Params { max_bandwidth: 400_000, downtime_limit: Duration::from_millis(1), ..quick() };
    let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (params.clone(), quick()));
    // All of this may be chosen while it runs.
    run.out.set_params(&Params { auto_converge: true, throttle_initial: 35, ..params }).unwrap();
    let since = Instant::now();
    let mut progress = Progress::default();
    while run.out.info().throttle < 35 {
        assert!(since.elapsed() < LONG, "{:?}", run.out.info());
        progress.look(run.out.info());
        thread::sleep(Duration::from_millis(5));
    }
    assert!(run.out.info().dirty_rate > 0 && run.out.info().bandwidth > 0);
    let arrived = || run.into.info();
    wait_until(|| arrived().transferred > 30_000, || format!("{:?}", arrived()));
    assert_eq!(arrived().status, Status::Active);
    // The host throttles as requested: a guest that is nearly stopped dirties little.
    source.ram.writes.store(0, SeqCst);
    let (out, into) = run.wait("throttle");
    out.and(into).unwrap();
    check_moved(&source, &destination, &stage, "throttle");
    assert_eq!(source.host.throttled.load(SeqCst), 0, "full speed in the end");
}

#[test]
fn a_source_that_waits_is_heard_of() {
    let (source, destination, stage) = Machine::two();
    source.device.plugged.store(true, SeqCst);
    let ends = fragile(-1, -1, Break::Whole);
    let params = Params { pause_before_switchover: true, ..quick() };
    let run = Run::start(&source, &destination, ends.clone(), (params, quick()));
    let read_more_within = |before: i64, time: Duration| {
        let since = Instant::now();
        while ends.1.read_so_far() == before && since.elapsed() < time {
            thread::sleep(Duration::from_millis(1));
        }
        ends.1.read_so_far() > before
    };
    for status in [Status::WaitUnplug, Status::PreSwitchover] {
        wait_status(|| run.out.info().status, status, "it waits");
        source.host.freeze();
        while read_more_within(ends.1.read_so_far(), Duration::from_millis(200)) {}
        let before = ends.1.read_so_far();
        let now = source.host.clock_ns().unwrap();
        *source.host.frozen.lock().unwrap() = Some(now + 6_000_000_000);
        assert!(read_more_within(before, LONG), "nothing arrives in {status}");
        *source.host.frozen.lock().unwrap() = None;
        source.device.plugged.store(false, SeqCst);
    }
    run.out.continue_().unwrap();
    let (out, into) = run.wait("waits");
    out.and(into).unwrap();
    check_moved(&source, &destination, &stage, "waits");
    let events = source.host.events.lock().unwrap().clone();
    assert_eq!(events, ["setup", "wait-unplug", "active", "pre-switchover", "device", "completed"]);
}

#[test]
fn a_step_of_a_migration_with_a_thread_is_refused_and_changes_nothing() {
    for _ in 0..20 {
        let (source, destination, stage) = Machine::two();
        let params = Params { pause_before_switchover: true, ..quick() };
        let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (params, quick()));
        while run.out.info().status != Status::PreSwitchover {
            assert_eq!(run.out.step().unwrap_err().errno(), libc::EBUSY);
        }
        assert_eq!(run.out.step().unwrap_err().errno(), libc::EBUSY);
        run.out.continue_().unwrap();
        let (out, into) = run.wait("a step that is refused");
        out.and(into).unwrap();
        check_moved(&source, &destination, &stage, "a step that is refused");
        assert!(!run.out.step().unwrap(), "the migration is over");
    }
}

#[test]
fn parameters_change_while_it_runs() {
    let (source, destination, stage) = Machine::two();
    source.ram.ballast.store(3_000, SeqCst);
    source.ram.writes.store(u32::MAX, SeqCst);
    let slow = Params { max_bandwidth: 50_000, downtime_limit: Duration::from_micros(1), ..quick() };
    let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (slow, quick()));
    wait_status(|| run.out.info().status, Status::Active, "rounds");
    run.out.set_params(&Params { max_bandwidth: 0, downtime_limit: Duration::from_secs(10), ..quick() }).unwrap();
    let (out, into) = run.wait("parameters");
    out.and(into).unwrap();
    check_moved(&source, &destination, &stage, "parameters");
}

#[test]
fn what_the_devices_cost_is_remembered_and_counted_in() {
    let (source, destination, _stage) = Machine::two();
    source.device.slow.store(30, SeqCst);
    destination.device.fail_load.store(true, SeqCst);
    let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (quick(), quick()));
    assert!(run.wait("first").0.is_err());
    destination.device.fail_load.store(false, SeqCst);
    let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (quick(), quick()));
    let (out, into) = run.wait("second");
    out.and(into).unwrap();
    let cost = source.vm.slot.device_costs.get(b"dev", 0).and_then(|cost| cost.save).unwrap();
    assert!(cost >= Duration::from_millis(30), "{cost:?}");
    let here = destination.vm.slot.device_costs.get(b"dev", 0).and_then(|cost| cost.load_here);
    assert!(here.is_some(), "the destination knows how long it loaded the device");
    let info = run.out.info();
    assert!(info.devices[0].0 == "dev" && info.devices[0].1 >= Duration::from_millis(30), "{info:?}");
    assert!(info.downtime >= Duration::from_millis(30));
}

/// How much slower than usual everything is (a sanitizer), so that interference keeps its share.
fn slowness() -> u32 {
    std::env::var("SAVEVM_TEST_SLOW").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// One run in which other threads interfere at random; the guest must be in one place, whatever comes of it.
fn chaos(seed: u64) -> Status {
    let what = format!("seed {seed}");
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (source, destination, stage) = Machine::two();
    source.ram.writes.store(random.below(20) as u32, SeqCst);
    // Nothing ends some migrations: however slow the machine is, some complete.
    let is_left_alone = random.below(4) == 0;
    let postcopy = random.below(2) == 0;
    let (source, destination) = match postcopy {
        true => (source.with_postcopy(), destination.with_postcopy()),
        false => (source, destination),
    };
    let params = Params {
        postcopy,
        pause_before_switchover: random.below(3) == 0,
        recover_timeout: Some(Duration::from_millis(50)),
        extensions: random.below(4) != 0,
        ..quick()
    };
    let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (params.clone(), params));
    thread::scope(|scope| {
        for _ in 0..2 {
            let mut random = Random(random.below(u64::MAX) | 1);
            let (run, source) = (&run, &source);
            scope.spawn(move || {
                let (mut progress, mut arrival) = (Progress::default(), Progress::default());
                while !run.out.info().status.is_final() {
                    thread::sleep(Duration::from_micros(random.below(300)) * slowness());
                    progress.look(run.out.info());
                    arrival.look(run.into.info());
                    // Refusals are part of the game: each is about the moment.
                    let choice = random.below(24);
                    match choice {
                        0..8 if is_left_alone => {}
                        0 => drop(run.out.cancel()),
                        1 => drop(run.into.cancel()),
                        2 | 3 => drop(run.out.start_postcopy()),
                        4 => drop(run.out.pause()),
                        5 => drop(run.into.pause()),
                        6 => {
                            let (here, there) = fragile(-1, -1, Break::Whole);
                            drop(run.into.recover(over(&there)));
                            drop(run.out.recover(&over(&here)));
                        }
                        7 => {
                            // The host's own threads take the lock, and may cancel with it.
                            source.host.lock();
                            if random.below(2) == 0 {
                                drop(run.out.cancel());
                            }
                            source.host.unlock();
                        }
                        8 => drop(
                            run.out.set_params(&Params { max_bandwidth: random.below(1 << 20), ..run.out.params() }),
                        ),
                        _ => drop(run.out.continue_()),
                    }
                }
            });
        }
    });
    let (out, into) = run.wait(&what);
    let owner = run.out.info().owner;
    match owner {
        Owner::Here => assert!(source.host.is_running() && into.is_err(), "{what}: {out:?} {into:?}"),
        Owner::There if out.is_ok() => check_moved(&source, &destination, &stage, &what),
        _ => assert!(!source.host.is_running() && stage.guests() <= 1, "{what}: {out:?} {into:?}"),
    }
    assert_eq!(out.is_ok(), run.out.info().status == Status::Completed);
    source.check_balanced(&what);
    destination.check_balanced(&what);
    stage.check(&what);
    run.out.info().status
}

#[test]
fn whatever_comes_from_other_threads_the_guest_is_in_one_place() {
    let runs: u64 = std::env::var("SAVEVM_CHAOS_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    let mut seen = std::collections::HashMap::new();
    for seed in 0..runs {
        *seen.entry(chaos(seed).name()).or_insert(0) += 1;
    }
    for status in ["completed", "cancelled"] {
        assert!(seen.contains_key(status), "{seen:?}");
    }
}
