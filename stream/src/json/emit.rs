// SPDX-License-Identifier: LGPL-2.1-or-later
//! Writes JSON piece by piece, without building the document first.

use super::text::quote;
use std::io::{self, Write};

/// Bytes that are collected before they are written to the output.
const BATCH: usize = 1 << 14;

/// Writes a document piece by piece. The text is ASCII; other characters are escaped.
///
/// The first error of the output is kept and returned by [`Emitter::finish`]. Text after it is dropped.
#[derive(Debug)]
pub struct Emitter<W> {
    out: W,
    /// Text that is not yet written to the output. Most pieces are a few bytes.
    waiting: Vec<u8>,
    indent: Option<usize>,
    /// The open containers: the closing bracket of each, and whether it has elements.
    open: Vec<(u8, bool)>,
    after_name: bool,
    result: io::Result<()>,
}

impl<W: Write> Emitter<W> {
    /// Writes to `out`. With `indent`, every value is on a line of its own, as Python's `json` module writes it.
    pub fn new(out: W, indent: Option<usize>) -> Self {
        Self { out, waiting: Vec::new(), indent, open: Vec::new(), after_name: false, result: Ok(()) }
    }

    /// Ends the document with a line feed. Returns the output, or its first error.
    pub fn finish(mut self) -> io::Result<W> {
        self.put(b"\n");
        self.write();
        self.result?;
        Ok(self.out)
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
        self.write_batch();
    }

    /// Writes the collected text if it is long enough.
    #[inline]
    fn write_batch(&mut self) {
        if self.waiting.len() >= BATCH {
            self.write();
        }
    }

    #[cold]
    fn write(&mut self) {
        if self.result.is_ok() {
            self.result = self.out.write_all(&self.waiting);
        }
        self.waiting.clear();
    }

    fn new_line(&mut self) {
        const SPACES: [u8; 64] = [b' '; 64];
        let Some(indent) = self.indent else { return };
        self.put(b"\n");
        let mut left = indent * self.open.len();
        while left > 0 {
            let step = left.min(SPACES.len());
            self.put(&SPACES[..step]);
            left -= step;
        }
    }

    /// Writes the separator between the value before and the next one.
    fn separate(&mut self) {
        if std::mem::take(&mut self.after_name) {
            return;
        }
        if let Some((_, holds)) = self.open.last_mut() {
            let comma = std::mem::replace(holds, true);
            if comma {
                self.put(b",");
            }
            self.new_line();
        }
    }

    fn begin(&mut self, opening: &[u8], closing: u8) -> &mut Self {
        self.separate();
        self.put(opening);
        self.open.push((closing, false));
        self
    }

    /// Begins an object.
    pub fn object(&mut self) -> &mut Self {
        self.begin(b"{", b'}')
    }

    /// Begins an array.
    pub fn array(&mut self) -> &mut Self {
        self.begin(b"[", b']')
    }

    /// Ends the innermost object or array.
    pub fn end(&mut self) -> &mut Self {
        if let Some((closing, holds)) = self.open.pop() {
            if holds {
                self.new_line();
            }
            self.put(&[closing]);
        }
        self
    }

    /// Returns the number of open objects and arrays.
    pub fn depth(&self) -> usize {
        self.open.len()
    }

    /// Ends objects and arrays until `depth` are open.
    pub fn end_to(&mut self, depth: usize) -> &mut Self {
        while self.open.len() > depth {
            self.end();
        }
        self
    }

    /// Returns whether the innermost container is an array.
    pub fn in_array(&self) -> bool {
        matches!(self.open.last(), Some((b']', _)))
    }

    /// Writes the name of a member. Its value must follow.
    pub fn name(&mut self, name: &str) -> &mut Self {
        self.string(name);
        self.put(if self.indent.is_some() { b": " } else { b":" });
        self.after_name = true;
        self
    }

    /// Writes a string.
    pub fn string(&mut self, text: &str) -> &mut Self {
        self.separate();
        quote(&mut self.waiting, text);
        self.write_batch();
        self
    }

    /// Writes bytes as a string of hex digits: `before`, then the bytes, separated by `between`.
    pub fn hex(&mut self, before: &str, bytes: &[u8], between: &str) -> &mut Self {
        self.hex_and(before, bytes, between, "")
    }

    /// As [`Emitter::hex`], with `after` following the digits. The texts must not need escapes.
    pub fn hex_and(&mut self, before: &str, bytes: &[u8], between: &str, after: &str) -> &mut Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.separate();
        self.put(b"\"");
        self.put(before.as_bytes());
        for (at, byte) in bytes.iter().enumerate() {
            if at > 0 {
                self.put(between.as_bytes());
            }
            self.put(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        self.put(after.as_bytes());
        self.put(b"\"");
        self
    }

    /// Writes a whole number.
    pub fn number(&mut self, number: impl Into<i128>) -> &mut Self {
        self.separate();
        self.put(number.into().to_string().as_bytes());
        self
    }

    /// Writes a number, or `null` if it is not finite.
    pub fn float(&mut self, number: f64) -> &mut Self {
        self.separate();
        let text = if number.is_finite() { format!("{number}") } else { "null".into() };
        self.put(text.as_bytes());
        self
    }

    /// Writes `true` or `false`.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.separate();
        self.put(if value { b"true" } else { b"false" });
        self
    }

    /// Writes `null`.
    pub fn null(&mut self) -> &mut Self {
        self.separate();
        self.put(b"null");
        self
    }

    /// Writes a string, or `null`.
    pub fn optional_string(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.string(text),
            None => self.null(),
        }
    }

    /// Writes a whole number, or `null`.
    pub fn optional_number(&mut self, number: Option<u64>) -> &mut Self {
        match number {
            Some(number) => self.number(number),
            None => self.null(),
        }
    }

    /// Writes a value that was read.
    pub fn value(&mut self, value: &super::Json<'_>) -> &mut Self {
        use super::Json;
        match value {
            Json::Null => self.null(),
            Json::Bool(value) => self.bool(*value),
            Json::Int(number) => self.number(*number),
            Json::Float(number) => self.float(*number),
            Json::String(text) => self.string(text),
            Json::Array(elements) => {
                self.array();
                for element in elements {
                    self.value(element);
                }
                self.end()
            }
            Json::Object(members) => {
                self.object();
                for (name, value) in members {
                    self.name(name).value(value);
                }
                self.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::json::Json;

    fn emit(indent: Option<usize>, write: impl FnOnce(&mut Emitter<Vec<u8>>)) -> String {
        let mut emitter = Emitter::new(Vec::new(), indent);
        write(&mut emitter);
        String::from_utf8(emitter.finish().unwrap()).unwrap()
    }

    #[test]
    fn indent_matches_python() {
        let text = emit(Some(4), |json| {
            json.object().name("a").array().number(1).bool(true).end().name("b").object().end().name("c").null().end();
        });
        assert_eq!(text, "{\n    \"a\": [\n        1,\n        true\n    ],\n    \"b\": {},\n    \"c\": null\n}\n");
    }

    #[test]
    fn strings_are_escaped_and_read_back() {
        let odd = "a\"b\\\n\u{1}é😀\u{7f}";
        let text = emit(None, |json| {
            json.string(odd);
        });
        assert_eq!(text, "\"a\\\"b\\\\\\n\\u0001\\u00e9\\ud83d\\ude00\\u007f\"\n");
        assert_eq!(Json::parse(text.as_bytes(), &mut Budget::default()).unwrap().as_str(), Some(odd));
    }

    #[test]
    fn bytes_are_hex_digits() {
        let text = emit(None, |json| {
            json.array().hex("", &[0, 0xab], " ").hex("0x", &[9], "").hex_and("", &[], "", " (1)").end();
        });
        assert_eq!(text, "[\"00 ab\",\"0x09\",\" (1)\"]\n");
    }

    #[test]
    fn finish_returns_the_first_error() {
        let mut room = [0; 4];
        let mut emitter = Emitter::new(&mut room[..], None);
        emitter.array().string("much too long").end();
        assert!(emitter.finish().is_err());
    }
}
