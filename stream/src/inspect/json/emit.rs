// SPDX-License-Identifier: LGPL-2.1-or-later
//! Writes JSON as it comes, without building the document first.

use std::io::{self, Write};

/// How much is written in one go.
const BATCH: usize = 1 << 14;

/// Puts a document together piece by piece. What is written is ASCII; other characters are escaped.
///
/// The first error of the output is kept and given by [`Emitter::finish`]; what comes after it is dropped.
#[derive(Debug)]
pub struct Emitter<W> {
    out: W,
    /// What waits to be written: most pieces are a few bytes.
    waiting: Vec<u8>,
    indent: Option<usize>,
    /// The open containers: how each is closed, and whether it holds something.
    open: Vec<(u8, bool)>,
    after_name: bool,
    result: io::Result<()>,
}

impl<W: Write> Emitter<W> {
    /// Writes to `out`; with `indent` every value on a line of its own, as Python's `json` does it.
    pub fn new(out: W, indent: Option<usize>) -> Self {
        Self {
            out,
            waiting: Vec::with_capacity(2 * BATCH),
            indent,
            open: Vec::new(),
            after_name: false,
            result: Ok(()),
        }
    }

    /// Ends the document with a line feed. The output, or the first error of it.
    pub fn finish(mut self) -> io::Result<W> {
        self.put(b"\n");
        self.write();
        self.result?;
        Ok(self.out)
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
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

    /// What stands between the value before and this one.
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

    /// How many objects and arrays are open.
    pub fn depth(&self) -> usize {
        self.open.len()
    }

    /// Ends objects and arrays until so many are open.
    pub fn end_to(&mut self, depth: usize) -> &mut Self {
        while self.open.len() > depth {
            self.end();
        }
        self
    }

    /// Whether the innermost container is an array.
    pub fn in_array(&self) -> bool {
        matches!(self.open.last(), Some((b']', _)))
    }

    /// The name of the member whose value comes next.
    pub fn name(&mut self, name: &str) -> &mut Self {
        self.string(name);
        self.put(if self.indent.is_some() { b": " } else { b":" });
        self.after_name = true;
        self
    }

    /// A string.
    pub fn string(&mut self, text: &str) -> &mut Self {
        self.separate();
        self.put(b"\"");
        let mut rest = text;
        while let Some(at) = rest.find(|c: char| !(' '..='~').contains(&c) || c == '"' || c == '\\') {
            self.put(&rest.as_bytes()[..at]);
            let mut after = rest[at..].chars();
            after.next().into_iter().for_each(|c| self.escape(c));
            rest = after.as_str();
        }
        self.put(rest.as_bytes());
        self.put(b"\"");
        self
    }

    fn escape(&mut self, c: char) {
        match c {
            '"' => self.put(b"\\\""),
            '\\' => self.put(b"\\\\"),
            '\n' => self.put(b"\\n"),
            '\r' => self.put(b"\\r"),
            '\t' => self.put(b"\\t"),
            '\u{8}' => self.put(b"\\b"),
            '\u{c}' => self.put(b"\\f"),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    self.put(format!("\\u{unit:04x}").as_bytes());
                }
            }
        }
    }

    /// Bytes as a string of hex digits: `before`, then the bytes with `between` in between.
    pub fn hex(&mut self, before: &str, bytes: &[u8], between: &str) -> &mut Self {
        self.hex_and(before, bytes, between, "")
    }

    /// The same, with something behind the digits. What stands around them must need no escapes.
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

    /// A whole number.
    pub fn number(&mut self, number: impl Into<i128>) -> &mut Self {
        self.separate();
        self.put(number.into().to_string().as_bytes());
        self
    }

    /// Any finite number; others become `null`.
    pub fn float(&mut self, number: f64) -> &mut Self {
        self.separate();
        let text = if number.is_finite() { format!("{number}") } else { "null".into() };
        self.put(text.as_bytes());
        self
    }

    /// `true` or `false`
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.separate();
        self.put(if value { b"true" } else { b"false" });
        self
    }

    /// `null`
    pub fn null(&mut self) -> &mut Self {
        self.separate();
        self.put(b"null");
        self
    }

    /// A string, or `null`.
    pub fn optional_string(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.string(text),
            None => self.null(),
        }
    }

    /// A whole number, or `null`.
    pub fn optional_number(&mut self, number: Option<u64>) -> &mut Self {
        match number {
            Some(number) => self.number(number),
            None => self.null(),
        }
    }

    /// A whole value that was read before.
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
    use crate::inspect::Budget;
    use crate::inspect::json::Json;

    fn emit(indent: Option<usize>, write: impl FnOnce(&mut Emitter<Vec<u8>>)) -> String {
        let mut emitter = Emitter::new(Vec::new(), indent);
        write(&mut emitter);
        String::from_utf8(emitter.finish().unwrap()).unwrap()
    }

    #[test]
    fn indented_as_python_does_it() {
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
    fn an_error_is_kept_to_the_end() {
        let mut room = [0; 4];
        let mut emitter = Emitter::new(&mut room[..], None);
        emitter.array().string("much too long").end();
        assert!(emitter.finish().is_err());
    }
}
