// SPDX-License-Identifier: LGPL-2.1-or-later
//! Making files, and what they hold.

use crate::channel::{self, Cancel, Channel, Listener, Uri, fd, memory};
use crate::error::{Error, Result};
use crate::ffi::callbacks::channel_ops::CChannel;
use crate::ffi::marshal::c_file::{file_ref, into_c};
use crate::ffi::marshal::guard::{guard, guard_error};
use crate::ffi::marshal::opaque::{Error as CError, QEMUFile};
use crate::ffi::marshal::{c_error, current, strings};
pub use crate::ffi::types::channel_table::*;
use crate::file::{MigFile, RamHooks};
use crate::savevm::host::without_big_lock;
use crate::sys;
use std::ffi::{OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Creates a file over a descriptor. The descriptor belongs to the file; on failure it is closed.
///
/// Returns: the file; NULL, with the reason reported, if the descriptor is not open for this direction.
///
/// Thread: any. Lock: either.
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

/// Creates a file that reads a copy of `length` bytes.
///
/// Returns: the file; NULL if `data` is NULL and `length` is not 0.
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `data` is valid for `length` bytes, or NULL where that is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_file_from_buffer(data: *const c_void, length: usize) -> *mut QEMUFile {
    guard(ptr::null_mut(), || {
        if data.is_null() && length > 0 {
            return ptr::null_mut();
        }
        let bytes = match length {
            0 => Vec::new(),
            // SAFETY: the contract of the function.
            _ => unsafe { std::slice::from_raw_parts(data.cast::<u8>(), length) }.to_vec(),
        };
        into_c(MigFile::new(Arc::new(memory::Reader::new(bytes)), false))
    })
}

/// Creates a file that writes to memory; see savevm_file_buffer().
///
/// Returns: the file.
///
/// Thread: any. Lock: either.
#[unsafe(no_mangle)]
pub extern "C" fn savevm_file_to_buffer() -> *mut QEMUFile {
    guard(ptr::null_mut(), || into_c(MigFile::new(Arc::new(memory::Writer::new()), true)))
}

/// Flushes a file of savevm_file_to_buffer() and returns the bytes that were written to it; stores their number in `length`. The
/// bytes are valid until the next operation on the file.
///
/// Returns: the bytes; NULL for other files.
///
/// Thread: the one that uses the file. Lock: either.
///
/// # Safety
/// `f` is NULL or a file; `length` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_file_buffer(f: *mut QEMUFile, length: *mut usize) -> *const u8 {
    guard(ptr::null(), || {
        // SAFETY: the contract of the function.
        let Some(file) = (unsafe { file_ref(f) }) else { return ptr::null() };
        file.flush();
        let Some((start, size)) = file.channel().collected() else { return ptr::null() };
        if !length.is_null() {
            // SAFETY: the contract of the function.
            unsafe { *length = size };
        }
        start
    })
}

/// Creates a file over a channel of the hypervisor. `ops` is copied. The channel belongs to the file. On failure its `free` is
/// called, unless `ops` is NULL or its size is too small.
///
/// Returns: the file; NULL if the function for this direction is missing, or the size of `ops` is too small (reported).
///
/// Thread: any. Lock: either.
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

/// Opens `unix:PATH`, `tcp:HOST:PORT`, `fd:N`, `file:PATH` or `exec:COMMAND`. To write, sockets connect. To read, sockets listen
/// and wait for one connection; other kinds wait until there is something to read, or the end. A named pipe that is to be written
/// waits for a reader. Waits at most
/// SaveVMLimits.open_timeout_ms of the thread's context. A descriptor `fd:N` belongs to the file; on failure of the wait it is
/// closed.
///
/// Returns: the file; NULL on failure, with ETIMEDOUT in the error if the wait was too long.
///
/// Thread: any. Lock: either, released while waiting.
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
    let (vm, cancel) = (current::current(), Cancel::new()?);
    let limits = vm.limits();
    without_big_lock(&*vm.host(), || match writable {
        true => channel::connect(&uri, Some(limits.open_to_write), &cancel),
        false => Listener::bind(&uri)?.accept(Some(limits.open_to_read), &cancel),
    })
}

/// Returns the `opaque` that savevm_file_from_channel() got for a file; NULL for other files.
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `f` is NULL or a file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_file_channel(f: *mut QEMUFile) -> *mut c_void {
    // SAFETY: the contract of the function.
    let file = unsafe { file_ref(f) };
    file.and_then(|file| file.channel().host_channel()).map_or(ptr::null_mut(), |address| address as *mut c_void)
}

/// Keeps a pointer of the hypervisor with a file. The library does not use it.
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `f` is NULL or a file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_file_set_data(f: *mut QEMUFile, data: *const c_void) {
    // SAFETY: the contract of the function.
    guard((), || unsafe { file_ref(f) }.map_or((), |file| file.host_data().store(data as usize, Relaxed)));
}

/// Returns the pointer of savevm_file_set_data(), or NULL.
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `f` is NULL or a file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_file_data(f: *mut QEMUFile) -> *const c_void {
    // SAFETY: the contract of the function.
    unsafe { file_ref(f) }.map_or(ptr::null(), |file| file.host_data().load(Relaxed) as *const c_void)
}

/// Sets the hooks of RAM of a file, as qemu_file_set_hooks() of migration/qemu-file.h does. `hooks` is a QEMUFileHooks as in QEMU
/// 5.0 to 7.0, whose functions have `opaque` as an argument after the file; NULL removes the hooks. The table is not copied.
///
/// Thread: the one that uses the file. Lock: either.
///
/// QEMU: qemu_file_set_hooks, migration/qemu-file.c of 5.2.
///
/// # Safety
/// `f` is NULL or a file; `hooks` is NULL or such a table, which is valid until the file is closed or gets other hooks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_file_set_opaque_hooks(f: *mut QEMUFile, hooks: *const c_void, opaque: *mut c_void) {
    let hooks = RamHooks { table: hooks.addr(), opaque: Some(opaque.addr()) };
    // SAFETY: the contract of the function.
    guard((), || unsafe { file_ref(f) }.map_or((), |file| file.set_ram_hooks(hooks)));
}

/// Returns room for `length` bytes in one piece at the end of a file's buffer, to be filled in and put by savevm_file_commit().
///
/// Returns: the room; NULL if the buffer would have to be flushed for it, or if the file is in error or for reading.
///
/// Thread: the one that uses the file. Lock: either.
///
/// # Safety
/// `f` is NULL or a file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_file_reserve(f: *mut QEMUFile, length: usize) -> *mut u8 {
    // SAFETY: the contract of the function.
    guard(ptr::null_mut(), || unsafe { file_ref(f) }.and_then(|file| file.reserve(length)).unwrap_or(ptr::null_mut()))
}

/// Puts the first `length` bytes of the room that savevm_file_reserve() returned.
///
/// Thread: the one that uses the file. Lock: either.
///
/// # Safety
/// `f` is NULL or a file; `length` is no more than was reserved, and so much was filled in.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_file_commit(f: *mut QEMUFile, length: usize) {
    // SAFETY: the contract of the function.
    guard((), || unsafe { file_ref(f) }.map_or((), |file| file.commit(length)));
}

/// Returns the number of bytes that were put and wait to be written to the channel.
///
/// Thread: the one that uses the file. Lock: either.
///
/// # Safety
/// `f` is NULL or a file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_file_queued(f: *mut QEMUFile) -> u64 {
    // SAFETY: the contract of the function.
    guard(0, || unsafe { file_ref(f) }.map_or(0, MigFile::queued))
}
