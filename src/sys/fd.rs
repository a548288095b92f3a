// SPDX-License-Identifier: LGPL-2.1-or-later
//! File descriptors: reads and writes that never block on their own, and the wait that a wake-up always ends.

use super::{IoVec, Span};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

fn check(ret: isize) -> io::Result<usize> {
    usize::try_from(ret).map_err(|_| io::Error::last_os_error())
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// The descriptor can go on (or would report its error or end at once).
    Go,
    /// Somebody called `WakeFd::wake`.
    Woken,
    /// The deadline passed.
    TimedOut,
}

/// An event that ends the waits of one channel, for good.
pub struct WakeFd(OwnedFd);

impl WakeFd {
    /// A new event, not yet set.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked before it is owned.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) } as isize)?;
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
    }

    /// Ends the waits that there are and that there will be.
    pub fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the pointer is valid for 8 bytes. It can only fail when the counter is full, that is: set.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}

/// Waits until `fd` can be read (or written), until `wake` is set, or until `timeout` is over.
pub fn poll_fd(fd: BorrowedFd<'_>, write: bool, wake: &WakeFd, timeout: Option<Duration>) -> io::Result<Ready> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let events = if write { libc::POLLOUT } else { libc::POLLIN };
    let mut fds = [
        libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 },
        libc::pollfd { fd: wake.0.as_raw_fd(), events: libc::POLLIN, revents: 0 },
    ];
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let millis = left.map_or(-1, |left| i32::try_from(left.as_millis().saturating_add(1)).unwrap_or(i32::MAX));
        // SAFETY: `fds` is an array of two entries.
        match check(unsafe { libc::poll(fds.as_mut_ptr(), 2, millis) } as isize) {
            Ok(0) if left.is_some_and(|left| left.is_zero()) => return Ok(Ready::TimedOut),
            Ok(0) => {}
            Ok(_) if fds[1].revents != 0 => return Ok(Ready::Woken),
            Ok(_) => return Ok(Ready::Go),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
}

/// `read(2)`.
pub fn read_fd(fd: BorrowedFd<'_>, into: Span<'_>) -> io::Result<usize> {
    // SAFETY: a span is valid for writes of its length.
    check(unsafe { libc::read(fd.as_raw_fd(), into.address().cast(), into.len()) })
}

/// `writev(2)`.
pub fn write_fd(fd: BorrowedFd<'_>, pieces: &[IoVec]) -> io::Result<usize> {
    // SAFETY: the pieces are readable as their makers promised; the count fits (callers queue at most 64).
    check(unsafe { libc::writev(fd.as_raw_fd(), IoVec::as_raw(pieces), pieces.len() as libc::c_int) })
}

/// `recv(2)` that does not block, whatever the mode of the descriptor (which other processes may share).
pub fn recv_fd(fd: BorrowedFd<'_>, into: Span<'_>) -> io::Result<usize> {
    // SAFETY: a span is valid for writes of its length.
    check(unsafe { libc::recv(fd.as_raw_fd(), into.address().cast(), into.len(), libc::MSG_DONTWAIT) })
}

/// `sendmsg(2)` that neither blocks nor raises SIGPIPE.
pub fn send_fd(fd: BorrowedFd<'_>, pieces: &[IoVec]) -> io::Result<usize> {
    // SAFETY: all zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = IoVec::as_raw(pieces).cast_mut();
    message.msg_iovlen = pieces.len() as _;
    // SAFETY: the pieces are readable as their makers promised, and the kernel does not write to the array.
    check(unsafe { libc::sendmsg(fd.as_raw_fd(), &message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) })
}

/// The type of a socket (`SOCK_STREAM` ...), or `None` where `fd` is no socket.
pub fn socket_type(fd: BorrowedFd<'_>) -> Option<i32> {
    let mut kind: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointers are valid for the sizes given.
    let ret = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_TYPE, (&raw mut kind).cast(), &raw mut len)
    };
    (ret == 0).then_some(kind)
}

/// `shutdown(2)` of both directions.
pub fn shutdown_socket(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_RDWR) } as isize).map(drop)
}

/// Sets `O_NONBLOCK`.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) } as isize)?;
    // SAFETY: no pointers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags as libc::c_int | libc::O_NONBLOCK) } as isize)
        .map(drop)
}

/// Takes over a descriptor that a C caller gave away, after a check that it is open.
///
/// # Safety
/// The caller must own `fd` and give it up.
pub unsafe fn raw_close_on_drop(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; a closed or negative descriptor is an error here.
    check(unsafe { libc::fcntl(fd, libc::F_GETFD) } as isize)?;
    // SAFETY: it is open, and the caller gave it up.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
