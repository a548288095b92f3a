// SPDX-License-Identifier: LGPL-2.1-or-later
//! How fast the link is, window by window, and whether the guest writes too fast for it.
//!
//! As in QEMU 7.2 (`migration_update_counters`) the bandwidth is that of the last window of 100 ms. If the bandwidth limit makes
//! the source wait, the link could send more than that. The predicted downtime uses that higher bandwidth, because the limit does
//! not apply during the downtime.

use crate::migration::progress::per_second;
use std::time::Duration;

/// Length of a window.
pub const WINDOW: Duration = Duration::from_millis(100);
/// Windows with fewer bytes than this are too short to measure the link.
const SMALL: u64 = 10_000;
/// How often convergence is judged.
const JUDGE_EVERY: Duration = Duration::from_millis(500);
/// Bytes that the buffers of a connection may take at once, which say nothing about the link.
const BUFFERS: u64 = 8 << 20;
/// Part of a new window in the average speed of the link.
const WEIGHT: u64 = 3;

/// What a window has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measure {
    /// Bytes per second.
    pub bandwidth: u64,
    /// Bytes per second that the link sends without the bandwidth limit, on average.
    pub link: u64,
    /// What can be sent within the downtime limit.
    pub threshold: u64,
}

/// Measures one connection.
#[derive(Debug, Default)]
pub struct Rate {
    started: Duration,
    bytes: u64,
    /// Since when the bandwidth limit makes the source wait, and how long it did in this window.
    waits: Option<Duration>,
    waited: Duration,
    /// The last look at what is pending: bytes sent by then, and how many were pending.
    seen: Option<(u64, u64)>,
    /// The last judgement: when, and bytes sent by then.
    judged: Duration,
    judged_bytes: u64,
    /// Bytes that the guest was seen to dirty since.
    dirtied: u64,
    /// Whether there was a judgement, and how many in a row found the guest too fast.
    was_judged: bool,
    strikes: u32,
    /// The last measure.
    pub last: Measure,
    /// Bytes per second that the guest dirtied when that was seen last.
    pub dirty_rate: u64,
}

impl Rate {
    /// Begins with the first window, at `now` with `bytes` sent.
    pub fn new(now: Duration, bytes: u64) -> Self {
        Self { started: now, bytes, ..Self::default() }
    }

    /// When the window ends, from `now` on.
    pub fn left(&self, now: Duration) -> Duration {
        WINDOW.saturating_sub(now.saturating_sub(self.started))
    }

    /// The bandwidth limit makes the source wait from now on.
    pub fn wait(&mut self, now: Duration) {
        self.waits = Some(now);
    }

    /// Ends the window if it is time; whether it was.
    pub fn update(&mut self, now: Duration, bytes: u64) -> bool {
        self.waited += self.waits.take().map_or(Duration::ZERO, |since| now.saturating_sub(since));
        let time = now.saturating_sub(self.started);
        if time < WINDOW {
            return false;
        }
        let sent = bytes.saturating_sub(self.bytes);
        if sent > SMALL || self.last.bandwidth == 0 {
            self.last.bandwidth = per_second(sent, time);
            let link = self.link(sent, time);
            self.last.link = match self.last.link {
                0 => link,
                before => (before / 10 * (10 - WEIGHT)).saturating_add(link / 10 * WEIGHT),
            };
        }
        (self.started, self.bytes, self.waited) = (now, bytes, Duration::ZERO);
        true
    }

    /// What the link has shown in a window.
    fn link(&self, sent: u64, time: Duration) -> u64 {
        let busy = time.saturating_sub(self.waited);
        if self.waited.is_zero() || busy.is_zero() || sent < 2 * BUFFERS {
            return self.last.bandwidth;
        }
        per_second(sent - BUFFERS, busy).max(self.last.bandwidth)
    }

    /// `bytes` were sent and so many are `pending`: how much the guest dirtied since the last call. A log of dirty pages is
    /// often read once in a pass over memory, and what is pending only falls until then; so a period lasts until something
    /// dirtied shows, and half a second at least.
    ///
    /// True where the guest was slowed down too little: it dirtied more than half of what was sent in two periods in a row
    /// (QEMU 7.2's `throttle-trigger-threshold` of 50).
    pub fn too_fast(&mut self, now: Duration, bytes: u64, pending: u64) -> bool {
        let Some((bytes_before, before)) = self.seen.replace((bytes, pending)) else {
            (self.judged, self.judged_bytes) = (now, bytes);
            return false;
        };
        let sent = bytes.saturating_sub(bytes_before);
        // The bytes sent include the heads of pages and sections, which are not dirty memory.
        let heads = sent / 64 + 64;
        let new = pending.saturating_add(sent).saturating_sub(before.saturating_add(heads));
        self.dirtied = self.dirtied.saturating_add(new);
        let time = now.saturating_sub(self.judged);
        if self.dirtied == 0 || (self.was_judged && time < JUDGE_EVERY) {
            return false;
        }
        self.dirty_rate = per_second(self.dirtied, time);
        if time < JUDGE_EVERY {
            return false;
        }
        let sent = bytes.saturating_sub(self.judged_bytes);
        let fast = self.dirtied > sent / 2 && pending > self.last.threshold;
        self.strikes = if fast { self.strikes + 1 } else { 0 };
        (self.judged, self.judged_bytes, self.dirtied, self.was_judged) = (now, bytes, 0, true);
        if self.strikes >= 2 {
            self.strikes = 0;
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_window_lasts_100_ms_and_an_idle_one_does_not_make_the_link_slow() {
        let mut rate = Rate::new(Duration::ZERO, 1000);
        assert!(!rate.update(99 * MS, 100_000));
        assert!(rate.update(100 * MS, 1_001_000));
        assert_eq!((rate.last.bandwidth, rate.last.link), (10_000_000, 10_000_000));
        assert!(rate.update(200 * MS, 1_001_100));
        assert_eq!(rate.last.bandwidth, 10_000_000);
        assert!(rate.update(300 * MS, 3_001_100));
        assert_eq!((rate.last.bandwidth, rate.last.link), (20_000_000, 13_000_000));
    }

    #[test]
    fn a_bandwidth_limit_hides_the_link_only_where_buffers_may_take_all() {
        let mut rate = Rate::new(Duration::ZERO, 0);
        rate.wait(20 * MS);
        assert!(rate.update(100 * MS, 4 << 20));
        assert_eq!(rate.last.link, rate.last.bandwidth);
        let mut rate = Rate::new(Duration::ZERO, 0);
        rate.wait(20 * MS);
        assert!(rate.update(100 * MS, 40 << 20));
        assert_eq!(rate.last.bandwidth, 400 << 20);
        assert_eq!(rate.last.link, 1600 << 20);
    }

    #[test]
    fn a_guest_that_dirties_too_fast_is_seen_the_second_time() {
        let mut rate = Rate::new(Duration::ZERO, 0);
        let mut verdicts = Vec::new();
        for at in 1..=8u32 {
            let now = 500 * MS * at;
            let bytes = 1_000_000 * u64::from(at);
            rate.update(now, bytes);
            verdicts.push(rate.too_fast(now, bytes, 5_000_000));
        }
        // Only the second look shows something.
        assert_eq!(verdicts, [false, false, true, false, true, false, true, false]);
        assert!((1_950_000..=2_000_000).contains(&rate.dirty_rate), "{}", rate.dirty_rate);
    }

    #[test]
    fn a_log_that_is_read_once_in_a_long_pass_shows_it_as_well() {
        let mut rate = Rate::new(Duration::ZERO, 0);
        let (mut bytes, mut pending) = (0, 100_000_000);
        let mut slower = Vec::new();
        for at in 0..120u32 {
            let now = 100 * MS * at;
            rate.update(now, bytes);
            rate.last.threshold = rate.last.bandwidth / 10;
            // A pass of 3 s, and then the log shows what the guest did in it: as much as was sent.
            if at > 0 && at % 30 == 0 {
                pending = 100_000_000;
            }
            if rate.too_fast(now, bytes, pending) {
                slower.push(at);
            }
            bytes += 3_350_000;
            pending = pending.saturating_sub(3_333_333);
            if at == 45 {
                assert!((30_000_000..=34_000_000).contains(&rate.dirty_rate), "{}", rate.dirty_rate);
            }
        }
        assert_eq!(slower, [60]);
    }

    #[test]
    fn a_guest_that_rests_dirties_nothing_and_zero_pages_hide_nothing() {
        let mut rate = Rate::new(Duration::ZERO, 0);
        // 4 KiB of memory for 9 bytes.
        for at in 0..100u32 {
            assert!(!rate.too_fast(10 * MS * at, 900 * u64::from(at), 41_000_000 - 409_600 * u64::from(at)));
        }
        assert_eq!(rate.dirty_rate, 0);
        rate.too_fast(1000 * MS, 90_000, 10_000_000);
        assert!((9_000_000..10_100_000).contains(&rate.dirty_rate), "{}", rate.dirty_rate);
    }

    #[test]
    fn extreme_numbers_do_not_overflow() {
        let mut rate = Rate::new(Duration::ZERO, 0);
        rate.wait(Duration::ZERO);
        rate.update(WINDOW, u64::MAX);
        rate.update(2 * WINDOW, u64::MAX);
        assert_eq!(rate.last.bandwidth, u64::MAX);
    }
}
