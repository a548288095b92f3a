// SPDX-License-Identifier: LGPL-2.1-or-later
//! Tracks the writes to memory while checkpoints exist.
//!
//! Memory is protected from writes. The first write to a unit after a checkpoint waits until the thread "savevm-undo" has
//! kept the unit's content and ended its protection. A checkpoint or a rollback protects only the units again that were
//! written since the last one, so that its time does not grow with the size of memory.
//!
//! One lock guards the tree and the protection. Nothing is called with it but the kernel.

use super::tree::{Content, Difference, Id, Place, Tree};
use crate::error::{Error, Result};
use crate::ram::bitmap::Bitmap;
use crate::ram::block::{self, Block, Blocks};
use crate::ram::protect::WriteFaults;
use crate::savevm::Vm;
use crate::savevm::fault::FaultPoint;
use crate::savevm::unwind::catch;
use crate::sync::{Mutex, MutexGuard, Rank};
use crate::sys::{WakeFd, spawn};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

/// Units that are protected again with one system call although they are protected already, because two calls would take
/// longer.
const GAP_MAX: usize = 32;

/// What the lock guards.
struct Pages {
    tree: Tree,
    /// For each block: the units that are not protected. Each of them is kept in the tree, if there is a checkpoint.
    open: Vec<Bitmap>,
}

/// The tracking of one RAM, from its first checkpoint to the end of its last one.
pub(in crate::ram) struct Session {
    vm: Weak<Vm>,
    blocks: Blocks,
    faults: WriteFaults,
    wake: WakeFd,
    pages: Mutex<Pages>,
    /// A write was not kept, or memory could not be protected: no checkpoint can be trusted any more.
    broken: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
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
        let open = blocks.iter().map(|block| Bitmap::new(block.memory().len() / block.unit())).collect();
        Ok(Self {
            vm,
            faults: WriteFaults::open(&blocks, "a checkpoint")?,
            blocks,
            wake: WakeFd::new().map_err(|err| Error::io("preparing a checkpoint", &err))?,
            pages: Mutex::new(Rank::CheckpointPages, Pages { tree: Tree::default(), open }),
            broken: AtomicBool::new(false),
            thread: Mutex::new(Rank::CheckpointThread, None),
        })
    }

    /// Protects all memory and starts the thread. The guest is stopped. After an error, call `stop`.
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
            let mut pages = self.pages();
            pages.tree.keep((at, unit), || content_of(block, unit));
            pages.open[at].set(unit, 1);
            // Within the lock: a checkpoint must not protect the unit in between.
            self.faults.protect(block, unit * block.unit(), block.unit(), false)
        };
        let served = match self.vm.upgrade() {
            Some(vm) => catch(&vm, keep).and_then(|served| served),
            None => keep(),
        };
        if let Err(error) = served {
            self.broken.store(true, SeqCst);
            log::error!("keeping a page of block '{}' for checkpoints: {error}", block.name());
            // Fails if the memory is gone, in which case no thread waits for it.
            let _ = self.faults.protect(block, unit * block.unit(), block.unit(), false);
        }
    }

    fn check(&self) -> Result<()> {
        if self.broken.load(SeqCst) {
            let text = "an earlier error made all checkpoints of this machine invalid; free them and make new ones";
            return Err(Error::new(libc::EIO, text));
        }
        Ok(())
    }

    /// Protects all units again that are open.
    fn protect_open(&self, pages: &Pages) -> Result<()> {
        for (block, open) in self.blocks.iter().zip(&pages.open) {
            let mut from = 0;
            while let Some((start, count)) = open.run(from, usize::MAX) {
                let mut end = start + count;
                while let Some((next, more)) = open.run(end, usize::MAX).filter(|(next, _)| next - end <= GAP_MAX) {
                    end = next + more;
                }
                self.faults.protect(block, start * block.unit(), (end - start) * block.unit(), true)?;
                open.clear(start, end - start);
                from = end;
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

    /// Whether there are checkpoints.
    pub fn is_needed(&self) -> bool {
        !self.pages().tree.is_empty()
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
            let block = &self.blocks[*at];
            match content {
                Some(bytes) => block.memory().write(unit * block.unit(), bytes),
                None => block.memory().fill(unit * block.unit(), block.unit(), 0),
            }
        }
        Ok(())
    }
}
