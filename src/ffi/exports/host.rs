// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm.h`: what the library asks of the hypervisor.

use crate::ffi::exports::host_driver::SaveVMIncomingOps;
use crate::ffi::exports::info::SaveVMEvent;
use crate::ffi::exports::postcopy::SaveVMPostcopyOps;
use crate::ffi::marshal::opaque::{Error, QEMUTimer, VMStateIf};
use crate::ffi::marshal::structs::sized_structs;
use std::ffi::{c_char, c_int, c_uint, c_void};

/// Bits of `SaveVMHostOps.stream_flags`: what streams leave out, and where a driver of the host's own stands.
/// No configuration section is written or expected.
pub const SAVEVM_FLAG_NO_CONFIGURATION: u32 = 1 << 0;
/// No section footers are written or expected.
pub const SAVEVM_FLAG_NO_FOOTERS: u32 = 1 << 1;
/// No description follows the end.
pub const SAVEVM_FLAG_NO_VMDESC: u32 = 1 << 2;
/// The guest was handed over; live devices with postcopy go on.
pub const SAVEVM_FLAG_IN_POSTCOPY: u32 = 1 << 3;
/// Continuous replication: device states carry no header.
pub const SAVEVM_FLAG_IN_COLO: u32 = 1 << 4;
/// Postcopy of RAM is agreed on.
pub const SAVEVM_FLAG_POSTCOPY_RAM: u32 = 1 << 5;
/// The machine's UUID is not written; one that comes is compared all the same.
pub const SAVEVM_FLAG_NO_UUID: u32 = 1 << 6;
/// Sections of live devices are refused: what they hold comes another way.
pub const SAVEVM_FLAG_NO_LIVE_LOAD: u32 = 1 << 7;

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
    SaveVMHostOps, SAVEVM_HOST_OPS_INIT, reset;
}

/// What the library asks of the hypervisor. Every member may be NULL, which has the meaning given with it. The table is
/// copied; Every member gets the `opaque` of savevm_new().
///
/// "Lock" below is the hypervisor's big lock. Members run on the thread of the call that needs them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMHostOps {
    /// sizeof(SaveVMHostOps).
    pub size: usize,

    /// Takes the lock; NULL: there is none.
    pub lock: Option<unsafe extern "C" fn(opaque: *mut c_void)>,
    /// Gives the lock back.
    pub unlock: Option<unsafe extern "C" fn(opaque: *mut c_void)>,
    /// Whether this thread holds the lock; NULL: no.
    pub locked: Option<unsafe extern "C" fn(opaque: *mut c_void) -> bool>,

    /// Stops the guest; 0 or -errno. With the lock. NULL: there is nothing to stop.
    pub vm_stop: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// Lets the guest run; 0 or -errno. With the lock.
    pub vm_start: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// Whether the guest runs; NULL: no.
    pub vm_running: Option<unsafe extern "C" fn(opaque: *mut c_void) -> bool>,

    /// Before devices are saved: bring the CPUs' state to where their devices save it from. With the lock.
    pub cpu_synchronize_states: Option<unsafe extern "C" fn(opaque: *mut c_void)>,
    /// Before sections are loaded. With the lock.
    pub cpu_synchronize_pre_load: Option<unsafe extern "C" fn(opaque: *mut c_void)>,
    /// After sections were loaded, well or not: give the loaded state to the CPUs. With the lock.
    pub cpu_synchronize_post_load: Option<unsafe extern "C" fn(opaque: *mut c_void)>,

    /// Name of the machine in the configuration section; the string stays the host's. NULL: "none".
    pub machine_name: Option<unsafe extern "C" fn(opaque: *mut c_void) -> *const c_char>,
    /// Fills in the machine's UUID, which both sides must share, and returns true where it has one; NULL: it has none.
    pub uuid: Option<unsafe extern "C" fn(opaque: *mut c_void, uuid: *mut u8) -> bool>,
    /// log2 of the target's page size; NULL: 12.
    pub target_page_bits: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_uint>,
    /// log2 of the smallest page size that the target could have; NULL: the same.
    pub target_page_bits_min: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_uint>,
    /// Names of the enabled capabilities that both sides must share, ended by NULL; they stay the host's. NULL: none.
    pub capabilities: Option<unsafe extern "C" fn(opaque: *mut c_void) -> *const *const c_char>,
    /// SAVEVM_FLAG_* that hold now; asked each time they matter. NULL: 0.
    pub stream_flags: Option<unsafe extern "C" fn(opaque: *mut c_void) -> u32>,
    /// Union of the page sizes of all RAM blocks in bytes, for postcopy; NULL: the target's page size.
    pub ram_page_sizes: Option<unsafe extern "C" fn(opaque: *mut c_void) -> u64>,
    /// Whether the machine, whose section "ram" is in QEMU's format, has a block of RAM of that name which has, or can be
    /// given, `length` bytes. NULL: nobody knows, and the format may be another one. Not asked where the library has the
    /// RAM (savevm_ram_new()).
    pub ram_fits: Option<unsafe extern "C" fn(opaque: *mut c_void, block: *const c_char, length: u64) -> bool>,

    /// The path of an object as a string from malloc(), or NULL where it has none; NULL: no object has one.
    pub object_path: Option<unsafe extern "C" fn(opaque: *mut c_void, object: *mut VMStateIf) -> *mut c_char>,

    /// Gives the disks up before the end of the stream; 0 or -errno. With the lock.
    pub disks_inactivate: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// Takes the disks over before the guest starts here; 0 or -errno. With the lock.
    pub disks_activate: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// Slows the guest's CPUs down by so many percent of their time (0: full speed).
    pub throttle: Option<unsafe extern "C" fn(opaque: *mut c_void, percent: c_int)>,
    /// A stage of precopy was reached. A negative result is logged and otherwise ignored.
    pub precopy_notify: Option<unsafe extern "C" fn(opaque: *mut c_void, notice: SaveVMPrecopyNotice) -> c_int>,

    /// Reports a message to the user. If NULL, messages go to the log. Any thread, any lock.
    pub report: Option<unsafe extern "C" fn(opaque: *mut c_void, level: SaveVMReportLevel, text: *const c_char)>,
    /// Whether a trace event of that name is wanted; the name is QEMU's. For the name NULL: whether any may be, which is
    /// asked once for a device and for every other event, and has to be quick. NULL: no.
    pub trace_wanted: Option<unsafe extern "C" fn(opaque: *mut c_void, event: *const c_char) -> bool>,
    /// A trace event that was wanted.
    pub trace: Option<unsafe extern "C" fn(opaque: *mut c_void, event: *const c_char, text: *const c_char)>,

    /// For a host with an `Error` of its own: sets `*errp` to one with that text. NULL: `Error` is the library's, and so
    /// are error_get_pretty() and error_free().
    pub error_set:
        Option<unsafe extern "C" fn(opaque: *mut c_void, errp: *mut *mut Error, error: c_int, text: *const c_char)>,
    /// The text of such an error; it stays the error's.
    pub error_text: Option<unsafe extern "C" fn(opaque: *mut c_void, error: *const Error) -> *const c_char>,
    /// Frees such an error.
    pub error_free: Option<unsafe extern "C" fn(opaque: *mut c_void, error: *mut Error)>,

    /// When a timer expires in ns, -1 where it is not armed. NULL: fields of timers are an error.
    pub timer_expire_ns: Option<unsafe extern "C" fn(opaque: *mut c_void, timer: *mut QEMUTimer) -> i64>,
    /// Arms a timer.
    pub timer_set_ns: Option<unsafe extern "C" fn(opaque: *mut c_void, timer: *mut QEMUTimer, expire: i64)>,
    /// Disarms a timer.
    pub timer_clear: Option<unsafe extern "C" fn(opaque: *mut c_void, timer: *mut QEMUTimer)>,
    /// Number of nodes of a tree (GLib's GTree, or what the host's descriptions name). NULL: such fields are an error.
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
    /// Inserts a node; key (unless it is a direct one) and value come from malloc() and become the tree's.
    pub tree_insert:
        Option<unsafe extern "C" fn(opaque: *mut c_void, tree: *mut c_void, key: *mut c_void, value: *mut c_void)>,

    /// Answers to the commands of a stream, for a host that has a migration driver of its own. NULL: the library's
    /// driver answers. The table stays the host's and must outlive the context.
    pub incoming: *const SaveVMIncomingOps,

    /// A migration of the library's driver changed its status. Any thread, any lock; it may call the library back, but
    /// for what waits for the same migration. The event is the library's and lives as long as the call.
    pub migration_event: Option<unsafe extern "C" fn(opaque: *mut c_void, event: *const SaveVMEvent)>,
    /// Monotonic time in ns for the driver's measurements; NULL: the system's.
    pub clock_ns: Option<unsafe extern "C" fn(opaque: *mut c_void) -> u64>,
    /// How RAM takes part in postcopy; NULL: not at all. The table is copied.
    pub postcopy: *const SaveVMPostcopyOps,
    /// Puts the machine into the state that it is in after power-on: before savevm_snapshot_load() loads, as QEMU 7.2's
    /// load_snapshot() does (migration/savevm.c), so that what the snapshot does not hold is nobody's leftover. The guest is
    /// stopped. With the lock. savevm_incoming() does not call it: there, as in QEMU, the machine is a fresh one. NULL:
    /// nothing.
    pub reset: Option<unsafe extern "C" fn(opaque: *mut c_void)>,
}
