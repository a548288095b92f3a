// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reads consecutive pages into guest memory with one system call.
//!
//! A page is usually followed by the next page of its block. One read therefore covers the rest of a page, the header
//! word of the next record, the page that this record is expected to hold, and so on. If another record arrives, its
//! bytes are returned to the file. They were read into pages that no record has named. Only pages that have not arrived
//! are used for that, so no content is lost: each of them still arrives, or the load fails.

use super::block::Block;
use super::prefault::Prefaulter;
use super::wire;
use crate::error::Result;
use crate::file::MigFile;
use crate::sys::ByteBuffer;
use std::sync::Arc;

/// Maximum number of pages that a read covers ahead. Words and pages fit into a file's buffer if they are returned.
const AHEAD_MAX: usize = 7;
/// Size of a record's header word in bytes.
const WORD: usize = 8;

/// Minimum and maximum number of bytes of one prefault.
const PREFAULT: std::ops::RangeInclusive<usize> = 64 << 10..=1 << 20;
/// Maximum distance of prefaulted memory ahead of the arriving pages, in bytes.
const PREFAULT_AHEAD: usize = 16 << 20;

/// State from page to page.
pub(super) struct Runs {
    words: ByteBuffer<{ WORD * (AHEAD_MAX + 1) }>,
    ahead: usize,
    /// Offset behind the last page that arrived.
    next: usize,
    /// Start of the current run of consecutive pages.
    start: usize,
    /// End of the memory that was or will be prefaulted.
    prefaulted: usize,
    /// The prefault thread; started with the first long run.
    prefaulter: Option<Prefaulter>,
}

/// Result of a read.
enum Step {
    /// The page at `at` has arrived up to `have` bytes.
    Page { at: usize, have: usize },
    /// All bytes belong to named pages, or were returned to the file.
    Done,
}

impl Runs {
    pub fn new() -> Self {
        Self { words: ByteBuffer::default(), ahead: 0, next: 0, start: 0, prefaulted: 0, prefaulter: None }
    }

    /// Reads the page at `offset` and the pages in full that follow it. Calls `done` for each. `may_run` says whether a
    /// page may be written to before its record was read.
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
            self.prefault(block, offset, page_size);
        } else {
            (self.ahead, self.start, self.prefaulted) = (0, offset, offset);
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

    /// Prefaults memory in large pieces: on this thread while the run is short, on another thread if it is long. Never
    /// more than has arrived already, so that little is wasted if the run ends.
    fn prefault(&mut self, block: &Arc<Block>, offset: usize, page_size: usize) {
        let come = offset - self.start;
        let from = self.prefaulted.max(offset);
        let room = block.memory().len().saturating_sub(from);
        if come >= *PREFAULT.end() {
            let piece = room.min(*PREFAULT.end());
            if piece > 0 && from + piece <= offset + come.min(PREFAULT_AHEAD) {
                let prefaulter = self.prefaulter.get_or_insert_with(Prefaulter::start);
                if prefaulter.push(block, from..from + piece) {
                    self.prefaulted = from + piece;
                }
            }
            return;
        }
        let soon = offset + (self.ahead + 1) * page_size;
        let len = come.min(room);
        if soon > from && len >= *PREFAULT.start() {
            let worked = block.memory().prefault(from, len);
            self.prefaulted = if worked { from + len } else { usize::MAX };
        }
    }

    /// Stops prefaulting. Returns the prefault thread; dropping it joins the thread.
    pub fn stop_prefault(&mut self) -> Option<Prefaulter> {
        self.prefaulter.take()
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

    /// Returns the last `left` bytes to the file, from the header word of the record behind `page` on.
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
