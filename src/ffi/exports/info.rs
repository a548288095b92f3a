// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm.h`: parameters, status and statistics of a migration.

use crate::ffi::marshal::opaque::SaveVMMigration;
use crate::ffi::marshal::structs::{c_enums, sized_structs};
use std::ffi::c_char;
use std::mem::MaybeUninit;

/// Status of a migration: QEMU's MigrationStatus, with QEMU's numbers.
#[expect(non_camel_case_types, reason = "the names of the C interface")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMStatus {
    /// The migration has not begun.
    SAVEVM_STATUS_NONE = 0,
    /// It connects, and live devices are set up.
    SAVEVM_STATUS_SETUP = 1,
    /// A cancellation is in progress.
    SAVEVM_STATUS_CANCELLING = 2,
    /// It was cancelled. The guest is on the source.
    SAVEVM_STATUS_CANCELLED = 3,
    /// Precopy: live devices send while the guest runs on the source.
    SAVEVM_STATUS_ACTIVE = 4,
    /// Postcopy: the guest runs on the destination, and the rest of its memory follows.
    SAVEVM_STATUS_POSTCOPY_ACTIVE = 5,
    /// The connection broke during postcopy. A recovery can continue it.
    SAVEVM_STATUS_POSTCOPY_PAUSED = 6,
    /// A recovery is in progress.
    SAVEVM_STATUS_POSTCOPY_RECOVER = 7,
    /// The guest has moved.
    SAVEVM_STATUS_COMPLETED = 8,
    /// It failed. SaveVMInfo.owner says where the guest is.
    SAVEVM_STATUS_FAILED = 9,
    /// Continuous replication.
    SAVEVM_STATUS_COLO = 10,
    /// The guest is stopped, and the migration waits for savevm_migration_continue().
    SAVEVM_STATUS_PRE_SWITCHOVER = 11,
    /// The guest is stopped, and device states are sent.
    SAVEVM_STATUS_DEVICE = 12,
    /// The migration waits for the guest to release devices.
    SAVEVM_STATUS_WAIT_UNPLUG = 13,
}

/// Whether the destination answers over a return path.
#[expect(non_camel_case_types, reason = "the names of the C interface")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMReturnPath {
    /// It answers if the connection goes both ways. Not over `exec:`, whose command may only store the stream, unless
    /// postcopy is enabled.
    SAVEVM_RETURN_PATH_AUTO = 0,
    /// It answers, or the migration fails.
    SAVEVM_RETURN_PATH_ON = 1,
    /// It is not asked for anything.
    SAVEVM_RETURN_PATH_OFF = 2,
}

/// Which side may run the guest, as far as this side knows.
#[expect(non_camel_case_types, reason = "the names of the C interface")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMOwner {
    /// This side.
    SAVEVM_OWNER_HERE = 0,
    /// The other side.
    SAVEVM_OWNER_THERE = 1,
    /// The connection broke during the hand-over. The guest is stopped here and may run on the other side. Only an operator
    /// who sees both sides may start it. Recovering a paused postcopy shows that the other side has it.
    SAVEVM_OWNER_UNKNOWN = 2,
    /// Neither side: a part of a state was loaded, so the devices match no guest.
    SAVEVM_OWNER_TORN = 3,
}

c_enums! {
    SaveVMReturnPath: SAVEVM_RETURN_PATH_AUTO, SAVEVM_RETURN_PATH_ON, SAVEVM_RETURN_PATH_OFF;
    SaveVMOwner: SAVEVM_OWNER_HERE, SAVEVM_OWNER_THERE, SAVEVM_OWNER_UNKNOWN, SAVEVM_OWNER_TORN;
}

sized_structs! {
    SaveVMParams, SAVEVM_PARAMS_INIT, trace;
    SaveVMInfo, SAVEVM_INFO_INIT, paused_time_us;
    SaveVMDeviceInfo, SAVEVM_DEVICE_INFO_INIT, load_time_us;
}

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
    /// For the destination's first answer, and for each in a recovery; default 30000. Incoming: for the header and the
    /// configuration together, from the first byte on.
    pub handshake_timeout_ms: u32,
    /// For one wait until the peer takes or sends bytes; default 60000 outgoing, 300000 incoming.
    pub stall_timeout_ms: u32,
    /// For the destination's word that everything is loaded, and for its verdict; default 30000.
    pub switchover_timeout_ms: u32,
    /// How long a broken postcopy waits to be recovered; default: for ever. May change while it runs. The guest is lost when
    /// it is over: it is stopped at the destination, with zeros for the pages that did not come.
    pub recover_timeout_ms: u32,
    /// Default SAVEVM_RETURN_PATH_AUTO. Incoming, SAVEVM_RETURN_PATH_ON also refuses to start the guest from a stream whose source did not ask just
    /// before its end whether everything is loaded, as this library does and QEMU does not: so no damaged stream can look
    /// like one that ends.
    pub return_path: MaybeUninit<SaveVMReturnPath>,
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
    /// With the guest stopped, wait for savevm_migration_continue() before the devices are saved.
    pub pause_before_switchover: bool,
    /// No thread of its own: the caller does the work with savevm_migration_step().
    pub no_thread: bool,
    /// The destination leaves the guest stopped when everything is loaded.
    pub no_autostart: bool,
    /// Say nothing that only this library understands, even where both ends are of it.
    pub no_extensions: bool,
    /// Path of a new file for a trace in JSON lines; NULL: none.
    pub trace: *const c_char,
    /// Incoming: fail if a device is registered here and absent from the stream, before the source gives the guest up. Else
    /// that is a warning (SaveVMHostOps.report), and the device keeps the state that it has.
    pub strict: bool,
    /// Incoming, listening on a socket: take the first connection for the source's, as QEMU does. Default: a connection that
    /// does not begin as a stream, ends early, or is silent for 5 s is closed and reported, and the next one is accepted.
    pub one_connection: bool,
}

/// What a migration measured of one device whose state is saved and loaded whole.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMDeviceInfo {
    /// sizeof(SaveVMDeviceInfo).
    pub size: usize,
    /// Name of the device; owned by the migration.
    pub name: *const c_char,
    /// Instance of the device.
    pub instance_id: u32,
    /// Bytes of its section.
    pub bytes: u64,
    /// Time for saving its state in microseconds; 0 on the destination.
    pub save_time_us: u64,
    /// Time for loading its state in microseconds; 0 on the source.
    pub load_time_us: u64,
}

/// How a migration stands. The caller sets `size`; what is filled in is what both sides have. Counts never go back.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMInfo {
    /// sizeof(SaveVMInfo).
    pub size: usize,
    /// Status.
    pub status: SaveVMStatus,
    /// The context's owner (savevm_owner()) as of this migration.
    pub owner: SaveVMOwner,
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
    /// Rounds of precopy (incoming: reading the stream), in microseconds.
    pub precopy_time_us: u64,
    /// From the last round until the guest was handed over, without waiting for savevm_migration_continue().
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
    /// The new status.
    pub status: SaveVMStatus,
    /// QEMU's name of it.
    pub status_name: *const c_char,
    /// The migration. The first event comes before savevm_migrate() returns this handle.
    pub migration: *mut SaveVMMigration,
    /// Why a postcopy paused, a recovery failed, or the migration ended without success; else NULL. Valid in the callback.
    pub error: *const c_char,
}
