// SPDX-License-Identifier: LGPL-2.1-or-later
//! Registering by description in a context that is named, under names that no program has stubs for. They
//! do not call QEMU's names: where the program defines those itself, that would be a call to the program.

use crate::ffi::abi;
use crate::ffi::marshal::current;
use crate::ffi::marshal::guard::{guard, guard_error};
use crate::ffi::marshal::opaque::{Error as CError, SaveVM, VMStateIf};
use crate::ffi::marshal::results::code_or_error;
use crate::ffi::vmstate::register::register;
use crate::ffi::vmstate::types::VMStateDescription;
use crate::savevm::registry::Registrant;
use std::ffi::{c_int, c_void};

/// Registers a device by its description in the context `vm`: vmstate_register_with_alias_id() of QEMU. The name of the device is
/// that of the description, after the path of `obj` (SaveVMHostOps.object_path) if `obj` is not NULL. If `instance_id` is
/// VMSTATE_INSTANCE_ID_ANY, the device gets the next free number of its name. `alias_id` is a further instance id under which older
/// streams have the device; -1: none. `vmsd` and `opaque` are not copied, and must stay valid until the device is removed.
///
/// `vmsd` has the layout of `vm` (savevm_set_abi()). In a file with SAVEVM_QEMU_VERSION that includes migration/vmstate.h, it has the
/// layout of the selected version: the header calls savevm_abi_vmstate_register() there.
///
/// Returns:
///   0              the device is registered
///   -EEXIST        strict context: a device of that name and instance is registered
///   -ENAMETOOLONG  strict context: the name has more than 255 bytes
///   -EINVAL        `vmsd` is NULL
///
/// Thread: any. Lock: held. QEMU: vmstate_register_with_alias_id, migration/savevm.c.
///
/// # Safety
/// `vm` is NULL or a context; `vmsd` is NULL or describes `opaque` and stays, as `opaque` does, until it is unregistered;
/// `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_register_vmstate(
    vm: *mut SaveVM,
    obj: *mut VMStateIf,
    instance_id: u32,
    vmsd: *const VMStateDescription,
    opaque: *mut c_void,
    alias_id: c_int,
    required_for_version: c_int,
    errp: *mut *mut CError,
) -> c_int {
    let body = || {
        // SAFETY: the contract of the function.
        let vm = unsafe { current::from_c(vm) };
        let aliases = (alias_id, required_for_version);
        // SAFETY: as above.
        let result = unsafe { register(&vm, abi::of_context(&vm), obj, instance_id, (vmsd, opaque), aliases) };
        // SAFETY: as above. The host whose form the error takes is that of `vm`.
        current::with(&vm, || unsafe { code_or_error(result, errp) })
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -libc::EIO, body) }
}

/// Removes a device that savevm_register_vmstate() registered: the one with this description and this `opaque`. `obj` is ignored,
/// as in QEMU. After it returns, none of the callbacks of the device runs in another thread.
///
/// Thread: any. Lock: held, released while a callback is waited for. QEMU: vmstate_unregister, migration/savevm.c.
///
/// # Safety
/// `vm` is NULL or a context; the other pointers are those of the registration, or anything: they are only compared.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_unregister_vmstate(
    vm: *mut SaveVM,
    obj: *mut VMStateIf,
    vmsd: *const VMStateDescription,
    opaque: *mut c_void,
) {
    guard((), || {
        // SAFETY: the contract of the function.
        let vm = unsafe { current::from_c(vm) };
        // As in QEMU the description and the memory say which devices are meant.
        let _ = obj;
        vm.unregister(Registrant { description: vmsd as usize, opaque: opaque as usize });
    });
}
