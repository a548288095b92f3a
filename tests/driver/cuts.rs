// SPDX-License-Identifier: LGPL-2.1-or-later
//! The connection breaks at every byte of a small migration, in either direction, whole or in half.

use super::link::{Break, Fragile, Refuses, corrupting, fragile};
use super::machine::{Machine, Stage};
use super::precopy::{LONG, Run, check_moved, check_stayed, over, quick};
use savevm::channel::Uri;
use savevm::migration::{Choice, Endpoint, Incoming, Migration, Outgoing, Owner, Params, Status};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The allowed results of one cut: the guest moved, or stayed, or only an operator can find out: it is stopped on the
/// source, which reports that, and runs on the destination or nowhere.
fn check_cut(source: &Machine, destination: &Machine, stage: &Stage, run: &Run, what: &str) {
    let (out, into) = run.wait(what);
    let info = run.out.info();
    match (&out, info.owner) {
        (Ok(()), Owner::There) => {
            assert!(into.is_ok(), "{what}: the source released the guest, but the destination: {into:?}");
            check_moved(source, destination, stage, what);
        }
        (Err(_), Owner::Here) => {
            assert!(into.is_err(), "{what}: the destination succeeded, but the source goes on: {out:?}");
            check_stayed(source, destination, stage, what);
        }
        (Err(error), Owner::Unknown) => {
            assert!(error.message().contains("the destination may run"), "{what}: {error}");
            assert!(!source.host.is_running(), "{what}");
            if into.is_ok() {
                check_moved(source, destination, stage, what);
            }
            assert!(stage.guests() <= 1, "{what}");
        }
        other => panic!("{what}: {other:?}"),
    }
    source.check_balanced(what);
    destination.check_balanced(what);
    stage.check(what);
}

pub fn one(ends: (Arc<Fragile>, Arc<Fragile>), params: &(Params, Params), what: &str) -> Owner {
    let (source, destination, stage) = Machine::two();
    let run = Run::start(&source, &destination, ends, params.clone());
    check_cut(&source, &destination, &stage, &run, what);
    run.out.info().owner
}

/// Bytes of a whole migration in each direction.
pub fn lengths(params: &(Params, Params)) -> (i64, i64) {
    let (source, destination, _stage) = Machine::two();
    let (here, there) = fragile(-1, -1, Break::Whole);
    let run = Run::start(&source, &destination, (here.clone(), there.clone()), params.clone());
    let (out, into) = run.wait("whole");
    out.and(into).unwrap();
    (there.read_so_far(), here.read_so_far())
}

/// A break in the middle of the stream, and one so many bytes before the end of the return path: the errors of both sides say
/// how the process of the other one ended.
pub fn say_how_the_peer_ended(params: &(Params, Params), before_end: i64) {
    const KILLED: &str = "its process 7 (vmm) was killed by signal 9";
    let (stream, _) = lengths(&(quick(), quick()));
    let (forth, back) = lengths(params);
    for (to_destination, to_source) in [(forth - stream / 2, -1), (-1, back - before_end)] {
        let (source, destination, _stage) = Machine::two();
        let ends = fragile(to_destination, to_source, Break::Whole);
        ends.0.know_peer_end(KILLED);
        ends.1.know_peer_end(KILLED);
        let (out, into) = Run::start(&source, &destination, ends, params.clone()).wait("a killed peer");
        let error = out.unwrap_err().to_string();
        assert!(error.contains(KILLED), "the source: {error}");
        if to_source < 0 {
            let error = into.unwrap_err().to_string();
            assert!(error.contains(KILLED), "the destination: {error}");
        }
    }
}

#[test]
fn the_error_of_a_broken_connection_says_how_the_process_of_the_peer_ended() {
    say_how_the_peer_ended(&(quick(), quick()), 1);
}

fn every_cut(params: &(Params, Params)) -> Vec<(i64, Owner)> {
    let (forth, back) = lengths(params);
    assert!(forth > 300, "{forth}");
    let mut owners = Vec::new();
    for how in [Break::Whole, Break::Half] {
        for at in 0..=forth {
            owners.push((at, one(fragile(at, -1, how), params, &format!("{how:?} cut, to the destination, at {at}"))));
        }
        for at in 0..=back {
            one(fragile(-1, at, how), params, &format!("{how:?} cut, to the source, at {at}"));
        }
    }
    owners
}

#[test]
fn at_every_byte_between_two_ends_of_this_library() {
    let owners = every_cut(&(quick(), quick()));
    // There is a window in which the owner is unknown, and it is small: EOF and what follows.
    let unknown: Vec<_> = owners.iter().filter(|(_, owner)| *owner == Owner::Unknown).collect();
    assert!(!unknown.is_empty());
    assert!(owners[..100].iter().all(|(_, owner)| *owner == Owner::Here));
}

#[test]
fn at_every_byte_where_one_end_speaks_as_qemu_does() {
    let plain = Params { extensions: false, ..quick() };
    every_cut(&(quick(), plain.clone()));
    every_cut(&(plain, quick()));
}

#[test]
fn without_a_return_path_the_guest_never_runs_twice() {
    let params = (Params { return_path: Choice::Off, ..quick() }, quick());
    let (forth, _) = lengths(&params);
    for at in 0..=forth {
        let what = format!("no return path, at {at}");
        let (source, destination, stage) = Machine::two();
        let run = Run::start(&source, &destination, fragile(at, -1, Break::Whole), params.clone());
        let (out, _) = run.wait(&what);
        // As with QEMU the source can only know that its bytes went out.
        assert!(stage.guests() <= 1, "{what}");
        assert!(out.is_ok() || run.out.info().status == Status::Failed);
        stage.check(&what);
        source.check_balanced(&what);
        destination.check_balanced(&what);
    }
}

#[test]
fn a_link_that_falls_silent_is_given_up_in_time() {
    let limit = Duration::from_millis(60);
    let short = Params { stall_timeout: Some(limit), switchover_timeout: limit, handshake_timeout: limit, ..quick() };
    let params = (short.clone(), short);
    let (forth, back) = lengths(&(quick(), quick()));
    let cuts = (0..forth).step_by(5).map(|at| (at, -1)).chain((0..back).map(|at| (-1, at)));
    for (to_destination, to_source) in cuts {
        let what = format!("silence to the destination at {to_destination}, to the source at {to_source}");
        let since = Instant::now();
        one(fragile(to_destination, to_source, Break::Silent), &params, &what);
        assert!(since.elapsed() < LONG / 4, "{what}: {:?}", since.elapsed());
    }
}

#[test]
fn cancelling_cuts_through_every_silence_within_a_second() {
    let limit = Duration::from_millis(300);
    let params = || Params { switchover_timeout: limit, handshake_timeout: limit, ..quick() };
    let (_, back) = lengths(&(quick(), quick()));
    for (at, by_source) in (0..back).step_by(3).flat_map(|at| [(at, true), (at, false)]) {
        let what = format!("silence to the source at {at}, cancelled by the source: {by_source}");
        let (source, destination, stage) = Machine::two();
        let run = Run::start(&source, &destination, fragile(-1, at, Break::Silent), (params(), params()));
        std::thread::sleep(Duration::from_millis(20));
        let since = Instant::now();
        let cancelled = if by_source { run.out.cancel() } else { run.into.cancel() };
        assert!(since.elapsed() < LONG / 4, "{what}: {:?}", since.elapsed());
        let (host, owner) = match by_source {
            true => (&source.host, run.out.info().owner),
            false => (&destination.host, run.into.info().owner),
        };
        // It may have ended meanwhile.
        match cancelled {
            Ok(()) if by_source => assert!(host.is_running() || owner != Owner::Here, "{what}"),
            Ok(()) => assert!(!host.is_running() || owner == Owner::Here, "{what}"),
            // On a busy machine the second may be over.
            Err(error) => assert!([libc::EBUSY, libc::ETIMEDOUT].contains(&error.errno()), "{what}: {error}"),
        }
        check_cut(&source, &destination, &stage, &run, &what);
    }
}

#[test]
fn a_link_that_trickles_carries_the_guest() {
    let owner = one(fragile(-1, -1, Break::Never), &(quick(), quick()), "trickle");
    assert_eq!(owner, Owner::There);
}

#[test]
fn a_destination_waits_for_its_source_no_longer_than_it_may() {
    let (_, destination, stage) = Machine::two();
    let path = std::env::temp_dir().join(format!("savevm-driver-waits-{}", std::process::id()));
    let limit = Some(Duration::from_millis(50));
    let unused = Endpoint::Uri(Uri::Unix(path));
    let into = Incoming::start(&destination.vm, unused, Params { connect_timeout: limit, ..quick() }).unwrap();
    assert_eq!(into.wait_within(LONG).unwrap().unwrap_err().errno(), libc::ETIMEDOUT);
    let (_here, there) = fragile(-1, -1, Break::Whole);
    let into = Incoming::start(&destination.vm, over(&there), Params { stall_timeout: limit, ..quick() }).unwrap();
    assert!(into.wait_within(LONG).unwrap().is_err());
    assert!(!destination.host.is_running());
    destination.check_balanced("no source connects");
    stage.check("no source connects");
}

#[test]
fn a_corrupted_byte_never_makes_two_guests_and_never_hangs() {
    let params = (quick(), quick());
    let (forth, _) = lengths(&params);
    let stall = Duration::from_millis(200);
    let short = Params { stall_timeout: Some(stall), switchover_timeout: stall, handshake_timeout: stall, ..quick() };
    let wary = Params { return_path: Choice::On, ..short.clone() };
    for (at, byte) in (0..forth).map(|at| (at, if at % 4 == 0 { 0x5a } else { 0 })) {
        let what = format!("byte {at} became {byte}");
        let (source, destination, stage) = Machine::two();
        let run = Run::start(&source, &destination, corrupting(at, byte), (short.clone(), wary.clone()));
        for ended in [run.out.wait_within(LONG), run.into.wait_within(LONG)] {
            assert!(ended.is_some(), "{what}: hangs");
        }
        assert!(stage.guests() <= 1, "{what}");
        source.check_balanced(&what);
        destination.check_balanced(&what);
        stage.check(&what);
    }
}

#[test]
fn an_end_that_the_channel_did_not_take_leaves_no_doubt() {
    let (source, destination, stage) = Machine::two();
    let (here, there) = fragile(-1, -1, Break::Whole);
    let into = Incoming::start(&destination.vm, over(&there), quick()).unwrap();
    let out = Outgoing::start(&source.vm, over(&Refuses::eof(here)), quick()).unwrap();
    let run = Run { out, into };
    let (out, into) = run.wait("refused end");
    assert!(out.is_err() && into.is_err());
    assert_eq!(run.out.info().owner, Owner::Here);
    check_stayed(&source, &destination, &stage, "refused end");
}

/// A zero in place of a section's type looks like EOF. A destination that knows nothing of its source must not take it for
/// the end while a live device has not ended.
#[test]
fn zero_byte_before_the_end_of_a_live_device_starts_no_guest() {
    let whole = {
        let (source, _destination, _stage) = Machine::two();
        let path = std::env::temp_dir().join(format!("savevm-driver-early-eof-{}", std::process::id()));
        let params = Params { return_path: Choice::Off, ..quick() };
        let to = Endpoint::Uri(Uri::File { path: path.clone(), offset: 0 });
        Outgoing::start(&source.vm, to, params).unwrap().wait().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        bytes
    };
    // A footer is at the end of a section, so the next byte is the type of a section.
    let footer = |id: u32| [&[0x7e][..], &id.to_be_bytes()].concat();
    let ram = footer(0);
    let ends: Vec<_> = (0..whole.len()).filter(|at| whole[*at..].starts_with(&ram)).map(|at| at + ram.len()).collect();
    let (last, earlier) = ends.split_last().unwrap();
    assert!(!earlier.is_empty(), "RAM sends more than one section");
    let load = |stream: Vec<u8>| {
        let (_source, destination, stage) = Machine::two();
        let reader = Arc::new(savevm::channel::memory::Reader::new(stream));
        let into = Incoming::start(&destination.vm, over(&reader), quick()).unwrap();
        (into.wait(), destination.host.is_running(), stage.guests())
    };
    for end in earlier {
        let mut cut = whole[..*end].to_vec();
        cut.push(0);
        let (result, runs, _) = load(cut);
        let text = result.unwrap_err().to_string();
        assert!(text.contains("the stream ends before the last section of 'ram' 0"), "{text}");
        assert!(!runs);
    }
    assert!(whole[*last] != 0, "the device follows");
}
