// SPDX-License-Identifier: LGPL-2.1-or-later
//! Sockets beyond `std`: a connect that does not block, and options that must be set before bind.

use super::fd::check;
use std::ffi::OsStr;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

/// The longest path of a Unix socket, in bytes.
pub const UNIX_PATH_MAX: usize = 107;

/// Kind of a socket, from `getsockopt(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketKind {
    /// A byte stream, `SOCK_STREAM`.
    pub stream: bool,
    /// A listening socket.
    pub listening: bool,
    /// A Unix socket, over which descriptors can travel.
    pub unix: bool,
}

fn get_option(fd: BorrowedFd<'_>, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointers are valid for the sizes given.
    let ret =
        unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut len) };
    check(ret as isize).map(|_| value)
}

fn set_option(fd: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer is valid for the size given.
    let ret = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    check(ret as isize).map(drop)
}

/// The kind of a socket. Fails if `fd` is not a socket.
pub fn socket_kind(fd: BorrowedFd<'_>) -> io::Result<SocketKind> {
    Ok(SocketKind {
        stream: get_option(fd, libc::SO_TYPE)? == libc::SOCK_STREAM,
        listening: get_option(fd, libc::SO_ACCEPTCONN)? != 0,
        unix: get_option(fd, libc::SO_DOMAIN)? == libc::AF_UNIX,
    })
}

/// Send buffer of a Unix socket in bytes. With the default of 0.2 MB writer and reader wait for each other, which takes
/// a third of the time. More than this gained nothing, and requested pages of a postcopy wait behind the queue.
const ON_ITS_WAY: libc::c_int = 1 << 20;

/// Enlarges the send buffer of a Unix socket as far as the system allows. Other sockets are not changed: TCP tunes its
/// buffer itself.
pub fn make_room(fd: BorrowedFd<'_>) {
    let is = |name, wanted: fn(libc::c_int) -> bool| get_option(fd, name).is_ok_and(wanted);
    // The kernel doubles the value to allow for its own overhead.
    if is(libc::SO_DOMAIN, |domain| domain == libc::AF_UNIX) && is(libc::SO_SNDBUF, |size| size < 2 * ON_ITS_WAY) {
        let result = set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, ON_ITS_WAY)
            .or_else(|_| set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, ON_ITS_WAY));
        if let Err(err) = result {
            log::debug!("a larger socket buffer: {err}");
        }
    }
}

/// Disables the delay of small packets (TCP_NODELAY): the peer waits for each page request and acknowledgement, and
/// files write large blocks.
pub fn send_at_once(fd: BorrowedFd<'_>) {
    let _ = set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
}

/// Returns the bytes that were written to a socket and that the peer, or its kernel, has not taken yet (`SIOCOUTQ`). For a
/// Unix socket the kernel counts its own overhead as well.
pub fn unsent_bytes(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel stores an int in `bytes`, which lives until the call returns.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) } as isize)?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// `shutdown(2)` of both directions.
pub fn shutdown_socket(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_RDWR) } as isize).map(drop)
}

/// Whether the peer of a stream socket has ended its writes, also behind bytes that are still to be read.
pub fn peer_has_closed(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut polled = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: the pointer is that of one `pollfd`.
    check(unsafe { libc::poll(&raw mut polled, 1, 0) } as isize)?;
    Ok(polled.revents & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0)
}

/// `shutdown(2)` of the receiving direction.
pub fn end_socket_reads(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_RD) } as isize).map(drop)
}

fn new_socket(family: libc::c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers; the result is checked before it is owned.
    let fd = check(unsafe { libc::socket(family, kind, 0) } as isize)?;
    // SAFETY: the descriptor is new and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn raw_v4(addr: &SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: addr.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(addr.ip().octets()) },
        sin_zero: [0; 8],
    }
}

fn raw_v6(addr: &SocketAddrV6) -> libc::sockaddr_in6 {
    libc::sockaddr_in6 {
        sin6_family: libc::AF_INET6 as libc::sa_family_t,
        sin6_port: addr.port().to_be(),
        sin6_flowinfo: addr.flowinfo(),
        sin6_addr: libc::in6_addr { s6_addr: addr.ip().octets() },
        sin6_scope_id: addr.scope_id(),
    }
}

/// Calls `with` with the address as a `sockaddr`.
fn with_raw<T>(addr: &SocketAddr, with: impl FnOnce(*const libc::sockaddr, libc::socklen_t) -> T) -> T {
    match addr {
        SocketAddr::V4(addr) => {
            let form = raw_v4(addr);
            with((&raw const form).cast(), size_of_val(&form) as libc::socklen_t)
        }
        SocketAddr::V6(addr) => {
            let form = raw_v6(addr);
            with((&raw const form).cast(), size_of_val(&form) as libc::socklen_t)
        }
    }
}

/// A TCP socket, not connected: `connect_tcp` starts that.
pub fn tcp_socket(addr: &SocketAddr) -> io::Result<OwnedFd> {
    new_socket(if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 })
}

/// Starts a connect. After `ErrorKind::InProgress` (or `Interrupted`) wait until the socket is writable, then read its
/// error.
pub fn connect_tcp(fd: BorrowedFd<'_>, addr: &SocketAddr) -> io::Result<()> {
    // SAFETY: the pointer is valid for the length during the call.
    check(with_raw(addr, |raw, len| unsafe { libc::connect(fd.as_raw_fd(), raw, len) }) as isize).map(drop)
}

/// A bound and listening TCP socket, not blocking. `v6only` is for IPv6: whether it refuses IPv4.
pub fn listen_tcp(addr: &SocketAddr, v6only: bool, backlog: i32) -> io::Result<OwnedFd> {
    let fd = tcp_socket(addr)?;
    set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if addr.is_ipv6() {
        set_option(fd.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, v6only.into())?;
    }
    // SAFETY: the pointer is valid for the length during the call.
    check(with_raw(addr, |raw, len| unsafe { libc::bind(fd.as_raw_fd(), raw, len) }) as isize)?;
    // SAFETY: no pointers.
    check(unsafe { libc::listen(fd.as_raw_fd(), backlog) } as isize)?;
    Ok(fd)
}

/// Accepts a connection on a non-blocking socket of any family. The connection is close-on-exec.
pub fn accept_socket(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let (nobody, nothing) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the peer's address is not asked for; the result is checked before it is owned.
    let fd = check(unsafe { libc::accept4(fd.as_raw_fd(), nobody, nothing, libc::SOCK_CLOEXEC) } as isize)?;
    // SAFETY: the descriptor is new and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// A Unix socket, not connected: `connect_unix` does that.
pub fn unix_socket() -> io::Result<OwnedFd> {
    new_socket(libc::AF_UNIX)
}

fn raw_unix(path: &OsStr) -> io::Result<libc::sockaddr_un> {
    let bytes = path.as_bytes();
    if bytes.len() > UNIX_PATH_MAX || bytes.contains(&0) {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    // SAFETY: all zero is a valid sockaddr_un. It stays so after the path, which makes that end with a zero byte.
    let mut form: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    form.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in form.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    Ok(form)
}

/// Connects without waiting. Fails with `ErrorKind::WouldBlock` if the listener's queue is full.
pub fn connect_unix(fd: BorrowedFd<'_>, path: &OsStr) -> io::Result<()> {
    let form = raw_unix(path)?;
    let len = size_of_val(&form) as libc::socklen_t;
    // SAFETY: the pointer is valid for the length.
    check(unsafe { libc::connect(fd.as_raw_fd(), (&raw const form).cast(), len) } as isize).map(drop)
}

/// A bound and listening Unix socket, not blocking. Creates the file, which must not exist.
pub fn listen_unix(path: &OsStr, backlog: i32) -> io::Result<OwnedFd> {
    let form = raw_unix(path)?;
    let len = size_of_val(&form) as libc::socklen_t;
    let fd = unix_socket()?;
    // SAFETY: the pointer is valid for the length.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const form).cast(), len) } as isize)?;
    // SAFETY: no pointers.
    check(unsafe { libc::listen(fd.as_raw_fd(), backlog) } as isize)?;
    Ok(fd)
}
