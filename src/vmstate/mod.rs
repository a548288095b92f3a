// SPDX-License-Identifier: LGPL-2.1-or-later
//! VMState: devices that describe their state in tables (replaces QEMU 7.2's `migration/vmstate.c` and
//! `migration/vmstate-types.c`).
//!
//! - `model.rs`: the traits through which the interpreter sees tables and memory; `src/ffi/vmstate` implements them over
//!   C's structures, and everything here is safe code over the traits.
//! - `save.rs`, `load.rs`: the interpreter. `extent.rs`: counts and sizes. `put.rs`, `get.rs`: single elements.
//!   `containers.rs`: queues, lists, trees. `io.rs`: how errors travel through C.
//! - `record.rs`, `render.rs`: the description of the stream (vmdesc), recorded while saving and written as JSON later.
//! - `describe.rs`: a description as JSON. `layout.rs`: the layout of a device's state, for a preflight. `host.rs`: timers,
//!   trees, traces; `trace.rs`: the trace events. `conformance.rs`, `lint.rs`: the check of a device for its authors.
//!
//! ```text
//! state      = field* subsection*
//! field      = element*                   (as many as the table says)
//! element    = integer(be) | bytes | state | 0x30 where a pointer is null | (1 element)* 0
//! subsection = 0x05 len(u8) name version(be32) state
//! ```
//! No borrow, lock or cell guard is held while a callback of the device runs.

pub mod conformance;
mod containers;
mod describe;
mod extent;
mod get;
mod host;
mod io;
pub mod layout;
mod lint;
mod load;
pub mod model;
mod put;
mod record;
mod render;
mod save;
pub(crate) mod trace;

pub use describe::describe;
pub use host::{HostObject, NoVmStateHost, VmStateHost};
pub use io::Io;
pub use load::load_state;
pub use record::Recorder;
pub use render::spaced;
pub use save::save_state;

pub(crate) use get::item as get_item;
pub(crate) use put::item as put_item;

use crate::error::Result;
use model::{Description, State};

/// Stands in the stream for a null pointer in an array of pointers: an ASCII zero.
const NULL_MARKER: u8 = 0x30;
/// Bytes that are written or passed over at once.
const CHUNK: usize = 4096;

/// Saves a device in its own version.
///
/// The error has the device's path in it. As in QEMU, errors of the file itself (`MigFile::error`) are not returned here.
pub fn save<S: State>(io: &Io<'_>, state: S, recorder: Option<&Recorder>) -> Result<()> {
    match save_state(io, state, state.description().version(), recorder) {
        0 => Ok(()),
        ret => Err(io.file.pending_error().take(ret)),
    }
}

/// Loads what a device saved in `version`.
pub fn load<S: State>(io: &Io<'_>, state: S, version: i32) -> Result<()> {
    match load_state(io, state, version) {
        0 => Ok(()),
        ret => Err(io.file.pending_error().take(ret)),
    }
}
