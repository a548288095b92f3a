// SPDX-License-Identifier: LGPL-2.1-or-later
//! Prints differences as text and as JSON.

use std::io::Write;

use savevm_stream::inspect::json::Emitter;
use savevm_stream::inspect::{Span, printable};

use super::super::table::span_text;
use super::Differences;
use super::devices::Kind;
use super::ram::BlockDifference;
use crate::failure::Result;
use crate::output::{Output, Style};
use crate::words::{grouped, plural, size};

/// Writes text, with at most `ranges` page ranges per block.
pub fn text(differences: &Differences, ranges: usize, out: &mut Output) -> Result<()> {
    for (what, a, b) in &differences.whole {
        change(what, Some(a), Some(b), 0, out)?;
    }
    for difference in &differences.devices {
        let name = out.paint(Style::Name, printable(&difference.device.name));
        let instance = difference.device.instance;
        match &difference.kind {
            Kind::OnlyInA => writeln!(out, "{} {name} instance {instance}: only in A", out.paint(Style::Bad, "-"))?,
            Kind::OnlyInB => writeln!(out, "{} {name} instance {instance}: only in B", out.paint(Style::Good, "+"))?,
            Kind::Fields(fields) => {
                writeln!(out, "{name} instance {instance}")?;
                let width =
                    fields.iter().map(|field| printable(&field.path).chars().count()).max().unwrap_or(0).min(40);
                for field in fields {
                    change(
                        &format!("  {:<width$}", printable(&field.path)),
                        field.a.as_deref(),
                        field.b.as_deref(),
                        width + 2,
                        out,
                    )?;
                }
            }
        }
    }
    for block in &differences.blocks {
        write_block(block, &differences.spans, ranges, out)?;
    }
    Ok(())
}

/// Writes one line: name, value in A, value in B. Long values get lines of their own.
fn change(what: &str, a: Option<&str>, b: Option<&str>, indent: usize, out: &mut Output) -> Result<()> {
    const LINE: usize = 110;
    let absent = "(not there)";
    let (a, b) = (printable(a.unwrap_or(absent)), printable(b.unwrap_or(absent)));
    let (red, green) = (out.paint(Style::Bad, &a), out.paint(Style::Good, &b));
    if what.len() + a.len() + b.len() > LINE && indent > 0 {
        writeln!(out, "{}\n      - {red}\n      + {green}", what.trim_end())?;
    } else {
        writeln!(out, "{what}  {red} -> {green}")?;
    }
    Ok(())
}

fn write_block(block: &BlockDifference, spans: &[Span], most: usize, out: &mut Output) -> Result<()> {
    let name = out.paint(Style::Name, printable(&block.name));
    match (block.length_a, block.length_b) {
        (Some(_), None) => return Ok(writeln!(out, "{} RAM {name}: only in A", out.paint(Style::Bad, "-"))?),
        (None, _) => return Ok(writeln!(out, "{} RAM {name}: only in B", out.paint(Style::Good, "+"))?),
        (Some(a), Some(b)) if a != b => {
            writeln!(out, "RAM {name}: {} -> {}", size(a), size(b))?;
        }
        _ => {}
    }
    for (pages, side) in [(block.only_a, "A"), (block.only_b, "B")].into_iter().filter(|(pages, _)| *pages > 0) {
        let are = if pages == 1 { "is" } else { "are" };
        writeln!(out, "RAM {name}: {} {are} in stream {side} alone, and not compared", plural(pages, "page"))?;
    }
    let bytes: u64 = block.ranges.iter().map(|range| range.end - range.start).sum();
    if block.pages > 0 {
        let in_ranges = plural(block.ranges.len() as u64, "range");
        writeln!(out, "RAM {name}: {} in {in_ranges}, {}", differ(block.pages), size(bytes))?;
    }
    if block.pages > 0 {
        for span in spans.iter().filter(|span| span.block == block.name) {
            writeln!(out, "  {}", out.paint(Style::Faint, span_text(span)))?;
        }
    }
    for range in block.ranges.iter().take(most) {
        let length = size(range.end - range.start);
        writeln!(out, "  {:#014x}..{:#014x}  {length}", range.start, range.end)?;
    }
    if block.ranges.len() > most {
        let note = format!("  ... and {} more; --ranges shows more", grouped((block.ranges.len() - most) as u64));
        writeln!(out, "{}", out.paint(Style::Faint, note))?;
    }
    Ok(())
}

fn differ(pages: u64) -> String {
    format!("{} differ{}", plural(pages, "page"), if pages == 1 { "s" } else { "" })
}

/// Writes a JSON document with all differences.
pub fn json(differences: &Differences, out: &mut Output) -> Result<()> {
    let mut json = Emitter::new(out, Some(2));
    json.object().name("savevm-diff").number(1).name("whole").array();
    for (what, a, b) in &differences.whole {
        json.object().name("what").string(what).name("a").string(a).name("b").string(b).end();
    }
    json.end().name("devices").array();
    for difference in &differences.devices {
        json.object().name("name").string(&difference.device.name);
        json.name("instance").number(difference.device.instance).name("change");
        match &difference.kind {
            Kind::OnlyInA => json.string("only-a"),
            Kind::OnlyInB => json.string("only-b"),
            Kind::Fields(fields) => {
                json.string("fields").name("fields").array();
                for field in fields {
                    json.object().name("path").string(&field.path);
                    json.name("a").optional_string(field.a.as_deref());
                    json.name("b").optional_string(field.b.as_deref()).end();
                }
                json.end()
            }
        };
        json.end();
    }
    json.end().name("ram").array();
    for block in &differences.blocks {
        json.object().name("name").string(&block.name);
        json.name("length_a").optional_number(block.length_a).name("length_b").optional_number(block.length_b);
        json.name("only_a").number(block.only_a).name("only_b").number(block.only_b);
        json.name("pages").number(block.pages).name("ranges").array();
        for range in &block.ranges {
            json.array().number(range.start).number(range.end).end();
        }
        json.end().end();
    }
    json.end().end();
    json.finish()?;
    Ok(())
}
