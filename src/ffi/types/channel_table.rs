// SPDX-License-Identifier: LGPL-2.1-or-later
//! The table of a channel of the hypervisor.

use crate::ffi::marshal::structs::sized_structs;
use std::ffi::{c_char, c_int, c_void};

/// A channel of the hypervisor: the functions that a file over it calls. All but one direction are optional.
///
/// At most one thread reads and one thread writes at a time. `shutdown` is called from any thread.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMChannelOps {
    /// sizeof(SaveVMChannelOps).
    pub size: usize,
    /// Reads up to `length` bytes. Returns their number, 0 at the end, -errno, or -EAGAIN, after which `wait` is called.
    /// NULL: the channel is not readable.
    pub read: Option<unsafe extern "C" fn(opaque: *mut c_void, buf: *mut u8, length: usize) -> isize>,
    /// Writes from `count` buffers, at most 64. Returns the number of bytes written, -errno, or -EAGAIN, after which `wait`
    /// is called. NULL: the channel is not writable.
    pub writev: Option<unsafe extern "C" fn(opaque: *mut c_void, iov: *const libc::iovec, count: c_int) -> isize>,
    /// Waits until the channel can be written (or read); may switch to another coroutine meanwhile. 0, or -errno, which ends the
    /// operation. NULL: -EAGAIN is an error.
    pub wait: Option<unsafe extern "C" fn(opaque: *mut c_void, write: bool) -> c_int>,
    /// Ends both directions from any thread, and the waits in them; 0 or -errno. NULL: -ENOSYS, and
    /// waiting threads are not woken.
    pub shutdown: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// Changes the blocking mode; 0 or -errno. NULL: nothing.
    pub set_blocking: Option<unsafe extern "C" fn(opaque: *mut c_void, blocking: bool) -> c_int>,
    /// Closes the channel; called once for every file over it. 0 or -errno. NULL: nothing.
    pub close: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// Frees the channel when the last file over it is freed, from any thread. NULL: nothing.
    pub free: Option<unsafe extern "C" fn(opaque: *mut c_void)>,
    /// Returns the reason of the last failed `read` (or write), as a string from malloc(), or NULL. Called once, on the
    /// thread of the failed call.
    pub error: Option<unsafe extern "C" fn(opaque: *mut c_void, write: bool) -> *mut c_char>,
}

sized_structs! {
    SaveVMChannelOps, SAVEVM_CHANNEL_OPS_INIT, error;
}
