// SPDX-License-Identifier: LGPL-2.1-or-later
//! RAM as a module: blocks of guest memory as the live device "ram" (section version 4 of QEMU 7.2's `migration/ram.c`).
//!
//! Optional: a host with a RAM device of its own never makes a [`Ram`]. No lock is held while the host or a channel is
//! called: bitmaps are atomic, and what a phase works with is taken out of its place for that long.
//!
//! - `block.rs`, `bitmap.rs`: what there is, and a bit for every page.
//! - `tracker.rs`: which pages change (the host's log, or the kernel's).
//! - `save.rs`, `sender.rs`: the phases of saving, and how a page goes out.
//! - `load.rs`, `run.rs`: records that come in; `prepare.rs`: memory for them.
//! - `postcopy.rs`: what the driver asks for in postcopy; `requests.rs`: at the source, `faults.rs`: at the destination.
//! - `snapshot.rs`: saving behind a running guest.
//! - `cache.rs`: the pages that differences are computed from. `wire::ram` and `wire::xbzrle` have the bytes.

pub mod bitmap;
pub mod block;
mod cache;
mod faults;
mod handler;
mod load;
mod postcopy;
mod prepare;
mod requests;
mod run;
mod save;
mod sender;
mod snapshot;
#[cfg(test)]
mod tests;
pub mod tracker;
mod unreadable;

use crate::error::{Error, Result};
use crate::savevm::Vm;
use crate::savevm::registry::{Registrant, Registration};
use crate::sync::{Mutex, Rank, RwLock};
use crate::wire::ram as wire;
use block::{Block, BlockInfo, Blocks};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::sync::{Arc, Weak};
use tracker::{HostLog, Log};

/// What a host chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Where dirty pages are known from.
    pub log: Log,
    /// Blocks that both sides share are not sent (QEMU's `x-ignore-shared`; both sides must agree).
    pub ignore_shared: bool,
    /// Size of the cache for XBZRLE in bytes; 0: not used.
    pub xbzrle_cache: u64,
}

/// Counts of one migration; they begin anew with the next.
#[derive(Debug, Default)]
pub struct Counters {
    /// Pages that went out or came in as they are.
    pub normal: AtomicU64,
    /// Pages of one byte value.
    pub zero: AtomicU64,
    /// Pages as a difference.
    pub xbzrle: AtomicU64,
    /// Pages that were dirty but the same as before.
    pub unchanged: AtomicU64,
    /// How often the dirty log was read.
    pub syncs: AtomicU64,
    /// Ranges that the destination asked for (either side).
    pub requests: AtomicU64,
}

impl Counters {
    fn reset(&self) {
        let Self { normal, zero, xbzrle, unchanged, syncs, requests } = self;
        [normal, zero, xbzrle, unchanged, syncs, requests].iter().for_each(|count| count.store(0, Relaxed));
    }
}

/// What is under way; blocks neither come nor go meanwhile.
#[derive(Default)]
struct Busy {
    saving: Option<Box<save::Saver>>,
    loading: Option<Box<load::Loader>>,
    /// From setup to cleanup, also while the state is taken out.
    outgoing: bool,
    incoming: bool,
}

/// The error of a userfaultfd that can't be opened: `what` needs it, with the kernel's feature `needs`.
fn userfault_error(what: &str, needs: &str, err: &std::io::Error) -> Error {
    match err.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Error::io(
            format_args!(
                "{what}: this program may not use userfaultfd (give it access to /dev/userfaultfd or the capability \
                 CAP_SYS_PTRACE, or set the sysctl vm.unprivileged_userfaultfd to 1)"
            ),
            err,
        ),
        Some(libc::ENOSYS) => Error::io(format_args!("{what}: this kernel has no userfaultfd"), err),
        Some(libc::EINVAL) => Error::io(format_args!("{what}: this kernel lacks {needs}"), err),
        _ => Error::io(format_args!("{what}: userfaultfd"), err),
    }
}

impl Busy {
    fn check_idle(&self, what: &str) -> Result<()> {
        let which = match self {
            Self { outgoing: true, .. } => "an outgoing",
            Self { incoming: true, .. } => "an incoming",
            _ => return Ok(()),
        };
        Err(Error::new(libc::EBUSY, format!("can't {what} RAM: {which} migration is in progress")))
    }
}

/// The RAM of one machine.
pub struct Ram {
    vm: Weak<Vm>,
    page_bits: u32,
    options: Mutex<Options>,
    host_log: Option<Arc<dyn HostLog>>,
    blocks: RwLock<Blocks>,
    busy: Mutex<Busy>,
    /// What postcopy's destination asked for.
    requests: Mutex<requests::Requests>,
    /// Missing pages are being asked for.
    faults: Mutex<Option<Arc<faults::Faults>>>,
    /// Memory that a guest of a failed postcopy must not read.
    unreadable: Mutex<Option<unreadable::Unreadable>>,
    /// Pages are to be marked as dirty.
    logging: AtomicBool,
    /// What is saved is a running guest as it was.
    snapshots: AtomicBool,
    /// The source has said that postcopy may come.
    advised: AtomicBool,
    /// Target pages that are to be sent. Less than none for a moment: a page may be sent before who marked it has counted it.
    dirty_pages: AtomicI64,
    /// Numbers for who asks.
    pub counters: Counters,
}

impl Ram {
    /// RAM without blocks, registered as the device "ram" of `vm`.
    pub fn new(vm: &Arc<Vm>, options: Options, host_log: Option<Arc<dyn HostLog>>) -> Result<Arc<Self>> {
        let page_bits = vm.host().target_page_bits();
        if !wire::PAGE_BITS.contains(&page_bits) {
            let text = format!("target pages of 2^{page_bits} bytes can't be sent, expected 2^{:?}", wire::PAGE_BITS);
            return Err(Error::invalid(text));
        }
        if options.log == Log::Host && host_log.is_none() {
            return Err(Error::invalid("the host's dirty log was chosen, but there is none"));
        }
        if vm.registry.find(wire::SECTION, 0).is_some() {
            return Err(Error::new(libc::EEXIST, "the machine has a device \"ram\" already"));
        }
        if vm.slot.ram().is_some() {
            return Err(Error::new(libc::EEXIST, "the host has postcopy functions of its own for RAM"));
        }
        let ram = Arc::new(Self {
            vm: Arc::downgrade(vm),
            page_bits,
            options: Mutex::new(Rank::RamOptions, options),
            host_log,
            blocks: RwLock::new(Rank::RamBlocks, Blocks::default()),
            busy: Mutex::new(Rank::RamBusy, Busy::default()),
            requests: Mutex::new(Rank::RamRequests, requests::Requests::default()),
            faults: Mutex::new(Rank::RamFaults, None),
            unreadable: Mutex::new(Rank::RamUnreadable, None),
            logging: AtomicBool::new(false),
            snapshots: AtomicBool::new(false),
            advised: AtomicBool::new(false),
            dirty_pages: AtomicI64::new(0),
            counters: Counters::default(),
        });
        vm.register(Registration {
            path: None,
            name: wire::SECTION.to_vec(),
            instance_id: 0,
            alias_id: -1,
            version_id: wire::VERSION,
            is_live: true,
            registrant: Registrant { description: 0, opaque: ram.opaque() },
            handler: handler::RamHandler(Arc::clone(&ram)),
        })?;
        vm.slot.set_ram(Some(Arc::new(postcopy::RamPostcopy(Arc::clone(&ram)))));
        Ok(ram)
    }

    /// The machine, while it is there.
    pub fn vm(&self) -> Option<Arc<Vm>> {
        self.vm.upgrade()
    }

    /// By which the device is known to the registry.
    fn opaque(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    /// Takes the device out of its machine. When it returns nothing touches a block any more. `EBUSY` in a migration.
    pub fn close(&self) -> Result<()> {
        self.check_idle("free")?;
        if let Some(vm) = self.vm.upgrade() {
            vm.slot.set_ram(None);
            vm.unregister_name(None, wire::SECTION, self.opaque());
        }
        drop(self.unreadable.take());
        *self.blocks.write() = Blocks::default();
        Ok(())
    }

    /// The target's page size in bytes.
    pub fn page_size(&self) -> usize {
        1 << self.page_bits
    }

    /// What the host chose.
    pub fn options(&self) -> Options {
        *self.options.lock()
    }

    /// The blocks of the moment.
    pub fn blocks(&self) -> Blocks {
        Arc::clone(&self.blocks.read())
    }

    /// Whether a block is not sent, because the other side has the same memory.
    pub fn is_ignored(&self, block: &Block) -> bool {
        block.info.shared && self.options().ignore_shared
    }

    fn check_idle(&self, what: &str) -> Result<()> {
        self.busy.lock().check_idle(what)
    }

    /// Adds a block. `EBUSY` in a migration, `EEXIST` for a name that is registered, `EINVAL` if the block overlaps another
    /// one: every page would be sent and loaded twice.
    pub fn add_block(&self, info: BlockInfo) -> Result<()> {
        let block = Arc::new(Block::new(info, self.page_bits)?);
        self.change_blocks("add", |blocks| {
            if block::find(blocks, &block.info.name).is_some() {
                return Err(Error::new(libc::EEXIST, format!("block '{}' is registered already", block.name())));
            }
            blocks.iter().try_for_each(|other| block.check_apart(other))?;
            blocks.push(block);
            Ok(())
        })
    }

    /// Removes a block. When it returns its memory may go. `EBUSY` in a migration, `ENOENT` for an unknown name.
    pub fn remove_block(&self, name: &[u8]) -> Result<()> {
        self.change_blocks("remove", |blocks| {
            let Some((at, _)) = block::find(blocks, name) else {
                return Err(Error::new(libc::ENOENT, format!("no block '{}'", String::from_utf8_lossy(name))));
            };
            blocks.remove(at);
            Ok(())
        })?;
        if let Some(unreadable) = &mut *self.unreadable.lock() {
            unreadable.restore(name);
        }
        Ok(())
    }

    fn change_blocks(&self, what: &str, change: impl FnOnce(&mut Vec<Arc<Block>>) -> Result<()>) -> Result<()> {
        // Held to the end: no setup takes the list between the check and the change.
        let busy = self.busy.lock();
        busy.check_idle(what)?;
        let mut list = self.blocks().to_vec();
        change(&mut list)?;
        *self.blocks.write() = Arc::new(list);
        Ok(())
    }

    /// Marks memory as dirty: it will be sent (again). Any thread, also while nothing is saved; addresses outside of
    /// all blocks are nobody's.
    pub fn set_dirty(&self, address: usize, len: usize) {
        // Either this sees that pages are to be marked, or who sends them sees what was written.
        fence(SeqCst);
        if !self.logging.load(SeqCst) {
            return;
        }
        let blocks = self.blocks();
        let (mut address, mut len) = (address, len);
        while len > 0 {
            let Some((_, block, offset)) = block::find_address(&blocks, address) else { return };
            let (start, count) = block.page_range(offset, len);
            if !self.is_ignored(block) {
                self.mark(block, start, count);
            }
            let done = (block.memory().len() - offset).min(len);
            (address, len) = (address + done, len - done);
        }
    }

    fn mark(&self, block: &Block, start: usize, count: usize) {
        self.dirtied(block.dirty.set(start, count));
    }

    /// So many pages more are to be sent.
    fn dirtied(&self, pages: usize) {
        self.dirty_pages.fetch_add(pages as i64, Relaxed);
    }

    /// So many pages less are to be sent.
    fn cleaned(&self, pages: usize) {
        self.dirty_pages.fetch_sub(pages as i64, Relaxed);
    }

    /// Bytes that are to be sent.
    pub fn dirty_bytes(&self) -> u64 {
        (self.dirty_pages.load(Relaxed).max(0) as u64) << self.page_bits
    }

    fn is_postcopy_advised(&self) -> bool {
        self.advised.load(SeqCst)
    }

    /// Union of the page sizes of all blocks in bytes: what POSTCOPY_ADVISE compares.
    pub fn page_sizes(&self) -> u64 {
        self.blocks().iter().fold(0, |all, block| all | block.info.page_size as u64)
    }
}
