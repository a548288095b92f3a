// SPDX-License-Identifier: LGPL-2.1-or-later
//! The values that all sections of one phase share. A lookup per section would cost as much as the rest of the section.

use super::Vm;
use super::host::{Flags, Host};
use super::registry::Entry;
use super::slot::{Observer, SectionTime};
use crate::file::MigFile;
use std::sync::Arc;
use std::time::Instant;

/// The context of the sections of one phase, or of one run of the load loop.
pub(super) struct SectionContext<'a> {
    pub vm: &'a Vm,
    pub file: &'a MigFile,
    pub host: Arc<dyn Host>,
    /// Whether a footer follows each section.
    pub footers: bool,
    observer: Option<Arc<dyn Observer>>,
}

impl<'a> SectionContext<'a> {
    pub fn new(vm: &'a Vm, file: &'a MigFile) -> Self {
        let footers = !vm.flags().has(Flags::NO_FOOTERS);
        Self { vm, file, host: vm.host(), footers, observer: vm.slot.observer() }
    }

    /// Starts to time a section, if there is an observer.
    pub fn time(&self) -> Timer<'_> {
        let start = self.observer.as_deref().map(|observer| (observer, Instant::now(), self.file.position()));
        Timer { file: self.file, start }
    }
}

/// The timer of one section.
pub(super) struct Timer<'a> {
    file: &'a MigFile,
    start: Option<(&'a dyn Observer, Instant, u64)>,
}

impl Timer<'_> {
    /// Reports the section to the observer.
    pub fn stop(self, entry: &Entry, tag: u8) {
        if let Some((observer, since, at)) = self.start {
            let bytes = self.file.position().saturating_sub(at);
            let (name, instance) = (&*entry.idstr, entry.instance_id);
            observer.section(&SectionTime { name, instance, tag, bytes, time: since.elapsed() });
        }
    }
}
