// SPDX-License-Identifier: LGPL-2.1-or-later
//! The format of a stream: its values, and one encoder and decoder for each of its parts.
//!
//! ```text
//! stream   = magic(be32) version(be32) [configuration] section* EOF [vmdescription]
//! section  = START|FULL id(be32) len(u8) idstr instance(be32) version(be32) payload footer
//!          | PART|END   id(be32) payload footer
//!          | COMMAND    command(be16) len(be16) payload
//! footer   = 0x7e id(be32)
//! ```
//! Source of the values: QEMU 7.2, `migration/savevm.h` and `migration/savevm.c`.

pub mod chain;
pub mod command;
pub mod configuration;
pub mod extensions;
pub mod io;
pub mod limits;
pub mod mapped;
pub mod multifd;
pub mod page_index;
pub mod page_runs;
pub mod preflight;
pub mod ram;
pub mod return_path;
pub mod section;
mod uuid;
pub mod xbzrle;

pub use command::Command;
pub use uuid::uuid_text;

/// First word of every stream: "QEVM".
pub const FILE_MAGIC: u32 = 0x5145_564d;
/// The only supported version of the stream.
pub const FILE_VERSION: u32 = 3;
/// The version before it. QEMU no longer reads it and reports it with an error of its own.
pub const FILE_VERSION_COMPAT: u32 = 2;

/// End of the sections.
pub const EOF: u8 = 0x00;
/// A live device's first section.
pub const SECTION_START: u8 = 0x01;
/// Any further section of a live device but the last.
pub const SECTION_PART: u8 = 0x02;
/// A live device's last section.
pub const SECTION_END: u8 = 0x03;
/// The whole state of a device that is not live.
pub const SECTION_FULL: u8 = 0x04;
/// Inside a section: an optional part of a VMState, with a name.
pub const SUBSECTION: u8 = 0x05;
/// Version of each subsection of the configuration section.
pub const CONFIGURATION_SUBSECTION_VERSION: u32 = 1;
/// The JSON description after EOF.
pub const VMDESCRIPTION: u8 = 0x06;
/// The machine's name, and settings that both sides must share.
pub const CONFIGURATION: u8 = 0x07;
/// A command to the destination.
pub const COMMAND: u8 = 0x08;
/// Follows every section, with its id.
pub const SECTION_FOOTER: u8 = 0x7e;

/// Returns the name of a section tag, for errors and traces.
pub fn tag_name(tag: u8) -> &'static str {
    match tag {
        EOF => "EOF",
        SECTION_START => "SECTION_START",
        SECTION_PART => "SECTION_PART",
        SECTION_END => "SECTION_END",
        SECTION_FULL => "SECTION_FULL",
        SUBSECTION => "SUBSECTION",
        VMDESCRIPTION => "VMDESCRIPTION",
        CONFIGURATION => "CONFIGURATION",
        COMMAND => "COMMAND",
        SECTION_FOOTER => "SECTION_FOOTER",
        _ => "unknown",
    }
}
