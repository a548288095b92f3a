// SPDX-License-Identifier: LGPL-2.1-or-later
//! One stream from the files of a chain: the youngest file, with the pages of all files in place of its own.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::index::Place;
use super::{Chain, ReadAt, is_link};
use crate::inspect::{ItemKind, SectionKind};
use crate::wire;
use crate::wire::ram;
use crate::wire::section::{encode_footer, encode_tag};

/// Bytes that are read from a file at once.
const WINDOW: usize = 256 << 10;
/// Bytes that are prepared for the reader at once, about.
const BATCH: usize = 256 << 10;

/// A part of the stream.
enum Piece {
    /// Bytes of the youngest file.
    Copy(Range<u64>),
    Bytes(Vec<u8>),
    /// All pages of a block of this index.
    Pages(usize),
}

/// A reader of one stream with all pages.
pub struct Flat<F> {
    chain: Arc<Chain<F>>,
    pieces: std::vec::IntoIter<Piece>,
    piece: Option<Piece>,
    /// The pages of the current piece that are left, and the name of the block for the first of them.
    pages: std::vec::IntoIter<(usize, Place)>,
    /// One window for each file.
    windows: Vec<Window>,
    out: Vec<u8>,
    taken: usize,
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

/// The pieces of the stream of a chain.
fn plan<F: ReadAt>(chain: &Chain<F>) -> Vec<Piece> {
    let stream = &chain.stream;
    let footers = stream.footers != Some(false);
    let mut pieces = Vec::new();
    let mut placed = false;
    for item in &stream.items {
        let ItemKind::Section(section) = &item.kind else {
            pieces.push(Piece::Copy(item.offset..item.offset + item.size));
            continue;
        };
        let is_ram = *section.device.name == *"ram" && matches!(section.kind, SectionKind::Part | SectionKind::End);
        if !is_ram && !is_link(section) {
            pieces.push(Piece::Copy(item.offset..item.offset + item.size));
        }
        if !is_ram || placed {
            continue;
        }
        placed = true;
        let head = |tag| {
            let mut bytes = Vec::new();
            encode_tag(&mut bytes, tag, section.id);
            bytes
        };
        let end = |mut bytes: Vec<u8>| {
            ram::encode_end(&mut bytes);
            if footers {
                encode_footer(&mut bytes, section.id);
            }
            Piece::Bytes(bytes)
        };
        pieces.push(Piece::Bytes(head(wire::SECTION_PART)));
        pieces.extend((0..stream.ram.blocks.len()).map(Piece::Pages));
        pieces.extend([end(Vec::new()), end(head(wire::SECTION_END))]);
    }
    pieces
}

impl<F: ReadAt> Flat<F> {
    pub(super) fn new(chain: Arc<Chain<F>>) -> Self {
        let pieces = match chain.layers.len() {
            // A full snapshot is returned as it is.
            1 => vec![Piece::Copy(0..chain.identity().length)],
            _ => plan(&chain),
        };
        Self {
            windows: chain.layers.iter().map(|_| Window::default()).collect(),
            chain,
            pieces: pieces.into_iter(),
            piece: None,
            pages: Vec::new().into_iter(),
            out: Vec::new(),
            taken: 0,
        }
    }

    /// Prepares more bytes. Leaves `out` empty at the end.
    fn fill(&mut self) -> io::Result<()> {
        self.out.clear();
        self.taken = 0;
        while self.out.len() < BATCH {
            let Some(piece) = self.piece.take().or_else(|| self.pieces.next()) else { break };
            self.piece = self.put(piece)?;
        }
        Ok(())
    }

    /// Appends a piece, or a part of it. Returns the rest.
    fn put(&mut self, piece: Piece) -> io::Result<Option<Piece>> {
        match piece {
            Piece::Bytes(bytes) => self.out.extend(bytes),
            Piece::Copy(range) => {
                let step = (range.end - range.start).min(WINDOW as u64);
                let bytes = self.windows[0].get(&self.chain.layers[0].file, range.start, step as usize)?;
                self.out.extend_from_slice(bytes);
                let rest = range.start + step..range.end;
                return Ok((!rest.is_empty()).then_some(Piece::Copy(rest)));
            }
            Piece::Pages(block) => {
                let name = Arc::clone(&self.chain.stream.ram.blocks[block].name);
                let mut first = None;
                if self.pages.len() == 0 {
                    self.pages = self.chain.pages(&name).into_iter();
                    first = Some(name.as_bytes());
                }
                while self.out.len() < BATCH {
                    let Some((layer, place)) = self.pages.next() else { return Ok(None) };
                    self.put_page(layer, place, first.take())?;
                }
                return Ok((self.pages.len() > 0).then_some(Piece::Pages(block)));
            }
        }
        Ok(None)
    }

    fn put_page(&mut self, layer: usize, place: Place, block: Option<&[u8]>) -> io::Result<()> {
        let Place { address, offset, fill, hash } = place;
        if let Some(fill) = fill {
            ram::encode_page_head(&mut self.out, ram::ZERO, address, block);
            self.out.push(fill);
            return Ok(());
        }
        ram::encode_page_head(&mut self.out, ram::PAGE, address, block);
        let chain = Arc::clone(&self.chain);
        let layer_of = &chain.layers[layer];
        let len = layer_of.page_size as usize;
        let fail = |what: String| io::Error::other(format!("{} at {offset:#x}: {what}", super::text(&layer_of.path)));
        let bytes = self.windows[layer].get(&layer_of.file, offset, len).map_err(|error| fail(error.to_string()))?;
        if xxh3_64(bytes) != hash {
            return Err(fail("the page was changed while the file was read".to_owned()));
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }
}

impl<F: ReadAt> Read for Flat<F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.out.len() {
            self.fill()?;
        }
        let left = &self.out[self.taken..];
        let count = left.len().min(into.len());
        into[..count].copy_from_slice(&left[..count]);
        self.taken += count;
        Ok(count)
    }
}
