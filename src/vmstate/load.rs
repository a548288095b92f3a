// SPDX-License-Identifier: LGPL-2.1-or-later
//! Loading (QEMU 7.2, `vmstate_load_state` and `vmstate_subsection_load` in `migration/vmstate.c`). Descriptions of QEMU 6.2
//! and older may have a function for streams of older versions, which replaces the loading of their fields.

use super::io::{Io, element_text, nested, subsection_text, text};
use super::model::{Description, Direction, Extent, Field, FieldShape, Item, Items, Kind, State, flags};
use super::{get, trace};
use crate::error;
use crate::wire;

/// Loads what `save_state` wrote in that version.
///
/// Returns 0 or QEMU's codes: `-EINVAL` for a version that cannot be loaded, -1 for a field that must exist and does
/// not, `-ENOENT` for an unknown subsection, the result of a hook or an info, or the file's error. The state may be
/// partly loaded after an error. Errors of fields are latched in the file.
pub fn load_state<S: State>(io: &Io<'_>, state: S, version: i32) -> i32 {
    nested(io, &state, || {
        trace::load(io, &state, version);
        let description = state.description();
        let older = version < description.minimum_version();
        if let Some(ret) = older.then(|| state.load_old(io.file, version)).flatten() {
            trace::load_end(io, &state, "old path", ret);
            return if ret == 0 { 0 } else { io.fail_callback("load_state_old", ret) };
        }
        let ret = check_version(io, &description, version);
        if ret != 0 {
            trace::load_end(io, &state, misfit(&description, version), ret);
            return ret;
        }
        let ret = state.pre_load(io.file);
        if ret != 0 {
            return io.fail_callback("pre_load", ret);
        }
        let ret = load_fields(io, &state, version);
        if ret != 0 {
            return ret;
        }
        let ret = load_subsections(io, &state);
        if ret != 0 {
            if io.host.latches_subsections() {
                io.file.set_error(ret);
            }
            return ret;
        }
        let ret = state.post_load(io.file, version);
        trace::load_end(io, &state, "end", ret);
        match ret {
            0 => 0,
            ret => io.fail_callback("post_load", ret),
        }
    })
}

/// Returns QEMU's words for a version that a description cannot load.
pub(super) fn misfit<D: Description>(description: &D, version: i32) -> &'static str {
    if version > description.version() { "too new" } else { "too old" }
}

/// Checks that a description can load a version.
#[inline]
pub(super) fn check_version<D: Description>(io: &Io<'_>, description: &D, version: i32) -> i32 {
    let (newest, oldest) = (description.version(), description.minimum_version());
    if version > newest || version < oldest {
        return io.fail(libc::EINVAL, format!("version {version} in the stream, {oldest} to {newest} can be read"));
    }
    0
}

#[inline]
fn load_fields<S: State>(io: &Io<'_>, state: &S, version: i32) -> i32 {
    for field in state.fields() {
        let bits = field.flags();
        trace::load_field(io, state, field);
        if !field.exists(version) {
            if bits & flags::MUST_EXIST != 0 {
                // The only failure without an errno. It is not latched.
                io.fail(1, "the loaded state is not valid");
                return io.in_path(-1, text(field.shape().name()));
            }
            continue;
        }
        trace::elements(io, field);
        if bits & flags::NOT_PLAIN == 0 {
            let ret = load_plain(io, field);
            if ret < 0 {
                return failed(io, ret, field, 0, 1);
            }
        } else if bits & flags::NOT_PLAIN == flags::STRUCT {
            let ret = load_struct(io, field);
            if ret < 0 {
                return failed(io, ret, field, 0, 1);
            }
        } else {
            let ret = load_elements(io, field);
            if ret < 0 {
                return ret;
            }
        }
    }
    0
}

/// Latches the error of a field in the file, adds the element to its path, and returns the code.
#[cold]
fn failed<F: Field>(io: &Io<'_>, ret: i32, field: F, at: usize, count: usize) -> i32 {
    trace::load_field_error(io, field, ret);
    io.file.set_error(ret);
    io.in_path(ret, element_text(field.shape().name(), at, count))
}

/// Returns the result of an element: its own error, else the file's.
#[inline]
fn verdict(io: &Io<'_>, ret: i32) -> i32 {
    if ret < 0 {
        return ret;
    }
    match io.file.error() {
        code if code < 0 => io.fail_file(code),
        _ => 0,
    }
}

/// Loads one structure in place.
#[inline]
fn load_struct<F: Field>(io: &Io<'_>, field: F) -> i32 {
    let ret = match field.single(Kind::Struct).and_then(|item| item.state()) {
        Some(inner) => load_state(io, inner, inner.description().version()),
        None => io.fail(libc::EINVAL, "a structure without description or memory"),
    };
    verdict(io, ret)
}

/// Loads one element in place, usually an integer.
#[inline(always)]
fn load_plain<F: Field>(io: &Io<'_>, field: F) -> i32 {
    let kind = field.kind(Direction::Load);
    match field.single(kind) {
        Some(item) if get::word(io.file, item, kind) => verdict(io, 0),
        _ => load_other(io, field, kind),
    }
}

/// Loads one element in place that is not a plain integer.
#[inline(never)]
fn load_other<F: Field>(io: &Io<'_>, field: F, kind: Kind) -> i32 {
    let ret = match field.single(kind) {
        Some(item) => get::item(io, &item, kind),
        None => io.fail(libc::EINVAL, "the device has no memory"),
    };
    verdict(io, ret)
}

fn load_elements<F: Field>(io: &Io<'_>, field: F) -> i32 {
    let bits = field.flags();
    let structs = bits & (flags::STRUCT | flags::VSTRUCT) != 0;
    let kind = if structs { Kind::Struct } else { field.kind(Direction::Load) };
    let fail = |errno, message: String| failed(io, io.fail(errno, message), field, 0, 1);
    let extent = match Extent::of(&field, kind) {
        Ok(extent) => extent,
        Err(complaint) => return fail(libc::EINVAL, complaint),
    };
    if bits & flags::POINTER != 0 && bits & flags::ALLOC != 0 && extent.bytes() > 0 {
        if !io.file.charge(extent.bytes(), io.limits.allocation) {
            let Extent { count, size } = extent;
            let before = match io.file.allocated() {
                0 => String::new(),
                bytes => format!(" after {} before", error::size(bytes as u64)),
            };
            let (size, limit) = (error::size(size as u64), error::size(io.limits.allocation as u64));
            let message = format!("{count} elements of {size}{before}, at most {limit} allowed");
            return fail(libc::EINVAL, message);
        }
        if !field.allocate(extent.bytes()) {
            return fail(libc::ENOMEM, format!("no memory for {}", error::size(extent.bytes() as u64)));
        }
    }
    if extent.count == 0 {
        return 0;
    }
    let Some(items) = field.items(extent, kind) else {
        return fail(libc::EINVAL, "a null pointer".into());
    };
    if items.is_run() && get::is_plain(kind) {
        let at = items.get_run(io.file);
        let ret = verdict(io, 0);
        return if ret < 0 { failed(io, ret, field, at.min(extent.count - 1), extent.count) } else { 0 };
    }
    for at in 0..extent.count {
        let ret = verdict(io, load_element(io, &field, items.get(at), kind, extent));
        if ret < 0 {
            return failed(io, ret, field, at, extent.count);
        }
    }
    0
}

#[inline]
fn load_element<F: Field>(io: &Io<'_>, field: &F, item: F::Item, kind: Kind, extent: Extent) -> i32 {
    let bits = field.flags();
    if item.is_null() && extent.size > 0 {
        if bits & flags::ARRAY_OF_POINTER == 0 {
            return io.fail(libc::EINVAL, "a null pointer");
        }
        return get::null_marker(io);
    }
    if bits & (flags::STRUCT | flags::VSTRUCT) == 0 {
        return get::item(io, &item, kind);
    }
    let Some(inner) = item.state() else {
        return io.fail(libc::EINVAL, "a structure without description or memory");
    };
    let own = inner.description().version();
    let version = if bits & flags::STRUCT != 0 { own } else { field.struct_version() };
    load_state(io, inner, version)
}

/// Loads subsections as long as the next one belongs to this description.
#[inline]
fn load_subsections<S: State>(io: &Io<'_>, state: &S) -> i32 {
    trace::of(io, "vmstate_subsection_load", state);
    while io.file.peek_byte(0) == wire::SUBSECTION {
        match load_subsection(io, state) {
            Ok(true) => {}
            Ok(false) => return 0,
            Err(ret) => return ret,
        }
    }
    trace::of(io, "vmstate_subsection_load_good", state);
    0
}

/// Loads a subsection. Returns false, and reads nothing, if something else follows.
///
/// The byte that begins a subsection may also belong to whatever follows the state. As in QEMU, the name is peeked at
/// first. A name that cannot be one of this description ends the search without an error.
#[inline(never)]
fn load_subsection<S: State>(io: &Io<'_>, state: &S) -> Result<bool, i32> {
    let file = io.file;
    let description = state.description();
    let own = description.name();
    let len = usize::from(file.peek_byte(1));
    if len < own.len() + 1 {
        trace::bad_subsection(io, own, b"(short)", "");
        return Ok(false);
    }
    let mut name = [0; 255];
    let name = &mut name[..len];
    if file.peek_into(name, 2) != len {
        trace::bad_subsection(io, own, b"(peek fail)", "");
        return Ok(false);
    }
    let until_nul = name.iter().position(|byte| *byte == 0).unwrap_or(len);
    let wanted = &name[..until_nul];
    if !name.starts_with(own) {
        trace::bad_subsection(io, own, wanted, "(prefix)");
        return Ok(false);
    }
    let Some(subsection) = state.subsections().find(|sub| sub.description().name() == wanted) else {
        trace::bad_subsection(io, own, wanted, "(lookup)");
        return Err(io.fail(libc::ENOENT, format!("unknown subsection '{}'", text(wanted))));
    };
    file.skip(1);
    file.skip(1);
    file.skip(len);
    // QEMU keeps the version in a byte.
    let version = i32::from(file.get_be32() as u8);
    match load_state(io, subsection, version) {
        0 => Ok(true),
        ret => {
            trace::bad_subsection(io, own, wanted, "(child)");
            Err(io.in_path(ret, subsection_text(own, wanted)))
        }
    }
}
