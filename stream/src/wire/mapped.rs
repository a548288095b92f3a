// SPDX-License-Identifier: LGPL-2.1-or-later
//! mapped-ram: each page has a fixed place in the file (QEMU 9.0 and later, `docs/devel/migration/mapped-ram.rst`).
//!
//! A header follows each entry of the list of blocks:
//!
//! ```text
//! version(be32) page_size(be64) bitmap_offset(be64) pages_offset(be64)
//! ```
//! Offsets count from the start of the file, which may precede the stream. The bitmap has one bit per page, in words of 64
//! bits in the byte order of the host that wrote it. A page whose bit is clear is zero and may be a hole of the file. The
//! stream continues behind the pages of the block.

use super::io::{Input, Output};

/// Name of the capability, which the configuration section lists.
pub const CAPABILITY: &str = "mapped-ram";
/// The only version of the header.
pub const VERSION: u32 = 1;
/// Size of the header in bytes.
pub const HEADER_SIZE: u64 = 4 + 3 * 8;
/// Alignment of the pages of a block in the file, in bytes. Readers accept any multiple of the page size.
pub const ALIGNMENT: u64 = 1 << 20;

/// The header of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Version of the header.
    pub version: u32,
    /// The target's page size in bytes.
    pub page_size: u64,
    /// Offset of the bitmap in the file.
    pub bitmap_offset: u64,
    /// Offset of the block's first page in the file.
    pub pages_offset: u64,
}

/// Size of the bitmap of a block in bytes: whole words of 64 bits.
pub fn bitmap_size(length: u64, page_size: u64) -> u64 {
    length.div_ceil(page_size).div_ceil(64) * 8
}

impl Header {
    /// Returns the header for a block of `length` bytes, if the header is written at `offset` of the file. `None` if the
    /// block does not fit into a file.
    pub fn place(offset: u64, length: u64, page_size: u64) -> Option<Self> {
        let bitmap_offset = offset.checked_add(HEADER_SIZE)?;
        let pages_offset =
            bitmap_offset.checked_add(bitmap_size(length, page_size))?.checked_next_multiple_of(ALIGNMENT)?;
        pages_offset.checked_add(length).filter(|end| i64::try_from(*end).is_ok())?;
        Some(Self { version: VERSION, page_size, bitmap_offset, pages_offset })
    }

    /// Appends the header.
    pub fn encode(&self, out: &mut impl Output) {
        out.put_be32(self.version);
        out.put_be64(self.page_size);
        out.put_be64(self.bitmap_offset);
        out.put_be64(self.pages_offset);
    }

    /// Reads a header.
    pub fn decode<I: Input>(input: &mut I) -> Result<Self, I::Error> {
        Ok(Self {
            version: input.get_be32("the version of a mapped-ram header")?,
            page_size: input.get_be64("the page size of a mapped-ram header")?,
            bitmap_offset: input.get_be64("the offset of a mapped-ram bitmap")?,
            pages_offset: input.get_be64("the offset of mapped-ram pages")?,
        })
    }

    /// Returns whether the block has neither a bitmap nor pages: shared memory that is not saved.
    pub fn is_empty(&self) -> bool {
        self.bitmap_offset == 0 && self.pages_offset == 0
    }

    /// Checks a header that was read, for a block of `length` bytes. The header ends at offset `end` of the file. Returns
    /// what is wrong.
    pub fn check(&self, end: u64, length: u64) -> Result<(), String> {
        let Self { version, page_size, bitmap_offset, pages_offset } = *self;
        if version != VERSION {
            return Err(format!("a mapped-ram header of version {version}, expected {VERSION}"));
        }
        if !page_size.is_power_of_two() {
            return Err(format!("a mapped-ram header with pages of {page_size} bytes"));
        }
        if self.is_empty() {
            return Ok(());
        }
        let bitmap_end = bitmap_offset.checked_add(bitmap_size(length, page_size));
        let in_order = bitmap_offset >= end
            && bitmap_end.is_some_and(|end| end <= pages_offset)
            && pages_offset.checked_add(length).is_some_and(|end| i64::try_from(end).is_ok());
        if !in_order {
            return Err(format!(
                "a bitmap at 0x{bitmap_offset:x} and pages at 0x{pages_offset:x}, expected a bitmap of 0x{:x} bytes and then 0x{length:x} \
                 bytes of pages behind 0x{end:x}",
                bitmap_size(length, page_size)
            ));
        }
        if !pages_offset.is_multiple_of(page_size) {
            return Err(format!("pages at 0x{pages_offset:x}, expected a multiple of 0x{page_size:x}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn placed_header_is_valid_and_decodes_to_itself(offset in 0..1u64 << 50, pages in 1..1u64 << 30, bits in 10..17u32) {
            let (page_size, length) = (1 << bits, pages << bits);
            let header = Header::place(offset, length, page_size).unwrap();
            prop_assert_eq!(header.check(offset + HEADER_SIZE, length), Ok(()));
            prop_assert!(header.pages_offset.is_multiple_of(ALIGNMENT) && !header.is_empty());
            let mut bytes = Vec::new();
            header.encode(&mut bytes);
            prop_assert_eq!(bytes.len() as u64, HEADER_SIZE);
            prop_assert_eq!(Header::decode(&mut &bytes[..]), Ok(header));
        }

        #[test]
        fn random_header_is_accepted_only_with_places_in_order(version in 0..3u32, bits in 0..20u32, bitmap_offset: u64, pages_offset: u64, end in 0..1u64 << 40, length: u64) {
            let header = Header { version, page_size: 1 << bits, bitmap_offset, pages_offset };
            if header.check(end, length).is_ok() && !header.is_empty() {
                prop_assert!(version == 1 && bitmap_offset >= end && pages_offset > bitmap_offset);
                prop_assert!(pages_offset.is_multiple_of(1 << bits) && pages_offset.checked_add(length).is_some());
            }
        }
    }

    #[test]
    fn wrong_header_is_rejected_with_the_reason() {
        let good = Header::place(100, 0x8000, 4096).unwrap();
        let table = [
            (Header { version: 2, ..good }, "version 2, expected 1"),
            (Header { page_size: 0, ..good }, "pages of 0 bytes"),
            (Header { page_size: 4097, ..good }, "pages of 4097 bytes"),
            (Header { bitmap_offset: 127, ..good }, "expected a bitmap of 0x8 bytes"),
            (Header { bitmap_offset: good.pages_offset - 4, ..good }, "expected a bitmap"),
            (Header { pages_offset: u64::MAX - 4095, ..good }, "expected a bitmap"),
            (Header { pages_offset: good.pages_offset + 512, ..good }, "expected a multiple of 0x1000"),
        ];
        for (header, reason) in table {
            let error = header.check(128, 0x8000).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        assert_eq!(good.check(128, 0x8000), Ok(()));
        assert_eq!(Header { bitmap_offset: 0, pages_offset: 0, ..good }.check(128, 0x8000), Ok(()));
        assert_eq!(Header::place(u64::MAX - 8, 1, 4096), None);
        assert_eq!(Header::place(1 << 62, 1 << 62, 4096), None);
    }
}
