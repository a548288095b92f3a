// SPDX-License-Identifier: LGPL-2.1-or-later
//! The layout of a device's state: what its description would write now. Two machines compare layouts in a preflight.
//!
//! A digest stands for a layout. It covers the tables, and the counts and sizes in the device that streams do not contain. It
//! needs no call of the device. A layout is JSON in the form of `-dump-vmstate` with more members, which
//! `inspect::compat::descriptions` reads: `type`, `bytes`, `elements` and `present` of a field, `needed` of a subsection.
//!
//! Structures in the device's own memory are followed. Pointers, and fields for which a hook decides whether they exist, are
//! not: what they point to need not be there.

use super::describe::{array, head, key, member};
use super::model::{Description, Direction, Extent, Field, FieldShape, Item, Items, Kind, State, flags};
use crate::json::text::quote_bytes as quote;
use crate::wire::preflight::Digest;
use std::collections::HashMap;

/// Deepest nesting that is looked at. A description that contains itself would not end.
const DEPTH: u32 = 64;
/// Longest layout in bytes. A longer one counts as unknown.
const LAYOUT_MAX: usize = 1 << 20;

/// What is known of a description.
#[derive(Clone, Copy, Default)]
struct Known {
    digest: u64,
    /// It has a count or size that only the device knows, at any depth.
    has_counts: bool,
    /// Levels of descriptions.
    depth: u32,
}

/// The digests of the descriptions so far. Devices share descriptions, which may be freed later: use one for one manifest.
#[derive(Default)]
pub struct Digests(HashMap<usize, Known>);

/// Returns whether the field is part of a stream. Other fields only check the state.
fn is_stored<F: FieldShape>(field: &F) -> bool {
    field.flags() & flags::MUST_EXIST == 0
}

/// Returns the size of an element in a stream, if it is the same in all of them.
fn bytes<F: FieldShape>(field: &F) -> Option<u64> {
    match field.loads() {
        Kind::Timer => Some(8),
        Kind::Descriptor => Some(1),
        Kind::Buffer | Kind::Unused if field.flags() & flags::VBUFFER == 0 => Some(field.size() as u64),
        kind if kind.width() > 0 => Some(kind.width() as u64),
        _ => None,
    }
}

/// Returns whether an earlier field loads the member that has the count or size.
fn is_loaded<F: FieldShape>(field: &F, earlier: &[(usize, usize)]) -> bool {
    field.measure().is_some_and(|measure| earlier.iter().any(|(offset, width)| *offset == measure && *width > 0))
}

/// Returns the state of a structure that is part of the device's own memory.
fn embedded<F: Field>(field: &F) -> Option<F::State> {
    let shape = field.shape();
    let is_single = field.flags() & (flags::STRUCT | flags::VSTRUCT) != 0
        && field.flags() & (flags::POINTER | flags::ARRAY | flags::VARRAY | flags::ARRAY_OF_POINTER) == 0;
    if !is_single || shape.is_conditional() {
        return None;
    }
    let item = field.items(Extent { count: 1, size: field.size() }, Kind::Struct)?.get(0);
    // The state of an item is that of the field.
    if item.is_null() { None } else { item.state() }
}

impl Digests {
    /// Returns the digest of a device.
    pub fn of<S: State>(&mut self, state: &S) -> u64 {
        let known = self.description(state.description(), DEPTH);
        if !known.has_counts {
            return known.digest;
        }
        let mut digest = Digest::default();
        digest.number(known.digest);
        self.counts(state, &mut digest, DEPTH);
        digest.finish()
    }

    /// Returns the levels of the most deeply nested description so far.
    pub fn depth(&self) -> u32 {
        self.0.values().map(|known| known.depth).max().unwrap_or(0)
    }

    fn description<D: Description>(&mut self, description: D, depth: u32) -> Known {
        if let Some(known) = self.0.get(&description.identity()) {
            return *known;
        }
        if depth == 0 {
            return Known::default();
        }
        // A description that contains itself finds this.
        self.0.insert(description.identity(), Known::default());
        let (mut digest, mut known) = (Digest::default(), Known::default());
        digest.text(description.name());
        digest.number(u64::from(description.version() as u32));
        digest.number(u64::from(description.minimum_version() as u32));
        for field in description.fields().filter(is_stored) {
            digest.number(1);
            digest.text(field.name());
            digest.text(field.info_name().unwrap_or_default());
            for number in [field.flags(), field.version() as u32, u32::from(field.is_conditional())] {
                digest.number(number.into());
            }
            digest.number(bytes(&field).map_or(0, |bytes| bytes + 1));
            digest.number(if field.flags() & flags::ARRAY != 0 { field.num() as u64 } else { 0 });
            known.has_counts |= field.measure().is_some();
            if let (Some(inner), false) = (field.inner(), field.loads() == Kind::Custom) {
                let inner = self.description(inner, depth - 1);
                digest.number(inner.digest);
                known.has_counts |= inner.has_counts;
                known.depth = known.depth.max(inner.depth);
            }
        }
        for subsection in description.subsections() {
            let inner = self.description(subsection, depth - 1);
            digest.number(2);
            digest.number(inner.digest);
            known.has_counts |= inner.has_counts;
            known.depth = known.depth.max(inner.depth);
        }
        known.digest = digest.finish();
        known.depth += 1;
        self.0.insert(description.identity(), known);
        known
    }

    /// Adds the counts and sizes that streams do not contain.
    fn counts<S: State>(&mut self, state: &S, digest: &mut Digest, depth: u32) {
        let mut earlier = Vec::new();
        for field in state.fields().filter(|field| is_stored(&field.shape())) {
            let shape = field.shape();
            if shape.measure().is_some() && !is_loaded(&shape, &earlier) {
                let extent = Extent::of(&field, field.kind(Direction::Save));
                let (count, size) =
                    extent.map_or((u64::MAX, u64::MAX), |extent| (extent.count as u64, extent.size as u64));
                digest.number(count);
                digest.number(if field.flags() & flags::VBUFFER != 0 { size } else { 0 });
            }
            earlier.push((shape.offset(), shape.loads().width()));
            if let (Some(inner), true) = (embedded(&field), depth > 0) {
                if self.description(inner.description(), depth).has_counts {
                    self.counts(&inner, digest, depth - 1);
                }
            }
        }
        for subsection in state.subsections() {
            if depth > 0 && self.description(subsection.description(), depth).has_counts {
                self.counts(&subsection, digest, depth - 1);
            }
        }
    }
}

/// Returns the layout of a device as JSON. `saving` calls the hooks that decide which parts are saved now. `None` if the layout
/// is too long.
pub fn layout<S: State>(state: S, saving: bool) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    Writer { saving }.state(&mut out, &state, DEPTH, None);
    (out.len() <= LAYOUT_MAX).then_some(out)
}

struct Writer {
    saving: bool,
}

fn is_long(out: &[u8]) -> bool {
    out.len() > LAYOUT_MAX
}

/// Writes the members that a field always has, but its end.
fn begin_field<F: FieldShape>(out: &mut Vec<u8>, field: &F, size: Option<u64>, elements: Option<u64>) {
    out.extend_from_slice(b"{\"field\": ");
    quote(out, field.name());
    member(out, "version_id", field.version().into());
    flag(out, "field_exists", field.is_conditional());
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    member(out, "size", number(field.size() as u64));
    key(out, "type");
    let is_struct = field.loads() == Kind::Struct;
    quote(out, field.info_name().unwrap_or(if is_struct { b"struct" } else { b"" }));
    if let Some(bytes) = size.or_else(|| bytes(field)) {
        member(out, "bytes", number(bytes));
    }
    if let Some(elements) = elements {
        member(out, "elements", number(elements));
    }
}

fn flag(out: &mut Vec<u8>, name: &str, value: bool) {
    key(out, name);
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// Writes the layout of a structure of which only the description is looked at.
fn description<D: Description>(out: &mut Vec<u8>, of: D, depth: u32) {
    head(out, "name", of.name(), &of);
    array(out, "Fields", of.fields().filter(is_stored), |out, field| {
        let elements = match field.flags() {
            bits if bits & flags::ARRAY != 0 => u64::try_from(field.num()).ok(),
            bits if bits & flags::VARRAY != 0 => None,
            _ => Some(1),
        };
        begin_field(out, &field, None, elements);
        inner(out, &field, depth);
        out.push(b'}');
    });
    array(out, "Subsections", of.subsections(), |out, subsection| match depth {
        0 => out.extend_from_slice(b"{}"),
        _ if is_long(out) => out.extend_from_slice(b"{}"),
        _ => description(out, subsection, depth - 1),
    });
    out.push(b'}');
}

fn inner<F: FieldShape>(out: &mut Vec<u8>, field: &F, depth: u32) {
    if let (Some(inner), Some(depth), false) = (field.inner(), depth.checked_sub(1), field.loads() == Kind::Custom) {
        if !is_long(out) {
            key(out, "Description");
            description(out, inner, depth);
        }
    }
}

impl Writer {
    fn state<S: State>(&self, out: &mut Vec<u8>, state: &S, depth: u32, needed: Option<bool>) {
        let table = state.description();
        let version = table.version();
        head(out, "name", table.name(), &table);
        if let Some(needed) = needed {
            flag(out, "needed", needed);
        }
        let mut earlier = Vec::new();
        let fields = state.fields().filter(|field| is_stored(&field.shape()));
        array(out, "Fields", fields, |out, field| {
            self.field(out, &field, version, depth, &earlier);
            let shape = field.shape();
            earlier.push((shape.offset(), shape.loads().width()));
        });
        array(out, "Subsections", state.subsections(), |out, subsection| {
            if depth == 0 || is_long(out) {
                return out.extend_from_slice(b"{}");
            }
            let needed = self.saving.then(|| subsection.needed());
            match needed {
                // The hooks of a part that is not needed may rely on that.
                Some(true) => self.state(out, &subsection, depth - 1, needed),
                _ => description(out, subsection.description(), depth - 1),
            }
        });
        out.push(b'}');
    }

    fn field<F: Field>(&self, out: &mut Vec<u8>, field: &F, version: i32, depth: u32, earlier: &[(usize, usize)]) {
        let shape = field.shape();
        let present = (self.saving && shape.is_conditional()).then(|| field.exists(version));
        let extent = match is_loaded(&shape, earlier) {
            true => None,
            false => Extent::of(field, field.kind(Direction::Save)).ok(),
        };
        let is_sized = shape.flags() & flags::VBUFFER != 0 && matches!(shape.loads(), Kind::Buffer | Kind::Unused);
        let size = extent.filter(|_| is_sized).map(|extent| extent.size as u64);
        begin_field(out, &shape, size, extent.map(|extent| extent.count as u64));
        if let Some(present) = present {
            flag(out, "present", present);
        }
        match embedded(field) {
            Some(state) if depth > 0 && !is_long(out) => {
                key(out, "Description");
                // The interpreter gives a structure its own type of state.
                self.nested(out, state, depth - 1);
            }
            _ => inner(out, &shape, depth),
        }
        out.push(b'}');
    }

    fn nested<S: State>(&self, out: &mut Vec<u8>, state: S, depth: u32) {
        self.state(out, &state, depth, None);
    }
}
