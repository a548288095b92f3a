// SPDX-License-Identifier: LGPL-2.1-or-later
//! Loads a whole stream into a machine with devices of every kind, through the C functions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use savevm::ffi::exports::context::{SaveVMLimits, savevm_free, savevm_new, savevm_set_current, savevm_set_limits};
use savevm::ffi::exports::file::savevm_file_from_buffer;
use savevm::ffi::exports::phases::qemu_loadvm_state;
use savevm::ffi::exports::qemu_file::{qemu_fclose, qemu_get_be32, qemu_get_buffer, qemu_get_byte};
use savevm::ffi::exports::register::{SaveVMHandlers, register_savevm_live};
use savevm::ffi::marshal::opaque::QEMUFile;
use std::ffi::{c_int, c_void};
use std::ptr;

/// Reads a length byte, then that many bytes.
unsafe extern "C" fn load_counted(f: *mut QEMUFile, _opaque: *mut c_void, _version: c_int) -> c_int {
    let mut bytes = [0; 256];
    unsafe {
        let len = qemu_get_byte(f) as usize & 0xff;
        if qemu_get_buffer(f, bytes.as_mut_ptr(), len) == len { 0 } else { -libc::EIO }
    }
}

/// Accepts only a value that equals the version.
unsafe extern "C" fn load_picky(f: *mut QEMUFile, _opaque: *mut c_void, version: c_int) -> c_int {
    unsafe { if qemu_get_be32(f) == version as u32 { 0 } else { -libc::EINVAL } }
}

unsafe extern "C" fn setup(_f: *mut QEMUFile, _opaque: *mut c_void) -> c_int {
    0
}

fuzz_target!(|data: &[u8]| {
    // All-zero is a table without callbacks.
    let mut counted: SaveVMHandlers = unsafe { std::mem::zeroed() };
    counted.load_state = Some(load_counted);
    let mut live: SaveVMHandlers = unsafe { std::mem::zeroed() };
    live.save_setup = Some(setup);
    live.load_setup = Some(setup);
    live.load_state = Some(load_counted);
    let mut picky: SaveVMHandlers = unsafe { std::mem::zeroed() };
    picky.load_state = Some(load_picky);
    let limits = SaveVMLimits {
        size: size_of::<SaveVMLimits>(),
        packaged: 1 << 20,
        allocation: 1 << 20,
        list_elements: 1 << 10,
        ..unsafe { std::mem::zeroed() }
    };
    unsafe {
        let vm = savevm_new(ptr::null(), ptr::null_mut());
        let before = savevm_set_current(vm);
        savevm_set_limits(vm, &limits);
        register_savevm_live(c"ram".as_ptr(), 0, 4, &live, ptr::null_mut());
        register_savevm_live(c"a".as_ptr(), -1, 3, &counted, ptr::null_mut());
        register_savevm_live(c"a".as_ptr(), -1, 3, &picky, ptr::null_mut());
        let f = savevm_file_from_buffer(data.as_ptr().cast(), data.len());
        qemu_loadvm_state(f);
        qemu_fclose(f);
        savevm_set_current(before);
        savevm_free(vm);
    }
});
