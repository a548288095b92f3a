// SPDX-License-Identifier: LGPL-2.1-or-later
//! Work with a stopped guest on the caller's thread: snapshots and checkpoints.

use crate::error::{self, Result};
use crate::savevm::Vm;
use crate::savevm::host::{Host, with_big_lock};
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

/// Runs `body` on this thread as the driver does on its own: for this machine, inside the lock.
pub fn within<T>(vm: &Arc<Vm>, body: impl FnOnce(&dyn Host) -> Result<T>) -> Result<T> {
    let host = vm.host();
    vm.on_thread(|| with_big_lock(&*host, || body(&*host)))
}
