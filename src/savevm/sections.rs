// SPDX-License-Identifier: LGPL-2.1-or-later
//! What stays as it is while sections go out or come in. Looking it up for each of them would cost as much as the rest.

use super::Vm;
use super::host::{Flags, Host};
use super::registry::Entry;
use super::slot::{Observer, SectionTime};
use crate::file::MigFile;
use std::sync::Arc;
use std::time::Instant;

/// The sections of one phase, or of one pass of the load loop.
pub(super) struct Sections<'a> {
    pub vm: &'a Vm,
    pub file: &'a MigFile,
    pub host: Arc<dyn Host>,
    /// Whether a footer closes each of them.
    pub footers: bool,
    observer: Option<Arc<dyn Observer>>,
}

impl<'a> Sections<'a> {
    pub fn new(vm: &'a Vm, file: &'a MigFile) -> Self {
        let footers = !vm.flags().has(Flags::NO_FOOTERS);
        Self { vm, file, host: vm.host(), footers, observer: vm.slot.observer() }
    }

    /// Starts the clock for one of them, where somebody watches.
    pub fn time(&self) -> Timer<'_> {
        let start = self.observer.as_deref().map(|observer| (observer, Instant::now(), self.file.position()));
        Timer { file: self.file, start }
    }
}

/// Times one section.
pub(super) struct Timer<'a> {
    file: &'a MigFile,
    start: Option<(&'a dyn Observer, Instant, u64)>,
}

impl Timer<'_> {
    /// Tells who watches that the section is over.
    pub fn over(self, entry: &Entry, tag: u8) {
        if let Some((observer, since, at)) = self.start {
            let bytes = self.file.position().saturating_sub(at);
            let (name, instance) = (&*entry.idstr, entry.instance_id);
            observer.section(&SectionTime { name, instance, tag, bytes, time: since.elapsed() });
        }
    }
}
