// SPDX-License-Identifier: LGPL-2.1-or-later
//! The `savevm` command over files of any bytes: every subcommand that reads a stream, with its options.
#![no_main]
#![allow(dead_code, reason = "what writes manual pages and the like is not called")]

#[path = "../../cli/src/args.rs"]
mod args;
#[path = "../../cli/src/commands/mod.rs"]
mod commands;
#[path = "../../cli/src/failure.rs"]
mod failure;
#[path = "../../cli/src/input/mod.rs"]
mod input;
#[path = "../../cli/src/memory.rs"]
mod memory;
#[path = "../../cli/src/output.rs"]
mod output;
#[path = "../../cli/src/picture/mod.rs"]
mod picture;
#[path = "../../cli/src/progress.rs"]
mod progress;
#[path = "../../cli/src/system.rs"]
mod system;
#[path = "../../cli/src/words.rs"]
mod words;

use args::{Cli, Command};
use clap::Parser;
use libfuzzer_sys::fuzz_target;
use savevm_stream::inspect::Budget;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};

/// What the command says beside its output; nobody is there.
fn say(_message: &str) {}

/// A file without a name: `A`, `B` and `OUT` in arguments.
fn file(bytes: &[u8]) -> File {
    // SAFETY: a new descriptor, which the file owns.
    let mut file = unsafe { File::from_raw_fd(libc::memfd_create(c"stream".as_ptr(), libc::MFD_CLOEXEC)) };
    file.write_all(bytes).expect("memory");
    file
}

const WAYS: [&str; 14] = [
    "inspect A",
    "inspect A --hex",
    "inspect A --device * --hex",
    "inspect A --format json",
    "inspect A --format analyze",
    "inspect A --format description",
    "inspect A --plot",
    "diff A B",
    "diff A B --no-ram --format json",
    "check A",
    "check A --against B --format json",
    "schema A",
    "inspect A --describe-by B --device *",
    "extract A --ram ram -o OUT",
];

/// `savevm plot`, without the file that it writes.
fn plot(bytes: &[u8]) {
    if let Ok(trace) = picture::trace::Trace::parse(bytes, &mut Budget::new(8 << 20)) {
        picture::timeline::page(&trace);
    }
}

fuzz_target!(init: {
    // What is printed only takes time.
    // SAFETY: descriptor 1 is the program's standard output.
    unsafe { libc::dup2(File::create("/dev/null").expect("/dev/null").as_raw_fd(), 1) };
}, |data: &[u8]| {
    // The way, and where the one file ends and the other begins, as a fraction of 65536.
    let [way, high, low, streams @ ..] = data else { return };
    let (a, b) = streams.split_at(streams.len() * usize::from(u16::from_be_bytes([*high, *low])) >> 16);
    if usize::from(*way) % (WAYS.len() + 1) == WAYS.len() {
        return plot(streams);
    }
    let (a, b) = if b.is_empty() || a.is_empty() { (streams, streams) } else { (a, b) };
    let (a, b, out) = (file(a), file(b), file(b""));
    let path = |file: &File| format!("/proc/self/fd/{}", file.as_raw_fd());
    let words = WAYS[usize::from(*way) % (WAYS.len() + 1)].split(' ').map(|word| match word {
        "A" => path(&a),
        "B" => path(&b),
        "OUT" => path(&out),
        word => word.to_owned(),
    });
    let limits = ["--max-memory".to_owned(), "8M".to_owned()];
    let cli = Cli::parse_from(std::iter::once("savevm".to_owned()).chain(words).chain(limits));
    let _ = match &cli.command {
        Command::Inspect(args) => commands::inspect::run(args, cli.colour),
        Command::Diff(args) => commands::diff::run(args, cli.colour),
        Command::Check(args) => commands::check::run(args, cli.colour),
        Command::Schema(args) => commands::schema::run(args),
        Command::Extract(args) => commands::extract::run(args),
        _ => return,
    };
});
