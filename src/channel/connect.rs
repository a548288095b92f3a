// SPDX-License-Identifier: LGPL-2.1-or-later
//! The outgoing side of a channel: connects to a listener, or opens the target of a write.

use super::Channel;
use super::exec::ExecChannel;
use super::fd::FdChannel;
use super::uri::Uri;
use super::wait::{Cancel, Wait};
use crate::error::{Error, Result};
use crate::sync::{Mutex, Rank};
use crate::sys::{WakeFd, connect_tcp, connect_unix, spawn, tcp_socket, unix_socket};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Opens the outgoing side of `uri`.
///
/// - A socket is connected. A host name is looked up first, and its addresses are tried in turn.
/// - A file is created and truncated at the stream's start. Only its owner may read it, because it will hold guest
///   memory.
/// - A named pipe waits for a reader, as `open()` does.
/// - A command is started.
///
/// The call takes at most `limit` and ends at once when `cancel` is cancelled.
pub fn connect(uri: &Uri, limit: Option<Duration>, cancel: &Cancel) -> Result<Arc<dyn Channel>> {
    let what = if matches!(uri, Uri::File { .. }) { "opening" } else { "connecting to" };
    let wait = Wait::new(what, uri, limit, cancel);
    wait.check()?;
    let fd = match uri {
        Uri::Unix(path) => to_unix(path, &wait)?,
        Uri::Tcp { host, port } => to_tcp(host, *port, &wait)?,
        Uri::Fd(fd) => fd.take().map_err(|err| wait.failed(&err))?,
        Uri::File { path, offset } => create(path, *offset, &wait)?,
        Uri::Exec(command) => return Ok(Arc::new(ExecChannel::spawn(command, true)?)),
    };
    Ok(Arc::new(FdChannel::new(fd, true)?.named(uri).knowing_peer(uri)))
}

fn to_unix(path: &Path, wait: &Wait<'_>) -> Result<OwnedFd> {
    let socket = unix_socket().map_err(|err| wait.failed(&err))?;
    loop {
        match connect_unix(socket.as_fd(), path.as_os_str()) {
            Ok(()) => return Ok(socket),
            // The listener's queue is full. The system cannot poll for room in it.
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => wait.nap()?,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => wait.check()?,
            Err(err) => return Err(wait.failed(&err)),
        }
    }
}

fn to_tcp(host: &str, port: u16, wait: &Wait<'_>) -> Result<OwnedFd> {
    if host.is_empty() {
        return Err(Error::invalid(format!("tcp::{port} has no host to connect to; only a listener can do without")));
    }
    to_any(&resolve(host, port, wait)?, wait)
}

/// Connects to the first of the addresses that answers. The addresses share the time, so that one that does not answer
/// leaves time for the others.
fn to_any(addresses: &[SocketAddr], wait: &Wait<'_>) -> Result<OwnedFd> {
    let mut last = wait.failed(&io::Error::from_raw_os_error(libc::EADDRNOTAVAIL));
    for (at, addr) in addresses.iter().enumerate() {
        match to_address(addr, &wait.share(addresses.len() - at)) {
            Ok(socket) => return Ok(socket),
            Err(error) => {
                log::debug!("no connection to {addr}: {error}");
                last = error;
            }
        }
        wait.check()?;
    }
    Err(last)
}

fn to_address(addr: &SocketAddr, wait: &Wait<'_>) -> Result<OwnedFd> {
    let socket = tcp_socket(addr).map_err(|err| wait.failed(&err))?;
    match connect_tcp(socket.as_fd(), addr) {
        Ok(()) => {}
        Err(err) if matches!(err.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => {
            wait.ready(&[socket.as_fd()], true)?;
        }
        Err(err) => return Err(wait.failed(&err)),
    }
    let stream = TcpStream::from(socket);
    match stream.take_error() {
        Ok(None) => Ok(stream.into()),
        Ok(Some(err)) | Err(err) => Err(wait.failed(&err)),
    }
}

/// Returns the addresses of a host.
///
/// The system's resolver cannot be interrupted, so a thread looks up the name. If the wait ends early, the thread is
/// detached.
pub(super) fn resolve(host: &str, port: u16, wait: &Wait<'_>) -> Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let failed = |err: &io::Error| Error::io(format_args!("no address for host '{host}'"), err);
    let done = WakeFd::new().map_err(|err| wait.failed(&err))?;
    let shared = Arc::new((Mutex::new(Rank::Resolver, None), done));
    let (answer, name) = (shared.clone(), host.to_string());
    let lookup = move || {
        let found = (name.as_str(), port).to_socket_addrs().map(Iterator::collect);
        *answer.0.lock() = Some(found);
        answer.1.wake();
    };
    spawn("savevm-resolve", lookup).map_err(|err| wait.failed(&err))?;
    wait.ready(&[shared.1.as_fd()], false)?;
    let found = shared.0.take();
    found.unwrap_or_else(|| Ok(Vec::new())).map_err(|err| failed(&err))
}

/// Flags so that neither a named pipe without a peer nor a terminal blocks the open, and a terminal does not become the
/// controlling one.
pub(super) const OPEN_FLAGS: i32 = libc::O_NONBLOCK | libc::O_NOCTTY;

fn create(path: &Path, offset: u64, wait: &Wait<'_>) -> Result<OwnedFd> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(OPEN_FLAGS);
    let mut file = loop {
        match options.open(path) {
            Ok(file) => break file,
            Err(err) if err.raw_os_error() == Some(libc::ENXIO) && is_fifo(path) => {
                wait.nap().map_err(without_reader)?;
            }
            Err(err) => return Err(wait.failed(&err)),
        }
    };
    prepare(&mut file, offset).map_err(|err| wait.failed(&err))?;
    Ok(file.into())
}

fn without_reader(error: Error) -> Error {
    let text = format!("{}: no program has opened this named pipe to read from it", error.message());
    error.with_message(text)
}

fn is_fifo(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.file_type().is_fifo())
}

fn prepare(file: &mut File, offset: u64) -> io::Result<()> {
    if file.metadata()?.is_file() {
        file.set_len(offset)?;
    }
    seek(file, offset)
}

/// Seeks to the start of the stream. A pipe can only start at 0.
pub(super) fn seek(file: &mut File, offset: u64) -> io::Result<()> {
    if offset == 0 { Ok(()) } else { file.seek(SeekFrom::Start(offset)).map(drop) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::sys::{listen_tcp, listen_unix};
    use std::net::TcpListener;

    fn fails(text: &str) -> Error {
        let limit = Some(Duration::from_secs(5));
        connect(&text.parse().unwrap(), limit, &Cancel::new().unwrap()).err().unwrap()
    }

    #[test]
    fn connect_without_a_listener_names_the_uri() {
        let path = scratch_path("nobody");
        let error = fails(&format!("unix:{}", path.display()));
        assert_eq!(error.errno(), libc::ENOENT);
        assert!(error.message().starts_with(&format!("connecting to unix:{}", path.display())), "{error}");
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = fails(&format!("tcp:{free}"));
        assert_eq!(error.errno(), libc::ECONNREFUSED);
        assert_eq!(fails("file:/no-such-directory/x").errno(), libc::ENOENT);
        assert_eq!(fails("file:/").errno(), libc::EISDIR);
    }

    /// Checks that a limit and a cancel each end a blocked connect, and that an earlier cancel prevents it.
    fn hangs(uri: &Uri) {
        let cancel = Arc::new(Cancel::new().unwrap());
        let error = connect(uri, Some(Duration::from_millis(50)), &cancel).err().unwrap();
        assert_eq!(error.errno(), libc::ETIMEDOUT, "{error}");
        let (inner, name) = (cancel.clone(), uri.clone());
        let error = ended_by(move || connect(&name, None, &inner).err(), || cancel.cancel());
        assert_eq!(error.unwrap().errno(), libc::ECANCELED);
        assert_eq!(connect(uri, None, &cancel).err().unwrap().errno(), libc::ECANCELED);
    }

    #[test]
    fn connect_waits_for_a_full_unix_listener() {
        let path = scratch_path("full");
        let _listener = listen_unix(path.as_os_str(), 0).unwrap();
        let uri = Uri::Unix(path.clone());
        let _first = connect(&uri, None, &Cancel::new().unwrap()).unwrap();
        hangs(&uri);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn connect_waits_for_a_silent_tcp_listener() {
        let listener = TcpListener::from(listen_tcp(&"127.0.0.1:0".parse().unwrap(), false, 0).unwrap());
        let uri: Uri = format!("tcp:{}", listener.local_addr().unwrap()).parse().unwrap();
        let _first = connect(&uri, None, &Cancel::new().unwrap()).unwrap();
        hangs(&uri);
    }

    #[test]
    fn silent_address_leaves_time_for_the_next() {
        let silent = TcpListener::from(listen_tcp(&"127.0.0.1:0".parse().unwrap(), false, 0).unwrap());
        let _first = TcpStream::connect(silent.local_addr().unwrap()).unwrap();
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let [silent, open] = [&silent, &open].map(|listener| listener.local_addr().unwrap());
        let (cancel, uri) = (Cancel::new().unwrap(), "tcp:both:1".parse().unwrap());
        let within = |limit| Wait::new("connecting to", &uri, Some(limit), &cancel);
        let short = || within(Duration::from_millis(200));
        let socket = to_any(&[silent, open], &within(Duration::from_secs(6))).unwrap();
        assert_eq!(TcpStream::from(socket).peer_addr().unwrap(), open);
        let error = to_any(&[silent, silent], &short()).unwrap_err();
        assert_eq!(
            (error.errno(), error.message()),
            (libc::ETIMEDOUT, "connecting to tcp:both:1: not done within 200ms")
        );
        cancel.cancel();
        assert_eq!(to_any(&[silent, open], &short()).unwrap_err().errno(), libc::ECANCELED);
    }

    #[test]
    fn lookup_ends_when_cancelled() {
        let cancel = Cancel::new().unwrap();
        cancel.cancel();
        let uri = "tcp:localhost:1".parse().unwrap();
        let wait = Wait::new("connecting to", &uri, None, &cancel);
        assert_eq!(resolve("localhost", 1, &wait).unwrap_err().errno(), libc::ECANCELED);
        let cancel = Cancel::new().unwrap();
        let wait = Wait::new("connecting to", &uri, None, &cancel);
        assert!(resolve("localhost", 7, &wait).unwrap().iter().all(|addr| addr.ip().is_loopback() && addr.port() == 7));
    }
}
