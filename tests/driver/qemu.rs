// SPDX-License-Identifier: LGPL-2.1-or-later
//! The driver against an unmodified QEMU 7.2 at the other end, whose machine `none` has hardly any devices. Skipped, and
//! said so, where there is no such QEMU.

use super::machine::Machine;
use super::precopy::{LONG, quick};
use savevm::channel::Uri;
use savevm::error::{Error, Result};
use savevm::file::MigFile;
use savevm::migration::{Choice, Endpoint, Incoming, Migration, Outgoing, Owner, Params};
use savevm::savevm::Vm;
use savevm::savevm::handler::{Callback, Handler};
use savevm::savevm::host::Flags;
use savevm::savevm::registry::{Registrant, Registration};
use savevm::vmstate::Recorder;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// A QEMU whose monitor is on its standard input.
pub struct Qemu {
    child: Child,
    monitor: ChildStdin,
    lines: Receiver<String>,
}

impl Qemu {
    fn start(arguments: &[&str]) -> Option<Self> {
        let name = std::env::var("QEMU").unwrap_or_else(|_| "qemu-system-x86_64".into());
        Self::start_version(&name, "version 7.2", &[&["-M", "none"], arguments].concat())
    }

    /// Starts a program if it is QEMU of this version.
    pub fn start_version(name: &str, version: &str, arguments: &[&str]) -> Option<Self> {
        let text = Command::new(name).arg("--version").output().ok()?.stdout;
        if !String::from_utf8_lossy(&text).contains(version) {
            return None;
        }
        let mut child = Command::new(name)
            .args(["-nodefaults", "-display", "none", "-monitor", "stdio"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let (monitor, output) = (child.stdin.take()?, child.stdout.take()?);
        let (sender, lines) = channel();
        thread::spawn(move || {
            BufReader::new(output).lines().map_while(|line| line.ok()).all(|line| sender.send(line).is_ok())
        });
        Some(Self { child, monitor, lines })
    }

    pub fn command(&mut self, command: &str) {
        writeln!(self.monitor, "{command}").unwrap();
    }

    /// Asks until the answer has `part` in it.
    pub fn ask_until(&mut self, command: &str, part: &str) {
        let since = Instant::now();
        let mut answer = String::new();
        while since.elapsed() < LONG {
            self.command(command);
            answer.clear();
            while let Ok(line) = self.lines.recv_timeout(Duration::from_millis(200)) {
                if line.contains(part) {
                    return;
                }
                answer += &line;
                answer.push('\n');
            }
        }
        panic!("QEMU did not answer '{part}' to '{command}', but:\n{answer}");
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes what QEMU sends and keeps nothing of it.
enum Sink {
    /// So many bytes.
    Bytes(usize),
    /// QEMU's RAM without a block: words up to the end mark.
    Ram,
}

impl Handler for Sink {
    fn has(&self, callback: Callback) -> bool {
        callback == Callback::LoadState
    }
    fn save(&self, _file: &MigFile, _recorder: Option<&Recorder>) -> Result<()> {
        Ok(())
    }
    fn load(&self, file: &MigFile, _version: i32) -> Result<()> {
        const END: u64 = 0x10;
        match self {
            Self::Bytes(count) => drop(file.get(&mut vec![0; *count])),
            Self::Ram => while file.get_be64() != END && file.error() == 0 {},
        }
        file.status().first_error().map_or(Ok(()), Err::<(), Error>)
    }
}

/// A machine that can take what QEMU's machine `none` sends.
fn none_machine(vm: &Vm) {
    register(vm, "ram", 4, Sink::Ram);
    none_devices(vm);
}

/// The devices of QEMU's machine `none` besides its RAM.
pub fn none_devices(vm: &Vm) {
    register(vm, "timer", 2, Sink::Bytes(24));
}

fn register(vm: &Vm, name: &str, version: i32, handler: Sink) {
    vm.register(Registration {
        path: None,
        name: name.into(),
        instance_id: 0,
        alias_id: -1,
        version_id: version,
        is_live: false,
        registrant: Registrant { description: 0, opaque: 2 },
        handler,
    })
    .unwrap();
}

fn socket(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("savevm-qemu-{name}-{}", std::process::id()))
}

/// Waits until a process listens on a Unix socket. Connecting would take the connection of the source.
pub fn wait_for_listener(path: &std::path::Path) {
    const ACCEPTS: u32 = 0x10000;
    let end = format!(" {}", path.display());
    let listens = |line: &str| {
        let flags = line.split_whitespace().nth(3).and_then(|flags| u32::from_str_radix(flags, 16).ok());
        line.ends_with(&end) && flags.is_some_and(|flags| flags & ACCEPTS != 0)
    };
    let since = Instant::now();
    while !std::fs::read_to_string("/proc/net/unix").unwrap().lines().any(listens) {
        assert!(since.elapsed() < LONG, "QEMU does not listen");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn qemu_takes_a_guest_and_its_verdict_counts() {
    for return_path in [Choice::On, Choice::Off] {
        let path = socket(&format!("to-{return_path:?}"));
        let Some(mut qemu) = Qemu::start(&["-incoming", &format!("unix:{}", path.display())]) else {
            return eprintln!("skipped: no QEMU 7.2");
        };
        wait_for_listener(&path);
        // QEMU's machine has no such devices: this one has none either.
        let (machine, _, stage) = Machine::two();
        machine.vm.unregister_name(None, b"ram", 1);
        machine.vm.unregister_name(None, b"dev", 1);
        let params = Params { return_path, ..quick() };
        let out = Outgoing::start(&machine.vm, Endpoint::Uri(Uri::Unix(path.clone())), params).unwrap();
        out.wait_within(LONG).unwrap().unwrap();
        assert!(!machine.host.is_running() && !out.info().peer_is_libsavevm);
        assert_eq!(out.info().owner, Owner::There);
        qemu.ask_until("info status", "VM status: running");
        stage.check("to QEMU");
        let _ = std::fs::remove_file(path);
    }
}

#[test]
fn qemu_gives_its_guest_and_hears_the_verdict() {
    for return_path in ["on", "off"] {
        let Some(mut qemu) = Qemu::start(&[]) else { return eprintln!("skipped: no QEMU 7.2") };
        let path = socket(&format!("from-{return_path}"));
        let (_, machine, stage) = Machine::two();
        machine.vm.unregister_name(None, b"ram", 1);
        machine.vm.unregister_name(None, b"dev", 1);
        none_machine(&machine.vm);
        // The other machine of the pair represents QEMU's guest, which can't be observed from here.
        stage.qemu_has_the_guest();
        let into = Incoming::start(&machine.vm, Endpoint::Uri(Uri::Unix(path.clone())), quick()).unwrap();
        qemu.command(&format!("migrate_set_capability return-path {return_path}"));
        qemu.command(&format!("migrate -d unix:{}", path.display()));
        into.wait_within(LONG).unwrap().unwrap();
        assert!(machine.host.is_running());
        assert_eq!((into.info().return_path, into.info().peer_is_libsavevm), (return_path == "on", false));
        qemu.ask_until("info migrate", "Migration status: completed");
        stage.check("from QEMU");
    }
}

/// Forwards one connection from `from` to `to`. Returns what went each way once both ends have closed it.
fn recorded(from: &std::path::Path, to: &std::path::Path) -> thread::JoinHandle<(Vec<u8>, Vec<u8>)> {
    let listener = UnixListener::bind(from).unwrap();
    let to = to.to_owned();
    let pump = |mut from: UnixStream, mut to: UnixStream| {
        let (mut all, mut chunk) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = from.read(&mut chunk) {
            all.extend(&chunk[..count]);
            if to.write_all(&chunk[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
        all
    };
    thread::spawn(move || {
        let (here, _) = listener.accept().unwrap();
        let there = UnixStream::connect(to).unwrap();
        let (here_too, there_too) = (here.try_clone().unwrap(), there.try_clone().unwrap());
        let back = thread::spawn(move || pump(there_too, here_too));
        (pump(here, there), back.join().unwrap())
    })
}

/// What the library sends to a QEMU does not depend on whether it would take part in a preflight.
#[test]
fn preflight_changes_no_byte_to_and_from_qemu() {
    let to_qemu = |preflight: bool, fits: bool| {
        let (path, relay) = (socket(&format!("same-{preflight}-{fits}")), socket(&format!("relay-{preflight}-{fits}")));
        let _qemu = Qemu::start(&["-incoming", &format!("unix:{}", path.display())])?;
        wait_for_listener(&path);
        let recorded = recorded(&relay, &path);
        let (machine, _, stage) = Machine::two();
        machine.vm.unregister_name(None, b"ram", 1);
        if fits {
            machine.vm.unregister_name(None, b"dev", 1);
        }
        let params = Params { preflight, ..quick() };
        let out = Outgoing::start(&machine.vm, Endpoint::Uri(Uri::Unix(relay.clone())), params).unwrap();
        assert_eq!(out.wait_within(LONG).unwrap().is_ok(), fits);
        stage.check("to QEMU, recorded");
        let _ = (std::fs::remove_file(path), std::fs::remove_file(relay));
        Some(recorded.join().unwrap())
    };
    let from_qemu = |preflight: bool, fits: bool| {
        let mut qemu = Qemu::start(&[])?;
        let (path, relay) = (socket(&format!("back-{preflight}-{fits}")), socket(&format!("tap-{preflight}-{fits}")));
        let (_, machine, stage) = Machine::two();
        machine.vm.unregister_name(None, b"ram", 1);
        machine.vm.unregister_name(None, b"dev", 1);
        none_machine(&machine.vm);
        if !fits {
            *machine.host.machine_name.lock().unwrap() = b"other".to_vec();
        }
        stage.qemu_has_the_guest();
        let params = Params { preflight, ..quick() };
        let into = Incoming::start(&machine.vm, Endpoint::Uri(Uri::Unix(path.clone())), params).unwrap();
        let recorded = recorded(&relay, &path);
        qemu.command("migrate_set_capability return-path on");
        qemu.command(&format!("migrate -d unix:{}", relay.display()));
        assert_eq!(into.wait_within(LONG).unwrap().is_ok(), fits);
        let _ = (std::fs::remove_file(path), std::fs::remove_file(relay));
        // The source's stream has times in it.
        Some((Vec::new(), recorded.join().unwrap().1))
    };
    /// What both sides sent, with or without a preflight, if the preflight fits or not.
    type Run<'a> = &'a dyn Fn(bool, bool) -> Option<(Vec<u8>, Vec<u8>)>;
    let runs: [Run<'_>; 2] = [&to_qemu, &from_qemu];
    for (run, fits) in runs.into_iter().flat_map(|run| [(run, true), (run, false)]) {
        let (Some(with), Some(without)) = (run(true, fits), run(false, fits)) else {
            return eprintln!("skipped: no QEMU 7.2");
        };
        if fits {
            assert_eq!(with, without);
        }
        // How much is sent before a QEMU that fails closes the connection depends on the time that it takes.
        for (one, other) in [(&with.0, &without.0), (&with.1, &without.1)] {
            assert!(one.starts_with(other) || other.starts_with(one), "{one:?}\n{other:?}");
        }
        assert!(!fits || with.1.len() >= 16, "{with:?}");
    }
}

#[test]
fn a_guest_that_is_stopped_stays_stopped_in_qemu_and_from_qemu() {
    for postcopy in [false, true] {
        let path = socket(&format!("stopped-{postcopy}"));
        let Some(mut qemu) = Qemu::start(&["-incoming", &format!("unix:{}", path.display())]) else {
            return eprintln!("skipped: no QEMU 7.2");
        };
        wait_for_listener(&path);
        let (machine, _, stage) = Machine::two();
        machine.vm.unregister_name(None, b"ram", 1);
        machine.vm.unregister_name(None, b"dev", 1);
        machine.host.flags.store(Flags::GLOBAL_STATE.0, SeqCst);
        machine.host.stop_guest();
        let params = Params { postcopy, ..quick() };
        let out = Outgoing::start(&machine.vm, Endpoint::Uri(Uri::Unix(path.clone())), params).unwrap();
        let _ = postcopy.then(|| out.start_postcopy());
        out.wait_within(LONG).unwrap().unwrap();
        qemu.ask_until("info status", "VM status: paused");
        stage.check("stopped, to QEMU");
        let _ = std::fs::remove_file(path);
    }
    for (stop, name) in [("stop", c"paused"), ("", c"running")] {
        let Some(mut qemu) = Qemu::start(&[]) else { return eprintln!("skipped: no QEMU 7.2") };
        let path = socket(&format!("stopped-{stop}"));
        let (_, machine, stage) = Machine::two();
        machine.vm.unregister_name(None, b"ram", 1);
        machine.vm.unregister_name(None, b"dev", 1);
        none_machine(&machine.vm);
        stage.qemu_has_the_guest();
        let into = Incoming::start(&machine.vm, Endpoint::Uri(Uri::Unix(path.clone())), quick()).unwrap();
        qemu.command(stop);
        qemu.command(&format!("migrate -d unix:{}", path.display()));
        into.wait_within(LONG).unwrap().unwrap();
        assert_eq!((machine.vm.global_state.received(), machine.host.is_running()), (Some(name), stop.is_empty()));
        assert_eq!(into.info().owner, Owner::Here);
        stage.check("stopped, from QEMU");
    }
}

#[test]
fn a_load_that_fails_leaves_qemus_guest_running() {
    let Some(mut qemu) = Qemu::start(&[]) else { return eprintln!("skipped: no QEMU 7.2") };
    let path = socket("refused");
    let (_, machine, _) = Machine::two();
    let into = Incoming::start(&machine.vm, Endpoint::Uri(Uri::Unix(path.clone())), quick()).unwrap();
    qemu.command("migrate_set_capability return-path on");
    qemu.command(&format!("migrate -d unix:{}", path.display()));
    // This machine has other devices.
    assert!(into.wait_within(LONG).unwrap().is_err());
    assert!(!machine.host.is_running());
    qemu.ask_until("info migrate", "Migration status: failed");
    qemu.ask_until("info status", "VM status: running");
    let vm: &Arc<Vm> = &machine.vm;
    vm.slot.acquire("free again").unwrap();
}
