// SPDX-License-Identifier: LGPL-2.1-or-later
//! A device's C table behind the library's trait.

use crate::error::{Error, Result};
use crate::ffi::marshal::c_file::as_c;
use crate::ffi::types::handler_table::SaveVMHandlers;
use crate::file::MigFile;
use crate::savevm::handler::{Callback, Handler, Pending};
use crate::sync::check_none_held;
use crate::vmstate::Recorder;
use std::ffi::c_void;
use std::ptr::NonNull;

/// A table, which stays the device's, and the device's pointer.
pub(in crate::ffi) struct CHandler {
    ops: NonNull<SaveVMHandlers>,
    opaque: *mut c_void,
}

// SAFETY: the contract of register_savevm_live(): callbacks come from the threads and under the locks that they name.
unsafe impl Send for CHandler {}
// SAFETY: as above.
unsafe impl Sync for CHandler {}

/// Calls a member that `has` said is there; the value behind `else` where it has gone since.
macro_rules! call {
    ($self:ident.$member:ident($($argument:expr),*) else $missing:expr) => {
        match $self.table().$member {
            Some(function) => {
                check_none_held(stringify!($member));
                // SAFETY: the contract of register_savevm_live().
                unsafe { function($($argument),*) }
            }
            None => $missing,
        }
    };
}

impl CHandler {
    /// # Safety
    /// `ops` must be NULL or stay valid until the device is unregistered; its functions may be called with `opaque`.
    pub(in crate::ffi) unsafe fn new(ops: *const SaveVMHandlers, opaque: *mut c_void) -> Option<Self> {
        NonNull::new(ops.cast_mut()).map(|ops| Self { ops, opaque })
    }

    fn table(&self) -> &SaveVMHandlers {
        // SAFETY: the contract of `new`; C only ever writes whole pointers to it.
        unsafe { self.ops.as_ref() }
    }

    /// Whether the device is live (QEMU's `is_ram`).
    pub(in crate::ffi) fn is_live(&self) -> bool {
        self.table().save_setup.is_some()
    }
}

impl Handler for CHandler {
    fn has(&self, callback: Callback) -> bool {
        let ops = self.table();
        match callback {
            Callback::SaveState => ops.save_state.is_some(),
            Callback::SaveCleanup => ops.save_cleanup.is_some(),
            Callback::SaveLiveCompletePostcopy => ops.save_live_complete_postcopy.is_some(),
            Callback::SaveLiveCompletePrecopy => ops.save_live_complete_precopy.is_some(),
            Callback::SaveLiveIterate => ops.save_live_iterate.is_some(),
            Callback::SaveSetup => ops.save_setup.is_some(),
            Callback::SaveLivePending => ops.save_live_pending.is_some(),
            Callback::LoadState => ops.load_state.is_some(),
            Callback::LoadSetup => ops.load_setup.is_some(),
            Callback::LoadCleanup => ops.load_cleanup.is_some(),
            Callback::ResumePrepare => ops.resume_prepare.is_some(),
            // Newer layouts have these.
            Callback::SavePrepare
            | Callback::SwitchoverAckNeeded
            | Callback::SwitchoverStart
            | Callback::SaveThread
            | Callback::LoadStateBuffer
            | Callback::SavePostcopyPrepare => false,
        }
    }

    fn is_active(&self) -> bool {
        call!(self.is_active(self.opaque) else true)
    }

    fn is_active_iterate(&self) -> bool {
        call!(self.is_active_iterate(self.opaque) else true)
    }

    fn has_postcopy(&self) -> bool {
        call!(self.has_postcopy(self.opaque) else false)
    }

    fn save_setup(&self, file: &MigFile) -> i32 {
        call!(self.save_setup(as_c(file), self.opaque) else 0)
    }

    fn save_live_iterate(&self, file: &MigFile) -> i32 {
        call!(self.save_live_iterate(as_c(file), self.opaque) else 1)
    }

    fn save_live_pending(&self, file: &MigFile, threshold: u64, pending: Pending) -> Pending {
        let Pending { mut precopy_only, mut compatible, mut postcopy_only } = pending;
        call!(self.save_live_pending(
            as_c(file), self.opaque, threshold, &raw mut precopy_only, &raw mut compatible, &raw mut postcopy_only
        ) else ());
        Pending { precopy_only, compatible, postcopy_only }
    }

    fn save_live_complete_precopy(&self, file: &MigFile) -> i32 {
        call!(self.save_live_complete_precopy(as_c(file), self.opaque) else 0)
    }

    fn save_live_complete_postcopy(&self, file: &MigFile) -> i32 {
        call!(self.save_live_complete_postcopy(as_c(file), self.opaque) else 0)
    }

    fn save_cleanup(&self) {
        call!(self.save_cleanup(self.opaque) else ());
    }

    fn load_setup(&self, file: &MigFile) -> i32 {
        call!(self.load_setup(as_c(file), self.opaque) else 0)
    }

    fn load_cleanup(&self) -> i32 {
        call!(self.load_cleanup(self.opaque) else 0)
    }

    fn resume_prepare(&self, migration: usize) -> i32 {
        call!(self.resume_prepare(migration as *mut _, self.opaque) else 0)
    }

    fn save(&self, file: &MigFile, recorder: Option<&Recorder>) -> Result<()> {
        let start = file.total_transferred_fast();
        call!(self.save_state(as_c(file), self.opaque) else ());
        if let Some(recorder) = recorder {
            recorder.legacy_buffer(file.total_transferred_fast() - start);
        }
        Ok(())
    }

    fn load(&self, file: &MigFile, version: i32) -> Result<()> {
        file.pending_error().clear();
        match call!(self.load_state(as_c(file), self.opaque, version) else -libc::EINVAL) {
            ret if ret < 0 => Err(load_error(file, ret)),
            _ => Ok(()),
        }
    }
}

/// Returns the cause of a device's negative result: the VMState error that the device returned, the end of the stream, or the
/// result itself.
pub(super) fn load_error(file: &MigFile, ret: i32) -> Error {
    if let Some(error) = file.pending_error().take_matching(ret) {
        return error;
    }
    let cause = match file.status().first_error() {
        Some(first) if first.code() == ret => return first,
        Some(first) => format!("load_state returned {ret}, after: {}", first.message()),
        None => format!("load_state returned {ret}"),
    };
    Error::new(ret.saturating_abs(), cause).at_offset(file.position())
}
