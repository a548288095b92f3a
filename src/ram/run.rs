// SPDX-License-Identifier: LGPL-2.1-or-later
//! Pages that follow each other, read to their places with one call.
//!
//! A page is usually followed by the next one of its block. So a read asks for the rest of a page, the word of the next
//! record, the page that it should announce, and so on. What comes otherwise is given back to the file. By then it stands
//! in pages that were announced by nobody; these are only pages of which nothing has arrived yet, so that nothing is lost:
//! each of them still comes, or the load fails.

use super::block::Block;
use super::prepare::Preparer;
use super::wire;
use crate::error::Result;
use crate::file::MigFile;
use crate::sys::ByteBuffer;
use std::sync::Arc;

/// Most pages that a read goes ahead: words and pages together fit into a file's buffer, when they have to go back.
const AHEAD_MAX: usize = 7;
/// Size of a record's word.
const WORD: usize = 8;

/// Least and most bytes that are made present at once.
const PREPARED: std::ops::RangeInclusive<usize> = 64 << 10..=1 << 20;
/// Most bytes that are made present ahead of the pages.
const PREPARED_AHEAD: usize = 16 << 20;

/// What is known from page to page.
pub(super) struct Runs {
    words: ByteBuffer<{ WORD * (AHEAD_MAX + 1) }>,
    ahead: usize,
    /// The page behind the last one of the block whose pages came last, in bytes.
    next: usize,
    /// Where pages began to follow each other.
    start: usize,
    /// Up to where memory was made present, or will be.
    prepared: usize,
    /// Makes it present, from the first long run on.
    preparer: Option<Preparer>,
}

/// Where a read has got to.
enum Step {
    /// So much of the page at this offset is there.
    Page { at: usize, have: usize },
    /// All was announced as it came, or was given back.
    Done,
}

impl Runs {
    pub fn new() -> Self {
        Self { words: ByteBuffer::default(), ahead: 0, next: 0, start: 0, prepared: 0, preparer: None }
    }

    /// Gets the page at `offset`, and those that follow it as they are; `done` is told of each. `may_run` says that the
    /// pages behind it may be written to before they are announced.
    pub fn get(
        &mut self,
        file: &MigFile,
        (block, page_size): (&Arc<Block>, usize),
        offset: usize,
        may_run: impl Fn(usize) -> bool,
        mut done: impl FnMut(usize),
    ) -> Result<()> {
        if offset == self.next {
            self.ahead = (2 * self.ahead + 1).min(AHEAD_MAX);
            self.prepare(block, offset, page_size);
        } else {
            (self.ahead, self.start, self.prepared) = (0, offset, offset);
        }
        let (mut at, mut have) = (offset, 0);
        loop {
            have += file.get_into(block.memory().span(at + have, page_size - have).first(file.buffered()));
            if have == page_size {
                done(at);
                break;
            }
            let fits = |ahead: &usize| (ahead + 1) * (page_size + WORD) <= crate::file::BUFFER_SIZE;
            let behind = (1..=self.ahead).filter(fits).take_while(|ahead| {
                let next = at + ahead * page_size;
                next < block.memory().len() && may_run(next)
            });
            match self.read(file, block, page_size, (at, have), behind.count(), &mut done)? {
                Step::Page { at: new, have: got } => (at, have) = (new, got),
                Step::Done => return Ok(()),
            }
        }
        self.next = at + page_size;
        Ok(())
    }

    /// Makes memory present in large pieces before the pages come: here while the run is short, by a thread when it is
    /// long. Never more than has come already, so that little is wasted where the run ends.
    fn prepare(&mut self, block: &Arc<Block>, offset: usize, page_size: usize) {
        let come = offset - self.start;
        let from = self.prepared.max(offset);
        let room = block.memory().len().saturating_sub(from);
        if come >= *PREPARED.end() {
            let piece = room.min(*PREPARED.end());
            if piece > 0 && from + piece <= offset + come.min(PREPARED_AHEAD) {
                let preparer = self.preparer.get_or_insert_with(Preparer::start);
                if preparer.order(block, from..from + piece) {
                    self.prepared = from + piece;
                }
            }
            return;
        }
        let soon = offset + (self.ahead + 1) * page_size;
        let len = come.min(room);
        if soon > from && len >= *PREPARED.start() {
            let worked = block.memory().prepare_write(from, len);
            self.prepared = if worked { from + len } else { usize::MAX };
        }
    }

    /// Who still makes memory present: nobody any more, until the next run, once that is dropped, which waits for it.
    pub fn settle(&mut self) -> Option<Preparer> {
        self.preparer.take()
    }

    fn read(
        &mut self,
        file: &MigFile,
        block: &Block,
        page_size: usize,
        (at, have): (usize, usize),
        ahead: usize,
        done: &mut impl FnMut(usize),
    ) -> Result<Step> {
        let memory = block.memory();
        let mut places = Vec::with_capacity(2 * (ahead + 1));
        places.push(memory.span(at + have, page_size - have));
        for page in 0..ahead {
            places.push(self.words.span(page * WORD).first(WORD));
            places.push(memory.span(at + (page + 1) * page_size, page_size));
        }
        places.push(self.words.span(ahead * WORD).first(WORD));
        let mut left = file.get_scattered(&places);
        if left == 0 {
            return Err(file.status().first_error().unwrap_or_else(|| crate::error::Error::invalid("the stream ends")));
        }
        let rest = page_size - have;
        if left < rest {
            return Ok(Step::Page { at, have: have + left });
        }
        left -= rest;
        done(at);
        for page in 0..=ahead {
            let next = at + (page + 1) * page_size;
            self.next = next;
            let expected = next as u64 | wire::PAGE | wire::CONTINUE;
            let announced =
                left >= WORD && page < ahead && self.words.load_array(page * WORD) == Some(expected.to_be_bytes());
            if !announced {
                self.give_back(file, (block, page_size), at, page, left);
                return Ok(Step::Done);
            }
            left -= WORD;
            if left < page_size {
                return Ok(Step::Page { at: next, have: left });
            }
            left -= page_size;
            done(next);
        }
        Ok(Step::Done)
    }

    /// The last `left` bytes, from the word of the record behind `page` on, go back.
    fn give_back(&mut self, file: &MigFile, (block, page_size): (&Block, usize), at: usize, page: usize, left: usize) {
        if left > WORD {
            self.ahead = 0;
            self.next = usize::MAX;
        }
        let mut bytes = Vec::with_capacity(left);
        let mut page = page;
        while bytes.len() < left {
            let mut word = [0; WORD];
            self.words.load_into(page * WORD, &mut word);
            bytes.extend_from_slice(&word[..WORD.min(left - bytes.len())]);
            page += 1;
            let start = bytes.len();
            bytes.resize(start + page_size.min(left - start), 0);
            let (offset, len) = (at + page * page_size, bytes.len() - start);
            block.memory().read(offset, &mut bytes[start..]);
            // An emptied block reads as zero where nothing has arrived.
            block.memory().fill(offset, len, 0);
        }
        file.give_back(&bytes);
    }
}
