// SPDX-License-Identifier: LGPL-2.1-or-later
//! The state that the VMState interpreter keeps with a file while it calls C and C calls it back.
//!
//! Through C an error is only an `int`. The error itself is kept here until the next Rust frame takes it.

use crate::error::Error;
use std::cell::Cell;

/// The nesting depth and the pending error of a file. Only the thread that reads or writes the file uses it.
#[derive(Default)]
pub struct PendingError {
    depth: Cell<u32>,
    error: Cell<Option<Error>>,
}

impl PendingError {
    /// Enters a level. Returns false, without entering it, if there are `limit` levels already.
    #[inline]
    pub fn enter(&self, limit: u32) -> bool {
        let depth = self.depth.get();
        self.depth.set(depth + 1);
        if depth >= limit {
            self.depth.set(depth);
        }
        depth < limit
    }

    /// Leaves a level that was entered.
    #[inline]
    pub fn leave(&self) {
        self.depth.set(self.depth.get().saturating_sub(1));
    }

    /// Returns the number of levels.
    #[inline]
    pub fn depth(&self) -> u32 {
        self.depth.get()
    }

    /// Keeps the error whose code is about to be returned through C.
    #[cold]
    pub fn set(&self, error: Error) {
        self.error.set(Some(error));
    }

    /// Takes the error that belongs to `code` (not 0). If there is none, returns an error with the code alone.
    #[cold]
    pub fn take(&self, code: i32) -> Error {
        self.take_matching(code).unwrap_or_else(|| Error::new(code.saturating_abs(), format!("error code {code}")))
    }

    /// Takes the error that belongs to `code`, if there is one. Drops an error that belongs to another code.
    #[cold]
    pub fn take_matching(&self, code: i32) -> Option<Error> {
        self.error.take().filter(|error| error.code() == -code.saturating_abs())
    }

    /// Drops a pending error.
    #[inline]
    pub fn clear(&self) {
        self.error.set(None);
    }
}
