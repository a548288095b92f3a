// SPDX-License-Identifier: LGPL-2.1-or-later
//! Random descriptions, devices and streams.

use super::fixture::*;
use crate::ffi::vmstate::types::{VMStateDescription, VMStateField, VMStateInfo};
use crate::ffi::vmstate::*;
use crate::wire::limits::Limits;
use proptest::prelude::*;
use std::ffi::{CStr, CString, c_void};

/// A field to generate.
#[derive(Clone, Debug)]
enum Part {
    /// Integers of a width, in place.
    Integers { width: usize, count: usize },
    /// An array in place. A member gives the number of used elements.
    Used { width: usize, room: usize },
    /// The same, allocated by the load.
    Allocated { width: usize },
    /// Bytes.
    Buffer(usize),
    /// Unused bytes.
    Unused(usize),
    /// Pointers to bytes, some of them null.
    Pointers(Vec<bool>),
    /// Structures.
    Structs { parts: Vec<Part>, count: usize },
    /// A queue of structures.
    Queue(Vec<Part>),
    /// An integer that only later versions have.
    Later,
}

fn part() -> impl Strategy<Value = Part> {
    let width = || prop::sample::select(vec![1usize, 2, 4, 8]);
    let leaf = prop_oneof![
        4 => (width(), 0usize..40).prop_map(|(width, count)| Part::Integers { width, count }),
        1 => (width(), 1usize..6).prop_map(|(width, room)| Part::Used { width, room }),
        1 => width().prop_map(|width| Part::Allocated { width }),
        1 => (0usize..300).prop_map(Part::Buffer),
        1 => (0usize..40).prop_map(Part::Unused),
        1 => prop::collection::vec(any::<bool>(), 0..4).prop_map(Part::Pointers),
        1 => Just(Part::Later),
    ];
    leaf.prop_recursive(3, 40, 4, |part| {
        let parts = prop::collection::vec(part, 0..4);
        prop_oneof![
            2 => (parts.clone(), 0usize..4).prop_map(|(parts, count)| Part::Structs { parts, count }),
            1 => parts.prop_map(Part::Queue),
        ]
    })
}

/// A description, its size, and the values that a device needs to differ from zero.
struct Type {
    table: &'static VMStateDescription,
    size: usize,
    setup: Vec<(usize, Setup)>,
}

/// A value that must not be random bytes, at an offset.
#[derive(Clone)]
enum Setup {
    /// A 32-bit count up to this.
    Count(u32),
    /// A pointer to an array of this width. The 32-bit count precedes it.
    Array(usize),
    Pointer(bool),
    QueueHead,
}

fn info(width: usize) -> &'static VMStateInfo {
    match width {
        1 => &vmstate_info_uint8,
        2 => &vmstate_info_uint16,
        4 => &vmstate_info_int32,
        _ => &vmstate_info_int64,
    }
}

/// Places fields one after the other, as a compiler does.
struct Layout {
    fields: Vec<VMStateField>,
    setup: Vec<(usize, Setup)>,
    size: usize,
}

impl Layout {
    fn place(&mut self, size: usize) -> usize {
        let at = self.size.next_multiple_of(8);
        self.size = at + size;
        at
    }

    fn name(&self) -> &'static CStr {
        Box::leak(CString::new(format!("f{}", self.fields.len())).unwrap().into_boxed_c_str())
    }

    fn push(&mut self, field: VMStateField) {
        self.fields.push(VMStateField { name: self.name().as_ptr(), ..field });
    }

    fn count(&mut self, most: u32) -> usize {
        let at = self.place(4);
        self.setup.push((at, Setup::Count(most)));
        self.push(plain(c"", at, 4, &vmstate_info_uint32));
        at
    }

    fn add(&mut self, part: &Part) {
        match part {
            Part::Integers { width, count } => {
                let at = self.place(width * count.max(&1));
                let array = VMStateField { num: *count as i32, flags: ARRAY, ..plain(c"", at, *width, info(*width)) };
                self.push(if *count == 1 { VMStateField { flags: 0, ..array } } else { array });
            }
            Part::Used { width, room } => {
                let num_offset = self.count(*room as u32);
                let (at, start) = (self.place(width * room), width * room);
                let field = plain(c"", at, *width, info(*width));
                self.push(VMStateField { num_offset, start, flags: VARRAY_UINT32, ..field });
            }
            Part::Allocated { width } => {
                let num_offset = self.count(0);
                let at = self.place(8);
                self.setup.push((at, Setup::Array(*width)));
                let field = plain(c"", at, *width, info(*width));
                self.push(VMStateField { num_offset, flags: VARRAY_UINT32 | POINTER | ALLOC, ..field });
            }
            Part::Buffer(size) => {
                let at = self.place(*size);
                self.push(plain(c"", at, *size, &vmstate_info_buffer));
            }
            Part::Unused(size) => self.push(plain(c"", 0, *size, &vmstate_info_unused_buffer)),
            Part::Pointers(present) => {
                let at = self.place(8 * present.len());
                self.setup.extend(present.iter().enumerate().map(|(n, is)| (at + 8 * n, Setup::Pointer(*is))));
                let array = plain(c"", at, 8, &vmstate_info_uint8);
                self.push(VMStateField { num: present.len() as i32, flags: ARRAY | ARRAY_OF_POINTER, ..array });
            }
            Part::Structs { parts, count } => {
                let inner = build(parts);
                let size = inner.size.next_multiple_of(8).max(8);
                let at = self.place(size * count);
                for n in 0..*count {
                    self.setup.extend(inner.setup.iter().cloned().map(|(in_it, what)| (at + n * size + in_it, what)));
                }
                let array = nested(c"", at, size, inner.table);
                self.push(VMStateField { num: *count as i32, flags: STRUCT | ARRAY, ..array });
            }
            Part::Queue(parts) => {
                // Elements that need values other than zero would not load into fresh memory.
                let integers = parts.iter().filter(|part| matches!(part, Part::Integers { .. })).cloned();
                let inner = build(&integers.collect::<Vec<_>>());
                let link = inner.size.next_multiple_of(8);
                let at = self.place(16);
                self.setup.push((at, Setup::QueueHead));
                let field = plain(c"", at, link + 16, &vmstate_info_qtailq);
                self.push(VMStateField { start: link, vmsd: inner.table, version_id: 1, ..field });
            }
            Part::Later => {
                let at = self.place(8);
                self.push(VMStateField { version_id: 2, ..plain(c"", at, 8, &vmstate_info_uint64) });
            }
        }
    }
}

fn build(parts: &[Part]) -> Type {
    let mut layout = Layout { fields: Vec::new(), setup: Vec::new(), size: 0 };
    parts.iter().for_each(|part| layout.add(part));
    let table = leak(table(c"random", layout.fields));
    Type { table, size: layout.size, setup: layout.setup }
}

/// A device's memory, followed by bytes that must not change. Its allocations are leaked, because these are tests.
struct Device(Vec<u64>);

const BEHIND: [u64; 32] = [0x5afe; 32];

impl Device {
    /// Returns a device with bytes from a generator that starts at `seed`.
    fn new(kind: &Type, seed: u64) -> Self {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 32
        };
        let mut memory: Vec<u64> = (0..kind.size.div_ceil(8)).map(|_| next() << 32 | next()).collect();
        memory.extend(BEHIND);
        let base: *mut u8 = memory.as_mut_ptr().cast();
        for (at, what) in &kind.setup {
            let place = base.wrapping_add(*at);
            // SAFETY: all values were placed inside the memory, at multiples of 8.
            unsafe {
                match what {
                    Setup::Count(most) => place.cast::<u32>().write(next() as u32 % (most + 1)),
                    Setup::Array(width) => {
                        let count = next() as u32 % 50;
                        let array: Vec<u64> = (0..50).map(|_| next()).collect();
                        place.sub(8).cast::<u32>().write(count);
                        place.cast::<*mut u8>().write(array.leak().as_mut_ptr().cast());
                        assert!(*width <= 8);
                    }
                    Setup::Pointer(false) => place.cast::<*mut u8>().write(std::ptr::null_mut()),
                    Setup::Pointer(true) => place.cast::<*mut u8>().write(Box::leak(Box::new(next() as u8))),
                    Setup::QueueHead => {
                        place.cast::<*mut u8>().write(std::ptr::null_mut());
                        place.add(8).cast::<*mut u8>().write(place);
                    }
                }
            }
        }
        Self(memory)
    }

    fn at(&mut self) -> *mut c_void {
        self.0.as_mut_ptr().cast()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn saved_state_loads_and_saves_equal(parts in prop::collection::vec(part(), 0..6), seed: u64) {
        let kind = build(&parts);
        let mut source = Device::new(&kind, seed);
        let saved = save_at(kind.table, source.at(), None);
        prop_assert_eq!(saved.ret, 0);
        let mut target = Device::new(&kind, !seed);
        // A byte 5 after a structure makes the reader peek for a subsection's name, as in QEMU. A name may extend past
        // the end, so as many bytes as the longest name follow the state.
        let stream = [&saved.bytes[..], &[0; 300]].concat();
        let loaded = load_at(kind.table, target.at(), &stream, 1);
        prop_assert_eq!((loaded.ret, loaded.latched, loaded.bytes), (0, 0, vec![0; 301]));
        prop_assert_eq!(save_at(kind.table, target.at(), None).bytes, saved.bytes);
    }

    #[test]
    fn cut_stream_does_not_load(parts in prop::collection::vec(part(), 1..6), seed: u64, cut: prop::sample::Index) {
        let kind = build(&parts);
        let saved = save_at(kind.table, Device::new(&kind, seed).at(), None);
        prop_assume!(!saved.bytes.is_empty());
        let cut = cut.index(saved.bytes.len());
        let file = crate::file::MigFile::new(
            std::sync::Arc::new(crate::channel::memory::Reader::new(saved.bytes[..cut].to_vec())),
            false,
        );
        let mut target = Device::new(&kind, !seed);
        let at = target.at();
        // SAFETY: the description is that of the device.
        let ret = unsafe { vmstate_load_state(crate::ffi::marshal::c_file::as_c(&file), kind.table, at, 1) };
        prop_assert!(ret < 0, "{}", ret);
    }

    #[test]
    fn random_stream_causes_no_harm(parts in prop::collection::vec(part(), 0..6), seed: u64, stream: Vec<u8>) {
        let limits = Limits { allocation: 1 << 16, list_elements: 100, ..Limits::default() };
        with_limits(limits, || {
            let kind = build(&parts);
            let mut device = Device::new(&kind, seed);
            let outcome = load_at(kind.table, device.at(), &stream, 1);
            assert!(device.0.ends_with(&BEHIND));
            if outcome.ret == 0 {
                assert_eq!(save_at(kind.table, device.at(), None).ret, 0);
            }
        });
    }
}
