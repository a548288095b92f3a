// SPDX-License-Identifier: LGPL-2.1-or-later
//! Accepting the source. Any client may connect to a socket that listens. `sorter.rs` examines the clients, several at the
//! same time, and closes and reports those whose connection does not begin as a stream (another magic number, an early end,
//! silence).

use super::acceptor::Acceptor;
use super::entrance::Entrance;
use super::sorter::Sorter;
use super::stage::Stage;
use super::worker::Worker;
use crate::error::{Error, Result};
use crate::file::MigFile;
use crate::migration::further::Further;
use crate::savevm::host::Flags;
use crate::savevm::incoming::Opened;
use crate::savevm::load;
use std::time::{Duration, Instant};

impl Worker {
    /// Waits for the source, and reads the beginning of its stream.
    pub(super) fn accept(&self, entrance: &mut Entrance, file: &mut Option<MigFile>) -> Result<()> {
        let core = &self.shared.core;
        let params = core.params();
        core.vm.set_flags(Flags::POSTCOPY_RAM, params.postcopy && core.vm.slot.ram().is_some());
        let acceptor = entrance.acceptor.take();
        let acceptor = acceptor.ok_or_else(|| Error::new(libc::ENOTCONN, "there is nothing to listen on"))?;
        let (limit, since) = (params.connect_timeout, Instant::now());
        let left = || limit.map(|limit| limit.saturating_sub(since.elapsed()));
        if !params.has_further() && (params.one_connection || !acceptor.accepts_more()) {
            return self.open_stream(file, acceptor.accepts_more(), || self.accept_any(&acceptor, left()));
        }
        let further = params.has_further().then(|| Further::expect(core));
        let sorter = entrance.sorter.insert(Sorter::start(core, further, acceptor)?);
        self.open_stream(file, true, || self.attach(&sorter.main(left())?))?;
        if !params.has_further() {
            // Closes the listener: a source that makes further connections fails.
            drop(entrance.sorter.take());
        }
        Ok(())
    }

    /// Accepts a connection that is the source's, whatever it begins with.
    fn accept_any(&self, acceptor: &Acceptor, limit: Option<Duration>) -> Result<MigFile> {
        let core = &self.shared.core;
        let raw = acceptor.accept(limit, &core.cancel)?;
        self.attach(&core.secure_accepted(raw)?)
    }

    /// Takes connections until one brings the stream of a migration.
    fn open_stream(
        &self,
        file: &mut Option<MigFile>,
        accepts_more: bool,
        next: impl Fn() -> Result<MigFile>,
    ) -> Result<()> {
        loop {
            self.handshake.reset();
            let new = file.insert(next()?);
            match load::open(&self.shared.core.vm, new)? {
                Opened::Stream => return self.enter(Stage::Load),
                visit => {
                    let broken = if let Opened::BrokenOff(error) = visit { Some(error) } else { None };
                    if let Some(visitor) = file.take() {
                        self.end_visit(visitor, accepts_more, broken)?;
                    }
                }
            }
        }
    }
}
