// SPDX-License-Identifier: LGPL-2.1-or-later
//! Open descriptors in a stream over a Unix socket (QEMU 10.0's `qemu_file_put_fd` and `qemu_file_get_fd`). Each travels with
//! one byte, which the writer does not count.

use super::MigFile;
use crate::error::Error;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

/// The byte with which a descriptor travels.
const CARRIER: u8 = b' ';

impl MigFile {
    /// Puts a descriptor, which stays open here. Latches an error if the channel does not take it.
    pub fn put_descriptor(&self, fd: RawFd) {
        self.flush();
        if self.status.is_shutdown() || self.error() != 0 {
            return;
        }
        if !self.writable {
            self.set_error_detail(Error::new(libc::EBADF, "cannot write to a file for reading"));
            return;
        }
        if let Err(err) = self.channel.send_descriptor(CARRIER, fd) {
            self.descriptor_failed("send", &err);
        }
    }

    /// Gets a descriptor. Latches an error if the next byte did not bring one.
    pub fn get_descriptor(&self) -> Option<OwnedFd> {
        // The descriptor comes at the latest with its byte.
        if self.peek(1, 0) == 0 {
            return None;
        }
        match self.channel.take_descriptor() {
            Ok(Some(fd)) => {
                self.get_byte();
                Some(fd)
            }
            Ok(None) => {
                let error = Error::invalid("expected an open descriptor, got none with this byte");
                self.set_error_detail(error.at_offset(self.position()));
                None
            }
            Err(err) => {
                self.descriptor_failed("receive", &err);
                None
            }
        }
    }

    #[cold]
    fn descriptor_failed(&self, what: &str, err: &io::Error) {
        let name = self.channel_name();
        self.set_error_detail(match err.kind() {
            io::ErrorKind::Unsupported => {
                Error::new(libc::EIO, format!("{name} can't {what} an open descriptor; use a Unix socket without TLS"))
            }
            _ => Error::channel(format_args!("{what}ing a descriptor over {name}"), err).at_offset(self.position()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::fd::FdChannel;
    use std::fs::File;
    use std::io::{Read, Write, pipe};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    fn files() -> (MigFile, MigFile) {
        let (near, far) = UnixStream::pair().unwrap();
        let channel = |socket: UnixStream, writable| Arc::new(FdChannel::new(socket.into(), writable).unwrap());
        (MigFile::new(channel(near, true), true), MigFile::new(channel(far, false), false))
    }

    #[test]
    fn descriptors_keep_their_place_among_the_bytes() {
        let ((writer, reader), mut ends) = (files(), [pipe().unwrap(), pipe().unwrap()]);
        writer.put(b"ab");
        writer.put_descriptor(ends[0].0.as_raw_fd());
        writer.put(b"c");
        writer.put_descriptor(ends[1].0.as_raw_fd());
        writer.put(b"d");
        writer.flush();
        // QEMU does not count the byte of a descriptor either.
        assert_eq!((writer.position(), writer.error()), (4, 0));
        let mut bytes = [0; 2];
        reader.get(&mut bytes);
        let first = reader.get_descriptor().unwrap();
        assert_eq!(reader.get_byte(), b'c');
        let second = reader.get_descriptor().unwrap();
        assert_eq!((bytes, reader.get_byte(), reader.position()), (*b"ab", b'd', 6));
        for (fd, (_, write)) in [first, second].into_iter().zip(&mut ends) {
            let mut byte = [0];
            write.write_all(b"x").unwrap();
            File::from(fd).read_exact(&mut byte).unwrap();
            assert_eq!(byte, *b"x");
        }
    }

    #[test]
    fn failures_are_latched() {
        let (writer, reader) = files();
        reader.put_descriptor(0);
        assert_eq!(reader.error(), -libc::EBADF);
        writer.put_descriptor(-1);
        assert_eq!(writer.error(), -libc::EIO);
        let (read, write) = pipe().unwrap();
        let pipe = MigFile::new(Arc::new(FdChannel::new(write.into(), true).unwrap()), true);
        pipe.put_descriptor(read.as_raw_fd());
        assert!(pipe.check().unwrap_err().to_string().contains("use a Unix socket"));
        let (writer, reader) = files();
        writer.put(b"no descriptor");
        writer.flush();
        assert!(reader.get_descriptor().is_none());
        assert!(reader.check().unwrap_err().to_string().contains("got none"));
    }
}
