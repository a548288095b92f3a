// SPDX-License-Identifier: LGPL-2.1-or-later
//! Writes descriptions in the JSON form that they are parsed from.

use std::io::{self, Write};

use super::super::json::Emitter;
use super::{Description, DeviceLayout, Field, Layout};

/// Writes the members of a layout into an open object.
pub(in crate::inspect) fn write_layout<W: Write>(json: &mut Emitter<W>, layout: &Layout) {
    if let Some(name) = &layout.name {
        json.name("vmsd_name").string(name);
    }
    if let Some(version) = layout.version {
        json.name("version").number(version);
    }
    json.name("fields").array();
    for field in &layout.fields {
        write_field(json, field);
    }
    json.end();
    if !layout.subsections.is_empty() {
        json.name("subsections").array();
        for subsection in &layout.subsections {
            json.object();
            write_layout(json, subsection);
            json.end();
        }
        json.end();
    }
}

fn write_field<W: Write>(json: &mut Emitter<W>, field: &Field) {
    json.object().name("name").string(&field.name);
    for (name, number) in [("array_len", field.array_len), ("index", field.index)] {
        if let Some(number) = number {
            json.name(name).number(number);
        }
    }
    json.name("type").string(&field.type_name);
    let is_struct = &*field.type_name == "struct";
    if is_struct {
        json.name("struct").object();
    }
    for layout in &field.inner {
        write_layout(json, layout);
    }
    if is_struct {
        json.end();
    }
    json.name("size").number(field.size).end();
}

/// Writes a description in the JSON form that it was parsed from.
pub fn write_description<W: Write>(description: &Description, out: W) -> io::Result<()> {
    let mut json = Emitter::new(out, Some(4));
    json.object();
    if let Some(configuration) = &description.configuration {
        json.name("configuration").object();
        write_layout(&mut json, configuration);
        json.end();
    }
    if let Some(page_size) = description.page_size {
        json.name("page_size").number(page_size);
    }
    json.name("devices").array();
    for DeviceLayout { device, layout } in &description.devices {
        json.object().name("name").string(&device.name).name("instance_id").number(device.instance);
        if layout.name.is_none() {
            json.name("size").number(layout.size);
        }
        write_layout(&mut json, layout);
        json.end();
    }
    json.end().end();
    json.finish().map(drop)
}
