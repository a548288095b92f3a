// SPDX-License-Identifier: LGPL-2.1-or-later
//! Saving (QEMU 7.2, `vmstate_save_state_v` and `vmstate_subsection_save` in `migration/vmstate.c`).

use super::io::{Io, element_text, nested, subsection_text, text};
use super::model::{Description, Direction, Extent, Field, FieldShape, Item, Items, Kind, State, flags};
use super::record::Recorder;
use super::{NULL_MARKER, put, trace};
use crate::wire;

/// Saves a device, or a structure in one, in the given version. Records what was written for the vmdesc.
///
/// Returns 0, or the first other code: of a hook, an info, or the interpreter (`-EINVAL` where QEMU asserts). Errors of
/// the file itself are latched there and not returned.
pub fn save_state<S: State>(io: &Io<'_>, state: S, version: i32, recorder: Option<&Recorder>) -> i32 {
    nested(io, &state, || {
        trace::of(io, "vmstate_save_state_top", &state);
        let ret = state.pre_save(io.file);
        trace::pre_saved(io, &state, ret);
        if ret != 0 {
            return io.fail_callback("pre_save", ret);
        }
        if let Some(recorder) = recorder {
            recorder.describe(&state.description(), version);
        }
        let mut ret = save_fields(io, &state, version, recorder);
        if ret == 0 {
            if let Some(recorder) = recorder {
                recorder.fields_end();
            }
            ret = save_subsections(io, &state, recorder);
        }
        let post = state.post_save(io.file);
        if ret == 0 && post != 0 {
            ret = io.fail_callback("post_save", post);
        }
        ret
    })
}

#[inline]
fn save_fields<S: State>(io: &Io<'_>, state: &S, version: i32, recorder: Option<&Recorder>) -> i32 {
    for (index, field) in state.fields().enumerate() {
        let bits = field.flags();
        if !field.exists(version) {
            if bits & flags::MUST_EXIST == 0 {
                continue;
            }
            let ret = io.fail(libc::EINVAL, "the state that is to be saved is not valid");
            return io.in_path(ret, text(field.shape().name()));
        }
        trace::save_field(io, state, field);
        let ret = if bits & flags::NOT_PLAIN == 0 {
            save_plain(io, field, index, recorder)
        } else if bits & flags::NOT_PLAIN == flags::STRUCT && recorder.is_none() {
            save_struct(io, field)
        } else {
            let ret = save_elements(io, field, index, recorder);
            if ret != 0 {
                return ret;
            }
            continue;
        };
        if ret != 0 {
            return io.in_path(ret, text(field.shape().name()));
        }
    }
    0
}

/// Saves one structure in place.
#[inline]
fn save_struct<F: Field>(io: &Io<'_>, field: F) -> i32 {
    match field.single(Kind::Struct).and_then(|item| item.state()) {
        Some(inner) => save_state(io, inner, inner.description().version(), None),
        None => io.fail(libc::EINVAL, "a structure without description or memory"),
    }
}

/// Saves one element in place, usually an integer.
#[inline(always)]
fn save_plain<F: Field>(io: &Io<'_>, field: F, index: usize, recorder: Option<&Recorder>) -> i32 {
    let kind = field.kind(Direction::Save);
    match field.single(kind) {
        Some(item) if put::word(io.file, item, kind) => {
            if let Some(recorder) = recorder {
                recorder.leaf(index, 1, kind.width());
            }
            0
        }
        _ => save_other(io, field, kind, index, recorder),
    }
}

/// Saves one element in place that is not an integer.
#[inline(never)]
fn save_other<F: Field>(io: &Io<'_>, field: F, kind: Kind, index: usize, recorder: Option<&Recorder>) -> i32 {
    let Some(item) = field.single(kind) else {
        return io.fail(libc::EINVAL, "the device has no memory");
    };
    let Some(recorder) = recorder else {
        return put::item(io, &item, kind, None);
    };
    recorder.element_start(index, 0, 1, false);
    let before = io.file.total_transferred_fast();
    let ret = put::item(io, &item, kind, Some(recorder));
    recorder.element_end(io.file.total_transferred_fast() - before);
    ret
}

fn save_elements<F: Field>(io: &Io<'_>, field: F, index: usize, recorder: Option<&Recorder>) -> i32 {
    let structs = field.flags() & (flags::STRUCT | flags::VSTRUCT) != 0;
    let kind = if structs { Kind::Struct } else { field.kind(Direction::Save) };
    let shape = field.shape();
    let fail = |message: String| io.in_path(io.fail(libc::EINVAL, message), text(shape.name()));
    let extent = match Extent::of(&field, kind) {
        Ok(extent) if extent.count == 0 => return 0,
        Ok(extent) => extent,
        Err(complaint) => return fail(complaint),
    };
    let Some(items) = field.items(extent, kind) else {
        return fail("a null pointer".into());
    };
    if items.is_run() && (recorder.is_none() || !shape.is_conditional()) {
        items.put_run(io.file);
        if let Some(recorder) = recorder {
            recorder.leaf(index, extent.count, kind.width());
        }
        return 0;
    }
    let mut pieces = Pieces::new(recorder, &field, index, extent.count);
    for at in 0..extent.count {
        let is_null = |at| items.get(at).is_null() && extent.size > 0;
        let before = if pieces.start(at, is_null) { io.file.total_transferred_fast() } else { 0 };
        let ret = save_element(io, &field, items.get(at), kind, extent, pieces.open);
        if ret != 0 {
            return io.in_path(ret, element_text(shape.name(), at, extent.count));
        }
        pieces.end(|| io.file.total_transferred_fast() - before);
    }
    0
}

/// Records the elements of a field. If they look alike, the first stands for all.
///
/// From QEMU 10.0 on an array of pointers is recorded in pieces: each run of pointers, or of null pointers, has an element
/// that stands for the run. The quirks are QEMU's: the first run of pointers gets the length of the whole array, and the
/// last element of an array without such runs has no index.
struct Pieces<'a> {
    recorder: Option<&'a Recorder>,
    /// The recorder, unless an earlier element stands for this one.
    open: Option<&'a Recorder>,
    index: usize,
    count: usize,
    /// Whether the first element stands for all.
    compress: bool,
    /// Whether null pointers are recorded, and whether the array has pointers.
    nulls: bool,
    by_pointer: bool,
    after_null: bool,
}

impl<'a> Pieces<'a> {
    fn new<F: Field>(recorder: Option<&'a Recorder>, field: &F, index: usize, count: usize) -> Self {
        let nulls = recorder.is_some_and(Recorder::describes_nulls);
        let compress = recorder.is_some() && count > 1 && is_compressible(&field.shape(), 0, &mut 0);
        let by_pointer = field.flags() & flags::ARRAY_OF_POINTER != 0;
        Self { recorder, open: recorder, index, count, compress, nulls, by_pointer, after_null: false }
    }

    /// An element begins. Returns whether it is recorded.
    fn start(&mut self, at: usize, is_null: impl Fn(usize) -> bool) -> bool {
        let Some(recorder) = self.recorder else { return false };
        let mut count = self.count;
        let mut null = false;
        if self.nulls {
            count -= at;
            null = self.by_pointer && is_null(at);
            if null != self.after_null {
                self.after_null = null;
                self.open = Some(recorder);
                count = (at + 1..self.count).find(|next| is_null(*next) != null).unwrap_or(self.count) - at;
            }
        }
        let Some(open) = self.open else { return false };
        if null {
            open.nulls_start(self.index, count);
        } else {
            open.element_start(self.index, at, count, self.compress);
        }
        true
    }

    /// The element ends.
    fn end(&mut self, size: impl FnOnce() -> i64) {
        if let Some(open) = self.open {
            open.element_end(size());
            if self.compress {
                self.open = None;
            }
        }
    }
}

#[inline]
fn save_element<F: Field>(
    io: &Io<'_>,
    field: &F,
    item: F::Item,
    kind: Kind,
    extent: Extent,
    recorder: Option<&Recorder>,
) -> i32 {
    let bits = field.flags();
    if item.is_null() && extent.size > 0 {
        if bits & flags::ARRAY_OF_POINTER == 0 {
            return io.fail(libc::EINVAL, "a null pointer");
        }
        io.file.put_byte(NULL_MARKER);
        return 0;
    }
    if bits & (flags::STRUCT | flags::VSTRUCT) == 0 {
        return put::item(io, &item, kind, recorder);
    }
    let Some(inner) = item.state() else {
        return io.fail(libc::EINVAL, "a structure without description or memory");
    };
    let own = inner.description().version();
    let version = if bits & flags::STRUCT != 0 { own } else { field.struct_version() };
    save_state(io, inner, version, recorder)
}

/// Most fields that the next check visits: more than any device has. A description that contains itself ends the check.
/// (QEMU would not return.)
const SEARCH_LIMIT: usize = 1 << 16;

/// Returns whether all elements of an array look alike in the vmdesc, so that one of them stands for all.
fn is_compressible<F: FieldShape>(field: &F, depth: u32, seen: &mut usize) -> bool {
    *seen += 1;
    if field.is_conditional() || *seen > SEARCH_LIMIT || depth > 64 {
        return false;
    }
    match field.inner() {
        Some(inner) if field.flags() & flags::STRUCT != 0 => {
            inner.fields().all(|field| is_compressible(&field, depth + 1, seen)) && !inner.has_subsections()
        }
        _ => true,
    }
}

fn save_subsections<S: State>(io: &Io<'_>, state: &S, recorder: Option<&Recorder>) -> i32 {
    let mut first = true;
    trace::of(io, "vmstate_subsection_save_top", state);
    for subsection in state.subsections() {
        if !subsection.needed() {
            continue;
        }
        trace::save_subsection(io, state, &subsection);
        if let Some(recorder) = recorder {
            recorder.subsection_start(first);
        }
        first = false;
        let description = subsection.description();
        let name = description.name();
        // As in QEMU the length is cut to a byte. Such a stream cannot be loaded.
        let len = name.len() as u8;
        io.file.put_byte(wire::SUBSECTION);
        io.file.put_byte(len);
        io.file.put(&name[..usize::from(len)]);
        io.file.put_be32(description.version() as u32);
        let ret = save_state(io, subsection, description.version(), recorder);
        if ret != 0 {
            return io.in_path(ret, subsection_text(state.description().name(), name));
        }
        if let Some(recorder) = recorder {
            recorder.subsection_end();
        }
    }
    if let (Some(recorder), false) = (recorder, first) {
        recorder.subsections_end();
    }
    0
}
