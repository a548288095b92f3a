// SPDX-License-Identifier: LGPL-2.1-or-later
//! Brings a mapped file's pages in before the parser needs them.
//!
//! The parser looks at every page of memory, but only at a few bytes of it; most of its time would go into page faults,
//! or into waiting for the disk. A second thread takes them on.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What the kernel maps around a fault.
const STEP: usize = 16 * 4096;
/// How far to go ahead: enough to keep a disk busy, not so much that pages are gone before they are needed.
const AHEAD: u64 = 256 << 20;
/// What is shorter than this is read before a thread has started.
const WORTH_IT: usize = 32 << 20;

/// Does `work` while `bytes` are brought in ahead of `position`, which `work` keeps up to date.
pub fn bringing_in<T>(bytes: &[u8], position: &AtomicU64, work: impl FnOnce() -> T) -> T {
    if bytes.len() < WORTH_IT {
        return work();
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| touch(bytes, position, &done));
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}

fn touch(bytes: &[u8], position: &AtomicU64, done: &AtomicBool) {
    for at in (0..bytes.len()).step_by(STEP) {
        while at as u64 > position.load(Ordering::Relaxed).saturating_add(AHEAD) && !done.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if done.load(Ordering::Relaxed) {
            return;
        }
        black_box(bytes[at]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_and_the_thread_ends() {
        let bytes = vec![0; WORTH_IT];
        assert_eq!(bringing_in(&bytes, &AtomicU64::new(0), || 7), 7);
        assert_eq!(bringing_in(&[], &AtomicU64::new(0), || 8), 8);
    }
}
