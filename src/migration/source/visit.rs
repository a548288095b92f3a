// SPDX-License-Identifier: LGPL-2.1-or-later
//! A visit: connects to a destination for the verdict of a preflight or for a rehearsal, without a migration. The guest stays
//! here. It runs on the calling thread.

use super::shared::Shared;
use super::worker::Source;
use crate::error::{Error, Phase, Result, Side};
use crate::migration::core::Core;
use crate::migration::endpoint::Endpoint;
use crate::migration::params::{Choice, Params};
use crate::migration::preflight;
use crate::savevm::Vm;
use crate::savevm::host::without_big_lock;
use crate::savevm::unwind::catch;
use crate::wire::preflight::Purpose;
use std::sync::Arc;

/// Asks a destination whether it accepts the guest. Fails with all problems if it does not, and with `ENOTSUP` if it takes part
/// in no preflight. The big lock is released meanwhile.
pub fn request_verdict(vm: &Arc<Vm>, to: Endpoint, params: Params) -> Result<()> {
    visit(vm, to, params, "a preflight", Purpose::Verdict)
}

/// As `request_verdict`. Then pauses the guest, saves the devices, and has the destination load them for a test. Fails if one
/// can't be saved or loaded.
pub fn rehearse(vm: &Arc<Vm>, to: Endpoint, params: Params) -> Result<()> {
    visit(vm, to, params, "a rehearsal", Purpose::Rehearse)
}

fn visit(vm: &Arc<Vm>, to: Endpoint, params: Params, what: &'static str, purpose: Purpose) -> Result<()> {
    let visited = connect_and_talk(vm, to, params, what, purpose);
    visited.map_err(|error: Error| preflight::with_problem(error).at_side(Side::Source).in_phase(Phase::Check))
}

fn connect_and_talk(vm: &Arc<Vm>, to: Endpoint, params: Params, what: &'static str, purpose: Purpose) -> Result<()> {
    let params = Params { trace: None, return_path: Choice::On, extensions: true, preflight: true, ..params };
    vm.check_migratable()?;
    let core = Arc::new(Core::new(vm, params, false, to.text())?);
    let _guard = vm.acquire_slot(what)?;
    vm.ownership.check(what)?;
    vm.slot.check_blockers(what)?;
    let (shared, mut source) = (Shared::new(core), Source::new(to));
    without_big_lock(&*vm.host(), || {
        vm.on_thread(|| {
            let visited = catch(vm, || talk(&shared, &mut source, purpose));
            source.end_visit(&shared);
            visited.and_then(|visited| visited)
        })
    })
}

fn talk(shared: &Shared, source: &mut Source, purpose: Purpose) -> Result<()> {
    let core = &shared.core;
    source.connect(shared)?;
    source.hello(shared, false)?;
    let reader = source.reader()?;
    if !reader.knows_preflight() {
        let peer = if reader.peer_is_libsavevm() { "an older or restricted libsavevm" } else { "not libsavevm" };
        let text = format!("the destination is {peer} and takes part in no preflight: use `savevm check --against`");
        return Err(Error::new(libc::ENOTSUP, text));
    }
    preflight::ask(core, source.file()?, reader, purpose)?;
    if purpose == Purpose::Rehearse {
        let times = preflight::send(core, source.file()?, reader)?;
        preflight::report_times(core, &times);
    }
    Ok(())
}
