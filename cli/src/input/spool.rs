// SPDX-License-Identifier: LGPL-2.1-or-later
//! Copies a stream that comes from a pipe or a decompressor to a temporary file, so that it can be read at random.
//!
//! A small compressed file can hold terabytes. So the stream is parsed as it is copied: the copy ends where the stream
//! stops making sense, takes no room for zeros, and never gets larger than the limit.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use savevm_stream::inspect::{Options, ReadSource, Visitor, read};

use super::map::Mapped;
use crate::words::{shown, size};

/// How much is copied beyond the place where the stream stops making sense. Where it comes piece by piece the end of a
/// device's state can be misjudged; the description, which is behind it, tells more.
const BEYOND: u64 = 64 << 20;
/// Zeros take no room in pieces of this length.
const PIECE: usize = 4096;

/// Copies the stream in `pipe`, and maps the copy. The copy takes at most `limit` bytes.
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

/// Keeps nothing of the stream.
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

/// Copies what is read to a file.
struct Tee<'f> {
    pipe: Box<dyn Read>,
    file: &'f File,
    at: u64,
    /// Bytes that take room in the file.
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
    fn a_stream_is_copied_in_whole() {
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
    fn what_is_no_stream_is_not_copied() {
        struct Endless(u64);
        impl Read for Endless {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                out.fill(1);
                self.0 += out.len() as u64;
                assert!(self.0 < 1 << 20, "no more is read than shows that it is no stream");
                Ok(out.len())
            }
        }
        let mapped = spool(Box::new(Endless(0)), &Options::default(), 1 << 40).unwrap();
        assert!(mapped.as_bytes().len() < 1 << 20);
    }
}
