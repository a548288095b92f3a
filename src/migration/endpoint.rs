// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where a stream goes to or comes from, and the default time limits of a connection.

use crate::channel::{Channel, Uri};
use std::sync::Arc;
use std::time::Duration;

/// Default limit for making an outgoing connection.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Default limit for one wait of the source until the peer takes bytes.
pub(super) const SOURCE_STALL: Duration = Duration::from_secs(60);
/// Default limit for one wait of the destination until bytes arrive.
pub(super) const DESTINATION_STALL: Duration = Duration::from_secs(300);

/// Where a stream goes to or comes from.
pub enum Endpoint {
    /// An address to connect to or to listen on.
    Uri(Uri),
    /// A channel that is connected.
    Channel(Arc<dyn Channel>),
}

impl Endpoint {
    /// The address, if it is one.
    pub(super) fn uri(&self) -> Option<&Uri> {
        match self {
            Self::Uri(uri) => Some(uri),
            Self::Channel(_) => None,
        }
    }

    /// The endpoint as text for the trace.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Uri(uri) => uri.to_string(),
            Self::Channel(_) => "a channel of the host".to_owned(),
        }
    }
}
