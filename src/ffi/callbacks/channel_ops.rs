// SPDX-License-Identifier: LGPL-2.1-or-later
//! A channel of the hypervisor behind the library's trait.

use crate::channel::Channel;
use crate::error::{Described, Result};
use crate::ffi::marshal::{strings, structs};
use crate::ffi::types::channel_table::SaveVMChannelOps;
use crate::sync::check_none_held;
use crate::sys::{IoVec, Span, advance};
use std::ffi::{c_int, c_void};
use std::io;

/// A copied table and the hypervisor's pointer.
pub(in crate::ffi) struct CChannel {
    ops: SaveVMChannelOps,
    channel: *mut c_void,
}

// SAFETY: the contract of savevm_file_from_channel(): one reader, one writer, and `shutdown` from any thread.
unsafe impl Send for CChannel {}
// SAFETY: as above.
unsafe impl Sync for CChannel {}

fn check(ret: isize) -> io::Result<usize> {
    usize::try_from(ret).map_err(|_| io::Error::from_raw_os_error(i32::try_from(-ret).unwrap_or(libc::EIO)))
}

fn missing() -> io::Error {
    io::Error::from(io::ErrorKind::Unsupported)
}

impl CChannel {
    /// # Safety
    /// The contract of savevm_file_from_channel().
    pub(in crate::ffi) unsafe fn new(ops: *const SaveVMChannelOps, channel: *mut c_void) -> Result<Option<Self>> {
        // SAFETY: as the caller promised.
        unsafe { structs::sized_struct(ops) }.map(|ops| ops.map(|ops| Self { ops, channel }))
    }

    /// Whether the function for the direction is there.
    pub(in crate::ffi) fn can(&self, writable: bool) -> bool {
        if writable { self.ops.writev.is_some() } else { self.ops.read.is_some() }
    }

    /// A failure with the words that the channel has for it.
    fn explain(&self, write: bool, failure: io::Error) -> io::Error {
        // SAFETY: the contract of the table: NULL or a string from malloc().
        let words = self.ops.error.and_then(|error| unsafe { strings::take_malloced(error(self.channel, write)) });
        match words {
            Some(words) => {
                let errno = failure.raw_os_error().unwrap_or(libc::EIO);
                let text = String::from_utf8_lossy(&words).into_owned();
                io::Error::new(failure.kind(), Described { errno, text })
            }
            None => failure,
        }
    }

    /// Repeats `attempt` while it would block, waiting in between.
    fn retry(&self, write: bool, mut attempt: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        check_none_held("a channel's function");
        loop {
            match attempt() {
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    let wait = self.ops.wait.ok_or(err)?;
                    // SAFETY: the contract of the table.
                    check(unsafe { wait(self.channel, write) } as isize)?;
                }
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(self.explain(write, err)),
                Ok(count) => return Ok(count),
            }
        }
    }

    fn call(&self, function: Option<unsafe extern "C" fn(*mut c_void) -> c_int>) -> Option<io::Result<()>> {
        check_none_held("a channel's function");
        // SAFETY: the contract of the table.
        function.map(|function| check(unsafe { function(self.channel) } as isize).map(drop))
    }
}

impl Channel for CChannel {
    fn read(&self, into: Span<'_>) -> io::Result<usize> {
        let read = self.ops.read.ok_or_else(missing)?;
        // SAFETY: the contract of the table; the span is writable for its length.
        let count = self.retry(false, || check(unsafe { read(self.channel, into.address(), into.len()) }))?;
        Ok(count.min(into.len()))
    }

    fn write_all(&self, pieces: &mut [IoVec]) -> io::Result<()> {
        let writev = self.ops.writev.ok_or_else(missing)?;
        let mut left = pieces;
        while !left.is_empty() {
            let (start, count) = (left.as_ptr().cast::<libc::iovec>(), left.len() as c_int);
            // SAFETY: the contract of the table; the pieces have the layout of `struct iovec`.
            match self.retry(true, || check(unsafe { writev(self.channel, start, count) }))? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => left = advance(left, count),
            }
        }
        Ok(())
    }

    fn shutdown(&self) -> io::Result<()> {
        self.call(self.ops.shutdown).unwrap_or_else(|| Err(missing()))
    }

    fn close(&self) -> io::Result<()> {
        self.call(self.ops.close).unwrap_or(Ok(()))
    }

    fn is_duplex(&self) -> bool {
        self.ops.read.is_some() && self.ops.writev.is_some()
    }

    fn set_blocking(&self, blocking: bool) -> io::Result<()> {
        match self.ops.set_blocking {
            // SAFETY: the contract of the table.
            Some(set) => check(unsafe { set(self.channel, blocking) } as isize).map(drop),
            None => Ok(()),
        }
    }

    fn host_channel(&self) -> Option<usize> {
        Some(self.channel as usize)
    }
}

impl Drop for CChannel {
    fn drop(&mut self) {
        if let Some(free) = self.ops.free {
            // SAFETY: the contract of the table; no reference to the channel is left.
            unsafe { free(self.channel) }
        }
    }
}
