// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reads values from a source. Keeps the end of the enclosing package. An error says what was expected.

use std::io;

use super::budget::{Budget, OverBudget};
use super::source::Source;
use crate::wire::io::Input;

/// Why reading stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// The input failed.
    Io(io::Error),
    /// The stream is wrong or ends.
    Fault(Fault),
}

/// What is wrong with a stream, and where.
#[derive(Debug)]
pub(super) struct Fault {
    pub offset: u64,
    /// Whether the stream ends here, without an error before.
    pub cut: bool,
    pub expected: String,
    pub found: String,
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

pub(super) type Result<T> = std::result::Result<T, Stop>;

/// Reads values from a source.
pub(super) struct Cursor<S> {
    source: S,
    /// Offset of the innermost package's end; `u64::MAX` outside of packages.
    end: u64,
    pub budget: Budget,
}

impl<S: Source> Cursor<S> {
    pub fn new(source: S, budget: Budget) -> Self {
        Self { source, end: u64::MAX, budget }
    }

    #[inline]
    pub fn offset(&self) -> u64 {
        self.source.offset()
    }

    pub fn end(&self) -> u64 {
        self.end
    }

    pub fn set_end(&mut self, end: u64) {
        self.end = end;
    }

    /// Returns a fault at `offset`.
    pub fn fault<T>(&self, offset: u64, expected: impl Into<String>, found: impl Into<String>) -> Result<T> {
        Err(Stop::Fault(Fault { offset, cut: false, expected: expected.into(), found: found.into() }))
    }

    /// Returns the fault of a stream or package that ends within `what`.
    #[cold]
    fn ended<T>(&self, what: &str) -> Result<T> {
        self.fault_at_end(self.offset(), false, what)
    }

    /// Returns the fault of a stream or package that ends and lacks what is expected from `offset` on. The stream is cut
    /// unless it is known to be whole.
    pub fn fault_at_end<T>(&self, offset: u64, whole: bool, expected: impl Into<String>) -> Result<T> {
        let in_package = self.offset() >= self.end;
        let found = if in_package { "the end of the package" } else { "the end of the stream" };
        let cut = !in_package && !whole;
        Err(Stop::Fault(Fault { offset, cut, expected: expected.into(), found: found.into() }))
    }

    /// Takes memory from the budget, in bytes. Fails if the stream needs more than the budget has.
    pub fn pay(&mut self, bytes: usize) -> Result<()> {
        self.budget.take(bytes).or_else(|OverBudget { total }| {
            let offset = self.offset();
            self.fault(offset, format!("a stream that can be read with {total} bytes of memory"), "one that cannot")
        })
    }

    /// Returns the bytes ahead: at least `want`, or fewer if the stream or the package ends.
    #[inline]
    pub fn peek(&mut self, want: usize) -> Result<&[u8]> {
        let left = self.end - self.source.offset();
        let bytes = self.source.peek(want)?;
        Ok(match usize::try_from(left) {
            Ok(left) if left < bytes.len() => &bytes[..left],
            _ => bytes,
        })
    }

    /// Announces that the byte at this distance is needed soon.
    #[inline]
    pub fn expect(&mut self, distance: u64) {
        self.source.expect(distance as usize);
    }

    /// Returns how many bytes from here on are known to be zero without being read.
    pub fn zeroes_ahead(&self) -> u64 {
        self.source.zeroes_ahead().min(self.end - self.source.offset())
    }

    /// Returns the next byte, if there is one.
    pub fn peek_byte(&mut self) -> Result<Option<u8>> {
        Ok(self.peek(1)?.first().copied())
    }

    /// Skips exactly `count` bytes.
    #[inline]
    pub fn skip(&mut self, count: u64, what: &str) -> Result<()> {
        let possible = count.min(self.end - self.source.offset());
        if self.source.skip(possible)? < count { self.ended(what) } else { Ok(()) }
    }

    /// As `skip`, for bytes that no reader uses.
    pub fn skip_unused(&mut self, count: u64, what: &str) -> Result<()> {
        let possible = count.min(self.end - self.source.offset());
        if self.source.skip_unused(possible)? < count { self.ended(what) } else { Ok(()) }
    }

    /// Copies `len` bytes. Memory is taken as the bytes arrive, so that a length alone takes none.
    pub fn copy(&mut self, len: u64, what: &str) -> Result<Vec<u8>> {
        const STEP: u64 = 1 << 16;
        let mut out = Vec::new();
        while (out.len() as u64) < len {
            let step = (len - out.len() as u64).min(STEP) as usize;
            if self.peek(step)?.len() < step {
                self.skip(step as u64, what)?;
            }
            self.take_into(&mut out, step)?;
        }
        Ok(out)
    }

    /// Moves `count` bytes, which a peek has found, to `out`. Their memory is taken from the budget.
    pub fn take_into(&mut self, out: &mut Vec<u8>, count: usize) -> Result<()> {
        if out.capacity() - out.len() < count {
            let more = out.capacity().max(count);
            self.pay(more)?;
            out.reserve_exact(more);
        }
        out.extend_from_slice(&self.source.peek(count)?[..count]);
        self.source.skip(count as u64)?;
        Ok(())
    }
}

impl<S: Source> Input for Cursor<S> {
    type Error = Stop;
    type Name = Box<str>;

    #[inline]
    fn get<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        let Some(&array) = self.peek(N)?.first_chunk::<N>() else {
            // The bytes that are left are the first ones of the cut value.
            return self.skip(N as u64, what).map(|()| [0; N]);
        };
        self.source.skip(N as u64)?;
        Ok(array)
    }

    /// Reads a name as text. Bytes that are not UTF-8 are replaced.
    fn get_name(&mut self, what: &'static str) -> Result<Box<str>> {
        let len = usize::from(self.get_u8(what)?);
        self.pay(len)?;
        let text = self.peek(len)?.get(..len).map(|bytes| String::from_utf8_lossy(bytes).into());
        self.skip(len as u64, what)?;
        Ok(text.unwrap_or_default())
    }
}
