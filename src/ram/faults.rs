// SPDX-License-Identifier: LGPL-2.1-or-later
//! Postcopy at the destination: a page that is missing stops who touches it until it was asked for and put in place
//! (QEMU 7.2, `migration/postcopy-ram.c`).

use super::block::{self, Block, Blocks};
use super::unreadable::{Method, Unreadable};
use super::{Ram, userfault_error};
use crate::error::{Error, Result};
use crate::savevm::fault::FaultPoint;
use crate::savevm::slot::PageSource;
use crate::savevm::unwind::contained;
use crate::sync::{Mutex, Rank};
use crate::sys::{Feature, Mode, Ready, Userfault, WakeFd, is_anonymous, poll_any, spawn, system_page_size};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

/// Zero pages that one fault places ahead, in bytes.
const ZEROS_AHEAD: usize = 256 << 10;

/// What the memory of these blocks needs.
fn features(blocks: &[Arc<Block>]) -> Vec<Feature> {
    let mut features = Vec::new();
    if blocks.iter().any(|block| block.info.page_size > system_page_size()) {
        features.push(Feature::MissingHuge);
    }
    if blocks.iter().any(|block| block.info.shared) {
        features.push(Feature::MissingShmem);
    }
    features
}

/// A descriptor for the faults of these blocks, and how it makes pages unreadable.
fn open(blocks: &[Arc<Block>]) -> std::io::Result<(Userfault, Method)> {
    let needed = features(blocks);
    let all = [&needed[..], &[Feature::Poison]].concat();
    let opened = Userfault::open(&all).map(|uffd| (uffd, Method::Poison));
    opened.or_else(|_| Userfault::open(&needed).map(|uffd| (uffd, Method::Protect)))
}

/// Faults of all blocks, how missing pages are made unreadable, and which blocks can be given zero pages.
fn register(blocks: &[Arc<Block>]) -> Result<(Userfault, Method, Vec<bool>)> {
    let needs = "userfaultfd for this kind of memory (Linux 4.11)";
    let (uffd, method) = open(blocks).map_err(|err| userfault_error("postcopy", needs, &err))?;
    let mut can_zero = Vec::with_capacity(blocks.len());
    for block in blocks {
        let able = uffd.register(block.memory(), Mode::Missing).map_err(|err| {
            Error::io(format!("postcopy: userfaultfd can't handle the memory of block '{}'", block.name()), &err)
        })?;
        can_zero.push(able && block.info.page_size == system_page_size());
    }
    Ok((uffd, method, can_zero))
}

/// See the module. Blocks are those that are sent; `Ram::blocks` has them all.
pub(super) struct Faults {
    blocks: Blocks,
    uffd: Userfault,
    method: Method,
    can_zero: Vec<bool>,
    /// Ends the service of faults.
    wake: WakeFd,
    /// Ends the wait for the guest to be stopped.
    over: WakeFd,
    /// After `abort`: for how long missing pages make threads wait.
    grace: Mutex<Option<Duration>>,
    /// After that time.
    unreadable: Mutex<Option<Unreadable>>,
    source: Arc<dyn PageSource>,
    /// Place of the block and offset of what was asked for and did not arrive.
    waiting: Mutex<BTreeSet<(usize, usize)>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Faults {
    fn start(ram: &Arc<Ram>, blocks: Blocks, source: Arc<dyn PageSource>) -> Result<Arc<Self>> {
        let (uffd, method, can_zero) = register(&blocks)?;
        let wake = WakeFd::new().map_err(|err| Error::io("starting postcopy", &err))?;
        let waiting = Mutex::new(Rank::FaultsWaiting, BTreeSet::new());
        let thread = Mutex::new(Rank::FaultThread, None);
        let over = WakeFd::new().map_err(|err| Error::io("starting postcopy", &err))?;
        let grace = Mutex::new(Rank::FaultsGrace, None);
        let unreadable = Mutex::new(Rank::FaultsUnreadable, None);
        let faults = Self { blocks, uffd, method, can_zero, wake, over, grace, unreadable, source, waiting, thread };
        let faults = Arc::new(faults);
        let (shared, ram) = (Arc::clone(&faults), Arc::clone(ram));
        let thread = spawn("savevm-faults", move || shared.run(&ram));
        let thread = thread.map_err(|err| Error::io("starting the thread for page faults", &err))?;
        *faults.thread.lock() = Some(thread);
        Ok(faults)
    }

    fn run(&self, ram: &Ram) {
        if let Err(error) = self.uffd.serve(&self.wake, |address| self.serve(ram, address)) {
            log::error!("reading page faults: {error}");
        }
        let grace = *self.grace.lock();
        if let Some(grace) = grace
            && matches!(poll_any(&[], false, &self.over, Some(grace)), Ok(Ready::TimedOut))
        {
            log::error!(
                "the guest of a failed postcopy was not stopped within {grace:?}: threads that touch memory that did not \
                 arrive get a signal from now on"
            );
            *self.unreadable.lock() = Some(Unreadable::make(&self.blocks, &self.uffd, self.method));
        }
    }

    /// No more pages will arrive: threads that wait for one wait on, and after `grace` they fail.
    fn abort(&self, grace: Duration) {
        self.grace.lock().get_or_insert(grace);
        self.wake.wake();
    }

    /// A page that nobody asks for because of a panic comes all the same: the source sends all of them in the end.
    fn serve(&self, ram: &Ram, address: usize) {
        let Some(vm) = ram.vm.upgrade() else { return };
        let _ = contained(&vm, || {
            vm.fault_point(FaultPoint::PageFault);
            self.fault(ram, address);
        });
    }

    fn fault(&self, ram: &Ram, address: usize) {
        let Some((place, block, offset)) = block::find_address(&self.blocks, address) else {
            return log::error!("a page fault at 0x{address:x}, outside of all blocks");
        };
        let offset = offset - offset % block.unit();
        let mut waiting = self.waiting.lock();
        // Looked at under the lock: see `arrived_zero`.
        if block.received.get(offset >> ram.page_bits) {
            drop(waiting);
            self.place_zeros(ram, place, offset);
        } else if waiting.insert((place, offset)) {
            drop(waiting);
            ram.counters.requests.fetch_add(1, Relaxed);
            self.ask(place, offset);
        }
    }

    /// Serves a fault in a unit that arrived. If it arrived as zero it may have no page yet; then the units behind it get
    /// theirs as well. Threads that wait for a unit that has a page are woken.
    fn place_zeros(&self, ram: &Ram, place: usize, offset: usize) {
        let block = &self.blocks[place];
        let (memory, unit) = (block.memory(), block.unit());
        let arrived = |at: &usize| *at < memory.len() && block.received.get(at >> ram.page_bits);
        let ahead = if self.can_zero[place] { ZEROS_AHEAD } else { unit };
        for at in (offset..offset + ahead.max(unit)).step_by(unit).take_while(arrived) {
            let placed = if self.can_zero[place] {
                self.uffd.place_zero(memory, at, unit)
            } else {
                self.uffd.place(memory, at, &vec![0; unit])
            };
            match placed {
                Ok(()) => {}
                Err(_) if at > offset => break,
                Err(err) => {
                    if err.raw_os_error() != Some(libc::EEXIST) {
                        log::error!("placing a zero page of block '{}' at 0x{at:x}: {err}", block.name());
                    }
                    let _ = self.uffd.wake(memory, at, unit);
                    break;
                }
            }
        }
    }

    /// A zero unit arrived in an emptied block. It gets a page only if a thread waits for it: page tables for memory that
    /// the guest never uses take longer to write than the records for it.
    pub fn arrived_zero(&self, ram: &Ram, block: &Arc<Block>, offset: usize) -> Result<()> {
        let place = self.place_of(block)?;
        block.received.set(offset >> ram.page_bits, block.pages_per_unit());
        // A fault is either in the list by now, or finds the unit received.
        if self.waiting.lock().remove(&(place, offset)) {
            self.place_zeros(ram, place, offset);
        }
        Ok(())
    }

    /// Whether a unit was asked for and did not arrive.
    #[cfg(test)]
    pub fn is_waiting(&self, place: usize, offset: usize) -> bool {
        self.waiting.lock().contains(&(place, offset))
    }

    fn place_of(&self, block: &Arc<Block>) -> Result<usize> {
        let place = self.blocks.iter().position(|other| Arc::ptr_eq(other, block));
        place.ok_or_else(|| Error::invalid("a page for a block that takes no part in postcopy"))
    }

    /// A request that the connection does not take is repeated by `ask_again`.
    fn ask(&self, place: usize, offset: usize) {
        let block = &self.blocks[place];
        if let Err(error) = self.source.request_pages(&block.info.name, offset as u64, block.unit() as u32) {
            log::debug!("asking for block '{}' at 0x{offset:x}: {error}", block.name());
        }
    }

    fn ask_again(&self, page_bits: u32) {
        let waiting: Vec<_> = {
            let mut waiting = self.waiting.lock();
            waiting.retain(|(place, offset)| !self.blocks[*place].received.get(offset >> page_bits));
            waiting.iter().copied().collect()
        };
        waiting.into_iter().for_each(|(place, offset)| self.ask(place, offset));
    }

    /// Puts a unit in place and lets go who waits for it. What is there already stays: the guest may have written to it.
    pub fn place(&self, ram: &Ram, block: &Arc<Block>, offset: usize, content: &[u8], zero: bool) -> Result<()> {
        let place = self.place_of(block)?;
        let placed = if zero && self.can_zero[place] {
            self.uffd.place_zero(block.memory(), offset, content.len())
        } else {
            self.uffd.place(block.memory(), offset, content)
        };
        match placed {
            Err(err) if err.raw_os_error() != Some(libc::EEXIST) => return Err(Error::io("placing a page", &err)),
            _ => {}
        }
        block.received.set(offset >> ram.page_bits, block.pages_per_unit());
        self.waiting.lock().remove(&(place, offset));
        Ok(())
    }

    /// Ends it and wakes all waiting threads. If the guest is not `stopped`, missing pages are unreadable for as long as
    /// the returned value lives; else they read as zero.
    fn stop(&self, stopped: bool) -> Option<Unreadable> {
        self.over.wake();
        self.wake.wake();
        if let Some(thread) = self.thread.take() {
            // A panic in it was told by the panic hook.
            let _ = thread.join();
        }
        let unreadable = self.unreadable.take();
        let unreadable = if stopped {
            // Pages that are missing again make threads wait until the end below.
            drop(unreadable);
            None
        } else {
            Some(unreadable.unwrap_or_else(|| Unreadable::make(&self.blocks, &self.uffd, self.method)))
        };
        for block in self.blocks.iter() {
            if let Err(error) = self.uffd.unregister(block.memory()) {
                log::warn!("ending postcopy of block '{}': {error}", block.name());
            }
        }
        allow_huge(&self.blocks, true);
        unreadable.filter(|unreadable| !unreadable.is_empty())
    }
}

/// While pages can be missing: a huge page that the kernel makes would fill them in.
fn allow_huge(blocks: &[Arc<Block>], allow: bool) {
    blocks.iter().for_each(|block| block.memory().allow_huge(allow));
}

impl Ram {
    fn sent_blocks(&self) -> Blocks {
        Arc::new(self.blocks().iter().filter(|block| !self.is_ignored(block)).cloned().collect())
    }

    /// Whether this machine can be the destination of a postcopy, or why not.
    pub fn check_postcopy(&self) -> Result<()> {
        let blocks = self.sent_blocks();
        if self.faults.lock().is_some() {
            return Err(Error::new(libc::EBUSY, "a postcopy is in progress"));
        }
        if let Some(block) = blocks.iter().find(|block| block.unit() > u32::MAX as usize) {
            return Err(Error::new(
                libc::ENOTSUP,
                format!("postcopy: the pages of block '{}' are too large", block.name()),
            ));
        }
        let (uffd, ..) = register(&blocks)?;
        for block in blocks.iter() {
            let _ = uffd.unregister(block.memory());
        }
        Ok(())
    }

    /// Postcopy may come: memory is emptied, so that every page that does not arrive is missing.
    pub(super) fn advised(&self) -> Result<()> {
        self.check_postcopy()?;
        for block in self.sent_blocks().iter() {
            self.throw_away(block, 0, block.memory().len())?;
            // Memory of a file that is not shared has the file's content now.
            block.emptied.store(block.info.shared || is_anonymous(block.memory()), Relaxed);
        }
        self.advised.store(true, SeqCst);
        Ok(())
    }

    fn throw_away(&self, block: &Block, start: usize, len: usize) -> Result<()> {
        let (first, count) = block.page_range(start, len);
        block.received.clear(first, count);
        let thrown = block.memory().discard(start, len, block.info.shared);
        thrown.map_err(|err| Error::io(format!("throwing away memory of block '{}'", block.name()), &err))
    }

    /// Nothing of a page that did not arrive may stand in its place: it would never be missed.
    fn throw_away_missing(&self, block: &Block) -> Result<()> {
        block.missing().try_for_each(|(start, len)| self.throw_away(block, start, len))
    }

    /// The source has changed these pages since it sent them.
    pub(super) fn discard_range(&self, name: &[u8], start: u64, len: u64) -> Result<()> {
        let blocks = self.blocks();
        let text = || format!("a discard for block '{}', which is not there", String::from_utf8_lossy(name));
        let (_, block) = block::find(&blocks, name).ok_or_else(|| Error::invalid(text()))?;
        block.check_range(start, len, "a discard")?;
        if self.is_ignored(block) {
            let text = format!("a discard for block '{}', which both sides share", block.name());
            return Err(Error::invalid(text));
        }
        if self.faults.lock().is_some() {
            return Err(Error::new(libc::EPERM, "a discard while the guest may run"));
        }
        self.throw_away(block, start as usize, len as usize)
    }

    /// From now on missing pages are asked for.
    pub(super) fn start_faults(self: &Arc<Self>, source: Arc<dyn PageSource>) -> Result<()> {
        self.settle_load();
        let blocks = self.sent_blocks();
        allow_huge(&blocks, false);
        let thrown = blocks.iter().try_for_each(|block| self.throw_away_missing(block));
        let started = thrown.and_then(|()| Faults::start(self, Arc::clone(&blocks), source));
        let faults = started.inspect_err(|_| allow_huge(&blocks, true))?;
        *self.faults.lock() = Some(faults);
        Ok(())
    }

    pub(super) fn faults(&self) -> Option<Arc<Faults>> {
        self.faults.lock().clone()
    }

    pub(super) fn ask_again(&self) {
        if let Some(faults) = self.faults() {
            faults.ask_again(self.page_bits);
        }
    }

    /// No more pages will arrive, and the guest is about to be stopped: see `PostcopyRam::abort`.
    pub(super) fn abort_faults(&self, grace: Duration) {
        if let Some(faults) = self.faults() {
            faults.abort(grace);
        }
    }

    /// Postcopy is over. Missing pages read as zero if the guest is `stopped`, else they become unreadable.
    pub(super) fn stop_faults(&self, stopped: bool) {
        let unreadable = self.faults.take().and_then(|faults| faults.stop(stopped));
        if unreadable.is_some() {
            let before = std::mem::replace(&mut *self.unreadable.lock(), unreadable);
            drop(before);
        }
    }

    /// A load ends in whatever way. A guest that was not stopped before must not read zeros.
    pub(super) fn cleanup_faults(&self) {
        let Some(faults) = self.faults() else { return };
        let missing = faults.blocks.iter().any(|block| block.missing().next().is_some());
        let running = missing && self.vm.upgrade().is_some_and(|vm| vm.host().vm_running());
        self.stop_faults(!running);
    }
}
