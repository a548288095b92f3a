// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where the connection of the source comes from.

use crate::channel::{Cancel, Channel, Listener, Uri};
use crate::error::Result;
use crate::migration::endpoint::Endpoint;
use std::sync::Arc;
use std::time::Duration;

/// A listener, or a channel that is connected.
pub(super) enum Acceptor {
    Listener(Listener),
    Channel(Arc<dyn Channel>),
}

impl Acceptor {
    /// Starts to listen, if there is something to listen on.
    pub fn open(from: Endpoint) -> Result<Self> {
        Ok(match from {
            Endpoint::Uri(uri) => Self::Listener(Listener::bind(&uri)?),
            Endpoint::Channel(channel) => Self::Channel(channel),
        })
    }

    /// The address that it listens on.
    pub fn uri(&self) -> Option<Uri> {
        match self {
            Self::Listener(listener) => Some(listener.uri().clone()),
            Self::Channel(_) => None,
        }
    }

    /// Whether more than one connection can be accepted.
    pub fn accepts_more(&self) -> bool {
        matches!(self, Self::Listener(listener) if listener.accepts_more())
    }

    /// Waits for a connection, at most for `limit`, until `cancel` is set.
    pub fn accept(&self, limit: Option<Duration>, cancel: &Cancel) -> Result<Arc<dyn Channel>> {
        match self {
            Self::Listener(listener) => listener.accept(limit, cancel),
            Self::Channel(channel) => Ok(Arc::clone(channel)),
        }
    }
}
