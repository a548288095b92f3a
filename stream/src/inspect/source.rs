// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where the bytes of a stream come from: memory (a mapped file) or a reader (a pipe, a decompressor).
//!
//! The parser looks ahead with [`Source::peek`] and moves on with [`Source::skip`], so that a mapped file is never
//! copied and a pipe never needs more than one buffer.

use std::fmt;
use std::hint::black_box;
use std::io::{self, Read};
use std::sync::Arc;

/// Bytes in order, with a look ahead.
pub trait Source {
    /// At least `want` bytes from here on, fewer only where the input ends. More may be given.
    fn peek(&mut self, want: usize) -> io::Result<&[u8]>;

    /// Moves on by `count` bytes, or to the end of the input. Returns how far it went.
    fn skip(&mut self, count: u64) -> io::Result<u64>;

    /// How many bytes from here on are known to be zero without being read.
    fn zeroes_ahead(&self) -> u64 {
        0
    }

    /// How many bytes lie behind.
    fn offset(&self) -> u64;

    /// The byte that stands `distance` bytes further on is likely to be wanted soon. A source that can brings it in
    /// while the reader is still busy with what comes before.
    fn expect(&mut self, _distance: usize) {}
}

impl<S: Source + ?Sized> Source for &mut S {
    fn peek(&mut self, want: usize) -> io::Result<&[u8]> {
        (**self).peek(want)
    }

    fn skip(&mut self, count: u64) -> io::Result<u64> {
        (**self).skip(count)
    }

    fn zeroes_ahead(&self) -> u64 {
        (**self).zeroes_ahead()
    }

    fn offset(&self) -> u64 {
        (**self).offset()
    }

    fn expect(&mut self, distance: usize) {
        (**self).expect(distance);
    }
}

/// A stream that is in memory in whole.
#[derive(Debug)]
pub struct SliceSource<'a> {
    bytes: &'a [u8],
    at: usize,
    /// From where on the next byte is to be loaded.
    loaded: usize,
    /// See [`Options::prefetch`](super::Options::prefetch).
    prefetch: Option<fn(&u8)>,
    holes: Option<Holes>,
}

/// Tells how many bytes from a place of the stream on lie in a hole of its file.
#[derive(Clone)]
pub struct Holes(pub Arc<dyn Fn(u64) -> u64 + Send + Sync>);

impl fmt::Debug for Holes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Holes")
    }
}

impl<'a> SliceSource<'a> {
    /// What a kernel maps around a fault, in bytes.
    const AROUND: usize = 64 << 10;
    /// By how much loads go before hints, in bytes. With less than three times what is mapped around a fault hints come
    /// to nothing.
    const LEAD: usize = 256 << 10;

    /// Reads `bytes` from the start.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, loaded: 0, prefetch: None, holes: None }
    }

    /// Reads `bytes` from the start, and has `prefetch` called for bytes that are needed soon.
    pub fn with_prefetch(bytes: &'a [u8], prefetch: Option<fn(&u8)>) -> Self {
        Self { prefetch, ..Self::new(bytes) }
    }

    /// The same, of a file with holes.
    pub fn with_holes(self, holes: Option<Holes>) -> Self {
        Self { holes, ..self }
    }
}

impl Source for SliceSource<'_> {
    fn zeroes_ahead(&self) -> u64 {
        self.holes.as_ref().map_or(0, |holes| holes.0(self.at as u64)).min((self.bytes.len() - self.at) as u64)
    }

    #[inline]
    fn peek(&mut self, _want: usize) -> io::Result<&[u8]> {
        Ok(&self.bytes[self.at..])
    }

    #[inline]
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        let left = self.bytes.len() - self.at;
        let step = usize::try_from(count).unwrap_or(usize::MAX).min(left);
        self.at += step;
        Ok(step as u64)
    }

    #[inline]
    fn offset(&self) -> u64 {
        self.at as u64
    }

    #[inline]
    fn expect(&mut self, distance: usize) {
        let ahead = self.at.saturating_add(distance);
        if let (Some(prefetch), Some(byte)) = (self.prefetch, self.bytes.get(ahead)) {
            prefetch(byte);
        }
        // Where a page of a mapped file is not there yet a hint is of no effect: a load must go well before.
        let first = ahead.saturating_add(Self::LEAD);
        if first >= self.loaded {
            if let Some(&byte) = self.bytes.get(first) {
                black_box(byte);
            }
            self.loaded = first.saturating_add(Self::AROUND);
        }
    }
}

/// A stream that comes from a reader, through one buffer.
#[derive(Debug)]
pub struct ReadSource<R> {
    reader: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    offset: u64,
    finished: bool,
}

impl<R: Read> ReadSource<R> {
    /// Large enough that a read costs little, small enough to stay in a core's cache.
    const BUFFER: usize = 256 << 10;

    /// Reads from `reader`, which needs no buffer of its own.
    pub fn new(reader: R) -> Self {
        Self { reader, buffer: vec![0; Self::BUFFER], start: 0, end: 0, offset: 0, finished: false }
    }

    /// Reads once, behind what is there.
    fn fill(&mut self) -> io::Result<()> {
        loop {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.finished = true,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            return Ok(());
        }
    }

    /// Moves what is there to the front and makes room for `want` bytes in all.
    fn make_room(&mut self, want: usize) {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() < want {
            self.buffer.resize(want, 0);
        }
    }
}

impl<R: Read> Source for ReadSource<R> {
    #[inline]
    fn peek(&mut self, want: usize) -> io::Result<&[u8]> {
        if self.end - self.start < want && !self.finished {
            if self.buffer.len() - self.start < want {
                self.make_room(want);
            }
            while self.end - self.start < want && !self.finished {
                self.fill()?;
            }
        }
        Ok(&self.buffer[self.start..self.end])
    }

    #[inline]
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        let mut left = count;
        loop {
            let step = left.min((self.end - self.start) as u64);
            self.start += step as usize;
            self.offset += step;
            left -= step;
            if left == 0 || self.finished {
                return Ok(count - left);
            }
            (self.start, self.end) = (0, 0);
            self.fill()?;
        }
    }

    #[inline]
    fn offset(&self) -> u64 {
        self.offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time, the worst that a pipe can do.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let step = self.0.len().min(out.len()).min(1);
            out[..step].copy_from_slice(&self.0[..step]);
            self.0 = &self.0[step..];
            Ok(step)
        }
    }

    fn walk(source: &mut dyn Source) {
        assert_eq!(source.peek(3).unwrap()[..3], [0, 1, 2]);
        assert_eq!(source.skip(250).unwrap(), 250);
        assert_eq!(source.peek(10).unwrap(), [250, 251, 252, 253, 254, 255]);
        assert_eq!(source.offset(), 250);
        assert_eq!(source.skip(10).unwrap(), 6);
        assert_eq!(source.offset(), 256);
        assert!(source.peek(1).unwrap().is_empty());
    }

    #[test]
    fn memory_and_pipe_give_the_same() {
        let bytes: Vec<u8> = (0..=255).collect();
        walk(&mut SliceSource::new(&bytes));
        walk(&mut ReadSource::new(&bytes[..]));
        walk(&mut ReadSource::new(Drip(&bytes)));
    }

    #[test]
    fn a_look_ahead_may_exceed_the_buffer() {
        let bytes = vec![7; ReadSource::<Drip<'_>>::BUFFER * 2];
        let mut source = ReadSource::new(&bytes[..]);
        source.skip(5).unwrap();
        assert_eq!(source.peek(bytes.len()).unwrap().len(), bytes.len() - 5);
    }
}
