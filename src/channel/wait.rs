// SPDX-License-Identifier: LGPL-2.1-or-later
//! Waits for a connection. Each ends with its event, at a deadline, or when it is cancelled.

use super::Channel;
use super::uri::Uri;
use crate::error::{Error, Result};
use crate::sync::{Mutex, Rank};
use crate::sys::{Ready, WakeFd, poll_any};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Ends `connect`, `Listener::accept`, handshakes, and the waits of channels that it knows, from any thread, at once and
/// permanently.
pub struct Cancel {
    wake: WakeFd,
    cancelled: AtomicBool,
    /// Channels that a cancellation shuts down.
    channels: Mutex<Vec<Weak<dyn Channel>>>,
}

/// While it exists, a cancellation shuts a channel down.
pub struct ShutDown<'a> {
    cancel: &'a Cancel,
    channel: Weak<dyn Channel>,
}

impl Drop for ShutDown<'_> {
    fn drop(&mut self) {
        self.cancel.channels.lock().retain(|other| !other.ptr_eq(&self.channel));
    }
}

impl Cancel {
    /// Returns a new cancel. Fails if the process has no descriptors left.
    pub fn new() -> Result<Self> {
        let wake = WakeFd::new().map_err(|err| Error::io("can't make an event", &err))?;
        let channels = Mutex::new(Rank::CancelChannels, Vec::new());
        Ok(Self { wake, cancelled: AtomicBool::new(false), channels })
    }

    /// Ends current and future waits.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.wake.wake();
        let channels = std::mem::take(&mut *self.channels.lock());
        for channel in channels.iter().filter_map(Weak::upgrade) {
            let _ = channel.shutdown();
        }
    }

    /// Lets a cancellation shut `channel` down, until the result is dropped.
    pub fn shuts_down(&self, channel: &Arc<dyn Channel>) -> ShutDown<'_> {
        let channel = Arc::downgrade(channel);
        self.channels.lock().push(Weak::clone(&channel));
        // A cancellation that came before may have missed the channel.
        if self.is_cancelled() {
            self.cancel();
        }
        ShutDown { cancel: self, channel }
    }

    /// Returns whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }
}

/// The waits of one attempt, which share a deadline.
pub(super) struct Wait<'a> {
    doing: &'static str,
    uri: &'a Uri,
    cancel: &'a Cancel,
    limit: Option<Duration>,
    since: Instant,
}

impl<'a> Wait<'a> {
    /// Begins an attempt. Errors contain `doing` and the URI.
    pub fn new(doing: &'static str, uri: &'a Uri, limit: Option<Duration>, cancel: &'a Cancel) -> Self {
        Self { doing, uri, cancel, limit, since: Instant::now() }
    }

    fn left(&self) -> Option<Duration> {
        self.limit.map(|limit| limit.saturating_sub(self.since.elapsed()))
    }

    /// Returns the wait of the first of `attempts` (at least one) that share the remaining time.
    pub fn share(&self, attempts: usize) -> Self {
        let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
        let limit = self.limit.map(|limit| {
            let gone = self.since.elapsed().min(limit);
            gone + (limit - gone) / attempts
        });
        Self { limit, ..*self }
    }

    /// Returns an operating system error with the texts of this attempt.
    pub fn failed(&self, err: &std::io::Error) -> Error {
        Error::io(format_args!("{} {}", self.doing, self.uri), err)
    }

    fn cancelled(&self) -> Error {
        Error::new(libc::ECANCELED, format!("{} {}: cancelled", self.doing, self.uri))
    }

    fn timed_out(&self) -> Error {
        let limit = self.limit.unwrap_or_default();
        Error::new(libc::ETIMEDOUT, format!("{} {}: not done within {limit:?}", self.doing, self.uri))
    }

    /// Fails if it was cancelled.
    pub fn check(&self) -> Result<()> {
        if self.cancel.is_cancelled() { Err(self.cancelled()) } else { Ok(()) }
    }

    /// Converts the result of a wait that used `left` and the event.
    fn judge(&self, ready: std::io::Result<Ready>) -> Result<()> {
        match ready.map_err(|err| self.failed(&err))? {
            Ready::Go => Ok(()),
            Ready::Woken => Err(self.cancelled()),
            Ready::TimedOut => Err(self.timed_out()),
        }
    }

    /// Waits until one of the descriptors is ready.
    pub fn ready(&self, fds: &[BorrowedFd<'_>], write: bool) -> Result<()> {
        self.judge(poll_any(fds, write, &self.cancel.wake, self.left()))
    }

    /// Waits with another poll function, which receives the event and the time.
    pub fn ready_by(&self, poll: impl FnOnce(&WakeFd, Option<Duration>) -> std::io::Result<Ready>) -> Result<()> {
        self.judge(poll(&self.cancel.wake, self.left()))
    }

    /// Waits for something that cannot be polled. The caller tries again afterwards.
    pub fn nap(&self) -> Result<()> {
        let nap = Duration::from_millis(20);
        let left = self.left();
        if left.is_some_and(|left| left.is_zero()) {
            return Err(self.timed_out());
        }
        let nap = left.map_or(nap, |left| left.min(nap));
        match poll_any(&[], false, &self.cancel.wake, Some(nap)) {
            Ok(Ready::TimedOut) => Ok(()),
            other => self.judge(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_share_the_deadline() {
        let (uri, cancel) = ("tcp:both:1".parse().unwrap(), Cancel::new().unwrap());
        let (whole, half) = (Duration::from_secs(1000), Duration::from_secs(500));
        let wait = Wait::new("connecting to", &uri, Some(whole), &cancel);
        let first = wait.share(2).limit.unwrap();
        assert!((half..half + half / 2).contains(&first), "{first:?}");
        assert_eq!(wait.share(1).limit, Some(whole));
        assert_eq!(Wait::new("connecting to", &uri, None, &cancel).share(2).limit, None);
    }
}
