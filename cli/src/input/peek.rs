// SPDX-License-Identifier: LGPL-2.1-or-later
//! A reader with look-ahead, which knows its offset in the file.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

/// The place of a [`Peeked`] reader. A clone stays with the code that passes the reader on.
#[derive(Clone, Debug, Default)]
pub struct Place(Rc<State>);

#[derive(Debug, Default)]
struct State {
    offset: Cell<u64>,
    ended: Cell<bool>,
    failed: Cell<bool>,
}

impl Place {
    /// Returns the offset in the file up to which bytes were read.
    pub fn offset(&self) -> u64 {
        self.0.offset.get()
    }

    /// Returns whether the reader has reached the end of the file.
    pub fn ended(&self) -> bool {
        self.0.ended.get()
    }

    /// Returns whether reading the file failed.
    pub fn failed(&self) -> bool {
        self.0.failed.get()
    }
}

/// A buffered reader.
pub struct Peeked<R> {
    reader: R,
    buffer: Vec<u8>,
    start: usize,
    place: Place,
}

/// Bytes that are read at once.
const STEP: usize = 64 << 10;

impl<R: Read> Peeked<R> {
    /// Returns a reader at this offset of its file.
    pub fn new(reader: R, offset: u64) -> Self {
        let place = Place::default();
        place.0.offset.set(offset);
        Self { reader, buffer: Vec::new(), start: 0, place }
    }

    /// Returns the place of the reader, which is updated by later reads.
    pub fn place(&self) -> Place {
        self.place.clone()
    }

    /// Returns the next `count` bytes, fewer at the end.
    pub fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        while self.buffer.len() - self.start < count && self.fill()? > 0 {}
        let ahead = &self.buffer[self.start..];
        Ok(&ahead[..count.min(ahead.len())])
    }

    /// Skips `count` bytes, fewer at the end. Returns their number.
    pub fn skip(&mut self, count: u64) -> io::Result<u64> {
        io::copy(&mut self.take(count), &mut io::sink())
    }

    /// Reads once and appends to the buffered bytes.
    fn fill(&mut self) -> io::Result<usize> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let before = self.buffer.len();
        self.buffer.resize(before + STEP, 0);
        let count = loop {
            match self.reader.read(&mut self.buffer[before..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                count => break count,
            }
        };
        self.buffer.truncate(before + count.as_ref().copied().unwrap_or(0));
        self.place.0.ended.set(matches!(count, Ok(0)));
        self.place.0.failed.set(count.is_err());
        count
    }
}

impl<R: Read> BufRead for Peeked<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.buffer.len() {
            self.fill()?;
        }
        Ok(&self.buffer[self.start..])
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        self.place.0.offset.set(self.place.offset() + count as u64);
    }
}

impl<R: Read> Read for Peeked<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(out)?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peeked_bytes_are_read_afterwards() {
        let mut peeked = Peeked::new(&b"hello world"[..], 100);
        let place = peeked.place();
        assert_eq!(peeked.peek(5).unwrap(), b"hello");
        assert_eq!((peeked.skip(2).unwrap(), place.offset()), (2, 102));
        assert_eq!(peeked.peek(4).unwrap(), b"llo ");
        let mut rest = String::new();
        peeked.read_to_string(&mut rest).unwrap();
        assert_eq!((rest.as_str(), place.offset(), place.ended()), ("llo world", 111, true));
        assert!(Peeked::new(&b"ab"[..], 0).peek(5).unwrap() == b"ab");
    }
}
