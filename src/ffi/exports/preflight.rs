// SPDX-License-Identifier: LGPL-2.1-or-later
//! Before a migration: the verdict of the destination, and a rehearsal.

use crate::error::Result;
use crate::ffi::exports::info::{SaveVMDeviceCost, SaveVMDeviceOrder, SaveVMParams};
use crate::ffi::marshal::convert::{device_cost, device_order, params, uri_endpoint};
use crate::ffi::marshal::current;
use crate::ffi::marshal::guard::{guard, guard_error};
use crate::ffi::marshal::opaque::{Error as CError, SaveVM};
use crate::ffi::marshal::results::code_or_error;
use crate::ffi::marshal::structs;
use crate::migration::{self, Endpoint, Params};
use crate::savevm::Vm;
use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::sync::Arc;

/// # Safety
/// As savevm_preflight().
unsafe fn visit(
    vm: *mut SaveVM,
    uri: *const c_char,
    from_c: *const SaveVMParams,
    errp: *mut *mut CError,
    visit: impl FnOnce(&Arc<Vm>, Endpoint, Params) -> Result<()>,
) -> c_int {
    let body = || {
        // SAFETY: as the caller promised.
        let (vm, params, endpoint) = unsafe { (current::from_c(vm), params(from_c), uri_endpoint(uri)) };
        current::with(&vm, || {
            // The endpoint takes what it is given over, also if the parameters are wrong.
            let visited = endpoint.and_then(|endpoint| visit(&vm, endpoint, params?.unwrap_or_default()));
            // SAFETY: as the caller promised.
            unsafe { code_or_error(visited, errp) }
        })
    };
    // SAFETY: as the caller promised.
    unsafe { guard_error(errp, -libc::EIO, body) }
}

/// Asks the destination at `uri` whether it can load the guest of `vm`, and waits for the verdict. The guest continues to run.
/// The destination must wait in savevm_incoming(), and continues to wait afterwards. It compares the machine, RAM, devices and
/// the layouts of their states with its own.
///
/// Call it only if the destination is libsavevm. In QEMU, the incoming migration ends when the connection is closed.
///
/// Returns:
///   0            nothing prevents the migration; warnings were reported (SaveVMHostOps.report), here and there
///   -EREMOTEIO   the destination can't load the guest; the error names all problems, see savevm_error_problem()
///   -ENOTSUP     the destination does not take part in preflights
///   -errno       no connection, no answer in time, another migration in progress, or a guest that is not here
///
/// Thread: any. Lock: either, released while waiting.
///
/// # Safety
/// `vm` is NULL or a context; `uri` is NULL or a terminated string; `params` is NULL (defaults) or begins with its size;
/// `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_preflight(
    vm: *mut SaveVM,
    uri: *const c_char,
    params: *const SaveVMParams,
    errp: *mut *mut CError,
) -> c_int {
    // SAFETY: the contract of the function.
    unsafe { visit(vm, uri, params, errp, migration::request_verdict) }
}

/// Does a preflight as savevm_preflight(). If the destination accepts the guest, pauses the guest, saves all devices that are not
/// live devices, continues the guest, and sends the saved states. The destination loads them, reports the result, resets its
/// machine (SaveVMHostOps.reset, which it must have) and continues to wait. Memory is not sent: a device that reads the guest's
/// memory while it loads finds that of a reset machine.
///
/// The guest is paused while the devices are saved: at most SaveVMParams.downtime_limit_ms and the time of one device. The
/// context keeps the times to save and to load each device, for the expected downtime of a migration.
///
/// Returns:
///   0            the destination has loaded all devices
///   -EREMOTEIO   the destination does not accept the guest, or a device failed to load: the error names the problems or the
///                device
///   -ETIMEDOUT   saving the devices takes longer than the downtime limit, or no answer in time
///   -ENOTSUP     the destination does not take part in preflights
///   -errno       as savevm_preflight(), or a device failed to save
///
/// Thread: any. Lock: either, released while waiting.
///
/// # Safety
/// As savevm_preflight().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_rehearse(
    vm: *mut SaveVM,
    uri: *const c_char,
    params: *const SaveVMParams,
    errp: *mut *mut CError,
) -> c_int {
    // SAFETY: the contract of the function.
    unsafe { visit(vm, uri, params, errp, migration::rehearse) }
}

/// Returns the cost of one registered device, as measured in rehearsals and migrations of the context. `index` is its position in
/// `order`, from 0. Devices without a measurement and live devices are left out. The time of a call grows with the number of
/// devices.
///
/// Returns:
///   0        `cost` is filled in
///   -ENOENT  there are not so many devices
///   -EINVAL  NULL, an unknown order, or the size of `cost` is too small
///
/// Thread: any. Lock: either. Does not wait.
///
/// # Safety
/// `vm` is NULL or a context; `cost` is NULL or begins with its size and is writable for that.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_device_cost(
    vm: *mut SaveVM,
    order: MaybeUninit<SaveVMDeviceOrder>,
    index: usize,
    cost: *mut SaveVMDeviceCost,
) -> c_int {
    let body = || {
        // SAFETY: the contract of the function.
        let vm = unsafe { current::from_c(vm) };
        let given = device_order(order).and_then(|order| {
            let found = migration::device_cost_by(&vm, order, index);
            // SAFETY: the contract of the function.
            found.map(|found| unsafe { structs::give_sized(cost, &device_cost(&found)) }).transpose()
        });
        match given {
            Ok(Some(())) => 0,
            Ok(None) => -libc::ENOENT,
            Err(error) => vm.report(error).code(),
        }
    };
    guard(-libc::EIO, body)
}
