// SPDX-License-Identifier: LGPL-2.1-or-later
//! Sorts the connections of a source that uses several: the main one and the further ones, by their first bytes and in any
//! order. A connection that is neither is closed and reported.
//!
//! A thread accepts. Each connection is greeted on a thread of its own, because a source may send the first bytes of one
//! only after the others are made, and because a stranger may be silent.

use super::acceptor::Acceptor;
use super::strangers::{self, Pending, read_first};
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
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the accepting thread looks whether all connections are there.
const POLL: Duration = Duration::from_millis(50);
/// Connections that may be greeted at the same time, besides those of the source.
const STRANGERS_MAX: usize = 16;
/// Bytes that tell the main connection from a further one.
const MAGIC_LEN: usize = 4;

#[derive(Default)]
struct State {
    /// The main connection, until the worker takes it.
    main: Option<Arc<dyn Channel>>,
    /// The main connection was found.
    has_main: bool,
    /// Connections that are being greeted.
    pending: Pending,
    error: Option<Error>,
}

struct Inner {
    core: Arc<Core>,
    further: Arc<Further>,
    stop: Cancel,
    state: Mutex<State>,
}

/// See the module. Dropping it closes the listener and all connections that were not sorted yet.
pub(super) struct Sorter {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

impl Sorter {
    /// Accepts until all connections are there.
    pub fn start(core: &Arc<Core>, further: &Arc<Further>, acceptor: Acceptor) -> Result<Self> {
        let inner = Arc::new(Inner {
            core: Arc::clone(core),
            further: Arc::clone(further),
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
        {
            let mut state = inner.state.lock();
            state.has_main = state.main.is_some();
        }
        inner.core.wait_for("waiting for the source", limit.unwrap_or(FOREVER), || {
            if let Some(error) = inner.further.error() {
                return Some(Err(error));
            }
            let mut state = inner.state.lock();
            let error = state.error.clone();
            state.main.take().map(Ok).or(error.map(Err))
        })
    }
}

impl Drop for Sorter {
    fn drop(&mut self) {
        self.inner.stop.cancel();
        self.inner.close_pending();
        if let Some(thread) = self.thread.take() {
            // A panic in it was caught and reported.
            let _ = thread.join();
        }
    }
}

impl Inner {
    fn is_done(&self) -> bool {
        self.stop.is_cancelled() || (self.state.lock().has_main && self.further.is_complete())
    }

    fn fail(&self, error: Error) {
        self.state.lock().error.get_or_insert(error);
        self.core.status_machine.notify();
    }

    fn close_pending(&self) {
        let pending = std::mem::take(&mut self.state.lock().pending);
        pending.shut_down();
    }

    fn accept_all(&self, acceptor: &Acceptor) {
        let most = self.core.params().channels as usize + 1 + STRANGERS_MAX;
        std::thread::scope(|scope| {
            while !self.is_done() {
                if self.state.lock().pending.len() >= most {
                    let generation = self.core.status_machine.generation();
                    self.core.status_machine.wait_changed(generation, POLL);
                    continue;
                }
                let raw = match acceptor.accept(Some(POLL), &self.stop) {
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
            // Only strangers are left.
            self.close_pending();
        });
    }

    /// Finds out what a connection is.
    fn greet(&self, raw: &Arc<dyn Channel>) {
        let limit = self.core.params().handshake_timeout;
        let until = Instant::now() + limit;
        let sorted = self
            .core
            .secure_accepted(Arc::clone(raw), limit)
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
        match magic {
            wire::FILE_MAGIC => {
                let mut state = self.state.lock();
                if state.has_main {
                    return Err("it begins as a stream, and the main connection is there already".to_owned());
                }
                state.has_main = true;
                state.main = Some(Arc::new(Begun::new(first[..MAGIC_LEN].to_vec(), Arc::clone(channel))));
            }
            MAGIC => {
                read(&**channel, &mut first[MAGIC_LEN..], until)?;
                let hello = Hello::decode(&first).map_err(|wrong| format!("a wrong hello: {wrong}"))?;
                match self.further.introduce(hello, channel) {
                    Introduced::Accepted => drop(self.core.link.add(channel)),
                    Introduced::Stranger(reason) => return Err(reason),
                }
            }
            _ => {
                let text =
                    format!("it begins with 0x{magic:08x}, expected 0x{:08x} or 0x{MAGIC:08x}", wire::FILE_MAGIC);
                return Err(match tls_on_one_side(&first[..MAGIC_LEN], Role::Source) {
                    Some(reason) => format!("{text}: {reason}"),
                    None => text,
                });
            }
        }
        Ok(())
    }
}

/// Reads the first bytes of a connection, or returns why they are not there.
fn read(channel: &dyn Channel, into: &mut [u8], until: Instant) -> std::result::Result<(), String> {
    match read_first(channel, into, until) {
        Ok(true) => Ok(()),
        Ok(false) => Err("it ends".to_owned()),
        Err(err) if err.kind() == io::ErrorKind::TimedOut => Err("it is silent".to_owned()),
        Err(err) => Err(err.to_string()),
    }
}
