// SPDX-License-Identifier: LGPL-2.1-or-later
//! Sends the verdict of a completed postcopy again.
//!
//! The last messages of a postcopy may be lost: the destination is complete, and the source is paused and tries to recover.
//! If the destination's user offers a connection for that, the source receives the verdict and completes as well.
//!
//! A separate thread does this, without any lock. It ends when it has answered, after `LIMIT`, or when the handle is dropped.

use super::acceptor::Acceptor;
use super::candidates::Candidates;
use super::worker::POLL;
use crate::channel::{Cancel, Channel};
use crate::error::{Error, Result};
use crate::file::MigFile;
use crate::migration::core::Core;
use crate::migration::return_path::message::{self, Message};
use crate::sync::{Mutex, Rank};
use crate::sys::spawn;
use crate::wire;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Longest wait for the source.
const LIMIT: Duration = Duration::from_secs(300);
/// Longest wait for one message of a client.
const CLIENT_LIMIT: Duration = Duration::from_secs(5);
/// Bytes that are read of a client before it must have closed the connection.
const READ_MAX: usize = 1 << 20;

/// The thread that waits for the source, if there is one.
pub(super) struct Answering(Mutex<Option<(Arc<Cancel>, JoinHandle<()>)>>);

impl Default for Answering {
    fn default() -> Self {
        Self(Mutex::new(Rank::IncomingRecovery, None))
    }
}

impl Answering {
    /// Waits for the source on another thread. Replaces an earlier wait.
    pub fn start(&self, core: &Arc<Core>, acceptor: Acceptor) -> Result<()> {
        self.stop(core);
        let cancel = Arc::new(Cancel::new()?);
        let (core, cancelled) = (Arc::clone(core), Arc::clone(&cancel));
        let thread = spawn("savevm-verdict", move || answer(&core, &acceptor, &cancelled))
            .map_err(|err| Error::io("starting the thread that answers the source", &err))?;
        let before = self.0.lock().replace((cancel, thread));
        // Another call may have started one meanwhile.
        end(before);
        Ok(())
    }

    /// Ends the wait.
    pub fn stop(&self, core: &Core) {
        let before = self.0.lock().take();
        if before.is_some() {
            core.link.drop_channel();
        }
        end(before);
    }
}

fn end(thread: Option<(Arc<Cancel>, JoinHandle<()>)>) {
    let Some((cancel, thread)) = thread else { return };
    cancel.cancel();
    // A host's channel may call this from the thread itself.
    if thread.thread().id() != thread::current().id() {
        // Nothing here depends on its result.
        let _ = thread.join();
    }
}

/// The body of the thread.
fn answer(core: &Arc<Core>, acceptor: &Acceptor, cancel: &Cancel) {
    let since = Instant::now();
    if !acceptor.accepts_more() {
        if let Ok(channel) = acceptor.accept(Some(LIMIT), cancel).and_then(|raw| core.secure_accepted(raw)) {
            answer_client(core, &channel);
        }
        return;
    }
    // Any client may connect to a listener.
    let mut candidates = Candidates::new(core);
    while let Some(left) = LIMIT.checked_sub(since.elapsed()).filter(|left| !left.is_zero()) {
        let generation = core.status_machine.generation();
        if let Some(channel) = candidates.take_source() {
            return answer_client(core, &channel);
        }
        if candidates.is_full() {
            core.status_machine.wait_changed(generation, POLL);
            continue;
        }
        match acceptor.accept(Some(candidates.accept_limit(left)), cancel) {
            Ok(raw) => candidates.examine(raw),
            Err(error) if error.errno() == libc::ETIMEDOUT => {}
            Err(_) => return,
        }
    }
}

/// Sends the verdict if the client is the source, which begins a recovery with a command.
fn answer_client(core: &Core, channel: &Arc<dyn Channel>) {
    if core.link.set(channel) {
        send_verdict(channel);
        core.link.drop_channel();
    }
}

fn send_verdict(channel: &Arc<dyn Channel>) {
    channel.set_stall_limit(Some(CLIENT_LIMIT));
    let file = MigFile::new(Arc::clone(channel), false);
    if file.get_byte() != wire::COMMAND || file.error() != 0 {
        return;
    }
    let Some(back) = file.return_path() else { return };
    message::put(&back, &Message::Shut(0));
    back.flush();
    // Closing a socket with unread bytes could drop the verdict. So the source closes first.
    let mut bytes = 0;
    while file.error() == 0 && bytes < READ_MAX {
        file.get_byte();
        bytes += 1;
    }
}
