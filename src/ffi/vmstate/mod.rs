// SPDX-License-Identifier: LGPL-2.1-or-later
//! The C tables, infos and functions of `migration/vmstate.h`. The header is hand-written.

mod bulk;
pub mod check;
mod fresh;
pub(super) mod infos;
mod items;
pub(in crate::ffi) mod layout;
pub(crate) mod register;
pub(crate) mod state;
mod swap;
#[cfg(test)]
mod tests;
pub mod types;

pub use infos::*;

use crate::ffi::abi::{self, Abi};
use crate::ffi::marshal::c_file::file_ref;
use crate::ffi::marshal::current;
use crate::ffi::marshal::guard::guard;
use crate::ffi::marshal::opaque::{JSONWriter, QEMUFile};
use crate::file::MigFile;
use crate::savevm::Vm;
use crate::savevm::profile::Profile;
use crate::savevm::unwind::on_panic;
use crate::vmstate::model::{Description, State};
use crate::vmstate::{HostObject, Io, Recorder, VmStateHost, load_state, save_state};
use layout::with_layout;
use state::CState;
use std::ffi::{c_int, c_void};
use std::fmt;
use types::VMStateDescription;

/// The host of a context. It is looked up only for a timer, a tree or a trace.
struct LazyHost<'a>(&'a Vm);

impl VmStateHost for LazyHost<'_> {
    fn timer_expire_ns(&self, timer: HostObject) -> Option<i64> {
        self.0.host().timer_expire_ns(timer)
    }

    fn timer_set_ns(&self, timer: HostObject, expire: i64) -> Option<()> {
        self.0.host().timer_set_ns(timer, expire)
    }

    fn timer_clear(&self, timer: HostObject) -> Option<()> {
        self.0.host().timer_clear(timer)
    }

    fn tree_count(&self, tree: HostObject) -> Option<u32> {
        self.0.host().tree_count(tree)
    }

    fn tree_foreach(&self, tree: HostObject, visit: &mut dyn FnMut(HostObject, HostObject) -> bool) -> Option<()> {
        self.0.host().tree_foreach(tree, visit)
    }

    fn tree_insert(&self, tree: HostObject, key: HostObject, value: HostObject) -> Option<()> {
        self.0.host().tree_insert(tree, key, value)
    }

    fn latches_subsections(&self) -> bool {
        self.0.profile().has(Profile::LATCH_SUBSECTIONS)
    }

    fn keeps_descriptors(&self) -> bool {
        self.0.host().keeps_descriptors()
    }

    fn traces(&self) -> bool {
        self.0.host().traces()
    }

    fn trace(&self, event: &'static str, arguments: fmt::Arguments<'_>) {
        self.0.host().trace(event, arguments);
    }
}

/// Runs `body` with the limits and the host of `vm`, this thread's context. A panic in it leaves an error in the file.
#[inline]
fn with_io<T>(vm: &Vm, file: &MigFile, body: impl FnOnce(&Io<'_>) -> T) -> T {
    on_panic(|| body(&Io::new(file, &vm.limits(), &LazyHost(vm))), || file.set_error(-libc::EIO))
}

/// Returns the recorder behind a C pointer.
///
/// # Safety
/// `vmdesc` must be NULL or what a `put` was given, which has not returned.
#[inline]
unsafe fn recorder_ref<'a>(vmdesc: *mut JSONWriter) -> Option<&'a Recorder> {
    // SAFETY: `vmdesc` is NULL or came from a recorder (contract of `recorder_ref`).
    unsafe { vmdesc.cast::<Recorder>().as_ref() }
}

/// Saves `opaque` as `vmsd` of the layout `abi` describes it, by default in its own version. `vm` is this thread's context.
///
/// # Safety
/// As vmstate_save_state(), with a description of that layout.
pub(in crate::ffi) unsafe fn save_with(
    vm: &Vm,
    abi: Option<&'static Abi>,
    f: *mut QEMUFile,
    vmsd: *const VMStateDescription,
    opaque: *mut c_void,
    vmdesc: *mut JSONWriter,
    version: Option<c_int>,
) -> c_int {
    with_layout!(abi, |layout| {
        // SAFETY: the contract of the function.
        let (file, state, recorder) = unsafe { (file_ref(f), CState::new(layout, vmsd, opaque), recorder_ref(vmdesc)) };
        let (Some(file), Some(state)) = (file, state) else { return -libc::EINVAL };
        let version = version.unwrap_or_else(|| state.description().version());
        with_io(vm, file, |io| save_state(io, state, version, recorder))
    })
}

/// Loads `opaque` as `vmsd` of the layout `abi` describes it. `vm` is this thread's context.
///
/// # Safety
/// As vmstate_load_state(), with a description of that layout.
pub(in crate::ffi) unsafe fn load_with(
    vm: &Vm,
    abi: Option<&'static Abi>,
    f: *mut QEMUFile,
    vmsd: *const VMStateDescription,
    opaque: *mut c_void,
    version: c_int,
) -> c_int {
    with_layout!(abi, |layout| {
        // SAFETY: the contract of the function.
        let (file, state) = unsafe { (file_ref(f), CState::new(layout, vmsd, opaque)) };
        let (Some(file), Some(state)) = (file, state) else { return -libc::EINVAL };
        with_io(vm, file, |io| load_state(io, state, version))
    })
}

/// Returns the result of the `needed` hook of `vmsd` in the layout `abi`: true without a hook, false for NULL.
///
/// # Safety
/// As vmstate_save_needed(), with a description of that layout.
pub(in crate::ffi) unsafe fn needed_with(
    abi: Option<&'static Abi>,
    vmsd: *const VMStateDescription,
    opaque: *mut c_void,
) -> bool {
    // SAFETY: the contract of the function.
    with_layout!(abi, |layout| unsafe { CState::new(layout, vmsd, opaque) }.is_some_and(|state| state.needed()))
}

/// Saves `opaque` in the version of `vmsd`, a description of the context's layout. Returns 0, the result of a hook or
/// info, or -EINVAL.
///
/// # Safety
/// `f` is NULL or an open file; `vmsd` is NULL or describes `opaque`; `vmdesc` is NULL or what the caller was given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmstate_save_state(
    f: *mut QEMUFile,
    vmsd: *const VMStateDescription,
    opaque: *mut c_void,
    vmdesc: *mut JSONWriter,
) -> c_int {
    guard(-libc::EIO, || {
        let vm = current::current();
        // SAFETY: the contract of the function.
        unsafe { save_with(&vm, abi::of_context(&vm), f, vmsd, opaque, vmdesc, None) }
    })
}

/// Saves `opaque` in a given version. Otherwise as vmstate_save_state().
///
/// # Safety
/// As vmstate_save_state().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmstate_save_state_v(
    f: *mut QEMUFile,
    vmsd: *const VMStateDescription,
    opaque: *mut c_void,
    vmdesc: *mut JSONWriter,
    version_id: c_int,
) -> c_int {
    guard(-libc::EIO, || {
        let vm = current::current();
        // SAFETY: the contract of the function.
        unsafe { save_with(&vm, abi::of_context(&vm), f, vmsd, opaque, vmdesc, Some(version_id)) }
    })
}

/// Loads what vmstate_save_state() wrote in that version. Returns 0 or QEMU's codes; after an error `opaque` may be
/// partly loaded.
///
/// # Safety
/// `f` is NULL or an open file; `vmsd` is NULL or describes `opaque`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmstate_load_state(
    f: *mut QEMUFile,
    vmsd: *const VMStateDescription,
    opaque: *mut c_void,
    version_id: c_int,
) -> c_int {
    guard(-libc::EIO, || {
        let vm = current::current();
        // SAFETY: the contract of the function.
        unsafe { load_with(&vm, abi::of_context(&vm), f, vmsd, opaque, version_id) }
    })
}

/// Returns the result of the `needed` hook: true without a hook, false for NULL.
///
/// # Safety
/// `vmsd` is NULL or describes `opaque`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmstate_save_needed(vmsd: *const VMStateDescription, opaque: *mut c_void) -> bool {
    // SAFETY: the contract of the function.
    guard(false, || unsafe { needed_with(abi::of_context(&current::current()), vmsd, opaque) })
}

/// As vmstate_save_needed(), which QEMU calls this since 8.2.
///
/// # Safety
/// `vmsd` is NULL or describes `opaque`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmstate_section_needed(vmsd: *const VMStateDescription, opaque: *mut c_void) -> bool {
    // SAFETY: the contract of the function.
    unsafe { vmstate_save_needed(vmsd, opaque) }
}
