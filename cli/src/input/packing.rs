// SPDX-License-Identifier: LGPL-2.1-or-later
//! Compressed streams: detects the compression and decompresses as far as possible.
//!
//! A file may contain several members (gzip), frames (zstd) or streams (xz), and padding after them. Cut or damaged
//! data yields the bytes before the damage; [`Compression`] contains its place.

use std::cell::RefCell;
use std::io::{self, Read};
use std::rc::Rc;

use flate2::bufread::GzDecoder;
use lzma_rust2::XzReader;
use savevm_stream::inspect::{Compression, CompressionDamage};

use super::peek::{Peeked, Place};
use crate::failure::{Failure, Result};
use crate::words::size;

/// A supported compression, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Not compressed, or not a stream.
    Plain,
    /// gzip, with any number of members.
    Gzip,
    /// zstd.
    Zstd,
    /// xz.
    Xz,
}

/// Number of bytes that show the compression and the memory that zstd needs.
pub const TELLING: usize = 18;

/// Magic numbers of compressions that are not supported, and the programs that decompress them.
const OTHERS: [(&[u8], &str); 3] = [(b"BZh", "bzip2"), (b"\x04\x22\x4d\x18", "lz4"), (b"\x89LZO", "lzop")];

/// The result of reading compressed data.
pub type Outcome = Rc<RefCell<Compression>>;

impl Packing {
    /// Detects the compression from the first bytes of the data, which starts at `offset` in `name`.
    pub fn of(name: &str, start: &[u8], offset: u64) -> Result<Self> {
        if let Some((_, program)) = OTHERS.iter().find(|(magic, _)| start.starts_with(magic)) {
            let file = if name == STDIN { "FILE" } else { name };
            let way = match offset {
                0 => format!("{program} -dc {file}"),
                _ => format!("tail -c +{} {file} | {program} -dc", offset + 1),
            };
            return Err(Failure::new(format!(
                "{name} is compressed with {program}; read it with: {way} | savevm ... -"
            )));
        }
        Ok(Self::from_magic(start).unwrap_or(Self::Plain))
    }

    fn from_magic(start: &[u8]) -> Option<Self> {
        match start {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            // A frame without data.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            _ => None,
        }
    }

    fn method(self) -> &'static str {
        match self {
            Self::Plain => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
        }
    }

    /// Returns the stream in `packed`, if it is compressed, and the place of the result. Decompressing takes at most
    /// `memory` bytes for the format's window.
    pub fn unpack<R: Read + 'static>(self, packed: Peeked<R>, memory: usize) -> (Box<dyn Read>, Option<Outcome>) {
        if self == Self::Plain {
            return (Box::new(packed), None);
        }
        let outcome = Outcome::default();
        outcome.borrow_mut().method = self.method();
        let (start, place) = (packed.place().offset(), packed.place());
        let decoder = Decoder::Between(packed);
        let unpacker = Unpacker { packing: self, decoder, start, place, memory, produced: 0, outcome: outcome.clone() };
        (Box::new(unpacker), Some(outcome))
    }
}

/// The name of standard input in messages.
pub const STDIN: &str = "standard input";

struct Unpacker<R: Read> {
    packing: Packing,
    decoder: Decoder<R>,
    /// Offset of the compressed data in the file.
    start: u64,
    place: Place,
    memory: usize,
    produced: u64,
    outcome: Outcome,
}

enum Decoder<R: Read> {
    /// A member may begin at this place.
    Between(Peeked<R>),
    Gzip(Box<GzDecoder<Peeked<R>>>),
    Zstd(zstd::Decoder<'static, Peeked<R>>),
    Xz(Box<XzReader<Peeked<R>>>),
    /// The data has ended.
    End,
}

impl<R: Read> Unpacker<R> {
    /// Begins the next member, or detects the end.
    fn begin(&mut self, mut packed: Peeked<R>) -> io::Result<Decoder<R>> {
        let zeroes = if self.produced > 0 { skip_zeroes(&mut packed)? } else { 0 };
        let start = packed.peek(TELLING)?;
        if Packing::from_magic(start) != Some(self.packing) {
            let rest = packed.skip(u64::MAX)?;
            let mut outcome = self.outcome.borrow_mut();
            outcome.length = self.place.offset() - self.start - zeroes - rest;
            // The caller may have removed zeros.
            outcome.padded = rest == 0;
            outcome.trailing += zeroes + rest;
            return Ok(Decoder::End);
        }
        Ok(match self.packing {
            Packing::Plain => Decoder::End,
            Packing::Gzip => Decoder::Gzip(Box::new(GzDecoder::new(packed))),
            Packing::Zstd => {
                let window = zstd_window(start);
                if window > self.memory as u64 {
                    return Err(too_large(window, self.memory));
                }
                let mut decoder = zstd::Decoder::with_buffer(packed)?.single_frame();
                decoder.window_log_max(MAX_WINDOW_LOG)?;
                Decoder::Zstd(decoder)
            }
            Packing::Xz => {
                let limit = u32::try_from(self.memory >> 10).unwrap_or(u32::MAX - 1);
                Decoder::Xz(Box::new(XzReader::new_mem_limit(packed, false, limit)))
            }
        })
    }

    /// Stores the place of damage, unless reading the file failed.
    fn fail(&mut self, error: io::Error) -> io::Result<()> {
        self.decoder = Decoder::End;
        if self.place.failed() {
            return Err(error);
        }
        if error.kind() == io::ErrorKind::OutOfMemory {
            return Err(io::Error::other(format!(
                "the {} data {NEEDS} {}",
                self.packing.method(),
                size(self.memory as u64)
            )));
        }
        let (offset, produced, cut) = (self.place.offset(), self.produced, self.place.ended());
        let mut outcome = self.outcome.borrow_mut();
        outcome.length = offset - self.start;
        outcome.damage = Some(CompressionDamage { offset, produced, cut, message: error.to_string() });
        Ok(())
    }
}

impl<R: Read> Read for Unpacker<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            let read = match &mut self.decoder {
                Decoder::Between(_) => Ok(0),
                Decoder::Gzip(decoder) => decoder.read(out),
                Decoder::Zstd(decoder) => decoder.read(out),
                Decoder::Xz(decoder) => decoder.read(out),
                Decoder::End => return Ok(0),
            };
            match read {
                Ok(0) => {
                    let packed = match std::mem::replace(&mut self.decoder, Decoder::End) {
                        Decoder::Between(packed) => packed,
                        Decoder::Gzip(decoder) => decoder.into_inner(),
                        Decoder::Zstd(decoder) => decoder.finish(),
                        Decoder::Xz(decoder) => decoder.into_inner(),
                        Decoder::End => return Ok(0),
                    };
                    self.decoder = self.begin(packed)?;
                }
                Ok(count) => {
                    self.produced += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.fail(error)?,
            }
        }
    }
}

const NEEDS: &str = "needs more memory to decompress than --max-memory allows:";

/// The largest window that zstd supports, as log2 of its bytes.
const MAX_WINDOW_LOG: u32 = if cfg!(target_pointer_width = "64") { 31 } else { 30 };

fn too_large(window: u64, memory: usize) -> io::Error {
    io::Error::other(format!("the zstd data needs {}, {NEEDS} {}", size(window), size(memory as u64)))
}

/// Skips zero bytes, with which no member begins. Returns their number.
fn skip_zeroes<R: Read>(packed: &mut Peeked<R>) -> io::Result<u64> {
    use std::io::BufRead;
    let mut count = 0;
    loop {
        let zeroes = packed.fill_buf()?.iter().take_while(|byte| **byte == 0).count();
        if zeroes == 0 {
            return Ok(count);
        }
        packed.consume(zeroes);
        count += zeroes as u64;
    }
}

/// Returns the window size of a frame in bytes (RFC 8878, 3.1.1.1).
fn zstd_window(frame: &[u8]) -> u64 {
    let Some(&descriptor) = frame.get(4).filter(|_| frame[0] == 0x28) else { return 0 };
    let single_segment = descriptor & 0x20 != 0;
    if !single_segment {
        let Some(&window) = frame.get(5) else { return 0 };
        let base = 1u64 << (10 + u32::from(window >> 3));
        return base + (base >> 3) * u64::from(window & 7);
    }
    // The window is the content. Its size follows the number of the dictionary.
    let at = 5 + [0, 1, 2, 4][usize::from(descriptor & 3)];
    let number = |len: usize| {
        let bytes = frame.get(at..at + len).unwrap_or_default();
        bytes.iter().rev().fold(0u64, |number, &byte| number << 8 | u64::from(byte))
    };
    match descriptor >> 6 {
        0 => number(1),
        1 => number(2) + 256,
        2 => number(4),
        _ => number(8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    /// `printf 'hello hello hello\n' | xz -c`
    const XZ: &[u8] = include_bytes!("../../tests/data/hello.xz");

    fn unpack(packed: &[u8]) -> (Vec<u8>, Compression) {
        let (packed, mut out) = (packed.to_vec(), Vec::new());
        let packing = Packing::of("f", &packed, 0).unwrap();
        let (mut reader, outcome) = packing.unpack(Peeked::new(io::Cursor::new(packed), 7), 1 << 24);
        reader.read_to_end(&mut out).unwrap();
        let outcome = outcome.unwrap().borrow().clone();
        (out, outcome)
    }

    #[test]
    fn members_and_trailing_bytes_are_read() {
        let text = b"hello hello hello\n";
        for member in [gzip(text), zstd::encode_all(&text[..], 1).unwrap(), XZ.to_vec()] {
            let (out, end) = unpack(&member);
            assert_eq!((&out[..], end.length, end.trailing, &end.damage), (&text[..], member.len() as u64, 0, &None));
            let two = [&member[..], &member].concat();
            assert_eq!(unpack(&two).0, text.repeat(2));
            let (out, end) = unpack(&[&member[..], &[0; 100_000]].concat());
            assert_eq!((&out[..], end.trailing, end.padded), (&text[..], 100_000, true), "{}", end.method);
            let (out, end) = unpack(&[&member[..], b"garbage"].concat());
            assert_eq!((&out[..], end.trailing, end.padded), (&text[..], 7, false), "{}", end.method);
        }
    }

    #[test]
    fn cut_data_yields_the_bytes_before_the_cut() {
        // Bytes that are hardly compressible.
        let text: Vec<u8> = (0..1_000_000u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8).collect();
        for member in [gzip(&text), zstd::encode_all(&text[..], 1).unwrap()] {
            let (out, end) = unpack(&member[..member.len() / 2]);
            let damage = end.damage.unwrap();
            assert!(out.len() > text.len() / 8 && text.starts_with(&out), "{}: {}", end.method, out.len());
            assert_eq!((damage.cut, damage.offset), (true, 7 + member.len() as u64 / 2));
            assert_eq!(damage.produced, out.len() as u64);
        }
        let (_, end) = unpack(&XZ[..XZ.len() - 30]);
        assert!(end.damage.unwrap().cut);
    }

    #[test]
    fn damaged_data_causes_no_panic() {
        let text: Vec<u8> = (0..300u32).map(|at| ((at * at) >> 7) as u8).collect();
        for member in [gzip(&text), zstd::encode_all(&text[..], 1).unwrap(), XZ.to_vec()] {
            for bit in (48..8 * member.len()).step_by(3) {
                let mut damaged = member.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let packing = Packing::of("f", &damaged, 0).unwrap();
                let (mut reader, _) = packing.unpack(Peeked::new(io::Cursor::new(damaged), 0), 1 << 24);
                // Reading ends, with any result.
                let _ = io::copy(&mut reader, &mut io::sink());
            }
        }
    }

    #[test]
    fn memory_is_limited() {
        let mut wide = zstd::Encoder::new(Vec::new(), 1).unwrap();
        wide.window_log(28).unwrap();
        wide.include_contentsize(false).unwrap();
        wide.write_all(&[7; 100_000]).unwrap();
        let wide = wide.finish().unwrap();
        assert_eq!(zstd_window(&wide), 1 << 28);
        let read = |memory| {
            let (mut reader, _) = Packing::Zstd.unpack(Peeked::new(io::Cursor::new(wide.clone()), 0), memory);
            io::copy(&mut reader, &mut io::sink())
        };
        assert_eq!(read(1 << 28).unwrap(), 100_000);
        assert!(read(1 << 27).unwrap_err().to_string().contains("--max-memory"));
        let (mut reader, _) = Packing::Xz.unpack(Peeked::new(XZ, 0), 1 << 20);
        let error = io::copy(&mut reader, &mut io::sink()).unwrap_err();
        assert!(error.to_string().contains("--max-memory"), "{error}");
    }

    #[test]
    fn unsupported_compression_is_named() {
        for start in [&b"QEVM"[..], b"", b"\x1f", b"BZ"] {
            assert_eq!(Packing::of("f", start, 0).ok(), Some(Packing::Plain));
        }
        let advice = |offset| match Packing::of("vm.save", b"BZh9", offset) {
            Err(Failure::Message(message)) => message,
            _ => panic!("bzip2 is not read"),
        };
        assert!(advice(0).contains("with bzip2; read it with: bzip2 -dc vm.save | savevm ... -"));
        assert!(advice(156).contains("tail -c +157 vm.save | bzip2 -dc | savevm ... -"));
    }
}
