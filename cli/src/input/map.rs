// SPDX-License-Identifier: LGPL-2.1-or-later
//! A file mapped into memory.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use savevm_stream::inspect::Holes;

use crate::system::{MappedFile, next_data};

/// A part of a mapped file.
pub struct Mapped {
    file: File,
    map: MappedFile,
    start: usize,
    end: usize,
}

/// Bytes that are read at once in the search for the end of the data.
const STEP: u64 = 4 << 20;
/// Zeros that are kept after the data of a compressed file, which may end with zeros of its own.
const SPARED: usize = 64 << 10;

impl Mapped {
    /// Maps a file.
    pub fn new(file: File) -> io::Result<Self> {
        let map = MappedFile::new(&file)?;
        let end = map.as_bytes().len();
        Ok(Self { file, map, start: 0, end })
    }

    /// Returns the bytes of the part.
    pub fn as_bytes(&self) -> &[u8] {
        &self.map.as_bytes()[self.start..self.end]
    }

    /// Returns the part without its first `count` bytes.
    pub fn starting_at(self, count: u64) -> Self {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        Self { start: self.start.saturating_add(count).min(self.end), ..self }
    }

    /// Returns the part without most of the zeros at its end, and the number of removed zeros.
    pub fn without_zeroes(self) -> (Self, u64) {
        let end = (self.start + self.data_end()).saturating_add(SPARED).min(self.end);
        let zeroes = (self.end - end) as u64;
        (Self { end, ..self }, zeroes)
    }

    /// Returns the length of the part up to its last byte that is not zero.
    ///
    /// Holes are not read. The rest is read with large reads: through the mapping, the kernel would read backwards page
    /// by page. Bytes that cannot be read count as data.
    pub fn data_end(&self) -> usize {
        let (start, mut end) = (self.start as u64, self.end as u64);
        let (mut piece, zeroes) = (vec![0; STEP as usize], vec![0; STEP as usize]);
        while end > start {
            end = self.last_data(start, end);
            let from = end.saturating_sub(STEP).max(start);
            let piece = &mut piece[..(end - from) as usize];
            if self.file.read_exact_at(piece, from).is_err() {
                break;
            }
            if *piece != zeroes[..piece.len()] {
                end = from + piece.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
                break;
            }
            end = from;
        }
        // Other programs share the offset of standard input, which was at the start.
        let _ = (&self.file).rewind();
        (end - start) as usize
    }

    /// Returns a function that returns the bytes from an offset in the part to the end of the hole around it.
    pub fn holes(&self) -> Option<Holes> {
        let (file, start, end) = (self.file.try_clone().ok()?, self.start as u64, self.end as u64);
        Some(Holes(Arc::new(move |at| {
            let from = start.saturating_add(at);
            let data = next_data(&file, from, end);
            // As in `data_end`, restores the offset.
            let _ = (&file).rewind();
            data - from.min(data)
        })))
    }

    /// Returns an offset of at most `end`, with only holes between. The search takes as many steps as `end` has bits.
    fn last_data(&self, start: u64, end: u64) -> u64 {
        if next_data(&self.file, end - 1, end) < end {
            return end;
        }
        let (mut data, mut hole) = (start, end - 1);
        while hole > data {
            let middle = data + (hole - data) / 2;
            if next_data(&self.file, middle, end) < end { data = middle + 1 } else { hole = middle }
        }
        hole
    }

    /// Announces that the bytes from `from` to `to` are probably not read again.
    pub fn release(&self, from: usize, to: usize) {
        self.map.release(self.start + from..self.start + to);
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// Reads from the start of the part, which becomes shorter.
impl Read for Mapped {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.as_bytes().read(out)?;
        self.start += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn unnamed(name: &str) -> File {
        let path = std::env::temp_dir().join(format!("savevm-map-{}-{name}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file
    }

    #[test]
    fn data_end_excludes_zeros_and_holes() {
        for (name, written, len) in
            [("a", 5_000_000, 1u64 << 43), ("b", 1, 3), ("c", 3 << 20, 3 << 20), ("d", 0, 1 << 30)]
        {
            let mut file = unnamed(name);
            let mut bytes = vec![0; written];
            let data = written * 2 / 3;
            bytes[..data].fill(9);
            file.write_all(&bytes).unwrap();
            file.set_len(len).unwrap();
            let mapped = Mapped::new(file).unwrap();
            assert_eq!(mapped.data_end(), data, "{name}");
            let expected = data.saturating_sub(10);
            assert_eq!(mapped.starting_at(10).data_end(), expected, "{name}");
        }
    }

    #[test]
    fn data_after_a_hole_is_found() {
        let file = unnamed("sparse");
        file.set_len(1 << 40).unwrap();
        file.write_all_at(b"x", 1 << 39).unwrap();
        let mapped = Mapped::new(file).unwrap();
        assert_eq!(mapped.data_end(), (1 << 39) + 1);
        let (mapped, zeroes) = mapped.without_zeroes();
        assert_eq!(mapped.as_bytes().len() as u64 + zeroes, 1 << 40);
        assert_eq!(mapped.as_bytes().len(), (1 << 39) + 1 + SPARED);
    }
}
