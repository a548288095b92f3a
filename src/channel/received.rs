// SPDX-License-Identifier: LGPL-2.1-or-later
//! Descriptors that came with bytes of a stream and were not taken yet.

use crate::sync::{Mutex, Rank};
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

/// Most descriptors that were received and not taken: the peer must not fill the table of this process.
const RECEIVED_MAX: usize = 16;

/// A queue of descriptors, which are closed if they are never taken.
#[derive(Debug)]
pub struct Received(Mutex<VecDeque<OwnedFd>>);

impl Default for Received {
    fn default() -> Self {
        Self(Mutex::new(Rank::ReceivedDescriptors, VecDeque::new()))
    }
}

impl Received {
    /// Appends descriptors. Fails if too many wait.
    pub fn add(&self, fds: Vec<OwnedFd>) -> io::Result<()> {
        if fds.is_empty() {
            return Ok(());
        }
        let mut waiting = self.0.lock();
        if waiting.len() + fds.len() > RECEIVED_MAX {
            return Err(io::Error::other(format!("over {RECEIVED_MAX} descriptors came that no device has taken")));
        }
        waiting.extend(fds);
        Ok(())
    }

    /// Returns the oldest descriptor and forgets it.
    pub fn take(&self) -> Option<OwnedFd> {
        self.0.lock().pop_front()
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        let unused = self.0.lock().len();
        if unused > 0 {
            log::warn!("the stream brought {unused} descriptors that no device has taken; they were closed");
        }
    }
}
