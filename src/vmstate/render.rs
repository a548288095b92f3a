// SPDX-License-Identifier: LGPL-2.1-or-later
//! The vmdesc as JSON, equal to QEMU 7.2's to the byte (`migration/savevm.c`, `migration/vmstate.c`).
//!
//! The pieces that do not change were made when a description was first met; here they are only put together.

use super::record::{Event, FieldText, Recording, WHOLE};
use crate::json::text as json;

/// Writes the text.
pub(super) fn render(recording: &Recording, page_size: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + 64 * recording.events.len());
    out.extend_from_slice(b"{\"page_size\": ");
    json::number(&mut out, page_size as i64);
    out.extend_from_slice(b", \"devices\": [");
    let mut writer = Writer { recording, out, comma: false, tables: Vec::new(), open: Vec::new() };
    for event in &recording.events {
        writer.event(*event);
    }
    writer.out.extend_from_slice(b"]}");
    writer.out
}

struct Writer<'a> {
    recording: &'a Recording,
    out: Vec<u8>,
    /// Whether something stands before what comes next in its object or array.
    comma: bool,
    /// The descriptions that we are in, innermost last; one that is over still counts for what follows its fields.
    tables: Vec<u32>,
    /// The elements that we are in: whether their content is an object of its own, and how many descriptions were open.
    open: Vec<(bool, usize)>,
}

impl Writer<'_> {
    fn event(&mut self, event: Event) {
        match event {
            Event::DeviceStart(number) => self.device(number),
            Event::DeviceEnd => {
                self.tables.clear();
                self.open.clear();
                self.close(b"}");
            }
            Event::Legacy { size } => self.legacy(size),
            Event::Describe { table, version } => self.describe(table, version),
            Event::FieldsEnd => {
                self.tables.pop();
                self.close(b"]");
            }
            Event::Element { field, index, count } => self.element(field, index, count),
            Event::ElementEnd { size } => self.element_end(size),
            Event::Leaf { field, count, size } => {
                self.element(field, WHOLE, count);
                self.element_end(i64::from(size));
            }
            Event::SubsectionStart { first } => {
                self.separate();
                self.put(if first { b"\"subsections\": [{" } else { b"{" });
                self.comma = false;
            }
            Event::SubsectionEnd => self.close(b"}"),
            Event::SubsectionsEnd => self.close(b"]"),
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn separate(&mut self) {
        if self.comma {
            self.put(b", ");
        }
        self.comma = true;
    }

    fn close(&mut self, bracket: &[u8]) {
        self.put(bracket);
        self.comma = true;
    }

    fn number(&mut self, number: i64) {
        json::number(&mut self.out, number);
    }

    fn device(&mut self, number: u32) {
        let recording = self.recording;
        let device = &recording.devices[number as usize];
        self.separate();
        self.put(b"{\"name\": ");
        self.put(&device.name);
        self.put(b", \"instance_id\": ");
        self.number(i64::from(device.instance));
    }

    fn legacy(&mut self, size: i64) {
        self.separate();
        self.put(b"\"size\": ");
        self.number(size);
        self.put(b", \"fields\": [{\"name\": \"data\", \"size\": ");
        self.number(size);
        self.put(b", \"type\": \"buffer\"}]");
    }

    fn describe(&mut self, table: u32, version: i32) {
        let recording = self.recording;
        self.separate();
        self.put(b"\"vmsd_name\": ");
        self.put(recording.text(recording.tables[table as usize].name));
        self.put(b", \"version\": ");
        self.number(i64::from(version));
        self.put(b", \"fields\": [");
        self.comma = false;
        self.tables.push(table);
    }

    fn field(&self, field: u32) -> Option<FieldText> {
        let table = *self.tables.last()?;
        self.recording.tables[table as usize].fields.get(field as usize).copied()
    }

    fn element(&mut self, field: u32, index: u32, count: u32) {
        let Some(field) = self.field(field) else { return };
        let recording = self.recording;
        self.separate();
        self.put(recording.text(field.head));
        if count > 1 {
            let (key, value): (&[u8], _) =
                if index == WHOLE { (b", \"array_len\": ", count) } else { (b", \"index\": ", index) };
            self.put(key);
            self.number(i64::from(value));
        }
        self.put(recording.text(field.kind));
        self.comma = !field.is_struct;
        self.open.push((field.is_struct, self.tables.len()));
    }

    fn element_end(&mut self, size: i64) {
        let Some((is_struct, tables)) = self.open.pop() else { return };
        self.tables.truncate(tables);
        if is_struct {
            self.put(b"}");
        }
        self.put(b", \"size\": ");
        self.number(size);
        self.close(b"}");
    }
}
