// SPDX-License-Identifier: LGPL-2.1-or-later
//! The owner of a guest belongs to the context: what is refused, when, and what the context reports meanwhile.

use super::link::{Break, fragile};
use super::machine::{Machine, UNTIL_TOLD};
use super::precopy::{Run, cancelled, check_moved, over, quick, wait_status, wait_until};
use super::rest::scratch;
use savevm::channel::Uri;
use savevm::error::Error;
use savevm::migration::{
    Endpoint, Incoming, Migration, Outgoing, Owner, Params, SnapshotOptions, Status, snapshot_load, snapshot_save,
    snapshot_save_to,
};
use savevm::savevm::Vm;
use savevm::savevm::host::{Host, with_big_lock};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

fn whole() -> (Arc<super::link::Fragile>, Arc<super::link::Fragile>) {
    fragile(-1, -1, Break::Whole)
}

fn file(name: &str) -> Uri {
    Uri::File { path: scratch(name), offset: 0 }
}

/// Everything that needs a whole guest is refused, with the same reason.
fn check_refused(vm: &Arc<Vm>, reason: &str) {
    let out = Outgoing::start(vm, Endpoint::Uri(Uri::Unix(scratch("refused"))), quick()).err();
    let saved = file("refused");
    let save = snapshot_save(vm, &saved, &SnapshotOptions::default()).err();
    let sink = Arc::new(savevm::channel::memory::Writer::new());
    let save_to = snapshot_save_to(vm, &savevm::file::MigFile::new(sink, true)).err();
    for error in [out, save, save_to, vm.ownership.check_may_run().err()] {
        let error: Error = error.expect("it is refused");
        assert_eq!(error.errno(), libc::EPERM, "{error}");
        assert!(error.message().contains(reason), "{error}");
    }
    assert!(!vm.ownership.may_run());
    let Uri::File { path, .. } = saved else { unreachable!() };
    assert!(!path.exists(), "nothing was written");
}

#[test]
fn a_guest_that_moved_is_not_moved_or_saved_again() {
    let (a, b, stage) = Machine::two();
    let c = Machine::third(&stage);
    let socket = scratch("moved");
    let to_b = || Endpoint::Uri(Uri::Unix(socket.clone()));
    let into = Incoming::start(&b.vm, to_b(), quick()).unwrap();
    let run = Run { out: Outgoing::start(&a.vm, to_b(), quick()).unwrap(), into };
    run.wait("A to B").0.unwrap();
    drop(run);
    assert_eq!((a.vm.ownership.owner(), b.vm.ownership.owner()), (Owner::There, Owner::Here));
    check_refused(&a.vm, &format!("the guest moved to unix:{}", socket.display()));
    // The refusal changes nothing: the guest moves on from where it is, and back.
    let run = Run::start(&b, &c, whole(), (quick(), quick()));
    run.wait("B to C").0.unwrap();
    check_refused(&b.vm, "the guest moved to");
    let run = Run::start(&c, &a, whole(), (quick(), quick()));
    run.wait("C to A").0.unwrap();
    check_moved(&c, &a, &stage, "C to A");
    let run = Run::start(&a, &b, whole(), (quick(), quick()));
    run.wait("A to B again").0.unwrap();
    assert_eq!((a.vm.ownership.owner(), b.vm.ownership.owner()), (Owner::There, Owner::Here));
}

#[test]
fn half_a_guest_is_not_moved_saved_or_started() {
    let (source, destination, stage) = Machine::two();
    destination.device.fail_load.store(true, SeqCst);
    let run = Run::start(&source, &destination, whole(), (quick(), quick()));
    let (out, into) = run.wait("a device fails");
    assert!(out.is_err() && into.is_err());
    assert_eq!((source.vm.ownership.owner(), destination.vm.ownership.owner()), (Owner::Here, Owner::Torn));
    check_refused(&destination.vm, "failed after it had changed devices");
    assert!(source.vm.ownership.may_run());
    // A whole load mends it.
    destination.device.fail_load.store(false, SeqCst);
    let run = Run::start(&source, &destination, whole(), (quick(), quick()));
    run.wait("a whole load").0.unwrap();
    check_moved(&source, &destination, &stage, "a whole load");
    assert!(destination.vm.ownership.may_run() && !source.vm.ownership.may_run());
}

#[test]
fn what_is_no_stream_does_not_stop_the_guest() {
    let (source, destination, _stage) = Machine::two();
    let command = |text: &str| Uri::Exec(text.into());
    let load = |from: &Uri| snapshot_load(&source.vm, from, &SnapshotOptions::default());
    for (from, expected) in [
        (Uri::File { path: "/dev/null".into(), offset: 0 }, "it ends after 0 bytes"),
        (Uri::File { path: "/dev/zero".into(), offset: 0 }, "it begins with 0x00000000, expected 0x5145564d"),
        (command("echo some text"), "it begins with 0x736f6d65, expected 0x5145564d"),
        (command("printf QEVM"), "it ends after 4 bytes"),
        (command("printf 'QEVM\\0\\0\\0\\2'"), "SaveVM v2 format is obsolete"),
        (command("exit 0"), "it ends after 0 bytes"),
    ] {
        let error = load(&from).unwrap_err();
        assert!(error.message().contains(expected), "{from}: {error}");
        assert!(source.host.vm_running() && source.vm.ownership.owner() == Owner::Here, "{from}");
    }
    // The bytes that were read for this are loaded as well.
    let saved = scratch("in pieces");
    snapshot_save(&source.vm, &Uri::File { path: saved.clone(), offset: 0 }, &SnapshotOptions::default()).unwrap();
    let pieces = format!("cat '{0}' | (head -c 5; sleep 0.1; cat)", saved.display());
    snapshot_load(&destination.vm, &command(&pieces), &SnapshotOptions::default()).unwrap();
    std::fs::remove_file(&saved).unwrap();
    assert_eq!(destination.vm.ownership.owner(), Owner::Here);
}

#[test]
fn a_snapshot_that_loads_in_part_leaves_no_guest() {
    let (source, destination, _stage) = Machine::two();
    let uri = file("whole");
    snapshot_save(&source.vm, &uri, &SnapshotOptions::default()).unwrap();
    assert_eq!(source.vm.ownership.owner(), Owner::Here);
    assert!(source.vm.ownership.may_run(), "saving releases the guest");
    destination.device.fail_load.store(true, SeqCst);
    assert!(snapshot_load(&destination.vm, &uri, &SnapshotOptions::default()).is_err());
    assert_eq!(destination.vm.ownership.owner(), Owner::Torn);
    check_refused(&destination.vm, "failed after it had reset the machine");
    destination.device.fail_load.store(false, SeqCst);
    snapshot_load(&destination.vm, &uri, &SnapshotOptions::default()).unwrap();
    assert!(destination.vm.ownership.may_run());
    // What is refused before anything is touched changes nothing.
    let nothing = file("nothing");
    assert!(snapshot_load(&destination.vm, &nothing, &SnapshotOptions::default()).is_err());
    assert!(destination.vm.ownership.may_run());
}

#[test]
fn a_waiting_destination_has_no_guest_also_after_it_was_cancelled() {
    let (source, destination, stage) = Machine::two();
    let at = || Endpoint::Uri(Uri::Unix(scratch("waiting")));
    let into = Incoming::start(&destination.vm, at(), quick()).unwrap();
    assert_eq!((into.info().owner, destination.vm.ownership.owner()), (Owner::There, Owner::There));
    cancelled(&*into, into.cancel());
    check_refused(&destination.vm, "no guest has arrived from unix:");
    drop(into);
    let run = Run::start(&source, &destination, whole(), (quick(), quick()));
    run.wait("after a cancel").0.unwrap();
    check_moved(&source, &destination, &stage, "after a cancel");
    let into = Incoming::start(&destination.vm, at(), quick()).unwrap();
    assert!(!destination.vm.ownership.may_run());
    into.end();
    assert_eq!((into.info().owner, destination.vm.ownership.owner()), (Owner::Here, Owner::Here), "it ran here");
    assert!(destination.vm.ownership.may_run());
    let warned = |text: &String| text.contains("while a guest runs here");
    assert!(destination.host.reports.lock().unwrap().iter().any(warned));
}

#[test]
fn an_owner_that_is_not_here_comes_back_after_an_incoming_migration_that_changed_nothing() {
    for owner in [Owner::Unknown, Owner::Torn, Owner::There] {
        let (_source, destination, _stage) = Machine::two();
        destination.vm.override_owner(owner).unwrap();
        let into = Incoming::start(&destination.vm, over(&whole().1), quick()).unwrap();
        assert_eq!(destination.vm.ownership.owner(), Owner::There);
        into.end();
        assert_eq!((into.info().owner, destination.vm.ownership.owner()), (owner, owner));
        check_refused(&destination.vm, "an operator decided so");
    }
}

#[test]
fn a_guest_that_is_back_without_its_disks_may_not_run() {
    let (source, destination, stage) = Machine::two();
    destination.device.fail_load.store(true, SeqCst);
    // The disks are released before the destination reports that its device fails.
    destination.device.slow.store(UNTIL_TOLD, SeqCst);
    source.host.fail_disks.store(true, SeqCst);
    let run = Run::start(&source, &destination, whole(), (quick(), quick()));
    wait_until(|| !source.host.has_disks(), || format!("{:?}", run.out.info()));
    destination.device.slow.store(0, SeqCst);
    let error = run.out.wait_within(super::precopy::LONG).expect("it ends").unwrap_err();
    assert!(run.into.wait().is_err());
    assert!(error.message().contains("going on here: disks_activate returned -5"), "{error}");
    assert!(error.message().contains("may not run"), "{error}");
    assert_eq!(source.vm.ownership.owner(), Owner::Here);
    assert!(!source.vm.ownership.may_run() && !source.host.is_running());
    let refused = source.vm.ownership.check_may_run().unwrap_err();
    assert!(refused.message().contains("disks are not active"), "{refused}");
    stage.check("no disks");
    // The next failed migration activates them.
    source.host.fail_disks.store(false, SeqCst);
    let run = Run::start(&source, &destination, whole(), (quick(), quick()));
    run.wait("disks again").0.unwrap_err();
    assert!(source.vm.ownership.may_run());
    stage.check("disks again");
}

#[test]
fn a_guest_that_is_stopped_for_the_switchover_may_not_run() {
    let (source, destination, stage) = Machine::two();
    let params = Params { pause_before_switchover: true, ..quick() };
    let run = Run::start(&source, &destination, whole(), (params, quick()));
    wait_status(|| run.out.info().status, Status::PreSwitchover, "it waits");
    assert_eq!(source.vm.ownership.owner(), Owner::Here);
    assert!(!source.vm.ownership.may_run());
    assert_eq!(source.vm.ownership.check_may_run().unwrap_err().errno(), libc::EBUSY);
    cancelled(&*run.out, run.out.cancel());
    run.wait("cancelled").0.unwrap_err();
    assert!(source.vm.ownership.may_run() && stage.guests() == 1);
}

#[test]
fn an_operator_decides_only_while_nothing_else_does() {
    let (source, destination, _stage) = Machine::two();
    let into = Incoming::start(&destination.vm, over(&whole().1), quick()).unwrap();
    assert_eq!(destination.vm.override_owner(Owner::Here).unwrap_err().errno(), libc::EBUSY);
    into.end();
    destination.vm.override_owner(Owner::Here).unwrap();
    assert!(destination.vm.ownership.may_run());
    source.vm.override_owner(Owner::Unknown).unwrap();
    check_refused(&source.vm, "an operator decided so");
    assert!(source.host.reports.lock().unwrap().iter().any(|text| text.contains("an operator set the owner")));
}

#[test]
fn the_context_does_not_know_while_the_verdict_is_out() {
    let (source, destination, _stage) = Machine::two();
    // The destination starts slowly, so that its verdict takes a while.
    destination.host.slow_event.store(20, SeqCst);
    destination.device.slow.store(20, SeqCst);
    let run = Run::start(&source, &destination, whole(), (quick(), quick()));
    let mut seen = vec![source.vm.ownership.owner()];
    while !run.out.info().status.is_final() {
        let owner = source.vm.ownership.owner();
        if seen.last() != Some(&owner) {
            seen.push(owner);
        }
        assert!(owner == Owner::Here || !source.vm.ownership.may_run());
        std::thread::sleep(Duration::from_micros(50));
    }
    run.wait("verdict").0.unwrap();
    assert_eq!(source.vm.ownership.owner(), Owner::There);
    let order = [Owner::Here, Owner::Unknown, Owner::There];
    let mut places = seen.iter().map(|owner| order.iter().position(|other| other == owner).unwrap());
    assert!(places.by_ref().is_sorted(), "{seen:?}");
}

/// Counts the moments at which another thread could take the lock and start the guest.
fn count_may_run(machine: &Machine) -> Arc<AtomicU32> {
    let count = Arc::new(AtomicU32::new(0));
    let (vm, counted) = (Arc::downgrade(&machine.vm), Arc::clone(&count));
    *machine.host.unlocked.lock().unwrap() = Some(Arc::new(move || {
        if vm.upgrade().is_some_and(|vm| vm.ownership.may_run()) {
            counted.fetch_add(1, SeqCst);
        }
    }));
    count
}

#[test]
fn a_destination_that_can_not_start_the_guest_never_lets_the_host_start_it() {
    let (source, destination, stage) = Machine::two();
    destination.host.fail_start.store(true, SeqCst);
    destination.vm.ownership.set(Owner::There, "no guest has arrived yet");
    let count = count_may_run(&destination);
    let run = Run::start(&source, &destination, whole(), (quick(), quick()));
    let (out, into) = run.wait("vm_start fails");
    assert!(out.is_err() && into.is_err());
    assert_eq!((source.vm.ownership.owner(), destination.vm.ownership.owner()), (Owner::Here, Owner::There));
    assert!(source.host.is_running());
    assert_eq!(count.load(SeqCst), 0, "the source takes this guest back");
    stage.check("vm_start fails");
}

#[test]
fn a_guest_is_not_started_while_a_snapshot_of_it_is_saved_to_a_file() {
    let (source, _destination, _stage) = Machine::two();
    let file = savevm::file::MigFile::new(Arc::new(savevm::channel::memory::Writer::new()), true);
    with_big_lock(&*source.host, || {
        source.host.vm_stop();
        let count = count_may_run(&source);
        snapshot_save_to(&source.vm, &file).unwrap();
        assert_eq!(count.load(SeqCst), 0, "live devices are set up without the lock");
        assert!(source.vm.ownership.may_run());
        *source.host.unlocked.lock().unwrap() = None;
    });
}
