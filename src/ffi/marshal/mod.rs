// SPDX-License-Identifier: LGPL-2.1-or-later
//! What every exported function needs: opaque types and the handles behind them, strings, structs with a size, enums,
//! errors, the thread's context, and the guard that keeps panics inside.

pub(crate) mod c_error;
pub(crate) mod c_file;
pub(in crate::ffi) mod castable;
pub(crate) mod convert;
pub(crate) mod current;
pub(crate) mod guard;
pub(crate) mod handle;
pub(crate) mod inspected;
pub mod opaque;
pub(crate) mod results;
pub(crate) mod strings;
pub(crate) mod structs;
