// SPDX-License-Identifier: LGPL-2.1-or-later
//! How fast memory is sent, and how fast the guest writes to it.
//!
//! Memory is counted in bytes of the guest: a zero page counts as a page, although it takes nine bytes on the wire. The
//! guest's writes show when a dirty log is read. A page that is written twice in between shows once, so the bytes of a
//! period do not grow with its length for ever. `Flow` keeps what periods of different lengths have shown, and
//! interpolates between them.

use std::time::Duration;

/// Shortest time over which a speed is measured.
const WINDOW: Duration = Duration::from_millis(200);
/// Part of a new measurement in the average speed.
const WEIGHT: f64 = 0.3;
/// Shortest period over which writes are measured, where no log is read.
const PERIOD: Duration = Duration::from_secs(1);
/// Shortest period between two reads of a log that is measured: shorter ones say little.
const SHORTEST: Duration = Duration::from_millis(2);
/// Number of periods of different lengths that are kept.
const POINTS: usize = 12;
/// Periods whose lengths differ by less than this factor are one.
const SAME: f64 = 1.25;

/// What the source sees at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sight {
    /// Time since the migration began.
    pub now: Duration,
    /// Bytes that are left to send.
    pub pending: u64,
    /// `pending` is only known to be at least this.
    pub is_bound: bool,
    /// Bytes that went out on the wire in all, with the heads of pages and sections.
    pub wire: u64,
    /// Number of reads of the dirty log, and bytes that these reads have shown as written, also those that were still to
    /// be sent. `None` if the RAM does not know.
    pub log: Option<(u64, u64)>,
}

/// The bytes that a guest wrote to in a period of some length.
#[derive(Clone, Copy, Debug)]
struct Point {
    seconds: f64,
    bytes: f64,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    last: Option<Sight>,
    /// Most bytes that were ever left: the size of memory.
    total: u64,
    /// Bytes that were sent in this window, and its length.
    sent: (u64, Duration),
    drain: Option<f64>,
    /// Bytes that were sent in all, as far as that is known.
    sent_in_all: u64,
    /// When writes showed last, and the log's numbers then.
    shown: (Duration, u64, u64),
    /// Writes that showed in what is left to send, since then.
    grown: u64,
    points: Vec<Point>,
    /// Times that writes could have shown.
    periods: u64,
}

/// Returns the memory that so many bytes on the wire contain at least, without heads.
fn memory_of(wire: u64) -> u64 {
    wire.saturating_sub(wire / 64 + 64)
}

impl Flow {
    /// Takes in what the source sees.
    pub fn see(&mut self, sight: Sight) {
        let Some(last) = self.last.replace(sight) else {
            self.total = sight.pending;
            let (reads, written) = sight.log.unwrap_or_default();
            self.shown = (sight.now, reads, written);
            return;
        };
        self.total = self.total.max(if sight.is_bound { 0 } else { sight.pending });
        self.see_sent(last, sight);
        self.see_written(last, sight);
    }

    /// Begins anew, after a break: nothing was sent meanwhile.
    pub fn interrupt(&mut self, now: Duration) {
        self.last = None;
        self.sent = (0, Duration::ZERO);
        self.shown.0 = now;
        self.grown = 0;
    }

    fn see_sent(&mut self, last: Sight, sight: Sight) {
        let was_read = last.log.map(|log| log.0) != sight.log.map(|log| log.0);
        let fell = last.pending.saturating_sub(sight.pending);
        let sent = match sight.log {
            Some(_) => fell,
            // What was written again is not seen, but what went out is.
            None => fell.max(memory_of(sight.wire.saturating_sub(last.wire))),
        };
        self.sent_in_all = self.sent_in_all.saturating_add(sent);
        let grew = sight.pending > last.pending;
        if was_read || last.is_bound || sight.is_bound || (grew && sight.log.is_some()) {
            // How much was sent is not known.
            return;
        }
        self.grown = self.grown.saturating_add(sent - fell);
        self.sent.0 = self.sent.0.saturating_add(sent);
        self.sent.1 += sight.now.saturating_sub(last.now);
        if self.sent.1 >= WINDOW {
            let speed = self.sent.0 as f64 / self.sent.1.as_secs_f64();
            self.drain = Some(match self.drain {
                Some(before) => before + (speed - before) * WEIGHT,
                None => speed,
            });
            self.sent = (0, Duration::ZERO);
        }
    }

    fn see_written(&mut self, last: Sight, sight: Sight) {
        self.grown = self.grown.saturating_add(sight.pending.saturating_sub(last.pending));
        let (since, reads, written) = self.shown;
        let period = sight.now.saturating_sub(since);
        let (bytes, is_over) = match sight.log {
            Some((now_reads, now_written)) if now_reads != reads => {
                (now_written.saturating_sub(written), period >= SHORTEST)
            }
            Some((_, now_written)) if reads == 0 => (now_written.saturating_sub(written), period >= PERIOD),
            Some(_) => return,
            // Only growth shows. A period lasts until there is some.
            None => (self.grown, self.grown > 0 && period >= WINDOW),
        };
        if !is_over {
            return;
        }
        self.periods += 1;
        let (reads, written) = sight.log.unwrap_or_default();
        self.shown = (sight.now, reads, written);
        self.grown = 0;
        self.add(Point { seconds: period.as_secs_f64(), bytes: bytes as f64 });
    }

    /// Returns the least and the most bytes that a steady guest can write to in so many seconds, as far as the known periods
    /// show: no less than in a shorter period, and no more than in proportion to it; for longer ones the other way round.
    fn bounds(&self, seconds: f64) -> (f64, f64) {
        self.points.iter().fold((0.0, f64::INFINITY), |(least, most): (f64, f64), point| {
            let in_proportion = point.bytes * seconds / point.seconds;
            (least.max(point.bytes.min(in_proportion)), most.min(point.bytes.max(in_proportion)))
        })
    }

    /// Adds a period. If it contradicts the others, the guest writes more or less than before, and they change with it.
    fn add(&mut self, new: Point) {
        let (least, most) = self.bounds(new.seconds);
        let change = if new.bytes > most { new.bytes / most.max(1.0) } else { new.bytes.max(1.0) / least.max(1.0) };
        if new.bytes > 2.0 * most || new.bytes < 0.5 * least {
            self.points.iter_mut().for_each(|point| point.bytes *= change);
        }
        let is_same = |point: &&mut Point| {
            let factor = point.seconds / new.seconds;
            (1.0 / SAME..SAME).contains(&factor)
        };
        if let Some(point) = self.points.iter_mut().find(is_same) {
            point.seconds = f64::midpoint(point.seconds, new.seconds);
            point.bytes = f64::midpoint(point.bytes, new.bytes);
        } else {
            self.points.push(new);
            self.points.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
            if self.points.len() > POINTS {
                self.points.remove(0);
            }
        }
    }

    /// Returns the bytes that the guest writes to in so many seconds, as far as periods have shown.
    pub fn written_in(&self, seconds: f64) -> f64 {
        let total = self.total as f64;
        let Some((first, last)) = self.points.first().zip(self.points.last()) else { return 0.0 };
        if seconds <= first.seconds {
            return first.bytes * seconds / first.seconds;
        }
        let at = self.points.partition_point(|point| point.seconds < seconds);
        let bytes = match self.points.get(at) {
            Some(after) => {
                let before = self.points[at - 1];
                let part = (seconds - before.seconds) / (after.seconds - before.seconds).max(1e-9);
                before.bytes + (after.bytes - before.bytes) * part
            }
            None => {
                // The longest period was shorter. The guest writes on as it did between the two longest ones.
                let slope = match self.points.len().checked_sub(2).map(|at| self.points[at]) {
                    Some(before) if last.seconds > 1.5 * before.seconds => {
                        (last.bytes - before.bytes) / (last.seconds - before.seconds)
                    }
                    _ => last.bytes / last.seconds,
                };
                last.bytes + slope.max(0.0) * (seconds - last.seconds)
            }
        };
        bytes.clamp(0.0, total)
    }

    /// Returns bytes of memory that are sent per second; `None` before that was measured.
    pub fn drain(&self) -> Option<f64> {
        let now = self.sent.1.as_secs_f64();
        // Right at the beginning any measurement is better than none.
        self.drain.or_else(|| (now > 0.0 && self.sent.0 > 0).then(|| self.sent.0 as f64 / now))
    }

    /// Returns the bytes that were left last.
    pub fn pending(&self) -> u64 {
        self.last.map_or(0, |last| last.pending)
    }

    /// Whether all memory was sent once, as far as that is known.
    pub fn was_sent(&self) -> bool {
        self.sent_in_all >= self.total
    }

    /// Returns the time since writes showed last.
    pub fn unseen(&self) -> Duration {
        self.last.map_or(Duration::ZERO, |last| last.now.saturating_sub(self.shown.0))
    }

    /// Whether writes to pages that were still to be sent show as well.
    pub fn sees_all_writes(&self) -> bool {
        self.last.is_some_and(|last| last.log.is_some())
    }

    /// Returns bytes per second that the guest writes to, in a short period.
    pub fn dirty_rate(&self) -> u64 {
        self.points.first().map_or(0, |point| (point.bytes / point.seconds) as u64)
    }

    /// Whether writes could have shown at least once.
    pub fn knows_writes(&self) -> bool {
        self.periods > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn sight(ms: u32, pending: u64, log: Option<(u64, u64)>) -> Sight {
        Sight { now: MS * ms, pending, is_bound: false, wire: 0, log }
    }

    #[test]
    fn the_speed_counts_memory_that_is_no_longer_left() {
        let mut flow = Flow::default();
        for ms in 0..10 {
            flow.see(sight(100 * ms, 10_000_000 - 100_000 * u64::from(ms), Some((0, 0))));
        }
        assert_eq!(flow.drain(), Some(1_000_000.0));
        assert_eq!((flow.total, flow.pending()), (10_000_000, 9_100_000));
    }

    #[test]
    fn a_longer_period_shows_less_than_in_proportion() {
        let mut flow = Flow::default();
        flow.see(sight(0, 1_000_000, Some((0, 0))));
        flow.see(sight(1000, 500_000, Some((1, 1000))));
        flow.see(sight(5000, 400_000, Some((2, 2500))));
        assert_eq!(flow.written_in(0.5), 500.0);
        assert_eq!(flow.written_in(1.0), 1000.0);
        assert_eq!(flow.written_in(2.5), 1250.0);
        assert_eq!(flow.written_in(4.0), 1500.0);
        let longer = flow.written_in(10.0);
        assert!((2400.0..2600.0).contains(&longer), "{longer}");
        assert_eq!(flow.dirty_rate(), 1000);
    }

    #[test]
    fn a_guest_that_becomes_faster_makes_all_periods_more() {
        let mut flow = Flow::default();
        flow.see(sight(0, 1_000_000_000, Some((0, 0))));
        flow.see(sight(1000, 500_000, Some((1, 1000))));
        flow.see(sight(3000, 400_000, Some((2, 3000))));
        flow.see(sight(4000, 400_000, Some((3, 13_000))));
        assert_eq!((flow.written_in(1.0), flow.written_in(2.0)), (10_000.0, 20_000.0));
    }

    #[test]
    fn without_a_log_growth_shows_what_the_guest_wrote() {
        let mut flow = Flow::default();
        flow.see(sight(0, 1_000_000, None));
        flow.see(sight(900, 100_000, None));
        assert!(!flow.knows_writes());
        flow.see(sight(1000, 500_000, None));
        assert_eq!(flow.written_in(1.0), 400_000.0);
        assert!(flow.knows_writes() && !flow.sees_all_writes());
    }

    #[test]
    fn what_goes_out_and_does_not_become_less_was_written_again() {
        let mut flow = Flow::default();
        for tenth in 0..20 {
            flow.see(Sight { wire: 100_000 * u64::from(tenth), ..sight(100 * tenth, 50_000, None) });
        }
        let (sent, written) = (flow.drain().unwrap(), flow.dirty_rate());
        assert!((980_000.0..1_000_000.0).contains(&sent) && written.abs_diff(sent as u64) < 10_000, "{sent} {written}");
    }

    #[test]
    fn a_lower_bound_is_no_measurement() {
        let mut flow = Flow::default();
        flow.see(sight(0, 1_000_000, None));
        flow.see(Sight { is_bound: true, ..sight(1000, 900_000, None) });
        flow.see(Sight { is_bound: true, ..sight(2000, 900_000, None) });
        assert_eq!(flow.drain(), None);
    }
}
