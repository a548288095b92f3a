// SPDX-License-Identifier: LGPL-2.1-or-later
//! Parameters, endpoints, status and statistics of a migration, between C and the library.

use crate::channel::{TlsOptions, Uri};
use crate::error::{Error, Phase, Result};
use crate::ffi::callbacks::channel_ops::CChannel;
use crate::ffi::exports::info::{
    SaveVMCompression, SaveVMDeadlineAction, SaveVMDeviceCost, SaveVMDeviceInfo, SaveVMDeviceOrder, SaveVMInfo,
    SaveVMMultifdFormat, SaveVMOwner, SaveVMParams, SaveVMReturnPath, SaveVMStallReason, SaveVMStatus, SaveVMTls,
};
use crate::ffi::marshal::{strings, structs};
use crate::ffi::types::channel_table::SaveVMChannelOps;
use crate::migration::{
    Choice, Compression, DeadlineAction, DeviceOrder, DeviceTime, Endpoint, Info, MultifdFormat, Owner, Params, Status,
};
use crate::savevm::device_costs::NamedCost;
use std::ffi::{OsStr, OsString, c_char, c_void};
use std::mem::MaybeUninit;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;
use std::time::Duration;

/// The URI, which owns the descriptor that it names: that is closed whatever follows.
///
/// # Safety
/// `uri` must be NULL or a terminated string.
pub(in crate::ffi) unsafe fn parse_uri(uri: *const c_char) -> Result<Uri> {
    // SAFETY: as the caller promised.
    let text = unsafe { strings::string(uri) }.ok_or_else(|| Error::invalid("the URI is NULL"))?;
    Uri::parse(OsStr::from_bytes(&text)).map(Uri::claim)
}

/// # Safety
/// As `parse_uri`.
pub(in crate::ffi) unsafe fn uri_endpoint(uri: *const c_char) -> Result<Endpoint> {
    // SAFETY: as the caller promised.
    unsafe { parse_uri(uri) }.map(Endpoint::Uri)
}

/// # Safety
/// The contract of savevm_file_from_channel().
pub(in crate::ffi) unsafe fn channel_endpoint(ops: *const SaveVMChannelOps, channel: *mut c_void) -> Result<Endpoint> {
    // SAFETY: as the caller promised.
    let channel = unsafe { CChannel::new(ops, channel) }?;
    let channel = channel.ok_or_else(|| Error::invalid("the channel's table is NULL"))?;
    Ok(Endpoint::Channel(Arc::new(channel)))
}

/// The parameters of a migration; `None` for NULL.
///
/// # Safety
/// `from` must be NULL or begin with its size; its strings are terminated.
pub(in crate::ffi) unsafe fn params(from: *const SaveVMParams) -> Result<Option<Params>> {
    // SAFETY: as the caller promised.
    let Some(from) = unsafe { structs::sized_struct(from) }? else { return Ok(None) };
    let mut params = Params::default();
    let time = |ms: u32| (ms != 0).then(|| Duration::from_millis(ms.into()));
    let or = |value: u32, default: u32| if value == 0 { default } else { value };
    params.max_bandwidth = from.max_bandwidth;
    params.max_postcopy_bandwidth = from.max_postcopy_bandwidth;
    params.downtime_limit = time(from.downtime_limit_ms).unwrap_or(params.downtime_limit);
    params.downtime_limit_max = time(from.downtime_limit_max_ms);
    params.downtime_step = time(from.downtime_step_ms);
    params.downtime_step_interval = time(from.downtime_step_interval_ms).unwrap_or(params.downtime_step_interval);
    params.deadline = time(from.deadline_ms);
    params.deadline_action = match structs::c_enum(from.deadline_action)? {
        SaveVMDeadlineAction::SAVEVM_DEADLINE_CANCEL => DeadlineAction::Cancel,
        SaveVMDeadlineAction::SAVEVM_DEADLINE_POSTCOPY => DeadlineAction::Postcopy,
        SaveVMDeadlineAction::SAVEVM_DEADLINE_FORCE => DeadlineAction::Force,
    };
    params.connect_timeout = time(from.connect_timeout_ms);
    params.handshake_timeout = time(from.handshake_timeout_ms).unwrap_or(params.handshake_timeout);
    params.stall_timeout = time(from.stall_timeout_ms);
    params.switchover_timeout = time(from.switchover_timeout_ms).unwrap_or(params.switchover_timeout);
    params.recover_timeout = time(from.recover_timeout_ms);
    params.return_path = match structs::c_enum(from.return_path)? {
        SaveVMReturnPath::SAVEVM_RETURN_PATH_AUTO => Choice::Auto,
        SaveVMReturnPath::SAVEVM_RETURN_PATH_ON => Choice::On,
        SaveVMReturnPath::SAVEVM_RETURN_PATH_OFF => Choice::Off,
    };
    params.channels = from.channels;
    params.compression = match structs::c_enum(from.compression)? {
        SaveVMCompression::SAVEVM_COMPRESSION_NONE => Compression::None,
        SaveVMCompression::SAVEVM_COMPRESSION_ZLIB => Compression::Zlib,
        SaveVMCompression::SAVEVM_COMPRESSION_ZSTD => Compression::Zstd,
        SaveVMCompression::SAVEVM_COMPRESSION_AUTO => Compression::Auto,
    };
    params.compression_level = u32::try_from(from.compression_level)
        .map_err(|_| Error::invalid(format!("the compression level {} is negative", from.compression_level)))?;
    params.multifd_format = match structs::c_enum(from.multifd_format)? {
        SaveVMMultifdFormat::SAVEVM_MULTIFD_AUTO => MultifdFormat::Auto,
        SaveVMMultifdFormat::SAVEVM_MULTIFD_7_2 => MultifdFormat::Qemu72,
        SaveVMMultifdFormat::SAVEVM_MULTIFD_8_1 => MultifdFormat::Qemu81,
        SaveVMMultifdFormat::SAVEVM_MULTIFD_9_0 => MultifdFormat::Qemu90,
    };
    params.throttle_initial = or(from.throttle_initial, params.throttle_initial).min(99);
    params.throttle_increment = or(from.throttle_increment, params.throttle_increment).min(99);
    params.throttle_max = or(from.throttle_max, params.throttle_max).min(99);
    params.postcopy = from.postcopy;
    params.auto_converge = from.auto_converge;
    params.pause_before_switchover = from.pause_before_switchover;
    params.own_thread = !from.no_thread;
    params.autostart = !from.no_autostart;
    params.strict = from.strict;
    params.one_connection = from.one_connection;
    params.extensions = !from.no_extensions;
    params.preflight = !from.no_preflight;
    // SAFETY: as the caller promised.
    params.trace = unsafe { strings::string(from.trace) }.map(|path| OsString::from_vec(path).into());
    // SAFETY: as the caller promised.
    params.tls = unsafe { tls(from.tls) }?.map(Arc::new);
    Ok(Some(params))
}

/// Most names in `SaveVMTls.allowed_peers`: more is taken for a list without an end.
const ALLOWED_PEERS_MAX: usize = 4096;

/// What is set for TLS; `None` for NULL.
///
/// # Safety
/// `from` must be NULL or begin with its size; its strings and its list are terminated.
unsafe fn tls(from: *const SaveVMTls) -> Result<Option<TlsOptions>> {
    // SAFETY: as the caller promised.
    let Some(from) = (unsafe { structs::sized_struct(from) })? else { return Ok(None) };
    // SAFETY: as the caller promised.
    let (dir, hostname) = unsafe { (strings::string(from.dir), strings::string(from.hostname)) };
    let dir = dir.filter(|dir| !dir.is_empty());
    let dir =
        dir.ok_or_else(|| Error::invalid("SaveVMTls.dir is not set: it names the directory of the certificates"))?;
    // SAFETY: as the caller promised.
    let allowed_peers = unsafe { allowed_peers(from.allowed_peers) }?;
    Ok(Some(TlsOptions {
        dir: OsString::from_vec(dir).into(),
        hostname: hostname.map(|name| utf8(name, "SaveVMTls.hostname")).transpose()?.filter(|name| !name.is_empty()),
        verify_peer: from.verify_peer,
        allowed_peers,
    }))
}

/// # Safety
/// `list` must be NULL, or an array of terminated strings that ends with NULL.
unsafe fn allowed_peers(list: *const *const c_char) -> Result<Option<Vec<String>>> {
    if list.is_null() {
        return Ok(None);
    }
    let mut names = Vec::new();
    for at in 0..=ALLOWED_PEERS_MAX {
        // SAFETY: the entries before this one were not NULL.
        match unsafe { strings::string(*list.add(at)) } {
            Some(name) => names.push(utf8(name, "SaveVMTls.allowed_peers")?),
            None => return Ok(Some(names)),
        }
    }
    Err(Error::invalid(format!(
        "SaveVMTls.allowed_peers has more than {ALLOWED_PEERS_MAX} names, or does not end with NULL"
    )))
}

fn utf8(text: Vec<u8>, member: &str) -> Result<String> {
    String::from_utf8(text).map_err(|_| Error::invalid(format!("{member} is not UTF-8")))
}

/// A status as C sees it, with QEMU's name of it.
pub(in crate::ffi) fn c_status(status: Status) -> (SaveVMStatus, *const c_char) {
    use SaveVMStatus::*;
    let (status, name) = match status {
        Status::None => (SAVEVM_STATUS_NONE, c"none"),
        Status::Setup => (SAVEVM_STATUS_SETUP, c"setup"),
        Status::Cancelling => (SAVEVM_STATUS_CANCELLING, c"cancelling"),
        Status::Cancelled => (SAVEVM_STATUS_CANCELLED, c"cancelled"),
        Status::Active => (SAVEVM_STATUS_ACTIVE, c"active"),
        Status::PostcopyActive => (SAVEVM_STATUS_POSTCOPY_ACTIVE, c"postcopy-active"),
        Status::PostcopyPaused => (SAVEVM_STATUS_POSTCOPY_PAUSED, c"postcopy-paused"),
        Status::PostcopyRecover => (SAVEVM_STATUS_POSTCOPY_RECOVER, c"postcopy-recover"),
        Status::Completed => (SAVEVM_STATUS_COMPLETED, c"completed"),
        Status::Failed => (SAVEVM_STATUS_FAILED, c"failed"),
        Status::Colo => (SAVEVM_STATUS_COLO, c"colo"),
        Status::PreSwitchover => (SAVEVM_STATUS_PRE_SWITCHOVER, c"pre-switchover"),
        Status::Device => (SAVEVM_STATUS_DEVICE, c"device"),
        Status::WaitUnplug => (SAVEVM_STATUS_WAIT_UNPLUG, c"wait-unplug"),
    };
    (status, name.as_ptr())
}

/// The order of devices that C means.
pub(in crate::ffi) fn device_order(order: MaybeUninit<SaveVMDeviceOrder>) -> Result<DeviceOrder> {
    Ok(match structs::c_enum(order)? {
        SaveVMDeviceOrder::SAVEVM_DEVICES_IN_STREAM => DeviceOrder::Stream,
        SaveVMDeviceOrder::SAVEVM_DEVICES_BY_SAVE_TIME => DeviceOrder::SaveTime,
        SaveVMDeviceOrder::SAVEVM_DEVICES_BY_LOAD_TIME => DeviceOrder::LoadTime,
        SaveVMDeviceOrder::SAVEVM_DEVICES_BY_BYTES => DeviceOrder::Bytes,
    })
}

/// The reason of a stall as C sees it.
pub(in crate::ffi) fn c_stall(number: i32) -> SaveVMStallReason {
    use SaveVMStallReason::*;
    [
        SAVEVM_STALL_DIRTY_RATE,
        SAVEVM_STALL_MAX_BANDWIDTH,
        SAVEVM_STALL_DEVICES,
        SAVEVM_STALL_PEER_NOT_READING,
        SAVEVM_STALL_PEER_NOT_SENDING,
        SAVEVM_STALL_PEER_NOT_ANSWERING,
        SAVEVM_STALL_SWITCHOVER_ACK,
    ]
    .into_iter()
    .find(|reason| *reason as i32 == number)
    .unwrap_or(SAVEVM_STALL_NONE)
}

/// The owner that C means.
pub(in crate::ffi) fn owner_from_c(owner: SaveVMOwner) -> Owner {
    match owner {
        SaveVMOwner::SAVEVM_OWNER_HERE => Owner::Here,
        SaveVMOwner::SAVEVM_OWNER_THERE => Owner::There,
        SaveVMOwner::SAVEVM_OWNER_UNKNOWN => Owner::Unknown,
        SaveVMOwner::SAVEVM_OWNER_TORN => Owner::Torn,
    }
}

/// An owner as C sees it.
pub(in crate::ffi) fn c_owner(owner: Owner) -> SaveVMOwner {
    match owner {
        Owner::Here => SaveVMOwner::SAVEVM_OWNER_HERE,
        Owner::There => SaveVMOwner::SAVEVM_OWNER_THERE,
        Owner::Unknown => SaveVMOwner::SAVEVM_OWNER_UNKNOWN,
        Owner::Torn => SaveVMOwner::SAVEVM_OWNER_TORN,
    }
}

pub(in crate::ffi) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What C gets of a device; its name is owned by the migration.
pub(in crate::ffi) fn device_info(from: &DeviceTime, incoming: bool) -> SaveVMDeviceInfo {
    let time = micros(from.time);
    SaveVMDeviceInfo {
        size: size_of::<SaveVMDeviceInfo>(),
        name: from.name.as_ptr(),
        instance_id: from.instance,
        bytes: from.bytes,
        save_time_us: if incoming { 0 } else { time },
        load_time_us: if incoming { time } else { micros(from.load.unwrap_or_default()) },
    }
}

/// What C gets of a device's cost. A name that does not fit is cut.
pub(in crate::ffi) fn device_cost(from: &NamedCost) -> SaveVMDeviceCost {
    let cost = &from.cost;
    let mut c_cost = SaveVMDeviceCost {
        size: size_of::<SaveVMDeviceCost>(),
        name: [0; 256],
        instance_id: from.instance,
        bytes: cost.bytes,
        save_time_us: micros(cost.expected_save().unwrap_or_default()),
        load_time_us: micros(cost.expected_load().unwrap_or_default()),
    };
    let last = c_cost.name.len() - 1;
    for (to, from) in c_cost.name[..last].iter_mut().zip(from.name.bytes()) {
        *to = from as c_char;
    }
    c_cost
}

/// What C gets of a migration's statistics.
pub(in crate::ffi) fn info(from: &Info) -> SaveVMInfo {
    let (status, status_name) = c_status(from.status);
    let phase = |phases: &[Phase]| {
        micros(from.phases.iter().filter(|(phase, _)| phases.contains(phase)).map(|(_, time)| *time).sum())
    };
    let predicted = from.prediction.unwrap_or_default();
    SaveVMInfo {
        size: size_of::<SaveVMInfo>(),
        status,
        owner: c_owner(from.owner),
        status_name,
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
        peer_is_libsavevm: from.peer_is_libsavevm,
        precopy_time_us: phase(&[Phase::Iterate, Phase::Load]),
        switchover_time_us: phase(&[Phase::Stop, Phase::Complete, Phase::Start]),
        postcopy_time_us: phase(&[Phase::Postcopy]),
        paused_time_us: phase(&[Phase::Paused]),
        percent: from.percent,
        stall: c_stall(from.stall.reason as i32),
        expected_total_time_us: micros(from.expected_total.unwrap_or_default()),
        stall_excess: from.stall.excess,
        downtime_limit_us: micros(from.downtime_limit),
        predicted_downtime_us: micros(predicted.total()),
        predicted_memory_us: micros(predicted.memory),
        predicted_save_us: micros(predicted.save),
        predicted_load_us: micros(predicted.load),
        predicted_round_trips_us: micros(predicted.round_trips),
        predicted_rest_us: micros(predicted.rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::marshal::structs::give_sized;
    use std::ffi::{CStr, c_int};
    use std::mem::{offset_of, zeroed};

    #[test]
    fn a_status_for_c_has_the_number_and_the_name_of_qemu() {
        for status in Status::ALL {
            let (number, name) = c_status(status);
            // SAFETY: the names are terminated.
            let name = unsafe { CStr::from_ptr(name) };
            assert_eq!((number as c_int, name.to_str()), (status as c_int, Ok(status.name())));
        }
    }

    #[test]
    fn an_info_without_room_for_the_first_release_is_refused() {
        let from = info(&Info { status: Status::Failed, ..Info::default() });
        let mut to = info(&Info::default());
        for size in [0, offset_of!(SaveVMInfo, status_name), offset_of!(SaveVMInfo, paused_time_us)] {
            to.size = size;
            // SAFETY: the struct is larger than its size says.
            let error = unsafe { give_sized(&raw mut to, &from) }.unwrap_err().to_string();
            assert!(error.contains("SaveVMInfo.size") && error.contains("SAVEVM_INFO_INIT"), "{error}");
            assert_eq!((to.status, to.size), (SaveVMStatus::SAVEVM_STATUS_NONE, size));
        }
        to.size = size_of::<SaveVMInfo>();
        // SAFETY: as above.
        assert!(unsafe { give_sized(&raw mut to, &from) }.is_ok());
        assert_eq!((to.status, to.size), (SaveVMStatus::SAVEVM_STATUS_FAILED, size_of::<SaveVMInfo>()));
    }

    #[test]
    fn tls_is_read_with_its_list_of_names() {
        let names = [c"CN=a".as_ptr(), c"CN=b,O=x".as_ptr(), std::ptr::null()];
        let mut from = SaveVMTls {
            size: size_of::<SaveVMTls>(),
            dir: c"/etc/pki".as_ptr(),
            hostname: c"".as_ptr(),
            verify_peer: true,
            allowed_peers: names.as_ptr(),
        };
        // SAFETY: the struct is readable for its size, and its list ends with NULL.
        let read = |from: &SaveVMTls| unsafe { tls(from) };
        let options = read(&from).unwrap().unwrap();
        assert_eq!((options.dir.to_str(), options.hostname, options.verify_peer), (Some("/etc/pki"), None, true));
        assert_eq!(options.allowed_peers.unwrap(), ["CN=a", "CN=b,O=x"]);
        from.allowed_peers = std::ptr::null();
        assert_eq!(read(&from).unwrap().unwrap().allowed_peers, None);
        from.hostname = c"\xff".as_ptr();
        assert!(read(&from).unwrap_err().message().contains("SaveVMTls.hostname is not UTF-8"));
        from.dir = std::ptr::null();
        assert!(read(&from).unwrap_err().message().contains("SaveVMTls.dir is not set"));
        from.size = 8;
        assert!(read(&from).unwrap_err().message().contains("SAVEVM_TLS_INIT"));
    }

    #[test]
    fn parameters_without_a_size_or_with_an_unknown_enumerator_are_refused() {
        // SAFETY: NULL and 0 are values of every member.
        let mut from: SaveVMParams = unsafe { zeroed() };
        // SAFETY: the struct is readable for its size.
        let refused = |from: &SaveVMParams| unsafe { params(from) }.map(|_| ()).unwrap_err().to_string();
        assert!(refused(&from).contains("SAVEVM_PARAMS_INIT"));
        from.size = size_of::<SaveVMParams>();
        // SAFETY: C can store any number.
        from.return_path = unsafe { std::mem::transmute::<c_int, MaybeUninit<SaveVMReturnPath>>(77) };
        assert!(refused(&from).contains("77 is no value of SaveVMReturnPath"));
        from.return_path = MaybeUninit::new(SaveVMReturnPath::SAVEVM_RETURN_PATH_OFF);
        // SAFETY: as above.
        assert_eq!(unsafe { params(&raw const from) }.unwrap().unwrap().return_path, Choice::Off);
    }
}
