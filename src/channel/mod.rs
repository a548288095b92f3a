// SPDX-License-Identifier: LGPL-2.1-or-later
//! Channels: sources and sinks of bytes. Buffering and policy are in `file/`.
//!
//! A file and its return path share a channel (`Arc`). One thread reads and one thread writes at a time. Any thread may
//! shut the channel down at any time, which ends every wait in it.

mod begun;
mod connect;
pub mod exec;
pub mod fd;
mod listen;
pub mod memory;
mod named_fd;
mod positioned;
mod reader;
mod received;
mod security;
mod sink;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
mod tls;
mod uri;
mod wait;

pub use begun::Begun;
pub use connect::connect;
pub use listen::Listener;
pub use named_fd::NamedFd;
pub use positioned::PositionedFile;
pub use reader::ReaderChannel;
pub use received::Received;
pub use security::{Role, Security, TlsOptions, tls_on_one_side};
pub use sink::{Sink, check_replaceable, replace_file};
pub use uri::Uri;
pub use wait::Cancel;

use crate::sys::{IoVec, Span};
use std::io::{self, SeekFrom};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A source or sink of bytes.
///
/// After `shutdown` from this side, reads and writes fail with `ErrorKind::ConnectionAborted`; after `close`, with
/// `EBADF`. The stall limit ends a wait with `ErrorKind::TimedOut`.
pub trait Channel: Send + Sync {
    /// Returns the channel that this one wraps. That channel performs each method that the wrapper does not define, except for
    /// methods that read: they must not take bytes past the wrapper.
    fn wrapped(&self) -> Option<&dyn Channel> {
        None
    }

    /// Reads at least one byte, and waits for it. 0 is the end of the stream. `into` must not be empty.
    fn read(&self, into: Span<'_>) -> io::Result<usize>;

    /// As `read`, into several spans in order. A channel without scattered reads fills only the first. No span is
    /// empty.
    fn read_scattered(&self, into: &[Span<'_>]) -> io::Result<usize> {
        into.first().map_or(Ok(0), |first| self.read(*first))
    }

    /// Writes everything, and waits as needed. The pieces are consumed.
    fn write_all(&self, pieces: &mut [IoVec]) -> io::Result<()>;

    /// Ends both directions: waits in other threads end, and later reads and writes fail. Returns
    /// `ErrorKind::Unsupported` if the channel cannot be shut down.
    fn shutdown(&self) -> io::Result<()>;

    /// Ends reads, as if the peer had ended the stream. Writes go on where the channel can tell the directions apart;
    /// otherwise this is `shutdown`.
    fn end_reads(&self) -> io::Result<()> {
        self.wrapped().map_or_else(|| self.shutdown(), |inner| inner.end_reads())
    }

    /// Closes the channel for both files that may share it. Its resources are freed with the last reference.
    fn close(&self) -> io::Result<()>;

    /// Returns the name for errors: the URI, if the channel was made from one.
    fn name(&self) -> Option<String> {
        self.wrapped().and_then(|inner| inner.name())
    }

    /// Returns how the process of the peer is, as a clause for the error of a connection that broke. `None` if that can't be
    /// known. May wait a moment for a process that is about to end.
    fn peer_end(&self) -> Option<String> {
        self.wrapped().and_then(|inner| inner.peer_end())
    }

    /// Returns whether the peer has closed a connection. Bytes that it sent before may still wait to be read. False if that
    /// can't be known.
    fn peer_has_closed(&self) -> bool {
        self.wrapped().is_some_and(|inner| inner.peer_has_closed())
    }

    /// Returns whether bytes can flow in both directions, which a return path needs.
    fn is_duplex(&self) -> bool {
        self.wrapped().is_some_and(|inner| inner.is_duplex())
    }

    /// Returns whether the other end reads the stream, and is not a command that may only store it.
    fn has_peer(&self) -> bool {
        self.wrapped().map_or_else(|| self.is_duplex(), |inner| inner.has_peer())
    }

    /// Lets the host perform the waits. Only channels of the host use this.
    fn set_blocking(&self, blocking: bool) -> io::Result<()> {
        self.wrapped().map_or(Ok(()), |inner| inner.set_blocking(blocking))
    }

    /// Sets how long one wait for the peer may take before it fails with `ErrorKind::TimedOut`. `None` means no limit.
    fn set_stall_limit(&self, limit: Option<Duration>) {
        if let Some(inner) = self.wrapped() {
            inner.set_stall_limit(limit);
        }
    }

    /// Returns address and length of the bytes that a channel to memory has collected, valid until the next write.
    fn collected(&self) -> Option<(*const u8, usize)> {
        self.wrapped().and_then(|inner| inner.collected())
    }

    /// Writes a few bytes with descriptors, which stay open here. `ErrorKind::Unsupported` unless it is a Unix socket.
    fn send_descriptors(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.wrapped().map_or_else(unsupported, |inner| inner.send_descriptors(bytes, fds))
    }

    /// Fills `into` and returns the descriptors that came with these bytes.
    fn receive_descriptors(&self, _into: &mut [u8]) -> io::Result<Vec<OwnedFd>> {
        unsupported()
    }

    /// Writes one byte with a descriptor, which stays open here. `ErrorKind::Unsupported` unless it is a Unix socket.
    fn send_descriptor(&self, byte: u8, fd: RawFd) -> io::Result<()> {
        self.wrapped().map_or_else(unsupported, |inner| inner.send_descriptor(byte, fd))
    }

    /// Returns the oldest descriptor that came with bytes that were read, and forgets it. `None` if there is none.
    /// `ErrorKind::Unsupported` unless it is a Unix socket.
    fn take_descriptor(&self) -> io::Result<Option<OwnedFd>> {
        self.wrapped().map_or_else(unsupported, |inner| inner.take_descriptor())
    }

    /// Returns the regular file or disk behind the channel, for positioned reads and writes. `None` if there is none.
    fn positioned(&self) -> io::Result<Option<PositionedFile>> {
        self.wrapped().map_or(Ok(None), |inner| inner.positioned())
    }

    /// Reads at `offset`, without a change of the position. Returns the number of bytes, which is smaller only at the end.
    /// `ErrorKind::Unsupported` if the channel has no offsets.
    fn read_at(&self, into: Span<'_>, offset: u64) -> io::Result<usize> {
        self.positioned()?.ok_or(io::ErrorKind::Unsupported)?.read_span(into, offset)
    }

    /// Writes at `offset`, without a change of the position. `ErrorKind::Unsupported` if the channel has no offsets.
    fn write_at(&self, piece: IoVec, offset: u64) -> io::Result<()> {
        self.positioned()?.ok_or(io::ErrorKind::Unsupported)?.write_at(piece, offset)
    }

    /// Sets the offset at which the stream continues, and returns it. `ErrorKind::Unsupported` if the channel has no offsets.
    fn seek(&self, to: SeekFrom) -> io::Result<u64> {
        self.positioned()?.ok_or(io::ErrorKind::Unsupported)?.seek_stream(to)
    }

    /// Returns the bytes that were written and wait to be sent or read, as far as that is known.
    fn in_flight(&self) -> u64 {
        self.wrapped().map_or(0, |inner| inner.in_flight())
    }

    /// Returns the bytes that all writes have passed on so far, also one in progress, and whether one is in progress. Zero if
    /// the channel does not count them.
    fn written(&self) -> (u64, bool) {
        self.wrapped().map_or((0, false), |inner| inner.written())
    }

    /// Returns the host's pointer of a channel of the host, as an address.
    fn host_channel(&self) -> Option<usize> {
        self.wrapped().and_then(|inner| inner.host_channel())
    }
}

/// Reads until `into` is full or the channel ends, and returns the number of bytes. `before` is called before each read, and ends
/// this with an error.
pub fn fill(channel: &dyn Channel, into: &mut [u8], mut before: impl FnMut() -> io::Result<()>) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        before()?;
        match channel.read(Span::from_slice(&mut into[done..]))? {
            0 => break,
            count => done += count,
        }
    }
    Ok(done)
}

/// Returns the error of a channel that can't do what is asked for.
fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The limit of one wait. A change applies from the next wait on.
#[derive(Debug)]
struct StallLimit(AtomicU64);

impl StallLimit {
    const NONE: u64 = u64::MAX;

    const fn new() -> Self {
        Self(AtomicU64::new(Self::NONE))
    }

    fn set(&self, limit: Option<Duration>) {
        let nanos = limit.map(|limit| u64::try_from(limit.as_nanos()).unwrap_or(Self::NONE));
        self.0.store(nanos.unwrap_or(Self::NONE), Ordering::Relaxed);
    }

    fn get(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            Self::NONE => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }
}

/// Returns the error of a channel that this side shut down.
fn aborted() -> io::Error {
    io::Error::from_raw_os_error(libc::ECONNABORTED)
}

/// Returns the error of a channel that this side closed.
fn closed() -> io::Error {
    io::Error::from_raw_os_error(libc::EBADF)
}

/// Returns the error of a peer that did nothing for as long as the stall limit.
fn stalled() -> io::Error {
    io::Error::from_raw_os_error(libc::ETIMEDOUT)
}

#[cfg(test)]
mod testing;
