// SPDX-License-Identifier: LGPL-2.1-or-later
//! The stages of a destination and the table of their changes.
//!
//! ```mermaid
//! stateDiagram-v2
//!   accept --> load
//!   load --> take_over : EOF
//!   load --> listen : LISTEN
//!   listen --> running : RUN
//!   running --> paused : any error
//!   paused --> recover : a new connection
//!   recover --> running : RESUME
//!   recover --> paused : the new connection breaks
//!   running --> finish : EOF
//!   take_over --> finish
//!   finish --> done
//! ```
//! Every stage may become `done`.

use crate::error::Phase;
use crate::migration::status::Status;

/// What a destination is doing. Owned by the worker, changed by `Worker::enter` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Waits for the connection of the source.
    Accept,
    /// Loads sections and commands. The guest is at the source.
    Load,
    /// Postcopy: the package is being loaded on a thread of its own, and pages are received meanwhile.
    Listen,
    /// Postcopy: the guest runs here and its missing pages are received.
    Running,
    /// Postcopy: the connection broke; waits for a new one.
    Paused,
    /// Postcopy: agrees with the source on how to go on over a new connection.
    Recover,
    /// The stream is loaded: takes the disks over and starts the guest.
    TakeOver,
    /// The guest is here with all of its memory: sends the verdict and releases what the migration holds.
    Finish,
    /// The migration is over.
    Done,
}

impl Stage {
    /// All stages.
    #[cfg(test)]
    const ALL: [Self; 9] = [
        Self::Accept,
        Self::Load,
        Self::Listen,
        Self::Running,
        Self::Paused,
        Self::Recover,
        Self::TakeOver,
        Self::Finish,
        Self::Done,
    ];

    /// Whether this stage may become `to`.
    pub const fn may_become(self, to: Self) -> bool {
        use Stage as S;
        match to {
            S::Accept => false,
            S::Load => matches!(self, S::Accept),
            S::Listen => matches!(self, S::Load),
            S::Running => matches!(self, S::Listen | S::Recover),
            S::Paused => matches!(self, S::Running | S::Recover),
            S::Recover => matches!(self, S::Paused),
            S::TakeOver => matches!(self, S::Load),
            S::Finish => matches!(self, S::TakeOver | S::Running),
            S::Done => !matches!(self, S::Done),
        }
    }

    /// The status that users see, for the stages that have one of their own.
    pub const fn status(self) -> Option<Status> {
        match self {
            Self::Accept => Some(Status::Setup),
            Self::Load => Some(Status::Active),
            Self::Listen => Some(Status::Device),
            Self::Running => Some(Status::PostcopyActive),
            Self::Paused => Some(Status::PostcopyPaused),
            Self::Recover => Some(Status::PostcopyRecover),
            Self::TakeOver | Self::Finish | Self::Done => None,
        }
    }

    /// The phase in the trace and the statistics, for the stages that begin one.
    pub const fn phase(self) -> Option<Phase> {
        match self {
            Self::Accept => Some(Phase::Connect),
            Self::Load | Self::Listen | Self::Running | Self::Recover => Some(Phase::Load),
            Self::Paused => Some(Phase::Paused),
            Self::TakeOver => Some(Phase::Start),
            Self::Finish | Self::Done => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Stage as S;

    /// The table, written out by hand.
    const LEGAL: &[(S, &[S])] = &[
        (S::Accept, &[S::Load, S::Done]),
        (S::Load, &[S::Listen, S::TakeOver, S::Done]),
        (S::Listen, &[S::Running, S::Done]),
        (S::Running, &[S::Paused, S::Finish, S::Done]),
        (S::Paused, &[S::Recover, S::Done]),
        (S::Recover, &[S::Running, S::Paused, S::Done]),
        (S::TakeOver, &[S::Finish, S::Done]),
        (S::Finish, &[S::Done]),
        (S::Done, &[]),
    ];

    #[test]
    fn every_pair_of_stages_is_judged_as_the_table_says() {
        assert_eq!(LEGAL.len(), S::ALL.len());
        for (from, legal) in LEGAL {
            for to in S::ALL {
                assert_eq!(from.may_become(to), legal.contains(&to), "{from:?} to {to:?}");
            }
        }
    }

    /// The stage before each change whose status stays the same.
    fn status_before(stage: S) -> Status {
        match stage {
            // Reached from `load`, or from `running`.
            S::TakeOver => Status::Active,
            S::Finish => Status::PostcopyActive,
            stage => stage.status().unwrap_or(Status::Completed),
        }
    }

    #[test]
    fn the_status_may_follow_every_change_of_the_stage() {
        for (from, legal) in LEGAL {
            for to in legal.iter().filter_map(|to| to.status()) {
                let before = status_before(*from);
                assert!(before.may_become(to), "{from:?}: {before} to {to}");
            }
        }
        for last in [S::Accept, S::Load, S::Listen, S::Running, S::Paused, S::Recover, S::TakeOver, S::Finish] {
            assert!(status_before(last).may_become(Status::Failed), "{last:?}");
        }
        for finishing in [Status::Active, Status::PostcopyActive] {
            assert!(finishing.may_become(Status::Completed));
        }
    }

    #[test]
    fn a_status_belongs_to_one_stage() {
        let statuses: Vec<_> = S::ALL.iter().filter_map(|stage| stage.status()).collect();
        for status in &statuses {
            assert_eq!(statuses.iter().filter(|other| *other == status).count(), 1, "{status}");
        }
    }
}
