// SPDX-License-Identifier: LGPL-2.1-or-later
//! Runs of the pages of a chain of snapshots: where the pages of a block are, without an entry for each page.

use super::chain::Content;
use std::sync::Arc;

/// Bytes of the hash of a page.
pub(crate) const HASH_LEN: usize = size_of::<u64>();

/// The bytes of hashes of pages, big-endian. Runs have the numbers of their hashes.
pub(crate) type Hashes = Arc<Vec<u8>>;

/// A run of pages at consecutive addresses. One byte fills them all, or they have the same distance from each other in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Address of the first page within the block.
    pub address: u64,
    /// Offset of the first page in the file.
    pub offset: u64,
    /// Number of the hash of the first page. The others follow.
    pub(crate) hash: u32,
    /// Number of pages; at least 1.
    pub count: u32,
    /// Distance of the pages in the file, in bytes. Only valid if there are several pages.
    pub distance: u32,
    /// Number of the file in the chain; the youngest is 0.
    pub file: u16,
    /// The byte that fills the pages; their bytes are not in the file.
    pub fill: Option<u8>,
}

impl Run {
    /// One page, whose bytes are in a file or are all `fill`.
    pub(crate) fn page(address: u64, fill: Option<u8>, offset: u64, hash: u32) -> Self {
        Self { address, offset, hash, count: 1, distance: 0, file: 0, fill }
    }

    /// The address behind the last page.
    pub fn end(&self, page_size: u64) -> u64 {
        self.address.saturating_add(page_size.saturating_mul(self.count.into()))
    }

    /// Adds a page, if it continues the run. Its hash must follow those of the run.
    pub(crate) fn add(&mut self, page: &Self, page_size: u64) -> bool {
        let count = u64::from(self.count);
        let follows = self.address.checked_add(count.saturating_mul(page_size)) == Some(page.address);
        if !follows || self.count == u32::MAX || self.fill != page.fill {
            return false;
        }
        if self.fill.is_none() {
            let distance = match self.count {
                1 => page.offset.checked_sub(self.offset).and_then(|distance| u32::try_from(distance).ok()),
                _ => Some(self.distance),
            };
            let Some(distance) = distance else { return false };
            let ahead = u64::from(distance).checked_mul(count);
            if ahead.and_then(|ahead| self.offset.checked_add(ahead)) != Some(page.offset) {
                return false;
            }
            self.distance = distance;
        }
        self.count += 1;
        true
    }

    /// The run without its first pages. `pages` is less than their number.
    pub(crate) fn skip(&self, pages: u32, page_size: u64) -> Self {
        let mut rest = *self;
        rest.address += u64::from(pages) * page_size;
        rest.count -= pages;
        if self.fill.is_none() {
            rest.offset += u64::from(pages) * u64::from(self.distance);
            rest.hash += pages;
        }
        rest
    }

    /// The first pages of the run, at most all.
    pub(crate) fn first(&self, pages: u32) -> Self {
        Self { count: self.count.min(pages), ..*self }
    }

    /// The number of the run's pages before `address`, which is behind the first.
    pub(crate) fn before(&self, address: u64, page_size: u64) -> u32 {
        u32::try_from((address - self.address) / page_size).unwrap_or(u32::MAX).min(self.count)
    }

    /// The hashes of its pages. There are none if a byte fills them.
    pub(crate) fn hashes<'a>(&self, of_block: &'a [u8]) -> &'a [u8] {
        let len = if self.fill.is_some() { 0 } else { self.count as usize * HASH_LEN };
        of_block.get(self.hash as usize * HASH_LEN..).and_then(|rest| rest.get(..len)).unwrap_or_default()
    }
}

/// Where the last copy of a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PagePlace {
    /// Address within the block.
    pub address: u64,
    /// The content.
    pub content: Content,
}

/// The last copy of each page of a block. A page that no run has is zero.
#[derive(Debug)]
pub struct Pages {
    pub(crate) page_size: u64,
    /// In the order of addresses, without overlap.
    pub(crate) runs: Vec<Run>,
    /// The hashes of the pages of each file.
    pub(crate) hashes: Vec<Hashes>,
}

impl Pages {
    /// The size of a page in bytes.
    pub fn page_size(&self) -> u64 {
        self.page_size
    }

    /// All runs, in the order of their addresses.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Where the pages from `address` on are: the rest of a run, at most `most` pages.
    pub fn find(&self, address: u64, most: u32) -> Run {
        let page_size = self.page_size;
        let rest = match self.runs.get(self.runs.partition_point(|run| run.end(page_size) <= address)) {
            Some(run) if run.address <= address => run.skip(run.before(address, page_size), page_size),
            next => {
                let gap = next.map_or(u64::MAX, |run| run.address - address) / page_size;
                Run { count: u32::try_from(gap).unwrap_or(u32::MAX), ..Run::page(address, Some(0), 0, 0) }
            }
        };
        rest.first(most)
    }

    /// The hash of a page of a run that a file has.
    pub fn hash(&self, run: &Run, page: u32) -> u64 {
        let hashes = self.hashes.get(usize::from(run.file)).map_or(&[][..], |hashes| run.hashes(hashes));
        let hash = hashes.get(page as usize * HASH_LEN..).and_then(|rest| rest.first_chunk());
        hash.map_or(0, |hash| u64::from_be_bytes(*hash))
    }

    /// Where a page of a run is.
    pub fn place(&self, run: &Run, page: u32) -> PagePlace {
        let content = run.fill.map_or_else(
            || Content::At {
                file: run.file.into(),
                offset: run.offset + u64::from(page) * u64::from(run.distance),
                hash: self.hash(run, page),
            },
            Content::Filled,
        );
        PagePlace { address: run.address + u64::from(page) * self.page_size, content }
    }

    /// Where each page is, in the order of the addresses.
    pub fn places(&self) -> impl Iterator<Item = PagePlace> {
        self.runs.iter().flat_map(|run| (0..run.count).map(|page| self.place(run, page)))
    }

    /// The number of pages that the runs have, of the first `most` of the block.
    pub(crate) fn count(&self, most: u64) -> u64 {
        let within = |run: &Run| most.saturating_sub(run.address / self.page_size).min(run.count.into());
        self.runs.iter().map(within).sum()
    }
}
