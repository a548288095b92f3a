// SPDX-License-Identifier: LGPL-2.1-or-later
//! Decides for each connection whether compression makes it faster (`Compression::Auto`).
//!
//! It measures the time from the beginning of a packet until the channel has accepted it, per byte of memory, once for plain and
//! once for compressed packets. On a fast link a plain packet takes less time. On a slow link the writes wait, and the compressed
//! packet takes less, unless its content can't be compressed or compressing it takes longer than sending it. At intervals, a few
//! packets are sent in the other mode to measure that mode again.

use std::time::Duration;

/// Packets of a trial of the other mode.
const TRIAL: u32 = 6;
/// Packets between the end of one trial and the begin of the next.
const BETWEEN: u32 = 64;
/// A mode must need less than this share of the other mode's time to replace it, in percent.
const CLEARLY: u64 = 90;
/// Compressed pages that need more than this share of their size are not worth it, in percent.
const RATIO_MAX: u64 = 90;
/// A thread that computes is given less than this share of a CPU if others compete for it, in percent.
const CPU_MIN: u64 = 60;

/// Time per byte of one mode, as a moving average in picoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Cost(Option<u64>);

impl Cost {
    fn add(&mut self, bytes: usize, time: Duration) {
        let new = u64::try_from(time.as_nanos() * 1000 / bytes.max(1) as u128).unwrap_or(u64::MAX);
        self.0 = Some(match self.0 {
            None => new,
            Some(old) => old - old / 8 + new / 8,
        });
    }

    /// Whether this mode is clearly faster.
    fn beats(self, other: Self) -> bool {
        match (self.0, other.0) {
            (Some(this), Some(other)) => this < other / 100 * CLEARLY,
            _ => false,
        }
    }
}

/// A packet that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// Bytes of its pages.
    pub bytes: usize,
    /// Bytes of its payload.
    pub payload: usize,
    /// Time of compressing and writing.
    pub time: Duration,
    /// Time of compressing, and the CPU time of the thread in it.
    pub packing: Option<(Duration, Duration)>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Judge {
    plain: Cost,
    packed: Cost,
    /// The mode outside of trials.
    packs: bool,
    /// Packets since a trial began or ended.
    count: u32,
    /// The mode of the trial in progress.
    trial: Option<bool>,
}

impl Default for Judge {
    fn default() -> Self {
        // The first trial comes early.
        let count = BETWEEN - TRIAL;
        Self { plain: Cost::default(), packed: Cost::default(), packs: false, count, trial: None }
    }
}

impl Judge {
    /// Whether the next packet is compressed.
    pub fn packs(&self) -> bool {
        self.trial.unwrap_or(self.packs)
    }

    /// A packet was sent in the mode of `packs`.
    pub fn sent(&mut self, sent: &Sent) {
        let packed = self.packs();
        let cost = if packed { &mut self.packed } else { &mut self.plain };
        cost.add(sent.bytes, sent.time);
        self.count += 1;
        if packed && !is_worth(sent) {
            // The measure of plain packets is renewed before the next trial.
            (self.packs, self.trial, self.count) = (false, None, 0);
            return;
        }
        match self.trial {
            Some(_) if self.count >= TRIAL => {
                self.packs = self.packed.beats(self.plain);
                (self.trial, self.count) = (None, 0);
            }
            None if self.count >= BETWEEN => {
                let other = !self.packs;
                // An old measure says little about the link of today.
                *if other { &mut self.packed } else { &mut self.plain } = Cost::default();
                (self.trial, self.count) = (Some(other), 0);
            }
            _ => {}
        }
    }
}

/// Whether the content can be compressed and a CPU is free to do it.
fn is_worth(sent: &Sent) -> bool {
    let small = (sent.payload as u64) * 100 < (sent.bytes as u64) * RATIO_MAX;
    let free = sent.packing.is_none_or(|(wall, cpu)| {
        // Short times say nothing.
        wall < Duration::from_micros(200) || cpu.as_nanos() as u64 * 100 >= wall.as_nanos() as u64 * CPU_MIN
    });
    small && free
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 512 << 10;

    /// Sends packets over a link and returns how many of the last ones were compressed. Times in ns per byte.
    fn run(link: u64, pack: u64, ratio: u64, cpu: u64) -> usize {
        let mut judge = Judge::default();
        let mut packed = Vec::new();
        for _ in 0..1000 {
            let packs = judge.packs();
            let payload = if packs { BYTES as u64 * ratio / 100 } else { BYTES as u64 };
            let packing = Duration::from_nanos(pack * BYTES as u64);
            let write = Duration::from_nanos(link * payload);
            let sent = Sent {
                bytes: BYTES,
                payload: payload as usize,
                time: if packs { packing.max(write) } else { write },
                packing: packs.then(|| (packing, packing * cpu as u32 / 100)),
            };
            judge.sent(&sent);
            packed.push(packs);
        }
        packed[600..].iter().filter(|packs| **packs).count()
    }

    #[test]
    fn slow_link_compresses_what_can_be_compressed() {
        assert!(run(80, 3, 50, 100) > 350);
    }

    #[test]
    fn fast_link_random_content_slow_compression_and_busy_cpus_stay_plain() {
        for (link, pack, ratio, cpu) in [(1, 3, 50, 100), (80, 3, 99, 100), (8, 20, 30, 100), (80, 3, 50, 30)] {
            assert!(run(link, pack, ratio, cpu) < 60, "link {link}, pack {pack}, ratio {ratio}, cpu {cpu}");
        }
    }
}
