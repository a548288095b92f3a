// SPDX-License-Identifier: LGPL-2.1-or-later
//! Guest memory in a stream: the pages and their contents.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use flate2::{Decompress, FlushDecompress};
use savevm_stream::inspect::{Block, Budget, Page, Visitor};
use savevm_stream::wire::xbzrle;

/// Applies a record of the stream to the page in `buffer`. The buffer has the page's size and holds its previous contents.
pub fn apply_record(page: Page<'_>, buffer: &mut [u8]) -> io::Result<()> {
    let whole = match page {
        Page::Fill(byte, _) => {
            buffer.fill(byte);
            true
        }
        Page::Plain(bytes) => {
            buffer.copy_from_slice(bytes);
            true
        }
        Page::Xbzrle(runs, _) => xbzrle::decode(runs, buffer).is_ok(),
        Page::Compressed(bytes, _) => inflate(bytes, buffer),
    };
    if whole { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "a compressed page is invalid")) }
}

fn inflate(bytes: &[u8], buffer: &mut [u8]) -> bool {
    let mut zlib = Decompress::new(true);
    zlib.decompress(bytes, buffer, FlushDecompress::Finish).is_ok() && zlib.total_out() == buffer.len() as u64
}

/// Returns the size of a page in memory, in bytes.
pub fn size_of_page(page: Page<'_>) -> usize {
    match page {
        Page::Plain(bytes) => bytes.len(),
        Page::Fill(_, size) | Page::Xbzrle(_, size) | Page::Compressed(_, size) => size as usize,
    }
}

/// A set of pages of a block. Its memory depends on the pages in it, not on the block's length.
#[derive(Default)]
pub struct PageSet {
    /// One bit per page, for each stretch of the block.
    stretches: HashMap<u64, [u64; STRETCH]>,
    count: u64,
    budget: Budget,
}

/// Length of a stretch in words of 64 pages.
const STRETCH: usize = 8;

impl PageSet {
    /// Returns a set that takes at most this much memory.
    pub fn new(budget: Budget) -> Self {
        Self { budget, ..Self::default() }
    }

    /// Returns the number of pages in the set.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds the page with this number to the set, or removes it.
    pub fn set(&mut self, page: u64, there: bool) -> io::Result<()> {
        let (number, word, bit) = (page / (64 * STRETCH as u64), page / 64 % STRETCH as u64, page % 64);
        let stretch = match self.stretches.get_mut(&number) {
            Some(stretch) => stretch,
            None if !there => return Ok(()),
            None => {
                if self.stretches.len() == self.stretches.capacity() {
                    // A growing table holds its old and new memory at the same time.
                    let more = self.stretches.capacity().max(64);
                    self.budget.take(3 * more * size_of::<(u64, [u64; STRETCH])>()).map_err(io::Error::other)?;
                    self.stretches.reserve(more);
                }
                self.stretches.entry(number).or_default()
            }
        };
        let before = stretch[word as usize];
        stretch[word as usize] = before & !(1 << bit) | u64::from(there) << bit;
        self.count = self.count + u64::from(there) - (before >> bit & 1);
        Ok(())
    }
}

/// One record of a page in a stream.
#[derive(Clone, Debug)]
struct Record {
    address: u64,
    size: u32,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Fill(u8),
    Plain(Range<usize>),
    Xbzrle(Range<usize>),
    Compressed(Range<usize>),
}

/// Index of the pages of a stream in memory.
#[derive(Default)]
pub struct PageIndex {
    blocks: HashMap<Arc<str>, Vec<Record>>,
    budget: Budget,
}

impl PageIndex {
    /// Creates an index that takes at most this much memory.
    pub fn new(budget: Budget) -> Self {
        Self { budget, ..Self::default() }
    }

    /// Sorts the pages by address. Records of one page stay in the order of the stream.
    pub fn sort(&mut self) {
        for records in self.blocks.values_mut() {
            records.sort_by_key(|record| record.address);
        }
    }

    /// Returns the pages of a block. Requires that the index is sorted.
    pub fn pages<'a>(&'a self, stream: &'a [u8], block: &str) -> Pages<'a> {
        let records = self.blocks.get(block).map(Vec::as_slice).unwrap_or_default();
        Pages { stream, records }
    }
}

impl Visitor for PageIndex {
    const WANTS_PAGES: bool = true;

    fn page(&mut self, block: &Block, address: u64, page: Page<'_>, offset: u64) -> io::Result<()> {
        let range = |bytes: &[u8]| offset as usize..offset as usize + bytes.len();
        let content = match page {
            Page::Fill(byte, _) => Content::Fill(byte),
            Page::Plain(bytes) => Content::Plain(range(bytes)),
            Page::Xbzrle(bytes, _) => Content::Xbzrle(range(bytes)),
            Page::Compressed(bytes, _) => Content::Compressed(range(bytes)),
        };
        let records = match self.blocks.get_mut(&block.name) {
            Some(records) => records,
            None => self.blocks.entry(block.name.clone()).or_default(),
        };
        if records.len() == records.capacity() {
            let more = records.capacity().max(4);
            self.budget.take(more * size_of::<Record>()).map_err(io::Error::other)?;
            records.reserve_exact(more);
        }
        records.push(Record { address, size: size_of_page(page) as u32, content });
        Ok(())
    }
}

/// The pages of a block by rising address, each with its last contents.
pub struct Pages<'a> {
    stream: &'a [u8],
    records: &'a [Record],
}

/// A page with its last contents.
pub struct FinalPage<'a> {
    stream: &'a [u8],
    /// All records of the page in the order of the stream; at least one.
    records: &'a [Record],
}

impl<'a> Iterator for Pages<'a> {
    type Item = FinalPage<'a>;

    fn next(&mut self) -> Option<FinalPage<'a>> {
        let address = self.records.first()?.address;
        let count = self.records.iter().take_while(|record| record.address == address).count();
        let (records, rest) = self.records.split_at(count);
        self.records = rest;
        Some(FinalPage { stream: self.stream, records })
    }
}

impl FinalPage<'_> {
    /// Returns the offset in the block.
    pub fn address(&self) -> u64 {
        self.records[0].address
    }

    /// Returns the size in bytes.
    pub fn size(&self) -> usize {
        self.records[0].size as usize
    }

    /// Returns the contents. Uses `buffer` if several records make up the page.
    pub fn content<'b>(&'b self, buffer: &'b mut Vec<u8>) -> io::Result<Holds<'b>> {
        match &self.records[self.records.len() - 1].content {
            Content::Fill(byte) => return Ok(Holds::Fill(*byte)),
            Content::Plain(range) => return Ok(Holds::Bytes(&self.stream[range.clone()])),
            _ => {}
        }
        buffer.clear();
        buffer.resize(self.size(), 0);
        let is_base = |record: &Record| !matches!(record.content, Content::Xbzrle(_));
        let base = self.records.iter().rposition(is_base).unwrap_or(0);
        for record in &self.records[base..] {
            apply_record(record.page(self.stream), buffer)?;
        }
        Ok(Holds::Bytes(buffer))
    }
}

impl Record {
    fn page<'a>(&self, stream: &'a [u8]) -> Page<'a> {
        let size = self.size.into();
        match &self.content {
            Content::Fill(byte) => Page::Fill(*byte, size),
            Content::Plain(range) => Page::Plain(&stream[range.clone()]),
            Content::Xbzrle(range) => Page::Xbzrle(&stream[range.clone()], size),
            Content::Compressed(range) => Page::Compressed(&stream[range.clone()], size),
        }
    }
}

/// Contents of a page.
#[derive(Clone, Copy, Debug)]
pub enum Holds<'a> {
    /// One repeated byte.
    Fill(u8),
    /// These bytes.
    Bytes(&'a [u8]),
}

impl PartialEq for Holds<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fill(a), Self::Fill(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Fill(byte), Self::Bytes(bytes)) | (Self::Bytes(bytes), Self::Fill(byte)) => {
                bytes.iter().all(|other| other == byte)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_has_its_last_contents() {
        let mut stream = vec![7; 16];
        stream.extend([1, 2, 9, 9]);
        let block = Block { name: "b".into(), ..Block::default() };
        let mut index = PageIndex::default();
        index.page(&block, 16, Page::Fill(3, 16), 0).unwrap();
        index.page(&block, 0, Page::Plain(&stream[..16]), 0).unwrap();
        index.page(&block, 0, Page::Xbzrle(&stream[16..], 16), 16).unwrap();
        index.sort();
        let pages: Vec<_> = index.pages(&stream, "b").collect();
        assert_eq!(pages.iter().map(FinalPage::address).collect::<Vec<_>>(), [0, 16]);
        let mut expected = vec![7; 16];
        expected[1..3].fill(9);
        assert_eq!(pages[0].content(&mut Vec::new()).unwrap(), Holds::Bytes(&expected));
        assert_eq!(pages[1].content(&mut Vec::new()).unwrap(), Holds::Bytes(&[3; 16]));
        assert!(index.pages(&stream, "other").next().is_none());
    }

    #[test]
    fn set_counts_each_page_once() {
        let mut set = PageSet::default();
        for page in [0, 1, 1, 511, 512, 1 << 50, 0] {
            set.set(page, true).unwrap();
        }
        assert_eq!(set.count(), 5);
        for page in [1, 1, 7, 1 << 40] {
            set.set(page, false).unwrap();
        }
        assert_eq!(set.count(), 4);
        let mut set = PageSet::new(Budget::new(100_000));
        assert!((0..1 << 20).try_for_each(|page| set.set(page << 20, true)).is_err());
    }

    #[test]
    fn index_stays_within_its_budget() {
        let mut index = PageIndex::new(Budget::new(100_000));
        let block = Block { name: "b".into(), ..Block::default() };
        let result = (0..1 << 20).try_for_each(|page| index.page(&block, page << 12, Page::Fill(0, 4096), 0));
        assert!(result.is_err());
    }
}
