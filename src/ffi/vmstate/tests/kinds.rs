// SPDX-License-Identifier: LGPL-2.1-or-later
//! Every kind of element: its bytes in the stream, saved and loaded.

use super::fixture::*;
use crate::ffi::vmstate::types::{VMStateDescription, VMStateField, VMStateInfo};
use crate::ffi::vmstate::*;
use std::mem::offset_of;

#[repr(C)]
#[derive(Clone, Default, Debug, PartialEq)]
struct Integers {
    a: u8,
    b: u16,
    c: u32,
    d: u64,
    e: bool,
}

const INTEGERS: Integers = Integers { a: 0xa1, b: 0xb1b2, c: 0xc1c2_c3c4, d: 0xd1d2_d3d4_d5d6_d7d8, e: true };

fn integers() -> &'static VMStateDescription {
    leak(table(
        c"integers",
        [
            plain(c"a", offset_of!(Integers, a), 1, &vmstate_info_uint8),
            plain(c"b", offset_of!(Integers, b), 2, &vmstate_info_int16),
            plain(c"c", offset_of!(Integers, c), 4, &vmstate_info_uint32),
            plain(c"d", offset_of!(Integers, d), 8, &vmstate_info_cpudouble),
            plain(c"e", offset_of!(Integers, e), 1, &vmstate_info_bool),
        ],
    ))
}

#[test]
fn integers_are_big_endian() {
    let saved = save(integers(), &mut INTEGERS.clone());
    assert_eq!(saved.bytes, b"\xa1\xb1\xb2\xc1\xc2\xc3\xc4\xd1\xd2\xd3\xd4\xd5\xd6\xd7\xd8\x01");
    let mut back = Integers::default();
    let loaded = load(integers(), &mut back, &saved.bytes);
    assert_eq!((loaded.ret, loaded.bytes, back), (0, vec![0], INTEGERS));
}

#[test]
fn boolean_is_true_for_every_byte_but_zero() {
    let mut object = Integers::default();
    load(integers(), &mut object, b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xff");
    assert!(object.e);
    let mut bytes = [9u8; 3];
    let booleans = VMStateField { num: 3, flags: ARRAY, ..plain(c"on", 0, 1, &vmstate_info_bool) };
    let array = leak(table(c"array", [booleans]));
    load(array, &mut bytes, b"\0\x01\x80");
    assert_eq!(bytes, [0, 1, 1]);
}

#[test]
fn load_of_a_cut_stream_fails_at_every_length() {
    let bytes = save(integers(), &mut INTEGERS.clone()).bytes;
    for len in 0..bytes.len() {
        let outcome = load_cut(integers(), &mut Integers::default(), &bytes[..len]);
        assert_eq!((outcome.ret, outcome.latched), (-libc::EIO, -libc::EIO), "{len} bytes");
        assert!(outcome.complaint().ends_with("the stream ends"), "{}", outcome.complaint());
        assert_eq!(outcome.error.unwrap().offset(), Some(len as u64));
    }
}

#[repr(C)]
struct Long<T>([T; 5000]);

fn long<T>(info: &'static VMStateInfo) -> &'static VMStateDescription {
    let array = VMStateField { num: 5000, flags: ARRAY, ..plain(c"long", 0, size_of::<T>(), info) };
    leak(table(c"long", [array]))
}

#[test]
fn long_arrays_of_every_width_load_equal() {
    fn check<T: Copy + PartialEq + std::fmt::Debug + Default>(
        info: &'static VMStateInfo,
        value: impl Fn(usize) -> T,
        bytes: impl Fn(T) -> Vec<u8>,
    ) {
        let mut object = Long(std::array::from_fn(value));
        let saved = save(long::<T>(info), &mut object);
        let expected: Vec<u8> = object.0.iter().flat_map(|value| bytes(*value)).collect();
        assert_eq!(saved.bytes, expected);
        let mut back = Long([T::default(); 5000]);
        assert_eq!(load(long::<T>(info), &mut back, &expected).ret, 0);
        assert_eq!(back.0, object.0);
        // The stream ends in an element. Earlier elements are loaded, this one is padded with zeros, later ones are
        // unchanged.
        let mut cut = Long([T::default(); 5000]);
        let outcome = load_cut(long::<T>(info), &mut cut, &expected[..4321 * size_of::<T>()]);
        assert_eq!((outcome.ret, &cut.0[..4321]), (-libc::EIO, &object.0[..4321]));
        assert_eq!(cut.0[4321..], [T::default(); 679]);
        assert_eq!(outcome.complaint(), "long/long[4321]: the stream ends");
    }
    let mixed = |at: usize| (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    check(&vmstate_info_uint8, |at| mixed(at) as u8, |value| value.to_be_bytes().to_vec());
    check(&vmstate_info_uint16, |at| mixed(at) as u16, |value| value.to_be_bytes().to_vec());
    check(&vmstate_info_int32, |at| mixed(at) as u32, |value| value.to_be_bytes().to_vec());
    check(&vmstate_info_uint64, mixed, |value| value.to_be_bytes().to_vec());
}

#[test]
fn elements_may_have_gaps() {
    let mut object = [0x0102_0304u32, 0x0506_0708, 0x090a_0b0c];
    let sparse = VMStateField { num: 3, flags: ARRAY, ..plain(c"sparse", 0, 4, &vmstate_info_uint16) };
    let sparse = leak(table(c"sparse", [sparse]));
    let saved = save(sparse, &mut object);
    let low = |value: u32| u16::from_ne_bytes(value.to_ne_bytes()[..2].try_into().unwrap()).to_be_bytes();
    assert_eq!(saved.bytes, object.map(low).concat());
    let mut back = [0u32; 3];
    load(sparse, &mut back, &saved.bytes);
    assert_eq!(back.map(low), object.map(low));
}

#[test]
fn checks_compare_with_the_devices_value() {
    let equal = |info| leak(table(c"check", [plain(c"value", 0, 8, info)]));
    let mut object = 0x1122_3344_5566_7788u64;
    for (info, width) in [
        (&vmstate_info_uint8_equal, 1),
        (&vmstate_info_uint16_equal, 2),
        (&vmstate_info_int32_equal, 4),
        (&vmstate_info_uint32_equal, 4),
        (&vmstate_info_uint64_equal, 8),
    ] {
        let saved = save(equal(info), &mut object);
        assert_eq!(saved.bytes.len(), width);
        assert_eq!(load(equal(info), &mut object, &saved.bytes).ret, 0);
        let mut other = saved.bytes;
        other[width - 1] ^= 1;
        let outcome = load(equal(info), &mut object, &other);
        assert_eq!((outcome.ret, outcome.latched), (-libc::EINVAL, -libc::EINVAL));
        assert_eq!(object, 0x1122_3344_5566_7788, "a rejected value is not stored");
    }
}

#[test]
fn failed_check_has_the_hint() {
    let check =
        VMStateField { err_hint: c"use the same -m".as_ptr(), ..plain(c"size", 0, 4, &vmstate_info_uint32_equal) };
    let outcome = load(leak(table(c"ram", [check])), &mut 16u32, b"\0\0\0\x20");
    assert_eq!(outcome.complaint(), "ram/size: expected 0x10 as the device has it, got 0x20; use the same -m");
}

#[test]
fn unused_bytes_are_saved_as_zeros_and_ignored_by_loads() {
    let unused = leak(table(c"unused", [plain(c"unused", 0, 5000, &vmstate_info_unused_buffer)]));
    let mut object = 7u8;
    assert_eq!(save(unused, &mut object).bytes, vec![0; 5000]);
    assert_eq!(load(unused, &mut object, &[0xff; 5000]).bytes, [0]);
    assert_eq!(load_cut(unused, &mut object, &[0xff; 4999]).ret, -libc::EIO);
    assert_eq!(object, 7);
}

#[repr(C)]
struct Sized<'a> {
    at: *mut u8,
    size: i32,
    memory: &'a mut [u64],
}

fn sized(info: &'static VMStateInfo) -> &'static VMStateDescription {
    let field = VMStateField {
        size_offset: offset_of!(Sized<'_>, size),
        flags: VBUFFER | POINTER,
        ..plain(c"at", offset_of!(Sized<'_>, at), 0, info)
    };
    leak(table(c"sized", [field]))
}

#[test]
fn bitmaps_are_saved_in_64_bit_words() {
    let mut memory = [0x0102_0304_0506_0708, u64::MAX, 3];
    let mut object = Sized { at: memory.as_mut_ptr().cast(), size: 130, memory: &mut [] };
    let saved = save(sized(&vmstate_info_bitmap), &mut object);
    assert_eq!(saved.bytes, [[1, 2, 3, 4, 5, 6, 7, 8], [0xff; 8], [0, 0, 0, 0, 0, 0, 0, 3]].concat());
    let mut back = [0u64; 3];
    let mut object = Sized { at: back.as_mut_ptr().cast(), size: 130, memory: &mut [] };
    assert_eq!(load(sized(&vmstate_info_bitmap), &mut object, &saved.bytes).ret, 0);
    assert_eq!(back, [0x0102_0304_0506_0708, u64::MAX, 3]);
    assert!(object.memory.is_empty());
}

#[test]
fn foreign_info_may_call_a_library_info() {
    // The info has a name of its own, so it is called like any other, and calls one of the library's.
    static MINE: VMStateInfo =
        VMStateInfo { name: c"mine".as_ptr(), get: vmstate_info_uint32.get, put: vmstate_info_uint32.put };
    let mine = leak(table(c"mine", [plain(c"x", 0, 4, &MINE)]));
    let saved = save(mine, &mut 0x0102_0304u32);
    assert_eq!(saved.bytes, [1, 2, 3, 4]);
    let mut back = 0u32;
    assert_eq!((load(mine, &mut back, &saved.bytes).ret, back), (0, 0x0102_0304));
}

#[test]
fn timer_without_a_host_is_an_error() {
    let timer = leak(table(c"clock", [plain(c"tick", 0, 8, &vmstate_info_timer)]));
    let outcome = save(timer, &mut 0u64);
    assert_eq!(outcome.ret, -libc::ENOSYS);
    assert_eq!(outcome.complaint(), "clock/tick: the host has no operation to read a timer");
    assert_eq!(load(timer, &mut 0u64, &[0; 8]).ret, -libc::ENOSYS);
}
