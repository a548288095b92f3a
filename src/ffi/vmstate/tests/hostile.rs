// SPDX-License-Identifier: LGPL-2.1-or-later
//! Hostile streams: one test for each class of past faults in QEMU's loaders.

use super::fixture::*;
use crate::ffi::vmstate::types::{VMStateDescription, VMStateField, VMStateInfo};
use crate::ffi::vmstate::*;
use crate::wire::limits::Limits;
use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A device with a count, an array in place, and memory after it that a load must not change.
#[repr(C)]
#[derive(Clone, Debug, PartialEq)]
struct Ring {
    count: u32,
    entries: [u16; 4],
    secret: [u16; 60],
}

const RING: Ring = Ring { count: 0, entries: [0; 4], secret: [0x5ec; 60] };

fn ring(bits: u32, num: c_int) -> &'static VMStateDescription {
    let entries = VMStateField {
        start: size_of::<[u16; 4]>(),
        num,
        num_offset: offset_of!(Ring, count),
        flags: bits,
        ..plain(c"entries", offset_of!(Ring, entries), 2, &vmstate_info_uint16)
    };
    leak(table(c"ring", [plain(c"count", 0, 4, &vmstate_info_uint32), entries]))
}

#[test]
fn load_rejects_a_count_beyond_the_array() {
    // As in CVE-2013-4149, -4526, -4530, -4533 to -4542, -6399, CVE-2014-0182, CVE-2017-16845.
    for (bits, num) in [(VARRAY_UINT32, 0), (VARRAY_INT32, 0), (VARRAY_UINT32 | MULTIPLY_ELEMENTS, 2)] {
        let mut object = RING;
        let stream: Vec<u8> = [0, 0, 0, 5].into_iter().chain([0xee; 200]).collect();
        let outcome = load(ring(bits, num), &mut object, &stream);
        assert_eq!(outcome.ret, -libc::EINVAL);
        assert_eq!(object.secret, RING.secret);
        assert_eq!(object.entries, RING.entries);
    }
    assert_eq!(
        load(ring(VARRAY_UINT32, 0), &mut RING.clone(), &[0, 0, 0, 5]).complaint(),
        "ring/entries: 5 elements, but the array has 4"
    );
}

#[test]
fn load_accepts_a_count_that_fits() {
    let mut object = RING;
    let stream = [0, 0, 0, 4, 0, 1, 0, 2, 0, 3, 0, 4];
    assert_eq!(load(ring(VARRAY_UINT32, 0), &mut object, &stream).ret, 0);
    assert_eq!(object, Ring { count: 4, entries: [1, 2, 3, 4], ..RING });
    let mut object = RING;
    assert_eq!(load(ring(VARRAY_UINT32 | MULTIPLY_ELEMENTS, 2), &mut object, &[0, 0, 0, 1, 0, 1, 0, 2]).ret, 0);
    assert_eq!(object, Ring { count: 1, entries: [1, 2, 0, 0], ..RING });
}

#[test]
fn load_rejects_a_negative_count() {
    // As in CVE-2013-4531. An unsigned count that does not fit an int is rejected in the same way.
    for bits in [VARRAY_INT32, VARRAY_UINT32] {
        let outcome = load(ring(bits, 0), &mut RING.clone(), &[0xff; 64]);
        assert_eq!((outcome.ret, outcome.latched), (-libc::EINVAL, -libc::EINVAL));
    }
    let negative = Ring { count: u32::MAX, ..RING };
    assert_eq!(save(ring(VARRAY_INT32, 0), &mut negative.clone()).ret, -libc::EINVAL);
}

#[repr(C)]
struct Blob {
    size: i32,
    at: *mut u8,
}

fn blob(bits: u32, unit: usize) -> &'static VMStateDescription {
    let data = VMStateField {
        size_offset: offset_of!(Blob, size),
        flags: VBUFFER | POINTER | bits,
        ..plain(c"data", offset_of!(Blob, at), unit, &vmstate_info_buffer)
    };
    leak(table(c"blob", [plain(c"size", 0, 4, &vmstate_info_int32), data]))
}

#[test]
fn load_rejects_a_negative_size() {
    let mut memory = [0u8; 8];
    let mut object = Blob { size: 0, at: memory.as_mut_ptr() };
    let outcome = load(blob(0, 0), &mut object, &[0xff; 64]);
    assert_eq!(outcome.complaint(), "blob/data: an element of -1 bytes");
    assert_eq!(memory, [0; 8]);
}

#[test]
fn load_rejects_a_size_whose_product_overflows() {
    let mut memory = [0u8; 8];
    let mut object = Blob { size: 0, at: memory.as_mut_ptr() };
    // 0x4000_0002 * 4 is 8 in 32 bits.
    let outcome = load(blob(MULTIPLY, 4), &mut object, &[0x40, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(outcome.ret, -libc::EINVAL);
    assert_eq!(memory, [0; 8]);
}

#[test]
fn load_rejects_an_allocation_beyond_the_limit() {
    let limits = Limits { allocation: 1000, ..Limits::default() };
    with_limits(limits, || {
        let mut object = Blob { size: 0, at: ptr::null_mut() };
        let outcome = load(blob(ALLOC, 0), &mut object, &[0x7f, 0xff, 0xff, 0xff]);
        assert_eq!(outcome.complaint(), "blob/data: 1 elements of 2.0 GiB, at most 1000 bytes allowed");
        assert!(object.at.is_null());
        let mut object = Blob { size: 0, at: ptr::null_mut() };
        let stream: Vec<u8> = [0, 0, 3, 0xe8].into_iter().chain([7; 1000]).collect();
        assert_eq!(load(blob(ALLOC, 0), &mut object, &stream).ret, 0);
        // SAFETY: 1000 bytes were allocated with malloc(), and the object is ours.
        unsafe {
            assert_eq!(std::slice::from_raw_parts(object.at, 1000), [7; 1000]);
            libc::free(object.at.cast());
        }
    });
}

#[repr(C)]
struct Vectors {
    count: u32,
    at: *mut u16,
}

fn vectors(num: c_int) -> &'static VMStateDescription {
    let entries = VMStateField {
        num,
        num_offset: offset_of!(Vectors, count),
        flags: VARRAY_UINT32 | MULTIPLY_ELEMENTS | POINTER | ALLOC,
        ..plain(c"entries", offset_of!(Vectors, at), 2, &vmstate_info_uint16)
    };
    leak(table(c"vectors", [plain(c"count", 0, 4, &vmstate_info_uint32), entries]))
}

#[test]
fn allocation_has_the_size_that_is_read() {
    // As in CVE-2013-4149: memory for n elements, and a multiple of n was read.
    let mut object = Vectors { count: 0, at: ptr::null_mut() };
    let stream: Vec<u8> = [0, 0, 0, 3].into_iter().chain((0..36).map(|byte| byte as u8)).collect();
    assert_eq!(load(vectors(6), &mut object, &stream).ret, 0);
    // SAFETY: 3 * 6 entries were allocated with malloc(), and the object is ours.
    unsafe {
        assert!(libc::malloc_usable_size(object.at.cast()) >= 36);
        assert_eq!(object.at.add(17).read(), 0x2223);
        libc::free(object.at.cast());
    }
    // A product that overflows 32 bits to something small.
    let mut object = Vectors { count: 0, at: ptr::null_mut() };
    let outcome = load(vectors(6), &mut object, &[0x2a, 0xaa, 0xaa, 0xab, 1, 2, 3, 4]);
    assert_eq!((outcome.ret, object.at.is_null()), (-libc::EINVAL, true));
}

#[test]
fn load_rejects_an_index_beyond_the_devices() {
    // As in CVE-2013-4527, -4529, -4532, -4534, -4540: an index that the device trusts after loading.
    let index = leak(table(c"fifo", [plain(c"head", 0, 4, &vmstate_info_int32_le)]));
    for (bytes, complaint) in [
        ([0, 0, 0, 17], "fifo/head: expected 0 to 16, got 17"),
        ([0xff, 0xff, 0xff, 0xff], "fifo/head: expected 0 to 16, got -1"),
    ] {
        let mut object = 16i32;
        let outcome = load(index, &mut object, &bytes);
        assert_eq!((outcome.ret, object), (-libc::EINVAL, 16));
        assert_eq!(outcome.complaint(), complaint);
    }
    let mut object = 16i32;
    assert_eq!((load(index, &mut object, &[0, 0, 0, 16]).ret, object), (0, 16));
}

static POST_LOADED: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn count_post_load(_opaque: *mut c_void, _version: c_int) -> c_int {
    POST_LOADED.fetch_add(1, Relaxed);
    0
}

unsafe extern "C" fn is_small(opaque: *mut c_void, _version: c_int) -> bool {
    // SAFETY: the object of the test below.
    unsafe { opaque.cast::<u32>().read() < 8 }
}

#[test]
fn invalid_state_does_not_reach_post_load() {
    // As in CVE-2025-54566: post_load() used numbers that were not checked.
    let valid =
        VMStateField { name: c"few enough".as_ptr(), flags: ARRAY | MUST_EXIST, field_exists: Some(is_small), ..FIELD };
    let sriov = VMStateDescription {
        post_load: Some(count_post_load),
        ..table(c"sriov", [plain(c"functions", 0, 4, &vmstate_info_uint32), valid])
    };
    let sriov = leak(sriov);
    let outcome = load(sriov, &mut 0u32, &[0, 0, 0, 8]);
    assert_eq!((outcome.ret, outcome.latched, POST_LOADED.load(Relaxed)), (-1, 0, 0));
    assert_eq!(outcome.complaint(), "sriov/few enough: the loaded state is not valid");
    assert_eq!((load(sriov, &mut 0u32, &[0, 0, 0, 7]).ret, POST_LOADED.load(Relaxed)), (0, 1));
    // Saving it would abort QEMU.
    assert_eq!(save(sriov, &mut 8u32).ret, -libc::EINVAL);
}

#[repr(C)]
struct Head {
    first: *mut Node,
    last: *mut *mut Node,
}

#[repr(C)]
struct Node {
    value: u8,
    next: *mut Node,
    previous: *mut *mut Node,
}

fn queue(info: &'static VMStateInfo) -> &'static VMStateDescription {
    let node = leak(table(c"node", [plain(c"value", 0, 1, &vmstate_info_uint8)]));
    let queue = VMStateField {
        start: offset_of!(Node, next),
        vmsd: node,
        version_id: 1,
        ..plain(c"queue", 0, size_of::<Node>(), info)
    };
    leak(table(c"list", [queue]))
}

/// Frees the nodes and returns their values.
fn drain(first: *mut Node) -> Vec<u8> {
    let (mut values, mut next) = (Vec::new(), first);
    while !next.is_null() {
        // SAFETY: nodes that were loaded come from malloc() and lead to each other.
        unsafe {
            values.push((*next).value);
            let after = (*next).next;
            libc::free(next.cast());
            next = after;
        }
    }
    values
}

#[test]
fn load_rejects_too_many_queue_elements() {
    let limits = Limits { list_elements: 10, ..Limits::default() };
    with_limits(limits, || {
        for info in [&vmstate_info_qtailq, &vmstate_info_qlist] {
            let mut head = Head { first: ptr::null_mut(), last: ptr::null_mut() };
            head.last = &raw mut head.first;
            let outcome = load(queue(info), &mut head, &[1; 1000]);
            assert_eq!(outcome.complaint(), "list/queue: more than 10 elements");
            assert_eq!(drain(head.first), [1; 10]);
        }
    });
}

#[test]
fn allocations_of_one_stream_are_limited_in_sum() {
    let limits = Limits { allocation: 1000, ..Limits::default() };
    with_limits(limits, || {
        // The same field several times, as in repeated sections.
        let file = file_of([&[0, 0, 1, 0x90][..], &[7; 400]].concat().repeat(3));
        let load_next = || {
            let mut object = Blob { size: 0, at: ptr::null_mut() };
            let outcome = load_from(&file, blob(ALLOC, 0), &mut object);
            // SAFETY: NULL, or allocated with malloc().
            unsafe { libc::free(object.at.cast()) };
            outcome
        };
        assert_eq!((load_next().ret, load_next().ret), (0, 0));
        let complaint = "blob/data: 1 elements of 400 bytes after 800 bytes before, at most 1000 bytes allowed";
        assert_eq!(load_next().complaint(), complaint);
        // Elements of a list.
        let mut head = Head { first: ptr::null_mut(), last: ptr::null_mut() };
        head.last = &raw mut head.first;
        let outcome = load(queue(&vmstate_info_qtailq), &mut head, &[1; 1000]);
        assert!(outcome.complaint().contains("at most 1000 bytes allowed"), "{}", outcome.complaint());
        assert!(drain(head.first).len() <= 1000 / size_of::<Head>());
    });
}

#[test]
fn failed_element_is_not_in_the_queue() {
    let mut head = Head { first: ptr::null_mut(), last: ptr::null_mut() };
    head.last = &raw mut head.first;
    let outcome = load_cut(queue(&vmstate_info_qtailq), &mut head, &[1, 7, 1]);
    assert_eq!((outcome.ret, drain(head.first)), (-libc::EIO, vec![7]));
    assert_eq!(outcome.complaint(), "list/queue/[1]/value: the stream ends");
}

#[test]
fn load_rejects_an_uninitialised_queue() {
    let mut head = Head { first: ptr::null_mut(), last: ptr::null_mut() };
    let outcome = load(queue(&vmstate_info_qtailq), &mut head, &[1, 7, 0]);
    assert_eq!(outcome.complaint(), "list/queue: the queue was not initialised");
}

#[test]
fn null_pointers_are_errors() {
    let pointer = VMStateField { flags: POINTER, ..plain(c"p", 0, 4, &vmstate_info_uint32) };
    let to_value = leak(table(c"holder", [pointer]));
    let inner = leak(table(c"inner", [plain(c"x", 0, 1, &vmstate_info_uint8)]));
    let to_struct = VMStateField { flags: STRUCT | POINTER, ..nested(c"p", 0, 8, inner) };
    let to_struct = leak(table(c"holder", [to_struct]));
    for table in [to_value, to_struct] {
        let mut object = ptr::null_mut::<u32>();
        assert_eq!(save(table, &mut object).complaint(), "holder/p: a null pointer");
        assert_eq!(load(table, &mut object, &[0; 8]).complaint(), "holder/p: a null pointer");
    }
    // An info of the device may accept a null pointer, but not as an array: QEMU asserts that there is memory.
    let own = Box::leak(Box::new(VMStateInfo {
        name: c"own".as_ptr(),
        get: vmstate_info_uint32.get,
        put: vmstate_info_uint32.put,
    }));
    let customs = leak(table(c"holder", [VMStateField { num: 2, flags: ARRAY, ..plain(c"own", 0, 4, own) }]));
    assert_eq!(load_at(customs, ptr::null_mut(), &[0; 8], 1).complaint(), "holder/own[0]: a null pointer");
    // A device without memory is an error as well.
    assert_eq!(save_at(inner, ptr::null_mut(), None).complaint(), "inner/x: the device has no memory");
    assert_eq!(load_at(inner, ptr::null_mut(), &[1], 1).complaint(), "inner/x: the device has no memory");
}

#[test]
fn null_pointer_in_an_array_requires_its_marker() {
    let array = VMStateField { num: 2, flags: ARRAY | ARRAY_OF_POINTER, ..plain(c"p", 0, 8, &vmstate_info_uint8) };
    let array = leak(table(c"array", [array]));
    let mut value = 9u8;
    let mut object = [ptr::null_mut(), &raw mut value];
    assert_eq!(save(array, &mut object).bytes, [0x30, 9]);
    assert_eq!(load(array, &mut object, &[0x30, 8]).ret, 0);
    let outcome = load(array, &mut object, &[0x31, 8]);
    assert_eq!(outcome.complaint(), "array/p[0]: the device has a null pointer, whose marker is 0x30; got 0x31");
}

#[test]
fn nesting_is_limited() {
    // A list that contains itself, saved through its pointer.
    #[repr(C)]
    struct Knot {
        next: *mut Knot,
        value: u8,
    }
    let cycle = Box::leak(Box::new(VMStateDescription { name: c"cycle".as_ptr(), ..TABLE }));
    let this = ptr::from_mut(cycle);
    let next = VMStateField { name: c"next".as_ptr(), size: 8, flags: STRUCT | POINTER, vmsd: this, ..FIELD };
    cycle.fields = fields([plain(c"value", offset_of!(Knot, value), 1, &vmstate_info_uint8), next]);
    // SAFETY: the memory is not written after this.
    let cycle = unsafe { &*this };
    let mut object = Knot { next: ptr::null_mut(), value: 1 };
    object.next = &raw mut object;
    let at: *mut c_void = (&raw mut object).cast();
    let saved = save_at(cycle, at, None);
    assert_eq!((saved.ret, saved.bytes.len()), (-libc::ELOOP, 64));
    let loaded = load_at(cycle, at, &[1; 100], 1);
    assert_eq!(loaded.ret, -libc::ELOOP);
    assert!(loaded.complaint().ends_with("next/next: nested more than 64 deep"), "{}", loaded.complaint());
}
