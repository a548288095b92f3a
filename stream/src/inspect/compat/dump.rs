// SPDX-License-Identifier: LGPL-2.1-or-later
//! The devices of a machine as QEMU's `-dump-vmstate` describes them.
//!
//! The dump lists device types, not devices, with everything that may be sent. A device is looked up by the name of its
//! VMStateDescription. Devices that are not types (`timer`, `ram`) are not in the dump.

use std::collections::{HashMap, HashSet};

use super::super::describe::{Field, Layout};
use super::super::json::Json;
use super::super::stream::Stream;
use super::align::{Gap, Stretch, align};
use super::{Findings, Severity};

/// The descriptions in a dump.
#[derive(Debug)]
pub struct Dump {
    machine: Option<String>,
    /// By name of the VMStateDescription. Several types may share a description, or have different ones of the same
    /// name.
    by_name: HashMap<String, Vec<Candidate>>,
}

/// Most descriptions of one name that two dumps compare with each other. QEMU has up to four.
const NAMESAKES_MAX: usize = 64;

/// A VMStateDescription.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Candidate {
    pub name: String,
    pub version: u64,
    pub minimum: u64,
    pub fields: Vec<KnownField>,
    pub subsections: Vec<Candidate>,
    /// For a subsection: whether it would be sent now, if that is known.
    pub needed: Option<bool>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct KnownField {
    /// The name as in a stream's description: numbered if the description repeats it.
    pub name: String,
    pub since: u64,
    pub conditional: bool,
    /// Size of an element in the memory of the program, in bytes.
    pub size: u64,
    pub inner: Option<Candidate>,
    /// Name of the VMStateInfo. The members from here on are in the layouts of a preflight, and not in a dump of QEMU.
    pub type_name: Option<String>,
    /// Size of an element in a stream, if it is the same in every stream.
    pub bytes: Option<u64>,
    /// Number of elements, if the stream does not contain it.
    pub elements: Option<u64>,
    /// Whether it would be sent now.
    pub present: Option<bool>,
}

impl Dump {
    /// Reads a dump.
    pub fn from_json(json: &Json<'_>) -> Result<Self, String> {
        let machine = json.get("vmschkmachine").and_then(|machine| machine.get("Name")?.as_str()).map(str::to_string);
        let mut by_name: HashMap<String, HashSet<Candidate>> = HashMap::new();
        for (_, entry) in json.members() {
            let Some(description) = entry.get("Description") else { continue };
            let Some(name) = description.get("name").and_then(Json::as_str) else { continue };
            by_name.entry(name.into()).or_default().insert(Candidate::from_json(description));
        }
        let by_name: HashMap<_, Vec<_>> =
            by_name.into_iter().map(|(name, known)| (name, known.into_iter().collect())).collect();
        if by_name.is_empty() { Err("no device in it".into()) } else { Ok(Self { machine, by_name }) }
    }

    /// Returns the number of descriptions.
    pub fn len(&self) -> usize {
        self.by_name.values().map(Vec::len).sum()
    }

    /// Returns whether there are none, which `from_json` rejects.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    pub(super) fn check(&self, stream: &Stream, findings: &mut Findings) {
        findings.machine(stream.machine(), self.machine.as_deref());
        let mut unknown = 0u64;
        for (_, section) in stream.devices() {
            let layout = stream.layout(section);
            let name = layout.and_then(|layout| layout.name.as_deref());
            let Some((layout, candidates)) = layout.zip(name.and_then(|name| self.by_name.get(name))) else {
                unknown += 1;
                continue;
            };
            findings.about(&section.device, |findings| {
                best(candidates, findings, |known, found| known.check(section.version.into(), layout, found));
            });
        }
        if unknown > 0 {
            findings.note(format!("{unknown} devices are not in the dump"));
        }
    }

    /// Checks what the QEMU of `source` sends. A description that only one of them has need not be part of a machine.
    pub(super) fn check_dump(&self, source: &Self, findings: &mut Findings) {
        findings.machine(source.machine.as_deref(), self.machine.as_deref());
        let mut names: Vec<_> = source.by_name.keys().collect();
        names.sort_unstable();
        for name in names {
            findings.within(name, |findings| {
                let Some(candidates) = self.by_name.get(name) else {
                    return findings.warning("the machine has no description of this name");
                };
                let all = &source.by_name[name];
                if all.len().max(candidates.len()) > NAMESAKES_MAX {
                    findings.warning(format!("only {NAMESAKES_MAX} descriptions of this name are compared"));
                }
                let candidates = &candidates[..candidates.len().min(NAMESAKES_MAX)];
                for sent in all.iter().take(NAMESAKES_MAX) {
                    best(candidates, findings, |known, found| super::descriptions::compare(sent, known, found));
                }
            });
        }
    }
}

/// Adds the findings of the candidate with the fewest errors, then risks, then warnings, then findings.
fn best(candidates: &[Candidate], findings: &mut Findings, check: impl Fn(&Candidate, &mut Findings)) {
    let attempt = |known: &Candidate| {
        let mut found =
            Findings { device: findings.device.clone(), path: findings.path.clone(), ..Findings::default() };
        check(known, &mut found);
        found.finish()
    };
    let weight = |list: &Vec<super::Finding>| {
        let of = |severity| list.iter().filter(|finding| finding.severity == severity).count();
        (of(Severity::Error), of(Severity::Risk), of(Severity::Warning), list.len())
    };
    for finding in candidates.iter().map(attempt).min_by_key(weight).unwrap_or_default() {
        findings.keep(finding);
    }
}

impl Candidate {
    pub fn from_json(json: &Json<'_>) -> Self {
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
                type_name: json.get("type").and_then(Json::as_str).map(str::to_string),
                bytes: json.get("bytes").and_then(Json::as_u64),
                elements: json.get("elements").and_then(Json::as_u64),
                present: bool_member(json, "present"),
            })
        };
        let mut fields: Vec<_> = list("Fields").filter_map(field).collect();
        number_repeated(&mut fields);
        Self {
            name: json.get("name").and_then(Json::as_str).unwrap_or_default().into(),
            version: number("version_id"),
            minimum: number("minimum_version_id"),
            fields,
            subsections: list("Subsections").map(Self::from_json).collect(),
            needed: bool_member(json, "needed"),
        }
    }

    /// Checks a state of the version that the stream names.
    fn check(&self, version: u64, layout: &Layout, findings: &mut Findings) {
        findings.version(version, self.version);
        findings.oldest_version(version, self.minimum);
        self.check_fields(version, layout, findings);
    }

    fn check_fields(&self, version: u64, layout: &Layout, findings: &mut Findings) {
        let ours: Vec<&[Field]> = layout.fields.chunk_by(|a, b| a.name == b.name).collect();
        let theirs: Vec<&KnownField> = self.fields.iter().filter(|known| known.since <= version).collect();
        for stretch in align(ours.iter().map(|run| &*run[0].name), theirs.iter().map(|known| &*known.name)) {
            match stretch {
                Stretch::Same(at, other) => {
                    findings.within(&ours[at][0].name, |findings| {
                        ours[at].iter().for_each(|field| theirs[other].check(field, findings));
                    });
                }
                Stretch::Gap(Gap { have, wanted }) => {
                    gap(&ours[have.0..have.1], &theirs[wanted.0..wanted.1], findings);
                }
            }
        }
        let known: HashMap<&str, &Self> = self.subsections.iter().map(|known| (known.name.as_str(), known)).collect();
        for subsection in &layout.subsections {
            let name = subsection.name.as_deref().unwrap_or_default();
            findings.within(name, |findings| match known.get(name) {
                Some(known) => known.check(subsection.version.unwrap_or(0), subsection, findings),
                None => findings.error("the machine does not know this subsection"),
            });
        }
    }
}

fn bool_member(json: &Json<'_>, name: &str) -> Option<bool> {
    match json.get(name) {
        Some(Json::Bool(value)) => Some(*value),
        _ => None,
    }
}

/// Numbers the fields whose name occurs more than once, as QEMU does in a stream's description.
fn number_repeated(fields: &mut [KnownField]) {
    let mut times: HashMap<String, (u32, u32)> = HashMap::new();
    for field in fields.iter() {
        times.entry(field.name.clone()).or_default().0 += 1;
    }
    for field in fields.iter_mut() {
        let Some((count, next)) = times.get_mut(&field.name) else { continue };
        if *count > 1 {
            field.name = format!("{}[{next}]", field.name);
            *next += 1;
        }
    }
}

/// Reports fields without a partner of the same name: renamed ones, those of one side only, and conditional ones.
fn gap(ours: &[&[Field]], theirs: &[&KnownField], findings: &mut Findings) {
    if let Some(pairs) = pair_up(ours, theirs) {
        for (run, known) in ours.iter().zip(pairs) {
            let message = format!("the machine reads these bytes as {}", known.name);
            findings.within(&run[0].name, |findings| findings.note(message));
        }
        return;
    }
    for run in ours {
        findings.within(&run[0].name, |findings| findings.error("the machine does not read this field"));
    }
    for known in theirs.iter().filter(|known| !known.conditional) {
        // An array without elements leaves no bytes in the stream. Nearly all arrays of unknown length contain
        // structures.
        let may_be_empty = ours.is_empty() && (known.inner.is_some() || known.size == 0);
        let severity = if may_be_empty { Severity::Warning } else { Severity::Risk };
        findings.within(&known.name, |findings| findings.add(severity, "the stream does not have this field"));
    }
}

/// Returns the machine's fields that read the bytes of `ours`, if each has one. The machine's other fields must be
/// conditional.
fn pair_up<'k>(ours: &[&[Field]], theirs: &[&'k KnownField]) -> Option<Vec<&'k KnownField>> {
    let mut left = theirs.iter();
    let mut pairs = Vec::with_capacity(ours.len());
    for run in ours {
        let known = left.find(|known| !known.conditional || known.reads(run))?;
        if !known.reads(run) {
            return None;
        }
        pairs.push(*known);
    }
    (!ours.is_empty() && left.all(|known| known.conditional)).then_some(pairs)
}

impl KnownField {
    /// Returns whether the field can be the one that reads this, by its size or structure.
    fn reads(&self, run: &[Field]) -> bool {
        match (&self.inner, &run[0].inner[..]) {
            (Some(known), [layout]) => layout.name.as_deref() == Some(&*known.name),
            (None, []) => self.size == run[0].size,
            _ => false,
        }
    }

    fn check(&self, field: &Field, findings: &mut Findings) {
        let is_number = field.type_name.contains("int") && (1..=8).contains(&field.size);
        match (&self.inner, &field.inner[..]) {
            // The version of a structure is not sent; the machine uses its own.
            (Some(known), [layout]) => known.check_fields(known.version, layout, findings),
            (None, []) if is_number && self.size != field.size && !field.is_null_pointer() && self.size <= 8 => {
                findings.error(format!("{} bytes, the machine reads {}", field.size, self.size));
            }
            _ => {}
        }
    }
}
