// SPDX-License-Identifier: LGPL-2.1-or-later
//! Saves the devices for a rehearsal, and measures how large each one is and how long it takes.

use super::fail;
use crate::error::{Error, Phase, Result, Side};
use crate::file::MigFile;
use crate::savevm::Vm;
use crate::savevm::fault::FaultPoint;
use crate::savevm::registry::Ticket;
use crate::savevm::section_context::SectionContext;
use crate::wire;
use std::time::{Duration, Instant};

/// A device that was saved for a rehearsal.
pub struct SavedDevice {
    /// The device.
    pub ticket: Ticket,
    /// Bytes of its section.
    pub bytes: u64,
    /// Time for saving it.
    pub time: Duration,
}

/// The devices that a rehearsal has saved.
pub struct SavedDevices(Vec<SavedDevice>);

impl SavedDevices {
    /// Allocates and touches the memory of the list, and visits the devices once: the guest still runs.
    pub fn prepare(vm: &Vm) -> Self {
        let none = |ticket| SavedDevice { ticket, bytes: 0, time: Duration::ZERO };
        let mut list = Vec::with_capacity(vm.registry.len());
        list.extend(vm.registry.walk().map(|entry| none(entry.ticket())));
        list.clear();
        Self(list)
    }

    /// Returns the devices.
    pub fn into_inner(self) -> Vec<SavedDevice> {
        self.0
    }
}

/// Saves every device that is not live for a rehearsal, each in a FULL section. The guest is stopped. Fails if this takes longer
/// than `limit`, which is checked before each device.
pub fn rehearse(vm: &Vm, file: &MigFile, limit: Duration, saved: &mut SavedDevices) -> Result<()> {
    vm.fault_point(FaultPoint::Engine);
    let since = Instant::now();
    let (mut last, mut at) = (since, file.position());
    vm.host().cpu_synchronize_states();
    let context = SectionContext::new(vm, file);
    for entry in vm.registry.walk() {
        if !context.wants_whole(&entry) {
            continue;
        }
        if last.duration_since(since) > limit {
            let text =
                format!("saving the devices takes longer than {limit:?}: '{}' and others are not saved", entry.name());
            return Err(Error::new(libc::ETIMEDOUT, text).at_side(Side::Source).in_phase(Phase::Check));
        }
        context.full(&entry, None).map_err(|err| fail(vm, file, &entry, wire::SECTION_FULL, Phase::Check, err))?;
        let (now, end) = (Instant::now(), file.position());
        saved.0.push(SavedDevice { ticket: entry.ticket(), bytes: end.saturating_sub(at), time: now - last });
        (last, at) = (now, end);
    }
    file.check()
}
