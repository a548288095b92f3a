// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where the pages are in one file.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::Arc;

use super::page_hash;
use crate::budget::{Budget, OverBudget};
use crate::inspect::{Block, Page, Visitor};
use crate::wire::page_runs::{HASH_LEN, Hashes, Run};

const COMPRESSED: &str = "it has compressed pages or differences of pages, so it can't be part of a chain";
const SIZES: &str = "it has pages of different sizes, so it can't be part of a chain";

/// The pages of one block, in the order of the file.
pub(super) struct BlockPages {
    pub name: Arc<str>,
    pub length: u64,
    pub runs: Vec<Run>,
    /// The hashes of the pages whose bytes are in the file.
    pub hashes: Hashes,
}

/// The blocks of one file. A file may have a great many.
#[derive(Default)]
pub(super) struct Blocks {
    list: Vec<BlockPages>,
    by_name: HashMap<Arc<str>, usize>,
}

impl Blocks {
    /// Returns the block of a name.
    pub fn get(&self, name: &str) -> Option<&BlockPages> {
        self.by_name.get(name).and_then(|at| self.list.get(*at))
    }

    /// Takes the memory of a further block from the budget.
    pub fn pay(budget: &mut Budget, name: &str) -> Result<(), OverBudget> {
        // A growing table is copied.
        budget.take(3 * (size_of::<BlockPages>() + size_of::<(Arc<str>, usize)>()) + name.len())
    }

    /// Adds a block without pages. `None` if there is one of this name.
    pub fn add(&mut self, name: Arc<str>, length: u64) -> Option<&mut BlockPages> {
        let at = self.list.len();
        match self.by_name.entry(Arc::clone(&name)) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(place) => place.insert(at),
        };
        self.list.push(BlockPages { name, length, runs: Vec::new(), hashes: Hashes::default() });
        self.list.last_mut()
    }

    /// All blocks, in the order of the file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &BlockPages> {
        self.list.iter()
    }

    /// Sets the hashes of the pages of all blocks.
    pub fn set_hashes(&mut self, hashes: Vec<u8>) {
        let hashes = Hashes::new(hashes);
        self.list.iter_mut().for_each(|block| block.hashes = Arc::clone(&hashes));
    }

    /// Sets the number of the file.
    pub fn set_file(&mut self, file: u16) {
        self.list.iter_mut().flat_map(|block| &mut block.runs).for_each(|run| run.file = file);
    }
}

/// Collects the places of all pages. A page that can't be in a chain is left out, and [`Indexer::finish`] says why.
pub(super) struct Indexer<'a> {
    budget: &'a mut Budget,
    blocks: Blocks,
    /// Index of the block of the last page.
    last: usize,
    /// The size of all pages that are not the last one of their block. That one may be shorter.
    page_size: Option<u64>,
    longest_last: u64,
    problem: Option<&'static str>,
}

impl<'a> Indexer<'a> {
    pub fn new(budget: &'a mut Budget) -> Self {
        Self { budget, blocks: Blocks::default(), last: 0, page_size: None, longest_last: 0, problem: None }
    }

    /// The memory in bytes that is left.
    pub fn left(&self) -> usize {
        self.budget.left()
    }

    /// Returns the pages that were found. The text says why the file can't be a part of a chain, if it can't. `page_size` is that
    /// of the whole stream.
    pub fn finish(self, page_size: u64) -> (Blocks, Result<(), &'static str>) {
        let is_aligned = |block: &BlockPages| block.runs.iter().all(|run| run.address.is_multiple_of(page_size));
        let differs = self.page_size.is_some_and(|size| size != page_size)
            || self.longest_last > page_size
            || !self.blocks.iter().all(is_aligned);
        let problem = self.problem.or(differs.then_some(SIZES));
        (self.blocks, problem.map_or(Ok(()), Err))
    }

    fn pay(&mut self, bytes: usize) -> io::Result<()> {
        // A growing list is copied: it takes three times its length for a moment.
        self.budget.take(3 * bytes).map_err(io::Error::other)
    }

    fn block_of(&mut self, block: &Block) -> io::Result<&mut BlockPages> {
        if self.blocks.list.get(self.last).is_none_or(|last| *last.name != *block.name) {
            self.last = match self.blocks.by_name.get(&block.name) {
                Some(found) => *found,
                None => {
                    Blocks::pay(self.budget, &block.name).map_err(io::Error::other)?;
                    self.blocks.add(Arc::clone(&block.name), block.length);
                    self.blocks.list.len() - 1
                }
            };
        }
        Ok(&mut self.blocks.list[self.last])
    }

    /// Checks that a page has the size of the others.
    fn has_size(&mut self, block: &Block, address: u64, size: u64) -> bool {
        if address.saturating_add(size) == block.length {
            self.longest_last = self.longest_last.max(size);
            return true;
        }
        *self.page_size.get_or_insert(size) == size
    }
}

impl Visitor for Indexer<'_> {
    const WANTS_PAGES: bool = true;
    const WANTS_HOLES: bool = false;
    const WANTS_STATES: bool = false;

    fn block(&mut self, block: &Block) -> io::Result<()> {
        self.block_of(block).map(drop)
    }

    fn page(&mut self, block: &Block, address: u64, page: Page<'_>, offset: u64) -> io::Result<()> {
        let (fill, hash, size) = match page {
            Page::Fill(fill, size) => (Some(fill), None, size),
            Page::Plain(bytes) => (None, Some(page_hash(bytes)), bytes.len() as u64),
            Page::Xbzrle(..) | Page::Compressed(..) => {
                self.problem.get_or_insert(COMPRESSED);
                return Ok(());
            }
        };
        if !self.has_size(block, address, size) {
            self.problem.get_or_insert(SIZES);
            return Ok(());
        }
        let page_size = self.page_size.unwrap_or(size);
        if hash.is_some() {
            self.pay(HASH_LEN)?;
        }
        let pages = self.block_of(block)?;
        let number = pages.hashes.len() / HASH_LEN;
        let number = u32::try_from(number).map_err(|_| io::Error::other("a block has more than 2^32 pages"))?;
        let run = Run::page(address, fill, offset, number);
        if let Some(hash) = hash {
            Arc::make_mut(&mut pages.hashes).extend_from_slice(&hash.to_be_bytes());
        }
        if pages.runs.last_mut().is_some_and(|last| last.add(&run, page_size)) {
            return Ok(());
        }
        self.pay(size_of::<Run>())?;
        self.block_of(block)?.runs.push(run);
        Ok(())
    }
}
