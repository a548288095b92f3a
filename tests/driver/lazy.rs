// SPDX-License-Identifier: LGPL-2.1-or-later
//! Lazy restores: memory is read from the snapshot while the guest runs.

use super::mapped::{Machine, PAGE, mapped, scratch, uri};
use savevm::error::Error;
use savevm::migration::{Owner, SnapshotOptions, end_restore, snapshot_load, snapshot_save};
use savevm::savevm::Vm;
use savevm::savevm::host::Host;
use savevm::vmstate::VmStateHost;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub fn lazy() -> SnapshotOptions {
    SnapshotOptions { lazy: true, threads: 2, ..SnapshotOptions::default() }
}

pub fn load(machine: &Machine, path: &Path, options: &SnapshotOptions) -> Result<(), Error> {
    snapshot_load(&machine.vm, &uri(path), options)
}

/// Whether lazy restores are possible here. Says why not.
pub fn possible() -> bool {
    let machine = Machine::new(&[2]);
    match machine.vm.slot.ram().unwrap().check_lazy() {
        Ok(()) => true,
        Err(error) => {
            eprintln!("SKIPPED: {error}");
            false
        }
    }
}

/// A host whose guest runs until it is stopped.
#[derive(Default)]
pub struct Guest {
    runs: AtomicBool,
    pub stops: AtomicU32,
    ends: Mutex<Vec<Option<String>>>,
}

impl Host for Guest {
    fn vm_stop(&self) -> i32 {
        self.runs.store(false, SeqCst);
        self.stops.fetch_add(1, SeqCst);
        0
    }
    fn vm_start(&self) -> i32 {
        self.runs.store(true, SeqCst);
        0
    }
    fn vm_running(&self) -> bool {
        self.runs.load(SeqCst)
    }
    fn restore_ended(&self, error: Option<&Error>) {
        self.ends.lock().unwrap().push(error.map(Error::to_string));
    }
}

impl VmStateHost for Guest {}

pub fn with_guest(machine: &Machine) -> Arc<Guest> {
    let guest = Arc::new(Guest::default());
    guest.runs.store(true, SeqCst);
    machine.vm.set_host(guest.clone());
    guest
}

#[test]
fn memory_is_the_same_page_by_page_from_both_formats() {
    if !possible() {
        return;
    }
    let sizes = [3000, 1, 700];
    let (source, target) = (Machine::new(&sizes), Machine::new(&sizes));
    let path = scratch("lazy");
    for (seed, share) in [(1, 0), (2, 5), (3, 50), (4, 100)] {
        for save in [mapped(), SnapshotOptions::default()] {
            source.randomize(seed, share);
            target.fill(0xee);
            snapshot_save(&source.vm, &uri(&path), &save).unwrap();
            load(&target, &path, &lazy()).unwrap();
            // The comparison touches pages that are not there yet.
            assert!(source.contents() == target.contents(), "{share} percent, mapped: {}", save.mapped);
            target.vm.slot.restore.wait().unwrap();
            assert!(source.contents() == target.contents());
            let info = target.vm.slot.restore.info();
            assert!(!info.active && info.loaded == info.total, "{info:?}");
            // The memory is the machine's own again.
            target.randomize(seed + 10, 30);
            snapshot_save(&target.vm, &uri(&path), &mapped()).unwrap();
        }
    }
    fs::remove_file(path).unwrap();
}

#[test]
fn last_copy_of_a_page_wins() {
    if !possible() {
        return;
    }
    let target = Machine::new(&[4]);
    let word = |offset: usize, flags: u64| (offset as u64 | flags).to_be_bytes();
    let mut stream = b"QEVM\0\0\0\x03\x07\0\0\0\x04none\x01\0\0\0\0\x03ram\0\0\0\0\0\0\0\x04".to_vec();
    stream.extend(word(4 * PAGE, 4));
    stream.extend(b"\x01a");
    stream.extend(((4 * PAGE) as u64).to_be_bytes());
    stream.extend(word(0, 16));
    let footer = |stream: &mut Vec<u8>| stream.extend([0x7e, 0, 0, 0, 0]);
    footer(&mut stream);
    // Page 0: zero, then content. Page 1: content, then zero. Page 2: content twice. Page 3: filled with 7.
    let mut named = false;
    for (page, content) in [(0, None), (1, Some(1)), (2, Some(2)), (0, Some(3)), (1, None), (2, Some(4)), (3, Some(0))]
    {
        stream.extend([2, 0, 0, 0, 0]);
        let (kind, flag) = if content.is_none() || page == 3 { (2, 2) } else { (8, 8) };
        stream.extend(word(page * PAGE, flag | if named { 32 } else { 0 }));
        if !std::mem::replace(&mut named, true) {
            stream.extend(b"\x01a");
        }
        match (kind, content) {
            (8, Some(value)) => stream.extend(vec![value; PAGE]),
            _ => stream.push(if page == 3 { 7 } else { 0 }),
        }
        stream.extend(word(0, 16));
        footer(&mut stream);
    }
    stream.extend([3, 0, 0, 0, 0]);
    stream.extend(word(0, 16));
    footer(&mut stream);
    stream.push(0);
    let path = scratch("copies");
    fs::write(&path, &stream).unwrap();
    let index = scratch("index");
    // The second load uses the index that the first one writes.
    for _ in 0..2 {
        load(&target, &path, &SnapshotOptions { index: Some(index.clone()), ..lazy() }).unwrap();
        let contents = &target.contents()[0];
        for (page, value) in [3, 0, 4, 7].iter().enumerate() {
            assert!(contents[page * PAGE..(page + 1) * PAGE].iter().all(|byte| byte == value), "page {page}");
        }
        target.vm.slot.restore.wait().unwrap();
    }
    [path, index].iter().for_each(|path| fs::remove_file(path).unwrap());
}

/// Tries until a restore that records, which reads only touched pages for a second, lasted as long as the test needed it: a
/// busy machine may need more than the second.
pub fn until_in_time(attempt: impl FnMut() -> bool) {
    let mut attempt = attempt;
    assert!((0..30).any(|_| attempt()), "the restore was always over too early");
}

#[test]
fn context_is_busy_until_the_end_and_another_load_replaces_the_restore() {
    if !possible() {
        return;
    }
    let (source, target) = (Machine::new(&[4000]), Machine::new(&[4000]));
    let guest = with_guest(&target);
    let (one, two, recorded) = (scratch("one"), scratch("two"), scratch("set"));
    source.randomize(1, 90);
    snapshot_save(&source.vm, &uri(&one), &mapped()).unwrap();
    source.randomize(2, 90);
    snapshot_save(&source.vm, &uri(&two), &mapped()).unwrap();
    until_in_time(|| {
        guest.ends.lock().unwrap().clear();
        load(&target, &one, &SnapshotOptions { working_set: Some(recorded.clone()), ..lazy() }).unwrap();
        let save = || snapshot_save(&target.vm, &uri(&scratch("none")), &mapped());
        let (busy, removed, closed) = (save(), target.ram.remove_block(b"a"), target.ram.close());
        let (nowhere, saved) = (load(&target, Path::new("/nowhere"), &lazy()), save());
        if !target.vm.slot.restore.info().active {
            let _ = fs::remove_file(&recorded);
            return false;
        }
        let busy = busy.unwrap_err();
        assert!(busy.errno() == libc::EBUSY && busy.message().contains("savevm_restore_wait"), "{busy}");
        assert_eq!(removed.unwrap_err().errno(), libc::EBUSY);
        assert_eq!(closed.unwrap_err().errno(), libc::EBUSY);
        // A load that was refused leaves the restore as it is.
        assert_eq!(nowhere.unwrap_err().errno(), libc::ENOENT);
        assert_eq!(saved.unwrap_err().errno(), libc::EBUSY);
        assert!(guest.vm_running());
        load(&target, &two, &lazy()).unwrap();
        assert!(target.contents() == source.contents() && guest.vm_running());
        target.vm.slot.restore.wait().unwrap();
        let ends = guest.ends.lock().unwrap().clone();
        assert!(ends.len() == 2 && ends[1].is_none(), "{ends:?}");
        let Some(first) = &ends[0] else {
            let _ = fs::remove_file(&recorded);
            return false;
        };
        assert!(first.contains("was ended"), "{ends:?}");
        true
    });
    assert!(!recorded.exists());
    snapshot_save(&target.vm, &uri(&two), &mapped()).unwrap();
    [one, two].iter().for_each(|path| fs::remove_file(path).unwrap());
}

#[test]
fn working_set_is_recorded_and_read_first() {
    if !possible() {
        return;
    }
    let (source, target) = (Machine::new(&[4000]), Machine::new(&[4000]));
    let (path, recorded) = (scratch("recorded"), scratch("set"));
    source.randomize(1, 100);
    snapshot_save(&source.vm, &uri(&path), &mapped()).unwrap();
    let options = SnapshotOptions { working_set: Some(recorded.clone()), ..lazy() };
    let memory = target.memories[0].memory();
    let order = [3000, 17, 2500];
    let expected: String = order.iter().map(|page| format!("{:x} a\n", page * PAGE)).collect();
    let expected = format!("savevm-working-set 1\n{expected}");
    until_in_time(|| {
        let _ = fs::remove_file(&recorded);
        load(&target, &path, &options).unwrap();
        order.iter().for_each(|page| memory.read(page * PAGE + 5, &mut [0]));
        target.vm.slot.restore.wait().unwrap();
        // Pages that were read before they were touched are not recorded.
        let faults = target.vm.slot.restore.info().faults;
        assert!(faults == 3 || fs::read_to_string(&recorded).unwrap() != expected);
        faults == 3
    });
    let text = fs::read_to_string(&recorded).unwrap();
    assert_eq!(text, expected);
    let before = target.contents();
    load(&target, &path, &options).unwrap();
    assert!(target.contents() == before);
    target.vm.slot.restore.wait().unwrap();
    assert_eq!(fs::read_to_string(&recorded).unwrap(), text);
    // A file that is something else is only a hint that is missing.
    fs::write(&recorded, "nonsense").unwrap();
    load(&target, &path, &options).unwrap();
    assert!(target.contents() == before);
    end_restore(&target.vm);
    [path, recorded].iter().for_each(|path| fs::remove_file(path).unwrap());
}

/// A snapshot whose second half is missing by the time it is read.
fn shrinking(save: &SnapshotOptions) -> (Machine, PathBuf, Vec<u8>) {
    let source = Machine::new(&[4000]);
    let path = scratch("shrinks");
    source.randomize(1, 100);
    snapshot_save(&source.vm, &uri(&path), save).unwrap();
    let content = source.contents().remove(0);
    (source, path, content)
}

/// Restores a file that loses its second half meanwhile. Returns whether the guest read pages before that.
fn guest_stops_before_a_lost_page(save: &SnapshotOptions) -> bool {
    let (_source, path, content) = shrinking(save);
    let target = Machine::new(&[4000]);
    let guest = with_guest(&target);
    let set = scratch("set");
    load(&target, &path, &SnapshotOptions { working_set: Some(set.clone()), ..lazy() }).unwrap();
    assert_eq!(target.vm.ownership.owner(), Owner::Here);
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(8 << 20).unwrap();
    let memory = target.memories[0].memory();
    // The guest's CPU: reads page after page, as long as it may run.
    let cpu = std::thread::spawn({
        let guest = guest.clone();
        move || {
            let mut seen = 0;
            while guest.vm_running() && seen < 4000 {
                let mut page = vec![0; PAGE];
                memory.read(seen * PAGE, &mut page);
                if !guest.vm_running() {
                    break;
                }
                assert!(page == content[seen * PAGE..(seen + 1) * PAGE], "page {seen}");
                seen += 1;
            }
            seen
        }
    });
    let ended = target.vm.slot.restore.wait();
    let seen = cpu.join().unwrap();
    fs::remove_file(&path).unwrap();
    let Err(error) = ended else {
        // All pages were read before the file was cut.
        let _ = fs::remove_file(set);
        return false;
    };
    assert!(seen < 2100, "{seen}");
    for part in ["reading block 'a'", "at offset 0x", "file:", "the file ends at 0x800000"] {
        assert!(error.message().contains(part), "{error}");
    }
    assert!(!guest.vm_running() && guest.stops.load(SeqCst) == 2);
    assert_eq!(target.vm.ownership.owner(), Owner::Torn);
    assert!(target.vm.ownership.check("x").unwrap_err().message().contains("a page could not be read"));
    assert!(guest.ends.lock().unwrap()[0].as_ref().unwrap().contains("the file ends"));
    assert!(!set.exists());
    // Another load makes the machine whole.
    let (_other, good, content) = shrinking(&mapped());
    load(&target, &good, &lazy()).unwrap();
    assert!(target.contents()[0] == content && target.vm.ownership.owner() == Owner::Here);
    target.vm.slot.restore.wait().unwrap();
    fs::remove_file(good).unwrap();
    // A thread that reads ahead may have met the end of the file first.
    seen > 1000
}

#[test]
fn guest_stops_before_it_reads_a_page_that_the_file_lost() {
    if !possible() {
        return;
    }
    for save in [mapped(), SnapshotOptions::default()] {
        until_in_time(|| guest_stops_before_a_lost_page(&save));
    }
}

/// Loads the file at once and lazily. If both succeed, the memory is the same. Returns whether they did.
fn loads_equally(machine: &Machine, path: &Path) -> bool {
    let mut contents = Vec::new();
    for lazy in [false, true] {
        machine.fill(0x5a);
        let options = SnapshotOptions { lazy, threads: 1, ..SnapshotOptions::default() };
        let loaded = load(machine, path, &options).and_then(|()| machine.vm.slot.restore.wait());
        contents.extend(loaded.ok().map(|()| machine.contents()));
        end_restore(&machine.vm);
    }
    assert!(contents.len() < 2 || contents[0] == contents[1]);
    contents.len() == 2
}

#[test]
fn mutated_files_give_the_same_memory_at_once_and_lazily() {
    if !possible() {
        return;
    }
    let (source, target) = (Machine::new(&[20, 3]), Machine::new(&[20, 3]));
    let (path, mut state, mut good) = (scratch("mutated"), 99u64, 0);
    let mut random = |most: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % most
    };
    source.randomize(1, 60);
    for save in [mapped(), SnapshotOptions::default()] {
        snapshot_save(&source.vm, &uri(&path), &save).unwrap();
        let bytes = fs::read(&path).unwrap();
        // The structure is in the first bytes, around the pages of each block, and at the end.
        let places = [0..300, (1 << 20) + 20 * PAGE..(1 << 20) + 20 * PAGE + 80, bytes.len() - 120..bytes.len()];
        for _ in 0..150 {
            let mut mutated = bytes.clone();
            for _ in 0..=random(3) {
                let place = &places[random(3)];
                let at = (place.start + random(place.len())).min(bytes.len() - 1);
                mutated[at] = if random(2) == 0 { mutated[at] ^ 1 << random(8) } else { random(256) as u8 };
            }
            if random(8) == 0 {
                mutated.truncate(random(bytes.len()));
            }
            fs::write(&path, &mutated).unwrap();
            good += u32::from(loads_equally(&target, &path));
        }
    }
    assert!(good > 0);
    fs::remove_file(path).unwrap();
}

#[test]
fn impossible_restores_are_refused_while_the_guest_runs_on() {
    let (source, path) = (Machine::new(&[70]), scratch("refused"));
    source.randomize(1, 50);
    snapshot_save(&source.vm, &uri(&path), &SnapshotOptions::default()).unwrap();
    let target = Machine::new(&[70]);
    let guest = with_guest(&target);
    target.fill(5);
    let refused = |from: &str, options: &SnapshotOptions, reason: &str| {
        let error = snapshot_load(&target.vm, &from.parse().unwrap(), options).unwrap_err();
        assert!(error.message().contains(reason), "{error}");
        assert!(
            guest.vm_running() && guest.stops.load(SeqCst) == 0 && target.contents()[0].iter().all(|byte| *byte == 5)
        );
    };
    let file = format!("file:{}", path.display());
    refused(&file, &SnapshotOptions { direct: true, ..lazy() }, "leave out the option `direct`");
    let set = Some(path.clone());
    refused(&file, &SnapshotOptions { working_set: set, ..SnapshotOptions::default() }, "needs the option `lazy`");
    if possible() {
        refused(&format!("exec:cat {}", path.display()), &lazy(), "needs a regular file");
        let good = fs::read(&path).unwrap();
        fs::write(&path, &good[..good.len() - 100]).unwrap();
        refused(&file, &lazy(), "");
    }
    let error = snapshot_load(&Arc::new(Vm::default()), &uri(&path), &lazy()).unwrap_err();
    assert_eq!(error.errno(), libc::ENOTSUP);
    fs::remove_file(path).unwrap();
}

#[test]
fn load_of_devices_returns_long_before_the_memory_is_read() {
    if !possible() {
        return;
    }
    let (source, target) = (Machine::new(&[60_000]), Machine::new(&[60_000]));
    let (path, set) = (scratch("early"), scratch("set"));
    source.randomize(1, 100);
    snapshot_save(&source.vm, &uri(&path), &mapped()).unwrap();
    until_in_time(|| {
        let _ = fs::remove_file(&set);
        load(&target, &path, &SnapshotOptions { working_set: Some(set.clone()), ..lazy() }).unwrap();
        let info = target.vm.slot.restore.info();
        info.active && info.loaded < info.total / 2
    });
    let begin = Instant::now();
    while target.vm.slot.restore.info().active {
        assert!(begin.elapsed() < Duration::from_secs(120), "{:?}", target.vm.slot.restore.info());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(source.contents() == target.contents());
    [path, set].iter().for_each(|path| fs::remove_file(path).unwrap());
}
