// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the commands of an incoming stream ask of the side that loads it: the migration driver, or a host with a driver
//! of its own.

use crate::error::{Error, Result};
use crate::file::MigFile;
use std::ops::Deref;

/// How the load of a stream or a package ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadEnd {
    /// At EOF.
    Finished,
    /// A command took the rest of the stream over: all nested loops end (QEMU's `LOADVM_QUIT`).
    HandedOver,
}

/// How far an incoming postcopy is (QEMU 7.2's `PostcopyState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(i32)]
pub enum PostcopyState {
    /// Nothing was heard of postcopy.
    #[default]
    None = 0,
    /// It may come.
    Advise = 1,
    /// Stale pages were thrown away.
    Discard = 2,
    /// Device state is coming in.
    Listening = 3,
    /// The guest runs here.
    Running = 4,
    /// It is over.
    End = 5,
}

impl PostcopyState {
    /// The state with this number.
    pub fn from_number(number: i32) -> Option<Self> {
        [Self::None, Self::Advise, Self::Discard, Self::Listening, Self::Running, Self::End]
            .into_iter()
            .find(|state| *state as i32 == number)
    }
}

fn missing(what: &str) -> Error {
    Error::new(libc::ENOTSUP, format!("the stream asks for {what}, which this host does not offer"))
}

/// A file that lives for as long as somebody works with it.
pub type FileHandle = Box<dyn Deref<Target = MigFile>>;

/// What commands in an incoming stream ask of the side that loads: the driver, or a host with a driver of its own.
pub trait Incoming: Send + Sync {
    /// The source wants answers: open the way back over `file`'s channel. Called once more when already open.
    fn open_return_path(&self, _file: &MigFile) -> Result<()> {
        Err(missing("a return path"))
    }
    /// Answer a ping.
    fn pong(&self, _value: u32) -> Result<()> {
        Err(missing("an answer to PING"))
    }
    /// Exchanges the postcopy state for a new one, or asks for it.
    fn postcopy_state(&self, new: Option<PostcopyState>) -> PostcopyState;
    /// Postcopy may follow; with RAM: the source's page size summary and target page size.
    fn postcopy_advise(&self, _ram: Option<(u64, u64)>) -> Result<()> {
        Err(missing("postcopy"))
    }
    /// The first discard or, without one, listening is near.
    fn postcopy_prepare_discard(&self) -> Result<()> {
        Err(missing("postcopy"))
    }
    /// Throw away `len` bytes from `start` on of a block.
    fn postcopy_discard(&self, _block: &[u8], _start: u64, _len: u64) -> Result<()> {
        Err(missing("postcopy"))
    }
    /// Be ready for page requests and take the stream over; the engine goes on with the package it is in.
    fn postcopy_listen(&self) -> Result<()> {
        Err(missing("postcopy"))
    }
    /// Start the guest.
    fn postcopy_run(&self) -> Result<()> {
        Err(missing("postcopy"))
    }
    /// The source is back.
    fn postcopy_resume(&self) -> Result<()> {
        Err(missing("a postcopy recovery"))
    }
    /// Send the received bitmap of a block.
    fn recv_bitmap(&self, _block: &[u8]) -> Result<()> {
        Err(missing("a received bitmap"))
    }
    /// Continuous replication begins.
    fn enable_colo(&self) -> Result<()> {
        Err(missing("COLO"))
    }
    /// Whether the engine must take the big lock while it calls devices on this thread. False for a thread that holds the
    /// lock for the whole load.
    fn devices_need_lock(&self) -> bool {
        false
    }
    /// Whether `load_package` loads the next package. If not, the load loop does.
    fn loads_packages(&self) -> bool {
        false
    }
    /// Loads the content of a package on another thread, while this thread reads on. `depth` counts the packages around
    /// its content.
    fn load_package(&self, _stream: Vec<u8>, _depth: u32) -> Result<LoadEnd> {
        Err(missing("a package"))
    }
    /// An error of a further channel that feeds the same load: 0 or a negative errno.
    fn further_error(&self) -> i32 {
        0
    }
    /// Sections failed to load. Comes before `recover`.
    fn load_failed(&self, _error: &Error) {}
    /// In running postcopy: wait for a new connection and return its file, or give up. The broken file is not used any
    /// more and may be freed.
    fn recover(&self) -> Option<FileHandle> {
        None
    }
    /// The main loop of a whole load is over; whether another thread goes on reading the stream.
    fn main_loop_done(&self) -> bool {
        false
    }
}
