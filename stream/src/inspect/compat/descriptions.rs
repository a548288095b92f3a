// SPDX-License-Identifier: LGPL-2.1-or-later
//! Compares two descriptions: what one program sends with what the other one reads.
//!
//! A stream has no field names, so a field is what stands at its place. A difference is an error if it shifts or exchanges
//! bytes in every stream, and less than that if it depends on the state of the device or on values in the stream.

use std::collections::{HashMap, HashSet};

use super::super::budget::Budget;
use super::super::json::Json;
use super::super::stream::Device;
use super::align::{Gap, Stretch, align};
use super::dump::{Candidate, KnownField};
use super::{Finding, Findings, Severity};

/// Compares the layouts of a device at the source and here, as JSON in the form of `-dump-vmstate`. Layouts of a preflight
/// have more members: `type`, `bytes`, `elements` and `present` of a field, and `needed` of a subsection.
///
/// A text that can't be read is a warning: the layout can't be compared. Memory is taken from `budget`.
pub fn descriptions(device: &Device, sent: &[u8], read: &[u8], budget: &mut Budget) -> Vec<Finding> {
    let mut findings = Findings::default();
    let mut parse = |text: &[u8]| {
        let before = budget.left();
        let parsed =
            Json::parse(text, budget).ok().map(|json| Candidate::from_json(json.get("Description").unwrap_or(&json)));
        budget.give_back(before - budget.left());
        parsed
    };
    findings.about(device, |findings| match (parse(sent), parse(read)) {
        (Some(sent), Some(read)) => compare(&sent, &read, findings),
        _ => findings.warning("the layout of its state can't be compared"),
    });
    findings.finish()
}

/// Compares what `sent` writes in its own version with what `read` reads.
pub(super) fn compare(sent: &Candidate, read: &Candidate, findings: &mut Findings) {
    findings.version(sent.version, read.version);
    findings.oldest_version(sent.version, read.minimum);
    if sent.name != read.name {
        // The name is not sent.
        findings.note(format!("the state is {}, the machine's is {}", sent.name, read.name));
    }
    fields(sent, sent.version, read, sent.version, findings);
}

/// Compares fields and subsections. A structure is read in a version of the reader, which is `read_version`.
fn fields(sent: &Candidate, version: u64, read: &Candidate, read_version: u64, findings: &mut Findings) {
    let ours: Vec<&KnownField> =
        sent.fields.iter().filter(|field| field.since <= version && !field.is_absent()).collect();
    let theirs: Vec<&KnownField> = read.fields.iter().filter(|field| field.since <= read_version).collect();
    let names = |fields: &[&KnownField]| -> HashSet<String> {
        fields.iter().filter(|field| !field.is_unused()).map(|field| field.name.clone()).collect()
    };
    let (here, there) = (names(&ours), names(&theirs));
    let mut open = Gap { have: (0, 0), wanted: (0, 0) };
    let sides = (&ours[..], &theirs[..]);
    for stretch in align(ours.iter().map(|field| &*field.name), theirs.iter().map(|field| &*field.name)) {
        match stretch {
            Stretch::Gap(gap) => (open.have.1, open.wanted.1) = (gap.have.1, gap.wanted.1),
            // Fields beside it may compensate for the difference.
            Stretch::Same(at, other) if ours[at].is_other_buffer(theirs[other]) => {
                (open.have.1, open.wanted.1) = (at + 1, other + 1);
            }
            Stretch::Same(at, other) => {
                gap(sides, open, (&here, &there), findings);
                findings.within(&ours[at].name, |findings| pair(ours[at], theirs[other], findings));
                open = Gap { have: (at + 1, at + 1), wanted: (other + 1, other + 1) };
            }
        }
    }
    gap(sides, open, (&here, &there), findings);
    let known: HashMap<&str, &Candidate> = read.subsections.iter().rev().map(|known| (&*known.name, known)).collect();
    for subsection in &sent.subsections {
        findings.within(&subsection.name, |findings| match known.get(&*subsection.name) {
            Some(known) => compare(subsection, known, findings),
            None if subsection.needed == Some(true) => findings.error("the machine does not know this subsection"),
            None => findings.warning("the machine does not know this subsection, which is not sent in every stream"),
        });
    }
}

/// Compares a field with the one of the same name.
fn pair(sent: &KnownField, read: &KnownField, findings: &mut Findings) {
    match (&sent.inner, &read.inner) {
        (Some(inner), Some(known)) => {
            elements(sent, read, findings);
            // The version of a structure is not sent; each side uses its own.
            return fields(inner, inner.version, known, known.version, findings);
        }
        (None, None) => {}
        (inner, _) => {
            let kind = |is_struct| if is_struct { "a structure" } else { "no structure" };
            let (have, wanted) = (inner.is_some(), read.inner.is_some());
            return findings.error(format!("{}, the machine's is {}", kind(have), kind(wanted)));
        }
    }
    if let (Some(have), Some(wanted)) = (sent.total(), read.total()) {
        if have == wanted {
            return types(sent, read, findings);
        }
    }
    elements(sent, read, findings);
    let (have, wanted) = (sent.bytes.unwrap_or(sent.size), read.bytes.unwrap_or(read.size));
    match (sent.bytes.zip(read.bytes), have != wanted) {
        (Some(_), true) => findings.error(format!("{have} bytes, the machine reads {wanted}")),
        // A dump of QEMU has the size in memory, which is that in a stream for numbers, and in most cases for buffers.
        (None, true) if sent.type_name.is_none() && read.type_name.is_none() => {
            let is_number = |size| matches!(size, 1 | 2 | 4 | 8);
            let severity = if is_number(have) && is_number(wanted) { Severity::Error } else { Severity::Risk };
            findings.add(severity, format!("{have} bytes, the machine reads {wanted}"));
        }
        _ => types(sent, read, findings),
    }
}

fn types(sent: &KnownField, read: &KnownField, findings: &mut Findings) {
    if let (Some(have), Some(wanted)) = (&sent.type_name, &read.type_name) {
        if have != wanted {
            let same = sent.bytes.is_some() && sent.bytes == read.bytes;
            let message = format!("of type {have}, the machine's is {wanted}");
            match same {
                true => findings.note(message + ", of the same size"),
                false if sent.bytes.is_some() != read.bytes.is_some() => findings.error(message),
                false => findings.warning(message),
            }
        }
    }
}

fn elements(sent: &KnownField, read: &KnownField, findings: &mut Findings) {
    if let (Some(have), Some(wanted)) = (sent.elements, read.elements) {
        if have != wanted {
            findings.error(format!("{have} elements, the machine has {wanted}"));
        }
    }
}

/// Reports fields without a partner of the same name and size at this place.
fn gap(
    (ours, theirs): (&[&KnownField], &[&KnownField]),
    Gap { have, wanted }: Gap,
    (here, there): (&HashSet<String>, &HashSet<String>),
    findings: &mut Findings,
) {
    let (ours, theirs) = (&ours[have.0..have.1], &theirs[wanted.0..wanted.1]);
    let by_name: HashMap<&str, &KnownField> = theirs.iter().rev().map(|field| (&*field.name, *field)).collect();
    let sent: HashSet<&str> = ours.iter().map(|field| &*field.name).collect();
    // A name that is elsewhere on the other side, and not in this gap.
    let goes =
        |field: &KnownField| !field.is_unused() && there.contains(&field.name) && !by_name.contains_key(&*field.name);
    let comes = |field: &KnownField| !field.is_unused() && here.contains(&field.name) && !sent.contains(&*field.name);
    let any_moved = ours.iter().any(|field| goes(field)) || theirs.iter().any(|field| comes(field));
    if !any_moved && same_bytes(ours, theirs, findings) {
        return;
    }
    for field in ours {
        findings.within(&field.name, |findings| match by_name.get(&*field.name) {
            Some(known) => pair(field, known, findings),
            None if field.is_empty() => {}
            None if goes(field) => {
                findings.add(field.certain(), "the machine reads this field at another place");
            }
            None if !field.conditional => findings.add(field.certain(), "the machine does not read this field"),
            None if field.present == Some(true) => {
                findings.error("the machine does not read this field, which is sent now")
            }
            None => findings.warning("the machine does not read this field, which is not sent in every stream"),
        });
    }
    for field in theirs.iter().filter(|field| !sent.contains(&*field.name)) {
        findings.within(&field.name, |findings| match () {
            () if field.is_empty() || comes(field) => {}
            () if !field.conditional => {
                findings.add(field.certain(), "the stream does not have this field, which the machine reads");
            }
            () => findings.note("the stream does not have this field, which the machine does not always read"),
        });
    }
}

/// Returns whether the fields of both sides are the same bytes. Reports their names then.
fn same_bytes(ours: &[&KnownField], theirs: &[&KnownField], findings: &mut Findings) -> bool {
    if let Some(pairs) = pair_up(ours, theirs) {
        for (field, known) in ours.iter().zip(pairs) {
            let message = format!("the machine reads these bytes as {}", known.name);
            findings.within(&field.name, |findings| findings.note(message));
        }
        return true;
    }
    let total = |fields: &[&KnownField]| fields.iter().map(|field| field.fixed_total()).sum::<Option<u64>>();
    let (Some(have), Some(wanted)) = (total(ours), total(theirs)) else { return false };
    if have == wanted && have > 0 {
        let names =
            |fields: &[&KnownField]| fields.iter().take(8).map(|field| &*field.name).collect::<Vec<_>>().join(", ");
        let message = format!("the machine reads these {have} bytes as {}", names(theirs));
        findings.within(&names(ours), |findings| findings.note(message));
    }
    have == wanted
}

/// Returns the machine's fields that read the bytes of `ours`, if each has one. The machine's other fields must be
/// conditional.
fn pair_up<'k>(ours: &[&KnownField], theirs: &[&'k KnownField]) -> Option<Vec<&'k KnownField>> {
    let mut left = theirs.iter();
    let mut pairs = Vec::with_capacity(ours.len());
    for field in ours {
        let known = left.find(|known| !known.conditional || reads(known, field))?;
        if !reads(known, field) {
            return None;
        }
        pairs.push(*known);
    }
    (!ours.is_empty() && left.all(|known| known.conditional)).then_some(pairs)
}

/// Returns whether `known` can be the field that reads this one, by its size or structure.
fn reads(known: &KnownField, field: &KnownField) -> bool {
    match (&known.inner, &field.inner) {
        (Some(known), Some(inner)) => known.name == inner.name,
        (None, None) => match (known.total(), field.total()) {
            (Some(known), Some(have)) => known == have,
            // The sizes in a dump of QEMU are those in memory.
            (None, None) => known.type_name == field.type_name && known.size == field.size,
            _ => false,
        },
        _ => false,
    }
}

impl KnownField {
    /// Returns whether the source does not send it now.
    fn is_absent(&self) -> bool {
        self.present == Some(false)
    }

    fn is_unused(&self) -> bool {
        self.type_name.as_deref() == Some("unused_buffer") || self.name.starts_with("unused")
    }

    /// Returns whether both are buffers, of different sizes. A program may split a buffer into fields.
    fn is_other_buffer(&self, other: &Self) -> bool {
        let is_buffer = |field: &Self| match &field.type_name {
            Some(name) => name.contains("buffer"),
            None => field.inner.is_none() && !matches!(field.size, 1 | 2 | 4 | 8),
        };
        let size = |field: &Self| field.fixed_total().unwrap_or(field.size);
        is_buffer(self) && is_buffer(other) && size(self) != size(other)
    }

    fn is_empty(&self) -> bool {
        self.elements == Some(0) || self.bytes == Some(0)
    }

    /// Returns whether a dump of QEMU described it, which has neither types nor numbers of elements.
    fn is_of_qemu(&self) -> bool {
        self.type_name.is_none()
    }

    /// Returns the severity of a field without a partner. In a dump of QEMU fields beside it may have its bytes.
    fn certain(&self) -> Severity {
        if self.is_of_qemu() { Severity::Risk } else { Severity::Error }
    }

    /// Returns the bytes of all elements in a stream, if they are known. Those of a dump of QEMU are a guess.
    fn total(&self) -> Option<u64> {
        match self.is_of_qemu() && self.inner.is_none() {
            true => Some(self.size),
            false => self.bytes?.checked_mul(self.elements?),
        }
    }

    /// As `total`, unless the field may be absent.
    fn fixed_total(&self) -> Option<u64> {
        if self.conditional && self.present != Some(true) { None } else { self.total() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of a preflight's layout: members after the name.
    fn field(name: &str, members: &str) -> String {
        format!(r#"{{"field": "{name}", "version_id": 0, "size": 8, {members}}}"#)
    }

    fn u(name: &str, bytes: u32) -> String {
        let kind = format!(r#""field_exists": false, "type": "uint{}", "bytes": {bytes}, "elements": 1"#, 8 * bytes);
        field(name, &kind)
    }

    fn optional(name: &str, bytes: u32, more: &str) -> String {
        field(name, &format!(r#""field_exists": true, "type": "uint8", "bytes": {bytes}, "elements": 1{more}"#))
    }

    fn array(name: &str, elements: u32) -> String {
        field(name, &format!(r#""field_exists": false, "type": "uint16", "bytes": 2, "elements": {elements}"#))
    }

    fn description(head: &str, fields: &[String], more: &str) -> String {
        format!(r#"{{"name": "d", {head}, "Fields": [{}]{more}}}"#, fields.join(", "))
    }

    const V1: &str = r#""version_id": 1, "minimum_version_id": 1"#;

    fn found(sent: &str, read: &str) -> Vec<String> {
        let device = Device { name: "dev".into(), instance: 3 };
        let findings = descriptions(&device, sent.as_bytes(), read.as_bytes(), &mut Budget::default());
        let of_device = |finding: &Finding| finding.device == Some(device.clone());
        assert!(findings.iter().all(|finding| of_device(finding) || finding.message.ends_with("are not listed")));
        findings.iter().map(|found| format!("{} {}: {}", found.severity.name(), found.path, found.message)).collect()
    }

    fn plain(sent: &[String], read: &[String]) -> Vec<String> {
        found(&description(V1, sent, ""), &description(V1, read, ""))
    }

    #[test]
    fn equal_descriptions_have_no_findings() {
        let fields = [u("a", 4), optional("o", 1, ""), array("v", 3)];
        assert_eq!(plain(&fields, &fields), [""; 0]);
    }

    #[test]
    fn versions_must_overlap() {
        let of = |version, minimum| {
            description(&format!(r#""version_id": {version}, "minimum_version_id": {minimum}"#), &[u("a", 1)], "")
        };
        assert_eq!(found(&of(3, 1), &of(2, 1)), ["error : version 3 is too new, the machine knows 2"]);
        assert_eq!(found(&of(1, 1), &of(5, 2)), ["error : version 1 is too old, the machine knows 2 and later"]);
        assert_eq!(found(&of(1, 1), &of(5, 1)), [""; 0]);
    }

    #[test]
    fn fields_of_later_versions_are_neither_sent_nor_read() {
        let later = r#"{"field": "n", "version_id": 2, "field_exists": false, "size": 4, "bytes": 4, "elements": 1}"#;
        let newer = description(r#""version_id": 2, "minimum_version_id": 1"#, &[u("a", 4), later.into()], "");
        assert_eq!(found(&description(V1, &[u("a", 4)], ""), &newer), [""; 0]);
    }

    #[test]
    fn changed_fields_are_errors() {
        let ab = [u("a", 4), u("b", 4)];
        let missing = "error b: the machine does not read this field";
        assert_eq!(plain(&ab, &ab[..1]), [missing]);
        let extra = "error b: the stream does not have this field, which the machine reads";
        assert_eq!(plain(&ab[..1], &ab), [extra]);
        assert_eq!(plain(&[u("a", 4)], &[u("a", 8)]), ["error a: 4 bytes, the machine reads 8"]);
        assert_eq!(plain(&[array("v", 4)], &[array("v", 8)]), ["error v: 4 elements, the machine has 8"]);
        let swapped = plain(&ab, &[u("b", 4), u("a", 4)]);
        assert_eq!(swapped, ["error a: the machine reads this field at another place"]);
        let turned = plain(&[u("a", 4), u("b", 1), u("c", 4)], &[u("c", 4), u("b", 1), u("a", 4)]);
        assert!(turned.iter().any(|found| found.contains("at another place")), "{turned:?}");
    }

    #[test]
    fn bytes_under_other_names_are_notes() {
        assert_eq!(plain(&[u("a", 4)], &[u("z", 4)]), ["note a: the machine reads these bytes as z"]);
        let split = plain(&[u("a", 4)], &[u("x", 2), u("y", 2)]);
        assert_eq!(split, ["note a: the machine reads these 4 bytes as x, y"]);
        let unused = |bytes| field("unused", &format!(r#""type": "unused_buffer", "bytes": {bytes}, "elements": 1"#));
        let used = plain(&[unused(8)], &[u("new", 4), unused(4)]);
        assert_eq!(used, ["note unused: the machine reads these 8 bytes as new, unused"]);
        assert_eq!(plain(&[unused(8)], &[unused(4)]), ["error unused: 8 bytes, the machine reads 4"]);
    }

    #[test]
    fn optional_fields_count_by_whether_they_are_sent_now() {
        let sent_now = optional("o", 1, r#", "present": true"#);
        let not_now = optional("o", 1, r#", "present": false"#);
        let a = u("a", 4);
        let error = "error o: the machine does not read this field, which is sent now";
        let alone = std::slice::from_ref(&a);
        assert_eq!(plain(&[a.clone(), sent_now], alone), [error]);
        assert_eq!(plain(&[a.clone(), not_now], alone), [""; 0]);
        let warning = "warning o: the machine does not read this field, which is not sent in every stream";
        assert_eq!(plain(&[a.clone(), optional("o", 1, "")], alone), [warning]);
        let note = "note o: the stream does not have this field, which the machine does not always read";
        assert_eq!(plain(alone, &[a.clone(), optional("o", 1, "")]), [note]);
    }

    #[test]
    fn subsections_count_by_whether_they_are_needed_now() {
        let with = |needed: &str| {
            let part = format!(r#", "Subsections": [{{"name": "d/s", {V1}, "Fields": [{}]{needed}}}]"#, u("x", 4));
            description(V1, &[u("a", 4)], &part)
        };
        let without = description(V1, &[u("a", 4)], "");
        let needed = found(&with(r#", "needed": true"#), &without);
        assert_eq!(needed, ["error d/s: the machine does not know this subsection"]);
        assert!(found(&with(r#", "needed": false"#), &without)[0].starts_with("warning d/s"));
        assert_eq!(found(&without, &with("")), [""; 0]);
    }

    #[test]
    fn structures_are_compared_in_the_versions_of_their_owners() {
        let of = |fields: &[String]| {
            let inner = description(V1, fields, "");
            let outer = field("s", &format!(r#""field_exists": false, "elements": 1, "Description": {inner}"#));
            description(V1, &[outer], "")
        };
        assert_eq!(found(&of(&[u("a", 4)]), &of(&[u("a", 2)])), ["error s.a: 4 bytes, the machine reads 2"]);
        let flat = description(V1, &[u("s", 4)], "");
        assert_eq!(found(&of(&[u("a", 4)]), &flat), ["error s: a structure, the machine's is no structure"]);
    }

    #[test]
    fn a_hundred_thousand_fields_are_compared() {
        let fields =
            |names: &mut dyn Iterator<Item = u32>| -> Vec<String> { names.map(|at| u(&format!("f{at}"), 4)).collect() };
        let (sent, read) = (fields(&mut (0..100_000)), fields(&mut (100_000..200_001)));
        let found = plain(&sent, &read);
        assert!(found.len() > 10_000, "{}", found.len());
    }

    #[test]
    fn unreadable_layouts_are_warnings() {
        let good = description(V1, &[u("a", 4)], "");
        assert_eq!(found("{", &good), ["warning : the layout of its state can't be compared"]);
        assert_eq!(found("", &good).len(), 1);
    }
}
