// SPDX-License-Identifier: LGPL-2.1-or-later
//! The engine: the registered devices, the phases of saving and the load loop (replaces QEMU 7.2's
//! `migration/savevm.c`).
//!
//! All state belongs to a [`Vm`], so one process can have many. The phases are functions over a `Vm` and a file. The
//! driver (`migration/`), or a host with a driver of its own, decides when they are called.

pub mod chain_pages;
pub mod checkpoint;
pub mod command;
pub mod config;
pub mod connections;
pub mod device_costs;
pub mod fault;
mod global_state;
pub mod handler;
pub mod host;
#[cfg(test)]
mod host_tests;
pub mod incoming;
pub mod load;
mod load_command;
mod load_state;
pub mod load_threads;
pub mod memory_plan;
pub mod owner;
pub mod priority;
pub mod profile;
#[cfg(test)]
mod profile_tests;
pub mod registry;
pub mod restore;
pub mod save;
pub mod saving;
mod section_context;
mod section_ids;
pub mod slot;
pub mod switchover;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod unwind;
mod vm;
pub mod workers;

pub use load_state::LoadState;
pub use vm::{MigrationGuard, ThreadHook, Vm};
