// SPDX-License-Identifier: LGPL-2.1-or-later
//! Loads all pages of a stream from their places, before the guest runs. The places were found when the stream was checked, so
//! the records are not read a second time in their order, and several threads copy pages.

use super::pages::Pages;
use super::{BUFFERS, LazyLoad};
use crate::error::{Error, Result};
use crate::ram::Ram;
use crate::ram::mapped::{PIECE, Pieces, clear_run};
use crate::savevm::workers;
use crate::sys::{Residency, is_anonymous};

impl LazyLoad {
    /// Reads all pages of a stream into memory, and clears the pages that are zero.
    pub fn read_now(&self, ram: &Ram) -> Result<()> {
        let (vm, size) = (ram.context()?, ram.page_size());
        let residency = Residency::open().ok();
        let anonymous: Vec<_> = self.pages.iter().map(|pages| is_anonymous(pages.block().memory())).collect();
        let pieces = Pieces::new(self.pages.iter().map(Pages::block).enumerate(), PIECE);
        workers::run(&vm, "savevm-pages", self.plan.threads(), || {
            let Some((at, offset, len)) = pieces.next() else { return Ok(false) };
            let Pages::Indexed(indexed) = &self.pages[at] else {
                return Err(Error::invalid("the pages of the stream are not in its index"));
            };
            let residency = residency.as_ref().filter(|_| anonymous[at]);
            let clear = |start, len| clear_run(&indexed.block, residency, (start, len), size);
            BUFFERS.with_borrow_mut(|buffers| {
                indexed.load((offset / size, len / size), size, &mut buffers.records, &ram.counters, clear)
            })?;
            Ok(true)
        })
    }
}
