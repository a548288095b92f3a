// SPDX-License-Identifier: LGPL-2.1-or-later
//! The handle of a migration as C sees it. A `SaveVMMigration *` owns one count of the `Arc` of the migration. Its address
//! is that of the migration, so that a handle in an event equals the one that savevm_migrate() returns; the lowest bit,
//! which alignment keeps free, is set if the guest comes in.

use crate::error::{Error, Result};
use crate::ffi::marshal::current;
use crate::ffi::marshal::guard::{guard, guard_error};
use crate::ffi::marshal::opaque::Error as CError;
use crate::ffi::marshal::opaque::{MigrationIncomingState, MigrationState, SaveVMMigration};
use crate::ffi::marshal::results::code_or_error;
use crate::migration::{DeviceOrder, DeviceTime, Incoming, Info, Migration, Outgoing};
use crate::savevm::Vm;
use std::ffi::c_int;
use std::sync::Arc;

const INCOMING: usize = 1;
const _: () = assert!(align_of::<Outgoing>() > INCOMING && align_of::<Incoming>() > INCOMING);

/// A migration in either direction.
pub(in crate::ffi) enum Handle {
    /// The guest leaves.
    Outgoing(Arc<Outgoing>),
    /// The guest comes in.
    Incoming(Arc<Incoming>),
}

/// # Safety
/// `m` must come from `Arc::into_raw` or `Arc::as_ptr` and be alive.
unsafe fn shared<T>(m: *const T) -> Arc<T> {
    // SAFETY: as the caller promised.
    unsafe {
        Arc::increment_strong_count(m);
        Arc::from_raw(m)
    }
}

/// The migration that a device's callback was given.
///
/// # Safety
/// `s` must be NULL or an outgoing migration that is alive.
pub(in crate::ffi) unsafe fn outgoing(s: *mut MigrationState) -> Option<Handle> {
    // SAFETY: as the caller promised.
    (!s.is_null()).then(|| Handle::Outgoing(unsafe { shared(s.cast_const().cast()) }))
}

/// The migration that a callback of the RAM was given.
///
/// # Safety
/// `s` must be NULL or an incoming migration that is alive.
pub(in crate::ffi) unsafe fn incoming(s: *mut MigrationIncomingState) -> Option<Handle> {
    // SAFETY: as the caller promised.
    (!s.is_null()).then(|| Handle::Incoming(unsafe { shared(s.cast_const().cast()) }))
}

/// The handle of a migration at that address, owned by whoever owns the migration.
pub(in crate::ffi) fn borrowed(address: usize, incoming: bool) -> *mut SaveVMMigration {
    (address | if incoming { INCOMING } else { 0 }) as *mut SaveVMMigration
}

impl Handle {
    /// Gives the handle to C, which frees it with savevm_migration_free().
    pub(in crate::ffi) fn into_c(self) -> *mut SaveVMMigration {
        match self {
            Self::Outgoing(m) => Arc::into_raw(m).cast_mut().cast(),
            Self::Incoming(m) => Arc::into_raw(m).map_addr(|address| address | INCOMING).cast_mut().cast(),
        }
    }

    /// The migration behind a handle; `None` for NULL.
    ///
    /// # Safety
    /// `m` must be NULL or a handle that was not freed.
    pub(in crate::ffi) unsafe fn from_c(m: *mut SaveVMMigration) -> Option<Self> {
        let at = m.map_addr(|address| address & !INCOMING).cast_const();
        let incoming = m.addr() & INCOMING != 0;
        (!m.is_null()).then(|| {
            if incoming {
                // SAFETY: the bit is set, so the address is that of an `Incoming`, which the handle keeps alive.
                Self::Incoming(unsafe { shared(at.cast()) })
            } else {
                // SAFETY: the bit is not set, so the address is that of an `Outgoing`, which the handle keeps alive.
                Self::Outgoing(unsafe { shared(at.cast()) })
            }
        })
    }

    /// Takes a handle back from C; `None` for NULL.
    ///
    /// # Safety
    /// `m` must be NULL or a handle that is not used afterwards.
    pub(in crate::ffi) unsafe fn take(m: *mut SaveVMMigration) -> Option<Self> {
        // SAFETY: as the caller promised.
        let this = unsafe { Self::from_c(m) };
        match &this {
            // SAFETY: the count that the handle owned is released, and `this` has one of its own.
            Some(Self::Outgoing(m)) => unsafe { Arc::decrement_strong_count(Arc::as_ptr(m)) },
            // SAFETY: as above.
            Some(Self::Incoming(m)) => unsafe { Arc::decrement_strong_count(Arc::as_ptr(m)) },
            None => {}
        }
        this
    }

    /// The machine.
    pub(in crate::ffi) fn vm(&self) -> &Arc<Vm> {
        match self {
            Self::Outgoing(m) => m.vm(),
            Self::Incoming(m) => m.vm(),
        }
    }

    pub(in crate::ffi) fn is_incoming(&self) -> bool {
        matches!(self, Self::Incoming(_))
    }

    /// The outgoing migration; an error that names the function for an incoming one.
    pub(in crate::ffi) fn outgoing(&self, function: &str) -> Result<&Arc<Outgoing>> {
        match self {
            Self::Outgoing(m) => Ok(m),
            Self::Incoming(_) => Err(Error::invalid(format!("{function}() acts on an outgoing migration only"))),
        }
    }

    /// The incoming migration; an error that names the function for an outgoing one.
    pub(in crate::ffi) fn incoming(&self, function: &str) -> Result<&Arc<Incoming>> {
        match self {
            Self::Incoming(m) => Ok(m),
            Self::Outgoing(_) => Err(Error::invalid(format!("{function}() acts on an incoming migration only"))),
        }
    }

    /// 0, or -errno with the error reported, for a function that has no `errp`.
    pub(in crate::ffi) fn reported(&self, result: Result<()>) -> c_int {
        result.map_or_else(|err| self.vm().report(err).code(), |()| 0)
    }

    pub(in crate::ffi) fn wait(&self) -> Result<()> {
        match self {
            Self::Outgoing(m) => m.wait(),
            Self::Incoming(m) => m.wait(),
        }
    }

    pub(in crate::ffi) fn info(&self) -> Info {
        match self {
            Self::Outgoing(m) => m.info(),
            Self::Incoming(m) => m.info(),
        }
    }

    pub(in crate::ffi) fn device(&self, order: DeviceOrder, index: usize) -> Option<DeviceTime> {
        match self {
            Self::Outgoing(m) => m.device(order, index),
            Self::Incoming(m) => m.device(order, index),
        }
    }
}

/// Runs `body` with a migration, in its context; `-EINVAL` for NULL.
pub(in crate::ffi) fn on_machine(m: Option<Handle>, body: impl FnOnce(&Handle) -> c_int) -> c_int {
    guard(-libc::EIO, || match m {
        Some(m) => current::with(m.vm(), || body(&m)),
        None => -libc::EINVAL,
    })
}

/// As `on_machine`, for what returns its error; without a migration that is the error.
///
/// # Safety
/// `errp` must be NULL or point to NULL.
pub(in crate::ffi) unsafe fn try_on_machine(
    m: Option<Handle>,
    errp: *mut *mut CError,
    body: impl FnOnce(&Handle) -> Result<()>,
) -> c_int {
    let on = || match m {
        // SAFETY: as the caller promised.
        Some(m) => current::with(m.vm(), || unsafe { code_or_error(body(&m), errp) }),
        // SAFETY: as above.
        None => unsafe { code_or_error(Err(Error::invalid("there is no migration")), errp) },
    };
    // SAFETY: as above.
    unsafe { guard_error(errp, -libc::EIO, on) }
}
