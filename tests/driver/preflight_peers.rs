// SPDX-License-Identifier: LGPL-2.1-or-later
//! Preflights and rehearsals with peers that break the rules, are silent, die, or are cancelled: the guest stays at its source,
//! and a destination that listens waits for the next connection.

use super::machine::{Machine, Stage, UNTIL_TOLD};
use super::precopy::{LONG, cancelled, quick, wait_until};
use super::preflight::{Client, Pair, at, fitting_manifest, manifest};
use super::rest::scratch;
use savevm::error::Result;
use savevm::migration::{Migration, Outgoing, Owner, Params, Status, rehearse, request_verdict};
use savevm::wire::preflight::{Answer, LoadTime, Problem, Purpose, Request, Severity};
use savevm::wire::return_path::{Message, PING_HELLO, PING_HELLO_END, PONG_HELLO, PONG_PREFLIGHT};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

/// Limit of the handshake for peers that are silent.
const SHORT: Duration = Duration::from_secs(2);

/// The limit for this case.
fn limit(what: &str) -> Duration {
    if what.contains("silence") { SHORT } else { LONG }
}

/// The source's connection, as a destination sees it.
struct Server(UnixStream);

impl Server {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).ok().map(|()| bytes)
    }

    fn send(&mut self, bytes: &[u8]) {
        // The source may have closed the connection.
        let _ = self.0.write_all(bytes);
    }

    fn message(&mut self, message: &Message) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.send(&bytes);
    }

    /// Answers as libsavevm up to the last PING of the greeting. Sends `first` before the last answer.
    fn greet(&mut self, first: &[u8]) -> Option<()> {
        // Magic number, version, and the configuration of a machine named "none".
        self.take::<17>()?;
        loop {
            let [_, _, command, _, len] = self.take::<5>()?;
            let mut payload = vec![0; len.into()];
            self.0.read_exact(&mut payload).ok()?;
            if command != 2 {
                continue;
            }
            let value = u32::from_be_bytes(payload.try_into().unwrap());
            if value == PING_HELLO_END {
                self.send(first);
            }
            self.message(&Message::Pong(value));
            if value == PING_HELLO {
                self.message(&Message::Pong(PONG_HELLO));
                self.message(&Message::Pong(PONG_PREFLIGHT));
            }
            if value == PING_HELLO_END {
                return Some(());
            }
        }
    }

    /// Reads a request.
    fn request(&mut self) -> Option<Request> {
        // A migration asks for the load times before its manifest.
        let mut head = self.take::<9>()?;
        if head[2] == 2 {
            head = self.take::<9>()?;
        }
        let mut body = vec![0; u32::from_be_bytes([head[5], head[6], head[7], head[8]]) as usize];
        self.0.read_exact(&mut body).ok()?;
        Some(Request::decode(&body).unwrap())
    }

    fn body(&mut self, len: u32, body: &[u8]) {
        self.message(&Message::Preflight(len));
        self.send(body);
    }

    fn answer(&mut self, answer: &Answer) {
        let body = answer.encode();
        self.body(body.len() as u32, &body);
    }
}

type Act = fn(&mut Server) -> Option<()>;

/// Listens, and acts on the connection of a source after the greeting. Keeps the connection until the source closes it, if
/// `stays`.
fn serve(name: &str, stays: bool, act: Act) -> (PathBuf, JoinHandle<()>) {
    serve_with(name, stays, Vec::new(), act)
}

/// As `serve`, with these bytes before the end of the greeting.
fn serve_with(name: &str, stays: bool, first: Vec<u8>, act: Act) -> (PathBuf, JoinHandle<()>) {
    let (path, thread, _) = serve_visibly(name, stays, first, act);
    (path, thread)
}

/// As `serve_with`. Sets the flag when it has acted.
fn serve_visibly(name: &str, stays: bool, first: Vec<u8>, act: Act) -> (PathBuf, JoinHandle<()>, Arc<AtomicBool>) {
    let path = scratch(name);
    let listener = UnixListener::bind(&path).unwrap();
    let acted = Arc::new(AtomicBool::new(false));
    let has_acted = Arc::clone(&acted);
    let thread = std::thread::spawn(move || {
        let mut server = Server(listener.accept().unwrap().0);
        server.0.set_read_timeout(Some(LONG)).unwrap();
        let goes_on = server.greet(&first).and_then(|()| act(&mut server)).is_some();
        acted.store(true, SeqCst);
        if goes_on && stays {
            let _ = server.0.read_to_end(&mut Vec::new());
        }
    });
    (path, thread, has_acted)
}

fn passes() -> Answer {
    Answer::Verdict { passes: true, problems: Vec::new() }
}

/// The guest runs at the source, which is free for a migration.
fn check_free(source: &Machine, stage: &Stage, what: &str) {
    assert!(source.host.is_running(), "{what}");
    assert_eq!(source.vm.ownership.owner(), Owner::Here, "{what}");
    assert!(source.vm.ownership.may_run(), "{what}");
    source.vm.slot.check_idle(what).unwrap();
    source.check_balanced(what);
    stage.check(what);
}

const WRONG_ANSWERS: &[(&str, &str, Act)] = &[
    ("a report instead of a verdict", "not expected", |peer| {
        peer.request()?;
        peer.answer(&Answer::Report { failure: String::new(), times: Vec::new() });
        Some(())
    }),
    ("layouts that do not exist, twice", "not expected", |peer| {
        for _ in 0..2 {
            peer.request()?;
            peer.answer(&Answer::Wanted(vec![u32::MAX, 0, 0, 7]));
        }
        Some(())
    }),
    ("an answer that is too long", "expected at most", |peer| {
        peer.request()?;
        peer.body(u32::MAX, &[1, 0, 1]);
        Some(())
    }),
    ("an empty answer", "ends before the kind", |peer| {
        peer.request()?;
        peer.body(0, &[]);
        Some(())
    }),
    ("an unknown kind of answer", "the kind of the answer is 9", |peer| {
        peer.request()?;
        peer.body(1, &[9]);
        Some(())
    }),
    ("a verdict of another version", "version 2, expected 1", |peer| {
        peer.request()?;
        peer.body(4, &[1, 0, 2, 1]);
        Some(())
    }),
    ("a verdict with too many problems", "the number of problems is 100000", |peer| {
        peer.request()?;
        let mut body = vec![1, 0, 1, 0];
        body.extend(100_000u32.to_be_bytes());
        body.resize(1 << 20, 0);
        peer.body(body.len() as u32, &body);
        Some(())
    }),
    ("a refusal without a problem", "it names no problem", |peer| {
        peer.request()?;
        peer.answer(&Answer::Verdict { passes: false, problems: Vec::new() });
        Some(())
    }),
    ("silence", "the destination's answer to the preflight", |peer| peer.request().map(drop)),
    ("silence within an answer", "the destination's answer to the preflight", |peer| {
        peer.request()?;
        peer.body(100, &[1, 0, 1]);
        Some(())
    }),
    ("bytes that are no message", "", |peer| {
        peer.request()?;
        peer.send(&[0xff; 64]);
        Some(())
    }),
];

#[test]
fn wrong_answers_end_a_preflight_and_a_migration_at_the_source() {
    for (what, part, act) in WRONG_ANSWERS {
        let params = || Params { handshake_timeout: limit(what), ..quick() };
        let (source, _destination, stage) = Machine::two();
        let (path, thread) = serve("wrong-answers", true, *act);
        let error = request_verdict(&source.vm, at(&path), params()).unwrap_err();
        assert!(error.to_string().contains(part), "{what}: {error}");
        assert_eq!(error.problems().len(), 1, "{what}: {error}");
        thread.join().unwrap();
        check_free(&source, &stage, what);
        let (path, thread) = serve("wrong-answers", true, *act);
        let out = Outgoing::start(&source.vm, at(&path), params()).unwrap();
        let error = out.wait_within(LONG).expect(what).unwrap_err();
        assert!(error.to_string().contains(part), "{what}: {error}");
        drop(out);
        thread.join().unwrap();
        assert_eq!(source.counts.save_setup.load(SeqCst), 0, "{what}");
        assert_eq!(source.host.stops.load(SeqCst), 0, "{what}");
        check_free(&source, &stage, what);
    }
}

#[test]
fn answer_that_was_not_asked_for_ends_the_connection() {
    let body = passes().encode();
    let mut first = Vec::new();
    Message::Preflight(body.len() as u32).encode(&mut first);
    first.extend(body);
    let (source, _destination, stage) = Machine::two();
    let (path, thread) = serve_with("not-asked", true, first, |peer| peer.request().map(drop));
    let error = request_verdict(&source.vm, at(&path), quick()).unwrap_err();
    assert!(error.to_string().contains("not asked for"), "{error}");
    thread.join().unwrap();
    check_free(&source, &stage, "an answer that was not asked for");
}

#[test]
fn wrong_reports_end_a_rehearsal_at_the_source() {
    let acts: &[(&str, &str, Act)] = &[
        ("a verdict instead of a report", "not expected", |peer| {
            for _ in 0..2 {
                peer.request()?;
                peer.answer(&passes());
            }
            Some(())
        }),
        ("a failure without devices", "no disk here", |peer| {
            peer.request()?;
            peer.answer(&passes());
            peer.request()?;
            peer.answer(&Answer::Report { failure: "no disk here".into(), times: Vec::new() });
            Some(())
        }),
        ("silence", "the destination's answer to the preflight", |peer| {
            peer.request()?;
            peer.answer(&passes());
            peer.request().map(drop)
        }),
        ("death before the devices", "", |peer| {
            peer.request()?;
            peer.answer(&passes());
            None
        }),
        ("death after the devices", "", |peer| {
            peer.request()?;
            peer.answer(&passes());
            peer.request()?;
            None
        }),
    ];
    for (what, part, act) in acts {
        let (source, _destination, stage) = Machine::two();
        let (path, thread) = serve("wrong-reports", true, *act);
        let error = rehearse(&source.vm, at(&path), Params { handshake_timeout: limit(what), ..quick() }).unwrap_err();
        assert!(error.to_string().contains(part), "{what}: {error}");
        thread.join().unwrap();
        check_free(&source, &stage, what);
    }
}

#[test]
fn times_of_unknown_devices_are_ignored() {
    let (source, _destination, stage) = Machine::two();
    let (path, thread) = serve("times", true, |peer| {
        peer.request()?;
        peer.answer(&passes());
        peer.request()?;
        let time = |name: String| LoadTime { name: name.into_bytes(), instance: 0, micros: 1_000_000 };
        let times = (0..1000).map(|at| time(format!("unknown-{at}"))).chain([time("dev".into())]).collect();
        peer.answer(&Answer::Report { failure: String::new(), times });
        Some(())
    });
    rehearse(&source.vm, at(&path), quick()).unwrap();
    thread.join().unwrap();
    let costs = &source.vm.slot.device_costs;
    assert!(costs.get(b"unknown-0", 0).is_none());
    assert_eq!(costs.get(b"dev", 0).unwrap().load, Some(Duration::from_secs(1)));
    check_free(&source, &stage, "times");
}

#[test]
fn all_problems_of_a_verdict_reach_the_caller() {
    let (source, _destination, _stage) = Machine::two();
    let (path, thread) = serve("all-problems", true, |peer| {
        peer.request()?;
        let problem = |at| Problem {
            severity: Severity::Error,
            device: Some((format!("device-{at}").into_bytes(), at)),
            path: "field".into(),
            message: "it differs".into(),
        };
        peer.answer(&Answer::Verdict { passes: false, problems: (0..1000).map(problem).collect() });
        Some(())
    });
    let error = request_verdict(&source.vm, at(&path), quick()).unwrap_err();
    assert_eq!(error.problems().len(), 1000);
    assert!(error.to_string().contains("1000 problems") && error.to_string().contains("and 936 more"), "{error}");
    thread.join().unwrap();
}

#[test]
fn destination_that_dies_in_a_phase_of_the_preflight_leaves_the_guest() {
    let phases: &[(&str, Act)] = &[
        ("after the greeting", |_| None),
        ("after the manifest", |peer| peer.request().and(None)),
        ("within an answer", |peer| {
            peer.request()?;
            peer.body(100, &[1, 0]);
            None
        }),
        ("after it wanted layouts", |peer| {
            peer.request()?;
            peer.answer(&Answer::Wanted(vec![0]));
            None
        }),
        ("after the layouts", |peer| {
            peer.request()?;
            peer.answer(&Answer::Wanted(vec![0]));
            peer.request().and(None)
        }),
        ("after the verdict", |peer| {
            peer.request()?;
            peer.answer(&passes());
            None
        }),
    ];
    for (what, act) in phases {
        let (source, _destination, stage) = Machine::two();
        let (path, thread) = serve("dies", false, *act);
        let out = Outgoing::start(&source.vm, at(&path), quick()).unwrap();
        out.wait_within(LONG).expect(what).unwrap_err();
        thread.join().unwrap();
        drop(out);
        check_free(&source, &stage, what);
    }
}

#[test]
fn migration_is_cancelled_while_its_preflight_waits() {
    for phase in 0..3 {
        let (source, _destination, stage) = Machine::two();
        let acts: [Act; 3] = [
            |_| Some(()),
            |peer| peer.request().map(drop),
            |peer| {
                peer.request()?;
                peer.answer(&Answer::Wanted(vec![0]));
                peer.request().map(drop)
            },
        ];
        let (path, thread, acted) = serve_visibly("cancelled", true, Vec::new(), acts[phase]);
        let out = Outgoing::start(&source.vm, at(&path), Params { handshake_timeout: LONG, ..quick() }).unwrap();
        wait_until(|| acted.load(SeqCst), || format!("phase {phase}: {:?}", out.info()));
        cancelled(&*out, out.cancel());
        let error = out.wait_within(LONG).expect("it ends").unwrap_err();
        assert_eq!((error.errno(), out.info().status), (libc::ECANCELED, Status::Cancelled), "{error}");
        drop(out);
        thread.join().unwrap();
        check_free(&source, &stage, "cancelled");
    }
}

/// The bytes of a source that asks for a rehearsal of one device, without the header.
fn rehearsal_bytes() -> Vec<u8> {
    let mut bytes = Vec::new();
    for request in [fitting_manifest(), Request::Rehearsal(vec![0])] {
        let body = request.encode();
        savevm::wire::command::encode(&mut bytes, savevm::wire::Command::Preflight, &(body.len() as u32).to_be_bytes());
        bytes.extend(body);
    }
    bytes
}

#[test]
fn source_that_dies_in_any_phase_does_not_end_the_wait() {
    let pair = Pair::waiting("source-dies", quick());
    let bytes = rehearsal_bytes();
    let cuts: Vec<_> = (0..bytes.len()).step_by(3).chain([bytes.len()]).collect();
    for cut in &cuts {
        let mut client = Client::connect(&pair.path);
        client.0.write_all(&bytes[..*cut]).unwrap();
    }
    let seen = || pair.reports("waiting for the source of a migration");
    wait_until(|| seen() == cuts.len(), || format!("{} of {}", seen(), cuts.len()));
    assert!(pair.reports("a connection broke off before a migration began") >= cuts.len() - 2);
    assert_eq!(pair.destination.vm.ownership.owner(), Owner::There);
    assert_eq!(pair.into.info().status, Status::Setup);
    pair.migrate("after sources that died");
}

#[test]
fn replayed_exchanges_change_nothing() {
    let pair = Pair::waiting("replay", quick());
    let bytes = rehearsal_bytes();
    for round in 1..=3 {
        let mut client = Client::connect(&pair.path);
        client.0.write_all(&bytes).unwrap();
        assert!(matches!(client.answer(), Some(Answer::Verdict { passes: true, .. })));
        assert!(matches!(client.answer(), Some(Answer::Report { .. })));
        client.expect_end("replay");
        wait_until(
            || pair.destination.host.resets.load(SeqCst) == round,
            || format!("{} resets", pair.destination.host.resets.load(SeqCst)),
        );
        assert_eq!(pair.destination.vm.ownership.owner(), Owner::There);
    }
    // The same requests once more on the same connection are refused.
    let mut client = Client::connect(&pair.path);
    client.0.write_all(&[&bytes[..], &bytes].concat()).unwrap();
    assert!(client.answer().is_some() && client.answer().is_some());
    client.expect_end("a second exchange");
    pair.migrate("after replays");
}

#[test]
fn one_connection_that_breaks_off_ends_the_wait() {
    let pair = Pair::waiting("one", Params { one_connection: true, ..quick() });
    drop(Client::connect(&pair.path));
    pair.into.wait_within(LONG).expect("it ends").unwrap_err();
    assert_eq!(pair.destination.vm.ownership.owner(), Owner::There);
}

#[test]
fn destination_is_cancelled_in_any_phase() {
    type Phase = fn(&mut Client);
    let phases: &[(&str, Phase)] = &[
        ("after the greeting", |_| {}),
        ("within a request", |client| client.send(1000, &[1])),
        ("before the devices of a rehearsal", |client| {
            client.request(&fitting_manifest());
            assert!(client.answer().is_some());
        }),
        ("after a verdict", |client| {
            client.request(&manifest(Purpose::Verdict));
            assert!(client.answer().is_some());
        }),
    ];
    for (what, act) in phases {
        let pair = Pair::waiting("cancel", Params { handshake_timeout: LONG, ..quick() });
        let mut client = Client::connect(&pair.path);
        act(&mut client);
        cancelled(&*pair.into, pair.into.cancel());
        let error = pair.into.wait_within(LONG).expect(what).unwrap_err();
        assert_eq!((error.errno(), pair.into.info().status), (libc::ECANCELED, Status::Cancelled), "{what}: {error}");
        assert_eq!(pair.destination.vm.ownership.owner(), Owner::There, "{what}");
        pair.stage.check(what);
    }
}

#[test]
fn destination_is_cancelled_while_a_device_of_a_rehearsal_blocks() {
    let pair = Pair::waiting("cancel-load", quick());
    pair.destination.device.slow.store(UNTIL_TOLD, SeqCst);
    let (vm, to) = (Arc::clone(&pair.source.vm), at(&pair.path));
    let visit = std::thread::spawn(move || rehearse(&vm, to, quick()));
    wait_until(|| pair.source.counts.saved.load(SeqCst) == 1, || "no device is saved".into());
    // From here on the destination takes the lock only to load.
    wait_until(|| pair.destination.host.is_locked(), || "the device does not load".into());
    // The device can't be interrupted, so the call may end before the migration does.
    let _ = pair.into.cancel();
    pair.destination.device.slow.store(0, SeqCst);
    pair.into.wait_within(LONG).expect("it ends").unwrap_err();
    let _: Result<()> = visit.join().unwrap();
    assert_eq!(pair.destination.host.resets.load(SeqCst), 1, "what was loaded is reset");
    assert_eq!(pair.destination.vm.ownership.owner(), Owner::There);
    check_free(&pair.source, &pair.stage, "cancelled while a device loads");
}

#[test]
fn device_that_loads_for_long_does_not_block_the_source() {
    let pair = Pair::waiting("long", quick());
    pair.destination.device.slow.store(UNTIL_TOLD, SeqCst);
    let error = rehearse(&pair.source.vm, at(&pair.path), Params { handshake_timeout: SHORT, ..quick() }).unwrap_err();
    assert_eq!(error.errno(), libc::ETIMEDOUT, "{error}");
    check_free(&pair.source, &pair.stage, "a device that loads for long");
    // The next one is served as soon as the device is loaded, and reset.
    pair.destination.device.slow.store(0, SeqCst);
    request_verdict(&pair.source.vm, at(&pair.path), quick()).unwrap();
    assert_eq!(pair.destination.host.resets.load(SeqCst), 1);
    pair.migrate("after a device that loaded for long");
}

#[test]
fn host_that_fails_to_stop_or_start_keeps_its_guest() {
    let pair = Pair::waiting("host-fails", quick());
    let host = &pair.source.host;
    host.fail_stop.store(true, SeqCst);
    let error = rehearse(&pair.source.vm, at(&pair.path), quick()).unwrap_err();
    assert!(error.message().contains("vm_stop"), "{error}");
    host.fail_stop.store(false, SeqCst);
    check_free(&pair.source, &pair.stage, "vm_stop fails");
    host.fail_start.store(true, SeqCst);
    let error = rehearse(&pair.source.vm, at(&pair.path), quick()).unwrap_err();
    assert!(error.message().contains("vm_start") && error.message().contains("stopped"), "{error}");
    host.fail_start.store(false, SeqCst);
    assert!(!host.is_running());
    assert!(pair.source.vm.ownership.may_run(), "an operator may start it");
    assert_eq!(pair.destination.counts.loaded.load(SeqCst), 0);
    host.start_guest();
    pair.migrate("after a host that failed");
}

#[test]
fn device_that_leaves_after_the_verdict_is_named_by_the_rehearsal() {
    let pair = Pair::waiting("leaves", quick());
    let mut client = Client::connect(&pair.path);
    client.request(&fitting_manifest());
    assert!(matches!(client.answer(), Some(Answer::Verdict { passes: true, .. })));
    pair.destination.vm.unregister_name(None, b"dev", 1);
    // The section of a device with the instance 0 and the version 1, and EOF.
    let mut sections = b"\x04\0\0\0\x01\x03dev\0\0\0\0\0\0\0\x01".to_vec();
    sections.extend([0; 8]);
    sections.extend(b"\x7e\0\0\0\x01\0");
    client.request(&Request::Rehearsal(sections));
    let Some(Answer::Report { failure, .. }) = client.answer() else { panic!("no report") };
    assert!(failure.contains("dev"), "{failure}");
    assert_eq!(pair.destination.host.resets.load(SeqCst), 1);
    assert_eq!(pair.destination.vm.ownership.owner(), Owner::There);
}

#[test]
fn two_at_once_and_during_a_migration_are_refused() {
    let pair = Pair::waiting("twice", quick());
    pair.destination.device.slow.store(UNTIL_TOLD, SeqCst);
    let (vm, to) = (Arc::clone(&pair.source.vm), at(&pair.path));
    let first = std::thread::spawn(move || rehearse(&vm, to, quick()));
    wait_until(|| pair.source.vm.slot.check_idle("now").is_err(), || "nothing has begun".into());
    let error = request_verdict(&pair.source.vm, at(&pair.path), quick()).unwrap_err();
    assert_eq!(error.errno(), libc::EBUSY, "{error}");
    pair.destination.device.slow.store(0, SeqCst);
    first.join().unwrap().unwrap();
    let slow = Params { max_bandwidth: 1, ..quick() };
    let out = Outgoing::start(&pair.source.vm, at(&pair.path), slow).unwrap();
    for visit in [request_verdict, rehearse] {
        let error = visit(&pair.source.vm, at(&pair.path), quick()).unwrap_err();
        assert_eq!(error.errno(), libc::EBUSY, "{error}");
    }
    let _ = out.cancel();
    let _ = out.wait_within(LONG).expect("it ends");
}
