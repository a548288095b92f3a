// SPDX-License-Identifier: LGPL-2.1-or-later
//! The preflight and the rehearsal, between two machines and against clients that break the rules.

use super::link::{Break, fragile};
use super::machine::{Early, Machine, Stage, registration};
use super::precopy::{LONG, Run, check_moved, check_stayed, over, quick, wait_until};
use super::rest::scratch;
use savevm::channel::Uri;
use savevm::migration::{
    Choice, Endpoint, Incoming, Migration, Outgoing, Owner, Params, Status, rehearse, request_verdict,
};
use savevm::savevm::host::Flags;
use savevm::savevm::profile::Profile;
use savevm::wire::command::{self, Command};
use savevm::wire::preflight::{Answer, Manifest, Purpose, Request};
use savevm::wire::return_path::{PING_HELLO, PING_HELLO_END, PING_OPENED};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

pub fn at(path: &Path) -> Endpoint {
    Endpoint::Uri(Uri::Unix(path.into()))
}

/// Two machines, the second of which waits.
pub struct Pair {
    pub source: Machine,
    pub destination: Machine,
    pub stage: Arc<Stage>,
    pub path: PathBuf,
    pub into: Arc<Incoming>,
}

impl Pair {
    pub fn waiting(name: &str, params: Params) -> Self {
        Self::of(name, Machine::two(), params)
    }

    pub fn of(name: &str, (source, destination, stage): (Machine, Machine, Arc<Stage>), params: Params) -> Self {
        let path = scratch(name);
        let into = Incoming::start(&destination.vm, at(&path), params).unwrap();
        Self { source, destination, stage, path, into }
    }

    /// The guest runs at the source, no device of the destination was called, and the destination waits.
    pub fn check_untouched(&self) {
        assert!(self.source.host.is_running());
        assert_eq!(self.destination.counts.load_setup.load(SeqCst), 0);
        assert_eq!(self.destination.counts.loaded.load(SeqCst), 0);
        assert_eq!(self.into.info().status, Status::Setup);
        assert_eq!(self.destination.vm.ownership.owner(), Owner::There);
        self.stage.check("untouched");
    }

    pub fn migrate(self, what: &str) {
        let out = Outgoing::start(&self.source.vm, at(&self.path), quick()).unwrap();
        let (out, into) = Run { out, into: self.into }.wait(what);
        out.and(into).unwrap();
        assert!(!self.source.host.is_running() && self.destination.host.is_running(), "{what}");
        assert_eq!(self.source.state(), self.destination.state(), "{what}");
        self.stage.check(what);
    }

    pub fn reports(&self, part: &str) -> usize {
        self.destination.host.reports.lock().unwrap().iter().filter(|text| text.contains(part)).count()
    }
}

#[test]
fn verdict_leaves_the_destination_waiting_for_the_migration() {
    let pair = Pair::waiting("verdict", quick());
    for _ in 0..3 {
        request_verdict(&pair.source.vm, at(&pair.path), quick()).unwrap();
        pair.check_untouched();
    }
    assert_eq!(pair.source.host.stops.load(SeqCst), 0, "the guest was never stopped");
    assert!(pair.source.host.events.lock().unwrap().is_empty());
    pair.migrate("after three verdicts");
}

#[test]
fn refusal_names_all_problems_at_both_ends_before_any_device_is_called() {
    let (source, destination, stage) = Machine::two();
    let (source, _early) = source.with_early(0);
    let late = |machine: &Machine, name, version| {
        let early = Arc::new(Early { left: 0.into() });
        let mut device = registration(name, true, super::Shared(early));
        device.version_id = version;
        machine.vm.register(device).unwrap();
    };
    late(&source, "newer", 3);
    late(&destination, "newer", 2);
    late(&destination, "extra", 1);
    let pair = Pair::of("refusal", (source, destination, stage), quick());
    let error = request_verdict(&pair.source.vm, at(&pair.path), quick()).unwrap_err();
    assert_eq!((error.errno(), error.problems().len()), (libc::EREMOTEIO, 3));
    let text = error.to_string();
    let missing = "'early' instance 0: the machine has no such device";
    let version = "'newer' instance 0: version 3 is too new, the machine knows 2";
    assert!(text.contains("2 problems") && text.contains(missing) && text.contains(version), "{text}");
    wait_until(|| pair.reports("asked by a source") == 1, || format!("{:?}", pair.destination.host.reports));
    assert_eq!((pair.reports(missing), pair.reports(version)), (1, 1));
    assert_eq!(pair.reports("preflight: 'extra' instance 0: the stream does not have it"), 1);
    pair.check_untouched();
    let strict = Params { strict: true, ..quick() };
    let error = request_verdict(&pair.source.vm, at(&pair.path), strict).unwrap_err();
    assert!(error.message().contains("3 problems") && error.message().contains("'extra'"), "{error}");

    // The migration fails for the same reasons, and ends the wait.
    let out = Outgoing::start(&pair.source.vm, at(&pair.path), quick()).unwrap();
    let (out, into) = Run { out, into: Arc::clone(&pair.into) }.wait("refused");
    for error in [out.unwrap_err(), into.unwrap_err()] {
        assert!(error.message().contains(missing) && error.message().contains(version), "{error}");
    }
    assert_eq!(pair.source.counts.save_setup.load(SeqCst), 0);
    assert_eq!(pair.destination.counts.load_setup.load(SeqCst), 0);
    assert_eq!(pair.source.host.stops.load(SeqCst), 0);
    check_stayed(&pair.source, &pair.destination, &pair.stage, "refused");
}

#[test]
fn switchover_that_the_destination_does_not_know_is_refused_before_memory_moves() {
    let pair = Pair::waiting("switchover", quick());
    pair.source.vm.set_layout(Profile::SWITCHOVER_START, 0);
    let error = request_verdict(&pair.source.vm, at(&pair.path), quick()).unwrap_err();
    assert!(error.message().contains("SAVEVM_FLAG_NO_SWITCHOVER_START"), "{error}");
    pair.check_untouched();
    pair.source.vm.set_flags(Flags::NO_SWITCHOVER_START, true);
    pair.migrate("without the command");
}

#[test]
fn non_migratable_and_blocked_guests_are_refused_without_a_connection() {
    let pair = Pair::waiting("blocked", quick());
    let blocker = pair.source.vm.slot.block("a device").unwrap();
    let error = request_verdict(&pair.source.vm, at(&pair.path), quick()).unwrap_err();
    assert!(error.errno() == libc::EACCES && error.message().contains("a preflight is blocked: a device"), "{error}");
    pair.source.vm.slot.unblock(blocker);
    pair.source.vm.ownership.set(Owner::There, "the guest left");
    assert_eq!(request_verdict(&pair.source.vm, at(&pair.path), quick()).unwrap_err().errno(), libc::EPERM);
    pair.source.vm.ownership.set(Owner::Here, "");
    pair.source.vm.slot.check_idle("now").unwrap();
    pair.migrate("after refusals");
}

#[test]
fn rehearsal_loads_the_devices_and_resets() {
    let pair = Pair::waiting("rehearsal", quick());
    pair.source.device.slow.store(3, SeqCst);
    pair.destination.device.slow.store(5, SeqCst);
    for round in 1..=2 {
        rehearse(&pair.source.vm, at(&pair.path), quick()).unwrap();
        assert!(pair.source.host.is_running());
        assert_eq!(pair.source.host.stops.load(SeqCst), round);
        assert_eq!(pair.destination.counts.loaded.load(SeqCst), round);
        assert_eq!(pair.destination.host.resets.load(SeqCst), round);
        pair.destination.check_balanced("rehearsal");
        assert_eq!(pair.into.info().status, Status::Setup);
        assert_eq!(pair.destination.vm.ownership.owner(), Owner::There);
    }
    assert!(!pair.destination.vm.ownership.is_partial());
    let cost = pair.source.vm.slot.device_costs.get(b"dev", 0).unwrap();
    assert!(
        cost.save.unwrap() >= Duration::from_millis(3) && cost.load.unwrap() >= Duration::from_millis(5),
        "{cost:?}"
    );
    assert_eq!(pair.into.info().device_bytes, 0, "the rehearsal is not part of the migration");
    pair.migrate("after two rehearsals");
}

#[test]
fn rehearsal_reports_the_device_that_fails_to_load() {
    let pair = Pair::waiting("fails", quick());
    pair.destination.device.fail_load.store(true, SeqCst);
    let error = rehearse(&pair.source.vm, at(&pair.path), quick()).unwrap_err();
    assert_eq!(error.errno(), libc::EREMOTEIO);
    let text = error.to_string();
    assert!(text.contains("'dev' instance 0") && text.contains("this device does not want to"), "{text}");
    assert_eq!(pair.destination.host.resets.load(SeqCst), 1);
    assert_eq!(pair.destination.vm.ownership.owner(), Owner::There, "not torn");
    assert!(pair.source.host.is_running());
    pair.destination.device.fail_load.store(false, SeqCst);
    pair.migrate("after a rehearsal that failed");
}

#[test]
fn rehearsal_pauses_the_guest_for_the_downtime_limit_at_most() {
    let (source, destination, stage) = Machine::two();
    for machine in [&source, &destination] {
        let device = super::Shared(Arc::clone(&machine.device));
        machine.vm.register(registration("second", false, device)).unwrap();
    }
    let pair = Pair::of("slow", (source, destination, stage), quick());
    pair.source.device.slow.store(30, SeqCst);
    let short = Params { downtime_limit: Duration::from_millis(10), ..quick() };
    let error = rehearse(&pair.source.vm, at(&pair.path), short).unwrap_err();
    assert!(error.errno() == libc::ETIMEDOUT && error.message().contains("'second'"), "{error}");
    assert!(pair.source.host.is_running());
    assert_eq!(pair.source.counts.saved.load(SeqCst), 1);
    pair.source.device.slow.store(0, SeqCst);
    pair.migrate("after a rehearsal that was too slow");
}

#[test]
fn peers_without_a_preflight_are_served_as_before() {
    let without = Params { preflight: false, ..quick() };
    for (theirs, ours) in [(without.clone(), quick()), (quick(), without.clone()), (without.clone(), without)] {
        let (source, destination, stage) = Machine::two();
        let run = Run::start(&source, &destination, fragile(-1, -1, Break::Whole), (theirs, ours));
        let (out, into) = run.wait("without");
        out.and(into).unwrap();
        check_moved(&source, &destination, &stage, "without");
    }
    for params in [Params { preflight: false, ..quick() }, Params { extensions: false, ..quick() }] {
        let pair = Pair::waiting("unknown", params);
        let error = request_verdict(&pair.source.vm, at(&pair.path), quick()).unwrap_err();
        assert_eq!(error.errno(), libc::ENOTSUP, "{error}");
        assert!(pair.source.host.is_running());
    }
}

#[test]
fn every_cut_of_a_rehearsal_leaves_the_guest_at_its_source() {
    let visit = |to_destination, to_source, how, limit: Duration| {
        let what = format!("{how:?}, to the destination {to_destination}, to the source {to_source}");
        let (source, destination, stage) = Machine::two();
        let params = Params { stall_timeout: Some(limit), handshake_timeout: limit, ..quick() };
        let (here, there) = fragile(to_destination, to_source, how);
        let into = Incoming::start(&destination.vm, over(&there), params.clone()).unwrap();
        let since = Instant::now();
        let visited = rehearse(&source.vm, over(&here), params);
        let ended = into.wait_within(LONG).unwrap_or_else(|| panic!("{what}: the destination hangs"));
        assert!(ended.is_err() && since.elapsed() < LONG / 4, "{what}: {:?}", since.elapsed());
        assert!(source.host.is_running() && !destination.host.is_running(), "{what}");
        assert_eq!(destination.vm.ownership.owner(), Owner::There, "{what}");
        assert_eq!(source.vm.ownership.owner(), Owner::Here, "{what}");
        let loaded = destination.counts.loaded.load(SeqCst);
        assert_eq!(loaded, destination.host.resets.load(SeqCst), "{what}: what was loaded is reset");
        source.check_balanced(&what);
        destination.check_balanced(&what);
        stage.check(&what);
        (visited.is_ok(), there.read_so_far(), here.read_so_far())
    };
    let long = Duration::from_secs(5);
    let (good, forth, back) = visit(-1, -1, Break::Whole, long);
    assert!(good && forth > 200 && back > 60, "{forth} {back}");
    for cut in 0..forth {
        assert!(!visit(cut, -1, Break::Whole, long).0, "cut at {cut}");
    }
    for cut in 0..back {
        assert!(!visit(-1, cut, Break::Half, long).0, "cut at {cut}");
    }
    let short = Duration::from_millis(60);
    for cut in (0..forth).step_by(17) {
        visit(cut, -1, Break::Silent, short);
    }
    for cut in (0..back).step_by(13) {
        visit(-1, cut, Break::Silent, short);
    }
}

/// A client that sends what a source that is libsavevm begins with, then what a test wants.
pub struct Client(pub UnixStream);

impl Client {
    pub fn connect(path: &Path) -> Self {
        let mut bytes = b"QEVM\0\0\0\x03\x07\0\0\0\x04none".to_vec();
        command::encode(&mut bytes, Command::OpenReturnPath, &[]);
        for value in [PING_OPENED, PING_HELLO, PING_HELLO_END] {
            command::encode(&mut bytes, Command::Ping, &value.to_be_bytes());
        }
        let mut stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(&bytes).unwrap();
        let mut pongs = [0; 5 * 8];
        stream.read_exact(&mut pongs).unwrap();
        Self(stream)
    }

    pub fn send(&mut self, len: u32, body: &[u8]) {
        let mut bytes = Vec::new();
        command::encode(&mut bytes, Command::Preflight, &len.to_be_bytes());
        bytes.extend(body);
        // The destination may have closed the connection.
        let _ = self.0.write_all(&bytes);
    }

    pub fn request(&mut self, request: &Request) {
        let body = request.encode();
        self.send(body.len() as u32, &body);
    }

    /// The answer, or `None` if the connection ends.
    pub fn answer(&mut self) -> Option<Answer> {
        let mut head = [0; 8];
        self.0.read_exact(&mut head).ok()?;
        if head[..2] != [0x53, 0x57] {
            return None;
        }
        let mut body = vec![0; u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize];
        self.0.read_exact(&mut body).ok()?;
        Some(Answer::decode(&body).unwrap())
    }

    /// Nothing but the failure of the destination follows, and the end.
    pub fn expect_end(mut self, what: &str) {
        let mut rest = Vec::new();
        if let Err(error) = self.0.read_to_end(&mut rest) {
            assert!(error.kind() == ErrorKind::ConnectionReset, "{what}: the connection does not end: {error}");
        }
        assert!(!rest.windows(2).any(|bytes| bytes == [0x53, 0x57]), "{what}: one more answer");
    }
}

pub fn manifest(purpose: Purpose) -> Request {
    Request::Manifest(Manifest { purpose, ..Manifest::default() })
}

#[test]
fn broken_rules_end_the_connection_and_touch_nothing() {
    let refuse = |what: &str, act: &dyn Fn(&mut Client)| {
        // The greeting and the answers before a silence need a part of the limit.
        let limit = if what.contains("silence") { Duration::from_secs(3) } else { 10 * LONG };
        let pair = Pair::waiting("rules", Params { handshake_timeout: limit, ..quick() });
        let mut client = Client::connect(&pair.path);
        act(&mut client);
        client.expect_end(what);
        assert_eq!(pair.destination.counts.load_setup.load(SeqCst), 0, "{what}");
        assert_eq!(pair.destination.vm.ownership.owner(), Owner::There, "{what}");
        pair.stage.check(what);
    };
    refuse("a length beyond the limit", &|client| client.send(u32::MAX, &[1]));
    refuse("an empty request", &|client| client.send(0, &[]));
    refuse("another kind", &|client| client.send(1, &[9]));
    refuse("silence within a request", &|client| client.send(1000, &[1]));
    refuse("layouts first", &|client| client.request(&Request::Layouts(Vec::new())));
    refuse("a rehearsal without a manifest", &|client| client.request(&Request::Rehearsal(vec![0])));
    refuse("a manifest of another version", &|client| client.send(3, &[1, 0, 9]));
    refuse("a manifest after the verdict", &|client| {
        client.request(&manifest(Purpose::Verdict));
        assert!(matches!(client.answer(), Some(Answer::Verdict { .. })));
        client.request(&manifest(Purpose::Verdict));
    });
    refuse("silence after a manifest for a rehearsal", &|client| {
        client.request(&manifest(Purpose::Rehearse));
        let Some(Answer::Verdict { .. }) = client.answer() else { panic!("no verdict") };
    });
}

#[test]
fn a_client_that_breaks_off_a_rehearsal_does_not_end_the_wait() {
    let pair = Pair::waiting("breaks-off", Params { handshake_timeout: LONG, ..quick() });
    let commands: &[&[u8]] = &[b"", b"\x08\0\x05\0\0\0", b"\x01", b"\x04\0\0\0\x01\x03dev\0\0\0\0\0\0\0\x01\0"];
    for sections in commands {
        let mut client = Client::connect(&pair.path);
        client.request(&fitting_manifest());
        let Some(Answer::Verdict { passes: true, .. }) = client.answer() else { panic!("no verdict") };
        client.request(&Request::Rehearsal(sections.to_vec()));
        let Some(Answer::Report { failure, .. }) = client.answer() else { panic!("no report") };
        assert!(!failure.is_empty());
    }
    assert_eq!(pair.destination.host.resets.load(SeqCst), commands.len() as u32);
    assert_eq!(pair.destination.vm.ownership.owner(), Owner::There);
    let mut client = Client::connect(&pair.path);
    client.request(&fitting_manifest());
    assert!(client.answer().is_some());
    drop(client);
    pair.migrate("after clients that broke off");
}

/// The manifest of a source that fits, for a rehearsal.
pub fn fitting_manifest() -> Request {
    use savevm::wire::preflight::{Device, Machine as Configuration};
    let device = |name: &str| Device {
        name: name.into(),
        version: 1,
        alias: u32::MAX,
        is_sent: true,
        is_loaded: true,
        ..Device::default()
    };
    Request::Manifest(Manifest {
        purpose: Purpose::Rehearse,
        machine: Some(Configuration { name: b"none".to_vec(), page_bits: 12, ..Configuration::default() }),
        devices: vec![device("ram"), device("dev")],
        ..Manifest::default()
    })
}

#[test]
fn a_source_of_an_older_release_is_served() {
    let pair = Pair::waiting("older", quick());
    // It knows HELLO and sends no manifest.
    let older = Params { preflight: false, return_path: Choice::On, ..quick() };
    let out = Outgoing::start(&pair.source.vm, at(&pair.path), older).unwrap();
    let (out, into) = Run { out, into: Arc::clone(&pair.into) }.wait("older");
    out.and(into).unwrap();
    check_moved(&pair.source, &pair.destination, &pair.stage, "older");
}
