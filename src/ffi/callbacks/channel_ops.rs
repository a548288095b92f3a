// SPDX-License-Identifier: LGPL-2.1-or-later
//! A channel of the hypervisor behind the library's trait.

use crate::channel::{Channel, Received};
use crate::error::{Described, Result};
use crate::ffi::marshal::opaque::Error as CError;
use crate::ffi::marshal::{c_error, structs};
use crate::ffi::types::channel_table::SaveVMChannelOps;
use crate::sync::check_none_held;
use crate::sys::{IoVec, Span, advance};
use std::ffi::{c_int, c_void};
use std::io::{self, SeekFrom};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// `SaveVMChannelOps.read_fds`.
type ReadFds =
    unsafe extern "C" fn(*mut c_void, *mut u8, usize, *mut *mut c_int, *mut usize, *mut *mut CError) -> isize;

/// A copied table and the hypervisor's pointer.
pub(in crate::ffi) struct CChannel {
    ops: SaveVMChannelOps,
    channel: *mut c_void,
    received: Received,
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

/// Takes over an array of descriptors.
///
/// # Safety
/// `fds` is NULL, or an array of `count` open descriptors from malloc(). Both belong to the library.
unsafe fn descriptors(fds: *mut c_int, count: usize) -> Vec<OwnedFd> {
    if fds.is_null() {
        return Vec::new();
    }
    // SAFETY: the contract of the function. The array is not used after it was freed.
    unsafe {
        let owned = (0..count).map(|at| OwnedFd::from_raw_fd(*fds.add(at))).collect();
        libc::free(fds.cast());
        owned
    }
}

impl CChannel {
    /// # Safety
    /// The contract of savevm_file_from_channel().
    pub(in crate::ffi) unsafe fn new(ops: *const SaveVMChannelOps, channel: *mut c_void) -> Result<Option<Self>> {
        // SAFETY: as the caller promised.
        unsafe { structs::sized_struct(ops) }
            .map(|ops| ops.map(|ops| Self { ops, channel, received: Received::default() }))
    }

    /// Whether the function for the direction is there.
    pub(in crate::ffi) fn can(&self, writable: bool) -> bool {
        if writable { self.ops.writev.is_some() } else { self.is_readable() }
    }

    fn is_readable(&self) -> bool {
        self.ops.read.is_some() || self.ops.read_fds.is_some()
    }

    /// Calls a function that may set an error. The text of that error becomes the text of the failure.
    fn explained(&self, call: impl FnOnce(*mut *mut CError) -> isize) -> io::Result<usize> {
        check_none_held("a channel's function");
        // SAFETY: the function left NULL, or an error that it transferred.
        match unsafe { c_error::collect(|errp| check(call(errp)), |_| libc::EIO) } {
            (Err(failure), Some(error)) => {
                let errno = failure.raw_os_error().unwrap_or(libc::EIO);
                Err(io::Error::new(failure.kind(), Described { errno, text: error.message().to_owned() }))
            }
            (result, _) => result,
        }
    }

    /// Repeats `attempt` while it would block, waiting in between.
    fn retry(&self, write: bool, mut attempt: impl FnMut(*mut *mut CError) -> isize) -> io::Result<usize> {
        loop {
            match self.explained(&mut attempt) {
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    let wait = self.ops.wait.ok_or(err)?;
                    // SAFETY: the contract of the table.
                    check(unsafe { wait(self.channel, write) } as isize)?;
                }
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Reads, and keeps the descriptors that come with the bytes.
    fn read_with_descriptors(&self, read: ReadFds, into: Span<'_>) -> io::Result<usize> {
        let (mut fds, mut fd_count) = (ptr::null_mut(), 0);
        let result = self.retry(false, |errp| {
            // SAFETY: the contract of the table; the span is writable for its length.
            unsafe { read(self.channel, into.address(), into.len(), &raw mut fds, &raw mut fd_count, errp) }
        });
        // SAFETY: the contract of the table: NULL, or an array of that many descriptors that the library owns now.
        self.received.add(unsafe { descriptors(fds, fd_count) })?;
        result
    }

    fn call(&self, function: Option<unsafe extern "C" fn(*mut c_void) -> c_int>) -> Option<io::Result<()>> {
        check_none_held("a channel's function");
        // SAFETY: the contract of the table.
        function.map(|function| check(unsafe { function(self.channel) } as isize).map(drop))
    }
}

impl Channel for CChannel {
    fn read(&self, into: Span<'_>) -> io::Result<usize> {
        let count = match (self.ops.read_fds, self.ops.read) {
            (Some(read), _) => self.read_with_descriptors(read, into),
            (None, read) => {
                let read = read.ok_or_else(missing)?;
                // SAFETY: the contract of the table; the span is writable for its length.
                self.retry(false, |errp| unsafe { read(self.channel, into.address(), into.len(), errp) })
            }
        }?;
        Ok(count.min(into.len()))
    }

    fn write_all(&self, pieces: &mut [IoVec]) -> io::Result<()> {
        let writev = self.ops.writev.ok_or_else(missing)?;
        let mut left = pieces;
        while !left.is_empty() {
            let (start, count) = (left.as_ptr().cast::<libc::iovec>(), left.len() as c_int);
            // SAFETY: the contract of the table; the pieces have the layout of `struct iovec`.
            match self.retry(true, |errp| unsafe { writev(self.channel, start, count, errp) })? {
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
        self.is_readable() && self.ops.writev.is_some()
    }

    fn set_blocking(&self, blocking: bool) -> io::Result<()> {
        match self.ops.set_blocking {
            // SAFETY: the contract of the table.
            Some(set) => check(unsafe { set(self.channel, blocking) } as isize).map(drop),
            None => Ok(()),
        }
    }

    fn send_descriptor(&self, byte: u8, fd: RawFd) -> io::Result<()> {
        let write = self.ops.write_fd.ok_or_else(missing)?;
        // SAFETY: the contract of the table.
        match self.retry(true, |errp| unsafe { write(self.channel, byte, fd, errp) })? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            _ => Ok(()),
        }
    }

    fn take_descriptor(&self) -> io::Result<Option<OwnedFd>> {
        match self.ops.read_fds {
            Some(_) => Ok(self.received.take()),
            None => Err(missing()),
        }
    }

    fn read_at(&self, into: Span<'_>, offset: u64) -> io::Result<usize> {
        let pread = self.ops.pread.ok_or_else(missing)?;
        let mut done = 0;
        while done < into.len() {
            let (rest, at) = (into.skip(done), (offset + done as u64) as libc::off_t);
            // SAFETY: the contract of the table; the span is writable for its length.
            match self.explained(|errp| unsafe { pread(self.channel, rest.address(), rest.len(), at, errp) })? {
                0 => break,
                count => done += count.min(rest.len()),
            }
        }
        Ok(done)
    }

    fn write_at(&self, piece: IoVec, offset: u64) -> io::Result<()> {
        let pwrite = self.ops.pwrite.ok_or_else(missing)?;
        let (mut rest, mut at) = (piece, offset);
        while !rest.is_empty() {
            let (start, len, offset) = (rest.address(), rest.len(), at as libc::off_t);
            // SAFETY: the contract of the table; the piece is readable for its length.
            match self.explained(|errp| unsafe { pwrite(self.channel, start, len, offset, errp) })? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => {
                    let count = count.min(rest.len());
                    rest = rest.behind(count);
                    at += count as u64;
                }
            }
        }
        Ok(())
    }

    fn seek(&self, position: SeekFrom) -> io::Result<u64> {
        let seek = self.ops.seek.ok_or_else(missing)?;
        let (offset, whence) = match position {
            SeekFrom::Start(offset) => (offset as i64, libc::SEEK_SET),
            SeekFrom::Current(offset) => (offset, libc::SEEK_CUR),
            SeekFrom::End(offset) => (offset, libc::SEEK_END),
        };
        // SAFETY: the contract of the table.
        self.explained(|errp| unsafe { seek(self.channel, offset, whence, errp) } as isize).map(|at| at as u64)
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
