// SPDX-License-Identifier: LGPL-2.1-or-later
//! Whether to stop the guest now.
//!
//! QEMU stops the guest as soon as what is left fits into the downtime limit. This module adds two rules:
//! - **The limit may rise.** It begins at `Limits::first` and rises by `Limits::step` up to `Limits::most`, whenever
//!   `Limits::interval` has passed in which what is left did not become clearly less.
//! - **A local minimum.** If what is left fits but still falls from pass to pass, another pass makes the downtime shorter, and
//!   takes no longer than the downtime would. So the guest is stopped when another pass is not expected to shorten the downtime
//!   clearly. If that expectation was wrong once, it is not used again in this migration.

use std::time::Duration;

/// Another pass must make what is left smaller than this part of it.
const GAIN: f64 = 0.7;
/// Passes that a switchover may be put off.
const PASSES: u32 = 4;
/// No downtime is worth another pass if its memory takes less than this.
const WORTH: Duration = Duration::from_millis(5);
/// The least that was left in an interval is clearly less if it is below this part of the one before.
const FALLS: f64 = 0.9;

/// The limits on the downtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The limit at first.
    pub first: Duration,
    /// The limit never rises above this.
    pub most: Duration,
    /// By how much it rises at a time.
    pub step: Duration,
    /// The time between two steps.
    pub interval: Duration,
}

/// What a look at the memory has shown.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Time since the migration began.
    pub now: Duration,
    /// Bytes that are left.
    pub left: u64,
    /// They fit into the limit that is in force.
    pub fits: bool,
    /// Time to send them.
    pub memory: Duration,
    /// Bytes that would be left after another pass, as far as that can be told.
    pub after_pass: Option<f64>,
    /// All of the memory was sent at least once.
    pub was_sent: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Stop the guest.
    Switch,
    /// Send on.
    Send,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Switchover {
    /// Steps that were made.
    steps: u32,
    /// When the interval began, once all memory was sent; and the least that was left in it, and in the one before.
    interval: Option<Duration>,
    least: u64,
    least_before: u64,
    /// What was left when the switchover was put off, and how often it was.
    put_off: Option<u64>,
    passes: u32,
}

impl Switchover {
    /// Returns the limit in force.
    pub fn limit(&self, limits: &Limits) -> Duration {
        let most = limits.most.max(limits.first);
        limits.first.saturating_add(limits.step.saturating_mul(self.steps)).min(most)
    }

    /// Raises the limit if its interval is over and what is left did not fall.
    fn raise(&mut self, look: &Look, limits: &Limits) {
        if !look.was_sent || limits.most <= limits.first {
            return;
        }
        let Some(since) = self.interval else {
            (self.interval, self.least, self.least_before) = (Some(look.now), look.left, u64::MAX);
            return;
        };
        self.least = self.least.min(look.left);
        if look.now.saturating_sub(since) < limits.interval {
            return;
        }
        // The first interval has none before it to compare with.
        let falls = self.least_before == u64::MAX || (self.least as f64) < self.least_before as f64 * FALLS;
        if !falls && self.limit(limits) < limits.most {
            self.steps += 1;
        }
        (self.interval, self.least_before, self.least) = (Some(look.now), self.least, look.left);
    }

    /// Decides what to do.
    pub fn decide(&mut self, look: &Look, limits: &Limits) -> Decision {
        self.raise(look, limits);
        if !look.fits {
            if self.put_off.take().is_some() {
                // The last minimum was missed. The next one is taken.
                self.passes = PASSES;
            }
            return Decision::Send;
        }
        let gains = look.after_pass.is_some_and(|after| after < look.left as f64 * GAIN);
        let kept = self.put_off.is_none_or(|before| look.left < before);
        if !kept || !gains || look.left == 0 || look.memory < WORTH || self.passes >= PASSES {
            return Decision::Switch;
        }
        self.passes += 1;
        self.put_off = Some(look.left);
        Decision::Send
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);
    const FIXED: Limits =
        Limits { first: Duration::from_millis(300), most: Duration::ZERO, step: MS, interval: Duration::from_secs(1) };
    const STEPS: Limits = Limits {
        first: Duration::from_millis(100),
        most: Duration::from_millis(250),
        step: Duration::from_millis(100),
        interval: Duration::from_secs(1),
    };

    fn look(ms: u32, left: u64, fits: bool, after: f64) -> Look {
        let now = MS * ms;
        Look { now, left, fits, memory: 100 * MS, after_pass: Some(after), was_sent: true }
    }

    #[test]
    fn the_guest_is_stopped_where_what_is_left_does_not_fall_any_more() {
        let mut switchover = Switchover::default();
        let mut decide = |left, after| switchover.decide(&look(0, left, true, after), &FIXED);
        assert_eq!(decide(1000, 500.0), Decision::Send);
        assert_eq!(decide(500, 250.0), Decision::Send);
        assert_eq!(decide(260, 240.0), Decision::Switch);
    }

    #[test]
    fn a_pass_that_did_not_gain_ends_the_wait() {
        let mut switchover = Switchover::default();
        assert_eq!(switchover.decide(&look(0, 1000, true, 100.0), &FIXED), Decision::Send);
        assert_eq!(switchover.decide(&look(0, 1100, true, 100.0), &FIXED), Decision::Switch);
    }

    #[test]
    fn a_minimum_that_was_missed_is_not_waited_for_again() {
        let mut switchover = Switchover::default();
        assert_eq!(switchover.decide(&look(0, 1000, true, 100.0), &FIXED), Decision::Send);
        assert_eq!(switchover.decide(&look(0, 9000, false, 100.0), &FIXED), Decision::Send);
        assert_eq!(switchover.decide(&look(0, 1000, true, 100.0), &FIXED), Decision::Switch);
    }

    #[test]
    fn nothing_left_and_short_waits_end_at_once() {
        let mut switchover = Switchover::default();
        assert_eq!(switchover.decide(&look(0, 0, true, 0.0), &FIXED), Decision::Switch);
        let short = Look { memory: MS, ..look(0, 1000, true, 0.0) };
        assert_eq!(Switchover::default().decide(&short, &FIXED), Decision::Switch);
        let unknown = Look { after_pass: None, ..look(0, 1000, true, 0.0) };
        assert_eq!(Switchover::default().decide(&unknown, &FIXED), Decision::Switch);
    }

    #[test]
    fn the_limit_rises_only_while_what_is_left_does_not_fall() {
        let mut switchover = Switchover::default();
        let mut limits = Vec::new();
        // It falls for four seconds, and then not any more.
        for second in 0..12u32 {
            let left = 10_000 >> second.min(4);
            switchover.decide(&look(1000 * second, left, false, 0.0), &STEPS);
            limits.push(switchover.limit(&STEPS).as_millis());
        }
        assert_eq!(limits[..8], [100, 100, 100, 100, 100, 200, 250, 250]);
        let first_pass = Look { was_sent: false, ..look(100_000, 5, false, 0.0) };
        let mut switchover = Switchover::default();
        for _ in 0..9 {
            switchover.decide(&first_pass, &STEPS);
        }
        assert_eq!(switchover.limit(&STEPS), STEPS.first);
        assert_eq!(switchover.limit(&FIXED), FIXED.first, "without a maximum it does not rise");
    }

    proptest! {
        #[test]
        fn a_wait_always_ends(lefts in proptest::collection::vec((1..100_000u64, 0.0..100_000.0), 8)) {
            let mut switchover = Switchover::default();
            let waits = lefts.iter().filter(|(left, after)| {
                switchover.decide(&look(0, *left, true, *after), &FIXED) == Decision::Send
            });
            prop_assert!(waits.count() <= PASSES as usize);
        }

        #[test]
        fn the_limit_never_falls_and_keeps_to_its_maximum(
            looks in proptest::collection::vec((0..5000u32, 0..1000u64, any::<bool>()), 0..60)
        ) {
            let mut switchover = Switchover::default();
            let (mut ms, mut last) = (0, Duration::ZERO);
            for (more, left, fits) in looks {
                ms += more;
                switchover.decide(&look(ms, left, fits, 0.0), &STEPS);
                let limit = switchover.limit(&STEPS);
                prop_assert!(limit >= last && limit <= STEPS.most);
                last = limit;
            }
        }
    }
}
