// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a migration may do and how long it may take. All may be changed while it runs; what has begun keeps its value.

use crate::channel::TlsOptions;
use crate::savevm::connections::Compression;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Whether something is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Where it can be.
    #[default]
    Auto,
    /// Always; it is an error where it can't.
    On,
    /// Never.
    Off,
}

/// What happens when a migration has not ended at its deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeadlineAction {
    /// The migration is cancelled.
    #[default]
    Cancel,
    /// The guest moves, and the rest follows.
    Postcopy,
    /// The guest is stopped and sent, whatever is left.
    Force,
}

impl DeadlineAction {
    /// Returns the name for traces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Postcopy => "postcopy",
            Self::Force => "force",
        }
    }

    /// Whether the guest moves at the deadline.
    pub const fn moves_guest(self) -> bool {
        !matches!(self, Self::Cancel)
    }
}

/// The variant of the format in which a source sends pages over several connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MultifdFormat {
    /// As QEMU 9.0 to a destination that is libsavevm, else as QEMU 7.2.
    #[default]
    Auto,
    /// For machine types up to 8.0: zero pages on the main connection, each RAM section waits for all connections.
    Qemu72,
    /// For machine types 8.1 and 8.2: as before, but each pass over memory waits for all connections.
    Qemu81,
    /// For machine types from 9.0 on: as before, and zero pages in the packets.
    Qemu90,
}

/// Parameters of either side.
#[derive(Clone, Debug)]
pub struct Params {
    /// Most bytes in a second of precopy; 0 is no limit.
    pub max_bandwidth: u64,
    /// Most bytes in a second of postcopy's background copy; 0 is no limit.
    pub max_postcopy_bandwidth: u64,
    /// Limit on the downtime of the guest.
    pub downtime_limit: Duration,
    /// The limit rises up to this while the migration does not converge. `None`: it does not rise.
    pub downtime_limit_max: Option<Duration>,
    /// By how much it rises at a time. `None`: a tenth of the way from the limit to its maximum.
    pub downtime_step: Option<Duration>,
    /// How long what is left must not fall before the limit rises.
    pub downtime_step_interval: Duration,
    /// Source: when the migration must have ended, from its beginning on.
    pub deadline: Option<Duration>,
    /// What happens if it has not.
    pub deadline_action: DeadlineAction,
    /// For the connection. `None`: 30 s for the source; the destination waits for ever.
    pub connect_timeout: Option<Duration>,
    /// Source: for the destination's first answer. Destination: for the header and the configuration, from the first byte on.
    pub handshake_timeout: Duration,
    /// For one wait for the peer to take or send bytes. `None`: 60 s for the source, 5 minutes for the destination.
    pub stall_timeout: Option<Duration>,
    /// For the destination's word that everything is loaded, and for its verdict.
    pub switchover_timeout: Duration,
    /// How long a broken postcopy waits for a new connection; `None` is for ever.
    pub recover_timeout: Option<Duration>,
    /// Source: whether the destination answers. Without it the source can only believe that all went well. Destination: `On`
    /// refuses to start the guest from a stream whose source did not ask, just before its end, whether everything is
    /// loaded. That keeps a damaged stream from looking like one that ends. QEMU does not ask.
    pub return_path: Choice,
    /// Postcopy may be started; both sides must agree.
    pub postcopy: bool,
    /// Slow the guest down when it dirties faster than the link carries.
    pub auto_converge: bool,
    /// First slow-down in percent.
    pub throttle_initial: u32,
    /// What comes on top each time.
    pub throttle_increment: u32,
    /// Most of it.
    pub throttle_max: u32,
    /// Stop the guest and wait for `resume` before the devices are saved.
    pub pause_before_switchover: bool,
    /// The driver has a thread of its own; else the host calls `step`.
    pub own_thread: bool,
    /// Start the guest on the destination once everything is loaded.
    pub autostart: bool,
    /// Use the protocol extensions between two ends of libsavevm.
    pub extensions: bool,
    /// Compare the machines before anything else is sent, if both ends can.
    pub preflight: bool,
    /// Where a trace is written to, as JSON lines.
    pub trace: Option<PathBuf>,
    /// Destination: a device that is registered here and absent from the stream is an error.
    pub strict: bool,
    /// Destination: the first connection is the source's, as for QEMU. Otherwise a connection that does not begin as a stream
    /// is closed, and the next one is accepted.
    pub one_connection: bool,
    /// Every connection uses TLS, with these certificates and keys. `None`: plain connections.
    pub tls: Option<Arc<TlsOptions>>,
    /// Connections for pages besides the main one; 0 and 1: none, all goes over the main connection.
    pub channels: u32,
    /// How pages are compressed on these connections.
    pub compression: Compression,
    /// Level of the compression; 0: 1.
    pub compression_level: u32,
    /// Source: the variant of the format.
    pub multifd_format: MultifdFormat,
    /// Live update: both sides map the same shared memory.
    pub share_memory: bool,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            max_bandwidth: 0,
            max_postcopy_bandwidth: 0,
            downtime_limit: Duration::from_millis(300),
            downtime_limit_max: None,
            downtime_step: None,
            downtime_step_interval: Duration::from_secs(5),
            deadline: None,
            deadline_action: DeadlineAction::Cancel,
            connect_timeout: None,
            handshake_timeout: Duration::from_secs(30),
            stall_timeout: None,
            switchover_timeout: Duration::from_secs(30),
            recover_timeout: None,
            return_path: Choice::Auto,
            postcopy: false,
            auto_converge: false,
            throttle_initial: 20,
            throttle_increment: 10,
            throttle_max: 99,
            pause_before_switchover: false,
            own_thread: true,
            autostart: true,
            extensions: true,
            preflight: true,
            trace: None,
            strict: false,
            one_connection: false,
            tls: None,
            channels: 0,
            compression: Compression::None,
            compression_level: 0,
            multifd_format: MultifdFormat::Auto,
            share_memory: false,
        }
    }
}

impl Params {
    /// Whether there are connections besides the main one.
    pub fn has_further(&self) -> bool {
        self.channels > 1
    }

    /// The level of the compression.
    pub fn compression_level(&self) -> i32 {
        i32::try_from(self.compression_level.max(1)).unwrap_or(i32::MAX)
    }

    /// Takes over what QEMU lets change while a migration runs.
    pub fn change(&mut self, new: &Self) {
        self.max_bandwidth = new.max_bandwidth;
        self.max_postcopy_bandwidth = new.max_postcopy_bandwidth;
        self.downtime_limit = new.downtime_limit;
        self.downtime_limit_max = new.downtime_limit_max;
        self.downtime_step = new.downtime_step;
        self.downtime_step_interval = new.downtime_step_interval;
        self.deadline = new.deadline;
        self.deadline_action = new.deadline_action;
        self.auto_converge = new.auto_converge;
        self.throttle_initial = new.throttle_initial;
        self.throttle_increment = new.throttle_increment;
        self.throttle_max = new.throttle_max;
        self.recover_timeout = new.recover_timeout;
    }
}
