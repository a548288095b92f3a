// SPDX-License-Identifier: LGPL-2.1-or-later
//! The deadline of an outgoing migration, and the action at the deadline.

use super::core::Core;
use super::params::{DeadlineAction, Params};
use super::trace::Event;
use crate::error::{Error, Result};
use crate::savevm::host::Level;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// How long the worker may take to notice the deadline, before another thread acts for it.
pub(super) const NOTICED_WITHIN: Duration = Duration::from_millis(200);

/// Fails if the parameters of a migration contradict each other.
pub(super) fn check_params(params: &Params, postcopy: bool) -> Result<()> {
    if params.deadline.is_some() && params.deadline_action == DeadlineAction::Postcopy && !postcopy {
        let text = "the action of the deadline is postcopy, but postcopy is not enabled; set SaveVMParams.postcopy";
        return Err(Error::invalid(text));
    }
    Ok(())
}

impl Core {
    /// Switches to postcopy as soon as possible.
    pub fn request_postcopy(&self) {
        self.ending.postcopy.store(true, SeqCst);
        self.status_machine.notify();
    }

    /// Whether the migration is to switch to postcopy.
    pub fn is_postcopy_requested(&self) -> bool {
        self.ending.postcopy.load(SeqCst)
    }

    /// Whether the guest is to be stopped now, whatever is left.
    pub fn is_forced(&self) -> bool {
        self.ending.forced.load(SeqCst)
    }

    /// Returns for how long the deadline has passed without an action.
    pub fn deadline_missed(&self) -> Duration {
        match self.deadline_left() {
            Some(left) if left.is_zero() => self.now().saturating_sub(self.deadline().map_or(Duration::MAX, |at| at.0)),
            _ => Duration::ZERO,
        }
    }

    /// Returns the time to the deadline; `None` without one, and after its action was taken.
    pub fn deadline_left(&self) -> Option<Duration> {
        if self.incoming || self.ending.passed.load(SeqCst) {
            return None;
        }
        let deadline = self.deadline()?.0;
        Some(deadline.saturating_sub(self.now()))
    }

    /// Takes the action of the deadline once it has passed. `before_close` runs before the connection is closed.
    pub fn check_deadline(&self, before_close: impl FnOnce()) {
        if self.deadline_left().is_none_or(|left| !left.is_zero()) || self.ending.passed.swap(true, SeqCst) {
            return;
        }
        let Some((deadline, action)) = self.deadline() else { return };
        let status = self.status();
        if status.is_postcopy() || !status.is_cancellable() || self.status_machine.is_committed() {
            // The guest has left, or is about to.
            return;
        }
        let why = match self.stats.get().stall.text.clone() {
            text if text.is_empty() => String::new(),
            text => format!(": {text}"),
        };
        let text = format!("the migration did not end within its deadline of {deadline:?} (deadline_ms){why}");
        self.trace.write(self.now(), &Event::Deadline { action: action.name() });
        match action {
            DeadlineAction::Cancel => {
                self.set_interruption(Error::new(libc::ETIMEDOUT, format!("cancelled: {text}")));
                // It ends by itself if it is too late now.
                let _ = self.begin_cancel("the guest is about to leave", before_close);
            }
            DeadlineAction::Postcopy => {
                self.vm.host().report(Level::Warning, &format!("{text}; it switches to postcopy"));
                self.request_postcopy();
            }
            DeadlineAction::Force => {
                self.vm.host().report(Level::Warning, &format!("{text}; the guest is stopped and sent"));
                self.ending.forced.store(true, SeqCst);
                self.status_machine.notify();
            }
        }
    }
}
