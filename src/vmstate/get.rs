// SPDX-License-Identifier: LGPL-2.1-or-later
//! Loads one element of a known kind (QEMU 7.2, the `get_*` of `migration/vmstate-types.c`).

use super::io::Io;
use super::load::load_state;
use super::model::{Fresh, Item, Kind};
use super::{CHUNK, NULL_MARKER, containers};
use crate::file::MigFile;
use std::fmt::{Display, LowerHex};
use std::os::fd::IntoRawFd;

/// Returns whether a kind is an integer that is stored without a check.
#[inline]
pub(super) fn is_plain(kind: Kind) -> bool {
    matches!(kind, Kind::Bool | Kind::U8 | Kind::U16 | Kind::U32 | Kind::U64 | Kind::Double)
}

/// Loads an element. Returns 0 or the result of the info. The file may have an error as well.
pub(crate) fn item<I: Item>(io: &Io<'_>, item: &I, kind: Kind) -> i32 {
    if kind == Kind::NullPointer {
        return null_marker(io);
    }
    if item.is_null() && !matches!(kind, Kind::Custom | Kind::Unused) {
        return if item.size() == 0 && kind == Kind::Buffer { 0 } else { io.fail(libc::EINVAL, "a null pointer") };
    }
    match kind {
        Kind::EqualU8 => equal(io, item, u8::from_ne_bytes(item.load()), io.file.get_byte()),
        Kind::EqualU16 => equal(io, item, u16::from_ne_bytes(item.load()), io.file.get_be16()),
        Kind::EqualU32 => equal(io, item, u32::from_ne_bytes(item.load()), io.file.get_be32()),
        Kind::EqualU64 => equal(io, item, u64::from_ne_bytes(item.load()), io.file.get_be64()),
        Kind::AtMostI32 => at_most(io, item),
        Kind::Buffer => {
            io.file.get_into(item.span());
            0
        }
        Kind::Unused => discard(io.file, item.size()),
        Kind::Bitmap => bitmap(io.file, item),
        Kind::Timer => timer(io, item),
        Kind::Tmp => tmp(io, item),
        Kind::TailQueue => containers::load_tail_queue(io, item),
        Kind::List => containers::load_list(io, item),
        Kind::Tree => containers::load_tree(io, item),
        Kind::Descriptor => descriptor(io, item),
        Kind::Custom => match item.get_custom(io.file) {
            ret if ret < 0 => io.fail_callback("get", ret),
            ret => ret,
        },
        _ if word(io.file, *item, kind) => 0,
        _ => io.fail(libc::EINVAL, "a field that is neither a structure nor has an info"),
    }
}

/// Reads the marker of a null pointer.
pub(super) fn null_marker(io: &Io<'_>) -> i32 {
    match io.file.get_byte() {
        NULL_MARKER => 0,
        other => {
            let message = format!("the device has a null pointer, whose marker is {NULL_MARKER:#x}; got {other:#x}");
            io.fail(libc::EINVAL, message)
        }
    }
}

/// Loads an integer that is stored without a check. Returns false and reads nothing for every other kind.
#[inline(always)]
pub(super) fn word<I: Item>(file: &MigFile, item: I, kind: Kind) -> bool {
    match kind {
        Kind::U8 => item.store([file.get_byte()]),
        Kind::U16 => item.store(file.get_be16().to_ne_bytes()),
        Kind::U32 => item.store(file.get_be32().to_ne_bytes()),
        Kind::U64 => item.store(file.get_be64().to_ne_bytes()),
        Kind::Double => item.store(file.get_be64().to_ne_bytes()),
        Kind::Bool => item.store([u8::from(file.get_byte() != 0)]),
        _ => return false,
    }
    true
}

fn equal<I: Item, T: PartialEq + LowerHex>(io: &Io<'_>, item: &I, have: T, got: T) -> i32 {
    if have == got {
        return 0;
    }
    refuse(io, item, format!("expected {have:#x} as the device has it, got {got:#x}"))
}

fn at_most<I: Item>(io: &Io<'_>, item: &I) -> i32 {
    let have = i32::from_ne_bytes(item.load());
    let got = io.file.get_be32() as i32;
    if got < 0 || got > have {
        return refuse(io, item, format!("expected 0 to {have}, got {got}"));
    }
    item.store(got.to_ne_bytes());
    0
}

#[cold]
fn refuse<I: Item>(io: &Io<'_>, item: &I, what: impl Display) -> i32 {
    match item.hint() {
        Some(hint) => io.fail(libc::EINVAL, format!("{what}; {hint}")),
        None => io.fail(libc::EINVAL, what.to_string()),
    }
}

fn discard(file: &MigFile, size: usize) -> i32 {
    let mut chunk = [0; CHUNK];
    let mut rest = size;
    while rest > 0 {
        match file.get(&mut chunk[..rest.min(CHUNK)]) {
            0 => break,
            got => rest -= got,
        }
    }
    0
}

fn bitmap<I: Item>(file: &MigFile, item: &I) -> i32 {
    for at in 0..item.size().div_ceil(64) {
        item.set_bitmap_word(at, file.get_be64());
        if file.error() != 0 {
            break;
        }
    }
    0
}

fn timer<I: Item>(io: &Io<'_>, item: &I) -> i32 {
    let expire = io.file.get_be64() as i64;
    let done = match expire {
        -1 => io.host.timer_clear(item.timer()),
        _ => io.host.timer_set_ns(item.timer(), expire),
    };
    match done {
        Some(()) => 0,
        None => io.fail(libc::ENOSYS, "the host has no operation to set a timer"),
    }
}

fn descriptor<I: Item>(io: &Io<'_>, item: &I) -> i32 {
    if io.host.keeps_descriptors() {
        item.store((io.file.get_be32() as i32).to_ne_bytes());
        return 0;
    }
    match io.file.get_descriptor() {
        Some(fd) => {
            item.store(fd.into_raw_fd().to_ne_bytes());
            0
        }
        None => {
            item.store((-1i32).to_ne_bytes());
            io.fail_file(io.file.error().min(-1))
        }
    }
}

fn tmp<I: Item>(io: &Io<'_>, item: &I) -> i32 {
    let Some(fresh) = item.fresh_tmp() else {
        return io.fail(libc::ENOMEM, "no memory for the temporary structure, or no room in it for its parent");
    };
    load_state(io, fresh.state(), item.element_version())
}
