// SPDX-License-Identifier: LGPL-2.1-or-later
//! Streams that an unmodified QEMU writes, and what the command makes of them.
//!
//! What is not installed is skipped, loudly. `ANALYZE_MIGRATION` names QEMU's `scripts/analyze-migration.py`; with it the
//! documents are compared as a whole. `ANALYZE_MIGRATION_LATER` may name the script of QEMU 10, which reads some streams
//! that the one of 7.2 does not. `QEMU_LATER` may name a directory with programs of QEMU 8 to 10.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use savevm_stream::inspect::json::Json;
use savevm_stream::inspect::{
    Framing, ItemKind, Options, ReadSource, Section, Stream, Unwatched, decode, read, read_slice,
};
use support::qemu::{Qemu, Tap, find, restless_guest, skip};
use support::{Place, arg, json, run, run_piped};

const X86: &str = "qemu-system-x86_64";

/// A machine to take a stream of.
struct Machine {
    name: &'static str,
    program: &'static str,
    args: &'static str,
}

const MACHINES: &[Machine] = &[
    Machine { name: "pc", program: X86, args: "-machine pc -m 64" },
    Machine { name: "pc-kvm", program: X86, args: "-machine pc,accel=kvm -m 64" },
    Machine {
        name: "q35",
        program: X86,
        args: "-machine q35 -m 128 -smp 2 -device virtio-net-pci -device virtio-rng-pci -device virtio-serial \
               -device virtio-balloon -device virtio-gpu -device qemu-xhci -device usb-tablet -device usb-kbd \
               -device intel-hda -device hda-duplex -device e1000e -device megasas -device ich9-ahci \
               -device pcie-root-port -device virtio-scsi-pci -device pvpanic -device vmcoreinfo -device vmgenid",
    },
    Machine { name: "q35-kvm", program: X86, args: "-machine q35,accel=kvm -m 128 -smp 2 -device virtio-net-pci" },
    Machine { name: "microvm", program: X86, args: "-machine microvm -m 64" },
    Machine { name: "isapc", program: X86, args: "-machine isapc -m 32" },
    Machine { name: "pc-2.3", program: X86, args: "-machine pc-i440fx-2.3 -m 32" },
    Machine { name: "pc-2.2", program: X86, args: "-machine pc-i440fx-2.2 -m 32" },
    Machine { name: "s390x", program: "qemu-system-s390x", args: "-machine s390-ccw-virtio -m 64 -no-shutdown -S" },
    Machine { name: "ppc64", program: "qemu-system-ppc64", args: "-machine pseries -m 256" },
    Machine { name: "aarch64", program: "qemu-system-aarch64", args: "-machine virt -cpu cortex-a57 -m 64" },
    Machine { name: "arm-1k", program: "qemu-system-aarch64", args: "-machine versatilepb -m 64" },
    Machine { name: "riscv64", program: "qemu-system-riscv64", args: "-machine virt -m 64" },
    Machine { name: "avr-256", program: "qemu-system-avr", args: "-machine uno -S" },
    Machine { name: "hppa", program: "qemu-system-hppa", args: "-m 64 -S" },
    Machine { name: "m68k", program: "qemu-system-m68k", args: "-machine virt -m 64 -S" },
];

/// The program of a machine, if it is installed and can run here.
fn program(machine: &Machine) -> Option<PathBuf> {
    if machine.args.contains("accel=kvm") && std::fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        skip(machine.name, "there is no /dev/kvm");
        return None;
    }
    let found = find(machine.program);
    if found.is_none() {
        skip(machine.name, &format!("{} is not installed", machine.program));
    }
    found
}

/// Starts a machine; none if it cannot run here.
fn start(place: &Place, machine: &Machine, more: &[&str]) -> Option<Qemu> {
    let program = program(machine)?;
    let args: Vec<&str> = machine.args.split_whitespace().chain(more.iter().copied()).collect();
    match Qemu::start(&program, &args, place.path(&format!("{}.sock", machine.name))) {
        Ok(qemu) => Some(qemu),
        Err(why) => {
            skip(machine.name, &why);
            None
        }
    }
}

/// A stream of the machine after its firmware has run for a while.
fn stream_of(place: &Place, machine: &Machine) -> Option<PathBuf> {
    let mut qemu = start(place, machine, &[])?;
    std::thread::sleep(Duration::from_millis(1500));
    let path = place.path(&format!("{}.mig", machine.name));
    qemu.migrate_to(&path);
    Some(path)
}

fn machine(name: &str) -> &'static Machine {
    MACHINES.iter().find(|machine| machine.name == name).unwrap()
}

/// What the script prints for a stream: none if there is no script, or it fails.
fn script(variable: &str, stream: &Path) -> Option<String> {
    let script = std::env::var_os(variable)?;
    let output = Command::new("python3").arg(script).arg("-f").arg(stream).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

fn undamaged(bytes: &[u8]) -> Stream {
    let stream = read_slice(bytes, Options::default());
    assert!(stream.damage.is_none(), "{}", stream.damage.unwrap());
    assert!(stream.complete && stream.trailing == 0);
    stream
}

/// How many devices the description does not fit.
fn misfits(stream: &Stream) -> Vec<String> {
    struct Unseen;
    impl savevm_stream::inspect::FieldSink for Unseen {
        fn enter(&mut self, _: &str, _: savevm_stream::inspect::Group) {}
        fn leave(&mut self) {}
        fn field(&mut self, _: &savevm_stream::inspect::Leaf<'_>) {}
    }
    let fits = |section: &savevm_stream::inspect::Section| {
        let layout = stream.layout(section);
        layout.zip(section.data.as_ref()).is_none_or(|(layout, data)| decode(layout, data, &mut Unseen).is_ok())
    };
    stream.devices().filter(|(_, section)| !fits(section)).map(|(_, section)| section.device.name.to_string()).collect()
}

/// What holds for the stream of every machine.
fn check_stream(machine: &Machine, path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    let stream = undamaged(&bytes);
    assert!(stream.devices().count() > 3, "{}", machine.name);
    let piped = read(ReadSource::new(&bytes[..]), Options::default(), &mut Unwatched).unwrap();
    assert!(piped.damage.is_none());
    let places = |stream: &Stream| stream.items.iter().map(|item| (item.offset, item.size)).collect::<Vec<_>>();
    assert_eq!(places(&stream), places(&piped), "{}", machine.name);
    // QEMU 7.2 describes arrays of pointers wrongly that hold NULL, as the one of s390_css.
    let expected: &[&str] = if machine.name == "s390x" { &["s390_css"] } else { &[] };
    assert_eq!(misfits(&stream), expected, "{}", machine.name);
    run(&["check", arg(path)]).expect(0);
    run(&["inspect", arg(path)]).expect(0);
    compare_with_script(machine, path);
}

fn compare_with_script(machine: &Machine, path: &Path) {
    if std::env::var_os("ANALYZE_MIGRATION").is_none() {
        return skip(machine.name, "ANALYZE_MIGRATION names no script to compare with");
    }
    let ours = run(&["inspect", "--format", "analyze", arg(path)]).expect(0);
    let piped = run_piped(&["inspect", "--format", "analyze", "-"], &std::fs::read(path).unwrap()).expect(0);
    assert_eq!(ours, piped);
    match (script("ANALYZE_MIGRATION", path), UNREAD.iter().find(|(name, ..)| *name == machine.name)) {
        // Identical to the byte, not only as documents.
        (Some(theirs), None) => assert!(theirs == ours, "{}: the documents differ", machine.name),
        (None, None) => panic!("{}: the script has failed", machine.name),
        (theirs, Some((_, breaks_off, unread))) => {
            assert_eq!(theirs.is_some(), *breaks_off, "{}: the script reads something else", machine.name);
            assert!(theirs.is_none_or(|theirs| theirs != ours), "{}: the script has learnt to read it", machine.name);
            compare_rest(machine, path, &ours, *unread);
        }
    }
}

/// Whether the script does not get past a section.
type Unread = fn(&Section) -> bool;

/// Machines whose streams the script of 7.2 does not read; whether it takes a part for the whole, or stops with an
/// exception; and what it does not get past. Subsections of the configuration stop it as well.
const UNREAD: &[(&str, bool, Unread)] = &[
    ("aarch64", false, |_| false),
    // One has no description, in the other one's an array of pointers begins with NULL.
    ("s390x", false, |section| ["s390-storage_attributes", "s390_css"].contains(&&*section.device.name)),
    // isapc has two devices `isa-ide` with instance 0. The script takes the second one's layout for both, is then out of
    // step, meets a zero byte and takes it for the end.
    ("isapc", true, |section| &*section.device.name == "isa-ide" && section.twin == 0),
    // It has no description at all.
    ("pc-2.2", false, |_| true),
];

/// Compares what the script makes of the stream without what stops it.
fn compare_rest(machine: &Machine, path: &Path, ours: &str, unread: Unread) {
    let bytes = std::fs::read(path).unwrap();
    let stream = undamaged(&bytes);
    if stream.description.is_none() {
        return;
    }
    let (mut rest, mut left_out) = (Vec::new(), Vec::new());
    for item in &stream.items {
        let all = &bytes[item.offset as usize..][..item.size as usize];
        match &item.kind {
            // The tag, and the machine's name.
            ItemKind::Configuration => rest.extend(&all[..5 + stream.machine().unwrap().len()]),
            ItemKind::Section(section) if unread(section) => {
                left_out.push(format!("{} ({})", section.device.name, section.id));
            }
            _ => rest.extend(all),
        }
    }
    assert!(rest.len() < bytes.len(), "{}: nothing stops the script", machine.name);
    std::fs::write(path, &rest).unwrap();
    let theirs = script("ANALYZE_MIGRATION", path).expect("the script reads the rest");
    let (ours, theirs) = (json(ours), json(theirs));
    let kept: Vec<_> =
        ours.members().iter().filter(|(name, _)| !left_out.iter().any(|out| **out == **name)).cloned().collect();
    assert!(kept == theirs.members(), "{}: the rest differs", machine.name);
}

#[test]
fn streams_of_many_machines() {
    let place = Place::new();
    for machine in MACHINES {
        if let Some(path) = stream_of(&place, machine) {
            check_stream(machine, &path);
            std::fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn a_stream_cut_anywhere_is_damaged_there() {
    let place = Place::new();
    let Some(path) = stream_of(&place, machine("microvm")) else { return };
    let bytes = std::fs::read(path).unwrap();
    let stream = undamaged(&bytes);
    let (first, _) = stream.devices().next().unwrap();
    let description = stream.items.last().unwrap().offset;
    // Memory in steps, for it is much of the same; the devices byte by byte.
    let memory = (0..first.offset).step_by(61);
    for end in memory.chain(first.offset..description).chain((description..bytes.len() as u64).step_by(61)) {
        let cut = read_slice(&bytes[..end as usize], Options::default());
        let whole_devices = stream.devices().filter(|(item, _)| item.offset + item.size <= end).count();
        assert_eq!(cut.devices().count(), whole_devices, "cut at {end}");
        // Without the description a stream is whole as well.
        assert_eq!(cut.damage.is_some(), end != description, "cut at {end}");
    }
}

#[test]
fn page_sizes_of_other_targets() {
    let place = Place::new();
    for (name, size) in [("pc-2.2", 4096), ("arm-1k", 1024), ("avr-256", 256), ("aarch64", 4096)] {
        let Some(path) = stream_of(&place, machine(name)) else { continue };
        // From a pipe the description comes too late to tell.
        let bytes = std::fs::read(path).unwrap();
        let stream = read(ReadSource::new(&bytes[..]), Options::default(), &mut Unwatched).unwrap();
        assert_eq!(stream.ram.page_size.map(|(size, _)| size), Some(size), "{name}");
    }
}

#[test]
fn a_schema_and_a_dump_accept_the_machine_and_no_other() {
    let place = Place::new();
    let (Some(pc), Some(q35)) = (stream_of(&place, machine("pc")), stream_of(&place, machine("q35"))) else { return };
    let schema = place.path("pc.json");
    run(&["schema", arg(&pc), "-o", arg(&schema)]).expect(0);
    run(&["check", arg(&pc), "--against", arg(&schema), "--strict"]).expect(0);
    run(&["check", arg(&q35), "--against", arg(&schema)]).expect(1);
    let dump = place.path("dump.json");
    let program = find(X86).unwrap();
    let made = Command::new(program).args(["-machine", "pc", "-dump-vmstate", arg(&dump)]).output().unwrap();
    assert!(made.status.success());
    run(&["check", arg(&pc), "--against", arg(&dump)]).expect(0);
    run(&["check", arg(&q35), "--against", arg(&dump)]).expect(1);
}

#[test]
fn a_dump_is_checked_against_a_dump() {
    let place = Place::new();
    let Some(program) = find(X86) else { return skip(X86, "not installed") };
    let dump = place.path("dump.json");
    let made = Command::new(program).args(["-machine", "pc", "-dump-vmstate", arg(&dump)]).output().unwrap();
    assert!(made.status.success());
    let same = run(&["check", arg(&dump), "--against", arg(&dump), "--strict"]).expect(0);
    assert!(same.contains("nothing prevents loading it") && same.contains("descriptions"), "{same}");
    let text = std::fs::read_to_string(&dump).unwrap();
    // An earlier program.
    let older = place.file("older.json", text.replace("\"version_id\": 3", "\"version_id\": 2").as_bytes());
    let found = run(&["check", arg(&dump), "--against", arg(&older)]).expect(1);
    assert!(found.contains("version 3 is too new, the machine knows 2") && found.contains("would not load"), "{found}");
    let schema = place.path("schema.json");
    let Some(pc) = stream_of(&place, machine("pc")) else { return };
    run(&["schema", arg(&pc), "-o", arg(&schema)]).expect(0);
    run(&["check", arg(&dump), "--against", arg(&schema)]).expect(2);
}

/// Starts a QEMU with a further QMP socket.
fn with_qmp(place: &Place, name: &str, args: &str) -> Option<(Qemu, PathBuf)> {
    let socket = place.path(&format!("{name}.qmp"));
    let monitor = format!("unix:{},server=on,wait=off", socket.display());
    let words: Vec<_> = args.split_whitespace().chain(["-nodefaults", "-qmp", &monitor]).collect();
    let qemu = Qemu::start(&find(X86)?, &words, place.path(&format!("{name}.monitor"))).unwrap();
    Some((qemu, socket))
}

#[test]
fn the_script_compares_two_running_qemus() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("check-qemus.py");
    if Command::new("python3").arg("--version").output().is_err() {
        return skip("check-qemus.py", "python3 is not installed");
    }
    let place = Place::new();
    let source = with_qmp(&place, "source", "-machine pc -m 64 -device e1000");
    let same = with_qmp(&place, "same", "-machine pc -m 64 -device e1000 -incoming defer");
    let other = with_qmp(&place, "other", "-machine pc -m 128 -incoming defer");
    let (Some((mut source, from)), Some((_same, same)), Some((_other, other))) = (source, same, other) else {
        return skip(X86, "not installed");
    };
    let check = |to: &Path| {
        let words = ["--savevm", env!("CARGO_BIN_EXE_savevm"), arg(&from), arg(to)];
        let output = Command::new("python3").arg(&script).args(words).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (status, text) = check(&same);
    assert!(status == Some(0) && text.ends_with("nothing prevents the migration\n"), "{status:?}: {text}");
    let (status, text) = check(&other);
    assert_eq!(status, Some(1), "{text}");
    for part in [
        "RAM block pc.ram: 67108864 bytes at the source, 134217728",
        "e1000' instance 0: the machine has no such device",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let running = source.execute("query-status", "{}");
    assert_eq!(running.get("running"), Some(&Json::Bool(true)), "the guest runs on");
    assert_eq!(check(&place.path("nothing")).0, Some(2));
}

// TCG of QEMU 7.2 can miss what a guest writes between two rounds, so that restless guests run with KVM.

/// So slow that a round takes seconds, in which the guest gets to write even on a busy host, and never small enough.
const SLOW: &str = r#"{"max-bandwidth": 400000, "downtime-limit": 1}"#;

/// Compares the image of `pc.ram` with what the stopped guest's memory is, where nothing lies over it.
fn compare_memory(place: &Place, qemu: &mut Qemu, stream: &Path, size: u64) {
    let image = place.path("ram.img");
    run(&["extract", arg(stream), "--ram", "pc.ram", "-o", arg(&image)]).expect(0);
    let image = std::fs::read(image).unwrap();
    assert_eq!(image.len() as u64, size);
    for (from, to) in [(0, 0xa0000), (0x100000, size)] {
        let memory = qemu.memory(from, to - from, &place.path("memory"));
        assert!(image[from as usize..to as usize] == memory, "{from:#x}..{to:#x} differs");
    }
}

#[test]
fn memory_that_is_sent_again_and_again() {
    let place = Place::new();
    let firmware = place.file("firmware", &restless_guest());
    for capability in ["xbzrle", "compress", "events"] {
        let Some(mut qemu) = start(&place, machine("pc-kvm"), &["-bios", arg(&firmware)]) else { return };
        qemu.wait_for_restless_guest(&place.path("byte"));
        qemu.capabilities(&[capability]);
        qemu.execute("migrate-set-parameters", SLOW);
        let path = place.path("stream");
        qemu.execute("migrate", &format!(r#"{{"uri": "exec:cat>{}"}}"#, path.display()));
        // The second round sends what the guest wrote during the first, which takes seconds; the third has differences.
        qemu.wait_for_rounds(2);
        qemu.execute("migrate-set-parameters", r#"{"max-bandwidth": 0, "downtime-limit": 2000}"#);
        qemu.wait(&["completed"]);
        let stream = undamaged(&std::fs::read(&path).unwrap());
        let block = stream.ram.blocks.iter().find(|block| &*block.name == "pc.ram").unwrap();
        assert!(block.pages() > block.length / 4096, "{capability}: nothing was sent twice");
        match capability {
            "xbzrle" => assert!(block.xbzrle.pages > 0),
            "compress" => assert!(block.compressed.pages > 0),
            _ => assert!(block.plain.pages > 100),
        }
        compare_memory(&place, &mut qemu, &path, 64 << 20);
        run(&["diff", arg(&path), arg(&path)]).expect(0);
        if let Some(theirs) = script("ANALYZE_MIGRATION", &path) {
            assert!(theirs == run(&["inspect", "-f", "analyze", arg(&path)]).expect(0));
        }
    }
}

#[test]
fn shared_memory_that_stays() {
    let place = Place::new();
    let memory = format!("memory-backend-file,id=m,size=64M,mem-path={},share=on", place.path("memory").display());
    let args = Machine { name: "shared", program: X86, args: "-machine pc,memory-backend=m -m 64" };
    let Some(mut qemu) = start(&place, &args, &["-object", &memory]) else { return };
    qemu.capabilities(&["x-ignore-shared"]);
    let path = place.path("stream");
    qemu.migrate_to(&path);
    let stream = undamaged(&std::fs::read(&path).unwrap());
    assert!(stream.configuration.as_ref().unwrap().has("x-ignore-shared"));
    assert_eq!(stream.ram.blocks[0].pages(), 0);
    assert!(stream.ram.blocks.iter().all(|block| block.address.is_some()));
}

#[test]
fn disks_and_their_bitmaps() {
    let place = Place::new();
    let disk = place.file("disk", &[0x5a; 3 << 20]);
    let drive = format!("file={},format=raw,if=none,id=d,node-name=n", disk.display());
    for blk in [true, false] {
        let Some(mut qemu) = start(&place, machine("pc"), &["-drive", &drive, "-device", "ide-hd,drive=d"]) else {
            return;
        };
        let path = place.path("stream");
        if !blk {
            qemu.execute("block-dirty-bitmap-add", r#"{"node": "n", "name": "b", "granularity": 512}"#);
            qemu.capabilities(&["dirty-bitmaps"]);
        }
        qemu.execute("migrate-set-parameters", r#"{"max-bandwidth": 10000000000}"#);
        let uri = format!(r#"{{"uri": "exec:cat>{}", "blk": {blk}}}"#, path.display());
        qemu.execute("migrate", &uri);
        qemu.wait(&["completed"]);
        let stream = undamaged(&std::fs::read(&path).unwrap());
        let wanted = if blk { "block" } else { "dirty-bitmap" };
        let mut sections = stream.sections().filter(|(_, section)| &*section.device.name == wanted).peekable();
        assert!(sections.peek().is_some(), "{wanted}");
        assert!(sections.all(|(_, section)| section.framing == Framing::Parsed));
    }
}

#[test]
fn postcopy_with_its_package() {
    let place = Place::new();
    let firmware = place.file("firmware", &restless_guest());
    let incoming = format!("unix:{}", place.path("incoming").display());
    let Some(mut source) = start(&place, machine("pc-kvm"), &["-bios", arg(&firmware)]) else { return };
    let destination = Machine { name: "destination", ..*machine("pc-kvm") };
    let Some(mut destination) = start(&place, &destination, &["-bios", arg(&firmware), "-incoming", &incoming]) else {
        return;
    };
    source.wait_for_restless_guest(&place.path("byte"));
    for end in [&mut source, &mut destination] {
        let on = r#"{"capabilities": [{"capability": "postcopy-ram", "state": true}]}"#;
        if let Err(why) = end.attempt("migrate-set-capabilities", on) {
            return skip("postcopy", &why);
        }
    }
    let tap = Tap::new(&place.path("tap"), &place.path("incoming"));
    source.execute("migrate-set-parameters", SLOW);
    source.execute("migrate", &format!(r#"{{"uri": "unix:{}"}}"#, place.path("tap").display()));
    source.wait_for_rounds(1);
    source.execute("migrate-start-postcopy", "{}");
    source.wait(&["completed"]);
    drop((source, destination));
    let bytes = tap.finish();
    let path = place.file("postcopy", &bytes);
    let stream = undamaged(&bytes);
    let commands: Vec<_> = stream
        .items
        .iter()
        .filter_map(|item| match &item.kind {
            ItemKind::Command(command) => command.name,
            _ => None,
        })
        .collect();
    for wanted in ["POSTCOPY_ADVISE", "POSTCOPY_LISTEN", "POSTCOPY_RAM_DISCARD", "PACKAGED", "POSTCOPY_RUN"] {
        assert!(commands.contains(&wanted), "{wanted}: {commands:?}");
    }
    assert!(stream.items.iter().any(|item| item.depth == 1));
    assert!(stream.description.is_none());
    // A stream of the same machine lends its description.
    let Some(other) = stream_of(&place, machine("pc-kvm")) else { return };
    let out = run(&["inspect", arg(&path), "--describe-by", arg(&other), "--device", "i8259"]).expect(0);
    assert!(out.contains("irq_base"), "{out}");
    run(&["inspect", arg(&path)]).expect(0);
}

#[test]
fn internal_snapshots() {
    let place = Place::new();
    let disk = place.path("disk.qcow2");
    let Some(mut maker) = start(&place, machine("pc"), &["-S"]) else { return };
    let create = |maker: &mut Qemu, options: &str| {
        let job = format!(r#"{{"job-id": "j", "options": {options}}}"#);
        maker.execute("blockdev-create", &job);
        for _ in 0..500 {
            let jobs = maker.execute("query-jobs", "{}");
            let state = jobs.elements().first().and_then(|job| job.get("status")).and_then(Json::as_str);
            if state == Some("concluded") {
                maker.execute("job-dismiss", r#"{"id": "j"}"#);
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the image is not made");
    };
    create(&mut maker, &format!(r#"{{"driver": "file", "filename": "{}", "size": 0}}"#, disk.display()));
    maker.execute(
        "blockdev-add",
        &format!(r#"{{"driver": "file", "filename": "{}", "node-name": "f"}}"#, disk.display()),
    );
    create(&mut maker, r#"{"driver": "qcow2", "file": "f", "size": 16777216}"#);
    drop(maker);

    let drive = format!("file={},format=qcow2,if=ide", disk.display());
    let Some(mut qemu) = start(&place, machine("pc"), &["-drive", &drive]) else { return };
    std::thread::sleep(Duration::from_secs(1));
    qemu.execute("stop", "{}");
    assert_eq!(qemu.human("savevm one"), "");
    let path = place.path("stream");
    qemu.migrate_to(&path);
    qemu.execute("cont", "{}");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(qemu.human("savevm two"), "");
    drop(qemu);

    let listed = run(&["inspect", arg(&disk)]);
    assert_eq!(listed.status, 2);
    assert!(listed.err.contains("one") && listed.err.contains("two"), "{}", listed.err);
    let table = run(&["inspect", arg(&disk), "--snapshot", "one"]).expect(0);
    assert!(table.contains("pc.ram") && table.contains("complete"), "{table}");
    // The guest stood still between the snapshot and the stream.
    let differences = run(&["diff", arg(&disk), arg(&path), "--snapshot", "one"]);
    assert!(differences.err.contains("no qcow2"), "{}", differences.err);
    let document = |args: &[&str]| json(run(args).expect(0));
    let snapshot = document(&["inspect", "-f", "analyze", arg(&disk), "--snapshot", "1"]);
    let stream = document(&["inspect", "-f", "analyze", arg(&path)]);
    let cpu = |json: &Json<'static>| json.members().iter().find(|(name, _)| name.starts_with("cpu (")).cloned();
    assert!(cpu(&snapshot).is_some() && cpu(&snapshot) == cpu(&stream));
    let changed = run(&["diff", arg(&disk), arg(&disk), "--snapshot", "one", "--snapshot-b", "two"]).expect(1);
    assert!(changed.contains("timer"), "{changed}");
    assert_eq!(run(&["inspect", arg(&disk), "--snapshot", "three"]).status, 2);
}

#[test]
fn later_versions() {
    let Some(directory) = std::env::var_os("QEMU_LATER").map(PathBuf::from) else {
        return skip("later versions of QEMU", "QEMU_LATER names no directory of programs");
    };
    let data = directory.join("../share/qemu");
    let data = ["-L", arg(&data), "-L", "/usr/share/seabios", "-L", "/usr/lib/ipxe/qemu"];
    let place = Place::new();
    let runs = [("pc", ""), ("aarch64", ""), ("pc", "mapped-ram"), ("pc", "x-ignore-shared")];
    for (name, capability) in runs {
        let machine = machine(name);
        let args: Vec<&str> = machine.args.split_whitespace().chain(data).chain(["-nic", "none"]).collect();
        let started = Qemu::start(&directory.join(machine.program), &args, place.path("later.sock"));
        let mut qemu = match started {
            Ok(qemu) => qemu,
            Err(why) => {
                skip(&format!("later {name}"), &why);
                continue;
            }
        };
        std::thread::sleep(Duration::from_millis(1500));
        let path = place.path("later.mig");
        if !capability.is_empty() {
            qemu.capabilities(&[capability]);
        }
        if capability == "mapped-ram" {
            qemu.execute("migrate", &format!(r#"{{"uri": "file:{}"}}"#, path.display()));
            qemu.wait(&["completed"]);
        } else {
            qemu.migrate_to(&path);
        }
        let stream = undamaged(&std::fs::read(&path).unwrap());
        assert_eq!(misfits(&stream), [""; 0], "{name} {capability}");
        if name == "pc" {
            compare_memory(&place, &mut qemu, &path, 64 << 20);
        }
        if let Some(theirs) = script("ANALYZE_MIGRATION_LATER", &path) {
            assert!(theirs == run(&["inspect", "-f", "analyze", arg(&path)]).expect(0), "{name} {capability}");
        } else {
            skip(&format!("later {name} {capability}"), "no script that reads it");
        }
        std::fs::remove_file(&path).unwrap();
    }
}
