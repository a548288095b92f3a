// SPDX-License-Identifier: LGPL-2.1-or-later
//! The driver: who decides when to iterate, when to stop the guest, when to give up, and who owns the guest at every
//! instant (QEMU 7.2's `migration/migration.c`, made anew).
//!
//! - `core.rs`: what both ends share: status, parameters, statistics, connection, error, trace.
//! - `status.rs`: the statuses and the table of their changes.
//! - `source/`, `destination/`: the two ends, each with a handle for its user and a worker. `return_path/`: what the
//!   destination sends to the source.
//! - `snapshot.rs`: saving and loading with a stopped guest. `check.rs`: checks a stream without loading it.
//!
//! # Who owns the guest
//! The destination starts the guest only behind EOF (precopy) or RUN (postcopy), so the source owns it until it hands that
//! one to the channel: any failure before leaves the source running. Just before, with a return path, the source asks by
//! a PING whether everything is loaded, and waits for the answer; QEMU answers it as well. So EOF is only ever sent to a
//! destination that can start the guest, and the time in which nobody can know is that between sending EOF and hearing
//! the verdict (SHUT). A connection that breaks in that time leaves the source *stopped*, with an error that says that the
//! destination may run: only somebody who can see both sides may decide. Neither side ever runs by itself while the other
//! may. Cut at any byte:
//!
//! | cut | destination | source |
//! |---|---|---|
//! | before EOF (or RUN) is sent | never starts | runs on |
//! | EOF sent, lost on the way | never starts | stopped: unknown |
//! | EOF arrived, verdict lost | runs | stopped: unknown |
//! | verdict arrived | as it says | as it says |
//!
//! Two generals can't do better than move that window. A verdict other than 0 counts as "does not run" only from an end of
//! this library: QEMU 7.2 also sends it with the guest running. A source that is QEMU restarts its guest when it misses
//! the verdict, so to such a source the verdict goes first, and the guest starts only if the channel took it.

mod check;
mod core;
mod destination;
mod endpoint;
mod params;
pub mod return_path;
mod snapshot;
mod source;
mod stats;
mod status;
mod trace;

pub use crate::savevm::owner::Owner;
pub use check::check;
pub use core::Migration;
pub use destination::Incoming;
pub use endpoint::Endpoint;
pub use params::{Choice, Params};
pub use snapshot::{load as snapshot_load, save as snapshot_save, save_to as snapshot_save_to};
pub use source::Outgoing;
pub use stats::{DeviceTime, Info};
pub use status::{Status, StatusMachine};
