// SPDX-License-Identifier: LGPL-2.1-or-later
//! Migrations with several connections, one of which is cut, stalls, is late, or damages a byte: at every record and at random
//! bytes, in both directions, plain and with TLS. Whatever happens, at most one side has the guest, both sides end in time, and
//! no thread or descriptor is left.

use super::certificates::{Authority, Dir};
use super::multifd::{Pair, assert_moved_unknown, several, socket_path, uri};
use super::precopy::{LONG, wait_until};
use super::proxy::{Fate, Fault, Place, Proxy};
use savevm::channel::TlsOptions;
use savevm::migration::{Compression, Incoming, Migration, Outgoing, Owner, Params};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Connections of each migration besides the main one.
const CHANNELS: u32 = 3;
/// Migrations that run at a time.
const AT_ONCE: usize = 8;

/// How the migrations of a test are protected and compressed.
struct Setting {
    name: String,
    tls: Option<(Dir, Arc<TlsOptions>)>,
    compression: Compression,
    postcopy: bool,
}

impl Setting {
    fn new(name: &str, tls: bool, compression: Compression) -> Self {
        let tls = tls.then(|| {
            let dir = Dir::standard(&Authority::new("CA"));
            let path = dir.path().into();
            let hostname = Some("localhost".into());
            (dir, Arc::new(TlsOptions { dir: path, hostname, verify_peer: true, allowed_peers: None }))
        });
        Self { name: format!("{name}-{}-{compression:?}", tls.is_some()), tls, compression, postcopy: false }
    }

    fn params(&self, limit: Duration) -> Params {
        Params {
            tls: self.tls.as_ref().map(|(_, options)| Arc::clone(options)),
            stall_timeout: Some(limit),
            handshake_timeout: limit,
            switchover_timeout: limit,
            postcopy: self.postcopy,
            ..several(CHANNELS, self.compression)
        }
    }

    /// One migration with this fault. Returns the number of records that each connection carried.
    fn run(&self, fault: Option<Fault>) -> Vec<usize> {
        let what = format!("{} {fault:?}", self.name);
        let id = fault.map_or("none".into(), |fault| {
            format!("{:?}-{}-{}-{:?}", fault.fate, fault.connection, fault.back, fault.place)
        });
        let pair = Pair::new(&format!("f-{}-{id}", self.name));
        let tight = fault.is_some_and(|fault| fault.fate != Fate::Late);
        let params = self.params(if tight { Duration::from_secs(3) } else { LONG });
        let held = [&pair.source, &pair.target].map(|machine| Arc::strong_count(&machine.vm));
        let into = Incoming::start(&pair.target.vm, uri(&pair.path), params.clone()).unwrap();
        let way = socket_path(&format!("w-{}-{id}", self.name));
        let proxy = Proxy::start(way.clone(), &pair.path, CHANNELS, fault, self.tls.is_some());
        let out = Outgoing::start(&pair.source.vm, uri(&way), params).unwrap();
        if self.postcopy {
            let _ = out.start_postcopy();
        }
        let sent = out.wait_within(LONG).unwrap_or_else(|| panic!("{what}: the source hangs"));
        let loaded = into.wait_within(LONG).unwrap_or_else(|| panic!("{what}: the destination hangs"));
        let what = format!("{what}: {sent:?}, {loaded:?}");
        assert!(pair.stage.guests() <= 1, "{what}");
        match (&sent, &loaded) {
            (Ok(()), Ok(())) => {
                // Without TLS, a damaged byte of a page does not show.
                let damaged = self.tls.is_none() && fault.is_some_and(|fault| fault.fate == Fate::Flip);
                assert!(damaged || pair.near.content() == pair.far.content(), "{what}: the memory differs");
                assert!(pair.target.host.is_running() && !pair.source.host.is_running(), "{what}");
            }
            (Err(_), Err(_)) => {
                // A busy machine may exceed the short limits without a fault.
                assert!(tight, "{what}: nothing was wrong");
                assert_eq!(out.info().owner, Owner::Here, "{what}");
                assert!(pair.source.host.is_running() && !pair.target.host.is_running(), "{what}");
            }
            // Its verdict may come later than the short limits as well.
            (Err(_), Ok(())) if tight => assert_moved_unknown(&pair, &out, &what),
            _ => panic!("{what}"),
        }
        pair.stage.check(&what);
        out.end();
        into.end();
        proxy.wait_closed(&what);
        drop((out, into));
        let left = || [&pair.source, &pair.target].map(|machine| Arc::strong_count(&machine.vm));
        wait_until(
            || left() == held,
            || format!("{what}: the machines are still in use: {:?}, before {held:?}", left()),
        );
        proxy.records()
    }

    /// Runs one migration for each fault, some at a time.
    fn run_all(&self, faults: Vec<Fault>) {
        let left = Mutex::new(faults);
        thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    loop {
                        let fault = left.lock().unwrap().pop();
                        let Some(fault) = fault else { return };
                        self.run(Some(fault));
                    }
                });
            }
        });
    }
}

/// A fault before every record of every further connection; a stall before each `stalls` only, because it takes long.
fn at_every_record(setting: &Setting, stalls: usize) {
    let records = setting.run(None);
    let mut faults = Vec::new();
    for (connection, count) in records.into_iter().enumerate().skip(1) {
        assert!(count > 4, "{}: only {count} records on connection {connection}", setting.name);
        for number in 0..count {
            for fate in [Fate::Cut, Fate::Flip, Fate::Late, Fate::Stall] {
                if fate != Fate::Stall || number % stalls == connection % stalls {
                    faults.push(Fault { fate, connection, back: false, place: Place::Record(number) });
                }
            }
        }
    }
    setting.run_all(faults);
}

#[test]
fn fault_at_every_packet_leaves_one_owner() {
    for compression in [Compression::None, Compression::Zstd] {
        at_every_record(&Setting::new("packet", false, compression), 5);
    }
}

#[cfg(feature = "tls")]
#[test]
fn fault_at_tls_records_leaves_one_owner() {
    // Compressed, so that there are few records.
    let setting = Setting::new("record", true, Compression::Zstd);
    let records = setting.run(None);
    let mut faults = Vec::new();
    // The main connection is cut at every place by the tests of `tls.rs`.
    for (connection, count) in records.into_iter().enumerate().skip(1) {
        // The handshake and the first records behind it, then some, and the last ones with close_notify.
        let numbers = (0..count.min(6)).chain((6..count).step_by(count / 5 + 1)).chain(count.saturating_sub(2)..count);
        for number in numbers.collect::<std::collections::BTreeSet<_>>() {
            for fate in [Fate::Cut, Fate::Flip, Fate::Late, Fate::Stall] {
                if fate != Fate::Stall || number % 3 == 0 {
                    faults.push(Fault { fate, connection, back: false, place: Place::Record(number) });
                }
            }
        }
        // The destination's part of the handshake.
        for number in 0..3 {
            for fate in [Fate::Cut, Fate::Flip, Fate::Late, Fate::Stall] {
                faults.push(Fault { fate, connection, back: true, place: Place::Record(number) });
            }
        }
    }
    setting.run_all(faults);
}

#[test]
fn fault_at_random_bytes_leaves_one_owner() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for (tls, compression) in [(false, Compression::None), (false, Compression::Zstd), (true, Compression::None)] {
        if tls && !cfg!(feature = "tls") {
            continue;
        }
        let setting = Setting::new("byte", tls, compression);
        let mut faults = Vec::new();
        for connection in 1..=CHANNELS as usize {
            for _ in 0..8 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let fate = [Fate::Cut, Fate::Flip, Fate::Cut, Fate::Late][state as usize >> 8 & 3];
                let place = Place::Byte((state >> 32) as usize % 1_500_000);
                faults.push(Fault { fate, connection, back: false, place });
            }
        }
        // The main connection is broken while the others have work.
        for at in [0, 8, 64, 150] {
            for fate in [Fate::Cut, Fate::Stall, Fate::Late] {
                faults.push(Fault { fate, connection: 0, back: false, place: Place::Byte(at) });
            }
        }
        setting.run_all(faults);
    }
}

#[test]
fn fault_before_the_switch_to_postcopy_leaves_the_guest_at_the_source() {
    let setting = Setting { postcopy: true, ..Setting::new("switch", false, Compression::None) };
    let pair = Pair::new("switch-check");
    if let Err(error) = pair.far.ram.check_postcopy() {
        return eprintln!("SKIPPED: {error}");
    }
    let mut faults = Vec::new();
    for connection in 1..=CHANNELS as usize {
        // The hello and the SYNC of setup, which the destination needs before it can load anything.
        for number in 0..2 {
            for fate in [Fate::Cut, Fate::Stall, Fate::Late] {
                faults.push(Fault { fate, connection, back: false, place: Place::Record(number) });
            }
        }
    }
    setting.run_all(faults);
}
