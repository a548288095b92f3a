// SPDX-License-Identifier: LGPL-2.1-or-later
//! Several connections with an unmodified QEMU at the other end: 7.2 (`QEMU`, or qemu-system-x86_64), and 10.0 if `QEMU_10`
//! names one; plain, and with TLS if the library has it. Its machine `none` has one block of RAM, which is a file that the test compares page by page.

use super::certificates::{Authority, Dir};
use super::machine::Machine;
use super::multifd::{Memory, PAGE, PAGES, several, socket_path};
use super::precopy::LONG;
use super::qemu::{Qemu, none_devices, wait_for_listener};
use savevm::channel::{TlsOptions, Uri};
use savevm::migration::{Compression, Endpoint, Incoming, Migration, MultifdFormat, Outgoing, Params};
use std::path::PathBuf;
use std::sync::Arc;

/// A QEMU for the tests.
struct Version {
    program: String,
    text: &'static str,
    /// The variants of the format, with QEMU's option for each.
    formats: &'static [(MultifdFormat, &'static str)],
    methods: &'static [(Compression, &'static str)],
}

const METHODS: [(Compression, &str); 3] =
    [(Compression::None, "none"), (Compression::Zlib, "zlib"), (Compression::Zstd, "zstd")];

fn versions() -> Vec<Version> {
    let name = std::env::var("QEMU").unwrap_or_else(|_| "qemu-system-x86_64".into());
    let old: &[_] = &[(MultifdFormat::Auto, "")];
    let mut versions = vec![Version { program: name, text: "version 7.2", formats: old, methods: &METHODS }];
    match std::env::var("QEMU_10") {
        Ok(program) => versions.push(Version {
            program,
            text: "version 10.0",
            formats: &[
                (MultifdFormat::Qemu72, "multifd-flush-after-each-section=on,zero-page-detection=legacy"),
                (MultifdFormat::Qemu81, "zero-page-detection=legacy"),
                (MultifdFormat::Qemu90, "zero-page-detection=multifd"),
            ],
            // Without zstd, unless its build found it.
            methods: &METHODS[..2],
        }),
        Err(_) => eprintln!("SKIPPED: QEMU_10 names no QEMU 10.0"),
    }
    versions
}

/// The content of the memory: random, compressible and zero pages.
fn content() -> Vec<u8> {
    let mut state = 7_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let mut bytes = vec![0; PAGES * PAGE];
    for (number, page) in bytes.chunks_mut(PAGE).enumerate() {
        match number % 7 {
            0 | 1 => page.iter_mut().for_each(|byte| *byte = next()),
            2 | 3 => page.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at / 100 + number) as u8),
            4 => page[number % PAGE] = 1,
            _ => {}
        }
    }
    bytes
}

fn start(version: &Version, case: &Case, option: &str, incoming: bool) -> Option<Qemu> {
    let memory = &case.memory;
    let backend = format!("memory-backend-file,id=m,size={},mem-path={},share=on", PAGES * PAGE, memory.display());
    let size = format!("size={}B", PAGES * PAGE);
    let mut arguments = vec!["-M", "none,memory-backend=m", "-object", &backend, "-m", &size];
    let option: Vec<String> =
        option.split(',').filter(|one| !one.is_empty()).map(|one| format!("migration.{one}")).collect();
    option.iter().for_each(|one| arguments.extend(["-global", one]));
    if !option.is_empty() {
        // As machine types up to 9.2: the machine of the test has the semantics of 7.2.
        arguments.extend(["-global", "migration.send-switchover-start=off"]);
    }
    if incoming {
        arguments.extend(["-incoming", "defer"]);
    }
    let credentials = case.params.tls.as_ref().map(|tls| {
        let endpoint = if incoming { "server" } else { "client" };
        format!("tls-creds-x509,id=tls,dir={},endpoint={endpoint}", tls.dir.display())
    });
    credentials.iter().for_each(|object| arguments.extend(["-object", object]));
    Qemu::start_version(&version.program, version.text, &arguments)
}

fn set_up(qemu: &mut Qemu, case: &Case, channels: u32, method: &str) {
    if case.params.tls.is_some() {
        qemu.command("migrate_set_parameter tls-creds tls");
        qemu.command("migrate_set_parameter tls-hostname localhost");
    }
    qemu.command("migrate_set_capability multifd on");
    qemu.command(&format!("migrate_set_parameter multifd-channels {channels}"));
    qemu.command(&format!("migrate_set_parameter multifd-compression {method}"));
}

fn assert_same(have: &[u8], want: &[u8], what: &str) {
    for (number, (have, want)) in have.chunks(PAGE).zip(want.chunks(PAGE)).enumerate() {
        assert!(have == want, "{what}: page {number} differs");
    }
}

struct Case {
    socket: PathBuf,
    memory: PathBuf,
    what: String,
    params: Params,
}

impl Drop for Case {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
        let _ = std::fs::remove_file(&self.memory);
    }
}

/// No TLS and, if the library has it, TLS with these certificates.
fn protections(dir: &Dir) -> Vec<Option<Arc<TlsOptions>>> {
    let tls = TlsOptions {
        dir: dir.path().into(),
        hostname: Some("localhost".into()),
        verify_peer: true,
        allowed_peers: None,
    };
    let mut protections = vec![None];
    protections.extend(cfg!(feature = "tls").then(|| Some(Arc::new(tls))));
    protections
}

/// Runs `case` for every version, number of connections, format and method. QEMU's memory has `content` at first.
fn each(direction: &str, content: &[u8], case: impl Fn(&Version, &Case, u32, &str, &str)) {
    let dir = Dir::standard(&Authority::new("CA"));
    for version in versions() {
        for channels in [2, 4] {
            for (format, option) in version.formats {
                for (compression, method) in version.methods {
                    for tls in protections(&dir) {
                        let text = version.text.replace(' ', "-");
                        let secured = if tls.is_some() { "-tls" } else { "" };
                        let what = format!("{direction}-{text}-{channels}-{format:?}-{method}{secured}");
                        let params = Params { multifd_format: *format, tls, ..several(channels, *compression) };
                        let (socket, memory) = (socket_path(&what), socket_path(&format!("{what}-memory")));
                        std::fs::write(&memory, content).unwrap();
                        case(&version, &Case { socket, memory, what, params }, channels, option, method);
                    }
                }
            }
        }
    }
}

#[test]
fn qemu_takes_memory_over_several_connections() {
    let wanted = content();
    each("to", &[], |version, case, channels, option, method| {
        // QEMU 9.0 and later takes its memory to be zero where nothing has arrived, and leaves zero pages out.
        let before = if case.params.multifd_format == MultifdFormat::Qemu90 { 0 } else { 0xee };
        std::fs::write(&case.memory, vec![before; PAGES * PAGE]).unwrap();
        let Some(mut qemu) = start(version, case, option, true) else {
            return eprintln!("SKIPPED: {} is not QEMU {}", version.program, version.text);
        };
        set_up(&mut qemu, case, channels, method);
        qemu.command(&format!("migrate_incoming unix:{}", case.socket.display()));
        wait_for_listener(&case.socket);
        let (machine, _, stage) = Machine::two();
        machine.vm.unregister_name(None, b"dev", 1);
        let memory = Memory::named(&machine, "m");
        memory.set(&wanted);
        let out = Outgoing::start(&machine.vm, Endpoint::Uri(Uri::Unix(case.socket.clone())), case.params.clone());
        let out = out.unwrap();
        out.wait_within(LONG).expect("it ends").unwrap_or_else(|error| panic!("{}: {error}", case.what));
        qemu.ask_until("info status", "VM status: running");
        assert_same(&std::fs::read(&case.memory).unwrap(), &wanted, &case.what);
        assert!(!machine.host.is_running() && !out.info().peer_is_libsavevm);
        stage.check(&case.what);
        println!("{}: ok", case.what);
    });
}

#[test]
fn qemu_gives_memory_over_several_connections() {
    let wanted = content();
    each("from", &wanted, |version, case, channels, option, method| {
        let Some(mut qemu) = start(version, case, option, false) else {
            return eprintln!("SKIPPED: {} is not QEMU {}", version.program, version.text);
        };
        let (_, machine, stage) = Machine::two();
        machine.vm.unregister_name(None, b"dev", 1);
        let memory = Memory::named(&machine, "m");
        memory.set(&vec![0xee; PAGES * PAGE]);
        none_devices(&machine.vm);
        stage.qemu_has_the_guest();
        let into = Incoming::start(&machine.vm, Endpoint::Uri(Uri::Unix(case.socket.clone())), case.params.clone());
        let into = into.unwrap();
        set_up(&mut qemu, case, channels, method);
        qemu.command("migrate_set_capability return-path on");
        qemu.command(&format!("migrate -d unix:{}", case.socket.display()));
        into.wait_within(LONG).expect("it ends").unwrap_or_else(|error| panic!("{}: {error}", case.what));
        assert_same(&memory.content(), &wanted, &case.what);
        qemu.ask_until("info migrate", "completed");
        stage.check(&case.what);
        println!("{}: ok", case.what);
    });
}

#[test]
fn qemu_without_postcopy_after_several_connections_refuses_it() {
    each("postcopy", &[], |version, case, channels, option, method| {
        std::fs::write(&case.memory, vec![0; PAGES * PAGE]).unwrap();
        let Some(mut qemu) = start(version, case, option, true) else {
            return eprintln!("SKIPPED: {} is not QEMU {}", version.program, version.text);
        };
        set_up(&mut qemu, case, channels, method);
        qemu.command(&format!("migrate_incoming unix:{}", case.socket.display()));
        wait_for_listener(&case.socket);
        let (machine, _, stage) = Machine::two();
        machine.vm.unregister_name(None, b"dev", 1);
        let memory = Memory::named(&machine, "m");
        memory.set(&content());
        let params = Params { postcopy: true, ..case.params.clone() };
        let out = Outgoing::start(&machine.vm, Endpoint::Uri(Uri::Unix(case.socket.clone())), params).unwrap();
        let error = out.wait_within(LONG).expect("it ends").unwrap_err();
        assert!(error.to_string().contains("QEMU before 10.1"), "{}: {error}", case.what);
        assert!(machine.host.is_running(), "{}", case.what);
        stage.check(&case.what);
        println!("{}: ok", case.what);
    });
}
