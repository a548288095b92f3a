// SPDX-License-Identifier: LGPL-2.1-or-later
//! Snapshots of a running guest (QEMU 7.2's background snapshot).
//!
//! The guest is stopped while its devices are saved to memory and its RAM is write-protected. Then it runs while RAM is
//! saved. If the guest writes to a page that was not saved yet, the thread "savevm-writes" copies the page first. The
//! devices follow at the end, as in every stream.

use super::block::{self, Block, Blocks};
use super::protect::WriteFaults;
use super::save::{CHUNK, Saver};
use super::{Ram, wire};
use crate::channel::{Cancel, Sink, Uri, memory};
use crate::error::{self, Error, Phase, Result, Side};
use crate::file::MigFile;
use crate::savevm::Vm;
use crate::savevm::fault::FaultPoint;
use crate::savevm::host::{Flags, with_big_lock};
use crate::savevm::save::{self, Disks};
use crate::savevm::unwind::{catch, finally};
use crate::sync::{Condvar, Mutex, Rank};
use crate::sys::{WakeFd, spawn_scoped};
use crate::wire as stream;
use crate::wire::section;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

/// Time limit for opening the file or connecting, and for one wait for a peer.
const LIMIT: Duration = Duration::from_secs(60);
/// Maximum size of the queued copies in bytes, or one copy if that is larger. If it is reached, writers wait.
const COPIES_MAX: usize = 64 << 20;

/// A unit that the guest wrote to before it was saved: index of the block, first page, content before the write.
type Copied = (usize, usize, Vec<u8>);

#[derive(Default)]
struct Copies {
    queue: VecDeque<Copied>,
    bytes: usize,
}

/// Write protection, shared by the two threads.
struct Protection {
    blocks: Blocks,
    faults: WriteFaults,
    wake: WakeFd,
    copies: Mutex<Copies>,
    room: Condvar,
    /// Number of units that were claimed for a copy and are not in `copies` yet.
    copying: AtomicUsize,
    over: AtomicBool,
}

impl Protection {
    /// Opens the descriptors, while the guest still runs.
    fn new(ram: &Ram) -> Result<Self> {
        let blocks = ram.sent_blocks();
        let faults = WriteFaults::open(&blocks, "a snapshot of a running guest")?;
        let wake = WakeFd::new().map_err(|err| Error::io("preparing a snapshot", &err))?;
        let (copies, room, copying) =
            (Mutex::new(Rank::SnapshotCopies, Copies::default()), Condvar::new(), AtomicUsize::new(0));
        let over = AtomicBool::new(false);
        Ok(Self { blocks, faults, wake, copies, room, copying, over })
    }

    /// Ends the protection and wakes all waiting threads.
    fn stop(&self) {
        self.over.store(true, SeqCst);
        self.wake.wake();
        self.room.notify_all();
        self.faults.release(&self.blocks);
    }

    /// Serves write faults until the snapshot is over.
    fn run(&self, vm: &Vm, ram: &Ram) {
        if let Err(error) = self.faults.uffd.serve(&self.wake, |address| self.serve(vm, ram, address)) {
            log::error!("reading write faults: {error}");
        }
    }

    /// After a panic the snapshot fails, but the writing thread continues.
    fn serve(&self, vm: &Vm, ram: &Ram, address: usize) {
        let Some((_, block, offset)) = block::find_address(&self.blocks, address) else { return };
        let offset = offset - offset % block.unit();
        // Counted before the claim, so that the sender does not finish in between.
        self.copying.fetch_add(1, SeqCst);
        let claimed = catch(vm, || {
            vm.fault_point(FaultPoint::WriteFault);
            self.copy(ram, block, offset)
        });
        self.copying.fetch_sub(1, SeqCst);
        // The sender claimed all other units, and ends their protection.
        if claimed.unwrap_or(true)
            && let Err(error) = self.faults.protect(block, offset, block.unit(), false)
        {
            log::error!("letting the guest write to block '{}' at 0x{offset:x}: {error}", block.name());
        }
    }

    /// Copies a unit, unless the sender claimed it. Returns whether it was copied.
    fn copy(&self, ram: &Ram, block: &Arc<Block>, offset: usize) -> bool {
        let claimed = ram.claim(block, offset >> ram.page_bits);
        if claimed {
            let mut content = vec![0; block.unit()];
            block.memory().read(offset, &mut content);
            self.keep(ram, block, offset >> ram.page_bits, content);
        }
        claimed
    }

    fn keep(&self, ram: &Ram, block: &Arc<Block>, page: usize, content: Vec<u8>) {
        let Some(place) = ram.blocks().iter().position(|other| Arc::ptr_eq(other, block)) else { return };
        let mut copies = self.copies.lock();
        while copies.bytes > 0 && copies.bytes + content.len() > COPIES_MAX && !self.over.load(SeqCst) {
            copies = self.room.wait_timeout(copies, Duration::from_millis(100));
        }
        copies.bytes += content.len();
        copies.queue.push_back((place, page, content));
    }

    fn next_copy(&self) -> Option<Copied> {
        let mut copies = self.copies.lock();
        let copy = copies.queue.pop_front()?;
        copies.bytes -= copy.2.len();
        self.room.notify_all();
        Some(copy)
    }
}

/// Writes a section of RAM around `body`.
pub(super) fn section(vm: &Vm, mut file: &MigFile, tag: u8, body: impl FnOnce() -> Result<()>) -> Result<()> {
    let entry = vm.registry.find(wire::SECTION, 0).ok_or_else(|| Error::new(libc::ENODEV, "RAM was unregistered"))?;
    section::encode_tag(&mut file, tag, entry.section_id);
    body()?;
    wire::encode_end(&mut file);
    if !vm.flags().has(Flags::NO_FOOTERS) {
        section::encode_footer(&mut file, entry.section_id);
    }
    file.check()
}

/// Fails if there is a live device besides RAM: it can't be saved while the guest runs.
fn check_devices(vm: &Vm) -> Result<()> {
    let other =
        vm.registry.walk().find(|call| call.is_live && *call.idstr != *wire::SECTION && call.handler.is_active());
    match other {
        Some(entry) => {
            let text = format!("the live device '{}' can't be saved while the guest runs", entry.name());
            Err(Error::new(libc::ENOTSUP, text))
        }
        None => Ok(()),
    }
}

impl Ram {
    /// Saves the current state of the machine while its guest continues.
    pub fn snapshot_running(&self, to: &Uri) -> Result<()> {
        let vm = self.context()?;
        let host = vm.host();
        if host.locked() {
            return Err(Error::new(libc::EDEADLK, "a snapshot of a running guest is taken without the lock"));
        }
        vm.check_migratable()?;
        check_devices(&vm)?;
        let _guard = vm.acquire_slot("a snapshot")?;
        self.check_no_checkpoints("a snapshot of a running guest")?;
        vm.ownership.check("a snapshot")?;
        vm.slot.check_blockers("a snapshot")?;
        vm.prepare_global_state()?;
        vm.begin_global_state();
        let result = vm.on_thread(|| self.snapshot_to(&vm, to));
        result.map_err(|err| err.at_side(Side::Source).in_phase(Phase::Snapshot))
    }

    fn snapshot_to(&self, vm: &Vm, to: &Uri) -> Result<()> {
        let protection = Protection::new(self)?;
        let sink = Sink::open(to, Some(LIMIT), &Cancel::new()?)?;
        sink.channel().set_stall_limit(Some(LIMIT));
        let file = MigFile::new(Arc::clone(sink.channel()), true);
        self.snapshots.store(true, SeqCst);
        let save = || {
            save::header(vm, &file);
            save::setup(vm, &file)?;
            file.check()?;
            self.snapshot_of(vm, &file, &protection)
        };
        let clean = || {
            self.snapshots.store(false, SeqCst);
            with_big_lock(&*vm.host(), || save::cleanup(vm));
        };
        let (saved, ()) = finally(save, clean);
        sink.finish(saved.and(file.close()))
    }

    fn snapshot_of(&self, vm: &Vm, file: &MigFile, protection: &Protection) -> Result<()> {
        thread::scope(|scope| {
            let thread = spawn_scoped(scope, "savevm-writes", || protection.run(vm, self));
            let save = || match thread {
                Ok(_) => self.freeze(vm, protection).and_then(|devices| {
                    section(vm, file, stream::SECTION_PART, || self.send_frozen(file, protection))?;
                    section(vm, file, stream::SECTION_END, || Ok(()))?;
                    file.put(&devices);
                    // After a panic a page may be missing.
                    vm.check_not_poisoned()
                }),
                Err(err) => Err(Error::io("starting the thread for write faults", &err)),
            };
            finally(save, || protection.stop()).0
        })
    }

    /// Stops the guest to save its devices and to protect its memory. Returns the devices' sections and the end of the
    /// stream.
    fn freeze(&self, vm: &Vm, protection: &Protection) -> Result<Vec<u8>> {
        let writer = Arc::new(memory::Writer::new());
        let file = MigFile::new(writer.clone(), true);
        let host = vm.host();
        with_big_lock(&*host, || {
            let ran = host.vm_running();
            vm.global_state.store(ran || !host.knows_run_state());
            if ran {
                error::check("vm_stop", host.vm_stop())?;
            }
            let save = || {
                host.cpu_synchronize_states();
                save::complete_precopy_non_iterable(vm, &file, false, Disks::Keep)?;
                protection.faults.protect_all(&protection.blocks)
            };
            let (saved, started) = finally(save, || if ran { host.vm_start() } else { 0 });
            saved?;
            error::check("vm_start", started)
        })?;
        file.close()?;
        Ok(writer.take())
    }

    /// Sends every page as it was: from its copy, or from memory, whose protection ends after that.
    fn send_frozen(&self, file: &MigFile, protection: &Protection) -> Result<()> {
        self.with_saver(|saver| {
            loop {
                file.check()?;
                if let Some((at, page, content)) = protection.next_copy() {
                    saver.send_copy(self, file, (at, page), &content);
                    continue;
                }
                let Some((at, start, count)) = saver.next_run(self, CHUNK) else {
                    // The last copies may be queued between the two checks.
                    let Some((at, page, content)) = self.last_copy(protection) else { return Ok(()) };
                    saver.send_copy(self, file, (at, page), &content);
                    continue;
                };
                self.send_place(saver, file, protection, (at, start, count))?;
            }
        })
    }

    /// Waits for copies that are being made when all other pages are sent.
    fn last_copy(&self, protection: &Protection) -> Option<Copied> {
        loop {
            let copying = protection.copying.load(SeqCst) > 0;
            let copy = protection.next_copy();
            if copy.is_some() || !copying {
                return copy;
            }
            thread::yield_now();
        }
    }

    /// Claims a unit for the caller to save. Returns false if it was claimed before.
    fn claim(&self, block: &Block, page: usize) -> bool {
        let cleared = block.dirty.clear(page, block.pages_per_unit());
        self.cleaned(cleared);
        cleared > 0
    }

    fn send_place(
        &self,
        saver: &mut Saver,
        file: &MigFile,
        protection: &Protection,
        (at, start, count): (usize, usize, usize),
    ) -> Result<()> {
        let block = saver.block(at);
        let unit = block.pages_per_unit();
        let claimed: Vec<_> = (start..start + count).step_by(unit).filter(|page| self.claim(&block, *page)).collect();
        for page in &claimed {
            saver.send_pages(self, file, at, *page, unit);
        }
        // Until the flush the file only has the addresses of the pages.
        file.flush();
        for run in claimed.chunk_by(|page, next| page + unit == *next) {
            let (offset, len) = (run[0] << self.page_bits, run.len() * block.unit());
            protection.faults.protect(&block, offset, len, false)?;
        }
        Ok(())
    }
}
