// SPDX-License-Identifier: LGPL-2.1-or-later
//! Blocks that are added, removed, shared, or overlap.

use super::*;

#[test]
fn blocks_come_and_go_only_between_migrations() {
    let machine = Machine::new(&[4]);
    let memory = OwnMemory::new(PAGE).unwrap();
    let file = MigFile::new(Arc::new(memory::Writer::new()), true);
    machine.ram.save_setup(&file, false).unwrap();
    assert_eq!(machine.ram.add_block(info("new", &memory)).unwrap_err().errno(), libc::EBUSY);
    assert_eq!(machine.ram.remove_block(b"a").unwrap_err().errno(), libc::EBUSY);
    assert_eq!(machine.ram.close().unwrap_err().errno(), libc::EBUSY);
    assert_eq!(machine.ram.save_setup(&file, false).unwrap_err().errno(), libc::EBUSY);
    machine.ram.save_cleanup();
    machine.ram.add_block(info("new", &memory)).unwrap();
    assert_eq!(machine.ram.add_block(info("new", &memory)).unwrap_err().errno(), libc::EEXIST);
    let vm = machine.ram.vm().unwrap();
    vm.slot.acquire("an outgoing migration").unwrap();
    assert_eq!(machine.ram.close().unwrap_err().errno(), libc::EBUSY, "a migration begins, and has not reached setup");
    vm.slot.release();
    machine.ram.remove_block(b"new").unwrap();
    assert_eq!(machine.ram.remove_block(b"new").unwrap_err().errno(), libc::ENOENT);
    for (name, wrong) in [("", "0 bytes"), (&*"n".repeat(256), "256 bytes")] {
        assert!(machine.ram.add_block(info(name, &memory)).unwrap_err().message().contains(wrong));
    }
    let mut odd = info("odd", &memory);
    odd.page_size = 2 << 20;
    assert!(machine.ram.add_block(odd).unwrap_err().message().contains("not a multiple"));
    machine.ram.close().unwrap();
    assert!(machine.vm.registry.is_empty());
    // A phase that was called before may come late.
    assert_eq!(machine.ram.save_setup(&file, false).unwrap_err().errno(), libc::ENODEV);
    assert_eq!(machine.ram.load_setup().unwrap_err().errno(), libc::ENODEV);
    assert_eq!(machine.ram.add_block(info("new", &memory)).unwrap_err().errno(), libc::ENODEV);
}

#[test]
fn blocks_that_overlap_are_refused_with_both_names() {
    let machine = Machine::new(&[]);
    let (memory, other) = (OwnMemory::new(8 * PAGE).unwrap(), OwnMemory::new(8 * PAGE).unwrap());
    let part = |name: &str, start: usize, pages| {
        let memory = memory.memory().part(start * PAGE, pages * PAGE);
        BlockInfo { memory, ..info(name, &other) }
    };
    machine.ram.add_block(part("middle", 2, 4)).unwrap();
    for (start, pages) in [(0, 3), (5, 1), (2, 4), (0, 8), (3, 1)] {
        let error = machine.ram.add_block(part("new", start, pages)).unwrap_err();
        assert_eq!(error.errno(), libc::EINVAL);
        assert!(error.message().contains("block 'new'") && error.message().contains("overlaps block 'middle'"));
    }
    machine.ram.add_block(part("before", 0, 2)).unwrap();
    machine.ram.add_block(part("behind", 6, 2)).unwrap();
    let shared = |name: &str, start: usize, guest_address| BlockInfo {
        shared: true,
        guest_address,
        memory: other.memory().part(start * PAGE, PAGE),
        ..info(name, &other)
    };
    machine.ram.add_block(shared("s", 0, 0x1000)).unwrap();
    machine.ram.add_block(shared("t", 1, 0x2000)).unwrap();
    let error = machine.ram.add_block(shared("u", 2, 0x1fff)).unwrap_err();
    assert!(error.message().contains("guest address 0x1fff") && error.message().contains("overlaps block 's'"));
    for name in ["v", "w"] {
        // Addresses that were not given.
        machine.ram.remove_block(if name == "v" { b"s" } else { b"t" }).unwrap();
    }
    machine.ram.add_block(shared("v", 3, 0)).unwrap();
    machine.ram.add_block(shared("w", 4, 0)).unwrap();
}

#[test]
fn an_error_of_userfaultfd_says_what_to_do() {
    let text = |errno| {
        let error = io::Error::from_raw_os_error(errno);
        crate::ram::userfault_error("logging dirty pages", "asynchronous write protection (Linux 6.7)", &error)
    };
    for errno in [libc::EPERM, libc::EACCES] {
        let error = text(errno);
        assert_eq!(error.errno(), errno);
        assert!(error.message().contains("/dev/userfaultfd") && error.message().contains("CAP_SYS_PTRACE"));
    }
    let error = text(libc::EINVAL);
    assert!(error.message().contains("lacks asynchronous write protection (Linux 6.7)"), "{error}");
    assert!(text(libc::EMFILE).message().ends_with("Too many open files"));
}

#[test]
fn blocks_change_beside_setups_without_a_deadlock() {
    let machine = Machine::new(&[4]);
    let memory = OwnMemory::new(PAGE).unwrap();
    let (mut changed, mut refused) = (0, 0);
    thread::scope(|scope| {
        let saves = scope.spawn(|| {
            for _ in 0..2000 {
                let file = MigFile::new(Arc::new(memory::Writer::new()), true);
                machine.ram.save_setup(&file, false).unwrap();
                machine.ram.save_cleanup();
            }
        });
        while !saves.is_finished() {
            match machine.ram.add_block(info("new", &memory)) {
                Ok(()) => changed += 1,
                Err(error) => {
                    assert_eq!(error.errno(), libc::EBUSY);
                    refused += 1;
                    continue;
                }
            }
            while machine.ram.remove_block(b"new").is_err() {}
        }
    });
    println!("blocks changed {changed} times, refused {refused} times");
}

#[test]
fn shared_blocks_are_named_but_not_sent() {
    let options = Options { log: Log::Marks, ignore_shared: true, ..Options::default() };
    let shared = |address| {
        let machine = Machine::with(&[4], options);
        let memory = OwnMemory::new(2 * PAGE).unwrap();
        let info = BlockInfo { shared: true, guest_address: address, ..info("s", &memory) };
        machine.ram.add_block(info).unwrap();
        Machine { memories: machine.memories.into_iter().chain([memory]).collect(), ..machine }
    };
    let (source, target, moved) = (shared(0x1000), shared(0x1000), shared(0x2000));
    source.write(0, 0, b"sent");
    source.write(1, 0, b"not sent");
    let stream = save(&source, || source.write(1, 0, b"nor now"));
    target.load(&stream).unwrap();
    assert!(source.content(0) == target.content(0) && target.content(1) == vec![0; 2 * PAGE]);
    let error = moved.load(&stream).unwrap_err();
    assert!(error.message().contains("block 's'") && error.message().contains("0x1000"), "{error}");
}

#[test]
fn request_for_pages_of_a_shared_block_is_checked_in_lock_order() {
    for ignore_shared in [true, false] {
        let machine = Machine::with(&[4], Options { ignore_shared, ..Options::default() });
        let memory = OwnMemory::new(2 * PAGE).unwrap();
        machine.ram.add_block(BlockInfo { shared: true, ..info("s", &memory) }).unwrap();
        let result = machine.ram.request(Some(b"s"), 0, PAGE as u32);
        match ignore_shared {
            true => assert!(result.unwrap_err().message().contains("which both sides share")),
            false => result.unwrap(),
        }
    }
}
