// SPDX-License-Identifier: LGPL-2.1-or-later
//! Checkpoints of real memory, with writes of this thread and through system calls.

use crate::ram::block::BlockInfo;
use crate::ram::tracker::Log;
use crate::ram::{Options, Ram};
use crate::savevm::Vm;
use crate::savevm::checkpoint::{RamCheckpoint, SavedSnapshot, Scope};
use crate::sys::OwnMemory;
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

const PAGE: usize = 4096;

struct Machine {
    ram: Arc<Ram>,
    memories: [OwnMemory; 2],
    // Dropped last: the RAM has a weak reference.
    vm: Arc<Vm>,
}

impl Machine {
    fn new(pages: [usize; 2]) -> Self {
        let vm = Arc::new(Vm::default());
        let ram = Ram::new(&vm, Options { log: Log::Marks, ..Options::default() }, None).unwrap();
        let memories = pages.map(|pages| OwnMemory::new(pages * PAGE).unwrap());
        for (name, memory) in ["a", "b"].iter().zip(&memories) {
            let (name, memory) = (name.as_bytes().to_vec(), memory.memory());
            ram.add_block(BlockInfo { name, memory, page_size: 0, guest_address: 0, shared: false, opaque: 0 })
                .unwrap();
        }
        Self { ram, memories, vm }
    }

    /// `None`, with a message, if this machine has no userfaultfd.
    fn checkpoint(&self) -> Option<Box<dyn RamCheckpoint>> {
        match self.vm.slot.checkpoint_ram().unwrap().checkpoint() {
            Ok(checkpoint) => Some(checkpoint),
            Err(error) => {
                assert!(error.message().contains("userfaultfd"), "{error}");
                eprintln!("SKIPPED: {error}");
                None
            }
        }
    }

    fn contents(&self) -> [Vec<u8>; 2] {
        [0, 1].map(|at| {
            let memory = self.memories[at].memory();
            let mut bytes = vec![0; memory.len()];
            memory.read(0, &mut bytes);
            bytes
        })
    }

    fn write(&self, block: usize, page: usize, value: u8) {
        self.memories[block].memory().fill(page * PAGE + usize::from(value), 100, value);
    }

    fn is_tracked(&self) -> bool {
        self.ram.busy.lock().session.is_some()
    }
}

#[test]
fn rollback_restores_what_was_written_in_any_way() {
    let machine = Machine::new([300, 20]);
    machine.write(0, 7, 7);
    machine.write(1, 19, 9);
    let before = machine.contents();
    let Some(checkpoint) = machine.checkpoint() else { return };
    for round in 0..3 {
        machine.write(0, 7, 0);
        machine.write(0, 299, 4);
        machine.write(1, 3 + round, 5);
        // The kernel writes to memory that is protected.
        let memory = machine.memories[1].memory();
        let read = crate::sys::read_fd(
            std::os::fd::AsFd::as_fd(&std::fs::File::open("/proc/self/exe").unwrap()),
            memory.span(10 * PAGE, 3 * PAGE),
        );
        assert_eq!(read.unwrap(), 3 * PAGE);
        assert!(machine.contents() != before);
        checkpoint.rollback().unwrap();
        assert!(machine.contents() == before, "round {round}");
    }
    drop(checkpoint);
    assert!(!machine.is_tracked());
    machine.write(0, 1, 1);
    machine.ram.close().unwrap();
}

#[test]
fn rollback_goes_to_any_branch() {
    let machine = Machine::new([64, 1]);
    let Some(root) = machine.checkpoint() else { return };
    let mut branches = vec![(root, machine.contents())];
    for branch in 1..6usize {
        branches[branch / 2].0.rollback().unwrap();
        (0..10).for_each(|page| machine.write(0, branch * 7 + page, branch as u8));
        branches.push((machine.checkpoint().unwrap(), machine.contents()));
    }
    for at in [3, 5, 0, 1, 4, 2, 5, 0, 3, 3] {
        branches[at].0.rollback().unwrap();
        assert!(machine.contents() == branches[at].1, "branch {at}");
    }
    // A fork that was freed, and the root.
    branches.remove(2);
    branches.remove(0);
    for (checkpoint, contents) in &branches {
        checkpoint.rollback().unwrap();
        assert!(machine.contents() == *contents);
    }
}

#[test]
fn blocks_and_loads_are_refused_while_checkpoints_exist() {
    let machine = Machine::new([4, 4]);
    let Some(checkpoint) = machine.checkpoint() else { return };
    for error in [
        machine.ram.remove_block(b"a").unwrap_err(),
        machine.ram.close().unwrap_err(),
        machine.ram.load_setup().unwrap_err(),
        machine.ram.prepare_snapshot().err().unwrap(),
    ] {
        assert_eq!(error.errno(), libc::EBUSY);
        assert!(error.message().contains("checkpoints of the machine exist"), "{error}");
    }
    drop(checkpoint);
    machine.ram.remove_block(b"a").unwrap();
}

#[test]
fn writers_are_never_lost_beside_checkpoints() {
    let machine = Machine::new([64, 64]);
    let Some(base) = machine.checkpoint() else { return };
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // A device thread writes to its block at all times; the other block is the guest's.
        scope.spawn(|| {
            let mut value = 0u8;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                (0..64).for_each(|page| machine.write(1, page, value));
                value = value.wrapping_add(1);
            }
        });
        for round in 0..50 {
            (0..64).step_by(1 + round % 5).for_each(|page| machine.write(0, page, round as u8 + 1));
            let [now, _] = machine.contents();
            let next = machine.checkpoint().unwrap();
            base.rollback().unwrap();
            assert!(machine.contents()[0].iter().all(|byte| *byte == 0));
            next.rollback().unwrap();
            assert!(machine.contents()[0] == now, "round {round}");
            base.rollback().unwrap();
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, usize, u8),
    Add,
    GoTo(usize),
    Free(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..2, 0usize..40, 0u8..5).prop_map(|(block, page, value)| Step::Write(block, page, value)),
        2 => Just(Step::Add),
        2 => any::<usize>().prop_map(Step::GoTo),
        1 => any::<usize>().prop_map(Step::Free),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn every_checkpoint_has_its_memory(steps in proptest::collection::vec(step(), 0..80)) {
        let machine = Machine::new([40, 40]);
        let mut held = Vec::new();
        for step in steps {
            match step {
                Step::Write(block, page, value) => machine.write(block, page, value),
                Step::Add => {
                    let Some(checkpoint) = machine.checkpoint() else { return Ok(()) };
                    held.push((checkpoint, machine.contents()));
                }
                Step::GoTo(at) if !held.is_empty() => {
                    let (checkpoint, contents) = &held[at % held.len()];
                    checkpoint.rollback().unwrap();
                    prop_assert!(machine.contents() == *contents);
                }
                Step::Free(at) if !held.is_empty() => {
                    let before = machine.contents();
                    drop(held.swap_remove(at % held.len()));
                    prop_assert!(machine.contents() == before);
                }
                Step::GoTo(_) | Step::Free(_) => {}
            }
            prop_assert_eq!(machine.is_tracked(), !held.is_empty());
        }
    }
}

fn saved(path: &str) -> SavedSnapshot {
    let (identity, pages, state) = Default::default();
    SavedSnapshot { path: path.into(), identity, pages, state, ancestors: Vec::new() }
}

#[test]
fn log_of_a_chain_goes_on_after_a_snapshot_that_should_begin_another_one() {
    let machine = Machine::new([8, 8]);
    let session = match machine.ram.session() {
        Ok(session) => session,
        Err(error) => {
            assert!(error.message().contains("userfaultfd"), "{error}");
            return eprintln!("SKIPPED: {error}");
        }
    };
    let first = session.freeze(Scope::Begin).unwrap();
    session.thaw(&first, None);
    assert!(session.parent().is_none(), "there was no chain before");
    let first = session.freeze(Scope::Begin).unwrap();
    session.thaw(&first, Some(saved("first")));
    machine.write(0, 1, 1);
    for page in [2, 3] {
        let other = session.freeze(Scope::Begin).unwrap();
        machine.write(0, page, 2);
        session.thaw(&other, None);
        assert_eq!(session.parent().unwrap().path.to_str(), Some("first"));
    }
    machine.write(1, 4, 3);
    let next = session.freeze(Scope::Changed).unwrap();
    let changed = |block: usize| (0..8).filter(|page| next.units[block].get(*page)).collect::<Vec<_>>();
    assert_eq!((changed(0), changed(1)), (vec![1, 2, 3], vec![4]));
    session.thaw(&next, Some(saved("next")));
    // A snapshot that is saved begins the other chain.
    machine.write(0, 5, 4);
    let other = session.freeze(Scope::Begin).unwrap();
    machine.write(0, 6, 4);
    session.thaw(&other, Some(saved("other")));
    assert_eq!(session.parent().unwrap().path.to_str(), Some("other"));
    let next = session.freeze(Scope::Changed).unwrap();
    assert_eq!((0..8).filter(|page| next.units[0].get(*page)).collect::<Vec<_>>(), [6]);
    session.thaw(&next, None);
    session.end_log();
    machine.ram.end_session(&session);
    assert!(!machine.is_tracked());
}

#[test]
fn memory_that_changes_while_it_is_prepared_is_frozen_whole() {
    const PAGES: [usize; 2] = [3000, 20];
    let machine = Machine::new(PAGES);
    let session = match machine.ram.session() {
        Ok(session) => session,
        Err(error) => {
            assert!(error.message().contains("userfaultfd"), "{error}");
            return eprintln!("SKIPPED: {error}");
        }
    };
    let saved = || saved("parent");
    let parent = session.freeze(Scope::Begin).unwrap();
    let mut before = machine.contents();
    session.thaw(&parent, Some(saved()));
    for round in 0..4u8 {
        let (stop, written) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut place = usize::from(round);
                while !stop.load(SeqCst) {
                    place = (place * 7919 + 13) % (PAGES[0] + PAGES[1]);
                    let (block, page) = if place < PAGES[0] { (0, place) } else { (1, place - PAGES[0]) };
                    machine.write(block, page, round + 1);
                    written.fetch_add(1, SeqCst);
                }
            });
            for least in [1, 500, 2500] {
                while written.load(SeqCst) < least {
                    std::thread::yield_now();
                }
                session.prepare().unwrap();
            }
            stop.store(true, SeqCst);
        });
        let now = machine.contents();
        let frozen = session.freeze(Scope::Changed).unwrap();
        (0..PAGES[0]).for_each(|page| machine.write(0, page, 100 + round));
        for (block, pages) in PAGES.into_iter().enumerate() {
            let mut kept = vec![0; pages * PAGE];
            session.take_frozen(block, 0, &mut kept).unwrap();
            for page in 0..pages {
                let bytes = page * PAGE..(page + 1) * PAGE;
                let is_frozen = frozen.units[block].get(page);
                assert!(
                    !is_frozen || kept[bytes.clone()] == now[block][bytes.clone()],
                    "page {page} of block {block} in round {round}"
                );
                let same = now[block][bytes.clone()] == before[block][bytes];
                assert!(same || is_frozen, "page {page} of block {block} in round {round}");
            }
        }
        session.thaw(&frozen, Some(saved()));
        before = now;
    }
    session.end_log();
    machine.ram.end_session(&session);
    assert!(!machine.is_tracked());
}
