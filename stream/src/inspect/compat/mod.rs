// SPDX-License-Identifier: LGPL-2.1-or-later
//! Checks whether a stream would load into a machine.
//!
//! The machine is known from one of its own streams ([`Schema`]), or from the output of QEMU's `-dump-vmstate`
//! ([`Dump`]). A stream only contains the fields and subsections that were sent. Other ones that the machine knows are
//! not in it, so a difference in them is a warning. A dump contains everything that the machine can read.
//!
//! The preflight of a migration has no stream yet. It compares two machines by their manifests ([`machines`]), and devices by
//! their descriptions ([`descriptions`]), which also compares two dumps.

mod align;
mod descriptions;
mod dump;
mod layouts;
mod machines;
mod schema;

pub use crate::wire::preflight::Severity;
pub use descriptions::descriptions;
pub use dump::Dump;
pub use machines::{Machines, machines, settings};
pub use schema::Schema;

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::json::Json;
use super::printable::printable;
use super::size::exact_size;
use super::stream::{Device, Stream};

/// The machine into which a stream would be loaded.
#[derive(Debug)]
pub enum Target {
    /// The layouts in one of its streams.
    Schema(Box<Schema>),
    /// The descriptions from its QEMU.
    Dump(Dump),
}

/// An obstacle to loading, or a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The severity.
    pub severity: Severity,
    /// The device, if the finding is about one.
    pub device: Option<Device>,
    /// The field or subsection, as a path. Empty if the finding is about the whole.
    pub path: String,
    /// The finding as text.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(device) = &self.device {
            write!(f, "{device}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", printable(&self.path))?;
        }
        f.write_str(&printable(&self.message))
    }
}

impl Target {
    /// Reads a schema or a dump.
    pub fn from_json(json: Json<'_>) -> Result<Self, String> {
        if json.get("savevm-schema").is_some() {
            Schema::from_json(json).map(|schema| Self::Schema(Box::new(schema)))
        } else if json.get("vmschkmachine").is_some() {
            Dump::from_json(&json).map(Self::Dump)
        } else {
            Err("neither a schema nor the output of -dump-vmstate".into())
        }
    }

    /// Checks `stream` against this machine.
    pub fn check(&self, stream: &Stream) -> Vec<Finding> {
        let mut findings = Findings::default();
        match self {
            Self::Schema(schema) => schema.check(stream, &mut findings),
            Self::Dump(dump) => dump.check(stream, &mut findings),
        }
        findings.finish()
    }

    /// Checks the descriptions of another QEMU against those of this machine. `None` if this is not a dump.
    pub fn check_dump(&self, source: &Dump) -> Option<Vec<Finding>> {
        let Self::Dump(dump) = self else { return None };
        let mut findings = Findings::default();
        dump.check_dump(source, &mut findings);
        Some(findings.finish())
    }
}

/// The most findings that are kept. A layout can hold millions of fields that all differ.
const MOST_FINDINGS: usize = 10_000;

/// The findings so far, and the device and field that are being checked.
#[derive(Default)]
struct Findings {
    list: Vec<Finding>,
    /// Number of dropped findings. A finding that is more severe than all kept ones is kept.
    dropped: u64,
    worst: Option<Severity>,
    device: Option<Device>,
    path: Vec<String>,
}

impl Findings {
    fn add(&mut self, severity: Severity, message: impl Into<String>) {
        let (device, path) = (self.device.clone(), self.path.join("."));
        self.keep(Finding { severity, device, path, message: message.into() });
    }

    fn keep(&mut self, finding: Finding) {
        let severity = finding.severity;
        if self.list.len() >= MOST_FINDINGS && self.worst >= Some(severity) {
            self.dropped += 1;
            return;
        }
        self.worst = self.worst.max(Some(severity));
        self.list.push(finding);
    }

    /// Returns the findings, with a note on the number of dropped ones.
    fn finish(mut self) -> Vec<Finding> {
        if self.dropped > 0 {
            let message = format!("{} more differences are not listed", self.dropped);
            self.list.push(Finding { severity: Severity::Note, device: None, path: String::new(), message });
        }
        self.list
    }

    /// Sets the field of the next findings, until [`Findings::leave`].
    fn enter(&mut self, name: &str) {
        self.path.push(name.into());
    }

    fn leave(&mut self) {
        self.path.pop();
    }

    fn error(&mut self, message: impl Into<String>) {
        self.add(Severity::Error, message);
    }

    fn warning(&mut self, message: impl Into<String>) {
        self.add(Severity::Warning, message);
    }

    fn note(&mut self, message: impl Into<String>) {
        self.add(Severity::Note, message);
    }

    /// Runs `check`, whose findings are about this device.
    fn about(&mut self, device: &Device, check: impl FnOnce(&mut Self)) {
        self.device = Some(device.clone());
        check(self);
        self.device = None;
    }

    /// Runs `check`, whose findings are about this field.
    fn within(&mut self, name: &str, check: impl FnOnce(&mut Self)) {
        self.enter(name);
        check(self);
        self.leave();
    }

    /// Compares the machine's name, which QEMU compares first.
    fn machine(&mut self, have: Option<&str>, wanted: Option<&str>) {
        match (have, wanted) {
            (Some(have), Some(wanted)) if have != wanted && wanted.starts_with(have) && !have.is_empty() => {
                self.note(format!("the stream is of machine {have}, a prefix of {wanted}, which is accepted"));
            }
            (Some(have), Some(wanted)) if have != wanted => {
                self.error(format!("the stream is of machine {have}, not {wanted}"));
            }
            (None, Some(_)) => self.note("the stream does not name its machine"),
            _ => {}
        }
    }

    /// Reports a version that is newer than the machine's.
    fn version(&mut self, have: u64, known: u64) {
        if have > known {
            self.error(format!("version {have} is too new, the machine knows {known}"));
        }
    }

    /// Reports a version that is older than the oldest that the machine knows.
    fn oldest_version(&mut self, have: u64, oldest: u64) {
        if have < oldest {
            self.error(format!("version {have} is too old, the machine knows {oldest} and later"));
        }
    }

    /// Compares the sizes of the target's pages.
    fn page_size(&mut self, have: u64, wanted: u64) {
        if have != wanted {
            self.error(format!("pages of {have} bytes, the machine's have {wanted}"));
        }
    }

    /// Compares the names of the enabled capabilities.
    fn capabilities(&mut self, have: &[&str], wanted: &[&str]) {
        for capability in have.iter().filter(|have| !wanted.contains(have)) {
            self.error(format!("the capability {capability} is on in the stream alone"));
        }
        for capability in wanted.iter().filter(|wanted| !have.contains(wanted)) {
            self.error(format!("the capability {capability} is off in the stream alone"));
        }
    }

    /// Compares the blocks of RAM: names and lengths in bytes. A block of the machine alone has the severity `extra`.
    fn ram_blocks(&mut self, have: &[(&str, u64)], wanted: &[(&str, u64)], extra: Severity) {
        let known: HashMap<&str, u64> = wanted.iter().copied().collect();
        for &(name, length) in have {
            self.within(&format!("RAM block {name}"), |findings| match known.get(name) {
                None => findings.error("the machine has no such block"),
                // QEMU grows and shrinks blocks that hold firmware tables.
                Some(&wanted) if wanted != length && name.starts_with("/rom@") => {
                    findings.note(format!("{length} bytes instead of {wanted}; it is resized"));
                }
                Some(&wanted) if wanted != length => {
                    let (length, wanted) = (exact_size(length), exact_size(wanted));
                    findings.error(format!("{length}, the machine's has {wanted}"));
                }
                Some(_) => {}
            });
        }
        let sent: HashSet<&str> = have.iter().map(|(name, _)| *name).collect();
        for (name, _) in wanted.iter().filter(|(name, _)| !sent.contains(name)) {
            self.within(&format!("RAM block {name}"), |findings| findings.add(extra, "the stream does not have it"));
        }
    }
}

#[cfg(test)]
mod tests;
