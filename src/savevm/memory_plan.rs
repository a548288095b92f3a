// SPDX-License-Identifier: LGPL-2.1-or-later
//! How a snapshot saves or loads guest memory. The driver decides, and the RAM device follows it.

use super::restore::{LazyPlan, PageIndex};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::available_parallelism;

/// Most threads if the caller does not choose a number. With O_DIRECT there are as many: they wait for the disk.
const THREADS_DEFAULT_MAX: usize = 8;
/// Most threads that a caller can choose.
const THREADS_MAX: usize = 64;

/// How a snapshot saves or loads guest memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryPlan {
    /// Saving: each page has a fixed place in the file (mapped-ram).
    pub mapped: bool,
    /// Number of threads that write or read pages whose places are known; 0 means the number of processors, at most 8, or 8 with
    /// O_DIRECT.
    pub threads: u32,
    /// Writes and reads pages with fixed places with O_DIRECT.
    pub direct: bool,
    /// Loading: where the pages of a stream are, which several threads read. `None` if they are loaded in the order of the stream.
    pub index: Option<Arc<PageIndex>>,
    /// Loading: pages are read when they are touched, and by threads while the guest runs.
    pub lazy: Option<Arc<LazyPlan>>,
}

impl MemoryPlan {
    /// Returns the number of threads, at least 1.
    pub fn threads(&self) -> usize {
        match self.threads {
            0 if self.direct => THREADS_DEFAULT_MAX,
            0 => available_parallelism().map_or(1, NonZeroUsize::get).min(THREADS_DEFAULT_MAX),
            chosen => (chosen as usize).min(THREADS_MAX),
        }
    }
}
