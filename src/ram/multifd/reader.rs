// SPDX-License-Identifier: LGPL-2.1-or-later
//! The thread of a connection at the destination: reads packets and writes their pages to memory. Every offset is checked
//! before the payload is read, so nothing outside of a block is written.

use super::compress::Decoder;
use super::order::Shared;
use crate::channel::Channel;
use crate::error::{Error, Result};
use crate::ram::block::Block;
use crate::savevm::Vm;
use crate::savevm::unwind::catch;
use crate::sys::{Span, advance_spans};
use crate::wire::multifd::{Head, Method, Packet, head_len};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// The state of a connection's thread.
pub(super) struct Reader {
    shared: Arc<Shared>,
    channel: Arc<dyn Channel>,
    number: usize,
    head: Vec<u8>,
    decoder: Decoder,
    /// The pages of the packet.
    normal: Vec<usize>,
    zero: Vec<usize>,
}

/// Reads packets until the connection ends.
pub(super) fn run(vm: &Arc<Vm>, mut reader: Reader) {
    let (shared, number) = (Arc::clone(&reader.shared), reader.number);
    let result = catch(vm, || reader.packets()).and_then(|result| result);
    match result {
        Ok(()) => shared.ended(number),
        Err(error) => {
            let text = format!("{}: {}", shared.name(number), error.message());
            shared.fail(error.with_message(text));
        }
    }
}

/// Reads from connection `number` until the spans are full. With `may_end`, returns false if the stream ends before the first
/// byte, and waits for that byte without a limit.
fn read_all(
    (channel, number): (&dyn Channel, usize),
    spans: &mut [Span<'_>],
    shared: &Shared,
    may_end: bool,
) -> io::Result<bool> {
    let mut rest = spans;
    shared.connections.set_within(number, !may_end);
    let mut is_first = true;
    let since = Instant::now();
    while !rest.is_empty() {
        let count = match channel.read_scattered(rest) {
            Ok(0) if is_first && may_end => return Ok(false),
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends inside of a packet")),
            Ok(count) => count,
            // Between two packets the source may have nothing to send.
            Err(err) if err.kind() == io::ErrorKind::TimedOut && is_first && may_end => {
                log::debug!("no packet for {:?}", since.elapsed());
                continue;
            }
            Err(err) => return Err(err),
        };
        if is_first {
            is_first = false;
            shared.connections.set_within(number, true);
        }
        shared.arrived(number, count);
        rest = advance_spans(rest, count);
    }
    shared.connections.set_within(number, false);
    Ok(true)
}

impl Reader {
    pub fn new(shared: Arc<Shared>, channel: Arc<dyn Channel>, number: usize) -> Self {
        let head = vec![0; head_len(shared.page_bits)];
        Self { shared, channel, number, head, decoder: Decoder::default(), normal: Vec::new(), zero: Vec::new() }
    }

    fn from(&self) -> (&dyn Channel, usize) {
        (&*self.channel, self.number)
    }

    fn packets(&mut self) -> Result<()> {
        while !self.shared.stops() {
            let mut head = std::mem::take(&mut self.head);
            let read = read_all(self.from(), &mut [Span::from_slice(&mut head)], &self.shared, true);
            self.head = head;
            match read {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(_) if self.shared.stops() => return Ok(()),
                Err(err) => return Err(Error::channel("reading a packet", &err)),
            }
            if self.packet()?.sync {
                self.shared.reach_sync(self.number);
            }
        }
        Ok(())
    }

    /// Loads the packet whose head was read.
    fn packet(&mut self) -> Result<Head> {
        let shared = Arc::clone(&self.shared);
        let packet = Packet::decode(&self.head, shared.page_bits)
            .map_err(|wrong| Error::invalid(format!("a wrong packet: {wrong}")))?;
        let head = packet.head;
        if head.normal + head.zero == 0 {
            return Ok(head);
        }
        let block = find(&shared, packet.block)?;
        let (mut normal, mut zero) = (std::mem::take(&mut self.normal), std::mem::take(&mut self.zero));
        let checked = pages(block, packet.normal(), shared.page_bits, &mut normal)
            .and_then(|()| pages(block, packet.zero(), shared.page_bits, &mut zero));
        (self.normal, self.zero) = (normal, zero);
        checked?;
        if head.normal > 0 {
            shared.settings.compression.check_method(head.method)?;
            match head.method {
                Method::None => self.read_pages(block)?,
                method => self.unpack_pages(block, method, head.payload as usize)?,
            }
        }
        self.fill_zeros(block);
        shared.loaded(self.number);
        Ok(head)
    }

    /// Reads normal pages into memory. Consecutive pages take one span.
    fn read_pages(&mut self, block: &Block) -> Result<()> {
        let size = 1 << self.shared.page_bits;
        let mut spans: Vec<Span<'_>> = Vec::with_capacity(self.normal.len());
        for run in self.normal.chunk_by(|page, next| page + 1 == *next) {
            spans.push(block.memory().span(run[0] * size, run.len() * size));
        }
        read_all(self.from(), &mut spans, &self.shared, false).map_err(|err| self.payload_error(block, &err))?;
        self.arrived(block);
        Ok(())
    }

    fn unpack_pages(&mut self, block: &Block, method: Method, len: usize) -> Result<()> {
        let mut payload = self.decoder.take_payload(len);
        let read = read_all(self.from(), &mut [Span::from_slice(&mut payload)], &self.shared, false);
        read.map_err(|err| self.payload_error(block, &err))?;
        let size = 1 << self.shared.page_bits;
        let pages = self.decoder.decode(method, payload, self.normal.len() * size).map_err(|error| {
            let text = format!("block '{}': {} pages: {}", block.name(), self.normal.len(), error.message());
            error.with_message(text)
        })?;
        for (page, content) in self.normal.iter().zip(pages.chunks_exact(size)) {
            block.memory().write(page * size, content);
        }
        self.arrived(block);
        Ok(())
    }

    fn arrived(&self, block: &Block) {
        for page in &self.normal {
            block.received.set(*page, 1);
        }
        self.shared.counters.normal.fetch_add(self.normal.len() as u64, Relaxed);
    }

    fn payload_error(&self, block: &Block, err: &io::Error) -> Error {
        Error::channel(format_args!("reading {} pages of block '{}'", self.normal.len(), block.name()), err)
    }

    fn fill_zeros(&self, block: &Block) {
        let size = 1 << self.shared.page_bits;
        for page in &self.zero {
            if !block.reads_zero(*page) {
                block.memory().fill(page * size, size, 0);
            }
            block.received.set(*page, 1);
        }
        self.shared.counters.zero.fetch_add(self.zero.len() as u64, Relaxed);
    }
}

fn find<'a>(shared: &'a Shared, name: &[u8]) -> Result<&'a Block> {
    let text = || String::from_utf8_lossy(name);
    let found = shared.blocks.iter().find(|(block, _)| block.info.name == name);
    match found {
        None => Err(Error::invalid(format!("pages for block '{}', which is not there", text()))),
        Some((_, true)) => Err(Error::invalid(format!("pages for block '{}', which both sides share", text()))),
        Some((block, false)) => Ok(block),
    }
}

/// Converts offsets to the numbers of pages.
fn pages(block: &Block, offsets: impl Iterator<Item = u64>, page_bits: u32, into: &mut Vec<usize>) -> Result<()> {
    into.clear();
    for offset in offsets {
        let page = block.page_at(offset)?;
        if !offset.is_multiple_of(1 << page_bits) {
            let text = format!("offset 0x{offset:x} in block '{}' is not the start of a page", block.name());
            return Err(Error::invalid(text));
        }
        into.push(page);
    }
    Ok(())
}
