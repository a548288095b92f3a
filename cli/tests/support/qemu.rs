// SPDX-License-Identifier: LGPL-2.1-or-later
//! An unmodified QEMU, driven over QMP.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::json;
use savevm_stream::inspect::json::Json;

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// The path of a program, if it is installed.
pub fn find(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|path| path.join(program)).find(|path| path.is_file())
}

/// Says loudly that a test does not run, and why.
pub fn skip(what: &str, why: &str) {
    eprintln!("\n*** SKIPPED: {what}: {why} ***\n");
}

/// A running QEMU.
pub struct Qemu {
    child: Child,
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    socket: PathBuf,
}

impl Qemu {
    /// Starts `program` with `args`; `socket` is where its monitor will listen.
    pub fn start(program: &Path, args: &[&str], socket: PathBuf) -> Result<Self, String> {
        let monitor = format!("unix:{},server=on,wait=off", socket.display());
        let mut command = Command::new(program);
        command.args(args).args(["-display", "none", "-serial", "null", "-monitor", "none", "-qmp", &monitor]);
        command
            .env("QEMU_MODULE_DIR", "/nonexistent")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(_) if Instant::now() < deadline && child.try_wait().is_ok_and(|status| status.is_none()) => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => {
                    let _ = child.kill();
                    let mut said = String::new();
                    let _ = child.stderr.take().map(|mut pipe| pipe.read_to_string(&mut said));
                    let _ = child.wait();
                    return Err(format!("{error}; it said: {said}"));
                }
            }
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        let mut qemu = Self { child, reader, writer: stream, socket };
        qemu.line();
        qemu.execute("qmp_capabilities", "{}");
        Ok(qemu)
    }

    fn line(&mut self) -> Json<'static> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).expect("QEMU answers");
        assert!(!line.is_empty(), "QEMU is gone");
        json(line)
    }

    /// Runs a command of the monitor; the answer, or why it failed.
    pub fn attempt(&mut self, command: &str, arguments: &str) -> Result<Json<'static>, String> {
        writeln!(self.writer, r#"{{"execute": "{command}", "arguments": {arguments}}}"#).unwrap();
        loop {
            let answer = self.line();
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = answer.get("error") {
                return Err(error.get("desc").and_then(Json::as_str).unwrap_or_default().into());
            }
        }
    }

    /// Runs a command of the monitor that must not fail.
    pub fn execute(&mut self, command: &str, arguments: &str) -> Json<'static> {
        self.attempt(command, arguments).unwrap_or_else(|error| panic!("{command} {arguments}: {error}"))
    }

    /// Runs a command of the human monitor.
    pub fn human(&mut self, command: &str) -> String {
        let answer = self.execute("human-monitor-command", &format!(r#"{{"command-line": "{command}"}}"#));
        answer.as_str().unwrap_or_default().into()
    }

    /// Switches capabilities of migration on.
    pub fn capabilities(&mut self, names: &[&str]) {
        for name in names {
            let capability = format!(r#"{{"capabilities": [{{"capability": "{name}", "state": true}}]}}"#);
            self.execute("migrate-set-capabilities", &capability);
        }
    }

    /// Waits until the migration has one of these statuses, which it returns.
    pub fn wait(&mut self, wanted: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.execute("query-migrate", "{}");
            let status = status.get("status").and_then(Json::as_str).unwrap_or("none").to_string();
            if wanted.contains(&status.as_str()) {
                return status;
            }
            assert!(Instant::now() < deadline && status != "failed", "the migration is {status}, not {wanted:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until memory has been gone through so many times. The migration may be over by then: rounds in which little
    /// is sent are so short that the guest does not get to write.
    pub fn wait_for_rounds(&mut self, rounds: u64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let migration = self.execute("query-migrate", "{}");
            let status = migration.get("status").and_then(Json::as_str).unwrap_or("none");
            let count = migration.get("ram").and_then(|ram| ram.get("dirty-sync-count")?.as_u64());
            if count.is_some_and(|count| count > rounds) {
                return;
            }
            assert!(Instant::now() < deadline && status != "completed", "the migration is {status} after {count:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Migrates into a file, without a limit.
    pub fn migrate_to(&mut self, path: &Path) {
        self.execute("migrate-set-parameters", r#"{"max-bandwidth": 0}"#);
        self.execute("migrate", &format!(r#"{{"uri": "exec:cat>{}"}}"#, path.display()));
        self.wait(&["completed"]);
    }

    /// Waits until the guest of [`restless_guest`] runs.
    pub fn wait_for_restless_guest(&mut self, scratch: &Path) {
        let deadline = Instant::now() + PATIENCE;
        while self.memory(0x8f000, 1, scratch) == [0] {
            assert!(Instant::now() < deadline, "the guest does not run");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Writes guest-physical memory to a file.
    pub fn memory(&mut self, from: u64, size: u64, path: &Path) -> Vec<u8> {
        let arguments = format!(r#"{{"val": {from}, "size": {size}, "filename": "{}"}}"#, path.display());
        self.execute("pmemsave", &arguments);
        std::fs::read(path).unwrap()
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// A guest that writes to one byte of each of 128 pages from 64 KiB on, for ever. It is the machine's firmware, so that
/// nothing has to boot.
pub fn restless_guest() -> Vec<u8> {
    let mut rom = vec![0; 1 << 16];
    let code = [
        0xb8, 0x00, 0x10, // start: mov ax, 0x1000
        0x8e, 0xc0, //       next: mov es, ax
        0x26, 0xfe, 0x06, 0x00, 0x00, // inc byte [es:0]
        0x05, 0x00, 0x01, //       add ax, 0x100
        0x3d, 0x00, 0x90, //       cmp ax, 0x9000
        0x72, 0xf1, //             jb next
        0xeb, 0xec, //             jmp start
    ];
    rom[..code.len()].copy_from_slice(&code);
    // Where the CPU begins: jmp start
    rom[0xfff0..0xfff3].copy_from_slice(&[0xe9, 0x0d, 0x00]);
    rom
}

/// Stands between the two ends of a migration, and keeps what the source says.
pub struct Tap {
    heard: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Tap {
    /// Listens on one socket, and connects to the other when a peer connects.
    pub fn new(listen: &Path, connect: &Path) -> Self {
        let listener = UnixListener::bind(listen).unwrap();
        let (heard, connect) = (Arc::new(Mutex::new(Vec::new())), connect.to_path_buf());
        let keep = heard.clone();
        let thread = std::thread::spawn(move || {
            let (source, _) = listener.accept().unwrap();
            let destination = UnixStream::connect(connect).unwrap();
            let (back_from, back_to) = (destination.try_clone().unwrap(), source.try_clone().unwrap());
            let back = std::thread::spawn(move || pass_on(back_from, back_to, |_| ()));
            pass_on(source, destination, |bytes| keep.lock().unwrap().extend_from_slice(bytes));
            back.join().unwrap();
        });
        Self { heard, thread }
    }

    /// What the source said, once both ends are gone.
    pub fn finish(self) -> Vec<u8> {
        self.thread.join().unwrap();
        std::mem::take(&mut *self.heard.lock().unwrap())
    }
}

fn pass_on(mut from: UnixStream, mut to: UnixStream, mut heed: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        heed(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}
