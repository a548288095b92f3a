// SPDX-License-Identifier: LGPL-2.1-or-later
//! The devices of a machine as QEMU's `-dump-vmstate` describes them.
//!
//! The dump goes by device type and not by name, and it has what can be sent, not what is. A device is found in it by the
//! name of its VMStateDescription. Devices that are not types of their own (`timer`, `ram`) are not in it.

use std::collections::HashMap;

use super::super::describe::{Field, Layout};
use super::super::json::Json;
use super::super::stream::Stream;
use super::{Findings, Severity};

/// What a QEMU says of its devices.
#[derive(Debug)]
pub struct Dump {
    machine: Option<String>,
    /// By name of the VMStateDescription; several types may share one, or differ under the same.
    by_name: HashMap<String, Vec<Known>>,
}

/// A VMStateDescription.
#[derive(Debug, PartialEq)]
struct Known {
    version: u64,
    minimum: u64,
    fields: Vec<KnownField>,
    subsections: Vec<(String, Known)>,
}

#[derive(Debug, PartialEq)]
struct KnownField {
    name: String,
    since: u64,
    conditional: bool,
    size: u64,
    inner: Option<Known>,
}

impl Dump {
    /// Reads a dump.
    pub fn from_json(json: &Json<'_>) -> Result<Self, String> {
        let machine = json.get("vmschkmachine").and_then(|machine| machine.get("Name")?.as_str()).map(str::to_string);
        let mut by_name: HashMap<String, Vec<Known>> = HashMap::new();
        for (_, entry) in json.members() {
            let Some(description) = entry.get("Description") else { continue };
            let Some(name) = description.get("name").and_then(Json::as_str) else { continue };
            let known = Known::from_json(description);
            let same = by_name.entry(name.into()).or_default();
            if !same.contains(&known) {
                same.push(known);
            }
        }
        if by_name.is_empty() { Err("no device in it".into()) } else { Ok(Self { machine, by_name }) }
    }

    pub(super) fn check(&self, stream: &Stream, findings: &mut Findings) {
        findings.machine(stream, self.machine.as_deref());
        let mut unknown = 0u64;
        for (_, section) in stream.devices() {
            let layout = stream.layout(section);
            let name = layout.and_then(|layout| layout.name.as_deref());
            let Some((layout, candidates)) = layout.zip(name.and_then(|name| self.by_name.get(name))) else {
                unknown += 1;
                continue;
            };
            findings.about(&section.device, |findings| best(candidates, section.version.into(), layout, findings));
        }
        if unknown > 0 {
            findings.note(format!("{unknown} devices are not in the dump"));
        }
    }
}

/// Adds what stands against the candidate that fits best.
fn best(candidates: &[Known], version: u64, layout: &Layout, findings: &mut Findings) {
    let attempt = |known: &Known| {
        let mut found = Findings { device: findings.device.clone(), ..Findings::default() };
        known.check(version, layout, &mut found);
        found.list
    };
    let weight = |list: &Vec<super::Finding>| {
        let of = |severity| list.iter().filter(|finding| finding.severity == severity).count();
        (of(Severity::Error), of(Severity::Warning))
    };
    findings.list.extend(candidates.iter().map(attempt).min_by_key(weight).unwrap_or_default());
}

impl Known {
    fn from_json(json: &Json<'_>) -> Self {
        let number = |name| json.get(name).and_then(Json::as_u64).unwrap_or(0);
        let list = |name| json.get(name).map(Json::elements).unwrap_or_default().iter();
        let field = |json: &Json<'_>| {
            let number = |name| json.get(name).and_then(Json::as_u64).unwrap_or(0);
            Some(KnownField {
                name: json.get("field")?.as_str()?.into(),
                since: number("version_id"),
                conditional: json.get("field_exists") == Some(&Json::Bool(true)),
                size: number("size"),
                inner: json.get("Description").map(Self::from_json),
            })
        };
        let subsection = |json: &Json<'_>| Some((json.get("name")?.as_str()?.to_string(), Self::from_json(json)));
        Self {
            version: number("version_id"),
            minimum: number("minimum_version_id"),
            fields: list("Fields").filter_map(field).collect(),
            subsections: list("Subsections").filter_map(subsection).collect(),
        }
    }

    fn check(&self, version: u64, layout: &Layout, findings: &mut Findings) {
        findings.version(version, self.version);
        if version < self.minimum {
            findings.error(format!("version {version} is too old, the machine knows {} and later", self.minimum));
        }
        let mut seen = HashMap::new();
        for field in &layout.fields {
            let name = base_name(&field.name);
            let first = seen.insert(name, ()).is_none();
            let known: Vec<_> =
                self.fields.iter().filter(|known| known.name == name && known.since <= version).collect();
            findings.within(&field.name, |findings| match &known[..] {
                [] if first => findings.error("the machine does not read this field"),
                [known] => known.check(field, findings),
                // Several fields share the name, or it was complained about.
                _ => {}
            });
        }
        let required = self.fields.iter().filter(|known| !known.conditional && known.since <= version);
        for known in required.filter(|known| !seen.contains_key(known.name.as_str())) {
            // An array of no elements leaves no trace.
            findings.within(&known.name, |findings| findings.warning("the stream does not have this field"));
        }
        for subsection in &layout.subsections {
            let name = subsection.name.as_deref().unwrap_or_default();
            let known = self.subsections.iter().find(|(known, _)| known == name);
            findings.within(name, |findings| match known {
                Some((_, known)) => known.check(subsection.version.unwrap_or(0), subsection, findings),
                None => findings.error("the machine does not know this subsection"),
            });
        }
    }
}

impl KnownField {
    fn check(&self, field: &Field, findings: &mut Findings) {
        let is_number = field.type_name.contains("int") && (1..=8).contains(&field.size);
        match (&self.inner, &field.inner[..]) {
            (Some(known), [layout]) => known.check(layout.version.unwrap_or(known.version), layout, findings),
            (None, []) if is_number && self.size != field.size && !field.is_null_pointer() && self.size <= 8 => {
                findings.error(format!("{} bytes, the machine reads {}", field.size, self.size));
            }
            _ => {}
        }
    }
}

/// The field's name without the number that a description adds where names repeat.
fn base_name(name: &str) -> &str {
    let numbered = name.strip_suffix(']').and_then(|name| name.rsplit_once('['));
    numbered.filter(|(_, number)| number.parse::<u32>().is_ok()).map_or(name, |(base, _)| base)
}
