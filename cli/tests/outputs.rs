// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where the command writes its results: files are replaced only by complete ones, other targets are written in place, and what
//! is read is never overwritten.

mod support;

use savevm_stream::chain::Identity;
use savevm_stream::testing::Ram;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use support::{Place, arg, finish, run, savevm};

const PAGE: u64 = 4096;
const PAGES: u64 = 300;

fn snapshot(step: usize, value: u8, parent: Option<(Identity, &str)>) -> (Vec<u8>, Identity) {
    let records = (0..PAGES)
        .step_by(step)
        .fold(Ram::default(), |ram, page| ram.page(page * PAGE, Some("pc.ram"), &[value; PAGE as usize]));
    support::snapshot(PAGES * PAGE, records, value, parent)
}

/// A directory with a chain of two files.
fn chain() -> Place {
    let place = Place::new();
    let (base, identity) = snapshot(1, 1, None);
    place.file("base", &base);
    place.file("child", &snapshot(7, 2, Some((identity, "base"))).0);
    place
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The merged chain, as a file that was not there before.
fn merged(place: &Place, format: &str) -> Vec<u8> {
    let path = place.path("expected");
    run(&["merge", arg(&place.path("child")), "--format", format, "-o", arg(&path)]).expect(0);
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(path).unwrap();
    bytes
}

#[test]
fn pipes_and_standard_output_are_written_in_place() {
    let place = chain();
    for format in ["stream", "mapped"] {
        let expected = merged(&place, format);
        let pipe = place.path("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = thread::spawn({
            let pipe = pipe.clone();
            move || fs::read(pipe).unwrap()
        });
        let child = place.path("child");
        let args = ["merge", arg(&child), "--format", format, "-o"];
        run(&[&args[..], &[arg(&pipe)]].concat()).expect(0);
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo(), "the pipe was replaced");
        assert!(reader.join().unwrap() == expected, "{format} through a pipe");
        fs::remove_file(&pipe).unwrap();
        for output in ["-", "/dev/stdout"] {
            let mut child = savevm().args(args).arg(output).stdout(std::process::Stdio::piped()).spawn().unwrap();
            let mut bytes = Vec::new();
            child.stdout.take().unwrap().read_to_end(&mut bytes).unwrap();
            assert!(child.wait().unwrap().success());
            assert!(bytes.starts_with(&expected), "{format} to {output}");
            assert!(output != "-" || bytes == expected, "{format}: a message is in the output");
        }
    }
    assert!(!Path::new("-").exists());
}

#[test]
fn links_stay_and_permissions_are_kept() {
    let place = chain();
    let expected = merged(&place, "stream");
    let (path, link) = (place.path("whole"), place.path("link"));
    symlink("whole", &link).unwrap();
    for wanted in [None, Some(0o640)] {
        if let Some(wanted) = wanted {
            fs::write(&path, "old").unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(wanted)).unwrap();
        }
        run(&["merge", arg(&place.path("child")), "-o", arg(&link)]).expect(0);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::read(&path).unwrap() == expected);
        if let Some(wanted) = wanted {
            assert_eq!(mode(&path), wanted);
        }
    }
    // The memory of a guest is for its owner only.
    let new = place.path("new");
    run(&["merge", arg(&place.path("child")), "-o", arg(&new)]).expect(0);
    assert_eq!(mode(&new), 0o600);
    run(&["index", arg(&new), "-o", arg(&place.path("index"))]).expect(0);
    assert_eq!(mode(&place.path("index")), 0o600);
}

#[test]
fn files_that_are_read_are_not_overwritten() {
    let place = chain();
    let whole = place.path("whole");
    run(&["merge", arg(&place.path("child")), "-o", arg(&whole)]).expect(0);
    let (child, link) = (place.path("child"), place.path("link"));
    symlink("child", &link).unwrap();
    let before: Vec<_> = ["base", "child", "whole"].map(|name| fs::read(place.path(name)).unwrap()).into();
    let verbs: [&[&str]; 6] = [
        &["inspect"],
        &["inspect", "--format", "json"],
        &["schema"],
        &["extract", "--ram", "pc.ram"],
        &["merge"],
        &["index"],
    ];
    for verb in verbs {
        for (file, output) in [(&child, "base"), (&child, "child"), (&link, "base"), (&whole, "whole")] {
            let output = place.path(output);
            let args = [verb, &[arg(file), "-o", arg(&output)]].concat();
            let refused = run(&args);
            assert_eq!(refused.status, 2, "{args:?}");
            assert!(refused.err.contains("cannot write") && refused.err.contains("that is read"), "{}", refused.err);
        }
    }
    for (name, bytes) in ["base", "child", "whole"].iter().zip(before) {
        assert!(fs::read(place.path(name)).unwrap() == bytes, "{name} was changed");
    }
}

/// What writes an output file, and the mode of a new one with the mask 022: files with guest memory are for their owner only.
const VERBS: [(&[&str], u32); 8] = [
    (&["inspect", "whole"], 0o644),
    (&["inspect", "whole", "--format", "json"], 0o644),
    (&["inspect", "whole", "--plot"], 0o644),
    (&["schema", "whole"], 0o644),
    (&["plot", "trace"], 0o644),
    (&["extract", "whole", "--ram", "pc.ram"], 0o600),
    (&["merge", "whole"], 0o600),
    (&["index", "whole"], 0o600),
];

/// A directory with a full snapshot, a trace, and an output file of an earlier run.
fn place_with_output() -> Place {
    let place = chain();
    run(&["merge", arg(&place.path("child")), "-o", arg(&place.path("whole"))]).expect(0);
    place.file("trace", br#"{"t_ns": 0, "event": "trace", "version": 1, "side": "source", "uri": "file:x"}"#);
    place.file("out.svg", b"old");
    place
}

/// Runs a verb in a directory, through a shell that first does `before`.
fn run_in(place: &Place, before: &str, args: &[&str]) -> support::Run {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{before}; exec \"$0\" \"$@\"")]).arg(savevm().get_program()).args(args);
    finish(command.current_dir(place.path(".")))
}

#[test]
fn output_is_replaced_only_by_a_complete_one() {
    let place = place_with_output();
    let files = || fs::read_dir(place.path(".")).unwrap().count();
    let check_unchanged = |what: &str, args: &[&str], before: usize| {
        assert_eq!(fs::read(place.path("out.svg")).unwrap(), b"old", "{what}: {args:?}");
        assert_eq!(files(), before, "{what}: {args:?}");
    };
    let before = files();
    for (verb, new_mode) in VERBS {
        let args = [verb, &["-o", "out.svg"]].concat();
        let mut missing = args.clone();
        missing[1] = "missing";
        assert_eq!(run_in(&place, ":", &missing).status, 2, "{missing:?}");
        check_unchanged("a missing input", &missing, before);
        let full = run_in(&place, "trap '' XFSZ; ulimit -f 0", &args);
        assert_eq!(full.status, 2, "{args:?}: {}", full.err);
        assert!(full.err.contains("cannot write out.svg: ") && full.err.contains("File too large"), "{}", full.err);
        check_unchanged("a full disk", &args, before);
        let new = [verb, &["-o", "new.svg"]].concat();
        assert_eq!(run_in(&place, "umask 022", &new).status, 0, "{new:?}");
        assert_eq!(mode(&place.path("new.svg")), new_mode, "{new:?}");
        assert_eq!(run_in(&place, ":", &args).status, 0, "{args:?}");
        assert!(fs::read(place.path("out.svg")).unwrap() == fs::read(place.path("new.svg")).unwrap(), "{args:?}");
        fs::remove_file(place.path("new.svg")).unwrap();
        fs::write(place.path("out.svg"), "old").unwrap();
    }
    // Errors after the first bytes of the output are known.
    for failing in [
        &["inspect", "whole", "--device", "nothing"][..],
        &["inspect", "whole", "--format", "description", "--describe-by", "missing"],
        &["schema", "whole", "--describe-by", "missing"],
        &["extract", "whole", "--ram", "nothing"],
        &["extract", "whole", "--ram", "pc.ram", "--max-memory", "1"],
    ] {
        let args = [failing, &["-o", "out.svg"]].concat();
        assert_eq!(run_in(&place, ":", &args).status, 2, "{args:?}");
        check_unchanged("an error", &args, before);
    }
}

#[test]
fn image_is_not_written_to_a_pipe_or_device() {
    let place = place_with_output();
    assert!(Command::new("mkfifo").arg(place.path("pipe")).status().unwrap().success());
    for output in ["-", "/dev/null", "pipe", "."] {
        let refused = run_in(&place, ":", &["extract", "whole", "--ram", "pc.ram", "-o", output]);
        assert_eq!(refused.status, 2, "{output}");
        assert!(refused.err.contains("must be a file"), "{output}: {}", refused.err);
    }
}

#[test]
fn targets_that_cannot_be_files_are_refused() {
    let place = chain();
    let long = "n".repeat(300);
    fs::create_dir(place.path("directory")).unwrap();
    for (output, why) in [
        ("directory", "Is a directory"),
        ("nowhere/", "Is a directory"),
        ("nowhere/whole", "No such file or directory"),
        ("child/whole", "Not a directory"),
        (&long, "File name too long"),
    ] {
        // The paths of the test directory are without a slash at their ends.
        let path = format!("{}/{output}", arg(&place.path(".")));
        let refused = run(&["merge", arg(&place.path("child")), "-o", &path]);
        assert_eq!(refused.status, 2, "{output}");
        assert!(refused.err.contains("cannot write") && refused.err.contains(why), "{}", refused.err);
    }
    assert_eq!(fs::read_dir(place.path(".")).unwrap().count(), 3);
}

#[test]
fn file_in_a_directory_without_permission_is_kept() {
    let place = chain();
    let whole = place.path("closed/whole");
    fs::create_dir(place.path("closed")).unwrap();
    fs::write(&whole, "old").unwrap();
    fs::set_permissions(&whole, PermissionsExt::from_mode(0o666)).unwrap();
    fs::set_permissions(place.path("closed"), PermissionsExt::from_mode(0o555)).unwrap();
    let mut merge = savevm();
    merge.args(["merge", arg(&place.path("child")), "-o", arg(&whole)]);
    if fs::metadata(place.path(".")).unwrap().uid() == 0 {
        merge.uid(65534).gid(65534);
    }
    for name in ["base", "child"] {
        fs::set_permissions(place.path(name), PermissionsExt::from_mode(0o644)).unwrap();
    }
    if merge.output().is_err() {
        return eprintln!("SKIPPED: another user can't run the command here");
    }
    let refused = finish(&mut merge);
    assert_eq!(refused.status, 2, "{}", refused.out);
    assert!(refused.err.contains("its directory does not permit") && refused.err.contains("denied"), "{}", refused.err);
    assert_eq!(fs::read(&whole).unwrap(), b"old");
    fs::set_permissions(place.path("closed"), PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn names_that_are_not_text_are_read_and_written() {
    let place = chain();
    let output = place.path(".").join(OsStr::from_bytes(b"whole-\xff"));
    let input = place.path(".").join(OsStr::from_bytes(b"child-\xfe"));
    fs::rename(place.path("child"), &input).unwrap();
    let done = finish(savevm().arg("merge").arg(&input).arg("-o").arg(&output));
    assert_eq!(done.status, 0, "{}", done.err);
    assert!(done.out.contains("whole-\u{fffd}"), "{}", done.out);
    assert!(output.exists());
    let list = run(&["snapshots", "--verify", arg(&place.path("."))]).expect(0);
    assert!(list.contains("child-\u{fffd}") && list.contains("2 files, verified"), "{list}");
}

#[test]
fn chain_is_found_through_a_link_and_from_another_directory() {
    let (place, other) = (chain(), Place::new());
    let link = other.path("link");
    symlink(fs::canonicalize(place.path("child")).unwrap(), &link).unwrap();
    let expected = merged(&place, "stream");
    let whole = other.path("whole");
    run(&["merge", arg(&link), "-o", arg(&whole)]).expect(0);
    assert!(fs::read(&whole).unwrap() == expected);
    let list = run(&["snapshots", arg(&other.path("."))]).expect(0);
    assert!(list.contains("incremental, 2 files"), "{list}");
    // Relative paths.
    let done = finish(savevm().current_dir(place.path(".")).args(["merge", "child", "-o", "relative"]));
    assert_eq!(done.status, 0, "{}", done.err);
    assert!(fs::read(place.path("relative")).unwrap() == expected);
}
