// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a checkpoint asks of RAM. `migration::checkpoint` is the driver.

use crate::error::Result;

/// RAM that can take part in checkpoints. Called with the big lock and a stopped guest.
pub trait CheckpointRam: Send + Sync {
    /// Makes a checkpoint of all memory.
    fn checkpoint(&self) -> Result<Box<dyn RamCheckpoint>>;
}

/// A checkpoint of all memory. Dropping it frees the checkpoint: any thread, with or without the big lock.
pub trait RamCheckpoint: Send + Sync {
    /// Puts all memory back. Called with the big lock and a stopped guest. After an error, memory may have parts of two
    /// states.
    fn rollback(&self) -> Result<()>;
}
