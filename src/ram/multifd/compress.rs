// SPDX-License-Identifier: LGPL-2.1-or-later
//! Compression of packets. As in QEMU, each connection has one compressed stream for its whole lifetime, so a packet can be
//! decompressed only after all earlier packets.
//!
//! Pages are copied before they are compressed, because the guest may change them meanwhile.

#[cfg(feature = "zlib")]
mod zlib;
#[cfg(feature = "zstd")]
mod zstd;

use crate::error::{Error, Result};
use crate::ram::block::Block;
use crate::savevm::connections::Compression;
use crate::sys::IoVec;
use crate::wire::multifd::Method;

/// The error of a method that was left out of the build.
#[cfg(not(all(feature = "zlib", feature = "zstd")))]
fn left_out(method: &str) -> Error {
    let text = format!("this library was built without the feature '{method}', which the compression needs");
    Error::new(libc::ENOTSUP, text)
}

/// Fails if a compression was left out of the build or its level does not exist.
pub(in crate::ram) fn check(compression: Compression, level: i32) -> Result<()> {
    Encoder::new(compression, level).map(drop)
}

/// The compression of a connection at the source.
pub(super) enum Encoder {
    None,
    #[cfg(feature = "zlib")]
    Zlib(zlib::Encoder),
    #[cfg(feature = "zstd")]
    Zstd(zstd::Encoder),
    #[cfg(feature = "zstd")]
    Auto(zstd::Auto),
}

/// Appends pages without a copy. Consecutive pages take one piece.
fn add_pages(block: &Block, pages: &[usize], page_bits: u32, pieces: &mut Vec<IoVec>) -> usize {
    for run in pages.chunk_by(|page, next| page + 1 == *next) {
        pieces.push(block.memory().piece(run[0] << page_bits, run.len() << page_bits));
    }
    pages.len() << page_bits
}

/// Copies pages.
#[cfg(any(feature = "zlib", feature = "zstd"))]
fn copy_pages(block: &Block, pages: &[usize], page_bits: u32, into: &mut Vec<u8>) {
    let size = 1 << page_bits;
    into.resize(pages.len() * size, 0);
    for (page, copy) in pages.iter().zip(into.chunks_exact_mut(size)) {
        block.memory().read(page * size, copy);
    }
}

impl Encoder {
    pub fn new(compression: Compression, level: i32) -> Result<Self> {
        #[cfg(not(any(feature = "zlib", feature = "zstd")))]
        let _ = level;
        match compression {
            Compression::None => Ok(Self::None),
            #[cfg(feature = "zlib")]
            Compression::Zlib => zlib::Encoder::new(level).map(Self::Zlib),
            #[cfg(not(feature = "zlib"))]
            Compression::Zlib => Err(left_out("zlib")),
            #[cfg(feature = "zstd")]
            Compression::Zstd => zstd::Encoder::new(level).map(Self::Zstd),
            #[cfg(feature = "zstd")]
            Compression::Auto => zstd::Auto::new(level).map(Self::Auto),
            #[cfg(not(feature = "zstd"))]
            Compression::Zstd | Compression::Auto => Err(left_out("zstd")),
        }
    }

    /// The method in the heads of packets.
    pub fn method(&self) -> Method {
        match self {
            Self::None => Method::None,
            #[cfg(feature = "zlib")]
            Self::Zlib(_) => Method::Zlib,
            #[cfg(feature = "zstd")]
            Self::Zstd(_) | Self::Auto(_) => Method::Zstd,
        }
    }

    /// Appends the payload with the content of pages. Returns its size in bytes.
    pub fn encode(&mut self, block: &Block, pages: &[usize], page_bits: u32, pieces: &mut Vec<IoVec>) -> Result<usize> {
        match self {
            Self::None => Ok(add_pages(block, pages, page_bits, pieces)),
            #[cfg(feature = "zlib")]
            Self::Zlib(zlib) => zlib.encode(block, pages, page_bits, pieces),
            #[cfg(feature = "zstd")]
            Self::Zstd(zstd) => zstd.encode(block, pages, page_bits, pieces),
            #[cfg(feature = "zstd")]
            Self::Auto(auto) => auto.encode(block, pages, page_bits, pieces),
        }
    }

    /// A packet with `bytes` bytes of pages was written.
    pub fn written(&mut self, bytes: usize, payload: usize) {
        match self {
            #[cfg(feature = "zstd")]
            Self::Auto(auto) if bytes > 0 => auto.written(bytes, payload),
            _ => {
                let _ = (bytes, payload);
            }
        }
    }
}

/// The decompression of a connection at the destination. The streams are made when they are needed.
#[derive(Default)]
pub(super) struct Decoder {
    payload: Vec<u8>,
    pages: Vec<u8>,
    #[cfg(feature = "zlib")]
    zlib: Option<zlib::Decoder>,
    #[cfg(feature = "zstd")]
    zstd: Option<zstd::Decoder>,
}

impl Decoder {
    /// Returns a buffer of `len` bytes for a payload. `decode` takes it back.
    pub fn take_payload(&mut self, len: usize) -> Vec<u8> {
        let mut payload = std::mem::take(&mut self.payload);
        payload.resize(len, 0);
        payload
    }

    /// Decompresses a payload, which must have exactly `len` bytes of pages.
    pub fn decode(&mut self, method: Method, payload: Vec<u8>, len: usize) -> Result<&[u8]> {
        self.payload = payload;
        self.pages.resize(len, 0);
        self.unpack(method)?;
        Ok(&self.pages)
    }

    /// Decompresses the payload into the pages.
    fn unpack(&mut self, method: Method) -> Result<()> {
        match method {
            #[cfg(feature = "zlib")]
            Method::Zlib => self.zlib.get_or_insert_default().decode(&self.payload, &mut self.pages),
            #[cfg(not(feature = "zlib"))]
            Method::Zlib => Err(left_out("zlib")),
            #[cfg(feature = "zstd")]
            Method::Zstd => match &mut self.zstd {
                Some(zstd) => zstd.decode(&self.payload, &mut self.pages),
                None => self.zstd.insert(zstd::Decoder::new()?).decode(&self.payload, &mut self.pages),
            },
            #[cfg(not(feature = "zstd"))]
            Method::Zstd => Err(left_out("zstd")),
            Method::None => Err(Error::invalid("plain pages are not decompressed")),
        }
    }
}

/// The error of a payload whose content has another size than its pages.
#[cfg(any(feature = "zlib", feature = "zstd"))]
fn wrong_size(found: usize, expected: usize) -> Error {
    match found > expected {
        true => Error::invalid(format!("the compressed data has more than {expected} bytes of content")),
        false => Error::invalid(format!("the compressed data has {found} bytes of content, expected {expected}")),
    }
}
