// SPDX-License-Identifier: LGPL-2.1-or-later
//! The phases and the load loop over devices of a script.

use super::handler::Callback;
use super::save::{Completion, Disks, Round};
use super::testing::{Device, Diary};
use super::{Vm, incoming, load, save};
use crate::channel::memory;
use crate::error::{Phase, Result};
use crate::file::MigFile;
use std::sync::Arc;

pub(super) fn writer() -> (MigFile, Arc<memory::Writer>) {
    let sink = Arc::new(memory::Writer::new());
    (MigFile::new(sink.clone(), true), sink)
}

pub(super) fn reader(bytes: &[u8]) -> MigFile {
    MigFile::new(Arc::new(memory::Reader::new(bytes.to_vec())), false)
}

pub(super) fn machine(devices: Vec<Device>) -> (Vm, Diary) {
    let vm = Vm::default();
    let diary = Diary::default();
    for device in devices {
        vm.register(Device { diary: diary.clone(), ..device }.registration()).unwrap();
    }
    (vm, diary)
}

pub(super) fn read(diary: &Diary) -> Vec<String> {
    std::mem::take(&mut diary.lock().unwrap())
}

pub(super) const LIVE: &[Callback] = &[
    Callback::SaveSetup,
    Callback::SaveLiveIterate,
    Callback::SaveLivePending,
    Callback::SaveLiveCompletePrecopy,
    Callback::SaveCleanup,
    Callback::LoadState,
];
pub(super) const WHOLE: &[Callback] = &[Callback::SaveState, Callback::LoadState];

fn saved() -> Vec<u8> {
    let (vm, _) = machine(vec![
        Device { name: "one", callbacks: WHOLE, state: b"1st", ..Device::default() },
        Device { name: "two", callbacks: WHOLE, state: b"2nd", ..Device::default() },
    ]);
    let (file, sink) = writer();
    save::header(&vm, &file);
    save::complete_precopy(&vm, &file, Completion::All(Disks::Keep)).unwrap();
    file.close().unwrap();
    sink.contents()
}

fn load_into_same(bytes: &[u8]) -> (Result<incoming::LoadEnd>, Vec<String>) {
    let (vm, diary) = machine(vec![
        Device { name: "one", callbacks: WHOLE, state: b"1st", ..Device::default() },
        Device { name: "two", callbacks: WHOLE, state: b"2nd", ..Device::default() },
    ]);
    let result = load::stream(&vm, &reader(bytes));
    (result, read(&diary))
}

#[test]
fn stream_has_the_bytes_that_qemu_writes() {
    let mut expected = b"QEVM\0\0\0\x03\x07\0\0\0\x04none".to_vec();
    expected.extend(b"\x04\0\0\0\0\x03one\0\0\0\0\0\0\0\x011st\x7e\0\0\0\0");
    expected.extend(b"\x04\0\0\0\x01\x03two\0\0\0\0\0\0\0\x012nd\x7e\0\0\0\x01\0\x06");
    let stream = saved();
    let (head, tail) = stream.split_at(expected.len());
    assert_eq!(head, expected);
    let (len, json) = tail.split_at(4);
    assert_eq!(u32::from_be_bytes(len.try_into().unwrap()) as usize, json.len());
    let json = String::from_utf8(json.to_vec()).unwrap();
    assert!(
        json.starts_with(r#"{"page_size": 4096, "devices": [{"name": "one", "instance_id": 0, "size": 3,"#),
        "{json}"
    );
}

#[test]
fn saved_devices_load() {
    let (result, diary) = load_into_same(&saved());
    assert_eq!(result.unwrap(), incoming::LoadEnd::Finished);
    assert_eq!(diary, ["one: load v1", "two: load v1"]);
}

#[test]
fn stream_cut_before_eof_fails_with_an_offset() {
    let stream = saved();
    let json_at = stream.windows(2).position(|pair| pair == b"{\"").unwrap();
    let end = json_at - 4;
    for cut in 0..end - 1 {
        let (result, _) = load_into_same(&stream[..cut]);
        let error = result.expect_err("a cut stream must not load");
        assert!(error.offset().is_some(), "cut at {cut}: {error}");
    }
    assert!(load_into_same(&stream[..end - 1]).0.is_ok(), "the state is complete at EOF");
}

#[test]
fn round_stops_at_the_first_device_with_more_to_send() {
    let device = |name, result| Device { name, callbacks: LIVE, result, ..Device::default() };
    let (vm, diary) = machine(vec![device("a", 1), device("b", 0), device("c", 1)]);
    let (file, _sink) = writer();
    assert_eq!(save::iterate(&vm, &file, false), Ok(Round::Again));
    assert_eq!(read(&diary), ["a: iterate", "b: iterate"]);
}

#[test]
fn finished_round_returns_the_result_of_the_last_device() {
    let device = |name, result| Device { name, callbacks: LIVE, result, ..Device::default() };
    let (vm, _) = machine(vec![device("a", 5), device("b", 9)]);
    let (file, _sink) = writer();
    assert_eq!(save::iterate(&vm, &file, false), Ok(Round::Done(9)));
    assert_eq!(save::iterate(&Vm::default(), &file, false), Ok(Round::Done(1)));
}

#[test]
fn error_escapes_control_bytes_of_a_name() {
    let stream = b"\x04\0\0\0\x05\x06\x1b[2J\n\x07\0\0\0\x02\0\0\0\x01";
    let error = load::sections(&Vm::default(), &reader(stream)).unwrap_err();
    assert!(!error.to_string().contains(char::is_control), "{error:?}");
    assert!(!error.message().contains(char::is_control) && error.message().contains("[2J"), "{error:?}");
}

#[test]
fn failing_device_ends_the_round_and_is_latched() {
    let device = |name, result| Device { name, callbacks: LIVE, result, ..Device::default() };
    let (vm, diary) = machine(vec![device("a", -libc::ENOSPC), device("b", 1)]);
    let (file, _sink) = writer();
    assert_eq!(save::iterate(&vm, &file, false), Err(-libc::ENOSPC));
    assert_eq!(read(&diary), ["a: iterate"]);
    assert_eq!(file.error(), -libc::ENOSPC);
    let error = file.status().first_error().unwrap();
    assert_eq!((error.phase(), error.section().map(|section| &*section.idstr)), (Some(Phase::Iterate), Some("a")));
}

#[test]
fn inactive_devices_are_skipped() {
    let device = |name| Device { name, callbacks: LIVE, ..Device::default() };
    let (vm, diary) = machine(vec![
        Device { active: false, ..device("inactive") },
        Device { active_iterate: false, ..device("no rounds") },
        Device { postcopy: true, ..device("postcopy") },
        device("plain"),
    ]);
    let (file, _sink) = writer();
    assert_eq!(save::iterate(&vm, &file, true), Ok(Round::Done(1)));
    assert_eq!(read(&diary), ["postcopy: iterate"]);
    assert_eq!(save::iterate(&vm, &file, false), Ok(Round::Done(1)));
    assert_eq!(read(&diary), ["postcopy: iterate", "plain: iterate"]);
    assert_eq!(save::pending(&vm, &file, 10).compatible, 30);
    save::cleanup(&vm);
    assert_eq!(read(&diary).iter().filter(|line| line.ends_with("cleanup")).count(), 4);
}

#[test]
fn rate_limit_stops_the_round_before_a_device() {
    let (vm, diary) = machine(vec![
        Device { name: "a", callbacks: LIVE, ..Device::default() },
        Device { name: "b", callbacks: LIVE, ..Device::default() },
    ]);
    let (file, _sink) = writer();
    file.status().set_rate_limit(4);
    assert_eq!(save::iterate(&vm, &file, false), Ok(Round::Again));
    assert_eq!(read(&diary), ["a: iterate"]);
}

#[test]
fn packages_nested_too_deep_are_refused() {
    let vm = Vm::default();
    let mut inner = vec![0u8];
    for _ in 0..vm.limits().packaged_depth + 1 {
        let mut outer = vec![8, 0, 7, 0, 4];
        outer.extend((inner.len() as u32).to_be_bytes());
        outer.extend(&inner);
        outer.push(0);
        inner = outer;
    }
    let error = load::sections(&vm, &reader(&inner)).unwrap_err();
    assert!(error.to_string().contains("nest deeper"), "{error}");
}

#[test]
fn package_length_alone_takes_no_memory() {
    let vm = Vm::default();
    let error = load::sections(&vm, &reader(&[8, 0, 7, 0, 4, 0x3f, 0xff, 0xff, 0xff, 1])).unwrap_err();
    assert_eq!(error.errno(), libc::EAGAIN);
}

#[test]
fn unknown_section_is_named_in_the_error() {
    let stream = b"\x04\0\0\0\x05\x03nic\0\0\0\x02\0\0\0\x01";
    let error = load::sections(&Vm::default(), &reader(stream)).unwrap_err();
    assert!(error.to_string().contains("Unknown savevm section or instance 'nic' 2"), "{error}");
    assert_eq!((error.errno(), error.offset()), (libc::EINVAL, Some(5)));
}
