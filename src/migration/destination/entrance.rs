// SPDX-License-Identifier: LGPL-2.1-or-later
//! The listening socket of an incoming migration, while further connections may arrive.

use super::acceptor::Acceptor;
use super::sorter::Sorter;

/// Where connections come in. The worker closes it before the migration ends.
pub(super) struct Entrance {
    /// Until the source is connected.
    pub acceptor: Option<Acceptor>,
    /// With further connections, until the end.
    pub sorter: Option<Sorter>,
}

impl Entrance {
    pub fn new(acceptor: Acceptor) -> Self {
        Self { acceptor: Some(acceptor), sorter: None }
    }

    /// Stops listening.
    pub fn close(&mut self) {
        drop(self.sorter.take());
        drop(self.acceptor.take());
    }
}
