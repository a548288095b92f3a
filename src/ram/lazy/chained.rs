// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reads pages of a chain of snapshots, each from the youngest file that has it. The content of each page is compared with the
//! hash in the list of pages that the chain was opened by.

use crate::channel::PositionedFile;
use crate::error::{Error, Result};
use crate::ram::block::Block;
use crate::savevm::chain_pages::ChainPages;
use crate::sys::Span;
use crate::wire::chain::{Content, page_hash};
use crate::wire::page_index::HEADER;
use std::sync::Arc;

/// Most pages that are read with one system call.
const PAGES_MAX: usize = 64;

/// The pages of a block.
pub(super) struct Chained {
    pub block: Arc<Block>,
    chain: Arc<ChainPages>,
    /// Index of the block in the chain.
    at: usize,
}

impl Chained {
    /// Returns the pages of a block. Fails if the chain has no such block, or one of another size.
    pub fn new(block: &Arc<Block>, chain: &Arc<ChainPages>) -> Result<Self> {
        let at = chain.blocks.iter().position(|other| other.name == block.name());
        let at = at.ok_or_else(|| super::missing(&block.name()))?;
        if chain.blocks[at].pages.len() != block.pages() {
            return Err(Error::invalid(format!("block '{}' has another size in the chain", block.name())));
        }
        Ok(Self { block: Arc::clone(block), chain: Arc::clone(chain), at })
    }

    fn pages(&self) -> &[Content] {
        &self.chain.blocks[self.at].pages
    }

    /// Calls `each` with the first page and the count of each run of pages that are zero, which is known without a file.
    pub fn each_zero_run(&self, mut each: impl FnMut(usize, usize)) {
        let (mut page, is_zero) = (0, |page: &Content| *page == Content::Filled(0));
        for run in self.pages().chunk_by(|one, next| is_zero(one) == is_zero(next)) {
            if is_zero(&run[0]) {
                each(page, run.len());
            }
            page += run.len();
        }
    }

    /// Reads consecutive pages, the first of which is `page`. `scratch` is a buffer.
    pub fn read(&self, page: usize, into: &mut [u8], page_size: usize, scratch: &mut Vec<u8>) -> Result<()> {
        let mut done = 0;
        while done < into.len() / page_size {
            let (first, part) = (page + done, &mut into[done * page_size..]);
            done += match self.pages()[first] {
                Content::Filled(byte) => {
                    part[..page_size].fill(byte);
                    1
                }
                Content::At { file, offset, .. } => {
                    let file = &self.chain.files[file];
                    self.read_run((file, offset), first, part, page_size, scratch)?
                }
            };
        }
        Ok(())
    }

    /// Reads pages that follow each other in a file. Returns their number.
    fn read_run(
        &self,
        (from, start): (&PositionedFile, u64),
        first: usize,
        into: &mut [u8],
        page_size: usize,
        scratch: &mut Vec<u8>,
    ) -> Result<usize> {
        let (count, stride) = self.run(first, (into.len() / page_size).min(PAGES_MAX), page_size);
        let bytes = (count - 1) * stride + page_size;
        scratch.resize(bytes.max(scratch.len()), 0);
        from.read_at(&[Span::from_slice(&mut scratch[..bytes])], start)
            .map_err(|err| self.block.read_error(from, first * page_size, start, &err))?;
        for (at, page) in into.chunks_exact_mut(page_size).take(count).enumerate() {
            let found = &scratch[at * stride..at * stride + page_size];
            let Content::At { offset, hash, .. } = self.pages()[first + at] else { break };
            if page_hash(found) != hash {
                let text = format!(
                    "block '{}' from 0x{:x} on: the page at offset 0x{offset:x} of {} is damaged or was changed: it does not have \
                     the hash in the list of pages",
                    self.block.name(),
                    (first + at) * page_size,
                    from.name()
                );
                return Err(Error::new(libc::EIO, text));
            }
            page.copy_from_slice(found);
        }
        Ok(count)
    }

    /// The number of pages from `first` on that have the same distance from each other in one file, at most `most`, and this
    /// distance in bytes.
    fn run(&self, first: usize, most: usize, page_size: usize) -> (usize, usize) {
        let pages = self.pages();
        let Content::At { file, offset, .. } = pages[first] else { return (1, page_size) };
        let follows = |at: usize, stride: u64| {
            let wanted = offset + at as u64 * stride;
            matches!(pages.get(first + at), Some(Content::At { file: other, offset, .. }) if *other == file && *offset == wanted)
        };
        let size = page_size as u64;
        let stride = if follows(1, size) { size } else { size + HEADER };
        (1 + (1..most).take_while(|at| follows(*at, stride)).count(), stride as usize)
    }
}
