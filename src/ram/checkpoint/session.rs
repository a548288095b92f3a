// SPDX-License-Identifier: LGPL-2.1-or-later
//! Tracks the writes to memory while checkpoints exist.
//!
//! Memory is protected from writes. The first write to a unit after a checkpoint waits until the thread "savevm-undo" has kept
//! the unit's content and ended its protection. A checkpoint or a rollback protects again only the units that were written since
//! the last checkpoint or rollback, so its time does not grow with the size of memory. Before an incremental snapshot, this
//! happens while the guest runs, and only the units that it writes to meanwhile are protected when it is stopped.
//!
//! The same faults log what changes since a snapshot, for incremental ones. While there is no checkpoint, contents are not
//! kept.
//!
//! One lock guards the tree and the protection. While the lock is held, only the kernel is called.

use super::tree::{Content, Difference, Id, Place, Tree};
use super::unsaved::Unsaved;
use crate::error::{Error, Result};
use crate::ram::bitmap::Bitmap;
use crate::ram::block::{self, Block, Blocks};
use crate::ram::protect::WriteFaults;
use crate::savevm::Vm;
use crate::savevm::checkpoint::{SavedSnapshot, Scope};
use crate::savevm::fault::FaultPoint;
use crate::savevm::unwind::catch;
use crate::sync::{Condvar, Mutex, MutexGuard, Rank};
use crate::sys::{WakeFd, spawn};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Units that are protected again with one system call although they are protected already, because two calls would take
/// longer.
const GAP_MAX: usize = 32;
/// Runs of units that are protected while the guest runs before a write fault may be served.
const RUNS_PER_STEP: usize = 32;
/// Most times that the units are protected that the guest wrote to meanwhile.
const PREPARE_ROUNDS: usize = 4;
/// Number of open units whose protection takes well below a millisecond, so that the guest may wait for it.
const OPEN_ENOUGH: usize = 64;
/// Most times that a step lets other threads run before it takes the lock.
const YIELDS_MAX: usize = 1000;

/// Longest wait for room before it is looked for again.
const ROOM_WAIT: Duration = Duration::from_millis(100);

/// What the lock guards.
struct Pages {
    tree: Tree,
    /// For each block: the units that are not protected. Each of them is kept in the tree, if there is a checkpoint.
    open: Vec<Bitmap>,
    log: Option<Log>,
    /// What a snapshot has still to save.
    unsaved: Option<Unsaved>,
}

/// What changed since a snapshot.
struct Log {
    /// For each block: the units that may differ.
    changed: Vec<Bitmap>,
    /// The snapshot. `None` until it is saved.
    parent: Option<SavedSnapshot>,
    /// The log of another chain, which goes on if this snapshot is not saved.
    before: Option<Box<Log>>,
}

impl Log {
    /// The log before the snapshot that was not saved, with what changed meanwhile.
    fn without_snapshot(self) -> Option<Self> {
        let before = *self.before?;
        before.changed.iter().zip(&self.changed).for_each(|(before, changed)| before.unite(changed));
        Some(before)
    }
}

/// Units of memory whose content is kept as it was at one moment.
pub(in crate::ram) struct Frozen {
    id: Id,
    /// For each block: the units to save.
    pub units: Vec<Bitmap>,
    /// Which units they are.
    pub scope: Scope,
}

/// The tracking of one RAM, from its first checkpoint to the end of its last one.
pub(in crate::ram) struct Session {
    vm: Weak<Vm>,
    blocks: Blocks,
    faults: WriteFaults,
    wake: WakeFd,
    pages: Mutex<Pages>,
    /// There is room for more copies of memory that a snapshot has still to save.
    room: Condvar,
    /// The thread "savevm-undo" wants the lock, or has it.
    serving: AtomicBool,
    /// A write was not kept, or memory could not be protected: no checkpoint can be trusted any more.
    broken: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A clear bit for each unit of each block.
fn bitmaps(blocks: &[Arc<Block>]) -> Vec<Bitmap> {
    blocks.iter().map(|block| Bitmap::new(block.memory().len() / block.unit())).collect()
}

/// A set bit for each unit of each block.
fn full_bitmaps(blocks: &[Arc<Block>]) -> Vec<Bitmap> {
    let bitmaps = bitmaps(blocks);
    for bitmap in &bitmaps {
        bitmap.set(0, bitmap.len());
    }
    bitmaps
}

impl Pages {
    /// Keeps the content of a unit of a block that is about to change for the first time since the last checkpoint.
    fn keep(&mut self, block: &Block, place: Place) {
        let content = || content_of(block, place.1);
        match &mut self.unsaved {
            Some(unsaved) => unsaved.keep(&mut self.tree, place, block.unit(), content),
            None => self.tree.keep(place, content),
        }
    }

    /// Whether a writer of the unit must wait.
    fn is_full_for(&self, block: &Block, place: Place) -> bool {
        self.unsaved.as_ref().is_some_and(|unsaved| unsaved.is_full_for(&self.tree, place, block.unit()))
    }

    /// A unit is about to change.
    fn change(&self, at: usize, unit: usize) {
        if let Some(log) = &self.log {
            log.changed[at].set(unit, 1);
        }
    }
}

fn content_of(block: &Block, unit: usize) -> Content {
    let (offset, len) = (unit * block.unit(), block.unit());
    if block.memory().is_zero(offset, len) {
        return None;
    }
    let mut bytes = vec![0; len].into_boxed_slice();
    block.memory().read(offset, &mut bytes);
    Some(bytes)
}

impl Session {
    /// Prepares the tracking. No memory is protected yet.
    pub fn new(vm: Weak<Vm>, blocks: Blocks) -> Result<Self> {
        let open = bitmaps(&blocks);
        Ok(Self {
            vm,
            faults: WriteFaults::open(&blocks, "protecting guest memory from writes")?,
            blocks,
            wake: WakeFd::new().map_err(|err| Error::io("preparing a checkpoint", &err))?,
            pages: Mutex::new(Rank::CheckpointPages, Pages { tree: Tree::default(), open, log: None, unsaved: None }),
            room: Condvar::new(),
            serving: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            thread: Mutex::new(Rank::CheckpointThread, None),
        })
    }

    /// Protects all memory and starts the thread. The guest may run. After an error, call `stop`.
    pub fn start(self: &Arc<Self>) -> Result<()> {
        let session = Arc::clone(self);
        let thread = spawn("savevm-undo", move || session.run());
        *self.thread.lock() =
            Some(thread.map_err(|err| Error::io("starting the thread for write faults of checkpoints", &err))?);
        self.faults.protect_all(&self.blocks)
    }

    /// Ends the protection and joins the thread.
    pub fn stop(&self) {
        self.wake.wake();
        self.faults.release(&self.blocks);
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread for write faults of checkpoints panicked");
        }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock()
    }

    fn run(&self) {
        if let Err(error) = self.faults.uffd.serve(&self.wake, |address| self.serve(address)) {
            self.broken.store(true, SeqCst);
            log::error!("reading write faults of checkpoints: {error}");
        }
    }

    /// Keeps the content of a unit that a thread is about to write, and lets the thread continue. After a panic, all
    /// checkpoints are invalid, but the thread continues.
    fn serve(&self, address: usize) {
        let Some((at, block, offset)) = block::find_address(&self.blocks, address) else { return };
        let unit = offset / block.unit();
        let keep = || {
            if let Some(vm) = self.vm.upgrade() {
                vm.fault_point(FaultPoint::WriteFault);
            }
            self.serving.store(true, SeqCst);
            let mut pages = self.pages();
            while pages.is_full_for(block, (at, unit)) {
                pages = self.room.wait_timeout(pages, ROOM_WAIT);
            }
            pages.keep(block, (at, unit));
            pages.open[at].set(unit, 1);
            pages.change(at, unit);
            // Within the lock: a checkpoint must not protect the unit in between.
            self.faults.protect(block, unit * block.unit(), block.unit(), false)
        };
        let served = match self.vm.upgrade() {
            Some(vm) => catch(&vm, keep).and_then(|served| served),
            None => keep(),
        };
        self.serving.store(false, SeqCst);
        if let Err(error) = served {
            self.broken.store(true, SeqCst);
            log::error!("keeping a page of block '{}' for checkpoints: {error}", block.name());
            // Fails if the memory is gone, in which case no thread waits for it.
            let _ = self.faults.protect(block, unit * block.unit(), block.unit(), false);
        }
    }

    /// Fails if an error made the checkpoints invalid.
    pub fn check(&self) -> Result<()> {
        if self.broken.load(SeqCst) {
            let text = "an earlier error made all checkpoints of this machine invalid; free them and make new ones";
            return Err(Error::new(libc::EIO, text));
        }
        Ok(())
    }

    /// Protects the next run of open units from a place on, with short gaps. Returns the place behind the run, or `None` if all
    /// units behind `from` are protected.
    fn protect_run(&self, pages: &Pages, from: Place) -> Result<Option<Place>> {
        let (mut at, mut first) = from;
        while let (Some(block), Some(open)) = (self.blocks.get(at), pages.open.get(at)) {
            let Some((start, count)) = open.run(first, usize::MAX) else {
                (at, first) = (at + 1, 0);
                continue;
            };
            let mut end = start + count;
            while let Some((next, more)) = open.run(end, usize::MAX).filter(|(next, _)| next - end <= GAP_MAX) {
                end = next + more;
            }
            self.faults.protect(block, start * block.unit(), (end - start) * block.unit(), true)?;
            open.clear(start, end - start);
            return Ok(Some((at, end)));
        }
        Ok(None)
    }

    /// Protects all units again that are open.
    fn protect_open(&self, pages: &Pages) -> Result<()> {
        let mut from = Some((0, 0));
        while let Some(place) = from {
            from = self.protect_run(pages, place)?;
        }
        Ok(())
    }

    /// Protects open units while the guest runs, so that few are left when it is stopped. A unit that is written again becomes
    /// open again; what changed is known from its first write.
    pub fn prepare(&self) -> Result<()> {
        self.check()?;
        let open = |pages: &Pages| pages.open.iter().map(Bitmap::count).sum::<usize>();
        let mut before = open(&self.pages());
        for _ in 0..PREPARE_ROUNDS {
            if before <= OPEN_ENOUGH {
                break;
            }
            self.protect_in_steps()?;
            let after = open(&self.pages());
            // The guest writes as fast as its pages are protected.
            if after > before / 2 {
                break;
            }
            before = after;
        }
        Ok(())
    }

    /// As `protect_open`, but write faults are served meanwhile.
    fn protect_in_steps(&self) -> Result<()> {
        let mut from = Some((0, 0));
        while from.is_some() {
            for _ in 0..YIELDS_MAX {
                if !self.serving.load(SeqCst) {
                    break;
                }
                thread::yield_now();
            }
            let pages = self.pages();
            for _ in 0..RUNS_PER_STEP {
                let Some(place) = from else { break };
                from = self.protect_run(&pages, place)?;
            }
        }
        Ok(())
    }

    /// Makes a checkpoint of memory. The guest is stopped.
    pub fn add(&self) -> Result<Id> {
        self.check()?;
        let mut pages = self.pages();
        self.protect_open(&pages)?;
        Ok(pages.tree.add())
    }

    /// Frees a checkpoint.
    pub fn free(&self, id: Id) {
        self.pages().tree.free(id);
    }

    /// Whether there are checkpoints, or memory that is frozen for a snapshot.
    pub fn has_checkpoints(&self) -> bool {
        !self.pages().tree.is_empty()
    }

    /// Whether there are checkpoints or a log.
    pub fn is_needed(&self) -> bool {
        let pages = self.pages();
        !pages.tree.is_empty() || pages.log.is_some()
    }

    /// Puts memory back to a checkpoint. The guest is stopped.
    pub fn go_to(&self, id: Id) -> Result<()> {
        self.check()?;
        let mut pages = self.pages();
        let memory = |(at, unit): Place| content_of(&self.blocks[at], unit);
        let wanted = pages.tree.go_to(id, memory).ok_or_else(|| Error::invalid("there is no such checkpoint"))?;
        // From here on, an error leaves parts of two states.
        let restored = self.write(&pages, &wanted).and_then(|()| self.protect_open(&pages));
        restored.inspect_err(|_| self.broken.store(true, SeqCst))
    }

    /// Writes contents to memory and leaves their units open.
    fn write(&self, pages: &Pages, wanted: &Difference) -> Result<()> {
        let places: Vec<Place> = wanted.keys().copied().filter(|(at, unit)| !pages.open[*at].get(*unit)).collect();
        for run in places.chunk_by(|place, next| place.0 == next.0 && place.1 + 1 == next.1) {
            let ((at, unit), block) = (run[0], &self.blocks[run[0].0]);
            self.faults.protect(block, unit * block.unit(), run.len() * block.unit(), false)?;
            pages.open[at].set(unit, run.len());
        }
        for ((at, unit), content) in wanted {
            pages.change(*at, *unit);
            let block = &self.blocks[*at];
            match content {
                Some(bytes) => block.memory().write(unit * block.unit(), bytes),
                None => block.memory().fill(unit * block.unit(), block.unit(), 0),
            }
        }
        Ok(())
    }

    /// Logs changes from now on. The guest is stopped.
    pub fn start_log(&self, parent: SavedSnapshot) -> Result<()> {
        self.check()?;
        let mut pages = self.pages();
        self.protect_open(&pages)?;
        pages.log = Some(Log { changed: bitmaps(&self.blocks), parent: Some(parent), before: None });
        Ok(())
    }

    /// Ends the log.
    pub fn end_log(&self) {
        self.pages().log = None;
    }

    /// The snapshot since which changes are logged.
    pub fn parent(&self) -> Option<SavedSnapshot> {
        self.pages().log.as_ref()?.parent.clone()
    }

    /// Freezes memory for a snapshot. The guest is stopped.
    pub fn freeze(&self, scope: Scope) -> Result<Frozen> {
        self.check()?;
        let mut pages = self.pages();
        if scope == Scope::Changed && pages.log.as_ref().is_none_or(|log| log.parent.is_none()) {
            return Err(Error::new(libc::ESTALE, "it is not known what changed since the parent"));
        }
        self.protect_open(&pages)?;
        let fresh = bitmaps(&self.blocks);
        let units = match (scope, &mut pages.log) {
            (Scope::Changed, Some(log)) => std::mem::replace(&mut log.changed, fresh),
            (Scope::Begin, log) => {
                let before = log.take().map(Box::new);
                *log = Some(Log { changed: fresh, parent: None, before });
                full_bitmaps(&self.blocks)
            }
            _ => full_bitmaps(&self.blocks),
        };
        let id = pages.tree.add();
        pages.unsaved = Some(Unsaved::new(id, &units));
        Ok(Frozen { id, units, scope })
    }

    /// No frozen memory is read any more: writers need not wait for it.
    pub fn end_saving(&self) {
        self.pages().unsaved = None;
        self.room.notify_all();
    }

    /// Ends a freeze. Without the snapshot that was saved, its units count as changed, and the log of an earlier chain goes on.
    pub fn thaw(&self, frozen: &Frozen, saved: Option<SavedSnapshot>) {
        self.end_saving();
        let mut pages = self.pages();
        pages.tree.free(frozen.id);
        match (frozen.scope, saved, &mut pages.log) {
            (Scope::All, ..) => {}
            (_, Some(saved), Some(log)) => (log.parent, log.before) = (Some(saved), None),
            (Scope::Changed, None, Some(log)) => {
                log.changed.iter().zip(&frozen.units).for_each(|(changed, units)| changed.unite(units));
            }
            (_, _, log) => *log = log.take().and_then(Log::without_snapshot),
        }
    }

    /// The index of a block.
    pub fn index_of(&self, block: &Arc<Block>) -> Option<usize> {
        self.blocks.iter().position(|other| Arc::ptr_eq(other, block))
    }

    /// The next frozen unit of which there is a copy: the block, and the unit's offset.
    pub fn next_copy(&self) -> Option<(&Arc<Block>, usize)> {
        let (at, unit) = self.pages().unsaved.as_mut()?.next_copy()?;
        let block = &self.blocks[at];
        Some((block, unit * block.unit()))
    }

    /// Copies frozen units of the block with this index, which are saved then. Writers wait meanwhile.
    pub fn take_frozen(&self, at: usize, offset: usize, into: &mut [u8]) -> Result<()> {
        let mut pages = self.pages();
        let (block, size) = (&self.blocks[at], self.blocks[at].unit());
        for (number, piece) in into.chunks_mut(size).enumerate() {
            let unit = offset / size + number;
            match pages.tree.kept((at, unit)) {
                Some(Some(bytes)) => piece.copy_from_slice(bytes),
                Some(None) => piece.fill(0),
                None => block.memory().read(unit * size, piece),
            }
            let Pages { tree, unsaved, .. } = &mut *pages;
            if let Some(unsaved) = unsaved {
                unsaved.saved(tree, (at, unit), size);
            }
        }
        let is_needed =
            pages.log.is_some() || pages.unsaved.as_ref().is_none_or(|unsaved| !pages.tree.has_only(unsaved.id));
        if !is_needed {
            // Nothing follows from further writes.
            self.faults.protect(block, offset, into.len(), false)?;
            pages.open[at].set(offset / size, into.len() / size);
        }
        drop(pages);
        self.room.notify_all();
        Ok(())
    }
}
