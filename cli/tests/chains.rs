// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the command does with incremental snapshots.

mod support;

use savevm_stream::chain::Identity;
use savevm_stream::inspect::json::Json;
use savevm_stream::testing::Ram;
use savevm_stream::wire::page_index::{FileState, PageIndex};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use support::{Place, Run, arg, json, run, savevm};

const PAGE: u64 = 4096;

/// A snapshot of a machine with four pages and a counter, and its identity.
fn snapshot(pages: &[(u64, u8)], count: u8, parent: Option<(Identity, &str)>) -> (Vec<u8>, Identity) {
    let records = pages.iter().fold(Ram::default(), |ram, (page, value)| match value {
        0 => ram.zero(page * PAGE, Some("pc.ram")),
        value => ram.page(page * PAGE, Some("pc.ram"), &[*value; PAGE as usize]),
    });
    support::snapshot(4 * PAGE, records, count, parent)
}

/// A directory with a chain of three files.
fn chain() -> Place {
    let place = Place::new();
    let (base, id) = snapshot(&[(0, 1), (1, 2), (2, 3), (3, 4)], 1, None);
    place.file("base", &base);
    let (one, id) = snapshot(&[(1, 0), (2, 9)], 2, Some((id, "base")));
    place.file("one", &one);
    let (two, _) = snapshot(&[(2, 7)], 3, Some((id, "one")));
    place.file("two", &two);
    place
}

#[test]
fn merged_chain_equals_the_full_snapshot() {
    let place = chain();
    let whole = place.path("whole");
    let text = run(&["merge", arg(&place.path("two")), "-o", arg(&whole)]).expect(0);
    assert!(text.contains("from 3 files"), "{text}");
    let (full, _) = snapshot(&[(0, 1), (1, 0), (2, 7), (3, 4)], 3, None);
    let full = place.file("full", &full);
    run(&["diff", arg(&whole), arg(&full)]).expect(0);
    run(&["check", arg(&whole)]).expect(0);
    // Each command reads a chain as one stream.
    run(&["diff", arg(&place.path("two")), arg(&full)]).expect(0);
    run(&["check", arg(&place.path("two"))]).expect(0);
    let table = run(&["inspect", arg(&place.path("two"))]).expect(0);
    assert!(table.contains("pc-q35-7.2") && !table.contains("savevm/snapshot"), "{table}");
    let ancestors = table.lines().find(|line| line.starts_with("  incremental")).unwrap();
    assert!(ancestors.contains("/one, ") && ancestors.ends_with("/base"), "{ancestors}");
    let table = run(&["inspect", arg(&place.path("base"))]).expect(0);
    assert!(!table.contains("incremental"), "{table}");
    let image = place.path("image");
    run(&["extract", arg(&place.path("two")), "--ram", "pc.ram", "-o", arg(&image)]).expect(0);
    let image = std::fs::read(image).unwrap();
    let first: Vec<_> = image.chunks(PAGE as usize).map(|page| page[0]).collect();
    assert_eq!(first, [1, 0, 7, 4]);
}

#[test]
fn chain_is_merged_into_a_file_with_fixed_places_and_back() {
    let place = chain();
    let (mapped, again) = (place.path("mapped"), place.path("again"));
    run(&["merge", arg(&place.path("two")), "--format", "mapped", "-o", arg(&mapped)]).expect(0);
    run(&["check", arg(&mapped)]).expect(0);
    let (full, _) = snapshot(&[(0, 1), (1, 0), (2, 7), (3, 4)], 3, None);
    let full = place.file("full", &full);
    run(&["merge", arg(&mapped), "-o", arg(&again)]).expect(0);
    run(&["diff", arg(&again), arg(&full)]).expect(0);
    // The format of a file is no difference of the machines.
    for args in [&["diff", arg(&mapped), arg(&full)][..], &["diff", "--no-ram", arg(&mapped), arg(&full)]] {
        let same = run(args);
        assert!(same.err.contains("only A has fixed places of pages (mapped-ram)"), "{}", same.err);
        assert_eq!(same.expect(0), "");
    }
    let image = place.path("image");
    for file in [&mapped, &again] {
        run(&["extract", arg(file), "--ram", "pc.ram", "-o", arg(&image)]).expect(0);
        let bytes = std::fs::read(&image).unwrap();
        assert_eq!(bytes.chunks(PAGE as usize).map(|page| page[0]).collect::<Vec<_>>(), [1, 0, 7, 4]);
    }
    let text = run(&["inspect", arg(&mapped)]).expect(0);
    assert!(text.contains("mapped-ram"), "{text}");
}

#[test]
fn broken_chain_is_refused_with_the_file_that_is_wrong() {
    let place = chain();
    let merge = |output: &str| run(&["merge", arg(&place.path("two")), "-o", arg(&place.path(output))]);
    let refused = merge("one");
    assert_eq!(refused.status, 2);
    assert!(refused.err.contains("is a file of the chain"), "{}", refused.err);
    let mut bytes = std::fs::read(place.path("base")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    place.file("base", &bytes);
    for args in
        [&["merge", arg(&place.path("two")), "-o", arg(&place.path("x"))][..], &["inspect", arg(&place.path("two"))]]
    {
        let refused = run(args);
        assert_eq!(refused.status, 2, "{args:?}");
        assert!(refused.err.contains("base' is not the parent of"), "{}", refused.err);
    }
    assert!(!place.path("x").exists());
    let missing = run(&["merge", arg(&place.path("nothing")), "-o", arg(&place.path("x"))]);
    assert!(missing.err.ends_with("nothing' can't be opened: No such file or directory\n"), "{}", missing.err);
    let left: Vec<_> = std::fs::read_dir(place.path(".")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn snapshots_of_a_directory_are_listed_with_their_parents() {
    let place = chain();
    place.file("notes.txt", b"not a snapshot");
    let list = run(&["snapshots", arg(&place.path("."))]).expect(0);
    let lines: Vec<Vec<_>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 4, "{list}");
    assert_eq!((lines[1][0], lines[2][0], lines[3][0]), ("base", "one", "two"));
    assert!(list.contains("full") && !list.contains("notes"), "{list}");
    assert!(lines[2].ends_with(&["incremental,", "2", "files"]), "{list}");
    assert!(lines[3].ends_with(&["incremental,", "3", "files"]), "{list}");
    let list = run(&["snapshots", "--verify", arg(&place.path("."))]).expect(0);
    assert!(list.contains("3 files, verified"), "{list}");
    // A file with fixed places is longer than what it takes on the disk.
    run(&["merge", arg(&place.path("two")), "--format", "mapped", "-o", arg(&place.path("whole"))]).expect(0);
    let list = run(&["snapshots", arg(&place.path("."))]).expect(0);
    let line = list.lines().find(|line| line.starts_with("whole")).unwrap();
    assert!(line.contains("1.0 MiB") && line.contains(" KiB") && line.ends_with("full"), "{line}");
    // All ancestors are looked at, also those of the parent.
    for damage in [Some(&b"QEVM"[..]), None] {
        match damage {
            Some(bytes) => std::fs::write(place.path("base"), bytes).unwrap(),
            None => std::fs::remove_file(place.path("base")).unwrap(),
        }
        let list = run(&["snapshots", arg(&place.path("."))]);
        assert_eq!(list.status, 1);
        for name in ["one", "two"] {
            let line = list.out.lines().find(|line| line.starts_with(name)).unwrap();
            assert!(line.contains("the parent") && line.contains("base of ") && line.contains("one"), "{line}");
        }
    }
    assert_eq!(run(&["snapshots", arg(&place.path("nowhere"))]).status, 2);
}

#[test]
fn snapshots_that_cannot_be_read_are_listed_with_the_reason() {
    let place = chain();
    let whole = std::fs::read(place.path("base")).unwrap();
    symlink("loop", place.path("loop")).unwrap();
    symlink("nowhere", place.path("dangling")).unwrap();
    std::fs::create_dir(place.path("directory")).unwrap();
    let list = |flags: &[&str]| run(&[&["snapshots", arg(&place.path("."))], flags].concat());
    let line = |run: &Run, name: &str| {
        let line = run.out.lines().find(|line| line.starts_with(name));
        line.unwrap_or_else(|| panic!("no {name}: {}", run.out)).to_owned()
    };
    let unreadable = list(&[]);
    assert_eq!(unreadable.status, 2, "{}", unreadable.out);
    assert!(line(&unreadable, "loop").contains("Too many levels of symbolic links"), "{}", unreadable.out);
    assert!(line(&unreadable, "dangling").contains("No such file or directory"), "{}", unreadable.out);
    assert!(line(&unreadable, "two").ends_with("incremental, 3 files"), "{}", unreadable.out);
    for name in ["loop", "dangling"] {
        assert!(unreadable.err.contains(&format!("/{name}: ")), "{}", unreadable.err);
    }
    assert!(!unreadable.out.contains("directory "), "{}", unreadable.out);
    let json = json(list(&["--format", "json"]).out);
    let member = |name: &str, key: &str| {
        let all = json.get("snapshots").unwrap().elements();
        let found = all.iter().find(|one| one.get("name").and_then(Json::as_str) == Some(name)).unwrap();
        found.get(key).and_then(Json::as_str).map(str::to_owned)
    };
    assert_eq!(member("loop", "state").unwrap(), "unreadable");
    assert!(member("loop", "problem").unwrap().contains("Too many levels"));
    assert_eq!((member("two", "state").unwrap(), member("two", "problem")), ("usable".into(), None));
    for name in ["loop", "dangling"] {
        std::fs::remove_file(place.path(name)).unwrap();
    }
    list(&[]).expect(0);
    // Damage that the first bytes show.
    place.file("cut", &whole[..6]);
    place.file("wrong", &[b"QEVM\0\0\0\x09", &whole[8..]].concat());
    place.file("unknown", &[&whole[..8], &[0x55; 100_000]].concat());
    let damaged = list(&[]);
    assert_eq!(damaged.status, 1, "{}", damaged.out);
    assert!(line(&damaged, "cut").contains("cut off at offset"), "{}", damaged.out);
    for name in ["wrong", "unknown"] {
        assert!(line(&damaged, name).contains("damaged at offset"), "{}", damaged.out);
    }
    assert_eq!(list(&["--verify"]).status, 1);
}

#[test]
fn snapshots_of_a_directory_without_permission_are_not_listed_as_none() {
    let place = chain();
    std::fs::set_permissions(place.path("one"), PermissionsExt::from_mode(0o000)).unwrap();
    let as_other_user = |directory: &str| {
        let mut list = savevm();
        list.args(["snapshots", directory]);
        if std::fs::metadata(place.path(".")).unwrap().uid() == 0 {
            list.uid(65534).gid(65534);
        }
        list.output().ok().map(Run::from)
    };
    let Some(partly) = as_other_user(arg(&place.path("."))) else {
        return eprintln!("SKIPPED: another user can't run the command here");
    };
    assert_eq!(partly.status, 2, "{}", partly.out);
    assert!(partly.err.contains("/one: Permission denied"), "{}", partly.err);
    let line = |name: &str| partly.out.lines().find(|line| line.starts_with(name)).unwrap();
    assert!(line("one").contains("Permission denied") && line("base").ends_with("full"), "{}", partly.out);
    std::fs::create_dir(place.path("closed")).unwrap();
    std::fs::set_permissions(place.path("closed"), PermissionsExt::from_mode(0o000)).unwrap();
    let closed = as_other_user(arg(&place.path("closed"))).unwrap();
    assert_eq!((closed.status, &*closed.out), (2, ""));
    assert!(closed.err.contains("closed: Permission denied"), "{}", closed.err);
}

#[test]
fn index_has_the_last_copy_of_each_page() {
    let place = chain();
    let (path, index) = (place.path("base"), place.path("index"));
    let text = run(&["index", arg(&path), "-o", arg(&index)]).expect(0);
    assert!(text.ends_with(", 4 runs of pages\n"), "{text}");
    let found = PageIndex::decode(&std::fs::read(&index).unwrap()).unwrap();
    assert_eq!(found.file, FileState::from(&std::fs::metadata(&path).unwrap()));
    let [block] = &found.blocks[..] else { panic!("{found:?}") };
    assert_eq!((&*block.name, block.length, block.runs.len()), ("pc.ram", 4 * PAGE, 4));
    let bytes = std::fs::read(&path).unwrap();
    for (run, value) in block.runs.iter().zip(1..) {
        let Ok(offset) = run.place.get() else { panic!("{run:?}") };
        assert!(bytes[offset as usize..][..PAGE as usize].iter().all(|byte| *byte == value));
    }
    for wrong in ["one", "missing"] {
        let refused = run(&["index", arg(&place.path(wrong)), "-o", arg(&place.path("none"))]);
        assert_eq!(refused.status, 2, "{}", refused.err);
    }
    let cut = place.file("cut", &bytes[..bytes.len() / 2]);
    assert_eq!(run(&["index", arg(&cut), "-o", arg(&place.path("none"))]).status, 1);
    assert!(!place.path("none").exists());
}
