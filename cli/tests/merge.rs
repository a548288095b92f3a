// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm merge` is killed at any moment and meets a full disk: the files that were there stay as they were.

mod support;

use savevm_stream::chain::Identity;
use savevm_stream::testing::Ram;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;
use support::{Place, Run, arg, finish, run, savevm, with_own_mounts};

const PAGE: usize = 4096;
const PAGES: u64 = 400;
const FORMATS: [&str; 2] = ["stream", "mapped"];

/// A snapshot with a page of this value at each `step`, and its identity.
fn snapshot(step: usize, value: u8, parent: Option<(Identity, &str)>) -> (Vec<u8>, Identity) {
    let records = (0..PAGES)
        .step_by(step)
        .fold(Ram::default(), |ram, page| ram.page(page * PAGE as u64, Some("pc.ram"), &[value; PAGE]));
    support::snapshot(PAGES * PAGE as u64, records, value, parent)
}

/// A directory with a chain of two files, and with a full snapshot named `whole`.
fn chain() -> Place {
    let place = Place::new();
    let (base, identity) = snapshot(1, 1, None);
    place.file("base", &base);
    let (child, _) = snapshot(3, 2, Some((identity, "base")));
    place.file("child", &child);
    place.file("whole", &snapshot(1, 9, None).0);
    place
}

/// The files of a directory with their contents.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn merge(place: &Place, format: &str, output: &Path) -> Command {
    let mut command = savevm();
    command.args(["merge", arg(&place.path("child")), "--format", format, "-o", arg(output)]);
    command
}

#[test]
fn merge_killed_at_any_moment_keeps_whole_files() {
    const KILLS: u32 = 25;
    for format in FORMATS {
        let place = chain();
        let before = files(&place.path("."));
        let whole = place.path("whole");
        let since = Instant::now();
        finish(&mut merge(&place, format, &whole)).expect(0);
        let time = since.elapsed();
        let merged = std::fs::read(&whole).unwrap();
        assert!(merged != before[&whole]);
        for kill in 0..KILLS {
            std::fs::write(&whole, &before[&whole]).unwrap();
            let mut child = merge(&place, format, &whole).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            thread::sleep(time * kill / (KILLS - 1));
            child.kill().unwrap();
            child.wait().unwrap();
            for (path, bytes) in files(&place.path(".")) {
                match before.get(&path) {
                    Some(old) if path == whole => assert!(bytes == *old || bytes == merged, "{format}: half a file"),
                    Some(old) => assert!(bytes == *old, "{format}: {} was changed", path.display()),
                    None => {
                        // A new file has a hidden name at most.
                        let name = path.file_name().unwrap().to_str().unwrap();
                        assert!(name.starts_with(".savevm-"), "{format}: {name}");
                        std::fs::remove_file(path).unwrap();
                    }
                }
            }
        }
    }
}

/// The merge failed with this text, and changed nothing.
fn check_refused(refused: &Run, text: &str, directory: &Path, before: &BTreeMap<PathBuf, Vec<u8>>, what: &str) {
    assert_eq!(refused.status, 2, "{what}: {}", refused.err);
    assert!(refused.err.contains("cannot write") && refused.err.contains(text), "{what}: {}", refused.err);
    assert_eq!(refused.err.lines().count(), 1, "{what}: {}", refused.err);
    assert!(files(directory) == *before, "{what}: {:?}", files(directory).keys());
}

#[test]
fn merge_that_fails_at_any_place_of_its_file_changes_nothing() {
    for format in FORMATS {
        let place = chain();
        let directory = place.path(".");
        let output = place.path("whole");
        let before = files(&directory);
        let length = {
            let other = place.path("other");
            finish(&mut merge(&place, format, &other)).expect(0);
            let length = std::fs::metadata(&other).unwrap().len();
            std::fs::remove_file(other).unwrap();
            length
        };
        // The limit of a file's length, in blocks of 512 bytes.
        for limit in (0..length / 512).step_by((length / 512 / 20) as usize) {
            let whole = merge(&place, format, &output);
            let mut limited = Command::new("sh");
            limited.args(["-c", &format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" \"$@\"")]);
            limited.arg(whole.get_program()).args(whole.get_args());
            check_refused(&finish(&mut limited), "File too large", &directory, &before, &format!("{format}, {limit}"));
        }
    }
}

#[test]
fn merge_onto_a_full_disk_changes_nothing() {
    with_own_mounts("merge_onto_a_full_disk_changes_nothing", merge_onto_a_full_disk);
}

fn merge_onto_a_full_disk() {
    for format in FORMATS {
        let place = chain();
        let old = std::fs::read(place.path("whole")).unwrap();
        // Room for the old file and for a part of the new one.
        let disk = place.path("disk");
        std::fs::create_dir(&disk).unwrap();
        let size = format!("size={}k", old.len() * 3 / 2 / 1024);
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs", arg(&disk)]).output();
        if !mounted.is_ok_and(|done| done.status.success()) {
            return eprintln!("SKIPPED: no file system can be mounted here");
        }
        let output = disk.join("whole");
        std::fs::write(&output, &old).unwrap();
        let before = files(&disk);
        let refused = finish(&mut merge(&place, format, &output));
        check_refused(&refused, "No space left on device", &disk, &before, format);
        run(&["check", arg(&output)]).expect(0);
        assert!(Command::new("umount").arg(&disk).status().unwrap().success());
    }
}
