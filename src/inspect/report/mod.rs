// SPDX-License-Identifier: LGPL-2.1-or-later
//! What was read, as JSON.

mod analyze;
mod document;

pub use analyze::write_analyze;
pub use document::{to_json, write_json};

use std::io::Write;

use super::json::Emitter;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Bytes as hex digits, with `between` after each but the last.
fn hex_string<W: Write>(json: &mut Emitter<W>, bytes: &[u8], between: &[u8]) {
    let mut text = Vec::with_capacity(bytes.len() * (2 + between.len()));
    for (at, byte) in bytes.iter().enumerate() {
        if at > 0 {
            text.extend_from_slice(between);
        }
        text.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
    json.plain_string(&text);
}
