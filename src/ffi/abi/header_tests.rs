// SPDX-License-Identifier: LGPL-2.1-or-later
//! The headers of each version have the layout that the library knows: every size, offset, type and constant. A C compiler
//! finds them out.

use super::check::build;
use super::known;
use super::known::VERSIONS;
use super::layout::Abi;
use crate::ffi::types::abi::{SaveVMAbiConstant, SaveVMAbiMember};
use crate::savevm::profile::Profile;
use std::mem::MaybeUninit;
use std::path::Path;
use std::process::Command;

/// Stores a number as C stores an enumeration.
fn stored<E: Copy>(number: usize) -> MaybeUninit<E> {
    const { assert!(size_of::<E>() == 4) };
    let mut value = MaybeUninit::<E>::uninit();
    // SAFETY: `value` has the size of the number.
    unsafe { value.as_mut_ptr().cast::<u32>().write(number as u32) };
    value
}

/// Returns what the program `members.c` prints for a version: one list of words per line.
fn printed(folder: &Path, version: u32) -> Vec<Vec<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = folder.join(format!("members-{version}"));
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let compiled = Command::new(compiler)
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-DSAVEVM_PLAIN_NAMES", "-I"])
        .arg(root.join("include"))
        .arg(format!("-DSAVEVM_QEMU_VERSION={version}"))
        .arg(root.join("c-tests/interface/headers/members.c"))
        .arg("-o")
        .arg(&program)
        .output()
        .expect("there is a C compiler");
    assert!(compiled.status.success(), "{version}: {}", String::from_utf8_lossy(&compiled.stderr));
    let output = Command::new(&program).output().expect("the program runs");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

/// Makes a layout of what the headers have.
fn of_headers(folder: &Path, version: u32) -> Abi {
    let (mut sizes, mut members, mut constants) = ([0; 5], Vec::new(), Vec::new());
    for line in printed(folder, version) {
        let numbers: Vec<usize> = line[1..].iter().map(|word| word.parse().unwrap()).collect();
        match (&*line[0], &*numbers) {
            ("sizes", numbers) => sizes[..4].copy_from_slice(numbers),
            ("member", &[member, kind, offset]) => {
                members.push(SaveVMAbiMember { member: stored(member), kind: stored(kind), offset });
            }
            ("constant", &[constant, value]) => {
                constants.push(SaveVMAbiConstant { constant: stored(constant), value: value as u32 });
            }
            _ => panic!("{line:?}"),
        }
    }
    build(version, Profile::of_qemu(version), sizes, &members, &constants).unwrap()
}

#[cfg(target_pointer_width = "64")]
#[test]
fn headers_of_each_version_have_the_layout_of_the_library() {
    let folder = std::env::temp_dir().join(format!("savevm-members-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for version in VERSIONS {
        assert_eq!(&of_headers(&folder, version), known(version).unwrap(), "QEMU {version}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
