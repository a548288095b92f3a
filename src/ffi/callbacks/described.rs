// SPDX-License-Identifier: LGPL-2.1-or-later
//! A device's table of another QEMU version than 7.2 behind the library's trait: members are found by their offsets.

use super::handlers::load_error;
use crate::error::{Error, Result};
use crate::ffi::abi::Abi;
use crate::ffi::marshal::c_error;
use crate::ffi::marshal::c_file::as_c;
use crate::ffi::marshal::opaque::{Error as CError, MigrationState, QEMUFile};
use crate::ffi::types::abi::SaveVMAbiKind::*;
use crate::ffi::types::abi::SaveVMAbiMemberId::{self as Id, *};
use crate::ffi::types::handler_table::SaveVMHandlers;
use crate::file::MigFile;
use crate::savevm::handler::{Callback, Handler, Pending, SaveThread};
use crate::sync::check_none_held;
use crate::vmstate::Recorder;
use std::cell::LazyCell;
use std::ffi::{c_char, c_int, c_void};
use std::ptr::NonNull;

type OpaqueVoid = unsafe extern "C" fn(opaque: *mut c_void);
type OpaqueBool = unsafe extern "C" fn(opaque: *mut c_void) -> bool;
type OpaqueInt = unsafe extern "C" fn(opaque: *mut c_void) -> c_int;
type OpaqueIntError = unsafe extern "C" fn(opaque: *mut c_void, errp: *mut *mut CError) -> c_int;
type FileVoid = unsafe extern "C" fn(f: *mut QEMUFile, opaque: *mut c_void);
type FileInt = unsafe extern "C" fn(f: *mut QEMUFile, opaque: *mut c_void) -> c_int;
type FileIntError = unsafe extern "C" fn(f: *mut QEMUFile, opaque: *mut c_void, errp: *mut *mut CError) -> c_int;
type FileBoolError = unsafe extern "C" fn(f: *mut QEMUFile, opaque: *mut c_void, errp: *mut *mut CError) -> bool;
type FileVersion = unsafe extern "C" fn(f: *mut QEMUFile, opaque: *mut c_void, version_id: c_int) -> c_int;
type MigrationInt = unsafe extern "C" fn(s: *mut MigrationState, opaque: *mut c_void) -> c_int;
type StatePending = unsafe extern "C" fn(opaque: *mut c_void, must_precopy: *mut u64, can_postcopy: *mut u64);
type QueryPending = unsafe extern "C" fn(opaque: *mut c_void, pending: *mut c_void, exact: bool, last: bool);
type LoadBuffer =
    unsafe extern "C" fn(opaque: *mut c_void, buf: *mut c_char, len: usize, errp: *mut *mut CError) -> bool;
type LivePending = unsafe extern "C" fn(*mut QEMUFile, *mut c_void, u64, *mut u64, *mut u64, *mut u64);

/// A table, which remains the device's, its layout, and the device's pointer.
pub(in crate::ffi) struct DescribedHandler {
    abi: &'static Abi,
    ops: NonNull<u8>,
    opaque: *mut c_void,
}

// SAFETY: the contract of register_savevm_live(): callbacks may be called on the threads and under the locks that they
// name.
unsafe impl Send for DescribedHandler {}
// SAFETY: as above.
unsafe impl Sync for DescribedHandler {}

/// Calls a member of the given type; returns the value after `else` if it is NULL or the layout does not have it.
macro_rules! call {
    ($self:ident.$id:ident as $type:ty, ($($argument:expr),*) else $missing:expr) => {
        // SAFETY: the type is the one that `members.rs` requires for the member.
        match unsafe { $self.function::<$type>($id) } {
            Some(function) => {
                check_none_held(stringify!($id));
                // SAFETY: the contract of register_savevm_live().
                unsafe { function($($argument),*) }
            }
            None => $missing,
        }
    };
}

/// Calls a callback that may set an error. `code` makes an errno of its result, negative if it failed.
fn explained<T>(callback: &str, call: impl FnOnce(*mut *mut CError) -> T, code: impl Fn(&T) -> i32) -> Result<T> {
    // SAFETY: the callback gave the error up, or left NULL.
    let (result, error) = unsafe { c_error::collect(call, |result| code(result).saturating_abs()) };
    match (code(&result), error) {
        (0.., _) => Ok(result),
        (code, None) => Err(Error::from_callback(callback, code)),
        (code, Some(error)) => Err(Error::new(code.saturating_abs(), error.message())),
    }
}

/// The code of a callback that only tells whether it succeeded.
fn code_of(done: &bool) -> i32 {
    if *done { 0 } else { -libc::EINVAL }
}

impl DescribedHandler {
    /// # Safety
    /// `ops` must be NULL or a table of that layout that stays valid until the device is unregistered; its functions may
    /// be called with `opaque`.
    pub(in crate::ffi) unsafe fn new(
        abi: &'static Abi,
        ops: *const SaveVMHandlers,
        opaque: *mut c_void,
    ) -> Option<Self> {
        NonNull::new(ops.cast_mut().cast()).map(|ops| Self { abi, ops, opaque })
    }

    /// # Safety
    /// `F` must be the function of the member's type in this layout.
    unsafe fn function<F: Copy>(&self, id: Id) -> Option<F> {
        const { assert!(size_of::<Option<F>>() == size_of::<usize>()) };
        // SAFETY: the table is one of this layout (contract of `new`); NULL is `None`.
        unsafe { self.abi.read::<Option<F>>(id, self.ops) }
    }

    fn has_member(&self, id: Id) -> bool {
        // SAFETY: the table is one of this layout, and callbacks are as wide as a pointer.
        !unsafe { self.abi.read::<*const ()>(id, self.ops) }.is_null()
    }

    /// Returns the first of two members that the layout has. Layouts have one name or the other.
    fn one_of(&self, one: Id, other: Id) -> Id {
        if self.abi.kind(one).is_some() { one } else { other }
    }

    /// Returns whether the device is live (QEMU's `is_ram`).
    pub(in crate::ffi) fn is_live(&self) -> bool {
        self.has_member(SAVEVM_ABI_SaveVMHandlers_save_setup)
    }

    /// Calls a setup callback, with an `Error **` if this version has one. Its error stays with the file.
    fn set_up(&self, id: Id, name: &str, file: &MigFile) -> i32 {
        if !self.abi.is(id, SAVEVM_ABI_INT_FILE_ERRP) {
            return call!(self.id as FileInt, (as_c(file), self.opaque) else 0);
        }
        let call = |errp| call!(self.id as FileIntError, (as_c(file), self.opaque, errp) else 0);
        explained(name, call, |ret| *ret).unwrap_or_else(|error| {
            let ret = -error.errno();
            file.pending_error().set(error);
            ret
        })
    }

    fn complete(&self, id: Id, file: &MigFile) -> i32 {
        call!(self.id as FileInt, (as_c(file), self.opaque) else 0)
    }

    fn thread_member(&self) -> Id {
        let (old, new) = (
            SAVEVM_ABI_SaveVMHandlers_save_live_complete_precopy_thread,
            SAVEVM_ABI_SaveVMHandlers_save_complete_precopy_thread,
        );
        self.one_of(new, old)
    }

    /// Returns whether the layout has callbacks that say exactly, or by an estimate, what is left (8.0).
    fn has_state_pending(&self) -> bool {
        self.abi.kind(SAVEVM_ABI_SaveVMHandlers_state_pending_exact).is_some() || self.has_query_pending()
    }

    fn has_query_pending(&self) -> bool {
        self.abi.kind(SAVEVM_ABI_SaveVMHandlers_save_query_pending).is_some()
    }

    /// Calls `save_query_pending` (11.1), which replaces the two older callbacks.
    fn query_pending(&self, exact: bool, pending: Pending) -> Pending {
        let mut data = [0u64; Abi::PENDING_MAX / size_of::<u64>()];
        let address = NonNull::from(&mut data).cast::<u8>();
        call!(self.SAVEVM_ABI_SaveVMHandlers_save_query_pending as QueryPending,
            (self.opaque, address.as_ptr().cast(), exact, false) else ());
        // SAFETY: `data` is larger than a MigPendingData of any layout, and the layout has these members (check.rs).
        let sum = |id| unsafe { self.abi.read::<u64>(id, address) };
        let precopy = sum(SAVEVM_ABI_MigPendingData_precopy_bytes);
        let must = precopy.saturating_add(sum(SAVEVM_ABI_MigPendingData_stopcopy_bytes));
        Pending {
            precopy_only: pending.precopy_only.saturating_add(must),
            compatible: pending.compatible.saturating_add(sum(SAVEVM_ABI_MigPendingData_postcopy_bytes)),
            postcopy_only: pending.postcopy_only,
        }
    }

    fn ask_pending(&self, exact: bool, pending: Pending) -> Pending {
        if self.has_query_pending() {
            return self.query_pending(exact, pending);
        }
        let Pending { mut precopy_only, mut compatible, postcopy_only } = pending;
        let id = match exact {
            true => SAVEVM_ABI_SaveVMHandlers_state_pending_exact,
            false => SAVEVM_ABI_SaveVMHandlers_state_pending_estimate,
        };
        call!(self.id as StatePending, (self.opaque, &raw mut precopy_only, &raw mut compatible) else ());
        Pending { precopy_only, compatible, postcopy_only }
    }
}

impl Handler for DescribedHandler {
    fn has(&self, callback: Callback) -> bool {
        let complete = SAVEVM_ABI_SaveVMHandlers_save_complete;
        match callback {
            Callback::SaveState => self.has_member(SAVEVM_ABI_SaveVMHandlers_save_state),
            Callback::SaveCleanup => self.has_member(SAVEVM_ABI_SaveVMHandlers_save_cleanup),
            // From 10.1 on one callback ends both; devices without postcopy were completed before the switch.
            Callback::SaveLiveCompletePostcopy if self.abi.kind(complete).is_some() => {
                self.has_member(complete) && self.has_postcopy()
            }
            Callback::SaveLiveCompletePrecopy if self.abi.kind(complete).is_some() => self.has_member(complete),
            Callback::SaveLiveCompletePostcopy => {
                self.has_member(SAVEVM_ABI_SaveVMHandlers_save_live_complete_postcopy)
            }
            Callback::SaveLiveCompletePrecopy => self.has_member(SAVEVM_ABI_SaveVMHandlers_save_live_complete_precopy),
            Callback::SaveLiveIterate => self.has_member(SAVEVM_ABI_SaveVMHandlers_save_live_iterate),
            Callback::SaveSetup => self.is_live(),
            Callback::SaveLivePending if self.has_query_pending() => {
                self.has_member(SAVEVM_ABI_SaveVMHandlers_save_query_pending)
            }
            Callback::SaveLivePending if self.has_state_pending() => {
                self.has_member(SAVEVM_ABI_SaveVMHandlers_state_pending_exact)
                    || self.has_member(SAVEVM_ABI_SaveVMHandlers_state_pending_estimate)
            }
            Callback::SaveLivePending => self.has_member(SAVEVM_ABI_SaveVMHandlers_save_live_pending),
            Callback::LoadState => self.has_member(SAVEVM_ABI_SaveVMHandlers_load_state),
            Callback::LoadSetup => self.has_member(SAVEVM_ABI_SaveVMHandlers_load_setup),
            Callback::LoadCleanup => self.has_member(SAVEVM_ABI_SaveVMHandlers_load_cleanup),
            Callback::ResumePrepare => self.has_member(SAVEVM_ABI_SaveVMHandlers_resume_prepare),
            Callback::SavePrepare => self.has_member(SAVEVM_ABI_SaveVMHandlers_save_prepare),
            Callback::SwitchoverAckNeeded => self.has_member(SAVEVM_ABI_SaveVMHandlers_switchover_ack_needed),
            Callback::SwitchoverStart => self.has_member(SAVEVM_ABI_SaveVMHandlers_switchover_start),
            Callback::SaveThread => self.has_member(self.thread_member()),
            Callback::LoadStateBuffer => self.has_member(SAVEVM_ABI_SaveVMHandlers_load_state_buffer),
            Callback::SavePostcopyPrepare => self.has_member(SAVEVM_ABI_SaveVMHandlers_save_postcopy_prepare),
        }
    }

    fn is_active(&self) -> bool {
        call!(self.SAVEVM_ABI_SaveVMHandlers_is_active as OpaqueBool, (self.opaque) else true)
    }

    fn is_active_iterate(&self) -> bool {
        call!(self.SAVEVM_ABI_SaveVMHandlers_is_active_iterate as OpaqueBool, (self.opaque) else true)
    }

    fn has_postcopy(&self) -> bool {
        call!(self.SAVEVM_ABI_SaveVMHandlers_has_postcopy as OpaqueBool, (self.opaque) else false)
    }

    fn save_setup(&self, file: &MigFile) -> i32 {
        self.set_up(SAVEVM_ABI_SaveVMHandlers_save_setup, "save_setup", file)
    }

    fn save_live_iterate(&self, file: &MigFile) -> i32 {
        call!(self.SAVEVM_ABI_SaveVMHandlers_save_live_iterate as FileInt, (as_c(file), self.opaque) else 1)
    }

    /// Asks for an estimate first, as the driver of these versions does, and for the exact number if little is left.
    fn save_live_pending(&self, file: &MigFile, threshold: u64, pending: Pending) -> Pending {
        if self.has_state_pending() {
            let estimate = self.ask_pending(false, pending);
            let left = estimate.total().saturating_sub(pending.total());
            return if left <= threshold { self.ask_pending(true, pending) } else { estimate };
        }
        let Pending { mut precopy_only, mut compatible, mut postcopy_only } = pending;
        let sums = (&raw mut precopy_only, &raw mut compatible, &raw mut postcopy_only);
        call!(self.SAVEVM_ABI_SaveVMHandlers_save_live_pending as LivePending,
            (as_c(file), self.opaque, threshold, sums.0, sums.1, sums.2) else ());
        Pending { precopy_only, compatible, postcopy_only }
    }

    fn state_pending(&self, file: &LazyCell<MigFile>, exact: bool, pending: Pending) -> Pending {
        if self.has_state_pending() {
            return self.ask_pending(exact, pending);
        }
        self.save_live_pending(file, if exact { u64::MAX } else { 0 }, pending)
    }

    fn save_live_complete_precopy(&self, file: &MigFile) -> i32 {
        let (new, old) =
            (SAVEVM_ABI_SaveVMHandlers_save_complete, SAVEVM_ABI_SaveVMHandlers_save_live_complete_precopy);
        self.complete(self.one_of(new, old), file)
    }

    fn save_live_complete_postcopy(&self, file: &MigFile) -> i32 {
        let (new, old) =
            (SAVEVM_ABI_SaveVMHandlers_save_complete, SAVEVM_ABI_SaveVMHandlers_save_live_complete_postcopy);
        self.complete(self.one_of(new, old), file)
    }

    fn save_cleanup(&self) {
        call!(self.SAVEVM_ABI_SaveVMHandlers_save_cleanup as OpaqueVoid, (self.opaque) else ());
    }

    fn load_setup(&self, file: &MigFile) -> i32 {
        self.set_up(SAVEVM_ABI_SaveVMHandlers_load_setup, "load_setup", file)
    }

    fn load_cleanup(&self) -> i32 {
        call!(self.SAVEVM_ABI_SaveVMHandlers_load_cleanup as OpaqueInt, (self.opaque) else 0)
    }

    fn save_prepare(&self) -> Result<()> {
        let call =
            |errp| call!(self.SAVEVM_ABI_SaveVMHandlers_save_prepare as OpaqueIntError, (self.opaque, errp) else 0);
        explained("save_prepare", call, |ret| *ret).map(drop)
    }

    fn switchover_ack_needed(&self) -> bool {
        call!(self.SAVEVM_ABI_SaveVMHandlers_switchover_ack_needed as OpaqueBool, (self.opaque) else false)
    }

    fn switchover_start(&self) -> i32 {
        call!(self.SAVEVM_ABI_SaveVMHandlers_switchover_start as OpaqueInt, (self.opaque) else 0)
    }

    fn save_thread(&self) -> Option<SaveThread> {
        // SAFETY: the table is one of this layout, and callbacks are as wide as a pointer.
        let function = unsafe { self.abi.read::<*const ()>(self.thread_member(), self.ops) };
        (!function.is_null()).then_some(SaveThread { function: function as usize, opaque: self.opaque as usize })
    }

    fn load_state_buffer(&self, data: &mut [u8]) -> Result<()> {
        let call = |errp| {
            call!(self.SAVEVM_ABI_SaveVMHandlers_load_state_buffer as LoadBuffer,
                (self.opaque, data.as_mut_ptr().cast(), data.len(), errp) else false)
        };
        explained("load_state_buffer", call, code_of).map(drop)
    }

    fn save_postcopy_prepare(&self, file: &MigFile) -> Result<()> {
        let call = |errp| {
            call!(self.SAVEVM_ABI_SaveVMHandlers_save_postcopy_prepare as FileBoolError,
                (as_c(file), self.opaque, errp) else true)
        };
        explained("save_postcopy_prepare", call, code_of).map(drop)
    }

    fn resume_prepare(&self, migration: usize) -> i32 {
        call!(self.SAVEVM_ABI_SaveVMHandlers_resume_prepare as MigrationInt, (migration as *mut _, self.opaque) else 0)
    }

    fn save(&self, file: &MigFile, recorder: Option<&Recorder>) -> Result<()> {
        let start = file.total_transferred_fast();
        call!(self.SAVEVM_ABI_SaveVMHandlers_save_state as FileVoid, (as_c(file), self.opaque) else ());
        if let Some(recorder) = recorder {
            recorder.legacy_buffer(file.total_transferred_fast() - start);
        }
        Ok(())
    }

    fn load(&self, file: &MigFile, version: i32) -> Result<()> {
        file.pending_error().clear();
        let ret = call!(self.SAVEVM_ABI_SaveVMHandlers_load_state as FileVersion,
            (as_c(file), self.opaque, version) else -libc::EINVAL);
        if ret < 0 { Err(load_error(file, ret)) } else { Ok(()) }
    }
}
