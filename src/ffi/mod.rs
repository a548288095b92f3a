// SPDX-License-Identifier: LGPL-2.1-or-later
//! The C interface. No logic: arguments are checked and passed on.
//!
//! | module | contents |
//! |---|---|
//! | `exports` | exported functions and the types of their headers |
//! | `types` | those of the types that the modules below need as well |
//! | `vmstate` | `migration/vmstate.h`, and `savevm/check.h` (generated) |
//! | `abi` | layouts of other QEMU versions as data; `savevm/abi.h` (generated) |
//! | `callbacks` | tables of C functions behind the library's traits |
//! | `marshal` | handles, strings, structs, enums, errors; the guard against panics |
#![allow(unsafe_code)]

mod abi;
mod callbacks;
pub mod exports;
pub mod marshal;
#[cfg(test)]
mod panic_tests;
pub mod types;
pub mod vmstate;
