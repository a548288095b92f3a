// SPDX-License-Identifier: LGPL-2.1-or-later
//! The `vmstate_info_*` objects: statics of the library, which programs compare by address (QEMU 7.2,
//! `migration/vmstate-types.c`; the timer in `migration/savevm.c`).
//!
//! The interpreter does not call them: it recognises them and handles their elements itself. C may call them.

use super::items::CItem;
use super::layout::{Getter, Layout, Putter, with_layout};
use super::recorder_ref;
use super::types::GetFn;
use super::types::PutFn;
use super::types::VMStateField;
use super::types::VMStateInfo;
use super::with_io;
use crate::ffi::abi;
use crate::ffi::marshal::c_file::file_ref;
use crate::ffi::marshal::current;
use crate::ffi::marshal::guard::guard;
use crate::ffi::marshal::opaque::{JSONWriter, QEMUFile};
use crate::vmstate::model::{Direction, Kind};
use crate::vmstate::{get_item, put_item};
use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

/// Bytes for a name. All names are in one array, so an info is recognised by the address of its name.
const NAME_SIZE: usize = 16;

const fn padded(name: &str) -> [u8; NAME_SIZE] {
    let mut padded = [0; NAME_SIZE];
    let bytes = name.as_bytes();
    assert!(bytes.len() < NAME_SIZE);
    let mut at = 0;
    while at < bytes.len() {
        padded[at] = bytes[at];
        at += 1;
    }
    padded
}

/// An info of the library. The size is a power of two, for a cheap index.
#[repr(align(32))]
struct OwnInfo {
    get: GetFn,
    put: PutFn,
    /// The kind for `get`, and the kind for `put`. Checks only concern loading.
    kinds: (Kind, Kind),
}

macro_rules! infos {
    ($count:literal: $($(#[$doc:meta])* $index:literal $symbol:ident $name:literal $kind:ident;)*) => {
        static NAMES: [[u8; NAME_SIZE]; $count] = [$(padded($name)),*];

        static OWN_INFOS: [OwnInfo; $count] = [$(
            OwnInfo {
                get: get::<{ Kind::$kind as u8 }>,
                put: put::<{ Kind::$kind as u8 }>,
                kinds: (Kind::$kind, Kind::$kind.without_check()),
            },
        )*];

        $(
            $(#[$doc])*
            #[allow(non_upper_case_globals)]
            #[unsafe(no_mangle)]
            pub static $symbol: VMStateInfo = VMStateInfo {
                name: (&raw const NAMES[$index]).cast(),
                get: Some(get::<{ Kind::$kind as u8 }>),
                put: Some(put::<{ Kind::$kind as u8 }>),
            };
        )*

        /// The infos, in the order of `OWN_INFOS`.
        static OWN_ADDRESSES: [&VMStateInfo; $count] = [$(&$symbol),*];

        const fn kind_of(number: u8) -> Kind {
            $(if number == Kind::$kind as u8 { return Kind::$kind; })*
            Kind::Custom
        }
    };
}

infos! { 26:
    /// `bool`
    0 vmstate_info_bool "bool" Bool;
    /// `int8_t`
    1 vmstate_info_int8 "int8" U8;
    /// `int16_t`
    2 vmstate_info_int16 "int16" U16;
    /// `int32_t`
    3 vmstate_info_int32 "int32" U32;
    /// `int64_t`
    4 vmstate_info_int64 "int64" U64;
    /// `uint8_t`
    5 vmstate_info_uint8 "uint8" U8;
    /// `uint16_t`
    6 vmstate_info_uint16 "uint16" U16;
    /// `uint32_t`
    7 vmstate_info_uint32 "uint32" U32;
    /// `uint64_t`
    8 vmstate_info_uint64 "uint64" U64;
    /// `uint8_t` that must be equal
    9 vmstate_info_uint8_equal "uint8 equal" EqualU8;
    /// `uint16_t` that must be equal
    10 vmstate_info_uint16_equal "uint16 equal" EqualU16;
    /// `int32_t` that must be equal
    11 vmstate_info_int32_equal "int32 equal" EqualU32;
    /// `uint32_t` that must be equal
    12 vmstate_info_uint32_equal "uint32 equal" EqualU32;
    /// `uint64_t` that must be equal; the name is QEMU's
    13 vmstate_info_uint64_equal "int64 equal" EqualU64;
    /// `int32_t` that must not be negative or larger
    14 vmstate_info_int32_le "int32 le" AtMostI32;
    /// `CPU_DoubleU`
    15 vmstate_info_cpudouble "CPU_Double_U" Double;
    /// a timer of the host
    16 vmstate_info_timer "timer" Timer;
    /// bytes
    17 vmstate_info_buffer "buffer" Buffer;
    /// bytes that are no longer used
    18 vmstate_info_unused_buffer "unused_buffer" Unused;
    /// a temporary structure
    19 vmstate_info_tmp "tmp" Tmp;
    /// bits in words of the machine
    20 vmstate_info_bitmap "bitmap" Bitmap;
    /// a tail queue
    21 vmstate_info_qtailq "qtailq" TailQueue;
    /// a list
    22 vmstate_info_qlist "qlist" List;
    /// a balanced tree
    23 vmstate_info_gtree "gtree" Tree;
    /// the marker for a null pointer; the name is QEMU's
    24 vmstate_info_nullptr "uint64" NullPointer;
    /// an open descriptor
    25 vmstate_info_fd "fd" Descriptor;
}

/// Returns how an info stores its elements, as far as the function of `direction` is concerned.
///
/// # Safety
/// `info` must be NULL, one of the library's, or an info of that layout.
#[inline]
pub(super) unsafe fn kind<L: Layout>(layout: L, info: *const VMStateInfo, direction: Direction) -> Kind {
    let Some(info) = NonNull::new(info.cast_mut()) else { return Kind::Custom };
    if !L::NATIVE_INFOS {
        // The library's own infos are shorter than those of the layout may be.
        let own = OWN_ADDRESSES.iter().position(|own| std::ptr::eq(*own, info.as_ptr()));
        return own.map_or(Kind::Custom, |at| match direction {
            Direction::Save => OWN_INFOS[at].kinds.1,
            Direction::Load => OWN_INFOS[at].kinds.0,
        });
    }
    // SAFETY: `info` is an info of that layout (contract of `kind`).
    let name = unsafe { layout.info_name(info) };
    let offset = (name as usize).wrapping_sub(NAMES.as_ptr() as usize);
    if offset >= size_of_val(&NAMES) {
        return Kind::Custom;
    }
    let known = &OWN_INFOS[offset / NAME_SIZE];
    let (theirs, ours, kind) = match direction {
        Direction::Save => {
            // SAFETY: `info` is an info of that layout (contract of `kind`).
            let putter = unsafe { layout.putter(info) };
            (if let Putter::Code(put) = putter { put as usize } else { 0 }, known.put as usize, known.kinds.1)
        }
        Direction::Load => {
            // SAFETY: as above.
            let getter = unsafe { layout.getter(info) };
            (if let Getter::Code(get) = getter { get as usize } else { 0 }, known.get as usize, known.kinds.0)
        }
    };
    if theirs == ours { kind } else { Kind::Custom }
}

unsafe extern "C" fn get<const KIND: u8>(
    f: *mut QEMUFile,
    pv: *mut c_void,
    size: usize,
    field: *const VMStateField,
) -> c_int {
    guard(-libc::EIO, || {
        // SAFETY: C calls an info's function with a file.
        let Some(file) = (unsafe { file_ref(f) }) else { return -libc::EINVAL };
        let vm = current::current();
        with_layout!(abi::of_context(&vm), |layout| {
            // SAFETY: C calls an info's function with memory and a field of this context's layout that fit the info.
            let item = unsafe { CItem::new(layout, field, pv, size, const { kind_of(KIND) }) };
            let Some(item) = item else { return -libc::EINVAL };
            with_io(&vm, file, |io| get_item(io, &item, const { kind_of(KIND) }))
        })
    })
}

unsafe extern "C" fn put<const KIND: u8>(
    f: *mut QEMUFile,
    pv: *mut c_void,
    size: usize,
    field: *const VMStateField,
    vmdesc: *mut JSONWriter,
) -> c_int {
    guard(-libc::EIO, || {
        // SAFETY: C calls an info's function with a file, and `vmdesc` is what a `put` received, or NULL.
        let (file, recorder) = unsafe { (file_ref(f), recorder_ref(vmdesc)) };
        let Some(file) = file else { return -libc::EINVAL };
        let vm = current::current();
        with_layout!(abi::of_context(&vm), |layout| {
            // SAFETY: C calls an info's function with memory and a field of this context's layout that fit the info.
            let item = unsafe { CItem::new(layout, field, pv, size, const { kind_of(KIND) }) };
            let Some(item) = item else { return -libc::EINVAL };
            with_io(&vm, file, |io| put_item(io, &item, const { kind_of(KIND) }, recorder))
        })
    })
}
