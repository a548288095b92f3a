// SPDX-License-Identifier: LGPL-2.1-or-later
#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

#[cfg(panic = "abort")]
compile_error!("a panic must be caught at the C boundary: build savevm with panic = \"unwind\"");

pub mod channel;
pub mod error;
pub mod ffi;
pub mod file;
pub mod migration;
pub mod ram;
pub mod savevm;
pub mod sync;
pub mod sys;
pub mod vmstate;

pub use savevm_stream::{chain, inspect, json, replace, wire};
