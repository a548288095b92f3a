// SPDX-License-Identifier: LGPL-2.1-or-later
//! Handles: the object of the library that a C pointer refers to, and what C owns of it. Only this module turns handles into
//! objects and back; the one exception is the handle of a migration, which has one of two types (`handle`).

use std::sync::Arc;

/// Ownership of a handle that C owns alone: a `Box`.
pub(in crate::ffi) enum Unique {}

/// Ownership of a handle that shares its object with the library: one count of an `Arc`.
pub(in crate::ffi) enum Shared {}

/// A C type of which each pointer is NULL or refers to an object of the library.
pub(in crate::ffi) trait Castable: Sized {
    /// The object.
    type Object;
    /// What the handle owns: `Unique` or `Shared`.
    type Ownership;
}

/// Gives an object to C.
pub(in crate::ffi) fn give<C: Castable<Ownership = Unique>>(object: C::Object) -> *mut C {
    Box::into_raw(Box::new(object)).cast()
}

/// Takes an object back from C; `None` for NULL.
///
/// # Safety
/// `handle` must be NULL or come from `give`, and not be used afterwards.
pub(in crate::ffi) unsafe fn take<C: Castable<Ownership = Unique>>(handle: *mut C) -> Option<Box<C::Object>> {
    // SAFETY: the handle came from `Box::into_raw` in `give`, and C has no further use of it.
    (!handle.is_null()).then(|| unsafe { Box::from_raw(handle.cast()) })
}

/// The object behind a handle; `None` for NULL.
///
/// # Safety
/// `handle` must be NULL, or come from a function of this module that gives or lends it, and be alive for `'a`.
#[inline]
pub(in crate::ffi) unsafe fn object<'a, C: Castable>(handle: *const C) -> Option<&'a C::Object> {
    // SAFETY: the address is that of the object, which the handle keeps alive.
    unsafe { handle.cast::<C::Object>().as_ref() }
}

/// The handle of an object, which C does not own and may use as long as the object lives.
#[inline]
pub(in crate::ffi) fn lend<C: Castable>(object: &C::Object) -> *mut C {
    std::ptr::from_ref(object).cast_mut().cast()
}

/// Gives a count of a shared object to C.
pub(in crate::ffi) fn give_shared<C: Castable<Ownership = Shared>>(object: Arc<C::Object>) -> *mut C {
    Arc::into_raw(object).cast_mut().cast()
}

/// The handle of a shared object, which C does not own and may use as long as the object lives.
pub(in crate::ffi) fn lend_shared<C: Castable<Ownership = Shared>>(object: &Arc<C::Object>) -> *mut C {
    Arc::as_ptr(object).cast_mut().cast()
}

/// A count of a shared object for the library; C keeps its own. `None` for NULL.
///
/// # Safety
/// `handle` must be NULL, or come from `give_shared` or `lend_shared` and be alive.
pub(in crate::ffi) unsafe fn share<C: Castable<Ownership = Shared>>(handle: *mut C) -> Option<Arc<C::Object>> {
    let at = handle.cast_const().cast::<C::Object>();
    // SAFETY: the address is that of the content of an `Arc`, which is alive.
    (!handle.is_null()).then(|| unsafe {
        Arc::increment_strong_count(at);
        Arc::from_raw(at)
    })
}

/// Takes a count of a shared object back from C; `None` for NULL.
///
/// # Safety
/// `handle` must be NULL or come from `give_shared`, and not be used afterwards.
pub(in crate::ffi) unsafe fn take_shared<C: Castable<Ownership = Shared>>(handle: *mut C) -> Option<Arc<C::Object>> {
    // SAFETY: the handle came from `Arc::into_raw` in `give_shared`, and C has no further use of it.
    (!handle.is_null()).then(|| unsafe { Arc::from_raw(handle.cast_const().cast()) })
}
