// SPDX-License-Identifier: LGPL-2.1-or-later
//! Positioned reads and writes of a regular file or disk, beside a stream in the same file.
//!
//! Several threads may read and write at once. Offsets count from the start of the file, also if the stream begins later.

use crate::error::{self, Error, Result};
use crate::sys::{
    IoVec, Span, advance_spans, direct_alignment, gains_by_reserving, open_again, open_at_once, pread_scattered,
    pwrite_fd, reserve, seek_to, start_writing, system_page_size, tell, with_piece,
};
use std::fs::{File, Metadata};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// A file that can be read and written at any offset.
#[derive(Debug)]
pub struct PositionedFile {
    fd: OwnedFd,
    /// Name for errors: the URI, if there is one.
    name: String,
}

impl PositionedFile {
    /// Returns a value that owns `fd`. The descriptor shares its position with the stream's channel.
    pub(super) fn new(fd: OwnedFd, name: Option<String>) -> Self {
        Self { fd, name: name.unwrap_or_else(|| "the file".to_owned()) }
    }

    /// Returns a value for an open file. `name` is for errors.
    pub fn from_file(file: File, name: String) -> Self {
        Self { fd: file.into(), name }
    }

    /// Opens a regular file or a disk for reading.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = open_at_once(path)?;
        let kind = file.metadata()?.file_type();
        match kind.is_file() || kind.is_block_device() {
            true => Ok(Self::from_file(file, format!("file:{}", path.display()))),
            false => Err(io::Error::other("it is not a regular file")),
        }
    }

    /// Returns another value for the same file.
    pub fn again(&self) -> Result<Self> {
        let fd = self.fd.try_clone().map_err(|err| self.error("copying the descriptor of", &err))?;
        Ok(Self { fd, name: self.name.clone() })
    }

    /// Returns the attributes of the file.
    pub fn metadata(&self) -> Result<Metadata> {
        let data = self.fd.try_clone().map(File::from).and_then(|file| file.metadata());
        data.map_err(|err| self.error("looking at", &err))
    }

    /// Returns the name for errors.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the error of an operation on this file.
    pub fn error(&self, what: impl std::fmt::Display, err: &io::Error) -> Error {
        Error::io(format_args!("{what} {}", self.name), err)
    }

    /// Returns the offset in the file at which the stream's channel reads or writes next.
    pub fn tell(&self) -> Result<u64> {
        tell(self.fd.as_fd()).map_err(|err| self.error("finding the position in", &err))
    }

    /// Sets the offset in the file at which the stream's channel reads or writes next.
    pub fn seek(&self, offset: u64) -> Result<()> {
        seek_to(self.fd.as_fd(), offset).map_err(|err| self.error("seeking in", &err))
    }

    /// Sets the offset at which the stream's channel reads or writes next, and returns it.
    pub fn seek_stream(&self, to: SeekFrom) -> io::Result<u64> {
        (&File::from(self.fd.try_clone()?)).seek(to)
    }

    /// Returns the size of the file in bytes.
    pub fn size(&self) -> Result<u64> {
        let data = self.metadata()?;
        // A disk has no size here; its reads show the end.
        Ok(if data.file_type().is_block_device() { i64::MAX as u64 } else { data.len() })
    }

    /// Opens the same file again with O_DIRECT, for reading or for writing. Fails if the file system has no such access,
    /// or if it needs a larger alignment than `unit` bytes.
    pub fn direct(&self, writable: bool, unit: u64) -> Result<Self> {
        let advice = "; leave out the option `direct`, or use another file system";
        let fd = open_again(self.fd.as_fd(), writable, libc::O_DIRECT).map_err(|err| {
            let error = self.error("opening for direct access (O_DIRECT)", &err);
            let text = format!("{}{advice}", error.message());
            error.with_message(text)
        })?;
        let alignment = direct_alignment(fd.as_fd()).unwrap_or(system_page_size() as u64);
        if alignment == 0 || !unit.is_multiple_of(alignment) {
            let text = format!(
                "direct access (O_DIRECT) to {} needs an alignment of {}, and pages have {}{advice}",
                self.name,
                error::size(alignment),
                error::size(unit)
            );
            return Err(Error::new(libc::ENOTSUP, text));
        }
        Ok(Self { fd, name: self.name.clone() })
    }

    /// Fills the spans in order with the bytes at `offset`. The file must have them.
    pub fn read_at(&self, spans: &[Span<'_>], offset: u64) -> io::Result<()> {
        let mut left = spans.to_vec();
        let (mut rest, mut at) = (&mut left[..], offset);
        while !rest.is_empty() {
            let count = match pread_scattered(self.fd.as_fd(), rest, at) {
                Ok(0) => {
                    let text = format!("the file ends at 0x{:x}", self.size().unwrap_or(at));
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
                }
                Ok(count) => count,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                Err(err) => return Err(err),
            };
            at += count as u64;
            rest = advance_spans(rest, count);
        }
        Ok(())
    }

    /// Reads into a slice. Returns the number of bytes, which is smaller only at the end of the file.
    pub fn read_some(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_span(Span::from_slice(into), offset)
    }

    /// As `read_some`, into memory that may be the guest's.
    pub fn read_span(&self, into: Span<'_>, offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match pread_scattered(self.fd.as_fd(), &[into.skip(done)], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        Ok(done)
    }

    /// Writes the piece at `offset`.
    pub fn write_at(&self, piece: IoVec, offset: u64) -> io::Result<()> {
        let (mut piece, mut at) = (piece, offset);
        while !piece.is_empty() {
            match pwrite_fd(self.fd.as_fd(), piece, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    at += count as u64;
                    piece = piece.behind(count);
                }
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }

    /// Whether writes of large ranges are faster after `reserve`.
    pub fn gains_by_reserving(&self) -> bool {
        gains_by_reserving(self.fd.as_fd())
    }

    /// Reserves disk space for a range that will be written. A failure shows at the write.
    pub fn reserve(&self, offset: u64, len: u64) {
        if let Err(err) = reserve(self.fd.as_fd(), offset, len) {
            log::debug!("reserving 0x{len:x} bytes at 0x{offset:x} of {}: {err}", self.name);
        }
    }

    /// Makes a regular file at least `size` bytes long. The new bytes are zero and take no space.
    pub fn extend(&self, size: u64) -> Result<()> {
        let file = self.fd.try_clone().map(File::from).map_err(|err| self.error("copying the descriptor of", &err))?;
        let extended = file.metadata().and_then(|data| match data.is_file() && data.len() < size {
            true => file.set_len(size),
            false => Ok(()),
        });
        extended.map_err(|err| self.error(format_args!("setting a length of 0x{size:x} bytes of"), &err))
    }

    /// Starts to write a range to the disk, so that a later sync has less to do. A failure shows at the sync.
    pub fn start_writing(&self, offset: u64, len: u64) {
        start_writing(self.fd.as_fd(), offset, len);
    }

    /// Writes bytes at `offset`.
    pub fn write_slice(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        with_piece(bytes, |piece| self.write_at(piece, offset))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::scratch_path;
    use super::*;

    #[test]
    fn reads_fill_all_spans_and_the_end_is_an_error() {
        let path = scratch_path("positioned");
        std::fs::write(&path, b"0123456789").unwrap();
        let file = PositionedFile::open(&path).unwrap();
        let (mut one, mut two) = ([0; 3], [0; 2]);
        file.read_at(&[Span::from_slice(&mut one), Span::from_slice(&mut two)], 4).unwrap();
        assert_eq!((&one, &two), (b"456", b"78"));
        let error = file.read_at(&[Span::from_slice(&mut one)], 8).unwrap_err();
        assert!(error.kind() == io::ErrorKind::UnexpectedEof && error.to_string().contains("ends at 0xa"), "{error}");
        let mut rest = [0; 8];
        assert_eq!((file.read_some(&mut rest, 7).unwrap(), &rest[..3]), (3, &b"789"[..]));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn reserving_and_extending_keep_what_the_file_has() {
        let path = scratch_path("reserved");
        std::fs::write(&path, b"0123456789").unwrap();
        let file = PositionedFile::from_file(File::options().write(true).open(&path).unwrap(), "it".to_owned());
        // Not every file system can reserve space. The result is the same.
        file.reserve(0, 64 << 10);
        assert_eq!(std::fs::read(&path).unwrap(), b"0123456789");
        file.extend(5).unwrap();
        file.extend(12).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"0123456789\0\0");
        let other = PositionedFile::from_file(File::open("/dev/null").unwrap(), "null".to_owned());
        other.extend(12).unwrap();
        assert!(!other.gains_by_reserving());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn direct_access_is_available_or_refused_with_advice() {
        let path = scratch_path("direct");
        std::fs::write(&path, vec![7; 8192]).unwrap();
        let file = PositionedFile::open(&path).unwrap();
        match file.direct(false, 4096) {
            Ok(direct) => assert_eq!(direct.size().unwrap(), 8192),
            Err(error) => assert!(error.message().contains("leave out the option `direct`"), "{error}"),
        }
        if file.direct(false, 4096).is_ok() {
            let error = file.direct(false, 3).unwrap_err();
            assert!(error.message().contains("needs an alignment of"), "{error}");
        }
        std::fs::remove_file(path).unwrap();
    }
}
