// SPDX-License-Identifier: LGPL-2.1-or-later
//! The "ram" section: its version, and the flags in the low bits of a record's first word (QEMU, `migration/ram.c`).

/// The only version that there ever was of the section since QEMU 0.14.
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
/// QEMU 8.1 and later: the further channels have to be waited for.
pub const MULTIFD_FLUSH: u64 = 0x200;
