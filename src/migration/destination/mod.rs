// SPDX-License-Identifier: LGPL-2.1-or-later
//! The destination of a migration.

mod commands;
mod handle;
mod meter;
mod worker;

pub use handle::Incoming;
