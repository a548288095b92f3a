// SPDX-License-Identifier: LGPL-2.1-or-later
//! A file mapped into memory.

use std::fs::File;
use std::io::{self, Read};

use crate::system::MappedFile;

/// A file in memory, from some offset on.
pub struct Mapped {
    map: MappedFile,
    start: usize,
}

impl Mapped {
    /// Maps a file.
    pub fn new(file: &File) -> io::Result<Self> {
        Ok(Self { map: MappedFile::new(file)?, start: 0 })
    }

    /// The bytes of the file, from the start on.
    pub fn as_bytes(&self) -> &[u8] {
        &self.map.as_bytes()[self.start..]
    }

    /// The same without its first `count` bytes.
    pub fn starting_at(self, count: usize) -> Self {
        Self { start: (self.start + count).min(self.map.as_bytes().len()), ..self }
    }

    /// Says that the bytes from `from` to `to` are not likely to be read again.
    pub fn release(&self, from: usize, to: usize) {
        self.map.release(self.start + from..self.start + to);
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// Reading takes bytes off the front.
impl Read for Mapped {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.as_bytes().read(out)?;
        self.start += count;
        Ok(count)
    }
}
