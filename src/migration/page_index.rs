// SPDX-License-Identifier: LGPL-2.1-or-later
//! Notes where the pages of a stream are, while the stream is checked.

use crate::inspect::{Block, Form, Page, Stream, Visitor};
use crate::savevm::restore::{IndexedBlock, PageIndex, Place};
use crate::wire::mapped::CAPABILITY;
use std::io;
use std::sync::Arc;

/// Collects the places of pages.
pub struct Indexer {
    page_size: u64,
    blocks: Vec<(Arc<str>, u64, Vec<Place>)>,
    /// Index of the block of the last page.
    last: usize,
    section_ends: Vec<u64>,
}

impl Indexer {
    /// Returns an indexer for pages of `page_size` bytes.
    pub fn new(page_size: u64) -> Self {
        Self { page_size, blocks: Vec::new(), last: 0, section_ends: Vec::new() }
    }

    #[inline]
    fn put(&mut self, block: &Block, address: u64, place: Place) -> io::Result<()> {
        if self.blocks.get(self.last).is_none_or(|(name, ..)| !Arc::ptr_eq(name, &block.name)) {
            let found = self.blocks.iter().position(|(name, ..)| *name == block.name);
            self.last = found.ok_or_else(|| io::Error::other("a page of a block that is not in the list of blocks"))?;
        }
        // The reader has checked that the page is within the block, whose length is that of a block of this machine.
        let (page, places) = ((address / self.page_size) as usize, &mut self.blocks[self.last].2);
        if page >= places.len() {
            if place == Place::ZERO {
                return Ok(());
            }
            places.resize(page + 1, Place::ZERO);
        }
        places[page] = place;
        Ok(())
    }

    /// Returns the index of the stream that was read. `None` if its pages have fixed places.
    pub fn finish(self, stream: &Stream) -> Option<PageIndex> {
        let mapped = stream.configuration.as_ref().is_some_and(|configuration| configuration.has(CAPABILITY));
        let blocks = self.blocks.into_iter().map(|(name, length, places)| IndexedBlock {
            name: name.to_string(),
            length,
            places: Arc::new(places),
        });
        (!mapped).then(|| PageIndex { blocks: blocks.collect(), section_ends: self.section_ends })
    }
}

impl Visitor for Indexer {
    const WANTS_PLACES: bool = true;
    const WANTS_STATES: bool = false;

    fn block(&mut self, block: &Block) -> io::Result<()> {
        self.blocks.push((block.name.clone(), block.length, Vec::new()));
        Ok(())
    }

    fn page(&mut self, block: &Block, address: u64, page: Page<'_>, _offset: u64) -> io::Result<()> {
        match page {
            Page::Fill(byte, _) => self.put(block, address, Place::filled(byte)),
            // Pages with contents come to `place`.
            _ => Ok(()),
        }
    }

    fn place(&mut self, block: &Block, address: u64, form: Form, offset: u64) -> io::Result<()> {
        let form = match form {
            Form::Plain => return self.put(block, address, Place::at(offset)),
            Form::Xbzrle => "a difference to an earlier copy (XBZRLE)",
            Form::Compressed => "compressed",
        };
        let text = format!("a page of '{}' is {form}: load the snapshot without the option `lazy`", block.name);
        Err(io::Error::new(io::ErrorKind::Unsupported, text))
    }

    fn memory_section(&mut self, end: u64) {
        self.section_ends.push(end);
    }
}
