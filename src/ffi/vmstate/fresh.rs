// SPDX-License-Identifier: LGPL-2.1-or-later
//! Memory that a load allocates. It comes from `malloc`, because C frees it with `free` or `g_free`.

use super::layout::Layout;
use super::state::CDescription;
use super::state::CState;
use crate::vmstate::HostObject;
use crate::vmstate::model::Fresh;
use std::ptr::NonNull;

/// A zeroed structure. Dropping it frees the memory, unless it was released.
pub(crate) struct CFresh<L> {
    memory: NonNull<u8>,
    size: usize,
    table: CDescription<L>,
}

impl<L: Layout> CFresh<L> {
    /// Allocates a structure. Returns `None` without memory.
    pub(super) fn new(size: usize, table: CDescription<L>) -> Option<Self> {
        // SAFETY: calloc() takes no pointers.
        let memory = unsafe { libc::calloc(1, size.max(1)) };
        Some(Self { memory: NonNull::new(memory.cast())?, size, table })
    }

    /// Releases the memory to its new owner.
    pub(super) fn into_raw(self) -> *mut u8 {
        let memory = self.memory.as_ptr();
        std::mem::forget(self);
        memory
    }
}

impl<L> Drop for CFresh<L> {
    fn drop(&mut self) {
        // SAFETY: the memory came from calloc() and was not released.
        unsafe { libc::free(self.memory.as_ptr().cast()) }
    }
}

impl<L: Layout> Fresh for CFresh<L> {
    type State = CState<L>;

    fn state(&self) -> CState<L> {
        CState::with(self.table, self.memory.as_ptr())
    }

    fn size(&self) -> usize {
        self.size
    }

    fn into_object(self) -> HostObject {
        HostObject::new(self.into_raw().cast())
    }
}
