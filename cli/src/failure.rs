// SPDX-License-Identifier: LGPL-2.1-or-later
//! Exit statuses, and errors that end a run.

use std::fmt;
use std::io;

use savevm_stream::inspect::io_text;

/// Exit status of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// Success: 0.
    Success = 0,
    /// The stream is damaged or incomplete, the streams differ, or the check fails: 1.
    Found = 1,
    /// Error: 2.
    Error = 2,
}

/// Why a run ends early.
#[derive(Debug)]
pub enum Failure {
    /// The reader of the output closed the pipe. That is not an error.
    PipeClosed,
    /// An error, as text.
    Message(String),
}

/// Result with a [`Failure`].
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// Returns a failure with this message.
    pub fn new(message: impl fmt::Display) -> Self {
        Self::Message(message.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::PipeClosed;
        }
        Self::new(io_text(&error))
    }
}

/// Adds to an error what was being done.
pub trait Context<T> {
    /// Prefixes the message with `what`.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Failure>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| match error.into() {
            Failure::Message(message) => Failure::Message(format!("{}: {message}", what())),
            closed => closed,
        })
    }
}
