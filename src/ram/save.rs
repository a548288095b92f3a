// SPDX-License-Identifier: LGPL-2.1-or-later
//! The phases of saving (QEMU 7.2, `migration/ram.c`).

use super::block::{Block, Blocks};
use super::mapped::MappedSave;
use super::multifd::{Page, Senders};
use super::sender::{Differences, Sender};
use super::tracker::Tracker;
use super::{Ram, wire};
use crate::error::{Error, Result};
use crate::file::MigFile;
use crate::sys::{Residency, is_anonymous, system_page_size};
use crate::wire::ram::BlockEntry;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

/// Maximum duration of one call of iterate (QEMU 7.2's `MAX_WAIT`).
const ITERATE_MAX: Duration = Duration::from_millis(50);
/// The dirty log is read within a long pass as well, so that the speed of the guest's writes is known before the end of the
/// first pass: after this time, and then after twice the time before, up to `READ_AFTER_MAX`.
const READ_AFTER: Duration = Duration::from_millis(250);
const READ_AFTER_MAX: Duration = Duration::from_secs(30);
/// Maximum number of pages between two checks of the rate limit.
pub(super) const CHUNK: usize = 64;
/// The same in postcopy: a requested page waits behind at most this many background pages.
const CHUNK_POSTCOPY: usize = 16;

/// The state of saving, from setup to cleanup.
pub(super) struct Saver {
    blocks: Blocks,
    /// For each block: the number of its first page, counted over all blocks.
    first_pages: Vec<u64>,
    sender: Sender,
    /// The further connections, until a switch to postcopy.
    further: Option<Senders>,
    tracker: Tracker,
    /// Finds pages that the guest never used, without touching them. `None` if the page map can't be read.
    residency: Option<Residency>,
    /// Blocks whose pages without content read as zero.
    anonymous: Vec<bool>,
    /// Where the search for dirty pages continues: index of the block, page.
    cursor: (usize, usize),
    /// The round in which the dirty log was read last.
    synced_round: u64,
    /// When the dirty log was read last, and after which time it is read again within a pass.
    synced_at: Instant,
    read_after: Duration,
    /// The guest runs at the destination and waits for pages.
    in_postcopy: bool,
    /// All pages are written to fixed places of a file when the saving is completed.
    mapped: Option<MappedSave>,
}

/// What `send_next` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Pages,
    /// A pass over memory has ended, and with it the section.
    RoundEnded,
    /// No page is dirty.
    Nothing,
}

impl Saver {
    /// The next pages to send: index of the block, first page, count, and whether the destination requested them.
    fn next(&mut self, ram: &Ram, most: usize) -> Option<(usize, usize, usize, bool)> {
        loop {
            let asked = ram.requests.lock().next();
            let Some((at, start, count)) = asked else { break };
            let end = start + count;
            // A clean page was sent before the request arrived.
            let found = self.blocks.get(at).and_then(|block| block.dirty.run(start, count));
            if let Some((first, count)) = found.filter(|(first, _)| *first < end) {
                // The guest is likely to touch the pages behind it next.
                self.cursor = (at, end);
                let count = count.min(end - first);
                ram.requests.lock().put_back((at, first + count, end - first - count));
                return Some((at, first, count, true));
            }
        }
        self.next_run(ram, most).map(|(at, start, count)| (at, start, count, false))
    }

    /// Sends the next pages. If the section must end first, and `may_end`, sends nothing.
    fn send_next(&mut self, ram: &Ram, file: &MigFile, may_end: bool) -> Sent {
        let most = if self.in_postcopy { CHUNK_POSTCOPY } else { CHUNK };
        let round = self.sender.round;
        let Some((at, start, count, urgent)) = self.next(ram, room(ram, file).min(most)) else { return Sent::Nothing };
        if self.sender.round != round
            && let Some(further) = &mut self.further
        {
            // From here on pages may be sent a second time.
            if further.syncs_sections() && may_end {
                self.cursor = (at, start);
                return Sent::RoundEnded;
            }
            further.sync_if_loose(file);
        }
        self.send(ram, file, at, start, count);
        if urgent || self.in_postcopy {
            file.flush();
        }
        Sent::Pages
    }

    /// The next run of dirty pages: about `most` pages, in whole host pages. `None` if no page of any block is dirty.
    pub(super) fn next_run(&mut self, ram: &Ram, most: usize) -> Option<(usize, usize, usize)> {
        let (mut at, mut from) = self.cursor;
        for _ in 0..=self.blocks.len() {
            let block = self.blocks.get(at)?;
            let most = most.next_multiple_of(block.pages_per_unit());
            let run = if ram.is_ignored(block) { None } else { block.dirty.run(from, most) };
            if let Some((start, count)) = run {
                self.cursor = (at, start + count);
                return Some((at, start, count));
            }
            (at, from) = (at + 1, 0);
            if at == self.blocks.len() {
                at = 0;
                self.sender.round += 1;
            }
        }
        None
    }

    /// Sends dirty pages. Clears each bit before the page is read: a later write of the guest sets it again.
    fn send(&mut self, ram: &Ram, file: &MigFile, at: usize, start: usize, count: usize) {
        let block = Arc::clone(&self.blocks[at]);
        ram.cleaned(block.dirty.clear(start, count));
        self.send_pages(ram, file, at, start, count);
    }

    pub(super) fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    pub(super) fn mapped(&self) -> Option<&MappedSave> {
        self.mapped.as_ref()
    }

    pub(super) fn block(&self, at: usize) -> Arc<Block> {
        Arc::clone(&self.blocks[at])
    }

    /// Sends pages from the guest's memory.
    pub(super) fn send_pages(&mut self, ram: &Ram, file: &MigFile, at: usize, start: usize, count: usize) {
        let block = self.block(at);
        let first_page = self.first_pages[at];
        let mut page = start;
        let (sender, further) = (&mut self.sender, &mut self.further);
        let mut send = |absent| {
            match further {
                Some(further) if further.takes(&block, page, absent) => {
                    further.page(file, &block, Page { number: page, absent });
                }
                _ => sender.page(file, &ram.counters, at, &block, (page, absent), first_page),
            }
            page += 1;
        };
        match &self.residency {
            // The map is read after the dirty bits were cleared: a later write of the guest sets them again.
            Some(residency) if self.anonymous[at] => {
                let (offset, len) = (start << ram.page_bits, count << ram.page_bits);
                residency.absent(block.memory(), offset, len, ram.page_size(), send);
            }
            _ => (0..count).for_each(|_| send(false)),
        }
    }

    /// Sends pages from a copy.
    pub(super) fn send_copy(&mut self, ram: &Ram, file: &MigFile, (at, start): (usize, usize), content: &[u8]) {
        let block = self.block(at);
        for (page, content) in content.chunks(ram.page_size()).enumerate() {
            self.sender.copied(file, &ram.counters, at, &block, start + page, content);
        }
    }
}

/// Number of pages to send before the next check of the rate limit: not more than the limit allows.
fn room(ram: &Ram, file: &MigFile) -> usize {
    let left = file.status().rate_limit() - file.rate_used();
    match usize::try_from(left) {
        Ok(left) if file.status().rate_limit() > 0 => (left >> ram.page_bits).clamp(1, CHUNK),
        _ => CHUNK,
    }
}

impl Saver {
    /// Ends the records of a section. `all`: pages of the further connections belong to it.
    fn end_section(&mut self, file: &MigFile, all: bool) -> Result<()> {
        if let Some(further) = &mut self.further
            && (all || further.syncs_sections())
        {
            further.sync(file);
        }
        end_of_records(file)
    }
}

fn end_of_records(mut file: &MigFile) -> Result<()> {
    wire::encode_end(&mut file);
    file.flush();
    file.check()
}

impl Ram {
    /// Runs `body` with the state that setup made. The state is moved out meanwhile, so that no lock is held.
    pub(super) fn with_saver<T>(&self, body: impl FnOnce(&mut Saver) -> Result<T>) -> Result<T> {
        /// Moves the state back, also after a panic: dropping it stops the host's log, which needs the big lock.
        struct Taken<'a>(&'a Ram, Option<Box<Saver>>);
        impl Drop for Taken<'_> {
            fn drop(&mut self) {
                if let Some(saver) = self.1.take() {
                    self.0.busy.lock().saving = Some(saver);
                }
            }
        }
        let mut taken = Taken(self, self.busy.lock().saving.take());
        body(taken.1.as_mut().ok_or_else(|| Error::new(libc::EPROTO, "RAM is not being saved"))?)
    }

    /// Starts the dirty log and writes the list of blocks. All pages are dirty at first.
    pub(super) fn save_setup(&self, file: &MigFile, postcopy: bool) -> Result<()> {
        // From here on the list of blocks does not change.
        let (blocks, frozen) = {
            let mut busy = self.busy.lock();
            busy.check_open()?;
            if busy.outgoing || busy.incoming {
                return Err(Error::new(libc::EBUSY, "RAM already takes part in a migration"));
            }
            busy.outgoing = true;
            (self.blocks(), busy.frozen.clone())
        };
        self.counters.reset();
        self.dirty_pages.store(0, Relaxed);
        let mut first_pages = Vec::with_capacity(blocks.len());
        let mut pages = 0;
        for block in blocks.iter() {
            first_pages.push(pages);
            pages += block.pages() as u64;
            block.dirty.clear(0, block.pages());
        }
        let plan = self.vm().map(|vm| vm.slot.memory_plan()).filter(|plan| plan.mapped);
        let mut mapped = plan.map(|plan| MappedSave::new(self, file, &plan)).transpose()?;
        // There is nothing to log: the guest is stopped until all pages are in their places, or their contents are kept.
        let logs = mapped.is_none() && frozen.is_none();
        let tracker = if logs { Tracker::start(self, &blocks)? } else { Tracker::Marks };
        for (at, block) in blocks.iter().enumerate().filter(|(_, block)| !self.is_ignored(block)) {
            match &frozen {
                Some(frozen) => frozen.each_run(at, block, |start, count| self.mark(block, start, count)),
                None => self.mark(block, 0, block.pages()),
            }
        }
        let cache = if frozen.is_some() { 0 } else { self.options().xbzrle_cache };
        let differences = Differences::new(cache, self.page_size());
        let sender = Sender::new(self.page_bits, differences);
        let further = self.start_further()?;
        self.put_blocks(file, &blocks, postcopy, mapped.as_mut())?;
        let residency = Residency::open().ok().filter(|_| self.page_size().is_multiple_of(system_page_size()));
        let anonymous = blocks.iter().map(|block| is_anonymous(block.memory())).collect();
        let mut saver = Box::new(Saver {
            residency,
            anonymous,
            blocks,
            first_pages,
            sender,
            further,
            tracker,
            cursor: (0, 0),
            synced_round: 0,
            synced_at: Instant::now(),
            read_after: READ_AFTER,
            in_postcopy: false,
            mapped,
        });
        let ended = saver.end_section(file, true);
        if let Some(vm) = self.vm() {
            vm.slot.saving.set_total(self.dirty_bytes());
        }
        self.busy.lock().saving = Some(saver);
        ended
    }

    /// Starts the threads of the further connections, if the migration has some.
    fn start_further(&self) -> Result<Option<Senders>> {
        let Some(vm) = self.vm.upgrade() else { return Ok(None) };
        let Some(connections) = vm.slot.connections() else { return Ok(None) };
        if self.options().xbzrle_cache > 0 {
            let text = "XBZRLE can't be combined with several connections: set channels to 1, or the XBZRLE cache to 0";
            return Err(Error::invalid(text));
        }
        Senders::start(&vm, connections, self.page_bits, &self.counters).map(Some)
    }

    /// Writes the list of blocks.
    fn put_blocks(
        &self,
        mut file: &MigFile,
        blocks: &[Arc<Block>],
        postcopy: bool,
        mut mapped: Option<&mut MappedSave>,
    ) -> Result<()> {
        let total: u64 = blocks.iter().map(|block| block.len()).sum();
        let ignore_shared = self.ignores_shared();
        wire::encode_block_list(&mut file, total);
        for block in blocks {
            let info = &block.info;
            let page_size = (postcopy && info.page_size != system_page_size()).then_some(info.page_size as u64);
            let address = ignore_shared.then_some(info.guest_address);
            BlockEntry { name: &info.name, length: block.len() }.encode(&mut file, page_size, address);
            if let Some(mapped) = &mut mapped {
                mapped.put_header(self, file, block)?;
            }
        }
        Ok(())
    }

    /// Sends until the rate limit is reached, 50 ms have passed, or nothing is left. Returns whether nothing is left.
    pub(super) fn save_iterate(&self, file: &MigFile) -> Result<bool> {
        self.with_saver(|saver| {
            let since = Instant::now();
            let mut done = saver.mapped.is_some();
            while !done && !file.rate_limit_reached() && since.elapsed() < ITERATE_MAX {
                match saver.send_next(self, file, true) {
                    Sent::Pages => {}
                    Sent::RoundEnded => break,
                    Sent::Nothing => done = true,
                }
            }
            saver.end_section(file, false)?;
            Ok(done)
        })
    }

    /// Sends all remaining pages. The guest is stopped. In precopy the dirty log is read once more before.
    pub(super) fn save_complete(&self, file: &MigFile, in_postcopy: bool) -> Result<()> {
        self.with_saver(|saver| {
            if let Some(mapped) = &saver.mapped {
                mapped.put_pages(self, &saver.blocks)?;
                return end_of_records(file);
            }
            if !in_postcopy {
                saver.tracker.sync(self, &saver.blocks)?;
            }
            while saver.send_next(self, file, false) == Sent::Pages {
                file.check()?;
            }
            if let Some(mut further) = saver.further.take() {
                further.sync(file);
                // Errors of the connections show before the end of the stream. Nothing follows on them.
                further.drain(file);
            }
            end_of_records(file)
        })
    }

    /// Number of remaining bytes. The dirty log is read at the end of every pass over memory, and now and then in a long
    /// one. Until the end of the pass the result is not below the threshold, so that the rest of a pass is sent while the
    /// guest runs and not during the downtime.
    pub(super) fn save_pending(&self, threshold: u64, in_postcopy: bool) -> Result<u64> {
        if in_postcopy {
            return Ok(self.dirty_bytes());
        }
        self.with_saver(|saver| {
            let in_pass = self.dirty_bytes() > 0 && saver.sender.round == saver.synced_round;
            let is_due = saver.synced_at.elapsed() >= saver.read_after;
            if in_pass && !is_due {
                return Ok(self.dirty_bytes().max(threshold));
            }
            saver.tracker.sync(self, &saver.blocks)?;
            saver.synced_at = Instant::now();
            if in_pass {
                saver.read_after = (saver.read_after * 2).min(READ_AFTER_MAX);
                return Ok(self.dirty_bytes().max(threshold));
            }
            saver.synced_round = saver.sender.round;
            Ok(self.dirty_bytes())
        })
    }

    /// Whether pages are sent over further connections at present.
    pub(super) fn sends_over_connections(&self) -> bool {
        self.busy.lock().saving.as_ref().is_some_and(|saver| saver.further.is_some())
    }

    /// Before the switch to postcopy, while the guest runs: a section that ends with a SYNC of the further connections, so that
    /// the destination has loaded all of their pages before the guest moves (QEMU 10.1, `ram_save_postcopy_prepare`).
    pub(super) fn save_postcopy_prepare(&self, file: &MigFile) -> Result<()> {
        self.with_saver(|saver| saver.end_section(file, true))
    }

    /// Reads the dirty log for the last time. From here on whole host pages are sent over the main connection, and the
    /// next record names its block. `save_postcopy_prepare` has ended the pages of the further connections with a SYNC.
    pub(super) fn sync_for_postcopy(&self, file: &MigFile) -> Result<()> {
        self.with_saver(|saver| {
            if let Some(further) = saver.further.take() {
                further.drain(file);
                file.check()?;
            }
            saver.tracker.sync(self, &saver.blocks)?;
            saver.sender.forget_block();
            saver.sender.differences = None;
            saver.cursor = (0, 0);
            saver.in_postcopy = true;
            Ok(())
        })
    }

    /// Stops the dirty log. The list of blocks may change again.
    pub(super) fn save_cleanup(&self) {
        self.logging.store(false, SeqCst);
        self.requests.lock().clear();
        let saver = self.busy.lock().saving.take();
        // Stops the host's log, with no lock held.
        drop(saver);
        self.busy.lock().outgoing = false;
    }

    /// A paused postcopy resumes after the received bitmaps have arrived. The next record names its block.
    pub(super) fn resume_prepare(&self) {
        let result = self.with_saver(|saver| {
            saver.sender.forget_block();
            saver.cursor = (0, 0);
            Ok(())
        });
        if let Err(error) = result {
            log::warn!("resuming: {error}");
        }
    }
}
