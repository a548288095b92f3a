// SPDX-License-Identifier: LGPL-2.1-or-later
//! The test machine's RAM in postcopy, and a guest that touches its pages.

use super::machine::{PAGES, Ram};
use super::precopy::LONG;
use savevm::error::{Error, Result};
use savevm::file::MigFile;
use savevm::savevm::slot::{PageSource, PostcopyRam};
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

#[derive(Default)]
pub struct PostcopyParts {
    pub enabled: AtomicBool,
    pub listening: AtomicBool,
    pub started: AtomicBool,
    /// The setup waits, so that a test can request postcopy before the first round.
    pub setup_waits: AtomicBool,
    /// Only requested pages are sent, so that the postcopy lasts as long as the test wants.
    pub on_request_only: AtomicBool,
    requests: Mutex<VecDeque<usize>>,
    received: Mutex<BTreeSet<usize>>,
    came: Condvar,
    source: Mutex<Option<Arc<dyn PageSource>>>,
    ended: Mutex<Option<bool>>,
    pub pauses: Mutex<u32>,
}

impl PostcopyParts {
    pub fn take_request(&self) -> Option<usize> {
        self.requests.lock().unwrap().pop_front()
    }

    pub fn arrived(&self, page: usize) {
        self.received.lock().unwrap().insert(page);
        self.came.notify_all();
    }

    pub fn has(&self, page: usize) -> bool {
        self.received.lock().unwrap().contains(&page)
    }

    pub fn ended(&self) -> Option<bool> {
        *self.ended.lock().unwrap()
    }
}

const BLOCK: &[u8] = b"ram";

impl Ram {
    /// What a vCPU does: reads a page, and waits for it if it is not here yet.
    pub fn touch(&self, page: usize) -> Option<u64> {
        let parts = &self.postcopy;
        let deadline = Instant::now() + LONG;
        let mut received = parts.received.lock().unwrap();
        while !received.contains(&page) {
            if parts.ended().is_some() || Instant::now() > deadline {
                return None;
            }
            drop(received);
            let source = parts.source.lock().unwrap().clone();
            if let Some(source) = source {
                // A broken connection: asked again below.
                let _ = source.request_pages(BLOCK, page as u64, 1);
            }
            received = parts.received.lock().unwrap();
            if !received.contains(&page) {
                received = parts.came.wait_timeout(received, Duration::from_millis(20)).unwrap().0;
            }
        }
        drop(received);
        Some(self.pages[page].load(SeqCst))
    }
}

impl PostcopyRam for super::Shared<Ram> {
    fn blocks(&self) -> Vec<Vec<u8>> {
        vec![BLOCK.to_vec()]
    }

    fn send_discards(&self, file: &MigFile) -> Result<()> {
        self.host.expect_lock(true, "send_discards");
        let dirty = self.dirty.lock().unwrap().clone();
        let ranges: Vec<_> = dirty.into_iter().map(|page| (page as u64, 1)).collect();
        if ranges.is_empty() {
            return Ok(());
        }
        let vm = self.postcopy_vm();
        savevm::savevm::command::postcopy_ram_discard(&vm, file, BLOCK, &ranges)
    }

    fn pages_requested(&self, block: Option<&[u8]>, start: u64, _len: u32) -> Result<()> {
        self.host.expect_lock(false, "pages_requested");
        if block != Some(BLOCK) || start as usize >= PAGES {
            return Err(Error::invalid("a request for something else"));
        }
        self.postcopy.requests.lock().unwrap().push_back(start as usize);
        Ok(())
    }

    fn received(&self, block: &[u8], bits: &[u8]) -> Result<()> {
        if block != BLOCK || bits.len() != PAGES.div_ceil(8).next_multiple_of(8) {
            return Err(Error::invalid("a bitmap of something else"));
        }
        let missing = (0..PAGES).filter(|page| bits[page / 8] >> (page % 8) & 1 == 0);
        *self.dirty.lock().unwrap() = missing.collect();
        self.postcopy.requests.lock().unwrap().clear();
        Ok(())
    }

    fn discard(&self, block: &[u8], start: u64, len: u64) -> Result<()> {
        if block != BLOCK || start.checked_add(len).is_none_or(|end| end > PAGES as u64) {
            return Err(Error::invalid("a discard of something else"));
        }
        for page in start..start + len {
            self.pages[page as usize].store(0xdead, SeqCst);
            self.postcopy.received.lock().unwrap().remove(&(page as usize));
        }
        Ok(())
    }

    fn listen(&self, source: Arc<dyn PageSource>, _migration: usize) -> Result<()> {
        *self.postcopy.source.lock().unwrap() = Some(source);
        self.postcopy.listening.store(true, SeqCst);
        Ok(())
    }

    fn paused(&self) {
        *self.postcopy.pauses.lock().unwrap() += 1;
    }

    fn received_bits(&self, block: &[u8]) -> Result<Vec<u8>> {
        if block != BLOCK {
            return Err(Error::invalid("an unknown block"));
        }
        let mut bits = vec![0; PAGES.div_ceil(8)];
        for page in self.postcopy.received.lock().unwrap().iter() {
            bits[page / 8] |= 1 << (page % 8);
        }
        Ok(bits)
    }

    fn is_complete(&self) -> bool {
        (0..PAGES).all(|page| self.postcopy.has(page))
    }

    fn release(&self, stopped: bool) {
        if stopped {
            self.end(false);
        }
    }

    fn end(&self, complete: bool) {
        if self.host.is_running() && !(0..PAGES).all(|page| self.postcopy.has(page)) {
            let text = format!("missing pages of a running guest became readable, complete: {complete}");
            self.host.stage.violation(text);
        }
        // The guest's threads may hold on to the RAM, not to the migration.
        self.postcopy.source.lock().unwrap().take();
        let before = self.postcopy.ended.lock().unwrap().replace(complete);
        if before.is_some() {
            self.host.stage.violation("the end of postcopy was reported twice");
        }
        self.postcopy.came.notify_all();
    }
}
