// SPDX-License-Identifier: LGPL-2.1-or-later
//! One snapshot from the files of a chain: the youngest file, with the pages of all files in place of its own.

use std::io::{self, Read};
use std::sync::Arc;

use super::plan::{Piece, plan};
use super::{Chain, Content, PagePlace, Pages, ReadAt, page_hash};
use crate::wire::ram;

/// Bytes that are read from a file at once.
const WINDOW: usize = 256 << 10;
/// Bytes that are prepared for the reader at once, about.
const BATCH: usize = 256 << 10;

/// The form of a flattened snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlatForm {
    /// A stream with a record for each page.
    Stream,
    /// Each page has a fixed place in the file (mapped-ram).
    Mapped,
    /// A stream with all devices and the list of blocks, but without pages.
    WithoutPages,
}

impl FlatForm {
    pub(super) fn is_mapped(self) -> bool {
        self == Self::Mapped
    }
}

/// A part of the snapshot's bytes.
#[derive(Debug)]
pub enum Part<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// This number of zeros, which may be a hole of the file.
    Hole(u64),
}

/// A reader of one snapshot with all pages.
pub struct Flat<F> {
    chain: Arc<Chain<F>>,
    form: FlatForm,
    /// Made by the first read.
    pieces: Option<std::vec::IntoIter<Piece>>,
    piece: Option<Piece>,
    /// The pages of the current block that are left.
    pages: Option<BlockPages>,
    /// One window for each file.
    windows: Vec<Window>,
    out: Vec<u8>,
    taken: usize,
    /// Zeros that follow `out`.
    hole: u64,
}

/// The pages of a block that are left.
struct BlockPages {
    pages: Arc<Pages>,
    /// Index of the run of the next page that a file has, and the number of the page in it.
    run: usize,
    within: u32,
    /// Address of the next page.
    next: u64,
    length: u64,
    /// The name of the block for its first record.
    name: Option<Arc<str>>,
}

impl BlockPages {
    fn new<F: ReadAt>(chain: &Chain<F>, at: usize) -> Self {
        let block = &chain.stream.ram.blocks[at];
        let (pages, name) = (Arc::clone(&chain.pages[at]), Some(Arc::clone(&block.name)));
        Self { pages, run: 0, within: 0, next: 0, length: block.length, name }
    }

    /// The next page that a file has.
    fn peek(&self) -> Option<PagePlace> {
        self.pages.runs().get(self.run).map(|run| self.pages.place(run, self.within))
    }

    /// Takes the page at `next`, if a file has it.
    fn take(&mut self) -> Option<PagePlace> {
        let place = self.peek().filter(|place| place.address == self.next)?;
        self.within += 1;
        if self.within == self.pages.runs()[self.run].count {
            (self.run, self.within) = (self.run + 1, 0);
        }
        Some(place)
    }

    /// The number of bytes from `next` on that no file has.
    fn gap(&self) -> u64 {
        self.peek().map_or(self.length, |place| place.address).saturating_sub(self.next)
    }
}

/// A part of a file that was read in advance.
#[derive(Default)]
struct Window {
    offset: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// Returns `len` bytes at an offset.
    fn get(&mut self, file: &impl ReadAt, offset: u64, len: usize) -> io::Result<&[u8]> {
        let within = offset.checked_sub(self.offset).and_then(|start| usize::try_from(start).ok());
        let held = within.filter(|start| start.checked_add(len).is_some_and(|end| end <= self.bytes.len()));
        let start = match held {
            Some(start) => start,
            None => {
                self.bytes.resize(WINDOW.max(len), 0);
                self.offset = offset;
                let mut count = 0;
                while count < len {
                    match file.read_at(offset + count as u64, &mut self.bytes[count..])? {
                        0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter")),
                        more => count += more,
                    }
                }
                self.bytes.truncate(count);
                0
            }
        };
        Ok(&self.bytes[start..start + len])
    }
}

impl<F: ReadAt> Flat<F> {
    pub(super) fn new(chain: Arc<Chain<F>>, form: FlatForm) -> Self {
        let windows = chain.layers.iter().map(|_| Window::default()).collect();
        let (pieces, piece, pages) = (None, None, None);
        Self { windows, chain, form, pieces, piece, pages, out: Vec::new(), taken: 0, hole: 0 }
    }

    /// Returns the next part; `None` at the end.
    pub fn next_part(&mut self) -> io::Result<Option<Part<'_>>> {
        if self.taken == self.out.len() && self.hole == 0 {
            self.fill()?;
        }
        if self.taken < self.out.len() {
            let start = std::mem::replace(&mut self.taken, self.out.len());
            return Ok(Some(Part::Bytes(&self.out[start..])));
        }
        match std::mem::take(&mut self.hole) {
            0 => Ok(None),
            count => Ok(Some(Part::Hole(count))),
        }
    }

    /// Prepares more bytes, or a hole. Prepares nothing at the end.
    fn fill(&mut self) -> io::Result<()> {
        self.out.clear();
        self.taken = 0;
        if self.pieces.is_none() {
            self.pieces = Some(plan(&self.chain.shape(), self.form)?.into_iter());
        }
        while self.out.len() < BATCH && self.hole == 0 {
            let piece = self.piece.take().or_else(|| self.pieces.as_mut().and_then(Iterator::next));
            let Some(piece) = piece else { break };
            self.piece = self.put(piece)?;
        }
        Ok(())
    }

    /// Appends a piece, or a part of it. Returns the rest.
    fn put(&mut self, piece: Piece) -> io::Result<Option<Piece>> {
        match piece {
            Piece::Bytes(bytes) => self.out.extend(bytes),
            Piece::Hole(count) => self.hole = count,
            Piece::Copy(range) if self.chain.head.is_some() => {
                let head = self.chain.head.as_deref().unwrap_or_default();
                let bytes = head.get(range.start as usize..range.end as usize);
                self.out.extend_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            }
            Piece::Copy(range) => {
                let step = (range.end - range.start).min(WINDOW as u64);
                let bytes = self.windows[0].get(&self.chain.layers[0].file, range.start, step as usize)?;
                self.out.extend_from_slice(bytes);
                let rest = range.start + step..range.end;
                return Ok((!rest.is_empty()).then_some(Piece::Copy(rest)));
            }
            Piece::Bitmap(block, size) => {
                let (start, page_size) = (self.out.len(), self.chain.page_size());
                self.out.resize(start + size as usize, 0);
                let runs = self.chain.pages[block].runs().iter().filter(|run| run.fill != Some(0));
                for page in runs.flat_map(|run| run.address / page_size..run.end(page_size) / page_size) {
                    if let Some(byte) = self.out.get_mut(start + (page / 8) as usize) {
                        *byte |= 1 << (page % 8);
                    }
                }
            }
            Piece::Records(block) | Piece::Pages(block) => {
                let is_record = matches!(piece, Piece::Records(_));
                let mut pages = self.pages.take().unwrap_or_else(|| BlockPages::new(&self.chain, block));
                let more = if is_record { self.put_records(&mut pages) } else { self.put_pages(&mut pages) }?;
                self.pages = more.then_some(pages);
                return Ok(more.then_some(piece));
            }
        }
        Ok(None)
    }

    /// Appends records of pages. Returns whether there are more.
    fn put_records(&mut self, pages: &mut BlockPages) -> io::Result<bool> {
        let (page_size, zeros) = (self.chain.page_size(), self.chain.is_filled());
        while self.out.len() < BATCH {
            if !zeros {
                // Shared memory has no pages.
                pages.next += pages.gap();
            }
            if pages.next >= pages.length {
                return Ok(false);
            }
            let (address, found, name) = (pages.next, pages.take(), pages.name.take());
            let name = name.as_deref().map(str::as_bytes);
            pages.next += page_size;
            let content = found.map_or(Content::Filled(0), |place| place.content);
            let kind = if matches!(content, Content::Filled(_)) { ram::ZERO } else { ram::PAGE };
            ram::encode_page_head(&mut self.out, kind, address, name);
            match content {
                Content::Filled(byte) => self.out.push(byte),
                Content::At { file, offset, hash } => self.put_content((file, offset), hash, page_size as usize)?,
            }
        }
        Ok(true)
    }

    /// Appends pages, or a hole. Returns whether there are more.
    fn put_pages(&mut self, pages: &mut BlockPages) -> io::Result<bool> {
        let page_size = self.chain.page_size();
        while self.out.len() < BATCH && pages.next < pages.length {
            let gap = pages.gap();
            if gap > 0 {
                pages.next += gap;
                self.hole = gap;
                break;
            }
            let len = page_size.min(pages.length - pages.next);
            let Some(place) = pages.take() else { return Err(io::Error::other("two pages overlap")) };
            pages.next += len;
            match place.content {
                Content::Filled(0) => {
                    self.hole = len;
                    break;
                }
                Content::Filled(byte) => self.out.resize(self.out.len() + len as usize, byte),
                Content::At { file, offset, hash } => self.put_content((file, offset), hash, len as usize)?,
            }
        }
        Ok(pages.next < pages.length)
    }

    fn put_content(&mut self, (layer, offset): (usize, u64), hash: u64, len: usize) -> io::Result<()> {
        let of = &self.chain.layers[layer];
        let fail = |what: String| io::Error::other(format!("{} at {offset:#x}: {what}", super::text(&of.path)));
        let bytes = self.windows[layer].get(&of.file, offset, len).map_err(|error| fail(error.to_string()))?;
        if page_hash(bytes) != hash {
            return Err(fail("the page was changed while the file was read".to_owned()));
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }
}

impl<F: ReadAt> Read for Flat<F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.out.len() && self.hole == 0 {
            self.fill()?;
        }
        let left = &self.out[self.taken..];
        if left.is_empty() {
            let count = usize::try_from(self.hole).unwrap_or(usize::MAX).min(into.len());
            into[..count].fill(0);
            self.hole -= count as u64;
            return Ok(count);
        }
        let count = left.len().min(into.len());
        into[..count].copy_from_slice(&left[..count]);
        self.taken += count;
        Ok(count)
    }
}
