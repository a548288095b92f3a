// SPDX-License-Identifier: LGPL-2.1-or-later
//! Outgoing migrations. Every function may be called from any thread. Those that wait give the big lock up meanwhile, if
//! the calling thread holds it.

use super::migration::{SaveVMInfo, SaveVMParams};
use super::types::SaveVMChannelOps;
use crate::error::{Error, Result};
use crate::ffi::guard::{guard, guard_error};
use crate::ffi::migration::{
    channel_endpoint, code, fill_info, give_result, on_machine, outgoing, params, try_on_machine, uri_endpoint,
};
use crate::ffi::types::{Error as CError, MigrationState, SaveVM};
use crate::ffi::{bytes, context};
use crate::migration::{Endpoint, Migration, Outgoing};
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;

/// # Safety
/// `vm` is NULL or a context; `params` and `errp` as savevm_migrate() wants them.
unsafe fn start(
    vm: *mut SaveVM,
    to: impl FnOnce() -> Result<Endpoint>,
    from_c: *const SaveVMParams,
    errp: *mut *mut CError,
) -> *mut MigrationState {
    // SAFETY: as the caller promised.
    let (vm, params) = unsafe { (context::from_c(vm), params(from_c)) };
    context::with(&vm, || {
        let started = to().and_then(|to| Outgoing::start(&vm, to, params));
        // SAFETY: as the caller promised.
        unsafe { give_result(errp, started) }.map_or(ptr::null_mut(), |this| Arc::into_raw(this).cast_mut().cast())
    })
}

/// Begins to migrate the guest of `vm` (NULL: this thread's context) to `unix:PATH`, `tcp:HOST:PORT`, `fd:N`, `file:PATH`
/// or `exec:COMMAND`. NULL and `*errp` where it can't begin: a blocker, another migration, a bad URI; all else, the
/// connection included, goes on behind it. Free the result with savevm_migrate_free().
///
/// # Safety
/// `vm` is NULL or a context; `uri` is NULL or a terminated string; `params` is NULL (defaults) or begins with its size;
/// `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migrate(
    vm: *mut SaveVM,
    uri: *const c_char,
    params: *const SaveVMParams,
    errp: *mut *mut CError,
) -> *mut MigrationState {
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, ptr::null_mut(), || start(vm, || uri_endpoint(uri), params, errp)) }
}

/// As savevm_migrate(), over a channel of the hypervisor that is connected already. `ops` is copied; `channel` becomes the
/// library's (see its `free`), also on a failure.
///
/// # Safety
/// As savevm_migrate() and savevm_file_from_channel().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migrate_to_channel(
    vm: *mut SaveVM,
    ops: *const SaveVMChannelOps,
    channel: *mut c_void,
    params: *const SaveVMParams,
    errp: *mut *mut CError,
) -> *mut MigrationState {
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, ptr::null_mut(), || start(vm, || channel_endpoint(ops, channel), params, errp)) }
}

/// With SaveVMParams.no_thread: does a piece of the work on this thread. It waits as long as the piece takes, at most as
/// the deadlines allow. 1: call again; 0: all is done; -EBUSY: another thread is at it.
///
/// # Safety
/// `m` is NULL or a migration.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migrate_step(m: *mut MigrationState) -> c_int {
    // SAFETY: the contract of the function.
    on_machine(unsafe { outgoing(m) }, |m| m.step().map_or_else(|err| err.code(), c_int::from))
}

/// Waits for the end. 0: the guest has moved. Else -errno and `*errp`: the guest runs on here, unless
/// SaveVMInfo.owner says otherwise. The error may be taken any number of times. -EDEADLK from inside a callback of this
/// migration, which has yet to end. The lock is given up meanwhile, where the caller holds it.
///
/// # Safety
/// `m` is NULL or a migration; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migrate_wait(m: *mut MigrationState, errp: *mut *mut CError) -> c_int {
    // SAFETY: the contract of the function.
    unsafe { try_on_machine(outgoing(m), errp, |m| m.wait()) }
}

/// Ends the migration. 0, within a second: the guest is here and runs if it ran. -EBUSY: too late, the destination has or
/// may have the guest. -EINPROGRESS from inside a callback of this migration: it ends behind that. -ETIMEDOUT where another
/// callback takes longer than that second. The lock is given up meanwhile, where the caller holds it.
///
/// # Safety
/// `m` is NULL or a migration.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migrate_cancel(m: *mut MigrationState) -> c_int {
    // SAFETY: the contract of the function.
    on_machine(unsafe { outgoing(m) }, |m| unsafe { code(ptr::null_mut(), m.cancel()) })
}

/// Goes on after pause_before_switchover. 0, or -EINVAL where it does not wait for that.
///
/// # Safety
/// `m` is NULL or a migration.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migrate_continue(m: *mut MigrationState) -> c_int {
    // SAFETY: the contract of the function.
    on_machine(unsafe { outgoing(m) }, |m| unsafe { code(ptr::null_mut(), m.continue_()) })
}

/// Switches to postcopy as soon as that can be. 0, or -EINVAL where it was not enabled or is over.
///
/// # Safety
/// `m` is NULL or a migration.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migrate_start_postcopy(m: *mut MigrationState) -> c_int {
    // SAFETY: the contract of the function.
    on_machine(unsafe { outgoing(m) }, |m| unsafe { code(ptr::null_mut(), m.start_postcopy()) })
}

/// Breaks the connection of a running postcopy on purpose, to recover it over another one. 0, or -EINVAL in other states.
/// The destination sees the break by itself where the connection can be shut down; else savevm_incoming_pause() there.
///
/// # Safety
/// `m` is NULL or a migration.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migrate_pause(m: *mut MigrationState) -> c_int {
    // SAFETY: the contract of the function.
    on_machine(unsafe { outgoing(m) }, |m| unsafe { code(ptr::null_mut(), m.pause()) })
}

/// Takes a paused postcopy up again over a new connection, which is made before it returns, after
/// savevm_incoming_recover() at the other end. 0, or -errno and `*errp`: -EINVAL where it is not paused. The lock is given up
/// while it connects. A recovery that fails leaves the postcopy paused.
///
/// # Safety
/// `m` is NULL or a migration; `uri` is NULL or a terminated string; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migrate_recover(
    m: *mut MigrationState,
    uri: *const c_char,
    errp: *mut *mut CError,
) -> c_int {
    // SAFETY: the contract of the function.
    unsafe { try_on_machine(outgoing(m), errp, |m| uri_endpoint(uri).and_then(|to| m.recover(&to))) }
}

/// For resume_prepare: asks which pages of a block arrived, and waits until SaveVMPostcopyOps.received was told, at most
/// handshake_timeout_ms. 0, -EINVAL outside of a recovery, -ETIMEDOUT, or the error of the connection. In a callback.
///
/// # Safety
/// `m` is NULL or a migration; `block` is NULL or a terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migrate_request_bitmap(m: *mut MigrationState, block: *const c_char) -> c_int {
    // SAFETY: the contract of the function.
    on_machine(unsafe { outgoing(m) }, |m| unsafe {
        let block = bytes::name(block).ok_or_else(|| Error::invalid("the name of the block is NULL"));
        code(ptr::null_mut(), block.and_then(|block| m.request_bitmap(&block)))
    })
}

/// Changes what may change while it runs; see SaveVMParams. All of it: what is 0 gets its default again, so that a caller
/// keeps the parameters that it began with and changes one of them.
///
/// # Safety
/// `m` is NULL or a migration; `from_c` is NULL or begins with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migrate_set_params(m: *mut MigrationState, from_c: *const SaveVMParams) -> c_int {
    // SAFETY: the contract of the function.
    on_machine(unsafe { outgoing(m) }, |m| {
        if from_c.is_null() {
            return -libc::EINVAL;
        }
        // SAFETY: the contract of the function.
        m.set_params(&unsafe { params(from_c) });
        0
    })
}

/// How it stands. 0, or -EINVAL for NULL. It waits for nothing; inside callbacks too.
///
/// # Safety
/// `m` is NULL or a migration; `info` is NULL or begins with its size and is writable for that.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migrate_query(m: *mut MigrationState, info: *mut SaveVMInfo) -> c_int {
    // SAFETY: the contract of the function.
    on_machine(unsafe { outgoing(m) }, |m| unsafe { fill_info(info, &m.info()) })
}

/// Ends what is still under way as far as that can be (see savevm_migrate_cancel(); past that it waits for the end, and a
/// paused postcopy is given up), and frees `m`. NULL is allowed. Not from inside a callback of this migration.
///
/// # Safety
/// `m` is NULL or a migration that is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migrate_free(m: *mut MigrationState) {
    // SAFETY: the contract of the function.
    let this = unsafe { outgoing(m) };
    on_machine(this, |m| {
        m.end();
        0
    });
    if !m.is_null() {
        // SAFETY: the pointer came from `Arc::into_raw` and is given up.
        guard((), || drop(unsafe { Arc::from_raw(m.cast_const().cast::<Outgoing>()) }));
    }
}

/// Forbids migration of `vm` (NULL: this thread's context) for a reason, which is copied. A number above 0 for
/// savevm_del_blocker(), or -errno and `*errp`: -EBUSY while a migration runs.
///
/// # Safety
/// `vm` is NULL or a context; `reason` is NULL or a terminated string; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_add_blocker(vm: *mut SaveVM, reason: *const c_char, errp: *mut *mut CError) -> i64 {
    let body = || {
        // SAFETY: the contract of the function.
        let (vm, reason) = unsafe { (context::from_c(vm), bytes::string(reason)) };
        let reason = reason.ok_or_else(|| Error::invalid("the reason is NULL"));
        let added = reason.and_then(|reason| vm.slot.block(&String::from_utf8_lossy(&reason)));
        let errno = added.as_ref().map_or_else(Error::code, |_| 0);
        // SAFETY: the contract of the function.
        let number = context::with(&vm, || unsafe { give_result(errp, added) });
        number.map_or(i64::from(errno), |number| i64::try_from(number).unwrap_or(i64::MAX))
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -i64::from(libc::EIO), body) }
}

/// Takes a blocker back. 0, or -ENOENT.
///
/// # Safety
/// `vm` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_del_blocker(vm: *mut SaveVM, blocker: i64) -> c_int {
    guard(-libc::EIO, || {
        // SAFETY: the contract of the function.
        let vm = unsafe { context::from_c(vm) };
        let found = context::about(&vm, || u64::try_from(blocker).is_ok_and(|number| vm.slot.unblock(number)));
        if found { 0 } else { -libc::ENOENT }
    })
}
