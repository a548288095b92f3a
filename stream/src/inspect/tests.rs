// SPDX-License-Identifier: LGPL-2.1-or-later
//! Tests that build whole streams and read them.

use std::io;

use proptest::prelude::*;

use super::*;
use crate::testing::{Builder, Ram, fields, flag, small};

fn piped(bytes: &[u8]) -> Stream {
    read(ReadSource::new(bytes), Options::default(), &mut Unwatched).unwrap()
}

fn whole(bytes: &[u8]) -> Stream {
    let stream = read_slice(bytes, Options::default());
    assert!(stream.damage.is_none(), "{}", stream.damage.unwrap());
    stream
}

fn names(stream: &Stream) -> Vec<String> {
    stream.sections().map(|(_, section)| format!("{} {}", section.kind.name(), section.device.name)).collect()
}

#[test]
fn read_finds_every_item() {
    let bytes = small(true);
    let stream = whole(&bytes);
    assert_eq!(stream.machine(), Some("pc-i440fx-7.2"));
    assert_eq!((stream.length, stream.trailing, stream.complete), (bytes.len() as u64, 0, true));
    let expected = "start ram, start spapr/htab, part ram, part spapr/htab, end ram, end spapr/htab, full timer, \
                    full cpu, full cpu, full serial";
    assert_eq!(names(&stream).join(", "), expected);
    let counts: Vec<_> = stream.ram.blocks.iter().map(|block| block.counts().map(|(_, count)| count.pages)).collect();
    assert_eq!(counts, [[1, 2, 1, 0], [2, 0, 0, 0]]);
    assert!(stream.devices().all(|(_, section)| section.framing == Framing::Described));
    let sizes: u64 = stream.items.iter().map(|item| item.size).sum();
    assert_eq!(sizes, stream.length, "every byte belongs to something");
}

#[test]
fn pipe_and_memory_give_equal_models() {
    for described in [true, false] {
        let bytes = small(described);
        let (a, b) = (whole(&bytes), piped(&bytes));
        assert_eq!(format!("{:?}", a.ram.blocks), format!("{:?}", b.ram.blocks));
        let places = |stream: &Stream| stream.items.iter().map(|item| (item.offset, item.size)).collect::<Vec<_>>();
        assert_eq!(places(&a), places(&b));
        let data = |stream: &Stream| stream.devices().map(|(_, section)| section.data.clone()).collect::<Vec<_>>();
        assert_eq!(data(&a), data(&b));
    }
}

#[test]
fn analyze_document_matches_qemus_script() {
    let mut out = Vec::new();
    write_analyze(&whole(&small(true)), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(
        text.contains("\"ram (2)\": {\n        \"section sizes\": {\n            \"pc.ram\": \"0x0000000000008000\",")
    );
    assert!(text.contains("\"spapr/htab (3)\": \"\""));
    assert!(text.contains("\"cpu (6)\": {\n        \"eip\": \"0x0000fff1\",\n        \"halted\": true,"));
    assert!(text.contains("\"lcr\": \"0x03\",\n        \"serial/fifo\": {\n            \"n\": \"0xfffe (-2)\""));
}

#[test]
fn json_document_can_be_parsed() {
    for bytes in [small(true), small(false), small(true)[..5000].to_vec(), Vec::new()] {
        let text = to_json(&bytes, Options::default());
        let json = json::Json::parse(text.as_bytes(), &mut Budget::default()).unwrap();
        assert_eq!(json.get("savevm-inspect").and_then(json::Json::as_u64), Some(1));
    }
}

#[test]
fn cut_at_any_byte_is_reported_there() {
    let bytes = small(true);
    let complete = bytes.len() - bytes.iter().rev().position(|byte| *byte == 0).unwrap();
    for end in 0..bytes.len() {
        for stream in [read_slice(&bytes[..end], Options::default()), piped(&bytes[..end])] {
            let Some(damage) = &stream.damage else {
                // After EOF only the description can be missing.
                assert!(end + 5 >= complete && stream.complete, "cut at {end}");
                continue;
            };
            assert!(damage.offset <= end as u64, "cut at {end}: {damage}");
            assert!(damage.cut || damage.section.is_some() || stream.complete, "cut at {end}: {damage}");
            assert_eq!(stream.length, end as u64);
            let good = stream.devices().last().map(|(_, section)| &section.device);
            assert_eq!(damage.last_good.as_ref(), good);
        }
    }
}

#[test]
fn flipped_bit_causes_no_panic() {
    let bytes = small(true);
    for bit in 0..bytes.len() * 8 {
        // Pages have no structure, so one byte in a hundred is enough.
        if (0x200..0x2100).contains(&(bit / 8)) && bit / 8 % 100 != 0 {
            continue;
        }
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let stream = read_slice(&flipped, Options::default());
        write_analyze(&stream, std::io::sink()).unwrap();
        write_json(&stream, |_| true, std::io::sink()).unwrap();
        piped(&flipped);
    }
}

#[test]
fn stream_without_footers_is_read() {
    let mut stream = Builder::new();
    stream.footers = false;
    let start = Ram::default().blocks(&[("pc.ram", 0x1000)]).end();
    stream.named(1, 2, "ram", 0, 4, &start).further(3, 2, &Ram::default().zero(0, Some("pc.ram")).end());
    stream.device(5, "cpu_common", 0, &[0; 8], &fields("cpu_common", &[("x", "uint64", 8)]));
    stream.device(4, "i8259", 0, &[4; 3], &fields("i8259", &[("y", "buffer", 3)]));
    for described in [true, false] {
        let bytes = stream.clone().finish(described);
        let read = whole(&bytes);
        assert_eq!(read.footers, Some(false));
        assert_eq!(names(&read)[2..], ["full cpu_common", "full i8259"]);
        assert_eq!(names(&piped(&bytes)), names(&read));
        assert_eq!(read.machine(), None);
    }
}

#[test]
fn package_is_read_as_a_nested_stream() {
    let mut inner = Builder::new();
    inner.bytes.clear();
    inner
        .command(4, &[])
        .named(4, 7, "cpu", 0, 12, &[0x7e; 40])
        .named(4, 8, "apic", 1, 3, &[0, 0, 0, 8])
        .command(5, &[]);
    let mut stream = Builder::new();
    let start = Ram::default().blocks(&[("pc.ram", 0x2000)]).end();
    stream.configuration("pc").command(3, &[&0x1000u64.to_be_bytes()[..], &0x1000u64.to_be_bytes()].concat());
    stream.named(1, 2, "ram", 0, 4, &start);
    let discard = [&[0, 6][..], b"pc.ram\0", &[0; 8], &0x1000u64.to_be_bytes()].concat();
    stream.command(6, &discard).command(7, &(inner.bytes.len() as u32).to_be_bytes()).raw(&inner.bytes);
    stream.further(2, 2, &Ram::default().zero(0x1000, Some("pc.ram")).end());
    let bytes = stream.finish(false);
    for read in [whole(&bytes), piped(&bytes)] {
        assert!(read.damage.is_none());
        assert_eq!(names(&read), ["start ram", "full cpu", "full apic", "part ram"]);
        assert_eq!(read.ram.page_size, Some((4096, PageSizeFrom::Advise)));
        let depths: Vec<_> = read.items.iter().map(|item| item.depth).collect();
        assert_eq!(depths, [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0]);
        let package = &read.items[5];
        assert_eq!(package.size, 1 + 2 + 2 + 4 + inner.bytes.len() as u64);
        let detail = |at: usize| match &read.items[at].kind {
            ItemKind::Command(command) => command.detail.clone(),
            _ => String::new(),
        };
        assert_eq!(detail(4), "'pc.ram', 1 range, 4096 bytes");
    }
    // A package that ends within a section is damaged, not cut.
    let mut stream = Builder::new();
    stream.command(7, &10u32.to_be_bytes()).raw(&inner.bytes);
    let damage = read_slice(&stream.finish(false), Options::default()).damage.unwrap();
    assert!(!damage.cut && damage.found == "the end of the package", "{damage}");
}

#[test]
fn page_size_is_inferred_from_the_pages() {
    for page_size in [256u64, 1024, 2048, 4096, 8192, 16384, 65536] {
        let page = vec![0x5a; page_size as usize];
        let start = Ram::default().blocks(&[("ram", 8 * page_size)]).end();
        let zeroes = Ram::default().zero(0, Some("ram")).zero(page_size, None).zero(2 * page_size, None).end();
        let pages = Ram::default().page(3 * page_size, Some("ram"), &page).page(4 * page_size, None, &page).end();
        for parts in [[&zeroes, &pages], [&pages, &zeroes]] {
            let mut stream = Builder::new();
            stream.named(1, 1, "ram", 0, 4, &start).further(2, 1, parts[0]).further(3, 1, parts[1]);
            let read = whole(&stream.finish(false));
            assert_eq!(read.ram.page_size, Some((page_size, PageSizeFrom::Pages)));
            assert_eq!((read.ram.blocks[0].zero.pages, read.ram.blocks[0].plain.pages), (3, 2));
        }
    }
}

/// Address of each page of one byte, and offset of the end of its record.
#[derive(Default)]
struct Fills(Vec<(u64, u64)>);

impl Visitor for Fills {
    fn page(&mut self, _: &Block, address: u64, page: Page<'_>, offset: u64) -> io::Result<()> {
        assert_eq!(page, Page::Fill(0, 4096));
        self.0.push((address, offset));
        Ok(())
    }
}

#[test]
fn zero_pages_are_counted_up_to_the_first_invalid_one() {
    const GOOD: u64 = 1500;
    let ram = Ram::default().blocks(&[("ram", GOOD << 12)]);
    // One page after the block, then a page that would be valid.
    let pages = (1..=GOOD).chain([1]).fold(ram.zero(0, Some("ram")), |ram, page| ram.zero(page << 12, None));
    let mut stream = Builder::new();
    stream.named(1, 1, "ram", 0, 4, &pages.end());
    let bytes = stream.finish(false);
    let options = Options { page_size: Some(4096), ..Options::default() };
    let (mut from_memory, mut from_pipe) = (Fills::default(), Fills::default());
    let whole = read_whole(&bytes, options.clone(), &mut from_memory).unwrap();
    let piped = read(ReadSource::new(&bytes[..]), options, &mut from_pipe).unwrap();
    for (read, Fills(seen)) in [(whole, from_memory), (piped, from_pipe)] {
        assert_eq!(read.ram.blocks[0].zero.pages, GOOD);
        let first = seen[0].1;
        assert_eq!(read.ram.blocks[0].zero.bytes, 9 * GOOD + 4, "the first names the block");
        assert_eq!(seen[1].1, first + 9 + 4);
        assert!(seen.windows(2).skip(1).all(|pair| pair[1] == (pair[0].0 + 4096, pair[0].1 + 9)));
        let damage = read.damage.unwrap();
        assert_eq!(damage.offset, seen.last().unwrap().1 + 9);
        assert!(damage.expected.contains("a page within the 0x5dc000 bytes of 'ram'"), "{damage}");
    }
}

#[test]
fn page_at_the_highest_address_is_damage() {
    for start in [Ram::default().blocks(&[("ram", 4096)]), Ram::default()] {
        let mut stream = Builder::new();
        stream.named(1, 1, "ram", 0, 4, &start.zero(!0xfff, Some("ram")).end());
        assert!(read_slice(&stream.finish(false), Options::default()).damage.is_some());
    }
}

#[test]
fn list_of_blocks_may_have_page_sizes_and_addresses() {
    let capabilities = |name: &str| {
        let mut contents = 1u32.to_be_bytes().to_vec();
        contents.push(name.len() as u8);
        contents.extend(name.as_bytes());
        Builder::subsection("configuration/capabilities", 1, &contents)
    };
    let read = |capability: Option<&str>, blocks: Vec<u8>| {
        let mut stream = Builder::new();
        stream.configuration("pc");
        if let Some(capability) = capability {
            stream.raw(&capabilities(capability));
        }
        stream.named(1, 1, "ram", 0, 4, &blocks);
        whole(&stream.finish(false)).ram
    };
    // Postcopy with huge pages: the length is followed by a page size if the block has one.
    let mut huge = Ram::default().blocks(&[("a", 0x400000)]).word(0x200000);
    huge.0[..8].copy_from_slice(&(0x600000 | flag::MEM_SIZE).to_be_bytes());
    huge.0.extend(b"\x01b");
    let ram = read(None, huge.word(0x200000).end());
    assert_eq!(ram.blocks.iter().map(|block| block.page_size).collect::<Vec<_>>(), [Some(0x200000), None]);
    // Shared memory is not sent: an address follows, which may look like a page size.
    let ram = read(Some("x-ignore-shared"), Ram::default().blocks(&[("a", 0x1000)]).word(0x100000).end());
    assert_eq!((ram.blocks[0].address, ram.blocks[0].page_size), (Some(0x100000), None));
}

#[test]
fn mapped_pages_are_read_at_their_offsets() {
    let mut stream = Builder::new();
    let contents = [&1u32.to_be_bytes()[..], b"\x0amapped-ram"].concat();
    stream.configuration("pc").raw(&Builder::subsection("configuration/capabilities", 1, &contents));
    stream.raw(&[1, 0, 0, 0, 2, 3]).raw(b"ram").raw(&[0, 0, 0, 0, 0, 0, 0, 4]);
    stream.raw(&Ram::default().blocks(&[("pc.ram", 0x3000)]).0);
    let (bitmap, pages) = (stream.bytes.len() as u64 + 28, 0x1000u64);
    stream.raw(&1u32.to_be_bytes()).raw(&4096u64.to_be_bytes()).raw(&bitmap.to_be_bytes()).raw(&pages.to_be_bytes());
    stream.raw(&[0b101, 0, 0, 0, 0, 0, 0, 0]);
    stream.bytes.resize(0x1000, 0);
    stream.raw(&[1; 0x1000]).raw(&[0; 0x1000]).raw(&[3; 0x1000]).raw(&flag::EOS.to_be_bytes()).raw(&[0x7e, 0, 0, 0, 2]);
    let bytes = stream.further(3, 2, &Ram::default().end()).finish(false);

    struct Seen(Vec<(u64, bool)>);
    impl Visitor for Seen {
        const WANTS_PAGES: bool = true;
        fn page(&mut self, _: &Block, address: u64, page: Page<'_>, offset: u64) -> std::io::Result<()> {
            assert_eq!(offset, 0x1000 + address);
            self.0.push((address, matches!(page, Page::Plain(bytes) if bytes[0] == 1 + (address >> 12) as u8)));
            Ok(())
        }
    }
    let mut seen = Seen(Vec::new());
    let read = read_whole(&bytes, Options::default(), &mut seen).unwrap();
    assert!(read.damage.is_none(), "{}", read.damage.unwrap());
    assert_eq!(seen.0, [(0, true), (0x1000, false), (0x2000, true)]);
    let block = &whole(&bytes).ram.blocks[0];
    assert_eq!((block.plain.pages, block.zero.pages), (2, 1));
    // An offset that points backwards must not cause an endless loop.
    let mut backwards = bytes.clone();
    backwards[bitmap as usize - 8..bitmap as usize].copy_from_slice(&5u64.to_be_bytes());
    assert!(read_slice(&backwards, Options::default()).damage.is_some());
}

#[test]
fn devices_of_one_name_have_their_own_layouts() {
    let mut stream = Builder::new();
    stream.device(1, "ide", 0, &[1], &fields("ide", &[("a", "uint8", 1)]));
    stream.device(2, "ide", 0, &[2, 3], &fields("ide", &[("b", "uint16", 2)]));
    let read = whole(&stream.finish(true));
    let sizes: Vec<_> = read.devices().map(|(_, section)| read.layout(section).map(|layout| layout.size)).collect();
    assert_eq!(sizes, [Some(1), Some(2)]);
}

#[test]
fn device_without_footer_is_cut_or_damaged() {
    let mut stream = Builder::new();
    stream.device(1, "first", 0, &[9; 10], &fields("first", &[("a", "buffer", 10)]));
    stream.device(2, "last", 0, &[9; 100], &fields("last", &[("a", "buffer", 60)]));
    let mut bytes = stream.finish(true);
    let last =
        whole(&bytes).devices().last().map(|(item, section)| (section.payload, item.offset + item.size)).unwrap();
    let damage = read_slice(&bytes[..last.0 as usize + 70], Options::default()).damage.unwrap();
    assert!(damage.cut && damage.offset == last.0 && damage.found == "the end of the stream", "{damage}");
    assert_eq!(damage.last_good.map(|device| device.name.to_string()).as_deref(), Some("first"));
    bytes[last.1 as usize - 1] ^= 1;
    let damage = read_slice(&bytes, Options::default()).damage.unwrap();
    assert!(!damage.cut && damage.offset == last.0 && damage.expected.contains("footer of section 2"), "{damage}");
}

#[test]
fn description_of_another_stream_is_used() {
    let options = || Options { description: whole(&small(true)).description, ..Options::default() };
    let read = read_slice(&small(false), options());
    assert!(read.description_is_foreign);
    assert!(read.devices().all(|(_, section)| section.framing == Framing::Described));
    assert!(!read_slice(&small(true), options()).description_is_foreign);
}

#[test]
fn misfitting_description_leaves_other_devices_readable() {
    let mut stream = Builder::new();
    stream.device(1, "short", 0, &[9; 10], &fields("short", &[("a", "buffer", 6)]));
    stream.device(2, "long", 0, &[9; 10], &fields("long", &[("a", "buffer", 60)]));
    stream.device(3, "right", 0, &[9; 10], &fields("right", &[("a", "buffer", 10)]));
    let read = whole(&stream.finish(true));
    let framing: Vec<_> = read.devices().map(|(_, section)| section.framing).collect();
    assert_eq!(framing, [Framing::Searched, Framing::Searched, Framing::Described]);
    assert!(read.devices().all(|(_, section)| section.data.as_ref().is_some_and(|data| data.len() == 10)));
}

#[test]
fn memory_stays_within_the_budget() {
    let read = |bytes: &[u8]| {
        let options = || Options { budget: Budget::new(1 << 20), ..Options::default() };
        let piped = super::read(ReadSource::new(bytes), options(), &mut Unwatched).unwrap();
        for stream in [read_slice(bytes, options()), piped] {
            let damage = stream.damage.unwrap();
            assert!(damage.expected.contains("memory"), "{damage}");
        }
    };
    // Endless commands, sections, blocks, and a huge device.
    let mut stream = Builder::new();
    for _ in 0..100_000 {
        stream.command(1, &[]);
    }
    read(&stream.bytes);
    let mut stream = Builder::new();
    for id in 0..100_000 {
        stream.named(4, id, "d", id, 1, &[]);
    }
    read(&stream.bytes);
    let mut blocks = Ram::default().word(1 << 60 | flag::MEM_SIZE);
    for block in 0..100_000 {
        blocks.0.extend([5]);
        blocks.0.extend(format!("{block:05}").as_bytes());
        blocks = blocks.word(0);
    }
    let mut stream = Builder::new();
    stream.named(1, 1, "ram", 0, 4, &blocks.0);
    read(&stream.bytes);
    let mut stream = Builder::new();
    stream.named(4, 1, "huge", 0, 1, &vec![1; 4 << 20]);
    read(&stream.finish(false));
}

#[test]
fn input_without_magic_is_damage_at_zero() {
    for (bytes, expected) in [(&b"\x7fELF----"[..], "QEVM"), (b"QEVM\0\0\0\x02", "version 3"), (b"", "QEVM")] {
        let damage = read_slice(bytes, Options::default()).damage.unwrap();
        assert!(damage.expected.contains(expected), "{damage}");
    }
}

#[test]
fn schema_accepts_its_own_stream_and_reports_differences() {
    let stream = whole(&small(true));
    let mut text = Vec::new();
    compat::Schema::write(&stream, &mut text).unwrap();
    let target = || compat::Target::from_json(json::Json::parse(&text, &mut Budget::default()).unwrap()).unwrap();
    assert_eq!(target().check(&stream), []);
    let mut other = Builder::new();
    other.configuration("pc-q35-7.2").device(1, "serial", 0, &[0; 2], &fields("serial", &[("lcr", "uint16", 2)]));
    other.device(2, "new", 0, &[], &fields("new", &[]));
    let findings = target().check(&whole(&other.finish(true)));
    let errors: Vec<_> = findings.iter().filter(|finding| finding.severity == compat::Severity::Error).collect();
    let errors: Vec<_> = errors.iter().map(|finding| finding.to_string()).collect();
    assert_eq!(
        errors,
        [
            "the stream is of machine pc-q35-7.2, not pc-i440fx-7.2",
            "'serial' instance 0: lcr: of type uint16, the machine's is uint8",
            "'new' instance 0: the machine has no such device"
        ]
    );
}

#[test]
fn dump_reports_what_the_machine_does_not_read() {
    let dump = r#"{"vmschkmachine": {"Name": "pc-i440fx-7.2"}, "isa-serial": {"Name": "isa-serial", "version_id": 1,
        "minimum_version_id": 1, "Description": {"name": "serial", "version_id": 1, "minimum_version_id": 1, "Fields":
        [{"field": "lcr", "version_id": 0, "field_exists": false, "size": 1},
         {"field": "mcr", "version_id": 0, "field_exists": false, "size": 1},
         {"field": "new", "version_id": 2, "field_exists": false, "size": 1}]}}}"#;
    let json = json::Json::parse(dump.as_bytes(), &mut Budget::default()).unwrap();
    let findings = compat::Target::from_json(json).unwrap().check(&whole(&small(true)));
    let findings: Vec<_> = findings.iter().map(|finding| format!("{}: {finding}", finding.severity.name())).collect();
    assert_eq!(
        findings,
        [
            "risk: 'serial' instance 0: mcr: the stream does not have this field",
            "error: 'serial' instance 0: serial/fifo: the machine does not know this subsection",
            "note: 3 devices are not in the dump"
        ]
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_after_a_header_cause_no_panic(tail in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut bytes = Builder::new().bytes;
        bytes.extend(&tail);
        let stream = read_slice(&bytes, Options::default());
        prop_assert!(stream.length + stream.trailing <= bytes.len() as u64);
        piped(&bytes);
    }

    #[test]
    fn random_damage_causes_no_panic(
        patches in proptest::collection::vec((any::<proptest::sample::Index>(), any::<[u8; 8]>(), 1usize..8), 1..6),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = small(true);
        for (at, patch, len) in patches {
            let at = at.index(bytes.len() - len);
            bytes[at..at + len].copy_from_slice(&patch[..len]);
        }
        bytes.truncate(cut.index(bytes.len() * 2));
        let stream = read_slice(&bytes, Options { budget: Budget::new(1 << 22), ..Options::default() });
        write_analyze(&stream, std::io::sink()).unwrap();
        write_json(&stream, |_| true, std::io::sink()).unwrap();
        let _ = read(ReadSource::new(&bytes[..]), Options::default(), &mut Unwatched);
    }

    #[test]
    fn random_json_causes_no_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = json::Json::parse(&text, &mut Budget::default());
        let _ = Description::parse(&text, &mut Budget::default());
    }
}
