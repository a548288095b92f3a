// SPDX-License-Identifier: LGPL-2.1-or-later
//! A file mapped into memory, read ahead of the parser.

use std::fs::File;
use std::io::{self, Read};

use memmap2::{Advice, Mmap};
use savevm::inspect::Source;

/// A file in memory, from some offset on.
pub struct Mapped {
    map: Mmap,
    start: usize,
}

impl Mapped {
    /// Maps a file.
    #[allow(unsafe_code)]
    pub fn new(file: &File) -> io::Result<Self> {
        // SAFETY: the map is only read, as bytes without meaning to memory safety. If another process changes the file
        // meanwhile the bytes change, which a parser of hostile bytes must bear; if it cuts the file short, the process
        // ends with SIGBUS.
        let map = unsafe { Mmap::map(file)? };
        Ok(Self { map, start: 0 })
    }

    /// The bytes of the file, from the start on.
    pub fn as_bytes(&self) -> &[u8] {
        &self.map[self.start..]
    }

    /// The same without its first `count` bytes.
    pub fn starting_at(self, count: usize) -> Self {
        Self { start: (self.start + count).min(self.map.len()), ..self }
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

/// Takes a mapped stream to the parser, and has the kernel map pages before they are touched: a page fault per page
/// would cost more than the parsing.
pub struct MapSource<'a> {
    mapped: &'a Mapped,
    at: usize,
    populated: usize,
}

/// How much is mapped in one go.
const STEP: usize = 8 << 20;

impl<'a> MapSource<'a> {
    /// Reads from the start.
    pub fn new(mapped: &'a Mapped) -> Self {
        Self { mapped, at: 0, populated: 0 }
    }

    #[cold]
    fn populate(&mut self) {
        let from = self.mapped.start + self.at;
        let len = STEP.min(self.mapped.map.len() - from);
        // Kernels before 5.14 cannot; then the pages come one by one.
        let _ = self.mapped.map.advise_range(Advice::PopulateRead, from, len);
        self.populated = self.at + len;
    }
}

impl Source for MapSource<'_> {
    #[inline]
    fn peek(&mut self, _want: usize) -> io::Result<&[u8]> {
        if self.at >= self.populated && self.at < self.mapped.as_bytes().len() {
            self.populate();
        }
        Ok(&self.mapped.as_bytes()[self.at..])
    }

    #[inline]
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        let left = self.mapped.as_bytes().len() - self.at;
        let step = usize::try_from(count).unwrap_or(usize::MAX).min(left);
        self.at += step;
        Ok(step as u64)
    }

    #[inline]
    fn offset(&self) -> u64 {
        self.at as u64
    }
}
