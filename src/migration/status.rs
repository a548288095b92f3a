// SPDX-License-Identifier: LGPL-2.1-or-later
//! The status of a migration: QEMU 7.2's names (`qapi/migration.json`, `MigrationStatus`) and the changes between them.
//!
//! ```mermaid
//! stateDiagram-v2
//!   none --> setup
//!   setup --> active
//!   setup --> wait_unplug
//!   wait_unplug --> active
//!   active --> completed
//!   active --> pre_switchover
//!   active --> device
//!   active --> postcopy_active
//!   active --> colo
//!   pre_switchover --> device
//!   pre_switchover --> postcopy_active
//!   device --> completed
//!   device --> postcopy_active
//!   postcopy_active --> postcopy_paused
//!   postcopy_active --> completed
//!   postcopy_paused --> postcopy_recover
//!   postcopy_recover --> postcopy_active
//!   postcopy_recover --> postcopy_paused
//!   cancelling --> cancelled
//! ```
//! Every status from `setup` on may become `failed`, and every one before the guest was handed over `cancelling`.

use crate::sync::{Condvar, Mutex, MutexGuard, Rank};
use std::fmt;
use std::time::{Duration, Instant};

/// QEMU's status, with QEMU's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Status {
    /// Nothing has begun.
    #[default]
    None = 0,
    /// Connecting, and the handlers' setup.
    Setup = 1,
    /// The migration is being cancelled and releases what it holds.
    Cancelling = 2,
    /// The migration was cancelled; the guest is where it was.
    Cancelled = 3,
    /// Rounds of precopy.
    Active = 4,
    /// The guest runs on the destination, the rest follows.
    PostcopyActive = 5,
    /// The connection broke during postcopy.
    PostcopyPaused = 6,
    /// A new connection is being agreed on.
    PostcopyRecover = 7,
    /// The guest has moved.
    Completed = 8,
    /// The migration failed; the error contains the cause and where the guest is.
    Failed = 9,
    /// Continuous replication.
    Colo = 10,
    /// The guest is stopped, and the migration waits until the operator continues it.
    PreSwitchover = 11,
    /// The guest is stopped and the device states are on their way.
    Device = 12,
    /// Waits for the guest to let devices go.
    WaitUnplug = 13,
}

impl Status {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::None,
        Self::Setup,
        Self::Cancelling,
        Self::Cancelled,
        Self::Active,
        Self::PostcopyActive,
        Self::PostcopyPaused,
        Self::PostcopyRecover,
        Self::Completed,
        Self::Failed,
        Self::Colo,
        Self::PreSwitchover,
        Self::Device,
        Self::WaitUnplug,
    ];

    /// QEMU's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Setup => "setup",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
            Self::Active => "active",
            Self::PostcopyActive => "postcopy-active",
            Self::PostcopyPaused => "postcopy-paused",
            Self::PostcopyRecover => "postcopy-recover",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Colo => "colo",
            Self::PreSwitchover => "pre-switchover",
            Self::Device => "device",
            Self::WaitUnplug => "wait-unplug",
        }
    }

    /// Returns whether the migration is over.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Cancelled | Self::Completed | Self::Failed | Self::Colo)
    }

    /// Whether the guest was handed over with postcopy.
    pub const fn is_postcopy(self) -> bool {
        matches!(self, Self::PostcopyActive | Self::PostcopyPaused | Self::PostcopyRecover)
    }

    /// Whether it may still be cancelled.
    pub const fn is_cancellable(self) -> bool {
        matches!(self, Self::None | Self::Setup | Self::WaitUnplug | Self::Active | Self::PreSwitchover | Self::Device)
    }

    /// Whether this may become `to`.
    pub const fn may_become(self, to: Self) -> bool {
        use Status as S;
        match to {
            S::None => false,
            S::Setup => matches!(self, S::None),
            S::Cancelling => self.is_cancellable(),
            S::Cancelled => matches!(self, S::Cancelling),
            S::Active => matches!(self, S::None | S::Setup | S::WaitUnplug),
            S::WaitUnplug => matches!(self, S::Setup),
            S::PreSwitchover => matches!(self, S::Active),
            S::Device => matches!(self, S::Active | S::PreSwitchover),
            S::PostcopyActive => matches!(self, S::Active | S::PreSwitchover | S::Device | S::PostcopyRecover),
            S::PostcopyPaused => matches!(self, S::PostcopyActive | S::PostcopyRecover),
            S::PostcopyRecover => matches!(self, S::PostcopyPaused),
            S::Completed => matches!(self, S::Active | S::Device | S::PostcopyActive),
            S::Colo => matches!(self, S::Active),
            S::Failed => !self.is_final() && !matches!(self, S::None),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

#[derive(Default)]
struct Inner {
    status: Status,
    /// The point of no return was passed: it is too late to cancel.
    committed: bool,
    /// The point of no return can't be passed any more.
    refused: bool,
    /// Changes that were not reported to the host yet, and whether a thread is reporting them.
    unreported: std::collections::VecDeque<Status>,
    reporting: bool,
    /// Counts up with every change that a waiting thread may wait for.
    generation: u64,
}

/// The status of one migration. Any thread may wait for it. The thread that changes it reports to the host, without a lock
/// and in the order of the changes.
pub struct StatusMachine {
    inner: Mutex<Inner>,
    /// The status or the generation changed.
    changed: Condvar,
    /// The host has received the report of a status. Threads that wait for the end are not woken by anything else.
    reported: Condvar,
}

impl Default for StatusMachine {
    fn default() -> Self {
        let inner = Mutex::new(Rank::MigrationStatus, Inner::default());
        Self { inner, changed: Condvar::new(), reported: Condvar::new() }
    }
}

impl StatusMachine {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Returns the status.
    pub fn status(&self) -> Status {
        self.inner().status
    }

    /// Changes the status if the table allows that, and returns whether it did. `report` is called once for every change.
    pub fn advance(&self, to: Status, report: &dyn Fn(Status)) -> bool {
        let mut inner = self.inner();
        let cancelling_late = to == Status::Cancelling && inner.committed;
        if !inner.status.may_become(to) || cancelling_late {
            return false;
        }
        inner.status = to;
        inner.generation += 1;
        inner.unreported.push_back(to);
        self.changed.notify_all();
        if std::mem::replace(&mut inner.reporting, true) {
            // Another call is reporting, maybe further down on this stack. It reports this change as well.
            return true;
        }
        while let Some(status) = inner.unreported.pop_front() {
            drop(inner);
            report(status);
            inner = self.inner();
        }
        inner.reporting = false;
        self.reported.notify_all();
        true
    }

    /// Passes the point of no return: from now on cancelling fails. False if it was cancelled or refused before.
    pub fn commit(&self) -> bool {
        let mut inner = self.inner();
        if inner.refused || inner.status == Status::Cancelling || inner.status.is_final() {
            return false;
        }
        inner.committed = true;
        true
    }

    /// Makes every later `commit` fail.
    pub fn refuse(&self) {
        self.inner().refused = true;
    }

    /// Reverts `commit`: the other side can't start the guest.
    pub fn uncommit(&self) {
        self.inner().committed = false;
    }

    /// Whether the point of no return was passed.
    pub fn is_committed(&self) -> bool {
        self.inner().committed
    }

    /// Wakes all waiting threads, so that they look again.
    pub fn notify(&self) {
        self.inner().generation += 1;
        self.changed.notify_all();
    }

    /// Counts up with every change and every `notify`.
    pub fn generation(&self) -> u64 {
        self.inner().generation
    }

    /// Waits until the generation is not `since` any more, at most for `limit`.
    pub fn wait_changed(&self, since: u64, limit: Duration) {
        self.wait(&self.changed, |inner| inner.generation != since, Some(limit));
    }

    /// Waits until the migration is over and the host has received the report. Returns the last status, or `None` after `limit`.
    pub fn wait_final(&self, limit: Option<Duration>) -> Option<Status> {
        let over = |inner: &Inner| inner.status.is_final() && !inner.reporting;
        self.wait(&self.reported, over, limit).then(|| self.status())
    }

    fn wait(&self, signal: &Condvar, done: impl Fn(&Inner) -> bool, limit: Option<Duration>) -> bool {
        let since = Instant::now();
        let mut inner = self.inner();
        while !done(&inner) {
            inner = match limit {
                None => signal.wait(inner),
                Some(limit) => {
                    let Some(left) = limit.checked_sub(since.elapsed()).filter(|left| !left.is_zero()) else {
                        return false;
                    };
                    signal.wait_timeout(inner, left)
                }
            };
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Status as S;

    /// The whole table, written out once more by hand.
    const LEGAL: &[(S, &[S])] = &[
        (S::None, &[S::Setup, S::Active, S::Cancelling]),
        (S::Setup, &[S::Active, S::WaitUnplug, S::Cancelling, S::Failed]),
        (S::WaitUnplug, &[S::Active, S::Cancelling, S::Failed]),
        (S::Active, &[S::PreSwitchover, S::Device, S::PostcopyActive, S::Completed, S::Colo, S::Cancelling, S::Failed]),
        (S::PreSwitchover, &[S::Device, S::PostcopyActive, S::Cancelling, S::Failed]),
        (S::Device, &[S::Completed, S::PostcopyActive, S::Cancelling, S::Failed]),
        (S::PostcopyActive, &[S::PostcopyPaused, S::Completed, S::Failed]),
        (S::PostcopyPaused, &[S::PostcopyRecover, S::Failed]),
        (S::PostcopyRecover, &[S::PostcopyActive, S::PostcopyPaused, S::Failed]),
        (S::Cancelling, &[S::Cancelled, S::Failed]),
        (S::Cancelled, &[]),
        (S::Completed, &[]),
        (S::Failed, &[]),
        (S::Colo, &[]),
    ];

    #[test]
    fn every_pair_of_statuses_is_judged_as_the_table_says() {
        assert_eq!(LEGAL.len(), S::ALL.len());
        for (from, legal) in LEGAL {
            for to in S::ALL {
                assert_eq!(from.may_become(to), legal.contains(&to), "{from} to {to}");
            }
            assert_eq!(legal.is_empty(), from.is_final());
        }
    }

    #[test]
    fn numbers_are_qemus_and_names_are_unique() {
        for (number, status) in S::ALL.into_iter().enumerate() {
            assert_eq!(status as usize, number);
            assert_eq!(S::ALL.iter().filter(|other| other.name() == status.name()).count(), 1);
        }
    }

    #[test]
    fn cancel_is_refused_after_the_point_of_no_return() {
        let machine = StatusMachine::default();
        let report = |_: S| ();
        assert!(machine.advance(S::Setup, &report) && machine.advance(S::Active, &report) && machine.commit());
        assert!(!machine.advance(S::Cancelling, &report));
        assert!(machine.advance(S::Completed, &report));
        let machine = StatusMachine::default();
        assert!(machine.advance(S::Setup, &report) && machine.advance(S::Cancelling, &report));
        assert!(!machine.commit() && !machine.advance(S::Active, &report));
        let machine = StatusMachine::default();
        machine.refuse();
        assert!(machine.advance(S::Setup, &report) && !machine.commit());
    }

    #[test]
    fn change_made_in_a_report_is_reported_after_it() {
        let (machine, reported) = (StatusMachine::default(), std::sync::Mutex::new(Vec::new()));
        let report = |status: S| {
            if status == S::Setup {
                assert!(machine.advance(S::Cancelling, &|_| unreachable!("the outer call reports")));
            }
            reported.lock().unwrap().push(status);
        };
        machine.advance(S::Setup, &report);
        assert_eq!(*reported.lock().unwrap(), [S::Setup, S::Cancelling]);
        assert_eq!(machine.wait_final(Some(Duration::from_millis(1))), None);
    }
}
