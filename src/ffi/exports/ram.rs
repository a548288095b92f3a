// SPDX-License-Identifier: LGPL-2.1-or-later
//! RAM as a module, for a hypervisor without a RAM device of its own.

use crate::error::{Error, Result};
use crate::ffi::callbacks::ram_log::CLog;
use crate::ffi::marshal::castable::{self, Castable, Unique};
use crate::ffi::marshal::convert::parse_uri;
use crate::ffi::marshal::guard::{guard, guard_error};
use crate::ffi::marshal::opaque::{Error as CError, SaveVM};
use crate::ffi::marshal::results::{answer_or_error, code, code_or_error, value_or_error};
use crate::ffi::marshal::{current, strings, structs};
pub use crate::ffi::types::ram_tables::*;
use crate::migration::{SnapshotOptions, snapshot_save};
use crate::ram::block::BlockInfo;
use crate::ram::tracker::Log;
use crate::ram::{Options, Ram};
use crate::savevm::unwind;
use crate::sys::GuestMemory;
use crate::wire::limits::IDSTR_MAX;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The RAM of one machine.
pub struct SaveVMRam {
    ram: Arc<Ram>,
}

impl Castable for SaveVMRam {
    type Object = Self;
    type Ownership = Unique;
}

fn chosen(options: &SaveVMRamOptions) -> Result<Options> {
    let log = match structs::c_enum(options.log)? {
        SaveVMRamLog::SAVEVM_RAM_LOG_AUTO => Log::Auto,
        SaveVMRamLog::SAVEVM_RAM_LOG_HOST => Log::Host,
        SaveVMRamLog::SAVEVM_RAM_LOG_KERNEL => Log::Kernel,
        SaveVMRamLog::SAVEVM_RAM_LOG_MARKS => Log::Marks,
    };
    Ok(Options { log, ignore_shared: options.ignore_shared, xbzrle_cache: options.xbzrle_cache })
}

/// Runs `body` with the RAM. A panic in it is that of the RAM's machine.
///
/// # Safety
/// As `ram_of`.
pub(in crate::ffi) unsafe fn with_ram<T>(ram: *mut SaveVMRam, body: impl FnOnce(&Ram) -> Result<T>) -> Result<T> {
    // SAFETY: as the caller promised.
    unsafe { ram_of(ram) }.and_then(|ram| unwind::attribute_panic_to(|| ram.vm(), || body(ram)))
}

/// # Safety
/// `ram` must be NULL or come from savevm_ram_new() and be alive.
pub(in crate::ffi) unsafe fn ram_of<'a>(ram: *mut SaveVMRam) -> Result<&'a Ram> {
    // SAFETY: as the caller promised.
    unsafe { castable::object(ram) }.map(|ram| &*ram.ram).ok_or_else(|| Error::invalid("the RAM is NULL"))
}

/// Adds RAM to a context: the live device "ram". It has no blocks at first. It takes part in all migrations and snapshots that
/// begin afterwards, and in postcopy. Call it after savevm_set_host(). `options` (NULL: defaults) and `ops` (NULL: no dirty
/// log of the hypervisor) are copied.
///
/// Returns: the RAM, to be freed with savevm_ram_free(); NULL on failure.
///
/// Thread: any. Lock: held. QEMU: ram_mig_init, migration/ram.c.
///
/// # Safety
/// `vm` is NULL or a context that outlives the RAM; `options` and `ops` are NULL or begin with their size, and the functions
/// may be called from any thread with `opaque`; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_ram_new(
    vm: *mut SaveVM,
    options: *const SaveVMRamOptions,
    ops: *const SaveVMRamOps,
    opaque: *mut c_void,
    errp: *mut *mut CError,
) -> *mut SaveVMRam {
    let body = || {
        // SAFETY: the contract of the function.
        let (vm, options, ops) =
            unsafe { (current::from_c(vm), structs::sized_struct(options), structs::sized_struct(ops)) };
        let make = || {
            let options = options?.as_ref().map(chosen).transpose()?.unwrap_or_default();
            let ops = ops?.filter(|ops| ops.log_sync.is_some());
            Ram::new(&vm, options, ops.map(|ops| Arc::new(CLog { ops, opaque }) as _))
        };
        current::with(&vm, || {
            // SAFETY: the contract of the function.
            let given = unsafe { value_or_error(make(), errp) };
            given.map_or(ptr::null_mut(), |ram| castable::give(SaveVMRam { ram }))
        })
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, ptr::null_mut(), body) }
}

/// Removes RAM from its context and frees it. The memory is not touched. Free the migrations and checkpoints of the context
/// before. Nothing is freed, and that is reported, while a migration is in progress, a checkpoint exists, or a lazy restore still
/// reads pages for a running guest.
///
/// Thread: any. Lock: held, released while waiting.
///
/// # Safety
/// `ram` is NULL or comes from savevm_ram_new() and is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_ram_free(ram: *mut SaveVMRam) {
    guard((), || {
        // SAFETY: the contract of the function.
        let Ok(inner) = (unsafe { ram_of(ram) }) else { return };
        match inner.close() {
            // SAFETY: the contract of the function.
            Ok(()) => drop(unsafe { castable::take(ram) }),
            Err(error) => {
                if let Some(vm) = inner.vm() {
                    vm.report(error);
                }
            }
        }
    });
}

/// # Safety
/// The contract of savevm_ram_add_block().
unsafe fn block_info(block: *const SaveVMRamBlock) -> Result<BlockInfo> {
    // SAFETY: as the caller promised.
    let block = unsafe { structs::sized_struct(block) }?.ok_or_else(|| Error::invalid("the block is NULL"))?;
    // SAFETY: as the caller promised.
    let name = unsafe { strings::name(block.name) }.ok_or_else(|| Error::invalid("the block's name is NULL"))?;
    let (len, page_size) = (usize::try_from(block.length), usize::try_from(block.page_size));
    let too_large = |_| Error::invalid("the block is larger than the address space");
    // SAFETY: as the caller promised.
    let memory = unsafe { GuestMemory::new(block.host.cast(), len.map_err(too_large)?) };
    Ok(BlockInfo {
        name,
        memory: memory.ok_or_else(|| Error::invalid("the block's memory is NULL or wraps around"))?,
        page_size: page_size.map_err(too_large)?,
        guest_address: block.guest_address,
        shared: block.shared,
        opaque: block.opaque as usize,
    })
}

/// Adds a block of guest memory, also while the guest runs. The memory stays mapped until the block is removed or the RAM is
/// freed.
///
/// Returns:
///   0        the block is added
///   -EBUSY   a migration is in progress, or a checkpoint exists
///   -EEXIST  there is a block of that name
///   -EINVAL  a member of `block` is not valid, NULL, or the size of `block` is too small
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `ram` is NULL or alive; `block` is NULL or begins with its size; its memory stays mapped until the block is removed or
/// the RAM is freed; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_ram_add_block(
    ram: *mut SaveVMRam,
    block: *const SaveVMRamBlock,
    errp: *mut *mut CError,
) -> c_int {
    let body = || {
        // SAFETY: the contract of the function.
        unsafe { code_or_error(with_ram(ram, |ram| ram.add_block(block_info(block)?)), errp) }
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -libc::EIO, body) }
}

/// Removes a block. After it returns 0, the memory may be unmapped.
///
/// Returns:
///   0        the block is removed
///   -EBUSY   a migration is in progress, or a checkpoint exists
///   -ENOENT  there is no block of that name
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `ram` is NULL or alive; `name` is NULL or a terminated string; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_ram_remove_block(
    ram: *mut SaveVMRam,
    name: *const c_char,
    errp: *mut *mut CError,
) -> c_int {
    let body = || {
        // SAFETY: the contract of the function.
        let name = unsafe { strings::name(name) }.filter(|name| name.len() <= IDSTR_MAX);
        let name = name.ok_or_else(|| Error::new(libc::ENOENT, "no block has such a name"));
        // SAFETY: the contract of the function.
        unsafe { code_or_error(with_ram(ram, |ram| ram.remove_block(&name?)), errp) }
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -libc::EIO, body) }
}

/// Marks guest memory as written. Call it for writes that the dirty log does not see: by a device model (with KVM's log), by
/// DMA, or by another process. Addresses outside of all blocks are ignored.
///
/// Thread: any. Lock: either. Does not wait.
///
/// # Safety
/// `ram` is NULL or alive. The memory is not touched.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_ram_set_dirty(ram: *mut SaveVMRam, host: *const c_void, length: u64) {
    guard((), || {
        // SAFETY: the contract of the function.
        let _ = unsafe {
            with_ram(ram, |ram| {
                ram.set_dirty(host as usize, usize::try_from(length).unwrap_or(usize::MAX));
                Ok(())
            })
        };
    });
}

/// Returns the union of the page sizes of all blocks in bytes. A host with a block on huge pages returns it from
/// SaveVMHostOps.ram_page_sizes.
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `ram` is NULL or alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_ram_page_sizes(ram: *mut SaveVMRam) -> u64 {
    // SAFETY: the contract of the function.
    guard(0, || unsafe { ram_of(ram) }.map_or(0, Ram::page_sizes))
}

/// Checks whether this machine can be the destination of a postcopy: userfaultfd exists, this process may use it, and it can
/// handle the memory of all blocks.
///
/// Returns: 0 if it can, else -errno with the reason in `*errp`.
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `ram` is NULL or alive; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_ram_check_postcopy(ram: *mut SaveVMRam, errp: *mut *mut CError) -> c_int {
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -libc::EIO, || answer_or_error(with_ram(ram, Ram::check_postcopy), errp)) }
}

/// Saves the machine as it is at the time of the call, while its guest runs: savevm_snapshot_save() with
/// SaveVMSnapshotOptions.background, and nothing else. Ends the log of changes since a snapshot. No checkpoint may exist.
///
/// Returns: 0, or -errno and the error.
///
/// Thread: any. Lock: not held. QEMU: bg_migration_thread, migration/migration.c.
///
/// # Safety
/// `ram` is NULL or alive; `uri` is NULL or a terminated string; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_ram_snapshot(ram: *mut SaveVMRam, uri: *const c_char, errp: *mut *mut CError) -> c_int {
    let body = || {
        // SAFETY: the contract of the function. The URI owns a descriptor that it names, also if there is no RAM.
        unsafe {
            let uri = parse_uri(uri);
            code_or_error(
                with_ram(ram, |ram| {
                    let uri = uri?;
                    let vm = ram.prepare_snapshot()?;
                    let options = SnapshotOptions { background: true, ..SnapshotOptions::default() };
                    snapshot_save(&vm, &uri, &options)
                }),
                errp,
            )
        }
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -libc::EIO, body) }
}

/// Returns statistics of the RAM in the last migration.
///
/// Returns:
///   0        `info` is filled in
///   -EINVAL  NULL, or the size of `info` is too small
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `ram` is NULL or alive; `info` is NULL or begins with its size and is writable for that.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_ram_query(ram: *mut SaveVMRam, info: *mut SaveVMRamInfo) -> c_int {
    guard(-libc::EIO, || {
        // SAFETY: the contract of the function.
        let Ok(ram) = (unsafe { ram_of(ram) }) else { return -libc::EINVAL };
        let get = |count: &AtomicU64| count.load(Relaxed);
        let counters = &ram.counters;
        let numbers = SaveVMRamInfo {
            size: size_of::<SaveVMRamInfo>(),
            page_size: ram.page_size() as u64,
            dirty_bytes: ram.dirty_bytes(),
            normal_pages: get(&counters.normal),
            zero_pages: get(&counters.zero),
            xbzrle_pages: get(&counters.xbzrle),
            unchanged_pages: get(&counters.unchanged),
            syncs: get(&counters.syncs),
            page_requests: get(&counters.requests),
        };
        // SAFETY: the contract of the function.
        code(unsafe { structs::give_sized(info, &numbers) })
    })
}
