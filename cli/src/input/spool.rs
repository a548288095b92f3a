// SPDX-License-Identifier: LGPL-2.1-or-later
//! Copies a stream from a pipe or a decompressor to a temporary file, for random access.
//!
//! A small compressed file can contain terabytes. Therefore the stream is parsed while it is copied. The copy ends at
//! the first damage, takes no disk space for zeros, and does not exceed the limit.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use savevm_stream::inspect::{Options, ReadSource, Visitor, read};

use super::map::Mapped;
use crate::words::{shown, size};

/// Bytes that are copied after the first damage. In a pipe the end of a device's state may be found too early; the
/// description, which follows it, corrects this.
const BEYOND: u64 = 64 << 20;
/// Length of pieces of zeros that take no disk space.
const PIECE: usize = 4096;

/// Copies the stream in `pipe` and maps the copy. The copy takes at most `limit` bytes.
pub fn spool(pipe: Box<dyn Read>, options: &Options, limit: u64) -> io::Result<Mapped> {
    let file = unnamed_file()?;
    let mut tee = Tee { pipe, file: &file, at: 0, taken: 0, limit };
    let stream = read(ReadSource::new(&mut tee), options.clone(), &mut Unwanted)?;
    if stream.damage.is_some() && stream.length > 8 {
        io::copy(&mut (&mut tee).take(BEYOND), &mut io::sink())?;
    }
    file.set_len(tee.at)?;
    Mapped::new(file)
}

/// A visitor that keeps nothing of the stream.
struct Unwanted;

impl Visitor for Unwanted {
    const WANTS_STATES: bool = false;
}

fn unnamed_file() -> io::Result<File> {
    let unique =
        format!("savevm-{}-{:x}", std::process::id(), std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos());
    let path = std::env::temp_dir().join(unique);
    let file = File::options().read(true).write(true).create_new(true).open(&path).map_err(|error| named(&error))?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn named(error: &io::Error) -> io::Error {
    io::Error::other(format!("cannot write to {}, which TMPDIR sets: {error}", shown(&std::env::temp_dir())))
}

/// Copies the bytes that are read to a file.
struct Tee<'f> {
    pipe: Box<dyn Read>,
    file: &'f File,
    at: u64,
    /// Bytes that take disk space.
    taken: u64,
    limit: u64,
}

impl Tee<'_> {
    fn keep(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(PIECE) {
            if piece.iter().any(|byte| *byte != 0) {
                self.taken += piece.len() as u64;
                if self.taken > self.limit {
                    let limit = size(self.limit);
                    return Err(io::Error::other(format!(
                        "the temporary copy needs more than {limit}, which --max-temporary allows"
                    )));
                }
                self.file.write_all_at(piece, self.at).map_err(|error| named(&error))?;
            }
            self.at += piece.len() as u64;
        }
        Ok(())
    }
}

impl Read for Tee<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.pipe.read(out)?;
        self.keep(&out[..count])?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use savevm_stream::testing::small;

    fn spooled(bytes: Vec<u8>, limit: u64) -> io::Result<Vec<u8>> {
        let mapped = spool(Box::new(io::Cursor::new(bytes)), &Options::default(), limit)?;
        Ok(mapped.as_bytes().to_vec())
    }

    #[test]
    fn stream_is_copied_completely() {
        let stream = small(true);
        assert!(spooled(stream.clone(), 1 << 20).unwrap() == stream);
        let cut = &stream[..stream.len() / 2];
        assert!(spooled(cut.to_vec(), 1 << 20).unwrap() == cut);
        assert!(spooled(Vec::new(), 0).unwrap().is_empty());
    }

    #[test]
    fn the_copy_is_limited() {
        let error = spooled(small(true), 4096).unwrap_err();
        assert!(error.to_string().contains("--max-temporary"), "{error}");
    }

    #[test]
    fn input_without_a_stream_is_not_copied() {
        struct Endless(u64);
        impl Read for Endless {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                out.fill(1);
                self.0 += out.len() as u64;
                assert!(self.0 < 1 << 20, "reading stops once the input is known not to be a stream");
                Ok(out.len())
            }
        }
        let mapped = spool(Box::new(Endless(0)), &Options::default(), 1 << 40).unwrap();
        assert!(mapped.as_bytes().len() < 1 << 20);
    }
}
