// SPDX-License-Identifier: LGPL-2.1-or-later
//! How fast the command is. Not for every day: `cargo test --release --test speed -- --ignored --nocapture`.
//!
//! A machine that does other things as well is slower; the best of several runs counts.

mod support;

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::made::{Builder, Ram};
use support::qemu::skip;
use support::{Place, arg, savevm};

const PAGES: u64 = 1 << 18;

/// A stream with 1 GiB of pages that are not zero, and as many that are.
fn large(place: &Place) -> std::path::PathBuf {
    let path = place.path("large");
    let mut file = BufWriter::new(File::create(&path).unwrap());
    let start = Ram::default().blocks(&[("ram", 2 * PAGES * 4096)]).end();
    let mut head = Builder::new();
    head.configuration("none").named(1, 1, "ram", 0, 4, &start).raw(&[3, 0, 0, 0, 1]);
    file.write_all(&head.bytes).unwrap();
    for page in 0..PAGES {
        let name = (page == 0).then_some("ram");
        let contents = [page as u8 | 1; 4096];
        let records = Ram::default().page(page * 8192, name, &contents).zero(page * 8192 + 4096, None);
        file.write_all(&records.0).unwrap();
    }
    let mut tail = Builder::new();
    tail.bytes.clear();
    file.write_all(&tail.raw(&Ram::default().end()).raw(&[0x7e, 0, 0, 0, 1]).finish(true)).unwrap();
    file.into_inner().unwrap().sync_all().unwrap();
    // Into the page cache.
    std::io::copy(&mut File::open(&path).unwrap(), &mut std::io::sink()).unwrap();
    path
}

fn best_of(runs: u32, mut run: impl FnMut()) -> Duration {
    let time = |_| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (0..runs).map(time).min().unwrap()
}

#[test]
#[ignore = "takes gigabytes and an idle machine"]
fn memory_goes_by_at_two_gigabytes_a_second() {
    let place = Place::new();
    let path = large(&place);
    let bytes = std::fs::metadata(&path).unwrap().len();
    let rate = |time: Duration| bytes as f64 / time.as_secs_f64() / 1e9;
    let mapped = best_of(7, || assert!(savevm().args(["inspect", arg(&path)]).output().unwrap().status.success()));
    let piped = best_of(5, || {
        let mut child = savevm().args(["inspect", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let mut file = File::open(&path).unwrap();
        let mut buffer = vec![0; 1 << 20];
        while let Ok(count @ 1..) = file.read(&mut buffer) {
            pipe.write_all(&buffer[..count]).unwrap();
        }
        drop(pipe);
        assert!(child.wait().unwrap().success());
    });
    println!(
        "{bytes} bytes: mapped {mapped:.2?}, {:.1} GB/s; from a pipe {piped:.2?}, {:.1} GB/s",
        rate(mapped),
        rate(piped)
    );
    match std::env::var_os("ANALYZE_MIGRATION") {
        Some(script) => {
            let theirs = best_of(2, || {
                let output = Command::new("python3").arg(&script).arg("-f").arg(&path).output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            });
            println!("the script {theirs:.2?}, {:.0} times as long", theirs.as_secs_f64() / mapped.as_secs_f64());
        }
        None => skip("the comparison", "ANALYZE_MIGRATION names no script"),
    }
    assert!(rate(mapped) > 2.0, "{:.1} GB/s", rate(mapped));
}
