// SPDX-License-Identifier: LGPL-2.1-or-later
//! A channel to the input and output of a shell command, as QEMU's `exec:` (`io/channel-command.c`).
//!
//! Both of the command's streams are pipes, in both directions of migration, so a command such as `socat` can carry a
//! return path. Unlike in QEMU, a failure of the command is an error: a read or write reports it if the command ends
//! early, and `close` waits for the command and reports its status. The command runs in a process group of its own, so
//! a signal ends all parts of a pipeline.

use super::fd::FdChannel;
use super::{Channel, StallLimit, aborted};
use crate::error::{Error, Result};
use crate::sync::{Mutex, Rank};
use crate::sys::{IoVec, Ready, Span, WakeFd, as_outside, poll_any, signal_group};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Time for a command to exit after it closed a pipe, and after its output was read.
const EXIT_GRACE: Duration = Duration::from_secs(1);
/// Time for a command to clean up after SIGTERM.
const TERM_GRACE: Duration = Duration::from_millis(100);
/// Time between two checks of a running process.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Bytes of the rest of an incoming stream that are read to let the command end.
const DRAIN_MAX: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Running,
    Exited(ExitStatus),
    /// Another part of the program has waited for the process.
    Unknown,
}

/// The process. Dropping this ends it.
#[derive(Debug)]
struct Process(Mutex<Child>);

impl Process {
    fn fate(&self) -> Fate {
        match self.0.lock().try_wait() {
            Ok(None) => Fate::Running,
            Ok(Some(status)) => Fate::Exited(status),
            Err(_) => Fate::Unknown,
        }
    }

    fn signal(&self, signal: i32) {
        let mut child = self.0.lock();
        // Only a process that was not waited for is sure to keep its id.
        if matches!(child.try_wait(), Ok(None)) {
            let _ = signal_group(child.id(), signal);
        }
    }

    fn exits_within(&self, time: Duration) -> bool {
        let since = Instant::now();
        while self.fate() == Fate::Running {
            if since.elapsed() >= time {
                return false;
            }
            thread::sleep(POLL_INTERVAL);
        }
        true
    }

    /// Ends the process: SIGTERM first, SIGKILL after a timeout.
    fn stop(&self) {
        self.signal(libc::SIGTERM);
        if !self.exits_within(TERM_GRACE) {
            self.signal(libc::SIGKILL);
            self.exits_within(EXIT_GRACE);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Why the wait for the command ended.
enum Ending {
    Exited(ExitStatus),
    Unknown,
    ShutDown,
    TimedOut,
    TooMuch,
}

/// A channel to a shell command.
#[derive(Debug)]
pub struct ExecChannel {
    command: OsString,
    outgoing: bool,
    /// The command's input and output, named from the command's side.
    input: FdChannel,
    output: FdChannel,
    process: Process,
    at_end: AtomicBool,
    shut_down: AtomicBool,
    closed: AtomicBool,
    wake: WakeFd,
    stall: StallLimit,
}

impl ExecChannel {
    /// Starts `command` with `/bin/sh`. `outgoing` says whether the stream goes to the command.
    pub fn spawn(command: &OsStr, outgoing: bool) -> Result<Self> {
        let failed =
            |err: &io::Error| Error::io(format_args!("can't start command '{}'", command.to_string_lossy()), err);
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(command).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let wake = WakeFd::new().map_err(|err| failed(&err))?;
        // Not every shell resets the signal mask that it inherits.
        let mut child = as_outside(|| shell.spawn()).map_err(|err| failed(&err))?;
        let pipes = (child.stdin.take(), child.stdout.take());
        let process = Process(Mutex::new(Rank::ExecProcess, child));
        let (Some(input), Some(output)) = pipes else {
            return Err(Error::new(libc::EPIPE, format!("command '{}' has no pipes", command.to_string_lossy())));
        };
        Ok(Self {
            command: command.into(),
            outgoing,
            input: FdChannel::new(OwnedFd::from(input), true)?,
            output: FdChannel::new(OwnedFd::from(output), false)?,
            process,
            at_end: AtomicBool::new(false),
            shut_down: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            wake,
            stall: StallLimit::new(),
        })
    }

    /// Waits until the command has written something or ended.
    pub(super) fn wait_readable(&self, cancel: &WakeFd, timeout: Option<Duration>) -> io::Result<Ready> {
        self.output.wait_readable(cancel, timeout)
    }

    fn failure(&self, status: ExitStatus) -> io::Error {
        io::Error::other(format!("command '{}' failed: {status}", self.command.to_string_lossy()))
    }

    /// Returns the command's failure. The command has closed a pipe and is about to exit; its failure is the reason for
    /// the error.
    fn early_failure(&self) -> Option<io::Error> {
        let since = Instant::now();
        loop {
            let fate = self.process.fate();
            if self.shut_down.load(Ordering::Acquire) {
                return Some(aborted());
            }
            match fate {
                Fate::Exited(status) => return (!status.success()).then(|| self.failure(status)),
                Fate::Running if since.elapsed() < EXIT_GRACE => {}
                Fate::Running | Fate::Unknown => return None,
            }
            if poll_any(&[], false, &self.wake, Some(POLL_INTERVAL)).is_err() {
                return None;
            }
        }
    }

    /// Waits until the command has exited. Its output is read and dropped meanwhile (less than `most` bytes), because a
    /// command that cannot write does not exit.
    fn finish(&self, limit: Option<Duration>, mut most: usize) -> io::Result<Ending> {
        let since = Instant::now();
        let mut open = true;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let fate = self.process.fate();
            // Checked after the process, because a shutdown may have ended it.
            if self.shut_down.load(Ordering::Acquire) {
                return Ok(Ending::ShutDown);
            }
            match fate {
                Fate::Exited(status) => return Ok(Ending::Exited(status)),
                Fate::Unknown => return Ok(Ending::Unknown),
                Fate::Running if limit.is_some_and(|limit| since.elapsed() >= limit) => return Ok(Ending::TimedOut),
                Fate::Running => {}
            }
            let ready = match open {
                true => self.output.wait_readable(&self.wake, Some(POLL_INTERVAL))?,
                false => poll_any(&[], false, &self.wake, Some(POLL_INTERVAL))?,
            };
            match ready {
                Ready::Woken | Ready::TimedOut => {}
                Ready::Go => match self.output.read(Span::from_slice(&mut buffer)) {
                    Ok(0) | Err(_) => open = false,
                    Ok(count) if count < most => most -= count,
                    Ok(_) => return Ok(Ending::TooMuch),
                },
            }
        }
    }

    fn close_outgoing(&self) -> io::Result<()> {
        let limit = self.stall.get();
        match self.finish(limit, usize::MAX)? {
            Ending::Exited(status) if !status.success() => Err(self.failure(status)),
            Ending::Exited(_) => Ok(()),
            Ending::Unknown => {
                log::warn!(
                    "how command '{}' ended is unknown: this program has waited for it",
                    self.command.to_string_lossy()
                );
                Ok(())
            }
            Ending::ShutDown => Err(aborted()),
            Ending::TimedOut | Ending::TooMuch => {
                let (command, limit) = (self.command.to_string_lossy(), limit.unwrap_or_default());
                let text = format!("command '{command}' did not end within {limit:?} after its input");
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            }
        }
    }

    /// Returns the status of a command that ends by itself. The status of a command that is ended early is ignored.
    fn close_incoming(&self) -> io::Result<()> {
        match self.finish(Some(EXIT_GRACE), DRAIN_MAX)? {
            Ending::Exited(status) if !status.success() => Err(self.failure(status)),
            _ => Ok(()),
        }
    }
}

impl Channel for ExecChannel {
    fn name(&self) -> Option<String> {
        Some(format!("exec:{}", self.command.to_string_lossy()))
    }

    fn read(&self, into: Span<'_>) -> io::Result<usize> {
        let count = self.output.read(into)?;
        if count == 0 && !self.at_end.swap(true, Ordering::Relaxed) {
            self.early_failure().map_or(Ok(0), Err)
        } else {
            Ok(count)
        }
    }

    fn write_all(&self, pieces: &mut [IoVec]) -> io::Result<()> {
        let result = self.input.write_all(pieces);
        match &result {
            Err(err) if err.kind() == io::ErrorKind::BrokenPipe => self.early_failure().map_or(result, Err),
            _ => result,
        }
    }

    /// Also sends SIGTERM to the command.
    fn shutdown(&self) -> io::Result<()> {
        self.shut_down.store(true, Ordering::Release);
        self.wake.wake();
        // The pipes are shut down first, so that the end of the command is not reported as its failure.
        let result = self.input.shutdown().and(self.output.shutdown());
        self.process.signal(libc::SIGTERM);
        result
    }

    /// Closes the command's input and waits for the command. An outgoing command may take as long as the stall limit,
    /// or without one until `shutdown`; its failure is an error. An incoming command may take one second.
    fn close(&self) -> io::Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let _ = self.input.close();
        let result = match (self.shut_down.load(Ordering::Acquire), self.outgoing) {
            (true, _) => Ok(()),
            (false, true) => self.close_outgoing(),
            (false, false) => self.close_incoming(),
        };
        let _ = self.output.close();
        self.process.stop();
        result
    }

    fn is_duplex(&self) -> bool {
        true
    }

    fn has_peer(&self) -> bool {
        false
    }

    fn set_stall_limit(&self, limit: Option<Duration>) {
        self.stall.set(limit);
        self.input.set_stall_limit(limit);
        self.output.set_stall_limit(limit);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use std::fs;
    use std::sync::Arc;

    fn start(command: &str, outgoing: bool) -> Arc<ExecChannel> {
        Arc::new(ExecChannel::spawn(command.as_ref(), outgoing).unwrap())
    }

    fn outgoing(command: &str) -> Arc<ExecChannel> {
        start(command, true)
    }

    fn incoming(command: &str) -> Arc<ExecChannel> {
        start(command, false)
    }

    /// Returns whether a process of the group still runs. Zombies do not count.
    fn group_runs(group: u32) -> bool {
        let stats =
            fs::read_dir("/proc").unwrap().flatten().filter_map(|dir| fs::read_to_string(dir.path().join("stat")).ok());
        stats.into_iter().any(|stat| {
            let fields: Vec<_> = stat[stat.rfind(')').unwrap() + 1..].split_whitespace().collect();
            fields[0] != "Z" && fields[2] == group.to_string()
        })
    }

    fn group_ends(group: u32) -> bool {
        let since = Instant::now();
        while group_runs(group) && since.elapsed() < SOON {
            thread::sleep(POLL_INTERVAL);
        }
        !group_runs(group)
    }

    #[test]
    fn stream_passes_through_a_pipeline() {
        let path = scratch_path("exec");
        let file = path.display();
        let writer = outgoing(&format!("cat | cat > {file}; echo noise"));
        write(&*writer, &pattern(300_000)).unwrap();
        writer.close().unwrap();
        let reader = incoming(&format!("cat {file}"));
        assert!(read_to_end(&*reader).unwrap() == pattern(300_000));
        reader.close().unwrap();
        reader.close().unwrap();
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn command_carries_both_directions() {
        let echo = outgoing("cat");
        assert!(echo.is_duplex());
        write(&*echo, b"there").unwrap();
        assert_eq!(read_some(&*echo, 99).unwrap(), b"there");
        echo.close().unwrap();
    }

    #[test]
    fn unread_output_does_not_block_close() {
        let noisy = outgoing("cat > /dev/null; head -c 3000000 /dev/zero");
        write(&*noisy, b"x").unwrap();
        noisy.close().unwrap();
    }

    #[test]
    fn failure_is_reported_by_close_and_by_reads_and_writes() {
        let fails = |err: io::Error, status: &str| assert!(err.to_string().contains(status), "{err}");
        let late = outgoing("cat > /dev/null; exit 3");
        write(&*late, b"x").unwrap();
        fails(late.close().unwrap_err(), "/dev/null; exit 3' failed: exit status: 3");
        let killed = outgoing("kill -9 $$");
        fails(killed.close().unwrap_err(), "signal: 9");
        let broken = outgoing("exit 4");
        fails(write(&*broken, &pattern(1 << 20)).unwrap_err(), "exit status: 4");
        let cut = incoming("echo start; exit 5");
        fails(read_to_end(&*cut).unwrap_err(), "exit status: 5");
        fails(cut.close().unwrap_err(), "exit status: 5");
        let unread = incoming("echo start; exit 6");
        assert_eq!(read_some(&*unread, 2).unwrap(), b"st");
        fails(unread.close().unwrap_err(), "exit status: 6");
        fails(read_to_end(&*incoming("no-such-command-here 2> /dev/null")).unwrap_err(), "exit status: 127");
    }

    #[test]
    fn incoming_command_that_is_ended_early_is_no_failure() {
        for command in ["cat /dev/zero", "echo start; sleep 60"] {
            let before = Instant::now();
            let endless = incoming(command);
            read_some(&*endless, 5).unwrap();
            endless.close().unwrap();
            assert!(before.elapsed() < SOON, "{command}");
        }
    }

    #[test]
    fn shutdown_ends_reads_writes_and_the_command() {
        shutdown_ends(&incoming("sleep 60"), |channel| read_some(channel, 1));
        shutdown_ends(&outgoing("sleep 60"), |channel| write(channel, &pattern(1 << 20)));
        let stubborn = outgoing("trap '' TERM; sleep 60 | sleep 60");
        let group = stubborn.process.0.lock().id();
        assert!(group_runs(group));
        let waiter = stubborn.clone();
        let closed = ended_by(move || waiter.close(), || stubborn.shutdown().unwrap());
        assert_eq!(closed.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert!(group_ends(group));
    }

    #[test]
    fn close_ends_at_the_stall_limit() {
        let silent = outgoing("sleep 60");
        silent.set_stall_limit(Some(Duration::from_millis(50)));
        assert_eq!(read_some(&*silent, 1).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(write(&*silent, &pattern(1 << 20)).unwrap_err().kind(), io::ErrorKind::TimedOut);
        let err = silent.close().unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::TimedOut);
        assert!(err.to_string().contains("'sleep 60' did not end within 50ms"), "{err}");
    }

    #[test]
    fn drop_ends_the_command() {
        let channel = outgoing("sleep 60");
        let group = channel.process.0.lock().id();
        assert!(group_runs(group));
        drop(channel);
        assert!(group_ends(group));
    }
}
