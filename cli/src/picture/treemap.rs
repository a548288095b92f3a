// SPDX-License-Identifier: LGPL-2.1-or-later
//! Draws the bytes of a stream: each rectangle's area is in proportion to the bytes of its part.
//!
//! Devices are small compared to memory, so they get a second picture.

use std::collections::BTreeMap;

use savevm_stream::inspect::{Block, ItemKind, SectionKind, Stream};

use super::svg::{Anchor, BOLD, Rect, Svg, colour, fit, fit_name, text_width};
use crate::words::{plural, size};

/// A part of the stream, which may have parts of its own.
struct Node {
    name: String,
    note: String,
    bytes: u64,
    fill: &'static str,
    parts: Vec<Node>,
}

const WIDTH: f64 = 1000.0;
const MARGIN: f64 = 20.0;
/// Height of each picture.
const HEIGHT: f64 = 380.0;
/// Height of a group's heading.
const HEADING: f64 = 18.0;

/// Draws a stream.
pub fn draw(name: &str, stream: &Stream) -> String {
    let mut svg = Svg::new(WIDTH, &format!("Where the bytes of {name} went"));
    svg.bold((MARGIN, 32.0), name, 18.0, colour::INK, Anchor::Start);
    let machine = stream.machine().map(|machine| format!("{machine}, ")).unwrap_or_default();
    let subtitle = format!("{machine}{} ({})", size(stream.length), plural(stream.length, "byte"));
    svg.text((MARGIN, 52.0), &subtitle, 13.0, colour::INK, Anchor::Start);

    let devices = devices(stream);
    let whole = [memory(stream), devices_of(&devices), other_live(stream), rest(stream)];
    let whole: Vec<Node> = whole.into_iter().filter(|node| node.bytes > 0).collect();
    svg.legend((WIDTH / 2.0, WIDTH - MARGIN), 52.0, &colours_in(&whole), true);
    let place = |y| Rect { x: MARGIN, y, w: WIDTH - 2.0 * MARGIN, h: HEIGHT };
    draw_parts(&mut svg, &whole, place(66.0));
    let mut bottom = 66.0 + HEIGHT;
    if !devices.is_empty() {
        let bytes: u64 = devices.iter().map(|device| device.bytes).sum();
        let heading = format!("The devices alone: {} in {}", size(bytes), plural(devices.len() as u64, "device"));
        svg.bold((MARGIN, bottom + 34.0), &heading, 15.0, colour::INK, Anchor::Start);
        draw_parts(&mut svg, &devices, place(bottom + 46.0));
        bottom += 46.0 + HEIGHT;
    }
    svg.finish(bottom + MARGIN)
}

/// Writes the legend of the used colours.
fn colours_in(nodes: &[Node]) -> Vec<(String, &'static str)> {
    fn uses(node: &Node, fill: &str) -> bool {
        if node.parts.is_empty() { node.fill == fill } else { node.parts.iter().any(|part| uses(part, fill)) }
    }
    let meanings = [
        ("plain pages", colour::BLUE),
        ("zero pages", colour::SKY),
        ("differences, compressed", colour::PURPLE),
        ("devices", colour::GREEN),
        ("other live devices", colour::ORANGE),
        ("the rest", colour::GREY),
    ];
    let there = meanings.into_iter().filter(|(_, fill)| nodes.iter().any(|node| uses(node, fill)));
    there.map(|(name, fill)| (name.to_string(), fill)).collect()
}

fn node(name: impl Into<String>, bytes: u64, fill: &'static str, detail: &str) -> Node {
    let name = name.into();
    let note = format!("{name}: {} ({}){detail}", size(bytes), plural(bytes, "byte"));
    Node { name, note, bytes, fill, parts: Vec::new() }
}

fn group(name: &str, fill: &'static str, parts: Vec<Node>) -> Node {
    let bytes = parts.iter().map(|part| part.bytes).sum();
    Node { parts, ..node(name, bytes, fill, "") }
}

fn memory(stream: &Stream) -> Node {
    let block = |block: &Block| {
        let fills = [colour::SKY, colour::BLUE, colour::PURPLE, colour::PURPLE];
        let counts = block.counts().into_iter().zip(fills);
        let kinds = counts.map(|((kind, count), fill)| {
            node(kind, count.bytes, fill, &format!(", {} of {}", plural(count.pages, "page"), block.name))
        });
        group(&block.name, colour::BLUE, kinds.filter(|kind| kind.bytes > 0).collect())
    };
    let mut blocks: Vec<Node> = stream.ram.blocks.iter().map(block).filter(|block| block.bytes > 0).collect();
    blocks.push(node("block list, flushes", stream.ram.framing, colour::GREY, ""));
    group("memory", colour::BLUE, blocks)
}

fn devices(stream: &Stream) -> Vec<Node> {
    let device = |(item, section): (&savevm_stream::inspect::Item, &savevm_stream::inspect::Section)| {
        let detail = format!(", instance {}, version {}", section.device.instance, section.version);
        node(&*section.device.name, item.size, colour::GREEN, &detail)
    };
    stream.devices().map(device).collect()
}

fn devices_of(devices: &[Node]) -> Node {
    let leaf =
        |device: &Node| Node { name: device.name.clone(), note: device.note.clone(), parts: Vec::new(), ..*device };
    group("devices", colour::GREEN, devices.iter().map(leaf).collect())
}

/// Live devices other than memory.
fn other_live(stream: &Stream) -> Node {
    let mut sizes: BTreeMap<&str, u64> = BTreeMap::new();
    for (item, section) in stream.sections() {
        if section.kind == SectionKind::Full || &*section.device.name == "ram" {
            continue;
        }
        *sizes.entry(&*section.device.name).or_default() += item.size;
    }
    let parts = sizes.into_iter().map(|(name, bytes)| node(name, bytes, colour::ORANGE, "")).collect();
    group("live devices", colour::ORANGE, parts)
}

fn rest(stream: &Stream) -> Node {
    let of = |wanted: fn(&ItemKind) -> bool| -> u64 {
        stream.items.iter().filter(|item| wanted(&item.kind)).map(|item| item.size).sum()
    };
    // A package's size includes its contents, which are counted separately.
    let commands = stream.items.iter().filter(|item| matches!(item.kind, ItemKind::Command(_)));
    let commands: u64 = commands.map(|item| item.size.min(64)).sum();
    let parts = vec![
        node("description", of(|kind| matches!(kind, ItemKind::Description)), colour::GREY, ""),
        node("configuration", of(|kind| matches!(kind, ItemKind::Configuration)), colour::GREY, ""),
        node("commands", commands, colour::GREY, ""),
    ];
    group("other", colour::GREY, parts.into_iter().filter(|part| part.bytes > 0).collect())
}

fn draw_parts(svg: &mut Svg, parts: &[Node], area: Rect) {
    let mut order: Vec<&Node> = parts.iter().filter(|part| part.bytes > 0).collect();
    order.sort_by_key(|part| std::cmp::Reverse(part.bytes));
    let weights: Vec<f64> = order.iter().map(|part| part.bytes as f64).collect();
    for (part, place) in order.into_iter().zip(squarify(&weights, area)) {
        draw_node(svg, part, place);
    }
}

fn draw_node(svg: &mut Svg, node: &Node, place: Rect) {
    // A part smaller than a pixel would only enlarge the file.
    if place.w < 0.5 || place.h < 0.5 {
        return;
    }
    let gap = if place.w.min(place.h) > 6.0 { 1.0 } else { 0.2 };
    let place = place.shrunk(gap);
    if node.parts.is_empty() || place.w < 30.0 || place.h < HEADING + 12.0 {
        svg.rect(place, node.fill, &node.note);
        label(svg, node, place);
        return;
    }
    svg.veil(place, node.fill, 0.16, &node.note);
    let room = (place.w - 8.0) / BOLD;
    let bytes = format!("  {}", size(node.bytes));
    let with_size = fit_name(&node.name, 12.0, room - text_width(&bytes, 12.0)).filter(|name| !name.ends_with('…'));
    let heading = with_size.map(|name| name + &bytes).or_else(|| fit_name(&node.name, 12.0, room));
    if let Some(heading) = heading {
        svg.bold((place.x + 4.0, place.y + 13.0), &heading, 12.0, colour::INK, Anchor::Start);
    }
    let inner = Rect { y: place.y + HEADING, h: place.h - HEADING, ..place }.shrunk(1.0);
    draw_parts(svg, &node.parts, inner);
}

/// Writes the name, and the size below it, as far as they fit.
fn label(svg: &mut Svg, node: &Node, place: Rect) {
    let text = if place.h < 14.0 { None } else { fit_name(&node.name, 11.0, place.w - 6.0) };
    let Some(text) = text else { return };
    svg.text((place.x + 4.0, place.y + 12.5), &text, 11.0, colour::ink_on(node.fill), Anchor::Start);
    let bytes = size(node.bytes);
    if place.h >= 30.0 {
        if let Some(text) = fit(&bytes, 10.0, place.w - 6.0).filter(|text| *text == bytes) {
            svg.text((place.x + 4.0, place.y + 25.0), &text, 10.0, colour::ink_on(node.fill), Anchor::Start);
        }
    }
}

/// Divides an area into rectangles of these weights, each as square as possible (Bruls, Huizing, van Wijk). The weights
/// are in falling order.
fn squarify(weights: &[f64], mut area: Rect) -> Vec<Rect> {
    let total: f64 = weights.iter().sum();
    let scale = if total > 0.0 { area.w * area.h / total } else { 0.0 };
    let sizes: Vec<f64> = weights.iter().map(|weight| weight * scale).collect();
    let mut places = Vec::with_capacity(sizes.len());
    let mut rest = &sizes[..];
    while !rest.is_empty() {
        let side = area.w.min(area.h).max(f64::MIN_POSITIVE);
        let mut count = 1;
        let mut sum = rest[0];
        let mut best = worst_ratio(&rest[..1], sum, side);
        while count < rest.len() {
            let ratio = worst_ratio(&rest[..=count], sum + rest[count], side);
            if ratio > best {
                break;
            }
            best = ratio;
            sum += rest[count];
            count += 1;
        }
        area = lay_row(&rest[..count], sum, area, &mut places);
        rest = &rest[count..];
    }
    places
}

/// Returns the worst aspect ratio of a row. In falling order the first is the largest, the last the smallest.
fn worst_ratio(row: &[f64], sum: f64, side: f64) -> f64 {
    let (largest, smallest) = (row[0], row[row.len() - 1].max(f64::MIN_POSITIVE));
    let thickness = sum / side;
    (largest / (thickness * thickness)).max(thickness * thickness / smallest)
}

/// Places a row along the shorter side. Returns the rest of the area.
fn lay_row(row: &[f64], sum: f64, area: Rect, places: &mut Vec<Rect>) -> Rect {
    let wide = area.w >= area.h;
    let side = if wide { area.h } else { area.w };
    let thickness = if side > 0.0 { sum / side } else { 0.0 };
    let mut along = 0.0;
    for size in row {
        let length = if thickness > 0.0 { size / thickness } else { 0.0 };
        places.push(if wide {
            Rect { x: area.x, y: area.y + along, w: thickness, h: length }
        } else {
            Rect { x: area.x + along, y: area.y, w: length, h: thickness }
        });
        along += length;
    }
    if wide {
        Rect { x: area.x + thickness, w: (area.w - thickness).max(0.0), ..area }
    } else {
        Rect { y: area.y + thickness, h: (area.h - thickness).max(0.0), ..area }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rectangles_fill_the_area_in_proportion() {
        let area = Rect { x: 10.0, y: 20.0, w: 600.0, h: 400.0 };
        let weights = [6.0, 6.0, 4.0, 3.0, 2.0, 2.0, 1.0];
        let places = squarify(&weights, area);
        for (weight, place) in weights.iter().zip(&places) {
            assert!((place.w * place.h - weight * 10_000.0).abs() < 1.0);
            assert!(place.w.max(place.h) / place.w.min(place.h) < 4.0, "{place:?} is no square");
            assert!(place.x >= 9.99 && place.x + place.w <= 610.01 && place.y >= 19.99 && place.y + place.h <= 420.01);
        }
        assert!(squarify(&[], area).is_empty());
    }

    #[test]
    fn empty_stream_is_drawn() {
        assert!(draw("nothing", &Stream::default()).contains("</svg>"));
    }
}
