// SPDX-License-Identifier: LGPL-2.1-or-later
//! The records of the "ram" section (QEMU, `migration/ram.c`).
//!
//! A record begins with a be64. Its bits below the target's page size are flags; the bits above are an offset in a block.
//!
//! ```text
//! MEM_SIZE       the list of blocks, of this total size: { name length(be64) [page size(be64)] [address(be64)] }
//! ZERO           [block] fill(u8)                         a page of one byte value
//! PAGE           [block] page
//! XBZRLE         [block] encoding(u8) len(be16) runs      the difference from the page that was sent before
//! COMPRESS_PAGE  [block] len(be32) deflated page
//! MULTIFD_FLUSH  pages of the other connections must have arrived
//! EOS            the end of the section
//! ```
//! A record with CONTINUE is in the block of the record before and has no block name. The list of blocks has page sizes if
//! postcopy was advised and the host's page size differs, and addresses if shared memory is not sent.

use super::io::{Input, Output};
use std::ops::RangeInclusive;

/// Name of the section.
pub const SECTION: &[u8] = b"ram";
/// The only version of the section since QEMU 0.14.
pub const VERSION: i32 = 4;
/// log2 of the smallest and the largest page of a target, in bytes. With smaller pages, offsets would overlap the flags.
pub const PAGE_BITS: RangeInclusive<u32> = 10..=16;
/// First byte of the payload of an XBZRLE record.
pub const ENCODING_XBZRLE: u8 = 1;

/// A page of one byte value.
pub const ZERO: u64 = 0x02;
/// The list of blocks.
pub const MEM_SIZE: u64 = 0x04;
/// A whole page.
pub const PAGE: u64 = 0x08;
/// The end of the section's records.
pub const EOS: u64 = 0x10;
/// The record is in the block of the record before; no name follows.
pub const CONTINUE: u64 = 0x20;
/// The difference from the page that was sent before.
pub const XBZRLE: u64 = 0x40;
/// A record of another transport (RDMA).
pub const HOOK: u64 = 0x80;
/// A deflated page.
pub const COMPRESS_PAGE: u64 = 0x100;
/// QEMU 8.1 and later: the other channels must be waited for.
pub const MULTIFD_FLUSH: u64 = 0x200;

/// Splits the first word of a record into offset and flags. The page size is a power of two, in bytes.
#[inline]
pub fn split(word: u64, page_size: u64) -> (u64, u64) {
    let mask = page_size - 1;
    (word & !mask, word & mask)
}

/// Returns flags in words, for errors.
pub fn flags_text(flags: u64) -> String {
    const NAMES: [(u64, &str); 9] = [
        (ZERO, "ZERO"),
        (MEM_SIZE, "MEM_SIZE"),
        (PAGE, "PAGE"),
        (EOS, "EOS"),
        (CONTINUE, "CONTINUE"),
        (XBZRLE, "XBZRLE"),
        (HOOK, "HOOK"),
        (COMPRESS_PAGE, "COMPRESS_PAGE"),
        (MULTIFD_FLUSH, "MULTIFD_FLUSH"),
    ];
    let names: Vec<_> = NAMES.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| *name).collect();
    format!("0x{flags:x} ({})", names.join("|"))
}

/// Appends the head of a page's record. `kind` is ZERO, PAGE, XBZRLE or COMPRESS_PAGE. Without a block name the record is in
/// the block of the record before.
#[inline]
pub fn encode_page_head(out: &mut impl Output, kind: u64, offset: u64, block: Option<&[u8]>) {
    match block {
        None => out.put_be64(offset | kind | CONTINUE),
        Some(name) => {
            out.put_be64(offset | kind);
            out.put_name(name);
        }
    }
}

/// Appends the end of the section's records.
pub fn encode_end(out: &mut impl Output) {
    out.put_be64(EOS);
}

/// Appends the record behind which pages of the other connections must have arrived.
pub fn encode_multifd_flush(out: &mut impl Output) {
    out.put_be64(MULTIFD_FLUSH);
}

/// Encoding and length of the runs of an XBZRLE record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XbzrleHead {
    /// Must be [`ENCODING_XBZRLE`].
    pub encoding: u8,
    /// Length of the runs in bytes.
    pub len: u16,
}

impl XbzrleHead {
    /// Appends the head for runs of `len` bytes.
    #[inline]
    pub fn encode(out: &mut impl Output, len: u16) {
        out.put_u8(ENCODING_XBZRLE);
        out.put_be16(len);
    }

    /// Reads the head.
    #[inline]
    pub fn decode<I: Input>(input: &mut I) -> Result<Self, I::Error> {
        let encoding = input.get_u8("the encoding of an XBZRLE page")?;
        Ok(Self { encoding, len: input.get_be16("the length of an XBZRLE page")? })
    }
}

/// Reads the fill byte of a ZERO record.
#[inline]
pub fn decode_fill<I: Input>(input: &mut I) -> Result<u8, I::Error> {
    input.get_u8("a page's fill byte")
}

/// Reads the length of the deflated page in a COMPRESS_PAGE record, in bytes.
#[inline]
pub fn decode_compressed_len<I: Input>(input: &mut I) -> Result<u32, I::Error> {
    input.get_be32("the length of a compressed page")
}

/// Appends the head of the list of blocks, whose sizes add up to `total` bytes.
pub fn encode_block_list(out: &mut impl Output, total: u64) {
    out.put_be64(total | MEM_SIZE);
}

/// An entry of the list of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockEntry<N> {
    /// The block's name.
    pub name: N,
    /// Its length in bytes.
    pub length: u64,
}

impl<N: AsRef<[u8]>> BlockEntry<N> {
    /// Appends the entry, with its page size in bytes and its address in the guest if both sides agreed on them.
    pub fn encode(&self, out: &mut impl Output, page_size: Option<u64>, address: Option<u64>) {
        out.put_name(self.name.as_ref());
        out.put_be64(self.length);
        page_size.into_iter().chain(address).for_each(|word| out.put_be64(word));
    }
}

impl<N> BlockEntry<N> {
    /// Reads name and length.
    pub fn decode<I: Input<Name = N>>(input: &mut I) -> Result<Self, I::Error> {
        let name = input.get_name("the name of a RAM block")?;
        Ok(Self { name, length: input.get_be64("the length of a RAM block")? })
    }
}

/// Reads the page size of a block's memory, in bytes.
pub fn decode_block_page_size<I: Input>(input: &mut I) -> Result<u64, I::Error> {
    input.get_be64("the page size of a RAM block")
}

/// Reads the address of a block in the guest.
pub fn decode_block_address<I: Input>(input: &mut I) -> Result<u64, I::Error> {
    input.get_be64("the address of a RAM block")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 1..256)
    }

    proptest! {
        #[test]
        fn decoded_page_heads_equal_the_encoded(
            kind in proptest::sample::select(&[ZERO, PAGE, XBZRLE, COMPRESS_PAGE][..]),
            page in 0..1u64 << 40,
            bits in PAGE_BITS,
            block in proptest::option::of(names()),
        ) {
            let mut bytes = Vec::new();
            encode_page_head(&mut bytes, kind, page << bits, block.as_deref());
            let mut input = &bytes[..];
            let (offset, flags) = split(input.get_be64("a record").unwrap(), 1 << bits);
            prop_assert_eq!((offset, flags & !CONTINUE), (page << bits, kind));
            prop_assert_eq!(flags & CONTINUE != 0, block.is_none());
            if let Some(block) = block {
                prop_assert_eq!(input.get_name("the block"), Ok(&block[..]));
            }
            prop_assert!(input.is_empty());
        }

        #[test]
        fn decoded_payload_heads_equal_the_encoded(len: u16) {
            let mut bytes = Vec::new();
            XbzrleHead::encode(&mut bytes, len);
            prop_assert_eq!(XbzrleHead::decode(&mut &bytes[..]), Ok(XbzrleHead { encoding: ENCODING_XBZRLE, len }));
        }

        #[test]
        fn decoded_block_entries_equal_the_encoded(name in names(), length: u64, page_size: Option<u64>, address: Option<u64>) {
            let mut bytes = Vec::new();
            let entry = BlockEntry { name: &name[..], length };
            entry.encode(&mut bytes, page_size, address);
            let mut input = &bytes[..];
            prop_assert_eq!(BlockEntry::decode(&mut input), Ok(entry));
            if let Some(page_size) = page_size {
                prop_assert_eq!(decode_block_page_size(&mut input), Ok(page_size));
            }
            if let Some(address) = address {
                prop_assert_eq!(decode_block_address(&mut input), Ok(address));
            }
            prop_assert!(input.is_empty());
        }
    }

    #[test]
    fn encoding_matches_qemu() {
        let mut bytes = Vec::new();
        encode_block_list(&mut bytes, 0x8000);
        BlockEntry { name: b"pc", length: 0x8000 }.encode(&mut bytes, None, Some(7));
        encode_page_head(&mut bytes, ZERO, 0x1000, Some(b"pc"));
        encode_page_head(&mut bytes, XBZRLE, 0x2000, None);
        XbzrleHead::encode(&mut bytes, 9);
        encode_end(&mut bytes);
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = "0000000000008004 02 7063 0000000000008000 0000000000000007 0000000000001002 02 7063 \
                        0000000000002060 01 0009 0000000000000010";
        assert_eq!(text, expected.replace(' ', ""));
        assert_eq!(flags_text(ZERO | CONTINUE), "0x22 (ZERO|CONTINUE)");
    }
}
