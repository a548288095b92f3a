// SPDX-License-Identifier: LGPL-2.1-or-later
//! A channel over any file descriptor: stream socket, pipe, terminal, device or regular file.
//!
//! No call on the descriptor blocks on its own (regular files and disks aside, which never wait for a peer). What would
//! block is waited for with poll, together with an event that `shutdown` and `close` set, so that both always end the
//! wait, also where the kernel would not. Each operation holds its own reference to the descriptor: `close` lets go of
//! it at once, and its number is not free for others before the last operation is out.

use super::{Channel, StallLimit, aborted, closed, stalled};
use crate::error::{Error, Result};
use crate::sync::{Mutex, Rank};
use crate::sys::{
    IoVec, Ready, Span, WakeFd, access_of, advance, close_fd, make_room, poll_fd, read_fd, read_scattered, recv_fd,
    recv_scattered, send_at_once, send_fd, set_close_on_exec, set_nonblocking, shutdown_socket, socket_kind, write_fd,
    write_pipe,
};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How to talk to a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A connected stream socket: told per call not to block.
    Socket,
    /// A pipe: made non-blocking until it is closed.
    Pipe,
    /// A terminal or another device: made non-blocking, and left so, since both directions may share one mode.
    Device,
    /// A regular file or a disk.
    File,
}

#[derive(Debug)]
struct Descriptor {
    fd: OwnedFd,
    /// It was blocking, and other processes may share it and rely on that.
    was_blocking: bool,
}

impl Descriptor {
    /// Closes the descriptor if this was the last reference to it.
    fn release(this: Arc<Self>) -> io::Result<()> {
        let Some(Self { fd, was_blocking }) = Arc::into_inner(this) else { return Ok(()) };
        if was_blocking {
            // What it shares with others is best put back, but it is no reason to fail.
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
    /// See `Channel::name`.
    name: Option<String>,
}

fn direction_error(fd: &OwnedFd, writable: bool) -> Error {
    let (has, lacks) = if writable { ("reading", "written to") } else { ("writing", "read from") };
    let number = fd.as_raw_fd();
    Error::new(libc::EBADF, format!("file descriptor {number} is open for {has} only and can't be {lacks}"))
}

/// Finds out what the descriptor is, and refuses what can't carry a stream.
fn classify(fd: OwnedFd) -> Result<(OwnedFd, Kind)> {
    let number = fd.as_raw_fd();
    let failed = |err| Error::io(format_args!("can't use file descriptor {number}"), &err);
    let refused = |errno, what| Error::new(errno, format!("file descriptor {number} is {what}"));
    let file = File::from(fd);
    let kind = file.metadata().map_err(failed)?.file_type();
    let fd = OwnedFd::from(file);
    if kind.is_dir() {
        return Err(refused(libc::EISDIR, "a directory, which holds no bytes"));
    }
    if kind.is_file() || kind.is_block_device() {
        return Ok((fd, Kind::File));
    }
    if !kind.is_socket() {
        return Ok((fd, if kind.is_fifo() { Kind::Pipe } else { Kind::Device }));
    }
    let socket = socket_kind(fd.as_fd()).map_err(failed)?;
    if !socket.stream {
        return Err(refused(libc::EPROTOTYPE, "a socket, but no stream socket"));
    }
    if socket.listening {
        return Err(refused(libc::EINVAL, "a listening socket, not a connection"));
    }
    Ok((fd, Kind::Socket))
}

impl FdChannel {
    /// A channel that owns `fd`, for writing or for reading (a socket does both).
    ///
    /// The descriptor becomes close-on-exec. A pipe or device becomes non-blocking for all who share it; a pipe is put
    /// back when it is closed here. An error closes the descriptor.
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
            Kind::Socket | Kind::File => false,
        };
        if kind == Kind::Socket {
            send_at_once(fd.as_fd());
            if writable {
                make_room(fd.as_fd());
            }
        }
        let descriptor = Mutex::new(Rank::Descriptor, Some(Arc::new(Descriptor { fd, was_blocking })));
        Ok(Self { kind, descriptor, shut_down: AtomicBool::new(false), wake, stall: StallLimit::new(), name: None })
    }

    /// Gives the channel the name of what it leads to.
    pub(super) fn named(mut self, name: impl std::fmt::Display) -> Self {
        self.name = Some(name.to_string());
        self
    }

    /// Runs one operation, which keeps the descriptor open.
    fn with<T>(&self, run: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        let descriptor = self.descriptor.lock().clone().ok_or_else(closed)?;
        let result = run(descriptor.fd.as_fd());
        // An error here means that `close` was called meanwhile, by somebody who did not care for this operation.
        let _ = Descriptor::release(descriptor);
        result
    }

    fn check(&self) -> io::Result<()> {
        if self.shut_down.load(Ordering::Acquire) { Err(aborted()) } else { Ok(()) }
    }

    /// Tries until it succeeds, fails, or this side ends it; in between waits for the peer.
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

    /// Waits until there are bytes (or the end of the stream) to read, however long the stall limit is.
    pub(super) fn wait_readable(&self, cancel: &WakeFd, timeout: Option<Duration>) -> io::Result<Ready> {
        if self.kind == Kind::File {
            return Ok(Ready::Go);
        }
        self.with(|fd| poll_fd(fd, false, cancel, timeout))
    }

    /// Latches the end of this side and ends the waits. An operation that is not waiting notices before its next try.
    fn end(&self) {
        self.shut_down.store(true, Ordering::Release);
        self.wake.wake();
    }
}

/// A peer that is already gone is no error for who wants it gone.
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

    fn read(&self, into: Span<'_>) -> io::Result<usize> {
        self.with(|fd| {
            let count = self.retry(fd, false, || match self.kind {
                Kind::Socket => recv_fd(fd, into),
                Kind::Pipe | Kind::Device | Kind::File => read_fd(fd, into),
            })?;
            // A socket that this side shut down reads as ended, which must not pass for the peer's end of the stream.
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
                Kind::Pipe | Kind::Device | Kind::File => read_scattered(fd, into),
            })?;
            if count == 0 {
                self.check()?;
            }
            Ok(count)
        })
    }

    fn write_all(&self, pieces: &mut [IoVec]) -> io::Result<()> {
        self.with(|fd| {
            self.check()?;
            let mut left = advance(pieces, 0);
            while !left.is_empty() {
                let count = self.retry(fd, true, || match self.kind {
                    Kind::Socket => send_fd(fd, left),
                    Kind::Pipe => write_pipe(fd, left),
                    Kind::Device | Kind::File => write_fd(fd, left),
                });
                match count {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(count) => left = advance(left, count),
                    // The broken pipe is this side's own doing.
                    Err(err) => return Err(self.check().err().unwrap_or(err)),
                }
            }
            Ok(())
        })
    }

    /// A socket is shut down for the peer too. The peer of a pipe sees nothing before `close`; waits here end all the
    /// same.
    fn shutdown(&self) -> io::Result<()> {
        self.end();
        let descriptor = self.descriptor.lock().clone();
        match descriptor {
            Some(descriptor) if self.kind == Kind::Socket => {
                let result = shutdown_connection(descriptor.fd.as_fd());
                result.and(Descriptor::release(descriptor))
            }
            Some(descriptor) => Descriptor::release(descriptor),
            None => Ok(()),
        }
    }

    /// Waits in other threads end as with `shutdown`. An error is what the system still had to say about earlier
    /// writes.
    fn close(&self) -> io::Result<()> {
        let descriptor = self.descriptor.lock().take();
        self.end();
        let Some(descriptor) = descriptor else { return Ok(()) };
        if self.kind == Kind::Socket {
            // Also where another process holds the socket open, the peer must see the end.
            let _ = shutdown_connection(descriptor.fd.as_fd());
        }
        Descriptor::release(descriptor)
    }

    fn is_duplex(&self) -> bool {
        self.kind == Kind::Socket
    }

    fn set_stall_limit(&self, limit: Option<Duration>) {
        self.stall.set(limit);
    }
}

impl Drop for FdChannel {
    fn drop(&mut self) {
        let _ = self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use std::io::{ErrorKind, Read, Seek, Write, pipe};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixStream;
    use std::thread;

    fn channel(fd: impl Into<OwnedFd>, writable: bool) -> Arc<FdChannel> {
        Arc::new(FdChannel::new(fd.into(), writable).unwrap())
    }

    fn sockets() -> (Arc<FdChannel>, UnixStream) {
        let (left, right) = UnixStream::pair().unwrap();
        (channel(left, true), right)
    }

    fn pipes() -> (Arc<FdChannel>, Arc<FdChannel>) {
        let (read, write) = pipe().unwrap();
        (channel(read, false), channel(write, true))
    }

    /// More than any socket or pipe holds, so that writes come back short and with EAGAIN.
    const BIG: usize = 3 << 20;

    #[test]
    fn a_socket_carries_both_directions_beyond_its_buffer() {
        let (near, far) = sockets();
        let far = channel(far, false);
        assert!(near.is_duplex() && far.is_duplex());
        let reader = thread::spawn(move || {
            let all = read_to_end(&*far);
            (all, far)
        });
        write(&*near, &pattern(BIG)).unwrap();
        shutdown_socket(near.descriptor.lock().as_ref().unwrap().fd.as_fd()).unwrap();
        let (all, _far) = reader.join().unwrap();
        assert!(all.unwrap() == pattern(BIG));
    }

    /// How much of what nobody reads a socket takes.
    fn taken(socket: impl Into<OwnedFd>) -> usize {
        let near = channel(socket, true);
        near.set_stall_limit(Some(Duration::ZERO));
        let step = pattern(1 << 12);
        (0..BIG).step_by(step.len()).take_while(|_| write(&*near, &step).is_ok()).count() * step.len()
    }

    #[test]
    fn a_unix_socket_that_is_written_to_takes_more_than_it_did() {
        let (plain, _far) = UnixStream::pair().unwrap();
        plain.set_nonblocking(true).unwrap();
        let before = (0..BIG).step_by(1 << 12).take_while(|_| (&plain).write(&pattern(1 << 12)).is_ok()).count() << 12;
        let (near, _far) = UnixStream::pair().unwrap();
        let after = taken(near);
        let most: usize = std::fs::read_to_string("/proc/sys/net/core/wmem_max").unwrap().trim().parse().unwrap();
        let is_allowed = most >= 1 << 20;
        assert!(!is_allowed || after > 2 * before, "{before} and {after} bytes");
    }

    #[test]
    fn a_tcp_socket_sends_what_is_small_at_once_whoever_made_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for writable in [true, false] {
            let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let shared = socket.try_clone().unwrap();
            assert!(!shared.nodelay().unwrap());
            let _channel = channel(socket, writable);
            assert!(shared.nodelay().unwrap(), "writable: {writable}");
        }
    }

    #[test]
    fn a_pipe_carries_more_than_it_holds_to_a_slow_reader() {
        let (read, write_end) = pipes();
        assert!(!read.is_duplex());
        let writer = thread::spawn(move || {
            write(&*write_end, &pattern(BIG)).unwrap();
            // The reader sees the end although the Arc lives on.
            write_end.close().unwrap();
            write_end
        });
        thread::sleep(Duration::from_millis(20));
        assert!(read_to_end(&*read).unwrap() == pattern(BIG));
        let closed = writer.join().unwrap();
        assert_eq!(write(&*closed, b"x").unwrap_err().raw_os_error(), Some(libc::EBADF));
        closed.close().unwrap();
    }

    #[test]
    fn shutdown_wakes_blocked_reads() {
        let (near, _far) = sockets();
        shutdown_ends(&near, |near| read_some(near, 1));
        let (read, _write) = pipe().unwrap();
        let read = channel(read, false);
        let waiter = read.clone();
        let result = ended_by(move || read_some(&*waiter, 1), || read.shutdown().unwrap());
        assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionAborted);
        assert_eq!(read_some(&*read, 1).unwrap_err().kind(), ErrorKind::ConnectionAborted);
    }

    #[test]
    fn shutdown_wakes_blocked_writes() {
        let (near, _far) = sockets();
        shutdown_ends(&near, |near| write(near, &pattern(BIG)));
        let (_read, write_end) = pipe().unwrap();
        shutdown_ends(&channel(write_end, true), |end| write(end, &pattern(BIG)));
    }

    #[test]
    fn close_wakes_too_and_frees_the_descriptor_with_the_last_user() {
        let (read, _write) = pipe().unwrap();
        let read = channel(read, false);
        let waiter = read.clone();
        let weak = Arc::downgrade(read.descriptor.lock().as_ref().unwrap());
        let result = ended_by(move || read_some(&*waiter, 1), || read.close().unwrap());
        assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionAborted);
        assert_eq!(weak.strong_count(), 0);
        assert_eq!(read_some(&*read, 1).unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert!(read.shutdown().is_ok());
    }

    #[test]
    fn the_peer_sees_the_shutdown_of_a_socket_and_its_close() {
        for end in [FdChannel::shutdown, FdChannel::close] {
            let (near, mut far) = sockets();
            let copy = far.try_clone().unwrap();
            end(&near).unwrap();
            assert_eq!(far.read(&mut [0]).unwrap(), 0);
            assert_eq!((&copy).write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        }
    }

    #[test]
    fn a_peer_that_went_away_is_an_end_and_a_broken_pipe() {
        let (near, far) = sockets();
        drop(far);
        assert_eq!(read_some(&*near, 1).unwrap(), b"");
        assert_eq!(write(&*near, b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        near.shutdown().unwrap();
        near.close().unwrap();
        let (read, write_end) = pipes();
        drop(read);
        assert_eq!(write(&*write_end, b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn the_stall_limit_ends_reads_and_writes() {
        let (near, far) = sockets();
        near.set_stall_limit(Some(Duration::from_millis(30)));
        assert_eq!(read_some(&*near, 1).unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(write(&*near, &pattern(BIG)).unwrap_err().kind(), ErrorKind::TimedOut);
        let (_keep, write_end) = pipes();
        write_end.set_stall_limit(Some(Duration::from_millis(30)));
        assert_eq!(write(&*write_end, &pattern(BIG)).unwrap_err().kind(), ErrorKind::TimedOut);
        drop(far);
    }

    #[test]
    fn a_trickle_is_no_stall() {
        let (near, mut far) = sockets();
        near.set_stall_limit(Some(Duration::from_millis(600)));
        let peer = thread::spawn(move || {
            for byte in *b"slow but steady" {
                thread::sleep(Duration::from_millis(60));
                far.write_all(&[byte]).unwrap();
            }
        });
        assert_eq!(read_to_end(&*near).unwrap(), b"slow but steady");
        peer.join().unwrap();
    }

    fn scratch_file() -> File {
        let path = scratch_path("fd");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file
    }

    #[test]
    fn a_regular_file_is_written_and_read() {
        let mut file = scratch_file();
        let writer = channel(file.try_clone().unwrap(), true);
        write(&*writer, &pattern(BIG)).unwrap();
        assert!(!writer.is_duplex());
        writer.close().unwrap();
        file.rewind().unwrap();
        let reader = channel(file, false);
        assert!(read_to_end(&*reader).unwrap() == pattern(BIG));
        reader.shutdown().unwrap();
        assert_eq!(read_some(&*reader, 1).unwrap_err().kind(), ErrorKind::ConnectionAborted);
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let full = channel(File::options().write(true).open("/dev/full").unwrap(), true);
        assert_eq!(write(&*full, b"x").unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    }

    #[test]
    fn a_shared_pipe_is_blocking_again_afterwards() {
        let (read, write_end) = pipe().unwrap();
        let shared = read.try_clone().unwrap();
        let reader = channel(read, false);
        assert!(set_nonblocking(shared.as_fd(), true).unwrap());
        drop(reader);
        assert!(!set_nonblocking(shared.as_fd(), false).unwrap());
        drop(write_end);
    }

    #[test]
    fn what_carries_no_stream_is_refused() {
        let refused = |fd: OwnedFd, writable| FdChannel::new(fd, writable).unwrap_err();
        let (read, write_end) = pipe().unwrap();
        let (read, write_end) = (OwnedFd::from(read), OwnedFd::from(write_end));
        let number = read.as_raw_fd();
        let expected = format!("file descriptor {number} is open for reading only and can't be written to");
        assert_eq!(refused(read, true).message(), expected);
        assert!(refused(write_end, false).message().contains("writing only"));
        assert!(refused(File::open("/").unwrap().into(), false).message().contains("a directory"));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(refused(listener.into(), false).message().contains("a listening socket"));
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = refused(datagrams.into(), true);
        assert_eq!((error.errno(), error.message().contains("no stream")), (libc::EPROTOTYPE, true));
    }
}
