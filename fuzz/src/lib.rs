// SPDX-License-Identifier: LGPL-2.1-or-later
//! Shared by fuzz targets: memory with guard pages, a machine with RAM, a file over bytes.

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

/// Guest memory between two guard pages: an access outside of it ends the program.
pub struct Walled {
    start: *mut u8,
    len: usize,
}

// SAFETY: the memory is only accessed through `GuestMemory`, which may be shared between threads.
unsafe impl Send for Walled {}
// SAFETY: as above.
unsafe impl Sync for Walled {}

impl Walled {
    /// Maps `pages` pages.
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

    /// Returns the memory between the guard pages.
    pub fn memory(&self) -> GuestMemory {
        // SAFETY: the mapping lives as long as `self`, which outlives the machine in every target.
        unsafe { GuestMemory::new(self.start, self.len) }.expect("it is mapped")
    }

    /// Returns the memory as a block with this name.
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

/// A machine whose only device is RAM: QEMU's machine "none" with 1 MiB.
pub struct Machine {
    pub vm: Arc<Vm>,
    pub ram: Arc<Ram>,
    memory: Walled,
}

impl Machine {
    /// Returns a machine whose memory is zero.
    pub fn new(vm: Arc<Vm>) -> Self {
        let ram = Ram::new(&vm, Options { log: Log::Marks, ..Options::default() }, None).expect("RAM");
        let memory = Walled::new(256);
        ram.add_block(memory.block("ram")).expect("a block");
        Self { vm, ram, memory }
    }

    /// Returns the memory.
    pub fn content(&self) -> Vec<u8> {
        let mut content = vec![0; self.memory.len];
        self.memory.memory().read(0, &mut content);
        content
    }

    /// Sets all memory to zero.
    pub fn reset(&self) {
        self.memory.memory().discard(0, self.memory.len, false).expect("a private mapping");
    }
}

/// Returns a file that reads these bytes.
pub fn reader(bytes: &[u8]) -> MigFile {
    MigFile::new(Arc::new(memory::Reader::new(bytes.to_vec())), false)
}
