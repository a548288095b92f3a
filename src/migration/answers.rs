// SPDX-License-Identifier: LGPL-2.1-or-later
//! The source's ear: a thread that reads the return path, and what it has heard.

use super::Status;
use super::base::{Base, lock};
use super::return_path::{self, Message};
use super::trace::Event;
use crate::channel::Channel;
use crate::error::{Error, Result, Side};
use crate::file::MigFile;
use crate::savevm::host::Flags;
use crate::savevm::unwind::contained;
use crate::sys::{IoVec, Span, spawn};
use std::io;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

#[derive(Default)]
pub(super) struct Heard {
    /// Value of the last PONG.
    last: Option<u32>,
    /// The destination is of this library.
    extended: bool,
    /// Everything is loaded.
    loaded: bool,
    /// The guest arrived in postcopy.
    handed_over: bool,
    shut: Option<u32>,
    text: Option<String>,
    resume_ack: Option<u32>,
    /// Bytes that were asked for since somebody looked.
    requested: u64,
    /// Blocks of which the received bitmap came.
    bitmaps: Vec<Vec<u8>>,
    /// Nothing more is heard, for this reason.
    broken: Option<Error>,
}

/// What was heard.
#[derive(Clone, Default)]
pub(super) struct Ear(Arc<Mutex<Heard>>);

/// See the module.
pub(super) struct Answers {
    ear: Ear,
    thread: Option<JoinHandle<()>>,
}

impl Deref for Answers {
    type Target = Ear;
    fn deref(&self) -> &Ear {
        &self.ear
    }
}

/// A channel on which waiting for the peer is no stall: answers come when they come.
struct Patient(Arc<dyn Channel>);

impl Channel for Patient {
    fn read(&self, into: Span<'_>) -> io::Result<usize> {
        loop {
            match self.0.read(into) {
                Err(err) if err.kind() == io::ErrorKind::TimedOut => {}
                done => return done,
            }
        }
    }

    fn write_all(&self, pieces: &mut [IoVec]) -> io::Result<()> {
        self.0.write_all(pieces)
    }

    fn shutdown(&self) -> io::Result<()> {
        self.0.shutdown()
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}

/// How the verdict came out.
pub(super) enum Verdict {
    /// SHUT with this value, and the destination's words where it has some.
    Shut(u32, Option<String>),
    /// The return path broke first.
    Broken(Error),
}

impl Answers {
    /// Starts to listen. `extended` is what an earlier connection has shown.
    pub fn start(base: &Arc<Base>, channel: &Arc<dyn Channel>, extended: bool) -> Result<Self> {
        let ear = Ear::default();
        lock(&ear.0).extended = extended;
        let (base, channel, shared) = (Arc::clone(base), Arc::clone(channel), ear.clone());
        let body = move || {
            let vm = Arc::clone(&base.vm);
            vm.host().on_thread(&vm, &mut || {
                let _working = base.working();
                if let Err(error) = contained(&vm, || listen(&base, &channel, &shared.0)) {
                    lock(&shared.0).broken = Some(error);
                    base.machine.ring();
                }
            });
        };
        let thread =
            spawn("savevm-answers", body).map_err(|err| Error::io("starting the return path's thread", &err))?;
        Ok(Self { ear, thread: Some(thread) })
    }

    /// What was heard, for who outlives the thread.
    pub fn ear(&self) -> Ear {
        self.ear.clone()
    }

    /// Ends with the connection. Where that can't be shut down, the thread is left to itself.
    pub fn stop(&mut self, connection_ended: bool) {
        if let Some(thread) = self.thread.take() {
            if connection_ended || thread.is_finished() {
                // A panic in it was told by the panic hook; nothing here depends on its result.
                let _ = thread.join();
            }
        }
    }
}

impl Ear {
    pub fn extended(&self) -> bool {
        lock(&self.0).extended
    }

    /// Why no answer will come: the destination said that it is over, or nothing is heard any more.
    pub fn trouble(&self) -> Option<Error> {
        let heard = lock(&self.0);
        match (heard.shut, &heard.broken) {
            (Some(value), _) => Some(refusal(value, heard.text.as_deref())),
            (None, Some(error)) => Some(error.clone()),
            (None, None) => None,
        }
    }

    fn hear<T>(&self, look: impl Fn(&Heard) -> Option<T>) -> Option<Result<T>> {
        let found = look(&lock(&self.0));
        found.map(Ok).or_else(|| self.trouble().map(Err))
    }

    /// The answer to a PING, which is the last one that was sent.
    pub fn pong(&self, value: u32) -> Option<Result<()>> {
        self.hear(|heard| (heard.last == Some(value)).then_some(()))
    }

    /// Its word that everything is loaded.
    pub fn loaded(&self) -> Option<Result<()>> {
        self.hear(|heard| heard.loaded.then_some(()))
    }

    /// Whether it has shown that it got the guest in postcopy.
    pub fn handed_over(&self) -> bool {
        lock(&self.0).handed_over
    }

    /// Its readiness to go on after a break.
    pub fn resume_ack(&self) -> Option<Result<u32>> {
        self.hear(|heard| heard.resume_ack)
    }

    /// The received bitmap of a block, which was handed on.
    pub fn bitmap(&self, block: &[u8]) -> Option<Result<()>> {
        self.hear(|heard| heard.bitmaps.iter().any(|name| name == block).then_some(()))
    }

    /// How many bytes the guest over there asked for since the last look.
    pub fn take_requested(&self) -> u64 {
        std::mem::take(&mut lock(&self.0).requested)
    }

    /// The end of it.
    pub fn verdict(&self) -> Option<Verdict> {
        let heard = lock(&self.0);
        match (heard.shut, &heard.broken) {
            (Some(value), _) => Some(Verdict::Shut(value, heard.text.clone())),
            (None, Some(error)) => Some(Verdict::Broken(error.clone())),
            (None, None) => None,
        }
    }

    /// Waits a moment for the destination's own words, when this side saw the connection break.
    pub fn last_words(&self, base: &Base) -> Option<Error> {
        const MOMENT: Duration = Duration::from_millis(300);
        let look = || self.verdict().map(Ok);
        match base.wait_for("the destination's words", MOMENT, look) {
            Ok(Verdict::Shut(value, text)) if value != 0 => Some(refusal(value, text.as_deref())),
            _ => None,
        }
    }
}

/// The destination gave up.
pub(super) fn refusal(value: u32, text: Option<&str>) -> Error {
    let text = match text {
        Some(text) => format!("the destination failed: {text}"),
        None if value == 0 => "the destination ended the migration early".to_owned(),
        None => format!("the destination failed (it gave the code {value} and no reason)"),
    };
    Error::new(libc::EREMOTEIO, text).at_side(Side::Destination)
}

fn listen(base: &Arc<Base>, channel: &Arc<dyn Channel>, shared: &Mutex<Heard>) {
    let file = MigFile::new(Arc::new(Patient(Arc::clone(channel))), false);
    loop {
        let extended = lock(shared).extended;
        let result = Message::get(&file, extended).and_then(|message| handle(base, &file, shared, message));
        match result {
            Ok(true) => base.machine.ring(),
            Ok(false) => break,
            Err(error) => {
                let error = Error::new(error.errno(), format!("return path: {}", error.message()));
                lock(shared).broken = Some(error);
                break;
            }
        }
    }
    base.machine.ring();
}

/// Takes one message; whether more may follow.
fn handle(base: &Base, file: &MigFile, shared: &Mutex<Heard>, message: Message) -> Result<bool> {
    base.vm.pass("answers");
    match message {
        Message::Shut(value) => {
            lock(shared).shut = Some(value);
            return Ok(false);
        }
        Message::Pong(value) => {
            let mut heard = lock(shared);
            heard.last = Some(value);
            heard.extended |= value == return_path::PONG_HELLO;
            heard.loaded |= value == return_path::PING_LOADED;
            heard.handed_over |= value == return_path::PING_HANDED_OVER;
        }
        Message::ErrorText(text) => lock(shared).text = Some(text),
        Message::ResumeAck(value) => lock(shared).resume_ack = Some(value),
        Message::RequestPages { block, start, len } => {
            base.stats.get().page_requests += 1;
            let name = block.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            base.trace.write(base.now(), &Event::PageRequest { block: &name, start, len });
            let ram = base.vm.slot.ram().filter(|_| base.vm.flags().has(Flags::IN_POSTCOPY));
            let ram = ram.ok_or_else(|| Error::invalid("a page request outside of postcopy"))?;
            ram.pages_requested(block.as_deref(), start, len)?;
            let mut heard = lock(shared);
            heard.requested = heard.requested.saturating_add(len.into());
        }
        Message::ReceivedBitmap(block) => {
            let bits = return_path::get_bitmap(file)?;
            let ram = base.vm.slot.ram().filter(|_| base.status() == Status::PostcopyRecover);
            let ram = ram.ok_or_else(|| Error::invalid("a received bitmap outside of a recovery"))?;
            ram.received(&block, &bits)?;
            lock(shared).bitmaps.push(block);
        }
    }
    Ok(true)
}
