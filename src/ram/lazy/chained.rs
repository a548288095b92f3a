// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reads pages of a chain of snapshots, each from the youngest file that has it. The content of each page is compared with the
//! hash in the list of pages that the chain was opened by.

use crate::error::{Error, Result};
use crate::ram::block::Block;
use crate::savevm::chain_pages::ChainPages;
use crate::sys::Span;
use crate::wire::chain::page_hash;
use crate::wire::page_index::HEADER;
use crate::wire::page_runs::{Pages, Run};
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
        if chain.blocks[at].count != block.pages() as u64 {
            return Err(Error::invalid(format!("block '{}' has another size in the chain", block.name())));
        }
        Ok(Self { block: Arc::clone(block), chain: Arc::clone(chain), at })
    }

    fn pages(&self) -> &Pages {
        &self.chain.blocks[self.at].pages
    }

    /// Calls `each` with the first page and the count of each run of pages that are zero, which is known without a file.
    pub fn each_zero_run(&self, mut each: impl FnMut(usize, usize)) {
        let (size, end) = (self.pages().page_size(), self.block.pages());
        let page_at = |address: u64| usize::try_from(address / size).unwrap_or(usize::MAX).min(end);
        let mut from = 0;
        for run in self.pages().runs().iter().filter(|run| run.fill != Some(0)) {
            let start = page_at(run.address);
            if from < start {
                each(from, start - from);
            }
            from = page_at(run.end(size));
        }
        if from < end {
            each(from, end - from);
        }
    }

    /// Reads consecutive pages, the first of which is `page`. `scratch` is a buffer.
    pub fn read(&self, page: usize, into: &mut [u8], page_size: usize, scratch: &mut Vec<u8>) -> Result<()> {
        let mut done = 0;
        while done < into.len() / page_size {
            let (first, part) = (page + done, &mut into[done * page_size..]);
            let most = u32::try_from(part.len() / page_size).unwrap_or(u32::MAX);
            let run = self.pages().find((first * page_size) as u64, most);
            done += match run.fill {
                Some(byte) => {
                    part[..run.count as usize * page_size].fill(byte);
                    run.count as usize
                }
                None => self.read_run(&run, part, page_size, scratch)?,
            };
        }
        Ok(())
    }

    /// Reads pages of a run from the first on. Returns their number.
    fn read_run(&self, run: &Run, into: &mut [u8], page_size: usize, scratch: &mut Vec<u8>) -> Result<usize> {
        let (from, stride) = (&self.chain.files[usize::from(run.file)], run.distance as usize);
        // Pages that are far from each other are read one by one.
        let is_near = stride == page_size || stride == page_size + HEADER as usize;
        let count = if is_near { PAGES_MAX.min(run.count as usize) } else { 1 };
        let bytes = (count - 1) * stride + page_size;
        scratch.resize(bytes.max(scratch.len()), 0);
        from.read_at(&[Span::from_slice(&mut scratch[..bytes])], run.offset)
            .map_err(|err| self.block.read_error(from, run.address as usize, run.offset, &err))?;
        for (at, page) in into.chunks_exact_mut(page_size).take(count).enumerate() {
            let found = &scratch[at * stride..at * stride + page_size];
            if page_hash(found) != self.pages().hash(run, at as u32) {
                let text = format!(
                    "block '{}' from 0x{:x} on: the page at offset 0x{:x} of {} is damaged or was changed: it does not have \
                     the hash in the list of pages",
                    self.block.name(),
                    run.address as usize + at * page_size,
                    run.offset + (at * stride) as u64,
                    from.name()
                );
                return Err(Error::new(libc::EIO, text));
            }
            page.copy_from_slice(found);
        }
        Ok(count)
    }
}
