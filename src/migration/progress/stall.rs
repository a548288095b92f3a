// SPDX-License-Identifier: LGPL-2.1-or-later
//! Why a migration makes no progress.

use super::budget::Budget;
use crate::error;
use crate::savevm::device_costs::NamedCost;
use std::time::Duration;

/// The kind of reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(i32)]
pub enum StallReason {
    /// The migration makes progress.
    #[default]
    None = 0,
    /// The guest writes faster than the link sends.
    DirtyRate = 1,
    /// The guest writes faster than the bandwidth limit allows to send.
    MaxBandwidth = 2,
    /// The devices alone need more than the downtime limit.
    Devices = 3,
    /// The peer does not read what is sent.
    PeerNotReading = 4,
    /// The peer does not send.
    PeerNotSending = 5,
    /// The peer does not answer.
    PeerNotAnswering = 6,
    /// The devices of the destination have not approved the switchover.
    SwitchoverAck = 7,
}

impl StallReason {
    /// Returns the name for traces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::DirtyRate => "dirty-rate",
            Self::MaxBandwidth => "max-bandwidth",
            Self::Devices => "devices",
            Self::PeerNotReading => "peer-not-reading",
            Self::PeerNotSending => "peer-not-sending",
            Self::PeerNotAnswering => "peer-not-answering",
            Self::SwitchoverAck => "switchover-ack",
        }
    }
}

/// The reason with its numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// The kind.
    pub reason: StallReason,
    /// By how many bytes per second the guest writes faster than memory is sent.
    pub excess: u64,
    /// The reason in words, with what to do.
    pub text: String,
}

/// Returns a rate in words.
fn rate(bytes: u64) -> String {
    format!("{}/s", error::size(bytes))
}

impl Stall {
    /// The guest writes `dirty` bytes per second. `sent` of them are sent, and the link could send `link`.
    pub fn dirty(dirty: u64, sent: u64, link: u64, max_bandwidth: u64) -> Self {
        let excess = dirty.saturating_sub(sent);
        let (writes, sends, more) = (rate(dirty), rate(sent), rate(excess));
        if max_bandwidth > 0 && link > dirty {
            let text = format!(
                "the guest writes {writes}, max_bandwidth allows to send {sends}: {more} too little; raise max_bandwidth"
            );
            return Self { reason: StallReason::MaxBandwidth, excess, text };
        }
        let how = match excess {
            0 => "about as much as is sent, and what is left does not fit into the downtime limit".to_owned(),
            _ => format!("{more} more than the {sends} that are sent"),
        };
        let text = format!(
            "the guest writes {writes}, {how}; raise downtime_limit_ms, set auto_converge, or switch to postcopy"
        );
        Self { reason: StallReason::DirtyRate, excess, text }
    }

    /// The devices alone exceed the limit.
    pub fn devices(budget: &Budget, limit: Duration, slowest: &[NamedCost]) -> Self {
        const NAMED: usize = 3;
        let names: Vec<_> = slowest
            .iter()
            .take(NAMED)
            .map(|NamedCost { name, instance, cost }| {
                let (save, load) = (cost.expected_save().unwrap_or_default(), cost.expected_load().unwrap_or_default());
                format!("'{name}' instance {instance} (save {save:.1?}, load {load:.1?})")
            })
            .collect();
        let text = format!(
            "the devices alone need {:.1?} of downtime, the limit is {limit:?}: saving {:.1?}, loading {:.1?}, round trips \
             {:.1?}; the most expensive ones are {}; raise downtime_limit_ms",
            budget.devices(),
            budget.save,
            budget.load,
            budget.round_trips,
            if names.is_empty() { "not known".to_owned() } else { names.join(", ") }
        );
        Self { reason: StallReason::Devices, excess: 0, text }
    }

    /// Everything fits into the downtime limit, but the destination did not approve the switchover.
    pub fn switchover_ack() -> Self {
        let text = "the devices of the destination have not approved the switchover: set switchover-ack on both sides, and see \
                    the destination for devices that still load"
            .to_owned();
        Self { reason: StallReason::SwitchoverAck, excess: 0, text }
    }

    /// The peer does nothing. `place` names connections, if it is about some of them.
    pub fn peer(reason: StallReason, peer: &str, place: &str, time: Duration) -> Self {
        let seconds = time.as_secs_f64();
        let text = match reason {
            StallReason::PeerNotReading => format!("{peer} has not read what was sent to it{place} for {seconds:.0} s"),
            StallReason::PeerNotSending => format!("{peer} has sent nothing{place} for {seconds:.0} s"),
            _ => format!("{peer} has not answered for {seconds:.0} s"),
        };
        Self { reason, excess: 0, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::savevm::device_costs::DeviceCost;

    #[test]
    fn the_excess_and_what_to_do_are_named() {
        let stall = Stall::dirty(120 << 20, 80 << 20, 80 << 20, 0);
        assert_eq!((stall.reason, stall.excess), (StallReason::DirtyRate, 40 << 20));
        assert!(stall.text.contains("120 MiB/s") && stall.text.contains("40 MiB/s more"), "{}", stall.text);
        let stall = Stall::dirty(120 << 20, 80 << 20, 500 << 20, 80 << 20);
        assert_eq!(stall.reason, StallReason::MaxBandwidth);
        assert!(stall.text.contains("raise max_bandwidth"));
    }

    #[test]
    fn the_most_expensive_devices_are_named() {
        let ms = Duration::from_millis;
        let budget = Budget { save: ms(200), load: ms(150), measured: ms(350), ..Budget::default() };
        let cost = DeviceCost { save: Some(ms(180)), load: Some(ms(140)), ..DeviceCost::default() };
        let slowest = [NamedCost { name: "gpu".into(), instance: 2, cost }];
        let text = Stall::devices(&budget, ms(300), &slowest).text;
        assert!(text.contains("350.0ms") && text.contains("'gpu' instance 2 (save 180.0ms, load 140.0ms)"), "{text}");
    }
}
