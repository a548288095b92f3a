// SPDX-License-Identifier: LGPL-2.1-or-later
//! Which machine a call of QEMU's names means: this thread's current context, else the one default.

use crate::ffi::marshal::castable::{self, Castable, Shared};
use crate::ffi::marshal::opaque::SaveVM;
use crate::savevm::host::{Host, NoHost};
use crate::savevm::{Vm, unwind};
use once_cell::sync::Lazy;
use std::cell::RefCell;
use std::sync::Arc;

impl Castable for SaveVM {
    type Object = Vm;
    type Ownership = Shared;
}

static DEFAULT: Lazy<Arc<Vm>> = Lazy::new(|| new(Arc::new(NoHost)));

thread_local! {
    static CURRENT: RefCell<Option<Arc<Vm>>> = const { RefCell::new(None) };
}

/// This thread's context.
pub(crate) fn current() -> Arc<Vm> {
    CURRENT.with_borrow(|current| current.as_ref().map_or_else(|| Arc::clone(&DEFAULT), Arc::clone))
}

/// A new context, which becomes the current one of the threads that work for it.
pub(crate) fn new(host: Arc<dyn Host>) -> Arc<Vm> {
    let vm = Vm::new(host);
    vm.set_thread_hook(|vm, body| with(vm, body));
    Arc::new(vm)
}

/// The default context.
pub(crate) fn default() -> &'static Arc<Vm> {
    &DEFAULT
}

/// Makes `vm` this thread's context, `None` for the default; the one before, as C sees it.
pub(crate) fn set_current(vm: Option<Arc<Vm>>) -> *mut SaveVM {
    let before = current();
    CURRENT.with_borrow_mut(|current| *current = vm);
    castable::lend_shared(&before)
}

/// Runs `body` with `vm` as this thread's context. A panic in it is that context's, wherever it is caught.
pub(crate) fn with<T>(vm: &Arc<Vm>, body: impl FnOnce() -> T) -> T {
    struct Restore(Option<Arc<Vm>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.with_borrow_mut(|current| *current = self.0.take());
        }
    }
    let _restore = Restore(CURRENT.with_borrow_mut(|current| current.replace(Arc::clone(vm))));
    with_panic_context(vm, body)
}

/// Runs `body` for `vm`, which need not be this thread's context: a panic in it is `vm`'s.
pub(crate) fn with_panic_context<T>(vm: &Arc<Vm>, body: impl FnOnce() -> T) -> T {
    unwind::attribute_panic_to(|| Some(Arc::clone(vm)), body)
}

/// The context behind a C pointer; NULL means this thread's.
///
/// # Safety
/// `vm` must be NULL or come from `savevm_new` (and not be freed), `savevm_default` or `savevm_set_current`.
pub(crate) unsafe fn from_c(vm: *mut SaveVM) -> Arc<Vm> {
    // SAFETY: as the caller promised; all of them return the address of the content of an `Arc`.
    unsafe { castable::share(vm) }.unwrap_or_else(current)
}
