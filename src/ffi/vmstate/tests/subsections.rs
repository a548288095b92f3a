// SPDX-License-Identifier: LGPL-2.1-or-later
//! Subsections: what is written, and how a loader decides whether one comes next.

use super::bed::*;
use crate::ffi::vmstate::types::VMStateDescription;
use crate::ffi::vmstate::*;
use std::ffi::c_void;

unsafe extern "C" fn is_odd(opaque: *mut c_void) -> bool {
    // SAFETY: the objects of these tests are two bytes.
    unsafe { opaque.cast::<u8>().add(1).read() & 1 == 1 }
}

fn device() -> &'static VMStateDescription {
    let sub = leak(VMStateDescription {
        version_id: 2,
        needed: Some(is_odd),
        ..table(c"dev/odd", [plain(c"second", 1, 1, &vmstate_info_uint8)])
    });
    let always = leak(VMStateDescription { name: c"dev/always".as_ptr(), ..TABLE });
    leak(VMStateDescription {
        subsections: subsections(&[sub, always]),
        ..table(c"dev", [plain(c"first", 0, 1, &vmstate_info_uint8)])
    })
}

const ODD: &[u8] = b"\x05\x07dev/odd\0\0\0\x02";
const ALWAYS: &[u8] = b"\x05\x0adev/always\0\0\0\x01";

#[test]
fn those_that_are_needed_are_written_in_order() {
    let stream = |parts: &[&[u8]]| parts.concat();
    assert_eq!(save(device(), &mut [1u8, 3]).bytes, stream(&[&[1], ODD, &[3], ALWAYS]));
    assert_eq!(save(device(), &mut [1u8, 2]).bytes, stream(&[&[1], ALWAYS]));
}

#[test]
fn any_order_is_read() {
    let mut object = [0u8; 2];
    let outcome = load(device(), &mut object, &[&[1], ALWAYS, ODD, &[3]].concat());
    assert_eq!((outcome.ret, outcome.bytes, object), (0, vec![0], [1, 3]));
}

#[test]
fn what_is_none_of_ours_is_left_alone() {
    // Too short to be one, another device's, and one whose name is longer than what is left.
    let foreign: [&[u8]; 3] = [b"\x05\x03dev\0\0\0\x01", b"\x05\x07net/odd\0\0\0\x01", b"\x05\x70dev/odd"];
    for rest in foreign {
        let outcome = load(device(), &mut [0u8; 2], &[&[1], rest].concat());
        assert_eq!(outcome.ret, 0, "{rest:?}");
        if outcome.latched == 0 {
            assert_eq!(outcome.bytes, [rest, &[0]].concat());
        }
    }
}

#[test]
fn an_unknown_one_of_ours_is_refused() {
    let outcome = load(device(), &mut [0u8; 2], b"\x01\x05\x08dev/even\0\0\0\x01");
    assert_eq!((outcome.ret, outcome.latched), (-libc::ENOENT, 0));
    assert_eq!(outcome.complaint(), "dev: unknown subsection 'dev/even'");
}

#[test]
fn the_path_names_the_subsection_once() {
    let outcome = load_cut(device(), &mut [0u8; 2], &[&[1], ODD].concat());
    assert_eq!(outcome.ret, -libc::EIO);
    assert_eq!(outcome.complaint(), "dev/odd/second: the stream ends");
}

#[test]
fn the_version_is_a_byte() {
    // 0x102 is read as 2, as in QEMU.
    let mut object = [0u8; 2];
    let outcome = load(device(), &mut object, b"\x01\x05\x07dev/odd\0\0\x01\x02\x09");
    assert_eq!((outcome.ret, object), (0, [1, 9]));
}
