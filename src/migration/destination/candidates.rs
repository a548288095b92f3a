// SPDX-License-Identifier: LGPL-2.1-or-later
//! Clients that connect while a paused or completed postcopy waits for its source.
//!
//! Any client may connect to a listener, and one that is silent must not keep the source waiting. So a separate thread examines
//! each connection. The client must complete the TLS handshake if the migration uses TLS, and send a command of a recovery within
//! the time limit of the handshake. The first connection that does so is the source's.

use super::strangers::{Pending, STRANGERS_MAX, read_first};
use crate::channel::{Begun, Channel};
use crate::error::{Error, Result};
use crate::migration::core::Core;
use crate::savevm::unwind::catch;
use crate::sync::{Mutex, Rank};
use crate::sys::spawn;
use crate::wire::{self, Command};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[derive(Default)]
struct State {
    source: Option<Arc<dyn Channel>>,
    refused: Vec<Error>,
    pending: Pending,
}

/// See the module. Dropping it closes the connections that are being examined.
pub(super) struct Candidates {
    core: Arc<Core>,
    state: Arc<Mutex<State>>,
    threads: Vec<JoinHandle<()>>,
}

impl Candidates {
    pub fn new(core: &Arc<Core>) -> Self {
        let state = Arc::new(Mutex::new(Rank::IncomingRecovery, State::default()));
        Self { core: Arc::clone(core), state, threads: Vec::new() }
    }

    /// Examines a connection that was accepted.
    pub fn examine(&mut self, raw: Arc<dyn Channel>) {
        self.threads.retain(|thread| !thread.is_finished());
        self.state.lock().pending.add(&raw);
        let (core, state) = (Arc::clone(&self.core), Arc::clone(&self.state));
        let body = move || {
            let result = catch(&core.vm, || begin(&core, &raw)).and_then(|result| result);
            let second = {
                let mut state = state.lock();
                state.pending.remove(&raw);
                match result {
                    Ok(channel) if state.source.is_none() => state.source.replace(channel),
                    Ok(channel) => Some(channel),
                    Err(error) => {
                        state.refused.push(error);
                        None
                    }
                }
            };
            // Closes it without the lock.
            drop(second);
            core.status_machine.notify();
        };
        match spawn("savevm-client", body) {
            Ok(thread) => self.threads.push(thread),
            Err(err) => self.state.lock().refused.push(Error::io("starting a thread for a connection", &err)),
        }
    }

    /// Returns the connection of the source, once it is known.
    pub fn take_source(&self) -> Option<Arc<dyn Channel>> {
        self.state.lock().source.take()
    }

    /// Returns why connections were closed since the last call.
    pub fn take_refused(&self) -> Vec<Error> {
        std::mem::take(&mut self.state.lock().refused)
    }

    /// Returns whether no further connection can be examined now. Further clients wait in the listener's queue, at most
    /// until those that are examined have had enough time.
    pub fn is_full(&self) -> bool {
        let (is_full, late) = {
            let mut state = self.state.lock();
            let is_full = state.pending.len() >= STRANGERS_MAX;
            (is_full, if is_full { state.pending.take_late() } else { Pending::default() })
        };
        late.shut_down();
        is_full
    }

    /// Returns how long the next accept may take: shorter than `idle` while connections are examined.
    pub fn accept_limit(&self, idle: Duration) -> Duration {
        const SOON: Duration = Duration::from_millis(5);
        if self.state.lock().pending.len() == 0 { idle } else { idle.min(SOON) }
    }
}

impl Drop for Candidates {
    fn drop(&mut self) {
        let pending = std::mem::take(&mut self.state.lock().pending);
        pending.shut_down();
        for thread in self.threads.drain(..) {
            // A panic in it was caught and reported.
            let _ = thread.join();
        }
    }
}

/// Makes a channel a connection, and reads its first bytes, which the returned channel brings once more.
fn begin(core: &Core, raw: &Arc<dyn Channel>) -> Result<Arc<dyn Channel>> {
    let limit = core.params().handshake_timeout;
    let until = Instant::now() + limit;
    let channel = core.secure_accepted(Arc::clone(raw))?;
    // The tag of a command, and its number.
    let mut head = [0; 3];
    match read_first(&*channel, &mut head, until) {
        Ok(true) => {}
        Ok(false) => return Err(Error::new(libc::EIO, "it ends")),
        Err(err) if err.kind() == io::ErrorKind::TimedOut => {
            return Err(Error::new(libc::ETIMEDOUT, format!("it did not begin within {limit:?}")));
        }
        Err(err) => return Err(Error::channel("reading its first bytes", &err)),
    }
    let number = u16::from_be_bytes([head[1], head[2]]);
    if head[0] != wire::COMMAND || ![Command::RecvBitmap as u16, Command::PostcopyResume as u16].contains(&number) {
        return Err(Error::invalid(format!("it begins with {head:02x?}, which is no command of a recovery")));
    }
    Ok(Arc::new(Begun::new(head.to_vec(), channel)))
}
