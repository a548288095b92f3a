// SPDX-License-Identifier: LGPL-2.1-or-later
//! Panics are errors of this library. A panic ends the operation in which it happens, becomes its error, and poisons
//! the context for which the operation worked.
//!
//! An interrupted operation leaves only atomics, cells that are set last, and locks that ignore poison. Therefore all
//! closures here may be asserted to be unwind safe.

use super::Vm;
use crate::error::{Error, Result};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

/// The payload of a panic.
pub type Panic = Box<dyn Any + Send>;

/// The payload of a panic that was attributed to a context and reported, on its way to code that can return an error.
struct Attributed(Arc<Vm>, Error);

/// Returns the message of a panic.
fn message(panic: &Panic) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a message")
}

/// Turns a panic into an error. Returns the context to which the panic is attributed, by default `vm`, with the error.
/// The context is poisoned.
pub fn into_error(panic: Panic, vm: impl FnOnce() -> Arc<Vm>) -> (Arc<Vm>, Error) {
    match panic.downcast::<Attributed>() {
        Ok(attributed) => (attributed.0, attributed.1),
        Err(panic) => {
            let vm = vm();
            let error = vm.poison(message(&panic));
            (vm, error)
        }
    }
}

/// Runs `body`. A panic in it becomes an error and poisons `vm`.
pub fn catch<T>(vm: &Vm, body: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|panic| match panic.downcast::<Attributed>() {
        Ok(attributed) => attributed.1,
        Err(panic) => vm.poison(message(&panic)),
    })
}

/// Runs `body`, and a second time if it panics. Returns whether one of the runs ended normally. `body` must take each
/// resource before it releases it, so that the second run continues after the one at which the first panicked.
pub fn retry<T>(vm: &Vm, mut body: impl FnMut() -> T) -> bool {
    (0..2).any(|_| catch(vm, &mut body).is_ok())
}

/// Runs `body`. A panic in it is attributed to `vm`, if there is one, wherever it is caught.
pub fn attribute_panic_to<T>(vm: impl FnOnce() -> Option<Arc<Vm>>, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| match vm() {
        Some(vm) => {
            let (vm, error) = into_error(panic, || vm);
            resume_unwind(Box::new(Attributed(vm, error)))
        }
        None => resume_unwind(panic),
    })
}

/// Runs `body`. If it panics, runs `then` before the panic continues.
pub fn on_panic<T>(body: impl FnOnce() -> T, then: impl FnOnce()) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        then();
        resume_unwind(panic)
    })
}

/// Runs `body` and then `last`, also if `body` panics; the panic continues afterwards.
pub fn finally<T, U>(body: impl FnOnce() -> T, last: impl FnOnce() -> U) -> (T, U) {
    let done = catch_unwind(AssertUnwindSafe(body));
    let last = last();
    (done.unwrap_or_else(|panic| resume_unwind(panic)), last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_poisons_the_context_it_is_attributed_to() {
        let (outer, inner) = (Vm::default(), Arc::new(Vm::default()));
        let of_inner = || Some(Arc::clone(&inner));
        let error = catch(&outer, || attribute_panic_to(of_inner, || panic!("one {}", "two"))).unwrap_err();
        assert!(error.message().ends_with("one two") && error.errno() == libc::EIO);
        assert!(inner.is_poisoned() && !outer.is_poisoned());
        assert!(catch(&outer, || panic!("three")).is_err() && outer.is_poisoned());
    }

    #[test]
    fn retry_runs_a_body_that_panics_once_to_its_end() {
        let vm = Vm::default();
        let mut calls = 0;
        let mut panics_before = |end: u32| {
            calls += 1;
            assert!(calls >= end, "not yet");
        };
        assert!(retry(&vm, || panics_before(2)) && vm.is_poisoned());
        assert!(!retry(&vm, || panics_before(5)));
        assert_eq!(calls, 4);
    }

    #[test]
    fn what_comes_last_comes_whatever_happens() {
        let vm = Vm::default();
        let mut done = Vec::new();
        assert_eq!(finally(|| 1, || 2), (1, 2));
        assert!(catch(&vm, || finally(|| panic!("a"), || done.push('l'))).is_err());
        assert_eq!(on_panic(|| 3, || unreachable!()), 3);
        assert!(catch(&vm, || on_panic(|| panic!("b"), || done.push('p'))).is_err());
        assert_eq!(done, ['l', 'p']);
    }
}
