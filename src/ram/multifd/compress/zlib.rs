// SPDX-License-Identifier: LGPL-2.1-or-later
//! zlib. A packet ends with a sync flush.

use super::{copy_pages, wrong_size};
use crate::error::{Error, Result};
use crate::ram::block::Block;
use crate::sys::{IoVec, SendBuffer};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Room for the content of a packet that can't be compressed: deflate adds 5 bytes to each 16 KiB at worst.
fn bound(len: usize) -> usize {
    len + len / 1024 + 128
}

/// The compressing end of a connection.
pub(in crate::ram::multifd) struct Encoder {
    stream: Compress,
    pages: Vec<u8>,
    payload: SendBuffer,
}

impl Encoder {
    pub fn new(level: i32) -> Result<Self> {
        let level = u32::try_from(level).ok().filter(|level| (1..=9).contains(level));
        let level = level.ok_or_else(|| Error::invalid("zlib has the compression levels 1 to 9"))?;
        let stream = Compress::new(Compression::new(level), true);
        Ok(Self { stream, pages: Vec::new(), payload: SendBuffer::default() })
    }

    pub fn encode(&mut self, block: &Block, pages: &[usize], page_bits: u32, pieces: &mut Vec<IoVec>) -> Result<usize> {
        copy_pages(block, pages, page_bits, &mut self.pages);
        let out = self.payload.bytes();
        out.clear();
        out.reserve(bound(self.pages.len()));
        let start = self.stream.total_in();
        loop {
            let taken = (self.stream.total_in() - start) as usize;
            let status = self.stream.compress_vec(&self.pages[taken..], out, FlushCompress::Sync);
            let taken = (self.stream.total_in() - start) as usize;
            match status {
                Ok(Status::Ok | Status::BufError) if out.len() == out.capacity() => out.reserve(4096),
                Ok(Status::Ok | Status::BufError) if taken == self.pages.len() => break,
                Ok(status) => return Err(Error::new(libc::EIO, format!("zlib did not compress a packet: {status:?}"))),
                Err(err) => return Err(Error::new(libc::EIO, format!("zlib did not compress a packet: {err}"))),
            }
        }
        let len = out.len();
        pieces.push(self.payload.piece(0, len));
        Ok(len)
    }
}

/// The decompressing end of a connection.
pub(in crate::ram::multifd) struct Decoder(Decompress);

impl Default for Decoder {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl Decoder {
    /// Fills `pages` with the content of a payload.
    pub fn decode(&mut self, mut payload: &[u8], pages: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        // The end of the flush is still to be read when the pages are full. Neither it nor what the decoder holds back may
        // bring another byte.
        let mut beyond = [0];
        loop {
            let is_full = filled == pages.len();
            let out = if is_full { &mut beyond[..] } else { &mut pages[filled..] };
            let (taken, made) = (self.0.total_in(), self.0.total_out());
            let status = self.0.decompress(payload, out, FlushDecompress::None);
            let (taken, made) = ((self.0.total_in() - taken) as usize, (self.0.total_out() - made) as usize);
            payload = &payload[taken..];
            if is_full && made > 0 {
                return Err(wrong_size(pages.len() + 1, pages.len()));
            }
            filled += made;
            match status {
                Ok(Status::Ok | Status::BufError) if is_full && payload.is_empty() => return Ok(()),
                Ok(Status::Ok) if taken + made > 0 => {}
                Ok(Status::StreamEnd) => return Err(Error::invalid("the zlib stream of the connection ends")),
                Ok(_) if payload.is_empty() => return Err(wrong_size(filled, pages.len())),
                Ok(_) => return Err(Error::invalid("the zlib stream of the connection stops inside of a packet")),
                Err(err) => return Err(Error::invalid(format!("the zlib stream of the connection is damaged: {err}"))),
            }
        }
    }
}
