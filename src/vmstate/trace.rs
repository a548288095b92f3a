// SPDX-License-Identifier: LGPL-2.1-or-later
//! Trace events of the interpreter, with QEMU's names and texts (QEMU 7.2, `migration/trace-events`).
//!
//! Whether traces are wanted is read once for each device, so that each field only costs a test of a flag.

use super::io::{Io, text};
use super::model::{Description, Direction, Extent, Field, FieldShape, Item, Kind, State, flags};
use std::fmt;

/// Sends a trace event with QEMU's name, if traces are wanted.
macro_rules! trace_event {
    ($host:expr, $event:expr, $($arguments:tt)*) => {
        if $host.traces() {
            $host.trace($event, format_args!($($arguments)*));
        }
    };
}
pub(crate) use trace_event;

fn name<S: State>(state: &S) -> String {
    text(state.description().name())
}

/// An event that only names the description.
#[inline(always)]
pub(super) fn of<S: State>(io: &Io<'_>, event: &'static str, state: &S) {
    trace_event!(io, event, "{}", name(state));
}

/// The result of `pre_save`, if there is one.
#[inline(always)]
pub(super) fn pre_saved<S: State>(io: &Io<'_>, state: &S, ret: i32) {
    if io.traces() && state.has_pre_save() {
        io.trace("vmstate_save_state_pre_save_res", format_args!("{}/{ret}", name(state)));
    }
}

/// A load in that version begins.
#[inline(always)]
pub(super) fn load<S: State>(io: &Io<'_>, state: &S, version: i32) {
    trace_event!(io, "vmstate_load_state", "{} v{version}", name(state));
}

/// A load ended: after its fields, or before them for the given reason.
#[inline(always)]
pub(super) fn load_end<S: State>(io: &Io<'_>, state: &S, reason: &str, ret: i32) {
    trace_event!(io, "vmstate_load_state_end", "{} {reason}/{ret}", name(state));
}

/// A field is visited. It may not be in the stream.
#[inline(always)]
pub(super) fn load_field<F: Field>(io: &Io<'_>, state: &F::State, field: F) {
    trace_event!(io, "vmstate_load_state_field", "{}:{}", name(state), text(field.shape().name()));
}

/// A field of the stream failed.
pub(super) fn load_field_error<F: Field>(io: &Io<'_>, field: F, ret: i32) {
    trace_event!(io, "vmstate_load_field_error", "field \"{}\" load failed, ret = {ret}", text(field.shape().name()));
}

/// The number of elements of a field in the stream. QEMU computes it again before it allocates memory for them.
#[inline(always)]
pub(super) fn elements<F: Field>(io: &Io<'_>, field: F) {
    if io.traces() {
        count(io, field);
        let allocated = flags::POINTER | flags::ALLOC;
        if field.flags() & allocated == allocated {
            count(io, field);
        }
    }
}

#[cold]
fn count<F: Field>(io: &Io<'_>, field: F) -> usize {
    let structs = field.flags() & (flags::STRUCT | flags::VSTRUCT) != 0;
    let kind = if structs { Kind::Struct } else { field.kind(Direction::Save) };
    let count = Extent::of(&field, kind).map_or(0, |extent| extent.count);
    io.trace("vmstate_n_elems", format_args!("{}: {count}", text(field.shape().name())));
    count
}

/// A field is saved.
#[inline(always)]
pub(super) fn save_field<F: Field>(io: &Io<'_>, state: &F::State, field: F) {
    if io.traces() {
        let count = count(io, field);
        let arguments = format_args!("{}/{}[{count}]", name(state), text(field.shape().name()));
        io.trace("vmstate_save_state_loop", arguments);
    }
}

/// A subsection is saved.
#[inline(always)]
pub(super) fn save_subsection<S: State>(io: &Io<'_>, state: &S, subsection: &S) {
    trace_event!(io, "vmstate_subsection_save_loop", "{}/{}", name(state), name(subsection));
}

/// The bytes in the place of a subsection are none of this description.
pub(super) fn bad_subsection(io: &Io<'_>, parent: &[u8], found: &[u8], why: &str) {
    trace_event!(io, "vmstate_subsection_load_bad", "{}: {}/{why}", text(parent), text(found));
}

/// A tail queue begins or ends.
pub(super) fn queue<I: Item>(io: &Io<'_>, event: &'static str, item: &I, what: fmt::Arguments<'_>) {
    trace_event!(io, event, "{} {what}", description(item.element_description()));
}

/// A list begins, in that version, or ends.
pub(super) fn list<I: Item>(io: &Io<'_>, event: &'static str, item: &I, version: Option<i32>) {
    if !io.traces() {
        return;
    }
    let version = version.map_or(String::new(), |version| format!(" v{version}"));
    let elements = description(item.element_description());
    io.trace(event, format_args!("{}({elements}{version})", text(item.field_name())));
}

/// A tree begins or ends.
pub(super) fn tree<I: Item>(io: &Io<'_>, event: &'static str, item: &I, what: fmt::Arguments<'_>) {
    if !io.traces() {
        return;
    }
    let key = if item.has_direct_keys() { "direct".into() } else { description(item.key_description()) };
    let value = description(item.element_description());
    io.trace(event, format_args!("{}({key}/{value}) {what}", text(item.field_name())));
}

fn description<D: Description>(description: Option<D>) -> String {
    description.map_or(String::new(), |description| text(description.name()))
}
