// SPDX-License-Identifier: LGPL-2.1-or-later
//! The further connections of a migration. The driver makes or accepts them; RAM sends its pages over them (QEMU's
//! capability `multifd`).

use crate::channel::Channel;
use crate::error::{Error, Result};
use crate::wire::multifd::Method;
use std::sync::Arc;
use std::time::Duration;

/// How pages are compressed on further connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// One zlib stream for each connection.
    Zlib,
    /// One zstd stream for each connection.
    Zstd,
    /// Source: zstd, which compresses only if that is faster. Destination: whatever the source uses.
    Auto,
}

impl Compression {
    /// Returns the method of the packets; `None`: the source may use any.
    pub fn method(self) -> Option<Method> {
        match self {
            Self::None => Some(Method::None),
            Self::Zlib => Some(Method::Zlib),
            Self::Zstd => Some(Method::Zstd),
            Self::Auto => None,
        }
    }

    /// Destination: fails if the source uses another method.
    pub fn check_method(self, found: Method) -> Result<()> {
        match self.method() {
            Some(expected) if expected != found => Err(Error::invalid(format!(
                "the source compresses with '{}', this side expects '{}': set the same compression on both ends",
                found.name(),
                expected.name()
            ))),
            _ => Ok(()),
        }
    }
}

/// The variants of the format. A destination finds out by itself which one its source uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Zero pages are found by the connections' threads and are sent in packets (QEMU 9.0 and later), instead of records on
    /// the main connection.
    pub zero_in_packets: bool,
    /// A record on the main connection follows each SYNC of the further ones (QEMU 8.1 and later). Without it the end of
    /// every RAM section stands for that record.
    pub flush_records: bool,
}

/// What both ends must agree on, and limits.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Number of further connections.
    pub count: u32,
    /// How pages are compressed.
    pub compression: Compression,
    /// Level of the compression.
    pub level: i32,
    /// Source: the variant of the format.
    pub format: Format,
    /// Longest wait until a connection takes or brings bytes.
    pub stall: Duration,
}

/// The further connections of one migration. Any thread.
pub trait Connections: Send + Sync {
    /// Returns the settings.
    fn settings(&self) -> Settings;
    /// Returns the connections in the order of their numbers. At the destination this waits for those that are missing.
    fn channels(&self) -> Result<Vec<Arc<dyn Channel>>>;
    /// A connection failed: ends the migration with this error. Later errors are ignored.
    fn failed(&self, error: Error);
    /// The load ends, and pages have arrived that the main connection did not wait for. If the load has another error, this
    /// one is its consequence.
    fn unsettled(&self, error: Error);
    /// Destination: all pages are loaded, and the source is about to learn that. Fails with the first error of a connection;
    /// later ones are ignored, because the guest may not be at the source any more.
    fn settle(&self) -> Result<()>;
    /// Returns the error of `unsettled`.
    fn unsettled_error(&self) -> Option<Error>;
    /// Returns the first error of a connection.
    fn error(&self) -> Option<Error>;
    /// Destination: the source has closed the main connection although it needs an answer, so no further pages are of use.
    fn is_abandoned(&self) -> bool;
    /// Counts bytes that were received over a connection.
    fn received(&self, number: usize, bytes: u64);
    /// Destination: a connection has brought a part of a packet, and its thread waits for the rest; or no longer.
    fn set_within(&self, number: usize, within: bool);
    /// Destination: the load waits for this connection only.
    fn set_late(&self, number: Option<usize>);
}
