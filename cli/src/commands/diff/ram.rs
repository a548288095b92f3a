// SPDX-License-Identifier: LGPL-2.1-or-later
//! Compares the guest memory of two streams, page by page.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use savevm_stream::inspect::{Block, Stream, printable};

use crate::failure::{Context, Result};
use crate::memory::{FinalPage, PageIndex};

/// One of the two streams.
pub struct Side<'a> {
    /// The model of the stream.
    pub stream: &'a Stream,
    /// The bytes of the stream.
    pub bytes: &'a [u8],
    /// The places of its pages.
    pub pages: &'a PageIndex,
}

/// The differences of a RAM block.
#[derive(Debug)]
pub struct BlockDifference {
    /// Its name.
    pub name: Arc<str>,
    /// Its length in A, if A has it.
    pub length_a: Option<u64>,
    /// Its length in B, if B has it.
    pub length_b: Option<u64>,
    /// Addresses in the block of pages that differ, in order.
    pub ranges: Vec<Range<u64>>,
    /// Number of pages that differ.
    pub pages: u64,
    /// Number of pages only in A, and only in B. They cannot be compared.
    pub only_a: u64,
    pub only_b: u64,
}

/// The result of the comparison of one block.
#[derive(Default)]
struct Compared {
    ranges: Vec<Range<u64>>,
    pages: u64,
    only_a: u64,
    only_b: u64,
    both: u64,
}

/// A block with pages that neither stream has: its name, and the number of such pages.
pub type Absent = (Arc<str>, u64);

/// Compares all blocks, in the order of A, then those only in B.
pub fn compare(a: &Side<'_>, b: &Side<'_>) -> Result<(Vec<BlockDifference>, Vec<Absent>)> {
    let blocks_of = |side: &Side<'_>| -> HashMap<Arc<str>, u64> {
        side.stream.ram.blocks.iter().map(|block| (block.name.clone(), block.length)).collect()
    };
    let (in_a, in_b) = (blocks_of(a), blocks_of(b));
    let page_size = [a, b].iter().find_map(|side| side.stream.ram.page_size).map_or(4096, |(size, _)| size);
    let (mut differences, mut absent) = (Vec::new(), Vec::new());
    for block in &a.stream.ram.blocks {
        let (length_a, length_b) = (Some(block.length), in_b.get(&block.name).copied());
        let mut compared = Compared::default();
        if length_b.is_some() {
            compared = compare_block(a, b, block).context(|| format!("RAM block {}", printable(&block.name)))?;
            let known = compared.both + compared.only_a + compared.only_b;
            let neither = block.length.div_ceil(page_size).saturating_sub(known);
            if neither > 0 {
                absent.push((block.name.clone(), neither));
            }
        }
        let Compared { ranges, pages, only_a, only_b, .. } = compared;
        if length_a != length_b || pages + only_a + only_b > 0 {
            let name = block.name.clone();
            differences.push(BlockDifference { name, length_a, length_b, ranges, pages, only_a, only_b });
        }
    }
    for block in b.stream.ram.blocks.iter().filter(|block| !in_a.contains_key(&block.name)) {
        let (name, length_b) = (block.name.clone(), Some(block.length));
        let ranges = Vec::new();
        differences.push(BlockDifference { name, length_a: None, length_b, ranges, pages: 0, only_a: 0, only_b: 0 });
    }
    Ok((differences, absent))
}

/// Visits the pages of both streams in the order of their addresses. Only pages in both are compared.
fn compare_block(a: &Side<'_>, b: &Side<'_>, block: &Block) -> io::Result<Compared> {
    let mut compared = Compared::default();
    let mut pages_a = a.pages.pages(a.bytes, &block.name).peekable();
    let mut pages_b = b.pages.pages(b.bytes, &block.name).peekable();
    let (mut buffer_a, mut buffer_b) = (Vec::new(), Vec::new());
    loop {
        let next = [pages_a.peek(), pages_b.peek()].into_iter().flatten().map(FinalPage::address).min();
        let Some(address) = next else { return Ok(compared) };
        let page_a = pages_a.next_if(|page| page.address() == address);
        let page_b = pages_b.next_if(|page| page.address() == address);
        let (Some(page_a), Some(page_b)) = (&page_a, &page_b) else {
            compared.only_a += u64::from(page_a.is_some());
            compared.only_b += u64::from(page_b.is_some());
            continue;
        };
        compared.both += 1;
        if page_a.content(&mut buffer_a)? == page_b.content(&mut buffer_b)? {
            continue;
        }
        compared.pages += 1;
        let size = page_a.size() as u64;
        match compared.ranges.last_mut() {
            Some(last) if last.end == address => last.end += size,
            _ => compared.ranges.push(address..address + size),
        }
    }
}
