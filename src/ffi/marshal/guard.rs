// SPDX-License-Identifier: LGPL-2.1-or-later
//! No panic leaves the library. A panic is reported and breaks the context of the call, and the caller receives an error.

use crate::error::Error;
use crate::ffi::marshal::opaque::Error as CError;
use crate::ffi::marshal::{c_error, current};
use crate::file::MigFile;
#[cfg(test)]
use crate::savevm::fault::FaultPoint;
use crate::savevm::{Vm, unwind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Returns the result of `body`. If `body` panics: the context that the panic breaks, and the error.
fn caught<T>(body: impl FnOnce() -> T) -> Result<T, (Arc<Vm>, Error)> {
    catch_unwind(AssertUnwindSafe(|| {
        #[cfg(test)]
        current::current().fault_point(FaultPoint::Call);
        body()
    }))
    .map_err(|panic| unwind::into_error(panic, current::current))
}

/// Runs `body`; a panic in it becomes `on_panic`.
pub(crate) fn guard<T>(on_panic: T, body: impl FnOnce() -> T) -> T {
    caught(body).unwrap_or(on_panic)
}

/// As `guard`, for work on a file: a panic is the file's error as well, since a part of the stream may be missing.
pub(crate) fn guard_file<T>(file: &MigFile, on_panic: T, body: impl FnOnce() -> T) -> T {
    caught(body).unwrap_or_else(|(_, error)| {
        file.set_error_detail(error);
        on_panic
    })
}

/// As `guard`, for what tells its error.
///
/// # Safety
/// `errp` must be NULL or point to NULL.
pub(crate) unsafe fn guard_error<T>(errp: *mut *mut CError, on_panic: T, body: impl FnOnce() -> T) -> T {
    caught(body).unwrap_or_else(|(vm, error)| {
        // SAFETY: as the caller promised; `body` may have told one, which is then kept.
        guard((), || current::with(&vm, || unsafe { c_error::give(errp, error) }));
        on_panic
    })
}
