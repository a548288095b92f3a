// SPDX-License-Identifier: LGPL-2.1-or-later
//! Guest memory of two streams, page by page.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use savevm_stream::inspect::{Block, Stream};

use crate::failure::{Context, Result};
use crate::memory::{FinalPage, Holds, PageIndex};

/// One of the two streams.
pub struct Side<'a> {
    /// What it holds.
    pub stream: &'a Stream,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Where its pages are.
    pub pages: &'a PageIndex,
}

/// What differs about a block of memory.
#[derive(Debug)]
pub struct BlockDifference {
    /// Its name.
    pub name: Arc<str>,
    /// Its length in A, if A has it.
    pub length_a: Option<u64>,
    /// Its length in B, if B has it.
    pub length_b: Option<u64>,
    /// Addresses within the block whose contents differ, in order.
    pub ranges: Vec<Range<u64>>,
    /// How many pages differ.
    pub pages: u64,
}

/// Compares all blocks, in the order of A and then those that B alone has.
pub fn compare(a: &Side<'_>, b: &Side<'_>) -> Result<Vec<BlockDifference>> {
    let find = |side: &Side<'_>, name: &str| side.stream.ram.blocks.iter().find(|block| *block.name == *name).cloned();
    let mut differences = Vec::new();
    for block in &a.stream.ram.blocks {
        let other = find(b, &block.name);
        let (mut ranges, mut pages) = (Vec::new(), 0);
        if other.is_some() {
            compare_block(a, b, block, &mut ranges, &mut pages).context(|| format!("RAM block {}", block.name))?;
        }
        let (length_a, length_b) = (Some(block.length), other.map(|other| other.length));
        if length_a != length_b || pages > 0 {
            differences.push(BlockDifference { name: block.name.clone(), length_a, length_b, ranges, pages });
        }
    }
    for block in b.stream.ram.blocks.iter().filter(|block| find(a, &block.name).is_none()) {
        let (name, length_b) = (block.name.clone(), Some(block.length));
        differences.push(BlockDifference { name, length_a: None, length_b, ranges: Vec::new(), pages: 0 });
    }
    Ok(differences)
}

/// Goes through the pages of both sides in order of their addresses. A page that a side does not send is zero there.
fn compare_block(
    a: &Side<'_>,
    b: &Side<'_>,
    block: &Block,
    ranges: &mut Vec<Range<u64>>,
    count: &mut u64,
) -> io::Result<()> {
    let mut pages_a = a.pages.pages(a.bytes, &block.name).peekable();
    let mut pages_b = b.pages.pages(b.bytes, &block.name).peekable();
    let (mut buffer_a, mut buffer_b) = (Vec::new(), Vec::new());
    loop {
        let next = [pages_a.peek(), pages_b.peek()].into_iter().flatten().map(FinalPage::address).min();
        let Some(address) = next else { return Ok(()) };
        let page_a = pages_a.next_if(|page| page.address() == address);
        let page_b = pages_b.next_if(|page| page.address() == address);
        let content_a = page_a.as_ref().map_or(Ok(Holds::Fill(0)), |page| page.content(&mut buffer_a))?;
        let content_b = page_b.as_ref().map_or(Ok(Holds::Fill(0)), |page| page.content(&mut buffer_b))?;
        if content_a == content_b {
            continue;
        }
        *count += 1;
        let size = page_a.as_ref().or(page_b.as_ref()).map_or(0, FinalPage::size) as u64;
        match ranges.last_mut() {
            Some(last) if last.end == address => last.end += size,
            _ => ranges.push(address..address + size),
        }
    }
}
