// SPDX-License-Identifier: LGPL-2.1-or-later
//! What checkpoints and snapshots of a running guest ask of RAM. `migration::checkpoint` and `migration::incremental` are the
//! drivers.

use crate::error::Result;
use crate::file::MigFile;
use crate::wire::chain::Identity;
use std::path::PathBuf;
use std::sync::Arc;

/// RAM that can take part in checkpoints. Called with the big lock and a stopped guest, unless noted.
pub trait CheckpointRam: Send + Sync {
    /// Makes a checkpoint of all memory.
    fn checkpoint(&self) -> Result<Box<dyn RamCheckpoint>>;

    /// Prepares a snapshot while the guest runs, so that `PreparedRam::freeze` has less to do. Called without the
    /// big lock.
    fn prepare(&self) -> Result<Box<dyn PreparedRam>>;

    /// Logs what changes from now on. Memory is that of `parent`.
    fn log_since(&self, parent: SavedSnapshot) -> Result<()>;

    /// The snapshot since which changes are logged. Any thread, with or without the big lock.
    fn parent(&self) -> Option<SavedSnapshot>;

    /// Bytes of memory that the save in progress has still to save. Any thread, with or without the big lock.
    fn remaining(&self) -> u64;
}

/// Which memory a snapshot of a running guest contains, and what happens to the log of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All memory. The log is not touched.
    All,
    /// All memory. Changes are logged from now on.
    Begin,
    /// What changed since the parent. Changes are logged from now on.
    Changed,
}

/// Memory that was prepared for a snapshot. Dropping it: any thread, with or without the big lock.
pub trait PreparedRam: Send {
    /// Keeps the present memory. Fails with `ESTALE` if it is not known what changed since the parent. Called with the big lock
    /// and a stopped guest.
    fn freeze(&self, scope: Scope) -> Result<Box<dyn FrozenRam>>;
}

/// A checkpoint of all memory. Dropping it frees the checkpoint: any thread, with or without the big lock.
pub trait RamCheckpoint: Send + Sync {
    /// Puts all memory back. Called with the big lock and a stopped guest. After an error, memory may have parts of two
    /// states.
    fn rollback(&self) -> Result<()>;
}

/// Memory as it was when it was frozen. The guest may run. Dropping it without `saved` adds its pages to those that changed
/// since the parent.
pub trait FrozenRam: Send {
    /// Writes all sections of RAM as the memory plan says: as a stream, or to fixed places. Called without the big lock, which is
    /// taken for the cleanup callbacks.
    fn send(&self, file: &MigFile) -> Result<()>;

    /// The pages are saved in `snapshot`, which is the parent from now on.
    fn saved(self: Box<Self>, snapshot: SavedSnapshot);
}

/// A snapshot in a file, as it was when it was saved or loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedSnapshot {
    /// Its path, without links.
    pub path: PathBuf,
    /// Its contents.
    pub identity: Identity,
    /// Its encoded pages, if it is a full snapshot: its children list them.
    pub pages: Option<Arc<Vec<u8>>>,
    /// Device, inode, and time of the last change in ns.
    pub state: (u64, u64, i128),
    /// The paths of its ancestors.
    pub ancestors: Vec<PathBuf>,
}
