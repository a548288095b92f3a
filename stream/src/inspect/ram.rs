// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reads the "ram" sections, record by record (QEMU, `migration/ram.c`).
//!
//! A record begins with a be64. Its bits below the page size are flags; the bits above are an address:
//!
//! ```text
//! MEM_SIZE          the list of blocks: { name, be64 length, [be64 page size], [be64 address], [mapped-ram header] }
//! ZERO | PAGE | ... [name, unless CONTINUE] and the page: one byte, the page, or its compressed form
//! EOS               the end of the section
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use super::cursor::{Cursor, Result};
use super::source::Source;
use super::stream::{Block, Configuration, Count, Mapped, PageSizeFrom, Ram};
use super::visit::{Form, Page, Visitor};
use crate::wire::io::Input;
use crate::wire::mapped::{self, Header};
use crate::wire::ram::{self as flag, BlockEntry, XbzrleHead};

/// Records that carry a page.
const ANY_PAGE: u64 = flag::ZERO | flag::PAGE | flag::XBZRLE | flag::COMPRESS_PAGE;

/// Page sizes of all targets, the largest first. With too large a size the second page is already misplaced.
const PAGE_SIZES: [u64; 9] = [65536, 32768, 16384, 8192, 4096, 2048, 1024, 512, 256];

const SMALLEST_PAGE: u64 = PAGE_SIZES[PAGE_SIZES.len() - 1];

/// Records between two reports of progress.
const PROGRESS_EVERY: u64 = 1 << 9;

/// Attempts to infer the page size before the usual size is used.
const MAX_INFERENCES: u32 = 16;

/// Reads "ram" sections, one after the other.
#[derive(Default)]
pub(super) struct RamReader {
    pub ram: Ram,
    by_name: HashMap<Arc<str>, usize>,
    /// The block of a record with CONTINUE.
    current: Option<usize>,
    records: u64,
    /// Offset of the record of the last plain page.
    last_plain: u64,
    inferences: u32,
    /// Offset of the stream in its file.
    base: u64,
    /// Whether the stream has listed its blocks.
    listed: bool,
}

/// The place of a page: its block, its address in the block, and the offset of its record.
struct At {
    block: usize,
    address: u64,
    start: u64,
}

impl RamReader {
    /// Returns a reader of a stream that starts at this offset of its file.
    pub fn with_base(base: u64) -> Self {
        Self { base, ..Self::default() }
    }

    /// Stores a page size that the stream names. The first valid size is kept; invalid sizes are ignored.
    pub fn set_page_size(&mut self, size: u64, from: PageSizeFrom) {
        if self.ram.page_size.is_none() && PAGE_SIZES.contains(&size) {
            self.ram.page_size = Some((size, from));
        }
    }

    fn page_size(&self) -> u64 {
        self.ram.page_size_or_usual()
    }

    /// Reads one section, from the end of its header to the end of its EOS.
    pub fn section<S: Source, V: Visitor>(
        &mut self,
        cursor: &mut Cursor<S>,
        configuration: Option<&Configuration>,
        visitor: &mut V,
    ) -> Result<()> {
        // Offset of the first of the page records that were not reported yet.
        let mut records = None;
        loop {
            if self.ram.page_size.is_none() && self.inferences < MAX_INFERENCES {
                self.infer_page_size(cursor)?;
            }
            let start = cursor.offset();
            let record = cursor.get_be64("a RAM record")?;
            let (address, flags) = flag::split(record, self.page_size());
            self.records += 1;
            if self.records.is_multiple_of(PROGRESS_EVERY) {
                visitor.progress(start);
            }
            if flags & ANY_PAGE != 0 {
                records.get_or_insert(start);
                let block = self.block_of(cursor, flags, start)?;
                self.page(cursor, visitor, flags & !flag::CONTINUE, &At { block, address, start })?;
                if flags & flag::ZERO != 0 && self.ram.page_size.is_some() {
                    self.run_of_zeroes(cursor, visitor, block)?;
                }
                continue;
            }
            if let Some(first) = records.take() {
                visitor.memory_records(first..start)?;
            }
            self.ram.framing += 8;
            // The total may precede the page size. It is a multiple of the smallest page size.
            if record % SMALLEST_PAGE == flag::MEM_SIZE {
                let mapped = self.blocks(cursor, record - flag::MEM_SIZE, configuration, visitor)?;
                self.ram.framing += cursor.offset() - start - 8 - mapped;
                continue;
            }
            match flags {
                flag::EOS => {
                    visitor.memory_section(cursor.offset());
                    return Ok(());
                }
                flag::HOOK => self.ram.hooks += 1,
                flag::MULTIFD_FLUSH => self.ram.multifd = true,
                _ => return unknown_flags(cursor, start, flags),
            }
        }
    }

    /// Returns the block of a page: the one that the record names, or that of the record before.
    #[inline]
    fn block_of<S: Source>(&mut self, cursor: &mut Cursor<S>, flags: u64, start: u64) -> Result<usize> {
        if flags & flag::CONTINUE != 0 {
            return match self.current {
                Some(block) => Ok(block),
                None => cursor.fault(start, "a page that names its block", "one that goes on with the block before"),
            };
        }
        let name = cursor.get_name("the name of a RAM block")?;
        let block = match self.by_name.get(&*name) {
            Some(&block) => block,
            // A stream may be recorded from after its list of blocks.
            None if !self.listed => self.add_block(cursor, Block { name: name.into(), ..Block::default() })?,
            None => return cursor.fault(start + 8, "a page of a known RAM block", format!("one of '{name}'")),
        };
        self.current = Some(block);
        Ok(block)
    }

    fn add_block<S: Source>(&mut self, cursor: &mut Cursor<S>, block: Block) -> Result<usize> {
        cursor.pay(2 * (size_of::<Block>() + size_of::<(Arc<str>, usize)>()) + block.name.len())?;
        let at = self.ram.blocks.len();
        self.by_name.insert(block.name.clone(), at);
        self.ram.blocks.push(block);
        Ok(at)
    }

    /// Reads the page after a record's header.
    #[inline]
    fn page<S: Source, V: Visitor>(
        &mut self,
        cursor: &mut Cursor<S>,
        visitor: &mut V,
        kind: u64,
        at: &At,
    ) -> Result<()> {
        let page_size = self.page_size();
        let block = &mut self.ram.blocks[at.block];
        if !holds(block, at.address, page_size) {
            let expected = format!("a page within the {:#x} bytes of '{}'", block.length, block.name);
            return cursor.fault(at.start, expected, format!("one at {:#x}", at.address));
        }
        let count = match kind {
            flag::ZERO => {
                let fill = flag::decode_fill(cursor)?;
                visitor.page(block, at.address, Page::Fill(fill, page_size), at.start)?;
                &mut block.zero
            }
            flag::PAGE => {
                let stride = at.start - std::mem::replace(&mut self.last_plain, at.start);
                expect_records(cursor, stride, page_size);
                placed(cursor, visitor, block, at, Form::Plain)?;
                deliver(cursor, visitor, page_size, "a page", |visitor, bytes, offset| {
                    visitor.page(block, at.address, Page::Plain(bytes), offset)
                })?;
                &mut block.plain
            }
            flag::XBZRLE => {
                let XbzrleHead { encoding, len } = XbzrleHead::decode(cursor)?;
                let len = len.into();
                if encoding != flag::ENCODING_XBZRLE || len > page_size {
                    let found = format!("encoding {encoding}, {len} bytes");
                    return cursor.fault(at.start, format!("XBZRLE (1), at most {page_size} bytes"), found);
                }
                placed(cursor, visitor, block, at, Form::Xbzrle)?;
                deliver(cursor, visitor, len, "an XBZRLE page", |visitor, bytes, offset| {
                    visitor.page(block, at.address, Page::Xbzrle(bytes, page_size), offset)
                })?;
                &mut block.xbzrle
            }
            flag::COMPRESS_PAGE => {
                let len = flag::decode_compressed_len(cursor)?.into();
                // zlib's bound on the length of a compressed page.
                let most = page_size + (page_size >> 12) + (page_size >> 14) + (page_size >> 25) + 13;
                if len > most {
                    return cursor.fault(at.start, format!("at most {most} compressed bytes"), format!("{len}"));
                }
                placed(cursor, visitor, block, at, Form::Compressed)?;
                deliver(cursor, visitor, len, "a compressed page", |visitor, bytes, offset| {
                    visitor.page(block, at.address, Page::Compressed(bytes, page_size), offset)
                })?;
                &mut block.compressed
            }
            _ => return unknown_flags(cursor, at.start, kind),
        };
        count.pages += 1;
        count.bytes += cursor.offset() - at.start;
        Ok(())
    }

    /// Skips further zero pages of the same block, which are most of an idle guest's memory. Stops at the first record that
    /// is not the next zero page; the caller reads that record as usual.
    fn run_of_zeroes<S: Source, V: Visitor>(
        &mut self,
        cursor: &mut Cursor<S>,
        visitor: &mut V,
        block: usize,
    ) -> Result<()> {
        const RECORD: usize = 8 + 1;
        let page_size = self.page_size();
        let block = &mut self.ram.blocks[block];
        let start = cursor.offset();
        let mut offset = start;
        for record in cursor.peek(RECORD)?.chunks_exact(RECORD).take(PROGRESS_EVERY as usize) {
            let Some((record, &[fill])) = record.split_first_chunk() else { break };
            let record = u64::from_be_bytes(*record);
            let address = record & !(page_size - 1);
            if record - address != flag::ZERO | flag::CONTINUE || !holds(block, address, page_size) {
                break;
            }
            visitor.page(block, address, Page::Fill(fill, page_size), offset)?;
            offset += RECORD as u64;
        }
        let bytes = offset - start;
        if bytes == 0 {
            return Ok(());
        }
        block.zero.pages += bytes / RECORD as u64;
        block.zero.bytes += bytes;
        visitor.progress(offset);
        cursor.skip(bytes, "pages of zeroes")
    }

    /// Reads the list of blocks, which ends when their lengths add up to `total`. Returns how many bytes of it are
    /// pages.
    fn blocks<S: Source, V: Visitor>(
        &mut self,
        cursor: &mut Cursor<S>,
        total: u64,
        configuration: Option<&Configuration>,
        visitor: &mut V,
    ) -> Result<u64> {
        let has = |capability| configuration.is_some_and(|configuration| configuration.has(capability));
        let mut left = total;
        let mut mapped = 0;
        self.listed |= total > 0;
        while left > 0 {
            let start = cursor.offset();
            let BlockEntry { name, length } = BlockEntry::decode(cursor)?;
            let name: Arc<str> = name.into();
            if name.is_empty() || length > left || self.by_name.contains_key(&name) {
                let expected = format!("a new RAM block of at most {left:#x} bytes");
                return cursor.fault(start, expected, format!("'{name}' of {length:#x} bytes"));
            }
            left -= length;
            let mut block = Block { name, length, ..Block::default() };
            // Postcopy sends page sizes. Postcopy and mapped RAM exclude each other.
            if !has(mapped::CAPABILITY) {
                block.page_size = block_page_size(cursor, has("x-ignore-shared"))?;
            }
            if has("x-ignore-shared") {
                block.address = Some(flag::decode_block_address(cursor)?);
            }
            visitor.block(&block)?;
            if has(mapped::CAPABILITY) {
                self.mapped_block(cursor, &mut block, visitor)?;
                mapped += block.bytes();
            }
            self.add_block(cursor, block)?;
        }
        Ok(mapped)
    }

    /// Reads the header, the bitmap and the pages of a block at a fixed place in the file.
    fn mapped_block<S: Source, V: Visitor>(
        &mut self,
        cursor: &mut Cursor<S>,
        block: &mut Block,
        visitor: &mut V,
    ) -> Result<()> {
        let start = cursor.offset();
        let header = Header::decode(cursor)?;
        let Header { page_size, bitmap_offset, pages_offset, .. } = header;
        if !PAGE_SIZES.contains(&page_size) {
            return cursor.fault(start, "the page size of a target", format!("{page_size}"));
        }
        if let Err(found) = header.check(self.base.saturating_add(cursor.offset()), block.length) {
            return cursor.fault(start, "a mapped-ram header with a bitmap and then pages behind it", found);
        }
        self.set_page_size(page_size, PageSizeFrom::MappedRam);
        if header.is_empty() {
            // Shared memory is not sent.
            return Ok(());
        }
        block.mapped = Some(Mapped { bitmap_offset, pages_offset });
        let (bitmap_at, pages_at) = (bitmap_offset - self.base, pages_offset - self.base);
        let bitmap_size = mapped::bitmap_size(block.length, page_size);
        cursor.skip(bitmap_at - cursor.offset(), "the bitmap of a mapped block")?;
        let bitmap = cursor.copy(bitmap_size, "the bitmap of a mapped block")?;
        cursor.skip(pages_at - cursor.offset(), "the pages of a mapped block")?;
        let result = mapped_pages(cursor, block, &bitmap, page_size, visitor);
        cursor.budget.give_back(bitmap.capacity());
        result
    }

    /// Finds the page size at which the records ahead follow each other, if they show one.
    fn infer_page_size<S: Source>(&mut self, cursor: &mut Cursor<S>) -> Result<()> {
        const WINDOW: usize = 8 * 65536;
        self.inferences += 1;
        if let Some(record) = cursor.peek(8)?.first_chunk::<8>() {
            if u64::from_be_bytes(*record) & 0x1ff & ANY_PAGE == 0 {
                self.inferences -= 1;
                return Ok(());
            }
        }
        let largest = self.ram.blocks.iter().map(|block| block.length).max().unwrap_or(0);
        let window = cursor.peek(WINDOW)?;
        if let Some(size) = PAGE_SIZES.into_iter().find(|&size| pages_follow(window, size, largest)) {
            self.ram.page_size = Some((size, PageSizeFrom::Pages));
        }
        Ok(())
    }
}

/// Returns whether a block has a page at that address, if its length is known.
#[inline]
fn holds(block: &Block, address: u64, page_size: u64) -> bool {
    address.checked_add(page_size).is_some_and(|end| block.length == 0 || end <= block.length)
}

#[cold]
fn unknown_flags<S: Source, T>(cursor: &Cursor<S>, start: u64, flags: u64) -> Result<T> {
    cursor.fault(start, "a RAM record with known flags", format!("flags {flags:#x}"))
}

/// Prefetches later records if plain pages follow each other at this distance. Each record is on a memory page and a
/// cache line of its own. Waiting for them one by one is most of the cost of reading memory.
#[inline]
fn expect_records<S: Source>(cursor: &mut Cursor<S>, stride: u64, page_size: u64) {
    /// Distance of the prefetch, in pages: the latency of the memory.
    const AHEAD: u64 = 24;
    /// A record of a zero page often precedes that of a plain page.
    const BOTH: u64 = 8 + 9;
    if stride < 2 * page_size {
        cursor.expect(stride * AHEAD - 1);
        cursor.expect(stride * AHEAD - BOTH);
    }
}

/// Passes the place of a page to the visitor if it wants places.
#[inline]
fn placed<S: Source, V: Visitor>(
    cursor: &Cursor<S>,
    visitor: &mut V,
    block: &Block,
    at: &At,
    form: Form,
) -> Result<()> {
    if V::WANTS_PLACES {
        visitor.place(block, at.address, form, cursor.offset())?;
    }
    Ok(())
}

/// Passes the next `len` bytes to the visitor if it wants pages, or skips them.
#[inline]
fn deliver<S: Source, V: Visitor>(
    cursor: &mut Cursor<S>,
    visitor: &mut V,
    len: u64,
    what: &str,
    hand: impl FnOnce(&mut V, &[u8], u64) -> std::io::Result<()>,
) -> Result<()> {
    if V::WANTS_PAGES {
        let offset = cursor.offset();
        if let Some(bytes) = cursor.peek(len as usize)?.get(..len as usize) {
            hand(visitor, bytes, offset)?;
        }
    }
    cursor.skip(len, what)
}

/// Reads the pages of a mapped block. The bitmap says which of them are present; the others are zero.
fn mapped_pages<S: Source, V: Visitor>(
    cursor: &mut Cursor<S>,
    block: &mut Block,
    bitmap: &[u8],
    page_size: u64,
    visitor: &mut V,
) -> Result<()> {
    let pages = block.length.div_ceil(page_size);
    let present = bitmap.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>().min(pages);
    block.plain = Count { pages: present, bytes: present * page_size };
    block.zero = Count { pages: pages - present, bytes: 0 };
    if !V::WANTS_PAGES {
        return cursor.skip(block.length, "the pages of a mapped block");
    }
    let is_present = |page: u64| bitmap[(page / 8) as usize] >> (page % 8) & 1 == 1;
    let mut absent = 0;
    for page in 0..pages {
        let address = page * page_size;
        let len = page_size.min(block.length - address);
        if !V::WANTS_HOLES && !is_present(page) {
            absent += len;
            continue;
        }
        cursor.skip_unused(std::mem::take(&mut absent), "the pages of a mapped block")?;
        if is_present(page) {
            deliver(cursor, visitor, len, "a page of a mapped block", |visitor, bytes, offset| {
                visitor.page(block, address, Page::Plain(bytes), offset)
            })?;
        } else {
            visitor.page(block, address, Page::Fill(0, len), cursor.offset())?;
            cursor.skip(len, "a page of a mapped block")?;
        }
        if page.is_multiple_of(PROGRESS_EVERY) {
            visitor.progress(cursor.offset());
        }
    }
    cursor.skip_unused(absent, "the pages of a mapped block")
}

/// Reads the page size of a block's memory. The source sends it if it differs from the host's usual size and postcopy
/// may follow.
///
/// The stream does not announce this value. Other values at this place are not powers of two: a block name has its
/// length in the highest byte, and a record has flags in the low bits. An address may be a power of two. If addresses
/// are sent, another one must follow.
fn block_page_size<S: Source>(cursor: &mut Cursor<S>, address_follows: bool) -> Result<Option<u64>> {
    let ahead = cursor.peek(16)?;
    let word =
        |at: usize| ahead.get(at..).and_then(|ahead| ahead.first_chunk::<8>()).map(|word| u64::from_be_bytes(*word));
    let is_page_size = word(0).is_some_and(|word| word.is_power_of_two() && (1 << 12..1 << 40).contains(&word));
    let is_address = word(8).is_some_and(|word| word & 0xff == 0 && word < 1 << 56);
    if is_page_size && (is_address || !address_follows) {
        return flag::decode_block_page_size(cursor).map(Some);
    }
    Ok(None)
}

/// Returns whether the records in `window` follow each other at this page size and are enough to show it.
fn pages_follow(window: &[u8], page_size: u64, largest_block: u64) -> bool {
    let mut at = 0;
    let mut pages_crossed = 0;
    let mut addresses = [None; 2];
    while let Some(record) = window.get(at..).and_then(|ahead| ahead.first_chunk::<8>()) {
        let record = u64::from_be_bytes(*record);
        let (address, flags) = flag::split(record, page_size);
        if largest_block > 0 && flags & ANY_PAGE != 0 && address.saturating_add(page_size) > largest_block {
            return false;
        }
        let Some(size) = record_size(&window[at..], flags, page_size) else { return false };
        if flags & ANY_PAGE != 0 && !addresses.contains(&Some(address)) {
            addresses = [addresses[1], Some(address)];
        }
        at += size;
        if flags == flag::EOS {
            break;
        }
        pages_crossed += u32::from(flags & flag::PAGE != 0 && at < window.len());
    }
    pages_crossed > 0 || !addresses.contains(&None)
}

/// Returns the length of the record at the start of `ahead`, or `None` if the record is invalid.
fn record_size(ahead: &[u8], flags: u64, page_size: u64) -> Option<usize> {
    let mut at = 8;
    if flags & ANY_PAGE != 0 && flags & flag::CONTINUE == 0 {
        let len = usize::from(*ahead.get(at).unwrap_or(&1));
        let name = ahead.get(at + 1..).unwrap_or_default();
        if len == 0 || !name.iter().take(len).all(|byte| (b' '..=b'~').contains(byte)) {
            return None;
        }
        at += 1 + len;
    }
    Some(match flags & !flag::CONTINUE {
        flag::ZERO => at + 1,
        flag::PAGE => at + page_size as usize,
        flag::XBZRLE => {
            let unseen = XbzrleHead { encoding: flag::ENCODING_XBZRLE, len: 0 };
            let XbzrleHead { encoding, len } =
                ahead.get(at..).map_or(unseen, |mut payload| XbzrleHead::decode(&mut payload).unwrap_or(unseen));
            if encoding != flag::ENCODING_XBZRLE || u64::from(len) > page_size {
                return None;
            }
            at + 3 + usize::from(len)
        }
        flag::COMPRESS_PAGE => {
            let len = flag::decode_compressed_len(&mut ahead.get(at..).unwrap_or_default()).unwrap_or(0);
            if u64::from(len) > 2 * page_size {
                return None;
            }
            at + 4 + len as usize
        }
        flag::EOS | flag::HOOK | flag::MULTIFD_FLUSH if flags & flag::CONTINUE == 0 => at,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn highest_address_is_outside_every_block() {
        let window = (!0xfff | flag::ZERO | flag::CONTINUE).to_be_bytes();
        assert!(!pages_follow(&window, 4096, 1 << 20));
    }
}
