// SPDX-License-Identifier: LGPL-2.1-or-later
//! Prints a device's state as a tree of fields, and as raw bytes.

use std::io::{self, Write};

use savevm_stream::inspect::{FieldSink, Group, Item, Leaf, Section, Stream, Value, decode, printable};

use crate::failure::Result;
use crate::output::{Output, Style};
use crate::words::plural;

/// Writes one device: a heading, its fields, and with `hex` its bytes.
pub fn write(stream: &Stream, item: &Item, section: &Section, hex: bool, out: &mut Output) -> Result<()> {
    let Some(data) = &section.data else { return Ok(()) };
    let name = out.paint(Style::Name, printable(&section.device.name));
    let twin = if section.twin > 0 { format!(", the {}. of this name", section.twin + 1) } else { String::new() };
    writeln!(
        out,
        "{name} instance {}{twin}, version {}, section {}: {} at {:#x}",
        section.device.instance,
        section.version,
        section.id,
        plural(data.len() as u64, "byte"),
        item.offset
    )?;
    match stream.layout(section) {
        Some(layout) => {
            let mut tree = Tree { out, depth: 1, arrays: Vec::new(), result: Ok(()) };
            let fit = decode(layout, data, &mut tree);
            tree.finish()?;
            if let Err(misfit) = fit {
                let note = out.paint(Style::Bad, &misfit);
                writeln!(out, "  {note}")?;
                if !hex {
                    dump(data, section.payload, out)?;
                }
            }
        }
        None => {
            writeln!(out, "  no description; the bytes are")?;
            if !hex {
                dump(data, section.payload, out)?;
            }
        }
    }
    if hex {
        dump(data, section.payload, out)?;
    }
    writeln!(out)?;
    Ok(())
}

/// Writes bytes in lines of 16, with their offset in the stream and as text.
pub fn dump(bytes: &[u8], offset: u64, out: &mut Output) -> Result<()> {
    for (at, line) in bytes.chunks(16).enumerate() {
        let place = out.paint(Style::Faint, format!("{:#012x}", offset + 16 * at as u64));
        let hex: String = line
            .iter()
            .enumerate()
            .map(|(at, byte)| format!("{}{byte:02x}", if at == 8 { "  " } else { " " }))
            .collect();
        writeln!(out, "  {place} {hex:<50} |{}|", text_of(line))?;
    }
    Ok(())
}

fn text_of(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| if (b' '..=b'~').contains(&byte) { char::from(byte) } else { '.' }).collect()
}

/// Prints fields as they are decoded, indented by depth.
struct Tree<'o> {
    out: &'o mut Output,
    depth: usize,
    /// The open groups. An array has elements that are not printed yet.
    arrays: Vec<Option<Elements>>,
    result: io::Result<()>,
}

/// Elements of an array. Plain elements share lines.
#[derive(Default)]
struct Elements {
    name: String,
    count: usize,
    type_name: String,
    waiting: Vec<String>,
    /// Number of further elements that are not shown.
    left_out: usize,
}

/// Most elements of an array that are shown.
const MOST_ELEMENTS: usize = 1 << 16;

/// Width of a line of elements, in characters.
const LINE: usize = 100;
/// Column of the type, from the start of the field's name.
const NAME: usize = 28;
/// Column of the value, from the start of the type.
const TYPE: usize = 14;
/// Most bytes of a buffer that are shown.
pub const SHOWN: usize = 32;

impl Tree<'_> {
    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        if self.result.is_ok() {
            let indent = 2 * self.depth;
            self.result = writeln!(self.out, "{:indent$}{text}", "");
        }
    }

    fn finish(self) -> Result<()> {
        Ok(self.result?)
    }

    fn named(&mut self, name: &str, type_name: &str, value: &str) {
        let width = NAME.saturating_sub(2 * self.depth);
        let (name, type_name) = (printable(name), printable(type_name));
        let type_name = self.out.paint(Style::Faint, format!("{type_name:<TYPE$}"));
        self.line(format_args!("{name:<width$} {type_name} {value}"));
    }

    /// Writes the elements that are not printed yet.
    fn flush(&mut self, elements: &mut Elements) {
        if elements.waiting.is_empty() {
            return;
        }
        let left_out = std::mem::take(&mut elements.left_out);
        let type_name = format!("{}[{}]", elements.type_name, elements.waiting.len() + left_out);
        let longest = elements.waiting.iter().map(String::len).max().unwrap_or(0) + 1;
        let per_line = (LINE / longest).max(1);
        let lines: Vec<String> = elements.waiting.chunks(per_line).map(|line| line.join(" ")).collect();
        match &lines[..] {
            [line] => self.named(&elements.name, &type_name, line),
            lines => {
                self.named(&elements.name, &type_name, "");
                let first = elements.count - elements.waiting.len() - left_out;
                for (at, line) in lines.iter().enumerate() {
                    let index = self.out.paint(Style::Faint, format!("[{:>4}]", first + at * per_line));
                    self.line(format_args!("  {index} {line}"));
                }
            }
        }
        if left_out > 0 {
            let note = self.out.paint(Style::Faint, format!("... {left_out} more; --format json has them all"));
            self.line(format_args!("  {note}"));
        }
        elements.waiting.clear();
    }
}

impl FieldSink for Tree<'_> {
    fn enter(&mut self, name: &str, group: Group) {
        if group == Group::Array {
            self.arrays.push(Some(Elements { name: name.into(), ..Elements::default() }));
            return;
        }
        let mut label = printable(name).into_owned();
        if let Some(mut elements) = self.arrays.last_mut().and_then(Option::take) {
            self.flush(&mut elements);
            label = format!("{}[{}]", printable(name), elements.count);
            elements.count += 1;
            self.arrays.pop();
            self.arrays.push(Some(elements));
        }
        let note = match group {
            Group::Subsection { version } => format!("  (subsection, version {version})"),
            Group::List => "  (list)".into(),
            _ => String::new(),
        };
        let note = self.out.paint(Style::Faint, note);
        self.line(format_args!("{label}{note}"));
        self.arrays.push(None);
        self.depth += 1;
    }

    fn leave(&mut self) {
        match self.arrays.pop() {
            Some(Some(mut elements)) => self.flush(&mut elements),
            _ => self.depth -= 1,
        }
    }

    fn field(&mut self, leaf: &Leaf<'_>) {
        let value = value_text(leaf);
        let Some(Some(elements)) = self.arrays.last_mut() else {
            return self.named(leaf.name, leaf.type_name, &value);
        };
        elements.count += 1;
        elements.type_name = leaf.type_name.into();
        if elements.waiting.len() >= MOST_ELEMENTS {
            elements.left_out += 1;
            return;
        }
        elements.waiting.push(match leaf.value {
            // Without the decimal value, so that the elements are aligned.
            Value::Unsigned(number) => format!("{number:#0width$x}", width = 2 + 2 * leaf.bytes.len()),
            _ => value,
        });
    }
}

/// Returns a field's value as text.
pub fn value_text(leaf: &Leaf<'_>) -> String {
    let width = 2 + 2 * leaf.bytes.len();
    match leaf.value {
        // Small numbers look the same in both forms. Large numbers are addresses or masks.
        Value::Unsigned(number) if (10..1 << 32).contains(&number) && leaf.bytes.len() > 1 => {
            format!("{number:#0width$x} ({number})")
        }
        Value::Unsigned(number) => format!("{number:#0width$x}"),
        Value::Signed(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Null => "NULL".into(),
        Value::Bytes if leaf.type_name == "timer" => timer_text(leaf.bytes),
        Value::Bytes => bytes_text(leaf.bytes),
    }
}

/// Returns the expiry of a timer on its clock, in seconds, or that it is not armed.
fn timer_text(bytes: &[u8]) -> String {
    match bytes.first_chunk().map(|expires| i64::from_be_bytes(*expires)) {
        Some(-1) => "off".into(),
        Some(expires) => format!("expires at {}.{:09} s", expires / 1_000_000_000, (expires % 1_000_000_000).abs()),
        None => bytes_text(bytes),
    }
}

fn bytes_text(bytes: &[u8]) -> String {
    if bytes.len() > 1 && bytes.iter().all(|byte| *byte == bytes[0]) {
        return format!("{:02x} x {}", bytes[0], bytes.len());
    }
    let shown = &bytes[..bytes.len().min(SHOWN)];
    let hex: Vec<String> = shown.iter().map(|byte| format!("{byte:02x}")).collect();
    let more = if bytes.len() > SHOWN { format!(" ... ({} bytes)", bytes.len()) } else { String::new() };
    let zeroes = shown.iter().rev().take_while(|byte| **byte == 0).count();
    let text = &shown[..shown.len() - zeroes];
    let readable = text.len() >= 4 && text.iter().all(|byte| (b' '..=b'~').contains(byte));
    let text = if readable { format!("  \"{}\"", text_of(text)) } else { String::new() };
    format!("{}{more}{text}", hex.join(" "))
}
