// SPDX-License-Identifier: LGPL-2.1-or-later
//! The "ram" section as it is written and read here: names, flags in words, and what QEMU's format asks beside them.

use crate::file::MigFile;
use crate::wire::limits::IDSTR_MAX;
pub use crate::wire::ram::*;

/// Name of the section.
pub const SECTION: &[u8] = b"ram";
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
