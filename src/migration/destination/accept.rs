// SPDX-License-Identifier: LGPL-2.1-or-later
//! Accepting the source. Any client may connect to a socket that listens. A connection that does not begin as a stream
//! (another magic number, an early end, silence) is closed and reported, and the worker accepts the next one.

use super::acceptor::Acceptor;
use super::sorter::Sorter;
use super::strangers;
use super::worker::Worker;
use crate::channel::{Role, tls_on_one_side};
use crate::error::Result;
use crate::file::{BUFFER_SIZE, MigFile};
use crate::savevm::host::Flags;
use crate::wire;
use std::time::{Duration, Instant};

/// Longest wait for the magic number, which a source sends as soon as it is connected.
const MAGIC_LIMIT: Duration = Duration::from_secs(5);
/// Bytes of magic number and version; with the head of the configuration section.
const MAGIC_LEN: usize = 8;
const HEAD_LEN: usize = MAGIC_LEN + 5;

impl Worker {
    /// As `accept_source`, from a source with further connections.
    pub(super) fn accept_sorted(&self, sorter: &Sorter) -> Result<MigFile> {
        let core = &self.shared.core;
        let (limit, since) = (core.params().connect_timeout, Instant::now());
        loop {
            let channel = sorter.main(limit.map(|limit| limit.saturating_sub(since.elapsed())))?;
            let file = self.attach(&channel)?;
            self.handshake.start(core.params().handshake_timeout);
            let Err(reason) = self.begins_as_stream(&file) else { return Ok(file) };
            core.interrupted().map_or(Ok(()), Err)?;
            core.link.drop_main();
            strangers::report(core, &reason);
        }
    }

    /// Accepts connections until one begins as a stream.
    pub(super) fn accept_source(&self, acceptor: &Acceptor) -> Result<MigFile> {
        let core = &self.shared.core;
        let params = core.params();
        let since = Instant::now();
        loop {
            let left = params.connect_timeout.map(|limit| limit.saturating_sub(since.elapsed()));
            let raw = acceptor.accept(left, &core.cancel)?;
            let only = params.one_connection || !acceptor.accepts_more();
            let reason = match core.secure_accepted(raw, if only { params.handshake_timeout } else { MAGIC_LIMIT }) {
                Ok(channel) => {
                    let file = self.attach(&channel)?;
                    if only {
                        return Ok(file);
                    }
                    self.handshake.start(MAGIC_LIMIT);
                    let Err(reason) = self.begins_as_stream(&file) else { return Ok(file) };
                    core.link.drop_channel();
                    reason
                }
                Err(error) if only => return Err(error),
                Err(error) => error.message().to_owned(),
            };
            if let Some(error) = core.interrupted() {
                return Err(error);
            }
            strangers::report(core, &reason);
        }
    }

    /// Looks at the beginning without consuming it. The load reports what is wrong with a complete header.
    fn begins_as_stream(&self, file: &MigFile) -> std::result::Result<(), String> {
        let vm = &self.shared.core.vm;
        let mut head = [0; HEAD_LEN];
        let missing =
            || file.status().first_error().map_or_else(|| "it ends".to_owned(), |error| error.message().to_owned());
        if file.peek_into(&mut head[..4], 0) < 4 {
            return Err(missing());
        }
        let magic = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        if magic != wire::FILE_MAGIC {
            let text = format!("it begins with 0x{magic:08x}, expected 0x{:08x}", wire::FILE_MAGIC);
            return Err(match tls_on_one_side(&head[..4], Role::Source) {
                Some(reason) => format!("{text}: {reason}"),
                None => text,
            });
        }
        self.handshake.start(self.shared.core.params().handshake_timeout);
        if vm.flags().has(Flags::NO_CONFIGURATION) {
            return if file.peek(MAGIC_LEN, 0) < MAGIC_LEN { Err(missing()) } else { Ok(()) };
        }
        if file.peek_into(&mut head, 0) < HEAD_LEN {
            return Err(missing());
        }
        let name = u32::from_be_bytes([head[9], head[10], head[11], head[12]]) as usize;
        let whole = HEAD_LEN.saturating_add(name);
        if head[8] == wire::CONFIGURATION && whole <= BUFFER_SIZE && file.peek(whole, 0) < whole {
            return Err(missing());
        }
        Ok(())
    }
}
