// SPDX-License-Identifier: LGPL-2.1-or-later
//! The part of RAM in checkpoints. `migration::checkpoint` calls it with the guest stopped and the big lock held.
//!
//! - `tree.rs`: which contents differ between two checkpoints.
//! - `session.rs`: the protection of memory, and the thread that keeps contents before they change.
//! - `frozen.rs`: memory that is saved while the guest runs.
//! - `unsaved.rs`: which parts of that memory are still to be saved.

mod frozen;
mod session;
#[cfg(test)]
mod tests;
mod tree;
mod unsaved;

use super::Ram;
use crate::error::Result;
use crate::savevm::checkpoint::{CheckpointRam, FrozenRam, PreparedRam, RamCheckpoint, SavedSnapshot, Scope};
pub(super) use frozen::FrozenMemory;
pub(super) use session::{Frozen, Session};
use std::sync::Arc;

/// RAM as the driver of checkpoints sees it.
pub(super) struct Checkpoints(pub Arc<Ram>);

/// One checkpoint of memory. Dropping it frees the checkpoint.
struct Checkpoint {
    ram: Arc<Ram>,
    session: Arc<Session>,
    id: tree::Id,
}

/// Memory that is protected for a snapshot. Dropping it ends the tracking, unless the snapshot needs it.
struct Prepared {
    ram: Arc<Ram>,
    session: Arc<Session>,
}

impl CheckpointRam for Checkpoints {
    fn checkpoint(&self) -> Result<Box<dyn RamCheckpoint>> {
        let session = self.0.session()?;
        match session.add() {
            Ok(id) => Ok(Box::new(Checkpoint { ram: Arc::clone(&self.0), session, id })),
            Err(error) => {
                self.0.end_session(&session);
                Err(error)
            }
        }
    }

    fn prepare(&self) -> Result<Box<dyn PreparedRam>> {
        let prepared = Prepared { ram: Arc::clone(&self.0), session: self.0.session()? };
        prepared.session.prepare()?;
        Ok(Box::new(prepared))
    }

    fn log_since(&self, parent: SavedSnapshot) -> Result<()> {
        let session = self.0.session()?;
        let started = session.start_log(parent);
        self.0.end_session(&session);
        started
    }

    fn parent(&self) -> Option<SavedSnapshot> {
        let session = self.0.busy.lock().session.clone();
        session.and_then(|session| session.parent())
    }

    fn remaining(&self) -> u64 {
        self.0.dirty_bytes()
    }
}

impl PreparedRam for Prepared {
    fn freeze(&self, scope: Scope) -> Result<Box<dyn FrozenRam>> {
        Ok(Box::new(FrozenMemory::new(&self.ram, &self.session, scope)?))
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        self.ram.end_session(&self.session);
    }
}

impl RamCheckpoint for Checkpoint {
    fn rollback(&self) -> Result<()> {
        self.session.go_to(self.id)
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        self.session.free(self.id);
        self.ram.end_session(&self.session);
    }
}

impl Ram {
    /// The tracking of writes; starts it unless it runs. The list of blocks does not change until it ends.
    fn session(&self) -> Result<Arc<Session>> {
        let (session, is_new) = {
            let mut busy = self.busy.lock();
            busy.check_open()?;
            match &busy.session {
                Some(session) => (Arc::clone(session), false),
                None => {
                    busy.check_idle("make a checkpoint of")?;
                    let session = Arc::new(Session::new(self.vm.clone(), self.blocks())?);
                    busy.session = Some(Arc::clone(&session));
                    (session, true)
                }
            }
        };
        if is_new && let Err(error) = session.start() {
            self.end_session(&session);
            return Err(error);
        }
        Ok(session)
    }

    /// Ends the tracking, unless there are checkpoints or a log.
    fn end_session(&self, session: &Arc<Session>) {
        let ended = {
            let mut busy = self.busy.lock();
            if session.is_needed() { None } else { busy.session.take_if(|running| Arc::ptr_eq(running, session)) }
        };
        if let Some(session) = ended {
            session.stop();
        }
    }

    /// Ends the log of changes since a snapshot, unless there are checkpoints.
    pub(super) fn end_log(&self) {
        let session = self.busy.lock().session.clone();
        if let Some(session) = session.filter(|session| !session.has_checkpoints()) {
            session.end_log();
            self.end_session(&session);
        }
    }

    /// Makes the tracking free for `what`: ends the log of changes since a snapshot. Fails with `EBUSY` while checkpoints exist,
    /// which `what` would disturb.
    pub(super) fn end_log_for(&self, what: &str) -> Result<()> {
        self.end_log();
        self.busy.lock().check_no_checkpoints(what)
    }
}
