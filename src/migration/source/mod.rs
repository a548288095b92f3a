// SPDX-License-Identifier: LGPL-2.1-or-later
//! The source of a migration.
//!
//! - `handle.rs`: the user's handle of the migration.
//! - `shared.rs`: what the handle and the worker share.
//! - `worker.rs`: the work, a step at a time. `connect.rs`: the connections. `switchover.rs` and `postcopy.rs`: the two ways to
//!   hand the guest over. `ending.rs`: success, failure, and what is released.
//! - `visit.rs`: a connection for a preflight or a rehearsal alone.
//! - `steering.rs`: progress, and when to stop the guest; `steering_state.rs`: its data. `rate.rs`: bandwidth,
//!   dirty rate and convergence.

mod connect;
mod ending;
mod handle;
mod postcopy;
mod rate;
mod shared;
mod steering;
mod steering_state;
mod switchover;
mod visit;
mod worker;

pub use handle::Outgoing;
pub use visit::{rehearse, request_verdict};
