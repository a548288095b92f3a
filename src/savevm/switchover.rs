// SPDX-License-Identifier: LGPL-2.1-or-later
//! The switchover of QEMU 8.1 and newer: devices of the destination approve it, and learn when it begins
//! (`migration/savevm.c`).

use super::handler::Callback;
use super::host::Flags;
use super::incoming::Incoming;
use super::profile::Profile;
use super::{Vm, command};
use crate::error::{self, Error, Result};
use crate::file::MigFile;
use crate::vmstate::trace::trace_event;

/// Returns whether a migration sends SWITCHOVER_START: the version and the machine have it.
pub fn sends_start(vm: &Vm) -> bool {
    vm.profile().has(Profile::SWITCHOVER_START) && !vm.flags().has(Flags::NO_SWITCHOVER_START)
}

/// Sends SWITCHOVER_START, if the version and the machine have it. The guest is stopped.
pub fn send_start(vm: &Vm, file: &MigFile) {
    if sends_start(vm) {
        command::switchover_start(vm, file);
    }
}

/// SWITCHOVER_START came: calls `switchover_start` of all devices until one fails.
pub(super) fn start(vm: &Vm) -> Result<()> {
    for entry in vm.registry.walk() {
        if entry.handler.has(Callback::SwitchoverStart) {
            error::check("switchover_start", entry.handler.switchover_start())
                .map_err(|error| error.in_section(|| entry.section(0, entry.section_id, None)))?;
        }
    }
    Ok(())
}

/// Counts the devices that must approve the switchover. A load begins. If the return path was opened before and no device has to
/// approve the switchover, it is approved at once.
pub(super) fn count_acks(vm: &Vm) -> Result<()> {
    let asks = vm.flags().has(Flags::SWITCHOVER_ACK);
    let needed = || vm.registry.walk().filter(|entry| entry.handler.switchover_ack_needed()).count();
    let count = if asks { needed() as u32 } else { 0 };
    let is_approved = vm.load_state().set_acks(count);
    if !asks {
        return Ok(());
    }
    trace_event!(vm.host(), "loadvm_state_switchover_ack_needed", "Switchover ack pending num={count}");
    match vm.incoming() {
        Some(incoming) if is_approved => incoming.switchover_ack(),
        _ => Ok(()),
    }
}

/// OPEN_RETURN_PATH came. If no device has to approve the switchover, it is approved at once. If the devices were not asked yet,
/// as in a stream that is negotiated, `count_acks` does so.
pub(super) fn return_path_opened(vm: &Vm, incoming: &dyn Incoming, file: &MigFile) -> Result<()> {
    incoming.open_return_path(file)?;
    let is_approved = vm.load_state().return_path_opened();
    if is_approved && vm.flags().has(Flags::SWITCHOVER_ACK) { incoming.switchover_ack() } else { Ok(()) }
}

/// A device approves the switchover. The last approval is sent to the source. `EINVAL` if none was expected.
pub fn approve(vm: &Vm) -> Result<()> {
    let left = vm.load_state().ack().ok_or_else(|| Error::invalid("no approval of the switchover is expected"))?;
    trace_event!(vm.host(), "loadvm_approve_switchover", "Switchover ack pending num={left}");
    match vm.incoming() {
        Some(incoming) if left == 0 => incoming.switchover_ack(),
        _ => Ok(()),
    }
}
