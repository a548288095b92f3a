// SPDX-License-Identifier: LGPL-2.1-or-later
//! Loads all pages of a stream from their places, before the guest runs. The places were found when the stream was checked, so
//! the records are not read a second time in their order, and several threads copy pages.

use super::pages::Pages;
use super::{BUFFERS, LazyLoad};
use crate::error::{Error, Result};
use crate::ram::Ram;
use crate::ram::mapped::{clear_run, load_pieces};

impl LazyLoad {
    /// Reads all pages of a stream into memory, and clears the pages that are zero.
    pub fn read_now(&self, ram: &Ram) -> Result<()> {
        let size = ram.page_size();
        let blocks = self.pages.iter().map(Pages::block);
        load_pieces(ram, blocks, self.plan.threads(), |at, (offset, len), residency| {
            let Pages::Indexed(indexed) = &self.pages[at] else {
                return Err(Error::invalid("the pages of the stream are not in its index"));
            };
            let clear = |start, len| clear_run(&indexed.block, residency, (start, len), size);
            BUFFERS.with_borrow_mut(|buffers| {
                indexed.load((offset / size, len / size), size, &mut buffers.records, &ram.counters, clear)
            })
        })
    }
}
