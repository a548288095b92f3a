// SPDX-License-Identifier: LGPL-2.1-or-later
//! Compares the layout of a device's state with the layout in the machine's own stream.
//!
//! QEMU sends neither names nor types of fields. A difference matters if it changes which bytes the machine reads as
//! which field. A different name, or a different type of the same size, does not matter.

use std::collections::HashMap;

use super::super::decode::Value;
use super::super::describe::{Field, Layout};
use super::align::{Gap, Stretch, align};
use super::{Findings, Severity};

/// A comparison of two layouts, with the numbers that were read so far.
pub(super) struct Comparison<'f> {
    findings: &'f mut Findings,
    /// The numbers that the stream sends before the current field, in this structure and the enclosing ones. A later
    /// field may have as many elements.
    numbers: HashMap<u64, u32>,
}

/// The entries of one field, or of an array.
struct Run<'a> {
    name: &'a str,
    fields: &'a [Field],
    /// Offset in the state of its layout, in bytes.
    offset: u64,
    size: u64,
}

impl Run<'_> {
    fn count(&self) -> u64 {
        self.fields.iter().fold(0u64, |sum, field| sum.saturating_add(field.array_len.unwrap_or(1)))
    }

    fn is_array(&self) -> bool {
        self.fields.len() > 1 || self.fields.iter().any(|field| field.array_len.is_some() || field.index.is_some())
    }

    /// Returns whether the field's length follows from its own format.
    fn has_own_format(&self) -> bool {
        let format =
            |field: &Field| field.inner.is_empty() && !is_fixed(&field.type_name) && !is_bytes(&field.type_name);
        self.fields.iter().all(format)
    }

    fn state<'s>(&self, state: Option<&'s [u8]>) -> Option<&'s [u8]> {
        let start = usize::try_from(self.offset).ok()?;
        state?.get(start..)?.get(..usize::try_from(self.size).ok()?)
    }

    /// Returns the field's value, if it is a number.
    fn number(&self, state: Option<&[u8]>) -> Option<u64> {
        let [field] = self.fields else { return None };
        match Value::of(&field.type_name, self.state(state)?) {
            _ if self.is_array() => None,
            Value::Unsigned(number) => Some(number),
            Value::Signed(number) => u64::try_from(number).ok(),
            _ => None,
        }
    }
}

fn runs(fields: &[Field]) -> Vec<Run<'_>> {
    let mut offset = 0u64;
    let run = |fields: &'_ [Field]| {
        let size = fields.iter().map(Field::total_size).fold(0, u64::saturating_add);
        let start = offset;
        offset = offset.saturating_add(size);
        (start, size)
    };
    let places: Vec<_> = fields.chunk_by(|a, b| a.name == b.name).map(run).collect();
    let entries = fields.chunk_by(|a, b| a.name == b.name).zip(places);
    entries.map(|(fields, (offset, size))| Run { name: &fields[0].name, fields, offset, size }).collect()
}

fn total(runs: &[Run<'_>]) -> u64 {
    runs.iter().fold(0, |sum, run| sum.saturating_add(run.size))
}

impl<'f> Comparison<'f> {
    /// Returns a comparison that reports differences to `findings`.
    pub fn new(findings: &'f mut Findings) -> Self {
        Self { findings, numbers: HashMap::new() }
    }

    /// Compares the layout of a stream with the layout in the machine's own stream. `state` holds the bytes of `have`,
    /// if known.
    pub fn layouts(&mut self, have: &Layout, wanted: &Layout, state: Option<&[u8]>, same_version: bool) {
        let name = |layout: &Layout| layout.name.as_deref().unwrap_or("without a name").to_string();
        if have.name.is_some() != wanted.name.is_some() {
            return self.findings.error(format!("the state is {}, the machine's is {}", name(have), name(wanted)));
        }
        if have.name != wanted.name {
            // The name is not sent.
            self.findings.note(format!("the state is {}, the machine's is {}", name(have), name(wanted)));
        }
        let (ours, theirs) = (runs(&have.fields), runs(&wanted.fields));
        let mut sent = Vec::new();
        let mut open = Gap { have: (0, 0), wanted: (0, 0) };
        for stretch in align(ours.iter().map(|run| run.name), theirs.iter().map(|run| run.name)) {
            match stretch {
                Stretch::Gap(gap) => (open.have.1, open.wanted.1) = (gap.have.1, gap.wanted.1),
                Stretch::Same(at, other) => {
                    let (run, wanted) = (&ours[at], &theirs[other]);
                    let next = Gap { have: (at + 1, at + 1), wanted: (other + 1, other + 1) };
                    if run.size == wanted.size || run.has_own_format() {
                        self.gap(&ours, &theirs, open, state, same_version);
                        self.fields(run, wanted, run.state(state));
                        open = next;
                    } else {
                        // Fields beside it may compensate for the difference.
                        (open.have.1, open.wanted.1) = (at + 1, other + 1);
                    }
                    if let Some(number) = run.number(state) {
                        *self.numbers.entry(number).or_default() += 1;
                        sent.push(number);
                    }
                }
            }
        }
        self.gap(&ours, &theirs, open, state, same_version);
        self.subsections(have, wanted);
        for number in sent {
            if let Some(count) = self.numbers.get_mut(&number) {
                *count -= 1;
            }
        }
    }

    /// Reports fields of which at least one side has none with the same name and size.
    fn gap(&mut self, ours: &[Run<'_>], theirs: &[Run<'_>], gap: Gap, state: Option<&[u8]>, same_version: bool) {
        let (ours, theirs) = (&ours[gap.have.0..gap.have.1], &theirs[gap.wanted.0..gap.wanted.1]);
        if total(ours) == total(theirs) {
            return self.same_bytes(ours, theirs);
        }
        let known: HashMap<&str, &Run<'_>> = theirs.iter().map(|run| (run.name, run)).collect();
        let here: HashMap<&str, ()> = ours.iter().map(|run| (run.name, ())).collect();
        for run in ours {
            match known.get(run.name) {
                Some(wanted) => self.fields(run, wanted, run.state(state)),
                None => self.only_here(run, same_version),
            }
        }
        for run in theirs.iter().filter(|run| !here.contains_key(run.name)) {
            self.only_there(run, same_version);
        }
    }

    /// Reports fields that have the same bytes and different names.
    fn same_bytes(&mut self, ours: &[Run<'_>], theirs: &[Run<'_>]) {
        if total(ours) == 0 {
            return;
        }
        let paired = ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| a.size == b.size);
        if paired {
            for (run, wanted) in ours.iter().zip(theirs) {
                let message = format!("in the machine's own stream these {} bytes are {}", run.size, wanted.name);
                self.findings.within(run.name, |findings| findings.note(message));
            }
            return;
        }
        let names: Vec<&str> = theirs.iter().map(|run| run.name).take(8).collect();
        let message = format!("in the machine's own stream these {} bytes are {}", total(ours), names.join(", "));
        let path = ours.iter().map(|run| run.name).take(8).collect::<Vec<_>>().join(", ");
        self.findings.within(&path, |findings| findings.note(message));
    }

    fn only_here(&mut self, run: &Run<'_>, same_version: bool) {
        let severity = match () {
            () if run.size == 0 || !same_version => Severity::Note,
            () if run.is_array() && self.is_announced(run.count()) => Severity::Warning,
            () => Severity::Risk,
        };
        let message = match severity {
            Severity::Note => "the machine's own stream did not have this field; its state had another version".into(),
            _ => format!("the machine's own stream did not have this field of {} bytes", run.size),
        };
        self.findings.within(run.name, |findings| findings.add(severity, message));
    }

    fn only_there(&mut self, run: &Run<'_>, same_version: bool) {
        // An array without elements leaves no bytes in the stream.
        let severity = if run.is_array() { Severity::Warning } else { Severity::Risk };
        if run.size > 0 && same_version {
            let message = format!("the stream does not have this field of {} bytes", run.size);
            self.findings.within(run.name, |findings| findings.add(severity, message));
        }
    }

    /// Returns whether a number that was sent before can be the number of these elements.
    fn is_announced(&self, count: u64) -> bool {
        self.numbers.get(&count).is_some_and(|times| *times > 0)
    }

    /// Compares a field that has the same name on both sides.
    fn fields(&mut self, have: &Run<'_>, wanted: &Run<'_>, state: Option<&[u8]>) {
        self.findings.enter(have.name);
        self.counts(have, wanted);
        let mut at = 0;
        for (field, wanted) in have.fields.iter().zip(wanted.fields) {
            let element = state.and_then(|state| state.get(at..)?.get(..usize::try_from(field.size).ok()?));
            at = at.saturating_add(usize::try_from(field.total_size()).unwrap_or(usize::MAX));
            if field.is_null_pointer() == wanted.is_null_pointer() {
                self.field(field, wanted, element);
            }
        }
        self.findings.leave();
    }

    fn counts(&mut self, have: &Run<'_>, wanted: &Run<'_>) {
        let (count, known) = (have.count(), wanted.count());
        if count == known {
            return;
        }
        let severity = match () {
            () if have.size == wanted.size => Severity::Note,
            () if self.is_announced(count) => Severity::Warning,
            () => Severity::Error,
        };
        self.findings.add(severity, format!("{count} elements, the machine's own stream had {known}"));
    }

    fn field(&mut self, have: &Field, wanted: &Field, state: Option<&[u8]>) {
        let (type_name, known) = (&*have.type_name, &*wanted.type_name);
        if type_name != known {
            let message = format!("of type {type_name}, the machine's is {known}");
            return match have.size == wanted.size {
                true => self.findings.note(message + ", of the same size"),
                false => self.findings.error(message),
            };
        }
        if let ([have], [wanted]) = (&have.inner[..], &wanted.inner[..]) {
            // The version of a structure is not sent; the machine uses its own.
            return self.layouts(have, wanted, state, true);
        }
        if have.size != wanted.size && have.inner.is_empty() && wanted.inner.is_empty() {
            let severity = match () {
                () if is_fixed(type_name) => Severity::Error,
                () if is_bytes(type_name) && !self.is_length(have.size) => Severity::Risk,
                () => Severity::Warning,
            };
            self.findings.add(severity, format!("{} bytes, the machine's own stream had {}", have.size, wanted.size));
        }
    }

    /// Returns whether a number that was sent before can be the length of so many bytes, in elements of a usual size.
    fn is_length(&self, size: u64) -> bool {
        [1, 2, 4, 6, 8].into_iter().any(|unit| size.is_multiple_of(unit) && self.is_announced(size / unit))
    }

    fn subsections(&mut self, have: &Layout, wanted: &Layout) {
        let known: HashMap<&str, &Layout> =
            wanted.subsections.iter().map(|layout| (layout.name.as_deref().unwrap_or_default(), layout)).collect();
        for subsection in &have.subsections {
            let name = subsection.name.as_deref().unwrap_or_default();
            self.findings.enter(name);
            match known.get(name) {
                Some(wanted) => {
                    let (have, known) = (subsection.version.unwrap_or(0), wanted.version.unwrap_or(0));
                    self.findings.version(have, known);
                    self.layouts(subsection, wanted, None, have == known);
                }
                None => self.findings.warning("the machine's own stream did not have this subsection"),
            }
            self.findings.leave();
        }
    }
}

/// Returns whether a field of this type has the same size in every stream.
fn is_fixed(type_name: &str) -> bool {
    type_name == "bool" || type_name == "timer" || type_name.contains("int")
}

/// Returns whether a field of this type is bytes whose number is not in the stream.
fn is_bytes(type_name: &str) -> bool {
    type_name.contains("buffer")
}
