// SPDX-License-Identifier: LGPL-2.1-or-later
//! Loads the records of a stream (QEMU 7.2, `migration/ram.c`). Pages are read from the channel into guest memory
//! without a copy. Every offset is checked against its block before memory is written.

use super::block::{self, Block, Blocks};
use super::faults::Faults;
use super::lazy::{self, LazyLoad};
use super::mapped::MappedLoad;
use super::multifd::Receivers;
use super::run::Runs;
use super::{Ram, wire};
use crate::error::{Error, Result, exact_size, size};
use crate::file::MigFile;
use crate::sys::system_page_size;
use crate::wire::ram::XbzrleHead;
use crate::wire::xbzrle;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// State from section to section.
pub(super) struct Loader {
    blocks: Blocks,
    /// Index of the previous record's block.
    last_block: Option<usize>,
    page: Box<[u8]>,
    encoded: Box<[u8]>,
    unit: Unit,
    runs: Runs,
    /// All pages have come from fixed places of the file.
    mapped: bool,
    /// All pages have come from their places in the stream.
    indexed: bool,
    /// Pages are read later.
    lazy: Option<LazyLoad>,
    /// The further connections, until a switch to postcopy.
    further: Option<Receivers>,
}

/// A host page that is arriving in postcopy. Its target pages arrive in order.
#[derive(Default)]
struct Unit {
    content: Vec<u8>,
    /// Block and offset of the unit, and the number of its bytes that arrived.
    block: Option<usize>,
    offset: usize,
    filled: usize,
    zero: bool,
}

impl Unit {
    /// Offset of a target page within the unit. An error unless this page is the next one.
    fn next(&mut self, place: Option<usize>, block: &Block, offset: usize) -> Result<usize> {
        let within = offset % block.unit();
        if within == 0 {
            (self.block, self.offset, self.filled, self.zero) = (place, offset, 0, true);
            self.content.resize(block.unit(), 0);
        }
        if self.block != place || offset - within != self.offset || within != self.filled {
            let text = format!(
                "not the next part of a page of 0x{:x} bytes: 0x{:x} of them, at offset 0x{:x}, came before",
                block.unit(),
                self.filled,
                self.offset
            );
            return Err(Error::invalid(text));
        }
        Ok(within)
    }
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// Adds block and offset to an error of a record.
fn place(block: &Block, offset: u64) -> impl Fn(Error) -> Error + '_ {
    move |err| {
        let text = format!("block '{}', offset 0x{offset:x}: {}", block.name(), err.message());
        err.with_message(text)
    }
}

fn get_name(file: &MigFile) -> Result<Vec<u8>> {
    let offset = file.position();
    let name = file.get_counted_string();
    file.check()?;
    name.filter(|name| !name.is_empty()).ok_or_else(|| Error::invalid("a block without a name").at_offset(offset))
}

impl Ram {
    /// Begins a load. The list of blocks does not change until `load_cleanup`.
    pub(super) fn load_setup(&self) -> Result<()> {
        if self.is_lazy() {
            return Err(Error::new(libc::EBUSY, "a lazy restore still reads pages of RAM"));
        }
        self.end_log();
        let mut busy = self.busy.lock();
        busy.check_open()?;
        busy.check_no_checkpoints("loading memory")?;
        busy.incoming = true;
        busy.loading = None;
        drop(busy);
        drop(self.unreadable.take());
        self.counters.reset();
        self.blocks().iter().for_each(|block| {
            block.received.clear(0, block.pages());
            block.emptied.store(false, Relaxed);
        });
        Ok(())
    }

    /// Ends a load.
    pub(super) fn load_cleanup(&self) {
        let lazy = self.is_lazy();
        if !lazy {
            self.cleanup_faults();
        }
        self.advised.store(false, SeqCst);
        let loader = self.busy.lock().loading.take();
        // Joins the prefault thread and the threads of the connections.
        if let Some(further) = loader.and_then(|loader| loader.further) {
            // The driver gets the error.
            let _ = further.finish();
        }
        // A lazy restore sets it when it ends.
        if !lazy {
            self.busy.lock().incoming = false;
        }
    }

    /// The last section was loaded. Starts to serve pages that are read later.
    pub(super) fn load_ended(self: &Arc<Self>) -> Result<()> {
        let lazy = self.busy.lock().loading.as_mut().and_then(|loader| loader.lazy.take());
        lazy.map_or(Ok(()), |lazy| self.start_lazy(lazy))
    }

    /// Ends the further connections: the pages of a postcopy arrive on the main connection. An error if pages arrived
    /// that the source did not wait for.
    pub(super) fn finish_further(&self) -> Result<()> {
        let further = self.busy.lock().loading.as_mut().and_then(|loader| loader.further.take());
        further.map_or(Ok(()), Receivers::finish)
    }

    /// Stops prefaulting: from here on only arriving pages become present.
    pub(super) fn stop_prefault(&self) {
        let prefaulter = self.busy.lock().loading.as_mut().and_then(|loader| loader.runs.stop_prefault());
        drop(prefaulter);
    }

    /// Loads records up to the end of the section.
    pub(super) fn load(&self, file: &MigFile) -> Result<()> {
        let loader = self.busy.lock().loading.take();
        let mut loader = match loader {
            Some(loader) => loader,
            None => self.new_loader()?,
        };
        let result = loader.section(self, file);
        let incoming = {
            let mut busy = self.busy.lock();
            busy.loading = Some(loader);
            busy.incoming
        };
        if !incoming {
            // Without a setup, or after a cleanup in the meantime, no other call joins the prefault thread.
            self.stop_prefault();
        }
        result
    }
}

impl Ram {
    fn new_loader(&self) -> Result<Box<Loader>> {
        let (page, blocks) = (vec![0; self.page_size()].into_boxed_slice(), self.blocks());
        let vm = self.vm.upgrade();
        let further = match vm.as_ref().and_then(|vm| vm.slot.connections().map(|connections| (vm, connections))) {
            Some((vm, connections)) => Some(Receivers::start(vm, self, connections, &blocks)?),
            None => None,
        };
        Ok(Box::new(Loader {
            blocks,
            last_block: None,
            encoded: page.clone(),
            page,
            unit: Unit::default(),
            runs: Runs::new(),
            mapped: false,
            indexed: false,
            lazy: None,
            further,
        }))
    }
}

impl Loader {
    /// Loads a section, or passes over it if its pages were found before.
    fn section(&mut self, ram: &Ram, file: &MigFile) -> Result<()> {
        let plan = ram.vm().map(|vm| vm.slot.memory_plan());
        if let Some((plan, index)) = plan.as_ref().and_then(|plan| Some((plan, plan.index.as_ref()?))) {
            if !self.indexed {
                LazyLoad::from_index(ram, file, index, Arc::clone(plan))?.read_now(ram)?;
                self.indexed = true;
            }
            return lazy::skip_section(file, index);
        }
        let lazy = plan.as_ref().and_then(|plan| Some((plan, plan.lazy.as_ref()?)));
        let Some((plan, lazy)) = lazy else { return self.records(ram, file) };
        if let Some(index) = &lazy.index {
            if self.lazy.is_none() {
                self.lazy = Some(LazyLoad::from_index(ram, file, index, Arc::clone(plan))?);
            }
            return lazy::skip_section(file, index);
        }
        if let (None, Some(chain)) = (&self.lazy, &lazy.chain) {
            // The stream has the blocks, but no pages.
            self.lazy = Some(LazyLoad::from_chain(ram, chain, Arc::clone(plan))?);
        }
        self.records(ram, file)
    }

    fn records(&mut self, ram: &Ram, file: &MigFile) -> Result<()> {
        let page_size = ram.page_size() as u64;
        loop {
            let at = file.position();
            let word = file.get_be64();
            file.check()?;
            let (offset, flags) = wire::split(word, page_size);
            match flags & !wire::CONTINUE {
                wire::EOS => return self.further.as_mut().map_or(Ok(()), Receivers::section_ended),
                wire::MULTIFD_FLUSH => match &mut self.further {
                    Some(further) => further.record()?,
                    None => return Err(several_connections(at)),
                },
                wire::MEM_SIZE => self.block_list(ram, file, offset)?,
                kind @ (wire::ZERO | wire::PAGE | wire::XBZRLE) => {
                    if self.mapped {
                        let text = "a record with a page, but all pages have fixed places";
                        return Err(Error::invalid(text).at_offset(at));
                    }
                    let block = self.block(ram, file, flags)?;
                    self.record(ram, file, kind, &block, offset)
                        .map_err(|err| place(&block, offset)(err).at_offset(at))?;
                }
                wire::COMPRESS_PAGE => return Err(unsupported("compressed pages (QEMU's capability 'compress')", at)),
                wire::HOOK => return Err(unsupported("records of a transport of its own (RDMA)", at)),
                _ => {
                    let text = format!("a RAM record with flags {}", wire::flags_text(flags));
                    return Err(Error::invalid(text).at_offset(at));
                }
            }
        }
    }

    /// The block of a record.
    fn block(&mut self, ram: &Ram, file: &MigFile, flags: u64) -> Result<Arc<Block>> {
        let at = file.position();
        if flags & wire::CONTINUE == 0 {
            let name = get_name(file)?;
            let found = block::find(&self.blocks, &name).map(|(place, _)| place);
            self.last_block = Some(found.ok_or_else(|| {
                Error::invalid(format!("a page for block '{}', which is not there", text(&name))).at_offset(at)
            })?);
        }
        let block = self.last_block.and_then(|place| self.blocks.get(place));
        let block =
            block.ok_or_else(|| Error::invalid("a page in the block before, but there is none").at_offset(at))?;
        if ram.is_ignored(block) {
            let text = format!("a page for block '{}', which both sides share", block.name());
            return Err(Error::invalid(text).at_offset(at));
        }
        Ok(Arc::clone(block))
    }

    fn record(&mut self, ram: &Ram, file: &MigFile, kind: u64, block: &Arc<Block>, offset: u64) -> Result<()> {
        let page = block.page_at(offset)?;
        let (offset, size) = (offset as usize, ram.page_size());
        if let Some(faults) = ram.faults() {
            return self.part(ram, file, kind, (block, offset), &faults);
        }
        match kind {
            wire::ZERO => {
                let value = file.get_byte();
                file.check()?;
                if value != 0 || !block.reads_zero(page) {
                    block.memory().fill(offset, size, value);
                }
                ram.counters.zero.fetch_add(1, Relaxed);
            }
            wire::PAGE => {
                // A page that has not arrived has no content to keep.
                let may_run = |offset: usize| !block.received.get(offset >> ram.page_bits);
                return self.runs.get(file, (block, size), offset, may_run, |offset| {
                    block.received.set(offset >> ram.page_bits, 1);
                    ram.counters.normal.fetch_add(1, Relaxed);
                });
            }
            _ => self.difference(ram, file, block, offset)?,
        }
        block.received.set(page, 1);
        Ok(())
    }

    /// Loads a page in postcopy: the guest sees a host page only when all of it has arrived.
    fn part(
        &mut self,
        ram: &Ram,
        file: &MigFile,
        kind: u64,
        (block, offset): (&Arc<Block>, usize),
        faults: &Faults,
    ) -> Result<()> {
        let size = ram.page_size();
        let within = self.unit.next(self.last_block, block, offset)?;
        let part = &mut self.unit.content[within..within + size];
        match kind {
            wire::ZERO => {
                let value = file.get_byte();
                part.fill(value);
                self.unit.zero &= value == 0;
                ram.counters.zero.fetch_add(1, Relaxed);
            }
            wire::PAGE => {
                file.get(part);
                self.unit.zero = false;
                ram.counters.normal.fetch_add(1, Relaxed);
            }
            _ => return Err(Error::invalid("a difference to a page that the guest may have changed")),
        }
        file.check()?;
        self.unit.filled += size;
        if self.unit.filled < block.unit() {
            return Ok(());
        }
        self.unit.block = None;
        if block.received.get(offset >> ram.page_bits) {
            return Ok(());
        }
        if self.unit.zero && block.emptied.load(Relaxed) {
            return faults.arrived_zero(ram, block, self.unit.offset);
        }
        faults.place(ram, block, self.unit.offset, &self.unit.content, self.unit.zero)
    }

    fn difference(&mut self, ram: &Ram, mut file: &MigFile, block: &Block, offset: usize) -> Result<()> {
        let XbzrleHead { encoding, len } = XbzrleHead::decode(&mut file)?;
        file.check()?;
        let len = usize::from(len);
        if encoding != wire::ENCODING_XBZRLE {
            let text = format!("a difference in encoding {encoding}, expected {}", wire::ENCODING_XBZRLE);
            return Err(Error::invalid(text));
        }
        let Some(encoded) = self.encoded.get_mut(..len) else {
            return Err(Error::invalid(format!("a difference of {len} bytes for a page of {}", ram.page_size())));
        };
        file.get(encoded);
        file.check()?;
        block.memory().read(offset, &mut self.page);
        xbzrle::decode(encoded, &mut self.page).map_err(|what| Error::invalid(format!("XBZRLE: {what}")))?;
        block.memory().write(offset, &self.page);
        ram.counters.xbzrle.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Checks the list of blocks: both sides must have the same blocks.
    fn block_list(&mut self, ram: &Ram, file: &MigFile, total: u64) -> Result<()> {
        let start = file.position();
        let vm = ram.context()?;
        let mut mapped = vm.load_state().is_mapped().then(|| MappedLoad::new(file)).transpose()?;
        let (mut left, mut seen) = (total, vec![false; self.blocks.len()]);
        while left > 0 {
            let at = file.position();
            let name = get_name(file)?;
            let len = file.get_be64();
            file.check()?;
            let refuse = |what: String| Error::invalid(format!("block '{}': {what}", text(&name))).at_offset(at);
            let Some((place, block)) = block::find(&self.blocks, &name) else {
                return Err(refuse("it is not there; the machines must be the same".to_owned()));
            };
            if std::mem::replace(&mut seen[place], true) {
                return Err(refuse("it is listed twice".to_owned()));
            }
            if len != block.len() {
                return Err(refuse(format!("{} in the stream, {} here", exact_size(len), exact_size(block.len()))));
            }
            self.block_details(ram, file, block).map_err(|err| refuse(err.message().to_owned()))?;
            if let Some(mapped) = &mut mapped {
                mapped.get_header(ram, file, block).map_err(|err| refuse(err.message().to_owned()))?;
            }
            left = left
                .checked_sub(len)
                .ok_or_else(|| refuse(format!("the list holds more than the total of {}", exact_size(total))))?;
        }
        if let Some(place) = seen.iter().position(|seen| !seen) {
            let text = format!("block '{}' is here, but not in the stream", self.blocks[place].name());
            return Err(Error::invalid(text).at_offset(start));
        }
        let Some(mapped) = mapped else { return Ok(()) };
        self.mapped = true;
        let plan = vm.slot.memory_plan();
        if plan.lazy.is_none() {
            return mapped.get_pages(ram, &plan);
        }
        let lazy = LazyLoad::from_mapped(ram, mapped, plan)?;
        self.lazy = Some(lazy);
        Ok(())
    }

    /// Checks the fields that follow the length if a capability asks for them.
    fn block_details(&self, ram: &Ram, mut file: &MigFile, block: &Block) -> Result<()> {
        if ram.is_postcopy_advised() && block.info.page_size != system_page_size() {
            let page_size = wire::decode_block_page_size(&mut file)?;
            file.check()?;
            if page_size != block.info.page_size as u64 {
                let text =
                    format!("pages of {} in the stream, {} here", size(page_size), size(block.info.page_size as u64));
                return Err(Error::invalid(text));
            }
        }
        if ram.ignores_shared() {
            let address = wire::decode_block_address(&mut file)?;
            file.check()?;
            if ram.is_ignored(block) && address != block.info.guest_address {
                let have = block.info.guest_address;
                let text = format!("shared memory at guest address 0x{address:x} in the stream, 0x{have:x} here");
                return Err(Error::invalid(text));
            }
        }
        Ok(())
    }
}

fn several_connections(at: u64) -> Error {
    let text = "the source sends pages over several connections: set channels to the number of the source (QEMU: \
                multifd-channels) before the migration begins";
    Error::invalid(text).at_offset(at)
}

fn unsupported(what: &str, at: u64) -> Error {
    Error::new(libc::ENOTSUP, format!("{what} are not supported")).at_offset(at)
}
