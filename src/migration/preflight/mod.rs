// SPDX-License-Identifier: LGPL-2.1-or-later
//! The preflight: before memory moves, the destination compares the machine of the source with its own and names all problems.
//!
//! ```text
//! source                                       destination
//! header, configuration
//! OPEN_RETURN_PATH, PING 1, HELLO, HELLO_END  -->
//!                                             <--   PONG 1, HELLO, PONG_HELLO, PONG_PREFLIGHT, HELLO_END
//! manifest                                    -->   compares machines
//!                                             <--   wanted                 (only if layouts of devices differ)
//! layouts                                     -->   compares layouts
//!                                             <--   verdict
//! devices                                     -->   loads them, resets     (only in a rehearsal)
//!                                             <--   report
//! ```
//! A destination that does not send PONG_PREFLIGHT receives no requests: QEMU, and earlier releases of this library. A
//! destination of this release treats the beginning of the stream differently only if it begins as above, up to HELLO: QEMU never
//! sends that. No device is called at the destination before the verdict, and the guest runs on at the source.
//!
//! A connection for a verdict or a rehearsal alone ends with the last answer. The destination then waits for the next one.
//!
//! - `manifest.rs`: describes the machine of a context.
//! - `judge.rs`: the destination's side of the exchange, without its connection.
//! - `ask.rs`: the source's side. `rehearsal.rs`: loads devices for a test.
//! - `problems.rs`: the problems as errors and warnings.
//!
//! `wire::preflight` has the format, `inspect::compat` decides, as for the check command.

mod ask;
mod judge;
mod manifest;
mod problems;
mod rehearsal;

pub(super) use ask::ask;
pub(super) use judge::{Judge, Outcome};
pub(super) use problems::with_problem;
pub(super) use rehearsal::{report_times, send};
