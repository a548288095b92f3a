// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm/host-driver.h`: what only a host with a migration driver of its own, such as QEMU, needs.

use crate::ffi::marshal::opaque::{Error as CError, QEMUFile};
use crate::ffi::marshal::structs::{c_enums, sized_structs};
use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;

/// State of an incoming postcopy: QEMU's PostcopyState, with QEMU's numbers.
#[expect(non_camel_case_types, reason = "the names of the C interface")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMPostcopyState {
    /// No state: SaveVMIncomingOps.postcopy_state only returns the current one.
    SAVEVM_POSTCOPY_STATE_QUERY = -1,
    /// Postcopy was not announced.
    SAVEVM_POSTCOPY_STATE_NONE = 0,
    /// Postcopy was announced.
    SAVEVM_POSTCOPY_STATE_ADVISE = 1,
    /// Stale pages were discarded.
    SAVEVM_POSTCOPY_STATE_DISCARD = 2,
    /// Device states are loaded, and pages may be requested.
    SAVEVM_POSTCOPY_STATE_LISTENING = 3,
    /// The guest runs here.
    SAVEVM_POSTCOPY_STATE_RUNNING = 4,
    /// Postcopy has ended.
    SAVEVM_POSTCOPY_STATE_END = 5,
}

c_enums! {
    SaveVMPostcopyState: SAVEVM_POSTCOPY_STATE_NONE, SAVEVM_POSTCOPY_STATE_ADVISE, SAVEVM_POSTCOPY_STATE_DISCARD,
        SAVEVM_POSTCOPY_STATE_LISTENING, SAVEVM_POSTCOPY_STATE_RUNNING, SAVEVM_POSTCOPY_STATE_END;
}

sized_structs! {
    SaveVMIncomingOps, SAVEVM_INCOMING_OPS_INIT, switchover_ack;
}

/// Functions for the commands of an incoming stream, for a host with a migration driver of its own. If a member is NULL, its
/// command fails with an error that names it. Results are 0 or -errno. A function with an `errp` may set an error as well, which
/// the library frees; the load then fails with its text. The functions run on the thread that loads,
/// with the lock if that thread holds it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMIncomingOps {
    /// sizeof(SaveVMIncomingOps).
    pub size: usize,
    /// Opens the return path over the channel of `f`; may be called when it is already open.
    pub open_return_path: Option<unsafe extern "C" fn(opaque: *mut c_void, f: *mut QEMUFile) -> c_int>,
    /// Sends a PONG with this value over the return path.
    pub pong: Option<unsafe extern "C" fn(opaque: *mut c_void, value: u32) -> c_int>,
    /// Sets the postcopy state, unless it is SAVEVM_POSTCOPY_STATE_QUERY, and returns the previous one.
    pub postcopy_state: Option<
        unsafe extern "C" fn(opaque: *mut c_void, state: SaveVMPostcopyState) -> MaybeUninit<SaveVMPostcopyState>,
    >,
    /// Postcopy may follow. `ram` is true if it includes RAM, whose page sizes were compared.
    pub postcopy_advise: Option<unsafe extern "C" fn(opaque: *mut c_void, ram: bool, errp: *mut *mut CError) -> c_int>,
    /// Called before the first discard, or before postcopy_listen if there is no discard.
    pub postcopy_prepare_discard: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// Discards `length` bytes of a block from `start`.
    pub postcopy_discard:
        Option<unsafe extern "C" fn(opaque: *mut c_void, block: *const c_char, start: u64, length: u64) -> c_int>,
    /// Prepares page requests, and starts a thread that continues to read the main stream.
    pub postcopy_listen: Option<unsafe extern "C" fn(opaque: *mut c_void, errp: *mut *mut CError) -> c_int>,
    /// Starts the guest.
    pub postcopy_run: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// The source continues after a broken connection.
    pub postcopy_resume: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// Sends the received bitmap of a block.
    pub recv_bitmap: Option<unsafe extern "C" fn(opaque: *mut c_void, block: *const c_char) -> c_int>,
    /// Continuous replication begins.
    pub enable_colo: Option<unsafe extern "C" fn(opaque: *mut c_void, errp: *mut *mut CError) -> c_int>,
    /// Returns the error of a further channel of the same load (QEMU's postcopy-preempt): 0 or -errno.
    pub further_error: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// Called when loading sections has failed, before `recover`.
    pub load_failed: Option<unsafe extern "C" fn(opaque: *mut c_void, error: c_int)>,
    /// In a running postcopy of RAM: waits for a new connection and returns its file, or NULL to end the load with the error.
    /// It may close the broken file. The library frees the broken file and its channel when the load no longer uses them.
    pub recover: Option<unsafe extern "C" fn(opaque: *mut c_void) -> *mut QEMUFile>,
    /// Called at the end of the main loop of qemu_loadvm_state(). Returns true if another thread continues to read; the
    /// cleanup is then left to it.
    pub main_loop_done: Option<unsafe extern "C" fn(opaque: *mut c_void) -> bool>,
    /// Tells the source that all devices approve the switchover (QEMU 8.1). Called only with SAVEVM_FLAG_SWITCHOVER_ACK.
    pub switchover_ack: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
}
