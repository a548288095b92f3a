// SPDX-License-Identifier: LGPL-2.1-or-later
//! Panics during the recovery of a broken postcopy: the guest stays where it is, and no thread waits for ever.

use super::At;
use super::check;
use super::has_postcopy;
use super::machine::Machine;
use super::machine::PAGE;
use super::machine::PAGES;
use super::machine::everywhere;
use super::machine::path;
use super::machine::uri;
use super::touch;
use crate::ffi::exports::info::{SaveVMInfo, SaveVMParams};
use crate::ffi::exports::migrate::{
    savevm_incoming, savevm_migrate, savevm_migration_free, savevm_migration_pause, savevm_migration_query,
    savevm_migration_recover, savevm_migration_start_postcopy, savevm_migration_step,
};
use crate::ffi::marshal::opaque::SaveVMMigration;
use crate::migration::Status;
use crate::savevm::fault::FaultPoint;
use std::mem::zeroed;
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

/// Both ends of a postcopy.
struct Ends {
    outgoing: *mut SaveVMMigration,
    incoming: *mut SaveVMMigration,
    /// The source has no thread of its own.
    stepped: bool,
}

impl Ends {
    /// One that runs and breaks.
    fn paused(source: &Machine, destination: &Machine, stepped: bool) -> Self {
        let uri = uri("unix", &path("broken"));
        let params = SaveVMParams {
            size: size_of::<SaveVMParams>(),
            handshake_timeout_ms: 1000,
            switchover_timeout_ms: 3000,
            postcopy: true,
            max_bandwidth: 200_000,
            max_postcopy_bandwidth: 100_000,
            no_thread: stepped,
            // SAFETY: NULL and 0 are values of every member.
            ..unsafe { zeroed() }
        };
        // SAFETY: the contexts are alive.
        let ends = unsafe {
            let incoming = savevm_incoming(destination.vm, uri.as_ptr(), &raw const params, ptr::null_mut());
            let outgoing = savevm_migrate(source.vm, uri.as_ptr(), &raw const params, ptr::null_mut());
            savevm_migration_start_postcopy(outgoing);
            Self { outgoing, incoming, stepped }
        };
        ends.wait(|status| status == [Status::PostcopyActive; 2]);
        // SAFETY: the migration is alive.
        assert_eq!(unsafe { savevm_migration_pause(ends.outgoing) }, 0);
        ends.wait(|status| status == [Status::PostcopyPaused; 2]);
        ends
    }

    fn status(&self) -> [Status; 2] {
        // SAFETY: NULL and 0 are values of every member.
        let mut info = [0; 2].map(|_| SaveVMInfo { size: size_of::<SaveVMInfo>(), ..unsafe { zeroed() } });
        // SAFETY: the handles are alive until they are freed at the end.
        unsafe {
            savevm_migration_query(self.outgoing, &raw mut info[0]);
            savevm_migration_query(self.incoming, &raw mut info[1]);
        }
        info.map(|info| Status::ALL[info.status as usize])
    }

    fn wait(&self, done: impl Fn([Status; 2]) -> bool) {
        let since = Instant::now();
        while !done(self.status()) {
            assert!(since.elapsed() < Duration::from_secs(60), "it stays {:?}", self.status());
            if self.stepped {
                // SAFETY: as above.
                unsafe { savevm_migration_step(self.outgoing) };
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn recover(&self) {
        let uri = uri("unix", &path("mended"));
        // SAFETY: as above.
        unsafe {
            savevm_migration_recover(self.incoming, uri.as_ptr(), ptr::null_mut());
            savevm_migration_recover(self.outgoing, uri.as_ptr(), ptr::null_mut());
        }
    }

    /// Gives up what is still paused.
    fn free(self) {
        // SAFETY: the handles are not used any more.
        unsafe {
            savevm_migration_free(self.outgoing);
            savevm_migration_free(self.incoming);
        }
    }
}

/// A recovery with a trap at one end; whether it was sprung.
fn recover(what: &str, at: At, arm: &dyn Fn(&Machine)) -> bool {
    let (source, destination) = (Machine::new(true, true), Machine::new(false, true));
    let ends = Ends::paused(&source, &destination, false);
    let trapped = if at == At::Source { &source } else { &destination };
    arm(trapped);
    let guest = touch(&destination);
    ends.recover();
    let idle = |status: Status| status.is_final() || status == Status::PostcopyPaused;
    ends.wait(|status| status == [Status::Completed; 2] || (trapped.is_poisoned() && status.map(idle) == [true; 2]));
    ends.free();
    guest();
    let other = if at == At::Source { &destination } else { &source };
    other.check_order(what);
    assert!(!other.is_poisoned(), "{what}");
    let sprung = check(trapped, what, 0);
    let same = (0..PAGES).all(|page| {
        let byte = |machine: &Machine| {
            let mut byte = [0];
            machine.memory.memory().read(page * PAGE + 8, &mut byte);
            byte
        };
        byte(&source) == byte(&destination)
    });
    assert!(sprung || same, "{what}: all memory came");
    // Nobody goes on without pages that never come.
    let whole = if sprung { same || !destination.runs() } else { destination.runs() };
    assert!(!source.runs() && whole, "{what}: {} {}", source.runs(), destination.runs());
    sprung
}

#[test]
fn a_recovery_whose_source_panics_leaves_the_guest_where_it_is() {
    for place in [FaultPoint::Recovery, FaultPoint::ReturnPath, FaultPoint::Engine, FaultPoint::Driver] {
        if has_postcopy() {
            everywhere(place, |what, arm| recover(what, At::Source, arm));
        }
    }
}

#[test]
fn a_recovery_whose_destination_panics_leaves_the_guest_where_it_is() {
    for place in
        [FaultPoint::Recovery, FaultPoint::PageFault, FaultPoint::Section, FaultPoint::Engine, FaultPoint::Driver]
    {
        if has_postcopy() {
            everywhere(place, |what, arm| recover(what, At::Destination, arm));
        }
    }
}

#[test]
fn a_connection_that_a_panic_keeps_from_being_used_ends() {
    if !has_postcopy() {
        return;
    }
    let (source, destination) = (Machine::new(true, true), Machine::new(false, true));
    let ends = Ends::paused(&source, &destination, true);
    ends.recover();
    source.inner().faults.set(FaultPoint::Driver, 0);
    // SAFETY: the migration is alive.
    unsafe { savevm_migration_step(ends.outgoing) };
    ends.wait(|status| status == [Status::Failed, Status::PostcopyPaused]);
    source.check_refuses("before it is used");
    ends.free();
}
