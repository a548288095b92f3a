// SPDX-License-Identifier: LGPL-2.1-or-later
//! The "ram" section, version 4: the flags in the low bits of a record's first word (QEMU 7.2, `migration/ram.c`).

use crate::file::MigFile;
use crate::wire::limits::IDSTR_MAX;

/// Name of the section.
pub const SECTION: &[u8] = b"ram";
/// Its version.
pub const VERSION: i32 = 4;

/// A page of one byte value, which follows.
pub const ZERO: u64 = 0x02;
/// The list of blocks.
pub const MEM_SIZE: u64 = 0x04;
/// A page.
pub const PAGE: u64 = 0x08;
/// End of the section's records.
pub const EOS: u64 = 0x10;
/// In the block of the record before: no name follows.
pub const CONTINUE: u64 = 0x20;
/// A difference to the page before.
pub const XBZRLE: u64 = 0x40;
/// For a transport of its own (RDMA).
pub const HOOK: u64 = 0x80;
/// A deflated page.
pub const COMPRESS_PAGE: u64 = 0x100;

/// First byte of an XBZRLE record's payload.
pub const ENCODING_XBZRLE: u8 = 1;
/// Smallest and largest log2 of a target page: below, offsets would run into the flags.
pub const PAGE_BITS: std::ops::RangeInclusive<u32> = 10..=16;
/// Longest name of a block.
pub const NAME_MAX: usize = IDSTR_MAX;

/// Flags in words.
pub fn flags_text(flags: u64) -> String {
    const NAMES: [(u64, &str); 8] = [
        (ZERO, "ZERO"),
        (MEM_SIZE, "MEM_SIZE"),
        (PAGE, "PAGE"),
        (EOS, "EOS"),
        (CONTINUE, "CONTINUE"),
        (XBZRLE, "XBZRLE"),
        (HOOK, "HOOK"),
        (COMPRESS_PAGE, "COMPRESS_PAGE"),
    ];
    let names: Vec<_> = NAMES.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| *name).collect();
    format!("0x{flags:x} ({})", names.join("|"))
}

/// Puts a name with its length before it.
pub fn put_name(file: &MigFile, name: &[u8]) {
    file.put_byte(name.len() as u8);
    file.put(name);
}
