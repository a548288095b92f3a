// SPDX-License-Identifier: LGPL-2.1-or-later
//! Limits on what a peer may make this side do, in memory and in time. Some are fixed by the format; the others are defaults
//! of a context's [`Limits`].

use std::time::Duration;

/// Longest name in bytes (a device's idstr, a block, any counted string): its length is one byte on the wire.
pub const NAME_MAX: usize = 255;
/// Longest idstr in bytes.
pub const IDSTR_MAX: usize = NAME_MAX;
/// Longest machine name in the configuration section, in bytes.
pub const MACHINE_NAME_MAX: u32 = 4096;
/// Most capabilities in the configuration section. QEMU has about twenty.
pub const CAPABILITIES_MAX: u32 = 256;
/// Depth to which PACKAGED commands may nest. QEMU never nests them.
pub const PACKAGED_DEPTH_MAX: u32 = 4;
/// Longest payload of a message on the return path, in bytes, as in QEMU.
pub const RETURN_PATH_PAYLOAD_MAX: usize = 512;
/// Largest received bitmap of a block, in bytes: enough for 8 TiB of 4 KiB pages.
pub const RECEIVED_BITMAP_MAX: u64 = 256 << 20;

/// Longest request of a preflight in bytes, except for a rehearsal, which has the limit of a package.
pub const PREFLIGHT_REQUEST_MAX: u32 = 16 << 20;
/// Longest answer of a preflight in bytes.
pub const PREFLIGHT_ANSWER_MAX: u32 = 16 << 20;
/// Most problems in a verdict. One more may say how many are not listed.
pub const PREFLIGHT_PROBLEMS_MAX: usize = 1000;
/// Most devices in a manifest, in a list of wanted layouts, in a list of layouts and in a report.
pub const PREFLIGHT_DEVICES_MAX: u32 = 1 << 18;
/// Most blocks of RAM in a manifest.
pub const PREFLIGHT_BLOCKS_MAX: u32 = 1 << 16;

/// Limits of a context. They may be changed before a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest PACKAGED stream in bytes (default 1 GiB).
    pub packaged: u32,
    /// Depth to which PACKAGED commands may nest (default 4).
    pub packaged_depth: u32,
    /// Most memory that the VMState fields of one stream may allocate, in bytes (default 1 GiB).
    pub allocation: usize,
    /// Most elements that one field may add to a list or tree (default 1,048,576).
    pub list_elements: usize,
    /// Depth to which descriptions, subsections and lists may nest (default 64).
    pub nesting: u32,
    /// Longest machine name in the configuration section, in bytes (default 4096).
    pub machine_name: u32,
    /// Longest wait for a listener or a reader when a file is opened for writing (default 30 s).
    pub open_to_write: Duration,
    /// Longest wait for a connection or the first byte when a file is opened for reading (default 300 s).
    pub open_to_read: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packaged: 1 << 30,
            packaged_depth: PACKAGED_DEPTH_MAX,
            allocation: 1 << 30,
            list_elements: 1 << 20,
            nesting: 64,
            machine_name: MACHINE_NAME_MAX,
            open_to_write: Duration::from_secs(30),
            open_to_read: Duration::from_secs(300),
        }
    }
}
