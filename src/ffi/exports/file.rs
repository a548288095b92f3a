// SPDX-License-Identifier: LGPL-2.1-or-later
//! Making files, and what they hold.

use crate::channel::{self, Cancel, Channel, Listener, Uri, fd, memory};
use crate::error::{Error, Result};
use crate::ffi::callbacks::channel_ops::CChannel;
use crate::ffi::marshal::c_file::{file_ref, into_c};
use crate::ffi::marshal::guard::{guard, guard_error};
use crate::ffi::marshal::opaque::{Error as CError, QEMUFile};
use crate::ffi::marshal::structs::sized_structs;
use crate::ffi::marshal::{c_error, current, strings};
use crate::file::MigFile;
use crate::sys;
use std::ffi::{OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::Arc;

/// A channel of the hypervisor: the functions that a file over it calls. All but one direction are optional.
///
/// One thread at a time reads and one writes; `shutdown` comes from any thread.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMChannelOps {
    /// sizeof(SaveVMChannelOps).
    pub size: usize,
    /// Reads up to `len` bytes; 0 at the end, -errno, or -EAGAIN, after which `wait` is called. NULL: nothing comes.
    pub read: Option<unsafe extern "C" fn(channel: *mut c_void, buf: *mut u8, len: usize) -> isize>,
    /// Writes from `count` pieces, at most 64; how many bytes went, -errno, or -EAGAIN, after which `wait` is called. NULL:
    /// nothing goes.
    pub writev: Option<unsafe extern "C" fn(channel: *mut c_void, iov: *const libc::iovec, count: c_int) -> isize>,
    /// Waits until it can be written (or read); may switch to another coroutine meanwhile. 0, or -errno to give up. NULL:
    /// -EAGAIN is an error.
    pub wait: Option<unsafe extern "C" fn(channel: *mut c_void, write: bool) -> c_int>,
    /// Ends both directions from any thread, and the waits in them; 0 or -errno. NULL: -ENOSYS, and who waits is not woken.
    pub shutdown: Option<unsafe extern "C" fn(channel: *mut c_void) -> c_int>,
    /// Changes the blocking mode; 0 or -errno. NULL: nothing.
    pub set_blocking: Option<unsafe extern "C" fn(channel: *mut c_void, blocking: bool) -> c_int>,
    /// Closes the channel; called once for every file over it. 0 or -errno. NULL: nothing.
    pub close: Option<unsafe extern "C" fn(channel: *mut c_void) -> c_int>,
    /// Frees the channel with the last file over it, from any thread. NULL: nothing.
    pub free: Option<unsafe extern "C" fn(channel: *mut c_void)>,
    /// Why the last `read` (or `write`) failed, in words, as a string from malloc(); or NULL. Asked once, by the thread
    /// that got the failure.
    pub error: Option<unsafe extern "C" fn(channel: *mut c_void, write: bool) -> *mut c_char>,
}

sized_structs! {
    SaveVMChannelOps, SAVEVM_CHANNEL_OPS_INIT, error;
}

/// A file over a descriptor, which becomes the file's. NULL where it is not open that way (reported).
///
/// # Safety
/// `fd` is the caller's to give.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_file_from_fd(fd: c_int, writable: bool) -> *mut QEMUFile {
    guard(ptr::null_mut(), || {
        // SAFETY: the contract of the function.
        let owned = unsafe { sys::raw_close_on_drop(fd) }.map_err(|err| Error::io(format!("descriptor {fd}"), &err));
        give(owned.and_then(|owned| Ok(Arc::new(fd::FdChannel::new(owned, writable)?) as Arc<dyn Channel>)), writable)
    })
}

fn give(channel: Result<Arc<dyn Channel>>, writable: bool) -> *mut QEMUFile {
    match channel {
        Ok(channel) => into_c(MigFile::new(channel, writable)),
        Err(err) => {
            current::current().report(err);
            ptr::null_mut()
        }
    }
}

/// A file to read a copy of `len` bytes from.
///
/// # Safety
/// `data` is valid for `len` bytes, or NULL where that is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_file_from_buffer(data: *const c_void, len: usize) -> *mut QEMUFile {
    guard(ptr::null_mut(), || {
        if data.is_null() && len > 0 {
            return ptr::null_mut();
        }
        let bytes = match len {
            0 => Vec::new(),
            // SAFETY: the contract of the function.
            _ => unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) }.to_vec(),
        };
        into_c(MigFile::new(Arc::new(memory::Reader::new(bytes)), false))
    })
}

/// A file that writes to memory; see savevm_file_buffer().
#[unsafe(no_mangle)]
pub extern "C" fn savevm_file_to_buffer() -> *mut QEMUFile {
    guard(ptr::null_mut(), || into_c(MigFile::new(Arc::new(memory::Writer::new()), true)))
}

/// What was written to a file of savevm_file_to_buffer() so far; it is flushed for that. The bytes are the file's and stay
/// until the next operation on it. NULL for other files.
///
/// # Safety
/// `f` is NULL or a file; `len` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_file_buffer(f: *mut QEMUFile, len: *mut usize) -> *const u8 {
    guard(ptr::null(), || {
        // SAFETY: the contract of the function.
        let Some(file) = (unsafe { file_ref(f) }) else { return ptr::null() };
        file.flush();
        let Some((start, size)) = file.channel().collected() else { return ptr::null() };
        if !len.is_null() {
            // SAFETY: the contract of the function.
            unsafe { *len = size };
        }
        start
    })
}

/// A file over a channel of the hypervisor. `ops` is copied; `opaque` becomes the file's (see `free`). NULL where the
/// function for the direction is missing, and, reported, where `ops` has no size.
///
/// # Safety
/// `ops` is NULL or begins with its size; its functions may be called with `opaque` until `free` was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_file_from_channel(
    ops: *const SaveVMChannelOps,
    opaque: *mut c_void,
    writable: bool,
) -> *mut QEMUFile {
    guard(ptr::null_mut(), || {
        // SAFETY: the contract of the function.
        match unsafe { CChannel::new(ops, opaque) } {
            Ok(Some(channel)) if channel.can(writable) => into_c(MigFile::new(Arc::new(channel), writable)),
            Ok(_) => ptr::null_mut(),
            Err(error) => {
                current::current().report(error);
                ptr::null_mut()
            }
        }
    })
}

/// Opens `unix:PATH`, `tcp:HOST:PORT`, `fd:N`, `file:PATH` or `exec:COMMAND`. To write, sockets are connected; to read,
/// they listen and wait for one connection, or until what was opened has something to read (its end included). That takes
/// at most SaveVMLimits.open_timeout_ms of this thread's context, and a descriptor that was given is closed then. NULL and
/// `*errp` on failure, -ETIMEDOUT where nobody came.
///
/// # Safety
/// `uri` is NULL or a terminated string; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_file_open(uri: *const c_char, writable: bool, errp: *mut *mut CError) -> *mut QEMUFile {
    let body = || {
        // SAFETY: the contract of the function.
        let text = unsafe { strings::string(uri) };
        match open(text.as_deref(), writable) {
            Ok(channel) => into_c(MigFile::new(channel, writable)),
            Err(err) => {
                // SAFETY: the contract of the function.
                unsafe { c_error::give(errp, err) };
                ptr::null_mut()
            }
        }
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, ptr::null_mut(), body) }
}

fn open(text: Option<&[u8]>, writable: bool) -> Result<Arc<dyn Channel>> {
    let text = text.ok_or_else(|| Error::invalid("the URI is NULL"))?;
    let uri = Uri::parse(OsStr::from_bytes(text))?.claim();
    let (limits, cancel) = (current::current().limits(), Cancel::new()?);
    match writable {
        true => channel::connect(&uri, Some(limits.open_to_write), &cancel),
        false => Listener::bind(&uri)?.accept(Some(limits.open_to_read), &cancel),
    }
}

/// The hypervisor's pointer of a file from savevm_file_from_channel(); NULL for other files.
///
/// # Safety
/// `f` is NULL or a file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_file_channel(f: *mut QEMUFile) -> *mut c_void {
    // SAFETY: the contract of the function.
    let file = unsafe { file_ref(f) };
    file.and_then(|file| file.channel().host_channel()).map_or(ptr::null_mut(), |address| address as *mut c_void)
}

/// Room for `len` bytes in one piece at the end of a file's buffer, to be filled in and put by savevm_file_commit().
/// NULL where a flush would be needed for it, or the file is in error or for reading.
///
/// # Safety
/// `f` is NULL or a file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_file_reserve(f: *mut QEMUFile, len: usize) -> *mut u8 {
    // SAFETY: the contract of the function.
    guard(ptr::null_mut(), || unsafe { file_ref(f) }.and_then(|file| file.reserve(len)).unwrap_or(ptr::null_mut()))
}

/// Puts the first `len` bytes of what savevm_file_reserve() gave.
///
/// # Safety
/// `f` is NULL or a file; `len` is no more than was reserved, and so much was filled in.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_file_commit(f: *mut QEMUFile, len: usize) {
    // SAFETY: the contract of the function.
    guard((), || unsafe { file_ref(f) }.map_or((), |file| file.commit(len)));
}
