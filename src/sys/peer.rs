// SPDX-License-Identifier: LGPL-2.1-or-later
//! The process at the other end of a Unix socket, and how it ended.
//!
//! The kernel keeps the process that connected or listened (`SO_PEERCRED`). A pidfd stands for that process even after its
//! number was given to another one. The exit status is that of a process which its parent has not collected yet
//! (`/proc/PID/stat`), or, since Linux 6.15, of one that was collected (`PIDFD_GET_INFO`).

use super::fd::check;
use std::fmt;
use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// How a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// It runs, or is stopped.
    Runs,
    /// It ended by itself with this status.
    Exited(i32),
    /// A signal of another process, or of a terminal, ended it.
    Killed(i32),
    /// A signal that its own fault caused ended it.
    Crashed(i32),
    /// It ended, and how it ended is unknown.
    Ended,
}

/// The process at the other end of a Unix socket.
#[derive(Debug)]
pub struct PeerProcess {
    pid: i32,
    name: String,
    pidfd: OwnedFd,
}

impl PeerProcess {
    /// The process that made the other end of the socket. `None` if it is unknown, or this process.
    pub fn of(socket: BorrowedFd<'_>) -> Option<Self> {
        let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
        let mut len = size_of::<libc::ucred>() as libc::socklen_t;
        let (fd, into) = (socket.as_raw_fd(), (&raw mut credentials).cast());
        // SAFETY: `into` points to a ucred, whose size is in `len`.
        let ret = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, into, &raw mut len) };
        check(ret as isize).ok()?;
        let pid = credentials.pid;
        // A process of another PID namespace has no number here.
        if pid <= 0 || pid == std::process::id() as i32 {
            return None;
        }
        // SAFETY: no pointers; the result is checked before it is owned.
        let raw = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as isize).ok()?;
        // SAFETY: the kernel has just returned this descriptor, and it is owned nowhere else.
        let pidfd = unsafe { OwnedFd::from_raw_fd(raw as RawFd) };
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned();
        Some(Self { pid, name, pidfd })
    }

    /// How the process is. Waits at most for `limit` until it has ended.
    pub fn state(&self, limit: Duration) -> ProcessState {
        let mut polled = libc::pollfd { fd: self.pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let millis = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the pointer is that of one pollfd.
        if unsafe { libc::poll(&raw mut polled, 1, millis) } != 1 {
            return ProcessState::Runs;
        }
        // Its parent may collect it in between.
        zombie_status(self.pid).or_else(|| self.collected_status()).map_or(ProcessState::Ended, decode)
    }

    /// The wait status of a process that was collected.
    fn collected_status(&self) -> Option<i32> {
        const PIDFD_INFO_EXIT: u64 = 1 << 3;
        /// The first version of `struct pidfd_info`.
        #[repr(C)]
        #[derive(Default)]
        struct Info {
            mask: u64,
            cgroup: u64,
            ids: [u32; 11],
            exit_code: i32,
        }
        // _IOWR(0xff, 11, struct pidfd_info)
        const PIDFD_GET_INFO: u64 = (3 << 30) | ((size_of::<Info>() as u64) << 16) | (0xff << 8) | 11;
        let mut info = Info { mask: PIDFD_INFO_EXIT, ..Info::default() };
        // SAFETY: the kernel writes at most the size that the request names, which is that of `info`.
        let ret = unsafe { libc::ioctl(self.pidfd.as_raw_fd(), PIDFD_GET_INFO as _, &raw mut info) };
        (ret == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
    }

    /// The state as a clause for errors.
    pub fn describe(&self, limit: Duration) -> String {
        let state = self.state(limit);
        format!("its process {} ({}) {state}", self.pid, self.name)
    }
}

/// The wait status of a process that ended and was not collected.
fn zombie_status(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may have anything in it. Behind it comes field 3, the state; field 52 is the status.
    let fields: Vec<_> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    (*fields.first()? == "Z").then(|| fields.get(52 - 3)?.parse().ok()).flatten()
}

fn decode(status: i32) -> ProcessState {
    match libc::WTERMSIG(status) {
        0 => ProcessState::Exited(libc::WEXITSTATUS(status)),
        signal @ (libc::SIGSEGV
        | libc::SIGBUS
        | libc::SIGABRT
        | libc::SIGFPE
        | libc::SIGILL
        | libc::SIGTRAP
        | libc::SIGSYS) => ProcessState::Crashed(signal),
        signal => ProcessState::Killed(signal),
    }
}

impl fmt::Display for ProcessState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runs => write!(f, "still runs"),
            Self::Exited(status) => write!(f, "exited with status {status}"),
            Self::Killed(signal) => write!(f, "was killed by signal {signal}"),
            Self::Crashed(signal) => write!(f, "crashed with signal {signal}"),
            Self::Ended => write!(f, "has ended"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::{Child, Command, Stdio};

    /// A shell that is connected to a socket, which its standard input is. It runs `command`.
    fn connected(command: &str) -> (Child, PeerProcess) {
        // The peer of an accepted socket is the process that connected, so the shell has to do that itself.
        let path = std::env::temp_dir().join(format!("savevm-peer-{}-{}", std::process::id(), command.len()));
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let script = format!(
            "import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.recv(1); {command}"
        );
        let child = Command::new("python3").args(["-c", &script]).arg(&path).stdin(Stdio::null()).spawn().unwrap();
        let (stream, _) = listener.accept().unwrap();
        let peer = PeerProcess::of(stream.as_fd()).unwrap();
        assert_eq!(peer.state(Duration::ZERO), ProcessState::Runs);
        drop(stream);
        fs::remove_file(path).unwrap();
        (child, peer)
    }

    #[test]
    fn the_end_of_a_peer_is_told_apart() {
        if Command::new("python3").arg("--version").output().is_err() {
            return eprintln!("skipped: no python3");
        }
        let long = Duration::from_secs(20);
        for (command, expected) in [
            ("os._exit(3)", ProcessState::Exited(3)),
            ("os.kill(os.getpid(), 9)    ", ProcessState::Killed(9)),
            ("os.kill(os.getpid(), 11)     ", ProcessState::Crashed(11)),
        ] {
            let (mut child, peer) = connected(command);
            assert_eq!(peer.state(long), expected, "not collected yet");
            let text = peer.describe(Duration::ZERO);
            assert!(text.starts_with(&format!("its process {} (python3", child.id())), "{text}");
            child.wait().unwrap();
            let state = peer.state(long);
            assert!(state == expected || state == ProcessState::Ended, "collected: {state:?}");
        }
    }

    #[test]
    fn the_own_process_is_no_peer() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(PeerProcess::of(one.as_fd()).is_none());
    }
}
