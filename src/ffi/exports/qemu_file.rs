// SPDX-License-Identifier: LGPL-2.1-or-later
//! `migration/qemu-file.h` and `migration/qemu-file-types.h`. The headers say what each function does.
//!
//! # Safety
//! For every function here: a `QEMUFile *` is NULL or a file that is not closed; a buffer is NULL or valid for the length
//! that is given with it. One thread at a time puts or gets; error, shutdown and rate limit are for any thread.
#![expect(clippy::missing_safety_doc, reason = "one contract for all of them, at the head of the module")]
#![expect(missing_docs, reason = "the C header documents each of them")]

use crate::error::Error;
use crate::ffi::marshal::c_file::{close, file, into_c};
use crate::ffi::marshal::guard::{guard, guard_file};
use crate::ffi::marshal::opaque::{Error as CError, QEMUFile, QEMUTimer};
use crate::ffi::marshal::results::code;
use crate::ffi::marshal::{c_error, current, strings};
use crate::ffi::vmstate::infos::vmstate_info_timer;
use crate::file::{BUFFER_SIZE, MigFile};
use crate::sys::{IoVec, Span};
use crate::vmstate::trace::trace_event;
use std::ffi::{c_char, c_int, c_uint};
use std::ptr;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_fclose(f: *mut QEMUFile) -> c_int {
    guard(-libc::EIO, || {
        // SAFETY: the contract of the module; the caller gives the file up.
        let closed = unsafe {
            close(f, |file| match file.close() {
                Ok(()) => 0,
                Err(_) if file.error() != 0 => file.error(),
                Err(err) => err.code(),
            })
        };
        trace_event!(current::current().host(), "qemu_file_fclose", "");
        closed.unwrap_or(-libc::EINVAL)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_put_byte(f: *mut QEMUFile, v: c_int) {
    put_number(file!(f), [v as u8]);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_put_be16(f: *mut QEMUFile, v: c_uint) {
    put_number(file!(f), (v as u16).to_be_bytes());
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_put_be32(f: *mut QEMUFile, v: c_uint) {
    put_number(file!(f), v.to_be_bytes());
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_put_be64(f: *mut QEMUFile, v: u64) {
    put_number(file!(f), v.to_be_bytes());
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_put_buffer(f: *mut QEMUFile, buf: *const u8, size: usize) {
    let file = file!(f);
    guard_file(file, (), || {
        if buf.is_null() {
            return refuse_null(file, size);
        }
        // SAFETY: the contract of the module. A guest may change the bytes meanwhile; they are only copied.
        file.put(unsafe { std::slice::from_raw_parts(buf, size) });
    });
}

/// Numbers go straight to the buffer and come straight from it; what can panic is left to functions of their own.
///
/// Those get and give the bytes in a register: were they on the stack, every put would wait for the store.
#[inline]
fn put_number<const N: usize>(file: &MigFile, bytes: [u8; N]) {
    if !file.try_put(bytes) {
        let mut wide = [0; size_of::<u64>()];
        wide[..N].copy_from_slice(&bytes);
        put_number_slowly(file, u64::from_ne_bytes(wide), N);
    }
}

#[cold]
#[inline(never)]
extern "C" fn put_number_slowly(file: &MigFile, wide: u64, len: usize) {
    guard_file(file, (), || file.put(&wide.to_ne_bytes()[..len]));
}

#[inline]
fn get_number<const N: usize>(file: &MigFile) -> u64 {
    match file.try_get::<N>() {
        Some(bytes) => widened(&bytes),
        None => get_number_slowly(file, N),
    }
}

#[cold]
#[inline(never)]
extern "C" fn get_number_slowly(file: &MigFile, len: usize) -> u64 {
    guard_file(file, 0, || {
        let mut bytes = [0; size_of::<u64>()];
        file.get(&mut bytes[..len]);
        widened(&bytes[..len])
    })
}

/// The value of up to eight big-endian bytes.
#[inline]
fn widened(bytes: &[u8]) -> u64 {
    let mut wide = [0; size_of::<u64>()];
    wide[size_of::<u64>() - bytes.len()..].copy_from_slice(bytes);
    u64::from_be_bytes(wide)
}

fn refuse_null(file: &MigFile, size: usize) {
    if size > 0 {
        file.set_error_detail(Error::invalid(format!("a NULL buffer for {size} bytes")));
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_put_buffer_async(f: *mut QEMUFile, buf: *const u8, size: usize, may_free: bool) {
    let file = file!(f);
    // SAFETY: the contract of the function: the memory stays until the file is flushed.
    let piece = unsafe { IoVec::new(buf, size) };
    if may_free || !file.try_put_async(piece) {
        put_piece_slowly(file, piece, may_free);
    }
}

#[inline(never)]
extern "C" fn put_piece_slowly(file: &MigFile, piece: IoVec, may_free: bool) {
    guard_file(file, (), || {
        if piece.address().is_null() {
            return refuse_null(file, piece.len());
        }
        file.put_async(piece, may_free);
    });
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_put_counted_string(f: *mut QEMUFile, name: *const c_char) {
    let file = file!(f);
    guard_file(file, (), || {
        // SAFETY: the contract of the module.
        let text = unsafe { strings::name(name) };
        match text {
            Some(text) if text.len() <= usize::from(u8::MAX) => {
                file.put_byte(text.len() as u8);
                file.put(&text);
            }
            _ => file.set_error_detail(Error::invalid("a counted string is NULL or longer than 255 bytes")),
        }
    });
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_put_qemu_file(f_des: *mut QEMUFile, f_src: *mut QEMUFile) -> c_int {
    let (to, from) = (file!(f_des, 0), file!(f_src, 0));
    guard_file(to, 0, || to.put_buffered(from) as c_int)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_get_byte(f: *mut QEMUFile) -> c_int {
    get_number::<1>(file!(f, 0)) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_get_be16(f: *mut QEMUFile) -> c_uint {
    get_number::<2>(file!(f, 0)) as c_uint
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_get_be32(f: *mut QEMUFile) -> c_uint {
    get_number::<4>(file!(f, 0)) as c_uint
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_get_be64(f: *mut QEMUFile) -> u64 {
    get_number::<8>(file!(f, 0))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_get_buffer(f: *mut QEMUFile, buf: *mut u8, size: usize) -> usize {
    let file = file!(f, 0);
    guard_file(file, 0, || {
        if buf.is_null() {
            refuse_null(file, size);
            return 0;
        }
        // SAFETY: the contract of the module.
        file.get_into(unsafe { Span::from_raw(buf, size) })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_get_counted_string(f: *mut QEMUFile, buf: *mut c_char) -> usize {
    let file = file!(f, 0);
    guard_file(file, 0, || {
        let len = usize::from(file.get_byte());
        if buf.is_null() {
            return 0;
        }
        // SAFETY: the caller's buffer has 256 bytes, and a length in one byte leaves room for the end.
        let (got, end) = unsafe { (file.get_into(Span::from_raw(buf.cast(), len)), buf.add(len)) };
        // SAFETY: within the 256 bytes.
        unsafe { *end.sub(len - got) = 0 };
        if got == len { got } else { 0 }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_get_buffer_in_place(f: *mut QEMUFile, buf: *mut *mut u8, size: usize) -> usize {
    let file = file!(f, 0);
    guard_file(file, 0, || {
        if buf.is_null() {
            return 0;
        }
        if size < BUFFER_SIZE && file.peek(size, 0) == size {
            // SAFETY: the contract of the function: `buf` is writable.
            unsafe { *buf = file.peeked(0) };
            file.skip(size);
            return size;
        }
        // SAFETY: the contract of the function: `*buf` has room for `size` bytes.
        unsafe { qemu_get_buffer(f, *buf, size) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_peek_buffer(f: *mut QEMUFile, buf: *mut *mut u8, size: usize, offset: usize) -> usize {
    let file = file!(f, 0);
    guard_file(file, 0, || {
        let count = file.peek(size, offset);
        if count > 0 && !buf.is_null() {
            // SAFETY: the contract of the function: `buf` is writable.
            unsafe { *buf = file.peeked(offset) };
        }
        count
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_peek_byte(f: *mut QEMUFile, offset: c_int) -> c_int {
    let file = file!(f, 0);
    guard_file(file, 0, || usize::try_from(offset).map_or(0, |offset| c_int::from(file.peek_byte(offset))))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_file_skip(f: *mut QEMUFile, size: c_int) {
    let file = file!(f);
    guard_file(file, (), || usize::try_from(size).map_or((), |size| file.skip(size)));
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_file_get_error(f: *mut QEMUFile) -> c_int {
    file!(f, -libc::EINVAL).error()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_file_get_error_obj(f: *mut QEMUFile, errp: *mut *mut CError) -> c_int {
    let file = file!(f, -libc::EINVAL);
    guard_file(file, -libc::EIO, || {
        if !errp.is_null() {
            // SAFETY: the contract of the function: `errp` is NULL or writable. What stood there is overwritten.
            unsafe { *errp = std::ptr::null_mut() };
        }
        if let Some(first) = file.status().first_error() {
            // SAFETY: as above.
            unsafe { c_error::give(errp, first) };
        }
        file.error()
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_file_get_error_obj_any(
    f1: *mut QEMUFile,
    f2: *mut QEMUFile,
    errp: *mut *mut CError,
) -> c_int {
    for file in [f1, f2] {
        if !file.is_null() {
            // SAFETY: the contract of the module.
            match unsafe { qemu_file_get_error_obj(file, errp) } {
                0 => {}
                code => return code,
            }
        }
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_file_set_error_obj(f: *mut QEMUFile, ret: c_int, err: *mut CError) {
    guard((), || {
        // SAFETY: the contract of the function: the caller transfers the error to it.
        let detail = unsafe { c_error::take(err, ret) };
        let file = file!(f);
        match detail {
            Some(detail) if ret != 0 && file.error() == 0 => {
                let place = Error::new(ret, detail.message());
                file.set_error_detail(if detail.code() == ret { detail } else { place });
            }
            Some(late) => drop(current::current().report(late)),
            None => file.set_error(ret),
        }
    });
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_file_set_error(f: *mut QEMUFile, ret: c_int) {
    let file = file!(f);
    guard_file(file, (), || file.set_error(ret));
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_file_shutdown(f: *mut QEMUFile) -> c_int {
    let file = file!(f, -libc::EINVAL);
    guard_file(file, -libc::EIO, || code(file.shutdown()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_file_get_return_path(f: *mut QEMUFile) -> *mut QEMUFile {
    let file = file!(f, std::ptr::null_mut());
    guard_file(file, std::ptr::null_mut(), || file.return_path().map_or(std::ptr::null_mut(), into_c))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_file_set_blocking(f: *mut QEMUFile, block: bool) {
    let file = file!(f);
    guard_file(file, (), || {
        if let Err(err) = file.channel().set_blocking(block) {
            file.set_error_detail(Error::io("changing the blocking mode", &err));
        }
    });
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_file_is_writable(f: *mut QEMUFile) -> bool {
    file!(f, false).is_writable()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_file_mode_is_not_valid(mode: *const c_char) -> bool {
    // SAFETY: the contract of the module: NULL or a terminated string.
    !matches!(unsafe { strings::name(mode) }.as_deref(), Some(b"rb" | b"wb"))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_file_total_transferred(f: *mut QEMUFile) -> i64 {
    let file = file!(f, 0);
    guard_file(file, 0, || file.total_transferred())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_file_total_transferred_fast(f: *mut QEMUFile) -> i64 {
    file!(f, 0).total_transferred_fast()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_file_credit_transfer(f: *mut QEMUFile, size: usize) {
    file!(f).status().credit_transfer(size as i64);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_file_rate_limit(f: *mut QEMUFile) -> c_int {
    c_int::from(file!(f, 1).rate_limit_reached())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_file_set_rate_limit(f: *mut QEMUFile, new_rate: i64) {
    file!(f).status().set_rate_limit(new_rate);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_file_get_rate_limit(f: *mut QEMUFile) -> i64 {
    file!(f, 0).status().rate_limit()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_file_reset_rate_limit(f: *mut QEMUFile) {
    file!(f).reset_rate();
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_file_acct_rate_limit(f: *mut QEMUFile, len: i64) {
    file!(f).status().account_rate(len);
}

/// Keeps the error behind the result of an info's function as the error of the file.
fn keep_failure(file: &MigFile, ret: Option<c_int>) {
    if let Some(ret) = ret.filter(|ret| *ret < 0) {
        file.set_error_detail(file.pending_error().take(ret));
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn timer_put(f: *mut QEMUFile, ts: *mut QEMUTimer) {
    let file = file!(f);
    // SAFETY: the contract of the module; the info's functions need neither a field nor a description of the stream.
    let put = || unsafe { vmstate_info_timer.put.map(|put| put(f, ts.cast(), 0, ptr::null(), ptr::null_mut())) };
    guard_file(file, (), || keep_failure(file, put()));
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn timer_get(f: *mut QEMUFile, ts: *mut QEMUTimer) {
    let file = file!(f);
    // SAFETY: as above.
    let get = || unsafe { vmstate_info_timer.get.map(|get| get(f, ts.cast(), 0, ptr::null())) };
    guard_file(file, (), || keep_failure(file, get()));
}
