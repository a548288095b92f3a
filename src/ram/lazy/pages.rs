// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reads single pages of a snapshot from its file: from fixed places, or from the places that an index of the stream has.
//!
//! The record of each page in a stream is read with the page and compared with the expected one. So a change of the file after
//! the check is detected, unless all records are still at the same offsets.

use super::chained::Chained;
use crate::channel::PositionedFile;
use crate::error::{Error, Result};
use crate::ram::Counters;
use crate::ram::block::Block;
use crate::ram::mapped::{MappedBlock, memory_of_run};
use crate::sys::Span;
use crate::wire::limits::NAME_MAX;
use crate::wire::page_index::{self, BlockPages};
use crate::wire::ram::{CONTINUE, PAGE};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Size of the header between consecutive pages of a stream, in bytes.
const HEADER: usize = page_index::HEADER as usize;
/// Most pages that one system call reads from a stream. Each needs two buffers.
const PAGES_MAX: usize = 256;
/// Size of the record before a page that names its block, in bytes.
const RECORD_MAX: usize = HEADER + 1 + NAME_MAX;

/// The pages of a block in a snapshot.
pub(super) enum Pages {
    /// All pages have fixed places in a file.
    Mapped(Mapped),
    /// An index has their places in a stream.
    Indexed(Indexed),
    /// The last copy of each page of a chain.
    Chained(Chained),
}

impl Pages {
    /// The block.
    pub fn block(&self) -> &Arc<Block> {
        match self {
            Self::Mapped(mapped) => &mapped.pages.block,
            Self::Indexed(indexed) => &indexed.block,
            Self::Chained(chained) => &chained.block,
        }
    }

    /// Calls `each` with the first page and the count of each run of pages that are zero, which is known without the file.
    pub fn each_zero_run(&self, each: impl FnMut(usize, usize)) {
        match self {
            Self::Mapped(mapped) => mapped.each_zero_run(each),
            Self::Indexed(indexed) => indexed.each_zero_run(each),
            Self::Chained(chained) => chained.each_zero_run(each),
        }
    }

    /// Reads consecutive pages, the first of which is `page`. `records` is a buffer for what is between them.
    pub fn read(&self, page: usize, into: &mut [u8], page_size: usize, records: &mut Records) -> Result<()> {
        match self {
            Self::Mapped(mapped) => mapped.read(page, into, page_size),
            Self::Indexed(indexed) => indexed.read(page, into, page_size, records),
            Self::Chained(chained) => chained.read(page, into, page_size, &mut records.chained),
        }
    }
}

/// Pages with fixed places.
pub(super) struct Mapped {
    pub file: Arc<PositionedFile>,
    pub pages: MappedBlock,
}

impl Mapped {
    fn each_zero_run(&self, mut each: impl FnMut(usize, usize)) {
        let (bitmap, mut from) = (&self.pages.bitmap, 0);
        while let Some((start, count)) = bitmap.clear_run(from, bitmap.len()) {
            each(start, count);
            from = start + count;
        }
    }

    fn read(&self, page: usize, into: &mut [u8], page_size: usize) -> Result<()> {
        let (bitmap, count) = (&self.pages.bitmap, into.len() / page_size);
        let mut done = 0;
        while done < count {
            let first = page + done;
            let pages = bitmap.alike(first, count - done);
            let part = &mut into[done * page_size..(done + pages) * page_size];
            match bitmap.get(first) {
                true => self.pages.read(&self.file, first * page_size, Span::from_slice(part))?,
                false => part.fill(0),
            }
            done += pages;
        }
        Ok(())
    }
}

/// Pages of a stream whose places are known.
pub(super) struct Indexed {
    pub file: Arc<PositionedFile>,
    pub block: Arc<Block>,
    /// Offset of the stream in the file.
    pub base: u64,
    /// The last copy of each page.
    pub pages: Arc<BlockPages>,
}

impl Indexed {
    fn each_zero_run(&self, mut each: impl FnMut(usize, usize)) {
        let mut page = 0;
        for run in &self.pages.runs {
            each(page, run.page as usize - page);
            page = run.end() as usize;
        }
        each(page, self.block.pages() - page);
    }

    /// Where a page is: its offset in the file, or the byte that fills it. Also returns the number of pages from it on that follow
    /// it there, or that have the same content; at most `most`.
    fn find(&self, page: usize, most: usize, page_size: usize) -> (std::result::Result<u64, u8>, usize) {
        let (runs, number) = (&self.pages.runs, page as u64);
        let limit = |count: u64| usize::try_from(count).unwrap_or(usize::MAX).min(most);
        match runs.get(runs.partition_point(|run| run.end() <= number)) {
            None => (Err(0), most),
            Some(run) if run.page > number => (Err(0), limit(run.page - number)),
            Some(run) => {
                let rest = run.from(number, page_size as u64);
                (rest.place.get().map(|offset| self.base + offset), limit(rest.count))
            }
        }
    }

    fn read(&self, page: usize, into: &mut [u8], page_size: usize, records: &mut Records) -> Result<()> {
        let count = into.len() / page_size;
        let mut done = 0;
        while done < count {
            let (first, part) = (page + done, &mut into[done * page_size..]);
            done += match self.find(first, count - done, page_size) {
                (Err(byte), pages) => {
                    part[..pages * page_size].fill(byte);
                    pages
                }
                (Ok(offset), pages) => {
                    let pages = pages.min(PAGES_MAX);
                    let into = Span::from_slice(&mut part[..pages * page_size]);
                    self.read_run(first, offset, into, page_size, records)?;
                    pages
                }
            };
        }
        Ok(())
    }

    /// Reads consecutive pages into the guest's memory. `clear` clears the memory of zero pages: offset and length.
    pub fn load(
        &self,
        (page, count): (usize, usize),
        page_size: usize,
        records: &mut Records,
        counters: &Counters,
        clear: impl Fn(usize, usize),
    ) -> Result<()> {
        let (mut at, end) = (page, page + count);
        while at < end {
            let (place, pages) = self.find(at, end - at, page_size);
            let (start, len) = (at * page_size, pages * page_size);
            match place {
                Err(0) => clear(start, len),
                Err(byte) => self.block.memory().fill(start, len, byte),
                Ok(offset) => {
                    let memory = memory_of_run(&self.block, start, len);
                    let mut done = 0;
                    while done < pages {
                        let part = PAGES_MAX.min(pages - done);
                        let into = memory.skip(done * page_size).first(part * page_size);
                        let offset = offset + (done * (page_size + HEADER)) as u64;
                        self.read_run(at + done, offset, into, page_size, records)?;
                        done += part;
                    }
                }
            }
            let counter = if place.is_ok() { &counters.normal } else { &counters.zero };
            counter.fetch_add(pages as u64, Relaxed);
            self.block.received.set(at, pages);
            at += pages;
        }
        Ok(())
    }

    /// Reads pages that follow each other in the file from an offset on.
    fn read_run(
        &self,
        page: usize,
        offset: u64,
        into: Span<'_>,
        page_size: usize,
        records: &mut Records,
    ) -> Result<()> {
        let Self { file, block, base, .. } = self;
        let before = (HEADER + 1 + block.info.name.len()).min((offset - base) as usize);
        let pages = into.len() / page_size;
        file.read_at(&records.spans(into, page_size, before), offset - before as u64)
            .map_err(|err| block.read_error(file, page * page_size, offset, &err))?;
        if records.are_of(&block.info.name, page, (pages, page_size), before) {
            return Ok(());
        }
        let text = format!(
            "the file was changed after it was checked: there are no records of the {pages} pages of block '{}' from \
             0x{:x} on, at offset 0x{offset:x} of {}",
            block.name(),
            page * page_size,
            file.name()
        );
        Err(Error::new(libc::ESTALE, text))
    }
}

/// A buffer for the records before some consecutive pages.
pub(super) struct Records {
    /// The end of the record before the first page.
    first: [u8; RECORD_MAX],
    /// The headers before the others.
    others: [u8; HEADER * PAGES_MAX],
    /// Pages of a chain with what is between them.
    chained: Vec<u8>,
}

impl Records {
    /// The buffers for pages with the headers between them, and for `before` bytes before the first.
    fn spans<'a>(&'a mut self, pages: Span<'a>, page_size: usize, before: usize) -> Vec<Span<'a>> {
        let mut spans = Vec::with_capacity(1 + 2 * pages.len() / page_size);
        spans.push(Span::from_slice(&mut self.first[..before]));
        for (at, header) in self.others.chunks_mut(HEADER).take(pages.len() / page_size).enumerate() {
            if at > 0 {
                spans.push(Span::from_slice(header));
            }
            spans.push(pages.skip(at * page_size).first(page_size));
        }
        spans
    }

    /// Whether they are the records of some consecutive pages of the block from `page` on.
    fn are_of(&self, name: &[u8], page: usize, (pages, page_size): (usize, usize), before: usize) -> bool {
        let header = |at: usize, flags: u64| (((page + at) * page_size) as u64 | flags).to_be_bytes();
        let first = &self.first[..before];
        let named = [&header(0, PAGE)[..], &[name.len() as u8], name].concat();
        (first.ends_with(&header(0, PAGE | CONTINUE)) || *first == named)
            && (1..pages).all(|at| self.others[at * HEADER..(at + 1) * HEADER] == header(at, PAGE | CONTINUE))
    }
}

/// Buffers of a thread that reads pages.
pub(super) struct Buffers {
    pub content: Vec<u8>,
    pub records: Box<Records>,
}

impl Default for Buffers {
    fn default() -> Self {
        let (first, others) = ([0; RECORD_MAX], [0; HEADER * PAGES_MAX]);
        Self { content: Vec::new(), records: Box::new(Records { first, others, chained: Vec::new() }) }
    }
}
