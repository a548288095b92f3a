// SPDX-License-Identifier: LGPL-2.1-or-later
//! Gets and peeks bytes. Past the end of the stream all bytes read as zero, and `-EIO` is latched.

use super::{BUFFER_SIZE, MigFile};
use crate::error::Error;
use crate::sys::Span;

impl MigFile {
    /// Returns the number of bytes in the buffer.
    fn available(&self) -> usize {
        self.filled.get() - self.index.get()
    }

    /// Reads more bytes into the buffer. Returns their number: 0 at the end, after a shutdown, and on an error.
    fn fill(&self) -> usize {
        if self.writable {
            self.set_error_detail(Error::new(libc::EBADF, "cannot read from a file for writing"));
            return 0;
        }
        let pending = self.available();
        self.buffer.move_to_start(self.index.get(), pending);
        self.index.set(0);
        self.filled.set(pending);
        if self.status.is_shutdown() || pending == BUFFER_SIZE {
            return 0;
        }
        let count = self.read_channel(self.buffer.span(pending));
        self.filled.set(pending + count);
        count
    }

    /// Drops bytes that were read from the channel and not used yet, because the next byte comes from another place of it.
    /// Does nothing to a file for writing.
    pub fn drop_input(&self) {
        if !self.writable {
            self.index.set(0);
            self.filled.set(0);
        }
    }

    fn read_channel(&self, into: Span<'_>) -> usize {
        self.account(self.channel.read(into))
    }

    /// Counts the bytes of a read, or latches its error.
    fn account(&self, read: std::io::Result<usize>) -> usize {
        let offset = self.through.get();
        match read {
            Ok(0) => {
                self.set_error_detail(Error::new(libc::EIO, "the stream ends").of_channel().at_offset(offset));
                0
            }
            Ok(count) => {
                self.through.set(offset + count as u64);
                self.status.credit_transfer(count as i64);
                count
            }
            Err(err) => {
                let what = format_args!("reading from {}", self.channel_name());
                self.set_error_detail(Error::channel(what, &err).at_offset(offset));
                0
            }
        }
    }

    /// Gets one byte.
    #[inline]
    pub fn get_byte(&self) -> u8 {
        let [byte] = self.get_array();
        byte
    }

    /// Gets a big-endian 16-bit value.
    #[inline]
    pub fn get_be16(&self) -> u16 {
        u16::from_be_bytes(self.get_array())
    }

    /// Gets a big-endian 32-bit value.
    #[inline]
    pub fn get_be32(&self) -> u32 {
        u32::from_be_bytes(self.get_array())
    }

    /// Gets a big-endian 64-bit value.
    #[inline]
    pub fn get_be64(&self) -> u64 {
        u64::from_be_bytes(self.get_array())
    }

    #[inline]
    pub(super) fn get_array<const N: usize>(&self) -> [u8; N] {
        self.try_get().unwrap_or_else(|| {
            let mut bytes = [0; N];
            self.get(&mut bytes);
            bytes
        })
    }

    /// Gets a few bytes if the buffer has them. Never panics.
    #[inline]
    pub fn try_get<const N: usize>(&self) -> Option<[u8; N]> {
        let index = self.index.get();
        let bytes = self.buffer.load_below(index, &self.filled)?;
        self.index.set(index + N);
        Some(bytes)
    }

    /// Gets bytes. Returns their number, which is smaller only at the end or on an error.
    pub fn get(&self, into: &mut [u8]) -> usize {
        self.get_into(Span::from_slice(into))
    }

    /// Gets `len` bytes, or fewer at the end. Reads them in steps, so that a length alone takes no memory. Fails, with
    /// the number of bytes that arrived, if there is no memory for more.
    pub fn get_vec(&self, len: usize) -> std::result::Result<Vec<u8>, usize> {
        let (mut bytes, mut chunk) = (Vec::new(), [0; 32768]);
        while bytes.len() < len {
            let want = chunk.len().min(len - bytes.len());
            let got = self.get(&mut chunk[..want]);
            bytes.try_reserve(got).map_err(|_| bytes.len())?;
            bytes.extend_from_slice(&chunk[..got]);
            if got < want {
                break;
            }
        }
        Ok(bytes)
    }

    /// Gets bytes into raw memory. Returns their number, which is smaller only at the end or on an error. Large reads
    /// bypass the buffer.
    pub fn get_into(&self, into: Span<'_>) -> usize {
        let mut rest = into;
        while !rest.is_empty() {
            let count = self.available().min(rest.len());
            if count > 0 {
                rest.store_from(&self.buffer, self.index.get(), count);
                self.index.set(self.index.get() + count);
                rest = rest.skip(count);
            } else if rest.len() >= BUFFER_SIZE && !self.writable && !self.status.is_shutdown() {
                match self.read_channel(rest) {
                    0 => break,
                    count => rest = rest.skip(count),
                }
            } else if self.fill() == 0 {
                break;
            }
        }
        into.len() - rest.len()
    }

    /// Returns how many bytes can be read without the channel.
    pub fn buffered(&self) -> usize {
        self.available()
    }

    /// Gets bytes into several places in their order, with one read that bypasses the buffer. Returns their number: 0
    /// at the end, on an error, and if the buffer is not empty.
    pub fn get_scattered(&self, into: &[Span<'_>]) -> usize {
        if self.writable || self.status.is_shutdown() || self.available() > 0 {
            return 0;
        }
        self.account(self.channel.read_scattered(into))
    }

    /// Returns surplus bytes of `get_scattered`, at most `BUFFER_SIZE`, to the file. They are read next.
    pub fn give_back(&self, bytes: &[u8]) {
        assert!(self.available() == 0 && bytes.len() <= BUFFER_SIZE);
        self.buffer.store(0, bytes);
        self.index.set(0);
        self.filled.set(bytes.len());
    }

    /// Reads until the buffer has `size` bytes from `offset`, or the stream ends. Returns how many of them there are,
    /// and 0 if `offset + size` exceeds `BUFFER_SIZE`.
    pub fn peek(&self, size: usize, offset: usize) -> usize {
        if offset.saturating_add(size) > BUFFER_SIZE {
            return 0;
        }
        while self.available() < offset + size {
            if self.fill() == 0 {
                break;
            }
        }
        self.available().saturating_sub(offset).min(size)
    }

    /// Returns the address of the byte at `offset` after a `peek`. It is valid until the next operation on the file.
    pub fn peeked(&self, offset: usize) -> *mut u8 {
        self.buffer.address((self.index.get() + offset).min(BUFFER_SIZE))
    }

    /// Copies the bytes that `peek` finds. Returns their number.
    pub fn peek_into(&self, into: &mut [u8], offset: usize) -> usize {
        let count = self.peek(into.len(), offset);
        self.buffer.load_into(self.index.get() + offset, &mut into[..count]);
        count
    }

    /// Returns the byte at `offset`, or 0 if there is none. Reads from the channel at most once, as QEMU does.
    pub fn peek_byte(&self, offset: usize) -> u8 {
        if offset >= self.available() && offset < BUFFER_SIZE {
            self.fill();
        }
        if offset < self.available() {
            self.buffer.load_array::<1>(self.index.get() + offset).map_or(0, |[byte]| byte)
        } else {
            0
        }
    }

    /// Skips bytes that were peeked. Does nothing if the buffer has fewer.
    pub fn skip(&self, size: usize) {
        if size <= self.available() {
            self.index.set(self.index.get() + size);
        }
    }

    /// Gets a string whose length is in the byte before it, or `None` if the stream ends first.
    pub fn get_counted_string(&self) -> Option<Vec<u8>> {
        let len = usize::from(self.get_byte());
        let mut bytes = vec![0; len];
        (self.get(&mut bytes) == len && self.error() == 0).then_some(bytes)
    }
}
