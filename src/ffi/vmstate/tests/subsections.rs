// SPDX-License-Identifier: LGPL-2.1-or-later
//! Subsections: what is saved, and how a load decides whether one follows.

use super::fixture::*;
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
fn needed_subsections_are_saved_in_order() {
    let stream = |parts: &[&[u8]]| parts.concat();
    assert_eq!(save(device(), &mut [1u8, 3]).bytes, stream(&[&[1], ODD, &[3], ALWAYS]));
    assert_eq!(save(device(), &mut [1u8, 2]).bytes, stream(&[&[1], ALWAYS]));
}

#[test]
fn subsections_load_in_any_order() {
    let mut object = [0u8; 2];
    let outcome = load(device(), &mut object, &[&[1], ALWAYS, ODD, &[3]].concat());
    assert_eq!((outcome.ret, outcome.bytes, object), (0, vec![0], [1, 3]));
}

#[test]
fn foreign_bytes_are_not_read() {
    // Too short for a name, of another device, and with a name longer than the rest of the stream.
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
fn load_rejects_an_unknown_subsection() {
    let outcome = load(device(), &mut [0u8; 2], b"\x01\x05\x08dev/even\0\0\0\x01");
    assert_eq!((outcome.ret, outcome.latched), (-libc::ENOENT, 0));
    assert_eq!(outcome.complaint(), "dev: unknown subsection 'dev/even'");
}

#[test]
fn path_names_the_subsection_once() {
    let outcome = load_cut(device(), &mut [0u8; 2], &[&[1], ODD].concat());
    assert_eq!(outcome.ret, -libc::EIO);
    assert_eq!(outcome.complaint(), "dev/odd/second: the stream ends");
}

#[test]
fn subsection_version_is_a_byte() {
    // 0x102 is read as 2, as in QEMU.
    let mut object = [0u8; 2];
    let outcome = load(device(), &mut object, b"\x01\x05\x07dev/odd\0\0\x01\x02\x09");
    assert_eq!((outcome.ret, object), (0, [1, 9]));
}
