// SPDX-License-Identifier: LGPL-2.1-or-later
//! QEMU's migration streams: their format, and a reader that takes them apart without loading them.
//!
//! [`wire`] has the values of the format. [`inspect`] reads a stream into a model. The engine (crate `savevm`) and the
//! `savevm` command both use this crate. It needs no system calls and no unsafe code.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod inspect;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod wire;
