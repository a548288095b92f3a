// SPDX-License-Identifier: LGPL-2.1-or-later
//! Streams in files of other programs: compressed, cut, padded, behind libvirt's header, sparse.

mod support;

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};

use savevm_stream::inspect::json::Json;
use savevm_stream::testing::{Builder, Ram, small};
use support::{Place, Run, arg, json, run, run_piped};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// A libvirt header with an XML of this length.
fn libvirt(magic: &[u8; 16], format: u32, xml: u32) -> Vec<u8> {
    let mut out = magic.to_vec();
    for word in [2, xml, 1, format] {
        out.extend(word.to_le_bytes());
    }
    out.resize(16 + 4 * 19 + xml as usize, b'x');
    out
}

/// A stream of memory that hardly compresses.
fn noisy(pages: u64) -> Vec<u8> {
    let noise = |page: u64| -> Vec<u8> {
        (0..4096u64).map(|at| ((page << 12 | at).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8).collect()
    };
    let mut ram = Ram::default();
    for page in 0..pages {
        ram = ram.page(page << 12, (page == 0).then_some("ram"), &noise(page));
    }
    let mut stream = Builder::new();
    stream.named(1, 1, "ram", 0, 4, &Ram::default().blocks(&[("ram", pages << 12)]).end()).further(3, 1, &ram.end());
    stream.finish(false)
}

/// Runs the command with the file, and with the same through a pipe.
fn both_ways(place: &Place, before: &[&str], bytes: &[u8], check: impl Fn(Run)) {
    let file = place.file("input", bytes);
    check(run(&[before, &[arg(&file)]].concat()));
    check(run_piped(&[before, &["-"]].concat(), bytes));
}

#[test]
fn cut_compressed_streams_are_shown_up_to_the_cut() {
    let place = Place::new();
    let stream = noisy(200);
    for packed in [gzip(&stream), zstd::encode_all(&stream[..], 1).unwrap()] {
        let cut = &packed[..packed.len() / 2];
        both_ways(&place, &["inspect"], cut, |seen| {
            assert_eq!(seen.status, 1, "{}", seen.err);
            let place = format!("is cut off at byte {} of the file", cut.len());
            assert!(
                seen.err.contains(&place) && seen.err.contains("bytes of the stream come before it"),
                "{}",
                seen.err
            );
            assert!(seen.out.contains("cut off  "), "{}", seen.out);
            let pages = seen.out.lines().find(|line| line.starts_with("ram ")).unwrap();
            let plain: u64 = pages.split_whitespace().nth(4).unwrap().parse().unwrap();
            assert!((50..=100).contains(&plain), "{pages}");
        });
        both_ways(&place, &["inspect", "-f", "json"], cut, |seen| {
            let document = json(seen.expect(1));
            let damage = document.get("container").and_then(|container| container.get("compression")?.get("damage"));
            assert_eq!(damage.and_then(|damage| damage.get("offset")?.as_u64()), Some(cut.len() as u64));
        });
        both_ways(&place, &["check"], cut, |seen| assert!(seen.expect(1).contains("data is cut off at byte")));
    }
    // Cut behind the last byte of the stream, within the checksum.
    let packed = gzip(&small(true));
    both_ways(&place, &["inspect"], &packed[..packed.len() - 3], |seen| {
        assert!(seen.err.contains("gzip data is cut off"), "{}", seen.err);
        assert!(seen.expect(1).contains("complete"));
    });
}

#[test]
fn what_follows_compressed_data_is_noted() {
    let place = Place::new();
    let stream = small(true);
    for packed in [gzip(&stream), zstd::encode_all(&stream[..], 1).unwrap()] {
        for (tail, note) in [(vec![0; 300_000], "300000 zero bytes follow"), (b"etc".to_vec(), "3 bytes that are not")]
        {
            both_ways(&place, &["inspect"], &[&packed[..], &tail].concat(), |seen| {
                assert!(seen.err.contains(note), "{}", seen.err);
                assert!(seen.expect(0).contains("complete"));
            });
        }
    }
}

#[test]
fn wide_zstd_windows_are_read_as_far_as_memory_allows() {
    let place = Place::new();
    let mut wide = zstd::Encoder::new(Vec::new(), 1).unwrap();
    wide.window_log(28).unwrap();
    wide.include_contentsize(false).unwrap();
    wide.write_all(&small(true)).unwrap();
    let wide = wide.finish().unwrap();
    both_ways(&place, &["inspect"], &wide, |seen| drop(seen.expect(0)));
    both_ways(&place, &["inspect", "--max-memory", "200M"], &wide, |seen| {
        assert!(seen.status == 2 && seen.err.contains("256 MiB") && seen.err.contains("--max-memory"), "{}", seen.err);
    });
}

#[test]
fn xz_is_read() {
    let place = Place::new();
    let packed = include_bytes!("data/libvirt-xz.save");
    both_ways(&place, &["inspect"], packed, |seen| {
        let text = seen.expect(0);
        for wanted in ["format xz, guest was", "compression  xz", "30 devices", "complete"] {
            assert!(text.contains(wanted), "{wanted} is missing:\n{text}");
        }
    });
}

#[test]
fn advice_for_other_compressions_skips_libvirts_header() {
    let place = Place::new();
    let file = place.file("vm.save", &[&libvirt(b"LibvirtQemudSave", 2, 64)[..], b"BZh91AY"].concat());
    let seen = run(&["inspect", arg(&file)]);
    let advice = format!("tail -c +157 {} | bzip2 -dc | savevm", file.display());
    assert!(seen.status == 2 && seen.err.contains(&advice), "{}", seen.err);
}

#[test]
fn unfinished_saves_are_read_with_a_note() {
    let place = Place::new();
    let save = [libvirt(b"LibvirtQemudPart", 0, 64), small(true)].concat();
    both_ways(&place, &["inspect"], &save, |seen| {
        assert!(seen.err.contains("libvirt did not finish this save"), "{}", seen.err);
        let text = seen.expect(0);
        assert!(text.contains("unfinished save, header version 2, format raw, guest was running"), "{text}");
    });
    both_ways(&place, &["inspect", "-f", "json"], &save, |seen| {
        let document = json(seen.expect(0));
        let header = document.get("container").and_then(|container| container.get("libvirt")).unwrap();
        assert_eq!(header.get("finished"), Some(&Json::Bool(false)));
        assert_eq!(header.get("length").and_then(Json::as_u64), Some(156));
    });
    both_ways(&place, &["check", "--strict"], &save, |seen| assert!(seen.expect(1).contains("did not finish")));
}

/// A stream of mapped memory, of which the first page holds 7 and the third 9, at `base` of its file.
fn mapped(base: u64) -> Vec<u8> {
    let list = Ram::default().word(3 << 12 | 4).0;
    let mut stream = Builder::new();
    let capabilities = [&1u32.to_be_bytes()[..], b"\x0amapped-ram"].concat();
    stream.configuration("none").raw(&Builder::subsection("configuration/capabilities", 1, &capabilities));
    stream.raw(b"\x01\0\0\0\x01\x03ram\0\0\0\0\0\0\0\x04").raw(&list).raw(b"\x03ram\0\0\0\0\0\0\x30\0");
    let here = base + stream.bytes.len() as u64 + 28;
    stream.raw(&1u32.to_be_bytes()).raw(&4096u64.to_be_bytes()).raw(&here.to_be_bytes());
    let pages = (here + 8).next_multiple_of(1 << 20);
    stream.raw(&pages.to_be_bytes()).raw(&[5, 0, 0, 0, 0, 0, 0, 0]);
    stream.bytes.resize((pages - base) as usize, 0);
    stream.raw(&[7; 4096]).raw(&[0; 4096]).raw(&[9; 4096]);
    stream.raw(&Ram::default().end()).raw(&[0x7e, 0, 0, 0, 1]);
    stream.finish(false)
}

#[test]
fn places_of_mapped_memory_count_from_the_start_of_the_file() {
    let place = Place::new();
    let header = libvirt(b"LibvirtQemudSave", 6, 4000);
    let save = [&header[..], &mapped(header.len() as u64)].concat();
    let offset = [&[0xee; 5000][..], &mapped(5000)].concat();
    let image = place.path("image");
    for (bytes, more) in [(save, &[][..]), (offset, &["--offset", "5000"]), (mapped(0), &[])] {
        let extract = [&["extract", "--ram", "ram", "-o", arg(&image)], more].concat();
        both_ways(&place, &extract, &bytes, |seen| {
            assert_eq!(seen.expect(0), "ram: 12 KiB, 8,192 bytes with contents\n");
            let expected = [[7; 4096], [0; 4096], [9; 4096]].concat();
            assert!(std::fs::read(&image).unwrap() == expected);
        });
        both_ways(&place, &[&["check"], more].concat(), &bytes, |seen| drop(seen.expect(0)));
    }
}

#[test]
fn holes_behind_a_stream_are_not_read() {
    let place = Place::new();
    let path = place.file("sparse", &small(true));
    File::options().write(true).open(&path).unwrap().set_len(1 << 42).unwrap();
    let text = run(&["check", arg(&path)]).expect(0);
    assert!(text.contains("bytes follow the stream") && text.contains("4 devices"), "{text}");
    let mut tail = File::options().write(true).open(&path).unwrap();
    tail.seek(SeekFrom::Start(1 << 41)).unwrap();
    tail.write_all(b"x").unwrap();
    // The description is not at the end of the data, but is found all the same.
    assert!(run(&["inspect", arg(&path)]).expect(0).contains("vmdesc"));
    // A live device of unknown format, whose end is searched for.
    let mut stream = Builder::new();
    stream.named(1, 1, "unknown", 0, 1, &[1; 100]);
    let path = place.file("search", &stream.bytes[..stream.bytes.len() - 5]);
    let mut rest = File::options().write(true).open(&path).unwrap();
    rest.seek(SeekFrom::Start(1 << 42)).unwrap();
    rest.write_all(b"\x7e\0\0\0\x01\0").unwrap();
    assert!(run(&["inspect", arg(&path)]).expect(0).contains("unknown"));
}

#[test]
fn memory_that_is_not_in_a_stream_is_not_made_up() {
    let place = Place::new();
    let stream = |pages: &[(u64, u8)]| {
        let mut ram = Ram::default();
        for (at, (page, fill)) in pages.iter().enumerate() {
            ram = ram.page(page << 12, (at == 0).then_some("ram"), &[*fill; 4096]);
        }
        let mut stream = Builder::new();
        stream.named(1, 1, "ram", 0, 4, &Ram::default().blocks(&[("ram", 8 << 12)]).end()).further(3, 1, &ram.end());
        stream.finish(false)
    };
    let (a, b) =
        (place.file("a", &stream(&[(0, 1), (1, 2), (1, 0)])), place.file("b", &stream(&[(1, 3), (2, 4), (3, 0)])));
    let seen = run(&["diff", arg(&a), arg(&b)]);
    for wanted in [
        "RAM ram: 1 page is in stream A alone, and not compared",
        "RAM ram: 2 pages are in stream B alone, and not compared",
        "RAM ram: 1 page differs in 1 range",
    ] {
        assert!(seen.out.contains(wanted), "{wanted}:\n{}", seen.out);
    }
    assert!(seen.err.contains("not compared: 4 pages that neither stream has"), "{}", seen.err);
    assert_eq!(seen.status, 1);
    let document = json(run(&["diff", arg(&a), arg(&b), "-f", "json"]).expect(1));
    let block = &document.get("ram").unwrap().elements()[0];
    assert_eq!(["pages", "only_a", "only_b"].map(|name| block.get(name).and_then(Json::as_u64)), [1, 1, 2].map(Some));
    let same = run(&["diff", arg(&a), arg(&a)]);
    assert!(same.status == 0 && same.err.contains("6 pages that neither stream has"), "{}", same.err);
    let table = run(&["inspect", arg(&b)]).expect(0);
    assert!(table.contains("ram: 5 of 8 pages are not in this stream"), "{table}");
    let image = place.path("image");
    let seen = run(&["extract", arg(&a), "--ram", "ram", "-o", arg(&image)]);
    assert!(seen.err.contains("6 of 8 pages are not in the stream; they are zeros in the image"), "{}", seen.err);
    // The second page was filled, and then zero.
    assert_eq!(seen.expect(1), "ram: 32 KiB, 4,096 bytes with contents\n");
}

#[test]
fn guest_addresses_are_named_where_memory_is_split() {
    let place = Place::new();
    let mut cmos = vec![0; 128];
    // 2 GiB below the hole, 2 GiB above.
    cmos[0x35] = 0x7f;
    cmos[0x5c] = 0x80;
    let list = Ram::default().blocks(&[("pc.ram", 4 << 30)]).end();
    let stream = |fill| {
        let page = Ram::default().page(0x8000_1000, Some("pc.ram"), &[fill; 4096]).end();
        let mut stream = Builder::new();
        stream.configuration("pc-q35-7.2").named(1, 1, "ram", 0, 4, &list).further(3, 1, &page);
        stream.device(2, "mc146818rtc", 0, &cmos, "").finish(false)
    };
    let (a, b) = (place.file("a", &stream(1)), place.file("b", &stream(2)));
    let line = "pc.ram: 2 GiB from offset 0x80000000 on are at guest-physical address 0x100000000";
    assert!(run(&["inspect", arg(&a)]).expect(0).contains(line));
    assert!(run(&["diff", arg(&a), arg(&b)]).expect(1).contains(line));
    let image = place.path("image");
    assert!(run(&["extract", arg(&a), "--ram", "pc.ram", "-o", arg(&image)]).expect(1).contains(line));
    let document = json(run(&["inspect", "-f", "json", arg(&a)]).expect(0));
    let spans = document.get("ram").unwrap().get("spans").unwrap().elements();
    assert_eq!(spans[1].get("address").and_then(Json::as_u64), Some(1 << 32));
}

#[test]
fn a_decompression_bomb_does_not_fill_the_temporary_directory() {
    let place = Place::new();
    let temporary = place.path("temporary");
    std::fs::create_dir(&temporary).unwrap();
    let diff = |bytes: &[u8], more: &[&str]| {
        let file = place.file("bomb", bytes);
        let small = place.file("small", &small(true));
        let args = [&["diff", arg(&file), arg(&small)], more].concat();
        support::finish(support::savevm().args(args).env("TMPDIR", &temporary))
    };
    // Terabytes of zeros: the magic number is looked at first.
    let zeros = zstd::encode_all(std::io::Read::take(std::io::repeat(0), 1 << 30), 1).unwrap();
    let seen = diff(&zeros.repeat(1000), &[]);
    assert!(seen.status == 1 && seen.err.contains("expected the magic number"), "{}", seen.err);
    // A well-formed stream that goes on for ever.
    let start = Ram::default().blocks(&[("ram", 1 << 40)]).end();
    let mut stream = Builder::new();
    stream.named(1, 1, "ram", 0, 4, &start).raw(&[2, 0, 0, 0, 1]);
    let pages = Ram::default().page(0, Some("ram"), &[1; 4096]).0.repeat(10_000);
    let bomb = [gzip(&stream.bytes), gzip(&pages).repeat(100)].concat();
    let seen = diff(&bomb, &["--max-temporary", "16M"]);
    assert!(seen.status == 2 && seen.err.contains("--max-temporary"), "{}", seen.err);
}
