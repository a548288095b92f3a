// SPDX-License-Identifier: LGPL-2.1-or-later
//! Live devices other than memory: each writes its sections in a format of its own, without a length.
//!
//! Formats: QEMU 7.2, `migration/block.c`, `migration/block-dirty-bitmap.c`, `hw/s390x/s390-stattrib.c`,
//! `hw/ppc/spapr.c`, `hw/vfio/migration.c` (also 8.0 to 10.0).

use super::cursor::{Cursor, Result};
use super::source::Source;
use crate::wire::io::Input;

/// Skips one section's state of the device named `name`. Returns false if the end of the section cannot be determined;
/// the cursor is then at an unspecified place within the state.
pub(super) fn skip_section<S: Source>(cursor: &mut Cursor<S>, name: &str) -> Result<bool> {
    match name {
        "block" => block(cursor),
        "dirty-bitmap" => dirty_bitmap(cursor),
        "s390-storage_attributes" | "s390-stattrib" => storage_attributes(cursor),
        "spapr/htab" => hash_table(cursor),
        _ if name == "vfio" || name.ends_with("/vfio") => vfio(cursor),
        _ => Ok(false),
    }
}

/// Disk contents: chunks of 1 MiB, each after a sector number and flags.
fn block<S: Source>(cursor: &mut Cursor<S>) -> Result<bool> {
    const DEVICE: u64 = 1;
    const EOS: u64 = 2;
    const PROGRESS: u64 = 4;
    const ZERO: u64 = 8;
    const CHUNK: u64 = 1 << 20;
    loop {
        let start = cursor.offset();
        let flags = cursor.get_be64("a disk record")? & 0x1ff;
        if flags & DEVICE != 0 {
            cursor.get_name("the name of a disk")?;
            if flags & ZERO == 0 {
                cursor.skip(CHUNK, "a chunk of a disk")?;
            }
        } else if flags & (PROGRESS | EOS) == 0 {
            return cursor.fault(start, "a disk record with known flags", format!("flags {flags:#x}"));
        }
        if flags & EOS != 0 {
            return Ok(true);
        }
    }
}

/// Dirty bitmaps of disks: chunks, each with flags that name its members.
fn dirty_bitmap<S: Source>(cursor: &mut Cursor<S>) -> Result<bool> {
    const EOS: u32 = 0x01;
    const ZEROES: u32 = 0x02;
    const BITMAP_NAME: u32 = 0x04;
    const DEVICE_NAME: u32 = 0x08;
    const START: u32 = 0x10;
    const COMPLETE: u32 = 0x20;
    const BITS: u32 = 0x40;
    loop {
        let start = cursor.offset();
        let flags = dirty_bitmap_flags(cursor)?;
        if flags & DEVICE_NAME != 0 {
            cursor.get_name("the alias of a disk")?;
        }
        if flags & BITMAP_NAME != 0 {
            cursor.get_name("the name of a bitmap")?;
        }
        match flags & (START | COMPLETE | BITS) {
            START => cursor.skip(4 + 1, "the start of a bitmap")?,
            BITS => {
                cursor.skip(8 + 4, "a bitmap's range")?;
                if flags & ZEROES == 0 {
                    let len = cursor.get_be64("the length of a bitmap's bits")?;
                    cursor.skip(len, "a bitmap's bits")?;
                }
            }
            COMPLETE => {}
            0 if flags & EOS != 0 => {}
            _ => return cursor.fault(start, "a bitmap chunk with known flags", format!("flags {flags:#x}")),
        }
        if flags & EOS != 0 {
            return Ok(true);
        }
    }
}

/// Reads flags of one, two or four bytes. The highest bits of the first two bytes give the length.
fn dirty_bitmap_flags<S: Source>(cursor: &mut Cursor<S>) -> Result<u32> {
    const MORE: u32 = 0x80;
    let mut flags = u32::from(cursor.get_u8("a bitmap chunk")?);
    if flags & MORE != 0 {
        flags = flags << 8 | u32::from(cursor.get_u8("a bitmap chunk")?);
        if flags & MORE != 0 {
            flags = flags << 16 | u32::from(cursor.get_be16("a bitmap chunk")?);
        }
    }
    Ok(flags)
}

/// s390 page states: runs of bytes, then DONE, then EOS. Some sources omit EOS after DONE.
fn storage_attributes<S: Source>(cursor: &mut Cursor<S>) -> Result<bool> {
    const EOS: u64 = 1;
    const MORE: u64 = 2;
    const DONE: u64 = 8;
    loop {
        let start = cursor.offset();
        let flags = cursor.get_be64("storage attributes")? & 0xfff;
        match flags {
            MORE => {
                let count = cursor.get_be64("the number of storage attributes")?;
                cursor.skip(count, "storage attributes")?;
            }
            DONE => {
                if cursor.peek(8)?.starts_with(&EOS.to_be_bytes()) {
                    cursor.skip(8, "the end of the storage attributes")?;
                }
                return Ok(true);
            }
            EOS => return Ok(true),
            _ => return cursor.fault(start, "storage attributes with known flags", format!("flags {flags:#x}")),
        }
    }
}

/// The hash page table of a POWER guest: its size, or runs of valid and invalid entries up to an empty run.
fn hash_table<S: Source>(cursor: &mut Cursor<S>) -> Result<bool> {
    const ENTRY: u64 = 16;
    if cursor.get_be32("a hash table section")? != 0 {
        // The size of the table, or the mark of no table.
        return Ok(true);
    }
    loop {
        let index = cursor.get_be32("a run of hash table entries")?;
        let valid = cursor.get_be16("the number of valid entries")?;
        let invalid = cursor.get_be16("the number of invalid entries")?;
        if index == 0 && valid == 0 && invalid == 0 {
            return Ok(true);
        }
        cursor.skip(u64::from(valid) * ENTRY, "hash table entries")?;
    }
}

/// A passed-through device: marks. Only the mark of data has a length.
fn vfio<S: Source>(cursor: &mut Cursor<S>) -> Result<bool> {
    const MARK: u64 = 0xffff_ffff_ef10_0000;
    const END_OF_STATE: u64 = MARK | 1;
    const SETUP: u64 = MARK | 3;
    const DATA: u64 = MARK | 4;
    const INIT_DATA_SENT: u64 = MARK | 5;
    loop {
        match cursor.peek(8)?.first_chunk().map(|mark| u64::from_be_bytes(*mark)) {
            Some(END_OF_STATE) => return cursor.skip(8, "the end of a device's state").map(|()| true),
            Some(SETUP | INIT_DATA_SENT) => cursor.skip(8, "a mark")?,
            Some(DATA) => {
                cursor.skip(8, "a mark")?;
                let len = cursor.get_be64("the length of a device's data")?;
                cursor.skip(len, "a device's data")?;
            }
            _ => return Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::super::source::SliceSource;
    use super::*;

    /// Returns the length of the section at the start of `bytes`.
    fn taken(name: &str, bytes: &[u8]) -> Option<u64> {
        let mut cursor = Cursor::new(SliceSource::new(bytes), Budget::default());
        match skip_section(&mut cursor, name) {
            Ok(true) => Some(cursor.offset()),
            _ => None,
        }
    }

    #[test]
    fn disks() {
        let mut bytes = (5u64 << 9 | 1).to_be_bytes().to_vec();
        bytes.extend(b"\x02hd");
        bytes.extend(vec![0xaa; 1 << 20]);
        bytes.extend((7u64 << 9 | 1 | 8).to_be_bytes());
        bytes.extend(b"\x02hd");
        bytes.extend((100u64 << 9 | 4).to_be_bytes());
        bytes.extend(2u64.to_be_bytes());
        let len = bytes.len() as u64;
        bytes.push(0x7e);
        assert_eq!(taken("block", &bytes), Some(len));
        assert_eq!(taken("block", &[0; 8]), None);
    }

    #[test]
    fn bitmaps() {
        let mut bytes = b"\x1c\x01d\x01b\0\0\0\x10\x01".to_vec();
        bytes.extend(b"\x42\0\0\0\0\0\0\0\0\0\0\0\x01");
        bytes.extend(b"\x40\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02xy");
        bytes.extend(b"\x20\x01");
        assert_eq!(taken("dirty-bitmap", &bytes), Some(bytes.len() as u64));
        assert_eq!(taken("dirty-bitmap", b"\x70"), None);
    }

    #[test]
    fn storage_attributes_end_with_or_without_eos() {
        let mut bytes = (3u64 << 12 | 2).to_be_bytes().to_vec();
        bytes.extend(2u64.to_be_bytes());
        bytes.extend([9, 9]);
        bytes.extend(8u64.to_be_bytes());
        let without = bytes.len() as u64;
        assert_eq!(taken("s390-storage_attributes", &bytes), Some(without));
        bytes.extend(1u64.to_be_bytes());
        assert_eq!(taken("s390-storage_attributes", &bytes), Some(without + 8));
    }

    #[test]
    fn hash_tables() {
        assert_eq!(taken("spapr/htab", b"\0\0\0\x18rest"), Some(4));
        assert_eq!(taken("spapr/htab", b"\xff\xff\xff\xffrest"), Some(4));
        let mut bytes = b"\0\0\0\0\0\0\0\x01\0\x01\0\x03".to_vec();
        bytes.extend([1; 16]);
        bytes.extend([0; 8]);
        assert_eq!(taken("spapr/htab", &bytes), Some(bytes.len() as u64));
    }

    #[test]
    fn passed_through_device_ends_at_its_mark() {
        let mark = |number: u64| (0xffff_ffff_ef10_0000 | number).to_be_bytes();
        let mut bytes = mark(4).to_vec();
        bytes.extend(3u64.to_be_bytes());
        bytes.extend([1, 2, 3]);
        bytes.extend(mark(1));
        assert_eq!(taken("0000:00:04.0/vfio", &bytes), Some(bytes.len() as u64));
        assert_eq!(taken("vfio", &mark(2)), None, "a configuration does not say how long it is");
        assert_eq!(taken("something", &[0; 64]), None);
    }
}
