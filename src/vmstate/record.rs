// SPDX-License-Identifier: LGPL-2.1-or-later
//! The recorder: a list of small events about what was saved, so that no JSON is built while the guest is stopped.
//!
//! C callbacks receive a pointer to the recorder as their `JSONWriter *` and return it when they save structures. So
//! the recorder is used through `&self`, and no cell guard outlives a method. The names of a description are copied
//! when it is first used. The events refer to it and its fields by number, so nothing of the device is read later.
//! Descriptions are recognised by address: a program must not replace a table at the same address while devices are
//! saved.

use super::model::{Description, FieldShape, flags};
use crate::json::text as json;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// An event, in the order of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The section of a registered device begins; the device's number.
    DeviceStart(u32),
    DeviceEnd,
    /// A device was saved by a function of its own.
    Legacy {
        size: i64,
    },
    /// A description begins.
    Describe {
        table: u32,
        version: i32,
    },
    /// The fields of the description end.
    FieldsEnd,
    /// An element begins; its contents follow. `index` is `ALL_ELEMENTS` if it stands for all.
    Element {
        field: u32,
        index: u32,
        count: u32,
    },
    /// A run of null pointers in an array of pointers, from QEMU 10.0 on.
    Nulls {
        field: u32,
        count: u32,
    },
    /// The element ends.
    ElementEnd {
        size: i64,
    },
    /// An element without contents, or an array of them.
    Leaf {
        field: u32,
        count: u32,
        size: u32,
    },
    SubsectionStart {
        first: bool,
    },
    SubsectionEnd,
    SubsectionsEnd,
}

/// Index of an element that stands for its whole array.
pub(super) const ALL_ELEMENTS: u32 = u32::MAX;

/// The constant part of a field's entry in the vmdesc: pieces of `Recording::text`.
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldText {
    /// The beginning of the object, with the name.
    pub head: (u32, u32),
    /// The beginning of the object for a null pointer. QEMU gives it the number -1 if the name is not unique.
    pub null_head: (u32, u32),
    /// The type.
    pub kind: (u32, u32),
    /// Whether the contents have an object of their own.
    pub is_struct: bool,
}

/// A description that was used.
#[derive(Debug)]
pub(super) struct Table {
    /// Its name in JSON.
    pub name: (u32, u32),
    pub fields: Vec<FieldText>,
}

/// The recorded events and texts.
#[derive(Debug, Default)]
pub(super) struct Recording {
    pub events: Vec<Event>,
    pub tables: Vec<Table>,
    pub devices: Vec<Device>,
    pub text: Vec<u8>,
    index: HashMap<usize, u32>,
}

/// A device's name in JSON, and its instance.
#[derive(Debug)]
pub(super) struct Device {
    pub name: Vec<u8>,
    pub instance: u32,
}

/// Records what is saved. Used only by the thread that saves.
#[derive(Default)]
pub struct Recorder {
    recording: RefCell<Recording>,
    /// The description that was used last: identity and number.
    last: Cell<(usize, u32)>,
    nulls: Cell<bool>,
}

impl Recorder {
    /// Returns an empty recorder.
    pub fn new() -> Self {
        let recorder = Self::default();
        recorder.recording.borrow_mut().events.reserve(1024);
        recorder
    }

    #[inline]
    fn push(&self, event: Event) {
        self.recording.borrow_mut().events.push(event);
    }

    /// A device's section begins.
    pub fn device_start(&self, idstr: &[u8], instance: u32) {
        let mut name = Vec::with_capacity(idstr.len() + 2);
        json::quote_bytes(&mut name, idstr);
        let mut recording = self.recording.borrow_mut();
        let number = recording.devices.len() as u32;
        recording.devices.push(Device { name, instance });
        recording.events.push(Event::DeviceStart(number));
    }

    /// The device's section is complete.
    pub fn device_end(&self) {
        self.push(Event::DeviceEnd);
    }

    /// Records that the device wrote `size` bytes by a function of its own.
    pub fn legacy_buffer(&self, size: i64) {
        self.push(Event::Legacy { size });
    }

    /// Records a description without conditions and hooks: the name, type and size in bytes of each field.
    pub fn plain(&self, name: &[u8], version: i32, fields: &[(&str, &str, usize)]) {
        let table = self.recording.borrow_mut().add_plain(name, fields);
        self.push(Event::Describe { table, version });
        for (number, (.., size)) in fields.iter().enumerate() {
            self.leaf(number, 1, *size);
        }
        self.fields_end();
    }

    /// Returns the text of the vmdesc section. `page_size` is the target's page size in bytes. `configuration` is the
    /// content of an object about the configuration section, if there is to be one.
    pub fn render(&self, page_size: u64, configuration: Option<&[u8]>) -> Vec<u8> {
        super::render::render(&self.recording.borrow(), page_size, configuration)
    }

    /// Sets whether null pointers in arrays are described as such, as from QEMU 10.0 on.
    pub fn set_describe_nulls(&self, on: bool) {
        self.nulls.set(on);
    }

    /// Returns whether null pointers in arrays are described as such.
    pub(super) fn describes_nulls(&self) -> bool {
        self.nulls.get()
    }

    /// Forgets the addresses of descriptions. Call it if they may change before the next device is saved.
    pub fn forget_tables(&self) {
        self.recording.borrow_mut().index.clear();
        self.last.set((0, 0));
    }

    #[inline]
    pub(super) fn describe<D: Description>(&self, description: &D, version: i32) {
        let identity = description.identity();
        let (last, number) = self.last.get();
        let table = if last == identity { number } else { self.number(description, identity) };
        self.push(Event::Describe { table, version });
    }

    fn number<D: Description>(&self, description: &D, identity: usize) -> u32 {
        let mut recording = self.recording.borrow_mut();
        let number = match recording.index.get(&identity) {
            Some(number) => *number,
            None => recording.add(description, identity),
        };
        self.last.set((identity, number));
        number
    }

    pub(super) fn fields_end(&self) {
        self.push(Event::FieldsEnd);
    }

    #[inline]
    pub(super) fn leaf(&self, field: usize, count: usize, size: usize) {
        self.push(Event::Leaf { field: field as u32, count: count as u32, size: size as u32 });
    }

    pub(super) fn element_start(&self, field: usize, index: usize, count: usize, whole: bool) {
        let index = if whole { ALL_ELEMENTS } else { index as u32 };
        self.push(Event::Element { field: field as u32, index, count: count as u32 });
    }

    /// A run of null pointers begins.
    pub(super) fn nulls_start(&self, field: usize, count: usize) {
        self.push(Event::Nulls { field: field as u32, count: count as u32 });
    }

    pub(super) fn element_end(&self, size: i64) {
        self.push(Event::ElementEnd { size });
    }

    pub(super) fn subsection_start(&self, first: bool) {
        self.push(Event::SubsectionStart { first });
    }

    pub(super) fn subsection_end(&self) {
        self.push(Event::SubsectionEnd);
    }

    pub(super) fn subsections_end(&self) {
        self.push(Event::SubsectionsEnd);
    }
}

impl Recording {
    /// Copies the names of a description.
    #[cold]
    fn add<D: Description>(&mut self, description: &D, identity: usize) -> u32 {
        let name = self.piece(|text| json::quote_bytes(text, description.name()));
        // For each name: how often the table contains it, and how often it was reached.
        let mut names: HashMap<Vec<u8>, (u32, u32)> = HashMap::new();
        for field in description.fields() {
            names.entry(field.name().to_vec()).or_default().0 += 1;
        }
        let mut fields = Vec::new();
        for field in description.fields() {
            let (times, met) = names.entry(field.name().to_vec()).or_default();
            let mut unique = field.name().to_vec();
            if *times > 1 {
                unique.extend_from_slice(format!("[{met}]").as_bytes());
            }
            *met += 1;
            let null = if *times > 1 { [field.name(), b"[-1]"].concat() } else { unique.clone() };
            fields.push(self.field(&field, &unique, &null));
        }
        let number = self.tables.len() as u32;
        self.tables.push(Table { name, fields });
        self.index.insert(identity, number);
        number
    }

    fn add_plain(&mut self, name: &[u8], fields: &[(&str, &str, usize)]) -> u32 {
        let name = self.piece(|text| json::quote_bytes(text, name));
        let mut texts = Vec::new();
        for (name, kind, _) in fields {
            let head = self.piece(|text| {
                text.extend_from_slice(b"{\"name\": ");
                json::quote_bytes(text, name.as_bytes());
            });
            let kind = self.piece(|text| {
                text.extend_from_slice(b", \"type\": ");
                json::quote_bytes(text, kind.as_bytes());
            });
            texts.push(FieldText { head, null_head: head, kind, is_struct: false });
        }
        self.tables.push(Table { name, fields: texts });
        self.tables.len() as u32 - 1
    }

    fn field<F: FieldShape>(&mut self, field: &F, name: &[u8], null: &[u8]) -> FieldText {
        let bits = field.flags();
        let is_struct = bits & flags::STRUCT != 0;
        let head = self.piece(|text| {
            text.extend_from_slice(b"{\"name\": ");
            json::quote_bytes(text, name);
        });
        let null_head = match name == null {
            true => head,
            false => self.piece(|text| {
                text.extend_from_slice(b"{\"name\": ");
                json::quote_bytes(text, null);
            }),
        };
        let kind = self.piece(|text| {
            text.extend_from_slice(b", \"type\": ");
            if is_struct {
                text.extend_from_slice(b"\"struct\", \"struct\": {");
            } else if bits & flags::VSTRUCT != 0 {
                text.extend_from_slice(b"\"vstruct\"");
            } else {
                json::quote_bytes(text, field.info_name().unwrap_or(b"unknown"));
            }
        });
        FieldText { head, null_head, kind, is_struct }
    }

    fn piece(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> (u32, u32) {
        let start = self.text.len() as u32;
        write(&mut self.text);
        (start, self.text.len() as u32)
    }

    /// Returns a piece of text.
    pub fn text(&self, (start, end): (u32, u32)) -> &[u8] {
        &self.text[start as usize..end as usize]
    }
}
