// SPDX-License-Identifier: LGPL-2.1-or-later
//! The error type of the library: what happened, where in the stream, in which device, and the errno for C.
//!
//! An error is created where the failure is detected, often with no more than a cause and a stream offset. Callers add
//! context: the VMState interpreter adds the field and the path, the loops of loading and saving add the section, the
//! driver adds the phase. Context that an inner function has set is kept.

pub use savevm_stream::inspect::{exact_size, io_text, size};
pub use savevm_stream::wire::preflight::Problem;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// A positive errno value, as in `errno.h`.
pub type Errno = i32;

/// The side of a migration on which an error happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Side {
    /// No side: the error is outside of any stream.
    #[default]
    None,
    /// The source, writing the stream.
    Source,
    /// The destination, reading the stream.
    Destination,
}

/// A phase of a migration or a snapshot: in errors, traces and statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Registering a device.
    Register,
    /// Checking a stream before it is loaded.
    Check,
    /// Saving or loading a snapshot.
    Snapshot,
    /// Connecting to the other side.
    Connect,
    /// Source: `save_setup`.
    Setup,
    /// Source: waiting until the guest has unplugged its failover devices.
    WaitUnplug,
    /// Source: rounds of precopy.
    Iterate,
    /// Source: stopping the guest.
    Stop,
    /// Source: waiting for the operator with the guest stopped.
    PreSwitchover,
    /// Source: everything that is saved with the guest stopped.
    Complete,
    /// Source: the end of the live devices in postcopy.
    CompletePostcopy,
    /// Source: all devices without a stream around them.
    DeviceState,
    /// The guest runs at the destination and the rest of its memory follows.
    Postcopy,
    /// Waiting until a broken postcopy is recovered.
    Paused,
    /// Agreeing on how a broken postcopy goes on.
    Resume,
    /// Destination: magic number and version of the stream.
    Header,
    /// Destination: the configuration section.
    Configuration,
    /// Destination: `load_setup`.
    LoadSetup,
    /// Destination: reading sections and commands.
    Load,
    /// Destination: taking the disks over and starting the guest.
    Start,
}

impl Phase {
    /// The name for users, logs and traces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Check => "check",
            Self::Snapshot => "snapshot",
            Self::Connect => "connect",
            Self::Setup => "setup",
            Self::WaitUnplug => "wait-unplug",
            Self::Iterate => "iterate",
            Self::Stop => "stop",
            Self::PreSwitchover => "pre-switchover",
            Self::Complete => "complete",
            Self::CompletePostcopy => "complete-postcopy",
            Self::DeviceState => "device state",
            Self::Postcopy => "postcopy",
            Self::Paused => "paused",
            Self::Resume => "resume",
            Self::Header => "header",
            Self::Configuration => "configuration",
            Self::LoadSetup => "load setup",
            Self::Load => "load",
            Self::Start => "start",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// The section that was being saved or loaded.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Section {
    /// Type byte, as on the wire (`QEMU_VM_SECTION_*`).
    pub tag: u8,
    /// Section id, as on the wire.
    pub id: u32,
    /// Name of the device, with its path.
    pub idstr: String,
    /// Instance id of the device.
    pub instance: u32,
    /// Version of the device in this program.
    pub version_have: Option<i32>,
    /// Version that the stream carries.
    pub version_want: Option<i32>,
}

#[derive(Clone, Debug, Default)]
struct Parts {
    errno: Errno,
    message: String,
    side: Side,
    phase: Option<Phase>,
    section: Option<Section>,
    path: Vec<String>,
    offset: Option<u64>,
    reported: bool,
    of_channel: bool,
    problems: Option<Arc<[Problem]>>,
}

/// What went wrong and where.
#[derive(Clone, Debug)]
pub struct Error(Box<Parts>);

/// Shorthand for results of this library.
pub type Result<T> = std::result::Result<T, Error>;

/// Escapes control characters. Names come from streams, and must not move the cursor of a terminal or forge a line of a
/// log.
pub fn printable(text: String) -> String {
    match savevm_stream::inspect::printable(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(shown) => shown,
    }
}

/// The result of a callback of the host or of a device that returns a negative errno on failure. `call` names the
/// callback in the error.
#[inline]
pub fn check(call: &str, code: i32) -> Result<()> {
    if code < 0 { Err(Error::from_callback(call, code)) } else { Ok(()) }
}

impl Error {
    /// Creates an error with an errno and a cause. Errno 0 becomes `EIO`; a negative one is made positive.
    #[cold]
    pub fn new(errno: Errno, message: impl Into<String>) -> Self {
        let errno = if errno == 0 { libc::EIO } else { errno.abs() };
        Self(Box::new(Parts { errno, message: printable(message.into()), ..Parts::default() }))
    }

    /// Creates an `EINVAL` error: a stream or an argument has an invalid value.
    #[cold]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(libc::EINVAL, message)
    }

    /// Creates the error of a callback that returned the negative errno `ret`.
    #[cold]
    pub fn from_callback(name: &str, ret: i32) -> Self {
        Self::new(ret.saturating_abs(), format!("{name} returned {ret}"))
    }

    /// Creates an error of which only the number is known, positive or negative.
    #[cold]
    pub fn from_code(what: &str, code: i32) -> Self {
        let errno = code.saturating_abs();
        Self::io(what, &std::io::Error::from_raw_os_error(if errno == 0 { libc::EIO } else { errno }))
    }

    /// Creates an error from an operating system error. `what` names the operation.
    #[cold]
    pub fn io(what: impl fmt::Display, err: &std::io::Error) -> Self {
        Self::new(system_errno(err), format!("{what}: {}", io_text(err)))
    }

    /// A failed read or write of a channel. QEMU's functions report it as `EIO`, whatever the system said.
    #[cold]
    pub fn channel(what: impl fmt::Display, err: &std::io::Error) -> Self {
        Self::io(what, err).of_channel()
    }

    /// Marks the error as that of a channel: see `channel`.
    #[cold]
    pub fn of_channel(mut self) -> Self {
        self.0.of_channel = true;
        self
    }

    /// Returns the positive errno.
    pub fn errno(&self) -> Errno {
        self.0.errno
    }

    /// The value that QEMU's functions return, and that a file keeps: `-errno`, but `-EIO` for all errors of a channel.
    pub fn code(&self) -> i32 {
        if self.0.of_channel { -libc::EIO } else { -self.0.errno }
    }

    /// The same error with another text, which was not reported yet.
    #[cold]
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.0.message = printable(message.into());
        self.0.reported = false;
        self
    }

    /// The same error with a text that says more. If the first text was reported, this one is not reported again.
    #[cold]
    pub fn with_more(mut self, message: impl Into<String>) -> Self {
        self.0.message = printable(message.into());
        self
    }

    /// Returns the cause without the place.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns the side.
    pub fn side(&self) -> Side {
        self.0.side
    }

    /// Returns the phase, if it is known.
    pub fn phase(&self) -> Option<Phase> {
        self.0.phase
    }

    /// Returns the section, if the error is inside one.
    pub fn section(&self) -> Option<&Section> {
        self.0.section.as_ref()
    }

    /// Returns the VMState path from the outermost description to the field, joined by '/'.
    pub fn path(&self) -> Option<String> {
        if self.0.path.is_empty() {
            return None;
        }
        Some(self.0.path.iter().rev().map(String::as_str).collect::<Vec<_>>().join("/"))
    }

    /// Returns the offset in the stream in bytes, if it is known.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// Adds the problems that the error sums up.
    #[cold]
    pub fn with_problems(mut self, problems: Vec<Problem>) -> Self {
        self.0.problems = Some(problems.into());
        self
    }

    /// Returns the problems that the error sums up.
    pub fn problems(&self) -> &[Problem] {
        self.0.problems.as_deref().unwrap_or_default()
    }

    /// Returns whether the error was reported to the user.
    pub fn is_reported(&self) -> bool {
        self.0.reported
    }

    /// Marks the error as reported, so that it is not reported again.
    pub fn reported(mut self) -> Self {
        self.0.reported = true;
        self
    }

    /// Adds the side, unless it has one.
    pub fn at_side(mut self, side: Side) -> Self {
        if self.0.side == Side::None {
            self.0.side = side;
        }
        self
    }

    /// Adds the phase, unless it has one.
    pub fn in_phase(mut self, phase: Phase) -> Self {
        self.0.phase.get_or_insert(phase);
        self
    }

    /// Adds the section, unless it has one.
    pub fn in_section(mut self, section: impl FnOnce() -> Section) -> Self {
        self.0.section.get_or_insert_with(|| {
            let section = section();
            Section { idstr: printable(section.idstr), ..section }
        });
        self
    }

    /// Adds the stream offset, unless it has one.
    pub fn at_offset(mut self, offset: u64) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// Adds the next outer element of the VMState path.
    pub fn in_path(mut self, element: impl Into<String>) -> Self {
        self.0.path.push(printable(element.into()));
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { message, phase, section, offset, errno, .. } = &*self.0;
        if let Some(phase) = phase {
            write!(out, "{phase}: ")?;
        }
        if let Some(section) = section {
            write!(out, "section {} '{}' instance {}", section.id, section.idstr, section.instance)?;
            match (section.version_want, section.version_have) {
                (Some(want), Some(have)) if want != have => {
                    write!(out, " (version {want} in the stream, {have} here)")?
                }
                _ => {}
            }
            write!(out, ": ")?;
        }
        if let Some(path) = self.path() {
            write!(out, "{path}: ")?;
        }
        write!(out, "{message}")?;
        if let Some(offset) = offset {
            write!(out, " at stream offset {offset}")?;
        }
        // The text explains a number. All other messages say it better, or have it.
        if !message.contains(&format!("returned -{errno}")) && !message.contains(&format!("error code -{errno}")) {
            return Ok(());
        }
        let cause = io_text(&std::io::Error::from_raw_os_error(*errno));
        if message.contains(&cause) { Ok(()) } else { write!(out, " ({cause})") }
    }
}

impl std::error::Error for Error {}

/// A system error with a text of its own in place of the system's. `io::Error` can carry only one of the two.
#[derive(Debug)]
pub struct Described {
    /// Returns the positive errno.
    pub errno: Errno,
    /// The text.
    pub text: String,
}

impl fmt::Display for Described {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl std::error::Error for Described {}

/// The positive errno of a system error, `EIO` if it has none.
fn system_errno(err: &std::io::Error) -> Errno {
    use std::io::ErrorKind;
    if let Some(described) = err.get_ref().and_then(|inner| inner.downcast_ref::<Described>()) {
        return described.errno;
    }
    err.raw_os_error().unwrap_or(match err.kind() {
        ErrorKind::BrokenPipe => libc::EPIPE,
        ErrorKind::TimedOut => libc::ETIMEDOUT,
        ErrorKind::ConnectionAborted => libc::ECONNABORTED,
        ErrorKind::Unsupported => libc::ENOTSUP,
        _ => libc::EIO,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_all_known_parts() {
        let section = || Section {
            tag: 4,
            id: 7,
            idstr: "nic".into(),
            instance: 1,
            version_have: Some(2),
            version_want: Some(3),
        };
        let error = Error::invalid("expected 4, got 5")
            .in_path("last_avail_idx")
            .in_path("queue[3]")
            .at_offset(99)
            .in_section(section)
            .in_phase(Phase::Load);
        assert_eq!(
            error.to_string(),
            "load: section 7 'nic' instance 1 (version 3 in the stream, 2 here): queue[3]/last_avail_idx: \
             expected 4, got 5 at stream offset 99"
        );
    }

    #[test]
    fn system_text_appears_once() {
        let system = std::io::Error::from_raw_os_error(libc::ENOENT);
        let error = Error::io("opening file:/x", &system);
        assert_eq!(error.to_string(), "opening file:/x: No such file or directory");
        assert_eq!(Error::from_code("the file failed", -libc::EIO).to_string(), "the file failed: Input/output error");
    }

    #[test]
    fn system_text_explains_numbers_alone() {
        let error = Error::new(libc::ENOMSG, "Not a migration stream");
        assert_eq!((error.to_string().as_str(), error.errno()), ("Not a migration stream", libc::ENOMSG));
        assert_eq!(Error::new(libc::EREMOTEIO, "the disk is locked").to_string(), "the disk is locked");
        for errno in [libc::EINVAL, libc::EIO, libc::ECONNABORTED, libc::ECANCELED, libc::EBUSY, libc::EACCES] {
            assert_eq!(Error::new(errno, "this says what is wrong").to_string(), "this says what is wrong");
        }
        assert_eq!(Error::new(libc::EIO, "error code -5").to_string(), "error code -5 (Input/output error)");
        // The text explains the number that a callback returned.
        let error = Error::from_callback("log_start", -libc::EPERM);
        assert_eq!(error.to_string(), "log_start returned -1 (Operation not permitted)");
    }

    #[test]
    fn context_of_the_inner_function_is_kept() {
        let error = Error::invalid("x").at_offset(1).in_phase(Phase::Load).at_offset(2).in_phase(Phase::Snapshot);
        assert_eq!((error.offset(), error.phase()), (Some(1), Some(Phase::Load)));
    }

    #[test]
    fn errno_is_never_zero_and_never_negative() {
        assert_eq!(Error::new(0, "x").code(), -libc::EIO);
        assert_eq!(Error::from_callback("save_setup", -libc::ENOSPC).errno(), libc::ENOSPC);
        assert_eq!(Error::from_callback("save_setup", i32::MIN).code(), -i32::MAX);
    }

    #[test]
    fn check_fails_for_a_negative_result_and_names_the_call() {
        assert!(check("vm_stop", 0).is_ok() && check("vm_stop", 1).is_ok());
        let error = check("vm_stop", -libc::EBUSY).unwrap_err();
        assert_eq!((error.errno(), error.message()), (libc::EBUSY, "vm_stop returned -16"));
    }
}
