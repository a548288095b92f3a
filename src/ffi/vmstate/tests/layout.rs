// SPDX-License-Identifier: LGPL-2.1-or-later
//! The layout of a device's state, and its digest.

use super::fixture::*;
use crate::ffi::vmstate::layout::Native;
use crate::ffi::vmstate::state::CState;
use crate::ffi::vmstate::types::{VMStateDescription, VMStateField};
use crate::ffi::vmstate::*;
use crate::inspect::compat::{Finding, Severity, descriptions};
use crate::inspect::{Budget, Device};
use crate::vmstate::layout::{Digests, layout};
use std::ffi::{CStr, c_int, c_void};
use std::mem::offset_of;
use std::ptr;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Memory {
    count: u16,
    wanted: u8,
    items: [u16; 4],
    number: u32,
}

fn state(table: &'static VMStateDescription, memory: &mut Memory) -> CState<Native> {
    // SAFETY: the table describes the memory, and both outlive the handle.
    unsafe { CState::new(Native, table, ptr::from_mut(memory).cast()) }.unwrap()
}

fn digest(table: &'static VMStateDescription, mut memory: Memory) -> u64 {
    Digests::default().of(&state(table, &mut memory))
}

fn text(table: &'static VMStateDescription, mut memory: Memory, saving: bool) -> String {
    String::from_utf8(layout(state(table, &mut memory), saving).unwrap()).unwrap()
}

fn number(name: &'static CStr) -> VMStateField {
    plain(name, offset_of!(Memory, number), 4, &vmstate_info_uint32)
}

/// An array whose length is a member.
fn array() -> VMStateField {
    VMStateField {
        num_offset: offset_of!(Memory, count),
        flags: VARRAY_UINT16,
        ..plain(c"items", offset_of!(Memory, items), 2, &vmstate_info_uint16)
    }
}

fn count() -> VMStateField {
    plain(c"count", offset_of!(Memory, count), 2, &vmstate_info_uint16)
}

unsafe extern "C" fn wanted(memory: *mut c_void, _version: c_int) -> bool {
    // SAFETY: the tables describe a `Memory`.
    unsafe { (*memory.cast::<Memory>()).wanted != 0 }
}

unsafe extern "C" fn needed(memory: *mut c_void) -> bool {
    // SAFETY: as above.
    unsafe { wanted(memory, 1) }
}

unsafe extern "C" fn never_called(_memory: *mut c_void, _version: c_int) -> bool {
    panic!("a digest calls no hook")
}

fn compared(sent: &str, read: &str) -> Vec<Finding> {
    let device = Device { name: "d".into(), instance: 0 };
    descriptions(&device, sent.as_bytes(), read.as_bytes(), &mut Budget::default())
}

#[test]
fn digest_follows_the_table_and_calls_no_hook() {
    let of = |fields: Vec<VMStateField>| digest(leak(table(c"t", fields)), Memory::default());
    let plain_number = of(vec![number(c"a")]);
    assert_eq!(plain_number, of(vec![number(c"a")]));
    let conditional = VMStateField { field_exists: Some(never_called), ..number(c"a") };
    let later = VMStateField { version_id: 2, ..number(c"a") };
    let wide = plain(c"a", 0, 8, &vmstate_info_uint64);
    let fixed = VMStateField { num: 3, flags: ARRAY, ..number(c"a") };
    let others = [
        vec![number(c"b")],
        vec![conditional],
        vec![later],
        vec![wide],
        vec![fixed],
        vec![],
        vec![number(c"a"), number(c"a")],
    ];
    for other in others {
        assert_ne!(plain_number, of(other));
    }
    let newer = leak(VMStateDescription { version_id: 2, ..table(c"t", [number(c"a")]) });
    assert_ne!(plain_number, digest(newer, Memory::default()));
}

#[test]
fn digest_has_the_counts_that_a_stream_does_not_contain() {
    let memory = |count| Memory { count, ..Memory::default() };
    let fixed_by_device = leak(table(c"t", [array()]));
    assert_ne!(digest(fixed_by_device, memory(2)), digest(fixed_by_device, memory(3)));
    let loaded = leak(table(c"t", [count(), array()]));
    assert_eq!(digest(loaded, memory(2)), digest(loaded, memory(3)));
    // The same in a structure in the device's memory, and in a subsection.
    let outer = leak(table(c"outer", [nested(c"inner", 0, size_of::<Memory>(), fixed_by_device)]));
    assert_ne!(digest(outer, memory(2)), digest(outer, memory(3)));
    let parts: &'static [*const VMStateDescription] =
        Box::leak(Box::new([ptr::from_ref(fixed_by_device), ptr::null()]));
    let whole = leak(VMStateDescription { subsections: parts.as_ptr(), ..table(c"whole", [number(c"a")]) });
    assert_ne!(digest(whole, memory(2)), digest(whole, memory(3)));
}

#[test]
fn layout_names_sizes_counts_and_what_is_sent_now() {
    let conditional = VMStateField { field_exists: Some(wanted), ..number(c"extra") };
    let part = leak(VMStateDescription { needed: Some(needed), ..table(c"t/part", [number(c"p")]) });
    let parts: &'static [*const VMStateDescription] = Box::leak(Box::new([ptr::from_ref(part), ptr::null()]));
    let device =
        leak(VMStateDescription { subsections: parts.as_ptr(), ..table(c"t", [array(), conditional, number(c"a")]) });
    let memory = |wanted| Memory { count: 3, wanted, ..Memory::default() };
    let sent = text(device, memory(1), true);
    for part in [
        r#""field": "items", "version_id": 0, "field_exists": false, "size": 2, "type": "uint16", "bytes": 2, "elements": 3"#,
        r#""elements": 1, "present": true"#,
        r#""name": "t/part", "version_id": 1, "minimum_version_id": 1, "needed": true"#,
    ] {
        assert!(sent.contains(part), "{part} in {sent}");
    }
    assert!(text(device, memory(0), true).contains(r#""present": false"#));
    assert!(!text(device, memory(1), false).contains("present"), "the destination asks no hook");
    assert_eq!(compared(&sent, &text(device, memory(1), false)), []);
    let fewer = compared(&sent, &text(device, Memory { count: 2, ..memory(1) }, false));
    assert_eq!(fewer.len(), 1);
    assert!(fewer[0].severity == Severity::Error && fewer[0].message == "3 elements, the machine has 2");
    let without = text(leak(table(c"t", [array(), number(c"a")])), memory(1), false);
    let found = compared(&sent, &without);
    assert_eq!(found.iter().filter(|finding| finding.severity == Severity::Error).count(), 2, "{found:?}");
    let unwanted = compared(&text(device, memory(0), true), &without);
    assert!(unwanted.iter().all(|finding| finding.severity < Severity::Error), "{unwanted:?}");
}

#[test]
fn descriptions_that_contain_themselves_end() {
    let inner = Box::leak(Box::new(table(c"loop", [])));
    let at = ptr::from_mut(inner);
    // SAFETY: `inner` is not used between here and the end of the write.
    unsafe { (*at).fields = fields([nested(c"a", 0, 1, &*at), nested(c"b", 0, 1, &*at)]) };
    // SAFETY: it was leaked.
    let device = unsafe { &*at };
    assert_eq!(digest(device, Memory::default()), digest(device, Memory::default()));
    // It would be longer than a layout may be.
    assert!(layout(state(device, &mut Memory::default()), true).is_none());
}
