// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the VMState interpreter keeps with a file while it calls C and is called back: how deep it is, and the error
//! that the number returned through C stands for.

use crate::error::Error;
use std::cell::Cell;

/// Depth and pending error of one file; used by the thread that puts or gets.
#[derive(Default)]
pub struct Trail {
    depth: Cell<u32>,
    pending: Cell<Option<Error>>,
}

impl Trail {
    /// One level deeper, unless that is more than `limit`.
    #[inline]
    pub fn enter(&self, limit: u32) -> bool {
        let depth = self.depth.get();
        self.depth.set(depth + 1);
        if depth >= limit {
            self.depth.set(depth);
        }
        depth < limit
    }

    /// Back from a level that was entered.
    #[inline]
    pub fn leave(&self) {
        self.depth.set(self.depth.get().saturating_sub(1));
    }

    /// How many levels are open.
    #[inline]
    pub fn depth(&self) -> u32 {
        self.depth.get()
    }

    /// Keeps the error behind a code that is about to be returned.
    #[cold]
    pub fn put(&self, error: Error) {
        self.pending.set(Some(error));
    }

    /// The error behind `code` (not 0), or a bare one where nothing is known about that code.
    #[cold]
    pub fn take(&self, code: i32) -> Error {
        match self.pending.take() {
            Some(error) if error.code() == -code.saturating_abs() => error,
            _ => Error::new(code.saturating_abs(), format!("error code {code}")),
        }
    }

    /// The error behind `code`, if it is known.
    #[cold]
    pub fn take_known(&self, code: i32) -> Option<Error> {
        self.pending.take().filter(|error| error.code() == -code.saturating_abs())
    }

    /// Forgets a pending error.
    #[inline]
    pub fn clear(&self) {
        self.pending.set(None);
    }
}
