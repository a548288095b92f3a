// SPDX-License-Identifier: LGPL-2.1-or-later
//! Counts the references to a file that its owner in C may close while a load uses it.
//!
//! When a postcopy breaks, the host closes the file from inside the load that reads it. The memory of the file is freed
//! with the last reference.

use std::sync::atomic::{AtomicUsize, Ordering::AcqRel};

/// Bit that is set once the owner has closed the file. The bits below it count the references.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// The references to a file besides its owner's.
#[derive(Debug, Default)]
pub struct References(AtomicUsize);

impl References {
    /// Adds a reference.
    pub fn add(&self) {
        self.0.fetch_add(1, AcqRel);
    }

    /// Releases a reference. Returns true if it was the last one and the owner has closed the file: the caller frees
    /// it.
    pub fn release(&self) -> bool {
        self.0.fetch_sub(1, AcqRel) == CLOSED + 1
    }

    /// The owner closes the file. Returns true if there is no other reference: the caller frees the file.
    pub fn close(&self) -> bool {
        self.0.fetch_or(CLOSED, AcqRel) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_of_owner_and_references_frees() {
        assert!(References::default().close());
        let references = References::default();
        references.add();
        references.add();
        assert!(!references.close() && !references.release() && references.release());
        let references = References::default();
        references.add();
        assert!(!references.release() && references.close());
    }
}
