// SPDX-License-Identifier: LGPL-2.1-or-later
//! Descriptors that travel over a Unix socket (`SCM_RIGHTS`, unix(7)).

use super::Span;
use super::fd::{check, places};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Most descriptors in one message.
pub const DESCRIPTORS_MAX: usize = 16;

/// Space for the descriptors of one message, aligned as the kernel wants it.
type Control = [u64; 16];

fn message(places: &mut [libc::iovec], control: &mut Control, length: usize) -> libc::msghdr {
    // SAFETY: all zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = places.as_mut_ptr();
    message.msg_iovlen = places.len() as _;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = length as _;
    message
}

/// Sends bytes with descriptors, which stay open here. Does not block.
pub fn send_with_fds(fd: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    send_with_numbers(fd, bytes, &fds.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>())
}

/// As `send_with_fds`, with descriptors by number. Fails with `EBADF` if one is not open.
pub fn send_with_numbers(fd: BorrowedFd<'_>, bytes: &[u8], numbers: &[RawFd]) -> io::Result<usize> {
    if numbers.len() > DESCRIPTORS_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let size = size_of_val(numbers) as libc::c_uint;
    let mut control = Control::default();
    let mut place = [libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }];
    // SAFETY: a computation without pointers.
    let space = if numbers.is_empty() { 0 } else { unsafe { libc::CMSG_SPACE(size) as usize } };
    debug_assert!(space <= size_of::<Control>());
    let mut message = message(&mut place, &mut control, space);
    if !numbers.is_empty() {
        // SAFETY: `control` has room for one header with the numbers, as DESCRIPTORS_MAX limits them.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size) as _;
            std::ptr::copy_nonoverlapping(numbers.as_ptr(), libc::CMSG_DATA(header).cast::<RawFd>(), numbers.len());
        }
    }
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the message refers to memory that is valid for its sizes; the kernel only reads it.
    check(unsafe { libc::sendmsg(fd.as_raw_fd(), &raw mut message, flags) })
}

/// Receives bytes, and the descriptors that came with them. Does not block. Fails if there were too many descriptors.
pub fn recv_with_fds(fd: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    recv_scattered_with_fds(fd, &[Span::from_slice(into)])
}

/// As `recv_with_fds`, into several places in their order.
pub fn recv_scattered_with_fds(fd: BorrowedFd<'_>, into: &[Span<'_>]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = Control::default();
    let mut places = places(into);
    let mut message = message(&mut places, &mut control, size_of::<Control>());
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
    // SAFETY: the spans are valid for writes of their lengths, and the control data for its size.
    let count = check(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, flags) })?;
    let mut fds = Vec::new();
    // SAFETY: the kernel filled in the control data, whose headers these macros walk within its length.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if ((*header).cmsg_level, (*header).cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                for at in 0..bytes / size_of::<RawFd>() {
                    // Each number is new and has no other owner.
                    fds.push(OwnedFd::from_raw_fd(data.add(at).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    if message.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(io::Error::other("too many descriptors, or no room for them in this process"));
    }
    Ok((count, fds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn descriptors_arrive_with_their_bytes() {
        let (one, other) = UnixStream::pair().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        assert_eq!(send_with_fds(one.as_fd(), b"ab", &[reader.as_fd()]).unwrap(), 2);
        assert_eq!(send_with_fds(one.as_fd(), b"c", &[]).unwrap(), 1);
        let mut bytes = [0; 8];
        let (count, fds) = recv_with_fds(other.as_fd(), &mut bytes).unwrap();
        assert_eq!((count, fds.len(), &bytes[..2]), (2, 1, &b"ab"[..]));
        writer.write_all(b"x").unwrap();
        let mut received = std::fs::File::from(fds.into_iter().next().unwrap());
        assert!(received.stream_position().is_err(), "it is the pipe");
        received.read_exact(&mut bytes[..1]).unwrap();
        assert_eq!(bytes[0], b'x');
        assert_eq!(recv_with_fds(other.as_fd(), &mut bytes).unwrap().1.len(), 0);
        let many = vec![reader.as_fd(); DESCRIPTORS_MAX + 1];
        assert!(send_with_fds(one.as_fd(), b"x", &many).is_err());
        let error = recv_with_fds(other.as_fd(), &mut bytes).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
