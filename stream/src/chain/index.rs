// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where the pages are in one file.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::page_hash;
use crate::budget::Budget;
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
                    // A growing table is copied.
                    self.pay(3 * (size_of::<BlockPages>() + size_of::<(Arc<str>, usize)>()) + block.name.len())?;
                    let (name, length) = (Arc::clone(&block.name), block.length);
                    self.blocks.by_name.insert(Arc::clone(&name), self.blocks.list.len());
                    self.blocks.list.push(BlockPages { name, length, places: Vec::new() });
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
