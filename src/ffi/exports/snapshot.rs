// SPDX-License-Identifier: LGPL-2.1-or-later
//! Snapshots.

use crate::channel::Uri;
use crate::error::{Error, Result};
use crate::ffi::marshal::c_file::file_ref;
use crate::ffi::marshal::convert::{micros, parse_uri};
use crate::ffi::marshal::guard::{guard, guard_error};
use crate::ffi::marshal::opaque::{Error as CError, QEMUFile, SaveVM};
use crate::ffi::marshal::results::{answer_or_error, code, code_or_error};
use crate::ffi::marshal::structs::{c_enums, sized_structs};
use crate::ffi::marshal::{current, strings, structs};
use crate::file::MigFile;
use crate::migration::{Parent, SnapshotOptions, check, snapshot_load, snapshot_save, snapshot_save_to};
use std::ffi::{OsString, c_char, c_int};
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStringExt;

/// Format of a snapshot.
#[expect(non_camel_case_types, reason = "the names of the C interface")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMSnapshotFormat {
    /// QEMU's migration stream, as savevm_migrate() sends it.
    SAVEVM_SNAPSHOT_STREAM = 0,
    /// A file in which each page of guest memory has a fixed place: QEMU's mapped-ram (9.0 and later). Zero pages are holes.
    /// Needs SaveVMRam, and `file:` or an `fd:` of a regular file or disk.
    SAVEVM_SNAPSHOT_MAPPED = 1,
}

c_enums! {
    SaveVMSnapshotFormat: SAVEVM_SNAPSHOT_STREAM, SAVEVM_SNAPSHOT_MAPPED;
}

/// How a snapshot is saved or loaded.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMSnapshotOptions {
    /// sizeof(SaveVMSnapshotOptions).
    pub size: usize,
    /// Format to save; default SAVEVM_SNAPSHOT_STREAM. savevm_snapshot_load() finds the format in the file.
    pub format: MaybeUninit<SaveVMSnapshotFormat>,
    /// Number of threads that write or read pages with fixed places, or read the pages of a stream from a regular file, at most
    /// 64; default 0: the number of processors, at most 8, or 8 with `direct`. One thread writes a stream.
    pub threads: u32,
    /// Writes or reads pages with fixed places with O_DIRECT, which bypasses the page cache; default false. An error if the file
    /// system does not support O_DIRECT, or needs an alignment larger than a target page. Has no effect if the loaded file is a
    /// stream.
    pub direct: bool,
    /// Loading: returns when the devices are loaded, and the guest runs. A page is read when a thread touches it, and threads
    /// read all other pages meanwhile; savevm_restore_wait() waits for them. Default false. See savevm_snapshot_load().
    pub lazy: bool,
    /// With `lazy`: path of a file with the pages that the guest touches first, which are read first. If the file does not exist,
    /// this restore records them, reads only touched pages for one second, and writes the file when all pages are read. Delete
    /// the file to record again. Default NULL: none.
    pub working_set: *const c_char,
    /// What the snapshot is relative to; default NULL: a full snapshot. "": a full snapshot that begins a chain. "file:PATH": the
    /// snapshot that was saved or loaded last in this chain; only the pages that changed since then are saved. When loading: if
    /// not NULL, later changes are logged, so that the loaded snapshot can be a parent.
    pub parent: *const c_char,
    /// Path of an index: a file with the places of all pages of a stream. With an index, a lazy restore does not read every page
    /// record before the guest runs. With `lazy`: if the file is missing, damaged or of another snapshot, the restore writes it
    /// when all pages are read. When saving SAVEVM_SNAPSHOT_STREAM to `file:PATH`: the index is written after the snapshot. A file
    /// that is not an index is not replaced by one, and that is reported.
    /// Default NULL: none. Copying, renaming, linking or changing the snapshot makes its index invalid. Protect the index like
    /// the snapshot, because the index determines the contents of guest memory.
    pub index: *const c_char,
    /// Saving: the guest runs while memory is saved, and is stopped only while devices are saved and memory is protected from
    /// writes (userfaultfd); default false. A page that the guest writes to before it was saved is copied first. Needs
    /// SaveVMRam. Implied by `parent`.
    pub background: bool,
}

/// Statistics of the latest snapshot that a context saved.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMSnapshotInfo {
    /// sizeof(SaveVMSnapshotInfo).
    pub size: usize,
    /// Whether it is still being saved.
    pub active: bool,
    /// Bytes of memory to save in total, without devices. 0 without SaveVMRam.
    pub total_bytes: u64,
    /// Bytes of memory that are saved.
    pub saved_bytes: u64,
    /// How long the guest was stopped, in microseconds; 0 while it is stopped for the first time.
    pub stopped_time_us: u64,
    /// How long the save took, or has taken so far, in microseconds.
    pub total_time_us: u64,
}

sized_structs! {
    SaveVMSnapshotOptions, SAVEVM_SNAPSHOT_OPTIONS_INIT, background;
    SaveVMSnapshotInfo, SAVEVM_SNAPSHOT_INFO_INIT, total_time_us;
}

/// # Safety
/// `options` must be NULL or begin with its size, and its strings must be NULL or terminated.
unsafe fn chosen(options: *const SaveVMSnapshotOptions) -> Result<SnapshotOptions> {
    // SAFETY: as the caller promised.
    let Some(options) = unsafe { structs::sized_struct(options) }? else { return Ok(SnapshotOptions::default()) };
    let mapped = structs::c_enum(options.format)? == SaveVMSnapshotFormat::SAVEVM_SNAPSHOT_MAPPED;
    // SAFETY: as the caller promised.
    let (working_set, index) = unsafe { (strings::string(options.working_set), strings::string(options.index)) };
    let path = |path: Option<Vec<u8>>| path.filter(|path| !path.is_empty()).map(|path| OsString::from_vec(path).into());
    let (working_set, index) = (path(working_set), path(index));
    let SaveVMSnapshotOptions { threads, direct, lazy, background, .. } = options;
    // SAFETY: as the caller promised.
    let parent = unsafe { chosen_parent(options.parent) }?;
    Ok(SnapshotOptions { mapped, threads, direct, lazy, working_set, index, background, parent })
}

/// # Safety
/// `parent` must be NULL or a terminated string.
unsafe fn chosen_parent(parent: *const c_char) -> Result<Option<Parent>> {
    if parent.is_null() {
        return Ok(None);
    }
    // SAFETY: it is a terminated string, as the caller promised.
    if unsafe { *parent } == 0 {
        return Ok(Some(Parent::None));
    }
    // SAFETY: as above.
    match unsafe { parse_uri(parent) }? {
        Uri::File { path, offset: 0 } => Ok(Some(Parent::File(path))),
        other => Err(Error::invalid(format!("the parent of a snapshot is file:PATH, not {other}"))),
    }
}

/// # Safety
/// `uri` must be NULL or a terminated string, `options` NULL or begin with its size.
unsafe fn arguments(uri: *const c_char, options: *const SaveVMSnapshotOptions) -> Result<(Uri, SnapshotOptions)> {
    // SAFETY: as the caller promised. The URI owns a descriptor that it names, whatever the options are.
    let (uri, options) = unsafe { (parse_uri(uri), chosen(options)) };
    Ok((uri?, options?))
}

/// Saves a snapshot to `uri`, which has the form of savevm_migrate(). Stops the guest, and starts it again if it ran before, also
/// after a failure.
///
/// `file:PATH` replaces a regular file only by a complete snapshot: the new file is written to the same directory, synced and
/// renamed, and the directory is synced. The guest already runs during this. After a full disk, a crash or a kill, the previous
/// file is unchanged. The disk needs space for both files. The snapshot is written in place for `file:PATH,offset=N`, which
/// keeps the first N bytes, for files in a directory that is not writable, for files that are mount points or not regular, and for
/// all other kinds of URI. A named pipe waits for a program that reads from it. The guest runs during this wait. Each wait for the
/// other end of a pipe or socket takes at most 60 s.
///
/// With SaveVMSnapshotOptions.background the guest runs while memory is saved. No live device besides SaveVMRam may be
/// registered.
///
/// With SaveVMSnapshotOptions.parent the snapshot is part of a chain, and the guest runs while memory is saved. An incremental
/// snapshot contains all devices and the changed pages, and names its parent by path and hash. Loading it needs every file of the
/// chain. It is not written in place over a regular file. The files of a chain may have different formats. `savevm merge` writes
/// a full snapshot from a chain. If an incremental snapshot fails or is cancelled, the next one contains its changes. If a full
/// snapshot that begins a chain fails or is cancelled, the chain before it continues. The following end the log of changes, so
/// that the next snapshot must be a full one: adding or removing a block of memory, loading another snapshot,
/// savevm_ram_snapshot(), and a migration that needs the memory's userfaultfd (incoming, or with SAVEVM_RAM_LOG_KERNEL).
///
/// Returns:
///   0        the snapshot is saved
///   -EPERM   this side does not have the guest; see savevm_owner()
///   -ESTALE  the changes since the parent are not known, or the parent was changed; save a full snapshot
///   -ECANCELED  savevm_snapshot_cancel() was called
///   -ETIMEDOUT  a wait for the other end took 60 s
///   -errno   another error
///
/// Thread: any. Lock: either; taken if the calling thread does not hold it, released while `uri` is opened and while live devices
/// are set up.
///
/// # Safety
/// `vm` is NULL or a context; `uri` is NULL or a terminated string; `options` is NULL (defaults) or begins with its
/// size; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_snapshot_save(
    vm: *mut SaveVM,
    uri: *const c_char,
    options: *const SaveVMSnapshotOptions,
    errp: *mut *mut CError,
) -> c_int {
    let body = || {
        // SAFETY: the contract of the function.
        let (vm, arguments) = unsafe { (current::from_c(vm), arguments(uri, options)) };
        let act = || arguments.and_then(|(uri, options)| snapshot_save(&vm, &uri, &options));
        // SAFETY: the contract of the function.
        current::with(&vm, || unsafe { code_or_error(act(), errp) })
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -libc::EIO, body) }
}

/// Cancels the snapshot that another thread saves with savevm_snapshot_save() or savevm_ram_snapshot(). Does not wait: that call
/// returns -ECANCELED soon, unless the snapshot is complete already. The guest continues if it ran before. An existing regular
/// file is unchanged. After an incremental snapshot, the next one contains its changes. After a full snapshot that begins a chain,
/// the chain before it continues.
///
/// Returns:
///   0        the save will end
///   -ENOENT  no snapshot is being saved
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `vm` is NULL or a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_snapshot_cancel(vm: *mut SaveVM) -> c_int {
    guard(-libc::EIO, || {
        // SAFETY: the contract of the function.
        if unsafe { current::from_c(vm) }.slot.saving.cancel() { 0 } else { -libc::ENOENT }
    })
}

/// Returns statistics of the latest snapshot that was saved; without one, zeros.
///
/// Returns:
///   0        `info` is filled in
///   -EINVAL  NULL, or the size of `info` is too small
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `vm` is NULL or a context; `info` is NULL or begins with its size and is writable for that.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_snapshot_query(vm: *mut SaveVM, info: *mut SaveVMSnapshotInfo) -> c_int {
    guard(-libc::EIO, || {
        // SAFETY: the contract of the function.
        let vm = unsafe { current::from_c(vm) };
        let remaining = vm.slot.checkpoint_ram().map_or(0, |ram| ram.remaining());
        let now = vm.slot.saving.info(remaining);
        let numbers = SaveVMSnapshotInfo {
            size: size_of::<SaveVMSnapshotInfo>(),
            active: now.active,
            total_bytes: now.total,
            saved_bytes: now.saved,
            stopped_time_us: micros(now.stopped),
            total_time_us: micros(now.duration),
        };
        // SAFETY: the contract of the function.
        code(unsafe { structs::give_sized(info, &numbers) })
    })
}

/// Saves a snapshot of a stopped guest to the caller's file, from the header to the cleanup of devices. The caller closes the file
/// afterwards (qemu_fclose()).
///
/// Returns:
///   0        the snapshot is saved
///   -EBUSY   a migration or a snapshot is in progress
///   -EPERM   this side does not have the guest; see savevm_owner()
///   -EACCES  a blocker forbids it; see savevm_add_blocker()
///   -EINVAL  `f` is NULL
///   -errno   another error, which is also the error of `f`
///
/// Thread: any. Lock: held, released while live devices are set up.
///
/// # Safety
/// `vm` is NULL or a context; `f` is NULL or a file that is open for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_snapshot_save_file(vm: *mut SaveVM, f: *mut QEMUFile) -> c_int {
    guard(-libc::EIO, || {
        // SAFETY: the contract of the function.
        let (vm, file) = unsafe { (current::from_c(vm), file_ref(f)) };
        let Some(file) = file else { return -libc::EINVAL };
        current::with(&vm, || match snapshot_save_to(&vm, file) {
            Ok(()) => 0,
            Err(err) => {
                file.set_error_detail(err);
                file.error()
            }
        })
    })
}

/// Checks whether a stream would load into `vm`, without changing the machine. Reads at most `length` bytes from the position of
/// `f`. The checks are: the stream is complete up to its EOF mark, the configuration section matches, every device and version is
/// known, RAM blocks fit (SaveVMHostOps.ram_fits), and every page is inside its block. The values inside the state of a device
/// are not checked. If the machine's sections have no footers, every stream passes, because the end of a state is not known. `f`
/// is still owned by the caller; its position afterwards is undefined. The devices of the machine must not change during the
/// call.
///
/// Returns:
///   0        no damage was found
///   -ENOMSG  there is no stream at this position
///   -EINVAL  the stream would not load
///   -errno   `f` can't be read
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `vm` is NULL or a context; `f` is NULL or a file; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_snapshot_check_file(
    vm: *mut SaveVM,
    f: *mut QEMUFile,
    length: u64,
    errp: *mut *mut CError,
) -> c_int {
    let body = || {
        // SAFETY: the contract of the function.
        let (vm, file) = unsafe { (current::from_c(vm), file_ref(f)) };
        let rest = file.ok_or_else(|| Error::invalid("the file is NULL")).and_then(MigFile::remaining);
        // SAFETY: the contract of the function.
        current::with(&vm, || unsafe { answer_or_error(rest.and_then(|rest| check(&vm, rest.take(length))), errp) })
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -libc::EIO, body) }
}

/// Loads a snapshot from `uri`. Stops the guest, resets the machine (SaveVMHostOps.reset), loads the stream, and starts the guest
/// if it ran before.
///
/// An incremental snapshot is loaded with all its ancestors. Before the machine is changed, all files are read: each must be
/// complete, have the hash that its child names, and be of the same machine. Afterwards changes are logged, so that the
/// snapshot can be the parent of the next one, except after a lazy load. A lazy load reads the devices and the lists of pages
/// first, and no pages. A page that it reads later must have the hash in its list; otherwise the guest is stopped as after a page
/// that can't be read.
///
/// A regular file is checked first, as savevm_snapshot_check_file() does. Of everything else, only the first 8 bytes are checked.
/// If the check fails, the machine is not changed and the guest continues. After a later failure the guest stays stopped, because
/// its devices hold parts of two states; see SAVEVM_OWNER_TORN. Each wait for the other end of a pipe or socket takes at most 60 s;
/// the guest runs until the first bytes have come.
///
/// With SaveVMSnapshotOptions.lazy, `uri` must be `file:` of a regular file, in any format. The call needs userfaultfd and RAM
/// from savevm_ram_new() in anonymous or shared memory. If something is missing, the call fails with the reason before it changes
/// anything, so the caller may call it again without `lazy`. Everything in the file except the pages is checked first. If a page
/// can't be read later, the guest is stopped (SaveVMHostOps.vm_stop) before it can read anything else in its place, the owner
/// becomes SAVEVM_OWNER_TORN, and the error names file and offset: see savevm_restore_wait() and SaveVMHostOps.restore_ended. As
/// in postcopy, a vCPU may be waiting for a page, and vm_stop must be able to stop it; see SaveVMHostOps.vm_stop. While pages are
/// read, migrations, snapshots and checkpoints fail with -EBUSY. Another savevm_snapshot_load() replaces the restore.
/// savevm_ram_free() and savevm_free() end it if the guest is stopped. The file must not be changed before all pages are read; it
/// may be replaced or removed.
///
/// Returns:
///   0        the snapshot is loaded; with SaveVMSnapshotOptions.lazy, its devices are
///   -EBUSY   a migration, a snapshot or a checkpoint prevents it; the machine is not changed
///   -errno   another error. The guest continues, unless savevm_owner() is SAVEVM_OWNER_TORN afterwards
///
/// Thread: any. Lock: either; taken if the calling thread does not hold it, released while waiting for the other end of `uri`.
///
/// # Safety
/// `vm` is NULL or a context; `uri` is NULL or a terminated string; `options` is NULL (defaults) or begins with its
/// size; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_snapshot_load(
    vm: *mut SaveVM,
    uri: *const c_char,
    options: *const SaveVMSnapshotOptions,
    errp: *mut *mut CError,
) -> c_int {
    let body = || {
        // SAFETY: the contract of the function.
        let (vm, arguments) = unsafe { (current::from_c(vm), arguments(uri, options)) };
        let act = || arguments.and_then(|(uri, options)| snapshot_load(&vm, &uri, &options));
        // SAFETY: the contract of the function.
        current::with(&vm, || unsafe { code_or_error(act(), errp) })
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -libc::EIO, body) }
}
