// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm/host-driver.h`: what only a host with a migration driver of its own, such as QEMU, needs.

use crate::ffi::marshal::opaque::QEMUFile;
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
    SaveVMIncomingOps, SAVEVM_INCOMING_OPS_INIT, main_loop_done;
}

/// What commands of an incoming stream ask of a host with a migration driver of its own. A NULL member makes the command
/// an error that names it. Results are 0 or -errno; they run on the thread that loads.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMIncomingOps {
    /// sizeof(SaveVMIncomingOps).
    pub size: usize,
    /// Opens the way back over the channel of `f`; called again when it is open already.
    pub open_return_path: Option<unsafe extern "C" fn(opaque: *mut c_void, f: *mut QEMUFile) -> c_int>,
    /// Answers a ping.
    pub pong: Option<unsafe extern "C" fn(opaque: *mut c_void, value: u32) -> c_int>,
    /// Sets the postcopy state, unless it is SAVEVM_POSTCOPY_STATE_QUERY, and returns the previous one.
    pub postcopy_state: Option<
        unsafe extern "C" fn(opaque: *mut c_void, state: SaveVMPostcopyState) -> MaybeUninit<SaveVMPostcopyState>,
    >,
    /// Postcopy may come; `ram` says whether RAM takes part (its page sizes were compared).
    pub postcopy_advise: Option<unsafe extern "C" fn(opaque: *mut c_void, ram: bool) -> c_int>,
    /// Before the first discard, or before listening without one.
    pub postcopy_prepare_discard: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// Throws away `length` bytes from `start` on of a block.
    pub postcopy_discard:
        Option<unsafe extern "C" fn(opaque: *mut c_void, block: *const c_char, start: u64, length: u64) -> c_int>,
    /// Gets ready for page requests and lets another thread read on from the main stream.
    pub postcopy_listen: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// Starts the guest.
    pub postcopy_run: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// The source is back after a broken connection.
    pub postcopy_resume: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// Sends the received bitmap of a block.
    pub recv_bitmap: Option<unsafe extern "C" fn(opaque: *mut c_void, block: *const c_char) -> c_int>,
    /// Continuous replication begins.
    pub enable_colo: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// An error of a further channel that feeds the same load: 0 or -errno.
    pub further_error: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// Loading sections failed; comes before `recover`.
    pub load_failed: Option<unsafe extern "C" fn(opaque: *mut c_void, error: c_int)>,
    /// In running postcopy of RAM: waits for a new connection and returns its file, NULL to give up. The broken file may be
    /// closed from inside; its memory, and its channel's, goes when the load lets go of it.
    pub recover: Option<unsafe extern "C" fn(opaque: *mut c_void) -> *mut QEMUFile>,
    /// The main loop of qemu_loadvm_state() is over; true: another thread reads on, so nothing is cleaned up yet.
    pub main_loop_done: Option<unsafe extern "C" fn(opaque: *mut c_void) -> bool>,
}
