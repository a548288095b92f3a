// SPDX-License-Identifier: LGPL-2.1-or-later
//! Writes the vmdesc as JSON, byte for byte as QEMU 7.2 (`migration/savevm.c`, `migration/vmstate.c`).
//!
//! The recorder made the constant pieces when a description was first used. They are joined here.

use super::record::{ALL_ELEMENTS, Event, FieldText, Recording};
use crate::json::text as json;

/// Writes the text.
pub(super) fn render(recording: &Recording, page_size: u64, configuration: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + 64 * recording.events.len());
    out.extend_from_slice(b"{");
    if let Some(configuration) = configuration {
        out.extend_from_slice(b"\"configuration\": {");
        out.extend_from_slice(configuration);
        out.extend_from_slice(b"}, ");
    }
    out.extend_from_slice(b"\"page_size\": ");
    json::number(&mut out, page_size as i64);
    out.extend_from_slice(b", \"devices\": [");
    let mut writer = Writer { recording, out, comma: false, tables: Vec::new(), open: Vec::new() };
    for event in &recording.events {
        writer.event(*event);
    }
    writer.out.extend_from_slice(b"]}");
    writer.out
}

/// Adds the spaces that QEMU 5.2 writes inside of brackets and before colons (`migration/qjson.c`).
pub fn spaced(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 8);
    let (mut in_string, mut escaped) = (false, false);
    for &byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'}' | b']' | b':' => out.push(b' '),
            _ => {}
        }
        out.push(byte);
        if !in_string && matches!(byte, b'{' | b'[') {
            out.push(b' ');
        }
    }
    out
}

struct Writer<'a> {
    recording: &'a Recording,
    out: Vec<u8>,
    /// Whether the next member needs a comma before it.
    comma: bool,
    /// The open descriptions, innermost last. A description whose fields have ended stays until its subsections end.
    tables: Vec<u32>,
    /// The open elements: whether the content is an object of its own, and how many descriptions were open.
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
            Event::Nulls { field, count } => self.nulls(field, count),
            Event::ElementEnd { size } => self.element_end(size),
            Event::Leaf { field, count, size } => {
                self.element(field, ALL_ELEMENTS, count);
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
                if index == ALL_ELEMENTS { (b", \"array_len\": ", count) } else { (b", \"index\": ", index) };
            self.put(key);
            self.number(i64::from(value));
        }
        self.put(recording.text(field.kind));
        self.comma = !field.is_struct;
        self.open.push((field.is_struct, self.tables.len()));
    }

    /// A null pointer is a field of its own type, as QEMU 10.0 describes it.
    fn nulls(&mut self, field: u32, count: u32) {
        let Some(field) = self.field(field) else { return };
        let recording = self.recording;
        self.separate();
        self.put(recording.text(field.null_head));
        if count > 1 {
            self.put(b", \"array_len\": ");
            self.number(i64::from(count));
        }
        self.put(b", \"type\": \"nullptr\"");
        self.comma = true;
        self.open.push((false, self.tables.len()));
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

#[cfg(test)]
mod tests {
    use super::spaced;

    #[test]
    fn spaces_are_added_outside_of_strings_only() {
        let text = br#"{"page_size": 4096, "devices": [{"name": "a: {\"[b]"}, {}]}"#;
        let expected = r#"{ "page_size" : 4096, "devices" : [ { "name" : "a: {\"[b]" }, {  } ] }"#;
        assert_eq!(String::from_utf8_lossy(&spaced(text)), expected);
    }
}
