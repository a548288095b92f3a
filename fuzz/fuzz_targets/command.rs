// SPDX-License-Identifier: LGPL-2.1-or-later
//! Runs the `savevm` command over files of arbitrary bytes: every subcommand that reads a stream, with its options.
#![no_main]

use clap::Parser;
use libfuzzer_sys::fuzz_target;
use savevm_cli::args::Cli;
use savevm_cli::picture::timeline;
use savevm_cli::picture::trace::Trace;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};

/// Returns an unnamed file with these bytes. `A`, `B` and `OUT` in the arguments are such files.
fn file(bytes: &[u8]) -> File {
    // SAFETY: a new descriptor, which the file owns.
    let mut file = unsafe { File::from_raw_fd(libc::memfd_create(c"stream".as_ptr(), libc::MFD_CLOEXEC)) };
    file.write_all(bytes).expect("memory");
    file
}

/// The command lines, one of which the first byte of the input selects.
const LINES: [&str; 14] = [
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

/// Does what `savevm plot` does, but writes no file.
fn plot(bytes: &[u8]) {
    if let Ok(trace) = Trace::read(&mut &bytes[..], 8 << 20) {
        timeline::page(&trace);
    }
}

fuzz_target!(init: {
    // The output is not checked.
    // SAFETY: descriptor 1 is the program's standard output.
    unsafe { libc::dup2(File::create("/dev/null").expect("/dev/null").as_raw_fd(), 1) };
}, |data: &[u8]| {
    // The command line, then where the first file ends and the second begins, as a fraction of 65536.
    let [line, high, low, streams @ ..] = data else { return };
    let (a, b) = streams.split_at(streams.len() * usize::from(u16::from_be_bytes([*high, *low])) >> 16);
    if usize::from(*line) % (LINES.len() + 1) == LINES.len() {
        return plot(streams);
    }
    let (a, b) = if b.is_empty() || a.is_empty() { (streams, streams) } else { (a, b) };
    let (a, b, out) = (file(a), file(b), file(b""));
    let path = |file: &File| format!("/proc/self/fd/{}", file.as_raw_fd());
    let words = LINES[usize::from(*line) % (LINES.len() + 1)].split(' ').map(|word| match word {
        "A" => path(&a),
        "B" => path(&b),
        "OUT" => path(&out),
        word => word.to_owned(),
    });
    let limits = ["--max-memory".to_owned(), "8M".to_owned()];
    let cli = Cli::parse_from(std::iter::once("savevm".to_owned()).chain(words).chain(limits));
    let _ = savevm_cli::run(&cli);
});
