// SPDX-License-Identifier: LGPL-2.1-or-later
//! The further connections of a migration: settings, the connections themselves, and their first error. Both ends.
//!
//! The source makes them right after the main connection and introduces each with a hello. The destination sorts the connections
//! by their first bytes (`destination/sorter.rs`); they may arrive in any order. RAM gets them from here (`savevm::connections`).

use super::core::Core;
use super::endpoint::{DESTINATION_STALL, SOURCE_STALL};
use super::params::{MultifdFormat, Params};
use super::watch_state::Probe;
use crate::channel::{Channel, Uri};
use crate::error::{Error, Result};
use crate::savevm::Vm;
use crate::savevm::connections::{Compression, Connections, Format, Settings};
use crate::savevm::host::without_big_lock;
use crate::savevm::workers;
use crate::sync::{Mutex, Rank};
use crate::sys::IoVec;
use crate::wire::multifd::{CHANNELS_MAX, Hello, Method};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A source makes at most so many connections at a time.
const CONNECTING_MAX: u32 = 16;

struct State {
    settings: Settings,
    channels: Vec<Option<Arc<dyn Channel>>>,
    error: Option<Error>,
    /// Pages arrived that the main connection did not wait for.
    unsettled: Option<Error>,
    /// A connection shows that the source has other settings.
    mismatch: Option<Error>,
    /// All pages are loaded: a connection that breaks from now on changes nothing.
    is_settled: bool,
}

/// What a destination knows of a connection while its bytes arrive.
#[derive(Default)]
struct Meter {
    bytes: AtomicU64,
    /// A part of a packet has arrived.
    within: AtomicBool,
}

/// The meters of all connections.
struct Meters {
    each: Vec<Meter>,
    /// The connection that the load waits for, or `usize::MAX`.
    late: AtomicUsize,
}

/// See the module.
pub(super) struct Further {
    core: Weak<Core>,
    state: Mutex<State>,
    /// How long the destination waits for connections that are missing.
    limit: Duration,
    is_incoming: bool,
    meters: Arc<Meters>,
}

/// What a hello says to a destination with these settings.
pub(super) enum Introduced {
    /// It is one of the connections.
    Accepted,
    /// It can't be a connection of this migration, for this reason. The migration goes on without it.
    Stranger(String),
}

/// Fails if the parameters can't be followed with this machine and this address (`None`: a channel of the host).
pub(super) fn check(vm: &Vm, params: &Params, uri: Option<&Uri>) -> Result<()> {
    if !params.has_further() {
        return match params.compression {
            Compression::None => Ok(()),
            _ => Err(Error::invalid(
                "compression needs several connections, also in QEMU: set channels to 2 or more (QEMU: multifd-channels)",
            )),
        };
    }
    if params.channels > CHANNELS_MAX {
        let text = format!("{} connections are too many, expected at most {CHANNELS_MAX}", params.channels);
        return Err(Error::invalid(text));
    }
    if !matches!(uri, Some(Uri::Unix(_) | Uri::Tcp { .. })) {
        let text = "several connections need an address of the form unix:PATH or tcp:HOST:PORT: set channels to 1";
        return Err(Error::invalid(text));
    }
    let ram = vm.slot.ram().filter(|ram| ram.takes_connections());
    let Some(ram) = ram else {
        let text = "several connections need the RAM of this library (savevm_ram_new): set channels to 1";
        return Err(Error::invalid(text));
    };
    ram.check_compression(params.compression, params.compression_level())
}

fn settings(params: &Params, stall: Duration) -> Settings {
    Settings {
        count: params.channels,
        compression: params.compression,
        level: params.compression_level(),
        format: format(params, false),
        stall,
    }
}

/// The format for a peer.
fn format(params: &Params, peer_is_libsavevm: bool) -> Format {
    let (zero_in_packets, flush_records) = match params.multifd_format {
        MultifdFormat::Auto => (peer_is_libsavevm, peer_is_libsavevm),
        MultifdFormat::Qemu72 => (false, false),
        MultifdFormat::Qemu81 => (false, true),
        MultifdFormat::Qemu90 => (true, true),
    };
    Format { zero_in_packets, flush_records }
}

impl Further {
    fn new(core: &Arc<Core>, params: &Params, stall: Duration, is_incoming: bool) -> Arc<Self> {
        let channels = (0..params.channels).map(|_| None).collect();
        let state = State {
            settings: settings(params, stall),
            channels,
            error: None,
            unsettled: None,
            mismatch: None,
            is_settled: false,
        };
        let each = (0..params.channels).map(|_| Meter::default()).collect();
        Arc::new(Self {
            meters: Arc::new(Meters { each, late: AtomicUsize::new(usize::MAX) }),
            core: Arc::downgrade(core),
            state: Mutex::new(Rank::FurtherConnections, state),
            limit: params.handshake_timeout,
            is_incoming,
        })
    }

    /// Lets RAM take them.
    fn offer(self: Arc<Self>, core: &Core) -> Arc<Self> {
        core.vm.slot.set_connections(Some(Arc::clone(&self) as _));
        self
    }

    /// Those of a source: connects and introduces them, several at a time, because each waits for a few round trips.
    pub fn connect(core: &Arc<Core>, connect: impl Fn() -> Result<Arc<dyn Channel>> + Sync) -> Result<Arc<Self>> {
        let params = core.params();
        let this = Self::new(core, &params, params.stall_timeout.unwrap_or(SOURCE_STALL), false);
        let next = AtomicU32::new(0);
        let threads = params.channels.min(CONNECTING_MAX) as usize;
        workers::run(&core.vm, "savevm-connect", threads, || {
            let number = next.fetch_add(1, Relaxed);
            if number >= params.channels {
                return Ok(false);
            }
            this.connect_one(core, number, &connect).map(|()| true)
        })?;
        let probes = this.state.lock().channels.iter().flatten().map(probe).collect();
        core.watch.set_further(probes);
        Ok(this.offer(core))
    }

    fn connect_one(&self, core: &Core, number: u32, connect: impl Fn() -> Result<Arc<dyn Channel>>) -> Result<()> {
        let Settings { count, stall, .. } = self.settings();
        let named = |error: Error| {
            let text = format!(
                "connection {} of {count}: {} (the destination must expect as many connections: set its channels, in QEMU \
                 the capability multifd and multifd-channels)",
                number + 1,
                error.message()
            );
            error.with_message(text)
        };
        let channel = connect().map_err(named)?;
        channel.set_stall_limit(Some(stall));
        if !core.link.add(&channel) {
            return Err(Error::new(libc::ECANCELED, "the migration was cancelled"));
        }
        let uuid = core.vm.host().uuid().unwrap_or_default();
        let hello = Hello { uuid, id: number as u8 }.encode();
        send(&*channel, &hello).map_err(|err| named(Error::channel("writing the hello", &err)))?;
        self.put(number, &channel);
        Ok(())
    }

    /// Those of a destination, which are still to be accepted.
    pub fn expect(core: &Arc<Core>) -> Arc<Self> {
        let params = core.params();
        let this = Self::new(core, &params, params.stall_timeout.unwrap_or(DESTINATION_STALL), true);
        core.watch.set_further((0..params.channels as usize).map(|number| this.meters.probe(number)).collect());
        this.offer(core)
    }

    /// Source: the destination has shown whether it is libsavevm.
    pub fn set_peer(&self, params: &Params, peer_is_libsavevm: bool) {
        self.state.lock().settings.format = format(params, peer_is_libsavevm);
    }

    fn put(&self, number: u32, channel: &Arc<dyn Channel>) {
        self.state.lock().channels[number as usize] = Some(Arc::clone(channel));
    }

    /// Destination: judges the hello of a connection, and keeps the connection if it is accepted.
    pub fn introduce(&self, hello: Hello, channel: &Arc<dyn Channel>) -> Introduced {
        let Some(core) = self.core.upgrade() else { return Introduced::Stranger("the migration is over".to_owned()) };
        if let Some(uuid) = core.vm.host().uuid()
            && uuid != hello.uuid
        {
            return Introduced::Stranger("its hello has the UUID of another machine".to_owned());
        }
        let mut state = self.state.lock();
        let count = state.settings.count;
        let stall = state.settings.stall;
        match state.channels.get_mut(usize::from(hello.id)) {
            None => {
                // The source learns this over its main connection, as soon as RAM waits for the connections.
                let error = Error::invalid(format!(
                    "connection {} arrived, but this side expects {count}: set the same number of channels on both ends (QEMU: \
                 multifd-channels)",
                    u32::from(hello.id) + 1
                ));
                state.mismatch.get_or_insert(error);
                Introduced::Accepted
            }
            Some(Some(_)) => Introduced::Stranger(format!("connection {} is there already", u32::from(hello.id) + 1)),
            Some(place) => {
                channel.set_stall_limit(Some(stall));
                *place = Some(Arc::clone(channel));
                Introduced::Accepted
            }
        }
    }

    /// How many connections are there.
    fn present(&self) -> usize {
        self.state.lock().channels.iter().flatten().count()
    }

    /// Whether all connections are there.
    pub fn is_complete(&self) -> bool {
        let state = self.state.lock();
        state.channels.iter().all(Option::is_some)
    }

    /// Ends the migration with this error, unless there is one. The thread that reads the main connection stops waiting; the
    /// return path still carries the reason.
    pub fn fail(&self, error: Error) {
        {
            let mut state = self.state.lock();
            if state.is_settled {
                log::info!("a connection failed after all pages were loaded: {error}");
                return;
            }
            state.error.get_or_insert(error);
        }
        if let Some(core) = self.core.upgrade() {
            if self.is_incoming {
                core.link.end_reads();
            }
            core.status_machine.notify();
        }
    }

    /// Waits until all connections are there.
    fn wait_complete(&self, core: &Core) -> Result<()> {
        let wait = core.wait_for("the further connections", self.limit, || {
            let state = self.state.lock();
            match state.error.as_ref().or(state.mismatch.as_ref()) {
                Some(error) => Some(Err(error.clone())),
                None => state.channels.iter().all(Option::is_some).then_some(Ok(())),
            }
        });
        wait.map_err(|error| match error.errno() {
            libc::ETIMEDOUT => {
                let (have, count) = (self.present(), self.state.lock().settings.count);
                let text = format!(
                    "{have} of {count} further connections arrived within {:?}: set the same number of channels on both \
                     ends (QEMU: multifd-channels)",
                    self.limit
                );
                error.with_message(text)
            }
            _ => error,
        })
    }
}

/// Lets the watch look at a connection of a source. It waits for the peer while bytes are not read.
fn probe(channel: &Arc<dyn Channel>) -> Probe {
    let channel = Arc::downgrade(channel);
    Box::new(move || {
        let Some(channel) = channel.upgrade() else { return (0, false) };
        let (unread, (written, is_writing)) = (channel.in_flight(), channel.written());
        (written.wrapping_sub(unread), is_writing || unread > 0)
    })
}

impl Meters {
    /// Lets the watch look at a connection of a destination. It waits for the peer in a packet, and if the load needs it.
    fn probe(self: &Arc<Self>, number: usize) -> Probe {
        let meters = Arc::clone(self);
        Box::new(move || {
            let meter = &meters.each[number];
            let waits = meter.within.load(Relaxed) || meters.late.load(Relaxed) == number;
            (meter.bytes.load(Relaxed), waits)
        })
    }
}

fn send(channel: &dyn Channel, bytes: &[u8]) -> std::io::Result<()> {
    let mut buffer = crate::sys::SendBuffer::default();
    buffer.bytes().extend_from_slice(bytes);
    let mut pieces: [IoVec; 1] = [buffer.piece(0, bytes.len())];
    channel.write_all(&mut pieces)
}

impl Connections for Further {
    fn settings(&self) -> Settings {
        self.state.lock().settings
    }

    fn channels(&self) -> Result<Vec<Arc<dyn Channel>>> {
        let core = self.core.upgrade().ok_or_else(|| Error::new(libc::ENOTCONN, "the migration is over"))?;
        let host = core.vm.host();
        without_big_lock(&*host, || self.wait_complete(&core))?;
        Ok(self.state.lock().channels.iter().flatten().cloned().collect())
    }

    fn failed(&self, error: Error) {
        self.fail(error);
    }

    fn unsettled(&self, error: Error) {
        self.state.lock().unsettled.get_or_insert(error);
    }

    fn settle(&self) -> Result<()> {
        let mut state = self.state.lock();
        state.is_settled = state.error.is_none();
        state.error.clone().map_or(Ok(()), Err)
    }

    fn unsettled_error(&self) -> Option<Error> {
        self.state.lock().unsettled.clone()
    }

    fn error(&self) -> Option<Error> {
        self.state.lock().error.clone()
    }

    /// Without a return path the source closes its connections as soon as everything is sent.
    fn is_abandoned(&self) -> bool {
        let Some(core) = self.core.upgrade() else { return true };
        let needs_answer = core.stats.get().return_path;
        needs_answer && core.link.peer_has_closed()
    }

    fn received(&self, number: usize, bytes: u64) {
        if let Some(meter) = self.meters.each.get(number) {
            meter.bytes.fetch_add(bytes, Relaxed);
        }
        if let Some(core) = self.core.upgrade() {
            core.stats.add_received(bytes);
        }
    }

    fn set_within(&self, number: usize, within: bool) {
        if let Some(meter) = self.meters.each.get(number) {
            meter.within.store(within, Relaxed);
        }
    }

    fn set_late(&self, number: Option<usize>) {
        self.meters.late.store(number.unwrap_or(usize::MAX), Relaxed);
    }
}

/// What the ends of this library tell each other before RAM is set up: PING with `message::PING_CHANNELS`, the method and
/// the number of connections.
pub(super) fn announce(params: &Params) -> u32 {
    // SAVEVM_COMPRESSION_AUTO keeps to the format of zstd.
    let method = params.compression.method().unwrap_or(Method::Zstd);
    let count = if params.has_further() { params.channels } else { 1 };
    crate::wire::return_path::channels_ping(count as u8, method)
}

/// Compares what the source announced with the parameters of this side.
pub(super) fn check_announced(params: &Params, value: u32) -> Result<()> {
    let Some((count, method)) = crate::wire::return_path::announced_channels(value) else { return Ok(()) };
    let have = if params.has_further() { params.channels } else { 1 };
    if u32::from(count) != have {
        let text = format!(
            "the source uses {count} connections for RAM, this side expects {have}: set the same number of channels on both ends"
        );
        return Err(Error::invalid(text));
    }
    params.compression.check_method(method)
}
