// SPDX-License-Identifier: LGPL-2.1-or-later
//! The return path: what the destination sends to the source.
//!
//! - `message.rs`: the messages on the wire.
//! - `sender.rs`: the destination's end, used by any thread.
//! - `reader.rs`: the source's end, a thread of its own.

pub mod message;
pub(super) mod reader;
pub(super) mod sender;

pub use message::{Message, get, get_bitmap};
