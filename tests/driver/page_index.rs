// SPDX-License-Identifier: LGPL-2.1-or-later
//! The index beside a stream, with which a lazy restore does not look at every page record.

use super::lazy::{lazy, load, possible, with_guest};
use super::mapped::{Machine, PAGE, mapped, scratch, uri};
use savevm::error::Error;
use savevm::migration::{Owner, SnapshotOptions, end_restore, snapshot_load, snapshot_save};
use savevm::savevm::host::Host;
use savevm::wire::page_index::{FileState, PageIndex, Place, Run};
use std::fs::{self, File, FileTimes};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// A snapshot with an index, and its source.
struct Saved {
    source: Machine,
    path: PathBuf,
    index: PathBuf,
}

impl Drop for Saved {
    fn drop(&mut self) {
        let _ = (fs::remove_file(&self.path), fs::remove_file(&self.index));
    }
}

impl Saved {
    fn new(pages: &[usize], share: u64) -> Self {
        let saved = Self { source: Machine::new(pages), path: scratch("stream"), index: scratch("index") };
        saved.source.randomize(1, share);
        saved.save();
        saved
    }

    fn save(&self) {
        let options = SnapshotOptions { index: Some(self.index.clone()), ..SnapshotOptions::default() };
        snapshot_save(&self.source.vm, &uri(&self.path), &options).unwrap();
    }

    fn options(&self) -> SnapshotOptions {
        SnapshotOptions { index: Some(self.index.clone()), ..lazy() }
    }

    fn decode(&self) -> PageIndex {
        PageIndex::decode(&fs::read(&self.index).unwrap()).unwrap()
    }

    /// Loads into a machine, and waits until all memory is read.
    fn restore(&self, target: &Machine) -> Result<Vec<Vec<u8>>, Error> {
        target.fill(0x5a);
        load(target, &self.path, &self.options())?;
        let contents = target.contents();
        target.vm.slot.restore.wait()?;
        assert!(contents == target.contents());
        Ok(contents)
    }
}

#[test]
fn save_and_restore_write_the_same_index() {
    if !possible() {
        return;
    }
    for share in [0, 40, 100] {
        let saved = Saved::new(&[3000, 1, 700], share);
        let target = Machine::new(&[3000, 1, 700]);
        let by_save = fs::read(&saved.index).unwrap();
        assert!(saved.restore(&target).unwrap() == saved.source.contents());
        assert!(fs::read(&saved.index).unwrap() == by_save);
        for old in [None, Some("SVMINDX1damaged"), Some("")] {
            match old {
                Some(text) => fs::write(&saved.index, text).unwrap(),
                None => fs::remove_file(&saved.index).unwrap(),
            }
            assert!(saved.restore(&target).unwrap() == saved.source.contents(), "{share} percent, {old:?}");
            assert!(fs::read(&saved.index).unwrap() == by_save);
        }
        let index = saved.decode();
        assert_eq!((index.page_size as usize, index.base, index.blocks.len()), (PAGE, 0, 3));
        let stored: u64 = index.blocks.iter().flat_map(|block| &block.runs).map(|run| run.count).sum();
        let is_zero = |page: &[u8]| page.iter().all(|byte| *byte == 0);
        let contents = saved.source.contents().concat();
        assert_eq!(stored as usize, contents.chunks(PAGE).filter(|page| !is_zero(page)).count());
    }
}

/// A wrong name of the index must not cost the file of that name: not even the snapshot itself.
#[test]
fn file_that_is_no_index_is_not_replaced_by_one() {
    if !possible() {
        return;
    }
    let mut saved = Saved::new(&[300], 50);
    let target = Machine::new(&[300]);
    fs::write(&saved.index, "the notes of a user").unwrap();
    saved.save();
    assert!(saved.restore(&target).unwrap() == saved.source.contents());
    assert_eq!(fs::read(&saved.index).unwrap(), b"the notes of a user");
    fs::remove_file(&saved.index).unwrap();
    saved.index = saved.path.clone();
    saved.save();
    let before = fs::read(&saved.path).unwrap();
    assert!(before.starts_with(b"QEVM"));
    assert!(saved.restore(&target).unwrap() == saved.source.contents());
    assert!(fs::read(&saved.path).unwrap() == before);
}

/// The index decides what is read, and nothing else: its pages are taken from the named places, and must be there.
#[test]
fn pages_come_from_the_places_in_the_index_and_from_no_other() {
    if !possible() {
        return;
    }
    let saved = Saved::new(&[2000], 100);
    let target = Machine::new(&[2000]);
    let guest = with_guest(&target);
    let good = saved.decode();
    // Without a run, its pages are zero: the records were not read.
    let mut fewer = good.clone();
    fewer.blocks[0].runs = vec![Run { page: 7, count: 1, place: good.blocks[0].runs[0].place.ahead(7, PAGE as u64) }];
    fs::write(&saved.index, fewer.encode()).unwrap();
    let contents = saved.restore(&target).unwrap().remove(0);
    let source = saved.source.contents().remove(0);
    assert!(contents[7 * PAGE..8 * PAGE] == source[7 * PAGE..8 * PAGE]);
    assert!(contents[8 * PAGE..].iter().all(|byte| *byte == 0));
    // A page whose record is that of another page stops the guest.
    let mut other = good.clone();
    let place = good.blocks[0].runs[0].place;
    other.blocks[0].runs = vec![Run { page: 3, count: 4, place: place.ahead(4, PAGE as u64) }];
    fs::write(&saved.index, other.encode()).unwrap();
    let error = saved.restore(&target).unwrap_err();
    assert!(error.errno() == libc::ESTALE && error.message().contains("no records of the 4 pages"), "{error}");
    assert_eq!((target.vm.ownership.owner(), guest.vm_running()), (Owner::Torn, false));
    // Another load makes the machine whole.
    fs::write(&saved.index, good.encode()).unwrap();
    assert!(saved.restore(&target).unwrap() == saved.source.contents() && target.vm.ownership.owner() == Owner::Here);
}

#[test]
fn index_of_a_snapshot_that_was_changed_is_not_used() {
    if !possible() {
        return;
    }
    let saved = Saved::new(&[300], 100);
    let target = Machine::new(&[300]);
    let old = saved.decode();
    // The last page gets another content. Length, inode and time of the last write are as before.
    let file = File::options().read(true).write(true).open(&saved.path).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    let Ok(offset) = old.blocks[0].runs[0].place.ahead(299, PAGE as u64).get() else { panic!("it has content") };
    let begin = Instant::now();
    loop {
        file.write_all_at(&[0x77; PAGE], offset).unwrap();
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
        let now = FileState::from(&file.metadata().unwrap());
        if now.changed != old.file.changed {
            assert_eq!(FileState { changed: old.file.changed, ..now }, old.file);
            break;
        }
        // The file system's clock is slow.
        assert!(begin.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(5));
    }
    let contents = saved.restore(&target).unwrap().remove(0);
    assert!(contents[299 * PAGE..].iter().all(|byte| *byte == 0x77));
    assert!(saved.decode().file != old.file && saved.decode().blocks == old.blocks);
    // Another snapshot under the same name.
    saved.source.randomize(9, 50);
    snapshot_save(&saved.source.vm, &uri(&saved.path), &SnapshotOptions::default()).unwrap();
    assert!(saved.restore(&target).unwrap() == saved.source.contents());
    assert!(saved.restore(&target).unwrap() == saved.source.contents());
    // A file with fixed places needs no index.
    snapshot_save(&saved.source.vm, &uri(&saved.path), &mapped()).unwrap();
    fs::remove_file(&saved.index).unwrap();
    assert!(saved.restore(&target).unwrap() == saved.source.contents() && !saved.index.exists());
}

/// Whoever can write the index can choose the memory, but not break the process.
#[test]
fn any_index_with_a_good_hash_is_refused_or_loads() {
    if !possible() {
        return;
    }
    let saved = Saved::new(&[60, 3], 60);
    let target = Machine::new(&[60, 3]);
    let good = fs::read(&saved.index).unwrap();
    let (mut state, mut same, mut failed) = (5u64, 0, 0);
    let mut random = |most: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % most
    };
    for _ in 0..150 {
        let mut index = PageIndex::decode(&good).unwrap();
        for _ in 0..=random(2) {
            let block = random(2);
            let run = random(index.blocks[block].runs.len().max(1));
            let runs = &mut index.blocks[block].runs;
            match random(6) {
                0 => drop(index.records.pop()),
                1 => index.base = random(9) as u64,
                2 if run < runs.len() => drop(runs.remove(run)),
                3 if run < runs.len() => runs[run].place = Place::at(random(300_000) as u64),
                4 if run < runs.len() => runs[run].page += random(3) as u64,
                _ if run < runs.len() => runs[run].count += random(2) as u64,
                _ => index.blocks.swap(0, 1),
            }
        }
        fs::write(&saved.index, index.encode()).unwrap();
        match saved.restore(&target) {
            Ok(contents) => same += u32::from(contents == saved.source.contents()),
            Err(_) => failed += 1,
        }
        end_restore(&target.vm);
    }
    // Most are refused, and the restore reads all records.
    assert!(same > 75 && failed > 0, "{same} {failed}");
}

/// Restores while the records of the second half are overwritten. Returns how the restore ended.
fn restore_from_changing_file(saved: &Saved, with_index: bool) -> Result<(), Error> {
    saved.save();
    let target = Machine::new(&[3000]);
    let guest = with_guest(&target);
    let set = scratch("set");
    // For a second, only touched pages are read.
    let index = with_index.then(|| saved.index.clone());
    let options = SnapshotOptions { index, working_set: Some(set.clone()), ..lazy() };
    load(&target, &saved.path, &options).unwrap();
    let file = File::options().write(true).open(&saved.path).unwrap();
    file.write_all_at(&vec![0xa5; 2000 * PAGE], 1000 * PAGE as u64).unwrap();
    let mut page = [0; PAGE];
    target.memories[0].memory().read(1500 * PAGE, &mut page);
    assert!(page != [0xa5; PAGE]);
    let ended = target.vm.slot.restore.wait();
    let _ = fs::remove_file(set);
    if ended.is_err() {
        assert_eq!((target.vm.ownership.owner(), guest.stops.load(SeqCst)), (Owner::Torn, 2));
        assert!(!guest.vm_running());
    }
    ended
}

#[test]
fn records_that_changed_after_the_check_stop_the_guest() {
    if !possible() {
        return;
    }
    let saved = Saved::new(&[3000], 100);
    for with_index in [false, true] {
        // On a busy machine all pages may be read before the file is changed.
        let error = (0..30).find_map(|_| restore_from_changing_file(&saved, with_index).err()).unwrap();
        assert!(error.errno() == libc::ESTALE && error.message().contains("changed after it was checked"), "{error}");
    }
}

#[test]
fn index_is_refused_where_it_has_no_use() {
    let saved = Saved::new(&[5], 100);
    let refused = |error: Error, reason: &str| assert!(error.message().contains(reason), "{error}");
    let index = || Some(saved.index.clone());
    let eager = SnapshotOptions { index: index(), ..SnapshotOptions::default() };
    refused(load(&saved.source, &saved.path, &eager).unwrap_err(), "needs the option `lazy`");
    let save = |to: &str, options: &SnapshotOptions| {
        snapshot_save(&saved.source.vm, &to.parse().unwrap(), options).unwrap_err()
    };
    let to = format!("file:{}", saved.path.display());
    refused(save(&to, &SnapshotOptions { index: index(), ..mapped() }), "no fixed places");
    refused(save("exec:cat >/dev/null", &eager), "needs a regular file");
    // The snapshot is good although its index can't be written.
    let nowhere = SnapshotOptions { index: Some(Path::new("/nowhere/index").into()), ..SnapshotOptions::default() };
    snapshot_save(&saved.source.vm, &uri(&saved.path), &nowhere).unwrap();
    snapshot_load(&saved.source.vm, &uri(&saved.path), &SnapshotOptions::default()).unwrap();
}

#[test]
fn snapshot_in_a_named_pipe_ends_without_an_index() {
    let saved = Saved::new(&[5], 100);
    let pipe = scratch("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fs::remove_file(&saved.index).unwrap();
    let options = SnapshotOptions { index: Some(saved.index.clone()), ..SnapshotOptions::default() };
    let (vm, to) = (saved.source.vm.clone(), uri(&pipe));
    let (ended, result) = mpsc::channel();
    let save = thread::spawn(move || ended.send(snapshot_save(&vm, &to, &options)));
    assert!(fs::read(&pipe).unwrap() == fs::read(&saved.path).unwrap());
    let result = result.recv_timeout(Duration::from_secs(60)).expect("the save waits for the pipe");
    save.join().unwrap().unwrap();
    fs::remove_file(&pipe).unwrap();
    result.unwrap();
    assert!(!saved.index.exists());
}
