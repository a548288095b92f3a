// SPDX-License-Identifier: LGPL-2.1-or-later
//! Finds where the pages of a stream are, while the stream is read.

use super::stream::{Block, Stream};
use super::visit::{Form, Page, Visitor};
use crate::budget::Budget;
use crate::wire::mapped::CAPABILITY;
use crate::wire::page_index::{BlockPages, FileState, PageIndex, Place, Run};
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Memory in bytes that a run needs at most. A list that grows is copied, and it may have to be sorted.
const COST: usize = 3 * size_of::<Run>() + 2 * size_of::<usize>();

/// The pages of a block in the order of the stream.
struct Found {
    name: Arc<str>,
    length: u64,
    runs: Vec<Run>,
}

/// Collects the places of all pages. Only for streams whose page size is known.
pub struct PageIndexer {
    page_size: u64,
    budget: Budget,
    blocks: Vec<Found>,
    by_name: HashMap<Arc<str>, usize>,
    /// Index of the block of the last page.
    last: usize,
    records: Vec<Range<u64>>,
    section_ends: Vec<u64>,
    /// A stream without an index is of use as well.
    optional: bool,
    /// There is no index: an optional one is not possible.
    abandoned: bool,
}

/// What was found in a stream.
pub struct FoundPages {
    /// The last copies of all pages. The state of the file is not known.
    pub index: PageIndex,
    /// Offsets in the stream at which the states of RAM's sections end, in ascending order.
    pub section_ends: Vec<u64>,
}

impl PageIndexer {
    /// Returns an indexer for pages of `page_size` bytes, which uses no more memory than the budget.
    pub fn new(page_size: u64, budget: Budget) -> Self {
        let (blocks, by_name, records, section_ends) = Default::default();
        let (optional, abandoned) = (false, false);
        Self { page_size, budget, blocks, by_name, last: 0, records, section_ends, optional, abandoned }
    }

    /// As `new`. If a stream can't have an index, or only one that needs more memory, `finish` returns `None` instead of an
    /// error.
    pub fn optional(page_size: u64, budget: Budget) -> Self {
        Self { optional: true, ..Self::new(page_size, budget) }
    }

    /// There can't be an index. An error unless it is optional.
    #[cold]
    fn refuse(&mut self, error: io::Error) -> io::Result<()> {
        if !self.optional {
            return Err(error);
        }
        self.abandoned = true;
        (self.blocks, self.records) = (Vec::new(), Vec::new());
        Ok(())
    }

    /// Takes memory from the budget. Returns false if there is no index any more.
    fn pay(&mut self, bytes: usize) -> io::Result<bool> {
        let paid = self.budget.take(bytes);
        let paid = paid.or_else(|error| self.refuse(io::Error::other(error)));
        paid.map(|()| !self.abandoned)
    }

    #[inline]
    fn put(&mut self, block: &Block, address: u64, place: Place) -> io::Result<()> {
        if self.abandoned {
            return Ok(());
        }
        if self.blocks.get(self.last).is_none_or(|found| !Arc::ptr_eq(&found.name, &block.name)) {
            let Some(found) = self.by_name.get(&block.name) else {
                return self.refuse(io::Error::other("a page of a block that is not in the list of blocks"));
            };
            self.last = *found;
        }
        let (page, page_size) = (address / self.page_size, self.page_size);
        let runs = &mut self.blocks[self.last].runs;
        if let Some(last) = runs.last_mut()
            && last.end() == page
            && last.place.ahead(last.count, page_size) == place
        {
            last.count += 1;
            return Ok(());
        }
        if self.pay(COST)? {
            self.blocks[self.last].runs.push(Run { page, count: 1, place });
        }
        Ok(())
    }

    /// Returns the pages of the stream that was read. `None` if they have fixed places, or if an optional index is not possible.
    pub fn finish(self, stream: &Stream, base: u64) -> Option<FoundPages> {
        if self.abandoned || stream.configuration.as_ref().is_some_and(|configuration| configuration.has(CAPABILITY)) {
            return None;
        }
        let page_size = self.page_size;
        let blocks = self.blocks.into_iter().map(|found| BlockPages {
            name: found.name.to_string(),
            length: found.length,
            runs: last_copies(found.runs, page_size),
        });
        let (blocks, file) = (blocks.collect(), FileState::default());
        let index = PageIndex { page_size: page_size as u32, base, file, records: self.records, blocks };
        Some(FoundPages { index, section_ends: self.section_ends })
    }
}

impl Visitor for PageIndexer {
    const WANTS_PLACES: bool = true;
    const WANTS_STATES: bool = false;

    fn block(&mut self, block: &Block) -> io::Result<()> {
        if !self.pay(2 * (size_of::<Found>() + size_of::<(Arc<str>, usize)>()) + block.name.len())? {
            return Ok(());
        }
        self.by_name.insert(Arc::clone(&block.name), self.blocks.len());
        self.blocks.push(Found { name: Arc::clone(&block.name), length: block.length, runs: Vec::new() });
        Ok(())
    }

    fn page(&mut self, block: &Block, address: u64, page: Page<'_>, _offset: u64) -> io::Result<()> {
        match page {
            Page::Fill(byte, _) => self.put(block, address, Place::filled(byte)),
            // Pages with contents come to `place`.
            _ => Ok(()),
        }
    }

    fn place(&mut self, block: &Block, address: u64, form: Form, offset: u64) -> io::Result<()> {
        let form = match form {
            Form::Plain => return self.put(block, address, Place::at(offset)),
            Form::Xbzrle => "a difference to an earlier copy (XBZRLE)",
            Form::Compressed => "compressed",
        };
        let text = format!("a page of '{}' is {form}: load the snapshot without the option `lazy`", block.name);
        self.refuse(io::Error::new(io::ErrorKind::Unsupported, text))
    }

    fn memory_records(&mut self, records: Range<u64>) -> io::Result<()> {
        if self.pay(2 * size_of::<Range<u64>>())? {
            self.records.push(records);
        }
        Ok(())
    }

    fn memory_section(&mut self, end: u64) {
        self.section_ends.push(end);
    }
}

/// Appends a run. Zero pages are left out, and runs that follow each other are joined.
fn append(runs: &mut Vec<Run>, run: Run, page_size: u64) {
    match runs.last_mut() {
        _ if run.place == Place::ZERO => {}
        Some(last) if last.end() == run.page && last.place.ahead(last.count, page_size) == run.place => {
            last.count += run.count;
        }
        _ => runs.push(run),
    }
}

/// Returns the last copy of each page in ascending order. `runs` are in the order of the stream.
fn last_copies(mut runs: Vec<Run>, page_size: u64) -> Vec<Run> {
    if runs.is_sorted_by(|one, next| one.end() <= next.page) {
        runs.retain(|run| run.place != Place::ZERO);
        return runs;
    }
    let mut order: Vec<usize> = (0..runs.len()).collect();
    order.sort_by_key(|at| runs[*at].page);
    let mut order = order.into_iter().peekable();
    // The runs that have begun. The youngest one counts.
    let mut begun = BinaryHeap::new();
    let (mut found, mut page) = (Vec::new(), 0);
    loop {
        if let (true, Some(next)) = (begun.is_empty(), order.peek()) {
            page = page.max(runs[*next].page);
        }
        while let Some(at) = order.next_if(|at| runs[*at].page <= page) {
            begun.push(at);
        }
        let Some(&youngest) = begun.peek() else { return found };
        let run = runs[youngest];
        if run.end() <= page {
            begun.pop();
            continue;
        }
        let mut end = run.end();
        while let Some(at) = order.next_if(|at| runs[*at].page < end) {
            begun.push(at);
            if at > youngest {
                end = runs[at].page;
            }
        }
        append(&mut found, Run { count: end - page, ..run.from(page, page_size) }, page_size);
        page = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn runs() -> impl Strategy<Value = Vec<Run>> {
        let place = prop_oneof![(0..3u8).prop_map(Place::filled), (0..9u64).prop_map(|at| Place::at(at * 4104 + 8))];
        let run = (0..40u64, 1..12u64, place).prop_map(|(page, count, place)| Run { page, count, place });
        proptest::collection::vec(run, 0..30)
    }

    proptest! {
        #[test]
        fn last_copy_of_each_page_is_found(runs in runs()) {
            let mut pages = [Place::ZERO; 64];
            let each = |runs: &[Run], pages: &mut [Place; 64]| {
                for run in runs {
                    (0..run.count).for_each(|at| pages[(run.page + at) as usize] = run.place.ahead(at, 4096));
                }
            };
            each(&runs, &mut pages);
            let found = last_copies(runs, 4096);
            let mut again = [Place::ZERO; 64];
            each(&found, &mut again);
            prop_assert_eq!(pages, again);
            prop_assert!(found.is_sorted_by(|one, next| one.end() <= next.page));
            prop_assert!(found.iter().all(|run| run.place != Place::ZERO && run.count > 0));
        }
    }
}
