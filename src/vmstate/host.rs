// SPDX-License-Identifier: LGPL-2.1-or-later
//! Timers, trees and traces, which the hypervisor implements.

use crate::error::printable;
use std::ffi::c_void;
use std::fmt;

/// The address of an object of the host or the device. The library passes it on without using it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostObject(*mut c_void);

impl HostObject {
    /// Wraps an address of the object that the description names: a timer, a tree, a key or a value.
    pub(crate) const fn new(address: *mut c_void) -> Self {
        Self(address)
    }

    /// Returns the address.
    pub fn address(self) -> *mut c_void {
        self.0
    }
}

/// Timers, trees and traces of the host. `None` means that the host has no such operation; a field that needs it fails
/// with `-ENOSYS`. Timers and trees are used with the big lock held, on the thread that saves or loads.
pub trait VmStateHost {
    /// Returns when a timer fires, in nanoseconds of its clock, or -1 if it is not armed (QEMU 7.2,
    /// `timer_expire_time_ns`).
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
    /// Returns the number of nodes of a tree (`g_tree_nnodes`).
    fn tree_count(&self, _tree: HostObject) -> Option<u32> {
        None
    }
    /// Calls `visit` with the key and value of each node in order, until it returns true (`g_tree_foreach`).
    fn tree_foreach(&self, _tree: HostObject, _visit: &mut dyn FnMut(HostObject, HostObject) -> bool) -> Option<()> {
        None
    }
    /// Inserts a node (`g_tree_insert`). The tree then owns key and value, which are memory from `malloc` or a direct
    /// key.
    fn tree_insert(&self, _tree: HostObject, _key: HostObject, _value: HostObject) -> Option<()> {
        None
    }
    /// Returns whether a subsection that cannot be loaded sets the error of the file.
    fn latches_subsections(&self) -> bool {
        false
    }
    /// Returns whether descriptors keep their numbers on the other side, so that a stream has only the numbers.
    fn keeps_descriptors(&self) -> bool {
        false
    }
    /// Returns whether traces are wanted. Called often. Any thread.
    fn traces(&self) -> bool {
        log::log_enabled!(log::Level::Trace)
    }
    /// Receives a trace event with QEMU's name. Without a host, events go to the log. Any thread.
    fn trace(&self, event: &'static str, arguments: fmt::Arguments<'_>) {
        log::trace!("{event} {}", printable(arguments.to_string()));
    }
}

/// A host without timers and trees.
pub struct NoVmStateHost;

impl VmStateHost for NoVmStateHost {}
