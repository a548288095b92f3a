// SPDX-License-Identifier: LGPL-2.1-or-later
//! The big lock's guards.

use super::host::{Host, with_big_lock, without_big_lock};
use crate::vmstate::VmStateHost;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// A host whose lock belongs to the only thread of the test.
#[derive(Default)]
struct Locks(AtomicBool);

impl VmStateHost for Locks {}

impl Host for Locks {
    fn lock(&self) {
        assert!(!self.0.swap(true, SeqCst), "the lock is not recursive");
    }
    fn unlock(&self) {
        assert!(self.0.swap(false, SeqCst), "the lock was not held");
    }
    fn locked(&self) -> bool {
        self.0.load(SeqCst)
    }
}

#[test]
fn nested_guards_change_the_lock_once() {
    let host = Locks::default();
    let inside = with_big_lock(&host, || {
        with_big_lock(&host, || assert!(host.locked()));
        without_big_lock(&host, || {
            without_big_lock(&host, || assert!(!host.locked()));
            assert!(!host.locked());
        });
        host.locked()
    });
    assert!(inside && !host.locked());
}

#[test]
fn a_panic_leaves_the_lock_as_it_was() {
    let host = Locks::default();
    assert!(catch_unwind(AssertUnwindSafe(|| with_big_lock(&host, || panic!("inside")))).is_err());
    assert!(!host.locked());
    host.lock();
    assert!(catch_unwind(AssertUnwindSafe(|| without_big_lock(&host, || panic!("outside")))).is_err());
    assert!(host.locked());
}
