// SPDX-License-Identifier: LGPL-2.1-or-later
//! The C surface: every exported function and every C type. No logic: arguments are checked and handed on.
//!
//! | module | header |
//! |---|---|
//! | `register` | `migration/register.h` (generated) |
//! | `api/*` | `savevm.h` (generated) |
//! | `qemu_file` | `migration/qemu-file.h`, `migration/qemu-file-types.h` |
//! | `phases` | `migration/savevm.h` |
//! | `vmstate/*` | `migration/vmstate.h` |
#![allow(unsafe_code)]

pub mod api;
pub(crate) mod bytes;
mod channel;
pub(crate) mod context;
pub(crate) mod error;
pub(crate) mod file;
pub(crate) mod guard;
mod handle;
mod handler;
mod host;
mod incoming;
mod inspect;
mod migration;
#[cfg(test)]
mod panic_tests;
pub mod phases;
mod postcopy;
pub mod qemu_file;
pub mod register;
pub mod types;
pub mod vmstate;
