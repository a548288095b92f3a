// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the commands of an incoming stream ask of the side that loads it: the migration driver, or a host with a driver
//! of its own.

use crate::error::{Error, Result};
use crate::file::MigFile;
use std::ops::Deref;

/// What follows the beginning of a stream.
#[derive(Clone, Debug)]
pub enum Opened {
    /// The rest of the stream.
    Stream,
    /// Nothing: the source wanted an answer, and has it.
    Visit,
    /// Nothing: the connection broke before a migration began, for this reason. No device was changed, or all were reset.
    BrokenOff(Error),
}

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
    /// No postcopy.
    #[default]
    None = 0,
    /// Postcopy may follow.
    Advise = 1,
    /// Stale pages were discarded.
    Discard = 2,
    /// Device state is received.
    Listening = 3,
    /// The guest runs here.
    Running = 4,
    /// Postcopy ended.
    End = 5,
}

impl PostcopyState {
    /// Returns the state with a number.
    pub fn from_number(number: i32) -> Option<Self> {
        [Self::None, Self::Advise, Self::Discard, Self::Listening, Self::Running, Self::End]
            .into_iter()
            .find(|state| *state as i32 == number)
    }
}

fn missing(what: &str) -> Error {
    Error::new(libc::ENOTSUP, format!("the stream asks for {what}, which this host does not offer"))
}

/// A file that stays allocated while the handle exists.
pub type FileHandle = Box<dyn Deref<Target = MigFile>>;

/// The handler of the commands of an incoming stream.
pub trait Incoming: Send + Sync {
    /// Opens the return path over the channel of `file`. May be called while it is open.
    fn open_return_path(&self, _file: &MigFile) -> Result<()> {
        Err(missing("a return path"))
    }
    /// Returns whether `negotiate` may accept a preflight.
    fn negotiates(&self) -> bool {
        false
    }
    /// The header and the configuration were read. Reads the commands of a source that is libsavevm, up to the verdict of a
    /// preflight. `refused` has the reasons to refuse the stream that were found; without a preflight the first one is the error.
    fn negotiate(&self, _file: &MigFile, refused: Vec<Error>) -> Result<Opened> {
        refused.into_iter().next().map_or(Ok(Opened::Stream), Err)
    }
    /// The header and the configuration are loaded.
    fn header_loaded(&self) {}
    /// Returns whether a device that is registered here and absent from the stream is an error.
    fn is_strict(&self) -> bool {
        false
    }
    /// Answers a ping.
    fn pong(&self, _value: u32) -> Result<()> {
        Err(missing("an answer to PING"))
    }
    /// Tells the source that all devices approve the switchover.
    fn switchover_ack(&self) -> Result<()> {
        Err(missing("an approval of the switchover"))
    }
    /// Sets the postcopy state, unless `new` is `None`. Returns the state before.
    fn postcopy_state(&self, new: Option<PostcopyState>) -> PostcopyState;
    /// Prepares for postcopy. With RAM, `_ram` has the source's union of page sizes and its target page size.
    fn postcopy_advise(&self, _ram: Option<(u64, u64)>) -> Result<()> {
        Err(missing("postcopy"))
    }
    /// Prepares for discards. Called before the first discard, or before LISTEN if there is none.
    fn postcopy_prepare_discard(&self) -> Result<()> {
        Err(missing("postcopy"))
    }
    /// Discards `len` bytes of a block from `start`.
    fn postcopy_discard(&self, _block: &[u8], _start: u64, _len: u64) -> Result<()> {
        Err(missing("postcopy"))
    }
    /// Prepares for page requests and takes the stream over. The load loop continues with the package that it loads.
    fn postcopy_listen(&self) -> Result<()> {
        Err(missing("postcopy"))
    }
    /// Starts the guest.
    fn postcopy_run(&self) -> Result<()> {
        Err(missing("postcopy"))
    }
    /// The source resumes a broken postcopy.
    fn postcopy_resume(&self) -> Result<()> {
        Err(missing("a postcopy recovery"))
    }
    /// Sends the received bitmap of a block.
    fn recv_bitmap(&self, _block: &[u8]) -> Result<()> {
        Err(missing("a received bitmap"))
    }
    /// Starts continuous replication.
    fn enable_colo(&self) -> Result<()> {
        Err(missing("COLO"))
    }
    /// Whether the engine must take the big lock while it calls devices on this thread. False for a thread that holds
    /// the lock for the whole load.
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
    /// Returns the error of another channel of the same load: 0 or a negative errno.
    fn further_error(&self) -> i32 {
        0
    }
    /// The load failed. Called before `recover`.
    fn load_failed(&self, _error: &Error) {}
    /// In a running postcopy: waits for a new connection and returns its file, or `None` if the load ends. The broken
    /// file is not used any more and may be freed.
    fn recover(&self) -> Option<FileHandle> {
        None
    }
    /// The load loop of a whole stream ended. Returns whether another thread continues to read the stream.
    fn main_loop_done(&self) -> bool {
        false
    }
}
