// SPDX-License-Identifier: LGPL-2.1-or-later
//! Loading the package of a postcopy on a thread of its own.
//!
//! In QEMU, a second thread continues to read the stream while the first loads the devices from the package. Here a second thread
//! loads the package, which has arrived completely, and the worker's thread continues to read the stream. So a file is never
//! passed from one thread to another.

use super::shared::Failure;
use super::stage::Stage;
use super::worker::{DEVICE_LIMIT, Worker};
use crate::error::{Error, Result};
use crate::savevm::fault::FaultPoint;
use crate::savevm::incoming::LoadEnd;
use crate::savevm::load;
use crate::savevm::unwind::catch;
use crate::sys::spawn_prompt;
use std::sync::Arc;

/// Starts to load a package and waits until LISTEN was processed, or until it is loaded. Called on the worker's thread.
pub(super) fn start(worker: &Arc<Worker>, stream: Vec<u8>, depth: u32) -> Result<LoadEnd> {
    let this = Arc::clone(worker);
    let body = move || this.shared.core.vm.on_thread(|| load_package(&this, stream, depth));
    spawn_prompt("savevm-package", body).map_err(|err| Error::io("starting the package's thread", &err))?;
    // Also if the migration is cancelled: until then that thread is in the devices, and waits for no page.
    worker.wait_state(DEVICE_LIMIT, |state| state.package.listening || state.package.loaded.is_some());
    if worker.state().package.listening {
        worker.enter(Stage::Listen)?;
        return Ok(LoadEnd::Finished);
    }
    // A package without LISTEN. Another one may follow, which is waited for in its turn.
    match worker.state().package.loaded.take() {
        Some(Err(error)) => Err(error),
        _ => Ok(LoadEnd::Finished),
    }
}

/// The package's thread.
fn load_package(worker: &Worker, stream: Vec<u8>, depth: u32) {
    let core = &worker.shared.core;
    let vm = &core.vm;
    let _working = core.working();
    let load = || {
        vm.fault_point(FaultPoint::Package);
        load::package(vm, stream, depth).map(drop)
    };
    let loaded = catch(vm, load).and_then(|loaded| loaded);
    let failed = loaded.as_ref().err().cloned();
    let listening = {
        let mut state = worker.state();
        state.package.loaded = Some(loaded);
        state.package.listening
    };
    core.status_machine.notify();
    if let Some(error) = failed.filter(|_| listening) {
        // The worker waits for pages, which will not come any more.
        let failure = match worker.state().guest_is_here {
            true => Failure::Started,
            false if core.interrupted().is_some() => Failure::Cancelled,
            false => Failure::NotStarted,
        };
        worker.shared.send_failure(&error, failure);
        core.link.drop_channel();
    }
}
