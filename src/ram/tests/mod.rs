// SPDX-License-Identifier: LGPL-2.1-or-later
//! Streams from RAM to RAM, and streams with wrong contents. `blocks.rs`: blocks that are added, removed, shared, or overlap.
//! `postcopy.rs`: memory that is prepared, missing, zero or unreadable.

mod blocks;
mod postcopy;

use super::block::BlockInfo;
use super::tracker::Log;
use super::{Options, Ram, wire};
use crate::channel::{Channel, memory};
use crate::error::Error;
use crate::file::MigFile;
use crate::savevm::save::{self, Completion, Disks};
use crate::savevm::slot::PageSource;
use crate::savevm::{Vm, incoming, load};
use crate::sys::{IoVec, OwnMemory, Span};
use proptest::prelude::*;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const PAGE: usize = 4096;

/// A machine with blocks of so many pages, named "a", "b" ...
struct Machine {
    vm: Arc<Vm>,
    ram: Arc<Ram>,
    memories: Vec<OwnMemory>,
}

fn info(name: &str, memory: &OwnMemory) -> BlockInfo {
    let (name, memory) = (name.as_bytes().to_vec(), memory.memory());
    BlockInfo { name, memory, page_size: 0, guest_address: 0, shared: false, opaque: 0 }
}

impl Machine {
    fn with(pages: &[usize], options: Options) -> Self {
        let vm = Arc::new(Vm::default());
        let ram = Ram::new(&vm, options, None).unwrap();
        let mut memories = Vec::new();
        for (name, pages) in ["a", "b", "c"].iter().zip(pages) {
            let memory = OwnMemory::new(pages * PAGE).unwrap();
            ram.add_block(info(name, &memory)).unwrap();
            memories.push(memory);
        }
        Self { vm, ram, memories }
    }

    fn new(pages: &[usize]) -> Self {
        Self::with(pages, Options { log: Log::Marks, ..Options::default() })
    }

    fn content(&self, block: usize) -> Vec<u8> {
        let memory = self.memories[block].memory();
        let mut bytes = vec![0; memory.len()];
        memory.read(0, &mut bytes);
        bytes
    }

    fn write(&self, block: usize, offset: usize, bytes: &[u8]) {
        let memory = self.memories[block].memory();
        memory.write(offset, bytes);
        self.ram.set_dirty(memory.address() + offset, bytes.len());
    }

    fn load(&self, stream: &[u8]) -> Result<incoming::LoadEnd, Error> {
        load::stream(&self.vm, &MigFile::new(Arc::new(memory::Reader::new(stream)), false))
    }

    /// A stream of records alone.
    fn load_records(&self, records: &[u8]) -> Result<(), Error> {
        self.ram.load_setup().unwrap();
        let result = self.ram.load(&MigFile::new(Arc::new(memory::Reader::new(records)), false));
        self.ram.load_cleanup();
        result
    }
}

/// Saves; `between` runs after the first round.
fn save(machine: &Machine, between: impl FnOnce()) -> Vec<u8> {
    let writer = Arc::new(memory::Writer::new());
    let file = MigFile::new(writer.clone(), true);
    save::header(&machine.vm, &file);
    save::setup(&machine.vm, &file).unwrap();
    while save::iterate(&machine.vm, &file, false).unwrap() == save::Round::Again {}
    assert_eq!(save::pending(&machine.vm, &file, 1).total(), 0);
    between();
    save::complete_precopy(&machine.vm, &file, Completion::All(Disks::Keep)).unwrap();
    save::cleanup(&machine.vm);
    file.flush();
    assert!(file.status().first_error().is_none());
    writer.contents()
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| ((at * 31 + at / 256 + seed) % 251) as u8).collect()
}

#[test]
fn memory_arrives_with_what_changed_meanwhile() {
    let (source, target) = (Machine::new(&[300, 1, 70]), Machine::new(&[300, 1, 70]));
    source.write(0, 5 * PAGE, &pattern(100 * PAGE, 1));
    source.write(2, 0, &pattern(70 * PAGE, 2));
    target.memories[0].memory().fill(0, 300 * PAGE, 0xee);
    let stream = save(&source, || {
        source.write(0, 5 * PAGE - 10, b"across two pages and more");
        source.write(1, 100, b"x");
        source.write(2, 69 * PAGE, &[0; PAGE]);
    });
    target.load(&stream).unwrap();
    for block in 0..3 {
        assert!(source.content(block) == target.content(block), "block {block}");
    }
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(count(&target.ram.counters.normal), 100 + 70 + 2 + 1);
    assert_eq!(count(&target.ram.counters.zero), count(&source.ram.counters.zero));
}

#[test]
fn the_kernel_logs_what_changes() {
    let options = Options { log: Log::Kernel, ..Options::default() };
    let source = Machine::with(&[600, 20], options);
    source.memories[0].memory().write(7 * PAGE, &pattern(500 * PAGE, 3));
    let file = MigFile::new(Arc::new(memory::Writer::new()), true);
    if let Err(error) = source.ram.save_setup(&file, false) {
        assert!(error.message().contains("can't log dirty pages"), "{error}");
        source.ram.save_cleanup();
        return eprintln!("SKIPPED: {error}");
    }
    source.ram.save_cleanup();
    let target = Machine::new(&[600, 20]);
    let stream = save(&source, || {
        source.memories[0].memory().write(3 * PAGE + 1, b"untouched before");
        source.memories[0].memory().write(200 * PAGE - 3, b"over an edge");
        source.memories[1].memory().write(19 * PAGE, b"last");
    });
    target.load(&stream).unwrap();
    assert!(source.content(0) == target.content(0) && source.content(1) == target.content(1));
    let normal = target.ram.counters.normal.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(normal, 500 + 1 + 2 + 1);
}

#[test]
fn differences_are_sent_where_a_page_is_known() {
    let options = Options { log: Log::Marks, xbzrle_cache: 1 << 20, ..Options::default() };
    let (source, target) = (Machine::with(&[8], options), Machine::new(&[8]));
    source.write(0, 0, &pattern(8 * PAGE, 1));
    let writer = Arc::new(memory::Writer::new());
    let file = MigFile::new(writer.clone(), true);
    save::header(&source.vm, &file);
    save::setup(&source.vm, &file).unwrap();
    for round in 0..4u8 {
        while save::iterate(&source.vm, &file, false).unwrap() == save::Round::Again {}
        source.write(0, 100 + usize::from(round), &[round]);
        source.write(0, 3 * PAGE, &[0; PAGE]);
        source.write(0, 4 * PAGE, &pattern(PAGE, usize::from(round)));
        source.ram.set_dirty(source.memories[0].memory().address() + 6 * PAGE, 1);
    }
    save::complete_precopy(&source.vm, &file, Completion::All(Disks::Keep)).unwrap();
    save::cleanup(&source.vm);
    target.load(&writer.contents()).unwrap();
    assert!(source.content(0) == target.content(0));
    let counters = &source.ram.counters;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    assert!(count(&counters.xbzrle) >= 3 && count(&counters.unchanged) >= 2, "{counters:?}");
}

#[test]
fn a_page_that_goes_out_before_it_is_counted_is_no_debt() {
    let machine = Machine::new(&[8]);
    let file = MigFile::new(Arc::new(memory::Writer::new()), true);
    machine.ram.save_setup(&file, false).unwrap();
    assert!(machine.ram.save_iterate(&file).unwrap());
    // A CPU of the guest has marked it, and was stopped before it counted it.
    let new = machine.ram.blocks()[0].dirty.set(3, 1);
    assert!(machine.ram.save_iterate(&file).unwrap());
    assert_eq!((new, machine.ram.dirty_bytes()), (1, 0));
    machine.ram.dirtied(new);
    assert_eq!(machine.ram.dirty_bytes(), 0);
    machine.ram.set_dirty(machine.memories[0].memory().address(), 1);
    assert_eq!(machine.ram.dirty_bytes(), PAGE as u64);
    machine.ram.save_cleanup();
}

fn word(value: u64) -> Vec<u8> {
    value.to_be_bytes().to_vec()
}

fn name(name: &str) -> Vec<u8> {
    [&[name.len() as u8], name.as_bytes()].concat()
}

#[test]
fn lies_are_refused_with_block_and_offset() {
    let end = word(wire::EOS);
    let page = vec![7; PAGE];
    let table: Vec<(Vec<u8>, &[&str])> = vec![
        (
            [word((8 * PAGE) as u64 | wire::PAGE), name("a"), page.clone()].concat(),
            &["block 'a', offset 0x8000", "is outside of block 'a' of 0x8000 bytes"],
        ),
        ([word(!0xfff | wire::ZERO), name("a"), vec![1]].concat(), &["offset 0xfffffffffffff000", "outside"]),
        ([word(wire::PAGE), name("z"), page.clone()].concat(), &["block 'z', which is not there"]),
        ([word(wire::PAGE | wire::CONTINUE), page.clone()].concat(), &["there is none"]),
        ([word(wire::PAGE), name("")].concat(), &["without a name"]),
        ([word(wire::PAGE), name("a"), page[1..].to_vec()].concat(), &["block 'a', offset 0x0", "the stream ends"]),
        ([word(wire::XBZRLE), name("a"), vec![2, 0, 1, 0]].concat(), &["block 'a'", "encoding 2"]),
        ([word(wire::XBZRLE), name("a"), vec![1, 0x10, 1], page.clone()].concat(), &["4097 bytes"]),
        (
            [word(PAGE as u64 | wire::XBZRLE), name("a"), vec![1, 0, 3, 0, 0xff, 0x7f]].concat(),
            &["offset 0x1000", "overrun"],
        ),
        (word(wire::HOOK), &["RDMA"]),
        (word(wire::COMPRESS_PAGE), &["compressed"]),
        (word(wire::PAGE | wire::ZERO), &["0xa (ZERO|PAGE)"]),
        (word(0), &["flags 0x0"]),
        (word(0x400), &["flags 0x400"]),
        ([word(0x8000 | wire::MEM_SIZE), name("z"), word(0x8000)].concat(), &["block 'z'", "not there"]),
        (
            [word(0x7000 | wire::MEM_SIZE), name("a"), word(0x7000)].concat(),
            &["28 KiB (0x7000 bytes) in the stream, 32 KiB (0x8000 bytes) here"],
        ),
        ([word(0x7000 | wire::MEM_SIZE), name("a"), word(0x8000)].concat(), &["more than the total"]),
        ([word(0x9000 | wire::MEM_SIZE), name("a"), word(0x8000), name("a"), word(0x8000)].concat(), &["listed twice"]),
        ([word(wire::MEM_SIZE), end.clone()].concat(), &["block 'a' is here, but not in the stream"]),
        (vec![], &["the stream ends"]),
    ];
    for (records, words) in table {
        let machine = Machine::new(&[8]);
        let error = machine.load_records(&records).unwrap_err();
        for part in words {
            assert!(error.to_string().contains(part), "{error} lacks '{part}'");
        }
    }
    let version = Machine::new(&[8]);
    version.load_records(&end).unwrap();
}

proptest! {
    #[test]
    fn any_records_are_taken_or_refused(
        records in proptest::collection::vec(
            (0u64..12, 0u64..0x200, prop::option::of(0usize..3), proptest::collection::vec(any::<u8>(), 0..40), any::<bool>()),
            0..20,
        ),
    ) {
        let machine = Machine::new(&[8, 2]);
        // One block behind the other, so that a write outside would show.
        let mut stream = Vec::new();
        for (page, flags, block, payload, whole) in records {
            stream.extend(word((page * PAGE as u64) | flags));
            if let Some(block) = block {
                stream.extend(name(["a", "b", "z"][block]));
            }
            stream.extend(payload);
            if whole {
                stream.extend([5; PAGE]);
            }
        }
        let _ = machine.load_records(&stream);
    }
}

#[test]
fn host_pages_are_sent_as_a_whole() {
    let vm = Arc::new(Vm::default());
    let ram = Ram::new(&vm, Options { log: Log::Marks, ..Options::default() }, None).unwrap();
    const UNIT: usize = 4;
    let memory = OwnMemory::new((64 + UNIT) * PAGE).unwrap();
    let start = memory.memory().address().next_multiple_of(UNIT * PAGE);
    let part = memory.memory().part(start - memory.memory().address(), 64 * PAGE);
    ram.add_block(BlockInfo { page_size: UNIT * PAGE, memory: part, ..info("a", &memory) }).unwrap();
    let writer = Arc::new(memory::Writer::new());
    let file = MigFile::new(writer.clone(), true);
    ram.save_setup(&file, true).unwrap();
    while !ram.save_iterate(&file).unwrap() {}
    for page in [1, 4, 11, 13, 40] {
        ram.set_dirty(start + page * PAGE, 1);
    }
    let before = writer.contents().len();
    ram.discards(&file).unwrap();
    let sent = writer.contents().split_off(before);
    let expected = [(0, 16), (40, 4)];
    let ranges: Vec<u8> = expected
        .iter()
        .flat_map(|(start, count)| [word((start * PAGE) as u64), word((count * PAGE) as u64)].concat())
        .collect();
    assert!(sent.ends_with(&ranges), "{sent:?}");
    assert_eq!(ram.dirty_bytes() as usize, expected.iter().map(|(_, count)| count * PAGE).sum::<usize>());
    // What is asked for goes first, and what is clean is not sent again.
    ram.request(Some(b"a"), 40 * PAGE as u64, (UNIT * PAGE) as u32).unwrap();
    ram.request(None, 20 * PAGE as u64, (UNIT * PAGE) as u32).unwrap();
    let before = writer.contents().len();
    assert!(ram.save_iterate(&file).unwrap());
    assert!(writer.contents()[before..].starts_with(&[word((40 * PAGE) as u64 | wire::ZERO), name("a")].concat()));
    let page = (UNIT * PAGE) as u32;
    for (block, start, len, part) in [
        (Some(&b"z"[..]), 0, page, "not there"),
        (Some(b"a"), 64 * PAGE as u64, page, "inside of block 'a'"),
        (Some(b"a"), 1, page, "whole pages"),
        (Some(b"a"), u64::MAX - 4095, page, "inside"),
        (Some(b"a"), 0, 0, "whole pages"),
    ] {
        let error = ram.request(block, start, len).unwrap_err();
        assert!(error.message().contains(part), "{error}");
    }
    for bits in [0, 7, 9, 16] {
        assert!(ram.apply_received(b"a", &vec![0xff; bits]).unwrap_err().message().contains("bytes, expected one bit"));
    }
    ram.apply_received(b"a", &[0xff, 0xff, 0xef, 0xff, 0xff, 0xff, 0xff, 0xff]).unwrap();
    assert_eq!(ram.dirty_bytes() as usize, UNIT * PAGE);
    ram.save_cleanup();
    ram.close().unwrap();
}

#[test]
fn a_destination_refuses_what_it_must_not_throw_away() {
    let machine = Machine::new(&[4]);
    for (block, start, len, part) in [
        (&b"z"[..], 0, PAGE as u64, "not there"),
        (b"a", 0, 5 * PAGE as u64, "inside of block 'a'"),
        (b"a", 100, PAGE as u64, "whole pages"),
        (b"a", u64::MAX - 4095, 8192, "inside"),
    ] {
        let error = machine.ram.discard_range(block, start, len).unwrap_err();
        assert!(error.message().contains(part), "{error}");
    }
}

/// A channel that brings as much as it likes with each read, over all places.
struct Trickle {
    bytes: Vec<u8>,
    sizes: Vec<usize>,
    at: Mutex<(usize, usize)>,
}

impl Channel for Trickle {
    fn read(&self, into: Span<'_>) -> io::Result<usize> {
        self.read_scattered(&[into])
    }

    fn read_scattered(&self, into: &[Span<'_>]) -> io::Result<usize> {
        let (at, turn) = *self.at.lock().unwrap();
        let want = self.sizes[turn % self.sizes.len()].min(self.bytes.len() - at);
        let mut left = &self.bytes[at..at + want];
        for place in into {
            let (now, later) = left.split_at(place.len().min(left.len()));
            place.store(now);
            left = later;
        }
        let count = want - left.len();
        *self.at.lock().unwrap() = (at + count, turn + 1);
        Ok(count)
    }

    fn write_all(&self, _pieces: &mut [IoVec]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn shutdown(&self) -> io::Result<()> {
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn pages_arrive_however_they_trickle(
        pages in proptest::collection::vec((0usize..60, 0u8..4, any::<u8>()), 1..120),
        sizes in proptest::collection::vec(1usize..60_000, 1..8),
    ) {
        let (machine, mut model) = (Machine::new(&[60, 3]), vec![0; 60 * PAGE]);
        let (mut stream, mut next) = (Vec::new(), 0);
        for (page, kind, seed) in pages {
            // Half of them in order, as they come from a source.
            let page = if kind < 2 { next % 60 } else { page };
            let flag = if stream.is_empty() { 0 } else { wire::CONTINUE };
            let at = page * PAGE;
            let content = pattern(PAGE, usize::from(seed));
            stream.extend(word(at as u64 | flag | if kind == 3 { wire::ZERO } else { wire::PAGE }));
            if flag == 0 {
                stream.extend(name("a"));
            }
            match kind {
                3 => {
                    stream.push(0);
                    model[at..at + PAGE].fill(0);
                }
                _ => {
                    stream.extend(&content);
                    model[at..at + PAGE].copy_from_slice(&content);
                }
            }
            next = page + 1;
        }
        stream.extend(word(wire::EOS));
        stream.extend(b"tail");
        machine.ram.load_setup().unwrap();
        let channel = Arc::new(Trickle { bytes: stream.clone(), sizes, at: Mutex::default() });
        let file = MigFile::new(channel, false);
        prop_assert!(machine.ram.load(&file).is_ok());
        prop_assert_eq!(file.position(), stream.len() as u64 - 4);
        let mut tail = [0; 4];
        prop_assert_eq!((file.get(&mut tail), &tail), (4, b"tail"));
        let (block, have) = (Arc::clone(&machine.ram.blocks()[0]), machine.content(0));
        for page in (0..60).filter(|page| block.received.get(*page)) {
            prop_assert!(have[page * PAGE..][..PAGE] == model[page * PAGE..][..PAGE], "page {}", page);
        }
        prop_assert!(machine.content(1) == vec![0; 3 * PAGE]);
        machine.ram.load_cleanup();
    }
}
