// SPDX-License-Identifier: LGPL-2.1-or-later
//! The memory that a stream may make its reader use.
//!
//! A reader takes memory from its budget before it allocates anything whose size depends on the stream. A hostile stream
//! therefore ends in an error and does not exhaust the machine.

use std::fmt;

/// The memory that a reader may still take, in bytes.
#[derive(Clone, Debug)]
pub struct Budget {
    total: usize,
    left: usize,
}

/// The error of a stream that needs more memory than the budget has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverBudget {
    /// The whole budget in bytes.
    pub total: usize,
}

impl Budget {
    /// The default budget: 1 GiB.
    pub const DEFAULT: usize = 1 << 30;

    /// Returns a budget of `total` bytes.
    pub fn new(total: usize) -> Self {
        Self { total, left: total }
    }

    /// Takes memory, in bytes.
    pub fn take(&mut self, bytes: usize) -> Result<(), OverBudget> {
        self.left = self.left.checked_sub(bytes).ok_or(OverBudget { total: self.total })?;
        Ok(())
    }

    /// Gives back memory that was freed, in bytes.
    pub fn give_back(&mut self, bytes: usize) {
        self.left = self.left.saturating_add(bytes).min(self.total);
    }

    /// Returns the memory that can still be taken, in bytes.
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
        write!(f, "the stream needs more memory than the limit of {}", crate::inspect::size(self.total as u64))
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
