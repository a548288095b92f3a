// SPDX-License-Identifier: LGPL-2.1-or-later
//! A reader whose first bytes can be looked at before it is handed on.

use std::io::{self, Read};

/// Gives first what was looked at, then the rest.
pub struct Peeked<R> {
    ahead: Vec<u8>,
    reader: R,
}

impl<R: Read> Peeked<R> {
    /// Nothing is read yet.
    pub fn new(reader: R) -> Self {
        Self { ahead: Vec::new(), reader }
    }

    /// The next `count` bytes, fewer at the end.
    pub fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        let missing = count.saturating_sub(self.ahead.len()) as u64;
        self.reader.by_ref().take(missing).read_to_end(&mut self.ahead)?;
        Ok(&self.ahead[..count.min(self.ahead.len())])
    }

    /// Passes over `count` bytes.
    pub fn skip(&mut self, count: usize) -> io::Result<()> {
        io::copy(&mut self.take(count as u64), &mut io::sink()).map(drop)
    }
}

impl<R: Read> Read for Peeked<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.ahead.is_empty() {
            return self.reader.read(out);
        }
        let step = out.len().min(self.ahead.len());
        out[..step].copy_from_slice(&self.ahead[..step]);
        self.ahead.drain(..step);
        Ok(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost() {
        let mut peeked = Peeked::new(&b"hello world"[..]);
        assert_eq!(peeked.peek(5).unwrap(), b"hello");
        peeked.skip(2).unwrap();
        assert_eq!(peeked.peek(4).unwrap(), b"llo ");
        let mut rest = String::new();
        peeked.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "llo world");
        assert!(Peeked::new(&b"ab"[..]).peek(5).unwrap() == b"ab");
    }
}
