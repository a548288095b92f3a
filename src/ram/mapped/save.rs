// SPDX-License-Identifier: LGPL-2.1-or-later
//! Saves RAM to fixed places of a file (QEMU 10.0, `mapped_ram_setup_ramblock` and `ram_save_file_bmap` in
//! `migration/ram.c`). The guest is stopped.

use super::{PIECE, Pieces};
use crate::channel::PositionedFile;
use crate::error::{Error, Result, size};
use crate::file::MigFile;
use crate::ram::Ram;
use crate::ram::bitmap::Bitmap;
use crate::ram::block::{Block, Blocks};
use crate::savevm::memory_plan::MemoryPlan;
use crate::savevm::workers;
use crate::sys::{Residency, is_anonymous, spawn_scoped};
use crate::wire::mapped::Header;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

/// Number of written pieces that wait for the thread that starts their way to the disk. The guest is stopped until this
/// thread has ended, so they are few.
const PIECES_QUEUED: usize = 2;

/// The file of a save, and the places of the blocks in it.
pub(in crate::ram) struct MappedSave {
    file: PositionedFile,
    /// For pages, with O_DIRECT.
    direct: Option<PositionedFile>,
    threads: usize,
    /// The header of each block.
    headers: Vec<Header>,
}

impl MappedSave {
    /// Prepares a save to the file of a stream.
    pub fn new(ram: &Ram, file: &MigFile, plan: &MemoryPlan) -> Result<Self> {
        let file = file.positioned().map_err(|error| {
            let text = format!("a snapshot with fixed places of pages: {}", error.message());
            error.with_message(text)
        })?;
        let direct = plan.direct.then(|| file.direct(true, ram.page_size() as u64)).transpose()?;
        Ok(Self { file, direct, threads: plan.threads(), headers: Vec::new() })
    }

    /// Writes the header of the next block, and moves the stream behind the block's pages.
    pub fn put_header(&mut self, ram: &Ram, mut file: &MigFile, block: &Block) -> Result<()> {
        let offset = file.file_offset(&self.file)?;
        let header = Header::place(offset, block.len(), ram.page_size() as u64)
            .ok_or_else(|| Error::new(libc::EFBIG, format!("block '{}' does not fit into a file", block.name())))?;
        header.encode(&mut file);
        self.headers.push(header);
        file.continue_at(&self.file, header.pages_offset + block.len())
    }

    /// Writes all pages and the bitmaps.
    pub fn put_pages(&self, ram: &Ram, blocks: &Blocks) -> Result<()> {
        let vm = ram.context()?;
        let written: Vec<_> = blocks.iter().map(|block| Bitmap::new(block.pages())).collect();
        // Where the page map can't be read, all pages are looked at.
        let residency = Residency::open().ok();
        let is_sent = |block: &&Arc<Block>| !ram.is_ignored(block);
        let places: Vec<_> = (0..blocks.len()).filter(|at| is_sent(&&blocks[*at])).collect();
        let pieces = Pieces::new(blocks.iter().filter(is_sent), PIECE);
        let anonymous: Vec<_> = blocks.iter().map(|block| is_anonymous(block.memory())).collect();
        let (queue, written_pieces) = sync_channel(PIECES_QUEUED);
        let write = |queue: &SyncSender<_>| {
            let Some((at, offset, len)) = pieces.next() else { return Ok(false) };
            let at = places[at];
            let residency = residency.as_ref().filter(|_| anonymous[at]);
            self.put_piece(ram, (&blocks[at], &self.headers[at], &written[at]), residency, (offset, len))?;
            // If the queue is full, the disk is busy anyway.
            let _ = queue.try_send((self.headers[at].pages_offset + offset as u64, len as u64));
            Ok(true)
        };
        thread::scope(|scope| {
            // The disk is busy while pages are written, so the sync at the end is shorter.
            let begin = move || written_pieces.iter().for_each(|(offset, len)| self.file.start_writing(offset, len));
            // Without the thread the sync only takes longer.
            let _syncs = self.direct.is_none().then(|| spawn_scoped(scope, "savevm-sync", begin));
            let queue = queue;
            workers::run(&vm, "savevm-pages", self.threads, || write(&queue))
        })?;
        for ((block, header), written) in blocks.iter().zip(&self.headers).zip(&written) {
            let bytes = written.to_native_bytes();
            self.file.write_slice(&bytes, header.bitmap_offset).map_err(|err| {
                self.file.error(format_args!("writing the bitmap of block '{}' to", block.name()), &err)
            })?;
        }
        Ok(())
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
            if run[0] {
                ram.counters.zero.fetch_add(run.len() as u64, Relaxed);
                continue;
            }
            let place = header.pages_offset + start as u64;
            to.write_at(memory.piece(start, len), place).map_err(|err| {
                let what = format_args!(
                    "writing {} of block '{}' from 0x{start:x} on, at offset 0x{place:x} of",
                    size(len as u64),
                    block.name()
                );
                self.file.error(what, &err)
            })?;
            written.set(start / page, run.len());
            ram.counters.normal.fetch_add(run.len() as u64, Relaxed);
        }
        Ok(())
    }
}
