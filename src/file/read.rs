// SPDX-License-Identifier: LGPL-2.1-or-later
//! Getting and peeking. Past the end of the stream everything reads as zero and `-EIO` is latched.

use super::{BUFFER_SIZE, MigFile};
use crate::error::Error;
use crate::sys::Span;

impl MigFile {
    /// Bytes in the buffer that were not yet got.
    fn available(&self) -> usize {
        self.filled.get() - self.index.get()
    }

    /// Reads more into the buffer; how many bytes came. 0 at the end, after a shutdown, and on an error.
    fn fill(&self) -> usize {
        if self.writable {
            self.set_error_detail(Error::new(libc::EBADF, "a file for writing was read from"));
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

    fn read_channel(&self, into: Span<'_>) -> usize {
        self.account(self.channel.read(into))
    }

    /// Counts what came, or latches why nothing did.
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

    /// Gets one byte, 0 at the end.
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

    /// Gets a few bytes where the buffer has them. It can't panic.
    #[inline]
    pub fn try_get<const N: usize>(&self) -> Option<[u8; N]> {
        let index = self.index.get();
        let bytes = self.buffer.load_below(index, &self.filled)?;
        self.index.set(index + N);
        Some(bytes)
    }

    /// Gets bytes; fewer only at the end or on an error.
    pub fn get(&self, into: &mut [u8]) -> usize {
        self.get_into(Span::from_slice(into))
    }

    /// The next `len` bytes, or as many as come. They are read in steps, so that a length alone takes no memory; the error
    /// is how many had come when there was no memory for more.
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

    /// Gets bytes into raw memory; fewer only at the end or on an error. Large reads bypass the buffer.
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

    /// How many bytes can be got without a read from the channel.
    pub fn buffered(&self) -> usize {
        self.available()
    }

    /// Gets bytes into several places in their order, past the buffer: with one read, which may bring less. 0 at the end,
    /// on an error, and while the buffer holds something.
    pub fn get_scattered(&self, into: &[Span<'_>]) -> usize {
        if self.writable || self.status.is_shutdown() || self.available() > 0 {
            return 0;
        }
        self.account(self.channel.read_scattered(into))
    }

    /// Gives back what `get_scattered` brought too much, at most a buffer full: it will be got next.
    pub fn give_back(&self, bytes: &[u8]) {
        assert!(self.available() == 0 && bytes.len() <= BUFFER_SIZE);
        self.buffer.store(0, bytes);
        self.index.set(0);
        self.filled.set(bytes.len());
    }

    /// Makes `size` bytes from `offset` on stand in the buffer, as far as the stream has them; how many there are.
    /// `offset + size` is at most `BUFFER_SIZE`, or nothing is there.
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

    /// The address of the byte at `offset` in the buffer, after a `peek`; valid until the next operation on the file.
    pub fn peeked(&self, offset: usize) -> *mut u8 {
        self.buffer.address((self.index.get() + offset).min(BUFFER_SIZE))
    }

    /// Copies what `peek` finds.
    pub fn peek_into(&self, into: &mut [u8], offset: usize) -> usize {
        let count = self.peek(into.len(), offset);
        self.buffer.load_into(self.index.get() + offset, &mut into[..count]);
        count
    }

    /// The byte at `offset`, or 0 where there is none. Like QEMU it reads from the channel at most once.
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

    /// Passes over bytes that were peeked; does nothing where there are fewer in the buffer.
    pub fn skip(&self, size: usize) {
        if size <= self.available() {
            self.index.set(self.index.get() + size);
        }
    }

    /// Gets a string with its length in the byte before; `None` where the stream ends first.
    pub fn get_counted_string(&self) -> Option<Vec<u8>> {
        let len = usize::from(self.get_byte());
        let mut bytes = vec![0; len];
        (self.get(&mut bytes) == len && self.error() == 0).then_some(bytes)
    }
}
