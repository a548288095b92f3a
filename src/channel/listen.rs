// SPDX-License-Identifier: LGPL-2.1-or-later
//! The incoming side of a channel: listens for a connection, or opens the source of a read.

use super::Channel;
use super::connect::{OPEN_FLAGS, resolve, seek};
use super::exec::ExecChannel;
use super::fd::FdChannel;
use super::uri::Uri;
use super::wait::{Cancel, Wait};
use crate::error::{Error, Result};
use crate::sync::{Mutex, Rank};
use crate::sys::{accept_socket, listen_tcp, listen_unix, set_close_on_exec, set_nonblocking, socket_kind};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Most connections that wait to be accepted.
const BACKLOG: i32 = 16;
/// Longest lookup of a host name in `bind`.
const LOOKUP_LIMIT: Duration = Duration::from_secs(30);

/// The file of a Unix socket. Dropping this removes the file, unless another file has replaced it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|data| (data.dev(), data.ino()) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A channel that exists from the start. It is returned once.
#[derive(Clone, Debug)]
enum Opened {
    Fd(Arc<FdChannel>),
    Exec(Arc<ExecChannel>),
}

#[derive(Debug)]
enum Source {
    Sockets(Vec<OwnedFd>),
    Opened(Mutex<Option<Opened>>),
}

/// The incoming side of a URI: a listening socket, or an open descriptor, file or command.
#[derive(Debug)]
pub struct Listener {
    uri: Uri,
    source: Source,
    _file: Option<SocketFile>,
}

impl Listener {
    /// Listens on, or opens, the incoming side of `uri`.
    ///
    /// A Unix socket replaces an earlier socket at its path, but no other file. A TCP listener listens on all addresses
    /// of its host, and without a host on all of the machine, as in QEMU. `fd:N` may be a connection, a pipe, a file or
    /// a listening socket. A command is started here.
    pub fn bind(uri: &Uri) -> Result<Self> {
        let failed = |err: &io::Error| Error::io(format_args!("listening on {uri}"), err);
        let mut bound = uri.clone();
        let mut socket_file = None;
        let source = match uri {
            Uri::Unix(path) => {
                let (socket, file) = bind_unix(path, failed)?;
                socket_file = Some(file);
                Source::Sockets(vec![socket])
            }
            Uri::Tcp { host, port } => {
                let (sockets, port) = bind_tcp(uri, host, *port)?;
                bound = Uri::Tcp { host: host.clone(), port };
                Source::Sockets(sockets)
            }
            Uri::Fd(named) => {
                let fd = named.take().map_err(|err| failed(&err))?;
                if socket_kind(fd.as_fd()).is_ok_and(|kind| kind.stream && kind.listening) {
                    set_close_on_exec(fd.as_fd()).map_err(|err| failed(&err))?;
                    set_nonblocking(fd.as_fd(), true).map_err(|err| failed(&err))?;
                    Source::Sockets(vec![fd])
                } else {
                    Source::opened(Opened::Fd(Arc::new(FdChannel::new(fd, false)?.named(uri))))
                }
            }
            Uri::File { path, offset } => {
                let mut file = open_file(path).map_err(|err| Error::io(format_args!("opening {uri}"), &err))?;
                seek(&mut file, *offset).map_err(|err| failed(&err))?;
                Source::opened(Opened::Fd(Arc::new(FdChannel::new(file.into(), false)?.named(uri))))
            }
            Uri::Exec(command) => Source::opened(Opened::Exec(Arc::new(ExecChannel::spawn(command, false)?))),
        };
        Ok(Self { uri: bound, source, _file: socket_file })
    }

    /// Returns the URI that it listens on, with the port that the system chose instead of port 0.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Returns whether it accepts any number of connections, as a listening socket does.
    pub fn accepts_more(&self) -> bool {
        matches!(self.source, Source::Sockets(_))
    }

    /// Waits for a connection, or until the opened descriptor, file or command has bytes or the end of the stream.
    ///
    /// The call takes at most `limit` and ends at once when `cancel` is cancelled; it can be repeated. Sockets accept
    /// any number of connections. Everything else is returned once.
    pub fn accept(&self, limit: Option<Duration>, cancel: &Cancel) -> Result<Arc<dyn Channel>> {
        let what = if self.accepts_more() { "waiting for a connection on" } else { "waiting for data from" };
        let wait = Wait::new(what, &self.uri, limit, cancel);
        wait.check()?;
        match &self.source {
            Source::Sockets(sockets) => {
                let socket = accept_any(sockets, &wait)?;
                Ok(Arc::new(FdChannel::new(socket, false)?.named(&self.uri).knowing_peer(&self.uri)))
            }
            Source::Opened(slot) => {
                let gone =
                    || Error::new(libc::EALREADY, format!("{} was accepted before, and there is only one", self.uri));
                let opened = slot.lock().clone().ok_or_else(gone)?;
                wait.ready_by(|wake, left| match &opened {
                    Opened::Fd(channel) => channel.wait_readable(wake, left),
                    Opened::Exec(channel) => channel.wait_readable(wake, left),
                })?;
                Ok(match slot.take().ok_or_else(gone)? {
                    Opened::Fd(channel) => channel,
                    Opened::Exec(channel) => channel,
                })
            }
        }
    }
}

impl Source {
    fn opened(channel: Opened) -> Self {
        Self::Opened(Mutex::new(Rank::Listener, Some(channel)))
    }
}

fn accept_any(sockets: &[OwnedFd], wait: &Wait<'_>) -> Result<OwnedFd> {
    loop {
        for socket in sockets {
            match accept_socket(socket.as_fd()) {
                Ok(connection) => return Ok(connection),
                Err(err) if is_temporary(&err) => {}
                Err(err) => return Err(wait.failed(&err)),
            }
        }
        let fds: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        wait.ready(&fds, false)?;
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(OPEN_FLAGS).open(path)?;
    // Without this, reading the directory fails later.
    if file.metadata()?.is_dir() { Err(io::Error::from_raw_os_error(libc::EISDIR)) } else { Ok(file) }
}

/// Returns whether the error is temporary: no peer yet, or a connection that was lost before it was accepted.
fn is_temporary(err: &io::Error) -> bool {
    use libc::{EAGAIN, ECONNABORTED, EHOSTUNREACH, EINTR, ENETDOWN, ENETUNREACH, EPROTO};
    matches!(err.raw_os_error(), Some(EAGAIN | EINTR | ECONNABORTED | EPROTO | ENETDOWN | ENETUNREACH | EHOSTUNREACH))
}

fn bind_unix(path: &Path, failed: impl Fn(&io::Error) -> Error) -> Result<(OwnedFd, SocketFile)> {
    match fs::symlink_metadata(path) {
        Ok(data) if data.file_type().is_socket() => fs::remove_file(path).map_err(|err| failed(&err))?,
        Ok(_) => {
            let text = format!("listening on unix:{}: the path is a file and not a socket", path.display());
            return Err(Error::new(libc::EEXIST, text));
        }
        Err(_) => {}
    }
    let socket = listen_unix(path.as_os_str(), BACKLOG).map_err(|err| failed(&err))?;
    // An absolute path, because the program may change its directory before the file is removed.
    let path = std::path::absolute(path).map_err(|err| failed(&err))?;
    let data = fs::symlink_metadata(&path).map_err(|err| failed(&err))?;
    Ok((socket, SocketFile { path, identity: (data.dev(), data.ino()) }))
}

/// Listens on every address of the host with the same port. Returns the port.
fn bind_tcp(uri: &Uri, host: &str, port: u16) -> Result<(Vec<OwnedFd>, u16)> {
    let cancel = Cancel::new()?;
    let wait = Wait::new("listening on", uri, Some(LOOKUP_LIMIT), &cancel);
    let addresses = if host.is_empty() {
        vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))]
    } else {
        resolve(host, port, &wait)?
    };
    let mut sockets = Vec::new();
    let mut bound = port;
    let mut first_error = None;
    for mut addr in addresses {
        addr.set_port(bound);
        // Without a host, IPv4 has a socket of its own.
        match listen_tcp(&addr, host.is_empty(), BACKLOG).and_then(with_port) {
            Ok((socket, number)) => {
                bound = number;
                sockets.push(socket);
            }
            // Another program has the port on one of the host's addresses. Peers could reach that program, so this is
            // an error.
            Err(err) if port != 0 && err.kind() == io::ErrorKind::AddrInUse => return Err(wait.failed(&err)),
            Err(err) => {
                log::debug!("not listening on {addr}: {err}");
                first_error.get_or_insert(err);
            }
        }
    }
    if sockets.is_empty() {
        let err = first_error.unwrap_or_else(|| io::Error::from_raw_os_error(libc::EADDRNOTAVAIL));
        return Err(wait.failed(&err));
    }
    Ok((sockets, bound))
}

fn with_port(socket: OwnedFd) -> io::Result<(OwnedFd, u16)> {
    let listener = TcpListener::from(socket);
    let port = listener.local_addr()?.port();
    Ok((listener.into(), port))
}

#[cfg(test)]
mod tests {
    use super::super::connect;
    use super::super::testing::*;
    use super::*;
    use std::io::pipe;
    use std::os::fd::{AsRawFd, IntoRawFd};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::thread;

    const LIMIT: Option<Duration> = Some(Duration::from_secs(5));

    fn uri(text: impl ToString) -> Uri {
        text.to_string().parse().unwrap()
    }

    fn bind(text: impl ToString) -> Listener {
        Listener::bind(&uri(text)).unwrap()
    }

    fn accept(listener: &Listener) -> Arc<dyn Channel> {
        listener.accept(LIMIT, &Cancel::new().unwrap()).unwrap()
    }

    /// Sends both ways through one connection, then checks the end of the stream.
    fn exercise(listener: &Listener, to: &Uri) {
        let near = connect(to, LIMIT, &Cancel::new().unwrap()).unwrap();
        let far = accept(listener);
        assert!(near.is_duplex() && far.is_duplex());
        write(&*near, b"ping").unwrap();
        assert_eq!(read_some(&*far, 9).unwrap(), b"ping");
        write(&*far, b"pong").unwrap();
        assert_eq!(read_some(&*near, 9).unwrap(), b"pong");
        near.close().unwrap();
        assert_eq!(read_some(&*far, 9).unwrap(), b"");
    }

    #[test]
    fn unix_listener_accepts_repeatedly_and_removes_its_file() {
        let path = scratch_path("unix");
        let listener = bind(format_args!("unix:{}", path.display()));
        exercise(&listener, listener.uri());
        exercise(&listener, listener.uri());
        assert!(path.exists());
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn stale_socket_is_replaced_and_no_other_file() {
        let path = scratch_path("stale");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let first = bind(format_args!("unix:{}", path.display()));
        let second = bind(format_args!("unix:{}", path.display()));
        drop(first);
        exercise(&second, second.uri());
        drop(second);
        fs::write(&path, "precious").unwrap();
        let error = Listener::bind(&uri(format_args!("unix:{}", path.display()))).unwrap_err();
        assert_eq!(error.errno(), libc::EEXIST);
        assert!(error.message().contains("not a socket"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::remove_file(path).unwrap();
    }

    fn port_of(listener: &Listener) -> u16 {
        match listener.uri() {
            Uri::Tcp { port, .. } => *port,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn tcp_listener_returns_its_port_and_accepts_host_names() {
        let listener = bind("tcp:127.0.0.1:0");
        assert_ne!(port_of(&listener), 0);
        exercise(&listener, listener.uri());
        let named = bind("tcp:localhost:0");
        exercise(&named, named.uri());
    }

    #[test]
    fn tcp_without_a_host_listens_on_all_addresses() {
        let listener = bind("tcp::0");
        let port = port_of(&listener);
        exercise(&listener, &uri(format_args!("tcp:127.0.0.1:{port}")));
        if TcpListener::bind("[::1]:0").is_ok() {
            exercise(&listener, &uri(format_args!("tcp:[::1]:{port}")));
        } else {
            println!("no IPv6 loopback: only IPv4 is tested");
        }
        let error = connect(listener.uri(), LIMIT, &Cancel::new().unwrap()).err().unwrap();
        assert!(error.message().contains("no host to connect to"), "{error}");
    }

    #[test]
    fn port_in_use_is_an_error() {
        let first = bind("tcp:127.0.0.1:0");
        let error = Listener::bind(first.uri()).unwrap_err();
        assert_eq!(error.errno(), libc::EADDRINUSE);
        assert!(error.message().starts_with("listening on tcp:127.0.0.1:"), "{error}");
    }

    #[test]
    fn accept_ends_at_its_limit_and_when_cancelled() {
        let cancel = Cancel::new().unwrap();
        let path = scratch_path("wait");
        let listener = Arc::new(bind(format_args!("unix:{}", path.display())));
        let error = listener.accept(Some(Duration::from_millis(20)), &cancel).err().unwrap();
        assert_eq!(error.errno(), libc::ETIMEDOUT);
        assert!(error.message().ends_with("not done within 20ms"), "{error}");
        exercise(&listener, listener.uri());
        let (waiter, cancel) = (listener.clone(), Arc::new(cancel));
        let inner = cancel.clone();
        let result = ended_by(move || waiter.accept(None, &inner).err(), || cancel.cancel());
        assert_eq!(result.unwrap().errno(), libc::ECANCELED);
        let _pending = UnixStream::connect(&path).unwrap();
        assert!(cancel.is_cancelled());
        assert_eq!(listener.accept(None, &cancel).err().unwrap().errno(), libc::ECANCELED);
    }

    #[test]
    fn descriptor_is_owned_and_accepted_once() {
        let (read, write_end) = pipe().unwrap();
        let read = read.into_raw_fd();
        let listener = Arc::new(bind(format_args!("fd:{read}")));
        let (cancel, waiter) = (Cancel::new().unwrap(), listener.clone());
        let error = listener.accept(Some(Duration::from_millis(20)), &cancel).err().unwrap();
        assert_eq!(error.errno(), libc::ETIMEDOUT);
        let name = uri(format_args!("fd:{}", write_end.into_raw_fd()));
        let outgoing = connect(&name, LIMIT, &cancel).unwrap();
        let incoming = ended_by(move || accept(&waiter), || write(&*outgoing, b"now").unwrap());
        outgoing.close().unwrap();
        assert_eq!(read_to_end(&*incoming).unwrap(), b"now");
        let error = listener.accept(LIMIT, &cancel).err().unwrap();
        assert!(error.message().contains("accepted before"), "{error}");
    }

    #[test]
    fn listening_descriptor_accepts() {
        let path = scratch_path("passed");
        let passed = UnixListener::bind(&path).unwrap();
        let listener = bind(format_args!("fd:{}", passed.into_raw_fd()));
        exercise(&listener, &uri(format_args!("unix:{}", path.display())));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn bad_descriptors_are_rejected() {
        let (read, _write) = pipe().unwrap();
        let number = read.as_raw_fd();
        let error = connect(&uri(format_args!("fd:{}", read.into_raw_fd())), LIMIT, &Cancel::new().unwrap());
        assert_eq!(error.err().unwrap().errno(), libc::EBADF, "descriptor {number}");
        assert_eq!(Listener::bind(&Uri::Fd((1 << 30).into())).unwrap_err().errno(), libc::EBADF);
        assert_eq!(Listener::bind(&Uri::Fd((-1).into())).unwrap_err().errno(), libc::EBADF);
    }

    #[test]
    fn file_is_written_and_read_at_its_offset() {
        let path = scratch_path("file");
        fs::write(&path, "HEADER and old stuff that is too long").unwrap();
        let name = uri(format_args!("file:{},offset=6", path.display()));
        let cancel = Cancel::new().unwrap();
        let writer = connect(&name, LIMIT, &cancel).unwrap();
        write(&*writer, b"stream").unwrap();
        writer.close().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"HEADERstream");
        let listener = Listener::bind(&name).unwrap();
        assert_eq!(read_to_end(&*accept(&listener)).unwrap(), b"stream");
        fs::remove_file(&path).unwrap();
        assert_eq!(Listener::bind(&name).unwrap_err().errno(), libc::ENOENT);
        connect(&uri(format_args!("file:{}", path.display())), LIMIT, &cancel).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn named_pipe_waits_for_its_other_end() {
        let path = scratch_path("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let name = uri(format_args!("file:{}", path.display()));
        let cancel = Arc::new(Cancel::new().unwrap());
        let error = connect(&name, Some(Duration::from_millis(50)), &cancel).err().unwrap();
        assert_eq!(error.errno(), libc::ETIMEDOUT);
        let cause = "not done within 50ms: no program has opened this named pipe to read from it";
        assert_eq!(error.message(), format!("opening {name}: {cause}"));
        let listener = Listener::bind(&name).unwrap();
        let error = listener.accept(Some(Duration::from_millis(20)), &cancel).err().unwrap();
        assert_eq!(error.errno(), libc::ETIMEDOUT);
        assert_eq!(error.message(), format!("waiting for data from {name}: not done within 20ms"));
        let (writer_name, inner) = (name.clone(), cancel.clone());
        let writer = thread::spawn(move || {
            let writer = connect(&writer_name, LIMIT, &inner).unwrap();
            write(&*writer, &pattern(200_000)).unwrap();
        });
        assert!(read_to_end(&*accept(&listener)).unwrap() == pattern(200_000));
        writer.join().unwrap();
        drop(listener);
        let (inner, fifo) = (cancel.clone(), name);
        let result = ended_by(move || connect(&fifo, None, &inner).err(), || cancel.cancel());
        assert_eq!(result.unwrap().errno(), libc::ECANCELED);
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn command_writes_and_reads_a_stream() {
        let path = scratch_path("command");
        let cancel = Cancel::new().unwrap();
        let out = connect(&uri(format_args!("exec:cat > {}", path.display())), LIMIT, &cancel).unwrap();
        write(&*out, b"state").unwrap();
        out.close().unwrap();
        let listener = bind(format_args!("exec:sleep 0.1; cat {}", path.display()));
        let incoming = accept(&listener);
        assert_eq!(read_to_end(&*incoming).unwrap(), b"state");
        incoming.close().unwrap();
        assert_eq!(listener.accept(LIMIT, &cancel).err().unwrap().errno(), libc::EALREADY);
        fs::remove_file(path).unwrap();
    }
}
