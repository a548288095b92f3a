// SPDX-License-Identifier: LGPL-2.1-or-later
//! Formats sizes, counts and paths, and matches patterns of names.

use std::path::Path;

use savevm_stream::inspect::printable;
pub use savevm_stream::inspect::size;

/// Returns a path for messages, on one line.
pub fn shown(path: &Path) -> String {
    printable(&path.display().to_string()).into_owned()
}

/// Returns a number with its digits in groups of three.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns `count` and the noun, with an s unless the count is 1.
pub fn plural(count: u64, thing: &str) -> String {
    format!("{} {thing}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// Parses a size such as `64M`, `1GiB` or `4096`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(format!("'{unit}' is no unit; K, M, G and T are")),
    };
    let number: u64 = number.parse().map_err(|_| "a size starts with a number".to_string())?;
    number.checked_mul(1 << shift).ok_or_else(|| "the size is too large".into())
}

/// Returns whether `text` matches `pattern`. `*` matches any text, `?` any character, `[a-c]` one of several.
pub fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Place of the last star, and how much of the text it matches so far.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, t));
            p += 1;
        } else if let Some(next) = matches_one(&pattern[p..], text[t]) {
            p += next;
            t += 1;
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            (p, t) = (at + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// Returns the length of the pattern's first element, if it matches this character.
fn matches_one(pattern: &[char], c: char) -> Option<usize> {
    match *pattern.first()? {
        '?' => Some(1),
        '[' => {
            let close = pattern.iter().skip(2).position(|&c| c == ']').map(|at| at + 2);
            let Some(close) = close else { return (c == '[').then_some(1) };
            let negated = pattern[1] == '!';
            let set = &pattern[1 + usize::from(negated)..close];
            (in_set(set, c) != negated).then_some(close + 1)
        }
        literal => (literal == c).then_some(1),
    }
}

fn in_set(set: &[char], c: char) -> bool {
    let mut rest = set;
    while let [first, tail @ ..] = rest {
        match tail {
            ['-', last, after @ ..] => {
                if (*first..=*last).contains(&c) {
                    return true;
                }
                rest = after;
            }
            _ => {
                if *first == c {
                    return true;
                }
                rest = tail;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_sizes() {
        assert_eq!(grouped(1_752_777), "1,752,777");
        assert_eq!(grouped(999), "999");
        assert_eq!(size(0), "0 bytes");
        assert_eq!(size(1), "1 byte");
        assert_eq!(size(64 << 20), "64 MiB");
        assert_eq!(size(1_752_777), "1.7 MiB");
        assert_eq!(size(u64::MAX), "16.0 EiB");
        assert_eq!(plural(1, "page"), "1 page");
        assert_eq!(plural(2000, "page"), "2,000 pages");
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("64M"), Ok(64 << 20));
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
        assert_eq!(parse_size("2kb"), Ok(2048));
        assert!(parse_size("x").is_err() && parse_size("5q").is_err() && parse_size("99999999999T").is_err());
    }

    #[test]
    fn patterns() {
        for (pattern, text) in
            [("*", ""), ("cpu", "cpu"), ("*/vga", "0000:00:02.0/vga"), ("i8?59", "i8259"), ("a*b*c", "axxbyybc")]
        {
            assert!(glob(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("[a-c]pu", "cpu"), ("[!x]pu", "cpu"), ("[", "["), ("x[]]", "x]"), ("**", "x"), ("cpu[_c]*", "cpu_common")]
        {
            assert!(glob(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("cpu", "cpu_common"), ("?", ""), ("[a-c]", "d"), ("[!a]", "a"), ("*x", "xy"), ("", "a")]
        {
            assert!(!glob(pattern, text), "{pattern} {text}");
        }
    }
}
