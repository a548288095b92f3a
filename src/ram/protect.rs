// SPDX-License-Identifier: LGPL-2.1-or-later
//! Write protection of guest memory through userfaultfd: the first write to a protected unit waits until a thread of the
//! library has handled it. Snapshots of a running guest and checkpoints use it.

use super::block::{Block, Blocks};
use super::{register_error, userfault_error};
use crate::error::{Error, Result};
use crate::sys::{Feature, Mode, Userfault, system_page_size};
use std::sync::Arc;

/// A descriptor for write faults in some blocks. Nothing is protected at first.
pub(super) struct WriteFaults {
    pub uffd: Userfault,
    /// The kernel protects pages that are not present as well.
    unpopulated: bool,
}

impl WriteFaults {
    /// Opens a descriptor that can handle these blocks. `what` needs it, for the error.
    pub fn open(blocks: &[Arc<Block>], what: &str) -> Result<Self> {
        let mut features = vec![Feature::WpFault];
        if blocks.iter().any(|block| block.info.shared || block.info.page_size > system_page_size()) {
            features.push(Feature::WpHugeShmem);
        }
        let whole = [&features[..], &[Feature::WpUnpopulated]].concat();
        let opened = Userfault::open(&whole).map(|uffd| (uffd, true));
        let opened = opened.or_else(|_| Userfault::open(&features).map(|uffd| (uffd, false)));
        let needs = "write protection through userfaultfd (Linux 5.7)";
        let (uffd, unpopulated) = opened.map_err(|err| userfault_error(what, needs, &err))?;
        Ok(Self { uffd, unpopulated })
    }

    /// Protects whole blocks from writes. The guest is stopped.
    pub fn protect_all(&self, blocks: &Blocks) -> Result<()> {
        for block in blocks.iter() {
            let registered = self.uffd.register(block.memory(), Mode::WriteProtect);
            registered.map_err(|err| register_error("protecting guest memory from writes", block, &err))?;
            if !self.unpopulated {
                // Only present pages can be protected.
                block.memory().populate(system_page_size());
            }
            self.protect(block, 0, block.memory().len(), true)?;
        }
        Ok(())
    }

    /// Protects bytes of a block from writes, or ends the protection and wakes the threads that wait in them.
    pub fn protect(&self, block: &Block, offset: usize, len: usize, on: bool) -> Result<()> {
        self.uffd.protect(block.memory(), offset, len, on).map_err(|err| {
            let what = if on { "protecting" } else { "ending the protection of" };
            Error::io(format_args!("{what} block '{}' at 0x{offset:x} from writes", block.name()), &err)
        })
    }

    /// Ends the protection of whole blocks and wakes all waiting threads.
    pub fn release(&self, blocks: &Blocks) {
        for block in blocks.iter() {
            // Fails for memory that was not registered.
            let _ = self.uffd.unregister(block.memory());
        }
    }
}
