// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm/host-driver.h`: phases that QEMU 7.2 does not have, or has without an `Error **`, for a host with a migration
//! driver of its own. They act on the current context of the thread.

use super::phases;
use crate::error::{Error, Result};
use crate::ffi::marshal::c_file::{FileReference, file_ref};
use crate::ffi::marshal::guard::{guard, guard_error};
use crate::ffi::marshal::opaque::{Error as CError, QEMUFile};
use crate::ffi::marshal::results::answer_or_error;
use crate::ffi::marshal::{c_error, current, strings};
use crate::file::MigFile;
use crate::savevm::incoming::LoadEnd;
use crate::savevm::save::Disks;
use crate::savevm::{Vm, load, save, switchover};
use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::AtomicBool;

/// Runs `body` with the current context. Returns 0 or -errno with the error.
///
/// # Safety
/// `errp` is NULL or points to NULL.
unsafe fn on_current(errp: *mut *mut CError, body: impl FnOnce(&Vm) -> Result<()>) -> c_int {
    let body = || {
        let vm = current::current();
        let result = vm.check_not_poisoned().and_then(|()| body(&vm));
        // SAFETY: `errp` is NULL or points to NULL (contract of the function).
        unsafe { answer_or_error(result, errp) }
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -libc::EIO, body) }
}

/// As `on_current`, with a file.
///
/// # Safety
/// `f` is NULL or an open file; `errp` is NULL or points to NULL.
unsafe fn on_file(f: *mut QEMUFile, errp: *mut *mut CError, body: impl FnOnce(&Vm, &MigFile) -> Result<()>) -> c_int {
    // SAFETY: the contract of the function.
    unsafe {
        on_current(errp, |vm| {
            let file = file_ref(f).ok_or_else(|| Error::invalid("the file is NULL"))?;
            vm.check_not_poisoned().inspect_err(|error| file.set_error_detail(error.clone()))?;
            body(vm, file)
        })
    }
}

/// Calls save_prepare of all active devices, before a migration starts, until one fails.
///
/// Returns: 0 or the result of a callback, with its error.
///
/// Thread: any. Lock: held. QEMU 8.2: qemu_savevm_state_prepare, migration/savevm.c.
///
/// # Safety
/// `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_state_prepare(errp: *mut *mut CError) -> c_int {
    // SAFETY: the contract of the function.
    unsafe { on_current(errp, save::prepare) }
}

/// Sets up all live devices, and saves those devices that are saved during setup. As qemu_savevm_state_setup(), with a result.
///
/// Returns: 0; -errno with an error if a device failed, or, with SAVEVM_SEMANTICS_SETUP_ERRORS, precopy_notify.
///
/// Thread: any. Lock: either. QEMU 9.1: qemu_savevm_state_setup, migration/savevm.c.
///
/// # Safety
/// `f` is NULL or an open file; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_state_setup(f: *mut QEMUFile, errp: *mut *mut CError) -> c_int {
    // SAFETY: the contract of the function.
    unsafe { on_file(f, errp, save::setup) }
}

/// Adds up what all active devices have left to send, in bytes: what must be sent before the switch to postcopy, and what may be
/// sent after it. The numbers are estimates unless `exact` is true.
///
/// Thread: any. Lock: not held if `exact`. QEMU 8.0: qemu_savevm_state_pending_estimate and _exact, migration/savevm.c.
///
/// # Safety
/// The results are NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_state_pending(exact: bool, must_precopy: *mut u64, can_postcopy: *mut u64) {
    guard((), || {
        let pending = save::state_pending(&current::current(), exact);
        let sums = [
            (must_precopy, pending.precopy_only),
            (can_postcopy, pending.compatible.saturating_add(pending.postcopy_only)),
        ];
        for (result, value) in sums {
            if !result.is_null() {
                // SAFETY: the contract of the function.
                unsafe { *result = value }
            }
        }
    });
}

/// Ends the live devices while the guest is stopped; in postcopy those that do not continue. Devices may send parts on threads of
/// the host meanwhile, see SaveVMHostOps.
///
/// Returns: 0 or -errno. The error is latched on the file.
///
/// Thread: any. Lock: held. QEMU: qemu_savevm_state_complete_precopy_iterable, migration/savevm.c.
///
/// # Safety
/// `f` is NULL or an open file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_state_complete_precopy_iterable(f: *mut QEMUFile, in_postcopy: bool) -> c_int {
    // SAFETY: the contract of the function.
    unsafe { on_file(f, std::ptr::null_mut(), |vm, file| save::complete_precopy_iterable(vm, file, in_postcopy)) }
}

/// Saves all devices that are saved whole. Then writes EOF and the description of the stream, unless `in_postcopy`. The disks
/// stay active.
///
/// Returns: 0 or -errno. The error is latched on the file.
///
/// Thread: any. Lock: held. QEMU 9.2: qemu_savevm_state_complete_precopy_non_iterable, migration/savevm.c.
///
/// # Safety
/// `f` is NULL or an open file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_state_complete_precopy_non_iterable(f: *mut QEMUFile, in_postcopy: bool) -> c_int {
    let complete = |vm: &Vm, file: &MigFile| save::complete_precopy_non_iterable(vm, file, in_postcopy, Disks::Keep);
    // SAFETY: the contract of the function.
    unsafe { on_file(f, std::ptr::null_mut(), complete) }
}

/// Calls save_postcopy_prepare of all active devices, each in a section, before the switch to postcopy, while the guest still
/// runs.
///
/// Returns: 0 or -errno with an error.
///
/// Thread: any. Lock: either. QEMU 10.1: qemu_savevm_state_postcopy_prepare, migration/savevm.c.
///
/// # Safety
/// `f` is NULL or an open file; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_state_postcopy_prepare(f: *mut QEMUFile, errp: *mut *mut CError) -> c_int {
    // SAFETY: the contract of the function.
    unsafe { on_file(f, errp, save::postcopy_prepare) }
}

/// Sends SWITCHOVER_START if the semantics of the context have it, unless SAVEVM_FLAG_NO_SWITCHOVER_START is set.
///
/// Thread: any. Lock: held. QEMU 10.0: qemu_savevm_maybe_send_switchover_start, migration/savevm.c.
///
/// # Safety
/// `f` is NULL or an open file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_send_switchover_start(f: *mut QEMUFile) {
    // SAFETY: the contract of the function.
    unsafe {
        on_file(f, std::ptr::null_mut(), |vm, file| {
            switchover::send_start(vm, file);
            Ok(())
        });
    }
}

/// Approves the switchover for a device whose switchover_ack_needed returned true. The last approval is sent to the source
/// (SaveVMIncomingOps.switchover_ack).
///
/// Returns:
///   0        counted
///   -EINVAL  no approval is expected
///   other    the result of switchover_ack
///
/// Thread: any. Lock: held. QEMU 8.1: qemu_loadvm_approve_switchover, migration/savevm.c.
#[unsafe(no_mangle)]
pub extern "C" fn savevm_approve_switchover() -> c_int {
    // SAFETY: NULL is allowed.
    unsafe { on_current(std::ptr::null_mut(), switchover::approve) }
}

/// Gives a device bytes that came outside of the main stream: calls its load_state_buffer, which may change them.
///
/// Returns:
///   0        loaded
///   -EINVAL  there is no such device, it has no load_state_buffer, or that failed; with an error
///
/// Thread: any. Lock: not held. QEMU 10.0: qemu_loadvm_load_state_buffer, migration/savevm.c.
///
/// # Safety
/// `idstr` is NULL or a terminated string; `buf` has `len` bytes that may be written; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_load_state_buffer(
    idstr: *const c_char,
    instance_id: u32,
    buf: *mut c_char,
    len: usize,
    errp: *mut *mut CError,
) -> c_int {
    // SAFETY: the contract of the function.
    unsafe {
        on_current(errp, |vm| {
            let name = strings::name(idstr).ok_or_else(|| Error::invalid("idstr is NULL"))?;
            if buf.is_null() && len > 0 {
                return Err(Error::invalid("buf is NULL"));
            }
            let data = if len == 0 { &mut [] } else { std::slice::from_raw_parts_mut(buf.cast::<u8>(), len) };
            load::state_buffer(vm, &name, instance_id, data)
        })
    }
}

/// The function of a thread that a device starts for a load. It returns false with an error if it failed, and ends soon when
/// `*should_quit` is true.
pub type SaveVMLoadThread =
    Option<unsafe extern "C" fn(opaque: *mut c_void, should_quit: *mut bool, errp: *mut *mut CError) -> bool>;

/// Runs `function` on a new thread during a load. The load succeeds only after all such threads have; it waits for them with the
/// lock released. All of them have ended when the devices are cleaned up.
///
/// Returns:
///   0           the thread runs
///   -EINVAL     `function` is NULL
///   -ECANCELED  the load has ended
///   other       the thread could not be started
///
/// Thread: any. Lock: either. QEMU 10.0: qemu_loadvm_start_load_thread, migration/savevm.c.
///
/// # Safety
/// `function` may be called with `opaque` on another thread until the load has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_start_load_thread(function: SaveVMLoadThread, opaque: *mut c_void) -> c_int {
    struct Opaque(*mut c_void);
    // SAFETY: the contract of the function: it may be called with `opaque` on another thread.
    unsafe impl Send for Opaque {}
    let opaque = Opaque(opaque);
    guard(-libc::EIO, || {
        let vm = current::current();
        let Some(function) = function else { return -libc::EINVAL };
        let own = std::sync::Arc::clone(&vm);
        let body = move |should_quit: &AtomicBool| {
            let opaque = opaque;
            current::with(&own, || {
                // SAFETY: the contract of the function; an AtomicBool is a bool that may change.
                let call = |errp| unsafe { function(opaque.0, should_quit.as_ptr(), errp) };
                // SAFETY: the function gave the error up, or left NULL.
                let (done, error) = unsafe { c_error::collect(call, |_| libc::EINVAL) };
                match done {
                    true => Ok(()),
                    false => Err(error.unwrap_or_else(|| Error::invalid("a thread of a device failed to load"))),
                }
            })
        };
        vm.load_threads().start(body).map_or_else(|error| vm.report(error).code(), |()| 0)
    })
}

/// Runs a load with the file. Returns 0, 1 or -errno with the error.
///
/// # Safety
/// `f` is NULL or an open file; `errp` is NULL or points to NULL.
unsafe fn loaded(
    f: *mut QEMUFile,
    errp: *mut *mut CError,
    load: impl FnOnce(&Vm, FileReference) -> Result<LoadEnd>,
) -> c_int {
    let body = || {
        // SAFETY: the contract of the function.
        let file = unsafe { FileReference::new(f) }.ok_or_else(|| Error::invalid("the file is NULL"));
        match file.and_then(|file| load(&current::current(), file)) {
            Ok(end) => end as c_int,
            Err(error) => {
                let code = error.code();
                // SAFETY: as above.
                unsafe { c_error::give(errp, error) };
                code
            }
        }
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -libc::EIO, body) }
}

/// Loads a whole stream. As qemu_loadvm_state(), with an error.
///
/// Returns: 0; 1 if another thread continues to read the stream; -errno with an error.
///
/// Thread: any. Lock: held. QEMU 10.2: qemu_loadvm_state, migration/savevm.c.
///
/// # Safety
/// `f` is NULL or an open file; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_load_state(f: *mut QEMUFile, errp: *mut *mut CError) -> c_int {
    // SAFETY: the contract of the function.
    unsafe { loaded(f, errp, |vm, file| phases::load_stream(vm, &file)) }
}

/// Loads sections and commands up to EOF. As qemu_loadvm_state_main(), with an error.
///
/// Returns: 0; 1 if another thread continues to read the stream; -errno with an error.
///
/// Thread: any. Lock: either. QEMU 10.2: qemu_loadvm_state_main, migration/savevm.c.
///
/// # Safety
/// `f` is NULL or an open file; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_load_state_main(f: *mut QEMUFile, errp: *mut *mut CError) -> c_int {
    // SAFETY: the contract of the function.
    unsafe { loaded(f, errp, phases::load_sections) }
}

/// Loads the state of devices that qemu_save_device_state() saved. As qemu_load_device_state(), with an error.
///
/// Returns: 0 or -errno with an error.
///
/// Thread: any. Lock: held. QEMU 10.2: qemu_load_device_state, migration/savevm.c.
///
/// # Safety
/// `f` is NULL or an open file; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_load_device_state(f: *mut QEMUFile, errp: *mut *mut CError) -> c_int {
    // SAFETY: the contract of the function.
    unsafe { loaded(f, errp, |vm, file| phases::load_devices(vm, &file)) }
}
