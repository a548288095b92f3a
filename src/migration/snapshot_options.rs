// SPDX-License-Identifier: LGPL-2.1-or-later
//! How a snapshot is saved or loaded, as the caller chose.

use super::page_index::Pages;
use crate::channel::Uri;
use crate::error::{Error, Result};
use crate::savevm::Vm;
use crate::savevm::config::maps_ram;
use crate::savevm::host::Flags;
use crate::savevm::memory_plan::MemoryPlan;
use crate::savevm::restore::LazyPlan;
use crate::savevm::unwind::finally;
use std::path::PathBuf;
use std::sync::Arc;

/// What a snapshot is relative to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parent {
    /// Nothing: a full snapshot that begins a chain.
    None,
    /// This file.
    File(PathBuf),
}

/// How a snapshot is saved or loaded.
#[derive(Clone, Debug, Default)]
pub struct SnapshotOptions {
    /// Saving: each page has a fixed place in the file (mapped-ram). A load finds the format in the file.
    pub mapped: bool,
    /// Number of threads for pages with fixed places, and for loading a stream from a regular file; 0 means the number of
    /// processors, at most 8, or 8 with O_DIRECT.
    pub threads: u32,
    /// O_DIRECT for pages with fixed places.
    pub direct: bool,
    /// Loading: pages are read when they are touched, and by threads while the guest runs.
    pub lazy: bool,
    /// Lazy: a file with the order of first touches. If it does not exist, it is written.
    pub working_set: Option<PathBuf>,
    /// A file with the places of a stream's pages. Saving: it is written. Lazy: it spares the reading of all page records; if
    /// it is missing or belongs to another snapshot, it is written.
    pub index: Option<PathBuf>,
    /// Saving: the guest runs while memory is saved, which is as it was at one moment.
    pub background: bool,
    /// What the snapshot is relative to. `Some` also logs what changes after it. A load only logs.
    pub parent: Option<Parent>,
}

impl SnapshotOptions {
    pub(super) fn plan(&self, pages: Pages) -> MemoryPlan {
        let Pages { index, file: index_file, chain } = pages;
        let Self { mapped, threads, direct, .. } = *self;
        if !self.lazy {
            return MemoryPlan { mapped, threads, direct, index: index.map(Arc::new), lazy: None };
        }
        let lazy = LazyPlan { index, index_file, chain, working_set: self.working_set.clone() };
        MemoryPlan { mapped, threads, direct, index: None, lazy: Some(Arc::new(lazy)) }
    }

    /// Checks the options of a load.
    pub(super) fn check_load(&self, vm: &Vm) -> Result<()> {
        if self.working_set.is_some() && !self.lazy {
            return Err(Error::invalid("a working set needs the option `lazy`"));
        }
        if self.index.is_some() && !self.lazy {
            return Err(Error::invalid("an index of pages needs the option `lazy`"));
        }
        if self.background {
            return Err(Error::invalid("the option `background` is for saving"));
        }
        if self.lazy && self.direct {
            return Err(Error::invalid("a lazy restore reads through the page cache: leave out the option `direct`"));
        }
        if self.lazy && self.parent.is_some() {
            return Err(Error::invalid("changes can't be logged while pages are read: leave out `lazy` or `parent`"));
        }
        match vm.slot.ram() {
            _ if !self.lazy => Ok(()),
            Some(ram) => ram.check_lazy(),
            None => Err(Error::new(libc::ENOTSUP, "a lazy restore needs RAM from savevm_ram_new()")),
        }
    }

    /// Checks the options of a save.
    pub(super) fn check_save(&self, vm: &Vm, to: &Uri) -> Result<()> {
        if self.index.is_some() {
            self.check_save_index(vm, to)?;
        }
        if self.lazy || self.working_set.is_some() {
            return Err(Error::invalid("the options `lazy` and `working_set` are for loading"));
        }
        if self.mapped && !maps_ram(vm) {
            let text = "fixed places of pages need the library's RAM: add the guest's memory with savevm_ram_new()";
            return Err(Error::new(libc::ENOTSUP, text));
        }
        if self.direct && !self.mapped {
            return Err(Error::invalid(
                "direct access (O_DIRECT) needs fixed places of pages: use SAVEVM_SNAPSHOT_MAPPED",
            ));
        }
        Ok(())
    }

    fn check_save_index(&self, vm: &Vm, to: &Uri) -> Result<()> {
        if self.mapped || self.parent.is_some() {
            return Err(Error::invalid("an index is for a full snapshot whose pages have no fixed places"));
        }
        if !matches!(to, Uri::File { .. }) || vm.flags().has(Flags::NO_FOOTERS) {
            return Err(Error::invalid("an index needs a regular file (file:PATH), and sections with footers"));
        }
        Ok(())
    }
}

/// Runs `body` while the RAM device follows the plan.
pub(super) fn with_plan<T>(vm: &Vm, plan: MemoryPlan, body: impl FnOnce() -> T) -> T {
    vm.slot.set_memory_plan(plan);
    finally(body, || vm.slot.set_memory_plan(MemoryPlan::default())).0
}
