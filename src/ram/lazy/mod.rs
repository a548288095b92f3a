// SPDX-License-Identifier: LGPL-2.1-or-later
//! Lazy restores: all memory is missing at first. A page is read from the snapshot's file when a thread touches it, and
//! threads read all other pages meanwhile.
//!
//! - `at_once.rs`: reads all pages of a stream before the guest runs.
//! - `chained.rs`: reads pages of a chain of snapshots.
//! - `pages.rs`: finds and reads pages in the file.
//! - `working_set.rs`: the order of first touches.
//!
//! Threads: "savevm-faults" (see `faults.rs`) serve touched pages, "savevm-lazy" read all others, and "savevm-restore" is
//! one of the latter, waits for them, and ends the restore. If a page can't be read, it stops the guest as after a failed
//! postcopy: `abort`, `vm_stop`, `release` (see docs/architecture.md).

mod at_once;
mod chained;
mod pages;
mod working_set;

use super::Ram;
use super::faults::{Faults, Supply};
use super::mapped::{MappedLoad, Pieces};
use crate::channel::replace_file;
use crate::error::{self, Error, Phase, Result, Side};
use crate::file::MigFile;
use crate::savevm::Vm;
use crate::savevm::chain_pages::ChainPages;
use crate::savevm::host::{Level, with_big_lock, without_big_lock};
use crate::savevm::memory_plan::MemoryPlan;
use crate::savevm::owner::Owner;
use crate::savevm::restore::{IndexFile, LazyPlan, PageIndex};
use crate::savevm::unwind::catch;
use crate::savevm::workers;
use crate::sync::{Mutex, Rank};
use crate::sys::{Ready, WakeFd, poll_any, spawn};
use crate::wire::page_index::Run;
use chained::Chained;
use pages::{Buffers, Indexed, Mapped, Pages};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use working_set::{Unit, WorkingSet};

/// Number of threads that serve touched pages.
const FAULT_THREADS: usize = 2;
/// Size of the memory that a touch places, in bytes, or one unit if that is larger.
const AHEAD: usize = 64 << 10;
/// Size of the memory that the other threads read at a time, in bytes, or one unit if that is larger.
const PIECE: usize = 512 << 10;
/// Number of units of the working set that a thread takes at a time.
const BATCH: usize = 64;
/// How long a restore that records the working set reads only touched pages.
const RECORD_TIME: Duration = Duration::from_secs(1);
/// How long a guest without all of its memory may take to stop, before its missing pages become unreadable.
const STOP_GRACE: Duration = Duration::from_secs(2);

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// A lazy load from its first section on.
pub(super) struct LazyLoad {
    /// In the order of `Ram::sent_blocks`.
    pages: Vec<Pages>,
    plan: Arc<MemoryPlan>,
}

impl LazyLoad {
    /// From a file with fixed places of pages.
    pub fn from_mapped(ram: &Ram, mapped: MappedLoad, plan: Arc<MemoryPlan>) -> Result<Self> {
        let (file, blocks) = mapped.into_parts();
        let file = Arc::new(file);
        let pages_of = |pages| Pages::Mapped(Mapped { file: Arc::clone(&file), pages });
        let mut blocks: Vec<_> = blocks.into_iter().map(pages_of).collect();
        let sent = ram.sent_blocks();
        let pages = sent.iter().map(|block| {
            let at = blocks.iter().position(|pages| Arc::ptr_eq(pages.block(), block));
            at.map(|at| blocks.swap_remove(at)).ok_or_else(|| missing(&block.name()))
        });
        Ok(Self { pages: pages.collect::<Result<_>>()?, plan })
    }

    /// From a stream whose pages were found before.
    pub fn from_index(ram: &Ram, file: &MigFile, index: &PageIndex, plan: Arc<MemoryPlan>) -> Result<Self> {
        let (position, positioned) = (file.position(), file.positioned()?);
        let base = file.file_offset(&positioned)? - position;
        let file = Arc::new(positioned);
        let sent = ram.sent_blocks();
        let pages = sent.iter().map(|block| {
            let indexed = index.blocks.iter().find(|indexed| indexed.name == block.name());
            let indexed = indexed.ok_or_else(|| missing(&block.name()))?;
            let end = indexed.runs.last().map_or(0, Run::end);
            if indexed.length != block.len() || end > block.pages() as u64 {
                return Err(Error::invalid(format!("block '{}' has another size in the stream", block.name())));
            }
            let (file, block, pages) = (Arc::clone(&file), Arc::clone(block), Arc::clone(indexed));
            Ok(Pages::Indexed(Indexed { file, block, base, pages }))
        });
        let pages = pages.collect::<Result<_>>()?;
        let is_sent = |name: &str| sent.iter().any(|block| block.name() == name);
        if let Some(other) = index.blocks.iter().find(|other| !other.runs.is_empty() && !is_sent(&other.name)) {
            return Err(Error::invalid(format!("a page for block '{}', which both sides share", other.name)));
        }
        Ok(Self { pages, plan })
    }

    /// From a chain of snapshots.
    pub fn from_chain(ram: &Ram, chain: &Arc<ChainPages>, plan: Arc<MemoryPlan>) -> Result<Self> {
        let sent = ram.sent_blocks();
        let pages = sent.iter().map(|block| Chained::new(block, chain).map(Pages::Chained));
        Ok(Self { pages: pages.collect::<Result<_>>()?, plan })
    }
}

fn missing(block: &str) -> Error {
    Error::invalid(format!("block '{block}' is here, but not in the stream"))
}

/// Moves the stream behind the section of RAM that it is in.
pub(super) fn skip_section(file: &MigFile, index: &PageIndex) -> Result<()> {
    let position = file.position();
    let end = index.section_ends.partition_point(|end| *end <= position);
    let Some(end) = index.section_ends.get(end) else {
        return Err(Error::invalid("a section of RAM that was not there when the file was checked").at_offset(position));
    };
    let positioned = file.positioned()?;
    let here = file.file_offset(&positioned)?;
    file.continue_at(&positioned, here + (end - position))
}

/// A lazy restore in progress.
pub(super) struct Lazy {
    pages: Vec<Pages>,
    working_set: WorkingSet,
    plan: Arc<MemoryPlan>,
    /// No more pages are read: the restore failed, or it was ended.
    stop: WakeFd,
    stopped: AtomicBool,
    failure: Mutex<Option<Error>>,
}

impl Supply for Lazy {
    fn request(&self, ram: &Ram, faults: &Faults, at: usize, offset: usize) {
        if self.stopped.load(SeqCst) {
            return;
        }
        self.working_set.touched((at, offset));
        if let Some(vm) = ram.vm() {
            vm.slot.restore.count_fault();
        }
        let (len, unit) = (self.pages[at].block().memory().len(), self.pages[at].block().unit());
        let end = (offset + AHEAD.max(unit)).min(len);
        if let Err(error) = self.read(ram, faults, at, (offset, end)) {
            self.fail(error);
        }
    }
}

impl Lazy {
    /// Reads the first missing units of a range, up to units that are present. Returns whether any were missing.
    fn read(&self, ram: &Ram, faults: &Faults, at: usize, (start, end): (usize, usize)) -> Result<bool> {
        let (pages, page_size) = (&self.pages[at], ram.page_size());
        let received = &pages.block().received;
        let Some((first, count)) = received.clear_run(start / page_size, end / page_size) else { return Ok(false) };
        BUFFERS.with_borrow_mut(|buffers| {
            let len = count * page_size;
            if buffers.content.len() < len {
                buffers.content.resize(len, 0);
            }
            let content = &mut buffers.content[..len];
            pages.read(first, content, page_size, &mut buffers.records)?;
            faults.place_run(ram, at, first * page_size, content)?;
            if let Some(vm) = ram.vm() {
                vm.slot.restore.count_loaded(len as u64);
            }
            Ok(true)
        })
    }

    /// Reads everything in a range that is missing.
    fn read_piece(&self, ram: &Ram, faults: &Faults, at: usize, range: (usize, usize)) -> Result<()> {
        let mut more = true;
        while more && !self.stopped.load(SeqCst) {
            more = self.read(ram, faults, at, range)?;
        }
        Ok(())
    }

    /// Reads units of the working set. Consecutive units are read at once.
    fn read_units(&self, ram: &Ram, faults: &Faults, units: &[Unit]) -> Result<()> {
        let unit = |at: usize| self.pages[at].block().unit();
        for run in units.chunk_by(|one, next| one.0 == next.0 && one.1 + unit(one.0) == next.1) {
            let (at, start) = run[0];
            self.read_piece(ram, faults, at, (start, start + run.len() * unit(at)))?;
        }
        Ok(())
    }

    fn fail(&self, error: Error) {
        self.failure.lock().get_or_insert(error);
        self.end();
    }

    /// Ends the reading.
    fn end(&self) {
        self.stopped.store(true, SeqCst);
        self.stop.wake();
    }

    /// Reads all missing pages on several threads, of which this is one.
    fn read_all(&self, vm: &Vm, ram: &Ram, faults: &Faults) -> Result<()> {
        if self.working_set.is_recording() {
            let waited = poll_any(&[], false, &self.stop, Some(RECORD_TIME));
            if !matches!(waited, Ok(Ready::TimedOut)) {
                return Ok(());
            }
        }
        let pieces = Pieces::new(self.pages.iter().map(Pages::block).enumerate(), PIECE);
        workers::run(vm, "savevm-lazy", self.plan.threads(), || {
            if self.stopped.load(SeqCst) {
                return Ok(false);
            }
            let units = self.working_set.take(BATCH);
            if !units.is_empty() {
                self.read_units(ram, faults, units)?;
                return Ok(true);
            }
            let Some((at, offset, len)) = pieces.next() else { return Ok(false) };
            self.read_piece(ram, faults, at, (offset, offset + len))?;
            Ok(true)
        })
    }

    /// Writes the index of the stream, if one is wanted. Without it only the next restore takes longer.
    fn write_index(&self, vm: &Vm) {
        let Some(IndexFile { path, bytes }) = self.plan.lazy.as_deref().and_then(|plan| plan.index_file.as_ref())
        else {
            return;
        };
        if let Err(error) = replace_file(path, bytes) {
            vm.host().report(Level::Warning, &format!("the index of the snapshot: {}", error.message()));
        }
    }

    /// The thread "savevm-restore".
    fn run(&self, vm: &Arc<Vm>, ram: &Arc<Ram>, faults: &Faults) {
        vm.slot.restore.set_thread();
        let read = catch(vm, || self.read_all(vm, ram, faults)).and_then(|read| read);
        match read {
            Ok(()) => self.write_index(vm),
            Err(error) => self.fail(error),
        }
        let failure = self.failure.lock().clone();
        let result = match failure {
            Some(error) => Err(fail_restore(vm, ram, error)),
            None if self.stopped.load(SeqCst) => {
                ram.cleanup_faults();
                Err(Error::new(libc::ECANCELED, "the lazy restore was ended before all pages were read"))
            }
            None => {
                ram.stop_faults(true);
                if let Err(error) = self.working_set.store(&faults.blocks) {
                    // The memory is complete. Only a hint for the next restore is missing.
                    vm.host().report(Level::Warning, &error.to_string());
                }
                Ok(())
            }
        };
        let _ = catch(vm, || vm.host().restore_ended(result.as_ref().err()));
        ram.lazy_ended();
        vm.slot.end_restore(result);
    }
}

/// A page can't be read: stops the guest, so that it never reads anything else in its place. Returns the error.
fn fail_restore(vm: &Arc<Vm>, ram: &Ram, error: Error) -> Error {
    let error = error.at_side(Side::Destination).in_phase(Phase::Snapshot);
    let guest_may_run = vm.slot.restore.fail(&error);
    let mut stopped = true;
    if guest_may_run {
        ram.abort_faults(STOP_GRACE);
        let host = vm.host();
        let stop = || {
            with_big_lock(&*host, || {
                vm.ownership.set(Owner::Torn, format!("a page could not be read: {}", error.message()));
                error::check("vm_stop", if host.vm_running() { host.vm_stop() } else { 0 })
            })
        };
        stopped = match catch(vm, || vm.on_thread(stop)).and_then(|stopped| stopped) {
            Ok(()) => true,
            Err(error) => {
                let text = format!("a guest without all of its memory could not be stopped: {error}");
                host.report(Level::Error, &text);
                false
            }
        };
    }
    let error = vm.report(error);
    ram.stop_faults(stopped);
    error
}

impl Ram {
    /// Starts a lazy restore: from now on pages come from the file.
    pub(super) fn start_lazy(self: &Arc<Self>, load: LazyLoad) -> Result<()> {
        let vm = self.context()?;
        let LazyLoad { pages, plan } = load;
        let path = plan.lazy.as_deref().and_then(|LazyPlan { working_set, .. }| working_set.as_deref());
        let working_set = WorkingSet::open(path, &self.sent_blocks());
        let failed = |err: std::io::Error| Error::io("starting a lazy restore", &err);
        let lazy = Arc::new(Lazy {
            working_set,
            pages,
            plan,
            stop: WakeFd::new().map_err(failed)?,
            stopped: AtomicBool::new(false),
            failure: Mutex::new(Rank::LazyFailure, None),
        });
        let mut total = 0;
        self.serve_faults(Arc::clone(&lazy) as _, "a lazy restore", FAULT_THREADS, || {
            self.discard_all()?;
            for pages in &lazy.pages {
                let block = pages.block();
                mark_zero(pages);
                total += ((block.pages() - block.received.count()) << self.page_bits) as u64;
            }
            Ok(())
        })?;
        let Some(faults) = self.faults() else { return Ok(()) };
        vm.slot.restore.begin(total);
        *self.lazy.lock() = Some(Arc::clone(&lazy));
        let (shared, ram) = (Arc::clone(&lazy), Arc::clone(self));
        let context = Arc::clone(&vm);
        match spawn("savevm-restore", move || shared.run(&context, &ram, &faults)) {
            // It ends on its own, and touches neither the host nor memory after it has ended the restore.
            Ok(_) => Ok(()),
            Err(err) => {
                self.stop_faults(true);
                self.lazy_ended();
                let error = failed(err);
                vm.slot.end_restore(Err(error.clone()));
                Err(error)
            }
        }
    }

    /// Whether a lazy restore is in progress.
    pub(super) fn is_lazy(&self) -> bool {
        self.lazy.lock().is_some()
    }

    /// All threads that read pages have ended, or end without touching memory.
    fn lazy_ended(&self) {
        self.busy.lock().incoming = false;
        drop(self.lazy.take());
    }

    /// See `PostcopyRam::end_lazy`.
    pub(super) fn end_lazy(&self) {
        let Some(lazy) = self.lazy.lock().clone() else { return };
        lazy.end();
        let Some(vm) = self.vm() else { return };
        without_big_lock(&*vm.host(), || {
            // The result belongs to those who wait for the restore.
            let _ = vm.slot.restore.wait();
        });
    }
}

/// Marks the units that are zero as received: nothing has to be read for them.
fn mark_zero(pages: &Pages) {
    let block = pages.block();
    let unit = block.pages_per_unit();
    pages.each_zero_run(|start, count| {
        let (start, end) = (start.next_multiple_of(unit), (start + count) / unit * unit);
        if start < end {
            block.received.set(start, end - start);
        }
    });
}
