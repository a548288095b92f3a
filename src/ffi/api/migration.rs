// SPDX-License-Identifier: LGPL-2.1-or-later
//! What migrations are asked for and tell.

use crate::ffi::types::{MigrationIncomingState, QEMUFile};
use std::ffi::{c_char, c_int, c_void};

/// `SaveVMParams.return_path`: the destination answers where the connection goes both ways. Not over `exec:`, whose command
/// may only store the stream, unless postcopy is enabled.
pub const SAVEVM_RETURN_PATH_AUTO: c_int = 0;
/// `SaveVMParams.return_path`: the destination answers, or the migration fails.
pub const SAVEVM_RETURN_PATH_ON: c_int = 1;
/// `SaveVMParams.return_path`: the destination is not asked for anything.
pub const SAVEVM_RETURN_PATH_OFF: c_int = 2;

/// `SaveVMInfo.owner`: the guest is this side's to run.
pub const SAVEVM_OWNER_HERE: c_int = 0;
/// `SaveVMInfo.owner`: it is the other side's.
pub const SAVEVM_OWNER_THERE: c_int = 1;
/// `SaveVMInfo.owner`: the connection broke while it changed hands. It is stopped here and may run there: only somebody
/// who sees both sides may start it. A paused postcopy that is recovered shows that it is there.
pub const SAVEVM_OWNER_UNKNOWN: c_int = 2;

/// What a migration may do and how long it may take. 0, NULL and false mean the default that is given. Times are in
/// milliseconds. The struct is copied.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMParams {
    /// sizeof(SaveVMParams).
    pub size: usize,
    /// Most bytes per second of precopy; 0: no limit. May change while it runs.
    pub max_bandwidth: u64,
    /// Most bytes per second of postcopy's background copy; 0: no limit. May change while it runs.
    pub max_postcopy_bandwidth: u64,
    /// How long the guest may stand still; default 300. May change while it runs.
    pub downtime_limit_ms: u32,
    /// For the connection; default 30000 outgoing, none incoming.
    pub connect_timeout_ms: u32,
    /// For the destination's first answer, and for each in a recovery; default 30000.
    pub handshake_timeout_ms: u32,
    /// For one wait until the peer takes or sends bytes; default 60000 outgoing, 300000 incoming.
    pub stall_timeout_ms: u32,
    /// For the destination's word that everything is loaded, and for its verdict; default 30000.
    pub switchover_timeout_ms: u32,
    /// How long a broken postcopy waits to be recovered; default: for ever. May change while it runs. The guest is lost when
    /// it is over: it is stopped at the destination, with zeros for the pages that did not come.
    pub recover_timeout_ms: u32,
    /// SAVEVM_RETURN_PATH_*. Incoming, ON also refuses to start the guest from a stream whose source did not ask just
    /// before its end whether everything is loaded, as this library does and QEMU does not: so no damaged stream can look
    /// like one that ends.
    pub return_path: c_int,
    /// First slow-down by auto-converge in percent; default 20. May change while it runs, as the next two.
    pub throttle_initial: u32,
    /// What comes on top each time; default 10.
    pub throttle_increment: u32,
    /// Most of it; default 99.
    pub throttle_max: u32,
    /// Postcopy may be started. Both sides must say so.
    pub postcopy: bool,
    /// Slow the guest down (SaveVMHostOps.throttle) when it dirties faster than the link carries. May change while it
    /// runs.
    pub auto_converge: bool,
    /// With the guest stopped, wait for savevm_migrate_continue() before the devices are saved.
    pub pause_before_switchover: bool,
    /// No thread of its own: the caller does the work with savevm_migrate_step().
    pub no_thread: bool,
    /// The destination leaves the guest stopped when everything is loaded.
    pub no_autostart: bool,
    /// Say nothing that only this library understands, even where both ends are of it.
    pub no_extensions: bool,
    /// Path of a new file for a trace in JSON lines; NULL: none.
    pub trace: *const c_char,
}

/// How long a device's state took.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMDeviceTime {
    /// Name, cut where it is longer; empty: no more devices.
    pub name: [c_char; 64],
    /// Microseconds.
    pub time_us: u64,
}

/// How a migration stands. The caller sets `size`; what is filled in is what both sides have. Counts never go back.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMInfo {
    /// sizeof(SaveVMInfo).
    pub size: usize,
    /// QEMU's MigrationStatus, as a number.
    pub status: c_int,
    /// SAVEVM_OWNER_*.
    pub owner: c_int,
    /// QEMU's name of the status; the library's, for ever.
    pub status_name: *const c_char,
    /// Since it began, until it ended, in microseconds.
    pub total_time_us: u64,
    /// Until the first round.
    pub setup_time_us: u64,
    /// How long the guest stood still: to the destination's verdict where it answers.
    pub downtime_us: u64,
    /// How long it would stand still if it were stopped now.
    pub expected_downtime_us: u64,
    /// What the devices took that are saved or loaded whole.
    pub device_time_us: u64,
    /// Bytes of their sections.
    pub device_bytes: u64,
    /// Bytes that went out, or (incoming) came in, over all connections. It never falls.
    pub transferred: u64,
    /// Bytes left that must go before the guest moves. What is left and how fast it goes, down to `dirty_rate`, is known to
    /// the source alone: incoming, it is 0.
    pub remaining_precopy_only: u64,
    /// Bytes left that may go at any time.
    pub remaining_compatible: u64,
    /// Bytes left that must go after the guest stopped.
    pub remaining_postcopy_only: u64,
    /// How often every device had nothing more to send for now.
    pub rounds: u64,
    /// Bytes per second in the last tenth of a second in which anything was sent.
    pub bandwidth: u64,
    /// Bytes per second that the guest dirtied when that showed last: whenever a device finds more to send than before.
    pub dirty_rate: u64,
    /// Requests for pages.
    pub page_requests: u64,
    /// Recoveries that succeeded.
    pub recoveries: u64,
    /// How much the guest is slowed down, in percent.
    pub throttle: u32,
    /// Whether the destination answers.
    pub return_path: bool,
    /// Whether both ends are known to be of this library.
    pub extended: bool,
    /// The devices that took longest, longest first.
    pub devices: [SaveVMDeviceTime; 16],
    /// Rounds of precopy (incoming: reading the stream), in microseconds.
    pub precopy_time_us: u64,
    /// From the last round until the guest was handed over, without waiting for savevm_migrate_continue().
    pub switchover_time_us: u64,
    /// Sending what was left behind the hand-over.
    pub postcopy_time_us: u64,
    /// Waiting for a recovery.
    pub paused_time_us: u64,
}

/// A change of a migration's status.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMEvent {
    /// sizeof(SaveVMEvent) of the library.
    pub size: usize,
    /// Whether the guest comes in.
    pub incoming: bool,
    /// QEMU's MigrationStatus, as a number.
    pub status: c_int,
    /// QEMU's name of it.
    pub status_name: *const c_char,
    /// The MigrationState or MigrationIncomingState. Inside savevm_migrate() the first event comes before it returns.
    pub migration: *mut c_void,
}

/// How the hypervisor's RAM takes part in postcopy. Results are 0 or -errno; an error ends the migration, or pauses it
/// where it can be recovered. A NULL member makes what needs it an error, but where another meaning is given. On the
/// destination they come from the threads that load, without the lock. Names of blocks are the library's, as long as the
/// call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMPostcopyOps {
    /// sizeof(SaveVMPostcopyOps).
    pub size: usize,
    /// Names of all blocks, ended by NULL; they stay the host's. NULL: resume_prepare asks for the bitmaps itself, with
    /// savevm_migrate_request_bitmap().
    pub blocks: Option<unsafe extern "C" fn(host: *mut c_void) -> *const *const c_char>,

    /// Source, guest stopped, with the lock: qemu_savevm_send_postcopy_ram_discard() for what was sent but changed since.
    pub send_discards: Option<unsafe extern "C" fn(host: *mut c_void, f: *mut QEMUFile) -> c_int>,
    /// Source, any thread, without the lock: the guest waits for these bytes; the RAM's save_live_iterate should send
    /// them next. `block` NULL: that of the last request.
    pub pages_requested:
        Option<unsafe extern "C" fn(host: *mut c_void, block: *const c_char, start: u64, length: u32) -> c_int>,
    /// Source, in a recovery, any thread: which pages of a block arrived, a bit each, little-endian, `length` bytes. All
    /// others are to be sent.
    pub received:
        Option<unsafe extern "C" fn(host: *mut c_void, block: *const c_char, bits: *const u8, length: usize) -> c_int>,

    /// Destination: postcopy may come. NULL: fine.
    pub advise: Option<unsafe extern "C" fn(host: *mut c_void) -> c_int>,
    /// Destination: before the first discard. NULL: fine.
    pub prepare_discard: Option<unsafe extern "C" fn(host: *mut c_void) -> c_int>,
    /// Destination: throw away `length` bytes from `start` on of a block.
    pub discard:
        Option<unsafe extern "C" fn(host: *mut c_void, block: *const c_char, start: u64, length: u64) -> c_int>,
    /// Destination: from now on ask for what is missing with savevm_incoming_request_pages(). Pages are loaded by the
    /// RAM's load_state, without the lock, on another thread than the devices.
    pub listen: Option<unsafe extern "C" fn(host: *mut c_void, migration: *mut MigrationIncomingState) -> c_int>,
    /// Destination: the connection broke; requests fail. NULL: nothing.
    pub paused: Option<unsafe extern "C" fn(host: *mut c_void)>,
    /// Destination: it is back; ask again for all that the guest waits for. NULL: nothing.
    pub resumed: Option<unsafe extern "C" fn(host: *mut c_void)>,
    /// Destination, in a recovery: how many bytes of bits there are for a block (-errno), and where they are, until the
    /// next call. A bit for each page that arrived, little-endian.
    pub received_bits:
        Option<unsafe extern "C" fn(host: *mut c_void, block: *const c_char, bits: *mut *const u8) -> isize>,
    /// Destination: everything arrived, or (not `complete`) nothing more will: let go of all who wait. NULL: nothing.
    pub end: Option<unsafe extern "C" fn(host: *mut c_void, complete: bool)>,
}
