// SPDX-License-Identifier: LGPL-2.1-or-later
//! The table of a channel of the hypervisor.

use crate::ffi::marshal::opaque::Error as CError;
use crate::ffi::marshal::structs::sized_structs;
use std::ffi::{c_int, c_void};

/// A channel of the hypervisor: the functions that a file over it calls. All but one direction are optional.
///
/// At most one thread reads and one thread writes at a time. `shutdown` is called from any thread. A function with an `errp` may
/// set an error, which the library frees. Its text then stands in the error of the file.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMChannelOps {
    /// sizeof(SaveVMChannelOps).
    pub size: usize,
    /// Reads up to `length` bytes. Returns their number, 0 at the end, -errno, or -EAGAIN, after which `wait` is called.
    /// NULL: the channel is not readable.
    pub read:
        Option<unsafe extern "C" fn(opaque: *mut c_void, buf: *mut u8, length: usize, errp: *mut *mut CError) -> isize>,
    /// Writes from `count` buffers, at most 64. Returns the number of bytes written, -errno, or -EAGAIN, after which `wait`
    /// is called. NULL: the channel is not writable.
    pub writev: Option<
        unsafe extern "C" fn(
            opaque: *mut c_void,
            iov: *const libc::iovec,
            count: c_int,
            errp: *mut *mut CError,
        ) -> isize,
    >,
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
    /// As `read`, which it then replaces. Stores the descriptors that came with the bytes, as an array from malloc(), and their
    /// number. NULL: descriptors can't be received.
    pub read_fds: Option<
        unsafe extern "C" fn(
            opaque: *mut c_void,
            buf: *mut u8,
            length: usize,
            fds: *mut *mut c_int,
            fd_count: *mut usize,
            errp: *mut *mut CError,
        ) -> isize,
    >,
    /// Writes `byte` with a descriptor, which stays open. Returns 1 or -errno. NULL: descriptors can't be sent.
    pub write_fd:
        Option<unsafe extern "C" fn(opaque: *mut c_void, byte: u8, fd: c_int, errp: *mut *mut CError) -> isize>,
    /// Reads up to `length` bytes at `offset`, without a change of the position. Returns their number, 0 at the end, or -errno.
    /// NULL: the channel can't be read at an offset.
    pub pread: Option<
        unsafe extern "C" fn(
            opaque: *mut c_void,
            buf: *mut u8,
            length: usize,
            offset: libc::off_t,
            errp: *mut *mut CError,
        ) -> isize,
    >,
    /// Writes up to `length` bytes at `offset`, without a change of the position. Returns their number or -errno. NULL: the
    /// channel can't be written at an offset.
    pub pwrite: Option<
        unsafe extern "C" fn(
            opaque: *mut c_void,
            buf: *const u8,
            length: usize,
            offset: libc::off_t,
            errp: *mut *mut CError,
        ) -> isize,
    >,
    /// Sets the position at which the channel is read and written, as lseek() does. Returns it or -errno. NULL: the channel has
    /// no position.
    pub seek: Option<
        unsafe extern "C" fn(
            opaque: *mut c_void,
            offset: libc::off_t,
            whence: c_int,
            errp: *mut *mut CError,
        ) -> libc::off_t,
    >,
}

sized_structs! {
    SaveVMChannelOps, SAVEVM_CHANNEL_OPS_INIT, seek;
}
