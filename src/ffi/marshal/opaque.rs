// SPDX-License-Identifier: LGPL-2.1-or-later
//! C types that are opaque on one of the two sides.

use std::marker::{PhantomData, PhantomPinned};

macro_rules! opaque {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[repr(C)]
        pub struct $name {
            nothing: [u8; 0],
            marker: PhantomData<(*mut u8, PhantomPinned)>,
        }
    )*};
}

opaque! {
    /// A `MigFile` as C sees it; the address is the same.
    QEMUFile;
    /// The driver's state: ours, or the host's own.
    MigrationState;
    /// The loading driver's state: ours, or the host's own.
    MigrationIncomingState;
    /// An object of the hypervisor that has a path.
    VMStateIf;
    /// A context as C sees it; the address is that of a `Vm`.
    SaveVM;
    /// A layout as C sees it; the address is that of an `Abi`.
    SaveVMAbi;
    /// A migration in either direction as C sees it; see `handle`.
    SaveVMMigration;
    /// An error as C sees it: ours, or the host's own where it brings its functions for them.
    Error;
    /// A timer of the hypervisor.
    QEMUTimer;
    /// Hooks of RAM, a table of the hypervisor.
    QEMUFileHooks;
    /// The record of what was saved; ours.
    JSONWriter;
    /// What was read of a stream without loading it, as C sees it: an `Inspected`.
    SaveVMInspect;
}
