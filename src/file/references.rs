// SPDX-License-Identifier: LGPL-2.1-or-later
//! Who still works with a file that its owner in C has closed.

use std::sync::atomic::{AtomicUsize, Ordering::AcqRel};

/// Set once the owner has closed the file; below it the uses are counted.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// A load may outlive the file that it began with: when a postcopy breaks, the host closes that one from inside the load.
/// Its memory goes with the last of both.
#[derive(Debug, Default)]
pub struct Leases(AtomicUsize);

impl Leases {
    /// One more works with the file.
    pub fn take(&self) {
        self.0.fetch_add(1, AcqRel);
    }

    /// One less does. True for the last one, if the owner has closed the file: it is to be freed.
    pub fn give_back(&self) -> bool {
        self.0.fetch_sub(1, AcqRel) == CLOSED + 1
    }

    /// The owner closes the file. True where nobody works with it: it is to be freed.
    pub fn close(&self) -> bool {
        self.0.fetch_or(CLOSED, AcqRel) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_owner_and_users_frees() {
        assert!(Leases::default().close());
        let leases = Leases::default();
        leases.take();
        leases.take();
        assert!(!leases.close() && !leases.give_back() && leases.give_back());
        let leases = Leases::default();
        leases.take();
        assert!(!leases.give_back() && leases.close());
    }
}
