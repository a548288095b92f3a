// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the command does with streams that are made here.

mod support;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use savevm_stream::inspect::json::Json;
use savevm_stream::testing::{Builder, Ram, fields, small};
use support::{Place, arg, finish, json, run, run_piped, savevm};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn libvirt(bytes: &[u8]) -> Vec<u8> {
    let mut out = b"LibvirtQemudSave\x02\0\0\0\x06\0\0\0".to_vec();
    out.resize(16 + 4 * 19, 0);
    out.extend(b"<xml/>");
    out.extend(bytes);
    out
}

#[test]
fn a_stream_is_shown_as_a_table() {
    let place = Place::new();
    let table = run(&["inspect", arg(&place.file("s", &small(true)))]).expect(0);
    for wanted in
        ["pc-i440fx-7.2", "4096 bytes (description)", "complete", "spapr/htab", "vga.vram", "Totals", "vmdesc"]
    {
        assert!(table.contains(wanted), "{wanted} is missing:\n{table}");
    }
    assert!(!table.contains('\x1b'), "no colours but on a terminal");
    let coloured = run(&["--color", "always", "inspect", arg(&place.file("s", &small(true)))]).expect(0);
    assert!(coloured.contains("\x1b[1m"));
}

#[test]
fn every_way_to_bring_a_stream_gives_the_same() {
    let place = Place::new();
    let stream = small(true);
    let expected = run(&["inspect", "-f", "analyze", arg(&place.file("s", &stream))]).expect(0);
    let zst = zstd::encode_all(&stream[..], 1).unwrap();
    let packed = [stream.clone(), gzip(&stream), zst, libvirt(&stream), libvirt(&gzip(&stream))];
    for (at, bytes) in packed.iter().enumerate() {
        let file = place.file("packed", bytes);
        assert_eq!(run(&["inspect", "-f", "analyze", arg(&file)]).expect(0), expected, "file {at}");
        assert_eq!(run_piped(&["inspect", "-f", "analyze", "-"], bytes).expect(0), expected, "pipe {at}");
        let mut redirected = savevm();
        let redirected = redirected.args(["inspect", "-f", "analyze", "-"]).stdin(File::open(&file).unwrap());
        assert_eq!(finish(redirected).expect(0), expected, "standard input {at}");
    }
}

#[test]
fn standard_input_is_read_from_where_it_is() {
    let place = Place::new();
    let before = [&b"read before"[..], &small(true)].concat();
    let mut file = File::open(place.file("s", &before)).unwrap();
    file.seek(SeekFrom::Start(11)).unwrap();
    let table = finish(savevm().args(["inspect", "-"]).stdin(file)).expect(0);
    assert!(table.contains("pc-i440fx-7.2"), "{table}");
}

#[test]
fn exit_statuses_tell_damage_from_trouble() {
    let place = Place::new();
    let stream = small(true);
    let cut = place.file("cut", &stream[..stream.len() / 2]);
    let seen = run(&["inspect", arg(&cut)]);
    assert_eq!(seen.status, 1);
    assert!(seen.out.contains("cut off") && seen.out.contains("pc.ram"), "what is there is shown:\n{}", seen.out);
    assert!(
        seen.err.contains("cut off at offset") && seen.err.contains("in the part section 2 of 'ram'"),
        "{}",
        seen.err
    );
    let elf = run(&["inspect", arg(&place.file("elf", b"\x7fELF\x02\x01\x01"))]);
    assert_eq!(elf.status, 1);
    assert!(elf.out.is_empty() && !elf.err.contains("no whole device"), "{}{}", elf.out, elf.err);
    assert!(elf.err.contains("expected the magic number 'QEVM'"), "{}", elf.err);
    let line = seen.out.lines().find(|line| line.contains("cut off") && line.contains("ram"));
    assert!(line.is_some_and(|line| line.starts_with("0x")), "the table ends where the damage is:\n{}", seen.out);
    assert_eq!(run(&["inspect", arg(&place.file("bz2", b"BZh91AY"))]).status, 2);
    assert_eq!(run(&["inspect", "/nonexistent"]).err, "savevm: cannot open /nonexistent: No such file or directory\n");
    for args in [
        &["inspect", "/nonexistent"][..],
        &["inspect", "/"],
        &["inspect"],
        &["frobnicate"],
        &["plot", "x", "-o", "y.png"],
    ] {
        let seen = run(args);
        assert_eq!(seen.status, 2, "{args:?}: {}", seen.err);
        assert!(!seen.err.is_empty());
    }
    assert_eq!(run(&["--help"]).status, 0);
    assert_eq!(run(&["inspect", arg(&place.file("s", &stream)), "--snapshot", "x"]).status, 2);
}

#[test]
fn devices_are_taken_apart() {
    let place = Place::new();
    let file = place.file("s", &small(true));
    let cpus = run(&["inspect", arg(&file), "--device", "cp*"]).expect(0);
    assert!(cpus.contains("cpu instance 0") && cpus.contains("cpu instance 1") && !cpus.contains("serial"), "{cpus}");
    assert!(cpus.contains("0x0000fff1 (65521)") && cpus.contains("true") && cpus.contains("off"), "{cpus}");
    let buses = run(&["inspect", arg(&file), "-d", "htab"]).expect(0);
    assert!(buses.contains("spapr/htab instance 0"), "{buses}");
    let one = run(&["inspect", arg(&file), "--device", "cpu#1", "--hex"]).expect(0);
    assert!(!one.contains("instance 0") && one.contains("00 00 ff f1 01 11 11 11  11"), "{one}");
    let serial = run(&["inspect", arg(&file), "-d", "serial"]).expect(0);
    assert!(serial.contains("serial/fifo  (subsection, version 1)") && serial.contains("-2"), "{serial}");
    assert!(run(&["inspect", arg(&file), "-d", "ram"]).expect(0).contains("vga.vram"));
    assert_eq!(run(&["inspect", arg(&file), "-d", "nothing"]).status, 2);
    let bare = run(&["inspect", arg(&place.file("bare", &small(false))), "-d", "timer"]).expect(0);
    assert!(bare.contains("no description") && bare.contains("00 00 00 00 00 00 01 00"), "{bare}");
}

#[test]
fn a_name_does_not_command_the_terminal() {
    let place = Place::new();
    let (mut named, mut described) = (Builder::new(), Builder::new());
    named.device(1, "\x1b[2J\u{9b}2J", 0, &[7; 4], "");
    described.device(1, "d", 0, &[7; 4], &fields("d", &[("\\u001bc", "uint32", 4)]));
    let bytes = named.finish(false);
    let (named, described) = (place.file("named", &bytes), place.file("described", &described.finish(true)));
    for args in [&["inspect"][..], &["inspect", "-d", "*"], &["check"], &["--color", "always", "inspect"]] {
        for file in [&named, &described] {
            let text = run(&[args, &[arg(file)]].concat()).expect(0);
            for wild in ["\x1b[2J", "\x1bc", "\u{9b}"] {
                assert!(!text.contains(wild), "{text:?}");
            }
        }
    }
    assert!(run(&["inspect", "-d", "d", arg(&described)]).expect(0).contains("\\u{1b}c"));
    let cut = run(&["inspect", arg(&place.file("cut", &bytes[..bytes.len() - 8]))]);
    assert!(cut.status == 1 && !cut.err.contains('\x1b') && cut.err.contains("\\u{1b}"), "{:?}", cut.err);
}

#[test]
fn documents_are_json() {
    let place = Place::new();
    let file = place.file("s", &small(true));
    let document = json(run(&["inspect", arg(&file), "-f", "json", "-d", "cpu"]).expect(0));
    let items = document.get("items").unwrap().elements();
    let cpu = items.iter().find(|item| item.get("name").and_then(Json::as_str) == Some("cpu")).unwrap();
    assert_eq!(cpu.get("fields").unwrap().elements().len(), 4);
    let description = json(run(&["inspect", arg(&file), "-f", "description"]).expect(0));
    assert_eq!(description.get("devices").unwrap().elements().len(), 4);
    assert_eq!(run(&["inspect", arg(&place.file("b", &small(false))), "-f", "description"]).status, 2);
}

/// A stream whose document is large.
fn wordy() -> Vec<u8> {
    let mut stream = Builder::new();
    for id in 0..200 {
        stream.device(id, &format!("device{id}"), 0, &[7; 4096], &fields("d", &[("buffer", "buffer", 4096)]));
    }
    stream.finish(true)
}

#[test]
fn a_pipe_that_closes_early_is_no_trouble() {
    let place = Place::new();
    let file = place.file("s", &wordy());
    for format in ["table", "json", "analyze"] {
        let mut command = savevm();
        let command = command.args(["inspect", arg(&file), "-f", format, "-d", "*"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut start = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut start).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()), "{format}");
    }
}

#[test]
fn memory_is_extracted_as_it_was() {
    let place = Place::new();
    let image = place.path("image");
    let file = place.file("s", &small(true));
    let seen = run(&["extract", arg(&file), "--ram", "pc.ram", "-o", arg(&image)]);
    assert!(seen.err.contains("pc.ram: 5 of 8 pages are not in the stream"), "{}", seen.err);
    assert_eq!(seen.expect(1), "pc.ram: 32 KiB, 8,192 bytes with contents\n");
    let contents = std::fs::read(&image).unwrap();
    let page = |fill: u8| (0..4096u32).map(|at| (at as u8).wrapping_mul(31).wrapping_add(fill)).collect::<Vec<u8>>();
    let mut expected = vec![0; 0x8000];
    expected[..0x1000].copy_from_slice(&page(1));
    expected[0x2000..0x3000].copy_from_slice(&page(2));
    expected[0x2003..0x2005].copy_from_slice(&[0xaa, 0xbb]);
    assert!(contents == expected);

    let missing = place.path("missing");
    let seen = run(&["extract", arg(&file), "--ram", "nothing", "-o", arg(&missing)]);
    assert!(seen.status == 2 && seen.err.contains("vga.vram") && !missing.exists(), "{}", seen.err);
    run(&["extract", arg(&file), "--ram", "nothing", "-o", arg(&image)]).expect(2);
    assert!(std::fs::read(&image).unwrap() == expected, "nothing is overwritten in vain");
    for (output, why) in [("-", "random"), (arg(&file), "the file that is read"), ("/nonexistent/x", "No such file")] {
        let seen = run(&["extract", arg(&file), "--ram", "pc.ram", "-o", output]);
        assert!(seen.status == 2 && seen.err.contains(&format!("cannot write {output}")), "{}", seen.err);
        assert!(seen.err.contains(why), "{}", seen.err);
    }
    run(&["check", arg(&file)]).expect(0);
}

#[test]
fn an_image_is_sparse_and_the_last_page_counts() {
    let place = Place::new();
    let length = 1u64 << 30;
    let start = Ram::default().blocks(&[("ram", length)]).end();
    let page = |fill| vec![fill; 4096];
    let part =
        Ram::default().page(0, Some("ram"), &page(1)).page(0x1000, None, &page(2)).page(length - 4096, None, &page(3));
    let end = Ram::default().zero(0, Some("ram")).page(0x1000, None, &page(9)).end();
    let mut stream = Builder::new();
    stream.named(1, 1, "ram", 0, 4, &start).further(2, 1, &part.end()).further(3, 1, &end);
    let (file, image) = (place.file("s", &stream.finish(true)), place.path("image"));
    let text = run(&["extract", arg(&file), "--ram", "ram", "-o", arg(&image)]).expect(1);
    // The first page became zero, the second was sent again.
    assert_eq!(text, "ram: 1 GiB, 8,192 bytes with contents\n");
    let kind = std::fs::metadata(&image).unwrap();
    assert_eq!(kind.len(), length);
    assert!(kind.blocks() * 512 < 1 << 20, "{} blocks", kind.blocks());
    let mut head = vec![0xff; 0x3000];
    std::fs::File::open(&image).unwrap().read_exact(&mut head).unwrap();
    assert!(head[..0x1000].iter().all(|byte| *byte == 0) && head[0x1000..0x2000].iter().all(|byte| *byte == 9));
    assert!(head[0x2000..].iter().all(|byte| *byte == 0));
}

#[test]
fn differences_are_named() {
    let place = Place::new();
    let stream = small(true);
    let a = place.file("a", &stream);
    assert_eq!(run(&["diff", arg(&a), arg(&a)]).expect(0), "");
    assert_eq!(run(&["diff", arg(&a), arg(&place.file("a.gz", &gzip(&stream)))]).expect(0), "");
    let mut changed = stream.clone();
    let eip = stream.windows(5).position(|window| window == [0, 0, 0xff, 0xf1, 1]).unwrap();
    changed[eip + 3] = 0x77;
    // The second byte of the first page of pc.ram.
    let page = stream.windows(6).position(|window| window == b"pc.ram").unwrap();
    let page = page + stream[page + 6..].windows(6).position(|window| window == b"pc.ram").unwrap() + 12;
    changed[page + 1] ^= 1;
    let b = place.file("b", &changed);
    let text = run(&["diff", arg(&a), arg(&b)]).expect(1);
    assert!(
        text.contains("cpu instance 1\n") && text.contains("eip  0x0000fff1 (65521) -> 0x0000ff77 (65399)"),
        "{text}"
    );
    assert!(text.contains("1 page differs in 1 range") && text.contains("0x000000000000..0x000000001000"), "{text}");
    let text = run(&["diff", arg(&a), arg(&b), "--no-ram", "-d", "timer"]).expect(0);
    assert_eq!(text, "");
    let document = json(run(&["diff", arg(&a), arg(&b), "-f", "json"]).expect(1));
    let devices = document.get("devices").unwrap().elements();
    assert_eq!(devices.len(), 1);
    assert_eq!(devices[0].get("fields").unwrap().elements()[0].get("path").and_then(Json::as_str), Some("eip"));
    assert_eq!(document.get("ram").unwrap().elements()[0].get("pages").and_then(Json::as_u64), Some(1));
}

#[test]
fn checks_fail_where_they_must() {
    let place = Place::new();
    let good = place.file("good", &small(true));
    let schema = place.path("schema");
    run(&["check", arg(&good)]).expect(0);
    assert_eq!(run(&["check", "-q", arg(&good)]).expect(0), "");
    run(&["schema", arg(&good), "-o", arg(&schema)]).expect(0);
    run(&["check", arg(&good), "--against", arg(&schema), "--strict"]).expect(0);
    run(&["check", arg(&place.file("cut", &small(true)[..3000]))]).expect(1);
    let mut stream = Builder::new();
    stream.configuration("pc-i440fx-7.2").device(4, "timer", 0, &[0; 8], &fields("timer", &[("other", "int64", 8)]));
    let other = place.file("other", &stream.finish(true));
    let text = run(&["check", arg(&other), "--against", arg(&schema)]).expect(0);
    assert!(text.contains("note: 'timer' instance 0: other: in the machine's own stream these 8 bytes are"), "{text}");
    assert!(text.contains("warning: 'serial' instance 0: the stream does not have it"), "{text}");
    run(&["check", arg(&other), "--against", arg(&schema), "--strict"]).expect(1);
    let document = json(run(&["check", arg(&other), "--against", arg(&schema), "-f", "json"]).expect(0));
    assert_eq!(document.get("passes"), Some(&Json::Bool(true)));
    assert_eq!(document.get("verdict").and_then(Json::as_str), Some("would-load"));
    let mut stream = Builder::new();
    let more = fields("timer", &[("ticks", "int64", 8), ("more", "int32", 4)]);
    stream.configuration("pc-i440fx-7.2").device(4, "timer", 0, &[0; 12], &more);
    let longer = place.file("longer", &stream.finish(true));
    let text = run(&["check", arg(&longer), "--against", arg(&schema)]).expect(1);
    let risk = "risk: 'timer' instance 0: more: the machine's own stream did not have this field of 4 bytes";
    assert!(text.contains(risk) && text.contains("it may not load"), "{text}");
    let document = json(run(&["check", arg(&longer), "--against", arg(&schema), "-f", "json"]).expect(1));
    assert_eq!(document.get("verdict").and_then(Json::as_str), Some("may-not-load"));
    assert_eq!(run(&["check", arg(&good), "--against", arg(&good)]).status, 2);
}

const TRACE: &str = r#"{"t_ns":0,"event":"trace","version":1,"side":"source","uri":"unix:<x>"}
{"t_ns":0,"event":"status","status":"active"}
{"t_ns":0,"event":"phase","phase":"iterate","edge":"begin"}
{"t_ns":1000000,"event":"round","round":1,"bytes":4096,"bandwidth":1e9,"dirty_rate":5e8,"throttle":20}
{"t_ns":1000000,"event":"pending","precopy":1,"compatible":2000000,"postcopy":3,"threshold":4}
{"t_ns":2000000,"event":"round","round":2,"bytes":8192,"bandwidth":1.1e9,"dirty_rate":4e8}
{"t_ns":2000000,"event":"phase","phase":"iterate","edge":"end"}
{"t_ns":2000000,"event":"downtime","edge":"begin"}
{"t_ns":2500000,"event":"device","idstr":"cpu","instance":0,"bytes":7,"duration_ns":400000}
{"t_ns":3000000,"event":"downtime","edge":"end","duration_ns":1000000}
{"t_ns":3000000,"event":"status","status":"completed"}
"#;

#[test]
fn pictures_are_drawn() {
    let place = Place::new();
    let map = run(&["inspect", "--plot", arg(&place.file("s", &small(true)))]).expect(0);
    assert!(map.starts_with("<svg ") && map.contains("serial") && map.contains("pc.ram"), "{map}");
    let trace = place.file("trace", TRACE.as_bytes());
    for (name, start) in [("t.svg", "<svg "), ("t.html", "<!DOCTYPE html>")] {
        let picture = place.path(name);
        run(&["plot", arg(&trace), "-o", arg(&picture)]).expect(0);
        let text = std::fs::read_to_string(picture).unwrap();
        assert!(text.starts_with(start) && text.contains("downtime 1 ms") && text.contains("unix:&lt;x&gt;"), "{text}");
        for wanted in ["Rates", "Left to send", "Throttling", "Downtime by device", "cpu", "iterate"] {
            assert!(text.contains(wanted), "{wanted}");
        }
    }
    let broken = place.file("broken", format!("{TRACE}{{\"t_ns\":").as_bytes());
    let seen = run(&["plot", arg(&broken), "-o", arg(&place.path("b.svg"))]);
    assert!(seen.status == 1 && seen.err.contains("line 12"), "{}", seen.err);
    assert_eq!(run(&["plot", "/dev/null", "-o", arg(&place.path("b.svg"))]).status, 2);
}

#[test]
fn pages_and_completions_are_written() {
    let place = Place::new();
    run(&["man", arg(&place.path("man"))]).expect(0);
    for page in ["savevm.1", "savevm-inspect.1", "savevm-diff.1", "savevm-check.1", "savevm-extract.1", "savevm-plot.1"]
    {
        let text = std::fs::read_to_string(place.path("man").join(page)).unwrap();
        assert!(text.contains(".TH") && text.contains(".SH \"EXIT STATUS\"\n.nf\n"), "{page}");
        assert!(text.contains(".SH \"SEE ALSO\"\n\\fBsavevm"), "{page}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let text = run(&["completions", shell]).expect(0);
        assert!(text.contains("inspect") && text.contains("color") && !text.contains("completions"), "{shell}");
    }
}

/// Runs the command with so much address space, and this on its standard input.
fn run_confined(kibibytes: u32, args: &str, feed: impl FnOnce(&mut dyn Write) + Send + 'static) -> support::Run {
    let script = format!("ulimit -v {kibibytes}; exec \"$0\" {args}");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_savevm")]).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || feed(&mut pipe));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    output.into()
}

#[test]
fn a_pipe_of_any_length_takes_little_memory() {
    const PAGES: u64 = 100_000;
    let seen = run_confined(60_000, "inspect -", |pipe| {
        let start = Ram::default().blocks(&[("ram", PAGES * 4096)]).end();
        let mut head = Builder::new();
        head.named(1, 1, "ram", 0, 4, &start).raw(&[2, 0, 0, 0, 1]);
        pipe.write_all(&head.bytes).unwrap();
        for page in 0..PAGES {
            let name = (page == 0).then_some("ram");
            pipe.write_all(&Ram::default().page(page * 4096, name, &[page as u8; 4096]).0).unwrap();
        }
        let mut tail = Builder::new();
        tail.bytes.clear();
        pipe.write_all(&tail.raw(&Ram::default().end()).raw(&[0x7e, 0, 0, 0, 1]).finish(true)).unwrap();
    });
    let table = seen.expect(0);
    assert!(table.contains("100,000"), "{table}");
}

#[test]
fn plot_of_a_hostile_trace_takes_little_memory() {
    let place = Place::new();
    let args = format!("plot - -o {}", arg(&place.path("p.svg")));
    // One long line, then more events than are kept.
    let seen = run_confined(400_000, &args, |pipe| {
        for _ in 0..512 {
            pipe.write_all(&[0; 1 << 20]).unwrap();
        }
        let event = "{\"t_ns\":1,\"event\":\"phase\",\"phase\":\"p\",\"edge\":\"begin\"}\n".repeat(1000);
        pipe.write_all(b"\n").unwrap();
        for _ in 0..1000 {
            if pipe.write_all(event.as_bytes()).is_err() {
                break;
            }
        }
    });
    assert_eq!(seen.status, 1, "{}", seen.err);
    assert!(seen.err.contains("the first is line 1: the line is longer than 1 MiB"), "{}", seen.err);
    assert!(seen.err.contains("take 32 MiB, the limit"), "{}", seen.err);
}

#[test]
fn a_hostile_stream_gets_no_more_memory_than_allowed() {
    let seen = run_confined(120_000, "inspect --max-memory 32M -", |pipe| {
        let mut stream = Builder::new();
        stream.raw(&[4, 0, 0, 0, 1, 1, b'x', 0, 0, 0, 0, 0, 0, 0, 0]);
        let _ = pipe.write_all(&stream.bytes);
        // A device without an end.
        while pipe.write_all(&[0x55; 1 << 16]).is_ok() {}
    });
    assert_eq!(seen.status, 1, "{}", seen.err);
    assert!(seen.err.contains("bytes of memory"), "{}", seen.err);
    let nested = "[".repeat(20 << 20);
    let seen = run_confined(120_000, "inspect --max-memory 32M -", move |pipe| {
        let mut stream = Builder::new();
        stream.raw(&[0, 6]).raw(&(nested.len() as u32).to_be_bytes());
        let _ = pipe.write_all(&stream.bytes);
        let _ = pipe.write_all(nested.as_bytes());
    });
    assert_eq!(seen.status, 1, "{}", seen.err);
}

#[test]
fn thousands_of_damaged_streams_end_in_order() {
    let place = Place::new();
    let stream = small(true);
    // The parser is tested bit by bit elsewhere; here is what the command does with what the parser gives.
    for at in (0..stream.len()).step_by(97) {
        let mut damaged = stream.clone();
        damaged[at] ^= 0x41;
        let file = place.file("damaged", &damaged);
        for args in [&["inspect", "-d", "*", "-x"][..], &["check"], &["schema"]] {
            let seen = finish(savevm().args(args).arg(&file));
            assert!((0..=2).contains(&seen.status), "byte {at}, {args:?}: {} {}", seen.status, seen.err);
            assert!(!seen.err.contains("panicked"), "byte {at}, {args:?}: {}", seen.err);
        }
    }
}
