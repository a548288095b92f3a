// SPDX-License-Identifier: LGPL-2.1-or-later
//! The destination's side: the threads of the connections, and the order that SYNC keeps.

use super::order::Shared;
use super::reader::{self, Reader};
use crate::channel::Channel;
use crate::error::{Error, Result};
use crate::ram::Ram;
use crate::ram::block::Block;
use crate::savevm::Vm;
use crate::savevm::connections::Connections;
use crate::sys::spawn;
use std::sync::Arc;
use std::thread::JoinHandle;

/// The further connections of a destination.
pub(in crate::ram) struct Receivers {
    shared: Arc<Shared>,
    channels: Vec<Arc<dyn Channel>>,
    threads: Vec<JoinHandle<()>>,
    /// Whether records on the main connection follow a SYNC, or the ends of RAM sections stand for them. Known from the
    /// first section on: QEMU 8.1 and later has a record in it.
    has_records: Option<bool>,
}

impl Receivers {
    /// Waits for the connections that are missing, and starts a thread for each.
    pub fn start(vm: &Arc<Vm>, ram: &Ram, connections: Arc<dyn Connections>, blocks: &[Arc<Block>]) -> Result<Self> {
        let channels = connections.channels()?;
        let shared = Arc::new(Shared::new(ram, connections, channels.len(), blocks));
        let mut this = Self { shared, channels, threads: Vec::new(), has_records: None };
        for (number, channel) in this.channels.iter().enumerate() {
            let reader = Reader::new(Arc::clone(&this.shared), Arc::clone(channel), number);
            let (vm, name) = (Arc::clone(vm), format!("savevm-recv-{number}"));
            let thread = spawn(&name, move || reader::run(&vm, reader));
            this.threads.push(thread.map_err(|err| Error::io("starting a thread for a connection", &err))?);
        }
        Ok(this)
    }

    /// The main connection has a record that stands behind SYNC.
    pub fn record(&mut self) -> Result<()> {
        if *self.has_records.get_or_insert(true) {
            return self.shared.sync();
        }
        Err(Error::invalid("a MULTIFD_FLUSH record of a source that did not send one at first"))
    }

    /// A RAM section ends.
    pub fn section_ended(&mut self) -> Result<()> {
        match *self.has_records.get_or_insert(false) {
            true => Ok(()),
            false => self.shared.sync(),
        }
    }

    /// Ends the threads. Fails if pages arrived that the main connection did not wait for.
    pub fn finish(self) -> Result<()> {
        let result = self.shared.check_settled();
        if let Err(error) = &result {
            self.shared.connections.unsettled(error.clone());
        }
        result
    }
}

/// Ends the threads and closes the connections.
impl Drop for Receivers {
    fn drop(&mut self) {
        self.shared.end();
        for channel in &self.channels {
            let _ = channel.close();
        }
        for thread in self.threads.drain(..) {
            // A panic in it was caught and reported.
            let _ = thread.join();
        }
    }
}
