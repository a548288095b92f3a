// SPDX-License-Identifier: LGPL-2.1-or-later
//! When a migration will end, and when to switch over. The functions are pure: they compute decisions from numbers and use no
//! clock, I/O or lock.
//!
//! - `flow.rs`: how fast memory is sent and how fast the guest writes to it, from what the source sees in each round.
//! - `estimate.rs`: the time to the end, from these speeds; and the percentage that never falls.
//! - `budget.rs`: the predicted downtime: memory, devices, round trips, the rest.
//! - `decision.rs`: whether to stop the guest now: the limit, its steps, the local minimum.
//! - `stall.rs`: why a migration makes no progress.

mod budget;
mod decision;
mod estimate;
mod flow;
#[cfg(test)]
mod simulation;
mod stall;

pub use budget::Budget;
pub use decision::{Decision, Limits, Look, Switchover};
pub use estimate::{Estimate, Percent, Throttle};
pub use flow::{Flow, Sight};
pub use stall::{Stall, StallReason};

use std::time::Duration;

/// Longest time that an estimate gives.
pub const DAY: Duration = Duration::from_secs(86_400);

/// Returns the time that `bytes` take at `per_second`, at most a day.
pub fn time_for(bytes: u64, per_second: u64) -> Duration {
    if bytes == 0 {
        return Duration::ZERO;
    }
    if per_second == 0 {
        return DAY;
    }
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(per_second);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(DAY)
}

/// Returns the bytes that go out within `time` at `per_second`.
pub fn within(per_second: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(per_second).saturating_mul(time.as_nanos()) / 1_000_000_000).unwrap_or(u64::MAX)
}

/// Returns bytes per second.
pub fn per_second(bytes: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(bytes) * 1_000_000_000 / time.as_nanos().max(1)).unwrap_or(u64::MAX)
}
