// SPDX-License-Identifier: LGPL-2.1-or-later
//! Requests that change how the rounds end: from the user, or from the deadline.

use std::sync::atomic::AtomicBool;

/// See the module.
#[derive(Default)]
pub(super) struct Ending {
    /// Switch to postcopy.
    pub postcopy: AtomicBool,
    /// Stop the guest now, whatever is left.
    pub forced: AtomicBool,
    /// The deadline has passed, and its action was taken.
    pub passed: AtomicBool,
}
