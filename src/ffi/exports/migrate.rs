// SPDX-License-Identifier: LGPL-2.1-or-later
//! Migrations in both directions behind one handle. Every function may be called from any thread. Those that wait release
//! the host's big lock meanwhile if the calling thread holds it.

use crate::error::{Error, Result};
use crate::ffi::exports::file::SaveVMChannelOps;
use crate::ffi::exports::info::{SaveVMDeviceInfo, SaveVMDeviceOrder, SaveVMInfo, SaveVMParams};
use crate::ffi::marshal::convert::{channel_endpoint, device_info, device_order, info, params, uri_endpoint};
use crate::ffi::marshal::guard::{guard, guard_error};
use crate::ffi::marshal::handle::Handle;
use crate::ffi::marshal::handle::{on_machine, try_on_machine};
use crate::ffi::marshal::opaque::{Error as CError, SaveVM, SaveVMMigration};
use crate::ffi::marshal::results::{code, value_or_error};
use crate::ffi::marshal::{current, strings, structs};
use crate::migration::{DeviceOrder, Endpoint, Incoming, Outgoing, Params, StallReason};
use crate::savevm::Vm;
use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;

/// # Safety
/// `vm` is NULL or a context; `params` and `errp` as savevm_migrate() wants them.
pub(in crate::ffi) unsafe fn start(
    vm: *mut SaveVM,
    other: impl FnOnce() -> Result<Endpoint>,
    from_c: *const SaveVMParams,
    errp: *mut *mut CError,
    begin: impl FnOnce(&Arc<Vm>, Endpoint, Params) -> Result<Handle>,
) -> *mut SaveVMMigration {
    let body = || {
        // SAFETY: as the caller promised.
        let (vm, params) = unsafe { (current::from_c(vm), params(from_c)) };
        current::with(&vm, || {
            // The endpoint takes what it is given over, also if the parameters are wrong.
            let started = other().and_then(|other| begin(&vm, other, params?.unwrap_or_default()));
            // SAFETY: as the caller promised.
            unsafe { value_or_error(started, errp) }.map_or(ptr::null_mut(), Handle::into_c)
        })
    };
    // SAFETY: as the caller promised.
    unsafe { guard_error(errp, ptr::null_mut(), body) }
}

pub(in crate::ffi) fn start_outgoing(vm: &Arc<Vm>, to: Endpoint, params: Params) -> Result<Handle> {
    Outgoing::start(vm, to, params).map(Handle::Outgoing)
}

pub(in crate::ffi) fn start_incoming(vm: &Arc<Vm>, from: Endpoint, params: Params) -> Result<Handle> {
    Incoming::start(vm, from, params).map(Handle::Incoming)
}

/// Begins to migrate the guest of `vm` to `uri`: `unix:PATH`, `tcp:HOST:PORT`, `fd:N`, `file:PATH` or `exec:COMMAND`. Returns
/// before the connection is made; savevm_migration_wait() returns the result.
///
/// A descriptor `fd:N` belongs to the library from now on, here and wherever a URI is taken: it is closed in every case.
///
/// Returns: the migration, to be freed with savevm_migration_free(); NULL if it can't begin: a blocker, another migration or
/// snapshot of the context, a guest that is not here (savevm_owner()), a wrong URI or wrong parameters.
///
/// Thread: any. Lock: either. QEMU: qmp_migrate, migration/migration.c.
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
) -> *mut SaveVMMigration {
    // SAFETY: the contract of the function.
    unsafe { start(vm, || uri_endpoint(uri), params, errp, start_outgoing) }
}

/// As savevm_migrate(), over a connected channel of the hypervisor. `ops` is copied. The channel belongs to the library from now
/// on, also on failure: its `free` is called in any case, unless `ops` is NULL or its size is too small.
///
/// Returns: as savevm_migrate().
///
/// Thread: any. Lock: either.
///
/// # Safety
/// As savevm_migrate() and savevm_file_from_channel().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migrate_to_channel(
    vm: *mut SaveVM,
    ops: *const SaveVMChannelOps,
    opaque: *mut c_void,
    params: *const SaveVMParams,
    errp: *mut *mut CError,
) -> *mut SaveVMMigration {
    // SAFETY: the contract of the function.
    unsafe { start(vm, || channel_endpoint(ops, opaque), params, errp, start_outgoing) }
}

/// Waits for a guest and loads it into `vm`, then starts it. `uri` is `unix:PATH` or `tcp:HOST:PORT` to listen on, or `fd:N`,
/// `file:PATH` or `exec:COMMAND` to read from. The devices of `vm` are registered and its guest is stopped. A source can
/// connect once this function has returned.
///
/// A descriptor `fd:N` belongs to the library from now on, here and wherever a URI is taken: it is closed in every case.
///
/// Returns: the migration, to be freed with savevm_migration_free(); NULL if it can't begin.
///
/// Thread: any. Lock: either. QEMU: qmp_migrate_incoming, migration/migration.c.
///
/// # Safety
/// `vm` is NULL or a context; `uri` is NULL or a terminated string; `params` is NULL (defaults) or begins with its size;
/// `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_incoming(
    vm: *mut SaveVM,
    uri: *const c_char,
    params: *const SaveVMParams,
    errp: *mut *mut CError,
) -> *mut SaveVMMigration {
    // SAFETY: the contract of the function.
    unsafe { start(vm, || uri_endpoint(uri), params, errp, start_incoming) }
}

/// As savevm_incoming(), over a connected channel of the hypervisor. `ops` is copied. The channel belongs to the library from now
/// on, also on failure: its `free` is called in any case, unless `ops` is NULL or its size is too small.
///
/// Returns: as savevm_incoming().
///
/// Thread: any. Lock: either.
///
/// # Safety
/// As savevm_incoming() and savevm_file_from_channel().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_incoming_from_channel(
    vm: *mut SaveVM,
    ops: *const SaveVMChannelOps,
    opaque: *mut c_void,
    params: *const SaveVMParams,
    errp: *mut *mut CError,
) -> *mut SaveVMMigration {
    // SAFETY: the contract of the function.
    unsafe { start(vm, || channel_endpoint(ops, opaque), params, errp, start_incoming) }
}

/// Stores the URI on which an incoming migration listens in `uri`, a buffer of `length` bytes. Port 0 is replaced by the port
/// that the system chose.
///
/// Returns:
///   0        the URI is stored
///   -ENOENT  the migration does not listen
///   -ERANGE  `length` is too small
///   -EINVAL  outgoing migration (reported), or NULL
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `m` is NULL or a migration; `uri` is writable for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migration_uri(m: *mut SaveVMMigration, uri: *mut c_char, length: usize) -> c_int {
    // SAFETY: the contract of the function.
    on_machine(unsafe { Handle::from_c(m) }, |m| {
        let listening = match m.incoming("savevm_migration_uri") {
            Ok(incoming) => incoming.uri().map(ToString::to_string),
            Err(err) => return m.vm().report(err).code(),
        };
        let Some(text) = listening else { return -libc::ENOENT };
        if uri.is_null() || text.len() >= length {
            return -libc::ERANGE;
        }
        // SAFETY: the contract of the function; the text and its end fit.
        unsafe {
            ptr::copy_nonoverlapping(text.as_ptr(), uri.cast(), text.len());
            *uri.add(text.len()) = 0;
        }
        0
    })
}

/// Does a part of the work of an outgoing migration that has SaveVMParams.no_thread, on the calling thread.
///
/// Returns:
///   1        call again
///   0        the migration has ended
///   -EBUSY   another thread is in this function
///   -EINVAL  incoming migration (reported), or NULL
///
/// Thread: any. Lock: either, released while waiting. A call takes as long as the deadlines of SaveVMParams allow.
///
/// # Safety
/// `m` is NULL or a migration.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migration_step(m: *mut SaveVMMigration) -> c_int {
    // SAFETY: the contract of the function.
    on_machine(unsafe { Handle::from_c(m) }, |m| match m.outgoing("savevm_migration_step") {
        Ok(outgoing) => outgoing.step().map_or_else(|err| err.code(), c_int::from),
        Err(err) => m.vm().report(err).code(),
    })
}

/// Waits for the end of a migration and returns its result. May be called any number of times.
///
/// Returns:
///   0         the guest is on the destination. Incoming: it runs here, unless SaveVMParams.no_autostart
///   -EDEADLK  called from a callback of this migration
///   -errno    the migration failed. Unless savevm_owner() returns something else: outgoing, the guest runs here if it ran
///             before; incoming, it does not run here
///
/// Thread: any. Lock: either, released while waiting.
///
/// # Safety
/// `m` is NULL or a migration; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migration_wait(m: *mut SaveVMMigration, errp: *mut *mut CError) -> c_int {
    // SAFETY: the contract of the function.
    unsafe { try_on_machine(Handle::from_c(m), errp, Handle::wait) }
}

/// Returns why a postcopy is paused, or why its last recovery failed.
///
/// Returns:
///   0       no postcopy is paused by an error
///   -errno  the error, also in `*errp`
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `m` is NULL or a migration; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migration_pause_error(m: *mut SaveVMMigration, errp: *mut *mut CError) -> c_int {
    // SAFETY: the contract of the function.
    unsafe { try_on_machine(Handle::from_c(m), errp, |m| m.info().pause_error.map_or(Ok(()), Err)) }
}

/// Returns why a migration makes no progress, in words, with advice. SaveVMInfo.stall has the reason as a number.
///
/// Returns:
///   0        the migration makes progress, or has ended
///   -EAGAIN  the migration makes no progress; the reason is in `*errp`
///   -EINVAL  NULL
///
/// Thread: any. Lock: either. Does not wait; may be called from callbacks.
///
/// # Safety
/// `m` is NULL or a migration; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migration_stall(m: *mut SaveVMMigration, errp: *mut *mut CError) -> c_int {
    let stall = |m: &Handle| match m.info().stall {
        stall if stall.reason == StallReason::None => Ok(()),
        stall => Err(Error::new(libc::EAGAIN, stall.text)),
    };
    // SAFETY: the contract of the function.
    unsafe { try_on_machine(Handle::from_c(m), errp, stall) }
}

/// Cancels a migration and waits at most one second for it to end.
///
/// Returns:
///   0             outgoing: the guest is here, and runs if it ran before; incoming: it does not run here
///   -EBUSY        too late: the destination has the guest, or may have it
///   -EINPROGRESS  called from a callback of this migration, which ends after the callback returns
///   -ETIMEDOUT    the migration has not ended yet, for example because a callback still runs; it ends without a further call
///   -EINVAL       NULL
///
/// Thread: any. Lock: either, released while waiting. QEMU: migrate_cancel, migration/migration.c.
///
/// # Safety
/// `m` is NULL or a migration.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migration_cancel(m: *mut SaveVMMigration) -> c_int {
    // SAFETY: the contract of the function.
    on_machine(unsafe { Handle::from_c(m) }, |m| match m {
        Handle::Outgoing(m) => code(m.cancel()),
        Handle::Incoming(m) => code(m.cancel()),
    })
}

/// Continues an outgoing migration that waits in SAVEVM_STATUS_PRE_SWITCHOVER (SaveVMParams.pause_before_switchover).
///
/// Returns:
///   0        the migration continues
///   -EINVAL  the migration does not wait; incoming migration (reported); or NULL
///
/// Thread: any. Lock: either. QEMU: qmp_migrate_continue, migration/migration.c.
///
/// # Safety
/// `m` is NULL or a migration.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migration_continue(m: *mut SaveVMMigration) -> c_int {
    // SAFETY: the contract of the function.
    on_machine(unsafe { Handle::from_c(m) }, |m| match m.outgoing("savevm_migration_continue") {
        Ok(outgoing) => code(outgoing.continue_()),
        Err(err) => m.vm().report(err).code(),
    })
}

/// Switches an outgoing migration to postcopy as soon as possible.
///
/// Returns:
///   0        the migration will switch to postcopy
///   -EINVAL  SaveVMParams.postcopy is not set, or the migration has ended; incoming migration (reported); or NULL
///
/// Thread: any. Lock: either. QEMU: qmp_migrate_start_postcopy, migration/migration.c.
///
/// # Safety
/// `m` is NULL or a migration.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migration_start_postcopy(m: *mut SaveVMMigration) -> c_int {
    // SAFETY: the contract of the function.
    on_machine(unsafe { Handle::from_c(m) }, |m| match m.outgoing("savevm_migration_start_postcopy") {
        Ok(outgoing) => code(outgoing.start_postcopy()),
        Err(err) => m.vm().report(err).code(),
    })
}

/// Breaks the connection of a running postcopy, to recover it over another one. The other side notices if the connection can
/// be shut down; otherwise pause it there as well.
///
/// Returns:
///   0        the connection is broken
///   -EINVAL  no postcopy is running, or NULL
///
/// Thread: any. Lock: either. QEMU: qmp_migrate_pause, migration/migration.c.
///
/// # Safety
/// `m` is NULL or a migration.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migration_pause(m: *mut SaveVMMigration) -> c_int {
    // SAFETY: the contract of the function.
    on_machine(unsafe { Handle::from_c(m) }, |m| match m {
        Handle::Outgoing(m) => code(m.pause()),
        Handle::Incoming(m) => code(m.pause()),
    })
}

/// Continues a paused postcopy over a new connection. First call it at the destination, which listens on `uri` once the
/// function has returned; then at the source, which connects before the function returns.
///
/// The destination may be complete while the source is paused, if the last messages were lost. Then the destination answers
/// the source, within 300 s, that it is complete, and the source completes as well. This needs libsavevm on both sides.
///
/// Returns:
///   0        the recovery has begun
///   -EINVAL  the migration is neither paused nor a completed incoming postcopy, or NULL
///   -errno   no connection; the postcopy stays paused
///
/// Thread: any. Lock: either, released while waiting. QEMU: qmp_migrate_recover, migration/migration.c.
///
/// # Safety
/// `m` is NULL or a migration; `uri` is NULL or a terminated string; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migration_recover(
    m: *mut SaveVMMigration,
    uri: *const c_char,
    errp: *mut *mut CError,
) -> c_int {
    // SAFETY: the contract of the function. The endpoint owns a descriptor that it names, also if there is no migration.
    let endpoint = guard(None, || Some(unsafe { uri_endpoint(uri) }));
    let recover = |m: &Handle| {
        let endpoint = endpoint.unwrap_or_else(|| Err(Error::invalid("the URI can't be read")))?;
        match m {
            Handle::Outgoing(m) => m.recover(&endpoint),
            Handle::Incoming(m) => m.recover(endpoint),
        }
    };
    // SAFETY: the contract of the function.
    unsafe { try_on_machine(Handle::from_c(m), errp, recover) }
}

/// Changes the parameters of an outgoing migration that may change during the migration; see SaveVMParams. A member that is zero
/// is set to its default, so keep the struct that the migration was started with and change its members.
///
/// Returns:
///   0        the parameters are set
///   -EINVAL  `params` is NULL or wrong; incoming migration; or NULL
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `m` is NULL or a migration; `params` is NULL or begins with its size; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migration_set_params(
    m: *mut SaveVMMigration,
    params: *const SaveVMParams,
    errp: *mut *mut CError,
) -> c_int {
    let set = |m: &Handle| {
        // SAFETY: the contract of the function.
        let new = unsafe { self::params(params) }?.ok_or_else(|| Error::invalid("the parameters are NULL"))?;
        m.outgoing("savevm_migration_set_params")?.set_params(&new)
    };
    // SAFETY: the contract of the function.
    unsafe { try_on_machine(Handle::from_c(m), errp, set) }
}

/// Returns statistics of a migration.
///
/// Returns:
///   0        `info` is filled in
///   -EINVAL  NULL, or the size of `info` is too small
///
/// Thread: any. Lock: either. Does not wait; may be called from callbacks.
///
/// # Safety
/// `m` is NULL or a migration; `info` is NULL or begins with its size and is writable for that.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migration_query(m: *mut SaveVMMigration, info: *mut SaveVMInfo) -> c_int {
    // SAFETY: the contract of the function.
    on_machine(unsafe { Handle::from_c(m) }, |m| unsafe {
        m.reported(structs::give_sized(info, &self::info(&m.info())))
    })
}

/// Returns the measurements of one device that is not a live device. `index` is its position in the stream, from 0. At most
/// 65536 devices are recorded.
///
/// Returns:
///   0        `device` is filled in
///   -ENOENT  there are not so many devices
///   -EINVAL  NULL, or the size of `device` is too small
///
/// Thread: any. Lock: either. Does not wait; may be called from callbacks.
///
/// # Safety
/// `m` is NULL or a migration; `device` is NULL or begins with its size and is writable for that.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migration_device(
    m: *mut SaveVMMigration,
    index: usize,
    device: *mut SaveVMDeviceInfo,
) -> c_int {
    // SAFETY: the contract of the function.
    on_machine(unsafe { Handle::from_c(m) }, |m| {
        // SAFETY: the contract of the function.
        unsafe { give_device(m, DeviceOrder::Stream, index, device) }
    })
}

/// # Safety
/// `device` is NULL or begins with its size and is writable for that.
unsafe fn give_device(m: &Handle, order: DeviceOrder, index: usize, device: *mut SaveVMDeviceInfo) -> c_int {
    let Some(found) = m.device(order, index) else { return -libc::ENOENT };
    // SAFETY: the contract of the function.
    unsafe { m.reported(structs::give_sized(device, &device_info(&found, m.is_incoming()))) }
}

/// As savevm_migration_device(), with the devices in another order: the most expensive one has the index 0. The time of a call
/// grows with the number of devices.
///
/// Returns:
///   0        `device` is filled in
///   -ENOENT  there are not so many devices
///   -EINVAL  NULL, an unknown order, or the size of `device` is too small
///
/// Thread: any. Lock: either. Does not wait; may be called from callbacks.
///
/// # Safety
/// `m` is NULL or a migration; `device` is NULL or begins with its size and is writable for that.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migration_device_by(
    m: *mut SaveVMMigration,
    order: MaybeUninit<SaveVMDeviceOrder>,
    index: usize,
    device: *mut SaveVMDeviceInfo,
) -> c_int {
    // SAFETY: the contract of the function.
    on_machine(unsafe { Handle::from_c(m) }, |m| match device_order(order) {
        // SAFETY: the contract of the function.
        Ok(order) => unsafe { give_device(m, order, index, device) },
        Err(err) => m.vm().report(err).code(),
    })
}

/// Frees a migration. A migration in progress is cancelled if that is possible; otherwise the function waits for its end. A
/// paused postcopy is abandoned. Do not call it from a callback of this migration.
///
/// Thread: any. Lock: either, released while waiting.
///
/// # Safety
/// `m` is NULL or a migration that is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migration_free(m: *mut SaveVMMigration) {
    // SAFETY: the contract of the function.
    let this = unsafe { Handle::from_c(m) };
    on_machine(this, |m| {
        match m {
            Handle::Outgoing(m) => m.end(),
            Handle::Incoming(m) => m.end(),
        }
        0
    });
    // SAFETY: the contract of the function.
    guard((), || drop(unsafe { Handle::take(m) }));
}

/// Forbids migrations and snapshots of `vm`. Their error contains `reason` and has the number EACCES.
///
/// Returns:
///   a positive number  for savevm_del_blocker()
///   -EBUSY             a migration or a snapshot is in progress
///   -EINVAL            `reason` is NULL
///
/// Thread: any. Lock: either. QEMU: migrate_add_blocker, migration/migration.c.
///
/// # Safety
/// `vm` is NULL or a context; `reason` is NULL or a terminated string; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_add_blocker(vm: *mut SaveVM, reason: *const c_char, errp: *mut *mut CError) -> i64 {
    let body = || {
        // SAFETY: the contract of the function.
        let (vm, reason) = unsafe { (current::from_c(vm), strings::string(reason)) };
        let reason = reason.ok_or_else(|| Error::invalid("the reason is NULL"));
        let added = reason.and_then(|reason| vm.slot.block(&String::from_utf8_lossy(&reason)));
        let errno = added.as_ref().map_or_else(Error::code, |_| 0);
        // SAFETY: the contract of the function.
        let number = current::with(&vm, || unsafe { value_or_error(added, errp) });
        number.map_or(i64::from(errno), |number| i64::try_from(number).unwrap_or(i64::MAX))
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -i64::from(libc::EIO), body) }
}

/// Removes a blocker by the number that savevm_add_blocker() returned.
///
/// Returns:
///   0        the blocker is removed
///   -ENOENT  there is no such blocker
///
/// Thread: any. Lock: either. QEMU: migrate_del_blocker, migration/migration.c.
///
/// # Safety
/// `vm` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_del_blocker(vm: *mut SaveVM, blocker: i64) -> c_int {
    guard(-libc::EIO, || {
        // SAFETY: the contract of the function.
        let vm = unsafe { current::from_c(vm) };
        let found =
            current::with_panic_context(&vm, || u64::try_from(blocker).is_ok_and(|number| vm.slot.unblock(number)));
        if found { 0 } else { -libc::ENOENT }
    })
}
