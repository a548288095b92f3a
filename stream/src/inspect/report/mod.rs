// SPDX-License-Identifier: LGPL-2.1-or-later
//! Writes a stream's contents as JSON.

mod analyze;
mod document;

pub use analyze::write_analyze;
pub use document::{to_json, write_json};
