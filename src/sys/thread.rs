// SPDX-License-Identifier: LGPL-2.1-or-later
//! Threads of the library's own. They take no signals, which are the hypervisor's (QEMU, `util/qemu-thread-posix.c`): a
//! handler would run here, and who waits for it to interrupt a call would wait on.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

/// What a thread itself brings about. It must not be blocked, and is for the thread that did it.
const OWN_DOING: [libc::c_int; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];

/// The signals that a thread has blocked.
#[derive(Clone, Copy)]
struct Mask(libc::sigset_t);

thread_local! {
    /// In a thread of the library's: what the hypervisor's thread had blocked that it goes back to.
    static OUTSIDE: Cell<Option<Mask>> = const { Cell::new(None) };
}

impl Mask {
    /// All but a thread's own doing.
    fn all() -> Self {
        let mut all = MaybeUninit::uninit();
        // SAFETY: the first call sets all of the set up; the signals exist.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            for signal in OWN_DOING {
                libc::sigdelset(all.as_mut_ptr(), signal);
            }
            Self(all.assume_init())
        }
    }

    /// Makes it this thread's; what that was before.
    fn set(self) -> Self {
        let mut before = MaybeUninit::uninit();
        // SAFETY: both are valid sets. It can't fail with this `how`, and then has written the second.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, before.as_mut_ptr());
            Self(before.assume_init())
        }
    }

    /// Runs `body` under it.
    fn during<T>(self, body: impl FnOnce(Self) -> T) -> T {
        struct Back(Mask);
        impl Drop for Back {
            fn drop(&mut self) {
                self.0.set();
            }
        }
        let back = Back(self.set());
        body(back.0)
    }
}

/// Lets `start` start a thread with what it is given, called first thing, under the mask of the library's threads.
fn deaf<T>(start: impl FnOnce(Box<dyn FnOnce() + Send>) -> T) -> T {
    Mask::all().during(|before| {
        let outside = OUTSIDE.get().unwrap_or(before);
        start(Box::new(move || OUTSIDE.set(Some(outside))))
    })
}

/// Starts a thread that takes no signals.
pub fn spawn<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    deaf(|begin| {
        Builder::new().name(name.into()).spawn(move || {
            begin();
            body()
        })
    })
}

/// Starts a thread that takes no signals, within a scope.
pub fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    body: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    deaf(|begin| {
        Builder::new().name(name.into()).spawn_scoped(scope, move || {
            begin();
            body()
        })
    })
}

/// Runs `body`, which starts a program, with the signals blocked that were outside of the library: a program keeps them
/// blocked, and could not be ended.
pub fn as_outside<T>(body: impl FnOnce() -> T) -> T {
    match OUTSIDE.get() {
        Some(outside) => outside.during(|_| body()),
        None => body(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(signal: libc::c_int) -> bool {
        let mut mask = MaybeUninit::uninit();
        // SAFETY: the call writes the set that is asked then.
        unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), mask.as_mut_ptr());
            libc::sigismember(mask.as_ptr(), signal) == 1
        }
    }

    fn state() -> [bool; 4] {
        [libc::SIGTERM, libc::SIGUSR1, libc::SIGALRM, libc::SIGSEGV].map(blocks)
    }

    #[test]
    fn threads_take_no_signals_and_programs_take_those_of_the_outside() {
        let mut usr1 = Mask::all();
        // SAFETY: a valid set, and a signal that exists.
        unsafe {
            libc::sigemptyset(&mut usr1.0);
            libc::sigaddset(&mut usr1.0, libc::SIGUSR1);
        }
        let outside = [false, true, false, false];
        let check = move || {
            assert_eq!(state(), [true, true, true, false]);
            assert_eq!(as_outside(state), outside);
            assert_eq!(state(), [true, true, true, false]);
        };
        usr1.during(|_| {
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
