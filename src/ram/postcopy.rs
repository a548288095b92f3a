// SPDX-License-Identifier: LGPL-2.1-or-later
//! RAM's implementation of the driver's interface for postcopy.

use super::{Ram, block, multifd};
use crate::error::{Error, Result};
use crate::file::MigFile;
use crate::savevm::connections::Compression;
use crate::savevm::slot::{LogTotals, PageSource, PostcopyRam};
use std::sync::Arc;
use std::time::Duration;

/// The object in the migration slot. It owns a reference to the RAM; the RAM has none to it.
pub(super) struct RamPostcopy(pub Arc<Ram>);

impl PostcopyRam for RamPostcopy {
    fn blocks(&self) -> Vec<Vec<u8>> {
        let blocks = self.0.blocks();
        blocks.iter().filter(|block| !self.0.is_ignored(block)).map(|block| block.info.name.clone()).collect()
    }

    fn log_totals(&self) -> Option<LogTotals> {
        Some(self.0.log_totals())
    }

    fn arrived(&self) -> Option<(u64, u64)> {
        self.0.arrived()
    }

    fn takes_connections(&self) -> bool {
        true
    }

    fn check_compression(&self, compression: Compression, level: i32) -> Result<()> {
        multifd::check_compression(compression, level)
    }

    fn send_discards(&self, file: &MigFile) -> Result<()> {
        self.0.discards(file)
    }

    fn pages_requested(&self, block: Option<&[u8]>, start: u64, len: u32) -> Result<()> {
        self.0.request(block, start, len)
    }

    fn received(&self, block: &[u8], bits: &[u8]) -> Result<()> {
        self.0.apply_received(block, bits)
    }

    fn advise(&self) -> Result<()> {
        self.0.advised()
    }

    fn discard(&self, block: &[u8], start: u64, len: u64) -> Result<()> {
        self.0.discard_range(block, start, len)
    }

    fn listen(&self, source: Arc<dyn PageSource>, _migration: usize) -> Result<()> {
        self.0.start_faults(source)
    }

    fn check_lazy(&self) -> Result<()> {
        match self.0.is_lazy() {
            // It shows that the memory and the process are fit for it.
            true => Ok(()),
            false => {
                // The log of changes uses a userfaultfd of its own, and the load ends it anyway.
                self.0.end_log();
                self.0.check_faults("a lazy restore")
            }
        }
    }

    fn end_lazy(&self) {
        self.0.end_lazy();
    }

    fn resumed(&self) {
        self.0.ask_again();
    }

    fn received_bits(&self, name: &[u8]) -> Result<Vec<u8>> {
        let blocks = self.0.blocks();
        let found = block::find(&blocks, name).map(|(_, block)| block.received.to_bytes());
        found.ok_or_else(|| Error::invalid(format!("no block '{}'", String::from_utf8_lossy(name))))
    }

    fn is_complete(&self) -> bool {
        let blocks = self.0.blocks();
        let sent = blocks.iter().filter(|block| !self.0.is_ignored(block));
        sent.into_iter().all(|block| block.missing().next().is_none())
    }

    fn end(&self, _complete: bool) {
        self.0.stop_faults(true);
    }

    fn abort(&self, grace: Duration) {
        self.0.abort_faults(grace);
    }

    fn release(&self, stopped: bool) {
        self.0.stop_faults(stopped);
    }
}
