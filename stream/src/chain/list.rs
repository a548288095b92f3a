// SPDX-License-Identifier: LGPL-2.1-or-later
//! The list of pages behind the stream of an incremental snapshot, with which a chain is opened without reading its pages.
//!
//! ```text
//! list:
//!   "SVMPAGES", hash(16) of all used bytes before the list
//!   the parent: length(be64), hash(16), name
//!   the stream without pages: number(be32) of pieces, each:
//!     0(1), length(be32), bytes; or 1(1), offset in the file(be64), length(be64)
//!   hash(16) of the stream without pages
//!   length(be64) of the pages, the pages
//!   1(1) and the pages of the parent, if that is a full snapshot; else 0(1)
//! pages:
//!   1(1) if pages have fixed places, else 0(1); page size(be32); number(be32) of blocks, each:
//!     name, length(be64), number(be32) of runs, each:
//!       address(be64), number of pages(be32), and
//!         0(1), byte(1) that fills the pages; or
//!         1(1), offset of the first page(be64), distance of the pages(be32), hash(be64) of each page
//! trailer:
//!   "SVMHASH1", length of the list(be64), hash(16) of the list
//! ```
//! A full snapshot has no list, since it is a stream that QEMU loads. Its first children have its list of pages.
//!
//! The lists may be hostile: each place is within its file, and memory is taken from the [`Budget`].

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use super::index::{Blocks, Place};
use super::plan::Piece;
use super::{Identity, Link, ReadAt, page_hash};
use crate::budget::Budget;
use crate::inspect::{Block, Page, Visitor};
use crate::wire::chain::{LIST_MAGIC, TRAILER_LEN, TRAILER_MAGIC};
use crate::wire::io::{Cut, Input, Output};

/// A run of pages at consecutive addresses, whose contents are alike or have the same distance from each other.
struct Run {
    address: u64,
    count: u32,
    fill: Option<u8>,
    offset: u64,
    distance: u64,
    hashes: Vec<u64>,
}

impl Run {
    fn new(place: &Place) -> Self {
        let Place { address, offset, fill, hash } = *place;
        let hashes = if fill.is_some() { Vec::new() } else { vec![hash] };
        Self { address, count: 1, fill, offset, distance: 0, hashes }
    }

    /// Adds a page of this size, if it continues the run.
    fn add(&mut self, place: &Place, page_size: u64) -> bool {
        let count = u64::from(self.count);
        let follows = self.address.checked_add(count.saturating_mul(page_size)) == Some(place.address);
        if !follows || self.count == u32::MAX || self.fill != place.fill {
            return false;
        }
        if self.fill.is_none() {
            let distance = if self.count == 1 { place.offset.wrapping_sub(self.offset) } else { self.distance };
            let expected = distance.checked_mul(count).and_then(|ahead| self.offset.checked_add(ahead));
            if expected != Some(place.offset) || distance > u64::from(u32::MAX) {
                return false;
            }
            self.distance = distance;
            self.hashes.push(place.hash);
        }
        self.count += 1;
        true
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_be64(self.address);
        out.put_be32(self.count);
        match self.fill {
            Some(byte) => out.put(&[0, byte]),
            None => {
                out.put_u8(1);
                out.put_be64(self.offset);
                out.put_be32(self.distance as u32);
                self.hashes.iter().for_each(|hash| out.put_be64(*hash));
            }
        }
    }
}

/// The encoded runs of a block.
struct BlockRuns {
    name: Arc<str>,
    length: u64,
    count: u32,
    bytes: Vec<u8>,
    last: Option<Run>,
}

impl BlockRuns {
    fn push(&mut self, place: &Place, page_size: u64) {
        if self.last.as_mut().is_some_and(|run| run.add(place, page_size)) {
            return;
        }
        self.end_run();
        self.last = Some(Run::new(place));
    }

    fn end_run(&mut self) {
        if let Some(run) = self.last.take() {
            run.encode(&mut self.bytes);
            self.count += 1;
        }
    }
}

/// Encodes the pages of a file in the order of the file.
#[derive(Default)]
pub(super) struct PageRuns {
    blocks: Vec<BlockRuns>,
    by_name: HashMap<Arc<str>, usize>,
    last: usize,
}

impl PageRuns {
    /// The pages of a file.
    pub fn of(blocks: &Blocks, page_size: u64) -> Self {
        let mut runs = Self::default();
        for block in blocks.iter() {
            let to = runs.block(&block.name, block.length);
            block.places.iter().for_each(|place| to.push(place, page_size));
        }
        runs
    }

    fn block(&mut self, name: &Arc<str>, length: u64) -> &mut BlockRuns {
        if self.blocks.get(self.last).is_none_or(|last| last.name != *name) {
            self.last = *self.by_name.entry(Arc::clone(name)).or_insert(self.blocks.len());
            if self.last == self.blocks.len() {
                self.blocks.push(BlockRuns { name: Arc::clone(name), length, count: 0, bytes: Vec::new(), last: None });
            }
        }
        &mut self.blocks[self.last]
    }

    /// Returns the encoded pages.
    pub fn encode(mut self, mapped: bool, page_size: u64) -> Vec<u8> {
        let mut out = vec![u8::from(mapped)];
        out.put_be32(page_size as u32);
        out.put_be32(self.blocks.len() as u32);
        for block in &mut self.blocks {
            block.end_run();
            out.put_name(block.name.as_bytes());
            out.put_be64(block.length);
            out.put_be32(block.count);
            out.append(&mut block.bytes);
        }
        out
    }
}

impl Visitor for PageRuns {
    const WANTS_PAGES: bool = true;
    const WANTS_HOLES: bool = false;
    const WANTS_STATES: bool = false;

    fn block(&mut self, block: &Block) -> io::Result<()> {
        self.block(&block.name, block.length);
        Ok(())
    }

    fn page(&mut self, block: &Block, address: u64, page: Page<'_>, offset: u64) -> io::Result<()> {
        let (fill, hash, size) = match page {
            Page::Fill(fill, size) => (Some(fill), 0, size),
            Page::Plain(bytes) => (None, page_hash(bytes), bytes.len() as u64),
            // Such a file can't be part of a chain, which is found when the chain is opened.
            Page::Xbzrle(..) | Page::Compressed(..) => return Ok(()),
        };
        self.block(&block.name, block.length).push(&Place { address, offset, fill, hash }, size);
        Ok(())
    }
}

fn cut(Cut(what): Cut) -> String {
    format!("its list of pages ends before {what}")
}

/// The pages of a file, as a list has them.
pub(super) struct ListedPages {
    pub mapped: bool,
    pub page_size: u64,
    pub blocks: Blocks,
}

impl ListedPages {
    /// Decodes the pages of a file that ends at `end`.
    pub fn decode(mut input: &[u8], end: u64, budget: &mut Budget) -> Result<Self, String> {
        let mapped = input.get_u8("the kind of the file").map_err(cut)? != 0;
        let page_size = u64::from(input.get_be32("the page size").map_err(cut)?);
        if !page_size.is_power_of_two() {
            return Err(format!("its list has pages of {page_size} bytes"));
        }
        let mut blocks = Blocks::default();
        for _ in 0..input.get_be32("the number of blocks").map_err(cut)? {
            let name = std::str::from_utf8(input.get_name("the name of a block").map_err(cut)?);
            let name = name.map_err(|_| "its list has a block whose name is no text".to_owned())?;
            let length = input.get_be64("the length of a block").map_err(cut)?;
            Blocks::pay(budget, name).map_err(|error| error.to_string())?;
            let block = blocks.add(name.into(), length);
            let places = &mut block.ok_or_else(|| format!("its list has block '{name}' twice"))?.places;
            for _ in 0..input.get_be32("the number of runs").map_err(cut)? {
                decode_run(&mut input, (page_size, length, end), places, budget)?;
            }
        }
        if !input.is_empty() {
            return Err("its list of pages has further bytes".to_owned());
        }
        Ok(Self { mapped, page_size, blocks })
    }
}

/// Decodes a run of a block of this length in a file that ends at `end`.
fn decode_run(
    input: &mut &[u8],
    (page_size, length, end): (u64, u64, u64),
    places: &mut Vec<Place>,
    budget: &mut Budget,
) -> Result<(), String> {
    let address = input.get_be64("a page").map_err(cut)?;
    let count = u64::from(input.get_be32("the number of pages").map_err(cut)?);
    let last = count.checked_sub(1).and_then(|more| address.checked_add(more * page_size));
    if last.is_none_or(|last| last >= length) {
        return Err(format!("its list has {count} pages at 0x{address:x} of a block of {length} bytes"));
    }
    budget.take((count as usize).saturating_mul(size_of::<Place>())).map_err(|error| error.to_string())?;
    let addresses = (0..count).map(|number| address + number * page_size);
    if input.get_u8("the kind of pages").map_err(cut)? == 0 {
        let fill = Some(input.get_u8("the byte of pages").map_err(cut)?);
        places.extend(addresses.map(|address| Place { address, offset: 0, fill, hash: 0 }));
        return Ok(());
    }
    let offset = input.get_be64("the offset of a page").map_err(cut)?;
    let distance = u64::from(input.get_be32("the distance of pages").map_err(cut)?);
    let size = page_size.min(length - last.unwrap_or(address));
    let behind = distance.checked_mul(count - 1).and_then(|ahead| offset.checked_add(ahead)?.checked_add(size));
    if behind.is_none_or(|behind| behind > end) {
        return Err(format!("its list has {count} pages at offset 0x{offset:x}, outside of the file"));
    }
    for (number, address) in addresses.enumerate() {
        let hash = input.get_be64("the hash of a page").map_err(cut)?;
        places.push(Place { address, offset: offset + number as u64 * distance, fill: None, hash });
    }
    Ok(())
}

/// The list behind a file, whose hash is good.
pub(super) struct Found {
    bytes: Vec<u8>,
    /// The end of the file without the list.
    pub end: u64,
    /// The identity of the file.
    pub identity: Identity,
}

/// The parts of a list.
pub(super) struct Parts<'a> {
    pub data: [u8; 16],
    pub link: Link<String>,
    pub head: Vec<HeadPiece<'a>>,
    pub head_hash: [u8; 16],
    pub pages: &'a [u8],
    /// The pages of the parent.
    pub parent: Option<&'a [u8]>,
}

/// A part of the stream without pages.
pub(super) enum HeadPiece<'a> {
    Bytes(&'a [u8]),
    /// An offset in the file, and a length.
    Range(u64, u64),
}

/// Fills a buffer with the bytes at an offset. Returns whether the file has them.
fn read_exact(file: &impl ReadAt, offset: u64, into: &mut [u8]) -> io::Result<bool> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(offset + done as u64, &mut into[done..])? {
            0 => return Ok(false),
            count => done += count,
        }
    }
    Ok(true)
}

impl Found {
    /// Finds the list of a file. `None` if there is none with the right hash.
    pub fn read(file: &impl ReadAt, budget: &mut Budget) -> io::Result<Option<Self>> {
        let length = file.length()?;
        let (mut trailer, at) = ([0; TRAILER_LEN], length.saturating_sub(TRAILER_LEN as u64));
        if length < TRAILER_LEN as u64 || !read_exact(file, at, &mut trailer)? {
            return Ok(None);
        }
        let (magic, rest) = trailer.split_at(TRAILER_MAGIC.len());
        let mut rest = rest;
        let (Ok(size), Ok(hash)) = (rest.get_be64("its length"), Input::get(&mut rest, "its hash")) else {
            return Ok(None);
        };
        let Some(end) = at.checked_sub(size).filter(|_| magic == TRAILER_MAGIC) else { return Ok(None) };
        let size = usize::try_from(size).map_err(io::Error::other)?;
        budget.take(size).map_err(io::Error::other)?;
        let mut bytes = vec![0; size];
        if !read_exact(file, end, &mut bytes)? || !bytes.starts_with(LIST_MAGIC) || digest(&bytes) != hash {
            return Ok(None);
        }
        Ok(Some(Self { bytes, end, identity: Identity { length, hash } }))
    }

    /// Decodes the list.
    pub fn parts(&self) -> Result<Parts<'_>, String> {
        let mut input = &self.bytes[LIST_MAGIC.len()..];
        let data = Input::get(&mut input, "the hash of the file").map_err(cut)?;
        let link = Link::decode(&mut input).map_err(cut)?;
        let name = std::str::from_utf8(link.name).map_err(|_| "the name of its parent is no text")?.to_owned();
        let mut head = Vec::new();
        for _ in 0..input.get_be32("the stream").map_err(cut)? {
            head.push(match input.get_u8("a piece of the stream").map_err(cut)? {
                0 => {
                    let length = u64::from(input.get_be32("the length of a piece").map_err(cut)?);
                    HeadPiece::Bytes(take(&mut input, length, "a piece of the stream")?)
                }
                _ => {
                    let offset = input.get_be64("the offset of a piece").map_err(cut)?;
                    HeadPiece::Range(offset, input.get_be64("the length of a piece").map_err(cut)?)
                }
            });
        }
        let head_hash = Input::get(&mut input, "the hash of the stream").map_err(cut)?;
        let length = input.get_be64("the pages").map_err(cut)?;
        let pages = take(&mut input, length, "the pages")?;
        let has_parent = input.get_u8("the pages of the parent").map_err(cut)? != 0;
        if !has_parent && !input.is_empty() {
            return Err("its list of pages has further bytes".to_owned());
        }
        let link = Link { parent: link.parent, name };
        Ok(Parts { data, link, head, head_hash, pages, parent: has_parent.then_some(input) })
    }

    /// Whether the list consists of these bytes.
    pub fn is(&self, list: &[u8]) -> bool {
        self.bytes == list
    }
}

fn take<'a>(input: &mut &'a [u8], length: u64, what: &'static str) -> Result<&'a [u8], String> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let (taken, rest) = input.split_at_checked(length).ok_or_else(|| cut(Cut(what)))?;
    *input = rest;
    Ok(taken)
}

fn digest(bytes: &[u8]) -> [u8; 16] {
    xxh3_128(bytes).to_be_bytes()
}

impl Parts<'_> {
    /// Reads the stream without pages. Fails if it does not have its hash.
    pub fn head(&self, file: &impl ReadAt, budget: &mut Budget) -> Result<Vec<u8>, String> {
        let mut head = Vec::new();
        for piece in &self.head {
            match *piece {
                HeadPiece::Bytes(bytes) => {
                    budget.take(bytes.len()).map_err(|error| error.to_string())?;
                    head.extend_from_slice(bytes);
                }
                HeadPiece::Range(offset, length) => {
                    let length = usize::try_from(length).unwrap_or(usize::MAX);
                    budget.take(length).map_err(|error| error.to_string())?;
                    let start = head.len();
                    head.resize(start + length, 0);
                    if offset.checked_add(length as u64).is_none()
                        || !read_exact(file, offset, &mut head[start..]).map_err(|error| error.to_string())?
                    {
                        return Err("its list has a piece outside of the file".to_owned());
                    }
                }
            }
        }
        match digest(&head) == self.head_hash {
            true => Ok(head),
            false => Err("it is damaged: its devices do not have the hash in its list of pages".to_owned()),
        }
    }
}

/// Encodes the list of a file. `head` are the pieces of its stream without pages, `pages` its encoded pages, `parent` those of a
/// parent that is a full snapshot.
pub(super) fn encode(
    file: &impl ReadAt,
    (data, link): ([u8; 16], &Link<String>),
    head: Vec<Piece>,
    pages: &[u8],
    parent: Option<&[u8]>,
) -> io::Result<Vec<u8>> {
    let (mut out, mut whole) = (LIST_MAGIC.to_vec(), Vec::new());
    out.put(&data);
    link.encode(&mut out);
    out.put_be32(head.len() as u32);
    for piece in head {
        match piece {
            Piece::Bytes(bytes) => {
                out.put_u8(0);
                out.put_be32(bytes.len() as u32);
                out.put(&bytes);
                whole.extend(bytes);
            }
            Piece::Copy(range) => {
                out.put_u8(1);
                out.put_be64(range.start);
                out.put_be64(range.end - range.start);
                let start = whole.len();
                whole.resize(start + (range.end - range.start) as usize, 0);
                if !read_exact(file, range.start, &mut whole[start..])? {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            _ => return Err(io::Error::other("a stream without pages has pages")),
        }
    }
    out.put(&digest(&whole));
    out.put_be64(pages.len() as u64);
    out.put(pages);
    out.put_u8(u8::from(parent.is_some()));
    out.put(parent.unwrap_or_default());
    Ok(out)
}

/// Appends the trailer to a list.
pub(super) fn finish(mut list: Vec<u8>) -> (Vec<u8>, [u8; 16]) {
    let (hash, length) = (digest(&list), list.len() as u64);
    list.put(TRAILER_MAGIC);
    list.put_be64(length);
    list.put(&hash);
    (list, hash)
}
