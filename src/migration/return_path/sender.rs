// SPDX-License-Identifier: LGPL-2.1-or-later
//! The destination's voice: messages to the source, from any thread, one after the other.
//!
//! No lock is held while a message is written, since a channel may be the hypervisor's own. Who finds another thread
//! writing leaves the message with it.

use super::message::{self, Message};
use crate::error::{Error, Result};
use crate::file::MigFile;
use crate::savevm::unwind::on_panic;
use crate::sync::{Condvar, Mutex, Rank};
use std::collections::VecDeque;
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
    waiting: VecDeque<(u64, Item)>,
    /// `None` while it is not open, and while somebody writes.
    file: Option<MigFile>,
    open: bool,
    writing: bool,
    /// Counts the connections.
    connection: u64,
    /// Messages are numbered: the last one that was taken over, and the last one that is done with, well or not.
    taken: u64,
    written: u64,
    /// The first message of this connection that did not go out, and why.
    failed: Option<(u64, Error)>,
}

/// See the module.
pub struct Sender {
    state: Mutex<State>,
    idle: Condvar,
}

fn silent() -> Error {
    Error::new(libc::ENOTCONN, "there is no return path")
}

impl Default for Sender {
    fn default() -> Self {
        Self { state: Mutex::new(Rank::ReturnPathSender, State::default()), idle: Condvar::new() }
    }
}

impl Sender {
    /// Speaks over this file from now on.
    pub fn open(&self, file: MigFile) {
        let mut state = self.state.lock();
        state.drop_waiting();
        let older = state.file.replace(file);
        state.open = true;
        state.connection += 1;
        state.failed = None;
        drop(state);
        drop(older);
    }

    /// Says nothing more. What another thread is writing goes out, or fails with the connection.
    pub fn close(&self) {
        let file = {
            let mut state = self.state.lock();
            state.open = false;
            state.drop_waiting();
            state.file.take()
        };
        drop(file);
    }

    pub fn is_open(&self) -> bool {
        self.state.lock().open
    }

    /// Says it, or leaves it with the thread that is speaking. An error where nothing can be said any more.
    pub fn send(&self, message: Message) -> Result<()> {
        let number = self.put(Item::Message(message), false)?;
        self.state.lock().outcome(number)
    }

    /// RECV_BITMAP with its bits.
    pub fn send_bitmap(&self, block: Vec<u8>, bits: Vec<u8>) -> Result<()> {
        let number = self.put(Item::Bitmap(block, bits), false)?;
        self.state.lock().outcome(number)
    }

    /// Says it as the last thing over this connection, and waits until the channel took it, at most for `limit`. An error
    /// is about this very message: the peer may end the connection as soon as it has it.
    pub fn send_final(&self, message: Message, limit: Duration) -> Result<()> {
        let number = self.put(Item::Message(message), true)?;
        let since = Instant::now();
        let mut state = self.state.lock();
        while state.written < number {
            let left = limit.checked_sub(since.elapsed()).filter(|left| !left.is_zero());
            let left = left.ok_or_else(|| Error::new(libc::ETIMEDOUT, "the return path is stuck"))?;
            state = self.idle.wait_timeout(state, left);
        }
        state.outcome(number)
    }

    /// Takes a message over, and writes what waits unless another thread is at it; the message's number.
    fn put(&self, item: Item, last: bool) -> Result<u64> {
        let mut state = self.state.lock();
        if !state.open {
            return Err(silent());
        }
        if state.waiting.len() >= WAITING_MAX {
            return Err(Error::new(libc::ENOBUFS, "the return path takes nothing"));
        }
        state.taken += 1;
        let number = state.taken;
        state.waiting.push_back((number, item));
        state.open = !last;
        if state.writing {
            return Ok(number);
        }
        let Some(mut file) = state.file.take() else { return Err(silent()) };
        let mut connection = state.connection;
        state.writing = true;
        while let Some((number, item)) = state.waiting.pop_front() {
            let mut older = None;
            if connection != state.connection {
                connection = state.connection;
                let Some(newer) = state.file.take() else { break };
                older = Some(std::mem::replace(&mut file, newer));
            }
            drop(state);
            drop(older);
            on_panic(|| write(&file, item), || self.lost());
            state = self.state.lock();
            state.written = state.written.max(number);
            if let Some(error) = file.status().first_error().filter(|_| connection == state.connection) {
                state.failed.get_or_insert((number, error));
            }
            self.idle.notify_all();
        }
        state.writing = false;
        let spent = match state.file {
            None if state.open => {
                state.file = Some(file);
                None
            }
            _ => Some(file),
        };
        // The channel may go with it, which is the hypervisor's to do.
        drop(state);
        drop(spent);
        Ok(number)
    }

    /// Who was writing failed in the middle of it: nobody knows what the source got, and nothing more is said.
    fn lost(&self) {
        let mut state = self.state.lock();
        state.writing = false;
        state.open = false;
        state.drop_waiting();
        self.idle.notify_all();
    }
}

impl State {
    /// What waits, and what somebody is writing, did not go out as far as anybody knows.
    fn drop_waiting(&mut self) {
        if self.written < self.taken {
            self.failed.get_or_insert((self.written + 1, silent()));
        }
        self.waiting.clear();
        self.written = self.taken;
    }

    /// How a message fared, as far as that is known.
    fn outcome(&self, number: u64) -> Result<()> {
        match &self.failed {
            Some((first, error)) if *first <= number => Err(error.clone()),
            _ => Ok(()),
        }
    }
}

fn write(file: &MigFile, item: Item) {
    match item {
        Item::Message(message) => message::put(file, &message),
        Item::Bitmap(block, bits) => {
            message::put(file, &Message::ReceivedBitmap(block));
            message::put_bitmap(file, &bits);
        }
    }
    file.flush();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{Channel, memory};
    use crate::savevm::Vm;
    use crate::savevm::unwind::catch;
    use crate::sys::{IoVec, Span};
    use std::io;
    use std::sync::{Arc, Weak, mpsc};
    use std::thread;

    #[test]
    fn messages_of_many_threads_stay_whole() {
        let (here, there) = memory::pair(64);
        let sender = Arc::new(Sender::default());
        assert_eq!(sender.send(Message::Pong(0)).unwrap_err().errno(), libc::ENOTCONN);
        sender.open(MigFile::new(here, true));
        let reader = thread::spawn(move || {
            let file = MigFile::new(there, false);
            let mut sum = 0;
            for _ in 0..400 {
                let Message::Pong(value) = message::get(&file, false).unwrap() else { panic!("another message") };
                sum += value;
            }
            sum
        });
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let sender = Arc::clone(&sender);
                thread::spawn(move || (0..100).for_each(|_| sender.send(Message::Pong(number)).unwrap()))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(reader.join().unwrap(), 600);
        sender.close();
        assert!(!sender.is_open() && sender.send_final(Message::Shut(0), Duration::ZERO).is_err());
    }

    #[test]
    fn the_last_word_stands_whatever_somebody_says_after_it() {
        let (here, there) = memory::pair(64);
        let sender = Sender::default();
        sender.open(MigFile::new(here, true));
        sender.send_final(Message::Shut(0), Duration::from_secs(1)).unwrap();
        assert_eq!(message::get(&MigFile::new(there, false), false).unwrap(), Message::Shut(0));
        assert_eq!(sender.send(Message::Pong(1)).unwrap_err().errno(), libc::ENOTCONN);
        assert!(!sender.is_open());
    }

    #[test]
    fn a_message_is_judged_by_itself() {
        let (here, there) = memory::pair(64);
        let sender = Sender::default();
        sender.open(MigFile::new(here, true));
        sender.send(Message::Pong(1)).unwrap();
        drop(there);
        assert!(sender.send(Message::Pong(2)).is_err());
        assert!(sender.state.lock().outcome(1).is_ok() && sender.state.lock().outcome(2).is_err());
    }

    /// A channel with a mistake in it.
    struct Mistaken;

    impl Channel for Mistaken {
        fn write_all(&self, _pieces: &mut [IoVec]) -> io::Result<()> {
            panic!("provoked in the channel")
        }

        fn read(&self, _into: Span<'_>) -> io::Result<usize> {
            Ok(0)
        }

        fn shutdown(&self) -> io::Result<()> {
            Ok(())
        }

        fn close(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_who_panics_while_he_speaks() {
        let sender = Sender::default();
        sender.open(MigFile::new(Arc::new(Mistaken), true));
        let vm = Vm::default();
        assert!(catch(&vm, || sender.send(Message::Pong(1))).is_err() && vm.is_poisoned());
        assert!(!sender.is_open() && !sender.state.lock().writing);
        let since = Instant::now();
        assert!(sender.send_final(Message::Shut(1), Duration::from_secs(9)).is_err());
        assert!(since.elapsed() < Duration::from_secs(5));
    }

    /// A channel whose end comes back to the voice.
    struct Curious(Weak<Sender>, mpsc::Sender<bool>);

    impl Drop for Curious {
        fn drop(&mut self) {
            let is_open = self.0.upgrade().is_some_and(|sender| sender.is_open());
            self.1.send(is_open).unwrap();
        }
    }

    impl Channel for Curious {
        fn write_all(&self, _pieces: &mut [IoVec]) -> io::Result<()> {
            Ok(())
        }

        fn read(&self, _into: Span<'_>) -> io::Result<usize> {
            Ok(0)
        }

        fn shutdown(&self) -> io::Result<()> {
            Ok(())
        }

        fn close(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_channel_goes_without_the_lock() {
        let sender = Arc::new(Sender::default());
        let (end, ended) = mpsc::channel();
        sender.open(MigFile::new(Arc::new(Curious(Arc::downgrade(&sender), end)), true));
        thread::spawn(move || sender.send_final(Message::Shut(0), Duration::from_secs(1)));
        assert_eq!(ended.recv_timeout(Duration::from_secs(5)), Ok(false));
    }

    #[test]
    fn a_broken_connection_is_an_error() {
        let (here, there) = memory::pair(64);
        let sender = Sender::default();
        sender.open(MigFile::new(here, true));
        drop(there);
        assert!(sender.send_final(Message::Shut(0), Duration::from_secs(1)).is_err());
    }
}
