// SPDX-License-Identifier: LGPL-2.1-or-later
//! The destination of a migration.
//!
//! - `handle.rs`: the user's handle of the migration. `shared.rs`: what the handle and the worker share.
//! - `stage.rs`: the stages of the worker and the table of their changes.
//! - `worker.rs`: the worker and the steps that read the stream. `takeover.rs`: the end. `recovery.rs`: a broken postcopy.
//!   `package.rs`: the thread that loads the package of a postcopy. `answering.rs`: sends the verdict again. `candidates.rs`: the
//!   clients that connect for a recovery.
//! - `sorter.rs`: the clients of a new migration. `beginning.rs`: the beginning of a stream. `strangers.rs`: what `sorter.rs`
//!   and `candidates.rs` share.
//! - `commands.rs`: the commands of the stream. `entrance.rs`, `accept.rs`, `acceptor.rs`, `handshake.rs`, `meter.rs`: the
//!   connection.

mod accept;
mod acceptor;
mod answering;
mod beginning;
mod candidates;
mod commands;
mod entrance;
mod handle;
mod handshake;
mod meter;
mod negotiation;
mod package;
mod recovery;
mod shared;
mod sorter;
mod stage;
mod strangers;
mod takeover;
mod worker;

pub use handle::Incoming;
