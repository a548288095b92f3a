// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where the pages are in one file.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::Arc;

use super::page_hash;
use crate::budget::{Budget, OverBudget};
use crate::inspect::{Block, Page, Visitor};

/// The place of a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Address within the block.
    pub address: u64,
    /// Offset of its bytes in the file.
    pub offset: u64,
    /// The byte that fills the page; its bytes are not in the file.
    pub fill: Option<u8>,
    /// Hash of its bytes, to detect a change after the file was checked.
    pub hash: u64,
}

/// The pages of one block, in the order of the file.
pub(super) struct BlockPages {
    pub name: Arc<str>,
    pub length: u64,
    pub places: Vec<Place>,
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
        self.list.push(BlockPages { name, length, places: Vec::new() });
        self.list.last_mut()
    }

    /// All blocks, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &BlockPages> {
        self.list.iter()
    }
}

/// Collects the places of all pages.
pub(super) struct Indexer<'a> {
    budget: &'a mut Budget,
    blocks: Blocks,
    /// Index of the block of the last page.
    last: usize,
}

impl<'a> Indexer<'a> {
    pub fn new(budget: &'a mut Budget) -> Self {
        Self { budget, blocks: Blocks::default(), last: 0 }
    }

    /// The memory in bytes that is left.
    pub fn left(&self) -> usize {
        self.budget.left()
    }

    pub fn finish(self) -> Blocks {
        self.blocks
    }

    fn pay(&mut self, bytes: usize) -> io::Result<()> {
        self.budget.take(bytes).map_err(io::Error::other)
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
}

impl Visitor for Indexer<'_> {
    const WANTS_PAGES: bool = true;
    const WANTS_HOLES: bool = false;
    const WANTS_STATES: bool = false;

    fn block(&mut self, block: &Block) -> io::Result<()> {
        self.block_of(block).map(drop)
    }

    fn page(&mut self, block: &Block, address: u64, page: Page<'_>, offset: u64) -> io::Result<()> {
        let (fill, hash) = match page {
            Page::Fill(fill, _) => (Some(fill), 0),
            Page::Plain(bytes) => (None, page_hash(bytes)),
            Page::Xbzrle(..) | Page::Compressed(..) => {
                let text = "it has compressed pages or differences of pages, so it can't be part of a chain";
                return Err(io::Error::other(text));
            }
        };
        // A growing list is copied: it takes three times its length for a moment.
        self.pay(3 * size_of::<Place>())?;
        self.block_of(block)?.places.push(Place { address, offset, fill, hash });
        Ok(())
    }
}
