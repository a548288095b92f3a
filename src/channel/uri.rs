// SPDX-License-Identifier: LGPL-2.1-or-later
//! URIs of channels, in QEMU's syntax (`migration/migration.c`, `util/qemu-sockets.c`; `file:` as in QEMU 8.2 and
//! later).

use super::NamedFd;
use crate::error::{Error, Result};
use crate::sys::UNIX_PATH_MAX;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

/// The target or source of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uri {
    /// `unix:PATH`: a Unix stream socket.
    Unix(PathBuf),
    /// `tcp:HOST:PORT`. The host is a name, an IPv4 address, or an IPv6 address in brackets. Without a host, a listener
    /// listens on all addresses. With port 0, the system chooses the port of a listener.
    Tcp {
        /// Name or address, without brackets; may be empty.
        host: String,
        /// Port number.
        port: u16,
    },
    /// `fd:N`: a descriptor of this process, which the channel will own.
    Fd(NamedFd),
    /// `file:PATH[,offset=N]`: a file, a named pipe or a device.
    File {
        /// The file.
        path: PathBuf,
        /// Offset of the stream in bytes. Bytes before it are not changed.
        offset: u64,
    },
    /// `exec:COMMAND`: the input and output of a shell command.
    Exec(OsString),
}

const OFFSET: &[u8] = b",offset=";

fn wrong(text: &OsStr, why: impl fmt::Display) -> Error {
    Error::invalid(format!("'{}' is not a usable URI: {why}", text.to_string_lossy()))
}

/// Parses a size in bytes: decimal, hexadecimal with 0x, or decimal with K, M, G or T for powers of 1024.
fn parse_size(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    if let Some(hex) = text.strip_prefix("0x") {
        return hex.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u64::from_str_radix(hex, 16).ok())?;
    }
    let shift = match text.bytes().last()?.to_ascii_uppercase() {
        b'K' => 10,
        b'M' => 20,
        b'G' => 30,
        b'T' => 40,
        _ => 0,
    };
    let digits = if shift == 0 { text } else { &text[..text.len() - 1] };
    parse_number::<u64>(digits)?.checked_mul(1 << shift)
}

/// Parses digits only. `from_str` alone would accept a sign.
fn parse_number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok())?
}

fn parse_tcp(rest: &[u8]) -> std::result::Result<Uri, String> {
    let form = "tcp: takes HOST:PORT or [IPV6]:PORT";
    let rest = std::str::from_utf8(rest).map_err(|_| form.to_string())?;
    let (host, port) = if let Some(rest) = rest.strip_prefix('[') {
        rest.split_once("]:").ok_or(form)?
    } else {
        let (host, port) = rest.split_once(':').ok_or(form)?;
        if port.contains(':') {
            return Err("an IPv6 address must be in brackets, tcp:[ADDRESS]:PORT".into());
        }
        (host, port)
    };
    if let Some((_, options)) = port.split_once(',') {
        return Err(format!("options are not supported here (',{options}')"));
    }
    let port = match parse_number(port) {
        Some(number) if !port.is_empty() => number,
        _ => return Err(format!("the port must be a number from 0 to 65535, not '{port}'")),
    };
    Ok(Uri::Tcp { host: host.into(), port })
}

fn parse_file(rest: &[u8]) -> std::result::Result<Uri, String> {
    let at = rest.windows(OFFSET.len()).rposition(|part| part == OFFSET);
    let (path, offset) = match at {
        None => (rest, 0),
        Some(at) => {
            let text = &rest[at + OFFSET.len()..];
            let bad = || format!("the offset must be a number of bytes, not '{}'", text.escape_ascii());
            // The kernel's offsets are signed.
            let offset = parse_size(text).filter(|offset| i64::try_from(*offset).is_ok()).ok_or_else(bad)?;
            (&rest[..at], offset)
        }
    };
    if path.is_empty() {
        return Err("file: takes a path".into());
    }
    Ok(Uri::File { path: OsStr::from_bytes(path).into(), offset })
}

impl Uri {
    /// Parses a URI. The error names the fault and the valid forms.
    pub fn parse(text: &OsStr) -> Result<Self> {
        let bytes = text.as_bytes();
        if bytes.contains(&0) {
            return Err(wrong(text, "it contains a zero byte"));
        }
        let known = "known are unix:PATH, tcp:HOST:PORT, fd:N, file:PATH and exec:COMMAND";
        let Some(at) = bytes.iter().position(|byte| *byte == b':') else {
            return Err(wrong(text, format_args!("it has no protocol; {known}")));
        };
        let (protocol, rest) = (&bytes[..at], &bytes[at + 1..]);
        let uri = match protocol {
            b"unix" if rest.is_empty() => Err("unix: takes the path of a socket".into()),
            b"unix" if rest.len() > UNIX_PATH_MAX => {
                Err(format!("the path of a Unix socket has at most {UNIX_PATH_MAX} bytes, not {}", rest.len()))
            }
            b"unix" => Ok(Self::Unix(OsStr::from_bytes(rest).into())),
            b"tcp" => parse_tcp(rest),
            b"fd" => match std::str::from_utf8(rest).ok().filter(|rest| !rest.is_empty()).and_then(parse_number) {
                Some(number) => Ok(Self::Fd(RawFd::into(number))),
                None => Err("fd: takes the number of an open file descriptor".into()),
            },
            b"file" => parse_file(rest),
            b"exec" if rest.is_empty() => Err("exec: takes a shell command".into()),
            b"exec" => Ok(Self::Exec(OsStr::from_bytes(rest).into())),
            _ => Err(format!("the protocol '{}' is unknown; {known}", protocol.escape_ascii())),
        };
        uri.map_err(|why| wrong(text, why))
    }
}

impl Uri {
    /// Takes ownership of the descriptor of `fd:N`. The last clone of the URI closes it, unless it was opened.
    #[must_use]
    pub fn claim(mut self) -> Self {
        if let Self::Fd(fd) = &mut self {
            fd.claim();
        }
        self
    }
}

impl Uri {
    /// Returns the host of `tcp:HOST:PORT`, if it has one.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Tcp { host, .. } if !host.is_empty() => Some(host),
            _ => None,
        }
    }
}

impl FromStr for Uri {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text.as_ref())
    }
}

/// Formats the text that `parse` accepts, except for bytes that are not UTF-8.
impl fmt::Display for Uri {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(out, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(out, "tcp:{host}:{port}"),
            Self::Fd(number) => write!(out, "fd:{number}"),
            Self::File { path, offset } => {
                write!(out, "file:{}", path.display())?;
                // A path may look as if it had an offset. In this case an offset is appended.
                let ambiguous = path.as_os_str().as_bytes().windows(OFFSET.len()).any(|part| part == OFFSET);
                if *offset != 0 || ambiguous { write!(out, ",offset={offset}") } else { Ok(()) }
            }
            Self::Exec(command) => write!(out, "exec:{}", command.to_string_lossy()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tcp(host: &str, port: u16) -> Uri {
        Uri::Tcp { host: host.into(), port }
    }

    fn file(path: &str, offset: u64) -> Uri {
        Uri::File { path: path.into(), offset }
    }

    #[test]
    fn good_ones() {
        let table = [
            ("unix:/run/vm.sock", Uri::Unix("/run/vm.sock".into())),
            ("unix:a:b,c", Uri::Unix("a:b,c".into())),
            ("tcp:host.example:4444", tcp("host.example", 4444)),
            ("tcp:127.0.0.1:0", tcp("127.0.0.1", 0)),
            ("tcp:[::1]:65535", tcp("::1", 65535)),
            ("tcp:[fe80::1%eth0]:1", tcp("fe80::1%eth0", 1)),
            ("tcp::4444", tcp("", 4444)),
            ("fd:0", Uri::Fd(0.into())),
            ("fd:17", Uri::Fd(17.into())),
            ("file:/tmp/vm, with comma", file("/tmp/vm, with comma", 0)),
            ("file:vm,offset=4096", file("vm", 4096)),
            ("exec:gzip -c > /tmp/vm.gz", Uri::Exec("gzip -c > /tmp/vm.gz".into())),
        ];
        for (text, uri) in table {
            assert_eq!(text.parse::<Uri>().unwrap(), uri, "{text}");
            assert_eq!(uri.to_string(), text);
        }
    }

    #[test]
    fn offset_may_have_a_unit() {
        for (text, offset) in [("0x1f", 31), ("4k", 4096), ("3M", 3 << 20), ("2G", 2 << 30), ("1T", 1 << 40), ("0", 0)]
        {
            assert_eq!(format!("file:x,offset={text}").parse::<Uri>().unwrap(), file("x", offset));
        }
        let text = "file:a,offset=1,offset=0";
        let uri: Uri = text.parse().unwrap();
        assert_eq!((uri.to_string().as_str(), uri), (text, file("a,offset=1", 0)));
    }

    #[test]
    fn invalid_uri_is_rejected_with_a_reason() {
        let long = format!("unix:/{}", "x".repeat(UNIX_PATH_MAX));
        let table = [
            ("", "no protocol; known are unix:PATH"),
            ("/tmp/x", "no protocol"),
            ("rdma:host:1", "'rdma' is unknown; known are"),
            ("TCP:host:1", "'TCP' is unknown"),
            ("unix:", "takes the path"),
            (&long, "at most 107 bytes, not 108"),
            ("unix:a\0b", "zero byte"),
            ("tcp:host", "HOST:PORT"),
            ("tcp:", "HOST:PORT"),
            ("tcp:[::1]", "HOST:PORT"),
            ("tcp:[::1:4", "HOST:PORT"),
            ("tcp:::1:4444", "must be in brackets"),
            ("tcp:host:", "number from 0 to 65535, not ''"),
            ("tcp:host:65536", "not '65536'"),
            ("tcp:host:+1", "not '+1'"),
            ("tcp:host:http", "not 'http'"),
            ("tcp:host:1,ipv4=on", "options are not supported here (',ipv4=on')"),
            ("fd:", "number of an open"),
            ("fd:-1", "number of an open"),
            ("fd:mon0", "number of an open"),
            ("fd:2147483648", "number of an open"),
            ("file:", "takes a path"),
            ("file:,offset=1", "takes a path"),
            ("file:x,offset=", "not ''"),
            ("file:x,offset=k", "not 'k'"),
            ("file:x,offset=0x", "not '0x'"),
            ("file:x,offset=0x+1", "not '0x+1'"),
            ("file:x,offset=-1", "not '-1'"),
            ("file:x,offset=9999999T", "not '9999999T'"),
            ("file:x,offset=0xffffffffffffffff", "number of bytes"),
            ("exec:", "takes a shell command"),
        ];
        for (text, why) in table {
            let error = text.parse::<Uri>().unwrap_err();
            assert_eq!(error.errno(), libc::EINVAL);
            assert!(error.message().contains(why), "{text}: {}", error.message());
        }
    }

    proptest! {
        #[test]
        fn parsed_uri_prints_the_same_text(text in "(unix|tcp|fd|file|exec):(\\PC{0,20}|\\[[0-9a-f:]{0,9}\\]:[0-9]{1,5}|[a-z]{0,5}(:|,offset=)[0-9]{1,6}[kMx]?)") {
            if let Ok(uri) = text.parse::<Uri>() {
                prop_assert_eq!(uri.to_string().parse::<Uri>().unwrap(), uri);
            }
        }

        #[test]
        fn random_bytes_are_accepted_or_rejected(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Uri::parse(OsStr::from_bytes(&bytes));
        }
    }
}
