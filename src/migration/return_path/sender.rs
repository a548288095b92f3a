// SPDX-License-Identifier: LGPL-2.1-or-later
//! Sends the destination's messages to the source, from any thread, one after the other.
//!
//! No lock is held while a message is written, because the channel may be a callback of the hypervisor. If another thread
//! is writing, a message is queued for that thread.

use super::message::{self, Message};
use crate::error::{Error, Result};
use crate::file::MigFile;
use crate::savevm::unwind::on_panic;
use crate::sync::{Condvar, Mutex, Rank};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Limit on queued messages. Only a guest that requests pages faster than the channel takes them reaches it.
const WAITING_MAX: usize = 1 << 16;

enum Item {
    Message(Message),
    /// What follows RECV_BITMAP, beside the message.
    Bitmap(Vec<u8>, Vec<u8>),
    /// An answer of a preflight, with its message.
    Answer(Vec<u8>),
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(u64, Item)>,
    /// `None` while the sender is closed, and while a thread writes.
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
    /// Opens the sender: messages go to this file from now on.
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

    /// Closes the sender. The message that another thread is writing is sent, or fails with the connection.
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

    /// Sends a message, or queues it for the thread that is writing. An error if the sender is closed.
    pub fn send(&self, message: Message) -> Result<()> {
        let number = self.put(Item::Message(message), false)?;
        self.state.lock().outcome(number)
    }

    /// Sends RECV_BITMAP with its bits.
    pub fn send_bitmap(&self, block: Vec<u8>, bits: Vec<u8>) -> Result<()> {
        let number = self.put(Item::Bitmap(block, bits), false)?;
        self.state.lock().outcome(number)
    }

    /// Sends an answer of a preflight, of at most `PREFLIGHT_ANSWER_MAX` bytes.
    pub fn send_answer(&self, answer: Vec<u8>) -> Result<()> {
        let number = self.put(Item::Answer(answer), false)?;
        self.state.lock().outcome(number)
    }

    /// Sends the last message of this connection, and waits at most `limit` until the channel took it. An error concerns
    /// this message only: the peer may close the connection as soon as it has the message.
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

    /// Queues a message, and writes the queue unless another thread does so. Returns the message's number.
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
        // This may free the channel, which calls the hypervisor.
        drop(state);
        drop(spent);
        Ok(number)
    }

    /// The writing thread panicked: it is unknown what the source received, so nothing more is sent.
    fn lost(&self) {
        let mut state = self.state.lock();
        state.writing = false;
        state.open = false;
        state.drop_waiting();
        self.idle.notify_all();
    }
}

impl State {
    /// Drops the queue. The queued messages and the one being written count as not sent.
    fn drop_waiting(&mut self) {
        if self.written < self.taken {
            self.failed.get_or_insert((self.written + 1, silent()));
        }
        self.waiting.clear();
        self.written = self.taken;
    }

    /// Returns the result of a message, as far as it is known.
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
        Item::Answer(answer) => {
            message::put(file, &Message::Preflight(u32::try_from(answer.len()).unwrap_or(u32::MAX)));
            file.put(&answer);
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
    fn no_message_is_sent_after_the_final_one() {
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
    fn panic_in_the_channel_closes_the_sender() {
        let sender = Sender::default();
        sender.open(MigFile::new(Arc::new(Mistaken), true));
        let vm = Vm::default();
        assert!(catch(&vm, || sender.send(Message::Pong(1))).is_err() && vm.is_poisoned());
        assert!(!sender.is_open() && !sender.state.lock().writing);
        let since = Instant::now();
        assert!(sender.send_final(Message::Shut(1), Duration::from_secs(600)).is_err());
        assert!(since.elapsed() < Duration::from_secs(60));
    }

    /// A channel that calls the sender when it is dropped.
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
        assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(false));
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
