// SPDX-License-Identifier: LGPL-2.1-or-later
//! The migration driver against two machines in one process.

mod absent;
mod at_once;
mod break_points;
#[path = "../certificates/mod.rs"]
mod certificates;
mod cuts;
mod faulty_connections;
mod lazy;
mod link;
mod machine;
mod mapped;
mod multifd;
mod multifd_postcopy;
mod multifd_qemu;
mod ownership;
mod page_index;
mod postcopy;
mod postcopy_faults;
mod postcopy_runs;
mod precopy;
mod preflight;
mod preflight_peers;
mod progress;
mod proxy;
mod qemu;
mod rest;
mod strangers;
#[cfg(feature = "tls")]
mod tls;

use std::ops::Deref;
use std::sync::Arc;

/// A device that the test looks at while the machine holds it.
pub struct Shared<T>(pub Arc<T>);

impl<T> Deref for Shared<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}
