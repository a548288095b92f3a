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

/// Callbacks of a device, one for each phase of saving and loading. Every member may be NULL: the phase then skips the
/// device, unless another meaning is given. The table is not copied: it must stay valid until the device is
/// unregistered.
///
/// Results are 0 or -errno. An error ends the migration or the load, unless another meaning is given. "Lock" is the
/// hypervisor's big lock. The callbacks run on the thread that does the phase. They may call the library.
///
/// Layout and meaning are QEMU 7.2's (include/migration/register.h).
#[repr(C)]
pub struct SaveVMHandlers {
    /// Writes the whole state of a device that is not live. The guest is stopped. Lock: held.
    pub save_state: Option<unsafe extern "C" fn(f: *mut QEMUFile, opaque: *mut c_void)>,
    /// Releases what save_setup allocated. Called once after a migration or snapshot ended, successfully or not. Lock:
    /// held.
    pub save_cleanup: Option<unsafe extern "C" fn(opaque: *mut c_void)>,
    /// Sends the rest of the state while the guest runs on the destination. Returns 0 or -errno. Lock: held.
    pub save_live_complete_postcopy: Option<unsafe extern "C" fn(f: *mut QEMUFile, opaque: *mut c_void) -> c_int>,
    /// Sends the rest of the state while the guest is stopped. Returns 0 or -errno. Lock: held.
    pub save_live_complete_precopy: Option<unsafe extern "C" fn(f: *mut QEMUFile, opaque: *mut c_void) -> c_int>,
    /// Returns whether the device takes part in the migration now. If NULL, it does. Lock: either.
    pub is_active: Option<unsafe extern "C" fn(opaque: *mut c_void) -> bool>,
    /// Returns whether the device can send while the guest runs on the destination. If NULL, it can't. Lock: either.
    pub has_postcopy: Option<unsafe extern "C" fn(opaque: *mut c_void) -> bool>,
    /// Returns whether the device takes part in rounds of precopy now. If NULL, it does. Lock: either.
    pub is_active_iterate: Option<unsafe extern "C" fn(opaque: *mut c_void) -> bool>,
    /// Sends a part of the state. Returns 1 if nothing is left for now, 0 to be called again, or -errno. Lock: not held
    /// in a migration, held in a snapshot.
    pub save_live_iterate: Option<unsafe extern "C" fn(f: *mut QEMUFile, opaque: *mut c_void) -> c_int>,
    /// Prepares the device and writes its first section. Returns 0 or -errno. A device with this member is live. Lock:
    /// not held.
    pub save_setup: Option<unsafe extern "C" fn(f: *mut QEMUFile, opaque: *mut c_void) -> c_int>,
    /// Adds the bytes that are left to three sums: those that must be sent before the guest runs on the destination,
    /// those that may be sent at any time, and those that must be sent after the guest stopped here. `threshold_size`
    /// is the number of bytes that can be sent within the allowed downtime. A device with more bytes left may estimate
    /// their number. Lock: not held.
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
    /// Reads one section of the device. `version_id` is the version in the stream. Returns 0 or -errno. Lock: held, but
    /// not held for pages that arrive while the guest runs in postcopy.
    pub load_state: Option<unsafe extern "C" fn(f: *mut QEMUFile, opaque: *mut c_void, version_id: c_int) -> c_int>,
    /// Prepares the device for a load, before the first section. Returns 0 or -errno.
    pub load_setup: Option<unsafe extern "C" fn(f: *mut QEMUFile, opaque: *mut c_void) -> c_int>,
    /// Releases what load_setup allocated. Called once after a load ended, successfully or not. The result is ignored.
    pub load_cleanup: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// Prepares the device to send again over a new connection, after a postcopy was paused. Returns 0 or -errno.
    pub resume_prepare: Option<unsafe extern "C" fn(s: *mut MigrationState, opaque: *mut c_void) -> c_int>,
}

const _: () = {
    assert!(size_of::<SaveVMHandlers>() == 14 * size_of::<usize>());
    assert!(std::mem::offset_of!(SaveVMHandlers, save_live_pending) == 9 * size_of::<usize>());
    assert!(std::mem::offset_of!(SaveVMHandlers, load_state) == 10 * size_of::<usize>());
    assert!(std::mem::offset_of!(SaveVMHandlers, resume_prepare) == 13 * size_of::<usize>());
};

/// Registers a device in the current context of the thread. `idstr` is copied. A name of more than 255 bytes is cut and
/// reported, or refused in a strict context. `instance_id` -1 selects the highest instance of that name plus one.
///
/// Returns:
///   0        the device is registered
///   -EINVAL  `idstr` or `ops` is NULL
///   -EEXIST, -ENAMETOOLONG  strict context, see savevm_set_strict()
///   -EIO     the context is broken, see savevm_is_broken()
///
/// Thread: any, also in a callback. Lock: held. QEMU: register_savevm_live, migration/savevm.c.
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

/// Unregisters the devices of that name with this `opaque` in the current context of the thread. If `obj` has a path,
/// the name follows the path. After the function returns, none of their callbacks runs in another thread.
///
/// Thread: any, also in a callback. Lock: held, released while waiting for a callback to end. QEMU: unregister_savevm,
/// migration/savevm.c.
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
