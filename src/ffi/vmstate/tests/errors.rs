// SPDX-License-Identifier: LGPL-2.1-or-later
//! Errors: paths through structures, arrays, C callbacks and hooks, and QEMU's codes.

use super::fixture::*;
use crate::ffi::marshal::opaque::{JSONWriter, QEMUFile};
use crate::ffi::vmstate::types::{VMStateDescription, VMStateField, VMStateInfo};
use crate::ffi::vmstate::*;
use std::ffi::{c_int, c_void};
use std::ptr;

fn queue() -> &'static VMStateDescription {
    leak(table(c"queue", [plain(c"last_avail_idx", 0, 2, &vmstate_info_uint16_equal)]))
}

#[test]
fn path_contains_structures_and_arrays() {
    let queues = VMStateField { num: 4, flags: STRUCT | ARRAY, ..nested(c"queue", 0, 2, queue()) };
    let net = leak(table(c"virtio-net", [queues]));
    let outcome = load(net, &mut [1u16, 2, 3, 4], &[0, 1, 0, 2, 0, 3, 0, 9]);
    assert_eq!((outcome.ret, outcome.latched), (-libc::EINVAL, -libc::EINVAL));
    let error = outcome.error.unwrap();
    assert_eq!(error.path().as_deref(), Some("virtio-net/queue[3]/last_avail_idx"));
    assert_eq!((error.message(), error.offset()), ("expected 0x4 as the device has it, got 0x9", Some(8)));
}

/// An info that contains a structure, as devices with several layouts have.
static HIDING: VMStateInfo = VMStateInfo { name: c"hiding".as_ptr(), get: Some(hiding_get), put: Some(hiding_put) };

unsafe extern "C" fn hiding_get(f: *mut QEMUFile, pv: *mut c_void, _: usize, field: *const VMStateField) -> c_int {
    // SAFETY: the file, memory and field that it was called with.
    unsafe { vmstate_load_state(f, (*field).vmsd, pv, 1) }
}

unsafe extern "C" fn hiding_put(
    f: *mut QEMUFile,
    pv: *mut c_void,
    _: usize,
    field: *const VMStateField,
    vmdesc: *mut JSONWriter,
) -> c_int {
    // SAFETY: the file, memory, field and recorder that it was called with.
    unsafe { vmstate_save_state(f, (*field).vmsd, pv, vmdesc) }
}

#[test]
fn path_continues_through_c_callbacks() {
    let device = leak(table(c"device", [VMStateField { vmsd: queue(), ..plain(c"hidden", 0, 2, &HIDING) }]));
    assert_eq!(save(device, &mut 4u16).bytes, [0, 4]);
    let outcome = load(device, &mut 4u16, &[0, 9]);
    assert_eq!(outcome.complaint(), "device/hidden/last_avail_idx: expected 0x4 as the device has it, got 0x9");
}

unsafe extern "C" fn fail(_: *mut c_void) -> c_int {
    -libc::EBUSY
}

unsafe extern "C" fn fail_oddly(_: *mut c_void) -> c_int {
    3
}

unsafe extern "C" fn fail_post(_: *mut c_void, _: c_int) -> c_int {
    -libc::EPERM
}

#[test]
fn failed_hook_is_named() {
    let one = || [plain(c"x", 0, 1, &vmstate_info_uint8)];
    let pre_save = leak(VMStateDescription { pre_save: Some(fail), ..table(c"d", one()) });
    let outcome = save(pre_save, &mut 1u8);
    assert_eq!((outcome.ret, outcome.bytes.len(), outcome.latched), (-libc::EBUSY, 0, 0));
    assert_eq!(outcome.complaint(), "d: pre_save returned -16");
    // Any code is returned to the caller, and the written bytes remain.
    let post_save = leak(VMStateDescription { post_save: Some(fail_oddly), ..table(c"d", one()) });
    let outcome = save(post_save, &mut 1u8);
    assert_eq!((outcome.ret, outcome.bytes), (3, vec![1]));
    let pre_load = leak(VMStateDescription { pre_load: Some(fail_oddly), ..table(c"d", one()) });
    let outcome = load(pre_load, &mut 1u8, &[2]);
    assert_eq!((outcome.ret, outcome.bytes.len(), outcome.latched), (3, 2, 0));
    let post_load = leak(VMStateDescription { post_load: Some(fail_post), ..table(c"d", one()) });
    let outcome = load(post_load, &mut 1u8, &[2]);
    assert_eq!((outcome.ret, outcome.latched), (-libc::EPERM, 0));
    assert_eq!(outcome.complaint(), "d: post_load returned -1");
}

#[test]
fn failed_inner_hook_latches_at_the_enclosing_field() {
    let inner =
        VMStateDescription { post_load: Some(fail_post), ..table(c"i", [plain(c"x", 0, 1, &vmstate_info_uint8)]) };
    let outer = leak(table(c"o", [nested(c"part", 0, 1, leak(inner))]));
    let outcome = load(outer, &mut 1u8, &[2]);
    assert_eq!((outcome.ret, outcome.latched), (-libc::EPERM, -libc::EPERM));
    assert_eq!(outcome.complaint(), "o/part: post_load returned -1");
}

#[test]
fn load_rejects_versions_outside_the_range() {
    let table = leak(VMStateDescription { version_id: 5, minimum_version_id: 3, ..table(c"d", []) });
    for (version, ret) in [(2, -libc::EINVAL), (3, 0), (5, 0), (6, -libc::EINVAL)] {
        let outcome = load_at(table, ptr::null_mut(), &[], version);
        assert_eq!((outcome.ret, outcome.latched), (ret, 0), "version {version}");
    }
    let outcome = load_at(table, ptr::null_mut(), &[], 6);
    assert_eq!(outcome.complaint(), "d: version 6 in the stream, 3 to 5 can be read");
}

#[test]
fn field_without_info_is_an_error() {
    let nothing = leak(table(c"d", [VMStateField { name: c"x".as_ptr(), size: 1, ..FIELD }]));
    assert_eq!(save(nothing, &mut 1u8).complaint(), "d/x: put returned -22");
    assert_eq!(load(nothing, &mut 1u8, &[1]).complaint(), "d/x: get returned -22");
    let no_table = leak(table(c"d", [VMStateField { name: c"x".as_ptr(), size: 1, flags: STRUCT, ..FIELD }]));
    assert_eq!(save(no_table, &mut 1u8).ret, -libc::EINVAL);
    assert_eq!(load(no_table, &mut 1u8, &[1]).ret, -libc::EINVAL);
}

#[test]
fn null_arguments_are_errors() {
    let (file, _) = writer();
    let file = crate::ffi::marshal::c_file::as_c(&file);
    // SAFETY: NULL is allowed everywhere.
    unsafe {
        assert_eq!(vmstate_save_state(ptr::null_mut(), &TABLE, ptr::null_mut(), ptr::null_mut()), -libc::EINVAL);
        assert_eq!(vmstate_save_state(file, ptr::null(), ptr::null_mut(), ptr::null_mut()), -libc::EINVAL);
        assert_eq!(vmstate_load_state(ptr::null_mut(), &TABLE, ptr::null_mut(), 1), -libc::EINVAL);
        assert_eq!(vmstate_load_state(file, ptr::null(), ptr::null_mut(), 1), -libc::EINVAL);
        assert!(!vmstate_save_needed(ptr::null(), ptr::null_mut()));
        let put = vmstate_info_uint32.put.unwrap();
        assert_eq!(put(file, ptr::null_mut(), 4, ptr::null(), ptr::null_mut()), -libc::EINVAL);
        let put = vmstate_info_qtailq.put.unwrap();
        assert_eq!(put(file, ptr::null_mut(), 4, ptr::null(), ptr::null_mut()), -libc::EINVAL);
    }
}
