// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a peer's bytes may ask for at most. Fixed by the format, or defaults of a context's limits.

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
        }
    }
}
