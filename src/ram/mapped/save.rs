// SPDX-License-Identifier: LGPL-2.1-or-later
//! Saves RAM to fixed places of a file (QEMU 10.0, `mapped_ram_setup_ramblock` and `ram_save_file_bmap` in
//! `migration/ram.c`): of a stopped guest, or copies of frozen pages while the guest runs.

use super::{PIECE, Pieces};
use crate::channel::PositionedFile;
use crate::error::{Error, Result, size};
use crate::file::MigFile;
use crate::ram::Ram;
use crate::ram::bitmap::Bitmap;
use crate::ram::block::{Block, Blocks};
use crate::ram::sender::is_zero;
use crate::savevm::memory_plan::MemoryPlan;
use crate::savevm::workers;
use crate::sys::{OwnMemory, Residency, is_anonymous, spawn_scoped};
use crate::wire::mapped::Header;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::thread;

/// Least length in bytes of a range whose disk space is reserved before it is written.
const RESERVE_MIN: usize = 256 << 10;

/// Pages that are saved as they were at one moment, while the guest runs. Called on several threads.
pub(in crate::ram) trait Copies: Sync {
    /// The next unit that should be saved at once: index of the block in the list, and first page.
    fn next(&self) -> Option<(usize, usize)>;

    /// Calls `each` with runs of those pages in a range (first page and count) that no other thread has read: first page, and
    /// contents.
    fn read(&self, at: usize, range: (usize, usize), each: &mut dyn FnMut(usize, &[u8]) -> Result<()>) -> Result<()>;
}

/// The file of a save, and the places of the blocks in it.
pub(in crate::ram) struct MappedSave {
    file: PositionedFile,
    /// For pages, with O_DIRECT.
    direct: Option<PositionedFile>,
    /// Large ranges get their disk space before they are written.
    reserves: bool,
    threads: usize,
    /// The header of each block.
    headers: Vec<Header>,
    /// Offset in the file behind the pages of the last block.
    end: u64,
}

/// The pieces of all blocks but those that are left out.
fn pieces_to_send<'a>(ram: &Ram, blocks: &'a Blocks) -> Pieces<'a> {
    Pieces::new(blocks.iter().enumerate().filter(|(_, block)| !ram.is_ignored(block)), PIECE)
}

impl MappedSave {
    /// Prepares a save to the file of a stream.
    pub fn new(ram: &Ram, file: &MigFile, plan: &MemoryPlan) -> Result<Self> {
        let file = file.positioned().map_err(|error| {
            let text = format!("a snapshot with fixed places of pages: {}", error.message());
            error.with_message(text)
        })?;
        let direct = plan.direct.then(|| file.direct(true, ram.page_size() as u64)).transpose()?;
        let reserves = file.gains_by_reserving();
        Ok(Self { file, direct, reserves, threads: plan.threads(), headers: Vec::new(), end: 0 })
    }

    /// Writes the header of the next block, and moves the stream behind the block's pages.
    pub fn put_header(&mut self, ram: &Ram, mut file: &MigFile, block: &Block) -> Result<()> {
        let offset = file.file_offset(&self.file)?;
        let header = Header::place(offset, block.len(), ram.page_size() as u64)
            .ok_or_else(|| Error::new(libc::EFBIG, format!("block '{}' does not fit into a file", block.name())))?;
        header.encode(&mut file);
        self.headers.push(header);
        self.end = header.pages_offset + block.len();
        file.continue_at(&self.file, self.end)
    }

    /// Writes all pages and the bitmaps.
    pub fn put_pages(&self, ram: &Ram, blocks: &Blocks) -> Result<()> {
        let vm = ram.context()?;
        // Direct writes that lengthen a file exclude each other.
        self.file.extend(self.end)?;
        let written: Vec<_> = blocks.iter().map(|block| Bitmap::new(block.pages())).collect();
        // Where the page map can't be read, all pages are looked at.
        let residency = Residency::open().ok();
        let pieces = pieces_to_send(ram, blocks);
        let anonymous: Vec<_> = blocks.iter().map(|block| is_anonymous(block.memory())).collect();
        let (queue, written_pieces) = channel();
        let write = |queue: &Sender<_>| {
            vm.slot.saving.check()?;
            let Some((at, offset, len)) = pieces.next() else { return Ok(false) };
            let residency = residency.as_ref().filter(|_| anonymous[at]);
            self.put_piece(ram, (&blocks[at], &self.headers[at], &written[at]), residency, (offset, len))?;
            // Without the thread the sync only takes longer.
            let _ = queue.send((self.headers[at].pages_offset + offset as u64, len as u64));
            Ok(true)
        };
        let ended = &AtomicBool::new(false);
        thread::scope(|scope| {
            // The disk is busy while pages are written, so the sync at the end is shorter. The guest waits for this thread, so
            // it leaves the rest of the pieces to the sync when all are written.
            let begin = move || {
                let pieces = written_pieces.iter().take_while(|_| !ended.load(Relaxed));
                pieces.for_each(|(offset, len)| self.file.start_writing(offset, len));
            };
            let _syncs = self.direct.is_none().then(|| spawn_scoped(scope, "savevm-sync", begin));
            let queue = queue;
            let result = workers::run(&vm, "savevm-pages", self.threads, || write(&queue));
            ended.store(true, Relaxed);
            result
        })?;
        self.put_bitmaps(blocks, &written)
    }

    fn put_bitmaps(&self, blocks: &Blocks, written: &[Bitmap]) -> Result<()> {
        for ((block, header), written) in blocks.iter().zip(&self.headers).zip(written) {
            let bytes = written.to_native_bytes();
            self.file.write_slice(&bytes, header.bitmap_offset).map_err(|err| {
                self.file.error(format_args!("writing the bitmap of block '{}' to", block.name()), &err)
            })?;
        }
        Ok(())
    }

    /// Writes the pages that `copies` has, and the bitmaps. With `zeros`, the bitmaps have zero pages as well, which are holes
    /// of the file.
    pub fn put_copies(&self, ram: &Ram, blocks: &Blocks, copies: &dyn Copies, zeros: bool) -> Result<()> {
        let vm = ram.context()?;
        let written: Vec<_> = blocks.iter().map(|block| Bitmap::new(block.pages())).collect();
        let pieces = pieces_to_send(ram, blocks);
        let step = || {
            let (at, range) = match copies.next() {
                Some((at, page)) => (at, (page, blocks[at].pages_per_unit())),
                None => {
                    let Some((at, offset, len)) = pieces.next() else { return Ok(false) };
                    (at, (offset / ram.page_size(), len / ram.page_size()))
                }
            };
            copies.read(at, range, &mut |start, content| {
                self.put_copy(ram, (&blocks[at], &self.headers[at], &written[at]), (start, content), zeros)
            })?;
            Ok(true)
        };
        workers::run(&vm, "savevm-pages", self.threads, step)?;
        self.put_bitmaps(blocks, &written)
    }

    /// Writes the pages of a copy that are not zero. With `zeros`, marks zero pages as well.
    fn put_copy(
        &self,
        ram: &Ram,
        (block, header, written): (&Block, &Header, &Bitmap),
        (start, content): (usize, &[u8]),
        zeros: bool,
    ) -> Result<()> {
        let size = ram.page_size();
        // Direct access needs an aligned copy.
        let aligned = self.direct.as_ref().map(|direct| OwnMemory::new(content.len()).map(|own| (direct, own)));
        let aligned = aligned.transpose().map_err(|err| Error::io("memory for pages", &err))?;
        if let Some((_, own)) = &aligned {
            own.memory().write(0, content);
        }
        let pages: Vec<_> = content.chunks(size).map(is_zero).collect();
        let mut at = 0;
        for run in pages.chunk_by(|one, next| one == next) {
            let (first, offset, len) = (start + at, at * size, run.len() * size);
            at += run.len();
            let counter = if run[0] { &ram.counters.zero } else { &ram.counters.normal };
            counter.fetch_add(run.len() as u64, Relaxed);
            if run[0] && !zeros {
                continue;
            }
            written.set(first, run.len());
            if run[0] {
                continue;
            }
            let place = header.pages_offset + (first * size) as u64;
            self.reserve(place, len);
            let put = match &aligned {
                Some((direct, own)) => direct.write_at(own.memory().piece(offset, len), place),
                None => self.file.write_slice(&content[offset..offset + len], place),
            };
            put.map_err(|err| self.write_error(block, (first * size, len), place, &err))?;
            self.file.start_writing(place, len as u64);
        }
        Ok(())
    }

    /// Reserves disk space for a range that will be written at once.
    fn reserve(&self, place: u64, len: usize) {
        if self.reserves && len >= RESERVE_MIN {
            self.file.reserve(place, len as u64);
        }
    }

    fn write_error(&self, block: &Block, (start, len): (usize, usize), place: u64, err: &io::Error) -> Error {
        let what = format_args!(
            "writing {} of block '{}' from 0x{start:x} on, at offset 0x{place:x} of",
            size(len as u64),
            block.name()
        );
        self.file.error(what, err)
    }

    /// Writes the pages of a piece that are not zero.
    fn put_piece(
        &self,
        ram: &Ram,
        (block, header, written): (&Block, &Header, &Bitmap),
        residency: Option<&Residency>,
        (offset, len): (usize, usize),
    ) -> Result<()> {
        let (memory, page) = (block.memory(), ram.page_size());
        let mut zero = Vec::with_capacity(len / page);
        match residency {
            Some(residency) => residency.absent(memory, offset, len, page, |absent| zero.push(absent)),
            None => zero.resize(len / page, false),
        }
        for (at, zero) in zero.iter_mut().enumerate() {
            *zero = *zero || memory.is_zero(offset + at * page, page);
        }
        let (mut at, to) = (0, self.direct.as_ref().unwrap_or(&self.file));
        for run in zero.chunk_by(|one, next| one == next) {
            let (start, len) = (offset + at * page, run.len() * page);
            at += run.len();
            ram.cleaned(block.dirty.clear(start / page, run.len()));
            if run[0] {
                ram.counters.zero.fetch_add(run.len() as u64, Relaxed);
                continue;
            }
            let place = header.pages_offset + start as u64;
            self.reserve(place, len);
            to.write_at(memory.piece(start, len), place)
                .map_err(|err| self.write_error(block, (start, len), place, &err))?;
            written.set(start / page, run.len());
            ram.counters.normal.fetch_add(run.len() as u64, Relaxed);
        }
        Ok(())
    }
}
