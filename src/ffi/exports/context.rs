// SPDX-License-Identifier: LGPL-2.1-or-later
//! Contexts, and what they allow.

use crate::ffi::callbacks::host_ops::CHost;
use crate::ffi::exports::host::SaveVMHostOps;
use crate::ffi::marshal::castable;
use crate::ffi::marshal::guard::guard;
use crate::ffi::marshal::opaque::SaveVM;
use crate::ffi::marshal::strings::c_string;
use crate::ffi::marshal::structs::sized_structs;
use crate::ffi::marshal::{current, structs};
use crate::migration::end_restore;
use crate::wire::limits::Limits;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::time::Duration;

/// Creates a context: one virtual machine with its devices. `ops` is copied; if NULL, there is no lock and no guest to stop.
///
/// Returns: the context, to be freed with savevm_free(); NULL, with the reason in the log, if the size of `ops` or of a table
/// that it points to is too small.
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `ops` is NULL or a table that begins with its size; what it refers to outlives the context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_new(ops: *const SaveVMHostOps, opaque: *mut c_void) -> *mut SaveVM {
    guard(ptr::null_mut(), || {
        // SAFETY: the contract of the function.
        let host = match unsafe { CHost::new(ops, opaque) } {
            Ok(host) => host,
            Err(error) => {
                log::error!("savevm_new: {error}");
                return ptr::null_mut();
            }
        };
        let vm = current::new(host.clone());
        vm.set_incoming(host.incoming());
        vm.slot.set_ram(host.postcopy());
        castable::give_shared(vm)
    })
}

/// Replaces the host operations of a context, or sets those of the default context. `ops` has the form of savevm_new(). No
/// migration and no other call on the context may be in progress.
///
/// Returns:
///   0        the host is set
///   -EINVAL  the size of `ops` or of a table that it points to is too small; reported, and nothing is changed
///
/// Thread: any. Lock: either.
///
/// # Safety
/// As savevm_new().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_set_host(vm: *mut SaveVM, ops: *const SaveVMHostOps, opaque: *mut c_void) -> c_int {
    guard(-libc::EIO, || {
        // SAFETY: the contract of the function.
        let (vm, host) = unsafe { (current::from_c(vm), CHost::new(ops, opaque)) };
        current::with_panic_context(&vm, || {
            let host = match host {
                Ok(host) => host,
                Err(error) => return vm.report(error).code(),
            };
            vm.set_host(host.clone());
            vm.set_incoming(host.incoming());
            vm.slot.set_ram(host.postcopy());
            0
        })
    })
}

/// Frees a context and removes its devices without calling them. Free its migrations, its checkpoints and its RAM first. The
/// default context is not freed. A lazy restore is ended; the guest must be stopped then.
///
/// Thread: any. Lock: either, released while waiting.
///
/// # Safety
/// `vm` comes from savevm_new() and is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_free(vm: *mut SaveVM) {
    guard((), || {
        if vm != castable::lend_shared(current::default()) {
            // SAFETY: the contract of the function.
            let context = unsafe { current::from_c(vm) };
            end_restore(&context);
            drop(context);
            // SAFETY: the contract of the function; the default context came from elsewhere.
            drop(unsafe { castable::take_shared(vm) });
        }
    });
}

/// Returns the default context, on which QEMU's names act in threads without a current one. It is never freed.
///
/// Thread: any. Lock: either.
#[unsafe(no_mangle)]
pub extern "C" fn savevm_default() -> *mut SaveVM {
    guard(ptr::null_mut(), || castable::lend_shared(current::default()))
}

/// Makes `vm` the context on which QEMU's names act in this thread; NULL selects the default one.
///
/// Returns: the previous context of this thread.
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `vm` is NULL or a context that is not freed while it is current.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_set_current(vm: *mut SaveVM) -> *mut SaveVM {
    guard(ptr::null_mut(), || {
        // SAFETY: the contract of the function.
        let vm = (!vm.is_null()).then(|| unsafe { current::from_c(vm) });
        current::set_current(vm)
    })
}

/// Makes a context strict, or not strict (default). In a strict context, the registration of a second device of the same name and
/// instance fails with -EEXIST, and that of a name of more than 255 bytes with -ENAMETOOLONG. Otherwise both are reported and
/// handled as in QEMU 7.2.
///
/// A description that can't read its own version, and a load whose stream leaves out a registered device, fail with -EINVAL
/// in a strict context. Otherwise they are reported.
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `vm` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_set_strict(vm: *mut SaveVM, strict: bool) {
    // SAFETY: the contract of the function.
    guard((), || unsafe { current::from_c(vm) }.set_strict(strict));
}

/// Limits for streams, and for the wait when a file is opened. 0 means the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMLimits {
    /// sizeof(SaveVMLimits).
    pub size: usize,
    /// Largest PACKAGED stream in bytes; default 1 GiB.
    pub packaged: u32,
    /// Maximum nesting of PACKAGED streams; default 4.
    pub packaged_depth: u32,
    /// Maximum memory that the VMState fields of one stream may allocate, in bytes; default 1 GiB.
    pub allocation: u64,
    /// Maximum number of elements that one field may add to a list or tree; default 1048576.
    pub list_elements: u64,
    /// Maximum nesting of descriptions; default 64.
    pub nesting: u32,
    /// Maximum length of a machine name in bytes; default 4096.
    pub machine_name: u32,
    /// Longest wait of savevm_file_open() for the other end, in ms; default 30000 to write, 300000 to read.
    pub open_timeout_ms: u32,
}

sized_structs! {
    SaveVMLimits, SAVEVM_LIMITS_INIT, open_timeout_ms;
}

/// Sets the limits of a context, for loads that begin and files that are opened afterwards.
///
/// Returns:
///   0        the limits are set
///   -EINVAL  `limits` is NULL, or its size is too small
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `vm` is NULL or a context; `limits` is NULL or begins with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_set_limits(vm: *mut SaveVM, limits: *const SaveVMLimits) -> c_int {
    guard(-libc::EIO, || {
        // SAFETY: the contract of the function.
        let (vm, new) = unsafe { (current::from_c(vm), structs::sized_struct(limits)) };
        let new = match new {
            Ok(Some(new)) => new,
            Ok(None) => return -libc::EINVAL,
            Err(error) => return vm.report(error).code(),
        };
        let mut limits = Limits::default();
        let set32 = |value: u32, limit: &mut u32| {
            if value != 0 {
                *limit = value;
            }
        };
        let set64 = |value: u64, limit: &mut usize| {
            if value != 0 {
                *limit = usize::try_from(value).unwrap_or(usize::MAX);
            }
        };
        set32(new.packaged, &mut limits.packaged);
        set32(new.packaged_depth, &mut limits.packaged_depth);
        set32(new.nesting, &mut limits.nesting);
        set32(new.machine_name, &mut limits.machine_name);
        set64(new.allocation, &mut limits.allocation);
        set64(new.list_elements, &mut limits.list_elements);
        if new.open_timeout_ms != 0 {
            limits.open_to_write = Duration::from_millis(new.open_timeout_ms.into());
            limits.open_to_read = limits.open_to_write;
        }
        vm.set_limits(limits);
        0
    })
}

/// Returns whether an internal error of the library (a panic) broke the context. The work in progress has failed, and the guest
/// that it was to migrate or save continues here. Functions that begin something fail with -EIO: migrations, snapshots, phases,
/// registrations. Functions that end something work: unregistering, freeing, cleanup.
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `vm` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_is_broken(vm: *mut SaveVM) -> bool {
    // SAFETY: the contract of the function.
    guard(true, || unsafe { current::from_c(vm) }.is_poisoned())
}

/// Calls `visit` with the name of every device that forbids migration, in order of registration. The name is valid during the
/// call.
///
/// Thread: any; `visit` runs on it. Lock: either.
///
/// # Safety
/// `vm` is NULL or a context; `visit` takes `opaque`. The name is the callee's only while it runs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_non_migratable(
    vm: *mut SaveVM,
    visit: Option<unsafe extern "C" fn(name: *const c_char, opaque: *mut c_void)>,
    opaque: *mut c_void,
) {
    guard((), || {
        // SAFETY: the contract of the function.
        let vm = unsafe { current::from_c(vm) };
        let Some(visit) = visit else { return };
        for name in current::with_panic_context(&vm, || vm.non_migratable()) {
            let name = c_string(&name);
            // SAFETY: the contract of the function.
            unsafe { visit(name.as_ptr(), opaque) };
        }
    });
}

/// Returns the version of the library, such as "0.1.0". The version of the headers is SAVEVM_VERSION_MAJOR, SAVEVM_VERSION_MINOR
/// and SAVEVM_VERSION_PATCH.
///
/// Thread: any. Lock: either.
#[unsafe(no_mangle)]
pub extern "C" fn savevm_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}
