// SPDX-License-Identifier: LGPL-2.1-or-later
//! Locks with a rank. The ranks are the one lock order of the library.
//!
//! A thread may only take a lock whose rank is higher than the rank of every lock that it holds. Two threads that
//! follow this rule can't wait for each other. Builds with debug assertions check the rule at every lock and panic with
//! the names of both locks. They also panic if a lock is held while the host or a device is called, and while a
//! condition is waited for with a second lock held. Builds without debug assertions contain only the locks of `std`.
//!
//! A panic of a thread that holds a lock does not poison it: what these locks guard is changed in one step, so nothing
//! is left half done.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// The lock order: a lock may be taken while locks above it in this list are held, never while one below it is held.
///
/// Callers stand above what they call, so the order follows the layers of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The host's big lock. The library takes it before any lock of its own.
    BigLock,

    // The C interface.
    /// `ffi::incoming::CIncoming::state`.
    HostPostcopyState,

    // Migration.
    /// `migration::source::Outgoing::work`.
    OutgoingWork,
    /// `migration::source::Requests::recovery_channel`: the connection of a recovery.
    OutgoingRecovery,
    /// `migration::destination::Requests::recovery_acceptor`: the listener of a recovery.
    IncomingRecovery,
    /// `migration::destination::Shared::previous_handler`.
    IncomingPrevious,
    /// `migration::destination::Worker::state`.
    IncomingState,
    /// `migration::core::Core::recovery`.
    BitmapRequest,
    /// `migration::return_path::Sender::state`: messages to the source.
    ReturnPathSender,
    /// `migration::return_path::ReaderState`: what the destination sent.
    ReturnPathReader,
    /// `migration::destination::sorter::Inner::state`: connections that are being sorted.
    Sorter,
    /// `migration::further::Further::state`: the further connections.
    FurtherConnections,
    /// `migration::core::Link`: the connection in use.
    Connection,
    /// `migration::core::Core::phase`.
    MigrationPhase,
    /// `migration::core::Core::params`.
    MigrationParams,
    /// `migration::core::Core::error`, `interruption`.
    MigrationError,
    /// `migration::watch_state::Watch`.
    MigrationWatch,
    /// `migration::stats::Stats::info`.
    MigrationStats,
    /// `migration::status::StatusMachine::inner`.
    MigrationStatus,
    /// `migration::trace::Trace`.
    MigrationTrace,

    // RAM.
    /// `ram::Ram::busy`: which migrations keep the list of blocks from changing.
    RamBusy,
    /// `ram::Ram::blocks`.
    RamBlocks,
    /// `ram::Ram::options`.
    RamOptions,
    /// `ram::Ram::requests`.
    RamRequests,
    /// `ram::Ram::faults`.
    RamFaults,
    /// `ram::Ram::unreadable`.
    RamUnreadable,
    /// `ram::Ram::lazy`.
    RamLazy,
    /// `ram::lazy::Lazy::failure`.
    LazyFailure,
    /// `ram::lazy::working_set::WorkingSet::recorded`.
    WorkingSet,
    /// `ram::faults::Faults::grace`.
    FaultsGrace,
    /// `ram::faults::Faults::unreadable`.
    FaultsUnreadable,
    /// `ram::faults::Faults::thread`.
    FaultThread,
    /// `ram::faults::Faults::waiting`.
    FaultsWaiting,
    /// `ram::checkpoint::Session::thread`.
    CheckpointThread,
    /// `ram::checkpoint::Session::pages`: the tree of checkpoints and the protection of memory.
    CheckpointPages,
    /// `ram::multifd::queue::Shared::queues`: pages that wait for a connection.
    MultifdQueues,
    /// `ram::multifd::order::Shared::state`: how far the connections are.
    MultifdReceive,

    // The engine.
    /// `savevm::restore::Restore`.
    SlotRestore,
    /// `savevm::saving::Saving`.
    SlotSaving,
    /// `savevm::slot::MigrationSlot::inner`.
    MigrationSlot,
    /// `savevm::owner::Ownership`.
    Ownership,
    /// `savevm::slot::MigrationSlot::ram`.
    SlotRam,
    /// `savevm::slot::MigrationSlot::checkpoint_ram`.
    SlotCheckpointRam,
    /// `savevm::slot::MigrationSlot::observer`.
    SlotObserver,
    /// `savevm::device_costs::DeviceCosts`.
    DeviceCosts,
    /// `savevm::slot::MigrationSlot::memory_plan`.
    SlotMemoryPlan,
    /// `savevm::slot::MigrationSlot::connections`.
    SlotConnections,
    /// `migration::preflight::rehearsal::Times`: an observer's.
    RehearsalTimes,
    /// `savevm::Vm::host`.
    VmHost,
    /// `savevm::load_threads::LoadThreads`.
    LoadThreads,
    /// `savevm::Vm::description`.
    VmDescription,
    /// `savevm::Vm::incoming`.
    VmIncoming,
    /// `savevm::Vm::limits`.
    VmLimits,
    /// `savevm::load_state::LoadState::sections`.
    LoadingSections,
    /// `savevm::load_state::LoadState::postcopy`.
    LoadingPostcopy,
    /// `savevm::registry::Calls::drain`: waits for callbacks of removed devices.
    RegistryIdle,
    /// `savevm::registry::Registry::index`.
    Registry,

    // Files and channels.
    /// `channel::wait::Cancel::channels`: the channels that a cancellation shuts down.
    CancelChannels,
    /// `file::Status::detail`.
    FileError,
    /// `channel::listen::Source`.
    Listener,
    /// `channel::tls::TlsChannel::state`: the session.
    TlsSession,
    /// `channel::tls::TlsChannel`: the buffers of the reading and of the writing thread.
    TlsBuffers,
    /// `channel::exec::Process`.
    ExecProcess,
    /// `channel::fd::FdChannel::descriptor`.
    Descriptor,
    /// `channel::received::Received`.
    ReceivedDescriptors,
    /// `channel::memory`: the state of a reader, a writer or a pair.
    MemoryChannel,
    /// `channel::connect`: the answer of the system's resolver.
    Resolver,
}

/// The locks of each thread, in builds with debug assertions.
#[cfg(debug_assertions)]
mod held {
    use super::Rank;
    use std::cell::RefCell;

    thread_local! {
        static HELD: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) };
    }

    /// The highest rank that this thread holds.
    pub fn highest() -> Option<Rank> {
        // A thread that ends may take locks after its list is gone.
        HELD.try_with(|held| held.borrow().iter().max().copied()).ok().flatten()
    }

    /// A lock that this thread holds, or is about to take; it is forgotten on drop.
    pub struct Held(Rank);

    impl Held {
        /// Panics if the order does not allow this lock now.
        #[track_caller]
        pub fn new(rank: Rank) -> Self {
            super::check_order(rank);
            let _ = HELD.try_with(|held| held.borrow_mut().push(rank));
            Self(rank)
        }

        pub fn rank(&self) -> Rank {
            self.0
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            let _ = HELD.try_with(|held| {
                let mut held = held.borrow_mut();
                if let Some(at) = held.iter().rposition(|rank| *rank == self.0) {
                    held.swap_remove(at);
                }
            });
        }
    }
}

#[cfg(debug_assertions)]
#[track_caller]
fn violated(text: fmt::Arguments<'_>) {
    // A second panic in an unwinding thread would end the process.
    if std::thread::panicking() {
        log::error!("{text}");
    } else {
        panic!("{text}");
    }
}

/// In builds with debug assertions: panics unless this thread may take a lock of this rank now.
#[inline]
#[track_caller]
pub fn check_order(rank: Rank) {
    #[cfg(debug_assertions)]
    if let Some(held) = held::highest().filter(|held| *held >= rank) {
        violated(format_args!("lock order: {rank:?} is taken while {held:?} is held"));
    }
    #[cfg(not(debug_assertions))]
    let _ = rank;
}

/// In builds with debug assertions: panics if this thread holds a lock of the library. `what` is about to happen.
#[inline]
#[track_caller]
pub fn check_none_held(what: &str) {
    #[cfg(debug_assertions)]
    if let Some(held) = held::highest() {
        violated(format_args!("lock order: {what} while {held:?} is held"));
    }
    #[cfg(not(debug_assertions))]
    let _ = what;
}

/// A mutex with a place in the lock order.
pub struct Mutex<T: ?Sized> {
    #[cfg(debug_assertions)]
    rank: Rank,
    inner: std::sync::Mutex<T>,
}

/// A locked [`Mutex`].
pub struct MutexGuard<'a, T: ?Sized> {
    inner: std::sync::MutexGuard<'a, T>,
    #[cfg(debug_assertions)]
    held: held::Held,
}

impl<T> Mutex<T> {
    /// A mutex of this rank.
    pub const fn new(rank: Rank, value: T) -> Self {
        #[cfg(not(debug_assertions))]
        let _ = rank;
        Self {
            #[cfg(debug_assertions)]
            rank,
            inner: std::sync::Mutex::new(value),
        }
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits for the lock and takes it.
    #[track_caller]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        // The check comes before the wait, which may have no end.
        #[cfg(debug_assertions)]
        let held = held::Held::new(self.rank);
        MutexGuard {
            inner: self.inner.lock().unwrap_or_else(PoisonError::into_inner),
            #[cfg(debug_assertions)]
            held,
        }
    }
}

impl<T> Mutex<Option<T>> {
    /// Takes the value and leaves `None`. The caller drops the value without the lock: its drop may call the host.
    #[track_caller]
    pub fn take(&self) -> Option<T> {
        self.lock().take()
    }
}

impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(out)
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

/// A condition variable for a [`Mutex`]. What its waiting threads look at is changed only while that mutex is locked. So a
/// notification that no thread waits for needs no system call, which one of `std` always makes.
#[derive(Debug, Default)]
pub struct Condvar {
    inner: std::sync::Condvar,
    /// Number of threads that wait. Changed with the mutex locked, except that a thread may be counted a little longer.
    waiting: AtomicUsize,
}

impl Condvar {
    /// A condition that no thread waits for.
    pub const fn new() -> Self {
        Self { inner: std::sync::Condvar::new(), waiting: AtomicUsize::new(0) }
    }

    /// Releases the lock, waits for a notification and takes the lock again. May return without a notification.
    #[track_caller]
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.with_released(guard, |inner| self.inner.wait(inner).unwrap_or_else(PoisonError::into_inner))
    }

    /// As [`Condvar::wait`], at most for `limit`.
    #[track_caller]
    pub fn wait_timeout<'a, T>(&self, guard: MutexGuard<'a, T>, limit: Duration) -> MutexGuard<'a, T> {
        self.with_released(guard, |inner| {
            self.inner.wait_timeout(inner, limit).unwrap_or_else(PoisonError::into_inner).0
        })
    }

    /// The wait itself. No second lock may be held during it.
    #[track_caller]
    fn with_released<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        wait: impl FnOnce(std::sync::MutexGuard<'a, T>) -> std::sync::MutexGuard<'a, T>,
    ) -> MutexGuard<'a, T> {
        #[cfg(debug_assertions)]
        let rank = {
            let rank = guard.held.rank();
            drop(guard.held);
            check_none_held("a thread waits for a condition");
            rank
        };
        // A thread that takes the mutex behind this one, and then notifies, sees the count.
        self.waiting.fetch_add(1, Relaxed);
        let inner = wait(guard.inner);
        self.waiting.fetch_sub(1, Relaxed);
        MutexGuard {
            inner,
            #[cfg(debug_assertions)]
            held: held::Held::new(rank),
        }
    }

    /// Wakes one waiting thread.
    pub fn notify_one(&self) {
        if self.waiting.load(Relaxed) > 0 {
            self.inner.notify_one();
        }
    }

    /// Wakes all waiting threads.
    pub fn notify_all(&self) {
        if self.waiting.load(Relaxed) > 0 {
            self.inner.notify_all();
        }
    }
}

/// A lock for many readers or one writer, with a place in the lock order.
pub struct RwLock<T> {
    #[cfg(debug_assertions)]
    rank: Rank,
    inner: std::sync::RwLock<T>,
}

/// A locked [`RwLock`]: `G` is the guard of `std`.
pub struct RwLockGuard<G> {
    inner: G,
    #[cfg(debug_assertions)]
    _held: held::Held,
}

impl<T> RwLock<T> {
    /// A lock of this rank.
    pub const fn new(rank: Rank, value: T) -> Self {
        #[cfg(not(debug_assertions))]
        let _ = rank;
        Self {
            #[cfg(debug_assertions)]
            rank,
            inner: std::sync::RwLock::new(value),
        }
    }

    /// Waits until no writer has the lock and takes it for reading. A thread can't take it twice.
    #[track_caller]
    pub fn read(&self) -> RwLockGuard<std::sync::RwLockReadGuard<'_, T>> {
        #[cfg(debug_assertions)]
        let _held = held::Held::new(self.rank);
        RwLockGuard {
            inner: self.inner.read().unwrap_or_else(PoisonError::into_inner),
            #[cfg(debug_assertions)]
            _held,
        }
    }

    /// Waits until no other thread has the lock and takes it for writing.
    #[track_caller]
    pub fn write(&self) -> RwLockGuard<std::sync::RwLockWriteGuard<'_, T>> {
        #[cfg(debug_assertions)]
        let _held = held::Held::new(self.rank);
        RwLockGuard {
            inner: self.inner.write().unwrap_or_else(PoisonError::into_inner),
            #[cfg(debug_assertions)]
            _held,
        }
    }
}

impl<G: Deref> Deref for RwLockGuard<G> {
    type Target = G::Target;

    fn deref(&self) -> &G::Target {
        &self.inner
    }
}

impl<G: DerefMut> DerefMut for RwLockGuard<G> {
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.inner
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn message(body: impl FnOnce()) -> String {
        let panic = catch_unwind(AssertUnwindSafe(body)).unwrap_err();
        panic.downcast_ref::<String>().unwrap().clone()
    }

    #[test]
    fn locks_in_order_are_allowed() {
        let (outer, inner) = (Mutex::new(Rank::RamBusy, 1), RwLock::new(Rank::RamBlocks, 2));
        for _ in 0..2 {
            let first = outer.lock();
            assert_eq!(*first + *inner.read(), 3);
            *inner.write() = 2;
        }
        check_none_held("the end of the test");
    }

    #[test]
    fn locks_against_the_order_panic_with_both_names() {
        let (outer, inner) = (Mutex::new(Rank::RamBusy, ()), RwLock::new(Rank::RamBlocks, ()));
        let text = message(|| {
            let _inner = inner.write();
            let _outer = outer.lock();
        });
        assert_eq!(text, "lock order: RamBusy is taken while RamBlocks is held");
        // Neither lock stays taken.
        drop((outer.lock(), inner.write()));
    }

    #[test]
    fn one_rank_is_not_taken_twice() {
        let (one, other) = (Mutex::new(Rank::FileError, ()), Mutex::new(Rank::FileError, ()));
        let text = message(|| drop((one.lock(), other.lock())));
        assert_eq!(text, "lock order: FileError is taken while FileError is held");
    }

    #[test]
    fn callbacks_and_the_big_lock_need_all_locks_released() {
        let lock = Mutex::new(Rank::MigrationSlot, ());
        let guard = lock.lock();
        assert_eq!(
            message(|| check_none_held("the host is called")),
            "lock order: the host is called while MigrationSlot is held"
        );
        assert_eq!(message(|| check_order(Rank::BigLock)), "lock order: BigLock is taken while MigrationSlot is held");
        drop(guard);
        check_none_held("the host is called");
        check_order(Rank::BigLock);
    }

    #[test]
    fn a_wait_releases_its_lock_and_allows_no_other() {
        let (outer, inner, changed) =
            (Mutex::new(Rank::RamBusy, ()), Mutex::new(Rank::CheckpointPages, 1), Condvar::new());
        let mut guard = changed.wait_timeout(inner.lock(), Duration::from_millis(1));
        *guard += 1;
        drop(guard);
        check_none_held("the end of the wait");
        let text = message(|| {
            let _outer = outer.lock();
            drop(changed.wait_timeout(inner.lock(), Duration::from_millis(1)));
        });
        assert_eq!(text, "lock order: a thread waits for a condition while RamBusy is held");
    }

    #[test]
    fn a_panic_of_the_holder_does_not_poison_the_lock() {
        let lock = Mutex::new(Rank::VmLimits, 1);
        message(|| {
            let _guard = lock.lock();
            panic!("{}", "provoked");
        });
        assert_eq!(*lock.lock(), 1);
    }

    #[test]
    fn threads_have_lists_of_their_own() {
        let (outer, inner) = (Mutex::new(Rank::RamBusy, ()), Mutex::new(Rank::RamOptions, ()));
        let _inner = inner.lock();
        std::thread::scope(|scope| scope.spawn(|| drop(outer.lock())).join().unwrap());
    }
}
