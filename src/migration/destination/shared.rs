// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the handle of an incoming migration and its worker share: the migration core, the return path and the user's
//! requests.

use super::acceptor::Acceptor;
use crate::error::{Error, Result};
use crate::migration::core::Core;
use crate::migration::return_path::message::{self, DeviceTime, Message, pack_device_times};
use crate::migration::return_path::sender::Sender;
use crate::migration::trace::Event;
use crate::savevm::incoming;
use crate::savevm::owner::Remembered;
use crate::savevm::slot::PageSource;
use crate::sync::{Mutex, Rank};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

/// Limit for sending the reason of a failure.
const FAILURE_LIMIT: Duration = Duration::from_millis(500);

/// Most devices whose load times are reported: those that took longest.
const REPORTED_MAX: usize = 4096;

/// What the user has requested since the migration began.
pub(super) struct Requests {
    /// The handle is being freed: do not wait for a recovery any longer.
    pub abandon: AtomicBool,
    /// Where the new connection of a recovery comes from.
    pub recovery_acceptor: Mutex<Option<Acceptor>>,
}

/// What the source must know of a destination that ends without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It was cancelled before it could start the guest.
    Cancelled,
    /// It failed before it started the guest, and will not start it.
    NotStarted,
    /// It may have started the guest.
    Started,
}

/// See the module.
pub(super) struct Shared {
    pub core: Arc<Core>,
    pub sender: Sender,
    pub requests: Requests,
    /// Pages can be requested: from LISTEN until the end of postcopy.
    pub pages_open: AtomicBool,
    /// The source asked for the load times of the devices.
    pub wants_times: AtomicBool,
    /// The migration slot of the context was released.
    pub released: AtomicBool,
    /// A postcopy was completed: its source may still ask for the verdict.
    pub completed_postcopy: AtomicBool,
    /// The owner to be restored if the migration ends before it changed anything; `None`: `There`.
    pub owner_before: Option<Remembered>,
    /// The handler of stream commands before this migration.
    previous_handler: Mutex<Option<Arc<dyn incoming::Incoming>>>,
}

impl Shared {
    pub fn new(core: Arc<Core>, owner_before: Option<Remembered>) -> Self {
        let previous_handler = Mutex::new(Rank::IncomingPrevious, core.vm.incoming());
        let recovery_acceptor = Mutex::new(Rank::IncomingRecovery, None);
        Self {
            core,
            sender: Sender::default(),
            requests: Requests { abandon: AtomicBool::new(false), recovery_acceptor },
            pages_open: AtomicBool::new(false),
            wants_times: AtomicBool::new(false),
            released: AtomicBool::new(false),
            completed_postcopy: AtomicBool::new(false),
            owner_before,
            previous_handler,
        }
    }

    /// Whether the source has shown that it is libsavevm.
    pub fn peer_is_libsavevm(&self) -> bool {
        self.core.stats.get().peer_is_libsavevm
    }

    /// Whether the source of a completed postcopy may ask for the verdict again. QEMU does not expect one in a recovery.
    pub fn may_answer(&self) -> bool {
        self.completed_postcopy.load(SeqCst) && self.peer_is_libsavevm()
    }

    /// Sends the source the reason why this side ends. Does nothing if the source is gone.
    pub fn send_failure(&self, error: &Error, failure: Failure) {
        if self.sender.is_open() {
            let peer_is_libsavevm = self.peer_is_libsavevm();
            if peer_is_libsavevm {
                let _ = self.sender.send(Message::ErrorText(error.to_string()));
            }
            let value = match failure {
                Failure::Cancelled => message::SHUT_CANCELLED,
                Failure::NotStarted if peer_is_libsavevm => message::SHUT_NOT_STARTED,
                Failure::NotStarted | Failure::Started => message::SHUT_FAILED,
            };
            let _ = self.sender.send_final(Message::Shut(value), FAILURE_LIMIT);
            self.sender.close();
        }
    }

    /// Reports the load times of the devices, if the source asked for them. A failure is of no importance: the verdict follows.
    pub fn send_times(&self) {
        if !self.wants_times.swap(false, SeqCst) {
            return;
        }
        let times = self.core.stats.slowest_devices(REPORTED_MAX).into_iter().map(|device| DeviceTime {
            name: device.name.to_bytes().to_vec(),
            instance: device.instance,
            nanos: u64::try_from(device.time.as_nanos()).unwrap_or(u64::MAX),
        });
        for message in pack_device_times(times) {
            if self.sender.send(message).is_err() {
                return;
            }
        }
    }

    /// Releases the context's migration slot, once.
    pub fn release_slot(&self) {
        if !self.released.swap(true, SeqCst) {
            // Dropping an unused listener closes it: no source can connect any more.
            drop(self.requests.recovery_acceptor.take());
            self.core.vm.set_incoming(self.previous_handler.take());
            self.core.watch.stop();
            self.core.vm.slot.set_observer(None);
            self.core.vm.slot.set_connections(None);
            self.core.vm.slot.release();
        }
    }
}

/// The guest of a postcopy waits for pages.
impl PageSource for Shared {
    fn request_pages(&self, block: &[u8], start: u64, len: u32) -> Result<()> {
        // A source that is not in postcopy takes a request for an error of its peer.
        if !self.pages_open.load(SeqCst) {
            return Err(Error::invalid("pages can be requested in postcopy only"));
        }
        self.core.stats.get().page_requests += 1;
        let name = String::from_utf8_lossy(block);
        self.core.trace.write(self.core.now(), &Event::PageRequest { block: &name, start, len });
        // Each request names its block. A request without a name means the block of the request that arrived before it,
        // and requests of several threads may overtake each other.
        self.sender.send(Message::RequestPages { block: Some(block.to_vec()), start, len })
    }
}
