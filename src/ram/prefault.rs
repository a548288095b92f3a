// SPDX-License-Identifier: LGPL-2.1-or-later
//! Prefaults memory on a thread of its own while another thread reads the pages: the first accesses to memory take half of the
//! time of a load.

use super::block::Block;
use crate::sys::spawn;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Maximum number of queued ranges. If the queue is full, a range is skipped: its first touch only takes longer.
const QUEUE_MAX: usize = 16;

type Piece = (Arc<Block>, Range<usize>);

/// The prefault thread. Dropping the value joins the thread.
pub(super) struct Prefaulter {
    queue: Option<SyncSender<Piece>>,
    thread: Option<JoinHandle<()>>,
}

impl Prefaulter {
    /// Starts the thread. If the system refuses, no range is accepted.
    pub fn start() -> Self {
        let (queue, taken) = sync_channel(QUEUE_MAX);
        let thread = spawn("savevm-prefault", move || run(&taken));
        Self { queue: Some(queue), thread: thread.ok() }
    }

    /// Queues a range of a block. Returns whether it was accepted.
    pub fn push(&self, block: &Arc<Block>, range: Range<usize>) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.try_send((Arc::clone(block), range)).is_ok())
    }
}

impl Drop for Prefaulter {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // The panic hook has reported a panic of the thread.
            let _ = thread.join();
        }
    }
}

fn run(queue: &Receiver<Piece>) {
    for (block, range) in queue {
        block.memory().prefault(range.start, range.len());
    }
}
