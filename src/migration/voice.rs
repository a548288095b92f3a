// SPDX-License-Identifier: LGPL-2.1-or-later
//! The destination's voice: messages to the source, from any thread, one after the other.
//!
//! No lock is held while a message is written, since a channel may be the hypervisor's own. Who finds another thread
//! writing leaves the message with it.

use super::base::lock;
use super::return_path::{self, Message};
use crate::error::{Error, Result};
use crate::file::MigFile;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many messages wait at most: more come only from a guest that asks for pages faster than anybody can.
const WAITING_MAX: usize = 1 << 16;

enum Item {
    Message(Message),
    /// What follows RECV_BITMAP, beside the message.
    Bitmap(Vec<u8>, Vec<u8>),
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Item>,
    /// `None` while it is not open, and while somebody writes.
    file: Option<MigFile>,
    open: bool,
    writing: bool,
    /// Counts the connections.
    connection: u64,
}

/// See the module.
#[derive(Default)]
pub(super) struct Voice {
    state: Mutex<State>,
    idle: Condvar,
}

fn silent() -> Error {
    Error::new(libc::ENOTCONN, "there is no return path")
}

impl Voice {
    /// Speaks over this file from now on.
    pub fn open(&self, file: MigFile) {
        let mut state = lock(&self.state);
        state.waiting.clear();
        state.file = Some(file);
        state.open = true;
        state.connection += 1;
    }

    /// Says nothing more. What another thread is writing goes out, or fails with the connection.
    pub fn close(&self) {
        let file = {
            let mut state = lock(&self.state);
            state.open = false;
            state.waiting.clear();
            state.file.take()
        };
        drop(file);
    }

    pub fn is_open(&self) -> bool {
        lock(&self.state).open
    }

    /// Says it, or leaves it with the thread that is speaking. An error where nothing can be said any more.
    pub fn say(&self, message: Message) -> Result<()> {
        self.put(Item::Message(message))
    }

    /// RECV_BITMAP with its bits.
    pub fn say_bitmap(&self, block: Vec<u8>, bits: Vec<u8>) -> Result<()> {
        self.put(Item::Bitmap(block, bits))
    }

    /// Says it and waits until the channel took it, at most for `limit`.
    pub fn say_surely(&self, message: Message, limit: Duration) -> Result<()> {
        self.say(message)?;
        let since = Instant::now();
        let mut state = lock(&self.state);
        while state.writing {
            let left = limit.checked_sub(since.elapsed()).filter(|left| !left.is_zero());
            let left = left.ok_or_else(|| Error::new(libc::ETIMEDOUT, "the return path is stuck"))?;
            state = self.idle.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        match &state.file {
            Some(file) => file.status().first_error().map_or(Ok(()), Err),
            None => Err(silent()),
        }
    }

    fn put(&self, item: Item) -> Result<()> {
        let mut state = lock(&self.state);
        if !state.open {
            return Err(silent());
        }
        if state.waiting.len() >= WAITING_MAX {
            return Err(Error::new(libc::ENOBUFS, "the return path takes nothing"));
        }
        state.waiting.push_back(item);
        if state.writing {
            return Ok(());
        }
        let Some(mut file) = state.file.take() else { return Err(silent()) };
        let mut connection = state.connection;
        state.writing = true;
        while let Some(item) = state.waiting.pop_front() {
            if connection != state.connection {
                connection = state.connection;
                let Some(newer) = state.file.take() else { break };
                file = newer;
            }
            drop(state);
            write(&file, item);
            state = lock(&self.state);
        }
        let result = file.status().first_error().map_or(Ok(()), Err);
        state.writing = false;
        if state.open && state.file.is_none() {
            state.file = Some(file);
        }
        self.idle.notify_all();
        result
    }
}

fn write(file: &MigFile, item: Item) {
    match item {
        Item::Message(message) => message.put(file),
        Item::Bitmap(block, bits) => {
            Message::ReceivedBitmap(block).put(file);
            return_path::put_bitmap(file, &bits);
        }
    }
    file.flush();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::memory;
    use std::sync::Arc;
    use std::thread;

    #[test]
    fn messages_of_many_threads_stay_whole() {
        let (here, there) = memory::pair(64);
        let voice = Arc::new(Voice::default());
        assert_eq!(voice.say(Message::Pong(0)).unwrap_err().errno(), libc::ENOTCONN);
        voice.open(MigFile::new(here, true));
        let reader = thread::spawn(move || {
            let file = MigFile::new(there, false);
            let mut sum = 0;
            for _ in 0..400 {
                let Message::Pong(value) = Message::get(&file, false).unwrap() else { panic!("another message") };
                sum += value;
            }
            sum
        });
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let voice = Arc::clone(&voice);
                thread::spawn(move || (0..100).for_each(|_| voice.say(Message::Pong(number)).unwrap()))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(reader.join().unwrap(), 600);
        voice.close();
        assert!(!voice.is_open() && voice.say_surely(Message::Shut(0), Duration::ZERO).is_err());
    }

    #[test]
    fn a_broken_connection_is_an_error() {
        let (here, there) = memory::pair(64);
        let voice = Voice::default();
        voice.open(MigFile::new(here, true));
        drop(there);
        assert!(voice.say_surely(Message::Shut(0), Duration::from_secs(1)).is_err());
    }
}
