// SPDX-License-Identifier: LGPL-2.1-or-later
//! Errors as C sees them.

use crate::error::{Error, Phase, Problem, Side, printable};
use crate::ffi::marshal::castable::{self, Castable, Unique};
use crate::ffi::marshal::current;
use crate::ffi::marshal::opaque::Error as CError;
use crate::ffi::marshal::strings::c_string;
use crate::ffi::types::error_info::{SaveVMErrorInfo, SaveVMPhase, SaveVMProblem, SaveVMProblemSeverity, SaveVMSide};
use crate::wire::preflight::Severity;
use std::ffi::{CString, c_char};
use std::ptr;

/// What a C `Error *` of ours points to. The strings live as long as it does.
pub(crate) struct Owned {
    pub error: Error,
    pub pretty: CString,
    pub info: SaveVMErrorInfo,
    pub problems: Vec<SaveVMProblem>,
    _strings: Vec<CString>,
}

impl Castable for CError {
    type Object = Owned;
    type Ownership = Unique;
}

impl Owned {
    pub(in crate::ffi) fn new(error: Error) -> Self {
        let mut strings = Vec::new();
        let mut keep = |text: Option<&str>| -> *const c_char {
            let Some(text) = text else { return ptr::null() };
            strings.push(c_string(text));
            strings.last().map_or(ptr::null(), |text| text.as_ptr())
        };
        let section = error.section();
        let info = SaveVMErrorInfo {
            size: size_of::<SaveVMErrorInfo>(),
            error: error.errno(),
            side: match error.side() {
                Side::None => SaveVMSide::SAVEVM_SIDE_NONE,
                Side::Source => SaveVMSide::SAVEVM_SIDE_SOURCE,
                Side::Destination => SaveVMSide::SAVEVM_SIDE_DESTINATION,
            },
            offset: error.offset().map_or(-1, |offset| offset as i64),
            section_type: section.map_or(-1, |section| i32::from(section.tag)),
            section_id: section.map_or(-1, |section| i64::from(section.id)),
            instance_id: section.map_or(-1, |section| i64::from(section.instance)),
            version_have: section.and_then(|section| section.version_have).unwrap_or(-1),
            version_want: section.and_then(|section| section.version_want).unwrap_or(-1),
            message: keep(Some(error.message())),
            phase: error.phase().map_or(SaveVMPhase::SAVEVM_PHASE_NONE, c_phase),
            phase_name: keep(error.phase().map(Phase::name)),
            idstr: keep(section.map(|section| &*section.idstr)),
            path: keep(error.path().as_deref()),
        };
        let problems = error.problems().iter().map(|problem| c_problem(problem, &mut keep)).collect();
        Self { pretty: c_string(&error.to_string()), info, problems, _strings: strings, error }
    }
}

/// A problem as C sees it. `keep` stores its strings.
fn c_problem(problem: &Problem, keep: &mut impl FnMut(Option<&str>) -> *const c_char) -> SaveVMProblem {
    let device = problem.device.as_ref();
    let name = device.map(|(name, _)| printable(String::from_utf8_lossy(name).into_owned()));
    SaveVMProblem {
        size: size_of::<SaveVMProblem>(),
        severity: match problem.severity {
            Severity::Note => SaveVMProblemSeverity::SAVEVM_PROBLEM_NOTE,
            Severity::Warning => SaveVMProblemSeverity::SAVEVM_PROBLEM_WARNING,
            Severity::Risk => SaveVMProblemSeverity::SAVEVM_PROBLEM_RISK,
            Severity::Error => SaveVMProblemSeverity::SAVEVM_PROBLEM_ERROR,
        },
        instance_id: device.map_or(-1, |(_, instance)| i64::from(*instance)),
        idstr: keep(name.as_deref()),
        path: keep(Some(&printable(problem.path.clone())).filter(|path| !path.is_empty()).map(String::as_str)),
        message: keep(Some(&printable(problem.message.clone()))),
    }
}

/// A phase as C sees it.
fn c_phase(phase: Phase) -> SaveVMPhase {
    match phase {
        Phase::Register => SaveVMPhase::SAVEVM_PHASE_REGISTER,
        Phase::Check => SaveVMPhase::SAVEVM_PHASE_CHECK,
        Phase::Snapshot => SaveVMPhase::SAVEVM_PHASE_SNAPSHOT,
        Phase::Connect => SaveVMPhase::SAVEVM_PHASE_CONNECT,
        Phase::Setup => SaveVMPhase::SAVEVM_PHASE_SETUP,
        Phase::WaitUnplug => SaveVMPhase::SAVEVM_PHASE_WAIT_UNPLUG,
        Phase::Iterate => SaveVMPhase::SAVEVM_PHASE_ITERATE,
        Phase::Stop => SaveVMPhase::SAVEVM_PHASE_STOP,
        Phase::PreSwitchover => SaveVMPhase::SAVEVM_PHASE_PRE_SWITCHOVER,
        Phase::Complete => SaveVMPhase::SAVEVM_PHASE_COMPLETE,
        Phase::CompletePostcopy => SaveVMPhase::SAVEVM_PHASE_COMPLETE_POSTCOPY,
        Phase::DeviceState => SaveVMPhase::SAVEVM_PHASE_DEVICE_STATE,
        Phase::Postcopy => SaveVMPhase::SAVEVM_PHASE_POSTCOPY,
        Phase::Paused => SaveVMPhase::SAVEVM_PHASE_PAUSED,
        Phase::Resume => SaveVMPhase::SAVEVM_PHASE_RESUME,
        Phase::Header => SaveVMPhase::SAVEVM_PHASE_HEADER,
        Phase::Configuration => SaveVMPhase::SAVEVM_PHASE_CONFIGURATION,
        Phase::LoadSetup => SaveVMPhase::SAVEVM_PHASE_LOAD_SETUP,
        Phase::Load => SaveVMPhase::SAVEVM_PHASE_LOAD,
        Phase::Start => SaveVMPhase::SAVEVM_PHASE_START,
    }
}

/// Gives an error to C, in the host's own form where it has one.
///
/// # Safety
/// `errp` must be NULL or writable; `*errp` must be NULL, or an earlier error that is then kept.
pub(crate) unsafe fn give(errp: *mut *mut CError, error: Error) {
    // SAFETY: as the caller promised.
    if errp.is_null() || !unsafe { *errp }.is_null() {
        return;
    }
    let host = current::current().host();
    let owned = Owned::new(error);
    if host.give_error(errp as usize, owned.error.errno(), &owned.pretty) {
        return;
    }
    // SAFETY: as the caller promised.
    unsafe { *errp = castable::give(owned) }
}

/// Takes an error back from C, in the host's own form where it has one.
///
/// # Safety
/// `error` must be NULL or an error that C owned and transfers to the library.
pub(crate) unsafe fn take(error: *mut CError, code: i32) -> Option<Error> {
    if error.is_null() {
        return None;
    }
    if let Some(text) = current::current().host().take_error(error as usize) {
        return Some(Error::new(code, text));
    }
    // SAFETY: the host has no errors of its own, so this one came from `give`.
    unsafe { castable::take(error) }.map(|owned| owned.error)
}

/// Calls a function of C with a place for an error. Returns its result, and the error that it left there: with the errno that
/// `errno` makes of the result, if the host's own errors have none.
///
/// # Safety
/// `call` leaves NULL in that place, or an error that C owned and transfers to the library.
pub(crate) unsafe fn collect<T>(
    call: impl FnOnce(*mut *mut CError) -> T,
    errno: impl FnOnce(&T) -> i32,
) -> (T, Option<Error>) {
    let mut error = ptr::null_mut();
    let result = call(&raw mut error);
    let errno = errno(&result);
    // SAFETY: as the caller promised.
    (result, unsafe { take(error, errno) })
}

/// Our error behind a C pointer.
///
/// # Safety
/// `error` must be NULL or come from `give` of a host without errors of its own.
pub(crate) unsafe fn owned<'a>(error: *const CError) -> Option<&'a Owned> {
    // SAFETY: as the caller promised.
    unsafe { castable::object(error) }
}
