// SPDX-License-Identifier: LGPL-2.1-or-later
//! Sets of signals, and the signal mask of a thread.

use std::mem::MaybeUninit;

/// A set of signals.
#[derive(Clone, Copy)]
pub(super) struct Signals(libc::sigset_t);

impl Signals {
    /// The set of these signals.
    pub fn of(signals: &[libc::c_int]) -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: the first call sets all of the set up; what is no signal is refused.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for &signal in signals {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            Self(set.assume_init())
        }
    }

    /// The set of all other signals.
    pub fn all_but(signals: &[libc::c_int]) -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: as above.
        unsafe {
            libc::sigfillset(set.as_mut_ptr());
            for &signal in signals {
                libc::sigdelset(set.as_mut_ptr(), signal);
            }
            Self(set.assume_init())
        }
    }

    /// The pending signals of this thread and process.
    pub fn pending() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: the call sets all of the set up.
        unsafe {
            libc::sigpending(set.as_mut_ptr());
            Self(set.assume_init())
        }
    }

    /// Whether a signal is in the set.
    pub fn has(&self, signal: libc::c_int) -> bool {
        // SAFETY: the set is valid.
        unsafe { libc::sigismember(&self.0, signal) == 1 }
    }

    /// Consumes one pending signal of the set, if there is one.
    pub fn take(&self) {
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: set and time are valid, and no information about the signal is asked for.
        unsafe { libc::sigtimedwait(&self.0, std::ptr::null_mut(), &now) };
    }

    /// Runs `body` with these signals blocked in addition. Passes it the mask before.
    pub fn also_blocked<T>(&self, body: impl FnOnce(Self) -> T) -> T {
        self.during(libc::SIG_BLOCK, body)
    }

    /// As `also_blocked`, with no other signals blocked.
    pub fn alone_blocked<T>(&self, body: impl FnOnce(Self) -> T) -> T {
        self.during(libc::SIG_SETMASK, body)
    }

    fn during<T>(&self, how: libc::c_int, body: impl FnOnce(Self) -> T) -> T {
        struct Back(Signals);
        impl Drop for Back {
            fn drop(&mut self) {
                self.0.change(libc::SIG_SETMASK);
            }
        }
        let back = Back(self.change(how));
        body(back.0)
    }

    /// Changes the mask of this thread. Returns the mask before.
    fn change(&self, how: libc::c_int) -> Self {
        let mut before = MaybeUninit::uninit();
        // SAFETY: both are valid sets. It fails for no `how` that is used here, and so writes the second.
        unsafe {
            libc::pthread_sigmask(how, &self.0, before.as_mut_ptr());
            Self(before.assume_init())
        }
    }
}
