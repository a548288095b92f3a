// SPDX-License-Identifier: LGPL-2.1-or-later
//! The description of the stream. The texts are what QEMU 7.2 writes for the same tables.

use super::fixture::*;
use crate::ffi::vmstate::types::{VMStateDescription, VMStateField};
use crate::ffi::vmstate::*;
use crate::vmstate::Recorder;
use std::ffi::{c_int, c_void};
use std::ptr;

/// Returns the description after the device's instance id.
fn describe<T>(table: &'static VMStateDescription, object: &mut T) -> String {
    describe_as(table, object, false)
}

/// As `describe`, with null pointers as from QEMU 10.0 on if `nulls`.
fn describe_as<T>(table: &'static VMStateDescription, object: &mut T, nulls: bool) -> String {
    let recorder = Recorder::new();
    recorder.set_describe_nulls(nulls);
    recorder.device_start(b"dev", 0);
    assert_eq!(save_at(table, ptr::from_mut(object).cast(), Some(&recorder)).ret, 0);
    recorder.device_end();
    let text = String::from_utf8(recorder.render(4096, None)).unwrap();
    let head = r#"{"page_size": 4096, "devices": [{"name": "dev", "instance_id": 0, "#;
    text.strip_prefix(head).and_then(|rest| rest.strip_suffix("}]}")).expect(&text).to_owned()
}

fn byte(name: &'static std::ffi::CStr, offset: usize) -> VMStateField {
    plain(name, offset, 1, &vmstate_info_uint8)
}

unsafe extern "C" fn always(_: *mut c_void, _: c_int) -> bool {
    true
}

#[test]
fn no_devices() {
    assert_eq!(Recorder::new().render(8192, None), br#"{"page_size": 8192, "devices": []}"#);
}

#[test]
fn devices_are_listed_in_order() {
    let recorder = Recorder::new();
    recorder.device_start(b"a\"b", u32::MAX);
    recorder.legacy_buffer(77);
    recorder.device_end();
    recorder.device_start(b"empty", 1);
    save_at(leak(table(c"none", [])), ptr::null_mut(), Some(&recorder));
    recorder.device_end();
    assert_eq!(
        String::from_utf8(recorder.render(4096, None)).unwrap(),
        concat!(
            r#"{"page_size": 4096, "devices": [{"name": "a\"b", "instance_id": 4294967295, "size": 77, "#,
            r#""fields": [{"name": "data", "size": 77, "type": "buffer"}]}, "#,
            r#"{"name": "empty", "instance_id": 1, "vmsd_name": "none", "version": 1, "fields": []}]}"#
        )
    );
}

#[test]
fn names_that_occur_twice_are_numbered() {
    let twice = leak(table(c"t", [byte(c"x", 0), byte(c"y", 1), byte(c"x", 2)]));
    assert_eq!(
        describe(twice, &mut [0u8; 3]),
        concat!(
            r#""vmsd_name": "t", "version": 1, "fields": [{"name": "x[0]", "type": "uint8", "size": 1}, "#,
            r#"{"name": "y", "type": "uint8", "size": 1}, {"name": "x[1]", "type": "uint8", "size": 1}]"#
        )
    );
}

#[test]
fn arrays_have_one_entry_or_one_per_element() {
    let array = |name, exists| VMStateField { num: 2, flags: ARRAY, field_exists: exists, ..byte(name, 0) };
    let one = VMStateField { num: 1, flags: ARRAY, ..byte(c"one", 0) };
    let arrays = leak(table(c"t", [array(c"a", None), array(c"b", Some(always)), one]));
    assert_eq!(
        describe(arrays, &mut [0u8; 2]),
        concat!(
            r#""vmsd_name": "t", "version": 1, "fields": [{"name": "a", "array_len": 2, "type": "uint8", "size": 1}, "#,
            r#"{"name": "b", "index": 0, "type": "uint8", "size": 1}, {"name": "b", "index": 1, "type": "uint8", "#,
            r#""size": 1}, {"name": "one", "type": "uint8", "size": 1}]"#
        )
    );
}

#[test]
fn null_pointers_are_described_in_runs_from_10_0_on() {
    let mut value = 1u8;
    let at = ptr::from_mut(&mut value);
    let mut pointers = [at, ptr::null_mut(), ptr::null_mut(), at];
    let field = |exists| VMStateField {
        num: 4,
        size: size_of::<*mut u8>(),
        flags: ARRAY | ARRAY_OF_POINTER,
        field_exists: exists,
        ..byte(c"p", 0)
    };
    let compressed = leak(table(c"t", [field(None)]));
    let whole =
        r#""vmsd_name": "t", "version": 1, "fields": [{"name": "p", "array_len": 4, "type": "uint8", "size": 1}"#;
    assert_eq!(describe_as(compressed, &mut pointers, false), format!("{whole}]"));
    let rest =
        r#", {"name": "p", "array_len": 2, "type": "nullptr", "size": 1}, {"name": "p", "type": "uint8", "size": 1}]"#;
    assert_eq!(describe_as(compressed, &mut pointers, true), format!("{whole}{rest}"));
    // The last element of an array that is not compressed has no index.
    let each = leak(table(c"t", [VMStateField { flags: ARRAY, num: 2, field_exists: Some(always), ..byte(c"b", 0) }]));
    let text = describe_as(each, &mut [0u8; 2], true);
    assert!(text.ends_with(
        r#"{"name": "b", "index": 0, "type": "uint8", "size": 1}, {"name": "b", "type": "uint8", "size": 1}]"#
    ));
}

#[test]
fn structures_have_an_object_of_their_own() {
    let inner = leak(table(c"i", [byte(c"x", 0)]));
    let versioned = VMStateField { flags: VSTRUCT, struct_version_id: 3, ..nested(c"v", 0, 1, inner) };
    let array = VMStateField { num: 2, flags: STRUCT | ARRAY, ..nested(c"a", 0, 1, inner) };
    let outer = leak(table(c"o", [nested(c"s", 0, 1, inner), versioned, array]));
    let content = r#""vmsd_name": "i", "version": V, "fields": [{"name": "x", "type": "uint8", "size": 1}]"#;
    let content = |version| content.replace('V', version);
    assert_eq!(
        describe(outer, &mut [0u8; 2]),
        format!(
            concat!(
                r#""vmsd_name": "o", "version": 1, "fields": ["#,
                r#"{{"name": "s", "type": "struct", "struct": {{{}}}, "size": 1}}, "#,
                r#"{{"name": "v", "type": "vstruct", {}, "size": 1}}, "#,
                r#"{{"name": "a", "array_len": 2, "type": "struct", "struct": {{{}}}, "size": 1}}]"#
            ),
            content("1"),
            content("3"),
            content("1")
        )
    );
}

#[test]
fn subsections_follow_the_fields() {
    let sub = leak(table(c"o/s", [byte(c"x", 0)]));
    let other = leak(table(c"o/t", []));
    let outer = leak(VMStateDescription { subsections: subsections(&[sub, other]), ..table(c"o", []) });
    assert_eq!(
        describe(outer, &mut 0u8),
        concat!(
            r#""vmsd_name": "o", "version": 1, "fields": [], "subsections": [{"vmsd_name": "o/s", "version": 1, "#,
            r#""fields": [{"name": "x", "type": "uint8", "size": 1}]}, "#,
            r#"{"vmsd_name": "o/t", "version": 1, "fields": []}]"#
        )
    );
}

#[test]
fn recording_does_not_change_the_stream() {
    let inner = leak(table(c"i", [byte(c"x", 0), byte(c"x", 1)]));
    let array = VMStateField { num: 3, flags: STRUCT | ARRAY, ..nested(c"a", 0, 2, inner) };
    let bytes = VMStateField { num: 6, flags: ARRAY, ..byte(c"b", 0) };
    let buffer = plain(c"c", 0, 6, &vmstate_info_buffer);
    let outer = leak(table(c"o", [array, bytes, buffer]));
    let mut object = [1u8, 2, 3, 4, 5, 6];
    let at: *mut c_void = (&raw mut object).cast();
    let recorder = Recorder::new();
    assert_eq!(save_at(outer, at, Some(&recorder)).bytes, save_at(outer, at, None).bytes);
}
