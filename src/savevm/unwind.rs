// SPDX-License-Identifier: LGPL-2.1-or-later
//! What becomes of a mistake of the library's own: a panic ends what it was in the middle of and is an error from there on,
//! and the machine that the work was for is given up.
//!
//! What is left half done by a panic is built for that: atomics, cells that are set last, and locks whose poison is
//! ignored. That is why everything here may be asserted to be unwind safe.

use super::Vm;
use crate::error::{Error, Result};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

/// What a panic says.
pub type Panic = Box<dyn Any + Send>;

/// A panic whose machine was given up already, on its way to who can return an error.
struct Known(Arc<Vm>, Error);

fn words(panic: &Panic) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without words")
}

/// The machine that a panic was in, which is given up, and the error that it becomes: `vm`, unless it is known better.
pub fn explained(panic: Panic, vm: impl FnOnce() -> Arc<Vm>) -> (Arc<Vm>, Error) {
    match panic.downcast::<Known>() {
        Ok(known) => (known.0, known.1),
        Err(panic) => {
            let vm = vm();
            let error = vm.give_up(words(&panic));
            (vm, error)
        }
    }
}

/// Runs `body`; a panic in it becomes an error, and `vm` is given up.
pub fn contained<T>(vm: &Vm, body: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|panic| match panic.downcast::<Known>() {
        Ok(known) => known.1,
        Err(panic) => vm.give_up(words(&panic)),
    })
}

/// Runs what takes each thing that it gives back once, as `contained`; should it panic, a second time, which goes on behind
/// that. Whether one of the two came to its end.
pub fn persisted<T>(vm: &Vm, mut body: impl FnMut() -> T) -> bool {
    (0..2).any(|_| contained(vm, &mut body).is_ok())
}

/// Runs `body`; a panic in it goes on as that of `vm`, where there is one, wherever it is caught.
pub fn blamed_on<T>(vm: impl FnOnce() -> Option<Arc<Vm>>, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| match vm() {
        Some(vm) => {
            let (vm, error) = explained(panic, || vm);
            resume_unwind(Box::new(Known(vm, error)))
        }
        None => resume_unwind(panic),
    })
}

/// Runs `body`; where it panics, `then` before the panic goes on.
pub fn on_panic<T>(body: impl FnOnce() -> T, then: impl FnOnce()) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        then();
        resume_unwind(panic)
    })
}

/// Runs `body` and then `last`, also where `body` panics; then the panic goes on.
pub fn finally<T, U>(body: impl FnOnce() -> T, last: impl FnOnce() -> U) -> (T, U) {
    let done = catch_unwind(AssertUnwindSafe(body));
    let last = last();
    (done.unwrap_or_else(|panic| resume_unwind(panic)), last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_the_failure_of_the_machine_that_the_work_was_for() {
        let (outer, inner) = (Vm::default(), Arc::new(Vm::default()));
        let of_inner = || Some(Arc::clone(&inner));
        let error = contained(&outer, || blamed_on(of_inner, || panic!("one {}", "two"))).unwrap_err();
        assert!(error.message().ends_with("one two") && error.errno() == libc::EIO);
        assert!(inner.is_broken() && !outer.is_broken());
        assert!(contained(&outer, || panic!("three")).is_err() && outer.is_broken());
    }

    #[test]
    fn what_panics_once_comes_to_its_end() {
        let vm = Vm::default();
        let mut calls = 0;
        let mut panics_before = |end: u32| {
            calls += 1;
            assert!(calls >= end, "not yet");
        };
        assert!(persisted(&vm, || panics_before(2)) && vm.is_broken());
        assert!(!persisted(&vm, || panics_before(5)));
        assert_eq!(calls, 4);
    }

    #[test]
    fn what_comes_last_comes_whatever_happens() {
        let vm = Vm::default();
        let mut done = Vec::new();
        assert_eq!(finally(|| 1, || 2), (1, 2));
        assert!(contained(&vm, || finally(|| panic!("a"), || done.push('l'))).is_err());
        assert_eq!(on_panic(|| 3, || unreachable!()), 3);
        assert!(contained(&vm, || on_panic(|| panic!("b"), || done.push('p'))).is_err());
        assert_eq!(done, ['l', 'p']);
    }
}
