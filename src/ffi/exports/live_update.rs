// SPDX-License-Identifier: LGPL-2.1-or-later
//! Live update: a new process of the hypervisor takes the running guest over, with its memory in place.

use crate::channel::Channel;
use crate::error::{Error, Result};
use crate::ffi::exports::info::SaveVMParams;
use crate::ffi::exports::migrate::{start, start_incoming, start_outgoing};
use crate::ffi::exports::ram::{SaveVMRam, ram_of, with_ram};
use crate::ffi::marshal::castable::{self, Castable, Unique};
use crate::ffi::marshal::convert::parse_uri;
use crate::ffi::marshal::guard::{guard, guard_error};
use crate::ffi::marshal::opaque::{Error as CError, SaveVM, SaveVMMigration};
use crate::ffi::marshal::results::{code, code_or_error, value_or_error};
use crate::ffi::marshal::{strings, structs};
use crate::ffi::types::ram_tables::SaveVMPassedBlock;
use crate::migration::{Choice, Endpoint, Params};
use crate::ram::live_update::{PassedBlock, accept_memory};
use crate::savevm::host::without_big_lock;
use crate::wire::limits::IDSTR_MAX;
use std::ffi::{CString, c_char, c_int};
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::Arc;

/// The memory that an old process has passed, and the connection to it.
pub struct SaveVMLiveUpdate {
    channel: Arc<dyn Channel>,
    blocks: Vec<(CString, PassedBlock)>,
}

impl Castable for SaveVMLiveUpdate {
    type Object = Self;
    type Ownership = Unique;
}

/// The parameters of a migration of which both sides map the memory.
fn shared(params: Params) -> Params {
    Params { share_memory: true, return_path: Choice::On, postcopy: false, channels: 0, ..params }
}

/// Sets the descriptor of a shared block's memory, such as a memfd, for savevm_live_update(). The hypervisor owns it and keeps
/// it open while the block exists.
///
/// Returns:
///   0        the descriptor is set
///   -ENOENT  there is no block of that name
///   -EINVAL  the block is not shared (SaveVMRamBlock.shared)
///
/// Thread: any. Lock: either. Since 0.1.
///
/// # Safety
/// `ram` is NULL or alive; `name` is NULL or a terminated string; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_ram_set_descriptor(
    ram: *mut SaveVMRam,
    name: *const c_char,
    descriptor: c_int,
    errp: *mut *mut CError,
) -> c_int {
    let body = || {
        // SAFETY: the contract of the function.
        let name = unsafe { strings::name(name) }.filter(|name| name.len() <= IDSTR_MAX);
        let name = name.ok_or_else(|| Error::new(libc::ENOENT, "no block has such a name"));
        // SAFETY: the contract of the function.
        unsafe { code_or_error(with_ram(ram, |ram| ram.set_descriptor(&name?, descriptor)), errp) }
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -libc::EIO, body) }
}

/// Begins a live update in the old process: connects to the new one, which waits in savevm_live_update_accept() on
/// `unix:PATH`, passes it the descriptors of all shared blocks (savevm_ram_set_descriptor()), and begins a migration over the
/// same connection. Shared memory is not sent, because both processes map it. Blocks that are not shared are sent.
///
/// The migration has the rules of savevm_migrate(): if the new process fails before it has the guest, the guest continues
/// here. A device must not write to guest memory while it is loaded, because that memory is this guest's until then.
///
/// Returns: the migration, to be freed with savevm_migration_free(); NULL if it can't begin.
///
/// Thread: any. Lock: either, released while waiting. Waits at most 30 s for the connection, and for each message that it sends.
/// Since 0.1.
///
/// # Safety
/// `ram` is NULL or alive; `uri` is NULL or a terminated string; `params` is NULL (defaults) or begins with its size; `errp` is
/// NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_live_update(
    ram: *mut SaveVMRam,
    uri: *const c_char,
    params: *const SaveVMParams,
    errp: *mut *mut CError,
) -> *mut SaveVMMigration {
    let pass = || {
        // SAFETY: the contract of the function. The URI owns a descriptor that it names, also if there is no RAM.
        let (uri, ram) = unsafe { (parse_uri(uri), ram_of(ram)) };
        let (uri, ram) = (uri?, ram?);
        let pass = || ram.pass_memory(&uri);
        let passed = ram.vm().map_or_else(pass, |vm| without_big_lock(&*vm.host(), pass));
        Ok(Endpoint::Channel(passed?))
    };
    // SAFETY: the contract of the function.
    let vm = unsafe { ram_of(ram) }.ok().and_then(crate::ram::Ram::vm);
    let vm = vm.as_ref().map_or(ptr::null_mut(), castable::lend_shared::<SaveVM>);
    // SAFETY: the context is alive as long as its RAM; the rest is the contract of the function.
    unsafe { start(vm, pass, params, errp, |vm, to, params| start_outgoing(vm, to, shared(params))) }
}

/// Waits in the new process for savevm_live_update() of the old one, on `unix:PATH`, and receives its memory. Then map each
/// block (savevm_live_update_block()), create the machine, add the blocks to its RAM with `shared` set, set their descriptors,
/// and call savevm_live_update_load().
///
/// Returns: the memory, to be freed with savevm_live_update_free(); NULL on failure.
///
/// Thread: any. Lock: not held. Waits without a limit for the connection, then at most 30 s for each message. Since 0.1.
///
/// # Safety
/// `uri` is NULL or a terminated string; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_live_update_accept(
    uri: *const c_char,
    errp: *mut *mut CError,
) -> *mut SaveVMLiveUpdate {
    let body = || {
        // SAFETY: the contract of the function.
        let accepted = unsafe { parse_uri(uri) }.and_then(|uri| accept_memory(&uri)).and_then(|(channel, blocks)| {
            let named = |block: PassedBlock| {
                let name =
                    CString::new(&*block.name).map_err(|_| Error::invalid("the name of a block has a zero byte"));
                name.map(|name| (name, block))
            };
            Ok(SaveVMLiveUpdate { channel, blocks: blocks.into_iter().map(named).collect::<Result<_>>()? })
        });
        // SAFETY: the contract of the function.
        unsafe { value_or_error(accepted, errp) }.map_or(ptr::null_mut(), castable::give)
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, ptr::null_mut(), body) }
}

/// Returns a block of the memory that the old process has passed. `index` counts from 0.
///
/// Returns:
///   0        `block` is filled in
///   -ENOENT  there are not so many blocks
///   -EINVAL  NULL, or the size of `block` is too small
///
/// Thread: any. Lock: either. Since 0.1.
///
/// # Safety
/// `update` is NULL or alive; `block` is NULL or begins with its size and is writable for that.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_live_update_block(
    update: *const SaveVMLiveUpdate,
    index: usize,
    block: *mut SaveVMPassedBlock,
) -> c_int {
    guard(-libc::EIO, || {
        // SAFETY: the contract of the function.
        let Some(update) = (unsafe { castable::object(update) }) else { return -libc::EINVAL };
        let update: &SaveVMLiveUpdate = update;
        let Some((name, passed)) = update.blocks.get(index) else { return -libc::ENOENT };
        let values = SaveVMPassedBlock {
            size: size_of::<SaveVMPassedBlock>(),
            name: name.as_ptr(),
            length: passed.length,
            guest_address: passed.guest_address,
            descriptor: passed.descriptor.as_raw_fd(),
        };
        // SAFETY: the contract of the function.
        code(unsafe { structs::give_sized(block, &values) })
    })
}

/// Begins to load the guest of the old process into `vm`. The migration has the rules of savevm_incoming(). Call it once for
/// each `update`, which may be freed afterwards.
///
/// Returns: the migration, to be freed with savevm_migration_free(); NULL if it can't begin.
///
/// Thread: any. Lock: either. Since 0.1.
///
/// # Safety
/// `update` is NULL or alive; `vm` is NULL or a context; `params` is NULL (defaults) or begins with its size; `errp` is NULL or
/// points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_live_update_load(
    update: *const SaveVMLiveUpdate,
    vm: *mut SaveVM,
    params: *const SaveVMParams,
    errp: *mut *mut CError,
) -> *mut SaveVMMigration {
    let from = || {
        // SAFETY: the contract of the function.
        let update: Option<&SaveVMLiveUpdate> = unsafe { castable::object(update) };
        let update = update.ok_or_else(|| Error::invalid("the live update is NULL"))?;
        Ok(Endpoint::Channel(Arc::clone(&update.channel)))
    };
    // SAFETY: the contract of the function.
    unsafe { start(vm, from, params, errp, |vm, from, params| start_incoming(vm, from, shared(params))) }
}

/// Frees the memory that an old process has passed: closes its descriptors. Mappings stay. If savevm_live_update_load() was not
/// called, the connection ends and the guest continues in the old process.
///
/// Thread: any. Lock: either. Since 0.1.
///
/// # Safety
/// `update` is NULL or comes from savevm_live_update_accept() and is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_live_update_free(update: *mut SaveVMLiveUpdate) {
    // SAFETY: the contract of the function.
    guard((), || drop(unsafe { castable::take(update) }));
}
