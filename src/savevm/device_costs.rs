// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the devices of a context cost in a switchover: the time to save each of them here, and to load it at the
//! destination. The context keeps the costs between migrations, so that the next one can predict its downtime.
//!
//! # Writers
//! - The driver calls `set_saved` for every device that it saves whole.
//! - A rehearsal calls `set_saved` for every device that it saved, and `set_loaded` for every load time that the
//!   destination reports.
//! - The return path calls `set_loaded` for the load times that a destination reports at the end of a migration.
//! - An incoming migration calls `set_loaded_here` for every device that it loads. If no better figure is known, that time
//!   stands for both directions: the guest may go back, or on to a similar machine.
//!
//! A new time is averaged with the one that was known, since a busy machine makes single measurements wrong.
//!
//! Names are idstrs with the path, as in a section. Any thread may call, with or without the big lock.

use super::registry::{Entry, Registry};
use crate::sync::{Mutex, Rank};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Maximum number of devices that are remembered.
pub const DEVICES_MAX: usize = 1 << 16;

/// What is known of one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCost {
    /// Time to save it here.
    pub save: Option<Duration>,
    /// Time to load it at a destination, as that reported.
    pub load: Option<Duration>,
    /// Time to load it here, when it arrived.
    pub load_here: Option<Duration>,
    /// Bytes of its section.
    pub bytes: u64,
}

impl DeviceCost {
    /// Returns the expected time to save it. A load is the best guess if it was never saved.
    pub fn expected_save(&self) -> Option<Duration> {
        self.save.or(self.load_here)
    }

    /// Returns the expected time to load it at a destination.
    pub fn expected_load(&self) -> Option<Duration> {
        self.load.or(self.load_here)
    }

    /// Returns the expected time in a switchover.
    pub fn expected(&self) -> Duration {
        self.expected_save().unwrap_or_default() + self.expected_load().unwrap_or_default()
    }
}

/// One device with its cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedCost {
    /// Idstr, with the path.
    pub name: String,
    /// Instance id.
    pub instance: u32,
    /// Its cost.
    pub cost: DeviceCost,
}

/// The devices that a switchover will save, in sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CostSum {
    /// Time to save all devices whose time is known.
    pub save: Duration,
    /// Time to load all devices whose time is known.
    pub load: Duration,
    /// The part of both that was measured, and is not a guess from a load here.
    pub measured: Duration,
    /// Bytes of their sections.
    pub bytes: u64,
    /// Number of registered devices.
    pub devices: usize,
    /// Number of those of which nothing is known.
    pub unknown: usize,
    /// The most expensive devices, from the most expensive one on.
    pub slowest: Vec<NamedCost>,
}

/// Number of devices in `CostSum::slowest`.
pub const SLOWEST: usize = 8;

#[derive(Default)]
struct Inner {
    devices: HashMap<(Box<[u8]>, u32), DeviceCost>,
    /// Times of the last switchovers beside memory, devices and round trips.
    rests: VecDeque<Duration>,
}

/// Number of switchovers whose rest is remembered.
const RESTS: usize = 15;

/// The costs of all devices of a context. See the module.
pub struct DeviceCosts(Mutex<Inner>);

impl Default for DeviceCosts {
    fn default() -> Self {
        Self(Mutex::new(Rank::DeviceCosts, Inner::default()))
    }
}

/// One measurement is often an accident: a new one is averaged with what was known.
fn average(known: Option<Duration>, new: Duration) -> Option<Duration> {
    Some(known.map_or(new, |known| (known + new) / 2))
}

impl DeviceCosts {
    fn update(&self, name: &[u8], instance: u32, change: impl FnOnce(&mut DeviceCost)) {
        let mut inner = self.0.lock();
        let is_full = inner.devices.len() >= DEVICES_MAX;
        let key = (Box::from(name), instance);
        if !is_full || inner.devices.contains_key(&key) {
            change(inner.devices.entry(key).or_default());
        }
    }

    /// Records that a device was saved here.
    pub fn set_saved(&self, name: &[u8], instance: u32, bytes: u64, time: Duration) {
        self.update(name, instance, |cost| {
            cost.save = average(cost.save, time);
            cost.bytes = bytes;
        });
    }

    /// Records that a destination has loaded a device in that time.
    pub fn set_loaded(&self, name: &[u8], instance: u32, time: Duration) {
        self.update(name, instance, |cost| cost.load = average(cost.load, time));
    }

    /// Records that a device was loaded here.
    pub fn set_loaded_here(&self, name: &[u8], instance: u32, bytes: u64, time: Duration) {
        self.update(name, instance, |cost| {
            cost.load_here = average(cost.load_here, time);
            cost.bytes = bytes;
        });
    }

    /// Records the time of a switchover beside memory, devices and round trips: stopping and starting the guest, disks.
    pub fn set_rest(&self, time: Duration) {
        let rests = &mut self.0.lock().rests;
        if rests.len() == RESTS {
            rests.pop_front();
        }
        rests.push_back(time);
    }

    /// Returns the median of the times that `set_rest` recorded last, or 0. The times of single switchovers vary widely.
    pub fn rest(&self) -> Duration {
        let mut rests: Vec<_> = self.0.lock().rests.iter().copied().collect();
        rests.sort();
        rests.get(rests.len() / 2).copied().unwrap_or_default()
    }

    /// Returns what is known of one device.
    pub fn get(&self, name: &[u8], instance: u32) -> Option<DeviceCost> {
        self.0.lock().devices.get(&(Box::from(name), instance)).copied()
    }

    /// Returns the devices that are registered now, are saved whole, and of which something is known, in the order of a stream.
    pub fn list(&self, registry: &Registry) -> Vec<NamedCost> {
        let named = |entry: &Entry| {
            let cost = self.get(&entry.idstr, entry.instance_id)?;
            Some(NamedCost { name: entry.name(), instance: entry.instance_id, cost })
        };
        registry.walk().filter(|entry| !entry.is_live).filter_map(|entry| named(&entry)).collect()
    }

    /// Returns the sum over the devices that are registered now and are saved whole.
    pub fn sum(&self, registry: &Registry) -> CostSum {
        let mut sum = CostSum::default();
        for entry in registry.walk().filter(|entry| !entry.is_live) {
            sum.devices += 1;
            let Some(cost) = self.get(&entry.idstr, entry.instance_id) else {
                sum.unknown += 1;
                continue;
            };
            sum.save += cost.expected_save().unwrap_or_default();
            sum.load += cost.expected_load().unwrap_or_default();
            sum.measured += cost.save.unwrap_or_default() + cost.load.unwrap_or_default();
            sum.bytes += cost.bytes;
            let at = sum.slowest.partition_point(|other| other.cost.expected() >= cost.expected());
            if at < SLOWEST {
                sum.slowest.insert(at, NamedCost { name: entry.name(), instance: entry.instance_id, cost });
                sum.slowest.truncate(SLOWEST);
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_load_here_stands_for_what_was_never_measured() {
        let costs = DeviceCosts::default();
        costs.set_loaded_here(b"disk", 0, 10, 4 * MS);
        let cost = costs.get(b"disk", 0).unwrap();
        assert_eq!((cost.expected_save(), cost.expected_load()), (Some(4 * MS), Some(4 * MS)));
        costs.set_saved(b"disk", 0, 12, MS);
        costs.set_loaded(b"disk", 0, 7 * MS);
        let cost = costs.get(b"disk", 0).unwrap();
        assert_eq!((cost.expected(), cost.bytes), (8 * MS, 12));
        assert_eq!(costs.get(b"disk", 1), None);
    }

    #[test]
    fn the_rest_is_the_median_of_the_last_ones() {
        let costs = DeviceCosts::default();
        assert_eq!(costs.rest(), Duration::ZERO);
        for ms in [1, 2, 900] {
            costs.set_rest(MS * ms);
        }
        assert_eq!(costs.rest(), 2 * MS);
        (0..RESTS).for_each(|_| costs.set_rest(7 * MS));
        assert_eq!(costs.rest(), 7 * MS);
    }

    #[test]
    fn the_number_of_devices_is_limited() {
        let costs = DeviceCosts::default();
        for instance in 0..DEVICES_MAX as u32 + 10 {
            costs.set_loaded(b"d", instance, MS);
        }
        costs.set_loaded(b"d", 0, 3 * MS);
        assert_eq!(costs.0.lock().devices.len(), DEVICES_MAX);
        assert_eq!(costs.get(b"d", 0).unwrap().load, Some(2 * MS), "the average of both");
    }
}
