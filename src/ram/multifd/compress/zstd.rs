// SPDX-License-Identifier: LGPL-2.1-or-later
//! zstd, and the mode that compresses only if that is faster.
//!
//! The method of a packet must be the same for the whole migration. So a packet that is not compressed is a zstd frame with
//! raw blocks, whose content is the guest's memory, written without a copy. A frame ends with each packet in this mode; a
//! reader of streams accepts one frame behind the other.

use super::super::judge::{Judge, Sent};
use super::{add_pages, copy_pages, wrong_size};
use crate::error::{Error, Result};
use crate::ram::block::Block;
use crate::sys::{IoVec, SendBuffer, thread_cpu_time};
use crate::wire::multifd::PACKET_PAGES_SIZE;
use std::time::{Duration, Instant};
use zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd_safe::{CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer, compress_bound, get_error_name};

/// Largest window of a stream, as a power of two: that of level 20, the highest of QEMU.
const WINDOW_LOG_MAX: u32 = 25;
/// Largest block of a frame.
const RAW_BLOCK_MAX: usize = 128 << 10;

fn failed(what: &str, code: usize) -> Error {
    Error::new(libc::EIO, format!("zstd: {what}: {}", get_error_name(code)))
}

/// The compressing end of a connection.
pub(in crate::ram::multifd) struct Encoder {
    stream: CCtx<'static>,
    pages: Vec<u8>,
    payload: SendBuffer,
}

impl Encoder {
    pub fn new(level: i32) -> Result<Self> {
        if !(1..=20).contains(&level) {
            return Err(Error::invalid("zstd has the compression levels 1 to 20"));
        }
        let mut stream = CCtx::create();
        let set = stream.set_parameter(CParameter::CompressionLevel(level));
        set.map_err(|code| failed("setting the level", code))?;
        Ok(Self { stream, pages: Vec::new(), payload: SendBuffer::default() })
    }

    pub fn encode(&mut self, block: &Block, pages: &[usize], page_bits: u32, pieces: &mut Vec<IoVec>) -> Result<usize> {
        self.pack(block, pages, page_bits, pieces, ZSTD_EndDirective::ZSTD_e_flush)
    }

    fn pack(
        &mut self,
        block: &Block,
        pages: &[usize],
        page_bits: u32,
        pieces: &mut Vec<IoVec>,
        end: ZSTD_EndDirective,
    ) -> Result<usize> {
        copy_pages(block, pages, page_bits, &mut self.pages);
        let bytes = self.payload.bytes();
        bytes.clear();
        bytes.reserve(compress_bound(PACKET_PAGES_SIZE));
        let len = {
            let mut out = OutBuffer::around(bytes);
            let mut input = InBuffer::around(&self.pages);
            loop {
                let left = self.stream.compress_stream2(&mut out, &mut input, end);
                let left = left.map_err(|code| failed("compressing a packet", code))?;
                if left == 0 && input.pos() == self.pages.len() {
                    break out.pos();
                }
                if out.pos() == out.capacity() {
                    return Err(Error::new(libc::EIO, "zstd: a compressed packet is larger than its bound"));
                }
            }
        };
        pieces.push(self.payload.piece(0, len));
        Ok(len)
    }
}

/// Compresses only if that is faster.
pub(in crate::ram::multifd) struct Auto {
    encoder: Encoder,
    judge: Judge,
    /// Begin and end of compressing the current packet, and the CPU time in it.
    begun: Instant,
    packing: Option<(Duration, Duration)>,
    /// Heads of the frame and of its blocks.
    heads: SendBuffer,
}

impl Auto {
    pub fn new(level: i32) -> Result<Self> {
        let encoder = Encoder::new(level)?;
        let heads = SendBuffer::default();
        Ok(Self { encoder, judge: Judge::default(), begun: Instant::now(), packing: None, heads })
    }

    pub fn encode(&mut self, block: &Block, pages: &[usize], page_bits: u32, pieces: &mut Vec<IoVec>) -> Result<usize> {
        self.begun = Instant::now();
        self.packing = None;
        if !self.judge.packs() {
            return Ok(self.raw_frame(block, pages, page_bits, pieces));
        }
        let cpu = thread_cpu_time();
        let len = self.encoder.pack(block, pages, page_bits, pieces, ZSTD_EndDirective::ZSTD_e_end)?;
        self.packing = Some((self.begun.elapsed(), thread_cpu_time().saturating_sub(cpu)));
        Ok(len)
    }

    /// The packet was written.
    pub fn written(&mut self, bytes: usize, payload: usize) {
        self.judge.sent(&Sent { bytes, payload, time: self.begun.elapsed(), packing: self.packing });
    }

    /// Appends a frame with raw blocks (RFC 8878, 3.1.1).
    fn raw_frame(&mut self, block: &Block, pages: &[usize], page_bits: u32, pieces: &mut Vec<IoVec>) -> usize {
        /// Magic number, descriptor (single segment, 4 bytes of content size), content size.
        const FRAME_HEAD: usize = 9;
        const BLOCK_HEAD: usize = 3;
        let per_block = (RAW_BLOCK_MAX >> page_bits).max(1);
        let heads = self.heads.bytes();
        heads.clear();
        heads.extend_from_slice(&0xfd2f_b528_u32.to_le_bytes());
        heads.push(0b1010_0000);
        heads.extend_from_slice(&((pages.len() << page_bits) as u32).to_le_bytes());
        for (at, part) in pages.chunks(per_block).enumerate() {
            let is_last = (at + 1) * per_block >= pages.len();
            let head = (part.len() << page_bits) as u32 * 8 + u32::from(is_last);
            heads.extend_from_slice(&head.to_le_bytes()[..BLOCK_HEAD]);
        }
        let len = heads.len() + (pages.len() << page_bits);
        let mut start = 0;
        for (at, part) in pages.chunks(per_block).enumerate() {
            let end = FRAME_HEAD + (at + 1) * BLOCK_HEAD;
            pieces.push(self.heads.piece(start, end - start));
            add_pages(block, part, page_bits, pieces);
            start = end;
        }
        len
    }
}

/// The decompressing end of a connection.
pub(in crate::ram::multifd) struct Decoder(DCtx<'static>);

impl Decoder {
    pub fn new() -> Result<Self> {
        let mut stream = DCtx::create();
        let set = stream.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX));
        set.map_err(|code| failed("limiting the window", code))?;
        Ok(Self(stream))
    }

    /// Fills `pages` with the content of a payload.
    pub fn decode(&mut self, payload: &[u8], pages: &mut [u8]) -> Result<()> {
        let damaged =
            |code| Error::invalid(format!("the zstd stream of the connection is damaged: {}", get_error_name(code)));
        let mut input = InBuffer::around(payload);
        let mut out = OutBuffer::around(pages);
        while out.pos() < out.capacity() {
            let before = (input.pos(), out.pos());
            self.0.decompress_stream(&mut out, &mut input).map_err(damaged)?;
            if (input.pos(), out.pos()) == before {
                return Err(wrong_size(out.pos(), out.capacity()));
            }
        }
        // The end of the flush or of the frame may still be to be read. Neither it nor what the decoder holds back may bring
        // another byte.
        let expected = out.pos();
        let mut beyond = [0; 1];
        loop {
            let mut more = OutBuffer::around(&mut beyond[..]);
            let before = input.pos();
            self.0.decompress_stream(&mut more, &mut input).map_err(damaged)?;
            if more.pos() > 0 {
                return Err(wrong_size(expected + 1, expected));
            }
            if input.pos() == payload.len() {
                return Ok(());
            }
            if input.pos() == before {
                return Err(Error::invalid("the zstd stream of the connection stops inside of a packet"));
            }
        }
    }
}
