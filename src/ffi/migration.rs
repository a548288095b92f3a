// SPDX-License-Identifier: LGPL-2.1-or-later
//! Between the driver and its C surface: handles, parameters, numbers, errors.

use super::api::migration::{
    SAVEVM_RETURN_PATH_OFF, SAVEVM_RETURN_PATH_ON, SaveVMDeviceTime, SaveVMInfo, SaveVMParams,
};
use super::api::types::SaveVMChannelOps;
use super::channel::CChannel;
use super::guard::{guard, guard_error};
use super::types::{Error as CError, MigrationIncomingState, MigrationState};
use super::{bytes, context, error};
use crate::channel::Uri;
use crate::error::{Error, Phase, Result};
use crate::migration::{Choice, Endpoint, Incoming, Info, Migration, Outgoing, Params, Status};
use std::ffi::{OsStr, OsString, c_char, c_int, c_void};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;
use std::time::Duration;

/// # Safety
/// `m` must be NULL or come from `Arc::into_raw` and be alive.
unsafe fn shared<T>(m: *const T) -> Option<Arc<T>> {
    // SAFETY: as the caller promised.
    (!m.is_null()).then(|| unsafe {
        Arc::increment_strong_count(m);
        Arc::from_raw(m)
    })
}

/// The migration behind a C pointer.
///
/// # Safety
/// `m` must be NULL or an outgoing migration that is alive.
pub(super) unsafe fn outgoing(m: *mut MigrationState) -> Option<Arc<Outgoing>> {
    // SAFETY: as the caller promised.
    unsafe { shared(m.cast_const().cast()) }
}

/// The migration behind a C pointer.
///
/// # Safety
/// `m` must be NULL or an incoming migration that is alive.
pub(super) unsafe fn incoming(m: *mut MigrationIncomingState) -> Option<Arc<Incoming>> {
    // SAFETY: as the caller promised.
    unsafe { shared(m.cast_const().cast()) }
}

/// Runs `body` for a migration's machine; `-EINVAL` for NULL.
pub(super) fn on_machine<M: Migration>(m: Option<Arc<M>>, body: impl FnOnce(&Arc<M>) -> c_int) -> c_int {
    guard(-libc::EIO, || match m {
        Some(m) => context::with(m.vm(), || body(&m)),
        None => -libc::EINVAL,
    })
}

/// As `on_machine`, for what tells its error; without a migration that is the error.
///
/// # Safety
/// `errp` must be NULL or point to NULL.
pub(super) unsafe fn try_on_machine<M: Migration>(
    m: Option<Arc<M>>,
    errp: *mut *mut CError,
    body: impl FnOnce(&Arc<M>) -> Result<()>,
) -> c_int {
    let on = || match m {
        // SAFETY: as the caller promised.
        Some(m) => context::with(m.vm(), || unsafe { code(errp, body(&m)) }),
        // SAFETY: as above.
        None => unsafe { code(errp, Err(Error::invalid("there is no migration"))) },
    };
    // SAFETY: as above.
    unsafe { guard_error(errp, -libc::EIO, on) }
}

/// Hands an error to C; the value if there is none.
///
/// # Safety
/// `errp` must be NULL or point to NULL.
pub(super) unsafe fn give_result<T>(errp: *mut *mut CError, result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(err) => {
            // SAFETY: as the caller promised.
            unsafe { error::give(errp, err) };
            None
        }
    }
}

/// 0, or -errno with the error in `*errp`.
///
/// # Safety
/// `errp` must be NULL or point to NULL.
pub(super) unsafe fn code(errp: *mut *mut CError, result: Result<()>) -> c_int {
    let code = result.as_ref().map_or_else(Error::code, |()| 0);
    // SAFETY: as the caller promised.
    unsafe { give_result(errp, result) };
    code
}

/// # Safety
/// `uri` must be NULL or a terminated string.
pub(super) unsafe fn parse_uri(uri: *const c_char) -> Result<Uri> {
    // SAFETY: as the caller promised.
    let text = unsafe { bytes::string(uri) }.ok_or_else(|| Error::invalid("the URI is NULL"))?;
    Uri::parse(OsStr::from_bytes(&text))
}

/// # Safety
/// As `parse_uri`.
pub(super) unsafe fn uri_endpoint(uri: *const c_char) -> Result<Endpoint> {
    // SAFETY: as the caller promised.
    unsafe { parse_uri(uri) }.map(Endpoint::Uri)
}

/// # Safety
/// The contract of savevm_file_from_channel().
pub(super) unsafe fn channel_endpoint(ops: *const SaveVMChannelOps, channel: *mut c_void) -> Result<Endpoint> {
    // SAFETY: as the caller promised.
    let channel = unsafe { CChannel::new(ops, channel) };
    let channel = channel.ok_or_else(|| Error::invalid("the channel's table is NULL"))?;
    Ok(Endpoint::Channel(Arc::new(channel)))
}

/// # Safety
/// `from` must be NULL or begin with its size; its strings are terminated.
pub(super) unsafe fn params(from: *const SaveVMParams) -> Params {
    let mut params = Params::default();
    // SAFETY: as the caller promised; all members are numbers and a nullable pointer.
    let Some(from) = (unsafe { bytes::sized_struct(from) }) else { return params };
    let time = |ms: u32| (ms != 0).then(|| Duration::from_millis(ms.into()));
    let or = |value: u32, default: u32| if value == 0 { default } else { value };
    params.max_bandwidth = from.max_bandwidth;
    params.max_postcopy_bandwidth = from.max_postcopy_bandwidth;
    params.downtime_limit = time(from.downtime_limit_ms).unwrap_or(params.downtime_limit);
    params.connect_timeout = time(from.connect_timeout_ms);
    params.handshake_timeout = time(from.handshake_timeout_ms).unwrap_or(params.handshake_timeout);
    params.stall_timeout = time(from.stall_timeout_ms);
    params.switchover_timeout = time(from.switchover_timeout_ms).unwrap_or(params.switchover_timeout);
    params.recover_timeout = time(from.recover_timeout_ms);
    params.return_path = match from.return_path {
        SAVEVM_RETURN_PATH_ON => Choice::On,
        SAVEVM_RETURN_PATH_OFF => Choice::Off,
        _ => Choice::Auto,
    };
    params.throttle_initial = or(from.throttle_initial, params.throttle_initial).min(99);
    params.throttle_increment = or(from.throttle_increment, params.throttle_increment).min(99);
    params.throttle_max = or(from.throttle_max, params.throttle_max).min(99);
    params.postcopy = from.postcopy;
    params.auto_converge = from.auto_converge;
    params.pause_before_switchover = from.pause_before_switchover;
    params.own_thread = !from.no_thread;
    params.autostart = !from.no_autostart;
    params.extensions = !from.no_extensions;
    // SAFETY: as the caller promised.
    params.trace = unsafe { bytes::string(from.trace) }.map(|path| OsString::from_vec(path).into());
    params
}

/// QEMU's name of a status, for C.
pub(super) fn status_name(status: Status) -> *const c_char {
    let name: &'static [u8] = match status {
        Status::None => b"none\0",
        Status::Setup => b"setup\0",
        Status::Cancelling => b"cancelling\0",
        Status::Cancelled => b"cancelled\0",
        Status::Active => b"active\0",
        Status::PostcopyActive => b"postcopy-active\0",
        Status::PostcopyPaused => b"postcopy-paused\0",
        Status::PostcopyRecover => b"postcopy-recover\0",
        Status::Completed => b"completed\0",
        Status::Failed => b"failed\0",
        Status::Colo => b"colo\0",
        Status::PreSwitchover => b"pre-switchover\0",
        Status::Device => b"device\0",
        Status::WaitUnplug => b"wait-unplug\0",
    };
    name.as_ptr().cast()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn device(name: &str, time: Duration) -> SaveVMDeviceTime {
    let mut device = SaveVMDeviceTime { name: [0; 64], time_us: micros(time) };
    let room = device.name.len() - 1;
    for (to, from) in device.name[..room].iter_mut().zip(name.bytes()) {
        *to = from as c_char;
    }
    device
}

fn info(from: &Info) -> SaveVMInfo {
    let mut devices = [SaveVMDeviceTime { name: [0; 64], time_us: 0 }; 16];
    for (to, (name, time)) in devices.iter_mut().zip(&from.devices) {
        *to = device(name, *time);
    }
    let phase = |phases: &[Phase]| {
        micros(from.phases.iter().filter(|(phase, _)| phases.contains(phase)).map(|(_, time)| *time).sum())
    };
    SaveVMInfo {
        size: size_of::<SaveVMInfo>(),
        status: from.status as c_int,
        owner: from.owner as c_int,
        status_name: status_name(from.status),
        total_time_us: micros(from.total_time),
        setup_time_us: micros(from.setup_time),
        downtime_us: micros(from.downtime),
        expected_downtime_us: micros(from.expected_downtime),
        device_time_us: micros(from.device_time),
        device_bytes: from.device_bytes,
        transferred: from.transferred,
        remaining_precopy_only: from.remaining.precopy_only,
        remaining_compatible: from.remaining.compatible,
        remaining_postcopy_only: from.remaining.postcopy_only,
        rounds: from.rounds,
        bandwidth: from.bandwidth,
        dirty_rate: from.dirty_rate,
        page_requests: from.page_requests,
        recoveries: from.recoveries,
        throttle: from.throttle,
        return_path: from.return_path,
        extended: from.peer_is_libsavevm,
        devices,
        precopy_time_us: phase(&[Phase::Iterate, Phase::Load]),
        switchover_time_us: phase(&[Phase::Stop, Phase::Complete, Phase::Start]),
        postcopy_time_us: phase(&[Phase::Postcopy]),
        paused_time_us: phase(&[Phase::Paused]),
    }
}

/// Fills in what the caller has room for.
///
/// # Safety
/// `to` must be NULL or begin with its size and be writable for that.
pub(super) unsafe fn fill_info(to: *mut SaveVMInfo, from: &Info) -> c_int {
    // SAFETY: as the caller promised.
    unsafe { bytes::give_sized(to, &info(from)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;
    use std::mem::offset_of;

    #[test]
    fn names_for_c_are_the_names() {
        for status in Status::ALL {
            // SAFETY: the names are terminated.
            let name = unsafe { CStr::from_ptr(status_name(status)) };
            assert_eq!(name.to_str(), Ok(status.name()));
        }
    }

    #[test]
    fn a_shorter_info_is_not_written_past_its_end() {
        let mut to = info(&Info::default());
        to.size = offset_of!(SaveVMInfo, status_name);
        to.total_time_us = 77;
        let from = Info { status: Status::Failed, total_time: Duration::from_secs(1), ..Info::default() };
        // SAFETY: the struct is larger than its size says.
        assert_eq!(unsafe { fill_info(&raw mut to, &from) }, 0);
        assert_eq!((to.status, to.total_time_us, to.size), (9, 77, offset_of!(SaveVMInfo, status_name)));
    }
}
