// SPDX-License-Identifier: LGPL-2.1-or-later
//! How a run ends when it does not end well, and the exit statuses.

use std::fmt;
use std::io;

/// What a script learns from the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// All is well: 0.
    Fine = 0,
    /// The stream is damaged, the streams differ, or the check fails: 1.
    Found = 1,
    /// The question could not be answered: 2.
    Trouble = 2,
}

/// Why the question could not be answered, in words for a person.
#[derive(Debug)]
pub enum Failure {
    /// Whoever reads the output has had enough, which is no failure.
    PipeClosed,
    /// What went wrong.
    Message(String),
}

/// The outcome of most things here.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure with this message.
    pub fn new(message: impl fmt::Display) -> Self {
        Self::Message(message.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::PipeClosed;
        }
        let message = error.to_string();
        // The number says nothing that the words do not say.
        Self::new(message.split(" (os error").next().unwrap_or_default())
    }
}

/// Says what was being done when something failed.
pub trait Context<T> {
    /// Puts `what` in front of the message.
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
