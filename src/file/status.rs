// SPDX-License-Identifier: LGPL-2.1-or-later
//! What other threads may see and change of a file: first error, shutdown, totals, rate limit.

use super::MigFile;
use crate::error::{Error, Result};
use crate::sync::{Mutex, Rank};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, Ordering::Relaxed};

/// The shared side of a file.
pub struct Status {
    /// 0, or the negative errno of the first error.
    error: AtomicI32,
    detail: Mutex<Option<Error>>,
    shutdown: AtomicBool,
    /// Bytes that left or came in, with those credited for other channels.
    transferred: AtomicI64,
    rate_limit: AtomicI64,
    /// Rate use that was accounted for other channels, and the stream position when use was last reset.
    rate_accounted: AtomicI64,
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
    /// 0, or the negative errno of the first error.
    #[inline]
    pub fn error(&self) -> i32 {
        self.error.load(Relaxed)
    }

    /// The first error with its details.
    pub fn first_error(&self) -> Option<Error> {
        match self.error() {
            0 => None,
            code => {
                let detail = self.detail.lock().clone();
                Some(detail.unwrap_or_else(|| Error::new(code, "the file failed before")))
            }
        }
    }

    /// The first error with its details, if it is more than a bare code.
    pub fn detail(&self) -> Option<Error> {
        self.detail.lock().clone()
    }

    /// Latches an error unless there is one; whether it was the first. A later error with the latched code and a
    /// section replaces a detail without one: the same failure, seen from a place that knows more.
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

    /// Latches a bare code of a C caller: any non-zero value, as QEMU takes it.
    pub fn latch_code(&self, code: i32) {
        if code != 0 {
            let _lock = self.detail.lock();
            let _ = self.error.compare_exchange(0, code, Relaxed, Relaxed);
        }
    }

    /// Whether the file was shut down.
    pub fn is_shutdown(&self) -> bool {
        self.shutdown.load(Relaxed)
    }

    pub(super) fn set_shutdown(&self) {
        self.shutdown.store(true, Relaxed);
    }

    /// Adds bytes that went over the wire beside the file.
    pub fn credit_transfer(&self, bytes: i64) {
        self.transferred.fetch_add(bytes, Relaxed);
    }

    /// Bytes that went over the wire so far.
    pub fn transferred(&self) -> i64 {
        self.transferred.load(Relaxed)
    }

    /// The limit in bytes per window; 0 or less is none.
    pub fn rate_limit(&self) -> i64 {
        self.rate_limit.load(Relaxed)
    }

    /// Sets the limit in bytes per window.
    pub fn set_rate_limit(&self, limit: i64) {
        self.rate_limit.store(limit, Relaxed);
    }

    /// Counts bytes that went beside the file against the limit.
    pub fn account_rate(&self, bytes: i64) {
        self.rate_accounted.fetch_add(bytes, Relaxed);
    }
}

impl MigFile {
    /// 0, or the negative errno of the first error.
    #[inline]
    pub fn error(&self) -> i32 {
        self.status.error()
    }

    /// The first error of the file, unless there is none.
    #[inline]
    pub fn check(&self) -> Result<()> {
        if self.error() == 0 {
            return Ok(());
        }
        self.status.first_error().map_or(Ok(()), Err)
    }

    /// Latches a bare code.
    pub fn set_error(&self, code: i32) {
        self.status.latch_code(code);
    }

    /// Latches an error with its details.
    pub fn set_error_detail(&self, error: Error) {
        self.status.latch(error);
    }

    /// Bytes on the wire, plus those waiting in the file.
    pub fn total_transferred_fast(&self) -> i64 {
        let waiting = if self.writable { self.queued() as i64 } else { 0 };
        self.status.transferred() + waiting
    }

    /// Bytes on the wire, after a flush.
    pub fn total_transferred(&self) -> i64 {
        self.flush();
        self.status.transferred()
    }

    /// Whether the caller should stop putting for this window: over the limit, in error or shut down.
    pub fn rate_limit_reached(&self) -> bool {
        let limit = self.status.rate_limit();
        self.status.is_shutdown() || self.error() != 0 || (limit > 0 && self.rate_used() > limit)
    }

    /// Bytes put in this window, with those accounted for other channels.
    pub fn rate_used(&self) -> i64 {
        self.position() as i64 - self.status.rate_mark.load(Relaxed) + self.status.rate_accounted.load(Relaxed)
    }

    /// Begins a new window.
    pub fn reset_rate(&self) {
        self.status.rate_mark.store(self.position() as i64, Relaxed);
        self.status.rate_accounted.store(0, Relaxed);
    }
}
