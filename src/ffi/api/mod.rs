// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm.h`: the library's own functions. Each file here is a part of the generated header.

pub mod context;
pub mod device;
pub mod error;
pub mod file;
pub mod inspect;
pub mod migrate;
pub mod migration;
pub mod owner;
pub mod ram;
pub mod snapshot;
pub mod types;
