// SPDX-License-Identifier: LGPL-2.1-or-later
//! The parts of an error.

use crate::ffi::marshal::structs::sized_structs;
use std::ffi::{c_char, c_int};

/// Which side of a migration or snapshot an error is from.
#[expect(non_camel_case_types, reason = "the names of the C interface")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMSide {
    /// Neither side.
    SAVEVM_SIDE_NONE = 0,
    /// The source, which saves.
    SAVEVM_SIDE_SOURCE = 1,
    /// The destination, which loads.
    SAVEVM_SIDE_DESTINATION = 2,
}

/// Phase of a migration or a snapshot, in errors.
#[expect(non_camel_case_types, reason = "the names of the C interface")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMPhase {
    /// No phase: the error is outside of them.
    SAVEVM_PHASE_NONE = 0,
    /// A device is registered.
    SAVEVM_PHASE_REGISTER = 1,
    /// A stream is checked before it is loaded.
    SAVEVM_PHASE_CHECK = 2,
    /// A snapshot is saved or loaded.
    SAVEVM_PHASE_SNAPSHOT = 3,
    /// The connection to the other side is made.
    SAVEVM_PHASE_CONNECT = 4,
    /// Source: save_setup.
    SAVEVM_PHASE_SETUP = 5,
    /// Source: waiting until the guest has unplugged devices.
    SAVEVM_PHASE_WAIT_UNPLUG = 6,
    /// Source: rounds of precopy.
    SAVEVM_PHASE_ITERATE = 7,
    /// Source: stopping the guest.
    SAVEVM_PHASE_STOP = 8,
    /// Source: waiting for savevm_migration_continue() with the guest stopped.
    SAVEVM_PHASE_PRE_SWITCHOVER = 9,
    /// Source: saving with the guest stopped.
    SAVEVM_PHASE_COMPLETE = 10,
    /// Source: the end of live devices in postcopy.
    SAVEVM_PHASE_COMPLETE_POSTCOPY = 11,
    /// Source: all devices without a stream around them.
    SAVEVM_PHASE_DEVICE_STATE = 12,
    /// The guest runs on the destination, and the rest of its memory is sent.
    SAVEVM_PHASE_POSTCOPY = 13,
    /// A paused postcopy waits for a recovery.
    SAVEVM_PHASE_PAUSED = 14,
    /// A paused postcopy is resumed.
    SAVEVM_PHASE_RESUME = 15,
    /// Destination: magic number and version of the stream.
    SAVEVM_PHASE_HEADER = 16,
    /// Destination: the configuration section.
    SAVEVM_PHASE_CONFIGURATION = 17,
    /// Destination: load_setup.
    SAVEVM_PHASE_LOAD_SETUP = 18,
    /// Destination: reading sections and commands.
    SAVEVM_PHASE_LOAD = 19,
    /// Destination: taking over the disks and starting the guest.
    SAVEVM_PHASE_START = 20,
}

/// How serious a problem is.
#[expect(non_camel_case_types, reason = "the names of the C interface")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMProblemSeverity {
    /// The problem has no effect on loading.
    SAVEVM_PROBLEM_NOTE = 0,
    /// The difference is unusual, and accepted in most cases.
    SAVEVM_PROBLEM_WARNING = 1,
    /// The state may be loaded wrongly. The guest is refused if SaveVMParams.strict is set.
    SAVEVM_PROBLEM_RISK = 2,
    /// The guest can't be loaded.
    SAVEVM_PROBLEM_ERROR = 3,
}

/// One difference between the source and the destination. The strings are owned by the error.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMProblem {
    /// sizeof(SaveVMProblem).
    pub size: usize,
    /// How serious it is.
    pub severity: SaveVMProblemSeverity,
    /// Instance id of the device; -1: the problem concerns no device.
    pub instance_id: i64,
    /// Name of the device; NULL: the problem concerns no device.
    pub idstr: *const c_char,
    /// The field or subsection of the device, or the block of RAM; NULL: the whole device or all RAM.
    pub path: *const c_char,
    /// The difference.
    pub message: *const c_char,
}

sized_structs! {
    SaveVMProblem, SAVEVM_PROBLEM_INIT, message;
}

/// Parts of an error. Unknown members are -1 or NULL. The struct and its strings are owned by the error.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMErrorInfo {
    /// sizeof(SaveVMErrorInfo) of the library.
    pub size: usize,
    /// Positive errno.
    pub error: c_int,
    /// Side that failed.
    pub side: SaveVMSide,
    /// Offset in the stream in bytes.
    pub offset: i64,
    /// Type byte of the section.
    pub section_type: c_int,
    /// Version of the registered device.
    pub version_have: c_int,
    /// Version in the stream.
    pub version_want: c_int,
    /// Phase in which it failed.
    pub phase: SaveVMPhase,
    /// Section id.
    pub section_id: i64,
    /// Instance id of the device.
    pub instance_id: i64,
    /// The cause alone: what was expected and what was found.
    pub message: *const c_char,
    /// Name of the phase, for display; NULL for SAVEVM_PHASE_NONE.
    pub phase_name: *const c_char,
    /// Name of the device.
    pub idstr: *const c_char,
    /// VMState path of the field.
    pub path: *const c_char,
}
