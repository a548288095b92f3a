// SPDX-License-Identifier: LGPL-2.1-or-later
//! Missing pages, in postcopy at the destination (QEMU 7.2, `migration/postcopy-ram.c`) and in a lazy restore. A thread
//! that touches a missing page waits until the page was requested and placed. The threads "savevm-faults" read the
//! faults and request the pages. In postcopy, requests go to the source, and the thread that reads the stream places the
//! pages. In a lazy restore, `lazy/` reads them from a file.

use super::block::{self, Block, Blocks};
use super::unreadable::{Method, Unreadable};
use super::{Ram, register_error, userfault_error};
use crate::error::{Error, Result};
use crate::savevm::fault::FaultPoint;
use crate::savevm::slot::PageSource;
use crate::savevm::unwind::catch;
use crate::sync::{Mutex, Rank};
use crate::sys::{Feature, Mode, Ready, Userfault, WakeFd, is_anonymous, poll_any, spawn_prompt, system_page_size};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

/// Size of the zero pages that one fault places, in bytes.
const ZEROS_AHEAD: usize = 256 << 10;

/// The kernel features that the memory of these blocks needs.
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

/// Opens a descriptor for the faults of these blocks. Also returns how it makes pages unreadable.
fn open(blocks: &[Arc<Block>]) -> std::io::Result<(Userfault, Method)> {
    let needed = features(blocks);
    let all = [&needed[..], &[Feature::Poison]].concat();
    let opened = Userfault::open(&all).map(|uffd| (uffd, Method::Poison));
    opened.or_else(|_| Userfault::open(&needed).map(|uffd| (uffd, Method::Protect)))
}

/// Registers all blocks. Returns the descriptor, how missing pages are made unreadable, and for each block whether zero
/// pages can be placed in it.
fn register(blocks: &[Arc<Block>], what: &str) -> Result<(Userfault, Method, Vec<bool>)> {
    let needs = "userfaultfd for this kind of memory (Linux 4.11)";
    let (uffd, method) = open(blocks).map_err(|err| userfault_error(what, needs, &err))?;
    let mut can_zero = Vec::with_capacity(blocks.len());
    for block in blocks {
        let able = uffd.register(block.memory(), Mode::Missing);
        let able = able.map_err(|err| register_error(what, block, &err))?;
        can_zero.push(able && block.info.page_size == system_page_size());
    }
    Ok((uffd, method, can_zero))
}

/// Where missing pages come from.
pub(super) trait Supply: Send + Sync {
    /// Requests a unit of a block: index in `Faults::blocks`, offset. Places it at once or lets it be placed later.
    fn request(&self, ram: &Ram, faults: &Faults, at: usize, offset: usize);
}

/// The source of a postcopy.
struct Remote(Arc<dyn PageSource>);

impl Supply for Remote {
    /// If the connection fails, `ask_again` repeats the request.
    fn request(&self, _ram: &Ram, faults: &Faults, at: usize, offset: usize) {
        let block = &faults.blocks[at];
        if let Err(error) = self.0.request_pages(&block.info.name, offset as u64, block.unit() as u32) {
            log::debug!("asking for block '{}' at 0x{offset:x}: {error}", block.name());
        }
    }
}

/// Page faults of the blocks that are sent; `Ram::blocks` has all blocks.
pub(super) struct Faults {
    pub blocks: Blocks,
    uffd: Userfault,
    method: Method,
    can_zero: Vec<bool>,
    /// Ends the reading of faults.
    wake: WakeFd,
    /// Ends the wait for the guest to be stopped.
    over: WakeFd,
    /// After `abort`: how long threads wait for missing pages.
    grace: Mutex<Option<Duration>>,
    /// Set after that time.
    unreadable: Mutex<Option<Unreadable>>,
    supply: Arc<dyn Supply>,
    /// Requested units that have not arrived: index of the block, offset.
    waiting: Mutex<BTreeSet<(usize, usize)>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Faults {
    /// `what` is the operation, for errors; `count` is the number of threads.
    fn start(
        ram: &Arc<Ram>,
        blocks: Blocks,
        supply: Arc<dyn Supply>,
        what: &str,
        count: usize,
        discard: impl FnOnce() -> Result<()>,
    ) -> Result<Arc<Self>> {
        let (uffd, method, can_zero) = register(&blocks, what)?;
        // After an error, closing the descriptor ends the registration.
        discard()?;
        let failed = |err| Error::io(format_args!("starting {what}"), &err);
        let wake = WakeFd::new().map_err(failed)?;
        let waiting = Mutex::new(Rank::FaultsWaiting, BTreeSet::new());
        let threads = Mutex::new(Rank::FaultThread, Vec::new());
        let over = WakeFd::new().map_err(failed)?;
        let grace = Mutex::new(Rank::FaultsGrace, None);
        let unreadable = Mutex::new(Rank::FaultsUnreadable, None);
        let faults = Self { blocks, uffd, method, can_zero, wake, over, grace, unreadable, supply, waiting, threads };
        let faults = Arc::new(faults);
        for number in 0..count {
            let (shared, ram) = (Arc::clone(&faults), Arc::clone(ram));
            match spawn_prompt("savevm-faults", move || shared.run(&ram, number == 0)) {
                Ok(thread) => faults.threads.lock().push(thread),
                // One thread serves all faults.
                Err(err) if number > 0 => log::debug!("a further thread for page faults: {err}"),
                Err(err) => return Err(Error::io("starting the thread for page faults", &err)),
            }
        }
        Ok(faults)
    }

    /// Serves faults. The `first` thread makes missing pages unreadable, if it comes to that.
    fn run(&self, ram: &Ram, first: bool) {
        if let Err(error) = self.uffd.serve(&self.wake, |address| self.serve(ram, address)) {
            log::error!("reading page faults: {error}");
        }
        if !first {
            return;
        }
        let grace = *self.grace.lock();
        if let Some(grace) = grace
            && matches!(poll_any(&[], false, &self.over, Some(grace)), Ok(Ready::TimedOut))
        {
            log::error!(
                "a guest without all of its memory was not stopped within {grace:?}: a thread that touches a missing page \
                 gets a signal from now on"
            );
            *self.unreadable.lock() = Some(Unreadable::make(&self.blocks, &self.uffd, self.method));
        }
    }

    /// No more pages will arrive. Waiting threads keep waiting; after `grace` their accesses fail.
    fn abort(&self, grace: Duration) {
        self.grace.lock().get_or_insert(grace);
        self.wake.wake();
    }

    /// If a panic prevents a request, the page arrives later: the source sends all pages in the end.
    fn serve(&self, ram: &Ram, address: usize) {
        let Some(vm) = ram.vm.upgrade() else { return };
        let _ = catch(&vm, || {
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
        // Checked under the lock: see `arrived_zero`.
        if block.received.get(offset >> ram.page_bits) {
            drop(waiting);
            self.place_zeros(ram, place, offset);
        } else if waiting.insert((place, offset)) {
            drop(waiting);
            ram.counters.requests.fetch_add(1, Relaxed);
            self.supply.request(ram, self, place, offset);
        }
    }

    /// Serves a fault in a unit that arrived. A unit that arrived as zero may have no page yet; then pages are placed
    /// for it and for the units behind it. If the unit has a page, the waiting threads are woken.
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

    /// A zero unit arrived in an emptied block. A page is placed only if a thread waits for the unit: mapping pages
    /// that the guest never uses takes longer than reading their records.
    pub fn arrived_zero(&self, ram: &Ram, block: &Arc<Block>, offset: usize) -> Result<()> {
        let place = self.place_of(block)?;
        block.received.set(offset >> ram.page_bits, block.pages_per_unit());
        // A fault is either in `waiting` by now, or finds the unit received.
        if self.waiting.lock().remove(&(place, offset)) {
            self.place_zeros(ram, place, offset);
        }
        Ok(())
    }

    /// Whether a unit was requested and has not arrived.
    #[cfg(test)]
    pub fn is_waiting(&self, place: usize, offset: usize) -> bool {
        self.waiting.lock().contains(&(place, offset))
    }

    fn place_of(&self, block: &Arc<Block>) -> Result<usize> {
        let place = self.blocks.iter().position(|other| Arc::ptr_eq(other, block));
        place.ok_or_else(|| Error::invalid("a page for a block that takes no part in postcopy"))
    }

    fn ask_again(&self, ram: &Ram) {
        let page_bits = ram.page_bits;
        let waiting: Vec<_> = {
            let mut waiting = self.waiting.lock();
            waiting.retain(|(place, offset)| !self.blocks[*place].received.get(offset >> page_bits));
            waiting.iter().copied().collect()
        };
        waiting.into_iter().for_each(|(place, offset)| self.supply.request(ram, self, place, offset));
    }

    /// Places consecutive units of the block with this index, and wakes the threads that wait for them. Units that are
    /// present stay as they are.
    pub fn place_run(&self, ram: &Ram, at: usize, offset: usize, content: &[u8]) -> Result<()> {
        let block = &self.blocks[at];
        let placed = self.uffd.place_missing(block.memory(), offset, content, block.info.page_size);
        placed.map_err(|err| {
            Error::io(format_args!("placing pages of block '{}' at 0x{offset:x}", block.name()), &err)
        })?;
        block.received.set(offset >> ram.page_bits, content.len() >> ram.page_bits);
        let mut waiting = self.waiting.lock();
        let units: Vec<_> = waiting.range((at, offset)..(at, offset + content.len())).copied().collect();
        for unit in units {
            waiting.remove(&unit);
        }
        Ok(())
    }

    /// Places a unit and wakes the threads that wait for it. A page that is present stays: the guest may have written
    /// to it.
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

    /// Ends the service of faults and wakes all waiting threads. If the guest is not `stopped`, missing pages are
    /// unreadable for as long as the returned value lives; else they read as zero.
    fn stop(&self, stopped: bool) -> Option<Unreadable> {
        self.over.wake();
        self.wake.wake();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            // The panic hook has reported a panic of the thread.
            let _ = thread.join();
        }
        let unreadable = self.unreadable.take();
        let unreadable = if stopped {
            // Until `unregister` threads wait for these pages again.
            drop(unreadable);
            None
        } else {
            Some(unreadable.unwrap_or_else(|| Unreadable::make(&self.blocks, &self.uffd, self.method)))
        };
        for block in self.blocks.iter() {
            if let Err(error) = self.uffd.unregister(block.memory()) {
                log::warn!("ending the service of page faults in block '{}': {error}", block.name());
            }
        }
        allow_huge(&self.blocks, true);
        unreadable.filter(|unreadable| !unreadable.is_empty())
    }
}

/// Transparent huge pages are forbidden while pages can be missing: a huge page would fill missing pages with zeros.
fn allow_huge(blocks: &[Arc<Block>], allow: bool) {
    blocks.iter().for_each(|block| block.memory().allow_huge(allow));
}

impl Ram {
    pub(super) fn sent_blocks(&self) -> Blocks {
        Arc::new(self.blocks().iter().filter(|block| !self.is_ignored(block)).cloned().collect())
    }

    /// Checks whether this machine can be the destination of a postcopy.
    pub fn check_postcopy(&self) -> Result<()> {
        self.check_faults("postcopy")
    }

    /// Checks whether this process can serve page faults in all memory. `what` needs it, for errors.
    pub(super) fn check_faults(&self, what: &str) -> Result<()> {
        let blocks = self.sent_blocks();
        if self.faults.lock().is_some() {
            return Err(Error::new(libc::EBUSY, "a postcopy is in progress"));
        }
        if let Some(block) = blocks.iter().find(|block| block.unit() > u32::MAX as usize) {
            return Err(Error::new(
                libc::ENOTSUP,
                format!("{what}: the pages of block '{}' are too large", block.name()),
            ));
        }
        let (uffd, ..) = register(&blocks, what)?;
        for block in blocks.iter() {
            let _ = uffd.unregister(block.memory());
        }
        Ok(())
    }

    /// POSTCOPY_ADVISE arrived: discards all memory, so that every page that does not arrive is missing.
    pub(super) fn advised(&self) -> Result<()> {
        self.check_postcopy()?;
        self.discard_all()?;
        self.advised.store(true, SeqCst);
        Ok(())
    }

    /// Discards all memory, so that every page is missing.
    pub(super) fn discard_all(&self) -> Result<()> {
        self.sent_blocks().iter().try_for_each(|block| {
            self.discard(block, 0, block.memory().len())?;
            // A private mapping of a file has the file's content now, not zeros.
            block.emptied.store(block.info.shared || is_anonymous(block.memory()), Relaxed);
            Ok(())
        })
    }

    fn discard(&self, block: &Block, start: usize, len: usize) -> Result<()> {
        let (first, count) = block.page_range(start, len);
        block.received.clear(first, count);
        let discarded = block.memory().discard(start, len, block.info.shared);
        discarded.map_err(|err| Error::io(format!("discarding memory of block '{}'", block.name()), &err))
    }

    /// Discards the content of pages that have not arrived: a present page never faults.
    fn discard_missing(&self, block: &Block) -> Result<()> {
        block.missing().try_for_each(|(start, len)| self.discard(block, start, len))
    }

    /// Discards a range that the source has changed since it sent it.
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
        self.discard(block, start as usize, len as usize)
    }

    /// Starts to serve faults.
    pub(super) fn start_faults(self: &Arc<Self>, source: Arc<dyn PageSource>) -> Result<()> {
        self.stop_prefault();
        let discard = || self.sent_blocks().iter().try_for_each(|block| self.discard_missing(block));
        self.finish_further()?;
        self.serve_faults(Arc::new(Remote(source)), "postcopy", 1, discard)
    }

    /// Starts to serve faults on `count` threads, for the operation `what`. `discard` discards all pages that are missing. It
    /// is called when a touch of a missing page waits already: a page that was touched in between would count as present.
    pub(super) fn serve_faults(
        self: &Arc<Self>,
        supply: Arc<dyn Supply>,
        what: &str,
        count: usize,
        discard: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let blocks = self.sent_blocks();
        allow_huge(&blocks, false);
        let started = Faults::start(self, Arc::clone(&blocks), supply, what, count, discard);
        let faults = started.inspect_err(|_| allow_huge(&blocks, true))?;
        *self.faults.lock() = Some(faults);
        Ok(())
    }

    pub(super) fn faults(&self) -> Option<Arc<Faults>> {
        self.faults.lock().clone()
    }

    pub(super) fn ask_again(&self) {
        if let Some(faults) = self.faults() {
            faults.ask_again(self);
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

    /// A load ends, with or without success. A guest that was not stopped must not read zeros.
    pub(super) fn cleanup_faults(&self) {
        let Some(faults) = self.faults() else { return };
        let missing = faults.blocks.iter().any(|block| block.missing().next().is_some());
        let running = missing && self.vm.upgrade().is_some_and(|vm| vm.host().vm_running());
        self.stop_faults(!running);
    }
}
