// SPDX-License-Identifier: LGPL-2.1-or-later
//! Threads of the library. All signals are blocked in them (as in QEMU's `util/qemu-thread-posix.c`): signals belong to
//! the hypervisor, whose handlers must run on its own threads.

use super::signals::Signals;
use std::cell::Cell;
use std::io;
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};
use std::time::Duration;

/// Signals that a thread raises itself. They must not be blocked.
const OWN_DOING: [libc::c_int; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];

thread_local! {
    /// In a thread of the library: the signals that the hypervisor's starting thread had blocked.
    static OUTSIDE: Cell<Option<Signals>> = const { Cell::new(None) };
}

/// Runs `start`, which starts a thread, with the signal mask of the library's threads. Passes it the value for
/// `OUTSIDE`.
fn deaf<T>(start: impl FnOnce(Option<Signals>) -> T) -> T {
    Signals::all_but(&OWN_DOING).alone_blocked(|before| start(OUTSIDE.get().or(Some(before))))
}

/// Starts a thread with all signals blocked.
pub fn spawn<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    deaf(|outside| {
        Builder::new().name(name.into()).spawn(move || {
            OUTSIDE.set(outside);
            body()
        })
    })
}

/// Starts a scoped thread with all signals blocked.
pub fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    body: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    deaf(|outside| {
        Builder::new().name(name.into()).spawn_scoped(scope, move || {
            OUTSIDE.set(outside);
            body()
        })
    })
}

/// Runs `body`, which starts a program, with the hypervisor's signal mask: a program inherits the mask, and could not
/// be ended with all signals blocked.
pub fn as_outside<T>(body: impl FnOnce() -> T) -> T {
    match OUTSIDE.get() {
        Some(outside) => outside.alone_blocked(|_| body()),
        None => body(),
    }
}

/// The CPU time that this thread has used.
pub fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for the call.
    match unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } {
        0 => Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0)),
        _ => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> [bool; 4] {
        let blocked = Signals::of(&[]).also_blocked(|before| before);
        [libc::SIGTERM, libc::SIGUSR1, libc::SIGALRM, libc::SIGSEGV].map(|signal| blocked.has(signal))
    }

    #[test]
    fn threads_take_no_signals_and_programs_take_those_of_the_outside() {
        let outside = [false, true, false, false];
        let check = move || {
            assert_eq!(state(), [true, true, true, false]);
            assert_eq!(as_outside(state), outside);
            assert_eq!(state(), [true, true, true, false]);
        };
        Signals::of(&[libc::SIGUSR1]).alone_blocked(|_| {
            let nested = move || {
                check();
                spawn("nested", check).unwrap().join().unwrap();
            };
            spawn("thread", nested).unwrap().join().unwrap();
            std::thread::scope(|scope| spawn_scoped(scope, "scoped", check).unwrap().join().unwrap());
            assert_eq!(state(), outside);
            assert_eq!(as_outside(state), outside);
        });
    }
}
