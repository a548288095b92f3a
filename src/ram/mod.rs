// SPDX-License-Identifier: LGPL-2.1-or-later
//! Saves and loads guest memory: the live device "ram" (section version 4 of QEMU 7.2's `migration/ram.c`).
//!
//! The module is optional: a host with a RAM device of its own makes no [`Ram`]. No lock is held while the host or a
//! channel is called. Bitmaps are atomic, and a phase moves its state out of the lock while it runs.
//!
//! - `block.rs`, `bitmap.rs`: the blocks of memory, and one bit per page.
//! - `tracker.rs`: the dirty log, of the host or of the kernel.
//! - `save.rs`, `sender.rs`: the phases of saving, and the encoding of pages.
//! - `load.rs`, `run.rs`: the records of a stream; `prefault.rs`: makes memory present before they arrive.
//! - `postcopy.rs`: the driver's interface in postcopy; `requests.rs`: the source, `faults.rs`: the destination,
//!   `unreadable.rs`: memory of a failed postcopy.
//! - `mapped/`: pages with fixed places in a file; `lazy/`: pages that are read when they are touched.
//! - `multifd/`: pages over further connections.
//! - `checkpoint/`: checkpoints in this process, and memory that is saved while the guest runs; `protect.rs`: the write
//!   protection of both.
//! - `live_update.rs`: passes shared memory to another process of this host.
//! - `cache.rs`: the pages that XBZRLE compares with. `wire::ram` and `wire::xbzrle` have the format.

pub mod bitmap;
pub mod block;
mod cache;
mod checkpoint;
mod faults;
mod handler;
mod lazy;
pub mod live_update;
mod load;
mod mapped;
mod multifd;
mod postcopy;
mod prefault;
mod protect;
mod requests;
mod run;
mod save;
mod sender;
#[cfg(test)]
mod tests;
pub mod tracker;
mod unreadable;

use crate::error::{Error, Result};
use crate::savevm::Vm;
use crate::savevm::registry::{Registrant, Registration};
use crate::savevm::slot::LogTotals;
use crate::sync::{Mutex, Rank, RwLock};
use crate::wire::ram as wire;
use block::{Block, BlockInfo, Blocks};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::sync::{Arc, Weak};
use tracker::{HostLog, Log};

/// Options of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Source of the dirty log.
    pub log: Log,
    /// Does not send shared blocks (QEMU's `x-ignore-shared`; both sides must set it).
    pub ignore_shared: bool,
    /// Size of the XBZRLE cache in bytes; 0 disables XBZRLE.
    pub xbzrle_cache: u64,
}

/// Counters of one migration. The next migration resets them.
#[derive(Debug, Default)]
pub struct Counters {
    /// Pages sent or received in full.
    pub normal: AtomicU64,
    /// Pages sent or received as one byte value.
    pub zero: AtomicU64,
    /// Pages sent or received as an XBZRLE difference.
    pub xbzrle: AtomicU64,
    /// Dirty pages whose content had not changed.
    pub unchanged: AtomicU64,
    /// Number of reads of the dirty log.
    pub syncs: AtomicU64,
    /// Pages that the dirty log has shown as written, also those that were still to be sent.
    pub written: AtomicU64,
    /// Ranges that the destination requested (counted at both sides).
    pub requests: AtomicU64,
}

impl Counters {
    fn reset(&self) {
        let Self { normal, zero, xbzrle, unchanged, syncs, written, requests } = self;
        [normal, zero, xbzrle, unchanged, syncs, written, requests].iter().for_each(|count| count.store(0, Relaxed));
    }
}

/// The migrations in progress. The list of blocks does not change during one.
#[derive(Default)]
struct Busy {
    saving: Option<Box<save::Saver>>,
    loading: Option<Box<load::Loader>>,
    /// True from setup to cleanup, also while a phase has moved the state out.
    outgoing: bool,
    incoming: bool,
    /// The host frees the RAM: no migration begins any more.
    closed: bool,
    /// The tracking of writes while checkpoints exist.
    session: Option<Arc<checkpoint::Session>>,
    /// The pages that an incremental snapshot saves.
    frozen: Option<Arc<checkpoint::Frozen>>,
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

/// The error if userfaultfd does not take the memory of a block. `what` needs it.
fn register_error(what: &str, block: &Block, err: &std::io::Error) -> Error {
    let why = match err.raw_os_error() {
        Some(libc::EBUSY) => "is registered with another userfaultfd",
        Some(libc::EINVAL) => {
            "is of a kind that userfaultfd does not handle: use anonymous memory, or a shared mapping of a memfd or of a file \
             on tmpfs or hugetlbfs with SaveVMRamBlock.shared"
        }
        _ => "is not taken by userfaultfd",
    };
    Error::io(format_args!("{what}: the memory of block '{}' {why}", block.name()), err)
}

impl Busy {
    fn check_open(&self) -> Result<()> {
        if self.closed { Err(Error::new(libc::ENODEV, "RAM was freed")) } else { Ok(()) }
    }

    fn check_no_checkpoints(&self, what: &str) -> Result<()> {
        match self.session {
            Some(_) => Err(Error::new(
                libc::EBUSY,
                format!("{what}: checkpoints of the machine exist and protect its memory; free them first"),
            )),
            None => Ok(()),
        }
    }

    fn check_idle(&self, what: &str) -> Result<()> {
        let which = match self {
            Self { outgoing: true, .. } => "an outgoing",
            Self { incoming: true, .. } => "an incoming",
            _ => return self.check_no_checkpoints(&format!("can't {what} RAM")),
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
    /// Pages that the destination of a postcopy requested.
    requests: Mutex<requests::Requests>,
    /// The destination's page faults, during postcopy.
    faults: Mutex<Option<Arc<faults::Faults>>>,
    /// Memory that a guest of a failed postcopy must not read.
    unreadable: Mutex<Option<unreadable::Unreadable>>,
    /// A lazy restore in progress.
    lazy: Mutex<Option<Arc<lazy::Lazy>>>,
    /// `set_dirty` has an effect.
    logging: AtomicBool,
    /// POSTCOPY_ADVISE arrived.
    advised: AtomicBool,
    /// Number of dirty target pages. May be negative briefly: a page can be sent before the marking thread has counted
    /// it.
    dirty_pages: AtomicI64,
    /// Statistics.
    pub counters: Arc<Counters>,
}

impl Ram {
    /// Creates RAM without blocks and registers it as the device "ram" of `vm`.
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
            lazy: Mutex::new(Rank::RamLazy, None),
            logging: AtomicBool::new(false),
            advised: AtomicBool::new(false),
            dirty_pages: AtomicI64::new(0),
            counters: Arc::default(),
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
        vm.slot.set_checkpoint_ram(Some(Arc::new(checkpoint::Checkpoints(Arc::clone(&ram)))));
        Ok(ram)
    }

    /// The context, unless it was freed.
    pub fn vm(&self) -> Option<Arc<Vm>> {
        self.vm.upgrade()
    }

    /// As `vm`. The error says that the context was freed.
    fn context(&self) -> Result<Arc<Vm>> {
        self.vm().ok_or_else(|| Error::new(libc::ENODEV, "the context was freed"))
    }

    /// The opaque pointer that identifies the device in the registry.
    fn opaque(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    /// Unregisters the device. When this returns, no block is accessed any more. Fails with `EBUSY` during a migration,
    /// and during a lazy restore of a guest that runs. Ends a lazy restore of a stopped guest.
    pub fn close(&self) -> Result<()> {
        if self.is_lazy() {
            if self.vm().is_some_and(|vm| vm.host().vm_running()) {
                let text = "can't free RAM: a lazy restore still reads pages for the running guest";
                return Err(Error::new(libc::EBUSY, text));
            }
            self.end_lazy();
        }
        // A migration that has not reached setup yet, or that waits for its source, needs the device as well.
        self.vm().map_or(Ok(()), |vm| vm.slot.check_idle("freeing the RAM"))?;
        self.end_log();
        {
            let mut busy = self.busy.lock();
            busy.check_idle("free")?;
            busy.closed = true;
        }
        if let Some(vm) = self.vm.upgrade() {
            vm.slot.set_ram(None);
            vm.slot.set_checkpoint_ram(None);
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

    /// The host's options.
    pub fn options(&self) -> Options {
        *self.options.lock()
    }

    /// The current list of blocks.
    pub fn blocks(&self) -> Blocks {
        Arc::clone(&self.blocks.read())
    }

    /// Whether a block is not sent because both sides share its memory.
    pub fn is_ignored(&self, block: &Block) -> bool {
        block.info.shared && self.ignores_shared()
    }

    /// Whether shared blocks are not sent.
    fn ignores_shared(&self) -> bool {
        self.options().ignore_shared || self.vm().is_some_and(|vm| vm.slot.shares_memory())
    }

    /// Adds a block. Fails with `EBUSY` during a migration, with `EEXIST` if the name is registered, and with `EINVAL`
    /// if the block overlaps another one, whose pages would be sent and loaded twice.
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

    /// Removes a block. When this returns, the host may unmap its memory. Fails with `EBUSY` during a migration, and
    /// with `ENOENT` if the name is unknown.
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
        self.end_log();
        // Held to the end: no setup takes the list between the check and the change.
        let busy = self.busy.lock();
        busy.check_open()?;
        busy.check_idle(what)?;
        let mut list = self.blocks().to_vec();
        change(&mut list)?;
        *self.blocks.write() = Arc::new(list);
        Ok(())
    }

    /// Ends the log of changes since a snapshot. Fails if checkpoints exist, or if the calling thread holds the big lock, for
    /// `savevm_ram_snapshot`.
    pub fn prepare_snapshot(&self) -> Result<Arc<Vm>> {
        let vm = self.context()?;
        if vm.host().locked() {
            return Err(Error::new(libc::EDEADLK, "a snapshot of a running guest is taken without the lock"));
        }
        self.end_log_for("a snapshot of a running guest")?;
        Ok(vm)
    }

    /// Marks memory as dirty, so that it is sent again. Callable from any thread at any time. Addresses outside of all
    /// blocks are ignored.
    pub fn set_dirty(&self, address: usize, len: usize) {
        // Either this thread sees `logging`, or the sender sees what this thread wrote.
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
                self.counters.written.fetch_add(count as u64, Relaxed);
                self.mark(block, start, count);
            }
            let done = (block.memory().len() - offset).min(len);
            (address, len) = (address + done, len - done);
        }
    }

    fn mark(&self, block: &Block, start: usize, count: usize) {
        self.dirtied(block.dirty.set(start, count));
    }

    /// Adds to the number of dirty pages.
    fn dirtied(&self, pages: usize) {
        self.dirty_pages.fetch_add(pages as i64, Relaxed);
    }

    /// Subtracts from the number of dirty pages.
    fn cleaned(&self, pages: usize) {
        self.dirty_pages.fetch_sub(pages as i64, Relaxed);
    }

    /// What the dirty log has shown since setup.
    fn log_totals(&self) -> LogTotals {
        let written = self.counters.written.load(Relaxed) << self.page_bits;
        LogTotals { reads: self.counters.syncs.load(Relaxed), written }
    }

    /// While a load is in progress: how many pages have arrived at least once, and the number of all pages that are sent.
    fn arrived(&self) -> Option<(u64, u64)> {
        if !self.busy.lock().incoming {
            return None;
        }
        let blocks = self.blocks();
        let sent = blocks.iter().filter(|block| !self.is_ignored(block));
        Some(sent.fold((0, 0), |(have, all), block| (have + block.received.count() as u64, all + block.pages() as u64)))
    }

    /// Number of dirty bytes.
    pub fn dirty_bytes(&self) -> u64 {
        (self.dirty_pages.load(Relaxed).max(0) as u64) << self.page_bits
    }

    fn is_postcopy_advised(&self) -> bool {
        self.advised.load(SeqCst)
    }

    /// Union of the page sizes of all blocks in bytes, which POSTCOPY_ADVISE compares.
    pub fn page_sizes(&self) -> u64 {
        self.blocks().iter().fold(0, |all, block| all | block.info.page_size as u64)
    }
}
