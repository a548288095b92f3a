// SPDX-License-Identifier: LGPL-2.1-or-later
//! The dirty log: the host's, the kernel's, or the host's calls of `set_dirty`.

use super::block::{Block, Blocks};
use super::{Ram, register_error, userfault_error};
use crate::error::{self, Error, Result};
use crate::sys::{Feature, Mode, PageScan, Userfault};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::fence;

/// Source of the dirty log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Log {
    /// The host's log if it has one, else the kernel's.
    #[default]
    Auto,
    /// The host's log.
    Host,
    /// The kernel's log: asynchronous write protection through userfaultfd (Linux 6.7).
    Kernel,
    /// Calls of `set_dirty` only.
    Marks,
}

/// A dirty log of the host, such as KVM's. Called on the thread of the phase, with no lock of the library held.
pub trait HostLog: Send + Sync {
    /// Starts the log. All pages count as dirty. Returns 0 or a negative errno.
    fn start(&self) -> i32;
    /// Sets a bit for every target page of the block that was written since the last call. Bit 0 of the first word is
    /// the first page. Returns 0 or a negative errno.
    fn sync(&self, block: &Block, words: &mut [u64]) -> i32;
    /// Stops the log.
    fn stop(&self);
}

/// A running log. Dropping it stops the log.
pub(super) enum Tracker {
    Host(Arc<dyn HostLog>),
    Kernel(KernelLog),
    Marks,
}

pub(super) struct KernelLog {
    scan: PageScan,
    fault: Userfault,
    blocks: Blocks,
}

impl Drop for Tracker {
    fn drop(&mut self) {
        match self {
            Self::Host(log) => log.stop(),
            Self::Kernel(log) => log.blocks.iter().for_each(|block| {
                // Fails for memory that was unmapped. Closing the descriptor ends the protection in that case.
                let _ = log.fault.unregister(block.memory());
            }),
            Self::Marks => {}
        }
    }
}

impl KernelLog {
    /// Write-protects all blocks that are sent.
    fn start(ram: &Ram, blocks: &Blocks) -> Result<Self> {
        ram.end_log_for("logging dirty pages with the kernel")?;
        let what = "logging dirty pages (a host can give a dirty log of its own, or mark pages as dirty)";
        let fault = Userfault::open(&[Feature::WpAsync, Feature::WpUnpopulated, Feature::WpHugeShmem]);
        let needs = "asynchronous write protection through userfaultfd (Linux 6.7)";
        let fault = fault.map_err(|err| userfault_error(what, needs, &err))?;
        let scan = PageScan::open().map_err(|err| match err.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                Error::io(format_args!("{what}: this program may not open /proc/self/pagemap"), &err)
            }
            _ => Error::io(format_args!("{what}: this kernel lacks PAGEMAP_SCAN (Linux 6.7)"), &err),
        })?;
        let sent = blocks.iter().filter(|block| !ram.is_ignored(block)).cloned();
        let log = Self { scan, fault, blocks: Arc::new(sent.collect()) };
        for block in log.blocks.iter() {
            let place =
                |err: std::io::Error| Error::io(format!("logging dirty pages of block '{}'", block.name()), &err);
            let registered = log.fault.register(block.memory(), Mode::WriteProtect);
            registered.map_err(|err| register_error(what, block, &err))?;
            log.fault.protect(block.memory(), 0, block.memory().len(), true).map_err(place)?;
        }
        Ok(log)
    }

    fn sync(&self, ram: &Ram, block: &Block) -> Result<()> {
        let result = self.scan.take_written(block.memory(), |offset, len| {
            let (start, count) = block.page_range(offset, len);
            ram.counters.written.fetch_add(count as u64, Relaxed);
            ram.mark(block, start, count);
        });
        result.map_err(|err| Error::io(format!("reading the dirty log of block '{}'", block.name()), &err))
    }
}

impl Tracker {
    /// Starts the log of the host's choice.
    pub fn start(ram: &Ram, blocks: &Blocks) -> Result<Self> {
        let log = match (ram.options().log, &ram.host_log) {
            // The guest stays stopped until everything is saved. Threads of the host mark what they write.
            _ if ram.vm().is_some_and(|vm| vm.ownership.is_held()) => Self::Marks,
            (Log::Auto | Log::Host, Some(log)) => {
                error::check("log_start", log.start())?;
                Self::Host(Arc::clone(log))
            }
            (Log::Auto | Log::Kernel | Log::Host, _) => Self::Kernel(KernelLog::start(ram, blocks)?),
            (Log::Marks, _) => Self::Marks,
        };
        ram.logging.store(true, SeqCst);
        // Pairs with the fence in `Ram::set_dirty`.
        fence(SeqCst);
        Ok(log)
    }

    /// Marks the pages as dirty that were written since the last call.
    pub fn sync(&self, ram: &Ram, blocks: &Blocks) -> Result<()> {
        ram.counters.syncs.fetch_add(1, Relaxed);
        for block in blocks.iter().filter(|block| !ram.is_ignored(block)) {
            match self {
                Self::Marks => {}
                Self::Kernel(log) => log.sync(ram, block)?,
                Self::Host(log) => {
                    let mut words = vec![0; block.dirty.words()];
                    error::check("log_sync", log.sync(block, &mut words)).map_err(|error| {
                        let text = format!("block '{}': {}", block.name(), error.message());
                        error.with_message(text)
                    })?;
                    let written: u64 = words.iter().map(|word| u64::from(word.count_ones())).sum();
                    ram.counters.written.fetch_add(written, Relaxed);
                    ram.dirtied(block.dirty.merge(&words));
                }
            }
        }
        Ok(())
    }
}
