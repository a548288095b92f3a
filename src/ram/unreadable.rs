// SPDX-License-Identifier: LGPL-2.1-or-later
//! Memory of a failed postcopy that the guest must not read.
//!
//! A page that did not arrive holds the guest's data only at the source. If the guest can't be stopped, such a page is
//! made unreadable: a thread that touches it gets a signal, and a system call or KVM_RUN fails, but nothing reads
//! zeros. The kernel marks single pages (UFFDIO_POISON, Linux 6.6: SIGBUS). An older kernel forbids all access to the
//! range from the first to the last missing page of a block (mprotect: SIGSEGV).

use super::block::{Block, Blocks};
use crate::sys::Userfault;
use std::sync::Arc;

/// How pages are made unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Poison,
    Protect,
}

/// Blocks whose missing pages are unreadable. Dropping it makes the pages readable again, as zero.
pub(super) struct Unreadable {
    blocks: Vec<Arc<Block>>,
    method: Method,
}

/// The range from the first to the last missing page.
fn span(block: &Block) -> Option<(usize, usize)> {
    let (start, _) = block.missing().next()?;
    let (last, len) = block.missing().last()?;
    Some((start, last + len - start))
}

impl Unreadable {
    /// Makes all missing pages unreadable and wakes the threads that wait for them. The blocks are registered with
    /// `uffd`.
    pub fn make(blocks: &Blocks, uffd: &Userfault, method: Method) -> Self {
        for block in blocks.iter() {
            let memory = block.memory();
            let done = match method {
                Method::Poison => {
                    block.missing().try_for_each(|(offset, len)| uffd.poison(memory, offset, len, block.info.page_size))
                }
                Method::Protect => span(block).map_or(Ok(()), |(offset, len)| {
                    memory.allow_access(offset, len, false).and_then(|()| uffd.wake(memory, offset, len))
                }),
            };
            if let Err(error) = done {
                log::error!("making missing pages of block '{}' unreadable: {error}", block.name());
            }
        }
        let blocks = blocks.iter().filter(|block| block.missing().next().is_some()).cloned().collect();
        Self { blocks, method }
    }

    /// Whether no page is missing.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Makes one block readable again, which the host removes.
    pub fn restore(&mut self, name: &[u8]) {
        if let Some(at) = self.blocks.iter().position(|block| *block.info.name == *name) {
            let block = self.blocks.swap_remove(at);
            self.readable(&block);
        }
    }

    fn readable(&self, block: &Block) {
        let memory = block.memory();
        let done = match self.method {
            // Also of shared memory: the file below keeps what it has, and a missing page has nothing.
            Method::Poison => block.missing().try_for_each(|(offset, len)| memory.discard(offset, len, false)),
            Method::Protect => span(block).map_or(Ok(()), |(offset, len)| memory.allow_access(offset, len, true)),
        };
        if let Err(error) = done {
            log::error!("making block '{}' readable again: {error}", block.name());
        }
    }
}

impl Drop for Unreadable {
    fn drop(&mut self) {
        for block in &self.blocks {
            self.readable(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::BlockInfo;
    use super::*;
    use crate::sys::{Mode, OwnMemory, write_fd};
    use std::os::fd::AsFd;

    #[test]
    fn memory_is_protected_where_the_kernel_can_mark_no_pages() {
        const PAGE: usize = 4096;
        let own = OwnMemory::new(4 * PAGE).unwrap();
        let memory = own.memory();
        memory.write(0, b"here");
        let (name, page_size) = (b"a".to_vec(), 0);
        let info = BlockInfo { name, memory, page_size, guest_address: 0, shared: false, opaque: 0 };
        let block = Arc::new(Block::new(info, 12).unwrap());
        block.received.set(0, 1);
        block.received.set(2, 1);
        let Ok(uffd) = Userfault::open(&[]) else { return eprintln!("SKIPPED: no userfaultfd") };
        uffd.register(&memory, Mode::Missing).unwrap();
        let readable = |page| {
            let (_reader, writer) = std::io::pipe().unwrap();
            write_fd(writer.as_fd(), &[memory.piece(page * PAGE, 1)]).is_ok()
        };
        let mut unreadable = Unreadable::make(&Arc::new(vec![block]), &uffd, Method::Protect);
        assert!(!unreadable.is_empty());
        uffd.unregister(&memory).unwrap();
        assert_eq!([0, 1, 2, 3].map(readable), [true, false, false, false]);
        unreadable.restore(b"a");
        assert_eq!([0, 1, 2, 3].map(readable), [true; 4]);
    }
}
