// SPDX-License-Identifier: LGPL-2.1-or-later
//! How much memory a stream may make its reader use.
//!
//! Everything that grows with what the stream says is paid for here before it is allocated, so that a hostile stream
//! ends in an error and not in an exhausted machine.

use std::fmt;

/// Memory that may still be taken, in bytes.
#[derive(Clone, Debug)]
pub struct Budget {
    total: usize,
    left: usize,
}

/// The stream asks for more memory than it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverBudget {
    /// What was allowed in all, in bytes.
    pub total: usize,
}

impl Budget {
    /// What a reader may use when nobody says otherwise: 1 GiB.
    pub const DEFAULT: usize = 1 << 30;

    /// A budget of so many bytes.
    pub fn new(total: usize) -> Self {
        Self { total, left: total }
    }

    /// Pays for `bytes`.
    pub fn take(&mut self, bytes: usize) -> Result<(), OverBudget> {
        self.left = self.left.checked_sub(bytes).ok_or(OverBudget { total: self.total })?;
        Ok(())
    }

    /// Gives back what was taken for something that is gone.
    pub fn give_back(&mut self, bytes: usize) {
        self.left = self.left.saturating_add(bytes).min(self.total);
    }

    /// What can still be taken, in bytes.
    pub fn left(&self) -> usize {
        self.left
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(Self::DEFAULT)
    }
}

impl fmt::Display for OverBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the stream needs more memory than the limit of {} bytes", self.total)
    }
}

impl std::error::Error for OverBudget {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_once() {
        let mut budget = Budget::new(10);
        assert_eq!(budget.take(7), Ok(()));
        assert_eq!(budget.take(4), Err(OverBudget { total: 10 }));
        assert_eq!(budget.left(), 3);
        budget.give_back(100);
        assert_eq!(budget.left(), 10);
    }
}
