// SPDX-License-Identifier: LGPL-2.1-or-later
//! Layouts as data: where the members of a device's tables are in a QEMU version, and what its constants are.
//!
//! - `members.rs`: the members and constants that the library knows.
//! - `check.rs`: makes an `Abi` from the description that a program hands over, or refuses it.
//! - `layout.rs`: an `Abi`, and how tables are read by it.
//! - `known.rs`: the layouts of QEMU 5.2 to 10.2. `tables.rs`: their members in order.
//!
//! An `Abi` never changes and is never freed, because the handles of the VMState interpreter refer to it. The layout of
//! QEMU 7.2 needs none: it is the library's own (`types/handler_table.rs`, `vmstate/types.rs`).

mod check;
#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod header_tests;
mod known;
mod layout;
mod members;
mod tables;
#[cfg(test)]
mod tests;

pub(in crate::ffi) use check::create;
pub(in crate::ffi) use known::known;
pub(in crate::ffi) use layout::{Abi, Reader, Struct, native_priority, of_context};
