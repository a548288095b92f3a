// SPDX-License-Identifier: LGPL-2.1-or-later
//! Builds a description from the first bytes, and loads the rest as its stream. A device that loads must save, and the saved
//! stream must load and save the same. The memory behind the device must not change.
#![no_main]

use libfuzzer_sys::fuzz_target;
use savevm::ffi::exports::context::{SaveVMLimits, savevm_set_limits};
use savevm::ffi::exports::file::{savevm_file_buffer, savevm_file_from_buffer, savevm_file_to_buffer};
use savevm::ffi::exports::qemu_file::{qemu_fclose, qemu_file_get_error};
use savevm::ffi::vmstate::types::{VMStateDescription, VMStateField, VMStateInfo};
use savevm::ffi::vmstate::*;
use savevm::vmstate::model::flags::*;
use std::any::Any;
use std::ffi::{CStr, c_int, c_void};
use std::mem::zeroed;
use std::ptr;

const INTEGERS: [(&VMStateInfo, usize); 15] = [
    (&vmstate_info_bool, 1),
    (&vmstate_info_int8, 1),
    (&vmstate_info_uint8, 1),
    (&vmstate_info_int16, 2),
    (&vmstate_info_uint16, 2),
    (&vmstate_info_int32, 4),
    (&vmstate_info_uint32, 4),
    (&vmstate_info_int64, 8),
    (&vmstate_info_uint64, 8),
    (&vmstate_info_uint8_equal, 1),
    (&vmstate_info_uint16_equal, 2),
    (&vmstate_info_int32_equal, 4),
    (&vmstate_info_uint64_equal, 8),
    (&vmstate_info_int32_le, 4),
    (&vmstate_info_cpudouble, 8),
];

/// Kinds of members that hold a count: info, width in bytes, and the flag of an array with such a count.
const COUNTS: [(&VMStateInfo, usize, u32); 4] = [
    (&vmstate_info_uint8, 1, VARRAY_UINT8),
    (&vmstate_info_uint16, 2, VARRAY_UINT16),
    (&vmstate_info_int32, 4, VARRAY_INT32),
    (&vmstate_info_uint32, 4, VARRAY_UINT32),
];

unsafe extern "C" fn from_version_two(_opaque: *mut c_void, version: c_int) -> bool {
    version >= 2
}

/// Limits that keep a run short; 0 means the default.
const LIMITS: SaveVMLimits =
    SaveVMLimits { size: size_of::<SaveVMLimits>(), allocation: 1 << 16, list_elements: 100, ..unsafe { zeroed() } };

/// What must be in a device at an offset, if not zeros.
#[derive(Clone, Copy)]
enum Need {
    /// A pointer to this many zeros, which the device owns.
    Room(usize),
    /// A number in 32 bits that no stream changes.
    Number(u32),
    /// The head of an empty tail queue.
    Queue,
    /// Nothing: a load puts a pointer here that has to be freed.
    Freed,
    /// Nothing: elements are linked here, by a link at this offset in them.
    Linked(usize),
}

/// Descriptions under construction: bytes that choose, and everything that has to live as long as the result.
struct Maker<'a> {
    choices: &'a [u8],
    kept: Vec<Box<dyn Any>>,
}

/// A structure with its size and needs.
#[derive(Clone)]
struct Type {
    table: *const VMStateDescription,
    size: usize,
    needs: Vec<(usize, Need)>,
}

#[derive(Default)]
struct Layout {
    fields: Vec<VMStateField>,
    needs: Vec<(usize, Need)>,
    size: usize,
}

impl Layout {
    fn place(&mut self, size: usize) -> usize {
        let at = self.size.next_multiple_of(8);
        self.size = at + size;
        at
    }

    /// A pointer and what it needs.
    fn pointer(&mut self, need: Need) -> usize {
        let at = self.place(8);
        self.needs.push((at, need));
        at
    }
}

/// An element of an info.
fn field(offset: usize, size: usize, info: &VMStateInfo) -> VMStateField {
    VMStateField { offset, size, info, name: c"field".as_ptr(), ..unsafe { zeroed() } }
}

impl Maker<'_> {
    /// A number below `most`; 0 when the choices are used up.
    fn choose(&mut self, most: usize) -> usize {
        let Some((first, rest)) = self.choices.split_first() else { return 0 };
        self.choices = rest;
        usize::from(*first) % most
    }

    fn keep<T: 'static>(&mut self, value: T) -> *const T {
        let kept = Box::new(value);
        let at: *const T = &*kept;
        self.kept.push(kept);
        at
    }

    fn integer(&mut self) -> (&'static VMStateInfo, usize) {
        INTEGERS[self.choose(INTEGERS.len())]
    }

    /// A structure. `deep` is how much deeper it may go; a `flat` one has nothing that needs more than zeros.
    fn structure(&mut self, name: &'static CStr, deep: usize, flat: bool) -> Type {
        self.structure_from(0, name, deep, flat)
    }

    /// A structure whose members begin at an offset.
    fn structure_from(&mut self, start: usize, name: &'static CStr, deep: usize, flat: bool) -> Type {
        let mut layout = Layout { size: start, ..Layout::default() };
        for _ in 0..self.choose(if deep == 0 { 4 } else { 7 }) {
            self.add(&mut layout, deep, flat);
        }
        let mut table: VMStateDescription = unsafe { zeroed() };
        (table.name, table.version_id, table.minimum_version_id) = (name.as_ptr(), 2, 1);
        let mut fields = layout.fields;
        fields.push(unsafe { zeroed() });
        table.fields = unsafe { &*self.keep(fields) }.as_ptr();
        let mut size = layout.size;
        if name == c"top" && self.choose(2) == 1 {
            let subsection = self.structure_from(size, c"top/a", 0, true);
            size = subsection.size;
            table.subsections = unsafe { &*self.keep(vec![subsection.table, ptr::null()]) }.as_ptr();
        }
        Type { table: self.keep(table), size: size.next_multiple_of(8).max(8), needs: layout.needs }
    }

    fn add(&mut self, layout: &mut Layout, deep: usize, flat: bool) {
        let kinds: &[u8] = match (deep, flat) {
            (0, true) => &[0, 1, 2, 3],
            (_, true) => &[0, 1, 2, 3, 4, 5],
            (0, false) => &[0, 1, 2, 3, 5, 6, 7, 8, 9],
            _ => &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
        };
        let kind = kinds[self.choose(kinds.len())];
        let made = match kind {
            0 => self.integers(layout),
            1 => self.used(layout),
            2 => {
                let size = self.choose(64);
                field(layout.place(size), size, &vmstate_info_buffer)
            }
            3 => field(0, self.choose(40), &vmstate_info_unused_buffer),
            4 => self.structures(layout, deep, flat),
            5 => self.temporary(),
            6 => self.allocated(layout),
            7 => self.bytes(layout),
            8 => {
                let (at, bits) = (layout.pointer(Need::Room(16)), layout.place(4));
                layout.needs.push((bits, Need::Number(70)));
                let bitmap = field(at, 8, &vmstate_info_bitmap);
                VMStateField { flags: VBUFFER | POINTER, size_offset: bits, ..bitmap }
            }
            9 => {
                let (count, (info, _)) = (self.choose(4), self.integer());
                let at = layout.place(8 * count);
                layout.needs.extend((0..count).map(|n| (at + 8 * n, Need::Room(8))));
                let array = field(at, 8, info);
                VMStateField { num: count as c_int, flags: ARRAY | ARRAY_OF_POINTER, ..array }
            }
            10 => self.list(layout, &vmstate_info_qtailq),
            11 => self.list(layout, &vmstate_info_qlist),
            _ => {
                let inner = self.structure(c"n", deep - 1, true);
                let at = layout.pointer(Need::Room(inner.size));
                VMStateField { offset: at, size: inner.size, ..self.nested(&inner, STRUCT | POINTER) }
            }
        };
        // A count without its array would be no state that a device can have, and a list or a temporary structure comes
        // in the version of its field.
        let always = matches!(kind, 1 | 5 | 6 | 7 | 10 | 11);
        let when = match self.choose(8) {
            _ if always => made,
            0 => VMStateField { version_id: 2, ..made },
            1 => VMStateField { field_exists: Some(from_version_two), ..made },
            _ => made,
        };
        layout.fields.push(when);
    }

    fn nested(&mut self, inner: &Type, flags: u32) -> VMStateField {
        VMStateField { size: inner.size, vmsd: inner.table, flags, name: c"inner".as_ptr(), ..unsafe { zeroed() } }
    }

    fn integers(&mut self, layout: &mut Layout) -> VMStateField {
        let ((info, width), count) = (self.integer(), self.choose(9));
        let at = layout.place(width * count.max(1));
        match count {
            1 => field(at, width, info),
            _ => VMStateField { num: count as c_int, flags: ARRAY, ..field(at, width, info) },
        }
    }

    /// The member that counts, as a field; the flag and place of it.
    fn count(&mut self, layout: &mut Layout) -> (u32, usize) {
        let (info, width, flag) = COUNTS[self.choose(COUNTS.len())];
        let at = layout.place(width);
        layout.fields.push(field(at, width, info));
        (flag, at)
    }

    /// An array whose used length is in another member.
    fn used(&mut self, layout: &mut Layout) -> VMStateField {
        let (flag, num_offset) = self.count(layout);
        let ((info, width), room) = (self.integer(), 1 + self.choose(6));
        let at = layout.place(width * room);
        let mut array = VMStateField { num_offset, start: width * room, flags: flag, ..field(at, width, info) };
        if self.choose(4) == 0 {
            (array.flags, array.num) = (array.flags | MULTIPLY_ELEMENTS, 2);
        }
        array
    }

    fn structures(&mut self, layout: &mut Layout, deep: usize, flat: bool) -> VMStateField {
        let (inner, count) = (self.structure(c"n", deep - 1, flat), self.choose(4));
        let at = layout.place(inner.size * count);
        for n in 0..count {
            layout.needs.extend(inner.needs.iter().map(|(within, need)| (at + n * inner.size + within, *need)));
        }
        let array = self.nested(&inner, STRUCT | ARRAY);
        VMStateField { offset: at, num: count as c_int, ..array }
    }

    /// A structure that lives while it is saved or loaded, and begins with a pointer to the device.
    fn temporary(&mut self) -> VMStateField {
        let (info, width) = self.integer();
        let fields = vec![field(8, width, info), unsafe { zeroed() }];
        let mut table: VMStateDescription = unsafe { zeroed() };
        table.name = c"n".as_ptr();
        table.fields = unsafe { &*self.keep(fields) }.as_ptr();
        VMStateField { vmsd: self.keep(table), ..field(0, 16, &vmstate_info_tmp) }
    }

    /// An array that a load allocates.
    fn allocated(&mut self, layout: &mut Layout) -> VMStateField {
        let (flag, num_offset) = self.count(layout);
        let at = layout.pointer(Need::Freed);
        if self.choose(3) == 0 {
            let inner = self.structure(c"n", 0, true);
            let array = self.nested(&inner, flag | STRUCT | POINTER | ALLOC);
            return VMStateField { offset: at, num_offset, ..array };
        }
        let (info, width) = self.integer();
        VMStateField { num_offset, flags: flag | POINTER | ALLOC, ..field(at, width, info) }
    }

    /// Bytes that a load allocates.
    fn bytes(&mut self, layout: &mut Layout) -> VMStateField {
        let size_offset = layout.place(4);
        layout.fields.push(field(size_offset, 4, &vmstate_info_int32));
        let at = layout.pointer(Need::Freed);
        let multiply = self.choose(3) * 3;
        let flags = VBUFFER | POINTER | ALLOC | if multiply > 0 { MULTIPLY } else { 0 };
        VMStateField { size_offset, flags, ..field(at, multiply, &vmstate_info_buffer) }
    }

    fn list(&mut self, layout: &mut Layout, info: &VMStateInfo) -> VMStateField {
        let (inner, queue) = (self.structure(c"n", 0, true), ptr::eq(info, &vmstate_info_qtailq));
        let at = layout.place(16);
        if queue {
            layout.needs.push((at, Need::Queue));
        }
        layout.needs.push((at, Need::Linked(inner.size)));
        // Elements are saved in the version of their description and loaded in that of the field.
        let table = VMStateDescription { version_id: 1, ..unsafe { ptr::read(inner.table) } };
        let vmsd = self.keep(table);
        VMStateField { start: inner.size, vmsd, version_id: 1, ..field(at, inner.size + 16, info) }
    }
}

/// A device's memory, with some behind it that must stay as it is.
struct Device<'a> {
    memory: Vec<u64>,
    kind: &'a Type,
}

const BEHIND: [u64; 16] = [0x5afe; 16];

impl<'a> Device<'a> {
    fn new(kind: &'a Type) -> Self {
        let mut memory = vec![0; kind.size.div_ceil(8)];
        memory.extend(BEHIND);
        let mut device = Self { memory, kind };
        for (at, need) in &kind.needs {
            let place = device.at().wrapping_byte_add(*at);
            unsafe {
                match need {
                    Need::Room(size) => place.cast::<*mut c_void>().write(libc::calloc(1, (*size).max(1))),
                    Need::Number(number) => place.cast::<u32>().write(*number),
                    Need::Queue => place.cast::<[*mut c_void; 2]>().write([ptr::null_mut(), place]),
                    Need::Freed | Need::Linked(_) => {}
                }
            }
        }
        device
    }

    fn at(&mut self) -> *mut c_void {
        self.memory.as_mut_ptr().cast()
    }

    fn load(&mut self, stream: &[u8], version: c_int) -> c_int {
        let (ret, error) = unsafe {
            let f = savevm_file_from_buffer(stream.as_ptr().cast(), stream.len());
            let ret = vmstate_load_state(f, self.kind.table, self.at(), version);
            let error = qemu_file_get_error(f);
            qemu_fclose(f);
            (ret, error)
        };
        assert!(self.memory.ends_with(&BEHIND), "written behind the device");
        if ret == 0 { error } else { ret }
    }

    fn save(&mut self) -> Vec<u8> {
        unsafe {
            let f = savevm_file_to_buffer();
            assert_eq!(vmstate_save_state(f, self.kind.table, self.at(), ptr::null_mut()), 0);
            let mut len = 0;
            let bytes = savevm_file_buffer(f, &mut len);
            let saved = if len == 0 { Vec::new() } else { std::slice::from_raw_parts(bytes, len).to_vec() };
            qemu_fclose(f);
            saved
        }
    }
}

impl Drop for Device<'_> {
    fn drop(&mut self) {
        for (at, need) in &self.kind.needs {
            let place = self.at().wrapping_byte_add(*at).cast::<*mut c_void>();
            unsafe {
                match need {
                    Need::Room(_) | Need::Freed => libc::free(place.read()),
                    Need::Linked(link) => {
                        let mut next = place.read();
                        while !next.is_null() {
                            let element = next;
                            next = element.byte_add(*link).cast::<*mut c_void>().read();
                            libc::free(element);
                        }
                    }
                    Need::Number(_) | Need::Queue => {}
                }
            }
        }
    }
}

/// Whether bytes look like the start of a subsection where none is: the format can't distinguish them, so the
/// stream has another meaning when it is read again.
fn is_ambiguous(bytes: &[u8], table: *const VMStateDescription) -> bool {
    let count = |name: &[u8]| bytes.windows(name.len()).filter(|window| *window == name).count();
    let subsections = usize::from(!unsafe { &*table }.subsections.is_null());
    count(b"n/") > 0 || count(b"top/") > subsections
}

fuzz_target!(|data: &[u8]| {
    let [version, len, rest @ ..] = data else { return };
    let (choices, stream) = rest.split_at(usize::from(*len).min(rest.len()));
    let mut maker = Maker { choices, kept: Vec::new() };
    let kind = maker.structure(c"top", 3, false);
    unsafe { savevm_set_limits(ptr::null_mut(), &LIMITS) };
    let mut device = Device::new(&kind);
    if device.load(stream, c_int::from(version & 3)) != 0 {
        return;
    }
    let saved = device.save();
    if is_ambiguous(&saved, kind.table) {
        return;
    }
    // A byte 5 behind a structure makes the reader look for a name, which may reach past the end.
    let mut again = Device::new(&kind);
    assert_eq!(again.load(&[&saved[..], &[0; 300]].concat(), 2), 0);
    assert_eq!(again.save(), saved);
});
