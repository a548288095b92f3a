// SPDX-License-Identifier: LGPL-2.1-or-later
//! `migration/register.h`: the table of a device's callbacks, and its registration. The header is generated from here.

use crate::error::{Error, Result};
use crate::ffi::abi::{self, Abi};
use crate::ffi::callbacks::described::DescribedHandler;
use crate::ffi::callbacks::handlers::CHandler;
use crate::ffi::marshal::guard::guard;
use crate::ffi::marshal::opaque::VMStateIf;
use crate::ffi::marshal::results::code;
use crate::ffi::marshal::{current, strings};
pub use crate::ffi::types::handler_table::*;
use crate::savevm::Vm;
use crate::savevm::handler::Handler;
use crate::savevm::registry::{Registrant, Registration};
use std::ffi::{c_char, c_int, c_void};

/// Registers a device in the current context of the thread. `ops` has the layout of the context: that of this header, unless
/// savevm_set_abi() has set another. `idstr` is copied. A name of more than 255 bytes is cut and
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
        let name = unsafe { strings::name(idstr) };
        // SAFETY: as above.
        code(unsafe { register(&vm, abi::of_context(&vm), name, (instance_id, version_id), ops, opaque) })
    })
}

/// Registers a table of the layout `abi`; `None` is QEMU 7.2.
///
/// # Safety
/// As register_savevm_live(), with a table of that layout.
pub(in crate::ffi) unsafe fn register(
    vm: &Vm,
    abi: Option<&'static Abi>,
    name: Option<Vec<u8>>,
    ids: (c_int, c_int),
    ops: *const SaveVMHandlers,
    opaque: *mut c_void,
) -> Result<()> {
    match abi.filter(|abi| !abi.has_native_handlers()) {
        None => {
            // SAFETY: the contract of the function.
            let handler = unsafe { CHandler::new(ops, opaque) };
            let is_live = handler.as_ref().is_some_and(CHandler::is_live);
            register_handler(vm, name, ids, handler, is_live, opaque)
        }
        Some(abi) => {
            // SAFETY: the contract of the function; the table has the layout of `abi`.
            let handler = unsafe { DescribedHandler::new(abi, ops, opaque) };
            let is_live = handler.as_ref().is_some_and(DescribedHandler::is_live);
            register_handler(vm, name, ids, handler, is_live, opaque)
        }
    }
}

fn register_handler<H: Handler + 'static>(
    vm: &Vm,
    name: Option<Vec<u8>>,
    (instance_id, version_id): (c_int, c_int),
    handler: Option<H>,
    is_live: bool,
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
        is_live,
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
