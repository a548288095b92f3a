// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reads single pages of a snapshot from its file: from fixed places, or from the places that an index of the stream has.
//!
//! The record of each page in a stream is read with the page and compared with the expected one. So a change of the file after
//! the check is detected, unless all records are still at the same offsets.

use super::chained::Chained;
use crate::channel::PositionedFile;
use crate::error::{Error, Result};
use crate::ram::block::Block;
use crate::ram::mapped::MappedBlock;
use crate::sys::Span;
use crate::wire::page_index::{self, BlockPages};
use crate::wire::ram::{CONTINUE, PAGE};
use std::sync::Arc;

/// Size of the header between consecutive pages of a stream, in bytes.
const HEADER: usize = page_index::HEADER as usize;
/// Most pages that one system call reads from a stream. Each needs two buffers.
const PAGES_MAX: usize = 256;
/// Size of the record before a page that names its block, in bytes.
const RECORD_MAX: usize = HEADER + 1 + 255;

/// The pages of a block in the file.
pub(super) enum Pages {
    /// All pages have fixed places.
    Mapped(MappedBlock),
    /// The last copy of each page, with offsets from `base` of the file on. Pages in no run are zero.
    Indexed { block: Arc<Block>, base: u64, pages: Arc<BlockPages> },
    /// The last copy of each page of a chain.
    Chained(Chained),
}

/// Where a page is: its offset in the file, or the byte that fills it.
type Found = std::result::Result<u64, u8>;

impl Pages {
    /// The block.
    pub fn block(&self) -> &Arc<Block> {
        match self {
            Self::Mapped(mapped) => &mapped.block,
            Self::Indexed { block, .. } => block,
            Self::Chained(chained) => &chained.block,
        }
    }

    /// Where a page is, and the number of pages from it on that follow it there, or that have the same content; at most `most`.
    fn find(&self, page: usize, most: usize, page_size: usize) -> (Found, usize) {
        match self {
            Self::Mapped(mapped) => {
                let found =
                    if mapped.bitmap.get(page) { Ok(mapped.pages_offset + (page * page_size) as u64) } else { Err(0) };
                (found, mapped.bitmap.alike(page, most))
            }
            Self::Indexed { base, pages, .. } => {
                let runs = &pages.runs;
                let number = page as u64;
                let limit = |count: u64| usize::try_from(count).unwrap_or(usize::MAX).min(most);
                let next = runs.get(runs.partition_point(|run| run.end() <= number));
                match next {
                    None => (Err(0), most),
                    Some(run) if run.page > number => (Err(0), limit(run.page - number)),
                    Some(run) => {
                        let rest = run.from(number, page_size as u64);
                        (rest.place.get().map(|offset| base + offset), limit(rest.count))
                    }
                }
            }
            // Their pages are in several files.
            Self::Chained(_) => (Err(0), most),
        }
    }

    /// Calls `each` with the first page and the count of each run of pages that are zero, which is known without the file.
    pub fn each_zero_run(&self, mut each: impl FnMut(usize, usize)) {
        match self {
            Self::Mapped(mapped) => {
                let (mut page, pages) = (0, mapped.block.pages());
                while page < pages {
                    let count = mapped.bitmap.alike(page, pages - page);
                    if !mapped.bitmap.get(page) {
                        each(page, count);
                    }
                    page += count;
                }
            }
            Self::Indexed { block, pages, .. } => {
                let mut page = 0;
                for run in &pages.runs {
                    each(page, run.page as usize - page);
                    page = run.end() as usize;
                }
                each(page, block.pages() - page);
            }
            Self::Chained(chained) => chained.each_zero_run(each),
        }
    }

    /// Reads consecutive pages, the first of which is `page`. `records` is a buffer for what is between them.
    pub fn read(
        &self,
        file: Option<&PositionedFile>,
        page: usize,
        into: &mut [u8],
        page_size: usize,
        records: &mut Records,
    ) -> Result<()> {
        if let Self::Chained(chained) = self {
            return chained.read(page, into, page_size, &mut records.chained);
        }
        let file = file.ok_or_else(|| Error::invalid("the snapshot has no file for its pages"))?;
        let count = into.len() / page_size;
        let mut done = 0;
        while done < count {
            let (found, mut pages) = self.find(page + done, count - done, page_size);
            if matches!(self, Self::Indexed { .. }) && found.is_ok() {
                pages = pages.min(PAGES_MAX);
            }
            let part = &mut into[done * page_size..(done + pages) * page_size];
            if let Some(offset) = found.map_or_else(|byte| (part.fill(byte), None).1, Some) {
                self.read_run(file, page + done, offset, part, page_size, records)?;
            }
            done += pages;
        }
        Ok(())
    }

    /// Reads pages that follow each other in the file from an offset on.
    fn read_run(
        &self,
        file: &PositionedFile,
        page: usize,
        offset: u64,
        into: &mut [u8],
        page_size: usize,
        records: &mut Records,
    ) -> Result<()> {
        let name = self.block().name();
        let failed = |err: std::io::Error| {
            let what =
                format_args!("reading block '{name}' from 0x{:x} on, at offset 0x{offset:x} of", page * page_size);
            file.error(what, &err)
        };
        let Self::Indexed { block, base, .. } = self else {
            return file.read_at(&[Span::from_slice(into)], offset).map_err(failed);
        };
        let before = (HEADER + 1 + block.info.name.len()).min((offset - base) as usize);
        let pages = into.len() / page_size;
        file.read_at(&records.spans(into, page_size, before), offset - before as u64).map_err(failed)?;
        if records.are_of(&block.info.name, page, (pages, page_size), before) {
            return Ok(());
        }
        let text = format!(
            "the file was changed after it was checked: there are no records of the {pages} pages of block '{name}' from \
             0x{:x} on, at offset 0x{offset:x} of {}",
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
    fn spans<'a>(&'a mut self, pages: &'a mut [u8], page_size: usize, before: usize) -> Vec<Span<'a>> {
        let mut spans = Vec::with_capacity(1 + 2 * pages.len() / page_size);
        spans.push(Span::from_slice(&mut self.first[..before]));
        for (at, (page, header)) in pages.chunks_mut(page_size).zip(self.others.chunks_mut(HEADER)).enumerate() {
            if at > 0 {
                spans.push(Span::from_slice(header));
            }
            spans.push(Span::from_slice(page));
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
