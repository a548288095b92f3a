// SPDX-License-Identifier: LGPL-2.1-or-later
//! Whether a stream would load into a machine.
//!
//! The machine is known from one of its own streams ([`Schema`]), or from what QEMU's `-dump-vmstate` says of its devices
//! ([`Dump`]). A stream shows what was sent that time; which other fields and subsections the machine knows it does not
//! show, so that such differences are warnings. A dump shows all that the machine can read.

mod align;
mod dump;
mod layouts;
mod schema;

pub use dump::Dump;
pub use schema::Schema;

use std::fmt;

use super::json::Json;
use super::printable::printable;
use super::stream::{Device, Stream};

/// What is known of the machine that a stream should load into.
#[derive(Debug)]
pub enum Target {
    /// The layouts of a stream of it.
    Schema(Box<Schema>),
    /// What its QEMU says of its devices.
    Dump(Dump),
}

/// One thing that stands against loading, or that is worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// The device that it is about, if it is about one.
    pub device: Option<Device>,
    /// The field or subsection, as a path; empty if it is about the whole.
    pub path: String,
    /// What is so, in words.
    pub message: String,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing. It has no effect on loading.
    Note,
    /// An unusual difference that QEMU accepts in most cases.
    Warning,
    /// A difference that makes QEMU read the bytes that follow as something else, unless the machine's own state happens
    /// to match.
    Risk,
    /// The stream will not load.
    Error,
}

impl Severity {
    /// A word for reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Risk => "risk",
            Self::Error => "error",
        }
    }
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
    /// Makes sense of a schema or a dump. An error says what is missing.
    pub fn from_json(json: Json<'_>) -> Result<Self, String> {
        if json.get("savevm-schema").is_some() {
            Schema::from_json(json).map(|schema| Self::Schema(Box::new(schema)))
        } else if json.get("vmschkmachine").is_some() {
            Dump::from_json(&json).map(Self::Dump)
        } else {
            Err("neither a schema nor what -dump-vmstate writes".into())
        }
    }

    /// What stands against loading `stream` into this machine.
    pub fn check(&self, stream: &Stream) -> Vec<Finding> {
        let mut findings = Findings::default();
        match self {
            Self::Schema(schema) => schema.check(stream, &mut findings),
            Self::Dump(dump) => dump.check(stream, &mut findings),
        }
        findings.finish()
    }
}

/// How many findings are kept. A layout can hold millions of fields that all differ.
const MOST_FINDINGS: usize = 10_000;

/// Findings as they are made, and what they are about.
#[derive(Default)]
struct Findings {
    list: Vec<Finding>,
    /// How many more there were. One that is worse than all before is kept.
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

    /// All findings, and how many there were more.
    fn finish(mut self) -> Vec<Finding> {
        if self.dropped > 0 {
            let message = format!("{} more differences are not listed", self.dropped);
            self.list.push(Finding { severity: Severity::Note, device: None, path: String::new(), message });
        }
        self.list
    }

    /// What is found until [`Findings::leave`] is about this field.
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

    /// What `check` finds is about this device.
    fn about(&mut self, device: &Device, check: impl FnOnce(&mut Self)) {
        self.device = Some(device.clone());
        check(self);
        self.device = None;
    }

    /// What `check` finds is about this field.
    fn within(&mut self, name: &str, check: impl FnOnce(&mut Self)) {
        self.enter(name);
        check(self);
        self.leave();
    }

    /// The machine's name; QEMU compares it first of all.
    fn machine(&mut self, stream: &Stream, wanted: Option<&str>) {
        match (stream.machine(), wanted) {
            (Some(have), Some(wanted)) if have != wanted => {
                self.error(format!("the stream is of machine {have}, not {wanted}"));
            }
            (None, Some(_)) => self.note("the stream does not name its machine"),
            _ => {}
        }
    }

    /// A version that is newer than the machine knows.
    fn version(&mut self, have: u64, known: u64) {
        if have > known {
            self.error(format!("version {have} is too new, the machine knows {known}"));
        }
    }
}

#[cfg(test)]
mod tests;
