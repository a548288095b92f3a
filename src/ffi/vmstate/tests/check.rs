// SPDX-License-Identifier: LGPL-2.1-or-later
//! The checks for device authors, called as C calls them.

use super::fixture::*;
use crate::ffi::marshal::current;
use crate::ffi::vmstate::check::SaveVMCheckSeverity::*;
use crate::ffi::vmstate::check::*;
use crate::ffi::vmstate::register::vmstate_register_with_alias_id;
use crate::ffi::vmstate::types::{VMStateDescription, VMStateField};
use crate::ffi::vmstate::*;
use crate::savevm::Vm;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::offset_of;
use std::ptr;
use std::sync::Arc;

#[repr(C)]
struct Fan {
    speed: u16,
    on: bool,
    history: [u8; 20],
}

fn fan_fields() -> [VMStateField; 3] {
    let history =
        VMStateField { num: 20, flags: ARRAY, ..plain(c"history", offset_of!(Fan, history), 1, &vmstate_info_uint8) };
    [
        plain(c"speed", offset_of!(Fan, speed), 2, &vmstate_info_uint16),
        plain(c"on", offset_of!(Fan, on), 1, &vmstate_info_bool),
        history,
    ]
}

/// The `opaque` of the callbacks.
struct Fixture {
    table: &'static VMStateDescription,
    created: usize,
    destroyed: usize,
    findings: Vec<(SaveVMCheckSeverity, String)>,
}

fn fixture<'a>(user: *mut c_void) -> &'a mut Fixture {
    // SAFETY: every test passes a fixture, and callbacks do not run at the same time.
    unsafe { &mut *user.cast::<Fixture>() }
}

fn add(table: &'static VMStateDescription, fan: *mut Fan) {
    let any = u32::MAX;
    // SAFETY: the description is that of the fan, which the tests keep while it is registered.
    let ret =
        unsafe { vmstate_register_with_alias_id(ptr::null_mut(), any, table, fan.cast(), -1, 0, ptr::null_mut()) };
    assert_eq!(ret, 0);
}

unsafe extern "C" fn create(user: *mut c_void) -> *mut c_void {
    let fixture = fixture(user);
    fixture.created += 1;
    let fan = Box::into_raw(Box::new(Fan { speed: 0, on: false, history: [0; 20] }));
    add(fixture.table, fan);
    fan.cast()
}

unsafe extern "C" fn create_none(_user: *mut c_void) -> *mut c_void {
    ptr::null_mut()
}

unsafe extern "C" fn destroy(user: *mut c_void, device: *mut c_void) {
    let fixture = fixture(user);
    fixture.destroyed += 1;
    // SAFETY: `create` made it.
    unsafe {
        crate::ffi::vmstate::register::vmstate_unregister(ptr::null_mut(), fixture.table, device);
        drop(Box::from_raw(device.cast::<Fan>()));
    }
}

unsafe extern "C" fn report(user: *mut c_void, severity: SaveVMCheckSeverity, text: *const c_char) {
    // SAFETY: reports are terminated strings.
    let text = unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned();
    fixture(user).findings.push((severity, text));
}

const OPS: SaveVMCheckOps = SaveVMCheckOps {
    size: size_of::<SaveVMCheckOps>(),
    create: Some(create),
    destroy: Some(destroy),
    report: Some(report),
    truncations: 0,
    damages: 100,
};

fn run(table: VMStateDescription, ops: &SaveVMCheckOps) -> (c_int, Fixture) {
    let mut fixture = Fixture { table: leak(table), created: 0, destroyed: 0, findings: Vec::new() };
    let mut fan = Fan { speed: 0x1234, on: true, history: *b"twenty bytes of text" };
    let ret = current::with(&Arc::new(Vm::default()), || {
        add(fixture.table, &raw mut fan);
        let user = (&raw mut fixture).cast();
        // SAFETY: the callbacks above take a fixture.
        unsafe { savevm_check_device(ptr::null_mut(), c"fan".as_ptr(), 0, ops, user) }
    });
    (ret, fixture)
}

#[test]
fn sound_device_passes() {
    let (ret, fixture) = run(table(c"fan", fan_fields()), &OPS);
    assert_eq!(ret, 0, "{:?}", fixture.findings);
    let [(SAVEVM_CHECK_NOTE, text)] = &fixture.findings[..] else { panic!("{:?}", fixture.findings) };
    assert!(text.starts_with("23 bytes; 23 of 23 cut streams rejected; 100 damaged streams loaded, "), "{text}");
    // One device for the round trip, and one for each stream.
    assert_eq!((fixture.created, fixture.destroyed), (1 + 23 + 100, 1 + 23 + 100));
}

unsafe extern "C" fn stop(opaque: *mut c_void, _version: c_int) -> c_int {
    // SAFETY: the description is that of a fan.
    unsafe { (*opaque.cast::<Fan>()).on = false };
    0
}

unsafe extern "C" fn speed_up(opaque: *mut c_void) -> c_int {
    // SAFETY: the description is that of a fan.
    unsafe { (*opaque.cast::<Fan>()).speed += 1 };
    0
}

#[test]
fn check_names_the_field_that_changes() {
    let (ret, fixture) = run(VMStateDescription { post_load: Some(stop), ..table(c"fan", fan_fields()) }, &OPS);
    assert_eq!((ret, fixture.created), (1, fixture.destroyed));
    assert_eq!(
        fixture.findings[0],
        (
            SAVEVM_CHECK_ERROR,
            "the state changes when a new device loads and saves it: \
             byte 2, fan/on, is 0x01 in the first and 0x00 in the second"
                .to_owned()
        )
    );
    let (ret, fixture) = run(VMStateDescription { pre_save: Some(speed_up), ..table(c"fan", fan_fields()) }, &OPS);
    assert_eq!(ret, 2);
    assert_eq!(
        fixture.findings[0].1,
        "two saves of the unchanged device differ: \
         byte 1, fan/speed, is 0x35 in the first and 0x36 in the second"
    );
}

#[test]
fn uncheckable_device_returns_a_code() {
    let ops = SaveVMCheckOps { create: Some(create_none), ..OPS };
    assert_eq!(run(table(c"fan", fan_fields()), &ops).0, -libc::ENODEV);
    let ops = SaveVMCheckOps { create: None, ..OPS };
    assert_eq!(run(table(c"fan", fan_fields()), &ops).0, -libc::ENODEV);
    assert_eq!(run(table(c"pump", fan_fields()), &OPS).0, -libc::ENOENT);
    // SAFETY: NULL is allowed everywhere.
    unsafe {
        let name = c"fan".as_ptr();
        assert_eq!(savevm_check_device(ptr::null_mut(), ptr::null(), 0, &OPS, ptr::null_mut()), -libc::EINVAL);
        assert_eq!(savevm_check_device(ptr::null_mut(), name, 0, ptr::null(), ptr::null_mut()), -libc::EINVAL);
        assert_eq!(savevm_check_description(ptr::null(), None, ptr::null_mut()), -libc::EINVAL);
    }
}

fn lint(table: VMStateDescription) -> (c_int, Vec<(SaveVMCheckSeverity, String)>) {
    let mut fixture = Fixture { table: leak(table), created: 0, destroyed: 0, findings: Vec::new() };
    let table = fixture.table;
    // SAFETY: `report` takes a fixture.
    let ret = unsafe { savevm_check_description(table, Some(report), (&raw mut fixture).cast()) };
    (ret, fixture.findings)
}

#[test]
fn sound_description_has_no_findings() {
    assert_eq!(lint(table(c"fan", fan_fields())), (0, vec![]));
}

#[test]
fn parts_that_never_load_are_errors() {
    let named = |name: &'static CStr| leak(table(name, []));
    let outer = VMStateDescription {
        subsections: subsections(&[named(c"fan/a"), named(c"pump/b"), named(c"fan/a"), named(c"fan")]),
        minimum_version_id: 2,
        ..table(c"fan", [VMStateField { name: c"blank".as_ptr(), ..FIELD }])
    };
    let (ret, findings) = lint(outer);
    let texts: Vec<_> = findings.iter().map(|(_, text)| &**text).collect();
    assert_eq!(
        (ret, texts),
        (
            5,
            vec![
                "fan: no version can be loaded: the oldest is 2, the newest 1",
                "fan/blank: has neither an info nor a description that it needs",
                "fan/b: is never loaded: 'pump/b' does not begin with its parent's name",
                "fan/a: is never loaded: there is another of that name",
                "fan/fan: is never loaded: 'fan' does not begin with its parent's name",
            ]
        )
    );
}

#[test]
fn unbounded_count_is_a_warning() {
    let count = |info| plain(c"count", 0, 4, info);
    let array = |start| VMStateField { flags: VARRAY_INT32, start, ..plain(c"array", 8, 1, &vmstate_info_uint8) };
    let warning = (SAVEVM_CHECK_WARNING, "d/array: its size is in the stream and nothing bounds it".to_owned());
    assert_eq!(lint(table(c"d", [count(&vmstate_info_int32), array(0)])), (0, vec![warning]));
    // A known length, a checked count, or a count that was not loaded.
    assert_eq!(lint(table(c"d", [count(&vmstate_info_int32), array(16)])), (0, vec![]));
    assert_eq!(lint(table(c"d", [count(&vmstate_info_int32_le), array(0)])), (0, vec![]));
    assert_eq!(lint(table(c"d", [array(0)])), (0, vec![]));
    let later = VMStateField { version_id: 2, ..count(&vmstate_info_int32) };
    let (_, findings) = lint(table(c"d", [later]));
    assert_eq!(findings[0].1, "d/count: is for version 2 and never saved in version 1");
}

fn describe(table: VMStateDescription, name: *const c_char) -> String {
    // SAFETY: the description is complete; the text is a string that the test owns.
    unsafe {
        let text = savevm_describe(leak(table), name);
        String::from_utf8(crate::ffi::marshal::strings::take_malloced(text).unwrap()).unwrap()
    }
}

#[test]
fn dump_has_the_number_of_elements_with_the_switch_only() {
    use crate::savevm::profile::Profile;
    let array = VMStateField { num: 2, flags: ARRAY, ..plain(c"speed", 0, 2, &vmstate_info_uint16) };
    for (profile, has) in [(Profile::NONE, false), (Profile::DUMP_COUNTS, true)] {
        let vm = std::sync::Arc::new(crate::savevm::Vm::default());
        vm.set_layout(profile, 0);
        let text = crate::ffi::marshal::current::with(&vm, || describe(table(c"fan", [array_of(&array)]), ptr::null()));
        assert_eq!(text.contains(r#""num": 2, "size": 2"#), has, "{text}");
    }
}

/// A copy of a field.
fn array_of(field: &VMStateField) -> VMStateField {
    VMStateField { name: field.name, size: field.size, info: field.info, num: field.num, flags: field.flags, ..FIELD }
}

#[test]
fn describe_returns_qemus_json() {
    let speed = plain(c"speed", offset_of!(Fan, speed), 2, &vmstate_info_uint16);
    let more = leak(table(c"fan/more", [speed]));
    let subsections: &'static [*const VMStateDescription] = Box::leak(Box::new([more, ptr::null()]));
    let fan = VMStateDescription { subsections: subsections.as_ptr(), ..table(c"fan", fan_fields()) };
    let text = describe(fan, c"fan-device".as_ptr());
    let starts = r#"{"Name": "fan-device", "version_id": 1, "minimum_version_id": 1, "Description": {"name": "fan", "#;
    assert!(text.starts_with(starts), "{text}");
    assert!(text.contains(r#""Subsections": [{"name": "fan/more", "version_id": "#), "{text}");
    assert!(text.ends_with("]}]}}"), "{text}");
    assert!(describe(table(c"fan", fan_fields()), ptr::null()).starts_with(r#"{"Name": "fan", "#));
    // QEMU writes no fields for a description without a list of fields.
    assert!(!describe(VMStateDescription { name: c"none".as_ptr(), ..TABLE }, ptr::null()).contains("Fields"));
    // SAFETY: NULL is allowed.
    assert!(unsafe { savevm_describe(ptr::null(), ptr::null()) }.is_null());
}

#[test]
fn recursive_description_is_cut() {
    let description: *mut VMStateDescription = Box::leak(Box::new(table(c"self", [])));
    let again = VMStateField { vmsd: description, flags: STRUCT, ..plain(c"again", 0, 2, &vmstate_info_uint16) };
    // SAFETY: the memory is never freed, and there is no other reference to it yet.
    let whole = unsafe {
        (*description).fields = table(c"self", [again]).fields;
        description.read()
    };
    assert_eq!(describe(whole, ptr::null()).matches("again").count(), 65);
}
