// SPDX-License-Identifier: LGPL-2.1-or-later
//! The recorder: what was saved, kept as a list of small events, so that no JSON is built while the guest stands still.
//!
//! C callbacks get a pointer to it as their `JSONWriter *` and hand it back when they save structures, so it is used
//! through `&self` and no cell guard outlives a method. The names of a description are copied when it is first met: the
//! events name it and its fields by number, and nothing of the device is looked at afterwards. Equal for one recorder are
//! descriptions at the same address, so a program must not put another table where one was while devices are saved.

use super::model::{Description, FieldShape, flags};
use crate::json::text as json;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// Something that happened, in the order of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A registered device, by number.
    DeviceStart(u32),
    DeviceEnd,
    /// A device that was saved by a function of its own.
    Legacy {
        size: i64,
    },
    /// A description begins.
    Describe {
        table: u32,
        version: i32,
    },
    /// Its fields are over.
    FieldsEnd,
    /// An element begins; what is inside follows. `index` is `WHOLE` where it stands for all.
    Element {
        field: u32,
        index: u32,
        count: u32,
    },
    /// It ends.
    ElementEnd {
        size: i64,
    },
    /// An element without anything inside, or an array of them.
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

/// The index of an element that stands for its whole array.
pub(super) const WHOLE: u32 = u32::MAX;

/// What the vmdesc says of a field, up to what changes: pieces of `Recording::text`.
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldText {
    /// The beginning of the object with the name in it.
    pub head: (u32, u32),
    /// The type.
    pub kind: (u32, u32),
    /// Whether what is inside has an object of its own.
    pub is_struct: bool,
}

/// A description that was met.
#[derive(Debug)]
pub(super) struct Table {
    /// Its name in JSON.
    pub name: (u32, u32),
    pub fields: Vec<FieldText>,
}

/// Everything that was recorded.
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

/// Records what is saved. Used by the one thread that saves.
#[derive(Default)]
pub struct Recorder {
    recording: RefCell<Recording>,
    /// The description that was met last: identity and number.
    last: Cell<(usize, u32)>,
}

impl Recorder {
    /// An empty one.
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

    /// The device wrote so many bytes by a function of its own.
    pub fn legacy_buffer(&self, size: i64) {
        self.push(Event::Legacy { size });
    }

    /// The vmdesc section's text, with the target's page size.
    pub fn render(&self, page_size: u64) -> Vec<u8> {
        super::render::render(&self.recording.borrow(), page_size)
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
        let index = if whole { WHOLE } else { index as u32 };
        self.push(Event::Element { field: field as u32, index, count: count as u32 });
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
    /// Copies what the vmdesc says of a description.
    #[cold]
    fn add<D: Description>(&mut self, description: &D, identity: usize) -> u32 {
        let name = self.piece(|text| json::quote_bytes(text, description.name()));
        // How often each name stands in the table, and how often it was met.
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
            fields.push(self.field(&field, &unique));
        }
        let number = self.tables.len() as u32;
        self.tables.push(Table { name, fields });
        self.index.insert(identity, number);
        number
    }

    fn field<F: FieldShape>(&mut self, field: &F, name: &[u8]) -> FieldText {
        let bits = field.flags();
        let is_struct = bits & flags::STRUCT != 0;
        let head = self.piece(|text| {
            text.extend_from_slice(b"{\"name\": ");
            json::quote_bytes(text, name);
        });
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
        FieldText { head, kind, is_struct }
    }

    fn piece(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> (u32, u32) {
        let start = self.text.len() as u32;
        write(&mut self.text);
        (start, self.text.len() as u32)
    }

    /// A piece of text.
    pub fn text(&self, (start, end): (u32, u32)) -> &[u8] {
        &self.text[start as usize..end as usize]
    }
}
