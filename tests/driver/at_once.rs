// SPDX-License-Identifier: LGPL-2.1-or-later
//! Streams in a regular file that are loaded at once: several threads read the pages from the places that the check has found.
//! The memory is the same as after a load in the order of the stream, which a pipe gives.

use super::lazy::{lazy, load, possible, with_guest};
use super::mapped::{Machine, PAGE, scratch, uri};
use savevm::channel::Uri;
use savevm::migration::{Owner, SnapshotOptions, snapshot_load, snapshot_save};
use savevm::savevm::host::Host;
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

const ZERO: u64 = 2;
const PLAIN: u64 = 8;
const EOS: u64 = 16;
const CONTINUE: u64 = 32;
const XBZRLE: u64 = 64;
const FLUSH: u64 = 512;

/// A stream with sections of RAM.
struct Records {
    bytes: Vec<u8>,
    last: Option<u8>,
}

impl Records {
    /// With these blocks: name and number of pages.
    fn new(blocks: &[(u8, usize)]) -> Self {
        let bytes = b"QEVM\0\0\0\x03\x07\0\0\0\x04none\x01\0\0\0\0\x03ram\0\0\0\0\0\0\0\x04".to_vec();
        let mut records = Self { bytes, last: None };
        records.word(blocks.iter().map(|(_, pages)| pages * PAGE).sum(), 4);
        for (name, pages) in blocks {
            records.bytes.extend([1, *name]);
            records.bytes.extend(((pages * PAGE) as u64).to_be_bytes());
        }
        records.section();
        records
    }

    fn word(&mut self, offset: usize, flags: u64) {
        self.bytes.extend((offset as u64 | flags).to_be_bytes());
    }

    fn section(&mut self) {
        self.word(0, EOS);
        self.bytes.extend([0x7e, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
    }

    fn record(&mut self, (block, page): (u8, usize), kind: u64, content: &[u8]) {
        let named = self.last.replace(block) == Some(block);
        self.word(page * PAGE, kind | if named { CONTINUE } else { 0 });
        if !named {
            self.bytes.extend([1, block]);
        }
        self.bytes.extend(content);
    }

    fn save(mut self, path: &Path) {
        self.word(0, EOS);
        self.bytes.extend([0x7e, 0, 0, 0, 0, 3, 0, 0, 0, 0]);
        self.word(0, EOS);
        self.bytes.extend([0x7e, 0, 0, 0, 0, 0]);
        fs::write(path, self.bytes).unwrap();
    }
}

fn at_once() -> SnapshotOptions {
    SnapshotOptions { threads: 3, ..SnapshotOptions::default() }
}

fn load_in_order(machine: &Machine, path: &Path) {
    let from = Uri::Exec(format!("cat {}", path.display()).into());
    snapshot_load(&machine.vm, &from, &at_once()).unwrap();
}

#[test]
fn memory_of_a_saved_stream_comes_back_page_by_page() {
    let (source, target) = (Machine::new(&[3000, 1, 700]), Machine::new(&[3000, 1, 700]));
    let path = scratch("at-once");
    for (seed, share) in [(1, 0), (2, 5), (3, 50), (4, 100)] {
        source.randomize(seed, share);
        target.fill(0xee);
        snapshot_save(&source.vm, &uri(&path), &SnapshotOptions::default()).unwrap();
        load(&target, &path, &at_once()).unwrap();
        assert!(source.contents() == target.contents(), "{share} percent");
        let counters = &target.ram.counters;
        assert_eq!(counters.normal.load(Relaxed) + counters.zero.load(Relaxed), 3701);
    }
    fs::remove_file(path).unwrap();
}

#[test]
fn any_order_of_records_gives_the_memory_of_a_load_in_order() {
    let path = scratch("any-order");
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |most: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize % most
    };
    let (file, pipe) = (Machine::new(&[300, 40]), Machine::new(&[300, 40]));
    for _ in 0..12 {
        let mut records = Records::new(&[(b'a', 300), (b'b', 40)]);
        for _ in 0..next(60) {
            let (block, pages) = [(b'a', 300), (b'b', 40)][next(2)];
            let first = next(pages);
            for page in first..pages.min(first + 1 + next(50)) {
                match next(12) {
                    0 => records.record((block, page), ZERO, &[next(2) as u8 * 7]),
                    1 => records.section(),
                    _ => records.record((block, page), PLAIN, &vec![next(256) as u8; PAGE]),
                }
            }
        }
        records.save(&path);
        [&file, &pipe].iter().for_each(|machine| machine.fill(0));
        load(&file, &path, &at_once()).unwrap();
        load_in_order(&pipe, &path);
        assert!(file.contents() == pipe.contents());
    }
    fs::remove_file(path).unwrap();
}

#[test]
fn stream_with_differences_is_loaded_in_its_order() {
    let path = scratch("differences");
    let mut records = Records::new(&[(b'a', 3)]);
    records.record((b'a', 1), PLAIN, &[5; PAGE]);
    // A difference of 2 bytes: 16 bytes stay, then 2 new ones.
    records.record((b'a', 1), XBZRLE, &[1, 0, 4, 16, 2, 8, 9]);
    records.save(&path);
    let target = Machine::new(&[3]);
    load(&target, &path, &at_once()).unwrap();
    let mut wanted = vec![0; 3 * PAGE];
    wanted[PAGE..2 * PAGE].fill(5);
    wanted[PAGE + 16..PAGE + 18].copy_from_slice(&[8, 9]);
    assert!(target.contents()[0] == wanted);
    fs::remove_file(path).unwrap();
}

#[test]
fn stream_whose_pages_are_on_other_connections_is_refused() {
    let path = scratch("elsewhere");
    let mut records = Records::new(&[(b'a', 3)]);
    records.word(0, FLUSH);
    records.save(&path);
    let target = Machine::new(&[3]);
    let error = load(&target, &path, &at_once()).unwrap_err();
    assert!(error.message().contains("several connections"), "{error}");
    if possible() {
        let target = Machine::new(&[3]);
        let error = load(&target, &path, &lazy()).unwrap_err();
        assert!(error.message().contains("over other connections"), "{error}");
        assert_eq!(target.vm.ownership.owner(), Owner::Here);
    }
    fs::remove_file(path).unwrap();
}

#[test]
fn damage_anywhere_in_the_records_is_refused_before_memory_is_changed() {
    let (source, target) = (Machine::new(&[900]), Machine::new(&[900]));
    let path = scratch("damaged");
    source.randomize(3, 80);
    snapshot_save(&source.vm, &uri(&path), &SnapshotOptions::default()).unwrap();
    let saved = fs::read(&path).unwrap();
    let guest = with_guest(&target);
    target.fill(0x5a);
    let before = target.contents();
    // A record without flags; a cut; a byte of a footer.
    let last = saved.windows(8).rposition(|word| word == [0, 0, 0, 0, 0, 0, 0, EOS as u8]).unwrap();
    type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);
    let damages: [Damage<'_>; 3] =
        [&|bytes| bytes[last + 7] = 0, &|bytes| bytes.truncate(last - 100), &|bytes| bytes[last + 8] ^= 1];
    for damage in damages {
        let mut bytes = saved.clone();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        load(&target, &path, &at_once()).unwrap_err();
        assert!(target.contents() == before && guest.vm_running());
        assert_eq!(target.vm.ownership.owner(), Owner::Here);
    }
    fs::remove_file(path).unwrap();
}
