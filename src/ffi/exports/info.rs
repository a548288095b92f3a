// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm.h`: parameters, status and statistics of a migration.

use crate::ffi::marshal::opaque::SaveVMMigration;
use crate::ffi::marshal::structs::{c_enums, sized_structs};
use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;

/// Status of a migration: QEMU's MigrationStatus, with QEMU's numbers.
#[expect(non_camel_case_types, reason = "the names of the C interface")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMStatus {
    /// The migration has not begun.
    SAVEVM_STATUS_NONE = 0,
    /// The migration connects and sets live devices up.
    SAVEVM_STATUS_SETUP = 1,
    /// A cancellation is in progress.
    SAVEVM_STATUS_CANCELLING = 2,
    /// The migration was cancelled. The guest is on the source.
    SAVEVM_STATUS_CANCELLED = 3,
    /// Precopy: live devices send while the guest runs on the source.
    SAVEVM_STATUS_ACTIVE = 4,
    /// Postcopy: the guest runs on the destination, and the rest of its memory follows.
    SAVEVM_STATUS_POSTCOPY_ACTIVE = 5,
    /// The connection broke during postcopy. A recovery can continue it.
    SAVEVM_STATUS_POSTCOPY_PAUSED = 6,
    /// A recovery is in progress.
    SAVEVM_STATUS_POSTCOPY_RECOVER = 7,
    /// The guest is on the destination.
    SAVEVM_STATUS_COMPLETED = 8,
    /// The migration failed. SaveVMInfo.owner states which side has the guest.
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
    /// It answers if the connection is bidirectional. Exception: over `exec:` it answers only if postcopy is enabled, because the
    /// command may merely store the stream.
    SAVEVM_RETURN_PATH_AUTO = 0,
    /// It answers, or the migration fails.
    SAVEVM_RETURN_PATH_ON = 1,
    /// It does not answer. The source completes the migration when it has written the stream.
    SAVEVM_RETURN_PATH_OFF = 2,
}

/// How pages of RAM are compressed on several connections.
#[expect(non_camel_case_types, reason = "the names of the C interface")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMCompression {
    /// Not at all.
    SAVEVM_COMPRESSION_NONE = 0,
    /// zlib. An error if the library was built without it (cargo feature `zlib`).
    SAVEVM_COMPRESSION_ZLIB = 1,
    /// zstd. An error if the library was built without it (cargo feature `zstd`).
    SAVEVM_COMPRESSION_ZSTD = 2,
    /// Outgoing: the format of zstd, but a packet is compressed only if measurements show that this is faster: the link is the
    /// bottleneck, a CPU is free, and the content can be compressed. If the destination is QEMU, set its compression to zstd.
    /// Incoming: the method that the source uses.
    SAVEVM_COMPRESSION_AUTO = 3,
}

/// Variant of QEMU's format for several connections.
#[expect(non_camel_case_types, reason = "the names of the C interface")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMMultifdFormat {
    /// SAVEVM_MULTIFD_9_0 if the destination is libsavevm, else SAVEVM_MULTIFD_7_2.
    SAVEVM_MULTIFD_AUTO = 0,
    /// For QEMU with a machine type up to 8.0 (multifd-flush-after-each-section=on).
    SAVEVM_MULTIFD_7_2 = 1,
    /// For QEMU with a machine type 8.1 or 8.2.
    SAVEVM_MULTIFD_8_1 = 2,
    /// For QEMU with a machine type from 9.0 on: zero pages are found by the threads of the connections.
    SAVEVM_MULTIFD_9_0 = 3,
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
    /// The connection broke during the hand-over. The guest is stopped here and may run on the other side. Only an operator with
    /// access to both sides may decide to start it. The recovery of a paused postcopy shows that the other side has it.
    SAVEVM_OWNER_UNKNOWN = 2,
    /// Neither side: a load failed after it changed a device, so the devices hold parts of two states.
    SAVEVM_OWNER_TORN = 3,
}

/// By what savevm_migration_device_by() and savevm_device_cost() sort devices.
#[expect(non_camel_case_types, reason = "the names of the C interface")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMDeviceOrder {
    /// The order of the stream.
    SAVEVM_DEVICES_IN_STREAM = 0,
    /// Time for saving, longest first; on the destination, the same as SAVEVM_DEVICES_BY_LOAD_TIME.
    SAVEVM_DEVICES_BY_SAVE_TIME = 1,
    /// Time for loading, longest first. On the source, a device whose load time was not reported counts with its save time.
    SAVEVM_DEVICES_BY_LOAD_TIME = 2,
    /// Bytes of the section, largest first.
    SAVEVM_DEVICES_BY_BYTES = 3,
}

/// What happens when a migration has not ended at its deadline (SaveVMParams.deadline_ms).
#[expect(non_camel_case_types, reason = "the names of the C interface")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMDeadlineAction {
    /// The migration is cancelled. Its error is -ETIMEDOUT and states why it did not end.
    SAVEVM_DEADLINE_CANCEL = 0,
    /// It switches to postcopy, which must be enabled (SaveVMParams.postcopy).
    SAVEVM_DEADLINE_POSTCOPY = 1,
    /// The guest is stopped, and everything that is left is sent. The downtime may exceed its limit.
    SAVEVM_DEADLINE_FORCE = 2,
}

/// Why a migration makes no progress.
#[expect(non_camel_case_types, reason = "the names of the C interface")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMStallReason {
    /// It makes progress.
    SAVEVM_STALL_NONE = 0,
    /// The guest writes faster than the link sends.
    SAVEVM_STALL_DIRTY_RATE = 1,
    /// The guest writes faster than SaveVMParams.max_bandwidth allows to send.
    SAVEVM_STALL_MAX_BANDWIDTH = 2,
    /// Saving and loading the devices takes longer than the downtime limit.
    SAVEVM_STALL_DEVICES = 3,
    /// The destination does not read what is sent, over the main connection or one of several others. The text names it.
    SAVEVM_STALL_PEER_NOT_READING = 4,
    /// Incoming: the source sends nothing. With several connections, the text names those that the load waits for.
    SAVEVM_STALL_PEER_NOT_SENDING = 5,
    /// The destination does not answer.
    SAVEVM_STALL_PEER_NOT_ANSWERING = 6,
    /// The devices of the destination have not approved the switchover (SAVEVM_FLAG_SWITCHOVER_ACK).
    SAVEVM_STALL_SWITCHOVER_ACK = 7,
}

c_enums! {
    SaveVMDeviceOrder: SAVEVM_DEVICES_IN_STREAM, SAVEVM_DEVICES_BY_SAVE_TIME, SAVEVM_DEVICES_BY_LOAD_TIME, SAVEVM_DEVICES_BY_BYTES;
    SaveVMDeadlineAction: SAVEVM_DEADLINE_CANCEL, SAVEVM_DEADLINE_POSTCOPY, SAVEVM_DEADLINE_FORCE;
    SaveVMReturnPath: SAVEVM_RETURN_PATH_AUTO, SAVEVM_RETURN_PATH_ON, SAVEVM_RETURN_PATH_OFF;
    SaveVMCompression: SAVEVM_COMPRESSION_NONE, SAVEVM_COMPRESSION_ZLIB, SAVEVM_COMPRESSION_ZSTD, SAVEVM_COMPRESSION_AUTO;
    SaveVMMultifdFormat: SAVEVM_MULTIFD_AUTO, SAVEVM_MULTIFD_7_2, SAVEVM_MULTIFD_8_1, SAVEVM_MULTIFD_9_0;
    SaveVMOwner: SAVEVM_OWNER_HERE, SAVEVM_OWNER_THERE, SAVEVM_OWNER_UNKNOWN, SAVEVM_OWNER_TORN;
}

sized_structs! {
    SaveVMParams, SAVEVM_PARAMS_INIT, multifd_format;
    SaveVMTls, SAVEVM_TLS_INIT, allowed_peers;
    SaveVMInfo, SAVEVM_INFO_INIT, predicted_rest_us;
    SaveVMDeviceInfo, SAVEVM_DEVICE_INFO_INIT, load_time_us;
    SaveVMDeviceCost, SAVEVM_DEVICE_COST_INIT, load_time_us;
}

/// TLS for all connections of a migration, with X.509 certificates on both sides. The source is the TLS client, as in QEMU.
/// SAVEVM_TLS_INIT sets `verify_peer`. The struct and its strings are copied, and the files are read when the migration
/// begins.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMTls {
    /// sizeof(SaveVMTls).
    pub size: usize,
    /// Directory with PEM files, named as for QEMU: `ca-cert.pem`; `ca-crl.pem` if certificates were revoked; the source's
    /// `client-cert.pem` and `client-key.pem`, which may both be absent if the destination does not verify its peer; the
    /// destination's `server-cert.pem` and `server-key.pem`.
    pub dir: *const c_char,
    /// Source: the name or IP address that the destination's certificate must have among its subjectAltNames; NULL: the host
    /// of `tcp:HOST:PORT`. QEMU: tls-hostname.
    pub hostname: *const c_char,
    /// The peer must have a certificate that the CA has signed, that is valid now and that is not revoked; at the source, the
    /// certificate must also have the name. If false, the stream is encrypted, but the identity of the peer is not checked. QEMU:
    /// verify-peer.
    pub verify_peer: bool,
    /// NULL-terminated list of distinguished names, for example "CN=host2,O=Example"; NULL: any. The subject of the peer's
    /// certificate must be one of them. If a peer is refused, the error contains its name in the expected form and order. Needs
    /// `verify_peer`. QEMU: tls-authz, for the destination only.
    pub allowed_peers: *const *const c_char,
}

/// Parameters of a migration. 0, NULL and false mean the default that the member states. Times are in milliseconds. The struct is
/// copied.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMParams {
    /// sizeof(SaveVMParams).
    pub size: usize,
    /// Bandwidth limit of precopy in bytes per second; 0: no limit. May change during the migration.
    pub max_bandwidth: u64,
    /// Bandwidth limit of postcopy's background copy in bytes per second; 0: no limit. May change during the migration.
    pub max_postcopy_bandwidth: u64,
    /// Longest expected downtime at which the guest is stopped; default 300. May change during the migration.
    pub downtime_limit_ms: u32,
    /// Longest wait for the connection; default 30000 outgoing, no limit incoming.
    pub connect_timeout_ms: u32,
    /// Longest wait for the destination's first answer, and for each answer in a recovery; default 30000. Incoming: longest time
    /// for the header and the configuration section together, from the first byte on; in a recovery, longest wait for the
    /// source.
    pub handshake_timeout_ms: u32,
    /// Longest wait until the peer receives or sends any bytes; default 60000 outgoing, 300000 incoming.
    pub stall_timeout_ms: u32,
    /// Longest wait for the destination's answer that everything is loaded, and for its result; default 30000.
    pub switchover_timeout_ms: u32,
    /// Longest wait of a paused postcopy for its recovery; default: no limit. May change during the migration. When the time is
    /// over, the guest is lost: it is stopped on the destination, and pages that did not arrive read as zero.
    pub recover_timeout_ms: u32,
    /// Default SAVEVM_RETURN_PATH_AUTO. Incoming, SAVEVM_RETURN_PATH_ON requires a source that is libsavevm: such a source asks
    /// before the end of the stream whether everything is loaded. So the guest does not start if damage makes the stream end
    /// early.
    pub return_path: MaybeUninit<SaveVMReturnPath>,
    /// Initial CPU throttle of auto-converge in percent; default 20. May change during the migration, like the next two.
    pub throttle_initial: u32,
    /// Increment of the throttle in percent; default 10.
    pub throttle_increment: u32,
    /// Maximum throttle in percent; default 99.
    pub throttle_max: u32,
    /// Postcopy is allowed. Both sides must set it.
    pub postcopy: bool,
    /// Slow the guest down (SaveVMHostOps.throttle) if it writes faster than the link can send. May change during the migration.
    pub auto_converge: bool,
    /// Wait for savevm_migration_continue() after the guest has stopped and before devices are saved.
    pub pause_before_switchover: bool,
    /// Start no thread: the caller does the work with savevm_migration_step().
    pub no_thread: bool,
    /// The destination leaves the guest stopped when everything is loaded.
    pub no_autostart: bool,
    /// Disable the protocol extensions of libsavevm (docs/stream-format.md), even if both ends are libsavevm.
    pub no_extensions: bool,
    /// Path of a new file for a trace in JSON lines; NULL: none.
    pub trace: *const c_char,
    /// Fail if a device is registered at the destination and absent from the stream, while the source still has the guest, and if
    /// a preflight finds that a state may be loaded wrongly. Otherwise both are warnings (SaveVMHostOps.report), and the device
    /// keeps the state that it has. For an outgoing migration, `strict` affects only the preflight.
    pub strict: bool,
    /// Incoming, on a listening socket: use only the first connection, as QEMU does. Default: up to 17 connections, plus the
    /// number in `channels`, are examined at the same time. A connection that does not begin with the header of a stream, ends
    /// early, or is silent for `handshake_timeout_ms` is closed and reported. So is a connection that is silent for 5 s while
    /// further clients wait.
    pub one_connection: bool,
    /// Encrypt and authenticate every connection; NULL: plain connections. The peer must use TLS as well. An error if the
    /// library was built without TLS (meson option `tls`).
    pub tls: *const SaveVMTls,
    /// While the migration does not converge, the downtime limit rises from `downtime_limit_ms` up to this value. A migration
    /// does not converge if all memory was sent once and the remaining amount does not decrease. Default: it does not rise. May
    /// change during the migration, like the next two.
    pub downtime_limit_max_ms: u32,
    /// Amount by which the downtime limit rises at a time; default: a tenth of the difference between both limits.
    pub downtime_step_ms: u32,
    /// Time without convergence after which the downtime limit rises; default 5000.
    pub downtime_step_interval_ms: u32,
    /// Time from the beginning at which `deadline_action` is taken if the guest has not moved; default: no deadline. May change
    /// during the migration.
    pub deadline_ms: u32,
    /// Default SAVEVM_DEADLINE_CANCEL. May change during the migration.
    pub deadline_action: MaybeUninit<SaveVMDeadlineAction>,
    /// Outgoing: do not compare the machines before the migration. Incoming: do not take part in preflights and rehearsals.
    /// Default: two ends of libsavevm compare their machines first, and a migration that can't succeed fails with all reasons
    /// before any memory is sent.
    pub no_preflight: bool,
    /// Connections for the pages of RAM besides the main one, 2 to 64 (QEMU's capability multifd with multifd-channels); 0 and 1:
    /// none, everything is sent over the main connection. Both sides must set the same number. It needs the RAM of this library
    /// (savevm_ram_new()) and `unix:PATH` or `tcp:HOST:PORT`. Postcopy may follow, also from and to QEMU 10.1 and later; its
    /// pages and its recovery use the main connection alone.
    pub channels: u32,
    /// How pages are compressed on these connections; default SAVEVM_COMPRESSION_NONE. Both sides must set the same. A value
    /// other than SAVEVM_COMPRESSION_NONE without several channels is an error.
    pub compression: MaybeUninit<SaveVMCompression>,
    /// Level of the compression, 1 to 9 for zlib, 1 to 20 for zstd; default 1.
    pub compression_level: c_int,
    /// Outgoing: in which variant of QEMU's format pages are sent over several connections; default SAVEVM_MULTIFD_AUTO. A
    /// destination understands all of them.
    pub multifd_format: MaybeUninit<SaveVMMultifdFormat>,
}

/// Measurements of one device that is not a live device.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMDeviceInfo {
    /// sizeof(SaveVMDeviceInfo).
    pub size: usize,
    /// Name of the device; owned by the migration.
    pub name: *const c_char,
    /// Instance of the device.
    pub instance_id: u32,
    /// Bytes of its section; on the destination without header and footer of the section.
    pub bytes: u64,
    /// Time for saving its state in microseconds; 0 on the destination.
    pub save_time_us: u64,
    /// Time for loading its state in microseconds. On the source: as a libsavevm destination reported it at the end of the
    /// migration, else 0.
    pub load_time_us: u64,
}

/// Measured cost of one device that is not a live device, as stored in a context.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMDeviceCost {
    /// sizeof(SaveVMDeviceCost).
    pub size: usize,
    /// Name of the device.
    pub name: [c_char; 256],
    /// Instance of the device.
    pub instance_id: u32,
    /// Bytes of its section.
    pub bytes: u64,
    /// Time for saving its state in microseconds, measured here by rehearsals and migrations; before that, the time for loading
    /// it here, or 0.
    pub save_time_us: u64,
    /// Time for loading its state in microseconds, as destinations reported it after rehearsals and migrations; before that, the
    /// time for loading it here, or 0.
    pub load_time_us: u64,
}

/// Status and statistics of a migration. The caller sets `size`; only members within that size are filled in. Counters never
/// decrease.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMInfo {
    /// sizeof(SaveVMInfo).
    pub size: usize,
    /// Status.
    pub status: SaveVMStatus,
    /// The context's owner (savevm_owner()) as of this migration.
    pub owner: SaveVMOwner,
    /// QEMU's name of the status; a constant string.
    pub status_name: *const c_char,
    /// Time since the migration began, until it ended, in microseconds.
    pub total_time_us: u64,
    /// Time until the first round, in microseconds.
    pub setup_time_us: u64,
    /// Downtime in microseconds. It ends with the destination's result, if the destination answers. Incoming: 0.
    pub downtime_us: u64,
    /// Expected downtime if the guest were stopped now, in microseconds.
    pub expected_downtime_us: u64,
    /// Time for saving or loading all devices that are not live devices, in microseconds.
    pub device_time_us: u64,
    /// Bytes of the sections of these devices.
    pub device_bytes: u64,
    /// Bytes that were sent, or (incoming) received, over all connections.
    pub transferred: u64,
    /// Bytes that remain to be sent before the switchover. Incoming, this member and all up to `dirty_rate` are 0, because
    /// only the source knows them.
    pub remaining_precopy_only: u64,
    /// Bytes that remain to be sent before or after the switchover.
    pub remaining_compatible: u64,
    /// Bytes that remain to be sent after the switchover.
    pub remaining_postcopy_only: u64,
    /// Number of rounds. A round ends when no live device has anything left to send; the end of a postcopy counts as well.
    pub rounds: u64,
    /// Bytes sent per second, in the last 100 ms in which anything was sent.
    pub bandwidth: u64,
    /// Bytes per second that the guest wrote to, when the dirty log was last read.
    pub dirty_rate: u64,
    /// Number of page requests in postcopy.
    pub page_requests: u64,
    /// Number of successful recoveries.
    pub recoveries: u64,
    /// Current CPU throttle in percent.
    pub throttle: u32,
    /// Whether the destination answers over a return path.
    pub return_path: bool,
    /// Whether both ends are known to be libsavevm.
    pub peer_is_libsavevm: bool,
    /// Time in the rounds of precopy (incoming: for reading the stream), in microseconds.
    pub precopy_time_us: u64,
    /// Time from the last round until the guest was handed over, without the wait for savevm_migration_continue(), in
    /// microseconds.
    pub switchover_time_us: u64,
    /// Time for sending the rest after the hand-over, in microseconds.
    pub postcopy_time_us: u64,
    /// Time of waiting for a recovery, in microseconds.
    pub paused_time_us: u64,
    /// How much of the migration is done, in percent. It never falls, and is 100 when the guest has moved with all of its memory.
    /// Incoming, until then: the percentage of pages of the RAM (savevm_ram_new()) that have arrived at least once, at most 99; 0
    /// with other RAM.
    pub percent: u32,
    /// Why the migration makes no progress. savevm_migration_stall() returns the reason in words.
    pub stall: SaveVMStallReason,
    /// Expected time from the beginning to the end, in microseconds; 0: no end is in sight, or nothing was measured yet. After
    /// the end: `total_time_us`.
    pub expected_total_time_us: u64,
    /// If the guest writes faster than memory is sent and this stalls the migration: the difference in bytes per second; else 0.
    pub stall_excess: u64,
    /// The downtime limit in force, in microseconds; see SaveVMParams.downtime_limit_max_ms.
    pub downtime_limit_us: u64,
    /// The downtime that was predicted when the guest was stopped, in microseconds; 0 before. It is the sum of the next five
    /// members. `downtime_us` is the actual one.
    pub predicted_downtime_us: u64,
    /// Predicted time for sending the memory that was left, at the measured bandwidth; 0 if no bandwidth was measured yet.
    pub predicted_memory_us: u64,
    /// Predicted time for saving the devices, as measured in earlier migrations of this context.
    pub predicted_save_us: u64,
    /// Predicted time for loading the devices, as the destination of an earlier migration or a rehearsal reported it.
    pub predicted_load_us: u64,
    /// Predicted time for the destination's answers.
    pub predicted_round_trips_us: u64,
    /// Predicted time for everything else: stopping and starting the guest, disks.
    pub predicted_rest_us: u64,
}

/// A change of a migration's status.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMEvent {
    /// sizeof(SaveVMEvent) of the library.
    pub size: usize,
    /// Whether the migration is incoming.
    pub incoming: bool,
    /// The new status.
    pub status: SaveVMStatus,
    /// QEMU's name of the status.
    pub status_name: *const c_char,
    /// The migration. Its first event is sent before savevm_migrate() returns this handle.
    pub migration: *mut SaveVMMigration,
    /// Why a postcopy paused, a recovery failed, or the migration ended without success; else NULL. Valid in the callback.
    pub error: *const c_char,
}

/// A migration that makes no progress, or makes progress again.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMStallEvent {
    /// sizeof(SaveVMStallEvent) of the library.
    pub size: usize,
    /// Whether the migration is incoming.
    pub incoming: bool,
    /// The reason. SAVEVM_STALL_NONE: it makes progress again.
    pub reason: SaveVMStallReason,
    /// If the guest writes faster than memory is sent: the difference in bytes per second; 0 for other reasons.
    pub excess: u64,
    /// The migration.
    pub migration: *mut SaveVMMigration,
    /// The reason in words, with advice; empty for SAVEVM_STALL_NONE. Valid in the callback.
    pub text: *const c_char,
}
