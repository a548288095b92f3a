// SPDX-License-Identifier: LGPL-2.1-or-later
//! The parts that all bodies consist of, and why a body is rejected.

use super::{TEXT_MAX, VERSION};
use crate::wire::io::{Cut, Input, Output, text_start};
use crate::wire::limits::PREFLIGHT_DEVICES_MAX;
use std::fmt;

/// Why a body is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It ends before this value, or within it.
    Cut(&'static str),
    /// It has a version that this end does not know.
    Version(u16),
    /// A value is not allowed.
    Invalid {
        /// Name of the value.
        what: &'static str,
        /// The value.
        value: u64,
    },
}

impl From<Cut> for BodyError {
    fn from(Cut(what): Cut) -> Self {
        Self::Cut(what)
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut(what) => write!(f, "preflight: it ends before {what}"),
            Self::Version(version) => write!(f, "preflight: version {version}, expected {VERSION}"),
            Self::Invalid { what, value } => write!(f, "preflight: {what} is {value}"),
        }
    }
}

pub(super) type Result<T> = std::result::Result<T, BodyError>;

pub(super) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    let text = &text[..text.len().min(TEXT_MAX)];
    out.put_be16(text.len() as u16);
    out.put(text);
}

pub(super) fn put_string(out: &mut Vec<u8>, text: &str) {
    put_text(out, text_start(text, TEXT_MAX).as_bytes());
}

pub(super) fn take<'a>(input: &mut &'a [u8], len: usize, what: &'static str) -> Result<&'a [u8]> {
    let (bytes, rest) = input.split_at_checked(len).ok_or(Cut(what))?;
    *input = rest;
    Ok(bytes)
}

pub(super) fn get_text<'a>(input: &mut &'a [u8], what: &'static str) -> Result<&'a [u8]> {
    let len = input.get_be16(what)?;
    take(input, len.into(), what)
}

pub(super) fn get_string(input: &mut &[u8], what: &'static str) -> Result<String> {
    get_text(input, what).map(|text| String::from_utf8_lossy(text).into_owned())
}

pub(super) fn get_bool(input: &mut &[u8], what: &'static str) -> Result<bool> {
    match input.get_u8(what)? {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(BodyError::Invalid { what, value: value.into() }),
    }
}

/// Returns a count that is within its limit.
pub(super) fn limited(count: u32, most: u32, what: &'static str) -> Result<u32> {
    if count > most { Err(BodyError::Invalid { what, value: count.into() }) } else { Ok(count) }
}

/// Reads the count of a list that has at most one element for each device.
pub(super) fn get_device_count(input: &mut &[u8], what: &'static str) -> Result<u32> {
    limited(input.get_be32(what)?, PREFLIGHT_DEVICES_MAX, what)
}

/// Reads a list. `least` is the size of the smallest element in bytes, which limits the memory that a count may claim.
pub(super) fn get_list<T>(
    input: &mut &[u8],
    count: u32,
    least: usize,
    what: &'static str,
    mut element: impl FnMut(&mut &[u8]) -> Result<T>,
) -> Result<Vec<T>> {
    if (count as usize).checked_mul(least).is_none_or(|bytes| bytes > input.len()) {
        return Err(BodyError::Invalid { what, value: count.into() });
    }
    (0..count).map(|_| element(input)).collect()
}
