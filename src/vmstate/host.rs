// SPDX-License-Identifier: LGPL-2.1-or-later
//! What timers and trees need of the hypervisor, as the library has neither, and where traces go.

use crate::error::printable;
use std::ffi::c_void;
use std::fmt;

/// The address of an object of the host or device, on its way between C and C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostObject(*mut c_void);

impl HostObject {
    /// Wraps an address. Who makes one promises that it is what the description says: a timer, a tree, a key, a value.
    pub(crate) const fn new(address: *mut c_void) -> Self {
        Self(address)
    }

    /// The address.
    pub fn address(self) -> *mut c_void {
        self.0
    }
}

/// Timers, trees and traces. `None` means that the host has no such operation; a field that needs it then fails with
/// `-ENOSYS`. Timers and trees are used with the big lock held, on the thread that saves or loads.
pub trait VmStateHost {
    /// When a timer fires, in nanoseconds of its clock; -1 if it is not armed (QEMU 7.2, `timer_expire_time_ns`).
    fn timer_expire_ns(&self, _timer: HostObject) -> Option<i64> {
        None
    }
    /// Arms a timer (`timer_mod_ns`).
    fn timer_set_ns(&self, _timer: HostObject, _expire: i64) -> Option<()> {
        None
    }
    /// Disarms a timer (`timer_del`).
    fn timer_clear(&self, _timer: HostObject) -> Option<()> {
        None
    }
    /// How many nodes a tree has (`g_tree_nnodes`).
    fn tree_count(&self, _tree: HostObject) -> Option<u32> {
        None
    }
    /// Visits all nodes in order, with key and value, until `visit` returns true (`g_tree_foreach`).
    fn tree_foreach(&self, _tree: HostObject, _visit: &mut dyn FnMut(HostObject, HostObject) -> bool) -> Option<()> {
        None
    }
    /// Inserts a node (`g_tree_insert`). The tree owns key and value from then on: memory of `malloc`, or a direct key.
    fn tree_insert(&self, _tree: HostObject, _key: HostObject, _value: HostObject) -> Option<()> {
        None
    }
    /// Whether traces are wanted; asked often. Any thread.
    fn traces(&self) -> bool {
        log::log_enabled!(log::Level::Trace)
    }
    /// One trace event, with QEMU's name for it. Without a host it goes to the log. Any thread.
    fn trace(&self, event: &'static str, arguments: fmt::Arguments<'_>) {
        log::trace!("{event} {}", printable(arguments.to_string()));
    }
}

/// A host without timers and trees.
pub struct NoVmStateHost;

impl VmStateHost for NoVmStateHost {}
