// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a file still has to read, for readers that are not devices: large pieces, past the buffer, to the very end.

use super::MigFile;
use crate::sys::Span;
use std::io::{self, Read};

/// First what the file's buffer holds, then the channel's. The end is no error of the file.
pub struct Rest<'a>(pub(super) &'a MigFile);

impl Read for Rest<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.0.buffered().min(out.len()) {
            0 if out.is_empty() => Ok(0),
            0 => self.0.channel().read(Span::from_slice(out)),
            held => Ok(self.0.get(&mut out[..held])),
        }
    }
}
