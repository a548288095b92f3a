// SPDX-License-Identifier: LGPL-2.1-or-later
//! The description at the end of a stream: the fields of every device's state.
//!
//! QEMU writes it as JSON while it saves (`migration/vmstate.c`). An entry of `fields` is one field, or with
//! `array_len` an array of elements like the first. A list (`qtailq`, `qlist`, `gtree`) repeats `vmsd_name`, `version`
//! and `fields` within its own entry, once per element.

mod write;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::budget::Budget;
use super::json::{Json, JsonError};
use super::stream::Device;

pub use write::write_description;
pub(super) use write::write_layout;

/// The layouts of all devices of a stream.
#[derive(Debug, Default)]
pub struct Description {
    /// The target's page size in bytes.
    pub page_size: Option<u64>,
    /// The layout of the configuration section. Only QEMU 10 and later describe it.
    pub configuration: Option<Layout>,
    /// The devices, in the order of their sections.
    pub devices: Vec<DeviceLayout>,
    by_device: HashMap<(Device, u32), usize>,
}

/// The layout of one device's state.
#[derive(Debug)]
pub struct DeviceLayout {
    /// The device.
    pub device: Device,
    /// The fields.
    pub layout: Layout,
}

/// The fields of a device, a structure or a subsection, in order.
#[derive(Debug, Default)]
pub struct Layout {
    /// The name of the VMStateDescription, or `None` if the device has a save function of its own.
    pub name: Option<Box<str>>,
    /// Its version.
    pub version: Option<u64>,
    /// Its fields.
    pub fields: Vec<Field>,
    /// The optional parts that follow the fields.
    pub subsections: Vec<Layout>,
    /// Bytes of the fields and subsections in a stream.
    pub size: u64,
}

/// One field, or an array of like fields.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: Box<str>,
    /// The name of its VMStateInfo, or `struct`.
    pub type_name: Arc<str>,
    /// Size of one element in bytes.
    pub size: u64,
    /// Number of elements, if the entry is an array.
    pub array_len: Option<u64>,
    /// Index of the element, if every element of the array has an entry of its own.
    pub index: Option<u64>,
    /// The layout of a structure, or one layout per element of a list (two with key and value).
    pub inner: Vec<Layout>,
}

impl Field {
    /// Returns the bytes of the field in a stream, with all its elements.
    pub fn total_size(&self) -> u64 {
        self.size.saturating_mul(self.array_len.unwrap_or(1))
    }

    /// Returns whether the field is a NULL pointer in an array of pointers to structures. It is one byte in the stream.
    pub fn is_null_pointer(&self) -> bool {
        &*self.type_name == "nullptr" || (&*self.type_name == "struct" && self.inner.is_empty() && self.size == 1)
    }
}

/// Returns the bytes of a subsection's header: tag, length, name, version.
pub(super) fn subsection_header_size(name: &str) -> u64 {
    1 + 1 + name.len() as u64 + 4
}

impl Description {
    /// Parses the JSON text. Memory for the description is taken from `budget`.
    pub fn parse(text: &[u8], budget: &mut Budget) -> Result<Self, JsonError> {
        let before = budget.left();
        let json = Json::parse(text, budget)?;
        let json_size = before - budget.left();
        let description = Self::from_json(json);
        // The description holds the same names, and as many entries of at most twice the size.
        budget.give_back(json_size);
        let error = |over: super::budget::OverBudget| JsonError { offset: 0, message: over.to_string() };
        budget.take(json_size.saturating_mul(2)).map_err(error)?;
        if description.devices.is_empty() && description.page_size.is_none() {
            return Err(JsonError { offset: 0, message: "neither devices nor a page size".into() });
        }
        Ok(description)
    }

    /// Reads the JSON value. Members that are not understood are left out.
    pub fn from_json(json: Json<'_>) -> Self {
        let mut names = Interner::default();
        let mut description = Self::default();
        for (name, value) in into_members(json) {
            match &*name {
                "page_size" => description.page_size = value.as_u64(),
                "configuration" => description.configuration = names.layouts(into_members(value)).pop(),
                "devices" => {
                    description.devices =
                        into_elements(value).into_iter().filter_map(|json| names.device(json)).collect();
                }
                _ => {}
            }
        }
        let mut twins = HashMap::new();
        for (at, layout) in description.devices.iter().enumerate() {
            let twin: &mut u32 = twins.entry(&layout.device).or_default();
            description.by_device.insert((layout.device.clone(), *twin), at);
            *twin += 1;
        }
        description
    }

    /// Returns the layout of a device, if it is described. `twin` numbers devices of the same name and instance from 0;
    /// QEMU permits them.
    pub fn layout(&self, device: &Device, twin: u32) -> Option<&Layout> {
        self.by_device.get(&(device.clone(), twin)).map(|&at| &self.devices[at].layout)
    }

    /// Finds the description at the end of a stream in memory, without reading the stream before it.
    ///
    /// The JSON contains no NUL byte, and its length, which precedes it, does. So the JSON starts at the first brace
    /// after the last NUL byte.
    pub fn find_at_end(stream: &[u8], tag: u8) -> Option<&[u8]> {
        let end = stream.iter().rposition(|&byte| byte != 0)? + 1;
        let before = stream[..end].iter().rposition(|&byte| byte == 0)?;
        let start = before + stream[before..end].iter().position(|&byte| byte == b'{')?;
        let header = stream.get(start.checked_sub(5)?..start)?;
        let len = u32::from_be_bytes(*header.last_chunk::<4>()?) as usize;
        if header[0] == tag { stream.get(start..start.checked_add(len)?) } else { None }
    }
}

fn into_members(json: Json<'_>) -> Vec<(Cow<'_, str>, Json<'_>)> {
    match json {
        Json::Object(members) => members,
        _ => Vec::new(),
    }
}

fn into_elements(json: Json<'_>) -> Vec<Json<'_>> {
    match json {
        Json::Array(elements) => elements,
        _ => Vec::new(),
    }
}

fn into_string(json: Json<'_>) -> Option<Box<str>> {
    match json {
        Json::String(text) if text.len() <= MAX_NAME => Some(text.into()),
        _ => None,
    }
}

/// Longest name that is accepted, in bytes. The longest in QEMU have about 60. A report may repeat a name for each
/// element of an array, so the limit also bounds reports.
const MAX_NAME: usize = 512;

/// Keeps one copy of every type name. There are thousands of fields and a dozen types.
#[derive(Default)]
struct Interner(HashSet<Arc<str>>);

impl Interner {
    fn intern(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        self.0.insert(name.clone());
        name
    }

    fn device(&mut self, json: Json<'_>) -> Option<DeviceLayout> {
        let name: Arc<str> = json.get("name")?.as_str()?.into();
        let instance = json.get("instance_id").and_then(instance_id)?;
        let layout = self.layouts(into_members(json)).pop()?;
        Some(DeviceLayout { device: Device { name, instance }, layout })
    }

    /// Reads the layouts in an object: one, or more in the entry of a list.
    fn layouts(&mut self, members: Vec<(Cow<'_, str>, Json<'_>)>) -> Vec<Layout> {
        let mut layouts: Vec<Layout> = Vec::new();
        let mut has_fields = true;
        for (name, value) in members {
            match &*name {
                "vmsd_name" => {
                    layouts.push(Layout { name: into_string(value), ..Layout::default() });
                    has_fields = false;
                }
                "fields" => {
                    if has_fields {
                        layouts.push(Layout::default());
                    }
                    has_fields = true;
                    let fields = into_elements(value).into_iter().filter_map(|json| self.field(json)).collect();
                    if let Some(layout) = layouts.last_mut() {
                        layout.fields = fields;
                    }
                }
                "version" => {
                    if let Some(layout) = layouts.last_mut() {
                        layout.version = value.as_u64();
                    }
                }
                "subsections" => {
                    let parts = into_elements(value).into_iter();
                    let parts = parts.filter_map(|json| self.layouts(into_members(json)).pop()).collect();
                    if let Some(layout) = layouts.last_mut() {
                        layout.subsections = parts;
                    }
                }
                _ => {}
            }
        }
        layouts.iter_mut().for_each(Layout::add_up);
        layouts
    }

    fn field(&mut self, json: Json<'_>) -> Option<Field> {
        let short = |name: &str| json.get(name).and_then(Json::as_str).filter(|text| text.len() <= MAX_NAME);
        let mut field = Field {
            name: short("name")?.into(),
            type_name: self.intern(short("type").unwrap_or("unknown")),
            size: json.get("size").and_then(Json::as_u64)?,
            array_len: json.get("array_len").and_then(Json::as_u64),
            index: json.get("index").and_then(Json::as_u64),
            inner: Vec::new(),
        };
        let mut members = into_members(json);
        let nested = members.iter().position(|(name, _)| &**name == "struct");
        field.inner = match nested {
            Some(at) => self.layouts(into_members(members.swap_remove(at).1)),
            None => self.layouts(members),
        };
        Some(field)
    }
}

/// Reads an instance id. It is unsigned on the wire and printed as a signed 64-bit number.
pub(in crate::inspect) fn instance_id(json: &Json<'_>) -> Option<u32> {
    match *json {
        Json::Int(id) => u32::try_from(id).ok().or_else(|| i32::try_from(id).ok().map(|id| id as u32)),
        _ => None,
    }
}

impl Layout {
    /// Computes the size from the fields and subsections.
    fn add_up(&mut self) {
        let fields = self.fields.iter().map(Field::total_size);
        let subsections = self.subsections.iter().map(|subsection| {
            subsection_header_size(subsection.name.as_deref().unwrap_or_default()).saturating_add(subsection.size)
        });
        self.size = fields.chain(subsections).fold(0, u64::saturating_add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Description, JsonError> {
        Description::parse(text.as_bytes(), &mut Budget::default())
    }

    #[test]
    fn sizes_add_up_through_structures_and_subsections() {
        let description = parse(
            r#"{"page_size": 4096, "devices": [{"name": "a", "instance_id": 3, "vmsd_name": "a", "version": 2, "fields":
            [{"name": "x", "type": "uint16", "array_len": 4, "size": 2},
             {"name": "s", "type": "struct", "struct": {"vmsd_name": "s", "version": 1, "fields":
                [{"name": "y", "type": "bool", "size": 1}]}, "size": 1}],
            "subsections": [{"vmsd_name": "a/b", "version": 1, "fields": [{"name": "z", "type": "uint8", "size": 1}]}]}]}"#,
        )
        .unwrap();
        let layout = description.layout(&Device { name: "a".into(), instance: 3 }, 0).unwrap();
        assert_eq!(layout.size, 8 + 1 + (1 + 1 + 3 + 4) + 1);
        assert_eq!(layout.fields[1].inner[0].fields[0].name, "y".into());
        assert!(description.layout(&Device { name: "a".into(), instance: 0 }, 0).is_none());
    }

    #[test]
    fn overlong_names_are_rejected() {
        let long = "x".repeat(MAX_NAME + 1);
        let field = |name: &str, kind: &str| format!(r#"{{"name": "{name}", "type": "{kind}", "size": 1}}"#);
        let fields = [field(&long, "uint8"), field("a", &long), field("b", "uint8")].join(", ");
        let text = format!(
            r#"{{"devices": [{{"name": "d", "instance_id": 0, "vmsd_name": "{long}", "version": 1, "fields": [{fields}]}}]}}"#
        );
        let layout = &parse(&text).unwrap().devices[0].layout;
        assert_eq!(layout.name, None);
        let names: Vec<_> = layout.fields.iter().map(|field| (&*field.name, &*field.type_name)).collect();
        assert_eq!(names, [("a", "unknown"), ("b", "uint8")]);
    }

    #[test]
    fn list_has_one_layout_per_element() {
        let description = parse(
            r#"{"devices": [{"name": "l", "instance_id": 0, "vmsd_name": "l", "version": 1, "fields":
            [{"name": "q", "type": "qtailq", "vmsd_name": "e", "version": 1, "fields": [],
              "vmsd_name": "e", "version": 1, "fields": [], "size": 3}]}]}"#,
        )
        .unwrap();
        assert_eq!(description.devices[0].layout.fields[0].inner.len(), 2);
    }

    #[test]
    fn device_with_a_save_function_has_no_description_name() {
        let description = parse(
            r#"{"devices": [{"name": "o", "instance_id": 0, "size": 9, "fields":
            [{"name": "data", "size": 9, "type": "buffer"}]}]}"#,
        )
        .unwrap();
        assert_eq!(description.devices[0].layout.size, 9);
        assert!(description.devices[0].layout.name.is_none());
    }

    #[test]
    fn description_is_found_from_the_end() {
        let text = br#"{"devices": []}"#;
        let mut stream = vec![9, 0, 6];
        stream.extend((text.len() as u32).to_be_bytes());
        stream.extend(text);
        assert_eq!(Description::find_at_end(&stream, 6), Some(&text[..]));
        stream.extend([0; 100]);
        assert_eq!(Description::find_at_end(&stream, 6), Some(&text[..]), "padding does not hide it");
        assert_eq!(Description::find_at_end(&stream, 7), None);
        assert_eq!(Description::find_at_end(&[], 6), None);
    }
}
