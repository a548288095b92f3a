// SPDX-License-Identifier: LGPL-2.1-or-later
//! Snapshots in which each page has a fixed place in the file (mapped-ram).

use super::precopy::{LONG, quick};
use savevm::channel::Uri;
use savevm::error::Error;
use savevm::inspect::{Options as ReadOptions, read_slice};
use savevm::migration::{Endpoint, Incoming, Migration, SnapshotOptions, snapshot_load, snapshot_save};
use savevm::ram::block::BlockInfo;
use savevm::ram::tracker::Log;
use savevm::ram::{Options, Ram};
use savevm::savevm::Vm;
use savevm::savevm::host::{Host, Level};
use savevm::sys::OwnMemory;
use savevm::vmstate::VmStateHost;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::{env, fs, process};

pub const PAGE: usize = 4096;

/// A machine that is only memory.
pub struct Machine {
    pub vm: Arc<Vm>,
    pub ram: Arc<Ram>,
    pub memories: Vec<OwnMemory>,
}

impl Machine {
    /// Creates blocks of so many pages, named "a", "b", "c".
    pub fn new(pages: &[usize]) -> Self {
        let vm = Arc::new(Vm::default());
        let ram = Ram::new(&vm, Options { log: Log::Marks, ..Options::default() }, None).unwrap();
        let memories: Vec<_> = pages.iter().map(|pages| OwnMemory::new(pages * PAGE).unwrap()).collect();
        for (name, memory) in [b"a", b"b", b"c"].iter().zip(&memories) {
            let (name, memory) = (name.to_vec(), memory.memory());
            ram.add_block(BlockInfo { name, memory, page_size: 0, guest_address: 0, shared: false, opaque: 0 })
                .unwrap();
        }
        Self { vm, ram, memories }
    }

    pub fn contents(&self) -> Vec<Vec<u8>> {
        let content = |memory: &OwnMemory| {
            let mut bytes = vec![0; memory.memory().len()];
            memory.memory().read(0, &mut bytes);
            bytes
        };
        self.memories.iter().map(content).collect()
    }

    /// Writes random pages to about `share` percent of the memory, and clears the rest.
    pub fn randomize(&self, seed: u64, share: u64) {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for memory in &self.memories {
            let memory = memory.memory();
            for offset in (0..memory.len()).step_by(PAGE) {
                if next() % 100 < share {
                    let word = next().to_ne_bytes();
                    memory.write(offset, &word.repeat(PAGE / 8));
                } else {
                    memory.fill(offset, PAGE, 0);
                }
            }
        }
    }

    pub fn fill(&self, value: u8) {
        self.memories.iter().for_each(|memory| memory.memory().fill(0, memory.memory().len(), value));
    }
}

pub fn scratch(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    env::temp_dir().join(format!("savevm-{name}-{}-{}", process::id(), COUNT.fetch_add(1, Relaxed)))
}

pub fn uri(path: &Path) -> Uri {
    Uri::File { path: path.into(), offset: 0 }
}

pub fn mapped() -> SnapshotOptions {
    SnapshotOptions { mapped: true, threads: 3, ..SnapshotOptions::default() }
}

fn load(machine: &Machine, path: &Path) -> Result<(), Error> {
    snapshot_load(&machine.vm, &uri(path), &SnapshotOptions { threads: 3, ..SnapshotOptions::default() })
}

#[test]
fn memory_comes_back_page_by_page_from_a_sparse_file() {
    let (source, target) = (Machine::new(&[3000, 1, 700]), Machine::new(&[3000, 1, 700]));
    let path = scratch("mapped");
    for (seed, share) in [(1, 0), (2, 5), (3, 50), (4, 100)] {
        source.randomize(seed, share);
        target.fill(0xee);
        snapshot_save(&source.vm, &uri(&path), &mapped()).unwrap();
        load(&target, &path).unwrap();
        assert!(source.contents() == target.contents(), "{share} percent");
        let counters = &source.ram.counters;
        assert_eq!(counters.normal.load(Relaxed) + counters.zero.load(Relaxed), 3701);
        let (data, used) = (fs::metadata(&path).unwrap(), counters.normal.load(Relaxed) * PAGE as u64);
        assert!(data.blocks() * 512 < used + (64 << 10) && data.len() > 3701 * PAGE as u64, "{}", data.blocks());
        let read = read_slice(&fs::read(&path).unwrap(), ReadOptions::default());
        assert!(read.damage.is_none() && read.complete, "{:?}", read.damage.map(|damage| damage.to_string()));
        assert!(read.ram.blocks.iter().all(|block| block.mapped.is_some()));
    }
    fs::remove_file(path).unwrap();
}

#[test]
fn incoming_migration_reads_the_file_as_well() {
    let (source, target) = (Machine::new(&[300, 7]), Machine::new(&[300, 7]));
    let path = scratch("incoming");
    source.randomize(4, 60);
    target.fill(0xee);
    snapshot_save(&source.vm, &uri(&path), &mapped()).unwrap();
    let incoming = Incoming::start(&target.vm, Endpoint::Uri(uri(&path)), quick()).unwrap();
    incoming.wait_within(LONG).unwrap().unwrap();
    assert!(source.contents() == target.contents());
    fs::remove_file(path).unwrap();
}

#[test]
fn direct_access_gives_the_same_file() {
    let (source, target) = (Machine::new(&[700]), Machine::new(&[700]));
    let (path, direct) = (scratch("buffered"), scratch("direct"));
    source.randomize(7, 60);
    snapshot_save(&source.vm, &uri(&path), &mapped()).unwrap();
    let options = SnapshotOptions { direct: true, ..mapped() };
    match snapshot_save(&source.vm, &uri(&direct), &options) {
        Ok(()) => {
            assert!(fs::read(&path).unwrap() == fs::read(&direct).unwrap());
            snapshot_load(&target.vm, &uri(&direct), &options).unwrap();
            assert!(source.contents() == target.contents());
            fs::remove_file(direct).unwrap();
        }
        Err(error) => {
            assert!(error.message().contains("leave out the option `direct`"), "{error}");
            eprintln!("SKIPPED: {error}");
        }
    }
    let error = snapshot_save(&source.vm, &uri(&path), &SnapshotOptions { mapped: false, ..options }).unwrap_err();
    assert!(error.message().contains("SAVEVM_SNAPSHOT_MAPPED"), "{error}");
    fs::remove_file(path).unwrap();
}

#[test]
fn snapshot_behind_an_offset_keeps_what_precedes_it() {
    let (source, target) = (Machine::new(&[70, 5]), Machine::new(&[70, 5]));
    let path = scratch("offset");
    source.randomize(9, 40);
    for offset in [0x1000, 4321] {
        fs::write(&path, vec![b'x'; 5000]).unwrap();
        let at = Uri::File { path: path.clone(), offset };
        snapshot_save(&source.vm, &at, &mapped()).unwrap();
        assert!(fs::read(&path).unwrap()[..offset as usize].iter().all(|byte| *byte == b'x'));
        target.fill(1);
        snapshot_load(&target.vm, &at, &SnapshotOptions::default()).unwrap();
        assert!(source.contents() == target.contents());
    }
    fs::remove_file(path).unwrap();
}

#[test]
fn file_without_positions_is_refused_before_the_guest_is_changed() {
    let source = Machine::new(&[70]);
    source.randomize(3, 50);
    let error = snapshot_save(&source.vm, &Uri::Exec("cat > /dev/null".into()), &mapped()).unwrap_err();
    assert!(error.message().contains("not a regular file or disk"), "{error}");
    let path = scratch("piped");
    snapshot_save(&source.vm, &uri(&path), &mapped()).unwrap();
    let command = Uri::Exec(format!("cat {}", path.display()).into());
    let error = snapshot_load(&Machine::new(&[70]).vm, &command, &SnapshotOptions::default()).unwrap_err();
    assert!(error.message().contains("mapped-ram") && error.message().contains("not a regular file"), "{error}");
    let no_ram = Arc::new(Vm::default());
    let error = snapshot_save(&no_ram, &uri(&path), &mapped()).unwrap_err();
    assert_eq!(error.errno(), libc::ENOTSUP);
    fs::remove_file(path).unwrap();
}

/// Damages a copy of the file by `damage`, and loads it. Returns the error.
fn load_damaged(saved: &[u8], damage: impl FnOnce(&mut Vec<u8>)) -> Error {
    let (path, target) = (scratch("damaged"), Machine::new(&[70, 5]));
    target.fill(0x5a);
    let mut bytes = saved.to_vec();
    damage(&mut bytes);
    fs::write(&path, bytes).unwrap();
    let error = load(&target, &path).unwrap_err();
    assert!(target.contents().iter().flatten().all(|byte| *byte == 0x5a), "memory was changed: {error}");
    fs::remove_file(path).unwrap();
    error
}

#[test]
fn damaged_places_are_refused_before_memory_is_changed() {
    let source = Machine::new(&[70, 5]);
    source.randomize(5, 50);
    let path = scratch("good");
    snapshot_save(&source.vm, &uri(&path), &mapped()).unwrap();
    let good = fs::read(&path).unwrap();
    // The header of block "a" is behind its name and length.
    let header = good.windows(2).position(|word| word == b"\x01a").unwrap() + 2 + 8;
    let bitmap = header + 28;
    let put =
        |at: usize, value: u64| move |bytes: &mut Vec<u8>| bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
    type Damage<'a> = Box<dyn FnOnce(&mut Vec<u8>) + 'a>;
    let table: [(&str, Damage<'_>, &str); 10] = [
        ("version", Box::new(|bytes| bytes[header + 3] = 2), "version 2"),
        ("page size", Box::new(put(header + 4, 8192)), "8192"),
        ("page size that is none", Box::new(put(header + 4, 4097)), "4097"),
        ("bitmap before its header", Box::new(put(header + 12, 5)), "bitmap"),
        ("bitmap behind the pages", Box::new(put(header + 12, 2 << 20)), "bitmap"),
        ("pages outside of the file", Box::new(put(header + 20, 1 << 40)), ""),
        ("pages at the end of all offsets", Box::new(put(header + 20, !0xfff)), ""),
        ("pages not aligned", Box::new(put(header + 20, (1 << 20) + 5)), "multiple"),
        ("pages that overlap the bitmap", Box::new(put(header + 20, bitmap as u64)), "bitmap"),
        ("bits behind the last page", Box::new(|bytes| bytes[bitmap + 15] = 0x80), "bits behind its last page"),
    ];
    for (what, damage, reason) in table {
        let error = load_damaged(&good, damage);
        assert!(error.message().contains(reason), "{what}: {error}");
    }
    for len in [header + 10, bitmap + 3, 1 << 20, (1 << 20) + 50 * PAGE, good.len() - 60] {
        load_damaged(&good, |bytes| bytes.truncate(len));
    }
    fs::remove_file(path).unwrap();
}

#[test]
fn page_that_cannot_be_written_fails_the_save_and_keeps_the_old_file() {
    let machine = Machine::new(&[70]);
    machine.randomize(1, 100);
    let error = snapshot_save(&machine.vm, &"file:/dev/full".parse().unwrap(), &mapped()).unwrap_err();
    // /dev/full is a device: it has no positions.
    assert!(error.message().contains("not a regular file"), "{error}");
    let path = scratch("kept");
    snapshot_save(&machine.vm, &uri(&path), &mapped()).unwrap();
    let before = fs::read(&path).unwrap();
    let file = fs::File::open(&path).unwrap();
    machine.randomize(2, 100);
    snapshot_save(&machine.vm, &uri(&path), &mapped()).unwrap();
    let mut old = vec![0; before.len()];
    file.read_exact_at(&mut old, 0).unwrap();
    assert!(old == before, "the old file was written to");
    fs::remove_file(path).unwrap();
}

/// A host that keeps what is reported.
#[derive(Default)]
struct Reports(Mutex<Vec<String>>);

impl Host for Reports {
    fn report(&self, _level: Level, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

impl VmStateHost for Reports {}

#[test]
fn error_of_a_snapshot_is_returned_and_not_reported_as_well() {
    let machine = Machine::new(&[3000]);
    machine.randomize(1, 100);
    let host = Arc::new(Reports::default());
    machine.vm.set_host(host.clone());
    let check = |what: &str, error: Error| {
        let reports = std::mem::take(&mut *host.0.lock().unwrap());
        assert!(reports.is_empty(), "{what}: {reports:#?}, returned: {error}");
    };
    let full = Uri::File { path: "/dev/full".into(), offset: 0 };
    for background in [false, true] {
        let options = SnapshotOptions { background, ..SnapshotOptions::default() };
        check("a save", snapshot_save(&machine.vm, &full, &options).unwrap_err());
    }
    let path = scratch("reported");
    for save in [mapped(), SnapshotOptions::default()] {
        snapshot_save(&machine.vm, &uri(&path), &save).unwrap();
        check("a load of another machine", {
            let other = Machine::new(&[2999]);
            other.vm.set_host(host.clone());
            load(&other, &path).unwrap_err()
        });
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        check("a load of a damaged file", load(&machine, &path).unwrap_err());
        // What comes through a pipe is not checked before it is loaded.
        let pipe = Uri::Exec(format!("cat {}", path.display()).into());
        let other = Machine::new(&[3000]);
        other.vm.set_host(host.clone());
        check("a load from a pipe", snapshot_load(&other.vm, &pipe, &SnapshotOptions::default()).unwrap_err());
    }
    fs::remove_file(path).unwrap();
}
