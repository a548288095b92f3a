// SPDX-License-Identifier: LGPL-2.1-or-later
//! Loads RAM from fixed places of a file (QEMU 10.0, `parse_ramblock_mapped_ram` in `migration/ram.c`). All headers and
//! bitmaps are checked before the first page is read.

use super::{PIECE, Pieces};
use crate::channel::PositionedFile;
use crate::error::{Error, Result, exact_size};
use crate::file::MigFile;
use crate::ram::Ram;
use crate::ram::bitmap::Bitmap;
use crate::ram::block::Block;
use crate::savevm::memory_plan::MemoryPlan;
use crate::savevm::workers;
use crate::sys::{Residency, Span, is_anonymous};
use crate::wire::mapped::{Header, bitmap_size};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Least length of a run whose memory is made present with one call before it is read, in bytes.
const PREFAULT_MIN: usize = 64 << 10;

/// A block with its place in the file.
pub(in crate::ram) struct MappedBlock {
    /// The block.
    pub block: Arc<Block>,
    /// Offset of the first page in the file.
    pub pages_offset: u64,
    /// One bit per page that is in the file. All other pages are zero.
    pub bitmap: Bitmap,
}

impl MappedBlock {
    /// Reads pages that are in the file, from the address `start` of the block on.
    pub fn read(&self, from: &PositionedFile, start: usize, into: Span<'_>) -> Result<()> {
        let place = self.pages_offset + start as u64;
        from.read_at(&[into], place).map_err(|err| self.block.read_error(from, start, place, &err))
    }
}

/// The file of a load, and the blocks whose headers were read.
pub(in crate::ram) struct MappedLoad {
    file: PositionedFile,
    blocks: Vec<MappedBlock>,
}

impl MappedLoad {
    /// Prepares a load from the file of a stream.
    pub fn new(file: &MigFile) -> Result<Self> {
        let file = file.positioned().map_err(|error| {
            let text = format!("the stream has fixed places of pages (mapped-ram): {}", error.message());
            error.with_message(text)
        })?;
        Ok(Self { file, blocks: Vec::new() })
    }

    /// Reads the header and the bitmap of a block, and moves the stream behind the block's pages.
    pub fn get_header(&mut self, ram: &Ram, mut file: &MigFile, block: &Arc<Block>) -> Result<()> {
        let header = Header::decode(&mut file)?;
        file.check()?;
        header.check(file.file_offset(&self.file)?, block.len()).map_err(Error::invalid)?;
        if header.page_size != ram.page_size() as u64 {
            let text = format!("pages of {} bytes in the file, {} here", header.page_size, ram.page_size());
            return Err(Error::invalid(text));
        }
        if header.is_empty() {
            return match ram.is_ignored(block) {
                true => Ok(()),
                false => Err(Error::invalid("the file has no pages of it")),
            };
        }
        let end = header.pages_offset + block.len();
        let have = self.file.size()?;
        if end > have {
            let text = format!(
                "its pages end at 0x{end:x} and the file {} has {}: it is truncated",
                self.file.name(),
                exact_size(have)
            );
            return Err(Error::invalid(text));
        }
        let bitmap = self.bitmap(&header, block)?;
        if !ram.is_ignored(block) {
            let pages_offset = header.pages_offset;
            self.blocks.push(MappedBlock { block: Arc::clone(block), pages_offset, bitmap });
        }
        file.continue_at(&self.file, end)
    }

    fn bitmap(&self, header: &Header, block: &Block) -> Result<Bitmap> {
        let mut bytes = vec![0; bitmap_size(block.len(), header.page_size) as usize];
        let read = self.file.read_some(&mut bytes, header.bitmap_offset);
        let read = read.map_err(|err| self.file.error("reading a bitmap from", &err))?;
        if read < bytes.len() {
            return Err(Error::invalid(format!("its bitmap at 0x{:x} is cut", header.bitmap_offset)));
        }
        let words = bytes.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_ne_bytes));
        let words: Vec<u64> = words.collect();
        let surplus = block.pages() % 64;
        if surplus > 0 && words.last().is_some_and(|last| last >> surplus != 0) {
            return Err(Error::invalid(format!(
                "its bitmap at 0x{:x} has bits behind its last page",
                header.bitmap_offset
            )));
        }
        let bitmap = Bitmap::new(block.pages());
        bitmap.merge(&words);
        Ok(bitmap)
    }

    /// Reads all pages, and clears the pages that are not in the file.
    pub fn get_pages(&self, ram: &Ram, plan: &MemoryPlan) -> Result<()> {
        let direct = plan.direct.then(|| self.file.direct(false, ram.page_size() as u64)).transpose()?;
        let from = direct.as_ref().unwrap_or(&self.file);
        let blocks = self.blocks.iter().map(|mapped| &mapped.block);
        load_pieces(ram, blocks, plan.threads(), |at, piece, residency| {
            get_piece(ram, from, &self.blocks[at], residency, piece)
        })
    }

    /// Returns the file and the blocks, to read pages later.
    pub fn into_parts(self) -> (PositionedFile, Vec<MappedBlock>) {
        (self.file, self.blocks)
    }
}

/// Loads all pieces of blocks with several threads. `load` gets the index of the block, offset and length of the piece, and, if
/// that can be known, which of its pages have no content.
pub(in crate::ram) fn load_pieces<'a>(
    ram: &Ram,
    blocks: impl Iterator<Item = &'a Arc<Block>> + Clone,
    threads: usize,
    load: impl Fn(usize, (usize, usize), Option<&Residency>) -> Result<()> + Sync,
) -> Result<()> {
    let vm = ram.context()?;
    let residency = Residency::open().ok();
    let anonymous: Vec<_> = blocks.clone().map(|block| is_anonymous(block.memory())).collect();
    let pieces = Pieces::new(blocks.enumerate(), PIECE);
    workers::run(&vm, "savevm-pages", threads, || {
        let Some((at, offset, len)) = pieces.next() else { return Ok(false) };
        load(at, (offset, len), residency.as_ref().filter(|_| anonymous[at]))?;
        Ok(true)
    })
}

fn get_piece(
    ram: &Ram,
    from: &PositionedFile,
    mapped: &MappedBlock,
    residency: Option<&Residency>,
    (offset, len): (usize, usize),
) -> Result<()> {
    let (block, size) = (&mapped.block, ram.page_size());
    let (mut page, end) = (offset / size, (offset + len) / size);
    while page < end {
        let count = mapped.bitmap.alike(page, end - page);
        let (start, len) = (page * size, count * size);
        if mapped.bitmap.get(page) {
            mapped.read(from, start, memory_of_run(block, start, len))?;
            ram.counters.normal.fetch_add(count as u64, Relaxed);
        } else {
            clear_run(block, residency, (start, len), size);
            ram.counters.zero.fetch_add(count as u64, Relaxed);
        }
        block.received.set(page, count);
        page += count;
    }
    Ok(())
}

/// Returns the memory of a run of pages that will be read.
pub(in crate::ram) fn memory_of_run(block: &Block, start: usize, len: usize) -> Span<'_> {
    if len >= PREFAULT_MIN {
        block.memory().prefault(start, len);
    }
    block.memory().span(start, len)
}

/// Clears a run of pages. Pages without content are not touched.
pub(in crate::ram) fn clear_run(
    block: &Block,
    residency: Option<&Residency>,
    (start, len): (usize, usize),
    size: usize,
) {
    let memory = block.memory();
    let mut at = start;
    let mut clear = |absent: bool| {
        if !absent {
            memory.fill(at, size, 0);
        }
        at += size;
    };
    match residency {
        Some(residency) => residency.absent(memory, start, len, size, clear),
        None => (0..len / size).for_each(|_| clear(false)),
    }
}
