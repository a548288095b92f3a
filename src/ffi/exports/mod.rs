// SPDX-License-Identifier: LGPL-2.1-or-later
//! The exported functions and the types of their headers.
//!
//! | module | header |
//! |---|---|
//! | `context`, `device`, `host`, `owner`, `info`, `migrate`, `preflight`, `snapshot`, `restore`, `checkpoint`, `error`, `log` | `savevm.h` (generated) |
//! | `ram`, `postcopy`, `live_update` | `savevm/ram.h` (generated) |
//! | `file` | `savevm/file.h` (generated) |
//! | `inspect` | `savevm/inspect.h` (generated) |
//! | `host_driver`, `driver_phases` | `savevm/host-driver.h` (generated) |
//! | `abi` | `savevm/abi.h` (generated) |
//! | `register` | `migration/register.h` (generated) |
//! | `qemu_file` | `migration/qemu-file.h`, `migration/qemu-file-types.h` |
//! | `newer_file` | `migration/qemu-file.h`, for newer QEMU versions |
//! | `older_file` | `migration/qemu-file.h`, for older QEMU versions |
//! | `phases` | `migration/savevm.h` |
//! | `newer_phases` | QEMU's own |

pub mod abi;
pub mod checkpoint;
pub mod context;
pub mod device;
pub mod driver_phases;
pub mod error;
pub mod file;
pub mod host;
pub mod host_driver;
pub mod info;
pub mod inspect;
pub mod live_update;
pub mod log;
pub mod migrate;
pub mod newer_file;
pub mod newer_phases;
pub mod older_file;
pub mod owner;
pub mod phases;
pub mod postcopy;
pub mod preflight;
pub mod qemu_file;
pub mod ram;
pub mod register;
pub mod restore;
pub mod snapshot;
