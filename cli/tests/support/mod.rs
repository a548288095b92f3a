// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the tests of the command share: a place for files, runs of the command, streams that are made.
#![allow(dead_code, reason = "every test program uses a part")]

pub mod qemu;
pub mod schema;

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use savevm_stream::chain::{Identity, Link, identify, seal};
use savevm_stream::inspect::Budget;
use savevm_stream::inspect::json::Json;
use savevm_stream::testing::{Builder, Ram, fields};
use savevm_stream::wire::chain::{SECTION, SECTION_ID, VERSION};

/// Reads a document, whose text then stays as long as the tests run.
pub fn json(text: impl Into<Vec<u8>>) -> Json<'static> {
    Json::parse(text.into().leak(), &mut Budget::default()).unwrap()
}

/// A snapshot of a machine with `memory` bytes in the block "pc.ram" and a counter, and its identity. `records` are its pages.
pub fn snapshot(memory: u64, records: Ram, count: u8, parent: Option<(Identity, &str)>) -> (Vec<u8>, Identity) {
    let mut stream = Builder::new();
    stream.configuration("pc-q35-7.2");
    if let Some((parent, name)) = parent {
        let mut state = Vec::new();
        Link { parent, name }.encode(&mut state);
        stream.named(4, SECTION_ID, SECTION, 0, VERSION, &state);
    }
    stream.named(1, 1, "ram", 0, 4, &Ram::default().blocks(&[("pc.ram", memory)]).end());
    stream.further(2, 1, &records.end()).further(3, 1, &Ram::default().end());
    stream.device(2, "counter", 0, &[count], &fields("counter", &[("count", "uint8", 1)]));
    let mut bytes = stream.finish(true);
    if parent.is_none() {
        let identity = identify(&&bytes[..]).unwrap();
        return (bytes, identity);
    }
    let (list, identity) = seal(&&bytes[..], None, None).unwrap();
    bytes.extend(list);
    (bytes, identity)
}

/// A directory that goes away with the test.
pub struct Place(PathBuf);

impl Place {
    /// A new one.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("savevm-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file in it.
    pub fn file(&self, name: &str, contents: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, contents).unwrap();
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a run of the command gave.
pub struct Run {
    /// The exit status.
    pub status: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Run {
    /// The output of a run that must have ended with this status.
    pub fn expect(self, status: i32) -> String {
        assert_eq!(self.status, status, "standard error: {}\nstandard output: {}", self.err, self.out);
        self.out
    }
}

/// The command.
pub fn savevm() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_savevm"));
    command.stdin(Stdio::null()).env_remove("NO_COLOR");
    command
}

/// Runs the command with these arguments.
pub fn run<A: AsRef<OsStr>>(args: &[A]) -> Run {
    finish(savevm().args(args))
}

/// Runs the command with this on its standard input.
pub fn run_piped<A: AsRef<OsStr>>(args: &[A], input: &[u8]) -> Run {
    let mut child =
        savevm().args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let input = input.to_vec();
    // The command may stop reading early.
    let feeder = std::thread::spawn(move || drop(pipe.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    Run::from(output)
}

/// Runs a command that is set up.
pub fn finish(command: &mut Command) -> Run {
    Run::from(command.output().unwrap())
}

impl From<std::process::Output> for Run {
    fn from(output: std::process::Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { status: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// Runs a test in a process with mounts of its own, which end with it, also when it is killed. The process runs the test `name`
/// again, and `body` there.
pub fn with_own_mounts(name: &str, body: fn()) {
    const INSIDE: &str = "SAVEVM_TEST_OWN_MOUNTS";
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        command
    };
    if !unshare().arg("true").output().is_ok_and(|done| done.status.success()) {
        return eprintln!("SKIPPED: this process may not have mounts of its own");
    }
    let mut inside = unshare();
    inside.arg(std::env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]).env(INSIDE, "1");
    let done = finish(&mut inside);
    eprint!("{}", done.err);
    assert!(done.expect(0).contains("1 passed"), "there is no test {name}");
}

/// A path as an argument.
pub fn arg(path: &Path) -> &str {
    path.to_str().unwrap()
}
