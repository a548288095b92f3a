// SPDX-License-Identifier: LGPL-2.1-or-later
//! Threads that devices start while a stream is loaded (QEMU 10.0, `qemu_loadvm_start_load_thread` in
//! `migration/savevm.c`). The load is complete when all of them have ended.

use super::host::{Host, without_big_lock};
use crate::error::{Error, Result};
use crate::sync::{Mutex, Rank};
use crate::sys::spawn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;

#[derive(Default)]
struct Inner {
    threads: Vec<JoinHandle<()>>,
    error: Option<Error>,
    /// Whether a load is in progress.
    loading: bool,
}

/// The threads of one context.
pub struct LoadThreads {
    inner: Mutex<Inner>,
    abort: AtomicBool,
}

impl Default for LoadThreads {
    fn default() -> Self {
        Self { inner: Mutex::new(Rank::LoadThreads, Inner::default()), abort: AtomicBool::new(false) }
    }
}

impl LoadThreads {
    /// Runs `body` on a new thread, with the flag that asks it to end soon. Its error becomes the result of the load, as does a
    /// failure to start the thread. `ECANCELED` if no load is in progress.
    pub fn start(self: &Arc<Self>, body: impl FnOnce(&AtomicBool) -> Result<()> + Send + 'static) -> Result<()> {
        let own = Arc::clone(self);
        let run = move || {
            if let Err(error) = body(&own.abort) {
                own.inner.lock().error.get_or_insert(error);
            }
        };
        self.add(|| spawn("savevm-load", run))
    }

    /// Keeps the thread that `spawn` starts. The lock is held meanwhile, so that no thread starts after the end of a load.
    fn add(&self, spawn: impl FnOnce() -> io::Result<JoinHandle<()>>) -> Result<()> {
        let mut inner = self.inner.lock();
        if !inner.loading {
            return Err(Error::new(libc::ECANCELED, "no load is in progress, so no thread can be started for it"));
        }
        match spawn() {
            Ok(thread) => inner.threads.push(thread),
            Err(err) => {
                let error = Error::io("starting a thread of the load", &err);
                inner.error.get_or_insert(error.clone());
                return Err(error);
            }
        }
        Ok(())
    }

    /// A load begins.
    pub(super) fn begin(&self) {
        let mut inner = self.inner.lock();
        inner.loading = true;
        inner.error = None;
        self.abort.store(false, SeqCst);
    }

    /// Returns whether a thread was started that was not waited for.
    pub(super) fn has_threads(&self) -> bool {
        !self.inner.lock().threads.is_empty()
    }

    /// Waits for all threads, with the big lock released. Returns the first error of one.
    pub(super) fn wait(&self, host: &dyn Host) -> Result<()> {
        let next = || self.inner.lock().threads.pop();
        if let Some(first) = next() {
            without_big_lock(host, || {
                let mut thread = Some(first);
                while let Some(handle) = thread {
                    if handle.join().is_err() {
                        self.inner.lock().error.get_or_insert(Error::new(libc::EIO, "a thread of the load panicked"));
                    }
                    thread = next();
                }
            });
        }
        self.inner.lock().error.take().map_or(Ok(()), Err)
    }

    /// The load has ended: asks the threads to end, and waits for them.
    pub(super) fn end(&self, host: &dyn Host) {
        self.inner.lock().loading = false;
        self.abort.store(true, SeqCst);
        if let Err(error) = self.wait(host) {
            log::debug!("a thread of a load that has ended: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::savevm::Vm;
    use crate::savevm::testing::Diary;

    #[test]
    fn load_waits_for_threads_and_returns_their_error() {
        let vm = Vm::default();
        vm.load_threads().begin();
        let diary = Diary::default();
        let (own, late) = (diary.clone(), vm.load_threads().clone());
        vm.load_threads()
            .start(move |_| {
                late.start(move |_| {
                    own.lock().unwrap().push("nested".into());
                    Ok(())
                })?;
                Err(Error::invalid("no memory in the thread"))
            })
            .unwrap();
        let error = vm.load_threads().wait(&*vm.host()).unwrap_err();
        assert!(error.message().contains("in the thread"));
        assert_eq!(*diary.lock().unwrap(), ["nested"]);
        vm.load_threads().end(&*vm.host());
        assert_eq!(vm.load_threads().start(|_| Ok(())).unwrap_err().errno(), libc::ECANCELED);
    }
    #[test]
    fn threads_start_during_a_load_only() {
        let vm = Vm::default();
        let threads = vm.load_threads();
        assert_eq!(threads.start(|_| Ok(())).unwrap_err().errno(), libc::ECANCELED);
        threads.begin();
        threads.start(|_| Ok(())).unwrap();
        assert!(threads.has_threads());
        threads.end(&*vm.host());
        assert!(!threads.has_threads());
    }

    #[test]
    fn load_fails_if_a_thread_cannot_be_started() {
        let vm = Vm::default();
        vm.load_threads().begin();
        let refused = || Err(io::Error::from_raw_os_error(libc::EAGAIN));
        assert_eq!(vm.load_threads().add(refused).unwrap_err().errno(), libc::EAGAIN);
        assert_eq!(vm.load_threads().wait(&*vm.host()).unwrap_err().errno(), libc::EAGAIN);
    }
}
