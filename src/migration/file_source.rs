// SPDX-License-Identifier: LGPL-2.1-or-later
//! The bytes of a stream in a regular file, for `inspect`. Large parts that are skipped are not read.

use crate::channel::PositionedFile;
use crate::inspect::Source;
use std::io;

/// Longest distance that is read and not skipped, in bytes. Reading all pages of a stream in large pieces takes 75 ms per GiB,
/// and reading only the header of each 130 to 160 ms, from the page cache of the machine in docs/performance.md.
const READ_THROUGH: u64 = 128 << 10;
/// Size of the first read after a skip, in bytes. Each further read is twice as large.
const READ_MIN: usize = 4 << 10;
/// Size of the largest read, in bytes.
const READ_MAX: usize = 256 << 10;

/// Reads a file from an offset on.
pub struct FileSource {
    file: PositionedFile,
    /// Offset in the file at which the stream begins.
    base: u64,
    /// Size of the file when reading began, in bytes.
    size: u64,
    /// Offset in the file of the first byte of `buffer`.
    at: u64,
    buffer: Vec<u8>,
    /// Number of bytes of `buffer` that were skipped, and that hold bytes of the file.
    start: usize,
    end: usize,
    /// Size of the next read.
    next: usize,
}

impl FileSource {
    /// Returns a source of the stream that begins at `base` of the file.
    pub fn new(file: PositionedFile, base: u64) -> io::Result<Self> {
        let size = file.size().map_err(|error| io::Error::other(error.message().to_owned()))?;
        Ok(Self { file, base, size, at: base, buffer: Vec::new(), start: 0, end: 0, next: READ_MAX })
    }
}

impl Source for FileSource {
    #[inline]
    fn peek(&mut self, want: usize) -> io::Result<&[u8]> {
        if self.end - self.start < want {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.at, self.end, self.start) = (self.at + self.start as u64, self.end - self.start, 0);
            let size = want.max(self.next);
            if self.buffer.len() < size {
                self.buffer.resize(size, 0);
            }
            self.next = (2 * self.next).min(READ_MAX);
            self.end += self.file.read_some(&mut self.buffer[self.end..size], self.at + self.end as u64)?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    #[inline]
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        let buffered = (self.end - self.start) as u64;
        if count <= buffered {
            self.start += count as usize;
            return Ok(count);
        }
        let here = self.at + self.start as u64;
        let step = count.min(self.size.saturating_sub(here)).max(buffered);
        if step - buffered > READ_THROUGH {
            self.next = READ_MIN;
        }
        (self.at, self.start, self.end) = (here + step, 0, 0);
        Ok(step)
    }

    #[inline]
    fn offset(&self) -> u64 {
        self.at + self.start as u64 - self.base
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_bytes_are_not_read_and_offsets_count_from_the_base() {
        let path = std::env::temp_dir().join(format!("savevm-file-source-{}", std::process::id()));
        let bytes: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let uri = crate::channel::Uri::File { path: path.clone(), offset: 0 };
        let none = crate::channel::Cancel::new().unwrap();
        let channel = crate::channel::Listener::bind(&uri).unwrap().accept(None, &none).unwrap();
        let mut source = FileSource::new(channel.positioned().unwrap().unwrap(), 100).unwrap();
        assert_eq!((source.offset(), source.peek(5).unwrap()[..5].to_vec()), (0, bytes[100..105].to_vec()));
        for step in [3, 400_000, 1, 5000, 200_000] {
            assert_eq!(source.skip(step).unwrap(), step);
            let at = 100 + source.offset() as usize;
            for want in [1, 9, 300, 5000] {
                assert_eq!(source.peek(want).unwrap()[..want], bytes[at..at + want]);
            }
        }
        let left = (1 << 20) - 100 - source.offset();
        assert_eq!((source.skip(1 << 40).unwrap(), source.offset()), (left, (1 << 20) - 100));
        assert!(source.peek(1).unwrap().is_empty() && source.skip(1).unwrap() == 0);
        std::fs::remove_file(path).unwrap();
    }
}
