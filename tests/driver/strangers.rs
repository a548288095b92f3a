// SPDX-License-Identifier: LGPL-2.1-or-later
//! Clients that connect to a waiting destination and are not its source.

use super::machine::Machine;
use super::precopy::{LONG, Run, cancelled, check_moved, quick, wait_until};
use super::rest::scratch;
use savevm::channel::Uri;
use savevm::migration::{Endpoint, Incoming, Migration, Outgoing, Owner, Params};
use std::io::ErrorKind::ConnectionReset;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

fn at(path: &Path) -> Endpoint {
    Endpoint::Uri(Uri::Unix(path.into()))
}

/// Waits until the destination has reported so many connections that it closed.
fn wait_closed(destination: &Machine, times: usize) {
    let closed = |text: &&String| text.contains("closed a connection that is not the source's");
    let count = || destination.host.reports.lock().unwrap().iter().filter(closed).count();
    wait_until(|| count() >= times, || format!("{:?}", destination.host.reports.lock().unwrap()));
    assert_eq!(count(), times);
}

#[test]
fn strangers_do_not_end_the_wait_for_the_source() {
    let (source, destination, stage) = Machine::two();
    let path = scratch("strangers");
    // Long enough for the source on a busy machine.
    let params = Params { handshake_timeout: Duration::from_secs(3), ..quick() };
    let into = Incoming::start(&destination.vm, at(&path), params).unwrap();
    for bytes in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", b"QE", b"QEVM", b"QEVM\0\0\0\x03\x07\0\0\0\x09x"] {
        let mut stranger = UnixStream::connect(&path).unwrap();
        stranger.write_all(bytes).unwrap();
    }
    let _silent = UnixStream::connect(&path).unwrap();
    wait_closed(&destination, 6);
    let out = Outgoing::start(&source.vm, at(&path), quick()).unwrap();
    let (out, into) = Run { out, into }.wait("strangers");
    out.and(into).unwrap();
    check_moved(&source, &destination, &stage, "strangers");
}

/// Clients that have much more time than the test, and use it.
fn clients_that_hold_on(path: &Path) -> Vec<UnixStream> {
    let begins = [&b""[..], b"Q", b"QEVM", b"QEVM\0\0\0\x03\x07\0\0\0\x09x"];
    let connect = |bytes: &&[u8]| {
        let mut client = UnixStream::connect(path).unwrap();
        client.write_all(bytes).unwrap();
        client
    };
    begins.iter().map(connect).collect()
}

#[test]
fn the_source_does_not_wait_for_clients_that_are_silent_or_slow() {
    let (source, destination, stage) = Machine::two();
    let path = scratch("hold-on");
    let params = Params { handshake_timeout: 100 * LONG, ..quick() };
    let into = Incoming::start(&destination.vm, at(&path), params).unwrap();
    let mut clients = clients_that_hold_on(&path);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let mut trickle = UnixStream::connect(&path).unwrap();
        let over = &over;
        scope.spawn(move || {
            for byte in b"QEVM\0\0\0\x03\x07\0\0\x0f\xa0".iter().chain([b'x'; 4000].iter()) {
                if over.load(SeqCst) || trickle.write_all(&[*byte]).is_err() {
                    break;
                }
                thread::sleep(Duration::from_millis(100));
            }
        });
        let out = Outgoing::start(&source.vm, at(&path), quick()).unwrap();
        let (out, into) = Run { out, into }.wait("clients that hold on");
        over.store(true, SeqCst);
        out.and(into).unwrap();
    });
    check_moved(&source, &destination, &stage, "clients that hold on");
    // Their connections are closed with the listener.
    for client in &mut clients {
        client.set_read_timeout(Some(LONG)).unwrap();
        let ended = client.read(&mut [0; 8]);
        assert!(matches!(&ended, Ok(0)) || ended.as_ref().is_err_and(|err| err.kind() == ConnectionReset), "{ended:?}");
    }
}

#[test]
fn silent_clients_in_all_places_make_room_for_the_source() {
    let (source, destination, stage) = Machine::two();
    let path = scratch("crowd");
    let params = Params { handshake_timeout: 100 * LONG, connect_timeout: None, ..quick() };
    let into = Incoming::start(&destination.vm, at(&path), params.clone()).unwrap();
    let _silent: Vec<_> = (0..30).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let out = Outgoing::start(&source.vm, at(&path), params).unwrap();
    let (out, into) = Run { out, into }.wait("a crowd");
    out.and(into).unwrap();
    check_moved(&source, &destination, &stage, "a crowd");
}

#[test]
fn a_byte_now_and_then_does_not_hold_a_destination() {
    for one_connection in [true, false] {
        let (_source, destination, stage) = Machine::two();
        let path = scratch("trickle");
        let params = Params { handshake_timeout: Duration::from_millis(300), one_connection, ..quick() };
        let into = Incoming::start(&destination.vm, at(&path), params).unwrap();
        let mut stranger = UnixStream::connect(&path).unwrap();
        let over = AtomicBool::new(false);
        let since = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| {
                let name = [b'x'; 4000];
                for byte in b"QEVM\0\0\0\x03\x07\0\0\x0f\xa0".iter().chain(&name) {
                    if over.load(SeqCst) || stranger.write_all(&[*byte]).is_err() {
                        break;
                    }
                    thread::sleep(Duration::from_millis(20));
                }
            });
            if one_connection {
                let error = into.wait_within(LONG).unwrap().unwrap_err();
                assert_eq!(error.errno(), libc::ETIMEDOUT, "{error}");
            } else {
                let reports =
                    || destination.host.reports.lock().unwrap().iter().any(|text| text.contains("not arrive"));
                while !reports() {
                    assert!(since.elapsed() < LONG);
                    thread::sleep(Duration::from_millis(5));
                }
                cancelled(&*into, into.cancel());
            }
            over.store(true, SeqCst);
        });
        assert!(since.elapsed() < LONG / 2, "the client alone would take 80 s");
        assert_eq!(destination.vm.ownership.owner(), Owner::There, "no device was called");
        stage.check("trickle");
    }
}

#[test]
fn a_waiting_destination_can_be_cancelled_while_a_stranger_is_silent() {
    let (_source, destination, _stage) = Machine::two();
    let path = scratch("silent");
    let into = Incoming::start(&destination.vm, at(&path), quick()).unwrap();
    let _silent = UnixStream::connect(&path).unwrap();
    thread::sleep(Duration::from_millis(50));
    cancelled(&*into, into.cancel());
    assert!(into.wait().is_err());
}
