// SPDX-License-Identifier: LGPL-2.1-or-later
//! Statistics of one migration. Counters never decrease, also across a recovery.

use super::progress::Stall;
use super::status::Status;
use crate::error::{Error, Phase};
use crate::savevm::handler::Pending;
use crate::savevm::owner::Owner;
use crate::sync::{Mutex, MutexGuard, Rank};
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
}

/// How many devices are remembered by name in `Info`.
const SLOWEST: usize = 16;
/// How many devices are remembered at all: a stream may repeat a section without end.
const MOST: usize = 1 << 16;

pub(super) struct Stats {
    info: Mutex<Info>,
    /// Every device, in the order of the stream.
    devices: Mutex<Vec<DeviceTime>>,
    /// Bytes that arrived, over all connections: counted on every read.
    received: AtomicU64,
    /// A read waits for the peer.
    reading: AtomicBool,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            info: Mutex::new(Rank::MigrationStats, Info::default()),
            devices: Mutex::new(Rank::MigrationStats, Vec::new()),
            received: AtomicU64::new(0),
            reading: AtomicBool::new(false),
        }
    }
}

impl Stats {
    pub fn get(&self) -> MutexGuard<'_, Info> {
        self.info.lock()
    }

    fn devices(&self) -> MutexGuard<'_, Vec<DeviceTime>> {
        self.devices.lock()
    }

    /// The device at that place of the stream.
    pub fn device_at(&self, index: usize) -> Option<DeviceTime> {
        self.devices().get(index).cloned()
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
        if devices.len() < MOST {
            devices.push(DeviceTime { name: whole, instance, bytes, time });
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
}
