// SPDX-License-Identifier: LGPL-2.1-or-later
//! Holds the connections of a migration, so that another thread can close them.

use crate::channel::Channel;
use crate::sync::{Mutex, Rank};
use std::sync::Arc;
use std::time::Duration;

/// The connection in use, so that another thread can end it.
pub(super) struct Link(Mutex<LinkState>);

#[derive(Default)]
struct LinkState {
    channel: Option<Arc<dyn Channel>>,
    /// The further connections of RAM.
    further: Vec<Arc<dyn Channel>>,
    /// No further channel is accepted.
    closed: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self(Mutex::new(Rank::Connection, LinkState::default()))
    }
}

impl Link {
    /// Whether this side has closed the connection.
    pub fn is_closed_here(&self) -> bool {
        let state = self.0.lock();
        state.closed || state.channel.is_none()
    }

    /// Makes a channel the connection in use. Shuts it down and returns false if the connection was closed for good.
    pub fn set(&self, channel: &Arc<dyn Channel>) -> bool {
        self.keep(channel, |state, channel| state.channel = Some(channel))
    }

    /// Adds a further connection, which ends with the connection in use. Shuts it down and returns false if the connection
    /// was closed for good.
    pub fn add(&self, channel: &Arc<dyn Channel>) -> bool {
        self.keep(channel, |state, channel| state.further.push(channel))
    }

    fn keep(&self, channel: &Arc<dyn Channel>, put: impl FnOnce(&mut LinkState, Arc<dyn Channel>)) -> bool {
        let open = {
            let mut state = self.0.lock();
            if !state.closed {
                put(&mut state, Arc::clone(channel));
            }
            !state.closed
        };
        if !open {
            let _ = channel.shutdown();
        }
        open
    }

    /// Returns the bytes that wait in the further connections.
    pub fn further_in_flight(&self) -> u64 {
        let further = self.0.lock().further.clone();
        further.iter().map(|channel| channel.in_flight()).sum()
    }

    /// Sets the longest wait of the channel until bytes arrive or are taken, if there is one.
    pub fn set_stall_limit(&self, limit: Duration) {
        let channel = self.0.lock().channel.clone();
        if let Some(channel) = channel {
            channel.set_stall_limit(Some(limit));
        }
    }

    /// Returns how the process at the other end is, if that can be known.
    pub fn peer_end(&self) -> Option<String> {
        let channel = self.0.lock().channel.clone();
        channel.and_then(|channel| channel.peer_end())
    }

    /// Returns whether the peer has closed the connection, also behind bytes that are still to be read.
    pub fn peer_has_closed(&self) -> bool {
        let channel = self.0.lock().channel.clone();
        channel.is_some_and(|channel| channel.peer_has_closed())
    }

    /// Ends the reads of the channel, if there is one.
    pub fn end_reads(&self) {
        let channel = self.0.lock().channel.clone();
        if let Some(channel) = channel {
            let _ = channel.end_reads();
        }
    }

    /// Shuts the main connection down and releases it. The further ones stay.
    pub fn drop_main(&self) {
        let channel = self.0.lock().channel.take();
        if let Some(channel) = channel {
            let _ = channel.shutdown();
        }
    }

    /// Shuts the channel down, if there is one, and releases it. Returns whether that ends the waits in it.
    pub fn drop_channel(&self) -> bool {
        let (channel, further) = {
            let mut state = self.0.lock();
            (state.channel.take(), std::mem::take(&mut state.further))
        };
        shut_down(&further);
        channel.is_none_or(|channel| channel.shutdown().is_ok())
    }

    /// As `drop_channel`, for good.
    pub fn close(&self) -> bool {
        let (channel, further) = {
            let mut state = self.0.lock();
            state.closed = true;
            (state.channel.clone(), state.further.clone())
        };
        shut_down(&further);
        channel.is_none_or(|channel| channel.shutdown().is_ok())
    }
}

fn shut_down(channels: &[Arc<dyn Channel>]) {
    for channel in channels {
        let _ = channel.shutdown();
    }
}
