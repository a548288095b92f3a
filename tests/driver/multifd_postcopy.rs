// SPDX-License-Identifier: LGPL-2.1-or-later
//! Postcopy after several connections: pages travel over these until the guest moves, and then over the main connection.

use super::multifd::{Pair, several, socket_path, uri};
use super::precopy::{LONG, wait_status, wait_until};
use savevm::migration::{Compression, Incoming, Migration, MultifdFormat, Outgoing, Params, Status};
use std::sync::Arc;

/// Bytes that must have arrived before postcopy is requested.
const FIRST: u64 = 256 << 10;

/// So slow that the switch comes in the middle.
fn params(compression: Compression) -> Params {
    Params { postcopy: true, max_bandwidth: 512 << 10, ..several(3, compression) }
}

/// A migration that has switched to postcopy. `None` if this system has no userfaultfd.
fn switched(pair: &Pair, params: &Params) -> Option<(Arc<Outgoing>, Arc<Incoming>)> {
    if let Err(error) = pair.far.ram.check_postcopy() {
        eprintln!("SKIPPED: {error}");
        return None;
    }
    let (out, into) = pair.run(params.clone(), params.clone(), |_| ());
    let arrived = || {
        assert!(!out.info().status.is_final(), "{:?} {:?}", out.error(), into.error());
        into.info().transferred > FIRST
    };
    wait_until(arrived, || format!("{:?} {:?}", out.info(), into.info()));
    for page in 0..50 {
        pair.near.write(20 + page, 5);
    }
    out.start_postcopy().unwrap();
    wait_status(|| into.info().status, Status::PostcopyActive, "the destination in postcopy");
    wait_status(|| out.info().status, Status::PostcopyActive, "the source in postcopy");
    Some((out, into))
}

/// The guest has arrived with all of its memory.
fn check_whole(pair: &Pair, out: &Outgoing, into: &Incoming, what: &str) {
    out.wait_within(LONG).expect("it ends").unwrap_or_else(|error| panic!("{what}: {error}"));
    into.wait_within(LONG).expect("it ends").unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(pair.near.content() == pair.far.content(), "{what}");
    assert!(pair.target.host.is_running() && !pair.source.host.is_running(), "{what}");
    pair.stage.check(what);
}

#[test]
fn postcopy_follows_every_format_and_method() {
    use MultifdFormat::{Auto, Qemu72, Qemu81, Qemu90};
    for (format, compression) in [
        (Auto, Compression::None),
        (Auto, Compression::Auto),
        (Qemu72, Compression::None),
        (Qemu72, Compression::Zlib),
        (Qemu81, Compression::Zstd),
        (Qemu90, Compression::None),
        (Qemu90, Compression::Zstd),
    ] {
        for extensions in [true, false] {
            let what = format!("{format:?}-{compression:?}-{extensions}");
            let pair = Pair::new(&format!("postcopy-{what}"));
            // The rest follows slowly, so that the guest runs without it for a while.
            let params =
                Params { multifd_format: format, extensions, max_postcopy_bandwidth: 256 << 10, ..params(compression) };
            let Some((out, into)) = switched(&pair, &params) else { return };
            // The guest at the destination reads its memory, the pages that were sent as zero among it.
            let seen = pair.far.content();
            assert!(seen == pair.near.content(), "{what}: what the guest reads");
            check_whole(&pair, &out, &into, &what);
            assert!(out.info().page_requests > 0, "{what}: pages followed on request");
        }
    }
}

#[test]
fn postcopy_after_several_connections_is_recovered_over_one() {
    for extensions in [true, false] {
        for compression in [Compression::None, Compression::Zstd] {
            let what = format!("recovery-{compression:?}-{extensions}");
            let pair = Pair::new(&what);
            let slow = Params {
                extensions,
                multifd_format: MultifdFormat::Qemu90,
                max_postcopy_bandwidth: 100 << 10,
                ..params(compression)
            };
            let Some((out, into)) = switched(&pair, &slow) else { return };
            for round in 0..2 {
                out.pause().unwrap();
                wait_status(|| out.info().status, Status::PostcopyPaused, "the source's pause");
                wait_status(|| into.info().status, Status::PostcopyPaused, "the destination's pause");
                let again = socket_path(&format!("{what}-{round}"));
                into.recover(uri(&again)).unwrap();
                out.recover(&uri(&again)).unwrap();
                wait_status(|| out.info().status, Status::PostcopyActive, "the source after the recovery");
                wait_status(|| into.info().status, Status::PostcopyActive, "the destination after the recovery");
            }
            out.set_params(&Params { max_postcopy_bandwidth: 0, ..slow }).unwrap();
            check_whole(&pair, &out, &into, &what);
            assert_eq!(out.info().recoveries, 2, "{what}");
        }
    }
}
