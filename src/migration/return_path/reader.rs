// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reads the return path at the source, in a thread of its own, and keeps what it has received.

use super::message::{self, Message};
use crate::channel::Channel;
use crate::error::{Error, Result, Side};
use crate::file::MigFile;
use crate::migration::core::Core;
use crate::migration::status::Status;
use crate::migration::trace::Event;
use crate::savevm::fault::FaultPoint;
use crate::savevm::host::Flags;
use crate::savevm::unwind::catch;
use crate::sync::{Mutex, Rank};
use crate::sys::{IoVec, Span, spawn_prompt};
use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[derive(Default)]
pub struct ReaderData {
    /// Value of the last PONG.
    last: Option<u32>,
    /// When PONG arrived for the PING that no work of the destination precedes.
    answered_at: Option<Instant>,
    /// The destination is libsavevm.
    peer_is_libsavevm: bool,
    /// The destination takes part in a preflight.
    knows_preflight: bool,
    /// An answer of a preflight was asked for.
    expects_answer: bool,
    answer: Option<Vec<u8>>,
    /// Everything is loaded.
    loaded: bool,
    /// The guest arrived in postcopy.
    handed_over: bool,
    /// A QEMU has loaded the package up to the RUN behind it.
    package_loaded: bool,
    /// All pages arrived.
    all_arrived: bool,
    shut: Option<u32>,
    text: Option<String>,
    resume_ack: Option<u32>,
    /// The devices of the destination approve the switchover.
    switchover_ack: bool,
    /// Bytes requested since the last look.
    requested: u64,
    /// Blocks of which the received bitmap came.
    bitmaps: Vec<Vec<u8>>,
    /// The return path ended, for this reason.
    broken: Option<Error>,
}

/// What was received. It outlives the thread.
#[derive(Clone)]
pub struct ReaderState(Arc<Mutex<ReaderData>>);

impl Default for ReaderState {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Rank::ReturnPathReader, ReaderData::default())))
    }
}

/// See the module.
pub struct Reader {
    state: ReaderState,
    thread: Option<JoinHandle<()>>,
}

impl Deref for Reader {
    type Target = ReaderState;
    fn deref(&self) -> &ReaderState {
        &self.state
    }
}

/// A channel without a time limit for a read: messages may be far apart.
struct NoTimeout {
    inner: Arc<dyn Channel>,
    /// The peer closed the connection.
    ended: AtomicBool,
}

impl Channel for NoTimeout {
    fn wrapped(&self) -> Option<&dyn Channel> {
        Some(&*self.inner)
    }

    fn read(&self, into: Span<'_>) -> io::Result<usize> {
        loop {
            match self.inner.read(into) {
                Err(err) if err.kind() == io::ErrorKind::TimedOut => {}
                done => {
                    self.ended.store(matches!(done, Ok(0)), SeqCst);
                    return done;
                }
            }
        }
    }

    fn write_all(&self, pieces: &mut [IoVec]) -> io::Result<()> {
        self.inner.write_all(pieces)
    }

    fn shutdown(&self) -> io::Result<()> {
        self.inner.shutdown()
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }
}

/// How the verdict came out.
pub enum Verdict {
    /// SHUT with this value, and the destination's text if it sent one.
    Shut(u32, Option<String>),
    /// The return path broke first.
    Broken(Error),
}

impl Reader {
    /// Starts the thread. `peer_is_libsavevm` is the result of an earlier connection.
    pub fn start(core: &Arc<Core>, channel: &Arc<dyn Channel>, peer_is_libsavevm: bool) -> Result<Self> {
        let state = ReaderState::default();
        state.0.lock().peer_is_libsavevm = peer_is_libsavevm;
        let (core, channel, shared) = (Arc::clone(core), Arc::clone(channel), state.clone());
        let body = move || {
            let vm = Arc::clone(&core.vm);
            vm.on_thread(|| {
                let _working = core.working();
                if let Err(error) = catch(&vm, || listen(&core, &channel, &shared.0)) {
                    shared.0.lock().broken = Some(error);
                    core.status_machine.notify();
                }
            });
        };
        let thread =
            spawn_prompt("savevm-answers", body).map_err(|err| Error::io("starting the return path's thread", &err))?;
        Ok(Self { state, thread: Some(thread) })
    }

    /// Returns what was received. It outlives the thread.
    pub fn state(&self) -> ReaderState {
        self.state.clone()
    }

    /// Joins the thread if the connection has ended. If it could not be shut down, the thread is detached.
    pub fn stop(&mut self, connection_ended: bool) {
        if let Some(thread) = self.thread.take() {
            if connection_ended || thread.is_finished() {
                // The panic hook has reported a panic of the thread. Nothing here depends on its result.
                let _ = thread.join();
            }
        }
    }
}

impl ReaderState {
    pub fn peer_is_libsavevm(&self) -> bool {
        self.0.lock().peer_is_libsavevm
    }

    /// Returns why no answer will arrive: the destination sent SHUT, or the return path ended.
    pub fn trouble(&self) -> Option<Error> {
        let data = self.0.lock();
        match (data.shut, &data.broken) {
            (Some(value), _) => Some(refusal(value, data.text.as_deref())),
            (None, Some(error)) => Some(error.clone()),
            (None, None) => None,
        }
    }

    fn look_for<T>(&self, look: impl Fn(&ReaderData) -> Option<T>) -> Option<Result<T>> {
        let found = look(&self.0.lock());
        found.map(Ok).or_else(|| self.trouble().map(Err))
    }

    /// When the destination's answer to PING_DEVICE_TIMES arrived.
    pub fn answered_at(&self) -> Option<Instant> {
        self.0.lock().answered_at
    }

    /// The answer to a PING, which is the last one that was sent.
    pub fn pong(&self, value: u32) -> Option<Result<()>> {
        self.look_for(|data| (data.last == Some(value)).then_some(()))
    }

    /// Whether the destination takes part in a preflight.
    pub fn knows_preflight(&self) -> bool {
        self.0.lock().knows_preflight
    }

    /// Accepts one answer of a preflight from now on.
    pub fn expect_answer(&self) {
        self.0.lock().expects_answer = true;
    }

    /// The answer of a preflight, once.
    pub fn answer(&self) -> Option<Result<Vec<u8>>> {
        let answer = self.0.lock().answer.take();
        answer.map(Ok).or_else(|| self.trouble().map(Err))
    }

    /// Whether the destination has reported that everything is loaded.
    pub fn loaded(&self) -> Option<Result<()>> {
        self.look_for(|data| data.loaded.then_some(()))
    }

    /// Whether it has shown that it got the guest in postcopy.
    pub fn handed_over(&self) -> bool {
        self.0.lock().handed_over
    }

    /// The destination's answer that all pages arrived.
    pub fn all_arrived(&self) -> Option<Result<()>> {
        self.look_for(|data| data.all_arrived.then_some(()))
    }

    /// Its readiness to go on after a break.
    pub fn resume_ack(&self) -> Option<Result<u32>> {
        self.look_for(|data| data.resume_ack)
    }

    /// Whether the devices of the destination approved the switchover.
    pub fn switchover_ack(&self) -> bool {
        self.0.lock().switchover_ack
    }

    /// The received bitmap of a block, which was handed on.
    pub fn bitmap(&self, block: &[u8]) -> Option<Result<()>> {
        self.look_for(|data| data.bitmaps.iter().any(|name| name == block).then_some(()))
    }

    /// How many bytes the guest over there asked for since the last look.
    pub fn take_requested(&self) -> u64 {
        std::mem::take(&mut self.0.lock().requested)
    }

    /// The end of it.
    pub fn verdict(&self) -> Option<Verdict> {
        let data = self.0.lock();
        match (data.shut, &data.broken) {
            (Some(value), _) => Some(Verdict::Shut(value, data.text.clone())),
            (None, Some(error)) => Some(Verdict::Broken(error.clone())),
            (None, None) => None,
        }
    }

    /// Waits a moment for the destination's own words, when this side saw the connection break.
    pub fn final_verdict(&self, core: &Core) -> Option<Verdict> {
        const MOMENT: Duration = Duration::from_millis(300);
        core.wait_for("the destination's words", MOMENT, || self.verdict().map(Ok)).ok()
    }

    /// As `final_verdict`, for the error of a destination that failed. What it sent instead of a message, for example bytes
    /// of TLS, says more than a connection that broke.
    pub fn final_error(&self, core: &Core) -> Option<Error> {
        match self.final_verdict(core) {
            Some(Verdict::Shut(value, text)) if value != 0 => Some(refusal(value, text.as_deref())),
            Some(Verdict::Broken(error)) if [libc::EINVAL, libc::EPROTO].contains(&error.errno()) => Some(error),
            _ => None,
        }
    }
}

/// The destination gave up.
pub fn refusal(value: u32, text: Option<&str>) -> Error {
    let text = match (value, text) {
        (message::SHUT_CANCELLED, _) => "the migration was cancelled at the destination".to_owned(),
        (_, Some(text)) => format!("the destination failed: {text}"),
        (0, None) => "the destination ended the migration early".to_owned(),
        (_, None) => format!("the destination failed (it gave the code {value} and no reason)"),
    };
    Error::new(libc::EREMOTEIO, text).at_side(Side::Destination)
}

fn listen(core: &Arc<Core>, channel: &Arc<dyn Channel>, shared: &Mutex<ReaderData>) {
    let channel = Arc::new(NoTimeout { inner: Arc::clone(channel), ended: AtomicBool::new(false) });
    let file = MigFile::new(Arc::clone(&channel) as _, false);
    loop {
        let start = file.position();
        let peer_is_libsavevm = shared.lock().peer_is_libsavevm;
        let result = message::get(&file, peer_is_libsavevm).and_then(|message| handle(core, &file, shared, message));
        match result {
            Ok(true) => core.status_machine.notify(),
            Ok(false) => break,
            Err(error) => {
                let text = match channel.ended.load(SeqCst) {
                    true if core.link.is_closed_here() => "the connection was closed on this side".to_owned(),
                    true => {
                        let how = match file.position() == start {
                            true => "the destination closed the connection without a verdict",
                            false => "the connection to the destination ended within a message",
                        };
                        let why = channel.peer_end().unwrap_or_else(|| "it ended, crashed or was killed".to_owned());
                        format!("{how}: {why}")
                    }
                    false => format!("return path: {}", error.message()),
                };
                let error = core.name_peer(error.with_message(text));
                shared.lock().broken = Some(error);
                break;
            }
        }
    }
    core.status_machine.notify();
}

/// Takes one message; whether more may follow.
fn handle(core: &Core, file: &MigFile, shared: &Mutex<ReaderData>, message: Message) -> Result<bool> {
    core.vm.fault_point(FaultPoint::ReturnPath);
    match message {
        Message::Shut(value) => {
            shared.lock().shut = Some(value);
            return Ok(false);
        }
        Message::Pong(value) => {
            let mut data = shared.lock();
            data.last = Some(value);
            if value == message::PING_DEVICE_TIMES {
                data.answered_at = Some(Instant::now());
            }
            data.peer_is_libsavevm |= value == message::PONG_HELLO;
            data.knows_preflight |= value == message::PONG_PREFLIGHT;
            data.loaded |= value == message::PING_LOADED;
            // A QEMU answers PING_HANDED_OVER while another thread of it still loads the package, so that answer shows nothing.
            // It answers PING_PACKAGE_END after the devices and before the RUN that follows in the package.
            data.handed_over |= data.peer_is_libsavevm && value == message::PING_HANDED_OVER;
            data.package_loaded |= !data.peer_is_libsavevm && value == message::PING_PACKAGE_END;
            data.all_arrived |= value == message::PING_ALL_SENT;
        }
        Message::Preflight(len) => {
            let expected = std::mem::take(&mut shared.lock().expects_answer);
            if !expected {
                return Err(Error::invalid("an answer of a preflight that was not asked for"));
            }
            let answer = message::get_answer(file, len)?;
            shared.lock().answer = Some(answer);
        }
        Message::DeviceTimes(times) => core
            .note_load_times(times.iter().map(|time| (&*time.name, time.instance, Duration::from_nanos(time.nanos)))),
        Message::ErrorText(text) => shared.lock().text = Some(text),
        Message::ResumeAck(value) => shared.lock().resume_ack = Some(value),
        Message::SwitchoverAck => shared.lock().switchover_ack = true,
        Message::RequestPages { block, start, len } => {
            core.stats.get().page_requests += 1;
            let name = block.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            core.trace.write(core.now(), &Event::PageRequest { block: &name, start, len });
            let ram = core.vm.slot.ram().filter(|_| core.vm.flags().has(Flags::IN_POSTCOPY));
            let ram = ram.ok_or_else(|| Error::invalid("a page request outside of postcopy"))?;
            ram.pages_requested(block.as_deref(), start, len)?;
            let mut data = shared.lock();
            data.requested = data.requested.saturating_add(len.into());
            // Devices that load wait for their pages. So a request behind the answer to PING_PACKAGE_END is one of a QEMU
            // that has executed RUN, or of its guest.
            data.handed_over |= data.package_loaded;
        }
        Message::ReceivedBitmap(block) => {
            let bits = message::get_bitmap(file)?;
            let ram = core.vm.slot.ram().filter(|_| core.status() == Status::PostcopyRecover);
            let ram = ram.ok_or_else(|| Error::invalid("a received bitmap outside of a recovery"))?;
            ram.received(&block, &bits)?;
            shared.lock().bitmaps.push(block);
        }
    }
    Ok(true)
}
