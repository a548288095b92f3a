// SPDX-License-Identifier: LGPL-2.1-or-later
//! Makes text from a stream safe to print.
//!
//! Names in a stream can hold any characters. Some of them start a new line, move the terminal's cursor, or change the
//! direction of the text, so that a name could look like output of the program. [`printable`] writes them as escapes.

use std::borrow::Cow;

/// Returns the text with each layout character written as an escape, such as `\n` or `\u{202e}`.
///
/// Escaped are control characters (line feeds included), line and paragraph separators, bidirectional controls and
/// invisible format characters.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_layout) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_layout(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown.into()
}

/// Returns the text of an I/O error, without the number that Rust appends to the system's text.
pub fn io_text(error: &std::io::Error) -> String {
    let mut text = error.to_string();
    if error.raw_os_error().is_some() {
        text.truncate(text.rfind(" (os error ").unwrap_or(text.len()));
    }
    text
}

/// Returns whether a character changes the layout of text, or is not visible.
pub fn is_layout(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}'
            // Zero-width characters, marks of direction, separators, embeddings and overrides.
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            // Invisible operators and isolates.
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            // Tags.
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_escapes_layout_characters() {
        assert_eq!(printable("0000:00:02.0/vga é😀"), "0000:00:02.0/vga é😀");
        assert!(matches!(printable("vga"), Cow::Borrowed(_)));
        for wild in ["\n", "\r", "\t", "\x1b", "\u{7f}", "\u{9b}", "\u{85}", "\u{2028}", "\u{2029}"] {
            assert!(printable(wild).starts_with('\\'), "{wild:?}");
        }
        for bidi in ['\u{61c}', '\u{200e}', '\u{200f}', '\u{202a}', '\u{202e}', '\u{2066}', '\u{2069}', '\u{feff}'] {
            assert_eq!(printable(&bidi.to_string()), format!("\\u{{{:x}}}", u32::from(bidi)));
        }
        assert_eq!(printable("a\r\nb"), "a\\r\\nb");
    }
}
