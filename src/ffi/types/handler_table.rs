// SPDX-License-Identifier: LGPL-2.1-or-later
//! The table of a device's callbacks (`migration/register.h`).

use crate::ffi::marshal::opaque::{MigrationState, QEMUFile};
use std::ffi::{c_int, c_void};

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
    /// Prepares the device for a load, before the first section. Returns 0 or -errno. Lock: held.
    pub load_setup: Option<unsafe extern "C" fn(f: *mut QEMUFile, opaque: *mut c_void) -> c_int>,
    /// Releases what load_setup allocated. Called once after a load ended, successfully or not, also if load_setup was not called
    /// because the load had failed before. The result is ignored. Lock: held.
    pub load_cleanup: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// Prepares the device to send again over a new connection, after a postcopy was paused. Returns 0 or -errno. Lock: not
    /// held.
    pub resume_prepare: Option<unsafe extern "C" fn(s: *mut MigrationState, opaque: *mut c_void) -> c_int>,
}

const _: () = {
    assert!(size_of::<SaveVMHandlers>() == 14 * size_of::<usize>());
    assert!(std::mem::offset_of!(SaveVMHandlers, save_live_pending) == 9 * size_of::<usize>());
    assert!(std::mem::offset_of!(SaveVMHandlers, load_state) == 10 * size_of::<usize>());
    assert!(std::mem::offset_of!(SaveVMHandlers, resume_prepare) == 13 * size_of::<usize>());
};
