// SPDX-License-Identifier: LGPL-2.1-or-later
//! TLS between two ends of this module, and between one of them and ends that do not behave.

use super::super::fd::FdChannel;
use super::super::security::{Role, Security, TlsOptions};
use super::super::testing::{Known, check_forwards, ended_by, pattern, read_some, read_to_end, write};
use super::super::{Cancel, Channel};
use super::Credentials;
use crate::error::{Error, Result};
use certificates::{Authority, Dir, FUTURE, SOURCE};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

#[path = "../../../../tests/certificates/mod.rs"]
mod certificates;
mod refusals;

const LIMIT: Duration = Duration::from_secs(20);
const HOST: Option<&str> = Some("localhost");

fn options(dir: &Dir) -> TlsOptions {
    TlsOptions { dir: dir.path().into(), hostname: None, verify_peer: true, allowed_peers: None }
}

fn channel(socket: UnixStream) -> Arc<dyn Channel> {
    Arc::new(FdChannel::new(socket.into(), true).unwrap())
}

fn sockets() -> (Arc<dyn Channel>, Arc<dyn Channel>) {
    let (near, far) = UnixStream::pair().unwrap();
    (channel(near), channel(far))
}

type Ends = (Result<Arc<dyn Channel>>, Result<Arc<dyn Channel>>);

/// Shakes hands between a source and a destination. A channel that refused is closed.
fn shake(source: &Credentials, destination: &Credentials) -> Ends {
    let (near, far) = sockets();
    thread::scope(|scope| {
        let accepted = scope.spawn(|| {
            let far = far;
            let result = destination.handshake(&far, None, LIMIT);
            if result.is_err() {
                far.close().unwrap();
            }
            result
        });
        let connected = source.handshake(&near, HOST, LIMIT);
        if connected.is_err() {
            near.close().unwrap();
        }
        (connected, accepted.join().unwrap())
    })
}

fn pair(dir: &Dir) -> (Arc<dyn Channel>, Arc<dyn Channel>) {
    let [source, destination] =
        [Role::Source, Role::Destination].map(|role| Credentials::load(&options(dir), role).unwrap());
    let (connected, accepted) = shake(&source, &destination);
    (connected.unwrap(), accepted.unwrap())
}

fn standard() -> (Arc<dyn Channel>, Arc<dyn Channel>) {
    pair(&Dir::standard(&Authority::new("CA")))
}

#[test]
fn bytes_flow_in_both_directions_at_the_same_time() {
    const SIZE: usize = 3 << 20;
    let (near, far) = standard();
    assert!(near.is_duplex() && far.is_duplex());
    thread::scope(|scope| {
        for (end, other) in [(&near, &far), (&far, &near)] {
            scope.spawn(move || {
                write(&**end, &pattern(SIZE)).unwrap();
            });
            scope.spawn(move || {
                let mut all = Vec::new();
                while all.len() < SIZE {
                    all.extend(read_some(&**other, 4093).unwrap());
                }
                assert!(all == pattern(SIZE));
            });
        }
    });
    near.close().unwrap();
    assert_eq!(read_some(&*far, 1).unwrap(), b"");
}

#[test]
fn reader_that_waits_does_not_stop_the_writer() {
    let (near, far) = standard();
    let waiting = Arc::clone(&near);
    let reader = thread::spawn(move || read_some(&*waiting, 9));
    thread::sleep(Duration::from_millis(50));
    write(&*near, b"question").unwrap();
    assert_eq!(read_some(&*far, 99).unwrap(), b"question");
    write(&*far, b"answer").unwrap();
    assert_eq!(reader.join().unwrap().unwrap(), b"answer");
}

#[test]
fn wire_has_no_plain_byte() {
    let authority = Authority::new("CA");
    let dir = Dir::standard(&authority);
    let (near, tap) = UnixStream::pair().unwrap();
    let (tapped, far) = UnixStream::pair().unwrap();
    let copy = |mut from: UnixStream, mut to: UnixStream| {
        move || {
            let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                all.extend_from_slice(&buffer[..count]);
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            all
        }
    };
    let there = thread::spawn(copy(tap.try_clone().unwrap(), tapped.try_clone().unwrap()));
    let back = thread::spawn(copy(tapped, tap));
    let secret = b"the content of the guest's memory";
    let destination = Credentials::load(&options(&dir), Role::Destination).unwrap();
    let reader = thread::spawn(move || {
        let far = destination.handshake(&channel(far), None, LIMIT).unwrap();
        read_some(&*far, 99).unwrap()
    });
    let source = Credentials::load(&options(&dir), Role::Source).unwrap();
    let near = source.handshake(&channel(near), HOST, LIMIT).unwrap();
    write(&*near, secret).unwrap();
    assert_eq!(reader.join().unwrap(), secret);
    near.close().unwrap();
    for seen in [there.join().unwrap(), back.join().unwrap()] {
        assert!(!seen.windows(8).any(|part| secret.windows(8).any(|word| word == part)));
        // Only certificates of TLS 1.2 would show.
        assert!(!seen.windows(11).any(|part| part == b"destination" || part == b"source"));
    }
}

#[test]
fn peer_is_accepted_as_the_options_say() {
    let authority = Authority::new("CA");
    let dir = Dir::standard(&authority);
    let accepts = |near: &TlsOptions, far: &TlsOptions, host| {
        let source = Credentials::load(near, Role::Source).unwrap();
        let destination = Credentials::load(far, Role::Destination).unwrap();
        let (near, far) = sockets();
        let accepted = thread::spawn(move || destination.handshake(&far, None, LIMIT));
        let connected = source.handshake(&near, host, LIMIT);
        if connected.is_err() {
            near.close().unwrap();
        }
        let (connected, accepted) = (connected?, accepted.join().unwrap()?);
        write(&*accepted, b"x").unwrap();
        assert_eq!(read_some(&*connected, 1).unwrap(), b"x");
        Ok::<_, Error>(())
    };
    let usual = options(&dir);
    for host in ["localhost", "127.0.0.1", "destination.example"] {
        accepts(&usual, &usual, Some(host)).unwrap();
    }
    let named = TlsOptions { hostname: Some("destination.example".into()), ..usual.clone() };
    accepts(&named, &usual, Some("10.1.2.3")).unwrap();
    accepts(&named, &usual, None).unwrap();
    let error = accepts(&usual, &usual, None).unwrap_err();
    assert!(error.message().contains("set SaveVMTls.hostname"), "{error}");
    let listed = |name: &str| TlsOptions { allowed_peers: Some(vec!["x".into(), name.into()]), ..usual.clone() };
    accepts(&listed("O=Test,CN=destination"), &listed("O=Test,CN=source"), HOST).unwrap();
    // Without verification neither a certificate of the source nor a name is needed.
    let trusting = TlsOptions { verify_peer: false, ..usual.clone() };
    dir.remove("client-cert.pem");
    dir.remove("client-key.pem");
    accepts(&trusting, &trusting, None).unwrap();
    accepts(&usual, &trusting, HOST).unwrap();
    let contradiction = TlsOptions { allowed_peers: Some(vec![]), ..trusting };
    assert!(Credentials::load(&contradiction, Role::Source).err().unwrap().message().contains("needs"));
}

#[test]
fn certificate_may_come_with_intermediate_ones_and_several_authorities() {
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let dir = Dir::standard(&first);
    dir.put("client", &second.issue(&SOURCE));
    dir.write("ca-cert.pem", first.pem() + &second.pem());
    dir.write("ca-crl.pem", first.revoke(&[1], FUTURE));
    pair(&dir);
}

#[test]
fn plain_peer_is_refused_and_the_text_says_what_to_set() {
    let dir = Dir::standard(&Authority::new("CA"));
    for (bytes, part) in [
        (
            &b"QEVM\0\0\0\x03\x07\0\0\0\x02pc"[..],
            "the source sends a plain stream, which is refused: set SaveVMParams.tls",
        ),
        (b"GET / HTTP/1.1\r\n\r\n", "begins with 0x47455420, which is not TLS"),
        (b"\x16\x03\x01\xff\xff", "failed"),
    ] {
        let destination = Credentials::load(&options(&dir), Role::Destination).unwrap();
        let (mut near, far) = UnixStream::pair().unwrap();
        near.write_all(bytes).unwrap();
        let far = channel(far);
        let error = destination.handshake(&far, None, LIMIT).err().unwrap();
        assert!(error.message().contains(part), "{error}");
        far.close().unwrap();
        // A plain source reads an alert, and can say that this side uses TLS.
        let mut answer = Vec::new();
        let _ = near.read_to_end(&mut answer);
        assert_eq!(answer.first(), Some(&0x15), "{part}: {answer:x?}");
    }
    let source = Credentials::load(&options(&dir), Role::Source).unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    drop(far);
    let error = source.handshake(&channel(near), HOST, LIMIT).err().unwrap();
    assert!(error.message().contains("set SaveVMParams.tls (in QEMU: tls-creds) on both sides"), "{error}");
}

#[test]
fn what_the_connection_knows_of_its_peer_is_forwarded() {
    let dir = Dir::standard(&Authority::new("CA"));
    let source = Credentials::load(&options(&dir), Role::Source).unwrap();
    let destination = Credentials::load(&options(&dir), Role::Destination).unwrap();
    let (near, far) = sockets();
    let (near, far): (Arc<dyn Channel>, Arc<dyn Channel>) = (Arc::new(Known(near)), Arc::new(Known(far)));
    thread::scope(|scope| {
        let other = scope.spawn(|| destination.handshake(&far, None, LIMIT).unwrap());
        check_forwards(&*source.handshake(&near, HOST, LIMIT).unwrap());
        check_forwards(&*other.join().unwrap());
    });
}

#[test]
fn handshake_ends_at_its_limits_and_when_cancelled() {
    let dir = Dir::standard(&Authority::new("CA"));
    let security = |role| Security::new(Some(&options(&dir)), role).unwrap();
    let (near, _silent) = UnixStream::pair().unwrap();
    let short = Duration::from_millis(50);
    let cancel = Arc::new(Cancel::new().unwrap());
    let uri = "tcp:localhost:1".parse().unwrap();
    let error = security(Role::Source).secure(channel(near), Some(&uri), short, &cancel).err().unwrap();
    assert_eq!(error.errno(), libc::ETIMEDOUT, "{error}");
    assert!(error.message().contains("within 50ms"), "{error}");
    // A byte now and then does not extend the limit of the whole handshake.
    let (mut slow, far) = UnixStream::pair().unwrap();
    let whole = Duration::from_millis(200);
    let dribble = thread::spawn(move || {
        while slow.write_all(b"\x16").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let error = security(Role::Destination).secure(channel(far), None, whole, &cancel).err().unwrap();
    assert!([libc::ETIMEDOUT, libc::EPROTO].contains(&error.errno()), "{error}");
    dribble.join().unwrap();
    let (_silent, far) = UnixStream::pair().unwrap();
    let (waiting, security) = (Arc::clone(&cancel), security(Role::Destination));
    let error = ended_by(move || security.secure(channel(far), None, LIMIT, &waiting).err(), || cancel.cancel());
    assert_eq!(error.unwrap().errno(), libc::ECANCELED);
}

#[test]
fn connection_in_one_direction_is_refused() {
    let dir = Dir::standard(&Authority::new("CA"));
    let security = Security::new(Some(&options(&dir)), Role::Source).unwrap();
    let writer: Arc<dyn Channel> = Arc::new(super::super::memory::Writer::new());
    let error = security.secure(writer, None, LIMIT, &Cancel::new().unwrap()).err().unwrap();
    assert_eq!(error.errno(), libc::ENOTSUP);
    assert!(error.message().contains("in both directions"), "{error}");
}

#[test]
fn reads_and_writes_end_at_the_stall_limit_and_with_a_shutdown() {
    let (near, _far) = standard();
    near.set_stall_limit(Some(Duration::from_millis(30)));
    assert_eq!(read_some(&*near, 1).unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    // A read that timed out can be repeated.
    assert_eq!(read_some(&*near, 1).unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    let error = (0..).find_map(|_| write(&*near, &pattern(1 << 20)).err()).unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    // A part of a record may have been sent.
    assert!(write(&*near, b"x").is_err());
    let (near, _far) = standard();
    let waiting = Arc::clone(&near);
    let error = ended_by(move || read_some(&*waiting, 1), || near.shutdown().unwrap()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);
    assert!(write(&*near, b"x").is_err());
}

/// Forwards bytes until `limit`, then changes one (with `flip`) or closes the connection. Returns how many passed.
fn tamper(mut from: UnixStream, mut to: UnixStream, limit: usize, flip: bool) -> usize {
    let (mut passed, mut buffer) = (0, [0; 1 << 14]);
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let mut part = &mut buffer[..count];
        if (passed..passed + count).contains(&limit) {
            match flip {
                true => part[limit - passed] ^= 1,
                false => part = &mut part[..limit - passed],
            }
        }
        passed += part.len();
        if to.write_all(part).is_err() || (passed >= limit && !flip) {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
    passed
}

/// Sends 60 KiB over a connection that breaks at a byte. Returns what arrived, and whether the reader failed.
fn arrives(dir: &Dir, limit: usize, flip: bool) -> (Vec<u8>, bool, usize) {
    let (near, tap) = UnixStream::pair().unwrap();
    let (tapped, far) = UnixStream::pair().unwrap();
    let (tap_back, tapped_back) = (tap.try_clone().unwrap(), tapped.try_clone().unwrap());
    let back = thread::spawn(move || tamper(tapped_back, tap_back, usize::MAX, false));
    let there = thread::spawn(move || tamper(tap, tapped, limit, flip));
    let destination = Credentials::load(&options(dir), Role::Destination).unwrap();
    let reader = thread::spawn(move || match destination.handshake(&channel(far), None, LIMIT) {
        Ok(far) => {
            let mut all = Vec::new();
            loop {
                match read_some(&*far, 5000) {
                    Ok(bytes) if bytes.is_empty() => break (all, false),
                    Ok(bytes) => all.extend(bytes),
                    Err(_) => break (all, true),
                }
            }
        }
        Err(_) => (Vec::new(), true),
    });
    let source = Credentials::load(&options(dir), Role::Source).unwrap();
    if let Ok(near) = source.handshake(&channel(near), HOST, LIMIT) {
        let _ = (0..20).try_for_each(|part| write(&*near, &pattern(60 << 10)[part * 3072..][..3072]));
        let _ = near.close();
    }
    let (all, failed) = reader.join().unwrap();
    back.join().unwrap();
    (all, failed, there.join().unwrap())
}

#[test]
fn connection_cut_or_changed_at_any_byte_gives_only_bytes_that_were_sent() {
    let dir = Dir::standard(&Authority::new("CA"));
    let (all, failed, whole) = arrives(&dir, usize::MAX - 1, false);
    assert!(all == pattern(60 << 10) && !failed);
    // Places around the boundaries of records, and between them.
    let places = (0..whole).step_by(whole / 60).chain(whole - 60..whole);
    for (number, place) in places.enumerate() {
        let flip = number % 2 == 0;
        let (some, failed, _) = arrives(&dir, place, flip);
        assert!(pattern(60 << 10).starts_with(&some), "{place}, {flip}");
        // A few bytes of a record mean nothing, for example its version.
        assert!(!flip || failed || some == pattern(60 << 10), "a changed byte at {place} of {whole} is not noticed");
        assert!(failed || some.len() < 60 << 10 || place + 40 > whole, "a cut at {place}");
    }
}

#[test]
fn end_without_a_notification_is_an_end_once_data_has_arrived() {
    let authority = Authority::new("CA");
    let dir = Dir::standard(&authority);
    let ends = |said: &'static [u8], unread: &'static [u8]| {
        let [source, destination] =
            [Role::Source, Role::Destination].map(|role| Credentials::load(&options(&dir), role).unwrap());
        let (near, far) = sockets();
        let (go, wait) = std::sync::mpsc::channel();
        let peer = thread::spawn(move || {
            let tls = destination.handshake(&far, None, LIMIT).unwrap();
            if !said.is_empty() {
                write(&*tls, said).unwrap();
            }
            wait.recv().unwrap();
            // Closed below TLS, as QEMU 7.2 does it.
            far.close().unwrap();
        });
        let near = source.handshake(&near, HOST, LIMIT).unwrap();
        write(&*near, unread).unwrap();
        go.send(()).unwrap();
        peer.join().unwrap();
        read_to_end(&*near)
    };
    assert_eq!(ends(b"stream", b"").unwrap(), b"stream");
    // With unread data the system reports a reset.
    for unread in [&b""[..], b"QEVM"] {
        let error = Error::io("read", &ends(b"", unread).unwrap_err()).to_string();
        assert!(error.contains("closed the connection after the handshake"), "{error}");
    }
}

mod peers {
    //! Ends that are rustls itself, with other settings.
    use super::*;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

    fn client(
        dir: &Dir,
        socket: UnixStream,
        version: &'static SupportedProtocolVersion,
    ) -> StreamOwned<ClientConnection, UnixStream> {
        let mut roots = RootCertStore::empty();
        let path = |name: &str| dir.path().join(name);
        roots.add(CertificateDer::from_pem_file(path("ca-cert.pem")).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(path("client-cert.pem")).unwrap()],
                PrivateKeyDer::from_pem_file(path("client-key.pem")).unwrap(),
            )
            .unwrap();
        let client = ClientConnection::new(config.into(), ServerName::try_from("localhost").unwrap()).unwrap();
        StreamOwned::new(client, socket)
    }

    #[test]
    fn both_versions_of_the_protocol_and_new_keys_are_accepted() {
        let dir = Dir::standard(&Authority::new("CA"));
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let (near, far) = UnixStream::pair().unwrap();
            let destination = Credentials::load(&options(&dir), Role::Destination).unwrap();
            let server = thread::spawn(move || {
                let far = destination.handshake(&channel(far), None, LIMIT).unwrap();
                write(&*far, b"hello").unwrap();
                let mut all = Vec::new();
                while all.len() < 40_000 {
                    all.extend(read_some(&*far, 999).unwrap());
                    if all.len() == 999 {
                        write(&*far, b"between").unwrap();
                    }
                }
                write(&*far, b"done").unwrap();
                all
            });
            let mut client = client(&dir, near, version);
            let mut answer = [0; 5];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"hello");
            for part in pattern(40_000).chunks(10_000) {
                if version.version == rustls::ProtocolVersion::TLSv1_3 {
                    client.conn.refresh_traffic_keys().unwrap();
                }
                client.write_all(part).unwrap();
            }
            let mut rest = [0; 11];
            client.read_exact(&mut rest).unwrap();
            assert_eq!(&rest, b"betweendone");
            assert!(server.join().unwrap() == pattern(40_000));
        }
    }
}
