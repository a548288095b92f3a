// SPDX-License-Identifier: LGPL-2.1-or-later
//! No panic leaves the library.

use super::context;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `body`; a panic in it marks the current context as broken, is reported, and becomes `on_panic`.
///
/// What `body` touches is built for being left at any point: atomics, cells that are set last, and locks whose poison
/// is ignored. That is why it may be asserted to be unwind safe.
pub(crate) fn guard<T>(on_panic: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic without words".to_owned());
        context::broken(&text);
        on_panic
    })
}
