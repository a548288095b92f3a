// SPDX-License-Identifier: LGPL-2.1-or-later
//! Work with a stopped guest on the caller's thread: snapshots and checkpoints.

use crate::error::{self, Phase, Result, Side};
use crate::savevm::host::{Host, with_big_lock};
use crate::savevm::saving::SavingGuard;
use crate::savevm::{MigrationGuard, Vm};
use std::sync::Arc;
use std::time::Duration;

/// Limit for opening the file or connecting, and for one wait for a peer.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Stops the guest if it runs; whether it ran.
pub fn stop(host: &dyn Host) -> Result<bool> {
    if !host.vm_running() {
        return Ok(false);
    }
    error::check("vm_stop", host.vm_stop())?;
    Ok(true)
}

pub fn start(host: &dyn Host) -> Result<()> {
    error::check("vm_start", host.vm_start())
}

/// Acquires the migration slot for `what`, which saves this machine. The guest must be here, and no device may block it. The
/// section with the run state is one of the devices from the first time on.
pub fn begin<'a>(vm: &'a Vm, what: &'static str) -> Result<MigrationGuard<'a>> {
    let guard = vm.acquire_slot(what)?;
    vm.ownership.check(what)?;
    vm.slot.check_blockers(what)?;
    vm.prepare_global_state()?;
    vm.begin_global_state();
    Ok(guard)
}

/// Saves a snapshot, of which other threads see the progress and which they can cancel. The caller has the migration slot, and
/// returns the error.
pub fn saving(vm: &Vm, save: impl FnOnce(&SavingGuard<'_>) -> Result<()>) -> Result<()> {
    vm.slot.set_returns_errors();
    let saving = vm.slot.saving.begin()?;
    let saved = save(&saving);
    let remaining = vm.slot.checkpoint_ram().map_or(0, |ram| ram.remaining());
    saving.end(saved, remaining).map_err(|err| err.at_side(Side::Source).in_phase(Phase::Snapshot))
}

/// Runs `body` on this thread as the driver does on its own: for this machine, inside the lock.
pub fn within<T>(vm: &Arc<Vm>, body: impl FnOnce(&dyn Host) -> Result<T>) -> Result<T> {
    let host = vm.host();
    vm.on_thread(|| with_big_lock(&*host, || body(&*host)))
}
