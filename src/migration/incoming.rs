// SPDX-License-Identifier: LGPL-2.1-or-later
//! An incoming migration as its user holds it. The work is done by `loading.rs` on a thread of its own.

use super::base::{Base, Migration, lock, take};
use super::outgoing::Endpoint;
use super::trace::Event;
use super::voice::Voice;
use super::{Owner, Params, Status};
use crate::channel::{Cancel, Channel, Listener, Uri};
use crate::error::{Error, Result};
use crate::savevm::Vm;
use crate::savevm::host::{self, PostcopyState};
use crate::savevm::slot::PageSource;
use crate::savevm::unwind::{contained, persisted};
use crate::sys::spawn;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

/// Where the connection comes from.
pub(super) enum Gate {
    Listener(Listener),
    Channel(Arc<dyn Channel>),
}

impl Gate {
    fn open(from: Endpoint) -> Result<Self> {
        Ok(match from {
            Endpoint::Uri(uri) => Self::Listener(Listener::bind(&uri)?),
            Endpoint::Channel(channel) => Self::Channel(channel),
        })
    }

    fn uri(&self) -> Option<Uri> {
        match self {
            Self::Listener(listener) => Some(listener.uri().clone()),
            Self::Channel(_) => None,
        }
    }

    pub fn accept(&self, limit: Option<Duration>, cancel: &Cancel) -> Result<Arc<dyn Channel>> {
        match self {
            Self::Listener(listener) => listener.accept(limit, cancel),
            Self::Channel(channel) => Ok(Arc::clone(channel)),
        }
    }
}

/// How far the package of a postcopy is, which another thread loads.
#[derive(Default)]
pub(super) struct Package {
    /// LISTEN came: the thread that reads the stream may go on.
    pub listening: bool,
    /// It is loaded, well or not.
    pub done: Option<Result<()>>,
    pub running: bool,
}

/// See the module. Dropping the last reference does not end the migration: see `end`.
pub struct Incoming {
    pub(super) base: Arc<Base>,
    pub(super) voice: Voice,
    /// The source is of this library.
    pub(super) extended: AtomicBool,
    /// It asked whether everything is loaded, which comes just before EOF.
    pub(super) asked: AtomicBool,
    pub(super) postcopy: Mutex<PostcopyState>,
    pub(super) package: Mutex<Package>,
    /// The thread that reads the stream.
    pub(super) reader: Mutex<Option<ThreadId>>,
    /// The source has let go of the guest: it is here, whether it runs or not.
    pub(super) ours: AtomicBool,
    /// Where a broken postcopy may come back, and whether the user gave it up.
    pub(super) back: Mutex<Option<Gate>>,
    pub(super) abandoned: AtomicBool,
    /// Who answered the commands of streams before.
    pub(super) before: Mutex<Option<Arc<dyn host::Incoming>>>,
    /// The disks were taken over.
    pub(super) disks: AtomicBool,
    /// The machine is free for the next one.
    released: AtomicBool,
    uri: Option<Uri>,
}

impl Migration for Incoming {
    fn base(&self) -> &Base {
        &self.base
    }
}

impl Incoming {
    /// Listens, and loads what comes. The machine is stopped and its devices are registered. Errors here are those of the
    /// moment: another migration, or that there is nothing to listen on.
    pub fn start(vm: &Arc<Vm>, from: Endpoint, params: Params) -> Result<Arc<Self>> {
        vm.check_unbroken()?;
        let base = Arc::new(Base::new(vm, params, true)?);
        vm.slot.begin("an incoming migration")?;
        let from_text = from.text();
        let gate = Gate::open(from).inspect_err(|_| vm.slot.end())?;
        base.trace.write(base.now(), &Event::Trace { side: "destination", uri: &from_text });
        base.set_owner(Owner::There);
        let this = Arc::new(Self {
            base,
            voice: Voice::default(),
            extended: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            postcopy: Mutex::default(),
            package: Mutex::default(),
            reader: Mutex::default(),
            ours: AtomicBool::new(false),
            back: Mutex::default(),
            abandoned: AtomicBool::new(false),
            before: Mutex::new(vm.incoming()),
            disks: AtomicBool::new(false),
            released: AtomicBool::new(false),
            uri: gate.uri(),
        });
        this.base.set_address(Arc::as_ptr(&this) as usize);
        vm.slot.set_observer(Some(this.base.watcher()));
        this.base.advance(Status::Setup);
        let body = {
            let this = Arc::clone(&this);
            move || this.work(gate)
        };
        if let Err(err) = spawn("savevm-load", body) {
            let error = Error::io("starting the migration's thread", &err);
            this.base.set_error(error.clone());
            this.released();
            this.base.advance(Status::Failed);
            return Err(error);
        }
        Ok(this)
    }

    fn work(self: &Arc<Self>, gate: Gate) {
        let vm = Arc::clone(&self.base.vm);
        *lock(&self.reader) = Some(thread::current().id());
        vm.host().on_thread(&vm, &mut || {
            let _working = self.base.working();
            let Err(error) = contained(&vm, || self.run(&gate)) else { return };
            if !persisted(&vm, || self.give_up(error.clone())) {
                self.finish(Status::Failed);
            }
        });
    }

    pub(super) fn released(&self) {
        if !self.released.swap(true, SeqCst) {
            // Nobody is let in any more.
            drop(take(&self.back));
            self.base.vm.set_incoming(take(&self.before));
            self.base.vm.slot.set_observer(None);
            self.base.vm.slot.end();
        }
    }

    /// What it listens on, with the port that the system chose in place of port 0.
    pub fn uri(&self) -> Option<&Uri> {
        self.uri.as_ref()
    }

    /// Ends it. When it returns `Ok`, within a second, the guest does not run here and never will because of this
    /// migration. `EBUSY` where the guest is here already. Any thread; the big lock is given up meanwhile.
    pub fn cancel(&self) -> Result<()> {
        match self.base.begin_cancel("the guest is here")? {
            true => self.base.wait_cancelled(),
            false => Ok(()),
        }
    }

    /// Breaks the connection of a running postcopy on purpose.
    pub fn pause(&self) -> Result<()> {
        self.base.pause()
    }

    /// Takes a paused postcopy up again: listens, and goes on with the connection that comes.
    pub fn recover(&self, from: Endpoint) -> Result<()> {
        self.base.check_paused(self.released.load(SeqCst))?;
        self.base.vm.check_unbroken()?;
        self.base.offer(&self.back, Gate::open(from)?, &self.released)
    }

    /// Ends what is still under way, as far as that can be.
    pub fn end(&self) {
        self.abandoned.store(true, SeqCst);
        self.base.machine.ring();
        // Where it is too late it ends by itself. The host may still be hearing of the end: nothing is called after this.
        let _ = self.cancel();
        let _ = self.wait();
    }
}

/// The guest of a running postcopy waits for pages.
impl PageSource for Incoming {
    fn request_pages(&self, block: &[u8], start: u64, len: u32) -> Result<()> {
        use super::return_path::Message;
        // A source that is not in postcopy takes a request for a broken peer.
        if !matches!(*lock(&self.postcopy), PostcopyState::Listening | PostcopyState::Running) {
            return Err(Error::invalid("pages can be asked for in postcopy only"));
        }
        self.base.stats.get().page_requests += 1;
        let name = String::from_utf8_lossy(block);
        self.base.trace.write(self.base.now(), &Event::PageRequest { block: &name, start, len });
        // Named in each request: a request that leaves it out means the last one that arrived, and requests of several
        // threads may overtake each other.
        self.voice.say(Message::RequestPages { block: Some(block.to_vec()), start, len })
    }
}
