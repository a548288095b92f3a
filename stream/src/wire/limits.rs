// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a peer may ask for at most: its bytes, and its delay. Fixed by the format, or defaults of a context's limits.

use std::time::Duration;

/// Longest idstr, block name or counted string, in bytes: its length is one byte on the wire.
pub const IDSTR_MAX: usize = 255;

/// Limits on what a stream may make the destination do. All are per context and may be changed before a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest PACKAGED stream in bytes.
    pub packaged: u32,
    /// How deep PACKAGED may stand in PACKAGED.
    pub packaged_depth: u32,
    /// Largest single allocation that a VMState field may ask for, in bytes.
    pub allocation: usize,
    /// How many elements a list or tree may gain from one field.
    pub list_elements: usize,
    /// How deep descriptions, subsections and lists may nest.
    pub nesting: u32,
    /// Longest machine name in the configuration section, in bytes.
    pub machine_name: u32,
    /// How long the opening of a file to write waits for a listener or a reader.
    pub open_to_write: Duration,
    /// How long the opening of a file to read waits for a connection, or for the first byte.
    pub open_to_read: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packaged: 1 << 30,
            packaged_depth: 4,
            allocation: 1 << 30,
            list_elements: 1 << 20,
            nesting: 64,
            machine_name: 4096,
            open_to_write: Duration::from_secs(30),
            open_to_read: Duration::from_secs(300),
        }
    }
}
