// SPDX-License-Identifier: LGPL-2.1-or-later
//! Moves the position of a stream that is in a regular file or on a disk, and finds the offset in that file.

use super::MigFile;
use crate::channel::PositionedFile;
use crate::error::{Error, Result, size};
use crate::sys::{IoVec, Span};
use std::fmt;
use std::io::{self, SeekFrom};

impl MigFile {
    /// Returns the file behind the channel, for positioned reads and writes. Fails with `ESPIPE` if there is none.
    pub fn positioned(&self) -> Result<PositionedFile> {
        let file = self.channel.positioned().map_err(|err| Error::io("using positioned access", &err))?;
        file.ok_or_else(|| {
            let text =
                format!("{} is not a regular file or disk that is open for positioned access", self.channel_name());
            Error::new(libc::ESPIPE, text)
        })
    }

    /// Returns the offset in `file` of the next byte of the stream. Writes all bytes that were put before. `file` comes
    /// from `positioned`.
    pub fn file_offset(&self, file: &PositionedFile) -> Result<u64> {
        self.flush();
        self.check()?;
        let offset = file.tell()?;
        offset.checked_sub(self.buffered_ahead()).ok_or_else(|| Error::invalid("the position in the file was changed"))
    }

    /// Continues the stream at `offset` of `file`, which must not be before the current position. `file` comes from
    /// `positioned`.
    pub fn continue_at(&self, file: &PositionedFile, offset: u64) -> Result<()> {
        let here = self.file_offset(file)?;
        let Some(step) = offset.checked_sub(here) else {
            return Err(Error::invalid(format!("a seek back from 0x{here:x} to 0x{offset:x}")));
        };
        if step <= self.buffered_ahead() {
            self.skip(step as usize);
            return Ok(());
        }
        file.seek(offset)?;
        let position = self.position();
        self.drop_input();
        self.through.set(position + step);
        Ok(())
    }

    /// Writes a piece at `offset` of the channel, after all bytes that were put before. Latches an error if that fails. The
    /// position does not change (QEMU 9.0's `qemu_put_buffer_at`).
    pub fn put_at(&self, piece: IoVec, offset: u64) {
        self.flush();
        if self.error() != 0 {
            return;
        }
        match self.channel.write_at(piece, offset) {
            Ok(()) => self.status.credit_transfer(piece.len() as i64),
            Err(err) => {
                self.access_failed(format_args!("writing {} at 0x{offset:x} of", size(piece.len() as u64)), &err)
            }
        }
    }

    /// Fills `into` from `offset` of the channel. Returns the number of bytes: all, or 0 with an error latched. The position
    /// does not change (QEMU 9.0's `qemu_get_buffer_at`).
    pub fn get_at(&self, into: Span<'_>, offset: u64) -> usize {
        if self.error() != 0 {
            return 0;
        }
        let len = into.len();
        let whole = self.channel.read_at(into, offset).and_then(|count| match count == len {
            true => Ok(count),
            false => Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("got only {}", size(count as u64)))),
        });
        whole.unwrap_or_else(|err| {
            self.access_failed(format_args!("reading {} at 0x{offset:x} of", size(len as u64)), &err);
            0
        })
    }

    /// Sets the position of the channel, after all bytes that were put before. Bytes that were read ahead stay in the buffer.
    /// Returns the position, or `None` with an error latched (QEMU 9.0's `qemu_set_offset` and `qemu_get_offset`).
    pub fn seek(&self, to: SeekFrom) -> Option<u64> {
        self.flush();
        let sought = self.channel.seek(to);
        sought.inspect_err(|err| self.access_failed(format_args!("seeking in"), err)).ok()
    }

    #[cold]
    fn access_failed(&self, what: fmt::Arguments<'_>, err: &io::Error) {
        let name = self.channel_name();
        self.set_error_detail(match err.kind() {
            io::ErrorKind::Unsupported => {
                Error::new(libc::EIO, format!("{what} {name}: use a regular file or a disk, not opened for appending"))
            }
            _ => Error::channel(format_args!("{what} {name}"), err),
        });
    }

    /// Number of bytes that were read from the channel and are not consumed.
    fn buffered_ahead(&self) -> u64 {
        if self.is_writable() { 0 } else { self.buffered() as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{Cancel, Listener, Uri, connect};
    use std::path::PathBuf;

    fn path() -> PathBuf {
        std::env::temp_dir().join(format!("savevm-seek-{}", std::process::id()))
    }

    #[test]
    fn stream_continues_where_it_was_moved_to() {
        let (path, none) = (path(), Cancel::new().unwrap());
        let uri = Uri::File { path: path.clone(), offset: 100 };
        let out = MigFile::new(connect(&uri, None, &none).unwrap(), true);
        out.put(b"begin");
        let file = out.positioned().unwrap();
        assert_eq!((out.file_offset(&file).unwrap(), out.position()), (105, 5));
        out.continue_at(&file, 4000).unwrap();
        out.put(b"end");
        assert_eq!((out.position(), out.file_offset(&file).unwrap()), (3903, 4003));
        assert!(out.continue_at(&file, 10).unwrap_err().message().contains("a seek back"));
        out.close().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 4003);

        let input = MigFile::new(Listener::bind(&uri).unwrap().accept(None, &none).unwrap(), false);
        let file = input.positioned().unwrap();
        assert_eq!(input.get_byte(), b'b');
        assert_eq!((input.file_offset(&file).unwrap(), input.position()), (101, 1));
        // Within the bytes that were read ahead, and behind them.
        input.continue_at(&file, 104).unwrap();
        assert_eq!((input.get_byte(), input.position()), (b'n', 5));
        input.continue_at(&file, 4001).unwrap();
        assert_eq!((input.get_byte(), input.get_byte(), input.position()), (b'n', b'd', 3903));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn channel_without_positions_is_refused() {
        let file = MigFile::new(std::sync::Arc::new(crate::channel::memory::Writer::new()), true);
        assert_eq!(file.positioned().unwrap_err().errno(), libc::ESPIPE);
    }
}
