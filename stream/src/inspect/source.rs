// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where the bytes of a stream come from: memory (a mapped file) or a reader (a pipe, a decompressor).
//!
//! The parser looks ahead with [`Source::peek`] and moves on with [`Source::skip`]. A mapped file is therefore not
//! copied, and a pipe needs one buffer.

use std::fmt;
use std::hint::black_box;
use std::io::{self, Read};
use std::sync::Arc;

/// A sequence of bytes with look-ahead.
pub trait Source {
    /// Returns at least `want` bytes from the current offset, fewer only if the input ends. May return more.
    fn peek(&mut self, want: usize) -> io::Result<&[u8]>;

    /// Skips `count` bytes, or up to the end of the input. Returns how many were skipped.
    fn skip(&mut self, count: u64) -> io::Result<u64>;

    /// As `skip`, for bytes that no reader uses: the places of pages that a mapped block leaves out.
    fn skip_unused(&mut self, count: u64) -> io::Result<u64> {
        self.skip(count)
    }

    /// Returns the number of bytes from the current offset that are known to be zero without being read.
    fn zeroes_ahead(&self) -> u64 {
        0
    }

    /// Returns the number of bytes that were skipped.
    fn offset(&self) -> u64;

    /// Announces that the byte at `distance` is probably needed soon. A source may prefetch it.
    fn expect(&mut self, _distance: usize) {}
}

impl<S: Source + ?Sized> Source for &mut S {
    fn peek(&mut self, want: usize) -> io::Result<&[u8]> {
        (**self).peek(want)
    }

    fn skip(&mut self, count: u64) -> io::Result<u64> {
        (**self).skip(count)
    }

    fn skip_unused(&mut self, count: u64) -> io::Result<u64> {
        (**self).skip_unused(count)
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

/// A stream that is completely in memory.
#[derive(Debug)]
pub struct SliceSource<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Offset up to which bytes were loaded in advance.
    loaded: usize,
    /// See [`Options::prefetch`](super::Options::prefetch).
    prefetch: Option<fn(&u8)>,
    holes: Option<Holes>,
}

/// Returns the number of bytes from an offset of the stream to the end of the hole around it in the file.
#[derive(Clone)]
pub struct Holes(pub Arc<dyn Fn(u64) -> u64 + Send + Sync>);

impl fmt::Debug for Holes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Holes")
    }
}

impl<'a> SliceSource<'a> {
    /// Bytes that a kernel maps around a fault.
    const AROUND: usize = 64 << 10;
    /// Distance of loads ahead of the announced byte, in bytes. Below three times `AROUND`, hints have no effect.
    const LEAD: usize = 256 << 10;

    /// Returns a source of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, loaded: 0, prefetch: None, holes: None }
    }

    /// Returns a source of `bytes` that calls `prefetch` for bytes that are needed soon.
    pub fn with_prefetch(bytes: &'a [u8], prefetch: Option<fn(&u8)>) -> Self {
        Self { prefetch, ..Self::new(bytes) }
    }

    /// Sets the holes of the file.
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
        // A prefetch has no effect on a page of a mapped file that is not mapped yet, so the page is loaded well in
        // advance.
        let first = ahead.saturating_add(Self::LEAD);
        if first >= self.loaded {
            if let Some(&byte) = self.bytes.get(first) {
                black_box(byte);
            }
            self.loaded = first.saturating_add(Self::AROUND);
        }
    }
}

/// A stream from a reader, through one buffer.
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
    /// Large enough that a read costs little, and small enough for a core's cache.
    const BUFFER: usize = 256 << 10;

    /// Returns a source of what `reader` reads. The reader needs no buffer of its own.
    pub fn new(reader: R) -> Self {
        Self { reader, buffer: vec![0; Self::BUFFER], start: 0, end: 0, offset: 0, finished: false }
    }

    /// Reads once and appends to the buffered bytes.
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

    /// Moves the buffered bytes to the front and makes room for `want` bytes in total.
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

    /// Reads one byte at a time, the smallest step of a pipe.
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
    fn slice_and_reader_give_equal_bytes() {
        let bytes: Vec<u8> = (0..=255).collect();
        walk(&mut SliceSource::new(&bytes));
        walk(&mut ReadSource::new(&bytes[..]));
        walk(&mut ReadSource::new(Drip(&bytes)));
    }

    #[test]
    fn peek_may_exceed_the_buffer() {
        let bytes = vec![7; ReadSource::<Drip<'_>>::BUFFER * 2];
        let mut source = ReadSource::new(&bytes[..]);
        source.skip(5).unwrap();
        assert_eq!(source.peek(bytes.len()).unwrap().len(), bytes.len() - 5);
    }
}
