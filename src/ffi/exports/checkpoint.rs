// SPDX-License-Identifier: LGPL-2.1-or-later
//! Checkpoints in this process.

use crate::error::Error;
use crate::ffi::marshal::castable::{self, Castable, Unique};
use crate::ffi::marshal::current;
use crate::ffi::marshal::guard::{guard, guard_error};
use crate::ffi::marshal::opaque::{Error as CError, SaveVM};
use crate::ffi::marshal::results::{code_or_error, value_or_error};
use crate::migration::Checkpoint;
use std::ffi::c_int;
use std::ptr;

/// The state of a machine at one moment, kept in this process.
pub struct SaveVMCheckpoint {
    checkpoint: Checkpoint,
}

impl Castable for SaveVMCheckpoint {
    type Object = Self;
    type Ownership = Unique;
}

/// Makes a checkpoint of the machine, to which savevm_rollback() returns it. Stops the guest, and starts it again if it ran
/// before, also after a failure.
///
/// The devices' states are kept in memory. Guest memory (savevm_ram_new()) is not copied: it is protected from writes, and a
/// page is copied when it is written for the first time after a checkpoint or a rollback. That needs userfaultfd. The first
/// checkpoint protects all memory. Each further checkpoint takes time in proportion to the pages that were written since the
/// last one.
///
/// Any number of checkpoints may exist. They form a tree: after a rollback, a new checkpoint begins another branch, and a
/// rollback can go to any checkpoint of any branch.
///
/// Writes by other processes and by devices that access memory without this process's page tables are not noticed. Do not
/// discard guest memory (MADV_DONTNEED) while checkpoints exist.
///
/// While a checkpoint exists, blocks of memory can't be added or removed, and the following fail with -EBUSY: a load of a
/// snapshot, an incoming migration, savevm_ram_snapshot(), and an outgoing migration with SAVEVM_RAM_LOG_KERNEL.
///
/// Returns: the checkpoint, to be freed with savevm_checkpoint_free(); NULL on failure. Reasons include EBUSY (a migration, a
/// snapshot or a rollback is in progress), EPERM (this side does not have the guest, or userfaultfd is not permitted) and
/// ENOTSUP (an active live device other than the RAM of savevm_ram_new(): its state can't be kept).
///
/// Thread: any. Lock: either; taken if the calling thread does not hold it. Since 0.1.
///
/// # Safety
/// `vm` is NULL or a context; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_checkpoint(vm: *mut SaveVM, errp: *mut *mut CError) -> *mut SaveVMCheckpoint {
    let body = || {
        // SAFETY: the contract of the function.
        let vm = unsafe { current::from_c(vm) };
        current::with(&vm, || {
            // SAFETY: the contract of the function.
            let made = unsafe { value_or_error(Checkpoint::new(&vm), errp) };
            made.map_or(ptr::null_mut(), |checkpoint| castable::give(SaveVMCheckpoint { checkpoint }))
        })
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, ptr::null_mut(), body) }
}

/// Returns the machine to the state of a checkpoint, which remains valid. Stops the guest, resets the machine
/// (SaveVMHostOps.reset), restores the memory that changed, loads the devices, and starts the guest if it ran before.
///
/// If the machine does not have the same devices as at the checkpoint, it is not changed and the guest continues. After a
/// later failure the guest stays stopped, because the machine has parts of two states; see SAVEVM_OWNER_TORN. Another rollback
/// or savevm_snapshot_load() can replace them.
///
/// Returns:
///   0        the machine has the state of the checkpoint
///   -EBUSY   a migration, a snapshot or a checkpoint is in progress
///   -EPERM   this side does not have the guest; see savevm_owner()
///   -EINVAL  devices were added or removed since the checkpoint, a device rejected its state, or NULL
///   -errno   another error
///
/// Thread: any. Lock: either; taken if the calling thread does not hold it. Since 0.1.
///
/// # Safety
/// `c` is NULL or comes from savevm_checkpoint() and is alive; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_rollback(c: *mut SaveVMCheckpoint, errp: *mut *mut CError) -> c_int {
    let body = || {
        // SAFETY: the contract of the function.
        let checkpoint = unsafe { castable::object(c) }.map(|c: &SaveVMCheckpoint| &c.checkpoint);
        // SAFETY: the contract of the function.
        let give = |result| unsafe { code_or_error(result, errp) };
        match checkpoint {
            Some(checkpoint) => current::with(checkpoint.vm(), || give(checkpoint.rollback())),
            None => give(Err(Error::invalid("the checkpoint is NULL"))),
        }
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -libc::EIO, body) }
}

/// Frees a checkpoint. The machine and all other checkpoints stay as they are. When the last checkpoint is freed, guest memory is
/// no longer protected. Free all checkpoints of a context before its RAM and before the context.
///
/// Thread: any, but not while savevm_rollback() runs for this checkpoint. Lock: either. Since 0.1.
///
/// # Safety
/// `c` is NULL or comes from savevm_checkpoint() and is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_checkpoint_free(c: *mut SaveVMCheckpoint) {
    // SAFETY: the contract of the function.
    guard((), || drop(unsafe { castable::take(c) }));
}
