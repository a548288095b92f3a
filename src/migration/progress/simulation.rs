// SPDX-License-Identifier: LGPL-2.1-or-later
//! Estimates over synthetic migrations with a simulated clock: guests of many kinds, page by page.

use super::decision::Limits;
use super::flow::{Flow, Sight};
use super::{Budget, Decision, Estimate, Look, Percent, Switchover, Throttle, time_for};
use std::time::Duration;

/// Bytes of a page.
const PAGE: u64 = 4096;
/// Time between two looks.
const TICK: Duration = Duration::from_millis(20);
/// A simulation that takes longer does not end.
const LONGEST: Duration = Duration::from_secs(4000);

/// Which pages the guest writes to.
#[derive(Clone, Copy, Debug)]
enum Writes {
    /// Pages at random, in a part of the memory that begins at one part and ends at another.
    Random(f64, f64),
    /// One page after the other, over and over, in such a part.
    Sweep(f64, f64),
    /// Random pages, of which nine in ten fall into a tenth of the memory.
    Hot,
}

#[derive(Clone, Copy, Debug)]
struct Guest {
    pages: usize,
    writes: Writes,
    /// Pages written per second.
    write_rate: f64,
    /// Pages sent per second.
    send_rate: f64,
    /// By how much the speed of the link varies, as a part of it.
    jitter: f64,
    /// The RAM tells which pages were written.
    has_log: bool,
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The memory and its log, as RAM of the library has them.
struct Memory {
    /// To be sent.
    dirty: Vec<bool>,
    left: usize,
    /// Written since the log was read.
    logged: Vec<bool>,
    cursor: usize,
    round: u64,
    read_in: u64,
    reads: u64,
    written: u64,
    read_at: Duration,
    next_read: Duration,
    swept: usize,
}

impl Memory {
    fn new(pages: usize) -> Self {
        Self {
            dirty: vec![true; pages],
            left: pages,
            logged: vec![false; pages],
            cursor: 0,
            round: 0,
            read_in: 0,
            reads: 0,
            written: 0,
            read_at: Duration::ZERO,
            next_read: Duration::from_millis(250),
            swept: 0,
        }
    }

    fn write(&mut self, guest: &Guest, random: &mut Random) {
        let part = |from: f64, to: f64, at: f64| ((from + (to - from) * at) * guest.pages as f64) as usize;
        let page = match guest.writes {
            Writes::Random(from, to) => part(from, to, random.next()),
            Writes::Sweep(from, to) => {
                let (first, last) = (part(from, to, 0.0), part(from, to, 1.0));
                self.swept += 1;
                first + self.swept % (last - first).max(1)
            }
            Writes::Hot if random.next() < 0.9 => part(0.3, 0.4, random.next()),
            Writes::Hot => part(0.0, 1.0, random.next()),
        };
        self.logged[page.min(guest.pages - 1)] = true;
    }

    /// Sends a page; false if the pass is over.
    fn send(&mut self) -> bool {
        while self.left > 0 {
            if self.cursor == self.dirty.len() {
                (self.cursor, self.round) = (0, self.round + 1);
                return false;
            }
            let at = self.cursor;
            self.cursor += 1;
            if std::mem::take(&mut self.dirty[at]) {
                self.left -= 1;
                return true;
            }
        }
        false
    }

    /// As `save_pending` of RAM. Returns the pages, and whether there may be fewer.
    fn pending(&mut self, now: Duration, threshold: u64) -> (u64, bool) {
        let due = now.saturating_sub(self.read_at) >= self.next_read;
        if self.left > 0 && self.round == self.read_in && !due {
            let left = self.left as u64 * PAGE;
            return (left.max(threshold), left < threshold);
        }
        if due {
            self.next_read = (self.next_read * 2).min(Duration::from_secs(30));
        }
        for (dirty, logged) in self.dirty.iter_mut().zip(&mut self.logged) {
            if std::mem::take(logged) {
                self.written += PAGE;
                if !std::mem::replace(dirty, true) {
                    self.left += 1;
                }
            }
        }
        (self.reads, self.read_in, self.read_at) = (self.reads + 1, self.round, now);
        let left = self.left as u64 * PAGE;
        (left, false)
    }
}

/// What a simulation has recorded: the time of each look, the estimated total and the percentage.
struct Record {
    looks: Vec<(Duration, Option<Duration>, u32)>,
    /// When the migration ended; `None` if it does not.
    end: Option<Duration>,
}

fn limits() -> Limits {
    let ms = Duration::from_millis;
    Limits { first: ms(300), most: Duration::ZERO, step: ms(1), interval: ms(1000) }
}

/// Runs a whole migration.
fn simulate(guest: &Guest, seed: u64) -> Record {
    let mut random = Random(seed | 1);
    let mut memory = Memory::new(guest.pages);
    let (mut flow, mut switchover, mut percent) = (Flow::default(), Switchover::default(), Percent::default());
    let budget = Budget { save: TICK, load: TICK, ..Budget::default() };
    let link = (guest.send_rate * PAGE as f64) as u64;
    let (mut now, mut writes, mut sends) = (Duration::ZERO, 0.0, 0.0);
    let (mut looks, mut wire) = (Vec::new(), 0);
    while now < LONGEST {
        let limit = switchover.limit(&limits());
        let threshold = budget.threshold(limit, link);
        let (pending, is_bound) = memory.pending(now, threshold);
        let log = guest.has_log.then_some((memory.reads, memory.written));
        flow.see(Sight { now, pending, is_bound, wire, log });
        let estimate = Estimate {
            flow: &flow,
            budget: &budget,
            limit,
            limits: limits(),
            link,
            throttle: Throttle::default(),
            is_postcopy: false,
            deadline: None,
        };
        let rest = estimate.rest();
        looks.push((now, rest.map(|rest| now + rest), percent.update(now, rest)));
        let look = Look {
            now,
            left: pending,
            fits: pending < threshold,
            memory: time_for(pending, link),
            after_pass: estimate.after_pass(),
            was_sent: memory.round > 0,
        };
        if switchover.decide(&look, &limits()) == Decision::Switch && look.fits {
            return Record { looks, end: Some(now + budget.predict(pending, link)) };
        }
        now += TICK;
        let speed = 1.0 + guest.jitter * (2.0 * random.next() - 1.0);
        sends += guest.send_rate * speed * TICK.as_secs_f64();
        writes += guest.write_rate * TICK.as_secs_f64();
        while writes >= 1.0 {
            memory.write(guest, &mut random);
            writes -= 1.0;
        }
        while sends >= 1.0 {
            if memory.send() {
                wire += PAGE + 8;
            } else {
                // The source looks again at the end of a pass.
                sends = 0.0;
            }
            sends -= 1.0;
        }
    }
    Record { looks, end: None }
}

/// Guests that write steadily, and whose migration ends.
fn steady() -> Vec<Guest> {
    let mut guests = Vec::new();
    let kinds = [
        Writes::Random(0.0, 1.0),
        Writes::Random(0.1, 0.5),
        Writes::Random(0.6, 1.0),
        Writes::Sweep(0.0, 1.0),
        Writes::Sweep(0.5, 0.9),
        Writes::Hot,
    ];
    for pages in [20_000, 60_000] {
        for writes in kinds {
            for load in [0.0, 0.1, 0.3, 0.5, 0.7] {
                for jitter in [0.0, 0.3] {
                    let send_rate = pages as f64 / 12.0;
                    let write_rate = load * send_rate;
                    guests.push(Guest { pages, writes, write_rate, send_rate, jitter, has_log: true });
                }
            }
        }
    }
    guests
}

fn error_at_half(record: &Record) -> Option<f64> {
    let end = record.end?;
    let (_, total, _) = record.looks.iter().find(|(at, _, _)| *at >= end / 2)?;
    let Some(total) = total else { return Some(f64::INFINITY) };
    Some(total.as_secs_f64() / end.as_secs_f64() - 1.0)
}

#[test]
fn the_estimate_at_half_time_is_within_a_fifth_for_steady_guests() {
    let guests = steady();
    let mut wrong = Vec::new();
    for (seed, guest) in guests.iter().enumerate() {
        let record = simulate(guest, seed as u64 + 1);
        let error = error_at_half(&record);
        if error.is_none_or(|error| error.abs() > 0.2) {
            wrong.push(format!("{guest:?}: {error:?}, ends {:?}", record.end));
        }
    }
    assert!(guests.len() >= 50);
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), guests.len(), wrong.join("\n"));
}

#[test]
fn there_is_an_estimate_after_a_second_and_percent_never_falls() {
    for (seed, guest) in steady().iter().enumerate() {
        let record = simulate(guest, seed as u64 + 77);
        let early = record.looks.iter().find(|(at, _, _)| *at >= Duration::from_secs(1)).unwrap();
        assert!(early.1.is_some(), "{guest:?}");
        assert!(record.looks.is_sorted_by_key(|(_, _, percent)| *percent), "{guest:?}");
    }
}

#[test]
fn a_guest_that_writes_faster_than_the_link_has_no_end_in_sight() {
    let guest = Guest {
        pages: 20_000,
        writes: Writes::Random(0.0, 1.0),
        write_rate: 20_000.0,
        send_rate: 2000.0,
        jitter: 0.1,
        has_log: true,
    };
    let mut short = simulate(&Guest { pages: 2000, ..guest }, 5);
    short.looks.truncate(2000);
    let unknown = short.looks.iter().filter(|(at, total, _)| *at > Duration::from_secs(3) && total.is_some());
    assert!(short.end.is_none() && unknown.count() < 20);
}

#[test]
fn without_a_log_the_estimate_is_good_after_the_first_pass() {
    let guest = Guest {
        pages: 20_000,
        writes: Writes::Sweep(0.0, 1.0),
        write_rate: 600.0,
        send_rate: 2000.0,
        jitter: 0.1,
        has_log: false,
    };
    let record = simulate(&guest, 9);
    let end = record.end.unwrap();
    let late = record.looks.iter().filter(|(at, _, _)| *at > end * 9 / 10);
    for (at, total, _) in late {
        let error = total.unwrap().as_secs_f64() / end.as_secs_f64() - 1.0;
        assert!(error.abs() < 0.2, "at {at:?} of {end:?}: {error}");
    }
}
