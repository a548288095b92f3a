// SPDX-License-Identifier: LGPL-2.1-or-later
//! A file mapped into memory.

use std::fs::File;
use std::io::{self, Read};

use memmap2::{Advice, Mmap};

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
        // Only a hint, to read ahead from a slow disk.
        let _ = map.advise(Advice::Sequential);
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
