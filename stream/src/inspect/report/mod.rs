// SPDX-License-Identifier: LGPL-2.1-or-later
//! What was read, as JSON.

mod analyze;
mod document;

pub use analyze::write_analyze;
pub use document::{to_json, write_json};
