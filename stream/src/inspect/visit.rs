// SPDX-License-Identifier: LGPL-2.1-or-later
//! Receives what passes while a stream is read. Guest memory is not kept.

use std::io;
use std::ops::Range;

use super::stream::Block;

/// Observes the reading of a stream. An error ends the reading and is returned from it.
pub trait Visitor {
    /// Whether [`Visitor::page`] needs the pages' contents. Otherwise they are skipped.
    const WANTS_PAGES: bool = false;
    /// Whether [`Visitor::page`] is called for the zero pages that a mapped block leaves out.
    const WANTS_HOLES: bool = true;
    /// Whether [`Visitor::place`] is called. Only without [`Visitor::WANTS_PAGES`].
    const WANTS_PLACES: bool = false;
    /// Whether the states of devices are kept in the [`Stream`](super::Stream).
    const WANTS_STATES: bool = true;

    /// Reports that `offset` bytes were read. Called from time to time.
    fn progress(&mut self, _offset: u64) {}

    /// The stream introduces a block of guest memory, or shows its place in the file.
    fn block(&mut self, _block: &Block) -> io::Result<()> {
        Ok(())
    }

    /// A page at this address within a block. `offset` is the place of its bytes in the stream. A later page replaces
    /// an earlier one.
    fn page(&mut self, _block: &Block, _address: u64, _page: Page<'_>, _offset: u64) -> io::Result<()> {
        Ok(())
    }

    /// These bytes of the stream were records of pages, and nothing else. Called behind the last of them.
    fn memory_records(&mut self, _records: Range<u64>) -> io::Result<()> {
        Ok(())
    }

    /// The state of a section of guest memory ends at this offset of the stream.
    fn memory_section(&mut self, _end: u64) {}

    /// As `page`, for a page that is not read: its contents begin at `offset` of the stream. Called for every page that has
    /// contents, except those of mapped blocks.
    fn place(&mut self, _block: &Block, _address: u64, _form: Form, _offset: u64) -> io::Result<()> {
        Ok(())
    }
}

/// The form of a page in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The whole page.
    Plain,
    /// The difference from the page's previous contents.
    Xbzrle,
    /// The page compressed with zlib.
    Compressed,
}

/// A visitor that ignores everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Visitor for Unwatched {}

/// The contents of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page<'a> {
    /// The byte that fills the page, and the page's size.
    Fill(u8, u64),
    /// The whole page.
    Plain(&'a [u8]),
    /// The difference from the page's previous contents, and the page's size.
    Xbzrle(&'a [u8], u64),
    /// The page compressed with zlib, and the page's size.
    Compressed(&'a [u8], u64),
}
