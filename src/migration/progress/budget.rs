// SPDX-License-Identifier: LGPL-2.1-or-later
//! The predicted downtime: the memory that is left at the measured bandwidth, saving the devices, loading them, the round
//! trips, and the rest (stopping and starting the guest, disks) as the last switchover took.

use super::{time_for, within};
use std::time::Duration;

/// Guesses take at most this part of the limit: a half.
const GUESSED_SHARE: u32 = 2;

/// The predicted downtime without the memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Saving the devices, as measured here.
    pub save: Duration,
    /// Loading the devices, as measured at a destination.
    pub load: Duration,
    /// The answers that the source waits for while the guest is stopped.
    pub round_trips: Duration,
    /// Everything else, as the last switchover took.
    pub rest: Duration,
    /// The part of `save` and `load` that was measured. A limit below that can't be met. What was not measured is a guess,
    /// and does not keep a migration from ending.
    pub measured: Duration,
}

impl Budget {
    /// Returns the time of the devices and the round trips.
    pub fn devices(&self) -> Duration {
        self.save + self.load + self.round_trips
    }

    /// Returns the predicted downtime if so many bytes are left and the link sends so many per second.
    pub fn predict(&self, bytes: u64, per_second: u64) -> Duration {
        time_for(bytes, per_second) + self.devices() + self.rest
    }

    /// Whether the devices alone need more than the limit.
    pub fn exceeds(&self, limit: Duration) -> bool {
        self.measured >= limit
    }

    /// Returns the time that the limit leaves for memory.
    pub fn time_for_memory(&self, limit: Duration) -> Duration {
        if self.exceeds(limit) {
            return Duration::ZERO;
        }
        let left = limit - self.measured;
        let guessed = (self.devices() + self.rest).saturating_sub(self.measured);
        left - guessed.min(left / GUESSED_SHARE)
    }

    /// Returns the bytes that may be left when the guest is stopped.
    pub fn threshold(&self, limit: Duration, per_second: u64) -> u64 {
        within(per_second, self.time_for_memory(limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn budget(save: u32, load: u32, rest: u32, is_measured: bool) -> Budget {
        let measured = if is_measured { MS * (save + load) } else { Duration::ZERO };
        Budget { save: MS * save, load: MS * load, round_trips: MS, rest: MS * rest, measured }
    }

    #[test]
    fn measured_devices_are_taken_off_the_limit() {
        let budget = budget(40, 59, 0, true);
        assert_eq!(budget.time_for_memory(300 * MS), 200 * MS);
        assert_eq!(budget.threshold(300 * MS, 1_000_000), 200_000);
        assert_eq!(budget.predict(100_000, 1_000_000), 200 * MS);
    }

    #[test]
    fn measured_devices_above_the_limit_leave_nothing() {
        let budget = budget(200, 100, 0, true);
        assert!(budget.exceeds(300 * MS) && !budget.exceeds(301 * MS));
        assert_eq!(budget.threshold(300 * MS, 1_000_000), 0);
    }

    #[test]
    fn guesses_never_take_more_than_half() {
        let budget = budget(500, 500, 500, false);
        assert!(!budget.exceeds(300 * MS));
        assert_eq!(budget.time_for_memory(300 * MS), 150 * MS);
    }

    proptest! {
        #[test]
        fn what_fits_keeps_to_the_limit(
            save in 0..200u32, load in 0..200u32, limit in 1..1000u32, rate in 1..10_000_000_000u64
        ) {
            let (budget, limit) = (budget(save, load, 0, true), MS * limit);
            let threshold = budget.threshold(limit, rate);
            // The round trips are a guess, which may take more than its share.
            prop_assert!(budget.exceeds(limit) || budget.predict(threshold, rate) <= limit + budget.round_trips);
        }
    }
}
