// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reads the remaining bytes of a file in large pieces, for readers that are not devices.

use super::MigFile;
use crate::sys::Span;
use std::io::{self, Read};

/// Reads what is in the buffer of the file, then directly from its channel. The end of the stream is no error of the
/// file.
pub struct RemainingReader<'a>(pub(super) &'a MigFile);

impl Read for RemainingReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.0.buffered().min(out.len()) {
            0 if out.is_empty() => Ok(0),
            0 => self.0.channel().read(Span::from_slice(out)),
            held => Ok(self.0.get(&mut out[..held])),
        }
    }
}
