// SPDX-License-Identifier: LGPL-2.1-or-later
//! Prints a stream as tables: summary, items, guest memory, totals.

use std::collections::HashMap;
use std::io::Write;

use savevm_stream::inspect::{
    Block, Command, Damage, Device, Item, ItemKind, Section, SectionKind, Span, Stream, guest_spans, printable,
};
use savevm_stream::wire::uuid_text;

use crate::failure::Result;
use crate::output::{Output, Style};
use crate::words::{grouped, plural, size};

/// Writes all tables. `ancestors` are the files that were read with an incremental snapshot.
pub fn write(name: &str, ancestors: &[String], stream: &Stream, out: &mut Output) -> Result<()> {
    if stream.items.is_empty() {
        // Without a header there is no stream. The damage is reported on standard error.
        return Ok(());
    }
    write_head(name, ancestors, stream, out)?;
    write_items(stream, out)?;
    if !stream.ram.blocks.is_empty() {
        write_ram(stream, out)?;
    }
    write_totals(stream, out)
}

/// Number of sections and bytes of each live device.
pub type LiveSizes<'s> = HashMap<&'s Device, (u64, u64)>;

/// Counts the sections of all devices.
pub fn live_sizes(stream: &Stream) -> LiveSizes<'_> {
    let mut sizes = LiveSizes::new();
    for (item, section) in stream.sections() {
        let (count, bytes) = sizes.entry(&section.device).or_default();
        *count += section.count;
        *bytes += item.size;
    }
    sizes
}

/// Writes a selected live device: its sections, and for memory its blocks.
pub fn write_live(stream: &Stream, section: &Section, live: &LiveSizes<'_>, out: &mut Output) -> Result<()> {
    let (count, bytes) = live.get(&section.device).copied().unwrap_or_default();
    let name = out.paint(Style::Name, printable(&section.device.name));
    writeln!(
        out,
        "{name} instance {}: {}, {}",
        section.device.instance,
        plural(count, "section"),
        plural(bytes, "byte")
    )?;
    if &*section.device.name == "ram" { write_ram(stream, out) } else { Ok(()) }
}

fn write_head(name: &str, ancestors: &[String], stream: &Stream, out: &mut Output) -> Result<()> {
    let title = out.paint(Style::Heading, printable(name));
    let state = match (&stream.damage, stream.complete) {
        (Some(damage), _) if damage.cut => out.paint(Style::Bad, "cut off"),
        (Some(_), _) => out.paint(Style::Bad, "damaged"),
        (None, _) => out.paint(Style::Good, "complete"),
    };
    writeln!(out, "{title}: migration stream, version {}, {}, {state}", stream.version, plural(stream.length, "byte"))?;
    let mut line = |label: &str, text: String| writeln!(out, "  {label:<13}{text}");
    if !ancestors.is_empty() {
        line("incremental", format!("read with its ancestors: {}", ancestors.join(", ")))?;
    }
    if let Some(configuration) = &stream.configuration {
        line("machine", printable(&configuration.machine).into())?;
        if !configuration.capabilities.is_empty() {
            line("capabilities", printable(&configuration.capabilities.join(", ")).into())?;
        }
        if let Some(uuid) = &configuration.uuid {
            line("uuid", uuid_text(uuid))?;
        }
    } else {
        line("machine", "not named (sent since machine types of 2.4)".into())?;
    }
    if let Some((page_size, from)) = stream.ram.page_size {
        line("page size", format!("{page_size} bytes ({})", from.name()))?;
    }
    if let Some(header) = &stream.container.libvirt {
        let finished = if header.finished { "save" } else { "unfinished save" };
        let running = if header.was_running { "running" } else { "paused" };
        let (version, format) = (header.version, header.format_name());
        line("libvirt", format!("{finished}, header version {version}, format {format}, guest was {running}"))?;
    }
    if let Some(compression) = &stream.container.compression {
        let (method, length) = (compression.method, plural(compression.length, "byte"));
        let damage = compression.damage.as_ref().map(|damage| if damage.cut { ", cut off" } else { ", damaged" });
        line("compression", format!("{method}, {length}{}", damage.unwrap_or_default()))?;
    }
    let description = match &stream.description {
        Some(description) => {
            let whose = if stream.description_is_foreign { ", of another stream" } else { "" };
            format!("{}{whose}", plural(description.devices.len() as u64, "device"))
        }
        None => "none".into(),
    };
    line("description", description)?;
    line("footers", stream.footers.map_or("unknown", |footers| if footers { "yes" } else { "no" }).into())?;
    if stream.trailing > 0 {
        line("behind it", plural(stream.trailing, "byte"))?;
    }
    Ok(())
}

fn write_items(stream: &Stream, out: &mut Output) -> Result<()> {
    // The size is right-aligned to the widest; the name column fits the longest name.
    let names = stream.items.iter().map(|item| item_name(item, stream).chars().count() + 2 * item.depth as usize);
    let width = names.max().unwrap_or(0).clamp(4, 48);
    let heading = format!(
        "{:>12}  {:<9} {:>4}  {:<width$} {:>4} {:>4} {:>14}",
        "OFFSET", "WHAT", "ID", "NAME", "INST", "VER", "SIZE"
    );
    let heading = out.paint(Style::Heading, heading);
    writeln!(out, "\n{heading}")?;
    for item in &stream.items {
        write_item(stream, item, width, out)?;
    }
    if let Some(damage) = &stream.damage {
        write_damage(damage, out)?;
    }
    Ok(())
}

/// Writes the line of the first damage.
fn write_damage(damage: &Damage, out: &mut Output) -> Result<()> {
    let what = out.paint(Style::Bad, if damage.cut { "cut off" } else { "damaged" });
    let offset = out.paint(Style::Faint, format!("{:#012x}", damage.offset));
    let (id, name) = match &damage.section {
        Some((id, device, _)) => (id.to_string(), printable(&device.name)),
        None => (String::new(), "".into()),
    };
    let name = out.paint(Style::Name, name);
    writeln!(out, "{offset}  {what:<9} {id:>4}  {name}")?;
    Ok(())
}

fn write_item(stream: &Stream, item: &Item, width: usize, out: &mut Output) -> Result<()> {
    let section = match &item.kind {
        ItemKind::Section(section) => Some(section),
        _ => None,
    };
    let what = match &item.kind {
        ItemKind::Header => "header".into(),
        ItemKind::Configuration => "config".into(),
        ItemKind::Section(Section { kind: SectionKind::Part, count, .. }) if *count > 1 => format!("part x{count}"),
        ItemKind::Section(section) => section.kind.name().into(),
        ItemKind::Command(_) => "command".into(),
        ItemKind::Eof => "eof".into(),
        ItemKind::Description => "vmdesc".into(),
    };
    let number = |number: Option<u32>| number.map_or(String::new(), |number| number.to_string());
    let indent = 2 * item.depth as usize;
    let name = format!("{:indent$}{}", "", item_name(item, stream));
    let style = match item.kind {
        ItemKind::Section(_) => Style::Name,
        ItemKind::Command(_) => Style::Notable,
        _ => Style::Faint,
    };
    let offset = out.paint(Style::Faint, format!("{:#012x}", item.offset));
    let name = out.paint(style, format!("{name:<width$}"));
    // A command's detail may be long, so it has no column.
    let detail = match &item.kind {
        ItemKind::Command(command) if !command.detail.is_empty() => format!("  {}", printable(&command.detail)),
        _ => String::new(),
    };
    writeln!(
        out,
        "{offset}  {what:<9} {:>4}  {name} {:>4} {:>4} {:>14}{detail}",
        number(section.map(|section| section.id)),
        number(section.filter(|section| introduces(section.kind)).map(|section| section.device.instance)),
        number(section.map(|section| section.version)),
        grouped(item.size)
    )?;
    Ok(())
}

/// Returns whether a section of this kind names its device. The others only have its id.
fn introduces(kind: SectionKind) -> bool {
    matches!(kind, SectionKind::Start | SectionKind::Full)
}

fn item_name(item: &Item, stream: &Stream) -> String {
    match &item.kind {
        ItemKind::Section(section) => printable(&section.device.name).into(),
        ItemKind::Command(Command { number, name, .. }) => {
            name.map_or_else(|| format!("command {number}"), str::to_string)
        }
        ItemKind::Configuration => printable(stream.machine().unwrap_or_default()).into(),
        _ => String::new(),
    }
}

fn write_ram(stream: &Stream, out: &mut Output) -> Result<()> {
    let blocks = &stream.ram.blocks;
    let width = blocks.iter().map(|block| printable(&block.name).chars().count()).max().unwrap_or(0).max(9);
    let columns = |cells: [String; 6]| {
        let [length, zero, plain, xbzrle, compressed, bytes] = cells;
        format!("{length:>10} {zero:>11} {plain:>11} {xbzrle:>10} {compressed:>10} {bytes:>15}")
    };
    let heading = columns(["LENGTH", "ZERO", "PLAIN", "XBZRLE", "COMPRESSED", "BYTES"].map(String::from));
    let heading = out.paint(Style::Heading, format!("{:<width$} {heading}", "RAM BLOCK"));
    writeln!(out, "\n{heading}")?;
    let cells = |block: &Block| {
        let [zero, plain, xbzrle, compressed] = block.counts().map(|(_, count)| grouped(count.pages));
        columns([size(block.length), zero, plain, xbzrle, compressed, grouped(block.bytes())])
    };
    let mut total = Block::default();
    for block in blocks {
        let name = out.paint(Style::Name, format!("{:<width$}", printable(&block.name)));
        write!(out, "{name} {}", cells(block))?;
        if let Some(page_size) = block.page_size {
            write!(out, "  {} pages", size(page_size))?;
        }
        if let Some(address) = block.address {
            write!(out, "  at {address:#x}")?;
        }
        if let Some(mapped) = block.mapped {
            write!(out, "  mapped at {:#x}", mapped.pages_offset)?;
        }
        writeln!(out)?;
        total.length = total.length.saturating_add(block.length);
        for (sum, (_, count)) in [&mut total.zero, &mut total.plain, &mut total.xbzrle, &mut total.compressed]
            .into_iter()
            .zip(block.counts())
        {
            sum.pages += count.pages;
            sum.bytes += count.bytes;
        }
    }
    if blocks.len() > 1 {
        let line = out.paint(Style::Faint, format!("{:<width$} {}", "total", cells(&total)));
        writeln!(out, "{line}")?;
    }
    write_spans(stream, out)?;
    write_absent(stream, out)
}

/// Writes the guest-physical places of main memory that is split.
fn write_spans(stream: &Stream, out: &mut Output) -> Result<()> {
    let spans = guest_spans(stream);
    if spans.len() > 1 {
        for text in spans.iter().map(span_text) {
            writeln!(out, "  {}", out.paint(Style::Notable, text))?;
        }
    }
    Ok(())
}

/// Describes the place of a part of a block.
pub fn span_text(span: &Span) -> String {
    let Span { block, offset, address, length } = span;
    let block = printable(block);
    format!("{block}: {} from offset {offset:#x} on are at guest-physical address {address:#x}", size(*length))
}

/// Reports memory that is not in the stream.
fn write_absent(stream: &Stream, out: &mut Output) -> Result<()> {
    let Some((page_size, _)) = stream.ram.page_size.filter(|_| stream.complete) else { return Ok(()) };
    for block in &stream.ram.blocks {
        let absent = block.absent_pages(page_size);
        if absent > 0 {
            let (name, all) = (printable(&block.name), grouped(block.length.div_ceil(page_size)));
            let note = format!("{name}: {} of {all} pages are not in this stream", grouped(absent));
            writeln!(out, "  {}", out.paint(Style::Notable, note))?;
        }
    }
    Ok(())
}

fn write_totals(stream: &Stream, out: &mut Output) -> Result<()> {
    let pages: u64 = stream.ram.blocks.iter().map(Block::pages).sum();
    let memory: u64 = stream.ram.blocks.iter().map(Block::bytes).sum();
    let (devices, state) = stream.devices().fold((0, 0), |(count, bytes), (item, _)| (count + 1, bytes + item.size));
    let heading = out.paint(Style::Heading, "Totals");
    writeln!(out, "\n{heading}")?;
    writeln!(out, "  memory   {:>15}  {}", grouped(memory), plural(pages, "page"))?;
    writeln!(out, "  devices  {:>15}  {}", grouped(state), plural(devices, "device"))?;
    writeln!(out, "  other    {:>15}", grouped(stream.length.saturating_sub(memory + state)))?;
    writeln!(out, "  stream   {:>15}  {}", grouped(stream.length), size(stream.length))?;
    if stream.ram.multifd {
        let note = out.paint(Style::Notable, "pages went through multifd channels; they are not in this stream");
        writeln!(out, "  {note}")?;
    }
    Ok(())
}
