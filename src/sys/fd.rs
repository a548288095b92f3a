// SPDX-License-Identifier: LGPL-2.1-or-later
//! File descriptors: reads, writes, and waits that a [`WakeFd`] ends.

use super::signals::Signals;
use super::{IoVec, Span};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

pub(super) fn check(ret: isize) -> io::Result<usize> {
    usize::try_from(ret).map_err(|_| io::Error::last_os_error())
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// A descriptor is ready, or would report an error or its end.
    Go,
    /// `WakeFd::wake` was called.
    Woken,
    /// The deadline passed.
    TimedOut,
}

/// An event that ends all waits of a channel, now and later.
#[derive(Debug)]
pub struct WakeFd(OwnedFd);

impl WakeFd {
    /// A new event, not yet set.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked before it is owned.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) } as isize)?;
        // SAFETY: the descriptor is new and has no other owner.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
    }

    /// Ends all waits, now and later.
    pub fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the pointer is valid for 8 bytes. It can only fail when the counter is full, that is: set.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}

impl AsFd for WakeFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until `fd` can be read (or written), until `wake` is set, or until `timeout` is over.
pub fn poll_fd(fd: BorrowedFd<'_>, write: bool, wake: &WakeFd, timeout: Option<Duration>) -> io::Result<Ready> {
    poll_any(&[fd], write, wake, timeout)
}

/// Waits until one of `fds` can be read (or written), until `wake` is set, or until `timeout` is over.
/// Without descriptors it is an interruptible sleep.
pub fn poll_any(fds: &[BorrowedFd<'_>], write: bool, wake: &WakeFd, timeout: Option<Duration>) -> io::Result<Ready> {
    // A timeout beyond the range of the clock means no timeout.
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let events = if write { libc::POLLOUT } else { libc::POLLIN };
    let mut polled = Vec::with_capacity(fds.len() + 1);
    polled.push(libc::pollfd { fd: wake.0.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    polled.extend(fds.iter().map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 }));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // Rounded up: the last part of a millisecond would be spent spinning.
        let millis = left.map_or(-1, |left| i32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX));
        // SAFETY: the pointer and the count are those of one vector.
        let ret = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, millis) };
        match check(ret as isize) {
            Ok(0) if left.is_some_and(|left| left.is_zero()) => return Ok(Ready::TimedOut),
            Ok(0) => {}
            Ok(_) if polled[0].revents != 0 => return Ok(Ready::Woken),
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

/// The pieces that one call accepts.
fn batch(pieces: &[IoVec]) -> &[IoVec] {
    &pieces[..pieces.len().min(libc::UIO_MAXIOV as usize)]
}

/// `writev(2)`.
pub fn write_fd(fd: BorrowedFd<'_>, pieces: &[IoVec]) -> io::Result<usize> {
    let pieces = batch(pieces);
    // SAFETY: the pieces are readable as their makers promised; the count is that of the slice.
    check(unsafe { libc::writev(fd.as_raw_fd(), IoVec::as_raw(pieces), pieces.len() as libc::c_int) })
}

/// `writev(2)` to a pipe without SIGPIPE, whatever its disposition is. Files and devices never raise it, and `send_fd`
/// disables it per call.
pub fn write_pipe(fd: BorrowedFd<'_>, pieces: &[IoVec]) -> io::Result<usize> {
    let waited = Signals::pending().has(libc::SIGPIPE);
    let sigpipe = Signals::of(&[libc::SIGPIPE]);
    sigpipe.also_blocked(|_| {
        let result = write_fd(fd, pieces);
        let broken = result.as_ref().is_err_and(|err| err.raw_os_error() == Some(libc::EPIPE));
        if broken && !waited {
            // The kernel sends it to the writing thread.
            sigpipe.take();
        }
        result
    })
}

/// A duplicate of a descriptor that the host owns, closed on exec.
pub fn duplicate_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked before it is owned.
    let fd = check(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) } as isize)?;
    // SAFETY: the descriptor is new and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// `recv(2)` that does not block, whatever the mode of the descriptor (which other processes may share).
pub fn recv_fd(fd: BorrowedFd<'_>, into: Span<'_>) -> io::Result<usize> {
    // SAFETY: a span is valid for writes of its length.
    check(unsafe { libc::recv(fd.as_raw_fd(), into.address().cast(), into.len(), libc::MSG_DONTWAIT) })
}

pub(super) fn places(into: &[Span<'_>]) -> Vec<libc::iovec> {
    into.iter().map(|span| libc::iovec { iov_base: span.address().cast(), iov_len: span.len() }).collect()
}

/// `readv(2)`.
pub fn read_scattered(fd: BorrowedFd<'_>, into: &[Span<'_>]) -> io::Result<usize> {
    let places = places(into);
    // SAFETY: spans are valid for writes of their lengths; the count is that of the vector.
    check(unsafe { libc::readv(fd.as_raw_fd(), places.as_ptr(), places.len() as libc::c_int) })
}

/// `recvmsg(2)` that does not block.
pub fn recv_scattered(fd: BorrowedFd<'_>, into: &[Span<'_>]) -> io::Result<usize> {
    let mut places = places(into);
    // SAFETY: all zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = places.as_mut_ptr();
    message.msg_iovlen = places.len() as _;
    // SAFETY: spans are valid for writes of their lengths; the count is that of the vector.
    check(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) })
}

/// `sendmsg(2)` that neither blocks nor raises SIGPIPE.
pub fn send_fd(fd: BorrowedFd<'_>, pieces: &[IoVec]) -> io::Result<usize> {
    let pieces = batch(pieces);
    // SAFETY: all zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = IoVec::as_raw(pieces).cast_mut();
    message.msg_iovlen = pieces.len() as _;
    // SAFETY: the pieces are readable as their makers promised, and the kernel does not write to the array.
    check(unsafe { libc::sendmsg(fd.as_raw_fd(), &message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) })
}

pub(super) fn status_flags(fd: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    // SAFETY: no pointers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) } as isize).map(|flags| flags as libc::c_int)
}

/// Whether the descriptor was opened for reading, and whether for writing.
pub fn access_of(fd: BorrowedFd<'_>) -> io::Result<(bool, bool)> {
    let flags = status_flags(fd)?;
    let mode = flags & libc::O_ACCMODE;
    let usable = flags & libc::O_PATH == 0;
    Ok((usable && mode != libc::O_WRONLY, usable && mode != libc::O_RDONLY))
}

/// Sets or clears `O_NONBLOCK`. Returns the setting before.
pub fn set_nonblocking(fd: BorrowedFd<'_>, nonblocking: bool) -> io::Result<bool> {
    let flags = status_flags(fd)?;
    let before = flags & libc::O_NONBLOCK != 0;
    if before != nonblocking {
        // SAFETY: no pointers.
        check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags ^ libc::O_NONBLOCK) } as isize)?;
    }
    Ok(before)
}

/// Keeps the descriptor out of programs that this process starts.
pub fn set_close_on_exec(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) } as isize).map(drop)
}

/// Gives an open file that has no name a name. It must not exist.
pub fn link_open_file(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let from = CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    let to = CString::new(path.as_os_str().as_bytes())?;
    let (at, flags) = (libc::AT_FDCWD, libc::AT_SYMLINK_FOLLOW);
    // SAFETY: both paths are terminated strings that outlive the call.
    check(unsafe { libc::linkat(at, from.as_ptr(), at, to.as_ptr(), flags) } as isize).map(drop)
}

/// `close(2)` with its result: a network file system reports failures of earlier writes there.
pub fn close_fd(fd: OwnedFd) -> io::Result<()> {
    // SAFETY: the descriptor was owned until here, and is not used again whatever the result: Linux has freed it.
    match check(unsafe { libc::close(fd.into_raw_fd()) } as isize) {
        Err(err) if err.kind() != io::ErrorKind::Interrupted => Err(err),
        _ => Ok(()),
    }
}

/// Whether a descriptor with this number is open.
pub fn is_open_fd(fd: RawFd) -> bool {
    // SAFETY: no pointers; a closed or negative descriptor is an error here.
    check(unsafe { libc::fcntl(fd, libc::F_GETFD) } as isize).is_ok()
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

/// Takes over a descriptor that a user named by its number and so gave up (`fd:N`).
///
/// The numbers of standard input, output and error stay occupied, by `/dev/null`, or the next file that is opened would
/// receive what the program prints.
pub fn take_named_fd(number: RawFd) -> io::Result<OwnedFd> {
    if number > libc::STDERR_FILENO {
        // SAFETY: giving the descriptor up is what the name means.
        return unsafe { raw_close_on_drop(number) };
    }
    // SAFETY: no pointers; the result is checked before it is owned.
    let copy = check(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, libc::STDERR_FILENO + 1) } as isize)?;
    // SAFETY: the descriptor is new and has no other owner.
    let copy = unsafe { OwnedFd::from_raw_fd(copy as RawFd) };
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    // SAFETY: no pointers; the number was given up, and is not without a descriptor at any time.
    check(unsafe { libc::dup2(null.as_raw_fd(), number) } as isize)?;
    Ok(copy)
}

/// Sends a signal to a process group.
pub fn signal_group(leader: u32, signal: i32) -> io::Result<()> {
    // 0 and 1 would mean the group of this process, and all processes.
    let Some(group) = libc::pid_t::try_from(leader).ok().filter(|group| *group > 1) else {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    };
    // SAFETY: no pointers.
    check(unsafe { libc::kill(-group, signal) } as isize).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, pipe};

    #[test]
    fn a_wake_up_comes_before_what_is_ready() {
        let (read, write) = pipe().unwrap();
        let wake = WakeFd::new().unwrap();
        assert_eq!(poll_fd(write.as_fd(), true, &wake, None).unwrap(), Ready::Go);
        let short = Some(Duration::from_millis(5));
        let before = Instant::now();
        assert_eq!(poll_fd(read.as_fd(), false, &wake, short).unwrap(), Ready::TimedOut);
        assert!(before.elapsed() >= Duration::from_millis(5));
        wake.wake();
        assert_eq!(poll_fd(write.as_fd(), true, &wake, None).unwrap(), Ready::Woken);
        assert_eq!(poll_any(&[], false, &wake, Some(Duration::MAX)).unwrap(), Ready::Woken);
    }

    #[test]
    fn a_broken_pipe_is_an_error_and_no_signal() {
        // Tests ignore SIGPIPE; with the default, a signal would end this process.
        // SAFETY: the default disposition needs no handler.
        let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        let (read, write) = pipe().unwrap();
        drop(read);
        let result = write_pipe(write.as_fd(), &[IoVec::from_static(b"x")]);
        // SAFETY: gives back what was there.
        unsafe { libc::signal(libc::SIGPIPE, before) };
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EPIPE));
    }

    #[test]
    fn more_pieces_than_one_call_takes_are_written_in_part() {
        let (mut read, write) = pipe().unwrap();
        let pieces = vec![IoVec::from_static(b"ab"); libc::UIO_MAXIOV as usize + 1];
        assert_eq!(write_pipe(write.as_fd(), &pieces).unwrap(), 2 * libc::UIO_MAXIOV as usize);
        let mut start = [0; 4];
        read.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"abab");
    }

    #[test]
    fn access_and_mode_are_told() {
        let (read, write) = pipe().unwrap();
        assert_eq!(access_of(read.as_fd()).unwrap(), (true, false));
        assert_eq!(access_of(write.as_fd()).unwrap(), (false, true));
        assert!(!set_nonblocking(read.as_fd(), true).unwrap());
        assert!(set_nonblocking(read.as_fd(), false).unwrap());
        assert!(!set_nonblocking(read.as_fd(), false).unwrap());
    }

    #[test]
    fn the_number_of_standard_input_stays_occupied() {
        let input = take_named_fd(libc::STDIN_FILENO).unwrap();
        assert!(input.as_raw_fd() > libc::STDERR_FILENO);
        let null = std::fs::File::from(take_named_fd(libc::STDIN_FILENO).unwrap());
        assert_eq!((&null).read(&mut [0]).unwrap(), 0);
        assert!(access_of(std::io::stdin().as_fd()).unwrap().0);
    }

    #[test]
    fn a_signal_never_goes_to_everybody() {
        for group in [0, 1, u32::MAX] {
            assert_eq!(signal_group(group, 0).unwrap_err().raw_os_error(), Some(libc::ESRCH));
        }
    }

    #[test]
    fn a_closed_descriptor_is_not_taken_over() {
        // SAFETY: an invalid descriptor is refused.
        let err = unsafe { raw_close_on_drop(-1) }.unwrap_err();
        assert_eq!(err.raw_os_error(), Some(libc::EBADF));
    }
}
