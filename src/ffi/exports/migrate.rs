// SPDX-License-Identifier: LGPL-2.1-or-later
//! Migrations in both directions behind one handle. Every function may be called from any thread. Those that wait release
//! the host's big lock meanwhile if the calling thread holds it.

use crate::error::{Error, Result};
use crate::ffi::exports::file::SaveVMChannelOps;
use crate::ffi::exports::info::{SaveVMDeviceInfo, SaveVMInfo, SaveVMParams};
use crate::ffi::marshal::convert::{channel_endpoint, device_info, info, params, uri_endpoint};
use crate::ffi::marshal::guard::{guard, guard_error};
use crate::ffi::marshal::handle::Handle;
use crate::ffi::marshal::handle::{on_machine, try_on_machine};
use crate::ffi::marshal::opaque::{Error as CError, SaveVM, SaveVMMigration};
use crate::ffi::marshal::results::{code, value_or_error};
use crate::ffi::marshal::{current, strings, structs};
use crate::migration::{Endpoint, Incoming, Outgoing, Params};
use crate::savevm::Vm;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;

/// # Safety
/// `vm` is NULL or a context; `params` and `errp` as savevm_migrate() wants them.
unsafe fn start(
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

fn start_outgoing(vm: &Arc<Vm>, to: Endpoint, params: Params) -> Result<Handle> {
    Outgoing::start(vm, to, params).map(Handle::Outgoing)
}

fn start_incoming(vm: &Arc<Vm>, from: Endpoint, params: Params) -> Result<Handle> {
    Incoming::start(vm, from, params).map(Handle::Incoming)
}

/// Begins to migrate the guest of `vm` (NULL: this thread's context) to `unix:PATH`, `tcp:HOST:PORT`, `fd:N`, `file:PATH`
/// or `exec:COMMAND`. NULL and `*errp` where it can't begin: a blocker, another migration, a bad URI; all else, the
/// connection included, goes on behind it. Free the result with savevm_migration_free(). -EPERM is in `*errp` if the whole
/// guest is not here (savevm_owner()).
///
/// `fd:N`, here and wherever a URI is taken, gives the descriptor up: it is closed in every case, also if the call fails.
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

/// As savevm_migrate(), over a channel of the hypervisor that is connected already. `ops` is copied; `opaque` becomes the
/// library's (see its `free`), also on a failure.
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

/// Listens on `unix:PATH`, `tcp:HOST:PORT`, or reads `fd:N`, `file:PATH`, `exec:COMMAND`, and loads the guest that comes
/// into `vm` (NULL: this thread's context), whose devices are registered and whose guest is stopped; then starts it. NULL
/// and `*errp` where it can't begin. A connection can be made once this has returned. Free the result with
/// savevm_migration_free().
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

/// As savevm_incoming(), over a channel of the hypervisor that is connected already. `ops` is copied; `opaque` becomes
/// the library's (see its `free`), also on a failure.
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

/// Stores what an incoming migration listens on as a terminated string of at most `len` bytes, with the port that the
/// system chose in place of port 0. 0, -ENOENT where it does not listen, -ERANGE where `len` is too small, -EINVAL for an
/// outgoing one.
///
/// # Safety
/// `m` is NULL or a migration; `uri` is writable for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migration_uri(m: *mut SaveVMMigration, uri: *mut c_char, len: usize) -> c_int {
    // SAFETY: the contract of the function.
    on_machine(unsafe { Handle::from_c(m) }, |m| {
        let listening = match m.incoming("savevm_migration_uri") {
            Ok(incoming) => incoming.uri().map(ToString::to_string),
            Err(err) => return m.vm().report(err).code(),
        };
        let Some(text) = listening else { return -libc::ENOENT };
        if uri.is_null() || text.len() >= len {
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

/// With SaveVMParams.no_thread: does a piece of the work on this thread. It waits as long as the piece takes, at most as
/// the deadlines allow. 1: call again; 0: all is done; -EBUSY: another thread is at it; -EINVAL for an incoming migration.
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

/// Waits for the end. 0: the guest has moved: outgoing, it is at the destination; incoming, it is here, and runs unless
/// no_autostart. Else -errno and `*errp`: outgoing, the guest runs on here, incoming, it does not run here (devices may
/// hold a part of the state), unless SaveVMInfo.owner says otherwise. The error may be taken any number of times. -EDEADLK
/// from inside a callback of this migration, which has yet to end. The lock is given up meanwhile, where the caller holds
/// it.
///
/// # Safety
/// `m` is NULL or a migration; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_migration_wait(m: *mut SaveVMMigration, errp: *mut *mut CError) -> c_int {
    // SAFETY: the contract of the function.
    unsafe { try_on_machine(Handle::from_c(m), errp, Handle::wait) }
}

/// Ends the migration. 0, within a second: outgoing, the guest is here and runs if it ran; incoming, it does not run here.
/// -EBUSY: too late: outgoing, the destination has or may have the guest; incoming, it is here. -EINPROGRESS from inside a
/// callback of this migration: it ends behind that. -ETIMEDOUT where another callback takes longer than that second. The
/// lock is given up meanwhile, where the caller holds it.
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

/// Outgoing, with pause_before_switchover: lets a migration in SAVEVM_STATUS_PRE_SWITCHOVER go on. 0, or -EINVAL where it
/// does not wait for that, and for an incoming one.
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

/// Outgoing: switches to postcopy as soon as that can be. 0, or -EINVAL where it was not enabled or is over, and for an
/// incoming one.
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

/// Breaks the connection of a running postcopy on purpose, to recover it over another one. 0, or -EINVAL in other states.
/// The other side sees the break by itself where the connection can be shut down; else it is paused there as well.
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

/// Continues a paused postcopy over a new connection. Incoming: listens on `uri` for the source; a connection can be made
/// once this has returned. Outgoing: connects before it returns, after this call at the other end; the lock is given up
/// meanwhile. 0, or -errno and `*errp`: -EINVAL where it is not paused. A recovery that fails leaves the postcopy paused.
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

/// Outgoing: changes what may change while it runs; see SaveVMParams. All of it: what is 0 gets its default again, so that
/// a caller keeps the parameters that it began with and changes one of them. 0, or -errno and `*errp`: -EINVAL for
/// parameters that can't be, and for an incoming one.
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
        m.outgoing("savevm_migration_set_params")?.set_params(&new);
        Ok(())
    };
    // SAFETY: the contract of the function.
    unsafe { try_on_machine(Handle::from_c(m), errp, set) }
}

/// How it stands. 0, or -EINVAL for NULL and for an `info` without its size. It waits for nothing; inside callbacks too.
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

/// What was measured of one device whose state was saved or loaded, by its place in the stream. 0, -ENOENT behind the
/// last, -EINVAL for NULL and for a `device` without its size. It waits for nothing; inside callbacks too.
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
        let Some(found) = m.device(index) else { return -libc::ENOENT };
        // SAFETY: the contract of the function.
        unsafe { m.reported(structs::give_sized(device, &device_info(&found, m.is_incoming()))) }
    })
}

/// Ends what is still under way as far as that can be (see savevm_migration_cancel(); past that an outgoing one waits for
/// the end, and a paused postcopy is given up), and frees `m`. NULL is allowed. Not from inside a callback of this
/// migration.
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

/// Forbids migration of `vm` (NULL: this thread's context) for a reason, which is copied. A number above 0 for
/// savevm_del_blocker(), or -errno and `*errp`: -EBUSY while a migration runs.
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

/// Takes a blocker back. 0, or -ENOENT.
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
