// SPDX-License-Identifier: LGPL-2.1-or-later
//! Finds faults of a description that do not depend on a device: parts that can never be saved or loaded, and counts
//! that come from the stream without a bound.

use super::io::text;
use super::model::{Description, FieldShape, Kind, flags};
use std::collections::HashSet;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// A part does not work.
    Error,
    /// A part works, but may be unintended or unsafe.
    Warning,
    /// For information.
    Note,
}

/// A finding of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The severity.
    pub severity: Severity,
    /// The text, with the path if there is one.
    pub text: String,
}

impl Finding {
    pub(super) fn new(severity: Severity, text: impl Into<String>) -> Self {
        Self { severity, text: text.into() }
    }
}

/// Checks a description and everything in it.
pub fn lint<D: Description>(description: &D, report: &mut dyn FnMut(Finding)) {
    let mut seen = HashSet::new();
    let path = text(description.name());
    Lint { seen: &mut seen, report }.description(description, &path);
}

struct Lint<'a> {
    /// Descriptions that were checked. A description may contain itself.
    seen: &'a mut HashSet<usize>,
    report: &'a mut dyn FnMut(Finding),
}

impl Lint<'_> {
    fn add(&mut self, severity: Severity, path: &str, what: &str) {
        (self.report)(Finding::new(severity, format!("{path}: {what}")));
    }

    fn description<D: Description>(&mut self, description: &D, path: &str) {
        if !self.seen.insert(description.identity()) {
            return;
        }
        let (newest, oldest) = (description.version(), description.minimum_version());
        if oldest > newest {
            let what = format!("no version can be loaded: the oldest is {oldest}, the newest {newest}");
            self.add(Severity::Error, path, &what);
        }
        let mut earlier: Vec<D::Field> = Vec::new();
        for field in description.fields() {
            let path = format!("{path}/{}", text(field.name()));
            self.field(description, &field, &earlier, &path);
            earlier.push(field);
        }
        self.subsections(description, path);
    }

    fn field<D: Description>(&mut self, of: &D, field: &D::Field, earlier: &[D::Field], path: &str) {
        if field.version() > of.version() && !field.is_conditional() {
            let what = format!("is for version {} and never saved in version {}", field.version(), of.version());
            self.add(Severity::Warning, path, &what);
        }
        let inner = field.inner();
        let is_empty = field.flags() & flags::ARRAY != 0 && field.flags() & flags::MUST_EXIST != 0;
        let needs_inner = matches!(field.loads(), Kind::Tmp | Kind::TailQueue | Kind::List | Kind::Tree | Kind::Struct);
        if needs_inner && inner.is_none() && !is_empty {
            self.add(Severity::Error, path, "has neither an info nor a description that it needs");
        }
        if is_unbounded(field, earlier) {
            self.add(Severity::Warning, path, "its size is in the stream and nothing bounds it");
        }
        if let (Some(inner), false) = (inner, field.loads() == Kind::Custom) {
            self.description(&inner, path);
        }
    }

    fn subsections<D: Description>(&mut self, description: &D, path: &str) {
        let mut names = HashSet::new();
        for subsection in description.subsections() {
            let name = subsection.name();
            let path = format!("{path}/{}", text(name.rsplit(|byte| *byte == b'/').next().unwrap_or(name)));
            if !name.starts_with(description.name()) || name.len() <= description.name().len() {
                let what = format!("is never loaded: '{}' does not begin with its parent's name", text(name));
                self.add(Severity::Error, &path, &what);
            }
            if name.len() > usize::from(u8::MAX) {
                self.add(Severity::Error, &path, "is never loaded: its name has more than 255 bytes");
            }
            if !names.insert(name.to_vec()) {
                self.add(Severity::Error, &path, "is never loaded: there is another of that name");
            }
            if subsection.version() > i32::from(u8::MAX) {
                self.add(Severity::Error, &path, "is never loaded: its version does not fit a byte");
            }
            self.description(&subsection, &path);
        }
    }
}

/// Returns whether the member that gives the extent was loaded by an earlier field without a check.
fn is_unbounded<F: FieldShape>(field: &F, earlier: &[F]) -> bool {
    let Some(measure) = field.measure() else { return false };
    let allocates = field.flags() & flags::ALLOC != 0 && field.flags() & flags::POINTER != 0;
    // Ignored bytes need no memory.
    if allocates || field.room() > 0 || field.loads() == Kind::Unused {
        return false;
    }
    let Some(at) = earlier.iter().rposition(|other| other.offset() == measure && other.loads().width() > 0) else {
        return false;
    };
    let checked = matches!(
        earlier[at].loads(),
        Kind::AtMostI32 | Kind::EqualU8 | Kind::EqualU16 | Kind::EqualU32 | Kind::EqualU64
    );
    let validated = earlier[at..].iter().any(|other| other.flags() & flags::MUST_EXIST != 0);
    // An 8-bit count cannot exceed an array of 256 elements, but the array's length is unknown here.
    !checked && !validated
}
