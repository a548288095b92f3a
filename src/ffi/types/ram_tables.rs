// SPDX-License-Identifier: LGPL-2.1-or-later
//! Structs and enums of guest memory.

use crate::ffi::marshal::structs::{c_enums, sized_structs};
use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;

/// Source of the dirty log.
#[expect(non_camel_case_types, reason = "the names of the C interface")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMRamLog {
    /// SAVEVM_RAM_LOG_HOST if there is a log_sync, else SAVEVM_RAM_LOG_KERNEL.
    SAVEVM_RAM_LOG_AUTO = 0,
    /// SaveVMRamOps.log_sync, for example with KVM's dirty log.
    SAVEVM_RAM_LOG_HOST = 1,
    /// The kernel's write protection (userfaultfd and PAGEMAP_SCAN, Linux 6.7). It logs all writes of this process and of
    /// KVM. Mark writes of other processes and of devices with savevm_ram_set_dirty().
    SAVEVM_RAM_LOG_KERNEL = 2,
    /// Only savevm_ram_set_dirty().
    SAVEVM_RAM_LOG_MARKS = 3,
}

c_enums! {
    SaveVMRamLog: SAVEVM_RAM_LOG_AUTO, SAVEVM_RAM_LOG_HOST, SAVEVM_RAM_LOG_KERNEL, SAVEVM_RAM_LOG_MARKS;
}

sized_structs! {
    SaveVMRamBlock, SAVEVM_RAM_BLOCK_INIT, opaque;
    SaveVMRamOptions, SAVEVM_RAM_OPTIONS_INIT, xbzrle_cache;
    SaveVMRamOps, SAVEVM_RAM_OPS_INIT, log_stop;
    SaveVMRamInfo, SAVEVM_RAM_INFO_INIT, page_requests;
    SaveVMPassedBlock, SAVEVM_PASSED_BLOCK_INIT, descriptor;
}

/// A block of guest memory.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMRamBlock {
    /// sizeof(SaveVMRamBlock).
    pub size: usize,
    /// Name, 1 to 255 bytes, the same on both sides; copied.
    pub name: *const c_char,
    /// Address of the mapping, readable and writable, aligned to the page size. The hypervisor owns the memory.
    pub host: *mut c_void,
    /// Size in bytes, a multiple of the page size.
    pub length: u64,
    /// Page size of the mapping in bytes, for postcopy, such as that of a hugetlbfs. 0: the system's.
    pub page_size: u64,
    /// Guest-physical address; for shared memory, it must be the same on both sides.
    pub guest_address: u64,
    /// Whether it is mapped with MAP_SHARED.
    pub shared: bool,
    /// A pointer of the hypervisor, for log_sync.
    pub opaque: *mut c_void,
}

/// How the RAM of a machine is migrated.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMRamOptions {
    /// sizeof(SaveVMRamOptions).
    pub size: usize,
    /// Source of the dirty log; default SAVEVM_RAM_LOG_AUTO.
    pub log: MaybeUninit<SaveVMRamLog>,
    /// Shared blocks are not sent, because both sides map the same memory. Both sides must set it (QEMU's x-ignore-shared).
    pub ignore_shared: bool,
    /// Size in bytes of a cache of sent pages, so that a page with few changes is sent as a difference (XBZRLE). Default 0: no
    /// cache. It saves bandwidth, and costs CPU time and memory.
    pub xbzrle_cache: u64,
}

/// The dirty log of a hypervisor, for guest memory.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMRamOps {
    /// sizeof(SaveVMRamOps).
    pub size: usize,
    /// Starts the log of writes to guest memory; 0 or -errno. Without the lock, except in a snapshot.
    pub log_start: Option<unsafe extern "C" fn(opaque: *mut c_void) -> c_int>,
    /// Sets the bits of all target pages of the block that were written since the last call, and clears the log. Bit 0 of
    /// `bitmap[0]` is the first page, as in KVM_GET_DIRTY_LOG. `bitmap` has `words` elements, which are zero. 0 or -errno.
    /// Without the lock; with the lock when the guest is stopped.
    pub log_sync: Option<
        unsafe extern "C" fn(
            opaque: *mut c_void,
            block: *const SaveVMRamBlock,
            bitmap: *mut u64,
            words: usize,
        ) -> c_int,
    >,
    /// Stops the log. Called once for every log_start that returned 0. With the lock.
    pub log_stop: Option<unsafe extern "C" fn(opaque: *mut c_void)>,
}

/// Statistics of the RAM in the last migration, in either direction.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMRamInfo {
    /// sizeof(SaveVMRamInfo).
    pub size: usize,
    /// The target's page size in bytes.
    pub page_size: u64,
    /// Bytes that remain to be sent.
    pub dirty_bytes: u64,
    /// Pages that were sent or received with their contents.
    pub normal_pages: u64,
    /// Pages that were sent or received as zero pages.
    pub zero_pages: u64,
    /// Pages that were sent or received as a difference (XBZRLE).
    pub xbzrle_pages: u64,
    /// Pages that were dirty but unchanged, and were not sent.
    pub unchanged_pages: u64,
    /// Number of times that the dirty log was read.
    pub syncs: u64,
    /// Ranges that the destination requested in postcopy.
    pub page_requests: u64,
}

/// A block of memory that the old process of a live update has passed.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMPassedBlock {
    /// sizeof(SaveVMPassedBlock).
    pub size: usize,
    /// Its name; owned by the SaveVMLiveUpdate.
    pub name: *const c_char,
    /// Its length in bytes. The file is at least as long.
    pub length: u64,
    /// Its guest-physical address.
    pub guest_address: u64,
    /// The file of its memory, to be mapped with MAP_SHARED; owned by the SaveVMLiveUpdate.
    pub descriptor: c_int,
}
