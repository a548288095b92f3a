// SPDX-License-Identifier: LGPL-2.1-or-later
//! `migration/savevm.h`: the phases under QEMU's names, on this thread's context. The header says what each does.
//!
//! # Safety
//! For every function here: a `QEMUFile *` is NULL or an open file of the right direction; other pointers are NULL or
//! valid for what the header says.
#![expect(clippy::missing_safety_doc, reason = "one contract for all of them, at the head of the module")]
#![expect(missing_docs, reason = "the C header documents each of them")]

use crate::error::{Error, Result};
use crate::ffi::marshal::c_file::{FileReference, file_ref};
use crate::ffi::marshal::guard::{guard, guard_error, guard_file};
use crate::ffi::marshal::opaque::{Error as CError, MigrationIncomingState, MigrationState, QEMUFile};
use crate::ffi::marshal::results::code;
use crate::ffi::marshal::{c_error, current, strings};
use crate::file::MigFile;
use crate::savevm::incoming::LoadEnd;
use crate::savevm::owner::Owner;
use crate::savevm::save::{Completion, Disks, Round};
use crate::savevm::{Vm, command, load, save};
use std::ffi::{c_char, c_int};
use std::sync::Arc;

fn disks(inactivate: bool) -> Disks {
    if inactivate { Disks::Inactivate } else { Disks::Keep }
}

/// Runs `body` with the current context, unless the context is broken (see `guard.rs`).
fn on_current<T>(refused: T, body: impl FnOnce(&Vm) -> T) -> T {
    let vm = current::current();
    if vm.is_poisoned() { refused } else { body(&vm) }
}

/// Returns the current context for work with a file. If the context is broken, sets an error on the file.
fn context_for(file: &MigFile) -> Option<Arc<Vm>> {
    let vm = current::current();
    match vm.check_not_poisoned() {
        Ok(()) => Some(vm),
        Err(error) => {
            file.set_error_detail(error);
            None
        }
    }
}

/// Runs `body` with the current context and the file. If the context is broken or the file is missing, returns `refused`. A
/// broken context also sets an error on the file.
fn on_file<T: Copy>(f: *mut QEMUFile, refused: T, body: impl FnOnce(&Vm, &MigFile) -> T) -> T {
    // SAFETY: the contract of the module.
    let Some(file) = (unsafe { file_ref(f) }) else { return refused };
    guard_file(file, refused, || context_for(file).map_or(refused, |vm| body(&vm, file)))
}

/// As `on_file` for a load, which the host may close the file from inside of.
fn on_leased(f: *mut QEMUFile, body: impl FnOnce(&Vm, FileReference) -> Result<LoadEnd>) -> c_int {
    guard(-libc::EINVAL, || {
        // SAFETY: the contract of the module.
        let Some(file) = (unsafe { FileReference::new(f) }) else { return -libc::EINVAL };
        let Some(vm) = context_for(&file) else { return -libc::EINVAL };
        body(&vm, file).map_or_else(|err| err.code(), |end| end as c_int)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_savevm_state_blocked(errp: *mut *mut CError) -> bool {
    let blocked = || {
        let Err(err) = current::current().check_migratable() else { return false };
        // SAFETY: the contract of the module.
        unsafe { c_error::give(errp, err) };
        true
    };
    // SAFETY: the contract of the module.
    unsafe { guard_error(errp, true, blocked) }
}

#[unsafe(no_mangle)]
pub extern "C" fn qemu_savevm_state_guest_unplug_pending() -> bool {
    guard(false, || on_current(false, Vm::guest_unplug_pending))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_savevm_state_header(f: *mut QEMUFile) {
    on_file(f, (), save::header);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_savevm_state_setup(f: *mut QEMUFile) {
    // The error is latched on the file.
    on_file(f, (), |vm, file| drop(save::setup(vm, file)));
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_savevm_state_iterate(f: *mut QEMUFile, postcopy: bool) -> c_int {
    on_file(f, -libc::EINVAL, |vm, file| match save::iterate(vm, file, postcopy) {
        Ok(Round::Done(last)) => last,
        Ok(Round::Again) => 0,
        Err(ret) => ret,
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_savevm_state_pending(
    f: *mut QEMUFile,
    threshold_size: u64,
    res_precopy_only: *mut u64,
    res_compatible: *mut u64,
    res_postcopy_only: *mut u64,
) {
    on_file(f, (), |vm, file| {
        let pending = save::pending(vm, file, threshold_size);
        for (result, value) in [
            (res_precopy_only, pending.precopy_only),
            (res_compatible, pending.compatible),
            (res_postcopy_only, pending.postcopy_only),
        ] {
            if !result.is_null() {
                // SAFETY: the contract of the module.
                unsafe { *result = value }
            }
        }
    });
}

#[unsafe(no_mangle)]
pub extern "C" fn qemu_savevm_state_cleanup() {
    guard((), || save::cleanup(&current::current()));
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_savevm_state_resume_prepare(s: *mut MigrationState) -> c_int {
    guard(-libc::EIO, || on_current(-libc::EIO, |vm| code(save::resume_prepare(vm, s as usize))))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_savevm_state_complete_precopy(
    f: *mut QEMUFile,
    iterable_only: bool,
    inactivate_disks: bool,
) -> c_int {
    on_file(f, -libc::EINVAL, |vm, file| {
        let completion = if iterable_only { Completion::Live } else { Completion::All(disks(inactivate_disks)) };
        code(save::complete_precopy(vm, file, completion))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_savevm_state_complete_precopy_non_iterable(
    f: *mut QEMUFile,
    in_postcopy: bool,
    inactivate_disks: bool,
) -> c_int {
    on_file(f, -libc::EINVAL, |vm, file| {
        code(save::complete_precopy_non_iterable(vm, file, in_postcopy, disks(inactivate_disks)))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_savevm_state_complete_postcopy(f: *mut QEMUFile) {
    on_file(f, (), save::complete_postcopy);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_savevm_live_state(f: *mut QEMUFile) {
    on_file(f, (), save::live_state);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_save_device_state(f: *mut QEMUFile) -> c_int {
    on_file(f, -libc::EINVAL, |vm, file| code(save::device_state(vm, file)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_savevm_send_ping(f: *mut QEMUFile, value: u32) {
    on_file(f, (), |vm, file| command::ping(vm, file, value));
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_savevm_send_open_return_path(f: *mut QEMUFile) {
    on_file(f, (), command::open_return_path);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_savevm_send_packaged(f: *mut QEMUFile, buf: *const u8, len: usize) -> c_int {
    on_file(f, -libc::EINVAL, |vm, file| {
        if buf.is_null() && len > 0 {
            return -libc::EINVAL;
        }
        // SAFETY: the contract of the module.
        let stream = if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(buf, len) } };
        code(command::packaged(vm, file, stream))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_savevm_send_postcopy_advise(f: *mut QEMUFile) {
    on_file(f, (), command::postcopy_advise);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_savevm_send_postcopy_listen(f: *mut QEMUFile) {
    on_file(f, (), command::postcopy_listen);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_savevm_send_postcopy_run(f: *mut QEMUFile) {
    on_file(f, (), command::postcopy_run);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_savevm_send_postcopy_resume(f: *mut QEMUFile) {
    on_file(f, (), command::postcopy_resume);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_savevm_send_colo_enable(f: *mut QEMUFile) {
    on_file(f, (), command::enable_colo);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_savevm_send_postcopy_ram_discard(
    f: *mut QEMUFile,
    name: *const c_char,
    len: u16,
    start_list: *mut u64,
    length_list: *mut u64,
) {
    on_file(f, (), |vm, file| {
        // SAFETY: the contract of the module.
        let name = unsafe { strings::name(name) };
        let (Some(name), false) = (name, len > 0 && (start_list.is_null() || length_list.is_null())) else {
            return file.set_error_detail(Error::invalid("qemu_savevm_send_postcopy_ram_discard: NULL"));
        };
        // SAFETY: the contract of the module: both lists have `len` entries.
        let ranges = (0..usize::from(len)).map(|at| unsafe { (*start_list.add(at), *length_list.add(at)) });
        if let Err(err) = command::postcopy_ram_discard(vm, file, &name, &ranges.collect::<Vec<_>>()) {
            file.set_error_detail(err);
        }
    });
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_savevm_send_recv_bitmap(f: *mut QEMUFile, block_name: *mut c_char) {
    on_file(f, (), |vm, file| {
        // SAFETY: the contract of the module.
        let sent = match unsafe { strings::name(block_name) } {
            Some(name) => command::recv_bitmap(vm, file, &name),
            None => Err(Error::invalid("qemu_savevm_send_recv_bitmap: NULL")),
        };
        if let Err(err) = sent {
            file.set_error_detail(err);
        }
    });
}

/// Keeps the owner of the context in step with a load that the host drives; `whole`: success means a whole guest. A host with
/// a migration driver of its own keeps that itself, as QEMU does.
fn owned_load(vm: &Vm, whole: bool, body: impl FnOnce() -> Result<LoadEnd>) -> Result<LoadEnd> {
    if vm.incoming().is_some() {
        return body();
    }
    vm.ownership.begin_load();
    let result = body();
    match &result {
        Ok(LoadEnd::Finished) if whole => vm.ownership.set(Owner::Here, ""),
        Err(error) if vm.ownership.is_partial() => {
            vm.ownership
                .set(Owner::Torn, format!("loading a stream failed after it had changed devices: {}", error.message()));
        }
        _ => {}
    }
    result
}

/// Loads a whole stream.
pub(super) fn load_stream(vm: &Vm, file: &MigFile) -> Result<LoadEnd> {
    vm.check_not_poisoned().inspect_err(|error| file.set_error_detail(error.clone()))?;
    owned_load(vm, true, || load::host_stream(vm, file))
}

/// Loads sections up to EOF.
pub(super) fn load_sections(vm: &Vm, file: FileReference) -> Result<LoadEnd> {
    vm.check_not_poisoned().inspect_err(|error| file.set_error_detail(error.clone()))?;
    owned_load(vm, false, || load::sections(vm, file))
}

/// Loads the state of devices.
pub(super) fn load_devices(vm: &Vm, file: &MigFile) -> Result<LoadEnd> {
    vm.check_not_poisoned().inspect_err(|error| file.set_error_detail(error.clone()))?;
    owned_load(vm, false, || load::device_state(vm, file).map(|()| LoadEnd::Finished))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_loadvm_state(f: *mut QEMUFile) -> c_int {
    on_leased(f, |vm, file| load_stream(vm, &file))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_loadvm_state_main(f: *mut QEMUFile, _mis: *mut MigrationIncomingState) -> c_int {
    on_leased(f, load_sections)
}

#[unsafe(no_mangle)]
pub extern "C" fn qemu_loadvm_state_cleanup() {
    guard((), || load::cleanup(&current::current()));
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_load_device_state(f: *mut QEMUFile) -> c_int {
    on_file(f, -libc::EINVAL, |vm, file| code(load_devices(vm, file).map(drop)))
}
