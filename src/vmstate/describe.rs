// SPDX-License-Identifier: LGPL-2.1-or-later
//! A description as JSON, in the form of QEMU 7.2's `-dump-vmstate` (`dump_vmstate_vmsd` in `migration/savevm.c`).

use super::model::{Description, FieldShape, flags};
use crate::json::text::{number, quote_bytes as quote};

/// Deepest nesting that is written. A description that contains itself would not end.
const DEPTH: u32 = 64;

/// Returns the dump of a device type. `counts`: fields with a fixed number of elements have it, as from QEMU 10.0 on.
pub fn describe<D: Description>(description: D, device: &[u8], counts: bool) -> Vec<u8> {
    let mut out = Vec::new();
    head(&mut out, "Name", device, &description);
    key(&mut out, "Description");
    whole(&mut out, description, counts, DEPTH);
    out.push(b'}');
    out
}

pub(super) fn key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b", ");
    quote(out, name.as_bytes());
    out.extend_from_slice(b": ");
}

pub(super) fn member(out: &mut Vec<u8>, name: &str, value: i64) {
    key(out, name);
    number(out, value);
}

/// Begins an object with the name and the versions of a description.
pub(super) fn head<D: Description>(out: &mut Vec<u8>, name_key: &str, name: &[u8], description: &D) {
    out.push(b'{');
    quote(out, name_key.as_bytes());
    out.extend_from_slice(b": ");
    quote(out, name);
    member(out, "version_id", description.version().into());
    member(out, "minimum_version_id", description.minimum_version().into());
}

/// Writes an array of the output of `element`.
pub(super) fn array<T>(
    out: &mut Vec<u8>,
    name: &str,
    elements: impl Iterator<Item = T>,
    mut element: impl FnMut(&mut Vec<u8>, T),
) {
    key(out, name);
    out.push(b'[');
    for (at, item) in elements.enumerate() {
        if at > 0 {
            out.extend_from_slice(b", ");
        }
        element(out, item);
    }
    out.push(b']');
}

fn whole<D: Description>(out: &mut Vec<u8>, description: D, counts: bool, depth: u32) {
    head(out, "name", description.name(), &description);
    if description.has_fields() {
        // Fields that only check the state are not part of it.
        let fields = description.fields().filter(|field| field.flags() & flags::MUST_EXIST == 0);
        array(out, "Fields", fields, |out, shape| field(out, shape, counts, depth));
    }
    if description.has_subsections() {
        array(out, "Subsections", description.subsections(), |out, inner| {
            if depth > 0 {
                whole(out, inner, counts, depth - 1);
            } else {
                out.extend_from_slice(b"{}");
            }
        });
    }
    out.push(b'}');
}

fn field<F: FieldShape>(out: &mut Vec<u8>, field: F, counts: bool, depth: u32) {
    out.extend_from_slice(b"{\"field\": ");
    quote(out, field.name());
    member(out, "version_id", field.version().into());
    key(out, "field_exists");
    out.extend_from_slice(if field.is_conditional() { b"true" } else { b"false" });
    if counts && field.flags() & flags::ARRAY != 0 {
        member(out, "num", field.num().into());
    }
    member(out, "size", i64::try_from(field.size()).unwrap_or(i64::MAX));
    if let (Some(inner), Some(depth)) = (field.inner(), depth.checked_sub(1)) {
        key(out, "Description");
        whole(out, inner, counts, depth);
    }
    out.push(b'}');
}
