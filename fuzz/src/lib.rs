// SPDX-License-Identifier: LGPL-2.1-or-later
//! What several fuzz targets share: memory with walls around it, and a machine with RAM.

use savevm::channel::memory;
use savevm::file::MigFile;
use savevm::ram::block::BlockInfo;
use savevm::ram::tracker::Log;
use savevm::ram::{Options, Ram};
use savevm::savevm::Vm;
use savevm::sys::GuestMemory;
use std::ptr;
use std::sync::Arc;

/// Size of a page on both sides.
pub const PAGE: usize = 4096;

/// Guest memory between two pages that nobody may touch: a write beside it ends the program.
pub struct Walled {
    start: *mut u8,
    len: usize,
}

// SAFETY: an address; what is behind it is only touched through `GuestMemory`.
unsafe impl Send for Walled {}
// SAFETY: as above.
unsafe impl Sync for Walled {}

impl Walled {
    /// So many pages.
    pub fn new(pages: usize) -> Self {
        let len = pages * PAGE;
        let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, of which the inner pages become writable.
        let start = unsafe {
            let outer = libc::mmap(ptr::null_mut(), len + 2 * PAGE, libc::PROT_NONE, anonymous, -1, 0);
            assert_ne!(outer, libc::MAP_FAILED);
            let inner = outer.cast::<u8>().add(PAGE);
            assert_eq!(libc::mprotect(inner.cast(), len, libc::PROT_READ | libc::PROT_WRITE), 0);
            inner
        };
        Self { start, len }
    }

    /// The pages inside the walls.
    pub fn memory(&self) -> GuestMemory {
        // SAFETY: the mapping lives as long as `self`, which outlives the machine in every target.
        unsafe { GuestMemory::new(self.start, self.len) }.expect("it is mapped")
    }

    /// The same as a block that is called `name`.
    pub fn block(&self, name: &str) -> BlockInfo {
        let (name, memory) = (name.into(), self.memory());
        BlockInfo { name, memory, page_size: 0, guest_address: 0, shared: false, opaque: 0 }
    }
}

impl Drop for Walled {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own.
        unsafe { libc::munmap(self.start.sub(PAGE).cast(), self.len + 2 * PAGE) };
    }
}

/// A machine whose only device is RAM: that of QEMU's machine "none" with a megabyte.
pub struct Machine {
    pub vm: Arc<Vm>,
    pub ram: Arc<Ram>,
    memory: Walled,
}

impl Machine {
    /// With memory of zeros.
    pub fn new(vm: Arc<Vm>) -> Self {
        let ram = Ram::new(&vm, Options { log: Log::Marks, ..Options::default() }, None).expect("RAM");
        let memory = Walled::new(256);
        ram.add_block(memory.block("ram")).expect("a block");
        Self { vm, ram, memory }
    }

    /// Makes all memory zero again.
    pub fn reset(&self) {
        self.memory.memory().discard(0, self.memory.len, false).expect("a private mapping");
    }
}

/// A file that reads these bytes.
pub fn reader(bytes: &[u8]) -> MigFile {
    MigFile::new(Arc::new(memory::Reader::new(bytes.to_vec())), false)
}
