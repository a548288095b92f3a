// SPDX-License-Identifier: LGPL-2.1-or-later
//! Lets the encoders and decoders of `wire` work on a file.

use super::MigFile;
use crate::error::{Error, Result};
use crate::wire::io::{Input, Output};

impl Output for &MigFile {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        MigFile::put(self, bytes);
    }

    #[inline]
    fn put_array<const N: usize>(&mut self, bytes: [u8; N]) {
        MigFile::put_array(self, bytes);
    }
}

/// Numbers past the end read as zeros, and the error is latched: callers check the file when QEMU does.
impl Input for &MigFile {
    type Error = Error;
    type Name = Vec<u8>;

    #[inline]
    fn get<const N: usize>(&mut self, _what: &'static str) -> Result<[u8; N]> {
        Ok(self.get_array())
    }

    fn get_name(&mut self, what: &'static str) -> Result<Vec<u8>> {
        self.get_counted_string().ok_or_else(|| {
            let cut = || Error::new(libc::EIO, format!("{what} is cut off"));
            self.status().first_error().unwrap_or_else(cut)
        })
    }
}
