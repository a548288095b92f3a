// SPDX-License-Identifier: LGPL-2.1-or-later
//! Memory that is saved while the guest runs: a page that the guest writes to before it was saved is kept by the session.
//!
//! Copies of such pages are saved before other pages, so that the copies take little memory.

use super::Session;
use super::session::Frozen;
use crate::error::{Error, Result};
use crate::file::MigFile;
use crate::ram::Ram;
use crate::ram::block::{Block, Blocks};
use crate::ram::mapped::Copies;
use crate::ram::save::CHUNK;
use crate::savevm::Vm;
use crate::savevm::checkpoint::{FrozenRam, SavedSnapshot, Scope};
use crate::savevm::host::{Flags, with_big_lock};
use crate::savevm::save;
use crate::savevm::unwind::finally;
use crate::wire as stream;
use crate::wire::{ram as wire, section};
use std::sync::Arc;

/// See the module. Dropping it ends the freeze.
pub(in crate::ram) struct FrozenMemory {
    ram: Arc<Ram>,
    session: Arc<Session>,
    frozen: Arc<Frozen>,
    saved: Option<SavedSnapshot>,
}

/// Writes a section of RAM around `body`.
fn section(vm: &Vm, mut file: &MigFile, tag: u8, body: impl FnOnce() -> Result<()>) -> Result<()> {
    let entry = vm.registry.find(wire::SECTION, 0).ok_or_else(|| Error::new(libc::ENODEV, "RAM was unregistered"))?;
    section::encode_tag(&mut file, tag, entry.section_id);
    body()?;
    wire::encode_end(&mut file);
    if !vm.flags().has(Flags::NO_FOOTERS) {
        section::encode_footer(&mut file, entry.section_id);
    }
    file.check()
}

/// The frozen pages of the blocks that are saved.
struct Pages<'a> {
    vm: &'a Vm,
    ram: &'a Ram,
    session: &'a Session,
    blocks: &'a Blocks,
}

impl Pages<'_> {
    /// Takes pages of a block, whole units: first page and count.
    fn take(&self, at: usize, (start, count): (usize, usize), content: &mut Vec<u8>) -> Result<()> {
        let index = self.session.index_of(&self.blocks[at]);
        let index = index.ok_or_else(|| Error::new(libc::ENODEV, "a block of memory was removed"))?;
        content.resize(count * self.ram.page_size(), 0);
        self.session.take_frozen(index, start * self.ram.page_size(), content)
    }

    /// Claims the unit that begins with this page, unless another thread has it.
    fn claim(&self, at: usize, page: usize) -> bool {
        let block = &self.blocks[at];
        let cleared = block.dirty.clear(page, block.pages_per_unit());
        self.ram.cleaned(cleared);
        cleared > 0
    }
}

impl Copies for Pages<'_> {
    fn next(&self) -> Option<(usize, usize)> {
        let (block, offset) = self.session.next_copy()?;
        let at = self.blocks.iter().position(|other| Arc::ptr_eq(other, block))?;
        Some((at, offset / self.ram.page_size()))
    }

    fn read(
        &self,
        at: usize,
        (start, count): (usize, usize),
        each: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let unit = self.blocks[at].pages_per_unit();
        let mut content = Vec::new();
        let chunk = CHUNK.next_multiple_of(unit);
        let mut from = start;
        while let Some((first, pages)) = self.blocks[at].dirty.run(from, chunk).filter(|run| run.0 < start + count) {
            self.vm.slot.saving.check()?;
            let pages = pages.min(start + count - first);
            let claimed: Vec<_> = (first..first + pages).step_by(unit).filter(|page| self.claim(at, *page)).collect();
            for run in claimed.chunk_by(|page, next| page + unit == *next) {
                self.take(at, (run[0], run.len() * unit), &mut content)?;
                each(run[0], &content)?;
            }
            from = first + pages;
        }
        Ok(())
    }
}

impl FrozenMemory {
    pub fn new(ram: &Arc<Ram>, session: &Arc<Session>, scope: Scope) -> Result<Self> {
        let frozen = session.freeze(scope)?;
        Ok(Self { ram: Arc::clone(ram), session: Arc::clone(session), frozen: Arc::new(frozen), saved: None })
    }

    /// Sends all pages of the frozen units.
    fn send_pages(&self, vm: &Vm, file: &MigFile) -> Result<()> {
        let ram = &*self.ram;
        ram.with_saver(|saver| {
            let blocks = Arc::clone(saver.blocks());
            let pages = Pages { vm, ram, session: &self.session, blocks: &blocks };
            if let Some(mapped) = saver.mapped() {
                // A page of an incremental snapshot is there, or unchanged: zero pages are there.
                return mapped.put_copies(ram, &blocks, &pages, self.frozen.scope == Scope::Changed);
            }
            loop {
                file.check()?;
                let (at, run) = match pages.next() {
                    Some((at, page)) => (at, (page, blocks[at].pages_per_unit())),
                    None => match saver.next_run(ram, CHUNK) {
                        Some((at, start, count)) => (at, (start, count)),
                        None => return Ok(()),
                    },
                };
                pages.read(at, run, &mut |start, content| {
                    saver.send_copy(ram, file, (at, start), content);
                    Ok(())
                })?;
            }
        })
    }
}

impl FrozenRam for FrozenMemory {
    fn send(&self, file: &MigFile) -> Result<()> {
        let vm = self.ram.context()?;
        self.ram.busy.lock().frozen = Some(Arc::clone(&self.frozen));
        let send = || {
            save::setup(&vm, file)?;
            file.check()?;
            section(&vm, file, stream::SECTION_PART, || self.send_pages(&vm, file))?;
            section(&vm, file, stream::SECTION_END, || Ok(()))?;
            // After a panic a page may be missing.
            vm.check_not_poisoned()?;
            self.session.check()
        };
        let clean = || {
            // A thread that has the big lock may wait for room.
            self.session.end_saving();
            self.ram.busy.lock().frozen = None;
            with_big_lock(&*vm.host(), || save::cleanup(&vm));
        };
        finally(send, clean).0
    }

    fn saved(mut self: Box<Self>, snapshot: SavedSnapshot) {
        self.saved = Some(snapshot);
    }
}

impl Drop for FrozenMemory {
    fn drop(&mut self) {
        self.session.thaw(&self.frozen, self.saved.take());
        self.ram.end_session(&self.session);
    }
}

impl Frozen {
    /// Calls `each` with the first target page and the count of each run of units of a block.
    pub fn each_run(&self, at: usize, block: &Block, mut each: impl FnMut(usize, usize)) {
        let pages = block.pages_per_unit();
        self.units[at].runs().for_each(|(start, count)| each(start * pages, count * pages));
    }
}
