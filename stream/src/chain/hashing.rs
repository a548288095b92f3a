// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reads a file once and hashes what is read.
//!
//! The places of pages that a file with fixed places does not have are left out of the hash: no reader uses their bytes, and
//! the bitmap, which is hashed, says which they are. A snapshot with few pages is therefore hashed in a short time, whatever
//! the length of its file is.

use std::io;

use xxhash_rust::xxh3::Xxh3;

use super::{Identity, ReadAt};
use crate::inspect::Source;

/// Bytes that are read at once, unless more are needed together.
const WINDOW: usize = 256 << 10;

/// A source that hashes all bytes that are passed.
pub(super) struct Hashing<'a, F> {
    file: &'a F,
    /// Bytes of the file from `at` on, of which those before `start` were passed.
    buffer: Vec<u8>,
    at: u64,
    start: usize,
    end: usize,
    finished: bool,
    hasher: Xxh3,
}

impl<'a, F: ReadAt> Hashing<'a, F> {
    pub fn new(file: &'a F) -> Self {
        Self { file, buffer: vec![0; WINDOW], at: 0, start: 0, end: 0, finished: false, hasher: Xxh3::new() }
    }

    /// Passes all bytes up to the end of the file.
    pub fn drain(&mut self) -> io::Result<()> {
        self.skip(u64::MAX).map(drop)
    }

    /// Hashes the next bytes of the buffer, and passes them.
    fn pass(&mut self, count: usize) {
        self.hasher.update(&self.buffer[self.start..self.start + count]);
        self.start += count;
    }

    /// The identity of what was passed.
    pub fn identity(&self) -> Identity {
        Identity { length: self.offset(), hash: self.hasher.digest128().to_be_bytes() }
    }
}

impl<F: ReadAt> Source for Hashing<'_, F> {
    fn peek(&mut self, want: usize) -> io::Result<&[u8]> {
        if self.buffer.len() - self.start < want {
            self.buffer.copy_within(self.start..self.end, 0);
            self.at += self.start as u64;
            (self.start, self.end) = (0, self.end - self.start);
            if self.buffer.len() < want {
                self.buffer.resize(want, 0);
            }
        }
        while self.end - self.start < want && !self.finished {
            match self.file.read_at(self.at + self.end as u64, &mut self.buffer[self.end..])? {
                0 => self.finished = true,
                count => self.end += count,
            }
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn skip(&mut self, count: u64) -> io::Result<u64> {
        let mut left = count;
        loop {
            let step = left.min((self.end - self.start) as u64);
            self.pass(step as usize);
            left -= step;
            if left == 0 || self.peek(1)?.is_empty() {
                return Ok(count - left);
            }
        }
    }

    fn skip_unused(&mut self, count: u64) -> io::Result<u64> {
        let buffered = (self.end - self.start) as u64;
        if count <= buffered {
            self.start += count as usize;
            return Ok(count);
        }
        // The file must reach as far.
        let end = self.offset().saturating_add(count);
        if self.file.read_at(end - 1, &mut [0])? == 0 {
            return self.skip(count);
        }
        (self.at, self.start, self.end) = (end, 0, 0);
        Ok(count)
    }

    fn offset(&self) -> u64 {
        self.at + self.start as u64
    }
}
