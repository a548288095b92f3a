// SPDX-License-Identifier: LGPL-2.1-or-later
//! Brings a mapped file's pages in before the parser needs them, and lets go of those behind it.
//!
//! The parser looks at every page of memory, but only at a few bytes of it; most of its time goes into page faults, or into
//! waiting for the disk. A second thread takes a part of that on: it works some way ahead of the parser, which is faster
//! once it comes to pages that are there. When the parser has caught up, the thread leaves it the next stretch.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Thread;
use std::time::Duration;

use super::map::Mapped;

/// What the kernel maps around a fault.
const STEP: usize = 16 * 4096;
/// What is left to the parser.
const STRETCH: usize = 8 << 20;
/// The parser says where it is about that often.
const MARGIN: usize = 2 << 20;
/// How much is let go of at once: the parser's processor is disturbed each time.
const LET_GO: usize = 64 << 20;
/// How far to go ahead: enough to keep a disk busy, not so much that pages are gone before they are needed.
const AHEAD: usize = 256 << 20;
/// What is shorter than this is read before a thread has started.
const WORTH_IT: usize = 32 << 20;

/// Does `work` while the file is brought in ahead of `position`, which `work` keeps up to date.
pub fn bringing_in<T>(file: &Mapped, position: &AtomicU64, work: impl FnOnce() -> T) -> T {
    if file.as_bytes().len() < WORTH_IT {
        return work();
    }
    std::thread::scope(|scope| {
        let helper = scope.spawn(|| keep_ahead(file, position));
        let _end = End { position, helper: helper.thread() };
        work()
    })
}

/// Ends the thread, even if the work ends in a panic.
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
        if reader > released + LET_GO {
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
        let file = zeroes(2 * WORTH_IT as u64);
        let position = AtomicU64::new(0);
        let read = || {
            for at in (0..file.as_bytes().len()).step_by(STEP) {
                assert_eq!(file.as_bytes()[at], 0);
                position.store(at as u64, Ordering::Relaxed);
            }
            7
        };
        assert_eq!(bringing_in(&file, &position, read), 7);
        assert_eq!(bringing_in(&zeroes(0), &position, || 8), 8);
    }

    #[test]
    #[should_panic(expected = "as it must")]
    fn the_thread_ends_where_the_work_does_not() {
        bringing_in(&zeroes(WORTH_IT as u64), &AtomicU64::new(0), || panic!("as it must"));
    }
}
