// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reads single pages of a snapshot from its file: from fixed places, or from the places that an index of the stream has.

use crate::channel::PositionedFile;
use crate::error::Result;
use crate::ram::block::Block;
use crate::ram::mapped::MappedBlock;
use crate::savevm::restore::Place;
use crate::sys::Span;
use std::sync::Arc;

/// Size of the header between consecutive pages of a stream, in bytes.
const HEADER: usize = 8;
/// Most pages that one system call reads from a stream. Each needs two buffers.
const PAGES_MAX: usize = 256;

/// The pages of a block in the file.
pub(super) enum Pages {
    /// All pages have fixed places.
    Mapped(MappedBlock),
    /// The last copy of each page, with offsets from `base` of the file on. Pages behind the end are zero.
    Indexed { block: Arc<Block>, base: u64, places: Arc<Vec<Place>> },
}

/// Where a page is: its offset in the file, or the byte that fills it.
type Found = std::result::Result<u64, u8>;

impl Pages {
    /// The block.
    pub fn block(&self) -> &Arc<Block> {
        match self {
            Self::Mapped(mapped) => &mapped.block,
            Self::Indexed { block, .. } => block,
        }
    }

    fn find(&self, page: usize, page_size: usize) -> Found {
        match self {
            Self::Mapped(mapped) if mapped.bitmap.get(page) => Ok(mapped.pages_offset + (page * page_size) as u64),
            Self::Mapped(_) => Err(0),
            Self::Indexed { base, places, .. } => {
                places.get(page).copied().unwrap_or(Place::ZERO).get().map(|offset| base + offset)
            }
        }
    }

    /// Whether a page is zero, which is known without the file.
    pub fn is_zero(&self, page: usize) -> bool {
        match self {
            Self::Mapped(mapped) => !mapped.bitmap.get(page),
            Self::Indexed { places, .. } => places.get(page).is_none_or(|place| *place == Place::ZERO),
        }
    }

    /// One bit per page that is known to be zero, in 64-bit words.
    pub fn zero_words(&self) -> Vec<u64> {
        match self {
            Self::Mapped(mapped) => mapped.bitmap.inverted(),
            Self::Indexed { block, .. } => (0..block.pages().div_ceil(64))
                .map(|word| (0..64).fold(0, |bits, bit| bits | u64::from(self.is_zero(word * 64 + bit)) << bit))
                .collect(),
        }
    }

    /// Reads consecutive pages, the first of which is `page`. `scratch` is a buffer for what is between them.
    pub fn read(
        &self,
        file: &PositionedFile,
        page: usize,
        into: &mut [u8],
        page_size: usize,
        scratch: &mut [u8; HEADER * PAGES_MAX],
    ) -> Result<()> {
        let count = into.len() / page_size;
        let mut done = 0;
        while done < count {
            let (pages, gap) = self.run(page + done, count - done, page_size);
            let part = &mut into[done * page_size..(done + pages) * page_size];
            match self.find(page + done, page_size) {
                Err(byte) => part.fill(byte),
                Ok(offset) => file.read_at(&spans(part, page_size, gap, scratch), offset).map_err(|err| {
                    let (block, at) = (self.block().name(), (page + done) * page_size);
                    let what = format_args!("reading block '{block}' from 0x{at:x} on, at offset 0x{offset:x} of");
                    file.error(what, &err)
                })?,
            }
            done += pages;
        }
        Ok(())
    }

    /// The number of pages from `page` on that are one behind the other in the file, or that are all zero; at most `most`. Also
    /// returns the number of bytes between two of them.
    fn run(&self, page: usize, most: usize, page_size: usize) -> (usize, usize) {
        if let Self::Mapped(mapped) = self {
            return (mapped.bitmap.alike(page, most), 0);
        }
        let Ok(offset) = self.find(page, page_size) else { return (1, 0) };
        let follows = |at: &usize| self.find(page + at, page_size) == Ok(offset + (at * (page_size + HEADER)) as u64);
        (1 + (1..most.min(PAGES_MAX)).take_while(follows).count(), HEADER)
    }
}

/// The spans of pages with gaps between them, which are read into `scratch`.
fn spans<'a>(pages: &'a mut [u8], page_size: usize, gap: usize, scratch: &'a mut [u8]) -> Vec<Span<'a>> {
    if gap == 0 {
        return vec![Span::from_slice(pages)];
    }
    let mut spans = Vec::with_capacity(2 * pages.len() / page_size);
    for (page, gap) in pages.chunks_mut(page_size).zip(scratch.chunks_mut(gap)) {
        if !spans.is_empty() {
            spans.push(Span::from_slice(gap));
        }
        spans.push(Span::from_slice(page));
    }
    spans
}

/// Buffers of a thread that reads pages.
pub(super) struct Buffers {
    pub content: Vec<u8>,
    pub scratch: Box<[u8; HEADER * PAGES_MAX]>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self { content: Vec::new(), scratch: Box::new([0; HEADER * PAGES_MAX]) }
    }
}
