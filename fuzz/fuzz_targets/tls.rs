// SPDX-License-Identifier: LGPL-2.1-or-later
//! TLS under a peer that sends anything, and over a connection that cuts, splits and changes what is sent. A reader gets
//! only bytes that were sent, in their order.
#![no_main]

use libfuzzer_sys::fuzz_target;
use savevm::channel::{Cancel, Channel, Role, Security, TlsOptions, memory};
use savevm::sys::{IoVec, Span};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

#[path = "../../tests/certificates/mod.rs"]
mod certificates;

const LIMIT: Duration = Duration::from_secs(5);
static CONTENT: [u8; 40_000] = {
    let (mut bytes, mut at) = ([0; 40_000], 0);
    while at < bytes.len() {
        bytes[at] = (at ^ at >> 8) as u8;
        at += 1;
    }
    bytes
};

fn sides() -> &'static (Security, Security) {
    static SIDES: OnceLock<(Security, Security)> = OnceLock::new();
    SIDES.get_or_init(|| {
        let dir = certificates::Dir::standard(&certificates::Authority::new("CA"));
        let options = TlsOptions {
            dir: dir.path().into(),
            hostname: Some("localhost".into()),
            verify_peer: true,
            allowed_peers: None,
        };
        let side = |role| Security::new(Some(&options), role).unwrap();
        (side(Role::Source), side(Role::Destination))
    })
}

/// Reads in pieces of the sizes of `plan`, and changes or ends what is read at the places of `plan`.
struct Mangled {
    inner: Arc<dyn Channel>,
    plan: Vec<u8>,
    at: AtomicUsize,
}

impl Channel for Mangled {
    fn read(&self, into: Span<'_>) -> io::Result<usize> {
        let step = self.plan.get(self.at.fetch_add(1, SeqCst)).copied();
        match step {
            Some(0xff) => Ok(0),
            Some(0xfe) => {
                let count = self.inner.read(into.first(64))?;
                if count > 0 {
                    into.store(&[0x17]);
                }
                Ok(count)
            }
            Some(size) => self.inner.read(into.first(usize::from(size) * 16 + 1)),
            None => self.inner.read(into),
        }
    }

    fn write_all(&self, pieces: &mut [IoVec]) -> io::Result<()> {
        self.inner.write_all(pieces)
    }

    fn shutdown(&self) -> io::Result<()> {
        self.inner.shutdown()
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn is_duplex(&self) -> bool {
        true
    }

    fn set_stall_limit(&self, limit: Option<Duration>) {
        self.inner.set_stall_limit(limit);
    }
}

/// Bytes of a peer that is not ours.
fn stranger(role: Role, bytes: &[u8]) {
    let (near, far) = memory::pair(1 << 20);
    let written: &'static [u8] = Vec::from(bytes).leak();
    near.write_all(&mut [IoVec::from_static(written)]).unwrap();
    near.close().unwrap();
    let (source, destination) = sides();
    let side = if role == Role::Source { source } else { destination };
    assert!(side.secure(far, None, LIMIT, &Cancel::new().unwrap()).is_err());
    // SAFETY: the channel was closed and keeps no reference; the bytes came from a vector of this length.
    drop(unsafe { Vec::from_raw_parts(written.as_ptr().cast_mut(), written.len(), written.len()) });
}

/// A connection that does to the stream what `plan` says.
fn mangled(plan: &[u8]) {
    let (near, far) = memory::pair(1 << 20);
    let far: Arc<dyn Channel> = Arc::new(Mangled { inner: far, plan: plan.to_vec(), at: AtomicUsize::new(0) });
    let writer = thread::spawn(move || {
        let near: Arc<dyn Channel> = near;
        let cancel = Cancel::new().unwrap();
        let Ok(tls) = sides().0.secure(Arc::clone(&near), None, LIMIT, &cancel) else { return near.close() };
        tls.set_stall_limit(Some(Duration::from_secs(5)));
        let sent = tls.write_all(&mut [IoVec::from_static(&CONTENT)]);
        sent.and(tls.close())
    });
    let cancel = Cancel::new().unwrap();
    let mut received = Vec::new();
    if let Ok(tls) = sides().1.secure(Arc::clone(&far), None, LIMIT, &cancel) {
        tls.set_stall_limit(Some(Duration::from_secs(5)));
        let mut buffer = [0; 3000];
        while let Ok(count @ 1..) = tls.read(Span::from_slice(&mut buffer)) {
            received.extend_from_slice(&buffer[..count]);
        }
    }
    let _ = far.shutdown();
    let _ = writer.join().unwrap();
    assert!(CONTENT.starts_with(&received));
}

fuzz_target!(|data: &[u8]| {
    match data {
        [0, bytes @ ..] => stranger(Role::Destination, bytes),
        [1, bytes @ ..] => stranger(Role::Source, bytes),
        [_, plan @ ..] => mangled(plan),
        [] => {}
    }
});
