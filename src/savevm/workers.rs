// SPDX-License-Identifier: LGPL-2.1-or-later
//! Runs the same work on several threads until one fails or all are done.

use super::Vm;
use super::unwind::catch;
use crate::error::Result;
use crate::sys::spawn_scoped;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

/// Calls `work` on `count` threads, of which the calling thread is one. `work` does one step and returns whether there
/// may be more. Returns the first error, after all threads have ended. If the system refuses a thread, fewer work.
pub fn run(vm: &Vm, name: &str, count: usize, work: impl Fn() -> Result<bool> + Sync) -> Result<()> {
    let failed = AtomicBool::new(false);
    let steps = || {
        while !failed.load(Relaxed) {
            match catch(vm, &work).and_then(|more| more) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => {
                    failed.store(true, Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..count).map_while(|_| spawn_scoped(scope, name, steps).ok()).collect();
        let mut result = steps();
        for other in others {
            // `steps` catches panics.
            result = result.and(other.join().unwrap_or(Ok(())));
        }
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn work_ends_when_all_is_done_or_one_fails() {
        let (vm, left) = (Vm::default(), AtomicUsize::new(1000));
        let take = || Ok(left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok());
        run(&vm, "test", 3, take).unwrap();
        assert_eq!(left.load(Relaxed), 0);
        let calls = AtomicUsize::new(0);
        let fail = || match calls.fetch_add(1, Relaxed) {
            9 => Err(Error::invalid("the tenth")),
            _ => Ok(true),
        };
        assert_eq!(run(&vm, "test", 3, fail).unwrap_err().message(), "the tenth");
        // The other threads would go on for ever if the error did not end them.
        assert!(!vm.is_poisoned());
        assert!(run(&vm, "test", 2, || panic!("broken")).unwrap_err().message().contains("broken") && vm.is_poisoned());
    }
}
