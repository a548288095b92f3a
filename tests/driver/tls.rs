// SPDX-License-Identifier: LGPL-2.1-or-later
//! Migrations over TLS: the driver does the same as over plain connections, and a bad peer changes nothing.

use super::certificates::{Authority, Dir, FUTURE, SOURCE, Spec};
use super::link::{Break, fragile};
use super::machine::{Machine, Stage};
use super::precopy::{LONG, Run, cancelled, check_moved, check_stayed, quick, wait_status, wait_until};
use super::rest::scratch;
use super::{cuts, multifd, postcopy_runs};
use savevm::channel::{TlsOptions, Uri};
use savevm::migration::{
    Choice, Compression, Endpoint, Incoming, Migration, Outgoing, Owner, Params, Status, request_verdict,
};
use savevm::wire::preflight::Severity;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

fn options(dir: &Dir) -> TlsOptions {
    let hostname = Some("localhost".into());
    TlsOptions { dir: dir.path().into(), hostname, verify_peer: true, allowed_peers: None }
}

fn with(params: Params, dir: &Dir) -> Params {
    Params { tls: Some(Arc::new(options(dir))), ..params }
}

fn at(path: &Path) -> Endpoint {
    Endpoint::Uri(Uri::Unix(path.into()))
}

fn reports(machine: &Machine) -> String {
    machine.host.reports.lock().unwrap().join("\n")
}

fn standard() -> Dir {
    Dir::standard(&Authority::new("CA"))
}

#[test]
fn guest_moves_over_every_kind_of_connection() {
    let dir = standard();
    for kind in ["unix", "tcp", "channel"] {
        for return_path in [Choice::Auto, Choice::Off] {
            let what = format!("{kind}, return path {return_path:?}");
            let (source, destination, stage) = Machine::two();
            let (here, there) = fragile(-1, -1, Break::Whole);
            let listen = match kind {
                "unix" => at(&scratch("tls")),
                "tcp" => Endpoint::Uri("tcp:127.0.0.1:0".parse().unwrap()),
                _ => Endpoint::Channel(there),
            };
            let into = Incoming::start(&destination.vm, listen, with(quick(), &dir)).unwrap();
            let to = into.uri().map_or_else(|| Endpoint::Channel(here), |uri| Endpoint::Uri(uri.clone()));
            let out = Outgoing::start(&source.vm, to, with(Params { return_path, ..quick() }, &dir)).unwrap();
            let (out, into) = Run { out, into }.wait(&what);
            out.and(into).unwrap();
            check_moved(&source, &destination, &stage, &what);
        }
    }
}

#[test]
fn several_connections_all_use_tls() {
    let dir = standard();
    for compression in [Compression::None, Compression::Zstd] {
        let (source, destination, stage) = Machine::two();
        let (near, far) = (multifd::Memory::new(&source), multifd::Memory::new(&destination));
        near.fill(1);
        far.fill(2);
        let path = multifd::socket_path("tls");
        let params = with(multifd::several(4, compression), &dir);
        let into = Incoming::start(&destination.vm, at(&path), params.clone()).unwrap();
        // Neither a plain connection with the head of a channel nor a silent one is taken for one of the source's.
        let mut stranger = UnixStream::connect(&path).unwrap();
        stranger.write_all(&[0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1]).unwrap();
        let _silent = UnixStream::connect(&path).unwrap();
        let out = Outgoing::start(&source.vm, at(&path), params).unwrap();
        out.wait_within(LONG).expect("it ends").unwrap();
        into.wait_within(LONG).expect("it ends").unwrap();
        assert!(near.content() == far.content(), "{compression:?}");
        assert!(destination.host.is_running() && !source.host.is_running());
        stage.check("several connections with TLS");
    }
}

#[test]
fn cut_at_any_place_leaves_one_owner() {
    let dir = standard();
    let params = (with(quick(), &dir), with(quick(), &dir));
    let (forth, back) = cuts::lengths(&params);
    // The handshake, and the records of the stream.
    let places = |whole: i64| (0..whole).step_by((whole / 70).max(1) as usize).chain(whole - 30..whole);
    let mut moved = 0;
    for cut in places(forth) {
        let how = if cut % 2 == 0 { Break::Whole } else { Break::Half };
        let owner = cuts::one(fragile(cut, -1, how), &params, &format!("TLS is cut to the destination at {cut}"));
        moved += u32::from(owner == Owner::There);
    }
    for cut in places(back) {
        let how = if cut % 2 == 0 { Break::Whole } else { Break::Half };
        cuts::one(fragile(-1, cut, how), &params, &format!("TLS is cut to the source at {cut}"));
    }
    assert!(moved < 70, "{moved} migrations did not notice the cut");
}

#[test]
fn the_error_of_a_broken_connection_says_how_the_process_of_the_peer_ended() {
    let dir = standard();
    let params = (with(quick(), &dir), with(quick(), &dir));
    // The length of the handshake varies by some bytes.
    cuts::say_how_the_peer_ended(&params, 35);
}

#[test]
fn postcopy_and_its_recovery_use_tls() {
    let dir = standard();
    let params = with(postcopy_runs::params(true), &dir);
    let mut recovered = 0;
    let (forth, back) = postcopy_runs::lengths(params.clone());
    for cut in (0..forth).step_by((forth / 40) as usize) {
        let ends = fragile(cut, -1, Break::Whole);
        recovered += u32::from(postcopy_runs::one_cut(ends, params.clone(), &format!("TLS to the destination: {cut}")));
    }
    for cut in (0..back).step_by((back / 20) as usize) {
        let ends = fragile(-1, cut, Break::Whole);
        recovered += u32::from(postcopy_runs::one_cut(ends, params.clone(), &format!("TLS to the source: {cut}")));
    }
    assert!(recovered > 5, "only {recovered} breaks were recovered");
}

#[test]
fn tls_on_one_end_only_is_an_error_on_both_that_says_what_to_set() {
    let dir = standard();
    for (tls_source, tls_destination) in [(true, false), (false, true)] {
        for one_connection in [true, false] {
            let what = format!("TLS at the source: {tls_source}, one connection: {one_connection}");
            let (source, destination, stage) = Machine::two();
            let path = scratch("one-end");
            let choose = |tls, params| if tls { with(params, &dir) } else { params };
            let params = choose(tls_destination, Params { one_connection, ..quick() });
            let into = Incoming::start(&destination.vm, at(&path), params).unwrap();
            let out = Outgoing::start(&source.vm, at(&path), choose(tls_source, quick())).unwrap();
            let error = out.wait_within(LONG).unwrap().unwrap_err().to_string();
            assert!(error.contains("SaveVMParams.tls"), "{what}: {error}");
            if !one_connection {
                wait_until(|| reports(&destination).contains("SaveVMParams.tls"), || reports(&destination));
                // The destination waits for the real source.
                let out = Outgoing::start(&source.vm, at(&path), choose(tls_destination, quick())).unwrap();
                let (out, into) = Run { out, into }.wait(&what);
                out.and(into).unwrap();
                check_moved(&source, &destination, &stage, &what);
                continue;
            }
            let error = into.wait_within(LONG).unwrap().unwrap_err().to_string();
            assert!(error.contains("SaveVMParams.tls"), "{what}: {error}");
            check_stayed(&source, &destination, &stage, &what);
        }
    }
}

#[test]
fn refused_certificate_leaves_the_guest_at_the_source_and_the_destination_waiting() {
    let authority = Authority::new("CA");
    let (good, other, revoked) = (Dir::standard(&authority), Dir::standard(&authority), Dir::standard(&authority));
    other.put("client", &authority.issue(&Spec { name: "mallory", ..SOURCE }));
    let issued = authority.issue(&SOURCE);
    revoked.put("client", &issued);
    good.write("ca-crl.pem", authority.revoke(&[issued.serial], FUTURE));
    let unknown = Dir::standard(&Authority::new("Other CA"));
    unknown.write("server-cert.pem", "");
    let listen = TlsOptions { allowed_peers: Some(vec!["O=Test,CN=source".into()]), ..options(&good) };
    let (source, destination, stage) = Machine::two();
    let path = scratch("refused");
    let params = Params { tls: Some(Arc::new(listen)), ..quick() };
    let into = Incoming::start(&destination.vm, at(&path), params).unwrap();
    for (what, dir, here, there) in [
        ("a name that is not allowed", &other, "not among the allowed ones", "add \"O=Test,CN=mallory\""),
        ("revoked", &revoked, "it is revoked", "ca-crl.pem says that it is revoked"),
        ("an unknown CA", &unknown, "no CA of", "the source refused this side's certificate"),
    ] {
        let out = Outgoing::start(&source.vm, at(&path), with(quick(), dir)).unwrap();
        let error = out.wait_within(LONG).unwrap().unwrap_err().to_string();
        assert!(error.contains(here), "{what}: {error}");
        wait_until(|| reports(&destination).contains(there), || format!("{what}: {}", reports(&destination)));
        assert!(source.host.is_running() && !destination.host.is_running(), "{what}");
        assert_eq!(source.vm.ownership.owner(), Owner::Here, "{what}");
    }
    let out = Outgoing::start(&source.vm, at(&path), with(quick(), &good)).unwrap();
    let (out, into) = Run { out, into }.wait("the allowed source");
    out.and(into).unwrap();
    check_moved(&source, &destination, &stage, "the allowed source");
}

#[test]
fn preflight_names_a_refused_certificate_at_both_ends() {
    let authority = Authority::new("CA");
    let (good, other, unknown) =
        (Dir::standard(&authority), Dir::standard(&authority), Dir::standard(&Authority::new("Other CA")));
    other.put("client", &authority.issue(&Spec { name: "mallory", ..SOURCE }));
    let elsewhere = TlsOptions { hostname: Some("elsewhere".into()), ..options(&good) };
    let listen = TlsOptions { allowed_peers: Some(vec!["O=Test,CN=source".into()]), ..options(&good) };
    let (source, destination, stage) = Machine::two();
    let path = scratch("preflight-tls");
    let params = |options: TlsOptions| Params { tls: Some(Arc::new(options)), ..quick() };
    let into = Incoming::start(&destination.vm, at(&path), params(listen)).unwrap();
    for (what, source_params, here, there) in [
        (
            "a wrong name",
            params(elsewhere),
            "it is not for the name 'elsewhere'",
            "not for the name that the source expects",
        ),
        (
            "a name that is not allowed",
            params(options(&other)),
            "not among the allowed ones",
            "add \"O=Test,CN=mallory\"",
        ),
        ("an unknown CA", params(options(&unknown)), "no CA of", "the source refused this side's certificate"),
        ("no TLS", quick(), "SaveVMParams.tls", "SaveVMParams.tls"),
    ] {
        let error = request_verdict(&source.vm, at(&path), source_params).unwrap_err();
        assert!(error.message().contains(here), "{what}: {error}");
        let [problem] = error.problems() else { panic!("{what}: {:?}", error.problems()) };
        assert!(problem.message.contains(here) && problem.severity == Severity::Error, "{what}: {problem:?}");
        wait_until(|| reports(&destination).contains(there), || format!("{what}: {}", reports(&destination)));
        assert!(source.host.is_running() && source.host.stops.load(SeqCst) == 0, "{what}");
    }
    request_verdict(&source.vm, at(&path), with(quick(), &good)).unwrap();
    let out = Outgoing::start(&source.vm, at(&path), with(quick(), &good)).unwrap();
    let (out, into) = Run { out, into }.wait("the right certificate");
    out.and(into).unwrap();
    check_moved(&source, &destination, &stage, "the right certificate");
}

#[test]
fn strangers_do_not_disturb_a_destination_that_uses_tls() {
    let dir = standard();
    let (source, destination, stage) = Machine::two();
    let params = Params { handshake_timeout: Duration::from_secs(3), ..quick() };
    let listen = Endpoint::Uri("tcp:127.0.0.1:0".parse().unwrap());
    let into = Incoming::start(&destination.vm, listen, with(params, &dir)).unwrap();
    let Some(Uri::Tcp { port, .. }) = into.uri().cloned() else { panic!() };
    for bytes in
        [&b""[..], b"QEVM\0\0\0\x03", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\x03\x00\x00"]
    {
        let mut stranger = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stranger.write_all(bytes).unwrap();
    }
    let _silent = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let closed = || reports(&destination).matches("closed a connection that is not the source's").count();
    wait_until(|| closed() >= 6, || reports(&destination));
    let to = Endpoint::Uri(into.uri().unwrap().clone());
    let out = Outgoing::start(&source.vm, to, with(quick(), &dir)).unwrap();
    let (out, into) = Run { out, into }.wait("strangers");
    out.and(into).unwrap();
    check_moved(&source, &destination, &stage, "strangers");
    assert_eq!(closed(), 6);
}

#[test]
fn stranger_does_not_use_up_the_listener_of_a_recovery() {
    let dir = standard();
    let (source, destination, stage) = postcopy_runs::machines();
    source.ram.ballast.store(50, SeqCst);
    source.ram.postcopy.on_request_only.store(true, SeqCst);
    let slow = Params { max_postcopy_bandwidth: 2_000, ..postcopy_runs::params(true) };
    let ends = fragile(-1, -1, Break::Whole);
    let run = postcopy_runs::start(&source, &destination, &ends, with(slow, &dir));
    postcopy_runs::pause_postcopy(&run);
    wait_status(|| run.into.info().status, Status::PostcopyPaused, "the destination's pause");
    wait_status(|| run.out.info().status, Status::PostcopyPaused, "the source's pause");
    source.ram.postcopy.on_request_only.store(false, SeqCst);
    let path = scratch("tls-recovery");
    run.into.recover(at(&path)).unwrap();
    UnixStream::connect(&path).unwrap().write_all(b"QEVM\0\0\0\x03").unwrap();
    run.out.recover(&at(&path)).unwrap();
    let (out, into) = run.wait("recovery");
    out.and(into).unwrap();
    postcopy_runs::check_whole(&source, &destination, &stage, "recovery");
    assert!(reports(&destination).contains("sends a plain stream"), "{}", reports(&destination));
}

#[test]
fn migration_can_be_cancelled_during_the_handshake() {
    let dir = standard();
    let (source, destination, stage): (Machine, Machine, Arc<Stage>) = Machine::two();
    let path = scratch("tls-cancel");
    let into = Incoming::start(&destination.vm, at(&path), with(Params { handshake_timeout: LONG, ..quick() }, &dir));
    let into = into.unwrap();
    let _silent = UnixStream::connect(&path).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    cancelled(&*into, into.cancel());
    let listener = std::os::unix::net::UnixListener::bind(scratch("tls-silent")).unwrap();
    let address = listener.local_addr().unwrap().as_pathname().unwrap().to_owned();
    let out =
        Outgoing::start(&source.vm, at(&address), with(Params { connect_timeout: None, ..quick() }, &dir)).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    cancelled(&*out, out.cancel());
    assert_eq!(out.info().status, Status::Cancelled);
    check_stayed(&source, &destination, &stage, "cancelled");
    let _ = std::fs::remove_file(address);
}

#[test]
fn migration_with_bad_files_does_not_begin() {
    let dir = Dir::new();
    let (source, destination, _stage) = Machine::two();
    let error = Outgoing::start(&source.vm, at(Path::new("/nowhere")), with(quick(), &dir)).err().unwrap();
    assert!(error.message().contains("ca-cert.pem is missing"), "{error}");
    let error = Incoming::start(&destination.vm, at(&scratch("x")), with(quick(), &dir)).err().unwrap();
    assert!(error.message().contains("ca-cert.pem is missing"), "{error}");
    // The contexts are free for another migration.
    source.vm.slot.acquire("a test").unwrap();
    destination.vm.slot.acquire("a test").unwrap();
}
