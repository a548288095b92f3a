// SPDX-License-Identifier: LGPL-2.1-or-later
//! Compares the devices of two streams, field by field.

use std::collections::HashMap;

use savevm_stream::inspect::{Budget, Device, FieldSink, Group, Leaf, Section, Stream, Value, decode};

use super::super::fields::{SHOWN, value_text};
use super::super::select::Selection;

/// The differences of a device.
#[derive(Debug)]
pub struct DeviceDifference {
    /// The device.
    pub device: Device,
    /// The difference.
    pub kind: Kind,
}

/// The kind of difference of a device.
#[derive(Debug)]
pub enum Kind {
    /// Only A has the device.
    OnlyInA,
    /// Only B has the device.
    OnlyInB,
    /// Fields that differ: path, value in A, value in B. A missing value is `None`.
    Fields(Vec<FieldDifference>),
}

/// A field that differs.
#[derive(Debug, PartialEq, Eq)]
pub struct FieldDifference {
    /// The path of the field.
    pub path: String,
    /// The value in A.
    pub a: Option<String>,
    /// The value in B.
    pub b: Option<String>,
}

/// Compares the selected devices, in the order of A, then those only in B.
pub fn compare(a: &Stream, b: &Stream, selection: &Selection) -> Vec<DeviceDifference> {
    let key = |section: &Section| (section.device.clone(), section.twin);
    let in_b: HashMap<_, _> = b.devices().map(|(_, section)| (key(section), section)).collect();
    let in_a: HashMap<_, _> = a.devices().map(|(_, section)| (key(section), section)).collect();
    let mut differences = Vec::new();
    for (_, section) in a.devices().filter(|(_, section)| selection.has(&section.device)) {
        let kind = match in_b.get(&key(section)) {
            Some(other) => match compare_states((a, section), (b, other)) {
                fields if fields.is_empty() => continue,
                fields => Kind::Fields(fields),
            },
            None => Kind::OnlyInA,
        };
        differences.push(DeviceDifference { device: section.device.clone(), kind });
    }
    let only_b = b.devices().filter(|(_, section)| selection.has(&section.device) && !in_a.contains_key(&key(section)));
    differences
        .extend(only_b.map(|(_, section)| DeviceDifference { device: section.device.clone(), kind: Kind::OnlyInB }));
    differences
}

fn compare_states(a: (&Stream, &Section), b: (&Stream, &Section)) -> Vec<FieldDifference> {
    let mut differences = Vec::new();
    if a.1.version != b.1.version {
        let (a, b) = (Some(a.1.version.to_string()), Some(b.1.version.to_string()));
        differences.push(FieldDifference { path: "(version)".into(), a, b });
    }
    if a.1.data == b.1.data {
        return differences;
    }
    match (flatten(a.0, a.1), flatten(b.0, b.1)) {
        (Some(a), Some(b)) => differences.extend(compare_fields(&a, &b)),
        _ => differences.extend(compare_bytes("", data(a.1), data(b.1))),
    }
    differences
}

fn data(section: &Section) -> &[u8] {
    section.data.as_deref().unwrap_or_default()
}

/// A field with its path. Its value is only formatted if it differs.
struct Flat<'a> {
    path: String,
    name: String,
    type_name: String,
    bytes: &'a [u8],
    offset: usize,
}

impl Flat<'_> {
    fn value(&self) -> Value {
        Value::of(&self.type_name, self.bytes)
    }

    fn text(&self) -> String {
        let value = self.value();
        let (name, type_name) = (self.name.as_str(), self.type_name.as_str());
        value_text(&Leaf { name, type_name, offset: self.offset, bytes: self.bytes, value })
    }
}

/// Returns the fields of a device, or `None` if no description fits or their paths need too much memory.
fn flatten<'a>(stream: &Stream, section: &'a Section) -> Option<Vec<Flat<'a>>> {
    let data = data(section);
    let budget = Budget::new(FIELDS);
    let mut flattener =
        Flattener { data, path: String::new(), open: Vec::new(), fields: Vec::new(), budget, over: false };
    decode(stream.layout(section)?, data, &mut flattener).ok()?;
    (!flattener.over).then_some(flattener.fields)
}

/// Memory for the fields of one device of one stream, in bytes.
const FIELDS: usize = 128 << 20;

struct Flattener<'a> {
    data: &'a [u8],
    path: String,
    /// For each open group: the length of the path before it, and the number of its elements so far if they are
    /// numbered.
    open: Vec<(usize, Option<usize>)>,
    fields: Vec<Flat<'a>>,
    budget: Budget,
    /// The budget was exceeded. Later fields are not kept.
    over: bool,
}

impl Flattener<'_> {
    /// Appends a name to the path, or the index of the element.
    fn push(&mut self, name: &str) {
        match self.open.last_mut() {
            Some((_, Some(count))) => {
                self.path += &format!("[{count}]");
                *count += 1;
            }
            _ => {
                if !self.path.is_empty() {
                    self.path.push('.');
                }
                self.path += name;
            }
        }
    }
}

impl FieldSink for Flattener<'_> {
    fn enter(&mut self, name: &str, group: Group) {
        let before = self.path.len();
        self.push(name);
        let numbered = matches!(group, Group::Array | Group::List);
        self.open.push((before, numbered.then_some(0)));
    }

    fn leave(&mut self) {
        if let Some((before, _)) = self.open.pop() {
            self.path.truncate(before);
        }
    }

    fn field(&mut self, leaf: &Leaf<'_>) {
        let before = self.path.len();
        self.push(leaf.name);
        // A growing list allocates double its length.
        let cost = 2 * size_of::<Flat<'_>>() + self.path.len() + leaf.name.len() + leaf.type_name.len();
        self.over |= self.budget.take(cost).is_err();
        if self.over {
            self.path.truncate(before);
            return;
        }
        self.fields.push(Flat {
            path: self.path.clone(),
            name: leaf.name.into(),
            type_name: leaf.type_name.into(),
            bytes: &self.data[leaf.offset..leaf.offset + leaf.bytes.len()],
            offset: leaf.offset,
        });
        self.path.truncate(before);
    }
}

fn compare_fields(a: &[Flat<'_>], b: &[Flat<'_>]) -> Vec<FieldDifference> {
    let in_b: HashMap<&str, &Flat<'_>> = b.iter().map(|field| (field.path.as_str(), field)).collect();
    let in_a: HashMap<&str, &Flat<'_>> = a.iter().map(|field| (field.path.as_str(), field)).collect();
    let mut differences = Vec::new();
    for field in a {
        let other = in_b.get(field.path.as_str());
        if let Some(other) = other.filter(|other| differ_unseen(field, other)) {
            differences.extend(compare_bytes(&format!("{} ", field.path), field.bytes, other.bytes));
        } else if other.is_none_or(|other| other.bytes != field.bytes) {
            let (a, b) = (Some(field.text()), other.map(|other| other.text()));
            differences.push(FieldDifference { path: field.path.clone(), a, b });
        }
    }
    for field in b.iter().filter(|field| !in_a.contains_key(field.path.as_str())) {
        differences.push(FieldDifference { path: field.path.clone(), a: None, b: Some(field.text()) });
    }
    differences
}

/// Returns whether two buffers differ, but not in the shown part.
fn differ_unseen(a: &Flat<'_>, b: &Flat<'_>) -> bool {
    let in_bytes = a.value() == Value::Bytes && b.value() == Value::Bytes && a.bytes.len() == b.bytes.len();
    in_bytes && a.bytes != b.bytes && a.bytes.iter().zip(b.bytes).take(SHOWN).all(|(a, b)| a == b)
}

/// Returns runs of bytes that differ, for a state without a description and for long buffers. Their paths start with
/// `of`.
fn compare_bytes(of: &str, a: &[u8], b: &[u8]) -> Vec<FieldDifference> {
    const MOST: usize = 16;
    let hex = |bytes: &[u8]| {
        let shown: Vec<String> = bytes.iter().take(MOST).map(|byte| format!("{byte:02x}")).collect();
        format!("{}{}", shown.join(" "), if bytes.len() > MOST { " ..." } else { "" })
    };
    let mut differences = Vec::new();
    let common = a.len().min(b.len());
    let mut at = 0;
    while let Some(start) = (at..common).find(|&at| a[at] != b[at]) {
        let end = (start..common).find(|&at| a[at] == b[at]).unwrap_or(common);
        let path = format!("{of}bytes {start:#x}..{end:#x}");
        differences.push(FieldDifference { path, a: Some(hex(&a[start..end])), b: Some(hex(&b[start..end])) });
        at = end;
    }
    if a.len() != b.len() {
        let size = |bytes: &[u8]| Some(format!("{} bytes", bytes.len()));
        differences.push(FieldDifference { path: format!("{of}(size)"), a: size(a), b: size(b) });
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stay_within_their_budget() {
        let mut flattener = Flattener {
            data: &[],
            path: String::new(),
            open: Vec::new(),
            fields: Vec::new(),
            budget: Budget::new(2000),
            over: false,
        };
        let leaf = Leaf { name: "name", type_name: "uint8", offset: 0, bytes: &[], value: Value::Bytes };
        (0..1000).for_each(|_| flattener.field(&leaf));
        assert!(flattener.over && flattener.fields.len() < 20 && flattener.path.is_empty());
    }

    #[test]
    fn bytes_differ_in_runs() {
        let differences = compare_bytes("", &[1, 2, 3, 4, 5], &[1, 9, 9, 4, 6, 7]);
        let paths: Vec<_> = differences.iter().map(|difference| difference.path.as_str()).collect();
        assert_eq!(paths, ["bytes 0x1..0x3", "bytes 0x4..0x5", "(size)"]);
        assert_eq!(differences[0].b.as_deref(), Some("09 09"));
        assert!(compare_bytes("", &[1], &[1]).is_empty());
    }

    #[test]
    fn difference_late_in_a_buffer_is_shown() {
        let flat = |bytes| Flat { path: "b".into(), name: "b".into(), type_name: "buffer".into(), bytes, offset: 0 };
        let (a, mut b, mut c) = ([0; 100], [0; 100], [0; 100]);
        b[70..72].fill(5);
        c[0] = 1;
        let differences = compare_fields(&[flat(&a)], &[flat(&b)]);
        let FieldDifference { path, b: in_b, .. } = &differences[0];
        assert_eq!((path.as_str(), in_b.as_deref()), ("b bytes 0x46..0x48", Some("05 05")));
        assert_eq!(compare_fields(&[flat(&a)], &[flat(&c)])[0].path, "b");
    }
}
