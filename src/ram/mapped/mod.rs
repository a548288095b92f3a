// SPDX-License-Identifier: LGPL-2.1-or-later
//! RAM with fixed places in a file (QEMU's mapped-ram; `wire::mapped` has the format). The pages are written and read by
//! several threads. The stream in the same file has only the headers and the other devices.

mod load;
mod save;

pub(super) use load::{MappedBlock, MappedLoad, clear_run, load_pieces, memory_of_run};
pub(super) use save::{Copies, MappedSave};

use super::block::Block;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Size of the piece of a block that one thread takes at a time, in bytes.
const PIECE: usize = 2 << 20;

/// Deals the pieces of blocks out to threads.
pub(super) struct Pieces<'a> {
    /// The number of the first piece of each block, the index of the block, and the block.
    blocks: Vec<(usize, usize, &'a Arc<Block>)>,
    size: usize,
    count: usize,
    next: AtomicUsize,
}

impl<'a> Pieces<'a> {
    /// The pieces of blocks, each with its index. They have `size` bytes, or one unit of the block if that is larger.
    pub fn new(blocks: impl Iterator<Item = (usize, &'a Arc<Block>)>, size: usize) -> Self {
        let mut count = 0;
        let blocks = blocks
            .map(|(at, block)| {
                let first = count;
                count += block.memory().len().div_ceil(size.max(block.unit()));
                (first, at, block)
            })
            .collect();
        Self { blocks, size, count, next: AtomicUsize::new(0) }
    }

    /// Returns the next piece: index of the block, offset and length in bytes.
    pub fn next(&self) -> Option<(usize, usize, usize)> {
        let number = self.next.fetch_add(1, Relaxed);
        if number >= self.count {
            return None;
        }
        let (first, at, block) = self.blocks[self.blocks.partition_point(|(first, ..)| *first <= number) - 1];
        let size = self.size.max(block.unit());
        let offset = (number - first) * size;
        Some((at, offset, size.min(block.memory().len() - offset)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::BlockInfo;
    use super::*;
    use crate::sys::OwnMemory;

    #[test]
    fn pieces_cover_all_blocks_once() {
        let memories: Vec<_> = [1, 1537, 512, 3].map(|pages| OwnMemory::new(pages * 4096).unwrap()).into();
        let block = |memory: &OwnMemory| {
            let memory = memory.memory();
            let info =
                BlockInfo { name: b"a".to_vec(), memory, page_size: 0, guest_address: 0, shared: false, opaque: 0 };
            Arc::new(Block::new(info, 12).unwrap())
        };
        let blocks: Vec<_> = memories.iter().map(block).collect();
        let pieces = Pieces::new(blocks.iter().enumerate(), PIECE);
        let mut ends = [0; 4];
        while let Some((at, offset, len)) = pieces.next() {
            assert_eq!(offset, ends[at]);
            ends[at] += len;
        }
        assert_eq!(ends, [1, 1537, 512, 3].map(|pages| pages * 4096));
    }
}
