// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm/ram.h`: how RAM of the host's own takes part in postcopy.

use crate::error::Error;
use crate::ffi::marshal::handle::on_machine;
use crate::ffi::marshal::handle::{Handle, incoming, outgoing};
use crate::ffi::marshal::opaque::{MigrationIncomingState, MigrationState, QEMUFile};
use crate::ffi::marshal::results::code;
use crate::ffi::marshal::strings;
use crate::ffi::marshal::structs::sized_structs;
use std::ffi::{c_char, c_int, c_void};

sized_structs! {
    SaveVMPostcopyOps, SAVEVM_POSTCOPY_OPS_INIT, end;
}

/// Functions of a RAM device of the host's own for postcopy. Results are 0 or -errno. An error ends the migration, or pauses
/// it if it can be recovered. If a member is NULL, an operation that needs it fails, unless the member states another
/// meaning. On the destination, the loading threads call these functions, without the lock. Block names are valid during the
/// call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMPostcopyOps {
    /// sizeof(SaveVMPostcopyOps).
    pub size: usize,
    /// Returns the names of all blocks, ended by NULL and owned by the host. NULL: the device's resume_prepare requests the
    /// bitmaps with savevm_request_bitmap().
    pub blocks: Option<unsafe extern "C" fn(opaque: *mut c_void) -> *const *const c_char>,

    /// Source, guest stopped, with the lock: calls qemu_savevm_send_postcopy_ram_discard() for all pages that changed after
    /// they were sent.
    pub send_discards: Option<unsafe extern "C" fn(opaque: *mut c_void, f: *mut QEMUFile) -> c_int>,
    /// Source, any thread, without the lock: the guest waits for these bytes. The device's save_live_iterate should send them
    /// next. `block` is NULL for the block of the previous request.
    pub pages_requested:
        Option<unsafe extern "C" fn(opaque: *mut c_void, block: *const c_char, start: u64, length: u32) -> c_int>,
    /// Source, in a recovery, any thread: the pages of a block that arrived, one bit each, little-endian, `length` bytes. All
    /// other pages must be sent.
    pub received: Option<
        unsafe extern "C" fn(opaque: *mut c_void, block: *const c_char, bits: *const u8, length: usize) -> c_int,
    >,

    /// Destination: the source announces that postcopy may follow. NULL: accepted.
    pub advise: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// Destination: called before the first discard. NULL: nothing to do.
    pub prepare_discard: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// Destination: discards `length` bytes of a block from `start`.
    pub discard:
        Option<unsafe extern "C" fn(opaque: *mut c_void, block: *const c_char, start: u64, length: u64) -> c_int>,
    /// Destination: from now on, request missing pages with savevm_request_pages(). The device's load_state loads pages,
    /// without the lock, on another thread than the other devices.
    pub listen: Option<unsafe extern "C" fn(opaque: *mut c_void, migration: *mut MigrationIncomingState) -> c_int>,
    /// Destination: the connection broke, and requests fail until `resumed`. NULL: nothing to do.
    pub paused: Option<unsafe extern "C" fn(opaque: *mut c_void)>,
    /// Destination: the connection was recovered. Request all pages again for which the guest waits. NULL: nothing to do.
    pub resumed: Option<unsafe extern "C" fn(opaque: *mut c_void)>,
    /// Destination, in a recovery: stores the address of a block's bitmap, which is valid until the next call, and returns
    /// its size in bytes, or -errno. One bit for each page that arrived, little-endian.
    pub received_bits:
        Option<unsafe extern "C" fn(opaque: *mut c_void, block: *const c_char, bits: *mut *const u8) -> isize>,
    /// Destination: the end. If `complete`, every page arrived; else no more pages arrive and the guest is stopped.
    /// Wake all threads that wait for a page. Not called if a running guest could not be stopped: it must not read memory
    /// that did not arrive. NULL: nothing.
    pub end: Option<unsafe extern "C" fn(opaque: *mut c_void, complete: bool)>,
}

/// For `resume_prepare` of a RAM device: asks the destination which pages of a block it has, and waits until
/// SaveVMPostcopyOps.received was called, at most SaveVMParams.handshake_timeout_ms.
///
/// Returns:
///   0           SaveVMPostcopyOps.received was called
///   -EINVAL     no recovery is in progress, or NULL
///   -ETIMEDOUT  no answer
///   -errno      the connection broke
///
/// Thread: that of the callback. Lock: either.
///
/// # Safety
/// `s` is NULL or what `resume_prepare` was given; `block` is NULL or a terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_request_bitmap(s: *mut MigrationState, block: *const c_char) -> c_int {
    // SAFETY: the contract of the function.
    on_machine(unsafe { outgoing(s) }, |m| {
        let Handle::Outgoing(m) = m else { return -libc::EINVAL };
        // SAFETY: the contract of the function.
        let block = unsafe { strings::name(block) }.ok_or_else(|| Error::invalid("the name of the block is NULL"));
        code(block.and_then(|block| m.request_bitmap(&block)))
    })
}

/// For a RAM device in postcopy: asks the source to send `length` bytes from `start` on of a block soon, because the guest
/// waits for them. `s` is the argument of SaveVMPostcopyOps.listen, and valid until SaveVMPostcopyOps.end.
///
/// Returns:
///   0        the request was sent
///   -EINVAL  no postcopy is in progress, NULL, or the name has more than 255 bytes
///   -errno   the connection is broken; ask again after SaveVMPostcopyOps.resumed
///
/// Thread: any. Lock: either. Waits only until the connection takes a few bytes.
///
/// # Safety
/// `s` is NULL or what SaveVMPostcopyOps.listen was given; `block` is NULL or a terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_request_pages(
    s: *mut MigrationIncomingState,
    block: *const c_char,
    start: u64,
    length: u32,
) -> c_int {
    // SAFETY: the contract of the function.
    on_machine(unsafe { incoming(s) }, |m| {
        let Handle::Incoming(m) = m else { return -libc::EINVAL };
        // SAFETY: the contract of the function.
        let block = unsafe { strings::name(block) }.filter(|block| block.len() <= usize::from(u8::MAX));
        let block = block.ok_or_else(|| Error::invalid("the name of the block is NULL or too long"));
        code(block.and_then(|block| m.request_pages(&block, start, length)))
    })
}
