// SPDX-License-Identifier: LGPL-2.1-or-later
//! A channel over a file descriptor: stream socket, pipe, terminal, device or regular file.
//!
//! No call on the descriptor blocks, except on regular files and disks, which do not wait for a peer. If a call would
//! block, `poll` waits for the descriptor and for an event that `shutdown` and `close` set. So both always end the
//! wait, even where the kernel would not. Each operation holds a reference to the descriptor. `close` drops its own
//! reference at once; the number is reused only after the last operation has ended.

use crate::channel::{Channel, PositionedFile, Received, StallLimit, Uri, aborted, closed, stalled};
use crate::error::{Error, Result};
use crate::sync::{Mutex, Rank};
use crate::sys::{
    DESCRIPTORS_MAX, IoVec, PeerProcess, Ready, Span, WakeFd, access_of, advance, appends, close_fd, end_socket_reads,
    make_room, peer_has_closed, poll_fd, read_fd, read_scattered, recv_fd, recv_scattered, recv_scattered_with_fds,
    recv_with_fds, send_at_once, send_fd, send_with_fds, send_with_numbers, set_close_on_exec, set_nonblocking,
    shutdown_socket, socket_kind, unsent_bytes, write_fd, write_pipe,
};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How a descriptor is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A connected stream socket. Each call is non-blocking by a flag.
    Socket,
    /// The same, a Unix socket: descriptors may come with the bytes.
    UnixSocket,
    /// A pipe. It is non-blocking until it is closed.
    Pipe,
    /// A terminal or another device. It becomes non-blocking and stays so, because both directions may share the mode.
    Device,
    /// A regular file or a disk.
    File,
}

#[derive(Debug)]
struct Descriptor {
    fd: OwnedFd,
    /// Whether the descriptor was blocking. Other processes may share it and rely on that.
    was_blocking: bool,
}

impl Descriptor {
    /// Closes the descriptor if this was the last reference to it.
    fn release(this: Arc<Self>) -> io::Result<()> {
        let Some(Self { fd, was_blocking }) = Arc::into_inner(this) else { return Ok(()) };
        if was_blocking {
            // Restoring the mode is a courtesy to other users of the pipe. Its failure is ignored.
            let _ = set_nonblocking(fd.as_fd(), false);
        }
        close_fd(fd)
    }
}

/// A channel over a file descriptor.
#[derive(Debug)]
pub struct FdChannel {
    kind: Kind,
    descriptor: Mutex<Option<Arc<Descriptor>>>,
    shut_down: AtomicBool,
    wake: WakeFd,
    stall: StallLimit,
    /// See `Channel::written`.
    written: AtomicU64,
    writing: AtomicBool,
    /// See `Channel::name`.
    name: Option<String>,
    /// The process at the other end, if the library made the connection.
    peer: Option<PeerProcess>,
    /// See `Channel::take_descriptor`.
    received: Received,
}

/// How long the end of the peer's process may follow that of its connection.
const PEER_ENDS_WITHIN: Duration = Duration::from_millis(100);

fn direction_error(fd: &OwnedFd, writable: bool) -> Error {
    let (has, lacks) = if writable { ("reading", "written to") } else { ("writing", "read from") };
    let number = fd.as_raw_fd();
    Error::new(libc::EBADF, format!("file descriptor {number} is open for {has} only and can't be {lacks}"))
}

/// Determines the kind of the descriptor. Rejects descriptors that cannot carry a stream.
fn classify(fd: OwnedFd) -> Result<(OwnedFd, Kind)> {
    let number = fd.as_raw_fd();
    let failed = |err| Error::io(format_args!("can't use file descriptor {number}"), &err);
    let refused = |errno, what| Error::new(errno, format!("file descriptor {number} is {what}"));
    let file = File::from(fd);
    let kind = file.metadata().map_err(failed)?.file_type();
    let fd = OwnedFd::from(file);
    if kind.is_dir() {
        return Err(refused(libc::EISDIR, "a directory and not a stream"));
    }
    if kind.is_file() || kind.is_block_device() {
        return Ok((fd, Kind::File));
    }
    if !kind.is_socket() {
        return Ok((fd, if kind.is_fifo() { Kind::Pipe } else { Kind::Device }));
    }
    let socket = socket_kind(fd.as_fd()).map_err(failed)?;
    if !socket.stream {
        return Err(refused(libc::EPROTOTYPE, "not a stream socket"));
    }
    if socket.listening {
        return Err(refused(libc::EINVAL, "a listening socket, not a connection"));
    }
    Ok((fd, if socket.unix { Kind::UnixSocket } else { Kind::Socket }))
}

impl Kind {
    fn is_socket(self) -> bool {
        matches!(self, Self::Socket | Self::UnixSocket)
    }
}

impl FdChannel {
    /// Returns a channel that owns `fd`, for writing or for reading. A socket does both.
    ///
    /// The descriptor becomes close-on-exec. A pipe or device becomes non-blocking for all users; closing the channel
    /// restores the mode of a pipe. An error closes the descriptor.
    pub fn new(fd: OwnedFd, writable: bool) -> Result<Self> {
        let (fd, kind) = classify(fd)?;
        let failed = |err| Error::io("can't set up a file descriptor", &err);
        let (reads, writes) = access_of(fd.as_fd()).map_err(failed)?;
        if !(if writable { writes } else { reads }) {
            return Err(direction_error(&fd, writable));
        }
        set_close_on_exec(fd.as_fd()).map_err(failed)?;
        let wake = WakeFd::new().map_err(failed)?;
        let was_blocking = match kind {
            Kind::Pipe => !set_nonblocking(fd.as_fd(), true).map_err(failed)?,
            Kind::Device => set_nonblocking(fd.as_fd(), true).map(|_| false).map_err(failed)?,
            Kind::Socket | Kind::UnixSocket | Kind::File => false,
        };
        if kind.is_socket() {
            send_at_once(fd.as_fd());
            if writable {
                make_room(fd.as_fd());
            }
        }
        let descriptor = Mutex::new(Rank::Descriptor, Some(Arc::new(Descriptor { fd, was_blocking })));
        let (shut_down, stall) = (AtomicBool::new(false), StallLimit::new());
        let (written, writing) = (AtomicU64::new(0), AtomicBool::new(false));
        let received = Received::default();
        Ok(Self { kind, descriptor, shut_down, wake, stall, written, writing, name: None, peer: None, received })
    }

    /// Sets the name that errors use.
    pub(super) fn named(mut self, name: impl std::fmt::Display) -> Self {
        self.name = Some(name.to_string());
        self
    }

    /// Remembers the process at the other end, if `uri` is a Unix socket. This process has just connected or accepted it: a
    /// socket that came from elsewhere says who made it, which need not be the process that uses it.
    pub(super) fn knowing_peer(mut self, uri: &Uri) -> Self {
        if matches!(uri, Uri::Unix(_)) {
            let descriptor = self.descriptor.lock().clone();
            self.peer = descriptor.and_then(|descriptor| PeerProcess::of(descriptor.fd.as_fd()));
        }
        self
    }

    /// Runs one operation with a reference to the descriptor.
    fn with<T>(&self, run: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        let descriptor = self.descriptor.lock().clone().ok_or_else(closed)?;
        let result = run(descriptor.fd.as_fd());
        // The last reference is dropped here only if `close` was called meanwhile. `close` could not report this error.
        let _ = Descriptor::release(descriptor);
        result
    }

    fn check(&self) -> io::Result<()> {
        if self.shut_down.load(Ordering::Acquire) { Err(aborted()) } else { Ok(()) }
    }

    /// Repeats the attempt until it succeeds or fails or this side ends it. Waits for the peer between attempts.
    fn retry(
        &self,
        fd: BorrowedFd<'_>,
        write: bool,
        mut attempt: impl FnMut() -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            self.check()?;
            let err = match attempt() {
                Ok(count) => return Ok(count),
                Err(err) => err,
            };
            match err.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => match poll_fd(fd, write, &self.wake, self.stall.get())? {
                    Ready::Go => {}
                    Ready::Woken => return Err(aborted()),
                    Ready::TimedOut => return Err(stalled()),
                },
                _ => return Err(err),
            }
        }
    }

    /// Receives bytes, and keeps the descriptors that came with them.
    fn receive(&self, fd: BorrowedFd<'_>, into: &[Span<'_>]) -> io::Result<usize> {
        let (count, fds) = recv_scattered_with_fds(fd, into)?;
        self.received.add(fds)?;
        Ok(count)
    }

    /// Waits for bytes or the end of the stream. The stall limit does not apply.
    pub(super) fn wait_readable(&self, cancel: &WakeFd, timeout: Option<Duration>) -> io::Result<Ready> {
        if self.kind == Kind::File {
            return Ok(Ready::Go);
        }
        self.with(|fd| poll_fd(fd, false, cancel, timeout))
    }

    /// Latches the end of this side and ends its waits. An operation that is not waiting sees it before its next
    /// attempt.
    fn end(&self) {
        self.shut_down.store(true, Ordering::Release);
        self.wake.wake();
    }
}

/// Shuts a connection down. A peer that is already gone is no error.
fn shutdown_connection(fd: BorrowedFd<'_>) -> io::Result<()> {
    match shutdown_socket(fd) {
        Err(err) if err.kind() != io::ErrorKind::NotConnected => Err(err),
        _ => Ok(()),
    }
}

impl Channel for FdChannel {
    fn name(&self) -> Option<String> {
        self.name.clone()
    }

    fn peer_end(&self) -> Option<String> {
        self.peer.as_ref().map(|peer| peer.describe(PEER_ENDS_WITHIN))
    }

    fn peer_has_closed(&self) -> bool {
        self.kind.is_socket() && self.with(peer_has_closed).unwrap_or(false)
    }

    fn read(&self, into: Span<'_>) -> io::Result<usize> {
        self.with(|fd| {
            let count = self.retry(fd, false, || match self.kind {
                Kind::Socket => recv_fd(fd, into),
                Kind::UnixSocket => self.receive(fd, &[into]),
                Kind::Pipe | Kind::Device | Kind::File => read_fd(fd, into),
            })?;
            // A socket that this side shut down reads as ended. That is not the peer's end of the stream.
            if count == 0 {
                self.check()?;
            }
            Ok(count)
        })
    }

    fn read_scattered(&self, into: &[Span<'_>]) -> io::Result<usize> {
        self.with(|fd| {
            let count = self.retry(fd, false, || match self.kind {
                Kind::Socket => recv_scattered(fd, into),
                Kind::UnixSocket => self.receive(fd, into),
                Kind::Pipe | Kind::Device | Kind::File => read_scattered(fd, into),
            })?;
            if count == 0 {
                self.check()?;
            }
            Ok(count)
        })
    }

    fn write_all(&self, pieces: &mut [IoVec]) -> io::Result<()> {
        self.writing.store(true, Ordering::Relaxed);
        let result = self.with(|fd| {
            self.check()?;
            let mut left = advance(pieces, 0);
            while !left.is_empty() {
                let count = self.retry(fd, true, || match self.kind {
                    Kind::Socket | Kind::UnixSocket => send_fd(fd, left),
                    Kind::Pipe => write_pipe(fd, left),
                    Kind::Device | Kind::File => write_fd(fd, left),
                });
                match count {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(count) => {
                        self.written.fetch_add(count as u64, Ordering::Relaxed);
                        left = advance(left, count);
                    }
                    // A broken pipe after `shutdown` is caused by this side.
                    Err(err) => return Err(self.check().err().unwrap_or(err)),
                }
            }
            Ok(())
        });
        self.writing.store(false, Ordering::Relaxed);
        result
    }

    /// Shuts a socket down for the peer too. The peer of a pipe sees nothing before `close`. Waits on this side end in
    /// both cases.
    fn shutdown(&self) -> io::Result<()> {
        self.end();
        let descriptor = self.descriptor.lock().clone();
        match descriptor {
            Some(descriptor) if self.kind.is_socket() => {
                let result = shutdown_connection(descriptor.fd.as_fd());
                result.and(Descriptor::release(descriptor))
            }
            Some(descriptor) => Descriptor::release(descriptor),
            None => Ok(()),
        }
    }

    fn end_reads(&self) -> io::Result<()> {
        let descriptor = self.descriptor.lock().clone();
        match descriptor {
            Some(descriptor) if self.kind.is_socket() => {
                let result = end_socket_reads(descriptor.fd.as_fd());
                result.and(Descriptor::release(descriptor))
            }
            _ => self.shutdown(),
        }
    }

    /// Ends waits in other threads as `shutdown` does. An error is a late error of earlier writes.
    fn close(&self) -> io::Result<()> {
        let descriptor = self.descriptor.lock().take();
        self.end();
        let Some(descriptor) = descriptor else { return Ok(()) };
        if self.kind.is_socket() {
            // The peer must see the end even if another process has the socket open.
            let _ = shutdown_connection(descriptor.fd.as_fd());
        }
        Descriptor::release(descriptor)
    }

    fn is_duplex(&self) -> bool {
        self.kind.is_socket()
    }

    fn written(&self) -> (u64, bool) {
        (self.written.load(Ordering::Relaxed), self.writing.load(Ordering::Relaxed))
    }

    fn in_flight(&self) -> u64 {
        match self.kind {
            Kind::Socket | Kind::UnixSocket => self.with(unsent_bytes).unwrap_or(0),
            Kind::Pipe | Kind::Device | Kind::File => 0,
        }
    }

    fn set_stall_limit(&self, limit: Option<Duration>) {
        self.stall.set(limit);
    }

    fn send_descriptor(&self, byte: u8, number: RawFd) -> io::Result<()> {
        if self.kind != Kind::UnixSocket {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.with(|fd| self.retry(fd, true, || send_with_numbers(fd, &[byte], &[number])).map(drop))
    }

    fn take_descriptor(&self) -> io::Result<Option<OwnedFd>> {
        match self.kind {
            Kind::UnixSocket => Ok(self.received.take()),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn send_descriptors(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if self.kind != Kind::UnixSocket {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.with(|fd| {
            let (mut done, mut fds) = (0, fds);
            while done < bytes.len() {
                done += self.retry(fd, true, || send_with_fds(fd, &bytes[done..], fds))?;
                // They travel with the first byte.
                fds = &[];
            }
            Ok(())
        })
    }

    fn receive_descriptors(&self, into: &mut [u8]) -> io::Result<Vec<OwnedFd>> {
        if self.kind != Kind::UnixSocket {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.with(|fd| {
            let (mut done, mut all) = (0, Vec::new());
            while done < into.len() {
                let count = self.retry(fd, false, || {
                    let (count, fds) = recv_with_fds(fd, &mut into[done..])?;
                    all.extend(fds);
                    Ok(count)
                })?;
                if count == 0 || all.len() > DESCRIPTORS_MAX {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                done += count;
            }
            Ok(all)
        })
    }

    fn positioned(&self) -> io::Result<Option<PositionedFile>> {
        if self.kind != Kind::File {
            return Ok(None);
        }
        self.with(|fd| {
            // With O_APPEND the offset of a write is ignored.
            let usable = !appends(fd)?;
            usable.then(|| Ok(PositionedFile::new(fd.try_clone_to_owned()?, self.name.clone()))).transpose()
        })
    }
}

impl Drop for FdChannel {
    fn drop(&mut self) {
        let _ = self.close();
    }
}

#[cfg(test)]
mod tests;
