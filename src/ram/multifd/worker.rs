// SPDX-License-Identifier: LGPL-2.1-or-later
//! The thread of a connection at the source: makes packets and writes them.

use super::compress::Encoder;
use super::queue::{Batch, Job, Page, Shared};
use crate::channel::Channel;
use crate::error::{Error, Result};
use crate::ram::block::Block;
use crate::savevm::Vm;
use crate::savevm::unwind::catch;
use crate::sys::{IoVec, SendBuffer};
use crate::wire::multifd::{Head, Packet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The state of a connection's thread.
pub(super) struct Worker {
    shared: Arc<Shared>,
    channel: Arc<dyn Channel>,
    number: usize,
    encoder: Encoder,
    head: SendBuffer,
    /// Numbers of the pages with content, and of those without.
    normal: Vec<usize>,
    zero: Vec<usize>,
    offsets: Vec<u64>,
    pieces: Vec<IoVec>,
}

/// Does the jobs of a connection until its queue ends.
pub(super) fn run(vm: &Arc<Vm>, mut worker: Worker) {
    let shared = Arc::clone(&worker.shared);
    let result = catch(vm, || worker.jobs()).and_then(|result| result);
    if let Err(error) = result {
        shared.fail(error);
    }
}

impl Worker {
    pub fn new(shared: Arc<Shared>, channel: Arc<dyn Channel>, number: usize) -> Result<Self> {
        let encoder = Encoder::new(shared.settings.compression, shared.settings.level)?;
        Ok(Self {
            shared,
            channel,
            number,
            encoder,
            head: SendBuffer::default(),
            normal: Vec::new(),
            zero: Vec::new(),
            offsets: Vec::new(),
            pieces: Vec::new(),
        })
    }

    fn jobs(&mut self) -> Result<()> {
        while let Some(job) = self.next() {
            let pages = match job {
                Job::Pages(batch) => self.send(batch)?,
                Job::Sync => {
                    self.send_sync()?;
                    Vec::new()
                }
            };
            self.done(pages);
        }
        Ok(())
    }

    /// Waits for the next job. `None` at the end.
    fn next(&self) -> Option<Job> {
        let mut queues = self.shared.queues.lock();
        loop {
            if queues.quit {
                return None;
            }
            let queue = &mut queues.queues[self.number];
            if let Some(job) = queue.jobs.pop_front() {
                queue.busy = true;
                return Some(job);
            }
            queues = self.shared.work[self.number].wait(queues);
        }
    }

    fn done(&self, mut spare: Vec<Page>) {
        let mut queues = self.shared.queues.lock();
        queues.queues[self.number].busy = false;
        if spare.capacity() > 0 {
            spare.clear();
            queues.spare.push(spare);
        }
        let wakes = queues.is_worth_waking(self.number);
        drop(queues);
        if wakes {
            self.shared.done.notify_all();
        }
    }

    /// Sorts the pages of a batch by content. Without zero pages in packets, the phase's thread has found them already.
    fn sort(&mut self, block: &Block, pages: &[Page]) {
        self.normal.clear();
        self.zero.clear();
        let (bits, detect) = (self.shared.page_bits, self.shared.settings.format.zero_in_packets);
        for page in pages {
            let is_zero = detect && (page.absent || block.memory().is_zero(page.number << bits, 1 << bits));
            if is_zero { &mut self.zero } else { &mut self.normal }.push(page.number);
        }
    }

    fn send(&mut self, batch: Batch) -> Result<Vec<Page>> {
        let Batch { block, pages } = batch;
        self.sort(&block, &pages);
        self.pieces.clear();
        self.pieces.push(IoVec::default());
        let bits = self.shared.page_bits;
        let payload = match self.normal.is_empty() {
            true => 0,
            false => self.encoder.encode(&block, &self.normal, bits, &mut self.pieces)?,
        };
        self.offsets.clear();
        self.offsets.extend(self.normal.iter().chain(&self.zero).map(|page| (*page as u64) << bits));
        let head = Head {
            sync: false,
            method: self.encoder.method(),
            normal: self.normal.len() as u32,
            zero: self.zero.len() as u32,
            payload: payload as u32,
            number: self.shared.packets.fetch_add(1, Relaxed),
        };
        let sent = self.write(head, &block.info.name)?;
        self.encoder.written(self.normal.len() << bits, payload);
        self.shared.counters.normal.fetch_add(self.normal.len() as u64, Relaxed);
        self.shared.counters.zero.fetch_add(self.zero.len() as u64, Relaxed);
        self.shared.correction.fetch_add(sent as i64 - self.shared.assumed_len(pages.len()), Relaxed);
        Ok(pages)
    }

    fn send_sync(&mut self) -> Result<()> {
        self.pieces.clear();
        self.pieces.push(IoVec::default());
        self.offsets.clear();
        let number = self.shared.packets.fetch_add(1, Relaxed);
        let sent = self.write(Head { sync: true, number, ..Head::default() }, &[])?;
        self.shared.correction.fetch_add(sent as i64, Relaxed);
        Ok(())
    }

    /// Writes the head, whose place is the first piece, and the payload. Returns the number of bytes.
    fn write(&mut self, head: Head, block: &[u8]) -> Result<usize> {
        let bytes = self.head.bytes();
        bytes.clear();
        Packet::encode(bytes, head, block, &self.offsets, self.shared.page_bits);
        let len = bytes.len();
        self.pieces[0] = self.head.piece(0, len);
        self.channel.write_all(&mut self.pieces).map_err(|err| {
            let (number, count) = (self.number + 1, self.shared.settings.count);
            Error::channel(format_args!("writing pages to connection {number} of {count}"), &err)
        })?;
        let sent = len + head.payload as usize;
        self.shared.sent.fetch_add(sent as u64, Relaxed);
        Ok(sent)
    }
}
