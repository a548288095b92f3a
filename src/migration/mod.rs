// SPDX-License-Identifier: LGPL-2.1-or-later
//! The migration driver: it runs the phases, stops and starts the guest, and decides which side owns it (replaces QEMU 7.2's
//! `migration/migration.c`).
//!
//! - `core.rs`: what both ends share: status, parameters, statistics, connection, error, trace.
//! - `connection.rs`: makes connections, with or without TLS. `link.rs`: those in use.
//! - `status.rs`: the statuses and the table of their changes.
//! - `source/`, `destination/`: the two ends, each with a handle for its user and a worker. `return_path/`: what the
//!   destination sends to the source.
//! - `preflight/`: whether the destination accepts the guest, before memory moves.
//! - `progress/`: when to switch over, the time to the end, and reasons for a stall. `watch.rs`, `deadline.rs`: actions that are
//!   due while the worker waits; `watch_state.rs`, `ending.rs`: their data.
//! - `further.rs`: the further connections, over which RAM sends pages.
//! - `snapshot.rs`: saving and loading with a stopped guest, as `snapshot_options.rs` says. `check.rs`: checks a stream without
//!   loading it; `file_source.rs` reads a file for it, and `page_index.rs` finds its pages, or reads where they are from an
//!   index.
//! - `checkpoint.rs`: checkpoints in this process, and rollbacks to them. `incremental.rs`: snapshots relative to a parent;
//!   `chain_files.rs`: their files. `stopped.rs`: stops the guest for these and for snapshots.
//!
//! # The owner of the guest
//! The destination starts the guest only after EOF (precopy) or RUN (postcopy). The source owns the guest until it writes EOF or
//! RUN to the channel, so any earlier failure leaves the guest running at the source. If there is a return path, the source asks
//! by a PING whether everything is loaded, and waits for the PONG; QEMU answers it as well. So the source sends EOF only to a
//! destination that can start the guest. The owner is unknown between sending EOF and receiving the verdict (SHUT). If the
//! connection breaks in that time, the guest stays stopped at the source. The error reports that the destination may run it, and
//! that an operator with access to both sides has to decide. Neither side runs the guest while the other side may. If the
//! connection is cut at any byte:
//!
//! | cut | destination | source |
//! |---|---|---|
//! | before EOF (or RUN) is sent | never starts | continues the guest |
//! | EOF sent, lost on the way | never starts | stopped: unknown |
//! | EOF arrived, verdict lost | runs | stopped: unknown |
//! | verdict arrived | as in the verdict | as in the verdict |
//!
//! No protocol can avoid this period. A verdict other than 0 means "does not run" only if the destination is libsavevm: QEMU 7.2
//! also sends it while the guest runs. A source that is QEMU restarts its guest if it misses the verdict. So the destination
//! sends the verdict to such a source first, and starts the guest only if the channel accepted it.
//!
//! In postcopy, every error after RUN pauses the migration on both sides, until a recovery or until the user ends it.

mod chain_files;
mod check;
mod checkpoint;
mod connection;
mod core;
mod deadline;
mod destination;
mod ending;
mod endpoint;
mod file_source;
mod further;
mod incremental;
mod link;
mod page_index;
mod params;
mod preflight;
mod progress;
pub mod return_path;
mod snapshot;
mod snapshot_options;
mod source;
mod stats;
mod status;
mod stopped;
mod trace;
mod watch;
mod watch_state;

pub use crate::savevm::connections::Compression;
pub use crate::savevm::owner::Owner;
pub use check::check;
pub use checkpoint::Checkpoint;
pub use core::Migration;
pub use destination::Incoming;
pub use endpoint::Endpoint;
pub use params::{Choice, DeadlineAction, MultifdFormat, Params};
pub use progress::{Stall, StallReason};
pub use snapshot::{end_restore, load as snapshot_load, save as snapshot_save, save_to as snapshot_save_to};
pub use snapshot_options::{Parent, SnapshotOptions};
pub use source::{Outgoing, rehearse, request_verdict};
pub use stats::{DeviceOrder, DeviceTime, Info, Prediction, device_cost_by};
pub use status::{Status, StatusMachine};
