// SPDX-License-Identifier: LGPL-2.1-or-later
//! What may watch while a stream is read: guest memory goes by and is not kept.

use std::io;

use super::stream::Block;

/// Watches a stream go by. An error ends the reading and comes back from it.
pub trait Visitor {
    /// Whether [`Visitor::page`] wants the pages' contents. Without it they are passed over unseen.
    const WANTS_PAGES: bool = false;
    /// Whether the states of devices are kept in the stream that is read.
    const WANTS_STATES: bool = true;

    /// So many bytes lie behind. Called now and then.
    fn progress(&mut self, _offset: u64) {}

    /// The stream introduces a block of guest memory, or has found its place.
    fn block(&mut self, _block: &Block) -> io::Result<()> {
        Ok(())
    }

    /// A page of a block, at this address within the block; `offset` is where in the stream its bytes start. Later pages
    /// replace earlier ones.
    fn page(&mut self, _block: &Block, _address: u64, _page: Page<'_>, _offset: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Visitor for Unwatched {}

/// What the stream says about a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page<'a> {
    /// This byte, so many times.
    Fill(u8, u64),
    /// The page as it is.
    Plain(&'a [u8]),
    /// What differs from the page before; the page's size.
    Xbzrle(&'a [u8], u64),
    /// Compressed with zlib; the page's size.
    Compressed(&'a [u8], u64),
}
