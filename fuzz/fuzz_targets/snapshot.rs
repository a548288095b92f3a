// SPDX-License-Identifier: LGPL-2.1-or-later
//! Loads a snapshot from a file, at once and lazily, in both formats. If both loads succeed, the memory is the same.
//!
//! Input: be16 length of the head, the head, the tail. The file begins with the head. The tail is behind the fixed places of
//! the machine's pages, 2 MiB from the start, or directly behind the head if the length has its highest bit set.
#![no_main]

use libfuzzer_sys::fuzz_target;
use savevm::channel::Uri;
use savevm::migration::{SnapshotOptions, end_restore, snapshot_load};
use savevm_fuzz::Machine;
use std::cell::LazyCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Offset behind the pages of a block of 1 MiB, which begin at 1 MiB.
const BEHIND_PAGES: u64 = 2 << 20;

struct Place {
    machine: Machine,
    path: PathBuf,
    lazy: bool,
}

thread_local! {
    static PLACE: LazyCell<Place> = LazyCell::new(|| {
        let machine = Machine::new(Default::default());
        let lazy = machine.vm.slot.ram().is_some_and(|ram| ram.check_lazy().is_ok());
        Place { machine, path: std::env::temp_dir().join(format!("savevm-fuzz-{}", std::process::id())), lazy }
    });
}

/// Writes the file, which has something in its pages.
fn write(path: &PathBuf, data: &[u8]) -> std::io::Result<()> {
    let (len, rest) = data.split_first_chunk().unwrap_or((&[0; 2], &[]));
    let len = u16::from_be_bytes(*len);
    let (head, tail) = rest.split_at((usize::from(len) & 0x7fff).min(rest.len()));
    let file = File::create(path)?;
    file.write_all_at(head, 0)?;
    if len & 0x8000 != 0 {
        return file.write_all_at(tail, head.len() as u64);
    }
    file.write_all_at(&[0xa5; 4096], (1 << 20) + 3 * 4096)?;
    file.write_all_at(tail, BEHIND_PAGES)
}

fuzz_target!(|data: &[u8]| {
    PLACE.with(|place| {
        let (machine, from) = (&place.machine, Uri::File { path: place.path.clone(), offset: 0 });
        write(&place.path, data).expect("a temporary file");
        let load = |lazy| {
            machine.reset();
            let options = SnapshotOptions { lazy, threads: 1, ..SnapshotOptions::default() };
            let loaded = snapshot_load(&machine.vm, &from, &options).and_then(|()| machine.vm.slot.restore.wait());
            let content = loaded.is_ok().then(|| machine.content());
            end_restore(&machine.vm);
            content
        };
        let eager = load(false);
        if place.lazy
            && let (Some(eager), Some(lazy)) = (eager, load(true))
        {
            assert!(eager == lazy, "the memory differs");
        }
        let _ = std::fs::remove_file(&place.path);
    });
});
