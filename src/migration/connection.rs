// SPDX-License-Identifier: LGPL-2.1-or-later
//! Makes the connections of a migration: the main one, those of a recovery and additional ones. The parameters of the
//! migration say how all of them are protected (`channel::Security`).

use super::core::Core;
use super::endpoint::Endpoint;
use crate::channel::{self, Cancel, Channel, Sink, Uri};
use crate::error::Result;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Core {
    /// Source: connects to `to`, and shakes hands if the migration uses TLS. Takes at most `limit`, and ends when
    /// `cancel` is cancelled.
    pub(super) fn connect(&self, to: &Endpoint, limit: Duration, cancel: &Cancel) -> Result<Arc<dyn Channel>> {
        let since = Instant::now();
        let (raw, uri) = match to {
            Endpoint::Channel(channel) => (Arc::clone(channel), None),
            Endpoint::Uri(uri) => (channel::connect(uri, Some(limit), cancel)?, Some(uri)),
        };
        let left = limit.saturating_sub(since.elapsed());
        self.security.secure(raw, uri, left, cancel)
    }

    /// Source: opens a file, which becomes visible with `Sink::finish`.
    pub(super) fn open_file(&self, uri: &Uri, limit: Duration, cancel: &Cancel) -> Result<(Sink, Arc<dyn Channel>)> {
        let sink = Sink::open(uri, Some(limit), cancel)?;
        let channel = self.security.secure(Arc::clone(sink.channel()), Some(uri), limit, cancel)?;
        Ok((sink, channel))
    }

    /// Destination: makes an accepted channel a connection of the migration. With TLS the peer must complete the handshake
    /// within `Params::handshake_timeout`.
    pub(super) fn secure_accepted(&self, raw: Arc<dyn Channel>) -> Result<Arc<dyn Channel>> {
        self.security.secure(raw, None, self.params().handshake_timeout, &self.cancel)
    }
}
