// SPDX-License-Identifier: LGPL-2.1-or-later
//! The document that QEMU's `scripts/analyze-migration.py` prints for a stream.
//!
//! It has one member per section, named `idstr (section id)`. Numbers are hex strings of the field's width; negative
//! ones are followed by the decimal value. Bytes are hex pairs, and arrays are arrays. The script of 7.2 stops with an
//! error at sections and commands that it does not know; this document skips them. Additions of the script of 10.0 are
//! included. A state that does not fit its description is printed as bytes.

use std::collections::HashSet;
use std::io::{self, Write};

use super::super::decode::{FieldSink, Group, Leaf, Value, decode};
use super::super::json::Emitter;
use super::super::stream::{Ram, SectionKind, Stream};

/// Writes the document for `stream`.
pub fn write_analyze<W: Write>(stream: &Stream, out: W) -> io::Result<()> {
    let mut sink = Analyze { json: Emitter::new(out, Some(4)) };
    sink.json.object();
    let mut seen = HashSet::new();
    for (_, section) in stream.sections() {
        let first = matches!(section.kind, SectionKind::Start | SectionKind::Full) && seen.insert(section.id);
        if !first {
            continue;
        }
        sink.json.name(&format!("{} ({})", section.device.name, section.id));
        match &section.data {
            Some(data) => match stream.layout(section) {
                Some(layout) if decode(layout, data, &mut IgnoreFields).is_ok() => {
                    sink.json.object();
                    // The same decoding succeeded just before.
                    let _ = decode(layout, data, &mut sink);
                    sink.json.end();
                }
                _ => sink.raw(data),
            },
            None if &*section.device.name == "ram" => sink.ram(&stream.ram),
            None => {
                sink.json.string("");
            }
        }
    }
    sink.json.end();
    sink.json.finish().map(drop)
}

/// A sink that ignores the fields, to see whether they fit.
struct IgnoreFields;

impl FieldSink for IgnoreFields {
    fn enter(&mut self, _name: &str, _group: Group) {}
    fn leave(&mut self) {}
    fn field(&mut self, _leaf: &Leaf<'_>) {}
    fn wants_lists(&self) -> bool {
        false
    }
}

struct Analyze<W> {
    json: Emitter<W>,
}

impl<W: Write> Analyze<W> {
    fn name(&mut self, name: &str) {
        if !self.json.in_array() {
            self.json.name(name);
        }
    }

    /// Writes a state without a description, such as that of a device with a save function of its own.
    fn raw(&mut self, data: &[u8]) {
        self.json.object().name("data").hex("", data, " ").end();
    }

    fn ram(&mut self, ram: &Ram) {
        self.json.object().name("section sizes").object();
        for block in &ram.blocks {
            self.json.name(&block.name).string(&format!("{:#018x}", block.length));
        }
        self.json.end().end();
    }
}

impl<W: Write> FieldSink for Analyze<W> {
    fn enter(&mut self, name: &str, group: Group) {
        self.name(name);
        match group {
            Group::Array => self.json.array(),
            _ => self.json.object(),
        };
    }

    fn leave(&mut self) {
        self.json.end();
    }

    fn field(&mut self, leaf: &Leaf<'_>) {
        self.name(leaf.name);
        match leaf.value {
            Value::Signed(number) if number < 0 => {
                self.json.hex_and("0x", leaf.bytes, "", &format!(" ({number})"));
            }
            Value::Signed(_) | Value::Unsigned(_) => {
                self.json.hex("0x", leaf.bytes, "");
            }
            Value::Bool(value) => {
                self.json.bool(value);
            }
            Value::Null => {
                self.json.string("nullptr");
            }
            Value::Bytes => {
                self.json.hex("", leaf.bytes, " ");
            }
        }
    }

    /// The script prints lists as bytes.
    fn wants_lists(&self) -> bool {
        false
    }
}
