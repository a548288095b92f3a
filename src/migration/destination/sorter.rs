// SPDX-License-Identifier: LGPL-2.1-or-later
//! Sorts the connections to a listener by their first bytes: the main connection of a source, and its further connections if it
//! uses several. They may arrive in any order. Any other connection is closed and reported.
//!
//! One thread accepts connections. A separate thread reads the first bytes of each connection, because a source may send them
//! only after it has made all connections, and because a client that is not the source may send nothing.

use super::acceptor::Acceptor;
use super::beginning::{MAGIC_LEN, read, read_beginning};
use super::strangers::{self, Pending, STRANGERS_MAX};
use crate::channel::{Begun, Cancel, Channel, Role, tls_on_one_side};
use crate::error::{Error, Result};
use crate::migration::core::Core;
use crate::migration::further::{Further, Introduced};
use crate::savevm::connections::Connections;
use crate::savevm::unwind::catch;
use crate::sync::{Mutex, Rank};
use crate::sys::{spawn, spawn_scoped};
use crate::wire;
use crate::wire::multifd::{HELLO_LEN, Hello, MAGIC};
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the accepting thread looks whether all connections are there.
const POLL: Duration = Duration::from_millis(50);

#[derive(Default)]
struct State {
    /// Connections that begin as a stream, until the worker takes them. The first one is the main connection. The next
    /// one is, if the first was that of a preflight.
    mains: VecDeque<Arc<dyn Channel>>,
    /// The worker took a main connection, and has not asked for another one.
    is_taken: bool,
    /// Connections that are being greeted.
    pending: Pending,
    error: Option<Error>,
}

struct Inner {
    core: Arc<Core>,
    /// Of a source that uses several connections.
    further: Option<Arc<Further>>,
    stop: Cancel,
    state: Mutex<State>,
}

/// See the module. Dropping it closes the listener and all connections that were not sorted yet.
pub(super) struct Sorter {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

impl Sorter {
    /// Accepts until all connections are there. Without further connections it accepts until it is dropped.
    pub fn start(core: &Arc<Core>, further: Option<Arc<Further>>, acceptor: Acceptor) -> Result<Self> {
        let inner = Arc::new(Inner {
            core: Arc::clone(core),
            further,
            stop: Cancel::new()?,
            state: Mutex::new(Rank::Sorter, State::default()),
        });
        let body = Arc::clone(&inner);
        let run = move || {
            if let Err(error) = catch(&body.core.vm, || body.accept_all(&acceptor)) {
                body.fail(error);
            }
        };
        let thread = spawn("savevm-accept", run).map_err(|err| Error::io("starting a thread to accept", &err))?;
        Ok(Self { inner, thread: Some(thread) })
    }

    /// Waits for the main connection. If it is called again, the one before was another client's.
    pub fn main(&self, limit: Option<Duration>) -> Result<Arc<dyn Channel>> {
        const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);
        let inner = &self.inner;
        inner.state.lock().is_taken = false;
        inner.core.wait_for("waiting for the source", limit.unwrap_or(FOREVER), || {
            if let Some(error) = inner.further.as_ref().and_then(|further| further.error()) {
                return Some(Err(error));
            }
            let mut state = inner.state.lock();
            let main = state.mains.pop_front();
            state.is_taken = main.is_some();
            main.map(Ok).or_else(|| state.error.clone().map(Err))
        })
    }
}

impl Drop for Sorter {
    fn drop(&mut self) {
        self.inner.stop.cancel();
        self.inner.core.status_machine.notify();
        self.inner.close_pending();
        if let Some(thread) = self.thread.take() {
            // A panic in it was caught and reported.
            let _ = thread.join();
        }
    }
}

impl Inner {
    fn is_done(&self) -> bool {
        let is_complete = || self.further.as_ref().is_some_and(|further| further.is_complete());
        self.stop.is_cancelled() || (is_complete() && self.has_main())
    }

    fn has_main(&self) -> bool {
        let state = self.state.lock();
        state.is_taken || !state.mains.is_empty()
    }

    fn fail(&self, error: Error) {
        self.state.lock().error.get_or_insert(error);
        self.core.status_machine.notify();
    }

    fn close_pending(&self) {
        let pending = std::mem::take(&mut self.state.lock().pending);
        pending.shut_down();
    }

    /// Whether no further connection can be greeted now.
    fn is_full(&self) -> bool {
        let most = self.core.params().channels as usize + 1 + STRANGERS_MAX;
        let state = self.state.lock();
        state.pending.len() + state.mains.len() >= most
    }

    fn accept_all(&self, acceptor: &Acceptor) {
        let limit = self.further.as_ref().map(|_| POLL);
        std::thread::scope(|scope| {
            while !self.is_done() {
                let generation = self.core.status_machine.generation();
                if self.is_full() {
                    let late = self.state.lock().pending.take_late();
                    late.shut_down();
                    self.core.status_machine.wait_changed(generation, POLL);
                    continue;
                }
                let raw = match acceptor.accept(limit, &self.stop) {
                    Ok(raw) => raw,
                    Err(error) if error.errno() == libc::ETIMEDOUT => continue,
                    Err(error) => {
                        self.fail(error);
                        break;
                    }
                };
                self.state.lock().pending.add(&raw);
                let greet = move || {
                    if let Err(error) = catch(&self.core.vm, || self.greet(&raw)) {
                        self.fail(error);
                    }
                    self.state.lock().pending.remove(&raw);
                    self.core.status_machine.notify();
                };
                if let Err(err) = spawn_scoped(scope, "savevm-greet", greet) {
                    self.fail(Error::io("starting a thread for a connection", &err));
                }
            }
            // No connection that is left belongs to the source.
            self.close_pending();
        });
        let rest = {
            let mut state = self.state.lock();
            let first = usize::from(!state.is_taken).min(state.mains.len());
            state.mains.split_off(first)
        };
        // Closes them without the lock.
        drop(rest);
    }

    /// Finds out what a connection is.
    fn greet(&self, raw: &Arc<dyn Channel>) {
        let limit = self.core.params().handshake_timeout;
        let until = Instant::now() + limit;
        let sorted = self
            .core
            .secure_accepted(Arc::clone(raw))
            .map_err(|error| error.message().to_owned())
            .and_then(|channel| self.sort(&channel, until));
        if let Err(reason) = sorted
            && !self.stop.is_cancelled()
            && !self.is_done()
        {
            strangers::report(&self.core, &reason);
        }
    }

    /// Keeps a connection of the source. Otherwise returns why it is none; dropping it closes it.
    fn sort(&self, channel: &Arc<dyn Channel>, until: Instant) -> std::result::Result<(), String> {
        let mut first = [0; HELLO_LEN];
        read(&**channel, &mut first[..MAGIC_LEN], until)?;
        let magic = u32::from_be_bytes([first[0], first[1], first[2], first[3]]);
        match (magic, &self.further) {
            (wire::FILE_MAGIC, _) => {
                let beginning = read_beginning(&self.core, &**channel, &first[..MAGIC_LEN])?;
                let main = Arc::new(Begun::new(beginning, Arc::clone(channel)));
                self.state.lock().mains.push_back(main);
            }
            (MAGIC, Some(further)) => {
                read(&**channel, &mut first[MAGIC_LEN..], until)?;
                let hello = Hello::decode(&first).map_err(|wrong| format!("a wrong hello: {wrong}"))?;
                match further.introduce(hello, channel) {
                    Introduced::Accepted => drop(self.core.link.add(channel)),
                    Introduced::Stranger(reason) => return Err(reason),
                }
            }
            (_, further) => return Err(unexpected(magic, further.is_some(), &first[..MAGIC_LEN])),
        }
        Ok(())
    }
}

/// Why a connection with these first bytes is not the source's.
fn unexpected(magic: u32, takes_further: bool, first: &[u8]) -> String {
    let further = if takes_further { format!(" or 0x{MAGIC:08x}") } else { String::new() };
    let text = format!("it begins with 0x{magic:08x}, expected 0x{:08x}{further}", wire::FILE_MAGIC);
    match tls_on_one_side(first, Role::Source) {
        Some(reason) => format!("{text}: {reason}"),
        None => text,
    }
}
