// SPDX-License-Identifier: LGPL-2.1-or-later
//! `migration/register.h`: the table of a device's callbacks, and its registration. The header is generated from here.

use crate::error::{Error, Result};
use crate::ffi::callbacks::handlers::CHandler;
use crate::ffi::marshal::guard::guard;
use crate::ffi::marshal::opaque::{MigrationState, QEMUFile, VMStateIf};
use crate::ffi::marshal::{current, strings};
use crate::savevm::Vm;
use crate::savevm::registry::{Registrant, Registration};
use std::ffi::{c_char, c_int, c_void};

/// What a device does in each phase of saving and loading. Every member may be NULL. The table is not copied: it must
/// stay until the device is unregistered.
///
/// "Lock" is the hypervisor's big lock. Layout and meaning are QEMU 7.2's (`include/migration/register.h`).
#[repr(C)]
pub struct SaveVMHandlers {
    /// Writes the whole state, once, with the guest stopped. With the lock.
    pub save_state: Option<unsafe extern "C" fn(f: *mut QEMUFile, opaque: *mut c_void)>,
    /// After a migration that ended in any way. With the lock.
    pub save_cleanup: Option<unsafe extern "C" fn(opaque: *mut c_void)>,
    /// Sends the rest after the guest moved; 0 or -errno. With the lock.
    pub save_live_complete_postcopy: Option<unsafe extern "C" fn(f: *mut QEMUFile, opaque: *mut c_void) -> c_int>,
    /// Sends the rest with the guest stopped; 0 or -errno. With the lock.
    pub save_live_complete_precopy: Option<unsafe extern "C" fn(f: *mut QEMUFile, opaque: *mut c_void) -> c_int>,
    /// Whether the device takes part now; NULL: yes. With or without the lock.
    pub is_active: Option<unsafe extern "C" fn(opaque: *mut c_void) -> bool>,
    /// Whether it can go on sending after the guest moved; NULL: no. With or without the lock.
    pub has_postcopy: Option<unsafe extern "C" fn(opaque: *mut c_void) -> bool>,
    /// Whether it takes part in rounds now; NULL: yes. With or without the lock.
    pub is_active_iterate: Option<unsafe extern "C" fn(opaque: *mut c_void) -> bool>,
    /// Sends a part: 1 when all that there is was sent, 0 to be called again, -errno. Without the lock in a migration,
    /// with it for a snapshot.
    pub save_live_iterate: Option<unsafe extern "C" fn(f: *mut QEMUFile, opaque: *mut c_void) -> c_int>,
    /// Prepares and writes what comes first; 0 or -errno. Its presence makes the device live. Without the lock.
    pub save_setup: Option<unsafe extern "C" fn(f: *mut QEMUFile, opaque: *mut c_void) -> c_int>,
    /// Adds the bytes that are left to the three sums: those for before the destination's guest runs, for any time, and
    /// for after this guest stopped. `threshold_size` is what can be sent within the allowed downtime, in bytes: more
    /// need not be counted exactly. Without the lock.
    pub save_live_pending: Option<
        unsafe extern "C" fn(
            f: *mut QEMUFile,
            opaque: *mut c_void,
            threshold_size: u64,
            res_precopy_only: *mut u64,
            res_compatible: *mut u64,
            res_postcopy_only: *mut u64,
        ),
    >,
    /// Reads one section of any kind, as its `version_id` was written; 0 or -errno. With the lock.
    pub load_state: Option<unsafe extern "C" fn(f: *mut QEMUFile, opaque: *mut c_void, version_id: c_int) -> c_int>,
    /// Before the first section is read; 0 or -errno.
    pub load_setup: Option<unsafe extern "C" fn(f: *mut QEMUFile, opaque: *mut c_void) -> c_int>,
    /// After a load that ended in any way; the result means nothing.
    pub load_cleanup: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// A broken postcopy goes on over a new connection; 0 or -errno.
    pub resume_prepare: Option<unsafe extern "C" fn(s: *mut MigrationState, opaque: *mut c_void) -> c_int>,
}

const _: () = {
    assert!(size_of::<SaveVMHandlers>() == 14 * size_of::<usize>());
    assert!(std::mem::offset_of!(SaveVMHandlers, save_live_pending) == 9 * size_of::<usize>());
    assert!(std::mem::offset_of!(SaveVMHandlers, load_state) == 10 * size_of::<usize>());
    assert!(std::mem::offset_of!(SaveVMHandlers, resume_prepare) == 13 * size_of::<usize>());
};

/// Registers a device in this thread's context. `idstr` is copied (names over 255 bytes are cut and reported, or
/// refused in a strict context); `instance_id` -1 takes the highest of that name plus one. With the lock; from inside
/// callbacks too. 0, -EINVAL where `idstr` or `ops` is NULL, or -EIO where the context was given up (savevm_is_broken()).
///
/// # Safety
/// `idstr` is NULL or a terminated string; `ops` and what it names stay until unregister_savevm() returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn register_savevm_live(
    idstr: *const c_char,
    instance_id: c_int,
    version_id: c_int,
    ops: *const SaveVMHandlers,
    opaque: *mut c_void,
) -> c_int {
    guard(-libc::EIO, || {
        let vm = current::current();
        // SAFETY: the contract of the function.
        let (name, handler) = unsafe { (strings::name(idstr), CHandler::new(ops, opaque)) };
        match register(&vm, name, instance_id, version_id, handler, opaque) {
            Ok(()) => 0,
            Err(err) => err.code(),
        }
    })
}

fn register(
    vm: &Vm,
    name: Option<Vec<u8>>,
    instance_id: c_int,
    version_id: c_int,
    handler: Option<CHandler>,
    opaque: *mut c_void,
) -> Result<()> {
    let null = |what| vm.report(Error::invalid(format!("register_savevm_live: {what} is NULL")));
    let name = name.ok_or_else(|| null("idstr"))?;
    let handler = handler.ok_or_else(|| null("ops"))?;
    vm.register(Registration {
        path: None,
        name,
        instance_id: instance_id as u32,
        // QEMU leaves the alias of such an entry at 0, so that streams may name it as instance 0 too.
        alias_id: 0,
        version_id,
        is_live: handler.is_live(),
        registrant: Registrant { description: 0, opaque: opaque as usize },
        handler,
    })
}

/// Forgets the devices of that name (behind the path of `obj`, where it has one) and opaque pointer in this thread's
/// context. When it returns none of their callbacks runs in another thread, and none will. With the lock, which is
/// given up while a callback is waited for; from inside callbacks too.
///
/// # Safety
/// `obj` is NULL or an object of the hypervisor; `idstr` is NULL or a terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unregister_savevm(obj: *mut VMStateIf, idstr: *const c_char, opaque: *mut c_void) {
    guard((), || {
        let vm = current::current();
        // SAFETY: the contract of the function.
        let Some(name) = (unsafe { strings::name(idstr) }) else { return };
        let path = (!obj.is_null()).then(|| vm.host().object_path(obj as usize)).flatten();
        vm.unregister_name(path.as_deref(), &name, opaque as usize);
    });
}
