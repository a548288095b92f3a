// SPDX-License-Identifier: LGPL-2.1-or-later
//! The queues between the phase's thread and the threads of the connections.

use crate::error::{Error, Result};
use crate::ram::Counters;
use crate::ram::block::Block;
use crate::savevm::connections::{Connections, Settings};
use crate::sync::{Condvar, Mutex, Rank};
use crate::wire::multifd::head_len;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};

/// Most batches of a connection that are waiting or in work.
const QUEUE_MAX: usize = 2;

/// A page of a batch.
#[derive(Clone, Copy, Debug)]
pub(in crate::ram) struct Page {
    /// Its number in the block.
    pub number: usize,
    /// It has no content and reads as zero.
    pub absent: bool,
}

/// Pages of one block, for one packet.
pub(super) struct Batch {
    pub block: Arc<Block>,
    pub pages: Vec<Page>,
}

/// What a connection's thread does next.
pub(super) enum Job {
    Pages(Batch),
    /// Sends a packet with SYNC.
    Sync,
}

#[derive(Default)]
pub(super) struct Queue {
    pub jobs: VecDeque<Job>,
    /// A job is in work.
    pub busy: bool,
}

impl Queue {
    fn len(&self) -> usize {
        self.jobs.len() + usize::from(self.busy)
    }
}

#[derive(Default)]
pub(super) struct Queues {
    pub queues: Vec<Queue>,
    /// Vectors of batches that were sent, to be used again.
    pub spare: Vec<Vec<Page>>,
    /// The first error of a connection.
    pub error: Option<Error>,
    /// The threads end.
    pub quit: bool,
}

impl Queues {
    /// Whether the phase's thread is woken: with room for several batches it is woken less often, and while the others still
    /// have one. A queue that is empty would let its thread wait.
    pub fn is_worth_waking(&self, at: usize) -> bool {
        let free: usize = self.queues.iter().map(|queue| QUEUE_MAX.saturating_sub(queue.len())).sum();
        self.queues[at].len() == 0 || 2 * free >= self.queues.len()
    }
}

/// What the phase's thread and the connections' threads share.
pub(super) struct Shared {
    pub queues: Mutex<Queues>,
    /// For each connection: it has a job, or its thread ends.
    pub work: Vec<Condvar>,
    /// A job is done, or a connection failed.
    pub done: Condvar,
    pub connections: Arc<dyn Connections>,
    pub settings: Settings,
    pub page_bits: u32,
    pub counters: Arc<Counters>,
    /// Number of the next packet.
    pub packets: AtomicU64,
    /// Bytes that were written and are not yet credited to the file.
    pub sent: AtomicU64,
    /// The same minus the bytes that were assumed when their batches were queued.
    pub correction: AtomicI64,
}

impl Shared {
    /// Makes a queue for each of `count` connections.
    pub fn new(connections: Arc<dyn Connections>, count: usize, page_bits: u32, counters: &Arc<Counters>) -> Self {
        let queues = (0..count).map(|_| Queue::default()).collect();
        Self {
            queues: Mutex::new(Rank::MultifdQueues, Queues { queues, ..Queues::default() }),
            work: (0..count).map(|_| Condvar::new()).collect(),
            done: Condvar::new(),
            settings: connections.settings(),
            connections,
            page_bits,
            counters: Arc::clone(counters),
            packets: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            correction: AtomicI64::new(0),
        }
    }

    /// Bytes that a batch is assumed to take on the wire, until it was written.
    pub fn assumed_len(&self, pages: usize) -> i64 {
        (head_len(self.page_bits) + (pages << self.page_bits)) as i64
    }

    /// A connection failed: no more jobs are done.
    pub fn fail(&self, error: Error) {
        {
            let mut queues = self.queues.lock();
            queues.quit = true;
            queues.error.get_or_insert_with(|| error.clone());
        }
        self.work.iter().for_each(Condvar::notify_all);
        self.done.notify_all();
        self.connections.failed(error);
    }

    /// Waits for a queue with room, from `next` on, and puts a job into the shortest one. Returns its number.
    pub fn put(&self, next: usize, make: impl FnOnce(Vec<Page>) -> Job) -> Result<usize> {
        let mut queues = self.queues.lock();
        loop {
            if let Some(error) = &queues.error {
                return Err(error.clone());
            }
            let count = queues.queues.len();
            let shortest = (0..count).map(|at| (next + at) % count).min_by_key(|at| queues.queues[*at].len());
            match shortest.filter(|at| queues.queues[*at].len() < QUEUE_MAX) {
                Some(at) => {
                    let spare = queues.spare.pop().unwrap_or_default();
                    queues.queues[at].jobs.push_back(make(spare));
                    drop(queues);
                    self.work[at].notify_one();
                    return Ok(at);
                }
                None => queues = self.done.wait(queues),
            }
        }
    }

    pub fn put_sync(&self) -> Result<()> {
        {
            let mut queues = self.queues.lock();
            if let Some(error) = &queues.error {
                return Err(error.clone());
            }
            queues.queues.iter_mut().for_each(|queue| queue.jobs.push_back(Job::Sync));
        }
        self.work.iter().for_each(Condvar::notify_one);
        Ok(())
    }

    pub fn wait_drained(&self) -> Result<()> {
        let mut queues = self.queues.lock();
        loop {
            if let Some(error) = &queues.error {
                return Err(error.clone());
            }
            if queues.queues.iter().all(|queue| queue.len() == 0) {
                return Ok(());
            }
            queues = self.done.wait(queues);
        }
    }
}
