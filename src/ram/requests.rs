// SPDX-License-Identifier: LGPL-2.1-or-later
//! Postcopy at the source: sends discards for stale pages, queues requested pages, and after a break resends only the
//! pages that the destination does not have.

use super::Ram;
use super::block::{self, Block};
use crate::error::{Error, Result};
use crate::file::MigFile;
use crate::savevm::command;
use crate::wire::command::Discard;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Maximum number of queued requests: far more than a guest has CPUs.
const REQUESTS_MAX: usize = 1 << 16;

/// Queue of the pages that the destination requested.
#[derive(Default)]
pub(super) struct Requests {
    queue: VecDeque<(usize, usize, usize)>,
    last_block: Option<usize>,
}

impl Requests {
    /// The next request: index of the block, first page, count.
    pub fn next(&mut self) -> Option<(usize, usize, usize)> {
        self.queue.pop_front()
    }

    /// Returns the rest of a request to the front of the queue.
    pub fn put_back(&mut self, (place, start, count): (usize, usize, usize)) {
        if count > 0 {
            self.queue.push_front((place, start, count));
        }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Extends every run of dirty pages to whole host pages. Returns the number of newly dirty pages.
fn grow_to_units(block: &Block) -> usize {
    let unit = block.pages_per_unit();
    let (mut from, mut new) = (0, 0);
    while let Some((start, count)) = block.dirty.run(from, usize::MAX) {
        let first = start - start % unit;
        let end = (start + count).next_multiple_of(unit).min(block.pages());
        new += block.dirty.set(first, end - first);
        from = end;
    }
    new
}

impl Ram {
    /// Sends POSTCOPY_RAM_DISCARD for all dirty pages: the destination's copies are stale.
    pub(super) fn discards(&self, file: &MigFile) -> Result<()> {
        let vm = self.context()?;
        self.sync_for_postcopy(file)?;
        for block in self.blocks().iter().filter(|block| !self.is_ignored(block)) {
            self.dirtied(grow_to_units(block));
            let bytes = |pages: usize| (pages as u64) << self.page_bits;
            let ranges: Vec<_> = block.dirty.runs().map(|(start, count)| (bytes(start), bytes(count))).collect();
            for part in ranges.chunks(Discard::RANGES_MAX) {
                command::postcopy_ram_discard(&vm, file, &block.info.name, part)?;
            }
        }
        file.check()
    }

    /// Queues a request of the destination.
    pub(super) fn request(&self, name: Option<&[u8]>, start: u64, len: u32) -> Result<()> {
        let blocks = self.blocks();
        // Read before `requests` is locked: the options have the lower rank.
        let ignore_shared = self.ignores_shared();
        let mut requests = self.requests.lock();
        let place = match name {
            Some(name) => block::find(&blocks, name).map(|(place, _)| place).ok_or_else(|| {
                let name = String::from_utf8_lossy(name).into_owned();
                Error::invalid(format!("a request for pages of block '{name}', which is not there"))
            })?,
            None => requests.last_block.ok_or_else(|| Error::invalid("a request for pages of no block"))?,
        };
        let block = blocks.get(place).ok_or_else(|| Error::invalid("a request for pages of a block that is gone"))?;
        block.check_range(start, u64::from(len), "a request for pages")?;
        if block.info.shared && ignore_shared {
            let text = format!("a request for pages of block '{}', which both sides share", block.name());
            return Err(Error::invalid(text));
        }
        if requests.queue.len() >= REQUESTS_MAX {
            return Err(Error::invalid(format!("more than {REQUESTS_MAX} requests for pages wait")));
        }
        requests.last_block = Some(place);
        requests.queue.push_back((place, (start >> self.page_bits) as usize, len as usize >> self.page_bits));
        self.counters.requests.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Marks all pages of a block as dirty that are not in the destination's received bitmap.
    pub(super) fn apply_received(&self, name: &[u8], bits: &[u8]) -> Result<()> {
        let blocks = self.blocks();
        let text = |what: &str| format!("a received bitmap for block '{}' {what}", String::from_utf8_lossy(name));
        let (_, block) = block::find(&blocks, name).ok_or_else(|| Error::invalid(text("that is not there")))?;
        if bits.len() != block.pages().div_ceil(64) * 8 {
            let have = block.pages();
            return Err(Error::invalid(text(&format!(
                "of {} bytes, expected one bit for each of {have} pages",
                bits.len()
            ))));
        }
        self.requests.lock().clear();
        block.dirty.set_inverted(bits).ok_or_else(|| Error::invalid(text("that is too short")))?;
        grow_to_units(block);
        let sent = blocks.iter().filter(|block| !self.is_ignored(block));
        self.dirty_pages.store(sent.map(|block: &Arc<Block>| block.dirty.count() as i64).sum(), Relaxed);
        Ok(())
    }
}
