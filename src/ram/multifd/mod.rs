// SPDX-License-Identifier: LGPL-2.1-or-later
//! Pages over further connections (replaces QEMU's `migration/multifd*.c`).
//!
//! Source: the thread of the phase collects pages of one block to a batch and gives it to the connection with the shortest
//! queue. A thread for each connection finds zero pages, compresses and writes. Destination: a thread for each connection
//! reads packets and writes their pages to memory.
//!
//! A page that is sent twice must not arrive in the wrong order. So between two passes over memory each connection sends a
//! packet with SYNC, and the main connection a record behind it (or the end of the RAM section). At a SYNC the receiving
//! thread waits until the main connection's thread has reached its record and all other connections their SYNC.
//!
//! The driver makes the connections and closes them (`savevm::connections`). Closing them ends every wait of these threads.

mod compress;
#[cfg(feature = "zstd")]
mod judge;
mod order;
mod queue;
mod reader;
mod receive;
mod send;
#[cfg(test)]
mod tests;
mod worker;

pub(super) use compress::check as check_compression;
pub(super) use queue::Page;
pub(super) use receive::Receivers;
pub(super) use send::Senders;
