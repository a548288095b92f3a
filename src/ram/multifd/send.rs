// SPDX-License-Identifier: LGPL-2.1-or-later
//! The source's side: collects pages and gives them to the threads of the connections.

use super::queue::{Batch, Job, Page, Shared};
use super::worker::{self, Worker};
use crate::channel::Channel;
use crate::error::{Error, Result};
use crate::file::MigFile;
use crate::ram::block::Block;
use crate::ram::{Counters, wire};
use crate::savevm::Vm;
use crate::savevm::connections::Connections;
use crate::sync::Condvar;
use crate::sys::spawn;
use crate::wire::multifd::pages_per_packet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;

/// The further connections of a source, from setup to cleanup or to the switch to postcopy.
pub(in crate::ram) struct Senders {
    shared: Arc<Shared>,
    channels: Vec<Arc<dyn Channel>>,
    threads: Vec<JoinHandle<()>>,
    batch: Vec<Page>,
    block: Option<Arc<Block>>,
    /// Where the search for a short queue begins.
    next: usize,
    /// Pages were queued since the last SYNC.
    is_loose: bool,
}

impl Senders {
    /// Starts a thread for each connection.
    pub fn start(
        vm: &Arc<Vm>,
        connections: Arc<dyn Connections>,
        page_bits: u32,
        counters: &Arc<Counters>,
    ) -> Result<Self> {
        let channels = connections.channels()?;
        let shared = Arc::new(Shared::new(connections, channels.len(), page_bits, counters));
        let mut this =
            Self { shared, channels, threads: Vec::new(), batch: Vec::new(), block: None, next: 0, is_loose: false };
        for (number, channel) in this.channels.iter().enumerate() {
            let worker = Worker::new(Arc::clone(&this.shared), Arc::clone(channel), number)?;
            let (vm, name) = (Arc::clone(vm), format!("savevm-send-{number}"));
            let thread = spawn(&name, move || worker::run(&vm, worker));
            this.threads.push(thread.map_err(|err| Error::io("starting a thread for a connection", &err))?);
        }
        Ok(this)
    }

    /// Whether a page is sent over a further connection. A zero page may be a record of the main connection.
    pub fn takes(&self, block: &Block, page: usize, absent: bool) -> bool {
        let bits = self.shared.page_bits;
        self.shared.settings.format.zero_in_packets || !(absent || block.memory().is_zero(page << bits, 1 << bits))
    }

    /// Whether the end of a section stands for a record behind SYNC, so that each section ends with a SYNC.
    pub fn syncs_sections(&self) -> bool {
        !self.shared.settings.format.flush_records
    }

    /// Queues a page. Waits while all queues are full. An error is latched on the file.
    pub fn page(&mut self, file: &MigFile, block: &Arc<Block>, page: Page) {
        if self.block.as_ref().is_none_or(|before| !Arc::ptr_eq(before, block)) {
            self.dispatch(file);
            self.block = Some(Arc::clone(block));
        }
        self.batch.push(page);
        if self.batch.len() == pages_per_packet(self.shared.page_bits) {
            self.dispatch(file);
        }
    }

    /// Gives the batch to a connection.
    fn dispatch(&mut self, file: &MigFile) {
        let Some(block) = self.block.clone().filter(|_| !self.batch.is_empty()) else { return };
        self.is_loose = true;
        let assumed = self.shared.assumed_len(self.batch.len());
        file.status().account_rate(assumed);
        let result = self.shared.put(self.next, |spare| {
            let pages = std::mem::replace(&mut self.batch, spare);
            Job::Pages(Batch { block: Arc::clone(&block), pages })
        });
        match result {
            Ok(to) => self.next = (to + 1) % self.channels.len(),
            Err(error) => file.set_error_detail(error),
        }
        self.credit(file);
    }

    /// Accounts the bytes that were written.
    fn credit(&self, file: &MigFile) {
        file.status().credit_transfer(self.shared.sent.swap(0, Relaxed) as i64);
        file.status().account_rate(self.shared.correction.swap(0, Relaxed));
    }

    /// Sends what was collected, and a SYNC on each connection. With `flush_records`, the record follows on the main
    /// connection. Does not wait: the receiver keeps the order.
    pub fn sync(&mut self, mut file: &MigFile) {
        self.dispatch(file);
        if let Err(error) = self.shared.put_sync() {
            file.set_error_detail(error);
        }
        self.is_loose = false;
        if self.shared.settings.format.flush_records {
            wire::encode_multifd_flush(&mut file);
        }
    }

    /// As `sync`, if pages were queued since the last one.
    pub fn sync_if_loose(&mut self, file: &MigFile) {
        if self.is_loose || !self.batch.is_empty() {
            self.sync(file);
        }
    }

    /// Waits until everything was written. The wait of each write is limited by the channel.
    pub fn drain(&self, file: &MigFile) {
        if let Err(error) = self.shared.wait_drained() {
            file.set_error_detail(error);
        }
        self.credit(file);
    }
}

/// Ends the threads and closes the connections.
impl Drop for Senders {
    fn drop(&mut self) {
        self.shared.queues.lock().quit = true;
        self.shared.work.iter().for_each(Condvar::notify_all);
        for channel in &self.channels {
            // What was written is delivered before the end.
            let _ = channel.close();
        }
        for thread in self.threads.drain(..) {
            // A panic in it was caught and reported.
            let _ = thread.join();
        }
    }
}
