// SPDX-License-Identifier: LGPL-2.1-or-later
//! Controls the rounds: passes the measurements of the source to `progress`, and carries out its decisions.

use super::steering_state::limits;
use super::worker::Source;
use crate::migration::core::Core;
use crate::migration::params::Params;
use crate::migration::progress::{Budget, Decision, Estimate, Look, Sight, Stall, time_for};
use crate::migration::trace::Event;
use crate::savevm::handler::Pending;
use crate::savevm::host::Flags;
use std::time::Duration;

/// Answers that the source waits for while the guest is stopped: that everything is loaded, and the verdict.
const ROUND_TRIPS: u32 = 2;
/// How long there must be no end in sight before the migration counts as stalled.
const ENDLESS: Duration = Duration::from_secs(1);

impl Source {
    /// Notes the time of a question to the destination and its answer.
    pub(super) fn note_round_trip(&mut self, time: Duration) {
        self.steering.round_trip = time;
    }

    /// The rounds begin: looks up what the devices cost.
    pub(super) fn begin_steering(&mut self, core: &Core) {
        let answered = self.reader.as_ref().and_then(|reader| reader.answered_at());
        let steering = &mut self.steering;
        if let (Some(asked), Some(answered)) = (steering.asked_at, answered) {
            steering.round_trip = steering.round_trip.min(answered.saturating_duration_since(asked));
        }
        let costs = core.vm.slot.device_costs.sum(&core.vm.registry);
        let answers = if self.reader.is_some() { ROUND_TRIPS } else { 0 };
        steering.budget = Budget {
            save: costs.save,
            load: costs.load,
            round_trips: steering.round_trip * answers,
            rest: core.vm.slot.device_costs.rest(),
            measured: costs.measured,
        };
        steering.costs = costs;
    }

    /// Returns what may be left when the guest is stopped.
    pub(super) fn threshold(&self, core: &Core, params: &Params) -> u64 {
        let whole = self.steering.budget.threshold(self.steering.limit(params), self.rate.last.link);
        whole - self.in_flight(core).min(whole / 2)
    }

    /// Returns the bytes that wait in the connections. What is sent while the guest is stopped follows them.
    fn in_flight(&self, core: &Core) -> u64 {
        self.channel.as_ref().map_or(0, |channel| channel.in_flight()) + core.link.further_in_flight()
    }

    /// Returns whether the devices of the destination approve the switchover, if they are asked (QEMU 8.1's
    /// `migration_can_switchover`). They cannot be asked without a return path.
    pub(super) fn is_approved(&self, core: &Core) -> bool {
        let asks = core.vm.flags().has(Flags::SWITCHOVER_ACK);
        !asks || self.reader.as_ref().is_none_or(|reader| reader.switchover_ack())
    }

    /// Takes in what is left, and decides whether to stop the guest.
    pub(super) fn steer(&mut self, core: &Core, params: &Params, pending: Pending, threshold: u64) -> Decision {
        let (now, left) = (core.now(), pending.total());
        self.see(core, left, threshold);
        let limit = self.steering.limit(params);
        let exceeds = self.steering.budget.exceeds(limit);
        let would_fit = (left == 0 || left < threshold) && !exceeds;
        let fits = would_fit && self.is_approved(core);
        self.steering.unapproved = would_fit && !fits;
        let link = self.rate.last.link;
        let after_pass = match fits {
            true => self.steering.estimate(core, params, link, self.throttle).after_pass(),
            false => None,
        };
        let was_sent = core.stats.get().rounds > 0 || self.steering.flow.was_sent();
        let look = Look { now, left, fits, memory: time_for(left, link), after_pass, was_sent };
        if core.is_forced() {
            return Decision::Switch;
        }
        let decision = self.steering.switchover.decide(&look, &limits(params));
        if exceeds {
            let slowest = &self.steering.costs.slowest;
            core.set_stall(Some(Stall::devices(&self.steering.budget, limit, slowest)));
        } else if self.steering.unapproved {
            core.set_stall(Some(Stall::switchover_ack()));
        }
        match fits {
            true => decision,
            false => Decision::Send,
        }
    }

    /// Takes in what is left.
    pub(super) fn see(&mut self, core: &Core, left: u64, threshold: u64) {
        let log = core.vm.slot.ram().and_then(|ram| ram.log_totals()).map(|log| (log.reads, log.written));
        let is_bound = threshold > 0 && left == threshold;
        let wire = self.transferred();
        self.steering.flow.see(Sight { now: core.now(), pending: left, is_bound, wire, log });
    }

    /// A window has ended: brings the percentage and the expected times up to date.
    pub(super) fn show_progress(&mut self, core: &Core, params: &Params) {
        let (now, link) = (core.now(), self.rate.last.link);
        let is_postcopy = core.status().is_postcopy();
        self.rate.last.threshold = self.threshold(core, params);
        let estimate = self.steering.estimate(core, params, link, self.throttle);
        let rest = estimate.rest();
        // A deadline gives an end to a migration that does not come nearer to one.
        let is_endless = Estimate { deadline: None, ..estimate }.rest().is_none();
        let paused = core.stats.get().time_paused();
        let percent = self.steering.percent.update(now.saturating_sub(paused), rest);
        let left = core.stats.get().remaining.total();
        let prediction = self.steering.prediction(left.saturating_add(self.in_flight(core)), link);
        {
            let mut info = core.stats.get();
            info.percent = percent;
            info.expected_total = rest.map(|rest| now + rest);
            info.bandwidth = self.rate.last.bandwidth;
            info.downtime_limit = self.steering.limit(params);
            if !is_postcopy {
                info.expected_downtime = prediction.total();
            }
        }
        let expected = rest.map(|rest| now + rest);
        core.trace.write(now, &Event::Progress { percent, expected });
        self.judge_stall(core, params, is_endless && !is_postcopy);
    }

    /// Whether the migration makes progress, as far as the speeds show that.
    fn judge_stall(&mut self, core: &Core, params: &Params, is_endless: bool) {
        let steering = &mut self.steering;
        let waits = steering.unapproved || steering.budget.exceeds(steering.limit(params));
        if waits && !core.status().is_postcopy() {
            // `steer` has set the reason.
            return;
        }
        if !is_endless || !steering.flow.knows_writes() {
            steering.endless = None;
            core.set_stall(None);
            return;
        }
        let now = core.now();
        let since = *steering.endless.get_or_insert(now);
        if now.saturating_sub(since) >= ENDLESS {
            let sent = steering.flow.drain().unwrap_or_default() as u64;
            let stall = Stall::dirty(steering.flow.dirty_rate(), sent, self.rate.last.link, params.max_bandwidth);
            core.set_stall(Some(stall));
        }
    }

    /// The guest is about to be stopped: keeps the prediction beside which the downtime will stand.
    pub(super) fn note_stop(&mut self, core: &Core, postcopy: bool) {
        let limit = self.steering.limit(&core.params());
        let left = if postcopy { 0 } else { core.stats.get().remaining.total() };
        let in_flight = self.in_flight(core);
        let prediction = self.steering.prediction(left.saturating_add(in_flight), self.rate.last.link);
        self.steering.stopped = Some((self.transferred().saturating_sub(in_flight), prediction));
        {
            let mut info = core.stats.get();
            (info.prediction, info.downtime_limit) = (Some(prediction), limit);
        }
        core.trace.write(core.now(), &Event::Budget { prediction, left, limit });
        core.set_stall(None);
    }

    /// The guest has moved in precopy after `downtime`: keeps what the prediction did not know.
    pub(super) fn note_downtime(&mut self, core: &Core, downtime: Duration) {
        let Some((before, prediction)) = self.steering.stopped.take() else { return };
        if self.rate.last.link == 0 {
            // Without a bandwidth, the time of the memory cannot be told from the rest.
            return;
        }
        let saved = core.stats.get().device_time;
        let memory = time_for(self.transferred().saturating_sub(before), self.rate.last.link);
        let known = memory + saved + prediction.load + prediction.round_trips;
        core.vm.slot.device_costs.set_rest(downtime.saturating_sub(known));
    }
}
