// SPDX-License-Identifier: LGPL-2.1-or-later
//! Threads that devices start while a stream is loaded (QEMU 10.0, `qemu_loadvm_start_load_thread` in
//! `migration/savevm.c`). The load is complete when all of them have ended.

use super::host::{Host, without_big_lock};
use crate::error::{Error, Result};
use crate::sync::{Mutex, Rank};
use crate::sys::spawn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;

#[derive(Default)]
struct Inner {
    threads: Vec<JoinHandle<()>>,
    error: Option<Error>,
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
    /// Runs `body` on a new thread, with the flag that asks it to end soon. Its error becomes the result of the load.
    pub fn start(self: &Arc<Self>, body: impl FnOnce(&AtomicBool) -> Result<()> + Send + 'static) -> Result<()> {
        if self.abort.load(SeqCst) {
            return Err(Error::new(libc::ECANCELED, "the load has ended, no thread can be started for it"));
        }
        let own = Arc::clone(self);
        let run = move || {
            if let Err(error) = body(&own.abort) {
                own.inner.lock().error.get_or_insert(error);
            }
        };
        let handle = spawn("savevm-load", run).map_err(|err| Error::io("starting a thread", &err))?;
        self.inner.lock().threads.push(handle);
        Ok(())
    }

    /// A load begins.
    pub(super) fn begin(&self) {
        self.abort.store(false, SeqCst);
        self.inner.lock().error = None;
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
}
