// SPDX-License-Identifier: LGPL-2.1-or-later
//! Builds an SVG document.

use std::fmt::{Display, Write};

use savevm_stream::inspect::printable;

/// A document that is being built.
pub struct Svg {
    body: String,
    width: f64,
    title: String,
}

/// A place and a size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rect {
    /// Left edge.
    pub x: f64,
    /// Upper edge.
    pub y: f64,
    /// Width.
    pub w: f64,
    /// Height.
    pub h: f64,
}

impl Rect {
    /// Returns the rectangle, smaller by `by` on every side.
    pub fn shrunk(self, by: f64) -> Self {
        Self { x: self.x + by, y: self.y + by, w: (self.w - 2.0 * by).max(0.0), h: (self.h - 2.0 * by).max(0.0) }
    }
}

/// Where a text is anchored.
#[derive(Clone, Copy, Debug)]
pub enum Anchor {
    /// At its start.
    Start,
    /// At its middle.
    Middle,
    /// At its end.
    End,
}

/// Colours that are distinguishable with any colour vision (Okabe and Ito), and their names.
pub mod colour {
    /// For memory and bandwidth.
    pub const BLUE: &str = "#0072b2";
    /// For critical parts.
    pub const ORANGE: &str = "#e69f00";
    /// For devices.
    pub const GREEN: &str = "#009e73";
    /// For downtime.
    pub const RED: &str = "#d55e00";
    /// For postcopy.
    pub const PURPLE: &str = "#cc79a7";
    /// For light areas.
    pub const SKY: &str = "#56b4e9";
    /// For less important parts.
    pub const GREY: &str = "#999999";
    /// For dark areas.
    pub const SLATE: &str = "#555577";
    /// For the guest's downtime, in the background.
    pub const DOWNTIME: &str = "#f8e0cf";
    /// For the least important parts.
    pub const LIGHT: &str = "#e4e4e4";
    /// For text and axes.
    pub const INK: &str = "#222222";

    /// For text on one of these colours.
    pub fn ink_on(fill: &str) -> &'static str {
        if [ORANGE, PURPLE, SKY, GREY, DOWNTIME, LIGHT].contains(&fill) { INK } else { "#ffffff" }
    }
}

/// Escapes text for screen readers and tooltips. The same escapes are valid in attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Not a valid XML character.
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Returns the approximate largest width of a text of this size. Fonts differ.
pub fn text_width(text: &str, size: f64) -> f64 {
    text.chars().map(char_width).sum::<f64>() * size
}

/// Returns the width of a character in font sizes.
fn char_width(c: char) -> f64 {
    match c {
        'i' | 'j' | 'l' | '.' | ',' | ':' | '/' | ' ' | 'f' | 't' | 'r' => 0.40,
        'm' | 'w' | 'M' | 'W' | '…' => 0.98,
        c if c.is_uppercase() => 0.74,
        _ => 0.63,
    }
}

/// Factor of the width of bold text.
pub const BOLD: f64 = 1.13;

/// Returns the longest prefix of a text that fits a width, in one pass.
pub fn fit(text: &str, size: f64, width: f64) -> Option<String> {
    let text = &*printable(text);
    if text_width(text, size) <= width {
        return Some(text.into());
    }
    let (mut taken, mut shorter) = (size, String::new());
    for c in text.chars() {
        taken += char_width(c) * size;
        if taken > width {
            break;
        }
        shorter.push(c);
    }
    (shorter.chars().count() >= 3).then(|| shorter + "…")
}

/// Returns a device's name, or the part after its path, or a prefix of that, if it fits.
pub fn fit_name(name: &str, size: f64, width: f64) -> Option<String> {
    let last = name.rsplit('/').next().unwrap_or(name);
    let whole = [name, last].into_iter().find(|text| text_width(text, size) <= width);
    whole.map(str::to_string).or_else(|| fit(last, size, width))
}

impl Svg {
    /// Returns a document of this width. The height is set at the end.
    pub fn new(width: f64, title: &str) -> Self {
        Self { body: String::new(), width, title: escape(title) }
    }

    /// Returns the finished document.
    pub fn finish(self, height: f64) -> String {
        let (width, title, body) = (self.width, self.title, self.body);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height:.0}\" width=\"{width}\" \
             height=\"{height:.0}\" role=\"img\" font-family=\"'Liberation Sans', Arial, Helvetica, sans-serif\">\n\
             <title>{title}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
        )
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.body.write_fmt(text);
        self.body.push('\n');
    }

    /// Draws a filled rectangle with a tooltip.
    pub fn rect(&mut self, rect: Rect, fill: &str, note: &str) {
        self.shape(rect, format_args!("fill=\"{fill}\""), note);
    }

    /// Draws a transparent filled rectangle.
    pub fn veil(&mut self, rect: Rect, fill: &str, opacity: f64, note: &str) {
        self.shape(rect, format_args!("fill=\"{fill}\" fill-opacity=\"{opacity}\""), note);
    }

    fn shape(&mut self, Rect { x, y, w, h }: Rect, how: impl Display, note: &str) {
        let note = if note.is_empty() { String::new() } else { format!("<title>{}</title>", escape(note)) };
        self.put(format_args!(
            "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{w:.2}\" height=\"{h:.2}\" {how}>{note}</rect>"
        ));
    }

    /// Draws a straight line. `dashes` is SVG's dash pattern, or empty.
    pub fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), stroke: &str, dashes: &str) {
        let dashes = if dashes.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{dashes}\"") };
        self.put(format_args!(
            "<line x1=\"{x1:.2}\" y1=\"{y1:.2}\" x2=\"{x2:.2}\" y2=\"{y2:.2}\" stroke=\"{stroke}\"{dashes}/>"
        ));
    }

    /// Draws a line through points. `dashes` is SVG's dash pattern, or empty.
    pub fn path(&mut self, points: &[(f64, f64)], stroke: &str, dashes: &str) {
        let dashes = if dashes.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{dashes}\"") };
        let how = format!("fill=\"none\" stroke=\"{stroke}\" stroke-width=\"1.8\" stroke-linejoin=\"round\"{dashes}");
        self.poly("polyline", points, how);
    }

    /// Draws a filled area.
    pub fn area(&mut self, points: &[(f64, f64)], fill: &str, opacity: f64) {
        self.poly("polygon", points, format_args!("fill=\"{fill}\" fill-opacity=\"{opacity}\""));
    }

    fn poly(&mut self, shape: &str, points: &[(f64, f64)], how: impl Display) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.2},{y:.2}")).collect();
        self.put(format_args!("<{shape} points=\"{}\" {how}/>", points.join(" ")));
    }

    /// Writes a legend of colours, in lines that end at `right` with `from_right`, or else begin at `left`. The first
    /// line is at `y`. Returns the place of the next line.
    pub fn legend(&mut self, (left, right): (f64, f64), y: f64, entries: &[(String, &str)], from_right: bool) -> f64 {
        const SIZE: f64 = 11.0;
        const SWATCH: f64 = 9.0;
        const GAP: f64 = 5.0;
        let width = |name: &str| SWATCH + GAP + text_width(name, SIZE) + 2.0 * GAP;
        let all: f64 = entries.iter().map(|(name, _)| width(name)).sum();
        let (mut x, mut y) = (if from_right { (right - all).max(left) } else { left }, y);
        for (name, fill) in entries {
            if x + width(name) > right + 2.0 * GAP && x > left {
                (x, y) = (left, y + 17.0);
            }
            self.rect(Rect { x, y: y - 8.5, w: SWATCH, h: SWATCH }, fill, "");
            self.text((x + SWATCH + GAP, y), name, SIZE, colour::INK, Anchor::Start);
            x += width(name);
        }
        if entries.is_empty() { y } else { y + 17.0 }
    }

    /// Writes text.
    pub fn text(&mut self, (x, y): (f64, f64), text: &str, size: f64, fill: &str, anchor: Anchor) {
        self.write(x, y, text, size, format_args!("fill=\"{fill}\""), anchor);
    }

    /// Writes emphasised text.
    pub fn bold(&mut self, (x, y): (f64, f64), text: &str, size: f64, fill: &str, anchor: Anchor) {
        self.write(x, y, text, size, format_args!("fill=\"{fill}\" font-weight=\"bold\""), anchor);
    }

    fn write(&mut self, x: f64, y: f64, text: &str, size: f64, how: impl Display, anchor: Anchor) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escape(text);
        self.put(format_args!(
            "<text x=\"{x:.2}\" y=\"{y:.2}\" font-size=\"{size}\" text-anchor=\"{anchor}\" {how} pointer-events=\"none\">{text}</text>"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_cut_to_fit() {
        assert_eq!(escape("<a & \"b\">\n"), "&lt;a &amp; &quot;b&quot;&gt;\\n");
        assert_eq!(fit("cpu", 10.0, 100.0).as_deref(), Some("cpu"));
        assert!(fit("a long name of a device", 10.0, 60.0).unwrap().ends_with('…'));
        assert_eq!(fit("device", 10.0, 5.0), None);
        assert_eq!(fit_name("0000:00:02.0/vga", 10.0, 30.0).as_deref(), Some("vga"));
    }

    #[test]
    fn a_document_is_closed() {
        let mut svg = Svg::new(100.0, "t<");
        svg.rect(Rect { x: 0.0, y: 0.0, w: 5.0, h: 5.0 }, colour::BLUE, "n&");
        let text = svg.finish(50.0);
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
        assert!(text.contains("<title>t&lt;</title>") && text.contains("<title>n&amp;</title>"));
    }
}
