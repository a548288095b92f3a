// SPDX-License-Identifier: LGPL-2.1-or-later
//! Incoming migrations. Every function may be called from any thread. Those that wait give the big lock up meanwhile, if
//! the calling thread holds it.

use super::migration::{SaveVMInfo, SaveVMParams};
use super::types::SaveVMChannelOps;
use crate::error::{Error, Result};
use crate::ffi::guard::{guard, guard_error};
use crate::ffi::migration::{
    channel_endpoint, code, fill_info, give_result, incoming, on_machine, params, try_on_machine, uri_endpoint,
};
use crate::ffi::types::{Error as CError, MigrationIncomingState, SaveVM};
use crate::ffi::{bytes, context};
use crate::migration::{Endpoint, Incoming, Migration};
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;

/// # Safety
/// `vm` is NULL or a context; `params` and `errp` as savevm_incoming() wants them.
unsafe fn start(
    vm: *mut SaveVM,
    from: impl FnOnce() -> Result<Endpoint>,
    from_c: *const SaveVMParams,
    errp: *mut *mut CError,
) -> *mut MigrationIncomingState {
    // SAFETY: as the caller promised.
    let (vm, params) = unsafe { (context::from_c(vm), params(from_c)) };
    context::with(&vm, || {
        let started = from().and_then(|from| Incoming::start(&vm, from, params));
        // SAFETY: as the caller promised.
        unsafe { give_result(errp, started) }.map_or(ptr::null_mut(), |this| Arc::into_raw(this).cast_mut().cast())
    })
}

/// Listens on `unix:PATH`, `tcp:HOST:PORT`, or reads `fd:N`, `file:PATH`, `exec:COMMAND`, and loads the guest that comes
/// into `vm` (NULL: this thread's context), whose devices are registered and whose guest is stopped; then starts it. NULL
/// and `*errp` where it can't begin. A connection can be made once this has returned. Free the result with
/// savevm_incoming_free().
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
) -> *mut MigrationIncomingState {
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, ptr::null_mut(), || start(vm, || uri_endpoint(uri), params, errp)) }
}

/// As savevm_incoming(), over a channel of the hypervisor that is connected already. `ops` is copied; `channel` becomes
/// the library's (see its `free`), also on a failure.
///
/// # Safety
/// As savevm_incoming() and savevm_file_from_channel().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_incoming_from_channel(
    vm: *mut SaveVM,
    ops: *const SaveVMChannelOps,
    channel: *mut c_void,
    params: *const SaveVMParams,
    errp: *mut *mut CError,
) -> *mut MigrationIncomingState {
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, ptr::null_mut(), || start(vm, || channel_endpoint(ops, channel), params, errp)) }
}

/// What it listens on, with the port that the system chose in place of port 0, as a terminated string of at most `len`
/// bytes. 0, -ENOENT where it does not listen, -ERANGE where `len` is too small.
///
/// # Safety
/// `m` is NULL or an incoming migration; `uri` is writable for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_incoming_uri(m: *mut MigrationIncomingState, uri: *mut c_char, len: usize) -> c_int {
    // SAFETY: the contract of the function.
    on_machine(unsafe { incoming(m) }, |m| {
        let Some(text) = m.uri().map(ToString::to_string) else { return -libc::ENOENT };
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

/// Waits for the end. 0: the guest is here (and runs, unless no_autostart). Else -errno and `*errp`: it does not run here,
/// unless SaveVMInfo.owner says otherwise; devices may hold a part of the state. -EDEADLK from inside a callback of this
/// migration, which has yet to end. The lock is given up meanwhile, where the caller holds it.
///
/// # Safety
/// `m` is NULL or an incoming migration; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_incoming_wait(m: *mut MigrationIncomingState, errp: *mut *mut CError) -> c_int {
    // SAFETY: the contract of the function.
    unsafe { try_on_machine(incoming(m), errp, |m| m.wait()) }
}

/// Ends the migration. 0, within a second: the guest does not run here. -EBUSY: too late, it is here. -EINPROGRESS from
/// inside a callback of this migration: it ends behind that. -ETIMEDOUT where another callback takes longer than that
/// second. The lock is given up meanwhile, where the caller holds it.
///
/// # Safety
/// `m` is NULL or an incoming migration.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_incoming_cancel(m: *mut MigrationIncomingState) -> c_int {
    // SAFETY: the contract of the function.
    on_machine(unsafe { incoming(m) }, |m| unsafe { code(ptr::null_mut(), m.cancel()) })
}

/// Breaks the connection of a running postcopy on purpose, to recover it over another one. 0, or -EINVAL in other states.
///
/// # Safety
/// `m` is NULL or an incoming migration.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_incoming_pause(m: *mut MigrationIncomingState) -> c_int {
    // SAFETY: the contract of the function.
    on_machine(unsafe { incoming(m) }, |m| unsafe { code(ptr::null_mut(), m.pause()) })
}

/// Listens for the source of a paused postcopy, and goes on with it when it comes. A connection can be made once this has
/// returned. 0, or -errno and `*errp`: -EINVAL where it is not paused.
///
/// # Safety
/// `m` is NULL or an incoming migration; `uri` is NULL or a terminated string; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_incoming_recover(
    m: *mut MigrationIncomingState,
    uri: *const c_char,
    errp: *mut *mut CError,
) -> c_int {
    // SAFETY: the contract of the function.
    unsafe { try_on_machine(incoming(m), errp, |m| uri_endpoint(uri).and_then(|from| m.recover(from))) }
}

/// For the RAM in postcopy: the guest waits for `length` bytes from `start` on of a block. 0, -EINVAL where no postcopy was
/// listened for, from SaveVMPostcopyOps.listen on until its `end`, or another -errno: ask again after
/// SaveVMPostcopyOps.resumed. It waits for nothing but the connection to take a few bytes.
///
/// # Safety
/// `m` is NULL or an incoming migration; `block` is NULL or a terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_incoming_request_pages(
    m: *mut MigrationIncomingState,
    block: *const c_char,
    start: u64,
    length: u32,
) -> c_int {
    // SAFETY: the contract of the function.
    on_machine(unsafe { incoming(m) }, |m| unsafe {
        let block = bytes::name(block).filter(|block| block.len() <= usize::from(u8::MAX));
        let block = block.ok_or_else(|| Error::invalid("the name of the block is NULL or too long"));
        code(ptr::null_mut(), block.and_then(|block| m.request_pages(&block, start, length)))
    })
}

/// How it stands. 0, or -EINVAL for NULL. It waits for nothing; inside callbacks too.
///
/// # Safety
/// `m` is NULL or an incoming migration; `info` is NULL or begins with its size and is writable for that.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_incoming_query(m: *mut MigrationIncomingState, info: *mut SaveVMInfo) -> c_int {
    // SAFETY: the contract of the function.
    on_machine(unsafe { incoming(m) }, |m| unsafe { fill_info(info, &m.info()) })
}

/// Ends what is still under way as far as that can be (a paused postcopy is given up), and frees `m`. NULL is allowed. Not
/// from inside a callback of this migration.
///
/// # Safety
/// `m` is NULL or an incoming migration that is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_incoming_free(m: *mut MigrationIncomingState) {
    // SAFETY: the contract of the function.
    let this = unsafe { incoming(m) };
    on_machine(this, |m| {
        m.end();
        0
    });
    if !m.is_null() {
        // SAFETY: the pointer came from `Arc::into_raw` and is given up.
        guard((), || drop(unsafe { Arc::from_raw(m.cast_const().cast::<Incoming>()) }));
    }
}
