// SPDX-License-Identifier: LGPL-2.1-or-later
//! The subcommands, one module each.

pub mod captures;
pub mod check;
pub mod diff;
pub mod extract;
mod fields;
pub mod index;
pub mod inspect;
pub mod merge;
pub mod pages;
pub mod plot;
pub mod schema;
mod select;
pub mod snapshots;
mod table;
