// SPDX-License-Identifier: LGPL-2.1-or-later
//! Loads a device that has a field of every dangerous kind from arbitrary bytes, through the C functions. The memory around
//! the device must not change.
#![no_main]

use libfuzzer_sys::fuzz_target;
use savevm::ffi::exports::context::{SaveVMLimits, savevm_set_limits};
use savevm::ffi::exports::file::savevm_file_from_buffer;
use savevm::ffi::exports::qemu_file::qemu_fclose;
use savevm::ffi::vmstate::types::{VMStateDescription, VMStateField, VMStateInfo};
use savevm::ffi::vmstate::*;
use std::ffi::{CStr, c_int, c_uint, c_void};
use std::mem::{offset_of, zeroed};
use std::ptr;

const SINGLE: c_uint = 0x001;
const POINTER: c_uint = 0x002;
const ARRAY: c_uint = 0x004;
const STRUCT: c_uint = 0x008;
const VARRAY_INT32: c_uint = 0x010;
const BUFFER: c_uint = 0x020;
const VBUFFER: c_uint = 0x100;
const VARRAY_UINT32: c_uint = 0x800;
const ALLOC: c_uint = 0x2000;

#[repr(C)]
struct Inner {
    a: u16,
    b: [u8; 3],
}

/// A queue's head, as QTAILQ has it: first element, last link.
#[repr(C)]
struct Head {
    first: *mut c_void,
    last: *mut c_void,
}

#[repr(C)]
struct Element {
    value: u32,
    next: *mut c_void,
    previous: *mut c_void,
}

#[repr(C)]
struct Device {
    before: u64,
    limit: i32,
    count: i32,
    few: [u32; 8],
    inner: [Inner; 4],
    grown: u32,
    allocated: *mut u64,
    size: u32,
    text: *mut u8,
    queue: Head,
    after: u64,
}

const MARK: u64 = 0x5aa5_1234_5678_9abc;

fn field(name: &'static CStr, offset: usize, size: usize, flags: c_uint, info: *const VMStateInfo) -> VMStateField {
    let mut field: VMStateField = unsafe { zeroed() };
    (field.name, field.offset, field.size, field.flags, field.info) = (name.as_ptr(), offset, size, flags, info);
    field
}

fn description(name: &'static CStr, fields: &[VMStateField]) -> VMStateDescription {
    let mut description: VMStateDescription = unsafe { zeroed() };
    (description.name, description.version_id, description.minimum_version_id) = (name.as_ptr(), 2, 1);
    description.fields = fields.as_ptr();
    description
}

fn end() -> VMStateField {
    unsafe { zeroed() }
}

/// Limits under which a run stays quick; 0 is the default.
const LIMITS: SaveVMLimits = SaveVMLimits {
    size: size_of::<SaveVMLimits>(),
    allocation: 1 << 20,
    list_elements: 1 << 10,
    ..unsafe { zeroed() }
};

/// Loads `data` into a fresh device and frees what the load allocated.
fn load(table: &VMStateDescription, data: &[u8], version: c_int) {
    unsafe {
        let mut device: Device = zeroed();
        (device.before, device.after, device.limit) = (MARK, MARK, 8);
        device.queue.last = (&raw mut device.queue.first).cast();
        savevm_set_limits(ptr::null_mut(), &LIMITS);
        let f = savevm_file_from_buffer(data.as_ptr().cast(), data.len());
        vmstate_load_state(f, table, (&raw mut device).cast(), version);
        qemu_fclose(f);
        assert_eq!((device.before, device.after), (MARK, MARK));
        libc::free(device.allocated.cast());
        libc::free(device.text.cast());
        let mut next = device.queue.first.cast::<Element>();
        while !next.is_null() {
            let element = next;
            next = (*element).next.cast();
            libc::free(element.cast());
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((version, data)) = data.split_first() else { return };
    let inner_fields = [
        field(c"a", offset_of!(Inner, a), 2, SINGLE, &vmstate_info_uint16),
        field(c"b", offset_of!(Inner, b), 3, BUFFER, &vmstate_info_buffer),
        end(),
    ];
    let inner = description(c"inner", &inner_fields);
    let element_fields = [field(c"value", 0, 4, SINGLE, &vmstate_info_uint32), end()];
    let element = description(c"element", &element_fields);

    let mut few = field(c"few", offset_of!(Device, few), 4, VARRAY_INT32, &vmstate_info_uint32);
    (few.num_offset, few.start) = (offset_of!(Device, count), size_of::<[u32; 8]>());
    let mut inners = field(c"inner", offset_of!(Device, inner), size_of::<Inner>(), STRUCT | ARRAY, ptr::null());
    (inners.num, inners.vmsd) = (4, &inner);
    let mut allocated =
        field(c"allocated", offset_of!(Device, allocated), 8, VARRAY_UINT32 | POINTER | ALLOC, &vmstate_info_uint64);
    allocated.num_offset = offset_of!(Device, grown);
    let mut text = field(c"text", offset_of!(Device, text), 0, VBUFFER | POINTER | ALLOC, &vmstate_info_buffer);
    text.size_offset = offset_of!(Device, size);
    let mut queue = field(c"queue", offset_of!(Device, queue), size_of::<Element>(), SINGLE, &vmstate_info_qtailq);
    (queue.start, queue.vmsd) = (offset_of!(Element, next), &element);
    let fields = [
        field(c"limit", offset_of!(Device, limit), 4, SINGLE, &vmstate_info_int32_le),
        field(c"count", offset_of!(Device, count), 4, SINGLE, &vmstate_info_int32),
        few,
        inners,
        field(c"grown", offset_of!(Device, grown), 4, SINGLE, &vmstate_info_uint32),
        allocated,
        field(c"size", offset_of!(Device, size), 4, SINGLE, &vmstate_info_uint32),
        text,
        queue,
        end(),
    ];
    let table = description(c"device", &fields);
    load(&table, data, c_int::from(version & 3));
});
