// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm.h`: what the library asks of the hypervisor.

use crate::ffi::exports::host_driver::SaveVMIncomingOps;
use crate::ffi::exports::info::{SaveVMEvent, SaveVMStallEvent};
use crate::ffi::exports::postcopy::SaveVMPostcopyOps;
use crate::ffi::marshal::opaque::{Error, QEMUFile, QEMUTimer, VMStateIf};
use crate::ffi::marshal::structs::sized_structs;
use std::ffi::{c_char, c_int, c_uint, c_void};

/// Bits of `SaveVMHostOps.stream_flags`: parts that streams omit, and the state of a host with a migration driver of its own.
/// This bit: no configuration section is written or expected.
pub const SAVEVM_FLAG_NO_CONFIGURATION: u32 = 1 << 0;
/// No section footers are written or expected.
pub const SAVEVM_FLAG_NO_FOOTERS: u32 = 1 << 1;
/// No description follows the end.
pub const SAVEVM_FLAG_NO_VMDESC: u32 = 1 << 2;
/// Postcopy: the guest was handed over. Live devices that support postcopy continue to send.
pub const SAVEVM_FLAG_IN_POSTCOPY: u32 = 1 << 3;
/// Continuous replication: device states carry no header.
pub const SAVEVM_FLAG_IN_COLO: u32 = 1 << 4;
/// Postcopy of RAM is enabled on both sides.
pub const SAVEVM_FLAG_POSTCOPY_RAM: u32 = 1 << 5;
/// The machine's UUID is not written. A received UUID is still compared.
pub const SAVEVM_FLAG_NO_UUID: u32 = 1 << 6;
/// Sections of live devices are rejected, because their contents are sent separately (Xen).
pub const SAVEVM_FLAG_NO_LIVE_LOAD: u32 = 1 << 7;
/// The library's driver sends the guest's run state as QEMU's section "globalstate", so that a guest that was stopped stays
/// stopped at the destination, also in QEMU and through a file. The driver always reads this section. Not for a host that
/// registers a device of that name or has a migration driver of its own.
pub const SAVEVM_FLAG_GLOBAL_STATE: u32 = 1 << 8;
/// SWITCHOVER_START is not sent, because the machine type is older than QEMU 10.0.
pub const SAVEVM_FLAG_NO_SWITCHOVER_START: u32 = 1 << 9;
/// The capability switchover-ack is on: devices of the destination must approve the switchover (QEMU 8.1). Set it on both
/// sides. The library's driver at the source lets the guest run until then, unless a deadline forces the switchover.
pub const SAVEVM_FLAG_SWITCHOVER_ACK: u32 = 1 << 10;
/// The host calls qemu_loadvm_state_cleanup() itself after a load, as QEMU 9.2 and newer do. Without this flag, the load calls
/// it, except if the stream is refused before `load_setup`, or in it (see SAVEVM_SEMANTICS_CLEAN_FAILED_SETUP).
pub const SAVEVM_FLAG_HOST_CLEANS_LOAD: u32 = 1 << 11;

/// How serious a message is.
#[expect(non_camel_case_types, reason = "the names of the C interface")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMReportLevel {
    /// Something failed.
    SAVEVM_REPORT_ERROR = 0,
    /// Something is suspicious, and the work continues.
    SAVEVM_REPORT_WARNING = 1,
}

/// Notices of `SaveVMHostOps.precopy_notify`: QEMU's PrecopyNotifyReason, with QEMU's numbers.
#[expect(non_camel_case_types, reason = "the names of the C interface")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMPrecopyNotice {
    /// All live devices are set up.
    SAVEVM_PRECOPY_SETUP = 0,
    /// The guest is stopped, and the rest of its state is sent.
    SAVEVM_PRECOPY_COMPLETE = 3,
    /// The migration has ended, in any way.
    SAVEVM_PRECOPY_CLEANUP = 4,
}

sized_structs! {
    SaveVMHostOps, SAVEVM_HOST_OPS_INIT, keeps_descriptors;
}

/// Functions of the hypervisor that the library calls. Every member may be NULL. If its comment does not state what NULL means, the
/// library continues as if the function had succeeded. The table is copied. Every member gets the `opaque` of savevm_new().
///
/// "The lock" is the hypervisor's big lock. "With the lock" means that the library holds it during the call. A member whose comment
/// does not mention the lock is called with or without it.
///
/// Members run on the thread of the library function that needs them, or on a thread of the library. A thread or program that a
/// member starts there inherits the blocked signals. On Linux 6.12 or later, it also inherits a time slice of 0.1 ms if its niceness
/// is negative.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMHostOps {
    /// sizeof(SaveVMHostOps).
    pub size: usize,

    /// Takes the lock; NULL: there is none.
    pub lock: Option<unsafe extern "C" fn(opaque: *mut c_void)>,
    /// Releases the lock.
    pub unlock: Option<unsafe extern "C" fn(opaque: *mut c_void)>,
    /// Returns whether this thread holds the lock. NULL: the library assumes that it does not, so that no function may be called
    /// with the lock.
    pub locked: Option<unsafe extern "C" fn(opaque: *mut c_void) -> bool>,

    /// Stops the guest; 0 or -errno. After it returns 0, no CPU runs or writes to memory. With the lock. NULL: there is
    /// nothing to stop.
    ///
    /// During a failed or paused postcopy, a CPU may be waiting inside an access to a missing page. The host interrupts
    /// it with a signal. After a grace period such an access gets SIGBUS, or KVM_RUN fails.
    pub vm_stop: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// Starts the guest, or continues it; 0 or -errno. With the lock.
    pub vm_start: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// Returns whether the guest runs; NULL: it does not.
    pub vm_running: Option<unsafe extern "C" fn(opaque: *mut c_void) -> bool>,

    /// Called before devices are saved: copies the state of the CPUs to the objects that their devices save. With the lock.
    pub cpu_synchronize_states: Option<unsafe extern "C" fn(opaque: *mut c_void)>,
    /// Called before sections are loaded. With the lock.
    pub cpu_synchronize_pre_load: Option<unsafe extern "C" fn(opaque: *mut c_void)>,
    /// Called after sections were loaded, also after a failure: copies the loaded state to the CPUs. With the lock.
    pub cpu_synchronize_post_load: Option<unsafe extern "C" fn(opaque: *mut c_void)>,

    /// Returns the name of the machine for the configuration section, owned by the host. A destination rejects another name.
    /// NULL: "none".
    pub machine_name: Option<unsafe extern "C" fn(opaque: *mut c_void) -> *const c_char>,
    /// Stores the machine's UUID (16 bytes), which must be the same on both sides, and returns true if it has one; NULL: it
    /// has none.
    pub uuid: Option<unsafe extern "C" fn(opaque: *mut c_void, uuid: *mut u8) -> bool>,
    /// Returns log2 of the target's page size; NULL: 12.
    pub target_page_bits: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_uint>,
    /// Returns log2 of the smallest page size that the target supports; NULL: that of the target's page size.
    pub target_page_bits_min: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_uint>,
    /// Returns the names of the enabled capabilities that both sides must share, ended by NULL and owned by the host. NULL: none.
    pub capabilities: Option<unsafe extern "C" fn(opaque: *mut c_void) -> *const *const c_char>,
    /// Returns the current SAVEVM_FLAG_*; called whenever one is needed. NULL: 0.
    pub stream_flags: Option<unsafe extern "C" fn(opaque: *mut c_void) -> u32>,
    /// Returns the bitwise OR of the page sizes of all RAM blocks in bytes, for postcopy; NULL: the target's page size.
    pub ram_page_sizes: Option<unsafe extern "C" fn(opaque: *mut c_void) -> u64>,
    /// Returns whether the machine has a RAM block of that name that has, or can be resized to, `length` bytes. For a host
    /// whose section "ram" has QEMU's format. NULL: the blocks are not checked, and the section may have another format. Not
    /// called if the library has the RAM (savevm_ram_new()).
    pub ram_fits: Option<unsafe extern "C" fn(opaque: *mut c_void, block: *const c_char, length: u64) -> bool>,

    /// Returns the path of an object as a string from malloc(), or NULL if it has none; NULL: no object has a path.
    pub object_path: Option<unsafe extern "C" fn(opaque: *mut c_void, object: *mut VMStateIf) -> *mut c_char>,

    /// Called on the source before it sends the end of the stream: releases the disks, so that the destination can use them; 0 or
    /// -errno. With the lock.
    pub disks_inactivate: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// Called before the guest starts on this side, also after a failed migration: acquires the disks; 0 or -errno. With the
    /// lock.
    pub disks_activate: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// Slows the guest's CPUs down by `percent` of their time (0: full speed), for SaveVMParams.auto_converge. NULL: the guest
    /// is not slowed down.
    pub throttle: Option<unsafe extern "C" fn(opaque: *mut c_void, percent: c_int)>,
    /// Called when precopy reaches a stage. A negative result is logged and otherwise ignored.
    pub precopy_notify: Option<unsafe extern "C" fn(opaque: *mut c_void, notice: SaveVMPrecopyNotice) -> c_int>,

    /// Reports a message to the user. If NULL, messages go to the log. Any thread, any lock.
    pub report: Option<unsafe extern "C" fn(opaque: *mut c_void, level: SaveVMReportLevel, text: *const c_char)>,
    /// Returns whether the trace event `event` is enabled; the name is QEMU's. If `event` is NULL, returns whether any event may
    /// be enabled. The library calls it once per device and for every other event, so it must be fast. NULL: no event is enabled.
    pub trace_wanted: Option<unsafe extern "C" fn(opaque: *mut c_void, event: *const c_char) -> bool>,
    /// Receives a trace event that is enabled.
    pub trace: Option<unsafe extern "C" fn(opaque: *mut c_void, event: *const c_char, text: *const c_char)>,

    /// For a host with its own `Error` type: sets `*errp` to an error with that text. NULL: `Error`, error_get_pretty() and
    /// error_free() are those of the library.
    pub error_set:
        Option<unsafe extern "C" fn(opaque: *mut c_void, errp: *mut *mut Error, error: c_int, text: *const c_char)>,
    /// Returns the text of such an error, owned by the error.
    pub error_text: Option<unsafe extern "C" fn(opaque: *mut c_void, error: *const Error) -> *const c_char>,
    /// Frees such an error.
    pub error_free: Option<unsafe extern "C" fn(opaque: *mut c_void, error: *mut Error)>,

    /// Returns the expiry time of a timer in ns, or -1 if it is not armed. NULL: fields of timers are an error.
    pub timer_expire_ns: Option<unsafe extern "C" fn(opaque: *mut c_void, timer: *mut QEMUTimer) -> i64>,
    /// Arms a timer.
    pub timer_set_ns: Option<unsafe extern "C" fn(opaque: *mut c_void, timer: *mut QEMUTimer, expire: i64)>,
    /// Disarms a timer.
    pub timer_clear: Option<unsafe extern "C" fn(opaque: *mut c_void, timer: *mut QEMUTimer)>,
    /// Returns the number of nodes of a tree (GLib's GTree, or the tree type of the host's descriptions). NULL: such fields
    /// are an error.
    pub tree_count: Option<unsafe extern "C" fn(opaque: *mut c_void, tree: *mut c_void) -> u32>,
    /// Visits all nodes in order, until a visit returns other than 0.
    pub tree_foreach: Option<
        unsafe extern "C" fn(
            opaque: *mut c_void,
            tree: *mut c_void,
            visit: Option<unsafe extern "C" fn(key: *mut c_void, value: *mut c_void, data: *mut c_void) -> c_int>,
            data: *mut c_void,
        ),
    >,
    /// Inserts a node. The tree owns `key` (unless the key is stored in the pointer itself) and `value`, which come from
    /// malloc().
    pub tree_insert:
        Option<unsafe extern "C" fn(opaque: *mut c_void, tree: *mut c_void, key: *mut c_void, value: *mut c_void)>,

    /// Functions for the commands of an incoming stream, for a host with a migration driver of its own. NULL: the
    /// library's driver handles them. The table is copied.
    pub incoming: *const SaveVMIncomingOps,

    /// Called when a migration of the library's driver changes its status. Any thread, any lock. It may call the library, except
    /// functions that wait for the same migration. `event` is valid during the call.
    pub migration_event: Option<unsafe extern "C" fn(opaque: *mut c_void, event: *const SaveVMEvent)>,
    /// Returns a monotonic time in ns for the driver's measurements; NULL: the system's.
    pub clock_ns: Option<unsafe extern "C" fn(opaque: *mut c_void) -> u64>,
    /// Functions for RAM in postcopy; NULL: RAM does not take part in postcopy. The table is copied.
    pub postcopy: *const SaveVMPostcopyOps,
    /// Resets the machine to its state after power-on. savevm_snapshot_load() calls it before it loads, as QEMU 7.2's
    /// load_snapshot() does (migration/savevm.c), so that devices that are not in the snapshot have a defined state. The guest is
    /// stopped. With the lock. savevm_incoming() does not call it, because the machine of an incoming migration is new. NULL: no
    /// reset.
    pub reset: Option<unsafe extern "C" fn(opaque: *mut c_void)>,
    /// Called when a migration of the library's driver makes no progress, and when it makes progress again. Any thread, any lock.
    /// It may call the library, except functions that wait for the same migration. `event` is valid during the call.
    pub migration_stalled: Option<unsafe extern "C" fn(opaque: *mut c_void, event: *const SaveVMStallEvent)>,
    /// Called when a lazy restore has ended (SaveVMSnapshotOptions.lazy). `error` is NULL if all memory is loaded, else the text
    /// of savevm_restore_wait()'s error, valid during the call. On a thread of the library, without the lock. The next
    /// migration or snapshot can begin after it has returned.
    pub restore_ended: Option<unsafe extern "C" fn(opaque: *mut c_void, error: *const c_char)>,

    /// Returns whether device_thread_start works for the migration in progress. NULL: no.
    pub device_threads: Option<unsafe extern "C" fn(opaque: *mut c_void) -> bool>,
    /// Runs the save_live_complete_precopy_thread (QEMU 10.1: save_complete_precopy_thread) of a device on a thread of its own,
    /// which sends its data through the host. `function` is the callback, and `device` is the handler_opaque of the callback.
    pub device_thread_start: Option<
        unsafe extern "C" fn(
            opaque: *mut c_void,
            function: *mut c_void,
            idstr: *const c_char,
            instance_id: u32,
            device: *mut c_void,
        ),
    >,
    /// Asks the threads that device_thread_start started to end soon, because the migration fails.
    pub device_threads_abort: Option<unsafe extern "C" fn(opaque: *mut c_void)>,
    /// Waits for all threads that device_thread_start started. Returns whether all succeeded. NULL: true.
    pub device_threads_join: Option<unsafe extern "C" fn(opaque: *mut c_void) -> bool>,
    /// For a host that limits the rate itself: returns whether the limit is reached, so that nothing more may be sent to `f` for
    /// now. Called before each live device of a round. NULL: the limit of the file is used.
    pub rate_exceeded: Option<unsafe extern "C" fn(opaque: *mut c_void, f: *mut QEMUFile) -> bool>,
    /// Returns whether the process replaces itself and keeps its open descriptors, as in the mode cpr-exec of QEMU 10.2:
    /// VMSTATE_FD() then transfers their numbers. NULL: no.
    pub keeps_descriptors: Option<unsafe extern "C" fn(opaque: *mut c_void) -> bool>,
}
