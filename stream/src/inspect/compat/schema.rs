// SPDX-License-Identifier: LGPL-2.1-or-later
//! The layout of a machine, taken from one of its streams.

use std::collections::HashMap;
use std::io::{self, Write};

use super::super::describe::{Description, instance_id, write_layout};
use super::super::json::{Emitter, Json};
use super::super::stream::{Device, Stream};
use super::layouts::Comparison;
use super::{Findings, Severity};

/// The format's number. It is increased when older readers would misunderstand a schema.
const FORMAT: u64 = 1;

/// The properties of a machine that one of its streams contains.
#[derive(Debug, Default)]
pub struct Schema {
    machine: Option<String>,
    page_size: Option<u64>,
    capabilities: Vec<String>,
    /// The RAM blocks: name and length in bytes.
    ram: Vec<(String, u64)>,
    /// The devices with their versions, including live devices.
    versions: Vec<(Device, u64)>,
    layouts: Description,
}

impl Schema {
    /// Writes the schema of the machine of `stream`.
    pub fn write<W: Write>(stream: &Stream, out: W) -> io::Result<()> {
        let mut json = Emitter::new(out, Some(1));
        json.object().name("savevm-schema").number(FORMAT);
        json.name("machine").optional_string(stream.machine());
        json.name("page_size").optional_number(stream.ram.page_size.map(|(size, _)| size));
        json.name("capabilities").array();
        for capability in stream.configuration.iter().flat_map(|configuration| &configuration.capabilities) {
            json.string(capability);
        }
        json.end().name("ram").array();
        for block in &stream.ram.blocks {
            json.object().name("name").string(&block.name).name("length").number(block.length).end();
        }
        json.end().name("devices").array();
        let mut seen = HashMap::new();
        for (_, section) in stream.sections() {
            if seen.insert((&section.device, section.twin), ()).is_some() {
                continue;
            }
            json.object().name("name").string(&section.device.name);
            json.name("instance_id").number(section.device.instance);
            json.name("version_id").number(section.version);
            match stream.layout(section) {
                Some(layout) => write_layout(&mut json, layout),
                None => {
                    json.name("fields").array().end();
                }
            }
            json.end();
        }
        json.end().end();
        json.finish().map(drop)
    }

    /// Reads a schema.
    pub fn from_json(json: Json<'_>) -> Result<Self, String> {
        match json.get("savevm-schema").and_then(Json::as_u64) {
            Some(FORMAT) => {}
            other => {
                return Err(format!("a schema of format {}", other.map_or("?".into(), |format| format.to_string())));
            }
        }
        let text = |json: &Json<'_>| json.as_str().map(str::to_string);
        let list = |name| json.get(name).map(Json::elements).unwrap_or_default();
        let block = |json: &Json<'_>| Some((text(json.get("name")?)?, json.get("length")?.as_u64()?));
        let version = |json: &Json<'_>| {
            let name = json.get("name")?.as_str()?.into();
            let instance = json.get("instance_id").and_then(instance_id)?;
            Some((Device { name, instance }, json.get("version_id")?.as_u64()?))
        };
        let mut schema = Self {
            machine: json.get("machine").and_then(text),
            page_size: json.get("page_size").and_then(Json::as_u64),
            capabilities: list("capabilities").iter().filter_map(text).collect(),
            ram: list("ram").iter().filter_map(block).collect(),
            versions: list("devices").iter().filter_map(version).collect(),
            layouts: Description::default(),
        };
        schema.layouts = Description::from_json(json);
        Ok(schema)
    }

    pub(super) fn check(&self, stream: &Stream, findings: &mut Findings) {
        findings.machine(stream.machine(), self.machine.as_deref());
        if let (Some((have, _)), Some(wanted)) = (stream.ram.page_size, self.page_size) {
            findings.page_size(have, wanted);
        }
        let have = stream.configuration.iter().flat_map(|configuration| &configuration.capabilities);
        let have: Vec<&str> = have.map(|name| &**name).collect();
        let wanted: Vec<&str> = self.capabilities.iter().map(String::as_str).collect();
        findings.capabilities(&have, &wanted);
        let have: Vec<_> = stream.ram.blocks.iter().map(|block| (&*block.name, block.length)).collect();
        let wanted: Vec<_> = self.ram.iter().map(|(name, length)| (name.as_str(), *length)).collect();
        findings.ram_blocks(&have, &wanted, Severity::Warning);
        self.check_devices(stream, findings);
    }

    fn check_devices(&self, stream: &Stream, findings: &mut Findings) {
        let known: HashMap<&Device, u64> = self.versions.iter().map(|(device, version)| (device, *version)).collect();
        let mut seen = HashMap::new();
        for (_, section) in stream.sections() {
            if seen.insert((&section.device, section.twin), ()).is_some() {
                continue;
            }
            findings.about(&section.device, |findings| match known.get(&section.device) {
                None => findings.error("the machine has no such device"),
                Some(&version) => {
                    findings.version(section.version.into(), version);
                    let wanted = self.layouts.layout(&section.device, section.twin);
                    if let (Some(have), Some(wanted)) = (stream.layout(section), wanted) {
                        let same_version = u64::from(section.version) == version;
                        Comparison::new(findings).layouts(have, wanted, section.data.as_deref(), same_version);
                    }
                }
            });
        }
        for (device, _) in &self.versions {
            if !seen.contains_key(&(device, 0)) {
                findings.about(device, |findings| {
                    findings.warning("the stream does not have it; it stays as after a reset")
                });
            }
        }
    }
}
