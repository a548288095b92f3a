// SPDX-License-Identifier: LGPL-2.1-or-later
//! An incoming migration as its user holds it. The work is done by `loading.rs` on a thread of its own.

use crate::channel::{Cancel, Channel, Listener, Uri};
use crate::error::{Error, Result};
use crate::migration::core::{Core, Migration};
use crate::migration::endpoint::Endpoint;
use crate::migration::params::Params;
use crate::migration::return_path::message::Message;
use crate::migration::return_path::sender::Sender;
use crate::migration::status::Status;
use crate::migration::trace::Event;
use crate::savevm::Vm;
use crate::savevm::host::{self, Level, PostcopyState, with_big_lock};
use crate::savevm::owner::Owner;
use crate::savevm::slot::PageSource;
use crate::savevm::unwind::{contained, persisted};
use crate::sync::{Mutex, Rank};
use crate::sys::spawn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, ThreadId};
use std::time::Duration;

/// Where the connection comes from.
pub(super) enum Acceptor {
    Listener(Listener),
    Channel(Arc<dyn Channel>),
}

impl Acceptor {
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
    pub(super) core: Arc<Core>,
    pub(super) sender: Sender,
    /// The source is of this library.
    pub(super) peer_is_libsavevm: AtomicBool,
    /// It asked whether everything is loaded, which comes just before EOF.
    pub(super) asked: AtomicBool,
    pub(super) postcopy: Mutex<PostcopyState>,
    pub(super) package: Mutex<Package>,
    /// The thread that reads the stream.
    pub(super) reader: Mutex<Option<ThreadId>>,
    /// The source has let go of the guest: it is here, whether it runs or not.
    pub(super) ours: AtomicBool,
    /// Where a broken postcopy may come back, and whether the user gave it up.
    pub(super) back: Mutex<Option<Acceptor>>,
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
    fn core(&self) -> &Core {
        &self.core
    }
}

/// An incoming migration replaces the guest that is here, so that one should not run.
fn warn_if_running(vm: &Vm) {
    let host = vm.host();
    if with_big_lock(&*host, || host.vm_running()) {
        host.report(Level::Warning, "an incoming migration begins while a guest runs here, which it will replace");
    }
}

impl Incoming {
    /// Listens, and loads what comes. The machine is stopped and its devices are registered. Errors here are those of the
    /// moment: another migration, or that there is nothing to listen on.
    pub fn start(vm: &Arc<Vm>, from: Endpoint, params: Params) -> Result<Arc<Self>> {
        vm.check_unbroken()?;
        let from_text = from.text();
        let core = Arc::new(Core::new(vm, params, true, from_text.clone())?);
        vm.slot.begin("an incoming migration")?;
        let acceptor = Acceptor::open(from).inspect_err(|_| vm.slot.end())?;
        warn_if_running(vm);
        core.trace.write(core.now(), &Event::Trace { side: "destination", uri: &from_text });
        core.set_owner(Owner::There);
        vm.ownership.begin_load();
        let this = Arc::new(Self {
            core,
            sender: Sender::default(),
            peer_is_libsavevm: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            postcopy: Mutex::new(Rank::IncomingPostcopy, PostcopyState::default()),
            package: Mutex::new(Rank::IncomingPackage, Package::default()),
            reader: Mutex::new(Rank::IncomingReader, None),
            ours: AtomicBool::new(false),
            back: Mutex::new(Rank::IncomingRecovery, None),
            abandoned: AtomicBool::new(false),
            before: Mutex::new(Rank::IncomingBefore, vm.incoming()),
            disks: AtomicBool::new(false),
            released: AtomicBool::new(false),
            uri: acceptor.uri(),
        });
        this.core.set_address(Arc::as_ptr(&this) as usize);
        vm.slot.set_observer(Some(this.core.watcher()));
        this.core.advance(Status::Setup);
        let body = {
            let this = Arc::clone(&this);
            move || this.work(acceptor)
        };
        if let Err(err) = spawn("savevm-load", body) {
            let error = Error::io("starting the migration's thread", &err);
            this.core.set_error(error.clone());
            this.released();
            this.core.advance(Status::Failed);
            return Err(error);
        }
        Ok(this)
    }

    fn work(self: &Arc<Self>, acceptor: Acceptor) {
        let vm = Arc::clone(&self.core.vm);
        *self.reader.lock() = Some(thread::current().id());
        vm.host().on_thread(&vm, &mut || {
            let _working = self.core.working();
            let Err(error) = contained(&vm, || self.run(&acceptor)) else { return };
            if !persisted(&vm, || self.give_up(error.clone())) {
                self.finish(Status::Failed);
            }
        });
    }

    pub(super) fn released(&self) {
        if !self.released.swap(true, SeqCst) {
            // Nobody is let in any more.
            drop(self.back.take());
            self.core.vm.set_incoming(self.before.take());
            self.core.vm.slot.set_observer(None);
            self.core.vm.slot.end();
        }
    }

    /// What it listens on, with the port that the system chose in place of port 0.
    pub fn uri(&self) -> Option<&Uri> {
        self.uri.as_ref()
    }

    /// Ends it. When it returns `Ok`, within a second, the guest does not run here and never will because of this
    /// migration. `EBUSY` where the guest is here already. Any thread; the big lock is given up meanwhile.
    pub fn cancel(&self) -> Result<()> {
        match self.core.begin_cancel("the guest is here")? {
            true => self.core.wait_cancelled(),
            false => Ok(()),
        }
    }

    /// Breaks the connection of a running postcopy on purpose.
    pub fn pause(&self) -> Result<()> {
        self.core.pause()
    }

    /// Takes a paused postcopy up again: listens, and goes on with the connection that comes.
    pub fn recover(&self, from: Endpoint) -> Result<()> {
        self.core.check_paused(self.released.load(SeqCst))?;
        self.core.vm.check_unbroken()?;
        self.core.offer(&self.back, Acceptor::open(from)?, &self.released)
    }

    /// Ends what is still under way, as far as that can be.
    pub fn end(&self) {
        self.abandoned.store(true, SeqCst);
        self.core.status_machine.notify();
        // Where it is too late it ends by itself. The host may still be hearing of the end: nothing is called after this.
        let _ = self.cancel();
        let _ = self.wait();
    }
}

/// The guest of a running postcopy waits for pages.
impl PageSource for Incoming {
    fn request_pages(&self, block: &[u8], start: u64, len: u32) -> Result<()> {
        // A source that is not in postcopy takes a request for a broken peer.
        if !matches!(*self.postcopy.lock(), PostcopyState::Listening | PostcopyState::Running) {
            return Err(Error::invalid("pages can be asked for in postcopy only"));
        }
        self.core.stats.get().page_requests += 1;
        let name = String::from_utf8_lossy(block);
        self.core.trace.write(self.core.now(), &Event::PageRequest { block: &name, start, len });
        // Named in each request: a request that leaves it out means the last one that arrived, and requests of several
        // threads may overtake each other.
        self.sender.send(Message::RequestPages { block: Some(block.to_vec()), start, len })
    }
}
