// SPDX-License-Identifier: LGPL-2.1-or-later
//! Memory that is prepared ahead of a run, and the pages of a postcopy that are missing, zero or unreadable.

use super::*;

/// Bytes of the memory that are present, as the kernel lists them.
fn present(memory: &OwnMemory) -> usize {
    let mut entries = vec![0; 8 * (memory.memory().len() / PAGE)];
    let list = File::open("/proc/self/pagemap").unwrap();
    list.read_exact_at(&mut entries, 8 * (memory.memory().address() / PAGE) as u64).unwrap();
    let is_present = |entry: &&[u8]| u64::from_ne_bytes((*entry).try_into().unwrap()) >> 63 == 1;
    PAGE * entries.chunks_exact(8).filter(is_present).count()
}

/// A run of so many pages, long enough for memory to be prepared beside it.
const RUN: usize = 8000;

fn long_run() -> Vec<u8> {
    let record = |page: usize| [word((page * PAGE) as u64 | wire::PAGE | wire::CONTINUE), vec![1; PAGE]].concat();
    let first = [word(wire::PAGE), name("a"), vec![1; PAGE]].concat();
    std::iter::once(first).chain((1..RUN).map(record)).chain([word(wire::EOS)]).collect::<Vec<_>>().concat()
}

#[test]
fn memory_is_prepared_for_a_run_but_never_more_than_came() {
    let machine = Machine::new(&[2 * RUN]);
    machine.memories[0].memory().allow_huge(false);
    machine.load_records(&long_run()).unwrap();
    let present = present(&machine.memories[0]);
    assert!((RUN * PAGE..=2 * RUN * PAGE).contains(&present), "{present:#x} bytes");
    assert!(machine.content(0)[..RUN * PAGE] == [1; PAGE].repeat(RUN));
}

/// Threads of this program that prepare memory.
fn prefault_threads() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    threads
        .filter(|thread| {
            std::fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name == "savevm-prefault\n")
        })
        .count()
}

#[test]
fn a_load_without_a_setup_leaves_nobody_who_touches_memory() {
    let machine = Machine::new(&[2 * RUN]);
    machine.ram.load(&MigFile::new(Arc::new(memory::Reader::new(long_run())), false)).unwrap();
    // Other tests have theirs, for as long as a load takes, and may start one at any time.
    let since = Instant::now();
    while prefault_threads() > 0 {
        assert!(since.elapsed() < Duration::from_secs(60), "a thread stays");
        thread::sleep(Duration::from_millis(1));
    }
    machine.ram.remove_block(b"a").unwrap();
}

/// Ignores requests for pages.
struct IgnoresRequests;

impl PageSource for IgnoresRequests {
    fn request_pages(&self, _block: &[u8], _start: u64, _len: u32) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn what_was_prepared_is_missing_all_the_same_in_postcopy() {
    let machine = Machine::new(&[2 * RUN]);
    machine.memories[0].memory().allow_huge(true);
    machine.ram.load_setup().unwrap();
    if let Err(error) = machine.ram.advised() {
        machine.ram.load_cleanup();
        return eprintln!("SKIPPED: {error}");
    }
    machine.ram.load(&MigFile::new(Arc::new(memory::Reader::new(long_run())), false)).unwrap();
    machine.ram.start_faults(Arc::new(IgnoresRequests)).unwrap();
    assert_eq!(present(&machine.memories[0]), RUN * PAGE);
    machine.ram.load_cleanup();
}

/// A machine in postcopy whose first page arrived and whose other seven pages are missing.
fn listening() -> Option<Machine> {
    let machine = Machine::new(&[8]);
    machine.ram.load_setup().unwrap();
    if let Err(error) = machine.ram.advised() {
        machine.ram.load_cleanup();
        eprintln!("SKIPPED: {error}");
        return None;
    }
    machine.write(0, 0, b"here");
    machine.ram.blocks()[0].received.set(0, 1);
    machine.ram.start_faults(Arc::new(IgnoresRequests)).unwrap();
    Some(machine)
}

/// Records of the pages of block "a": `None` is a zero page, else a page of this byte.
fn records(pages: impl IntoIterator<Item = (usize, Option<u8>)>) -> Vec<u8> {
    let mut stream = Vec::new();
    for (count, (page, byte)) in pages.into_iter().enumerate() {
        let kind = if byte.is_some() { wire::PAGE } else { wire::ZERO };
        let again = if count > 0 { wire::CONTINUE } else { 0 };
        stream.extend(((page * PAGE) as u64 | kind | again).to_be_bytes());
        if count == 0 {
            stream.extend(b"\x01a");
        }
        stream.extend(byte.map_or(vec![0], |byte| vec![byte; PAGE]));
    }
    stream.extend(wire::EOS.to_be_bytes());
    stream
}

fn feed(machine: &Machine, records: Vec<u8>) {
    machine.ram.load(&MigFile::new(Arc::new(memory::Reader::new(records)), false)).unwrap();
}

#[test]
fn zero_pages_of_a_postcopy_take_no_memory_and_are_there_when_touched() {
    let Some(machine) = listening() else { return };
    let before = present(&machine.memories[0]);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| read_page(&machine, 3));
        let faults = machine.ram.faults().unwrap();
        let since = Instant::now();
        while !faults.is_waiting(0, 3 * PAGE) && since.elapsed() < Duration::from_secs(60) {
            thread::yield_now();
        }
        feed(&machine, records((1..7).map(|page| (page, None))));
        assert_eq!(waiting.join().unwrap().unwrap(), 0);
    });
    // Pages 4 to 6 had not arrived when page 3 was put in place.
    assert_eq!(present(&machine.memories[0]), before + PAGE);
    // A fault in page 4 also places pages 5 and 6, after the thread that waits for page 4 was woken.
    assert_eq!(read_page(&machine, 4).unwrap(), 0);
    let since = Instant::now();
    while present(&machine.memories[0]) < before + 4 * PAGE && since.elapsed() < Duration::from_secs(60) {
        thread::yield_now();
    }
    assert_eq!(present(&machine.memories[0]), before + 4 * PAGE);
    (0..7).for_each(|page| assert_eq!(read_page(&machine, page).unwrap(), if page == 0 { b'h' } else { 0 }));
    feed(&machine, records([(7, Some(9))]));
    assert_eq!(read_page(&machine, 7).unwrap(), 9);
    machine.ram.stop_faults(true);
    assert!(machine.content(0)[PAGE..7 * PAGE].iter().all(|byte| *byte == 0));
    machine.ram.load_cleanup();
}

#[test]
fn zero_pages_behind_pages_that_were_read_ahead_are_zero() {
    let machine = Machine::new(&[64]);
    machine.ram.load_setup().unwrap();
    if let Err(error) = machine.ram.advised() {
        machine.ram.load_cleanup();
        return eprintln!("SKIPPED: {error}");
    }
    let pages: Vec<_> = (0..64).map(|page| (page, (page % 11 < 8).then_some(page as u8 + 1))).collect();
    feed(&machine, records(pages.clone()));
    for (page, byte) in pages {
        assert!(machine.content(0)[page * PAGE..][..PAGE] == vec![byte.unwrap_or(0); PAGE], "page {page}");
    }
    machine.ram.load_cleanup();
}

#[test]
fn pages_that_the_source_never_used_are_sent_without_being_mapped() {
    let source = Machine::new(&[200]);
    source.memories[0].memory().allow_huge(false);
    source.write(0, 70 * PAGE, b"used");
    let target = Machine::new(&[200]);
    target.load(&save(&source, || source.write(0, 150 * PAGE, b"late"))).unwrap();
    assert!(source.content(0) == target.content(0));
    let counters = &source.ram.counters;
    assert_eq!(counters.normal.load(Relaxed), 2);
    assert!(counters.zero.load(Relaxed) >= 199);
}

/// What a system call that reads the page in this machine's memory returns.
fn read_page(machine: &Machine, page: usize) -> io::Result<u8> {
    let (reader, writer) = io::pipe().unwrap();
    let pieces = [machine.memories[0].memory().piece(page * PAGE, 1)];
    crate::sys::write_fd(writer.as_fd(), &pieces)?;
    let mut byte = [0; 1];
    crate::sys::read_fd(reader.as_fd(), Span::from_slice(&mut byte))?;
    Ok(byte[0])
}

#[test]
fn threads_wait_for_pages_of_an_aborted_postcopy_until_the_guest_is_stopped() {
    let Some(machine) = listening() else { return };
    thread::scope(|scope| {
        let waiting = scope.spawn(|| read_page(&machine, 3));
        machine.ram.abort_faults(Duration::from_secs(60));
        thread::sleep(Duration::from_millis(100));
        assert!(!waiting.is_finished());
        assert_eq!(read_page(&machine, 0).unwrap(), b'h');
        machine.ram.stop_faults(true);
        assert_eq!(waiting.join().unwrap().unwrap(), 0);
    });
    machine.ram.load_cleanup();
}

#[test]
fn missing_pages_of_a_guest_that_does_not_stop_become_unreadable() {
    let unreadable = |machine: &Machine, page| {
        assert_eq!(read_page(machine, page).unwrap_err().raw_os_error(), Some(libc::EFAULT));
    };
    for stopped in [false, true] {
        let Some(machine) = listening() else { return };
        thread::scope(|scope| {
            let waiting = scope.spawn(|| unreadable(&machine, 3));
            machine.ram.abort_faults(Duration::from_millis(50));
            waiting.join().unwrap();
        });
        machine.ram.stop_faults(stopped);
        if !stopped {
            machine.ram.load_cleanup();
            (1..8).for_each(|page| unreadable(&machine, page));
            assert_eq!(read_page(&machine, 0).unwrap(), b'h');
            // Another load needs the memory.
            machine.ram.load_setup().unwrap();
        }
        assert_eq!(read_page(&machine, 3).unwrap(), 0);
        machine.ram.load_cleanup();
    }
}

#[test]
fn memory_that_is_removed_after_a_failed_postcopy_is_readable() {
    let Some(machine) = listening() else { return };
    machine.ram.stop_faults(false);
    assert!(read_page(&machine, 7).is_err());
    machine.ram.load_cleanup();
    machine.ram.remove_block(b"a").unwrap();
    assert_eq!(read_page(&machine, 7).unwrap(), 0);
}

/// Whether the kernel may not make huge pages of the memory, as it lists that.
fn forbids_huge(memory: &OwnMemory) -> bool {
    let (maps, address) = (std::fs::read_to_string("/proc/self/smaps").unwrap(), memory.memory().address());
    let number = |text: &str| usize::from_str_radix(text, 16).ok();
    let range =
        |line: &str| line.split_once(' ')?.0.split_once('-').and_then(|(from, to)| Some(number(from)?..number(to)?));
    let here = maps.lines().skip_while(|line| !range(line).is_some_and(|range| range.contains(&address)));
    let flags = here.into_iter().find(|line| line.starts_with("VmFlags:")).unwrap();
    flags.split_whitespace().any(|flag| flag == "nh")
}

#[test]
fn huge_pages_are_forbidden_only_while_pages_can_be_missing() {
    let machine = Machine::new(&[4]);
    for (listens, what) in [(false, "postcopy that could have come"), (true, "postcopy")] {
        machine.ram.load_setup().unwrap();
        if let Err(error) = machine.ram.advised() {
            machine.ram.load_cleanup();
            return eprintln!("SKIPPED: {error}");
        }
        if listens {
            machine.ram.start_faults(Arc::new(IgnoresRequests)).unwrap();
        }
        assert_eq!(forbids_huge(&machine.memories[0]), listens, "during {what}");
        machine.ram.load_cleanup();
        assert!(!forbids_huge(&machine.memories[0]), "after {what}");
    }
}

#[test]
fn the_switch_to_postcopy_writes_no_section_before_the_discards() {
    let machine = Machine::new(&[8]);
    let writer = Arc::new(memory::Writer::new());
    let file = MigFile::new(writer.clone(), true);
    machine.vm.set_flags(crate::savevm::host::Flags::POSTCOPY_RAM, true);
    save::header(&machine.vm, &file);
    save::setup(&machine.vm, &file).unwrap();
    file.flush();
    let before = writer.len();
    save::postcopy_prepare(&machine.vm, &file).unwrap();
    file.flush();
    assert_eq!(writer.len(), before, "an empty section can't be loaded");
    save::cleanup(&machine.vm);
}
