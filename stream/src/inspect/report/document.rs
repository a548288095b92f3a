// SPDX-License-Identifier: LGPL-2.1-or-later
//! The stable JSON document about a stream; `docs/inspect-json.md` describes it.

use std::io::{self, Write};

use super::super::address::{Span, guest_spans};
use super::super::container::{CompressionDamage, Container};
use super::super::decode::{FieldSink, Group, Leaf, Value, decode};
use super::super::json::Emitter;
use super::super::parse::{Options, read_slice};
use super::super::stream::{Block, Configuration, Damage, Device, Framing, Item, ItemKind, Ram, Section, Stream};

/// The format's number. It is increased when a member changes its meaning or is removed, not when one is added.
const FORMAT: u32 = 1;

/// Writes the document about `stream`. `fields` selects the devices whose fields are listed.
pub fn write_json<W: Write>(stream: &Stream, fields: impl Fn(&Device) -> bool, out: W) -> io::Result<()> {
    let mut writer = Writer { json: Emitter::new(out, Some(2)) };
    writer.stream(stream, &fields);
    writer.json.finish().map(drop)
}

/// Returns the document about a stream in memory, with the fields of all devices.
pub fn to_json(stream: &[u8], options: Options) -> String {
    let mut out = Vec::new();
    // Writing to memory does not fail, and the text is ASCII.
    let _ = write_json(&read_slice(stream, options), |_| true, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

struct Writer<W> {
    json: Emitter<W>,
}

impl<W: Write> Writer<W> {
    fn stream(&mut self, stream: &Stream, fields: &dyn Fn(&Device) -> bool) {
        self.json.object().name("savevm-inspect").number(FORMAT);
        self.json.name("stream").object();
        self.json.name("version").number(stream.version);
        self.json.name("length").number(stream.length);
        self.json.name("trailing").number(stream.trailing);
        self.json.name("complete").bool(stream.complete);
        self.json.name("footers");
        match stream.footers {
            Some(footers) => self.json.bool(footers),
            None => self.json.null(),
        };
        self.json.name("description").optional_string(description_from(stream));
        self.json.end();
        self.configuration(stream.configuration.as_ref());
        self.json.name("items").array();
        for item in &stream.items {
            self.item(stream, item, fields);
        }
        self.json.end();
        self.ram(&stream.ram, &guest_spans(stream));
        self.damage(stream.damage.as_ref());
        self.container(&stream.container);
        self.json.end();
    }

    fn container(&mut self, container: &Container) {
        self.json.name("container").object().name("libvirt");
        match container.libvirt {
            Some(header) => {
                self.json.object().name("finished").bool(header.finished);
                self.json.name("version").number(header.version);
                self.json.name("length").number(header.length);
                self.json.name("was_running").bool(header.was_running);
                self.json.name("format").string(header.format_name()).end();
            }
            None => {
                self.json.null();
            }
        }
        self.json.name("compression");
        match &container.compression {
            Some(compression) => {
                self.json.object().name("method").string(compression.method);
                self.json.name("length").number(compression.length);
                self.json.name("trailing").number(compression.trailing);
                self.json.name("padded").bool(compression.padded);
                self.compression_damage(compression.damage.as_ref());
                self.json.end();
            }
            None => {
                self.json.null();
            }
        }
        self.json.end();
    }

    fn compression_damage(&mut self, damage: Option<&CompressionDamage>) {
        self.json.name("damage");
        match damage {
            Some(CompressionDamage { offset, produced, cut, message }) => {
                self.json.object().name("offset").number(*offset).name("produced").number(*produced);
                self.json.name("cut").bool(*cut).name("message").string(message).end();
            }
            None => {
                self.json.null();
            }
        }
    }

    fn configuration(&mut self, configuration: Option<&Configuration>) {
        self.json.name("configuration");
        let Some(configuration) = configuration else {
            self.json.null();
            return;
        };
        self.json.object().name("machine").string(&configuration.machine);
        self.json.name("page_bits").optional_number(configuration.page_bits.map(u64::from));
        self.json.name("capabilities").array();
        for capability in &configuration.capabilities {
            self.json.string(capability);
        }
        self.json.end().name("uuid");
        match &configuration.uuid {
            Some(uuid) => {
                self.json.hex("", uuid, "");
            }
            None => {
                self.json.null();
            }
        }
        self.json.end();
    }

    fn item(&mut self, stream: &Stream, item: &Item, fields: &dyn Fn(&Device) -> bool) {
        self.json.object().name("kind").string(match &item.kind {
            ItemKind::Header => "header",
            ItemKind::Configuration => "configuration",
            ItemKind::Section(_) => "section",
            ItemKind::Command(_) => "command",
            ItemKind::Eof => "eof",
            ItemKind::Description => "description",
        });
        self.json.name("offset").number(item.offset);
        self.json.name("size").number(item.size);
        self.json.name("depth").number(item.depth);
        match &item.kind {
            ItemKind::Section(section) => self.section(stream, section, fields(&section.device)),
            ItemKind::Command(command) => {
                self.json.name("number").number(command.number);
                self.json.name("name").optional_string(command.name);
                self.json.name("detail").string(&command.detail);
            }
            _ => {}
        }
        self.json.end();
    }

    fn section(&mut self, stream: &Stream, section: &Section, fields: bool) {
        self.json.name("part").string(section.kind.name());
        self.json.name("id").number(section.id);
        self.device(&section.device);
        self.json.name("twin").number(section.twin);
        self.json.name("version").number(section.version);
        self.json.name("count").number(section.count);
        self.json.name("state_offset").number(section.payload);
        self.json.name("framing").string(match section.framing {
            Framing::Parsed => "parsed",
            Framing::Described => "described",
            Framing::Searched => "searched",
        });
        let Some(data) = &section.data else { return };
        self.json.name("state_size").number(data.len() as u64);
        if !fields {
            return;
        }
        let Some(layout) = stream.layout(section) else {
            self.json.name("state").hex("", data, "");
            return;
        };
        self.json.name("vmsd").optional_string(layout.name.as_deref());
        self.json.name("fields").array();
        let depth = self.json.depth();
        let misfit = decode(layout, data, self).err();
        self.json.end_to(depth).end();
        if let Some(misfit) = misfit {
            self.json.name("misfit").object();
            self.json.name("offset").number(misfit.offset as u64);
            self.json.name("path").string(&misfit.path);
            self.json.name("message").string(&misfit.message);
            self.json.end().name("state").hex("", data, "");
        }
    }

    fn device(&mut self, device: &Device) {
        self.json.name("name").string(&device.name);
        self.json.name("instance").number(device.instance);
    }

    fn ram(&mut self, ram: &Ram, spans: &[Span]) {
        self.json.name("ram").object();
        self.json.name("page_size").optional_number(ram.page_size.map(|(size, _)| size));
        self.json.name("page_size_from").optional_string(ram.page_size.map(|(_, from)| from.name()));
        self.json.name("multifd").bool(ram.multifd);
        self.json.name("hooks").number(ram.hooks);
        self.json.name("framing").number(ram.framing);
        self.json.name("blocks").array();
        let page_size = ram.page_size.map(|(size, _)| size);
        for block in &ram.blocks {
            self.block(block, page_size);
        }
        self.json.end().name("spans").array();
        for Span { block, offset, address, length } in spans {
            self.json.object().name("block").string(block).name("offset").number(*offset);
            self.json.name("address").number(*address).name("length").number(*length).end();
        }
        self.json.end().end();
    }

    fn block(&mut self, block: &Block, page_size: Option<u64>) {
        self.json.object().name("name").string(&block.name);
        self.json.name("length").number(block.length);
        self.json.name("page_size").optional_number(block.page_size);
        self.json.name("address").optional_number(block.address);
        self.json.name("absent_pages").optional_number(page_size.map(|size| block.absent_pages(size)));
        self.json.name("mapped");
        match block.mapped {
            Some(mapped) => {
                self.json.object().name("bitmap_offset").number(mapped.bitmap_offset);
                self.json.name("pages_offset").number(mapped.pages_offset).end();
            }
            None => {
                self.json.null();
            }
        }
        for (kind, count) in block.counts() {
            self.json.name(kind).object();
            self.json.name("pages").number(count.pages).name("bytes").number(count.bytes);
            self.json.end();
        }
        self.json.end();
    }

    fn damage(&mut self, damage: Option<&Damage>) {
        self.json.name("damage");
        let Some(damage) = damage else {
            self.json.null();
            return;
        };
        self.json.object().name("offset").number(damage.offset);
        self.json.name("cut").bool(damage.cut);
        self.json.name("section");
        match &damage.section {
            Some((id, device, kind)) => {
                self.json.object().name("part").string(kind.name()).name("id").number(*id);
                self.device(device);
                self.json.end();
            }
            None => {
                self.json.null();
            }
        }
        self.json.name("expected").string(&damage.expected);
        self.json.name("found").string(&damage.found);
        self.json.name("last_good");
        match &damage.last_good {
            Some(device) => {
                self.json.object();
                self.device(device);
                self.json.end();
            }
            None => {
                self.json.null();
            }
        }
        self.json.end();
    }
}

/// Returns the source of the description by which the fields are decoded.
fn description_from(stream: &Stream) -> Option<&'static str> {
    let from = if stream.description_is_foreign { "other" } else { "stream" };
    stream.description.as_ref().map(|_| from)
}

impl<W: Write> FieldSink for Writer<W> {
    fn enter(&mut self, name: &str, group: Group) {
        self.json.object().name("name").string(name);
        let (kind, version) = match group {
            Group::Struct => ("struct", None),
            Group::Array => ("array", None),
            Group::List => ("list", None),
            Group::Subsection { version } => ("subsection", Some(version)),
        };
        self.json.name("type").string(kind);
        if let Some(version) = version {
            self.json.name("version").number(version);
        }
        self.json.name("fields").array();
    }

    fn leave(&mut self) {
        self.json.end().end();
    }

    fn field(&mut self, leaf: &Leaf<'_>) {
        self.json.object().name("name").string(leaf.name);
        self.json.name("type").string(leaf.type_name);
        self.json.name("offset").number(leaf.offset as u64);
        self.json.name("size").number(leaf.bytes.len() as u64);
        self.json.name("value");
        match leaf.value {
            Value::Signed(number) => {
                self.json.number(number);
            }
            Value::Unsigned(number) => {
                self.json.number(number);
            }
            Value::Bool(value) => {
                self.json.bool(value);
            }
            Value::Null => {
                self.json.null();
            }
            Value::Bytes => {
                self.json.hex("", leaf.bytes, "");
            }
        }
        self.json.end();
    }
}
