// SPDX-License-Identifier: LGPL-2.1-or-later
//! Loads a mapped file's pages before the parser needs them, and releases pages that were read.
//!
//! The parser reads a few bytes of every page of memory. Most of its time is spent on page faults and on waiting for
//! the disk. A second thread runs some distance ahead of the parser and takes some of these faults. The parser is
//! faster on pages that are loaded. When the parser has caught up, the thread skips the next stretch.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Thread;
use std::time::Duration;

use super::map::Mapped;

/// Bytes that the kernel maps around a fault.
const STEP: usize = 16 * 4096;
/// Bytes that are left to the parser.
const STRETCH: usize = 8 << 20;
/// Bytes between two reports of the parser's position.
const MARGIN: usize = 2 << 20;
/// Bytes that are released at once. Each release interrupts the parser's processor.
const RELEASE: usize = 64 << 20;
/// Distance of the thread ahead of the parser: enough to keep a disk busy, and not so far that pages are evicted before
/// use.
const AHEAD: usize = 256 << 20;
/// Size below which no thread is started. A shorter file is read before the thread runs.
const MIN_SIZE: usize = 32 << 20;

/// Runs `work` while a thread loads the file ahead of `position`, which `work` updates.
pub fn with_read_ahead<T>(file: &Mapped, position: &AtomicU64, work: impl FnOnce() -> T) -> T {
    if file.as_bytes().len() < MIN_SIZE {
        return work();
    }
    std::thread::scope(|scope| {
        let helper = scope.spawn(|| keep_ahead(file, position));
        let _end = End { position, helper: helper.thread() };
        work()
    })
}

/// Dropping this ends the thread, also after a panic of the work.
struct End<'a> {
    position: &'a AtomicU64,
    helper: &'a Thread,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.position.store(u64::MAX, Ordering::Relaxed);
        self.helper.unpark();
    }
}

fn keep_ahead(file: &Mapped, position: &AtomicU64) {
    let bytes = file.as_bytes();
    let (mut at, mut released) = (0, 0);
    loop {
        let reader = position.load(Ordering::Relaxed) as usize;
        if reader >= bytes.len() {
            return;
        }
        if at < reader + MARGIN {
            at = reader + STRETCH;
        }
        if reader > released + RELEASE {
            file.release(released, reader);
            released = reader;
        }
        match bytes.get(at) {
            Some(&byte) if at < reader + AHEAD => {
                black_box(byte);
                at += STEP;
            }
            _ => std::thread::park_timeout(Duration::from_millis(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn zeroes(len: u64) -> Mapped {
        let path = std::env::temp_dir().join(format!("savevm-ahead-{}-{len}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file.set_len(len).unwrap();
        Mapped::new(file).unwrap()
    }

    #[test]
    fn work_is_done_and_the_thread_ends() {
        let file = zeroes(2 * MIN_SIZE as u64);
        let position = AtomicU64::new(0);
        let read = || {
            for at in (0..file.as_bytes().len()).step_by(STEP) {
                assert_eq!(file.as_bytes()[at], 0);
                position.store(at as u64, Ordering::Relaxed);
            }
            7
        };
        assert_eq!(with_read_ahead(&file, &position, read), 7);
        assert_eq!(with_read_ahead(&zeroes(0), &position, || 8), 8);
    }

    #[test]
    #[should_panic(expected = "as it must")]
    fn thread_ends_if_the_work_panics() {
        with_read_ahead(&zeroes(MIN_SIZE as u64), &AtomicU64::new(0), || panic!("as it must"));
    }
}
