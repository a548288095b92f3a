// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a panic inside the library does, provoked at every passage of places that are all over it: it is an error, the
//! context refuses further use, the guest runs on, the lock is free, and callbacks come in pairs.

mod machine;
mod recovery;

use crate::ffi::exports::context::savevm_set_current;
use crate::ffi::exports::error::{error_free, error_get_pretty};
use crate::ffi::exports::file::{savevm_file_from_buffer, savevm_file_to_buffer};
use crate::ffi::exports::info::SaveVMOwner::SAVEVM_OWNER_HERE;
use crate::ffi::exports::info::{SaveVMInfo, SaveVMParams};
use crate::ffi::exports::migrate::{
    savevm_incoming, savevm_migrate, savevm_migration_cancel, savevm_migration_free, savevm_migration_query,
    savevm_migration_start_postcopy, savevm_migration_step, savevm_migration_wait,
};
use crate::ffi::exports::newer_file::qemu_fflush;
use crate::ffi::exports::phases::qemu_load_device_state;
use crate::ffi::exports::qemu_file::{
    qemu_fclose, qemu_file_get_error, qemu_get_be32, qemu_get_buffer, qemu_put_be32, qemu_put_buffer,
};
use crate::ffi::exports::ram::{savevm_ram_check_postcopy, savevm_ram_snapshot};
use crate::ffi::exports::snapshot::{savevm_snapshot_load, savevm_snapshot_save};
use crate::ffi::marshal::opaque::QEMUFile;
use crate::savevm::fault::FaultPoint;
use machine::{Machine, PAGE, PAGES, everywhere, path, uri};
use std::ffi::CStr;
use std::mem::zeroed;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

/// After a call on a machine that had a trap: whether it was sprung, and that the machine then refuses further use.
fn check(machine: &Machine, what: &str, ret: i32) -> bool {
    let sprung = !machine.inner().faults.clear();
    machine.check_order(what);
    if sprung {
        machine.check_refuses(what);
    } else {
        assert_eq!((ret, machine.is_poisoned()), (0, false), "{what}");
    }
    sprung
}

#[test]
fn a_snapshot_that_panics_leaves_the_guest_running() {
    for place in [
        FaultPoint::Engine,
        FaultPoint::Section,
        FaultPoint::Device,
        FaultPoint::Cleanup,
        FaultPoint::Call,
        FaultPoint::Register,
    ] {
        everywhere(place, |what, arm| {
            let (machine, path) = (Machine::new(true, true), path("snapshot"));
            let mut err = ptr::null_mut();
            arm(&machine);
            // SAFETY: the context is alive.
            let ret =
                unsafe { savevm_snapshot_save(machine.vm, uri("file", &path).as_ptr(), ptr::null(), &raw mut err) };
            let _ = std::fs::remove_file(path);
            assert!(machine.runs(), "{what}: the guest runs");
            assert_eq!(ret != 0, !err.is_null(), "{what}: an error is told");
            // SAFETY: the error is ours.
            unsafe { error_free(err) };
            let sprung = check(&machine, what, ret);
            assert!(!sprung || ret < 0 || what.starts_with("Cleanup") || what.starts_with("Call"), "{what}: {ret}");
            sprung
        });
    }
}

#[test]
fn a_snapshot_that_panics_while_it_is_loaded_starts_no_guest() {
    for place in [FaultPoint::Engine, FaultPoint::Section, FaultPoint::Cleanup, FaultPoint::Call] {
        everywhere(place, |what, arm| {
            let (source, machine, path) = (Machine::new(true, true), Machine::new(true, true), path("load"));
            let uri = uri("file", &path);
            arm(&machine);
            // SAFETY: the contexts are alive.
            let ret = unsafe {
                assert_eq!(savevm_snapshot_save(source.vm, uri.as_ptr(), ptr::null(), ptr::null_mut()), 0);
                savevm_snapshot_load(machine.vm, uri.as_ptr(), ptr::null(), ptr::null_mut())
            };
            let _ = std::fs::remove_file(path);
            let sprung = check(&machine, what, ret);
            // It may come before the guest is stopped; once devices were called that stays so.
            assert!(!sprung || ret < 0, "{what}: {ret}");
            assert!(ret == 0 || !machine.runs() || machine.host.loads.load(SeqCst) == 0, "{what}: half a state runs");
            sprung
        });
    }
}

/// A snapshot of a guest that writes all the time, into a pipe that takes less than there is.
fn snapshot_running(machine: &Machine) -> i32 {
    let (over, memory) = (AtomicBool::new(false), machine.memory.memory());
    let slow = uri("exec", "sleep 0.05; cat > /dev/null");
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(SeqCst) {
                (0..PAGES).for_each(|page| memory.write(page * PAGE, &[1]));
            }
        });
        // SAFETY: the RAM is alive.
        let ret = unsafe { savevm_ram_snapshot(machine.ram, slow.as_ptr(), ptr::null_mut()) };
        over.store(true, SeqCst);
        ret
    })
}

#[test]
fn a_snapshot_of_a_running_guest_that_panics_lets_it_write() {
    let able = snapshot_running(&Machine::new(true, false));
    if able != 0 {
        assert!([-libc::EPERM, -libc::ENOSYS, -libc::EINVAL].contains(&able), "{able}");
        return eprintln!("this program has no write protection by userfaultfd: a running guest is not tried");
    }
    for place in [
        FaultPoint::Engine,
        FaultPoint::Section,
        FaultPoint::Device,
        FaultPoint::Cleanup,
        FaultPoint::Call,
        FaultPoint::WriteFault,
    ] {
        everywhere(place, |what, arm| {
            let run = || {
                let machine = Machine::new(true, false);
                arm(&machine);
                let ret = snapshot_running(&machine);
                assert!(machine.runs(), "{what}: the guest runs");
                let sprung = check(&machine, what, ret);
                assert!(!sprung || ret < 0 || what.starts_with("Cleanup"), "{what}: {ret}");
                sprung
            };
            // The guest may happen to write to no page before it is saved.
            let tries = if what.ends_with("WriteFault 0") { 100 } else { 1 };
            let sprung = (0..tries).any(|_| run());
            // How many faults there are after the first one is up to chance.
            sprung && !what.ends_with("WriteFault 1")
        });
    }
}

/// Which side has the trap.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Source,
    Destination,
}

/// How it goes.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Precopy,
    /// The source has no thread of its own.
    Steps,
    /// Cancelled when the guest stands still.
    Cancel,
    Postcopy,
}

/// A migration with a trap at one end; whether it was sprung.
fn migrate(what: &str, at: At, way: Way, arm: &dyn Fn(&Machine)) -> bool {
    let (source, destination) = (Machine::new(true, true), Machine::new(false, true));
    let uri = uri("unix", &path("migration"));
    let postcopy = way == Way::Postcopy;
    let params = SaveVMParams {
        size: size_of::<SaveVMParams>(),
        connect_timeout_ms: 500,
        switchover_timeout_ms: 3000,
        recover_timeout_ms: 100,
        postcopy,
        max_bandwidth: if postcopy { 200_000 } else { 0 },
        max_postcopy_bandwidth: if postcopy { 300_000 } else { 0 },
        no_thread: way == Way::Steps,
        pause_before_switchover: way == Way::Cancel,
        // SAFETY: NULL and 0 are values of every member.
        ..unsafe { zeroed() }
    };
    // SAFETY: as above.
    let mut info = SaveVMInfo { size: size_of::<SaveVMInfo>(), ..unsafe { zeroed() } };
    let trapped = if at == At::Source { &source } else { &destination };
    arm(trapped);
    // SAFETY: the contexts are alive; handles are freed once; NULL is allowed.
    let (sent, came, owner) = unsafe {
        let incoming = savevm_incoming(destination.vm, uri.as_ptr(), &raw const params, ptr::null_mut());
        let mut err = ptr::null_mut();
        let outgoing = savevm_migrate(source.vm, uri.as_ptr(), &raw const params, &raw mut err);
        assert_eq!(outgoing.is_null(), !err.is_null(), "{what}: an error is told");
        error_free(err);
        if postcopy {
            savevm_migration_start_postcopy(outgoing);
        }
        let guest = touch(&destination);
        while way == Way::Steps && savevm_migration_step(outgoing) > 0 {}
        if way == Way::Cancel {
            while source.runs() && !trapped.is_poisoned() {
                thread::yield_now();
            }
            savevm_migration_cancel(outgoing);
        }
        // A wait that was ended by the trap begins once more.
        savevm_migration_wait(outgoing, ptr::null_mut());
        let sent = savevm_migration_wait(outgoing, ptr::null_mut());
        savevm_migration_query(outgoing, &raw mut info);
        let owner = if outgoing.is_null() { SAVEVM_OWNER_HERE } else { info.owner };
        savevm_migration_free(outgoing);
        if outgoing.is_null() {
            savevm_migration_cancel(incoming);
        }
        savevm_migration_wait(incoming, ptr::null_mut());
        let came = savevm_migration_wait(incoming, ptr::null_mut());
        savevm_migration_free(incoming);
        guest();
        (sent, came, owner)
    };
    let count = u32::from(source.runs()) + u32::from(destination.runs());
    let state = format!("{what}: sent {sent}, came {came}, owner {owner:?}, {} {}", source.runs(), destination.runs());
    assert!(count < 2, "{state}: both run");
    assert_eq!(owner == SAVEVM_OWNER_HERE && sent < 0, source.runs(), "{state}");
    assert!(count == 1 || owner != SAVEVM_OWNER_HERE, "{state}: nobody runs");
    let other = if at == At::Source { &destination } else { &source };
    other.check_order(what);
    assert!(!other.is_poisoned(), "{state}");
    let cancelled = way == Way::Cancel && sent == -libc::ECANCELED && came < 0;
    let ret = if at == At::Source { sent } else { came };
    let sprung = check(trapped, what, if cancelled { 0 } else { ret });
    assert!(sprung || (cancelled || (sent, came) == (0, 0)) && count == 1, "{state}");
    sprung
}

/// A guest that touches all of its memory once it runs.
fn touch(machine: &Machine) -> impl FnOnce() + use<> {
    let (memory, host) = (machine.memory.memory(), ptr::from_ref(&*machine.host) as usize);
    let over = std::sync::Arc::new(AtomicBool::new(false));
    let stop = std::sync::Arc::clone(&over);
    let thread = thread::spawn(move || {
        // SAFETY: the machine is there until this thread has ended.
        let host = unsafe { &*(host as *const machine::Host) };
        while !over.load(SeqCst) && !host.runs.load(SeqCst) {
            thread::yield_now();
        }
        let mut byte = [0];
        (0..PAGES).rev().for_each(|page| memory.read(page * PAGE, &mut byte));
    });
    move || {
        stop.store(true, SeqCst);
        thread.join().unwrap();
    }
}

#[test]
fn a_migration_whose_source_panics_leaves_one_guest() {
    for place in [
        FaultPoint::Engine,
        FaultPoint::Driver,
        FaultPoint::Section,
        FaultPoint::Device,
        FaultPoint::Cleanup,
        FaultPoint::Call,
        FaultPoint::Register,
        FaultPoint::ReturnPath,
    ] {
        everywhere(place, |what, arm| migrate(what, At::Source, Way::Precopy, arm));
    }
}

#[test]
fn a_migration_whose_destination_panics_leaves_one_guest() {
    for place in [FaultPoint::Engine, FaultPoint::Driver, FaultPoint::Section, FaultPoint::Cleanup, FaultPoint::Call] {
        everywhere(place, |what, arm| migrate(what, At::Destination, Way::Precopy, arm));
    }
}

#[test]
fn a_migration_that_the_host_steps_and_that_panics_leaves_one_guest() {
    for place in [
        FaultPoint::Engine,
        FaultPoint::Driver,
        FaultPoint::Section,
        FaultPoint::Device,
        FaultPoint::Cleanup,
        FaultPoint::ReturnPath,
    ] {
        everywhere(place, |what, arm| migrate(what, At::Source, Way::Steps, arm));
    }
}

#[test]
fn a_cancelled_migration_that_panics_leaves_the_guest_running() {
    for place in [FaultPoint::Engine, FaultPoint::Driver, FaultPoint::Cleanup, FaultPoint::ReturnPath] {
        everywhere(place, |what, arm| migrate(what, At::Source, Way::Cancel, arm));
    }
    for place in [FaultPoint::Engine, FaultPoint::Driver, FaultPoint::Section, FaultPoint::Cleanup] {
        everywhere(place, |what, arm| migrate(what, At::Destination, Way::Cancel, arm));
    }
}

/// Whether userfaultfd is there for this program.
fn has_postcopy() -> bool {
    let machine = Machine::new(false, true);
    // SAFETY: the RAM is alive.
    let able = unsafe { savevm_ram_check_postcopy(machine.ram, ptr::null_mut()) == 0 };
    if !able {
        eprintln!("this program may not use userfaultfd: postcopy is not tried");
    }
    able
}

#[test]
fn a_postcopy_whose_source_panics_leaves_one_guest() {
    for place in
        [FaultPoint::Engine, FaultPoint::Driver, FaultPoint::Section, FaultPoint::Device, FaultPoint::ReturnPath]
    {
        if has_postcopy() {
            everywhere(place, |what, arm| migrate(what, At::Source, Way::Postcopy, arm));
        }
    }
}

#[test]
fn a_postcopy_whose_destination_panics_leaves_one_guest() {
    for place in [
        FaultPoint::Engine,
        FaultPoint::Driver,
        FaultPoint::Section,
        FaultPoint::Package,
        FaultPoint::PageFault,
        FaultPoint::Cleanup,
    ] {
        if has_postcopy() {
            everywhere(place, |what, arm| migrate(what, At::Destination, Way::Postcopy, arm));
        }
    }
}

#[test]
fn a_file_that_panics_has_an_error_from_then_on() {
    let machine = Machine::new(false, true);
    let sprung = |set: &dyn Fn(*mut QEMUFile), f| {
        machine.inner().faults.set(FaultPoint::Call, 0);
        set(f);
        assert!(!machine.inner().faults.clear());
        // SAFETY: the file is open, and closed here.
        unsafe {
            assert_eq!(qemu_file_get_error(f), -libc::EIO);
            qemu_fclose(f);
        }
    };
    // SAFETY: the context is alive; the files are open.
    unsafe {
        let before = savevm_set_current(machine.vm);
        let mut bytes = [1u8; 8];
        let (from, to) = (bytes.as_ptr(), bytes.as_mut_ptr());
        let reader = || savevm_file_from_buffer(from.cast(), 2);
        sprung(&|f| qemu_put_buffer(f, from, 1), savevm_file_to_buffer());
        let flush = |f| {
            qemu_fflush(f);
        };
        sprung(&flush, savevm_file_to_buffer());
        sprung(&|f| (0..9000).for_each(|_| qemu_put_be32(f, 1)), savevm_file_to_buffer());
        sprung(&|f| assert_eq!(qemu_get_buffer(f, to, 2), 0), reader());
        sprung(&|f| assert_eq!(qemu_get_be32(f), 0), reader());
        let f = reader();
        assert_eq!((qemu_load_device_state(f), qemu_file_get_error(f)), (-libc::EINVAL, -libc::EIO));
        qemu_fclose(f);
        savevm_set_current(before);
    }
    machine.check_refuses("a file");
}

#[test]
fn the_context_that_a_call_was_about_is_given_up_and_no_other() {
    let (mine, other) = (Machine::new(true, true), Machine::new(true, true));
    other.inner().faults.set(FaultPoint::Engine, 0);
    let mut err = ptr::null_mut();
    // SAFETY: the contexts are alive; the error is ours.
    unsafe {
        let before = savevm_set_current(mine.vm);
        let path = path("blame");
        assert_eq!(savevm_snapshot_save(other.vm, uri("file", &path).as_ptr(), ptr::null(), &raw mut err), -libc::EIO);
        let _ = std::fs::remove_file(path);
        savevm_set_current(before);
        assert!(CStr::from_ptr(error_get_pretty(err)).to_string_lossy().contains("provoked in Engine"));
        error_free(err);
    }
    assert!(!mine.is_poisoned() && other.runs());
    other.check_refuses("the other");
}
