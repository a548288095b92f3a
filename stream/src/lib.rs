// SPDX-License-Identifier: LGPL-2.1-or-later
//! QEMU's migration streams: their format, and a reader that takes them apart without loading them.
//!
//! - [`wire`]: the values of the format, and one encoder and decoder for each of its parts.
//! - [`inspect`]: reads a stream into a model.
//! - [`chain`]: reads chains of incremental snapshots as one stream.
//! - [`json`]: reads and writes JSON.
//! - [`replace`]: replaces a file by a complete one.
//!
//! The engine (crate `savevm`) and the `savevm` command both use this crate. It has no unsafe code. Only
//! [`replace`] makes system calls.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod budget;
pub mod chain;
pub mod inspect;
pub mod json;
pub mod replace;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod wire;

pub use budget::{Budget, OverBudget};
