// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the source knows of its progress. `steering.rs` feeds it and acts on it.

use crate::migration::core::Core;
use crate::migration::params::Params;
use crate::migration::progress::{Budget, Estimate, Flow, Limits, Percent, Switchover, Throttle, time_for};
use crate::migration::stats::Prediction;
use crate::savevm::device_costs::CostSum;
use std::time::{Duration, Instant};

/// See the module.
#[derive(Default)]
pub(super) struct Steering {
    pub flow: Flow,
    pub budget: Budget,
    pub switchover: Switchover,
    pub percent: Percent,
    /// What the devices will cost in the switchover, as far as that is known.
    pub costs: CostSum,
    /// Time between the first question to the destination and its answer, which the destination's start may delay.
    pub round_trip: Duration,
    /// When the question was sent whose answer nothing delays.
    pub asked_at: Option<Instant>,
    /// Whether the switchover waits for the devices of the destination alone.
    pub unapproved: bool,
    /// Since when no end is in sight.
    pub endless: Option<Duration>,
    /// Bytes sent when the guest was stopped, and what was predicted then.
    pub stopped: Option<(u64, Prediction)>,
}

/// The limits on the downtime, as the user set them.
pub(super) fn limits(params: &Params) -> Limits {
    let most = params.downtime_limit_max.unwrap_or(Duration::ZERO);
    let step = params.downtime_step.unwrap_or_else(|| most.saturating_sub(params.downtime_limit) / 10);
    Limits {
        first: params.downtime_limit,
        most,
        step: step.max(Duration::from_millis(1)),
        interval: params.downtime_step_interval,
    }
}

impl Steering {
    /// Returns the downtime limit in force.
    pub fn limit(&self, params: &Params) -> Duration {
        self.switchover.limit(&limits(params))
    }

    /// What the estimates are made from.
    pub fn estimate<'a>(&'a self, core: &Core, params: &Params, link: u64, throttle: u32) -> Estimate<'a> {
        let most = if params.auto_converge { params.throttle_max } else { 0 };
        Estimate {
            flow: &self.flow,
            budget: &self.budget,
            limit: self.limit(params),
            limits: limits(params),
            link,
            throttle: Throttle {
                now: throttle,
                initial: params.throttle_initial,
                increment: params.throttle_increment,
                most,
            },
            is_postcopy: core.status().is_postcopy() || core.is_postcopy_requested(),
            deadline: core.deadline_left().map(|left| (left, params.deadline_action.moves_guest())),
        }
    }

    /// What would be predicted if so many bytes were left. While no bandwidth was measured (`link` is 0), the memory's part is 0.
    pub fn prediction(&self, left: u64, link: u64) -> Prediction {
        let Budget { save, load, round_trips, rest, .. } = self.budget;
        let memory = if link == 0 { Duration::ZERO } else { time_for(left, link) };
        Prediction { memory, save, load, round_trips, rest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_left_out_of_a_prediction_without_a_bandwidth() {
        let steering = Steering::default();
        assert_eq!(steering.prediction(4096, 0).total(), Duration::ZERO);
        assert_eq!(steering.prediction(4096, 4096).total(), Duration::from_secs(1));
    }
}
