// SPDX-License-Identifier: LGPL-2.1-or-later
//! The owner that the source reports after a break at each point of a postcopy's exchange. The destination is a script that
//! answers as libsavevm or as QEMU 7.2 does, and breaks the connection at a chosen point.
//!
//! QEMU 7.2 answers PING 3 after its devices are loaded and executes the RUN that follows in the same package. Until then
//! an error ends its process (`postcopy_ram_listen_thread`), afterwards it pauses. So only a page request after PONG 3, a
//! recovery or the verdict show that it has the guest.

use super::link::Refuses;
use super::machine::{Machine, PAGES};
use super::postcopy_runs::params;
use super::precopy::{LONG, over, wait_status, wait_until};
use savevm::channel::{Channel, memory};
use savevm::file::MigFile;
use savevm::migration::return_path::message::{self, Message};
use savevm::migration::{Endpoint, Migration, Outgoing, Owner, Params, Status};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;

/// What the destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Libsavevm,
    Qemu,
}

/// What the destination does last, before it closes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// It reads up to the discards, which precede the package.
    ReadsDiscards,
    /// It reads the whole package.
    ReadsPackage,
    /// It reports that the devices are loaded. The source can't send RUN to libsavevm; QEMU has read it in the package.
    ReportsDevices,
    /// It requests a page before that, as a device that loads may do.
    RequestsPageForDevice,
    /// It reads RUN; QEMU reports its devices as well.
    ReadsRun,
    /// It reads RUN and requests a page.
    RequestsPage,
    /// It reports that it has the guest.
    ReportsArrival,
    /// It reads RUN and ends with this value of SHUT and maybe a text.
    Shuts(u32, bool),
    /// It reports that it has the guest, and ends with this value and a text.
    ShutsAfterArrival(u32),
    /// It reads the last page. It has requested one.
    ReadsLastPage,
    /// It reports that all pages arrived, with or without having requested one, and reads EOF.
    ReportsAllPages { requested: bool },
}

/// The answers of a destination.
struct Script {
    peer: Peer,
    last: Last,
    stream: Vec<u8>,
    /// The part of `stream` that was looked at.
    seen: usize,
    here: MigFile,
    there: MigFile,
}

const PING: &[u8] = &[8, 0, 2, 0, 4];
const RUN: &[u8] = &[8, 0, 5, 0, 0];

impl Script {
    fn send(&self, message: &Message) {
        message::put(&self.there, message);
        self.there.flush();
    }

    fn request_page(&self) {
        self.send(&Message::RequestPages { block: Some(b"ram".to_vec()), start: PAGES as u64 - 1, len: 1 });
    }

    /// Reads until the stream has these bytes behind what was looked at. Returns what follows them.
    fn read_to(&mut self, what: &[u8], behind: usize) -> Option<Vec<u8>> {
        loop {
            let new = &self.stream[self.seen..];
            let at = new.windows(what.len()).position(|window| window == what);
            if let Some(end) = at.map(|at| at + what.len() + behind).filter(|end| *end <= new.len()) {
                let found = new[end - behind..end].to_vec();
                self.seen += end;
                return Some(found);
            }
            let byte = self.here.get_byte();
            if self.here.error() != 0 {
                return None;
            }
            self.stream.push(byte);
        }
    }

    fn next_ping(&mut self) -> Option<u32> {
        self.read_to(PING, 4).map(|value| u32::from_be_bytes(value.try_into().unwrap()))
    }

    fn pong(&self, value: u32) {
        self.send(&Message::Pong(value));
        if value == message::PING_HELLO && self.peer == Peer::Libsavevm {
            self.send(&Message::Pong(message::PONG_HELLO));
        }
    }

    /// Plays the whole script. Returns at the point of the break, or when the source has ended.
    fn play(&mut self) -> Option<()> {
        let (peer, last) = (self.peer, self.last);
        loop {
            let value = self.next_ping()?;
            match value {
                message::PING_DISCARDED if last == Last::ReadsDiscards => return Some(()),
                message::PING_LOADED | message::PING_PACKAGE_END => {
                    // The end of the package: EOF, or RUN.
                    self.read_to(if peer == Peer::Qemu { RUN } else { &[0] }, 0)?;
                    if last == Last::RequestsPageForDevice {
                        self.request_page();
                    }
                    if matches!(last, Last::ReadsPackage | Last::RequestsPageForDevice) {
                        return Some(());
                    }
                    self.pong(value);
                    if last == Last::ReportsDevices {
                        if peer == Peer::Libsavevm {
                            // The source fails to send RUN.
                            while self.next_ping().is_some() {}
                        }
                        return Some(());
                    }
                    if peer == Peer::Libsavevm {
                        self.read_to(RUN, 0)?;
                    }
                    return self.play_handover();
                }
                _ => self.pong(value),
            }
        }
    }

    /// RUN was read.
    fn play_handover(&mut self) -> Option<()> {
        match self.last {
            Last::ReadsRun => return Some(()),
            Last::RequestsPage => {
                self.request_page();
                return Some(());
            }
            Last::Shuts(value, has_text) => {
                if has_text {
                    self.send(&Message::ErrorText("a reason".to_owned()));
                }
                self.send(&Message::Shut(value));
                return Some(());
            }
            _ => {}
        }
        if self.last != (Last::ReportsAllPages { requested: false }) {
            self.request_page();
        }
        loop {
            let value = self.next_ping()?;
            match (value, self.last) {
                (message::PING_HANDED_OVER, Last::ReportsArrival) => {
                    self.pong(value);
                    return Some(());
                }
                (message::PING_HANDED_OVER, Last::ShutsAfterArrival(shut)) => {
                    self.pong(value);
                    self.send(&Message::ErrorText("a reason".to_owned()));
                    self.send(&Message::Shut(shut));
                    return Some(());
                }
                (message::PING_ALL_SENT, Last::ReadsLastPage) => return Some(()),
                (message::PING_ALL_SENT, Last::ReportsAllPages { .. }) => {
                    self.pong(value);
                    // EOF.
                    self.read_to(&[0], 0)?;
                    return Some(());
                }
                _ => self.pong(value),
            }
        }
    }
}

/// What becomes of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The migration failed and the guest runs here.
    Here,
    /// The migration failed, and it is unknown who has the guest.
    Failed,
    /// The postcopy is paused with this owner.
    Paused(Owner),
    Completed,
}

fn play(peer: Peer, last: Last) -> Outcome {
    let what = format!("{peer:?}, {last:?}");
    let (source, _destination, stage) = Machine::two();
    let source = source.with_postcopy();
    // Small, so that the source writes hardly anything ahead of what the destination has read.
    let (end, there) = memory::pair(4);
    let end: Arc<dyn Channel> = match (peer, last) {
        (Peer::Libsavevm, Last::ReportsDevices) => Refuses::run(end, false),
        _ => end,
    };
    let params = Params { recover_timeout: None, handshake_timeout: LONG, switchover_timeout: LONG, ..params(true) };
    let out = Outgoing::start(&source.vm, Endpoint::Channel(end), params).unwrap();
    out.start_postcopy().unwrap();
    let script = thread::spawn(move || {
        let file = |write| MigFile::new(Arc::clone(&there) as _, write);
        let (here, to_source) = (file(false), file(true));
        let mut script = Script { peer, last, stream: Vec::new(), seen: 0, here, there: to_source };
        let reached = script.play().is_some();
        there.shutdown().unwrap();
        reached
    });
    let ended = || out.info().status.is_final() || out.info().status == Status::PostcopyPaused;
    wait_until(ended, || format!("{what}: {:?}", out.info().status));
    assert!(script.join().unwrap(), "{what}: the script was not played to its end: {:?}", out.error());
    let paused = out.info().status == Status::PostcopyPaused;
    let owner = out.info().owner;
    assert_eq!(source.vm.ownership.owner(), owner, "{what}");
    out.end();
    let status = out.info().status;
    assert_eq!((out.info().owner, source.host.is_running()), (owner, owner == Owner::Here), "{what}");
    assert_eq!(source.vm.ownership.may_run(), owner == Owner::Here, "{what}");
    source.check_balanced(&what);
    stage.check(&what);
    match (paused, status, owner) {
        (true, Status::Failed, owner) => Outcome::Paused(owner),
        (false, Status::Failed, Owner::Here) => Outcome::Here,
        (false, Status::Failed, Owner::Unknown) => Outcome::Failed,
        (false, Status::Completed, Owner::There) => Outcome::Completed,
        other => panic!("{what}: {other:?} {:?}", out.error()),
    }
}

#[test]
fn the_owner_after_a_break_is_what_the_destination_has_shown() {
    use Outcome::{Completed, Failed, Here, Paused};
    use Owner::{There, Unknown};
    use Peer::{Libsavevm, Qemu};
    let (cancelled, not_started, failed) = (message::SHUT_CANCELLED, message::SHUT_NOT_STARTED, message::SHUT_FAILED);
    let table: &[(Last, Outcome, Outcome)] = &[
        // What the destination did last, and what becomes of the source of a libsavevm and of a QEMU.
        (Last::ReadsDiscards, Here, Here),
        (Last::ReadsPackage, Here, Paused(Unknown)),
        (Last::RequestsPageForDevice, Here, Paused(Unknown)),
        (Last::ReportsDevices, Here, Paused(Unknown)),
        (Last::ReadsRun, Paused(Unknown), Paused(Unknown)),
        (Last::RequestsPage, Paused(Unknown), Paused(There)),
        (Last::ReportsArrival, Paused(There), Paused(There)),
        (Last::Shuts(cancelled, true), Here, Paused(Unknown)),
        (Last::Shuts(not_started, true), Here, Paused(Unknown)),
        (Last::Shuts(failed, true), Failed, Paused(Unknown)),
        // Without a text it may be a damaged message.
        (Last::Shuts(cancelled, false), Paused(Unknown), Paused(Unknown)),
        (Last::Shuts(failed, false), Paused(Unknown), Paused(Unknown)),
        (Last::ReadsLastPage, Paused(There), Paused(There)),
        (Last::ReportsAllPages { requested: true }, Completed, Completed),
        (Last::ReportsAllPages { requested: false }, Completed, Paused(Unknown)),
    ];
    for (last, with_libsavevm, with_qemu) in table {
        assert_eq!(play(Libsavevm, *last), *with_libsavevm, "libsavevm, {last:?}");
        // QEMU has no messages with a text: its source takes them for damage.
        assert_eq!(play(Qemu, *last), *with_qemu, "QEMU, {last:?}");
    }
}

#[test]
fn a_destination_that_has_the_guest_can_not_give_it_back() {
    for value in [message::SHUT_CANCELLED, message::SHUT_NOT_STARTED] {
        let what = format!("SHUT {value} after the arrival");
        let (source, _destination, stage) = Machine::two();
        let source = source.with_postcopy();
        let (end, there) = memory::pair(4);
        let out = Outgoing::start(&source.vm, over(&end), Params { recover_timeout: None, ..params(true) }).unwrap();
        out.start_postcopy().unwrap();
        let script = thread::spawn(move || {
            let file = |write| MigFile::new(Arc::clone(&there) as _, write);
            let (here, to_source) = (file(false), file(true));
            let last = Last::ShutsAfterArrival(value);
            let mut script =
                Script { peer: Peer::Libsavevm, last, stream: Vec::new(), seen: 0, here, there: to_source };
            script.play().unwrap();
            there.shutdown().unwrap();
        });
        wait_status(|| out.info().status, Status::Failed, &what);
        script.join().unwrap();
        assert_eq!((out.info().owner, source.host.is_running()), (Owner::There, false), "{what}");
        source.check_balanced(&what);
        stage.check(&what);
        assert_eq!(source.host.stops.load(SeqCst), 1);
    }
}
