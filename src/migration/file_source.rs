// SPDX-License-Identifier: LGPL-2.1-or-later
//! The bytes of a stream in a regular file, for `inspect`. Large parts that are skipped are not read. Known parts can be left
//! out, as if the stream did not have them.

use crate::channel::PositionedFile;
use crate::inspect::Source;
use std::io;
use std::ops::Range;

/// Longest distance that is read and not skipped, in bytes. Reading all pages of a stream in large pieces takes 75 ms per GiB,
/// and reading only the header of each 130 to 160 ms, from the page cache of the machine in docs/performance.md.
const READ_THROUGH: u64 = 128 << 10;
/// Size of the first read after a skip, in bytes. Each further read is twice as large.
const READ_MIN: usize = 4 << 10;
/// Size of the largest read, in bytes.
const READ_MAX: usize = 256 << 10;

/// Reads a file from an offset on.
///
/// Offsets within what is read count without the parts that are left out. `offset` returns offsets in the stream.
pub struct FileSource {
    file: PositionedFile,
    /// Offset in the file at which the stream begins.
    base: u64,
    /// The parts that are left out: the offset in what is read, and the length of this part and all before it.
    left_out: Vec<(u64, u64)>,
    /// Number of bytes that could be read when reading began.
    size: u64,
    /// Offset of the first byte of `buffer`.
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
        Self::without(file, base, &[])
    }

    /// As `new`, but leaves out some parts of the stream, which are in ascending order.
    pub fn without(file: PositionedFile, base: u64, parts: &[Range<u64>]) -> io::Result<Self> {
        let size = file.size().map_err(|error| io::Error::other(error.message().to_owned()))?;
        let mut gone = 0;
        let left_out = parts.iter().map(|part| {
            let at = part.start - gone;
            gone += part.end - part.start;
            (at, gone)
        });
        let left_out = left_out.collect();
        let size = size.saturating_sub(base).saturating_sub(gone);
        Ok(Self { file, base, left_out, size, at: 0, buffer: Vec::new(), start: 0, end: 0, next: READ_MAX })
    }

    /// The number of bytes that are left out before an offset, and the offset at which more are.
    fn part_of(&self, offset: u64) -> (u64, u64) {
        let next = self.left_out.partition_point(|(at, _)| *at <= offset);
        let gone = if next == 0 { 0 } else { self.left_out[next - 1].1 };
        (gone, self.left_out.get(next).map_or(u64::MAX, |(at, _)| *at))
    }

    /// Appends bytes to the buffer, up to `size` bytes in total, fewer only at the end of the file.
    fn fill(&mut self, size: usize) -> io::Result<()> {
        while self.end < size {
            let offset = self.at + self.end as u64;
            let (gone, end) = self.part_of(offset);
            let most = usize::try_from(end - offset).unwrap_or(usize::MAX).min(size - self.end);
            let into = &mut self.buffer[self.end..self.end + most];
            let count = self.file.read_some(into, self.base + offset + gone)?;
            self.end += count;
            if count < most {
                break;
            }
        }
        Ok(())
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
            self.fill(size)?;
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
        let offset = self.at + self.start as u64;
        if self.left_out.is_empty() { offset } else { offset + self.part_of(offset).0 }
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

    #[test]
    fn parts_are_left_out_and_offsets_are_those_of_the_file() {
        let path = std::env::temp_dir().join(format!("savevm-file-parts-{}", std::process::id()));
        let bytes: Vec<u8> = (0..600_000).map(|at: u32| (at % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let parts = [0..10, 30..200_000, 200_001..200_002, 300_000..599_950];
        let file = || PositionedFile::open(&path).unwrap();
        let kept: Vec<usize> =
            (0..599_900).filter(|at| !parts.iter().any(|part| part.contains(&(*at as u64)))).collect();
        for (want, step) in [(1, 1), (9, 7), (300, 200), (5000, 70_000)] {
            let mut source = FileSource::without(file(), 100, &parts).unwrap();
            let mut at = 0;
            while at < kept.len() {
                assert_eq!(source.offset(), kept[at] as u64);
                let seen = source.peek(want).unwrap();
                let count = seen.len().min(want);
                assert_eq!(count, want.min(kept.len() - at));
                assert!((0..count).all(|next| seen[next] == bytes[100 + kept[at + next]]));
                let step = step.min(kept.len() - at);
                assert_eq!(source.skip(step as u64).unwrap(), step as u64);
                at += step;
            }
            assert!(source.peek(1).unwrap().is_empty() && source.skip(1).unwrap() == 0);
        }
        std::fs::remove_file(path).unwrap();
    }
}
