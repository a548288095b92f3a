// SPDX-License-Identifier: LGPL-2.1-or-later
//! `migration/qemu-file.h`: functions that QEMU has from 9.0 or 10.0 on, and one that has a result since 8.2. The header says what
//! each function does.
//!
//! # Safety
//! For every function here: a `QEMUFile *` is NULL or a file that is not closed; a buffer is valid for the length that is given
//! with it. One thread at a time puts or gets.
#![expect(clippy::missing_safety_doc, reason = "one contract for all of them, at the head of the module")]
#![expect(missing_docs, reason = "the C header documents each of them")]

use crate::error::Error;
use crate::ffi::marshal::c_file::file;
use crate::ffi::marshal::guard::guard_file;
use crate::ffi::marshal::opaque::QEMUFile;
use crate::file::MigFile;
use crate::sys::{IoVec, Span, duplicate_fd};
use std::ffi::c_int;
use std::fs::File;
use std::io::{SeekFrom, Write};
use std::os::fd::IntoRawFd;

fn refuse(file: &MigFile, text: &str) {
    file.set_error_detail(Error::invalid(text));
}

/// Programs that are compiled for older versions ignore the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_fflush(f: *mut QEMUFile) -> c_int {
    let file = file!(f, -libc::EINVAL);
    let flush = || {
        file.flush();
        file.error()
    };
    guard_file(file, -libc::EINVAL, flush)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_put_buffer_at(f: *mut QEMUFile, buf: *const u8, buflen: usize, pos: libc::off_t) {
    let file = file!(f);
    let put = || match u64::try_from(pos) {
        // SAFETY: the contract of the module.
        Ok(offset) if !buf.is_null() => file.put_at(unsafe { IoVec::new(buf, buflen) }, offset),
        _ => refuse(file, "a write at an offset needs a buffer, and an offset that is not negative"),
    };
    guard_file(file, (), put)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_get_buffer_at(
    f: *mut QEMUFile,
    buf: *const u8,
    buflen: usize,
    pos: libc::off_t,
) -> usize {
    let file = file!(f, 0);
    let get = || match u64::try_from(pos) {
        // SAFETY: the contract of the module. The buffer is writable, in spite of QEMU's type.
        Ok(offset) if !buf.is_null() => file.get_at(unsafe { Span::from_raw(buf.cast_mut(), buflen) }, offset),
        _ => {
            refuse(file, "a read at an offset needs a buffer, and an offset that is not negative");
            0
        }
    };
    guard_file(file, 0, get)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_set_offset(f: *mut QEMUFile, off: libc::off_t, whence: c_int) {
    let file = file!(f);
    let seek = || {
        let to = match whence {
            libc::SEEK_SET => u64::try_from(off).ok().map(SeekFrom::Start),
            libc::SEEK_CUR => Some(SeekFrom::Current(off)),
            libc::SEEK_END => Some(SeekFrom::End(off)),
            _ => None,
        };
        let Some(to) = to else { return refuse(file, "an offset that is negative, or from an unknown place") };
        file.drop_input();
        file.seek(to);
    };
    guard_file(file, (), seek)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_get_offset(f: *mut QEMUFile) -> libc::off_t {
    let file = file!(f, -1);
    let tell = || file.seek(SeekFrom::Current(0)).map_or(-1, |at| at as libc::off_t);
    guard_file(file, -1, tell)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_file_get_to_fd(f: *mut QEMUFile, fd: c_int, size: usize) -> c_int {
    let file = file!(f, -libc::EINVAL);
    let copy = || {
        let mut out = match duplicate_fd(fd) {
            Ok(fd) => File::from(fd),
            Err(err) => return -err.raw_os_error().unwrap_or(libc::EIO),
        };
        let (mut left, mut buffer) = (size, [0; 16 << 10]);
        while left > 0 {
            let want = left.min(buffer.len());
            let got = file.get(&mut buffer[..want]);
            if let Err(err) = out.write_all(&buffer[..got]) {
                return -err.raw_os_error().unwrap_or(libc::EIO);
            }
            if got < want {
                return file.error();
            }
            left -= got;
        }
        0
    };
    guard_file(file, -libc::EINVAL, copy)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_file_put_fd(f: *mut QEMUFile, fd: c_int) -> c_int {
    let file = file!(f, -1);
    let put = || {
        file.put_descriptor(fd);
        if file.error() == 0 { 0 } else { -1 }
    };
    guard_file(file, -1, put)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_file_get_fd(f: *mut QEMUFile) -> c_int {
    let file = file!(f, -1);
    guard_file(file, -1, || file.get_descriptor().map_or(-1, IntoRawFd::into_raw_fd))
}
