// SPDX-License-Identifier: LGPL-2.1-or-later
//! Memory that is saved while the guest runs: a page that the guest writes to before it was saved is kept by the session.

use super::Session;
use super::session::Frozen;
use crate::error::{Error, Result};
use crate::file::MigFile;
use crate::ram::Ram;
use crate::ram::block::Block;
use crate::ram::save::CHUNK;
use crate::ram::snapshot::section;
use crate::savevm::checkpoint::{FrozenRam, SavedSnapshot};
use crate::savevm::host::with_big_lock;
use crate::savevm::save;
use crate::savevm::unwind::finally;
use crate::wire as stream;
use std::sync::Arc;

/// See the module. Dropping it ends the freeze.
pub(in crate::ram) struct FrozenMemory {
    ram: Arc<Ram>,
    session: Arc<Session>,
    frozen: Arc<Frozen>,
    saved: Option<SavedSnapshot>,
}

impl FrozenMemory {
    pub fn new(ram: &Arc<Ram>, session: &Arc<Session>, changed: bool) -> Result<Self> {
        let frozen = session.freeze(changed)?;
        Ok(Self { ram: Arc::clone(ram), session: Arc::clone(session), frozen: Arc::new(frozen), saved: None })
    }

    /// Sends all pages of the frozen units.
    fn send_pages(&self, file: &MigFile) -> Result<()> {
        let ram = &*self.ram;
        let mut content = Vec::new();
        ram.with_saver(|saver| {
            while let Some((at, start, count)) = saver.next_run(ram, CHUNK) {
                file.check()?;
                let block = saver.block(at);
                ram.cleaned(block.dirty.clear(start, count));
                content.resize(count * ram.page_size(), 0);
                let index = self.session.index_of(&block);
                let index = index.ok_or_else(|| Error::new(libc::ENODEV, "a block of memory was removed"))?;
                self.session.read_frozen(index, start * ram.page_size(), &mut content);
                saver.send_copy(ram, file, (at, start), &content);
            }
            Ok(())
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
            section(&vm, file, stream::SECTION_PART, || self.send_pages(file))?;
            section(&vm, file, stream::SECTION_END, || Ok(()))?;
            // After a panic a page may be missing.
            vm.check_not_poisoned()?;
            self.session.check()
        };
        let clean = || {
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
