// SPDX-License-Identifier: LGPL-2.1-or-later
//! The connections of the source: making them, the first round trip, and detecting whether the destination is libsavevm.

use super::shared::Shared;
use super::worker::{Next, Source, Step, set_rate_limit};
use crate::channel::{Channel, Uri};
use crate::error::{Error, Result};
use crate::file::MigFile;
use crate::migration::core::Core;
use crate::migration::endpoint::{CONNECT_TIMEOUT, Endpoint, SOURCE_STALL};
use crate::migration::further::{self, Further};
use crate::migration::params::{Choice, Params};
use crate::migration::return_path::message;
use crate::migration::return_path::reader::Reader;
use crate::savevm::host::with_big_lock;
use crate::savevm::{command, save};
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Source {
    pub(super) fn connect(&mut self, m: &Shared) -> Result<Next> {
        let params = m.core.params();
        let to = self.to.as_ref().ok_or_else(|| Error::new(libc::EALREADY, "already connected"))?;
        let limit = params.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        let channel = match to {
            Endpoint::Uri(uri @ Uri::File { .. }) => {
                let (sink, channel) = m.core.open_file(uri, limit, &m.core.cancel)?;
                self.sink = Some(sink);
                channel
            }
            _ => m.core.connect(to, limit, &m.core.cancel)?,
        };
        self.attach(m, channel, false)?;
        self.go(Step::Setup)
    }

    /// Makes a channel the connection of the moment.
    pub fn attach(&mut self, m: &Shared, channel: Arc<dyn Channel>, peer_is_libsavevm: bool) -> Result<()> {
        let params = m.core.params();
        if !m.core.link.set(&channel) {
            return Err(Error::new(libc::ECANCELED, "the migration was cancelled"));
        }
        channel.set_stall_limit(Some(params.stall_timeout.unwrap_or(SOURCE_STALL)));
        let wanted = match params.return_path {
            Choice::Off => false,
            Choice::On => true,
            Choice::Auto => channel.has_peer() || params.postcopy,
        };
        if !channel.is_duplex() && (params.return_path == Choice::On || params.postcopy) {
            return Err(Error::new(libc::ENOTSUP, "there is no way back on this kind of connection"));
        }
        if wanted && channel.is_duplex() {
            self.reader = Some(Reader::start(&m.core, &channel, peer_is_libsavevm)?);
            m.core.stats.get().return_path = true;
        } else if params.postcopy {
            return Err(Error::invalid("postcopy needs the return path"));
        }
        let file = MigFile::new(Arc::clone(&channel), true);
        set_rate_limit(&file, params.max_bandwidth);
        m.core.watch.set_writes(Some(file.writes()));
        self.file = Some(file);
        self.channel = Some(channel);
        Ok(())
    }

    /// Sends the header, and asks what the destination is. Makes the further connections, if it `migrates`. Returns the time
    /// of that round trip.
    pub(super) fn hello(&mut self, m: &Shared, migrates: bool) -> Result<Duration> {
        let (core, vm) = (&m.core, &m.core.vm);
        with_big_lock(&*vm.host(), || save::prepare(vm))?;
        let params = core.params();
        let file = self.file()?;
        save::header(vm, file);
        let mut round_trip = Duration::ZERO;
        if self.reader.is_some() {
            command::open_return_path(vm, file);
            let mut last = message::PING_OPENED;
            command::ping(vm, file, last);
            if params.extensions {
                command::ping(vm, file, message::PING_HELLO);
                if migrates {
                    command::ping(vm, file, further::announce(&params));
                }
                last = message::PING_HELLO_END;
                command::ping(vm, file, last);
            }
            file.flush();
            self.check()?;
            if migrates {
                self.connect_further(core, &params)?;
            }
            let asked = core.now();
            // What does not fit at all shows here, before anything is sent.
            let answer = || self.reader.as_ref().and_then(|reader| reader.pong(last));
            core.wait_for("the destination's first answer", params.handshake_timeout, answer)?;
            core.stats.get().peer_is_libsavevm = self.peer_is_libsavevm();
            round_trip = core.now().saturating_sub(asked);
            if migrates && self.peer_is_libsavevm() {
                command::ping(vm, self.file()?, message::PING_DEVICE_TIMES);
                self.steering.asked_at = Some(Instant::now());
            }
        } else {
            file.flush();
            self.connect_further(core, &params)?;
        }
        // The address is not used again. A descriptor in it is closed here.
        self.to = None;
        Ok(round_trip)
    }

    /// Makes the further connections. QEMU answers only when it has all of them.
    fn connect_further(&mut self, core: &Arc<Core>, params: &Params) -> Result<()> {
        let Some(to) = self.to.as_ref().filter(|_| params.has_further()) else { return Ok(()) };
        let limit = params.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        let further = Further::connect(core, || core.connect(to, limit, &core.cancel));
        // A destination with other parameters may have sent its reason.
        let further = further.map_err(|error| self.final_error(core).unwrap_or(error))?;
        self.further = Some(further);
        Ok(())
    }

    /// Chooses the format for the destination.
    pub(super) fn settle_format(&self, params: &Params) {
        if let Some(further) = &self.further {
            further.set_peer(params, self.peer_is_libsavevm());
        }
    }
}
