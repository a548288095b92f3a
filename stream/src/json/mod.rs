// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reads and writes JSON: the description at the end of a stream, schemas, reports and traces.
//!
//! A read object keeps the order of its members, and all members of the same name, because the description repeats
//! `fields` for each element of a list. A string is borrowed from the text unless it has escapes.

mod emit;
pub mod text;

use std::borrow::Cow;
use std::fmt;

use crate::budget::{Budget, OverBudget};

pub use emit::Emitter;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json<'t> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number without fraction or exponent that fits.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A string.
    String(Cow<'t, str>),
    /// `[...]`
    Array(Vec<Json<'t>>),
    /// `{...}`, in order, repeated names included.
    Object(Vec<(Cow<'t, str>, Json<'t>)>),
}

/// Why a text is not JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// Offset of the first wrong byte.
    pub offset: usize,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.message, self.offset)
    }
}

impl std::error::Error for JsonError {}

impl<'t> Json<'t> {
    /// Reads one value, which must be all of `text`. The memory for it is taken from `budget`.
    pub fn parse(text: &'t [u8], budget: &mut Budget) -> Result<Self, JsonError> {
        let mut parser = Parser { text, at: 0, budget };
        let value = parser.value(0)?;
        parser.space();
        if parser.at < text.len() { parser.error("something follows the value") } else { Ok(value) }
    }

    /// Returns the first member of this name, if the value is an object that has one.
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.members().iter().find(|(have, _)| **have == *name).map(|(_, value)| value)
    }

    /// Returns the members of an object, or nothing for another value.
    pub fn members(&self) -> &[(Cow<'t, str>, Self)] {
        match self {
            Self::Object(members) => members,
            _ => &[],
        }
    }

    /// Returns the elements of an array, or nothing for another value.
    pub fn elements(&self) -> &[Self] {
        match self {
            Self::Array(elements) => elements,
            _ => &[],
        }
    }

    /// Returns the text, if the value is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the number, if the value is a whole number that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::Int(number) => u64::try_from(number).ok(),
            Self::Float(number) if number >= 0.0 && number.fract() == 0.0 && number < 18e18 => Some(number as u64),
            _ => None,
        }
    }

    /// Returns the number, if the value is one.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::Int(number) => Some(number as f64),
            Self::Float(number) => Some(number),
            _ => None,
        }
    }
}

/// Deepest nesting of values. Descriptions nest less deeply, and the parser's recursion fits any stack.
const MAX_DEPTH: usize = 100;

struct Parser<'t, 'b> {
    text: &'t [u8],
    at: usize,
    budget: &'b mut Budget,
}

impl<'t> Parser<'t, '_> {
    fn error<T>(&self, message: &str) -> Result<T, JsonError> {
        Err(JsonError { offset: self.at, message: message.into() })
    }

    fn pay(&mut self, bytes: usize) -> Result<(), JsonError> {
        self.budget.take(bytes).or_else(|error: OverBudget| self.error(&error.to_string()))
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<Json<'t>, JsonError> {
        if depth > MAX_DEPTH {
            return self.error("values nest too deeply");
        }
        self.space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => Ok(Json::String(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.word(),
        }
    }

    fn word(&mut self) -> Result<Json<'t>, JsonError> {
        let words = [("true", Json::Bool(true)), ("false", Json::Bool(false)), ("null", Json::Null)];
        for (word, value) in words {
            if self.text[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(value);
            }
        }
        self.error(if self.at < self.text.len() { "no JSON value starts like this" } else { "the text ends" })
    }

    /// Appends to a list, whose growth is taken from the budget.
    fn push<T>(&mut self, list: &mut Vec<T>, element: T) -> Result<(), JsonError> {
        if list.len() == list.capacity() {
            let more = list.capacity().max(4);
            self.pay(more * size_of::<T>())?;
            list.reserve_exact(more);
        }
        list.push(element);
        Ok(())
    }

    /// Reads the separator after an element. Returns whether another element follows.
    fn more(&mut self, close: u8) -> Result<bool, JsonError> {
        self.space();
        let next = self.peek();
        if next != Some(b',') && next != Some(close) {
            return self.error("expected a comma or the end of the list");
        }
        self.at += 1;
        Ok(next == Some(b','))
    }

    /// Reads the opening bracket. Returns whether the list is empty, whose end is then skipped.
    fn empty(&mut self, close: u8) -> bool {
        self.at += 1;
        self.space();
        let empty = self.peek() == Some(close);
        self.at += usize::from(empty);
        empty
    }

    fn array(&mut self, depth: usize) -> Result<Json<'t>, JsonError> {
        let mut elements = Vec::new();
        if !self.empty(b']') {
            loop {
                let element = self.value(depth + 1)?;
                self.push(&mut elements, element)?;
                if !self.more(b']')? {
                    break;
                }
            }
        }
        Ok(Json::Array(elements))
    }

    fn object(&mut self, depth: usize) -> Result<Json<'t>, JsonError> {
        let mut members = Vec::new();
        if !self.empty(b'}') {
            loop {
                self.space();
                if self.peek() != Some(b'"') {
                    return self.error("expected a member's name");
                }
                let name = self.string()?;
                self.space();
                if self.peek() != Some(b':') {
                    return self.error("expected a colon");
                }
                self.at += 1;
                let value = self.value(depth + 1)?;
                self.push(&mut members, (name, value))?;
                if !self.more(b'}')? {
                    break;
                }
            }
        }
        Ok(Json::Object(members))
    }

    fn number(&mut self) -> Result<Json<'t>, JsonError> {
        let rest = &self.text[self.at..];
        let len = rest.iter().position(|c| !matches!(c, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
        let text = std::str::from_utf8(&rest[..len.unwrap_or(rest.len())]).unwrap_or_default();
        let value = match text.parse::<i64>() {
            Ok(number) => Json::Int(number),
            Err(_) => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Json::Float(number),
                _ => return self.error("no number looks like this"),
            },
        };
        self.at += text.len();
        Ok(value)
    }

    fn string(&mut self) -> Result<Cow<'t, str>, JsonError> {
        self.at += 1;
        let start = self.at;
        let plain = self.text[start..].iter().position(|&c| c == b'"' || c == b'\\' || c < b' ');
        self.at += plain.unwrap_or(self.text.len() - start);
        self.pay(self.at - start)?;
        let mut text = String::from_utf8_lossy(&self.text[start..self.at]);
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    self.at += 1;
                    let escaped = self.escape()?;
                    text.to_mut().push(escaped);
                }
                Some(c) if c >= b' ' => {
                    let rest = &self.text[self.at..];
                    let run = rest.iter().position(|&c| c == b'"' || c == b'\\' || c < b' ').unwrap_or(rest.len());
                    self.pay(run)?;
                    text.to_mut().push_str(&String::from_utf8_lossy(&self.text[self.at..self.at + run]));
                    self.at += run;
                }
                Some(_) => return self.error("a control character in a string"),
                None => return self.error("the text ends within a string"),
            }
        }
        self.at += 1;
        Ok(text)
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let Some(c) = self.peek() else { return self.error("the text ends within a string") };
        self.at += 1;
        Ok(match c {
            b'"' | b'\\' | b'/' => char::from(c),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(),
            _ => return self.error("no such escape"),
        })
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let digits = self.text.get(self.at..self.at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.map(|digits| u32::from_str_radix(digits, 16)) {
            Some(Ok(unit)) => {
                self.at += 4;
                Ok(unit)
            }
            _ => self.error("expected four hex digits"),
        }
    }

    /// Reads a code unit, or a surrogate pair. A lone surrogate becomes the replacement character.
    fn unicode(&mut self) -> Result<char, JsonError> {
        let first = self.hex4()?;
        if (0xd800..0xdc00).contains(&first) && self.text[self.at..].starts_with(b"\\u") {
            let back = self.at;
            self.at += 2;
            let second = self.hex4()?;
            if (0xdc00..0xe000).contains(&second) {
                let scalar = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return Ok(char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = back;
        }
        Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Json<'_>, JsonError> {
        Json::parse(text.as_bytes(), &mut Budget::default())
    }

    #[test]
    fn parse_reads_values_of_every_kind() {
        let value = parse(r#" {"a": [1, -2.5e1, true, null, "x\n\u00e9\ud83d\ude00"], "a": {}, "b": []} "#).unwrap();
        let elements = value.get("a").unwrap().elements();
        assert_eq!(elements[0].as_u64(), Some(1));
        assert_eq!(elements[1].as_f64(), Some(-25.0));
        assert_eq!(elements[4].as_str(), Some("x\né😀"));
        assert_eq!(value.members().len(), 3, "members of the same name are kept");
    }

    #[test]
    fn parse_rejects_invalid_json() {
        for text in ["", "{", "[1,]", "{\"a\" 1}", "\"\\x\"", "tru", "1 2", "\"a", "-", "[1 2]", "\"\\u12\""] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn parse_takes_memory_from_the_budget() {
        let text = format!("[{}1]", "1,".repeat(10_000));
        assert!(Json::parse(text.as_bytes(), &mut Budget::new(1000)).is_err());
        assert!(Json::parse(text.as_bytes(), &mut Budget::new(10_000_000)).is_ok());
    }
}
