// SPDX-License-Identifier: LGPL-2.1-or-later
//! Each switch of a profile, with and without it; and the callbacks that newer layouts add.

use super::handler::{Callback, SaveThread};
use super::host::{Flags, Host, PrecopyNotice};
use super::incoming::{Incoming, PostcopyState};
use super::profile::Profile;
use super::save::{Completion, Disks, Round};
use super::testing::{Device, Diary};
use super::tests::{LIVE, WHOLE, machine, read, reader, writer};
use super::{Vm, load, save, switchover};
use crate::file::MigFile;
use crate::vmstate::VmStateHost;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst};

/// A host that notes what it is asked for in the diary of the devices.
#[derive(Default)]
struct Notes {
    diary: Diary,
    locked: AtomicBool,
    notice: AtomicI32,
    threads: bool,
    thread_fails: bool,
}

impl Notes {
    fn note(&self, text: &str) {
        self.diary.lock().unwrap().push(text.to_owned());
    }
}

impl VmStateHost for Notes {}

impl Host for Notes {
    fn lock(&self) {
        self.locked.store(true, SeqCst);
        self.note("lock");
    }
    fn unlock(&self) {
        self.locked.store(false, SeqCst);
        self.note("unlock");
    }
    fn locked(&self) -> bool {
        self.locked.load(SeqCst)
    }
    fn cpu_synchronize_states(&self) {
        self.note("cpus");
    }
    fn precopy_notify(&self, notice: PrecopyNotice) -> i32 {
        self.note(&format!("{notice:?}"));
        self.notice.load(SeqCst)
    }
    fn has_save_threads(&self) -> bool {
        self.threads
    }
    fn start_save_thread(&self, thread: SaveThread, idstr: &[u8], instance: u32) {
        self.note(&format!("thread {} {} {instance}", thread.function, String::from_utf8_lossy(idstr)));
    }
    fn abort_save_threads(&self) {
        self.note("abort");
    }
    fn join_save_threads(&self) -> bool {
        self.note("join");
        !self.thread_fails
    }
}

fn live(name: &'static str, result: i32) -> Device {
    Device { name, callbacks: LIVE, result, ..Device::default() }
}

/// A machine with a host that writes into the diary of its devices.
fn noted(profile: Profile, devices: Vec<Device>, change: impl FnOnce(&mut Notes)) -> (Vm, Diary) {
    let (vm, diary) = machine(devices);
    vm.set_layout(profile, 0);
    let mut notes = Notes { diary: diary.clone(), ..Notes::default() };
    change(&mut notes);
    vm.set_host(Arc::new(notes));
    (vm, diary)
}

#[test]
fn round_visits_all_devices_with_iterate_all() {
    let devices = || vec![live("a", 1), live("b", 0), live("c", 5)];
    for (profile, visited) in [(Profile::NONE, 2), (Profile::ITERATE_ALL, 3)] {
        let (vm, diary) = noted(profile, devices(), |_| {});
        let (file, _sink) = writer();
        assert_eq!(save::iterate(&vm, &file, false), Ok(Round::Again));
        assert_eq!(read(&diary).len(), visited, "{profile:?}");
    }
    let (vm, _) = noted(Profile::ITERATE_ALL, vec![live("a", 5)], |_| {});
    assert_eq!(save::iterate(&vm, &writer().0, false), Ok(Round::Done(1)));
}

#[test]
fn setup_takes_the_big_lock_with_setup_locked() {
    for (profile, expected) in
        [(Profile::NONE, &["a: setup", "Setup"][..]), (Profile::SETUP_LOCKED, &["lock", "a: setup", "Setup", "unlock"])]
    {
        let (vm, diary) = noted(profile, vec![live("a", 1)], |_| {});
        save::setup(&vm, &writer().0).unwrap();
        assert_eq!(read(&diary), expected);
    }
}

#[test]
fn failed_setup_sends_no_notice_with_skip_setup_notice_and_is_returned_with_setup_errors() {
    for (profile, fails, expected) in [
        (Profile::NONE, false, &["a: setup", "Setup"][..]),
        (Profile::SKIP_SETUP_NOTICE, false, &["a: setup"]),
        (Profile::SETUP_ERRORS, true, &["a: setup"]),
    ] {
        let (vm, diary) = noted(profile, vec![live("a", -libc::ENOMEM), live("b", 1)], |_| {});
        let (file, _sink) = writer();
        assert_eq!(save::setup(&vm, &file).map_err(|error| error.errno()).err(), fails.then_some(libc::ENOMEM));
        assert_eq!((file.error(), read(&diary)), (-libc::ENOMEM, expected.iter().map(ToString::to_string).collect()));
    }
    for (profile, fails) in [(Profile::NONE, false), (Profile::SETUP_ERRORS, true)] {
        let (vm, _) = noted(profile, Vec::new(), |notes| notes.notice = AtomicI32::new(-libc::EBUSY));
        assert_eq!(save::setup(&vm, &writer().0).is_err(), fails, "result of the notice");
    }
}

#[test]
fn duplicate_is_refused_with_refuse_duplicates() {
    for (profile, refused) in [(Profile::NONE, false), (Profile::REFUSE_DUPLICATES, true)] {
        let (vm, _) = machine(Vec::new());
        vm.set_layout(profile, 0);
        let register = || {
            let new = Device { callbacks: WHOLE, ..Device::default() }.registration();
            vm.register(super::registry::Registration { instance_id: 3, ..new })
        };
        register().unwrap();
        let again = register();
        assert_eq!(again.is_err(), refused, "{profile:?}");
        if let Err(error) = again {
            assert_eq!(error.errno(), libc::EEXIST);
            assert!(error.message().contains("instance 3 is registered already"), "{error}");
        }
    }
}

#[test]
fn name_by_which_a_stream_finds_another_device_is_refused_with_refuse_duplicates() {
    for (profile, refused) in [(Profile::NONE, false), (Profile::REFUSE_DUPLICATES, true)] {
        let (vm, _) = machine(Vec::new());
        vm.set_layout(profile, 0);
        let register = |path: Option<&str>, instance_id, alias_id| {
            let new = Device { callbacks: WHOLE, name: "dev", ..Device::default() }.registration();
            let path = path.map(|path| path.as_bytes().to_vec());
            vm.register(super::registry::Registration { path, instance_id, alias_id, ..new })
        };
        register(Some("/bus"), 4, -1).unwrap();
        register(None, 7, 11).unwrap();
        // The older name of the first device, and the alias of the second.
        for instance in [4, 11] {
            let error = register(None, instance, -1).err();
            assert_eq!(error.as_ref().map(crate::error::Error::errno), refused.then_some(libc::EEXIST), "{instance}");
        }
        register(None, 5, -1).unwrap();
    }
}

#[test]
fn cpus_are_synchronised_after_the_live_devices_with_sync_cpus_late() {
    for (profile, at) in [(Profile::NONE, 1), (Profile::SYNC_CPUS_LATE, 2)] {
        let (vm, diary) = noted(profile, vec![live("a", 1)], |_| {});
        save::complete_precopy(&vm, &writer().0, Completion::All(Disks::Keep)).unwrap();
        let diary = read(&diary);
        assert_eq!(diary.iter().position(|line| line == "cpus"), Some(at), "{diary:?}");
        assert_eq!(diary.iter().filter(|line| *line == "cpus").count(), 1);
    }
}

/// SWITCHOVER_START and EOF.
const START: &[u8] = b"\x08\0\x0b\0\0\0";

#[test]
fn switchover_start_is_sent_and_understood_with_the_switch_only() {
    let start = Device { name: "a", callbacks: &[Callback::SwitchoverStart], ..Device::default() };
    let (vm, diary) = noted(Profile::SWITCHOVER_START, vec![start], |_| {});
    let (file, sink) = writer();
    switchover::send_start(&vm, &file);
    vm.set_flags(Flags::NO_SWITCHOVER_START, true);
    switchover::send_start(&vm, &file);
    file.flush();
    assert_eq!(sink.contents(), &START[..5]);
    load::sections(&vm, &reader(START)).unwrap();
    assert_eq!(read(&diary), ["a: switchover start"]);

    let old = Vm::default();
    let (file, sink) = writer();
    switchover::send_start(&old, &file);
    file.flush();
    assert!(sink.contents().is_empty());
    let error = load::sections(&old, &reader(START)).unwrap_err();
    let parts = ["SWITCHOVER_START", "QEMU 10.0", "savevm_set_abi", "SAVEVM_FLAG_NO_SWITCHOVER_START"];
    assert!(parts.iter().all(|part| error.message().contains(part)), "{error}");
}

#[test]
fn switchover_start_in_a_file_with_fixed_places_is_understood_or_skipped() {
    for (profile, calls) in [(Profile::SWITCHOVER_START, 1), (Profile::NONE, 0)] {
        let start = Device { name: "a", callbacks: &[Callback::SwitchoverStart], ..Device::default() };
        let (vm, diary) = noted(profile, vec![start], |_| {});
        vm.load_state().set_mapped();
        load::sections(&vm, &reader(START)).unwrap();
        assert_eq!(read(&diary), vec!["a: switchover start"; calls]);
    }
}

#[test]
fn failing_switchover_start_fails_the_load() {
    let callbacks: &[Callback] = &[Callback::SwitchoverStart];
    let (vm, _) = noted(
        Profile::SWITCHOVER_START,
        vec![Device { name: "a", callbacks, result: -libc::EIO, ..Device::default() }],
        |_| {},
    );
    let error = load::sections(&vm, &reader(START)).unwrap_err();
    assert_eq!(error.section().map(|section| &*section.idstr), Some("a"));
}

#[test]
fn prepare_asks_active_devices_until_one_refuses() {
    let device = |name, result, active| Device {
        name,
        callbacks: &[Callback::SavePrepare],
        result,
        active,
        ..Device::default()
    };
    let (vm, diary) = machine(vec![device("a", 0, false), device("b", 0, true), device("c", -libc::EBUSY, true)]);
    assert_eq!(save::prepare(&vm).unwrap_err().errno(), libc::EBUSY);
    assert_eq!(read(&diary), ["b: prepare", "c: prepare"]);
}

#[test]
fn early_device_is_saved_in_setup_and_described_first() {
    let early = Device { name: "early", early: true, state: b"1st", ..Device::default() };
    let late = Device { name: "late", callbacks: WHOLE, state: b"2nd", ..Device::default() };
    let (vm, diary) = machine(vec![late, early]);
    let (file, sink) = writer();
    save::header(&vm, &file);
    save::setup(&vm, &file).unwrap();
    assert_eq!(read(&diary), ["early: save"]);
    save::complete_precopy(&vm, &file, Completion::All(Disks::Keep)).unwrap();
    assert_eq!(read(&diary), ["late: save"]);
    file.flush();
    let text = String::from_utf8_lossy(&sink.contents()).into_owned();
    let (first, second) = (text.find("\"name\": \"early\"").unwrap(), text.find("\"name\": \"late\"").unwrap());
    assert!(first < second && text.matches("\"name\": \"early\"").count() == 1);
}

#[test]
fn description_begins_with_the_configuration_with_the_switch_only() {
    let text = |profile| {
        let (vm, _) = machine(Vec::new());
        vm.set_layout(profile, 0);
        let (file, sink) = writer();
        save::complete_precopy(&vm, &file, Completion::All(Disks::Keep)).unwrap();
        String::from_utf8_lossy(&sink.contents()[6..]).into_owned()
    };
    assert_eq!(text(Profile::NONE), r#"{"page_size": 4096, "devices": []}"#);
    assert_eq!(text(Profile::DESCRIBE_SPACED), r#"{ "page_size" : 4096, "devices" : [  ] }"#);
    let expected = r#"{"configuration": {"vmsd_name": "configuration", "version": 1, "fields": [{"name": "len", "type": "uint32", "size": 4}, {"name": "name", "type": "buffer", "size": 4}]}, "page_size": 4096, "devices": []}"#;
    assert_eq!(text(Profile::DESCRIBE_CONFIGURATION), expected);
}

#[test]
fn threads_of_devices_start_before_the_live_devices_end_and_are_joined() {
    let callbacks: &[Callback] = &[Callback::SaveThread, Callback::SaveLiveCompletePrecopy];
    let device = |result| Device { name: "a", callbacks, result, ..Device::default() };
    let run = |result, change: fn(&mut Notes)| {
        let (vm, diary) = noted(Profile::NONE, vec![device(result)], change);
        let (file, _sink) = writer();
        let done = save::complete_precopy_iterable(&vm, &file, false).is_ok();
        (done, file.error(), read(&diary).join(", "))
    };
    assert_eq!(run(0, |_| {}), (true, 0, "a: complete precopy".into()));
    let all = "thread 1 a 0, a: complete precopy, join";
    assert_eq!(run(0, |notes| notes.threads = true), (true, 0, all.into()));
    let failing = |notes: &mut Notes| (notes.threads, notes.thread_fails) = (true, true);
    assert_eq!(run(0, failing), (false, -libc::EINVAL, all.into()));
    let aborted = "thread 1 a 0, a: complete precopy, abort, join";
    assert_eq!(run(-libc::EIO, |notes| notes.threads = true), (false, -libc::EIO, aborted.into()));
}

#[test]
fn postcopy_prepare_writes_a_part_section() {
    let (vm, _) =
        machine(vec![Device { callbacks: &[Callback::SavePostcopyPrepare], ..Device::default() }, live("b", 1)]);
    let (file, sink) = writer();
    save::postcopy_prepare(&vm, &file).unwrap();
    file.flush();
    assert_eq!(sink.contents(), b"\x02\0\0\0\0prepared\x7e\0\0\0\0");
}

#[test]
fn buffer_reaches_the_named_device_only() {
    let (vm, diary) =
        machine(vec![Device { name: "a", callbacks: &[Callback::LoadStateBuffer], ..Device::default() }, live("b", 1)]);
    load::state_buffer(&vm, b"a", 0, &mut [1, 2, 3]).unwrap();
    assert_eq!(read(&diary), ["a: buffer of 3"]);
    assert!(load::state_buffer(&vm, b"a", 1, &mut []).unwrap_err().message().contains("Unknown idstr a"));
    assert!(load::state_buffer(&vm, b"b", 0, &mut []).unwrap_err().message().contains("no load state buffer"));
}

#[test]
fn failed_load_setup_is_cleaned_up_with_the_switch_or_if_a_thread_runs() {
    let run = |profile, flag, thread: bool| {
        let callbacks: &[Callback] = &[Callback::LoadSetup, Callback::LoadCleanup];
        let (vm, diary) = machine(Vec::new());
        let (threads, ended) = (vm.load_threads().clone(), Arc::new(AtomicBool::new(false)));
        let own = ended.clone();
        let start = move || {
            let own = own.clone();
            let body = move |should_quit: &AtomicBool| {
                while !should_quit.load(SeqCst) {
                    std::thread::yield_now();
                }
                own.store(true, SeqCst);
                Ok(())
            };
            if thread {
                threads.start(body).unwrap();
            }
        };
        let device = |name, result| Device { name, callbacks, result, diary: diary.clone(), ..Device::default() };
        vm.register(Device { on_load_setup: Some(Box::new(start)), ..device("a", 0) }.registration()).unwrap();
        vm.register(device("b", -libc::EBUSY).registration()).unwrap();
        vm.set_layout(profile, 0);
        vm.set_flags(Flags::NO_CONFIGURATION, true);
        vm.set_flags(Flags::HOST_CLEANS_LOAD, flag);
        assert!(load::host_stream(&vm, &reader(b"QEVM\0\0\0\x03")).is_err());
        let calls = read(&diary).iter().filter(|call| call.contains("cleanup")).count();
        let ended = ended.load(SeqCst);
        load::cleanup(&vm);
        (calls, ended)
    };
    assert_eq!(run(Profile::NONE, false, false), (0, false));
    assert_eq!(run(Profile::CLEAN_FAILED_SETUP, false, false), (2, false));
    assert_eq!(run(Profile::CLEAN_FAILED_SETUP, true, false), (0, false));
    assert_eq!(run(Profile::NONE, false, true), (2, true));
    assert_eq!(run(Profile::NONE, true, true), (0, false));
}

#[test]
fn host_that_cleans_up_after_a_load_does_so_alone() {
    const MISSING_CONFIGURATION: &[u8] = b"QEVM\0\0\0\x03\x04";
    const OTHER_MACHINE: &[u8] = b"QEVM\0\0\0\x03\x07\0\0\0\x04what\0";
    for (flag, calls) in [(false, 1), (true, 0)] {
        for stream in [MISSING_CONFIGURATION, OTHER_MACHINE] {
            let device = Device { name: "a", callbacks: &[Callback::LoadCleanup], ..Device::default() };
            let (vm, diary) = machine(vec![device]);
            vm.set_flags(Flags::HOST_CLEANS_LOAD, flag);
            load::stream(&vm, &reader(stream)).unwrap_err();
            assert_eq!(read(&diary), vec!["a: load cleanup"; calls]);
        }
    }
}

/// The destination's side of a return path.
#[derive(Default)]
struct Acks(AtomicI32);

impl Incoming for Acks {
    fn open_return_path(&self, _file: &MigFile) -> crate::error::Result<()> {
        Ok(())
    }
    fn postcopy_state(&self, _new: Option<PostcopyState>) -> PostcopyState {
        PostcopyState::None
    }
    fn switchover_ack(&self) -> crate::error::Result<()> {
        self.0.fetch_add(1, SeqCst);
        Ok(())
    }
}

#[test]
fn switchover_is_acknowledged_once_all_devices_approve_it() {
    const OPEN: &[u8] = b"\x08\0\x01\0\0\0";
    let needs = |name| Device { name, callbacks: &[Callback::SwitchoverAckNeeded], ..Device::default() };
    for (devices, flag) in [(0, true), (2, true), (2, false)] {
        let (vm, _) = machine([needs("a"), needs("b")].into_iter().take(devices).collect());
        let acks = Arc::new(Acks::default());
        vm.set_incoming(Some(acks.clone()));
        vm.set_flags(Flags::SWITCHOVER_ACK, flag);
        switchover::count_acks(&vm).unwrap();
        load::sections(&vm, &reader(OPEN)).unwrap();
        assert_eq!(acks.0.load(SeqCst), i32::from(flag && devices == 0));
        if flag && devices > 0 {
            switchover::approve(&vm).unwrap();
            assert_eq!(acks.0.load(SeqCst), 0);
            switchover::approve(&vm).unwrap();
            assert_eq!(acks.0.load(SeqCst), 1);
        }
        assert_eq!(switchover::approve(&vm).unwrap_err().errno(), libc::EINVAL);
    }
}

#[test]
fn return_path_that_opens_before_the_devices_are_asked_is_no_approval() {
    const HEADER: &[u8] = b"QEVM\0\0\0\x03";
    const OPEN: &[u8] = b"\x08\0\x01\0\0";
    for needs in [false, true] {
        let callbacks: &[Callback] = if needs { &[Callback::SwitchoverAckNeeded] } else { &[] };
        let (vm, _) = machine(vec![Device { callbacks, ..Device::default() }]);
        let acks = Arc::new(Acks::default());
        vm.set_incoming(Some(acks.clone()));
        vm.set_flags(Flags::SWITCHOVER_ACK, true);
        vm.set_flags(Flags::NO_CONFIGURATION, true);
        load::open(&vm, &reader(HEADER)).unwrap();
        let command = reader(OPEN);
        assert_eq!(command.peek_byte(0), 8);
        load::opening_command(&vm, &command).unwrap();
        assert_eq!(acks.0.load(SeqCst), 0);
        // The empty stream ends in an error, after the devices were asked.
        load::opened(&vm, &reader(b"")).unwrap_err();
        assert_eq!(acks.0.load(SeqCst), i32::from(!needs));
    }
}

#[test]
fn approval_that_an_earlier_load_missed_is_not_expected_any_more() {
    let (vm, _) = machine(vec![Device { callbacks: &[Callback::SwitchoverAckNeeded], ..Device::default() }]);
    vm.set_flags(Flags::SWITCHOVER_ACK, true);
    vm.set_flags(Flags::NO_CONFIGURATION, true);
    assert!(load::stream(&vm, &reader(b"QEVM\0\0\0\x03")).is_err());
    assert!(load::stream(&vm, &reader(b"not a stream")).is_err());
    assert_eq!(switchover::approve(&vm).unwrap_err().errno(), libc::EINVAL);
}

#[test]
fn early_device_that_fails_in_setup_is_returned_with_setup_errors_only() {
    for (profile, fails, expected) in
        [(Profile::NONE, false, "Setup"), (Profile::SKIP_SETUP_NOTICE, false, ""), (Profile::SETUP_ERRORS, true, "")]
    {
        let early = Device { early: true, save_fails: true, ..Device::default() };
        let (vm, diary) = noted(profile, vec![early, live("b", 1)], |_| {});
        let (file, _sink) = writer();
        assert_eq!(save::setup(&vm, &file).is_err(), fails);
        assert_eq!(file.error(), -libc::ENOMEM);
        let notices: Vec<_> = read(&diary).into_iter().filter(|call| call != "device: save").collect();
        assert_eq!(notices.join(","), expected);
    }
}
