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
//! The lists may be hostile: each address is a multiple of the page size and within its block, each place is within its file,
//! and memory is taken from the [`Budget`].

use std::io;

use xxhash_rust::xxh3::xxh3_128;

use super::index::Blocks;
use super::plan::Piece;
use super::{Identity, Link, ReadAt};
use crate::budget::Budget;
use crate::wire::chain::{LIST_MAGIC, TRAILER_LEN, TRAILER_MAGIC};
use crate::wire::io::{Cut, Input, Output};
use crate::wire::page_runs::{HASH_LEN, Run};

/// Bytes of the shortest run.
const RUN_MIN: usize = 8 + 4 + 1 + 1;

/// Encodes the pages of a file in the order of the file.
pub(super) fn encode_pages(blocks: &Blocks, mapped: bool, page_size: u64) -> Vec<u8> {
    let mut out = vec![u8::from(mapped)];
    out.put_be32(page_size as u32);
    out.put_be32(blocks.iter().len() as u32);
    for block in blocks.iter() {
        out.put_name(block.name.as_bytes());
        out.put_be64(block.length);
        out.put_be32(block.runs.len() as u32);
        block.runs.iter().for_each(|run| encode_run(run, &block.hashes, &mut out));
    }
    out
}

fn encode_run(run: &Run, hashes: &[u8], out: &mut Vec<u8>) {
    out.put_be64(run.address);
    out.put_be32(run.count);
    match run.fill {
        Some(byte) => out.put(&[0, byte]),
        None => {
            out.put_u8(1);
            out.put_be64(run.offset);
            out.put_be32(run.distance);
            out.put(run.hashes(hashes));
        }
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
        let (mut blocks, most) = (Blocks::default(), input.len());
        budget.take(most).map_err(|error| error.to_string())?;
        let mut hashes = Vec::with_capacity(most);
        for _ in 0..input.get_be32("the number of blocks").map_err(cut)? {
            let name = std::str::from_utf8(input.get_name("the name of a block").map_err(cut)?);
            let name = name.map_err(|_| "its list has a block whose name is no text".to_owned())?;
            let length = input.get_be64("the length of a block").map_err(cut)?;
            Blocks::pay(budget, name).map_err(|error| error.to_string())?;
            let block = blocks.add(name.into(), length);
            let block = block.ok_or_else(|| format!("its list has block '{name}' twice"))?;
            let count = input.get_be32("the number of runs").map_err(cut)? as usize;
            if count > input.len() / RUN_MIN {
                return Err(cut(Cut("the last run")));
            }
            budget.take(count * size_of::<Run>()).map_err(|error| error.to_string())?;
            block.runs.reserve_exact(count);
            for _ in 0..count {
                block.runs.push(decode_run(&mut input, &mut hashes, (page_size, length, end))?);
            }
        }
        if !input.is_empty() {
            return Err("its list of pages has further bytes".to_owned());
        }
        hashes.shrink_to_fit();
        budget.give_back(most - hashes.len());
        blocks.set_hashes(hashes);
        Ok(Self { mapped, page_size, blocks })
    }
}

/// Decodes a run of a block of this length in a file that ends at `end`. Adds its hashes.
fn decode_run(
    input: &mut &[u8],
    hashes: &mut Vec<u8>,
    (page_size, length, end): (u64, u64, u64),
) -> Result<Run, String> {
    let address = input.get_be64("a page").map_err(cut)?;
    let count = input.get_be32("the number of pages").map_err(cut)?;
    let pages = u64::from(count);
    let last = pages.checked_sub(1).and_then(|more| address.checked_add(more * page_size));
    let last = last.filter(|last| *last < length && last.checked_add(page_size).is_some());
    let Some(last) = last.filter(|_| address.is_multiple_of(page_size)) else {
        return Err(format!("its list has {count} pages at 0x{address:x} of a block of {length} bytes"));
    };
    if input.get_u8("the kind of pages").map_err(cut)? == 0 {
        let fill = input.get_u8("the byte of pages").map_err(cut)?;
        return Ok(Run { count, ..Run::page(address, Some(fill), 0, 0) });
    }
    let offset = input.get_be64("the offset of a page").map_err(cut)?;
    let distance = input.get_be32("the distance of pages").map_err(cut)?;
    let size = page_size.min(length - last);
    let ahead = u64::from(distance).checked_mul(pages - 1);
    let behind = ahead.and_then(|ahead| offset.checked_add(ahead)?.checked_add(size));
    if behind.is_none_or(|behind| behind > end) {
        return Err(format!("its list has {count} pages at offset 0x{offset:x}, outside of the file"));
    }
    let hash = u32::try_from(hashes.len() / HASH_LEN).map_err(|_| "its list has more than 2^32 pages")?;
    hashes.extend_from_slice(take(input, pages * HASH_LEN as u64, "the hash of a page")?);
    Ok(Run { count, distance, ..Run::page(address, None, offset, hash) })
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
    /// The size of its pages in bytes.
    pub page_size: u64,
    /// The encoded pages.
    pub pages: &'a [u8],
    /// Those of the parent.
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
        let page_size = pages.get(1..).unwrap_or_default().get_be32("the page size").map_err(cut)?.into();
        let has_parent = input.get_u8("the pages of the parent").map_err(cut)? != 0;
        if !has_parent && !input.is_empty() {
            return Err("its list of pages has further bytes".to_owned());
        }
        let link = Link { parent: link.parent, name };
        let parent = has_parent.then_some(input);
        Ok(Parts { data, link, head, head_hash, page_size, pages, parent })
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
