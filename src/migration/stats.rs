// SPDX-License-Identifier: LGPL-2.1-or-later
//! Statistics of one migration. Counters never decrease, also across a recovery.

use super::progress::Stall;
use super::status::Status;
use crate::error::{Error, Phase};
use crate::savevm::Vm;
use crate::savevm::device_costs::{DeviceCost, NamedCost};
use crate::savevm::handler::Pending;
use crate::savevm::owner::Owner;
use crate::sync::{Mutex, MutexGuard, Rank};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The result of `query`.
#[derive(Clone, Debug, Default)]
pub struct Info {
    /// The status of the migration.
    pub status: Status,
    /// The context's owner as of this migration.
    pub owner: Owner,
    /// Time from the begin of the migration to its end, or until now.
    pub total_time: Duration,
    /// From the beginning to the first round.
    pub setup_time: Duration,
    /// How long the guest was stopped: until the destination's verdict if there is a return path.
    pub downtime: Duration,
    /// How long the guest would be stopped if it were stopped now.
    pub expected_downtime: Duration,
    /// The downtime that was predicted when the guest was stopped.
    pub prediction: Option<Prediction>,
    /// The downtime limit in force.
    pub downtime_limit: Duration,
    /// How much is done, in percent. It never falls.
    pub percent: u32,
    /// Time from the begin of the migration to its end, as far as that can be foreseen.
    pub expected_total: Option<Duration>,
    /// Why the migration makes no progress.
    pub stall: Stall,
    /// Saving (or loading) devices in one piece.
    pub device_time: Duration,
    /// Bytes of their sections.
    pub device_bytes: u64,
    /// Bytes that went out, or (incoming) came in, over the wire.
    pub transferred: u64,
    /// What is left, by class.
    pub remaining: Pending,
    /// Rounds: how often every handler said that it had nothing more for now, also at the end of a postcopy.
    pub rounds: u64,
    /// Bytes per second in the last window in which anything was sent.
    pub bandwidth: u64,
    /// Bytes per second that the guest dirtied when that showed last.
    pub dirty_rate: u64,
    /// How much the guest is slowed down, in percent.
    pub throttle: u32,
    /// Requests for pages that came (source) or went (destination).
    pub page_requests: u64,
    /// Recoveries of a broken postcopy that succeeded.
    pub recoveries: u64,
    /// Whether the destination answers.
    pub return_path: bool,
    /// Whether both ends are of this library.
    pub peer_is_libsavevm: bool,
    /// Why a postcopy paused last, or why its last recovery failed. `None` once it goes on.
    pub pause_error: Option<Error>,
    /// Time in each phase of the work, in the order in which they first began.
    pub phases: Vec<(Phase, Duration)>,
    /// The slowest devices, with the time for their state.
    pub devices: Vec<(String, Duration)>,
}

/// A predicted downtime by its parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prediction {
    /// Sending the memory that is left.
    pub memory: Duration,
    /// Saving the devices.
    pub save: Duration,
    /// Loading the devices.
    pub load: Duration,
    /// Answers of the destination.
    pub round_trips: Duration,
    /// Stopping and starting the guest, disks.
    pub rest: Duration,
}

impl Prediction {
    /// Returns the sum.
    pub fn total(&self) -> Duration {
        self.memory + self.save + self.load + self.round_trips + self.rest
    }
}

impl Info {
    /// Returns the time that the migration has spent paused, in pauses that have ended.
    pub(super) fn time_paused(&self) -> Duration {
        self.phases.iter().filter(|(phase, _)| *phase == Phase::Paused).map(|(_, time)| *time).sum()
    }
}

/// One device that was saved or loaded in one piece.
#[derive(Clone, Debug)]
pub struct DeviceTime {
    /// Name; it stays at its address for as long as the migration.
    pub name: Arc<CStr>,
    /// Instance.
    pub instance: u32,
    /// Bytes of its section.
    pub bytes: u64,
    /// Time for its state.
    pub time: Duration,
    /// Source: time that the destination took to load it, once the destination has reported that.
    pub load: Option<Duration>,
}

/// By what devices are sorted, the largest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceOrder {
    /// As in the stream.
    #[default]
    Stream,
    /// Time to save it.
    SaveTime,
    /// Time to load it.
    LoadTime,
    /// Bytes of its section.
    Bytes,
}

/// Returns what the context knows of a device's cost, at that place of an order.
pub fn device_cost_by(vm: &Vm, order: DeviceOrder, index: usize) -> Option<NamedCost> {
    let mut costs = vm.slot.device_costs.list(&vm.registry);
    let key = |cost: &DeviceCost| match order {
        DeviceOrder::Stream => 0,
        DeviceOrder::SaveTime => cost.expected_save().unwrap_or_default().as_nanos(),
        DeviceOrder::LoadTime => cost.expected_load().unwrap_or_default().as_nanos(),
        DeviceOrder::Bytes => cost.bytes.into(),
    };
    // The sort keeps the order of the stream among equal ones.
    costs.sort_by_key(|device| Reverse(key(&device.cost)));
    (index < costs.len()).then(|| costs.swap_remove(index))
}

/// How many devices are remembered by name in `Info`.
const SLOWEST: usize = 16;
/// How many devices are remembered at all: a stream may repeat a section without end.
const MOST: usize = 1 << 16;

#[derive(Default)]
struct Devices {
    /// Every device, in the order of the stream.
    list: Vec<DeviceTime>,
    /// Where a device is in the list. Filled when the first load time is reported.
    places: HashMap<(Arc<CStr>, u32), usize>,
}

pub(super) struct Stats {
    info: Mutex<Info>,
    devices: Mutex<Devices>,
    /// Bytes that arrived, over all connections: counted on every read.
    received: AtomicU64,
    /// A read waits for the peer.
    reading: AtomicBool,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            info: Mutex::new(Rank::MigrationStats, Info::default()),
            devices: Mutex::new(Rank::MigrationStats, Devices::default()),
            received: AtomicU64::new(0),
            reading: AtomicBool::new(false),
        }
    }
}

impl Stats {
    pub fn get(&self) -> MutexGuard<'_, Info> {
        self.info.lock()
    }

    fn devices(&self) -> MutexGuard<'_, Devices> {
        self.devices.lock()
    }

    /// The device at that place of an order. On the destination the time is that of the load.
    pub fn device_by(&self, order: DeviceOrder, index: usize) -> Option<DeviceTime> {
        let devices = &self.devices().list;
        let key = |device: &DeviceTime| match order {
            DeviceOrder::Stream => 0,
            DeviceOrder::SaveTime => device.time.as_nanos(),
            DeviceOrder::LoadTime => device.load.unwrap_or(device.time).as_nanos(),
            DeviceOrder::Bytes => device.bytes.into(),
        };
        if order == DeviceOrder::Stream || index >= devices.len() {
            return devices.get(index).cloned();
        }
        let mut places: Vec<_> =
            devices.iter().enumerate().map(|(place, device)| (Reverse(key(device)), place)).collect();
        let (_, (_, place), _) = places.select_nth_unstable(index);
        devices.get(*place).cloned()
    }

    /// The devices that took longest, at most so many.
    pub fn slowest_devices(&self, most: usize) -> Vec<DeviceTime> {
        let mut devices = self.devices().list.clone();
        if devices.len() > most {
            devices.sort_by_key(|device| Reverse(device.time));
            devices.truncate(most);
        }
        devices
    }

    /// The destination reported the load time of devices.
    pub fn set_load_times(&self, times: &[(&[u8], u32, Duration)]) {
        let Devices { list, places } = &mut *self.devices();
        if places.is_empty() {
            *places =
                list.iter().enumerate().map(|(at, device)| ((device.name.clone(), device.instance), at)).collect();
        }
        for (name, instance, time) in times {
            let Ok(name) = CString::new(*name) else { continue };
            let place = places.get(&(Arc::from(name), *instance));
            if let Some(device) = place.and_then(|at| list.get_mut(*at)) {
                device.load = Some(*time);
            }
        }
    }

    /// So many bytes arrived.
    pub fn add_received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Relaxed);
    }

    /// Bytes that arrived.
    pub fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    /// A read begins, or ends.
    pub fn set_reading(&self, reading: bool) {
        self.reading.store(reading, Relaxed);
    }

    /// Whether a read waits for the peer.
    pub fn is_reading(&self) -> bool {
        self.reading.load(Relaxed)
    }

    /// So long was spent in a phase.
    pub fn phase(&self, name: Phase, time: Duration) {
        let mut info = self.get();
        match info.phases.iter_mut().find(|(other, _)| *other == name) {
            Some((_, total)) => *total += time,
            None => info.phases.push((name, time)),
        }
    }

    /// A device was saved or loaded in one piece.
    pub fn device(&self, name: &str, instance: u32, time: Duration, bytes: u64) {
        let whole = CString::new(name.replace('\0', "\u{fffd}")).unwrap_or_default().into();
        let mut devices = self.devices();
        if devices.list.len() < MOST {
            devices.list.push(DeviceTime { name: whole, instance, bytes, time, load: None });
        }
        drop(devices);
        let mut info = self.get();
        info.device_time += time;
        info.device_bytes += bytes;
        let at = info.devices.partition_point(|(_, other)| *other >= time);
        if at < SLOWEST {
            info.devices.insert(at, (name.to_owned(), time));
            info.devices.truncate(SLOWEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_devices_are_kept_in_order() {
        let stats = Stats::default();
        stats.phase(Phase::Setup, Duration::from_millis(1));
        stats.phase(Phase::Iterate, Duration::from_millis(2));
        stats.phase(Phase::Setup, Duration::from_millis(3));
        for ms in [5, 9, 1, 7] {
            stats.device(&format!("d{ms}"), 0, Duration::from_millis(ms), 10);
        }
        for _ in 0..40 {
            stats.device("fast", 0, Duration::ZERO, 1);
        }
        let info = stats.get();
        let names: Vec<_> = info.devices.iter().map(|(name, _)| name.as_str()).take(5).collect();
        let ms = Duration::from_millis;
        assert_eq!(info.phases, [(Phase::Setup, ms(4)), (Phase::Iterate, ms(2))]);
        assert_eq!(names, ["d9", "d7", "d5", "d1", "fast"]);
        assert_eq!((info.devices.len(), info.device_bytes, info.device_time), (SLOWEST, 80, Duration::from_millis(22)));
    }

    #[test]
    fn devices_are_sorted_by_what_is_asked_for() {
        let stats = Stats::default();
        let ms = Duration::from_millis;
        for (name, time, bytes) in [("a", 2, 30), ("b", 9, 10), ("c", 2, 20)] {
            stats.device(name, 1, ms(time), bytes);
        }
        stats.set_load_times(&[(b"a", 1, ms(1)), (b"c", 1, ms(50)), (b"b", 0, ms(99)), (b"x", 1, ms(99))]);
        let names = |order| -> String {
            let device = |at| stats.device_by(order, at).map(|device| device.name.to_string_lossy().into_owned());
            (0..9).map_while(device).collect()
        };
        assert_eq!(names(DeviceOrder::Stream), "abc");
        assert_eq!(names(DeviceOrder::SaveTime), "bac");
        assert_eq!(names(DeviceOrder::Bytes), "acb");
        assert_eq!(names(DeviceOrder::LoadTime), "cba", "b was not reported: its own time counts");
        assert_eq!(stats.device_by(DeviceOrder::Stream, 2).unwrap().load, Some(ms(50)));
        let slowest: Vec<_> = stats.slowest_devices(1).iter().map(|device| device.name.to_bytes().to_vec()).collect();
        assert_eq!(slowest, [b"b"]);
    }
}
