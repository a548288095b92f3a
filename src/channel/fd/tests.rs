// SPDX-License-Identifier: LGPL-2.1-or-later
//! Channels over sockets, pipes and files, and what ends their waits.

use super::*;
use crate::channel::testing::*;
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

/// Bytes that exceed any socket's or pipe's buffer, so that writes are short and return EAGAIN.
const BIG: usize = 3 << 20;

#[test]
fn bytes_that_the_peer_has_not_read_are_in_flight() {
    let (near, mut far) = sockets();
    assert_eq!(near.in_flight(), 0);
    write(&*near, &pattern(10_000)).unwrap();
    assert!(near.in_flight() >= 10_000, "{}", near.in_flight());
    far.read_exact(&mut [0; 10_000]).unwrap();
    assert_eq!(near.in_flight(), 0);
    let (read, write) = pipes();
    assert_eq!((read.in_flight(), write.in_flight()), (0, 0));
}

#[test]
fn socket_carries_more_than_its_buffer_in_both_directions() {
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

/// Returns how many bytes a socket accepts that the peer does not read.
fn taken(socket: impl Into<OwnedFd>) -> usize {
    let near = channel(socket, true);
    near.set_stall_limit(Some(Duration::ZERO));
    let step = pattern(1 << 12);
    (0..BIG).step_by(step.len()).take_while(|_| write(&*near, &step).is_ok()).count() * step.len()
}

#[test]
fn written_unix_socket_has_a_larger_buffer() {
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
fn tcp_socket_sends_small_writes_at_once() {
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
fn pipe_carries_more_than_its_buffer_to_a_slow_reader() {
    let (read, write_end) = pipes();
    assert!(!read.is_duplex());
    let writer = thread::spawn(move || {
        write(&*write_end, &pattern(BIG)).unwrap();
        // The reader sees the end although the Arc still exists.
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
fn close_wakes_waits_and_the_last_user_frees_the_descriptor() {
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
fn peer_sees_shutdown_and_close_of_a_socket() {
    for end in [FdChannel::shutdown, FdChannel::close] {
        let (near, mut far) = sockets();
        let copy = far.try_clone().unwrap();
        end(&near).unwrap();
        assert_eq!(far.read(&mut [0]).unwrap(), 0);
        assert_eq!((&copy).write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}

#[test]
fn closed_peer_is_end_of_stream_and_broken_pipe() {
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
fn end_of_a_peer_is_known_before_its_bytes_are_read() {
    let (near, mut far) = sockets();
    far.write_all(b"last").unwrap();
    assert!(!near.peer_has_closed());
    drop(far);
    assert!(near.peer_has_closed());
    assert_eq!(read_to_end(&*near).unwrap(), b"last");
    let (read, write_end) = pipes();
    drop(write_end);
    assert!(!read.peer_has_closed());
}

#[test]
fn reads_and_writes_end_at_the_stall_limit() {
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
fn slow_peer_does_not_reach_the_stall_limit() {
    let (near, mut far) = sockets();
    near.set_stall_limit(Some(Duration::from_secs(5)));
    let peer = thread::spawn(move || {
        for byte in *b"slow but steady" {
            thread::sleep(Duration::from_millis(400));
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
fn regular_file_is_written_and_read() {
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
fn write_to_a_full_disk_fails() {
    let full = channel(File::options().write(true).open("/dev/full").unwrap(), true);
    assert_eq!(write(&*full, b"x").unwrap_err().raw_os_error(), Some(libc::ENOSPC));
}

#[test]
fn close_makes_a_pipe_blocking_again() {
    let (read, write_end) = pipe().unwrap();
    let shared = read.try_clone().unwrap();
    let reader = channel(read, false);
    assert!(set_nonblocking(shared.as_fd(), true).unwrap());
    drop(reader);
    assert!(!set_nonblocking(shared.as_fd(), false).unwrap());
    drop(write_end);
}

#[test]
fn descriptor_that_carries_no_stream_is_rejected() {
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
    assert_eq!((error.errno(), error.message().contains("not a stream socket")), (libc::EPROTOTYPE, true));
}
