// SPDX-License-Identifier: LGPL-2.1-or-later
//! The part of a file that any thread may use: first error, shutdown, totals, rate limit.

use super::MigFile;
use crate::error::{Error, Result};
use crate::sync::{Mutex, Rank};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, Ordering::Relaxed};

/// The part of a file that any thread may use.
pub struct Status {
    /// 0, or the negative errno of the first error.
    error: AtomicI32,
    detail: Mutex<Option<Error>>,
    shutdown: AtomicBool,
    /// Number of bytes that were sent or received, with those credited for other channels.
    transferred: AtomicI64,
    rate_limit: AtomicI64,
    /// Bytes in this window that were accounted for other channels.
    rate_accounted: AtomicI64,
    /// Position in the stream at the start of the window.
    rate_mark: AtomicI64,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            error: AtomicI32::new(0),
            detail: Mutex::new(Rank::FileError, None),
            shutdown: AtomicBool::new(false),
            transferred: AtomicI64::new(0),
            rate_limit: AtomicI64::new(0),
            rate_accounted: AtomicI64::new(0),
            rate_mark: AtomicI64::new(0),
        }
    }
}

impl Status {
    /// Returns 0, or the negative errno of the first error.
    #[inline]
    pub fn error(&self) -> i32 {
        self.error.load(Relaxed)
    }

    /// Returns the first error with its details.
    pub fn first_error(&self) -> Option<Error> {
        match self.error() {
            0 => None,
            code => {
                let detail = self.detail.lock().clone();
                Some(detail.unwrap_or_else(|| Error::from_code("the file failed earlier", code)))
            }
        }
    }

    /// Returns the details of the first error, if it has more than a code.
    pub fn detail(&self) -> Option<Error> {
        self.detail.lock().clone()
    }

    /// Latches an error, unless there is one. Returns whether it was the first. A later error with the same code and a
    /// section replaces the details of one without: it is the same failure, seen by code that knows more.
    pub fn latch(&self, error: Error) -> bool {
        let mut detail = self.detail.lock();
        let first = self.error.compare_exchange(0, error.code(), Relaxed, Relaxed);
        match first {
            Ok(_) => *detail = Some(error),
            Err(code) if code == error.code() => {
                if detail.as_ref().is_none_or(|known| known.section().is_none() && error.section().is_some()) {
                    *detail = Some(error);
                }
            }
            Err(_) => {}
        }
        first.is_ok()
    }

    /// Latches a code of a C caller, which may be any number but 0, as in QEMU.
    pub fn latch_code(&self, code: i32) {
        if code != 0 {
            let _lock = self.detail.lock();
            let _ = self.error.compare_exchange(0, code, Relaxed, Relaxed);
        }
    }

    /// Returns whether the file was shut down.
    pub fn is_shutdown(&self) -> bool {
        self.shutdown.load(Relaxed)
    }

    pub(super) fn set_shutdown(&self) {
        self.shutdown.store(true, Relaxed);
    }

    /// Adds bytes that another channel sent or received.
    pub fn credit_transfer(&self, bytes: i64) {
        self.transferred.fetch_add(bytes, Relaxed);
    }

    /// Returns the number of bytes that were sent or received.
    pub fn transferred(&self) -> i64 {
        self.transferred.load(Relaxed)
    }

    /// Returns the limit in bytes per window. 0 or less means no limit.
    pub fn rate_limit(&self) -> i64 {
        self.rate_limit.load(Relaxed)
    }

    /// Sets the limit in bytes per window.
    pub fn set_rate_limit(&self, limit: i64) {
        self.rate_limit.store(limit, Relaxed);
    }

    /// Counts bytes of another channel against the limit.
    pub fn account_rate(&self, bytes: i64) {
        self.rate_accounted.fetch_add(bytes, Relaxed);
    }
}

impl MigFile {
    /// Returns 0, or the negative errno of the first error.
    #[inline]
    pub fn error(&self) -> i32 {
        self.status.error()
    }

    /// Fails with the first error of the file, if it has one.
    #[inline]
    pub fn check(&self) -> Result<()> {
        if self.error() == 0 {
            return Ok(());
        }
        self.status.first_error().map_or(Ok(()), Err)
    }

    /// Latches a code without details.
    pub fn set_error(&self, code: i32) {
        self.status.latch_code(code);
    }

    /// Latches an error with its details.
    pub fn set_error_detail(&self, error: Error) {
        self.status.latch(error);
    }

    /// Returns the number of bytes sent or received, plus those that wait in the file.
    pub fn total_transferred_fast(&self) -> i64 {
        let waiting = if self.writable { self.queued() as i64 } else { 0 };
        self.status.transferred() + waiting
    }

    /// Flushes, and returns the number of bytes sent or received.
    pub fn total_transferred(&self) -> i64 {
        self.flush();
        self.status.transferred()
    }

    /// Returns whether the caller should stop writing in this window: the limit is exceeded, or the file has an error
    /// or was shut down.
    pub fn rate_limit_reached(&self) -> bool {
        let limit = self.status.rate_limit();
        self.status.is_shutdown() || self.error() != 0 || (limit > 0 && self.rate_used() > limit)
    }

    /// Returns the number of bytes in this window, with those accounted for other channels.
    pub fn rate_used(&self) -> i64 {
        self.position() as i64 - self.status.rate_mark.load(Relaxed) + self.status.rate_accounted.load(Relaxed)
    }

    /// Starts a new window.
    pub fn reset_rate(&self) {
        self.status.rate_mark.store(self.position() as i64, Relaxed);
        self.status.rate_accounted.store(0, Relaxed);
    }
}
