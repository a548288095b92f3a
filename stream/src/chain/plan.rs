// SPDX-License-Identifier: LGPL-2.1-or-later
//! The pieces of a flattened snapshot: what is copied from the youngest file, and what is written anew.

use std::io;
use std::ops::Range;

use super::{FlatForm, is_link};
use crate::inspect::{Configuration, Item, ItemKind, Section, SectionKind, Stream};
use crate::wire;
use crate::wire::configuration::{self, Content};
use crate::wire::mapped::{CAPABILITY, Header, bitmap_size};
use crate::wire::ram;
use crate::wire::section::{encode_footer, encode_tag};

/// A part of the snapshot.
pub(super) enum Piece {
    /// Bytes of the youngest file.
    Copy(Range<u64>),
    Bytes(Vec<u8>),
    /// Zero bytes that may be a hole of the file.
    Hole(u64),
    /// Records with all pages of the block with this index.
    Records(usize),
    /// The bitmap of a block: its index, and the size of the bitmap in bytes.
    Bitmap(usize, u64),
    /// All pages of a block, each at its place.
    Pages(usize),
}

/// Collects pieces, and counts where they are in the snapshot.
#[derive(Default)]
struct Pieces {
    list: Vec<Piece>,
    /// Where the next piece begins. Unknown behind records, which a mapped snapshot does not have.
    offset: u64,
}

impl Pieces {
    fn put(&mut self, piece: Piece) {
        self.offset += match &piece {
            Piece::Copy(range) => range.end - range.start,
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::Hole(count) => *count,
            Piece::Bitmap(_, size) => *size,
            Piece::Records(_) | Piece::Pages(_) => 0,
        };
        self.list.push(piece);
    }

    fn copy(&mut self, item: &Item) {
        self.put(Piece::Copy(item.offset..item.offset + item.size));
    }
}

/// What the pieces depend on.
pub(super) struct Shape<'a> {
    /// The stream of the youngest file.
    pub stream: &'a Stream,
    /// Pages have fixed places in that stream.
    pub mapped: bool,
    pub page_size: u64,
    /// Length of the file, if the chain is a full snapshot.
    pub full: Option<u64>,
}

/// Returns the pieces of a chain in this form.
pub(super) fn plan(chain: &Shape<'_>, form: FlatForm) -> io::Result<Vec<Piece>> {
    let is_changed = form.is_mapped() != chain.mapped;
    let mut pieces = Pieces::default();
    if let Some(length) = chain.full.filter(|_| !is_changed && form != FlatForm::WithoutPages) {
        // A full snapshot is returned as it is.
        pieces.put(Piece::Copy(0..length));
        return Ok(pieces.list);
    }
    let mut placed = false;
    for item in &chain.stream.items {
        match &item.kind {
            ItemKind::Configuration if is_changed => {
                let machine = chain.stream.configuration.as_ref();
                pieces.put(Piece::Bytes(machine.map_or(Vec::new(), |machine| configure(machine, form))));
            }
            ItemKind::Section(section) if *section.device.name == *"ram" => match section.kind {
                SectionKind::Start if is_changed || form.is_mapped() => {
                    list_blocks(chain, form, (item, section), &mut pieces)?;
                }
                SectionKind::Part | SectionKind::End if placed => {}
                SectionKind::Part | SectionKind::End => {
                    placed = true;
                    put_pages(chain, form, section.id, &mut pieces);
                }
                _ => pieces.copy(item),
            },
            ItemKind::Section(section) if is_link(section) => {}
            _ => pieces.copy(item),
        }
    }
    Ok(pieces.list)
}

/// The configuration section, with the capability of mapped RAM or without it.
fn configure(machine: &Configuration, form: FlatForm) -> Vec<u8> {
    let mut bytes = vec![wire::CONFIGURATION];
    configuration::encode_machine(&mut bytes, machine.machine.as_bytes());
    let others = machine.capabilities.iter().map(|name| &**name).filter(|name| *name != CAPABILITY);
    let capabilities: Vec<_> = others.chain(form.is_mapped().then_some(CAPABILITY)).map(str::as_bytes).collect();
    let contents = [
        machine.page_bits.map(Content::PageBits),
        (!capabilities.is_empty()).then_some(Content::Capabilities(capabilities)),
        machine.uuid.map(Content::Uuid),
    ];
    contents.iter().flatten().for_each(|content| content.encode(&mut bytes));
    bytes
}

fn ends_section(chain: &Shape<'_>, id: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    ram::encode_end(&mut bytes);
    if chain.stream.footers != Some(false) {
        encode_footer(&mut bytes, id);
    }
    bytes
}

/// The START section of RAM: the list of blocks, in a mapped snapshot with the pages.
fn list_blocks(
    chain: &Shape<'_>,
    form: FlatForm,
    (item, section): (&Item, &Section),
    pieces: &mut Pieces,
) -> io::Result<()> {
    let blocks = &chain.stream.ram.blocks;
    pieces.put(Piece::Copy(item.offset..section.payload));
    let mut bytes = Vec::new();
    ram::encode_block_list(&mut bytes, blocks.iter().map(|block| block.length).sum());
    for (at, block) in blocks.iter().enumerate() {
        let page_size = block.page_size.filter(|_| !form.is_mapped());
        ram::BlockEntry { name: block.name.as_bytes(), length: block.length }.encode(
            &mut bytes,
            page_size,
            block.address,
        );
        if !form.is_mapped() {
            continue;
        }
        let offset = pieces.offset + bytes.len() as u64;
        let header = Header::place(offset, block.length, chain.page_size)
            .ok_or_else(|| io::Error::other(format!("block '{}' does not fit into a file", block.name)))?;
        header.encode(&mut bytes);
        pieces.put(Piece::Bytes(std::mem::take(&mut bytes)));
        pieces.put(Piece::Bitmap(at, bitmap_size(block.length, chain.page_size)));
        pieces.put(Piece::Hole(header.pages_offset - pieces.offset));
        pieces.put(Piece::Pages(at));
        pieces.offset = header.pages_offset + block.length;
    }
    bytes.extend(ends_section(chain, section.id));
    pieces.put(Piece::Bytes(bytes));
    Ok(())
}

/// The further sections of RAM, in a stream with the pages.
fn put_pages(chain: &Shape<'_>, form: FlatForm, id: u32, pieces: &mut Pieces) {
    let head = |tag| {
        let mut bytes = Vec::new();
        encode_tag(&mut bytes, tag, id);
        bytes
    };
    if form == FlatForm::Stream {
        pieces.put(Piece::Bytes(head(wire::SECTION_PART)));
        (0..chain.stream.ram.blocks.len()).for_each(|at| pieces.put(Piece::Records(at)));
        pieces.put(Piece::Bytes(ends_section(chain, id)));
    }
    let mut end = head(wire::SECTION_END);
    end.extend(ends_section(chain, id));
    pieces.put(Piece::Bytes(end));
}
