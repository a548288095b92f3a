// SPDX-License-Identifier: LGPL-2.1-or-later
//! Threads of the library. All signals are blocked in them (as in QEMU's `util/qemu-thread-posix.c`): signals belong to
//! the hypervisor, whose handlers must run on its own threads.

use super::signals::Signals;
use super::slice::{Children, set_slice};
use std::cell::Cell;
use std::io;
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};
use std::time::Duration;

/// Signals that a thread raises itself. They must not be blocked.
const OWN_DOING: [libc::c_int; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];

/// The time slice of a thread that others wait for, in nanoseconds: the least that Linux allows.
const PROMPT_SLICE: u64 = 100_000;

/// What a thread of the library had from the hypervisor's starting thread before the library changed it. Threads and programs that
/// the thread starts must not inherit the changes.
#[derive(Clone, Copy)]
struct Outside {
    /// The blocked signals.
    signals: Signals,
    /// The time slice, if this thread has a shorter one.
    slice: Option<u64>,
}

thread_local! {
    /// Is set in a thread of the library.
    static OUTSIDE: Cell<Option<Outside>> = const { Cell::new(None) };
}

impl Outside {
    /// Called first in a new thread of the library, which has inherited the slice of its starting thread.
    fn enter(mut self) {
        if let Some(slice) = self.slice.take() {
            change_slice(slice, Children::Unchanged);
        }
        OUTSIDE.set(Some(self));
    }
}

/// Sets the time slice of this thread. Returns the slice before. A failure only makes the thread slower, so it is logged.
fn change_slice(slice: u64, children: Children) -> Option<u64> {
    set_slice(slice, children).unwrap_or_else(|err| {
        log::debug!("setting a thread's time slice: {err}");
        None
    })
}

/// Runs `start`, which starts a thread, with the signal mask of the library's threads. The new thread calls `enter`.
fn deaf<T>(start: impl FnOnce(Outside) -> T) -> T {
    Signals::all_but(&OWN_DOING)
        .alone_blocked(|signals| start(OUTSIDE.get().unwrap_or(Outside { signals, slice: None })))
}

/// Starts a thread with all signals blocked.
pub fn spawn<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    deaf(|outside| {
        Builder::new().name(name.into()).spawn(move || {
            outside.enter();
            body()
        })
    })
}

/// As `spawn`, for a thread that others wait for: a guest that is stopped, or that waits for a page. The thread has a short time
/// slice: on a busy machine, it would otherwise wait for up to a whole slice of another thread each time it is woken. Threads that
/// a callback of the hypervisor starts there have the default slice, or the short one if the niceness is negative.
pub fn spawn_prompt<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    spawn(name, move || {
        let slice = change_slice(PROMPT_SLICE, Children::Default);
        OUTSIDE.set(OUTSIDE.get().map(|outside| Outside { slice, ..outside }));
        body()
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
            outside.enter();
            body()
        })
    })
}

/// Runs `body`, which starts a program, with the hypervisor's signal mask and time slice: a program inherits both, and could not
/// be ended with all signals blocked.
pub fn as_outside<T>(body: impl FnOnce() -> T) -> T {
    let Some(outside) = OUTSIDE.get() else { return body() };
    outside.signals.alone_blocked(|_| {
        let change = |slice| change_slice(slice, Children::Unchanged);
        let inside = outside.slice.and_then(change);
        let result = body();
        inside.map(change);
        result
    })
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

    /// The slice, if the kernel can set it, and the niceness.
    fn schedule() -> (Option<u64>, i32) {
        let change = |slice| change_slice(slice, Children::Unchanged);
        let slice = change(PROMPT_SLICE);
        slice.map(change);
        // SAFETY: no pointers.
        (slice, unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) })
    }

    #[test]
    fn only_prompt_threads_have_a_short_slice() {
        let outside = schedule();
        let inside = (outside.0.map(|_| PROMPT_SLICE), outside.1);
        let check = move || {
            assert_eq!(schedule(), inside);
            assert_eq!(as_outside(schedule), outside);
            assert_eq!(schedule(), inside);
            assert_eq!(spawn("nested", schedule).unwrap().join().unwrap(), outside);
            if outside.1 >= 0 {
                assert_eq!(std::thread::spawn(schedule).join().unwrap(), outside, "a thread of the hypervisor");
            }
            std::thread::scope(|scope| {
                assert_eq!(spawn_scoped(scope, "scoped", schedule).unwrap().join().unwrap(), outside);
            });
        };
        let nested = move || {
            check();
            spawn_prompt("nested", check).unwrap().join().unwrap();
        };
        spawn_prompt("prompt", nested).unwrap().join().unwrap();
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
