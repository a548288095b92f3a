// SPDX-License-Identifier: LGPL-2.1-or-later
//! Saves one element of a known kind (QEMU 7.2, the `put_*` of `migration/vmstate-types.c`).

use super::io::Io;
use super::model::{Fresh, Item, Kind, State};
use super::record::Recorder;
use super::save::save_state;
use super::{CHUNK, NULL_MARKER, containers};
use crate::file::MigFile;

/// Saves an element. Returns 0 or the result of the info.
pub(crate) fn item<I: Item>(io: &Io<'_>, item: &I, kind: Kind, recorder: Option<&Recorder>) -> i32 {
    if kind == Kind::NullPointer {
        if item.is_null() {
            io.file.put_byte(NULL_MARKER);
            return 0;
        }
        return io.fail(libc::EINVAL, "a pointer that is not null where only null can be saved");
    }
    if item.is_null() && kind != Kind::Custom {
        return if item.size() == 0 && kind == Kind::Buffer { 0 } else { io.fail(libc::EINVAL, "a null pointer") };
    }
    match kind {
        Kind::Buffer => item.put_bytes(io.file),
        Kind::Unused => zeros(io.file, item.size()),
        Kind::Bitmap => (0..item.size().div_ceil(64)).for_each(|at| io.file.put_be64(item.bitmap_word(at))),
        Kind::Timer => return timer(io, item),
        Kind::Tmp => return tmp(io, item, recorder),
        Kind::TailQueue | Kind::List => return containers::save_list(io, item, kind, recorder),
        Kind::Tree => return containers::save_tree(io, item, recorder),
        Kind::Descriptor => return descriptor(io, item),
        Kind::Custom => {
            let ret = item.put_custom(io.file, recorder);
            return if ret == 0 { 0 } else { io.fail_callback("put", ret) };
        }
        _ if word(io.file, *item, kind.without_check()) => {}
        _ => return io.fail(libc::EINVAL, "a field that is neither a structure nor has an info"),
    }
    0
}

/// Saves an integer. Returns false and writes nothing for every other kind.
#[inline(always)]
pub(super) fn word<I: Item>(file: &MigFile, item: I, kind: Kind) -> bool {
    match kind {
        Kind::U8 | Kind::Bool => file.put_byte(item.load::<1>()[0]),
        Kind::U16 => file.put_be16(u16::from_ne_bytes(item.load())),
        Kind::U32 => file.put_be32(u32::from_ne_bytes(item.load())),
        Kind::U64 => file.put_be64(u64::from_ne_bytes(item.load())),
        _ => return false,
    }
    true
}

fn zeros(file: &MigFile, size: usize) {
    static ZEROS: [u8; CHUNK] = [0; CHUNK];
    let mut rest = size;
    while rest > 0 && file.error() == 0 {
        let now = rest.min(CHUNK);
        file.put(&ZEROS[..now]);
        rest -= now;
    }
}

fn timer<I: Item>(io: &Io<'_>, item: &I) -> i32 {
    match io.host.timer_expire_ns(item.timer()) {
        Some(expire) => {
            io.file.put_be64(expire as u64);
            0
        }
        None => io.fail(libc::ENOSYS, "the host has no operation to read a timer"),
    }
}

fn descriptor<I: Item>(io: &Io<'_>, item: &I) -> i32 {
    let fd = i32::from_ne_bytes(item.load());
    if io.host.keeps_descriptors() {
        io.file.put_be32(fd as u32);
        return 0;
    }
    if fd < 0 {
        return io.fail(libc::EBADF, format!("expected an open descriptor, the device has {fd}"));
    }
    io.file.put_descriptor(fd);
    match io.file.error() {
        0 => 0,
        code => io.fail_file(code),
    }
}

fn tmp<I: Item>(io: &Io<'_>, item: &I, recorder: Option<&Recorder>) -> i32 {
    let Some(fresh) = item.fresh_tmp() else {
        return io.fail(libc::ENOMEM, "no memory for the temporary structure, or no room in it for its parent");
    };
    let state = fresh.state();
    let version = super::model::Description::version(&state.description());
    save_state(io, state, version, recorder)
}
