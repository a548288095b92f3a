// SPDX-License-Identifier: LGPL-2.1-or-later
//! Encodes one page: as zero, as an XBZRLE difference, or in full without a copy.

use super::block::Block;
use super::cache::Cache;
use super::{Counters, wire};
use crate::file::MigFile;
use crate::wire::ram::XbzrleHead;
use crate::wire::xbzrle;
use std::sync::atomic::Ordering::Relaxed;

/// XBZRLE of one migration.
pub(super) struct Differences {
    cache: Cache,
    /// A copy of the page: the guest keeps writing, but the cache and the stream must have the same content.
    page: Box<[u8]>,
    encoded: Box<[u8]>,
}

impl Differences {
    /// `None` if the host disabled XBZRLE or the format can't carry pages of this size.
    pub fn new(cache_bytes: u64, page_size: usize) -> Option<Self> {
        let cache = Cache::new(cache_bytes, page_size).filter(|_| page_size < xbzrle::PAGE_MAX)?;
        let page = vec![0; page_size].into_boxed_slice();
        Some(Self { cache, encoded: page.clone(), page })
    }
}

/// State from record to record.
pub(super) struct Sender {
    page_bits: u32,
    /// Index of the block whose name was sent last.
    last_block: Option<usize>,
    pub differences: Option<Differences>,
    /// Number of complete passes over RAM.
    pub round: u64,
}

/// Whether all bytes are zero.
pub(super) fn is_zero(content: &[u8]) -> bool {
    content.chunks(64).all(|part| part.iter().fold(0, |all, byte| all | byte) == 0)
}

impl Sender {
    pub fn new(page_bits: u32, differences: Option<Differences>) -> Self {
        Self { page_bits, last_block: None, differences, round: 0 }
    }

    /// Makes the next record name its block.
    pub fn forget_block(&mut self) {
        self.last_block = None;
    }

    #[inline]
    fn header(&mut self, mut file: &MigFile, at: usize, block: &Block, offset: usize, kind: u64) {
        let name = (self.last_block != Some(at)).then_some(&block.info.name[..]);
        self.last_block = Some(at);
        wire::encode_page_head(&mut file, kind, offset as u64, name);
    }

    fn zero(&mut self, file: &MigFile, counters: &Counters, at: usize, block: &Block, offset: usize) {
        self.header(file, at, block, offset, wire::ZERO);
        file.put_byte(0);
        counters.zero.fetch_add(1, Relaxed);
    }

    /// Sends one page of the block with index `at`. An `absent` page has no content and reads as zero. `first_page` is
    /// the number of the block's first page over all blocks.
    pub fn page(
        &mut self,
        file: &MigFile,
        counters: &Counters,
        at: usize,
        block: &Block,
        (page, absent): (usize, bool),
        first_page: u64,
    ) {
        let (offset, size) = (page << self.page_bits, 1 << self.page_bits);
        if absent || block.memory().is_zero(offset, size) {
            if let Some(differences) = &mut self.differences {
                differences.cache.forget(first_page + page as u64);
            }
            self.zero(file, counters, at, block, offset);
        } else if self.differences.is_some() && self.round > 0 {
            self.difference(file, counters, at, block, page, first_page + page as u64);
        } else {
            self.header(file, at, block, offset, wire::PAGE);
            file.put_async(block.memory().piece(offset, size), false);
            counters.normal.fetch_add(1, Relaxed);
        }
    }

    /// Sends one page from a copy of it.
    pub fn copied(
        &mut self,
        file: &MigFile,
        counters: &Counters,
        at: usize,
        block: &Block,
        page: usize,
        content: &[u8],
    ) {
        let offset = page << self.page_bits;
        if is_zero(content) {
            self.zero(file, counters, at, block, offset);
        } else {
            self.header(file, at, block, offset, wire::PAGE);
            file.put(content);
            counters.normal.fetch_add(1, Relaxed);
        }
    }

    fn difference(&mut self, file: &MigFile, counters: &Counters, at: usize, block: &Block, page: usize, number: u64) {
        let (offset, round) = (page << self.page_bits, self.round);
        let Some(mut differences) = self.differences.take() else { return };
        block.memory().read(offset, &mut differences.page);
        let known = differences.cache.get(number, round);
        let encoded = match &known {
            Some(old) => xbzrle::encode(old, &differences.page, &mut differences.encoded),
            None => None,
        };
        match (encoded, known) {
            (Some(0), _) => {
                counters.unchanged.fetch_add(1, Relaxed);
            }
            (Some(len), Some(old)) => {
                old.copy_from_slice(&differences.page);
                self.header(file, at, block, offset, wire::XBZRLE);
                XbzrleHead::encode(&mut { file }, len as u16);
                file.put(&differences.encoded[..len]);
                counters.xbzrle.fetch_add(1, Relaxed);
            }
            _ => {
                // The copy is sent, which is the base of the next difference.
                differences.cache.insert(number, round, &differences.page);
                self.header(file, at, block, offset, wire::PAGE);
                file.put(&differences.page);
                counters.normal.fetch_add(1, Relaxed);
            }
        }
        self.differences = Some(differences);
    }
}
