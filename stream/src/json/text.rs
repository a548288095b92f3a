// SPDX-License-Identifier: LGPL-2.1-or-later
//! Strings and numbers in JSON. All text is ASCII; other characters are escaped.
//!
//! The description of a stream must have the bytes of QEMU 7.2's writer (`qobject/json-writer.c`): [`quote_bytes`]. Reports
//! have those of Python's `json` module: [`quote`]. Both escape alike, but for the case of hex digits.

/// Case of the hex digits in escapes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Digits {
    Lower,
    Upper,
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x20..0x7f) && byte != b'"' && byte != b'\\'
}

/// Appends a string in quotes, as Python's `json` module does.
pub fn quote(out: &mut Vec<u8>, string: &str) {
    out.push(b'"');
    let mut rest = string;
    while let Some(at) = rest.bytes().position(|byte| !is_plain(byte)) {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let mut after = rest[at..].chars();
        after.next().into_iter().for_each(|c| escape(out, c.into(), Digits::Lower));
        rest = after.as_str();
    }
    out.extend_from_slice(rest.as_bytes());
    out.push(b'"');
}

/// Appends a string in quotes, as QEMU does. Bytes that are not UTF-8 become U+FFFD; 0 may be encoded as C0 80.
pub fn quote_bytes(out: &mut Vec<u8>, string: &[u8]) {
    out.push(b'"');
    let mut rest = string;
    while let Some(&byte) = rest.first() {
        if is_plain(byte) {
            out.push(byte);
            rest = &rest[1..];
        } else {
            let (code, len) = decode(rest);
            escape(out, code, Digits::Upper);
            rest = &rest[len..];
        }
    }
    out.push(b'"');
}

fn escape(out: &mut Vec<u8>, code: u32, digits: Digits) {
    let short = match code {
        0x22 => b'"',
        0x5c => b'\\',
        0x08 => b'b',
        0x0c => b'f',
        0x0a => b'n',
        0x0d => b'r',
        0x09 => b't',
        _ => 0,
    };
    if short != 0 {
        out.extend_from_slice(&[b'\\', short]);
    } else if code > 0xffff {
        let above = code - 0x1_0000;
        unit(out, 0xd800 + (above >> 10), digits);
        unit(out, 0xdc00 + (above & 0x3ff), digits);
    } else {
        unit(out, code, digits);
    }
}

fn unit(out: &mut Vec<u8>, unit: u32, digits: Digits) {
    let text = if digits == Digits::Upper { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") };
    out.extend_from_slice(text.as_bytes());
}

const REPLACEMENT: u32 = 0xfffd;

/// Decodes the first character, which is not plain ASCII. Returns it and its length in bytes.
fn decode(bytes: &[u8]) -> (u32, usize) {
    let first = u32::from(bytes[0]);
    let len = match bytes[0] {
        0..0x80 => return (first, 1),
        0xc0..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0..0xf8 => 4,
        0xf8..0xfc => 5,
        0xfc..0xfe => 6,
        _ => return (REPLACEMENT, 1),
    };
    let mut code = first & (0x7f >> len);
    for at in 1..len {
        match bytes.get(at) {
            Some(byte) if byte & 0xc0 == 0x80 => code = (code << 6) | u32::from(byte & 0x3f),
            _ => return (REPLACEMENT, at),
        }
    }
    let least = [0x80, 0x800, 0x1_0000, 0x20_0000, 0x400_0000][len - 2];
    let overlong = code < least && !(code == 0 && len == 2);
    if overlong || !is_character(code) { (REPLACEMENT, len) } else { (code, len) }
}

/// Returns whether the code is a character: not a surrogate, not a noncharacter, not above the last code of Unicode.
fn is_character(code: u32) -> bool {
    code <= 0x10_ffff && !matches!(code, 0xd800..=0xdfff | 0xfdd0..=0xfdef) && code & 0xfffe != 0xfffe
}

/// Appends a number.
pub fn number(out: &mut Vec<u8>, number: i64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        quote_bytes(&mut out, bytes);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn plain_text_is_unchanged() {
        assert_eq!(quoted(b"serial/0 [x]~"), "\"serial/0 [x]~\"");
    }

    #[test]
    fn special_characters_are_escaped() {
        assert_eq!(quoted(b"\"\\\x08\x0c\n\r\t\x01\x7f/"), "\"\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u007F/\"");
    }

    #[test]
    fn other_characters_become_code_units() {
        assert_eq!(quoted("é€😀".as_bytes()), "\"\\u00E9\\u20AC\\uD83D\\uDE00\"");
        assert_eq!(quoted(b"\xc0\x80"), "\"\\u0000\"");
    }

    #[test]
    fn invalid_sequence_is_replaced_once() {
        // A lone continuation, an impossible byte, a cut sequence, an overlong one, a surrogate, a noncharacter.
        assert_eq!(quoted(b"\x80"), "\"\\uFFFD\"");
        assert_eq!(quoted(b"\xff\xfe"), "\"\\uFFFD\\uFFFD\"");
        assert_eq!(quoted(b"\xe2\x82x"), "\"\\uFFFDx\"");
        assert_eq!(quoted(b"\xe0\x80\xaf"), "\"\\uFFFD\"");
        assert_eq!(quoted(b"\xed\xa0\x80"), "\"\\uFFFD\"");
        assert_eq!(quoted(b"\xef\xbf\xbe"), "\"\\uFFFD\"");
        assert_eq!(quoted(b"\xfc\x84\x80\x80\x80\x80"), "\"\\uFFFD\"");
    }

    #[test]
    fn numbers() {
        let text = |value| {
            let mut out = Vec::new();
            number(&mut out, value);
            String::from_utf8(out).unwrap()
        };
        for value in [0, 7, 10, -1, i64::MAX, i64::MIN] {
            assert_eq!(text(value), value.to_string());
        }
    }
}
