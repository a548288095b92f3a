// SPDX-License-Identifier: LGPL-2.1-or-later
//! Decodes a device's state by its layout.
//!
//! No tree is built: each field goes in turn to a [`FieldSink`], which prints, compares or counts it.

use std::fmt;

use super::describe::{Field, Layout};
use super::printable::printable;
use crate::wire;

/// Receives the fields of a device, in the order of the stream.
pub trait FieldSink {
    /// A group of fields begins.
    fn enter(&mut self, name: &str, group: Group);
    /// The innermost group ends.
    fn leave(&mut self);
    /// Receives a single field, or one element of an array.
    fn field(&mut self, leaf: &Leaf<'_>);
    /// Returns whether lists are decoded into elements. Otherwise they are received as bytes.
    fn wants_lists(&self) -> bool {
        true
    }
}

/// The kind of a group of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// A structure, or an element of a list.
    Struct,
    /// An array. Its elements follow; all of them have the array's name.
    Array,
    /// A list, queue or tree. Its elements follow as structures.
    List,
    /// An optional part of the state, with a version.
    Subsection {
        /// The version in the stream.
        version: u32,
    },
}

/// One field that contains no other fields.
#[derive(Clone, Copy, Debug)]
pub struct Leaf<'a> {
    /// The field's name; for an element, the array's name.
    pub name: &'a str,
    /// The name of its type in the description.
    pub type_name: &'a str,
    /// Offset in the device's state, in bytes.
    pub offset: usize,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// The value of the bytes.
    pub value: Value,
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A whole number.
    Signed(i64),
    /// A whole number without sign.
    Unsigned(u64),
    /// A boolean.
    Bool(bool),
    /// A NULL pointer.
    Null,
    /// Bytes without a further meaning.
    Bytes,
}

/// The error of a state that does not fit its layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Offset in the device's state, in bytes.
    pub offset: usize,
    /// Path of the field.
    pub path: String,
    /// What does not fit.
    pub message: String,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the description does not fit at byte {} of the state", self.offset)?;
        if !self.path.is_empty() {
            write!(f, ", field {}", printable(&self.path))?;
        }
        write!(f, ": {}", printable(&self.message))
    }
}

impl std::error::Error for Misfit {}

/// Decodes `data`. The layout must fit all of it. On an error the sink has received the fields that fit before it.
pub fn decode(layout: &Layout, data: &[u8], sink: &mut dyn FieldSink) -> Result<(), Misfit> {
    let mut decoder = Decoder { data, at: 0, steps: data.len().saturating_mul(4) + FREE_STEPS, sink };
    decoder.layout(layout)?;
    let left = data.len() - decoder.at;
    if left > 0 { decoder.misfit(format!("{left} bytes follow what is described")) } else { Ok(()) }
}

/// Limit on fields of size zero, which take no bytes in a stream. Real devices have a few.
const FREE_STEPS: usize = 1 << 16;

struct Decoder<'a, 's> {
    data: &'a [u8],
    at: usize,
    steps: usize,
    sink: &'s mut dyn FieldSink,
}

impl<'a> Decoder<'a, '_> {
    fn misfit<T>(&self, message: impl Into<String>) -> Result<T, Misfit> {
        Err(Misfit { offset: self.at, path: String::new(), message: message.into() })
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], Misfit> {
        let left = &self.data[self.at..];
        match usize::try_from(count).ok().and_then(|count| left.get(..count)) {
            Some(bytes) => {
                self.at += bytes.len();
                Ok(bytes)
            }
            None => self.misfit(format!("{count} bytes are described, {} are left", left.len())),
        }
    }

    fn byte(&mut self) -> Result<u8, Misfit> {
        Ok(self.take(1)?[0])
    }

    fn layout(&mut self, layout: &Layout) -> Result<(), Misfit> {
        let mut fields = &layout.fields[..];
        while let Some(first) = fields.first() {
            // Consecutive entries of the same name are the elements of one array.
            let run = fields.iter().take_while(|field| field.name == first.name).count();
            let (entries, rest) = fields.split_at(run);
            self.entries(entries).map_err(|misfit| misfit.within(&first.name))?;
            fields = rest;
        }
        for subsection in &layout.subsections {
            self.subsection(subsection)?;
        }
        Ok(())
    }

    fn entries(&mut self, entries: &[Field]) -> Result<(), Misfit> {
        let is_array = entries.len() > 1 || entries[0].array_len.is_some() || entries[0].index.is_some();
        if is_array {
            self.sink.enter(&entries[0].name, Group::Array);
        }
        for entry in entries {
            for _ in 0..entry.array_len.unwrap_or(1) {
                self.element(entry)?;
            }
        }
        if is_array {
            self.sink.leave();
        }
        Ok(())
    }

    fn element(&mut self, field: &Field) -> Result<(), Misfit> {
        self.steps = match self.steps.checked_sub(1) {
            Some(steps) => steps,
            None => return self.misfit("more fields than the state has bytes"),
        };
        if self.sink.wants_lists() && !field.inner.is_empty() && self.is_list(field) {
            return self.list(field);
        }
        match &field.inner[..] {
            [layout] if &*field.type_name == "struct" => {
                self.sink.enter(&field.name, Group::Struct);
                let start = self.at;
                self.layout(layout)?;
                self.sink.leave();
                let took = (self.at - start) as u64;
                if took != field.size {
                    return self.misfit(format!("a structure of {} bytes has fields of {took}", field.size));
                }
            }
            _ => self.leaf(field)?,
        }
        Ok(())
    }

    fn leaf(&mut self, field: &Field) -> Result<(), Misfit> {
        let offset = self.at;
        let bytes = self.take(field.size)?;
        let value = if field.is_null_pointer() { Value::Null } else { Value::of(&field.type_name, bytes) };
        let (name, type_name) = (&*field.name, &*field.type_name);
        self.sink.field(&Leaf { name, type_name, offset, bytes, value });
        Ok(())
    }

    fn subsection(&mut self, layout: &Layout) -> Result<(), Misfit> {
        let wanted = layout.name.as_deref().unwrap_or_default();
        if self.byte()? != wire::SUBSECTION {
            self.at -= 1;
            return self.misfit(format!("the described subsection {wanted} is not there"));
        }
        let len = self.byte()?;
        let name = self.take(len.into())?;
        if name != wanted.as_bytes() {
            let name = String::from_utf8_lossy(name);
            return self.misfit(format!("subsection {wanted} is described, {name} is there"));
        }
        let version = self.take(4)?.iter().fold(0, |version, &byte| version << 8 | u32::from(byte));
        self.sink.enter(wanted, Group::Subsection { version });
        self.layout(layout).map_err(|misfit| misfit.within(wanted))?;
        self.sink.leave();
        Ok(())
    }

    /// Returns whether the field is a list whose described elements add up to its size, so that it can be decoded.
    fn is_list(&self, field: &Field) -> bool {
        let elements = field.inner.iter().map(|layout| layout.size).fold(0, u64::saturating_add);
        let expected = match &*field.type_name {
            "qtailq" | "qlist" => elements.saturating_add(field.inner.len() as u64 + 1),
            "tmp" | "vstruct" => elements,
            "gtree" => match self.tree_nodes(field) {
                Some(nodes) => {
                    elements.saturating_add(4 + nodes + 1 + if self.direct_keys(field) { 8 * nodes } else { 0 })
                }
                None => return false,
            },
            _ => return false,
        };
        expected == field.size
    }

    /// Returns the count at the start of a tree, if the described elements can be so many nodes.
    fn tree_nodes(&self, field: &Field) -> Option<u64> {
        let count = u32::from_be_bytes(*self.data[self.at..].first_chunk::<4>()?);
        let described = field.inner.len() as u64;
        let nodes = u64::from(count);
        (nodes == described || nodes.checked_mul(2) == Some(described)).then_some(nodes)
    }

    /// Returns whether the keys are plain numbers, which are not described, instead of structures.
    fn direct_keys(&self, field: &Field) -> bool {
        self.tree_nodes(field) == Some(field.inner.len() as u64)
    }

    fn list(&mut self, field: &Field) -> Result<(), Misfit> {
        let kind = &*field.type_name;
        let is_tree = kind == "gtree";
        let has_marks = is_tree || kind == "qtailq" || kind == "qlist";
        let per_node = if is_tree && !self.direct_keys(field) { 2 } else { 1 };
        let direct_keys = is_tree && per_node == 1;
        self.sink.enter(&field.name, if has_marks { Group::List } else { Group::Struct });
        if is_tree {
            self.take(4)?;
        }
        for (at, layout) in field.inner.iter().enumerate() {
            if has_marks && at % per_node == 0 && self.byte()? == 0 {
                return self.misfit("the list ends before the described elements do");
            }
            if direct_keys {
                self.key()?;
            }
            if has_marks {
                self.sink.enter(layout.name.as_deref().unwrap_or("element"), Group::Struct);
            }
            self.layout(layout)?;
            if has_marks {
                self.sink.leave();
            }
        }
        if has_marks && self.byte()? != 0 {
            return self.misfit("the list goes on after the described elements");
        }
        self.sink.leave();
        Ok(())
    }

    /// Reads the key of a tree's node, if keys are plain numbers.
    fn key(&mut self) -> Result<(), Misfit> {
        let offset = self.at;
        let bytes = self.take(8)?;
        let value = Value::of("uint64", bytes);
        self.sink.field(&Leaf { name: "key", type_name: "uint64", offset, bytes, value });
        Ok(())
    }
}

impl Misfit {
    fn within(mut self, name: &str) -> Self {
        self.path = if self.path.is_empty() { name.into() } else { format!("{name}.{}", self.path) };
        self
    }
}

/// Returns whether a type is signed, or `None` if it is not a number.
///
/// `uint8 equal` and `uint16 equal` are signed, to match the output of `analyze-migration.py`. The difference only
/// shows in large values, and the output also contains the unsigned value.
fn integer_sign(type_name: &str) -> Option<bool> {
    Some(match type_name {
        "int8" | "int16" | "int32" | "int64" | "int32 equal" | "int64 equal" | "int32 le" | "uint8 equal"
        | "uint16 equal" => true,
        "uint8" | "uint16" | "uint32" | "uint64" | "uint32 equal" => false,
        _ => return None,
    })
}

impl Value {
    /// Returns the value of bytes of this type.
    pub fn of(type_name: &str, bytes: &[u8]) -> Self {
        if type_name == "bool" && !bytes.is_empty() {
            return Self::Bool(bytes[0] != 0);
        }
        match integer_sign(type_name) {
            Some(signed) if (1..=8).contains(&bytes.len()) => {
                let number = bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
                let unused = 64 - 8 * bytes.len() as u32;
                if signed { Self::Signed((number << unused) as i64 >> unused) } else { Self::Unsigned(number) }
            }
            _ => Self::Bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::super::describe::Description;
    use super::*;

    /// Records the calls.
    #[derive(Default)]
    struct Log(String);

    impl FieldSink for Log {
        fn enter(&mut self, name: &str, group: Group) {
            self.0 += &format!("{name}:{group:?}( ");
        }
        fn leave(&mut self) {
            self.0 += ") ";
        }
        fn field(&mut self, leaf: &Leaf<'_>) {
            self.0 += &format!("{}={:?}@{} ", leaf.name, leaf.value, leaf.offset);
        }
    }

    fn run(fields: &str, data: &[u8]) -> (String, Result<(), Misfit>) {
        let text =
            format!(r#"{{"devices": [{{"name": "d", "instance_id": 0, "vmsd_name": "d", "version": 1, {fields}}}]}}"#);
        let description = Description::parse(text.as_bytes(), &mut Budget::default()).unwrap();
        let mut log = Log::default();
        let result = decode(&description.devices[0].layout, data, &mut log);
        (log.0, result)
    }

    #[test]
    fn decode_reports_scalars_arrays_and_structures() {
        let fields = r#""fields": [{"name": "a", "type": "int8", "size": 1},
            {"name": "b", "type": "uint16", "array_len": 2, "size": 2},
            {"name": "s", "index": 0, "type": "struct", "struct": {"vmsd_name": "s", "version": 1, "fields":
                [{"name": "c", "type": "bool", "size": 1}]}, "size": 1},
            {"name": "s", "index": 1, "type": "struct", "struct": {}, "size": 1}]"#;
        let (log, result) = run(fields, &[0xff, 1, 2, 3, 4, 1, 0x30]);
        assert_eq!(result, Ok(()));
        assert_eq!(
            log,
            "a=Signed(-1)@0 b:Array( b=Unsigned(258)@1 b=Unsigned(772)@3 ) \
             s:Array( s:Struct( c=Bool(true)@5 ) s=Null@6 ) "
        );
    }

    #[test]
    fn decode_checks_the_names_of_subsections() {
        let fields = r#""fields": [], "subsections": [{"vmsd_name": "d/x", "version": 1, "fields":
            [{"name": "n", "type": "uint8", "size": 1}]}]"#;
        let (log, result) = run(fields, b"\x05\x03d/x\x00\x00\x00\x02\x07");
        assert_eq!((log.as_str(), result), ("d/x:Subsection { version: 2 }( n=Unsigned(7)@9 ) ", Ok(())));
        let misfit = run(fields, b"\x05\x03d/y\x00\x00\x00\x02\x07").1.unwrap_err();
        assert!(misfit.message.contains("d/y"), "{misfit}");
    }

    #[test]
    fn decode_reports_lists_and_trees() {
        let element = r#""vmsd_name": "e", "version": 1, "fields": [{"name": "n", "type": "uint8", "size": 1}]"#;
        let list = format!(r#""fields": [{{"name": "q", "type": "qtailq", {element}, {element}, "size": 5}}]"#);
        let (log, result) = run(&list, &[1, 7, 1, 8, 0]);
        assert_eq!(
            (log.as_str(), result),
            ("q:List( e:Struct( n=Unsigned(7)@1 ) e:Struct( n=Unsigned(8)@3 ) ) ", Ok(()))
        );
        let tree = format!(r#""fields": [{{"name": "t", "type": "gtree", {element}, "size": 15}}]"#);
        let (log, result) = run(&tree, &[0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 5, 9, 0]);
        assert_eq!((log.as_str(), result), ("t:List( key=Unsigned(5)@5 e:Struct( n=Unsigned(9)@13 ) ) ", Ok(())));
    }

    #[test]
    fn misfit_names_the_field() {
        let fields = r#""fields": [{"name": "s", "type": "struct", "struct": {"vmsd_name": "s", "version": 1, "fields":
            [{"name": "c", "type": "uint32", "size": 4}]}, "size": 4}]"#;
        let misfit = run(fields, &[0, 0]).1.unwrap_err();
        assert_eq!((misfit.path.as_str(), misfit.offset), ("s.c", 0));
        assert!(run(fields, &[0; 5]).1.unwrap_err().message.contains("1 bytes follow"));
        let endless = r#""fields": [{"name": "z", "type": "buffer", "array_len": 9000000000000000000, "size": 0}]"#;
        assert!(run(endless, &[]).1.is_err());
    }
}
