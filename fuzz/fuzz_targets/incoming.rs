// SPDX-License-Identifier: LGPL-2.1-or-later
//! Runs a whole incoming migration, with its threads, over a channel of the hypervisor: precopy, and postcopy if
//! userfaultfd is available. The guest must be started at most once, with the lock held, and nothing may hang.
#![no_main]

use libfuzzer_sys::fuzz_target;
use savevm::ffi::exports::context::{savevm_free, savevm_is_broken, savevm_new, savevm_set_current};
use savevm::ffi::exports::file::SaveVMChannelOps;
use savevm::ffi::exports::host::{SaveVMHostOps, SaveVMReportLevel};
use savevm::ffi::exports::info::SaveVMParams;
use savevm::ffi::exports::migrate::{savevm_incoming_from_channel, savevm_migration_free, savevm_migration_wait};
use savevm::ffi::exports::qemu_file::qemu_get_byte;
use savevm::ffi::exports::ram::{SaveVMRamBlock, savevm_ram_add_block, savevm_ram_free, savevm_ram_new};
use savevm::ffi::exports::register::{SaveVMHandlers, register_savevm_live};
use savevm::ffi::marshal::opaque::{Error, QEMUFile};
use savevm_fuzz::Walled;
use std::ffi::{c_int, c_void};
use std::mem::zeroed;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::Duration;

/// The peer: the bytes that it sends, and the number of bytes that were read.
struct Peer {
    bytes: Vec<u8>,
    at: usize,
}

unsafe extern "C" fn read(channel: *mut c_void, buf: *mut u8, len: usize, _errp: *mut *mut Error) -> isize {
    let peer = unsafe { &mut *channel.cast::<Peer>() };
    let count = len.min(peer.bytes.len() - peer.at);
    unsafe { ptr::copy_nonoverlapping(peer.bytes[peer.at..].as_ptr(), buf, count) };
    peer.at += count;
    count as isize
}

unsafe extern "C" fn writev(
    _channel: *mut c_void,
    iov: *const libc::iovec,
    count: c_int,
    _errp: *mut *mut Error,
) -> isize {
    (0..count as usize).map(|n| unsafe { (*iov.add(n)).iov_len as isize }).sum()
}

unsafe extern "C" fn shutdown(_channel: *mut c_void) -> c_int {
    0
}

unsafe extern "C" fn free(channel: *mut c_void) {
    drop(unsafe { Box::from_raw(channel.cast::<Peer>()) });
}

#[derive(Default)]
struct Host {
    locked: AtomicBool,
    starts: AtomicU32,
}

unsafe extern "C" fn lock(host: *mut c_void) {
    let host = unsafe { &*host.cast::<Host>() };
    while host.locked.swap(true, SeqCst) {
        std::thread::yield_now();
    }
}

unsafe extern "C" fn unlock(host: *mut c_void) {
    assert!(unsafe { &*host.cast::<Host>() }.locked.swap(false, SeqCst), "unlocked, but not locked");
}

unsafe extern "C" fn vm_start(host: *mut c_void) -> c_int {
    let host = unsafe { &*host.cast::<Host>() };
    assert!(host.locked.load(SeqCst));
    assert_eq!(host.starts.fetch_add(1, SeqCst), 0, "the guest is started twice");
    0
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// Waits until the threads of a migration have ended. The memory that they hold until then is not a leak.
fn wait_for_threads(before: usize) {
    while threads() > before {
        std::thread::sleep(Duration::from_micros(100));
    }
}

unsafe extern "C" fn report(_host: *mut c_void, _level: SaveVMReportLevel, _text: *const std::ffi::c_char) {}

unsafe extern "C" fn load_byte(f: *mut QEMUFile, _opaque: *mut c_void, _version: c_int) -> c_int {
    if unsafe { qemu_get_byte(f) } == 0xff { -libc::EINVAL } else { 0 }
}

fuzz_target!(|data: &[u8]| {
    // Counted at the first input, when the fuzzer has started its own threads.
    static BEFORE: OnceLock<usize> = OnceLock::new();
    let before = *BEFORE.get_or_init(threads);
    let host = Host::default();
    let memory = Walled::new(256);
    unsafe {
        let mut ops: SaveVMHostOps = zeroed();
        ops.size = size_of::<SaveVMHostOps>();
        ops.lock = Some(lock);
        ops.unlock = Some(unlock);
        ops.vm_start = Some(vm_start);
        ops.report = Some(report);
        let vm = savevm_new(&ops, (&raw const host).cast_mut().cast());
        let current = savevm_set_current(vm);
        let ram = savevm_ram_new(vm, ptr::null(), ptr::null(), ptr::null_mut(), ptr::null_mut());
        let mut block: SaveVMRamBlock = zeroed();
        (block.size, block.name) = (size_of::<SaveVMRamBlock>(), c"ram".as_ptr());
        (block.host, block.length) = (memory.memory().address() as *mut c_void, memory.memory().len() as u64);
        assert_eq!(savevm_ram_add_block(ram, &block, ptr::null_mut()), 0);
        let mut device: SaveVMHandlers = zeroed();
        device.load_state = Some(load_byte);
        register_savevm_live(c"dev".as_ptr(), 0, 1, &device, ptr::null_mut());

        let mut channel: SaveVMChannelOps = zeroed();
        channel.size = size_of::<SaveVMChannelOps>();
        channel.read = Some(read);
        channel.writev = Some(writev);
        channel.shutdown = Some(shutdown);
        channel.free = Some(free);
        let mut params: SaveVMParams = zeroed();
        params.size = size_of::<SaveVMParams>();
        (params.postcopy, params.recover_timeout_ms) = (true, 1);
        (params.stall_timeout_ms, params.switchover_timeout_ms) = (200, 200);
        let peer = Box::into_raw(Box::new(Peer { bytes: data.to_vec(), at: 0 }));
        let m = savevm_incoming_from_channel(vm, &channel, peer.cast(), &params, ptr::null_mut());
        assert!(!m.is_null());
        savevm_migration_wait(m, ptr::null_mut());
        savevm_migration_free(m);
        assert!(!savevm_is_broken(vm));
        assert!(!host.locked.load(SeqCst));
        savevm_ram_free(ram);
        savevm_set_current(current);
        savevm_free(vm);
    }
    wait_for_threads(before);
});
