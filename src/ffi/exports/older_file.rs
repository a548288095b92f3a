// SPDX-License-Identifier: LGPL-2.1-or-later
//! `migration/qemu-file.h`: functions that QEMU has up to 8.1 (the hooks of RAM, for RDMA) or up to 7.0 (other names). The header
//! says what each function does.
//!
//! # Safety
//! For every function here: a `QEMUFile *` is NULL or a file that is not closed. One thread at a time puts or gets. A table of
//! hooks is valid until the file is closed or gets another table.
#![expect(clippy::missing_safety_doc, reason = "one contract for all of them, at the head of the module")]
#![expect(missing_docs, reason = "the C header documents each of them")]

use crate::ffi::exports::qemu_file::{
    qemu_file_acct_rate_limit, qemu_file_credit_transfer, qemu_file_total_transferred, qemu_file_total_transferred_fast,
};
use crate::ffi::marshal::c_file::file;
use crate::ffi::marshal::guard::guard_file;
use crate::ffi::marshal::opaque::{QEMUFile, QEMUFileHooks};
use crate::file::{MigFile, RamHooks};
use crate::sync::check_none_held;
use std::ffi::{c_int, c_void};

/// `RAM_CONTROL_HOOK`: the source sent a section for a hook of the destination.
const RAM_CONTROL_HOOK: u64 = 2;
/// `RAM_SAVE_CONTROL_NOT_SUPP`: no hook sends the page.
const NOT_SUPPORTED: c_int = -1000;
/// `RAM_SAVE_CONTROL_DELAYED`: the hook sends the page later.
const DELAYED: c_int = -2000;

/// A `QEMUFileHooks`, whose functions have other parameters up to QEMU 7.0.
#[repr(C)]
struct Table<H, S> {
    before_ram_iterate: Option<H>,
    after_ram_iterate: Option<H>,
    hook_ram_load: Option<H>,
    save_page: Option<S>,
}

/// The table since QEMU 7.1.
type Plain = Table<
    unsafe extern "C" fn(*mut QEMUFile, u64, *mut c_void) -> c_int,
    unsafe extern "C" fn(*mut QEMUFile, u64, u64, usize, *mut u64) -> usize,
>;

/// The table up to QEMU 7.0.
type WithOpaque = Table<
    unsafe extern "C" fn(*mut QEMUFile, *mut c_void, u64, *mut c_void) -> c_int,
    unsafe extern "C" fn(*mut QEMUFile, *mut c_void, u64, u64, usize, *mut u64) -> usize,
>;

/// Calls a hook of a file, if the file has it, with the `opaque` of the table after the file if it has one.
macro_rules! call_hook {
    ($f:ident, $file:ident, $member:ident($($argument:expr),*)) => {{
        check_none_held(stringify!($member));
        match $file.ram_hooks() {
            RamHooks { table: 0, .. } => None,
            // SAFETY: `table` is the address of a table of this kind, which is valid (contract of the module).
            RamHooks { table, opaque: None } => unsafe {
                (*(table as *const Plain)).$member.map(|hook| hook($f, $($argument),*))
            },
            // SAFETY: as above.
            RamHooks { table, opaque: Some(opaque) } => unsafe {
                (*(table as *const WithOpaque)).$member.map(|hook| hook($f, opaque as *mut c_void, $($argument),*))
            },
        }
    }};
}

/// The first error of a hook is the file's.
fn keep_error(file: &MigFile, ret: c_int) {
    if ret < 0 {
        file.set_error(ret);
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_file_set_hooks(f: *mut QEMUFile, hooks: *const QEMUFileHooks) {
    file!(f).set_ram_hooks(RamHooks { table: hooks.addr(), opaque: None });
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ram_control_before_iterate(f: *mut QEMUFile, flags: u64) {
    let file = file!(f);
    let call = || call_hook!(f, file, before_ram_iterate(flags, std::ptr::null_mut()));
    guard_file(file, (), || keep_error(file, call().unwrap_or(0)));
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ram_control_after_iterate(f: *mut QEMUFile, flags: u64) {
    let file = file!(f);
    let call = || call_hook!(f, file, after_ram_iterate(flags, std::ptr::null_mut()));
    guard_file(file, (), || keep_error(file, call().unwrap_or(0)));
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ram_control_load_hook(f: *mut QEMUFile, flags: u64, data: *mut c_void) {
    let file = file!(f);
    let missing = if flags == RAM_CONTROL_HOOK { -libc::EINVAL } else { 0 };
    guard_file(file, (), || keep_error(file, call_hook!(f, file, hook_ram_load(flags, data)).unwrap_or(missing)));
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ram_control_save_page(
    f: *mut QEMUFile,
    block_offset: u64,
    offset: u64,
    size: usize,
    bytes_sent: *mut u64,
) -> usize {
    let file = file!(f, NOT_SUPPORTED as usize);
    guard_file(file, NOT_SUPPORTED as usize, || {
        let result = call_hook!(f, file, save_page(block_offset, offset, size, bytes_sent));
        // QEMU's hooks return a negative errno value or one of the constants in an unsigned type.
        let result = result.map_or(NOT_SUPPORTED, |result| result as c_int);
        if result != NOT_SUPPORTED {
            file.status().account_rate(size as i64);
        }
        if result != NOT_SUPPORTED && result != DELAYED {
            // SAFETY: `bytes_sent` is NULL or writable (contract of the function).
            match unsafe { bytes_sent.as_ref() } {
                Some(&sent) if sent > 0 => file.status().credit_transfer(sent as i64),
                _ => keep_error(file, result),
            }
        }
        result as usize
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_ftell(f: *mut QEMUFile) -> i64 {
    // SAFETY: the contract of the module.
    unsafe { qemu_file_total_transferred(f) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_ftell_fast(f: *mut QEMUFile) -> i64 {
    // SAFETY: the contract of the module.
    unsafe { qemu_file_total_transferred_fast(f) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_update_position(f: *mut QEMUFile, size: usize) {
    // SAFETY: the contract of the module.
    unsafe { qemu_file_credit_transfer(f, size) };
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_file_update_transfer(f: *mut QEMUFile, len: i64) {
    // SAFETY: the contract of the module.
    unsafe { qemu_file_acct_rate_limit(f, len) };
}
