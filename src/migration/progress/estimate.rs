// SPDX-License-Identifier: LGPL-2.1-or-later
//! The time to the end of a migration, and the percentage that never falls.
//!
//! The rest of a precopy is simulated pass by pass. A pass sends what is left, and leaves what the guest wrote to meanwhile. The
//! simulation ends when that fits into the downtime limit, or finds that it never does. Pages that the guest writes to before
//! they are sent in a pass are sent once. So a pass over all that the guest writes to leaves, of a page that is sent at time `x`
//! of `t`, what was written in the `t - x` after it: the mean of `Flow::written_in` over the pass.

use super::decision::Limits;
use super::flow::Flow;
use super::{Budget, DAY};
use std::time::Duration;

/// Passes that are played through at most.
const PASSES: u32 = 2000;
/// A pass that leaves more than this part of the one before does not come nearer to the end.
const PROGRESS: f64 = 0.98;
/// Passes without progress that are taken for the end of all progress.
const PATIENCE: u32 = 3;
/// Parts into which a pass is divided for its mean.
const PARTS: u32 = 8;

/// How the guest is slowed down while it writes too fast.
#[derive(Clone, Copy, Debug, Default)]
pub struct Throttle {
    /// Now, in percent.
    pub now: u32,
    /// The next step from 0, in percent.
    pub initial: u32,
    /// Every further step, in percent.
    pub increment: u32,
    /// At most, in percent. 0: the guest is not slowed down.
    pub most: u32,
}

impl Throttle {
    /// Shortest time between two steps.
    const INTERVAL: f64 = 1.0;

    fn raise(&mut self) {
        let step = if self.now == 0 { self.initial } else { self.increment };
        self.now = (self.now + step).min(self.most);
    }
}

/// What an estimate is made from.
#[derive(Clone, Copy, Debug)]
pub struct Estimate<'a> {
    /// The speeds.
    pub flow: &'a Flow,
    /// The downtime without memory.
    pub budget: &'a Budget,
    /// The downtime limit in force, and how it rises.
    pub limit: Duration,
    /// See above.
    pub limits: Limits,
    /// Bytes per second that the link sends when the guest is stopped.
    pub link: u64,
    /// How the guest is slowed down.
    pub throttle: Throttle,
    /// The guest runs at the destination, or will at once: every page is sent once more at most.
    pub is_postcopy: bool,
    /// Time until the deadline, and whether the guest moves then in any case. Otherwise the migration is cancelled.
    pub deadline: Option<(Duration, bool)>,
}

fn seconds(time: f64) -> Duration {
    Duration::try_from_secs_f64(time).unwrap_or(DAY).min(DAY)
}

impl Estimate<'_> {
    /// Returns the time to the end; `None` if there is no end in sight, or nothing was measured yet.
    pub fn rest(&self) -> Option<Duration> {
        let drain = self.flow.drain().filter(|drain| *drain > 0.0)?;
        let left = self.flow.pending() as f64;
        let tail = self.budget.devices() + self.budget.rest;
        if self.is_postcopy {
            return Some(seconds(left / drain) + tail);
        }
        let rest = self.play(left, drain).map(|rest| seconds(rest) + tail);
        match (rest, self.deadline) {
            (Some(rest), Some((deadline, _))) if rest <= deadline => Some(rest),
            (_, Some((deadline, true))) => Some(deadline + tail + seconds(self.level(drain) / drain)),
            (_, Some((_, false))) => None,
            (rest, None) => rest,
        }
    }

    /// Returns the bytes that are left after a pass over `left` bytes that takes so many seconds. The log was read `unseen`
    /// seconds before it.
    fn after(&self, left: f64, time: f64, unseen: f64, scale: f64) -> f64 {
        let flow = self.flow;
        let whole = scale * flow.written_in(time + unseen);
        if !flow.sees_all_writes() {
            return whole;
        }
        // All that the guest ever writes to, as far as that is known.
        let reach = (scale * flow.written_in(DAY.as_secs_f64())).max(1.0);
        let covered = (left / reach).min(1.0);
        let part = time / f64::from(PARTS);
        let mean = (0..PARTS).map(|at| flow.written_in(part * (f64::from(at) + 0.5))).sum::<f64>() / f64::from(PARTS);
        covered * scale * mean.min(whole) + (1.0 - covered) * whole
    }

    /// Returns what another pass from now on would leave, if that is known.
    pub fn after_pass(&self) -> Option<f64> {
        let drain = self.flow.drain().filter(|drain| *drain > 0.0)?;
        let left = self.flow.pending() as f64;
        self.flow.knows_writes().then(|| self.after(left, left / drain, 0.0, 1.0))
    }

    /// Returns what is left in the long run if the guest is never stopped.
    fn level(&self, drain: f64) -> f64 {
        let mut left = self.flow.pending() as f64;
        for _ in 0..20 {
            left = self.after(left, left / drain, 0.0, 1.0);
        }
        left
    }

    /// Plays the passes through and returns the seconds that they take, with the memory of the downtime.
    fn play(&self, mut left: f64, drain: f64) -> Option<f64> {
        let (mut time, mut unseen) = (0.0, self.flow.unseen().as_secs_f64());
        let (mut throttle, mut throttled) = (self.throttle, 0.0);
        let speed = |throttle: u32| f64::from(100 - throttle.min(99));
        let mut stuck = 0;
        for _ in 0..PASSES {
            let pass = left / drain;
            let scale = speed(throttle.now) / speed(self.throttle.now);
            let after = self.after(left, pass, unseen, scale);
            (time, unseen) = (time + pass, 0.0);
            if time > DAY.as_secs_f64() {
                return None;
            }
            if after <= self.threshold(time, drain) {
                return Some(time + after / (self.link as f64).max(drain));
            }
            stuck = if after > left * PROGRESS { stuck + 1 } else { 0 };
            let may_slow = throttle.most > throttle.now && after > left / 2.0;
            if may_slow && time - throttled >= Throttle::INTERVAL {
                throttle.raise();
                throttled = time;
            }
            if stuck >= PATIENCE && !may_slow && !self.may_rise(time) {
                return None;
            }
            // Nothing is faster than a look.
            left = after.max(drain * 0.001);
        }
        None
    }

    /// Returns the limit in so many seconds, if it rises in every interval from now on.
    fn limit_at(&self, time: f64) -> Duration {
        let Limits { step, interval, .. } = self.limits;
        let steps = (time / interval.as_secs_f64().max(0.001)) as u32;
        self.limit.saturating_add(step.saturating_mul(steps)).min(self.limits.most.max(self.limit))
    }

    fn may_rise(&self, time: f64) -> bool {
        self.limit_at(time) < self.limits.most
    }

    fn threshold(&self, time: f64, drain: f64) -> f64 {
        (self.link as f64).max(drain.min(1e18)).min(1e18)
            * self.budget.time_for_memory(self.limit_at(time)).as_secs_f64()
    }
}

/// How much of a migration is done, in percent. It never falls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Percent {
    shown: u32,
}

impl Percent {
    /// Shown until the migration is complete.
    const MOST: u32 = 99;

    /// Destination: returns the percentage of a load, of whose pages so many have arrived at least once. It does not know how
    /// often the source will send pages again.
    pub fn of(pages: u64, all: u64) -> u32 {
        let percent = u128::from(pages) * 100 / u128::from(all.max(1));
        u32::try_from(percent).unwrap_or(Self::MOST).min(Self::MOST)
    }

    /// Takes in the time that was spent, without pauses, and the time to the end. Without the latter it stays.
    pub fn update(&mut self, spent: Duration, rest: Option<Duration>) -> u32 {
        if let Some(rest) = rest {
            let whole = (spent + rest).as_nanos().max(1);
            let percent = u32::try_from(spent.as_nanos() * 100 / whole).unwrap_or(Self::MOST);
            self.shown = self.shown.max(percent.min(Self::MOST));
        }
        self.shown
    }
}

#[cfg(test)]
mod tests {
    use super::super::flow::Sight;
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    /// 1 GB at 100 MB/s after a second, in which the guest wrote to `written` bytes.
    fn flow(written: u64) -> Flow {
        let mut flow = Flow::default();
        let sight = |ms: u32, pending, log| Sight { now: MS * ms, pending, is_bound: false, wire: 0, log: Some(log) };
        for tenth in 0..10 {
            flow.see(sight(100 * tenth, 1_000_000_000 - 10_000_000 * u64::from(tenth), (0, 0)));
        }
        flow.see(sight(1000, 900_000_000, (1, written)));
        flow
    }

    fn estimate<'a>(flow: &'a Flow, budget: &'a Budget) -> Estimate<'a> {
        let limits = Limits { first: 300 * MS, most: Duration::ZERO, step: Duration::ZERO, interval: 1000 * MS };
        let (throttle, is_postcopy, deadline) = (Throttle::default(), false, None);
        Estimate { flow, budget, limit: 300 * MS, limits, link: 100_000_000, throttle, is_postcopy, deadline }
    }

    #[test]
    fn a_guest_at_rest_takes_one_pass() {
        let (flow, budget) = (flow(0), Budget::default());
        let rest = estimate(&flow, &budget).rest().unwrap();
        assert!((8900 * MS..9100 * MS).contains(&rest), "{rest:?}");
    }

    #[test]
    fn a_writing_guest_takes_more_passes_and_a_fast_one_never_ends() {
        let (half, fast, budget) = (flow(50_000_000), flow(200_000_000), Budget::default());
        let rest = estimate(&half, &budget).rest().unwrap();
        assert!((12_000 * MS..18_000 * MS).contains(&rest), "{rest:?}");
        assert_eq!(estimate(&fast, &budget).rest(), None);
        let postcopy = Estimate { is_postcopy: true, ..estimate(&fast, &budget) };
        assert!((8900 * MS..9100 * MS).contains(&postcopy.rest().unwrap()));
    }

    #[test]
    fn a_deadline_ends_a_migration_that_does_not_end_by_itself() {
        let (fast, budget) = (flow(200_000_000), Budget::default());
        let forced = Estimate { deadline: Some((60_000 * MS, true)), ..estimate(&fast, &budget) };
        let rest = forced.rest().unwrap();
        assert!((60_000 * MS..75_000 * MS).contains(&rest), "{rest:?}");
        let cancelled = Estimate { deadline: Some((60_000 * MS, false)), ..forced };
        assert_eq!(cancelled.rest(), None);
        let slowed = Throttle { now: 0, initial: 20, increment: 10, most: 99 };
        assert!(Estimate { throttle: slowed, ..estimate(&fast, &budget) }.rest().is_some());
    }

    #[test]
    fn without_a_measurement_there_is_no_estimate() {
        let (flow, budget) = (Flow::default(), Budget::default());
        assert_eq!(estimate(&flow, &budget).rest(), None);
        assert_eq!(Percent::default().update(5 * MS, None), 0);
        assert_eq!(
            [(0, 0), (1, 3), (3, 3), (u64::MAX, 1)].map(|(pages, all)| Percent::of(pages, all)),
            [0, 33, 99, 99]
        );
    }

    proptest! {
        #[test]
        fn percent_never_falls(looks in proptest::collection::vec((0..10_000u32, proptest::option::of(0..u32::MAX)), 0..200)) {
            let (mut percent, mut spent, mut last) = (Percent::default(), Duration::ZERO, 0);
            for (more, rest) in looks {
                spent += MS * more;
                let shown = percent.update(spent, rest.map(|ms| MS * ms));
                prop_assert!((last..=99).contains(&shown));
                last = shown;
            }
        }

        #[test]
        fn any_numbers_give_an_estimate_of_at_most_a_few_days(
            sights in proptest::collection::vec((any::<u32>(), any::<u64>(), any::<bool>(), any::<u64>()), 0..50),
            link: u64, limit in 0..u32::MAX
        ) {
            let (mut flow, mut now, mut written) = (Flow::default(), Duration::ZERO, 0u64);
            for (at, (ms, pending, is_bound, more)) in sights.into_iter().enumerate() {
                now += MS * ms;
                written = written.saturating_add(more);
                flow.see(Sight { now, pending, is_bound, wire: written, log: (at % 3 > 0).then_some((at as u64, written)) });
            }
            let budget = Budget::default();
            let estimate = Estimate { link, limit: MS * limit, ..estimate(&flow, &budget) };
            prop_assert!(estimate.rest().is_none_or(|rest| rest <= 3 * DAY));
            let _ = estimate.after_pass();
        }
    }
}
