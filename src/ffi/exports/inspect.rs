// SPDX-License-Identifier: LGPL-2.1-or-later
//! Looking into a stream without loading it. Nothing here touches a context or its devices, and no lock is needed. What was
//! read does not change any more: any threads may ask for it at the same time.

use crate::ffi::marshal::c_error;
use crate::ffi::marshal::c_file::file_ref;
use crate::ffi::marshal::guard::{guard, guard_error};
use crate::ffi::marshal::inspected::{Inspected, inspected, read_bytes, read_file};
use crate::ffi::marshal::opaque::{Error as CError, QEMUFile, SaveVMInspect};
use crate::ffi::marshal::results::code;
use crate::ffi::marshal::structs::{SizedStruct, c_enum, c_enums, give_sized, sized_structs};
use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;

/// What an item of a stream is.
#[expect(non_camel_case_types, reason = "the names of the C interface")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMInspectItemKind {
    /// Magic and version.
    SAVEVM_INSPECT_HEADER = 0,
    /// The machine's name and what both sides must share.
    SAVEVM_INSPECT_CONFIGURATION = 1,
    /// The first section of a live device.
    SAVEVM_INSPECT_START = 2,
    /// Further sections of a live device, one behind the other.
    SAVEVM_INSPECT_PART = 3,
    /// The last section of a live device.
    SAVEVM_INSPECT_END = 4,
    /// The state of a device that is not live.
    SAVEVM_INSPECT_FULL = 5,
    /// An order to the destination.
    SAVEVM_INSPECT_COMMAND = 6,
    /// The end of the sections.
    SAVEVM_INSPECT_EOF = 7,
    /// The JSON description of the devices' layouts.
    SAVEVM_INSPECT_DESCRIPTION = 8,
}

/// What a call of SaveVMInspectFieldFn is about.
#[expect(non_camel_case_types, reason = "the names of the C interface")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMInspectFieldKind {
    /// A structure, or an element of a list, begins; its fields follow.
    SAVEVM_INSPECT_STRUCT = 0,
    /// An array begins; its elements follow.
    SAVEVM_INSPECT_ARRAY = 1,
    /// A list, queue or tree begins; its elements follow.
    SAVEVM_INSPECT_LIST = 2,
    /// A subsection of version `value` begins; its fields follow.
    SAVEVM_INSPECT_SUBSECTION = 3,
    /// What began last is over.
    SAVEVM_INSPECT_LEAVE = 4,
    /// A number with a sign: `value` as int64_t.
    SAVEVM_INSPECT_SIGNED = 5,
    /// A number without a sign.
    SAVEVM_INSPECT_UNSIGNED = 6,
    /// `value` is 0 or 1.
    SAVEVM_INSPECT_BOOL = 7,
    /// A pointer that is NULL.
    SAVEVM_INSPECT_NULL = 8,
    /// Bytes without a meaning that the description knows.
    SAVEVM_INSPECT_BYTES = 9,
}

/// Formats of savevm_inspect_document().
#[expect(non_camel_case_types, reason = "the names of the C interface")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMInspectFormat {
    /// The stable document of the `savevm` command, without the devices' fields.
    SAVEVM_INSPECT_JSON = 0,
    /// The same with the fields of every device.
    SAVEVM_INSPECT_JSON_FIELDS = 1,
    /// What QEMU's analyze-migration.py prints.
    SAVEVM_INSPECT_ANALYZE = 2,
}

c_enums! {
    SaveVMInspectFormat: SAVEVM_INSPECT_JSON, SAVEVM_INSPECT_JSON_FIELDS, SAVEVM_INSPECT_ANALYZE;
}

sized_structs! {
    SaveVMInspectSummary, SAVEVM_INSPECT_SUMMARY_INIT, cut;
    SaveVMInspectItem, SAVEVM_INSPECT_ITEM_INIT, state_length;
    SaveVMInspectBlock, SAVEVM_INSPECT_BLOCK_INIT, compressed;
}

/// A stream as a whole. The caller sets `size`; what is filled in is what both sides have. Strings live as long as the
/// SaveVMInspect.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMInspectSummary {
    /// sizeof(SaveVMInspectSummary).
    pub size: usize,
    /// The version in the header.
    pub version: u32,
    /// Whether sections are closed by footers: 1, 0; -1: no section tells.
    pub footers: c_int,
    /// Whether the stream ended with its EOF mark.
    pub complete: bool,
    /// Whether the stream describes its devices.
    pub described: bool,
    /// Whether pages of memory went through other channels.
    pub multifd: bool,
    /// How many bytes belong to the stream.
    pub length: u64,
    /// How many bytes follow it.
    pub trailing: u64,
    /// The target's page size in bytes; 0: unknown.
    pub page_size: u64,
    /// How many there are for savevm_inspect_item().
    pub items: usize,
    /// How many there are for savevm_inspect_block().
    pub blocks: usize,
    /// The machine's name; NULL: the stream does not say.
    pub machine: *const c_char,
    /// Where the stream stops making sense, in words: offset, section, what was expected and what came. NULL: nowhere.
    pub damage: *const c_char,
    /// The byte at which that showed; -1: nowhere.
    pub damage_offset: i64,
    /// Whether the damage is that the stream ends too early.
    pub cut: bool,
}

/// One thing in the stream, in its order. Strings and bytes live as long as the SaveVMInspect.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMInspectItem {
    /// sizeof(SaveVMInspectItem).
    pub size: usize,
    /// What it is.
    pub kind: SaveVMInspectItemKind,
    /// How many packages it is in.
    pub depth: u32,
    /// Where it starts in the stream.
    pub offset: u64,
    /// How many bytes it takes, with header and footer; of a package with all that is in it.
    pub bytes: u64,
    /// The idstr of a section, the name of a command; NULL for others, and for a command that is not known.
    pub name: *const c_char,
    /// The number of a section or a command; 0 for others.
    pub id: u32,
    /// A section's instance; 0 for others.
    pub instance_id: u32,
    /// The version of a section's layout; 0 for others.
    pub version_id: u32,
    /// How many sections of the same live device this stands for; 0 where it is none.
    pub count: u64,
    /// The state of a device that is not live; NULL for others.
    pub state: *const u8,
    /// Its bytes.
    pub state_length: usize,
}

/// How many pages of one kind, and the bytes of stream for them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMInspectPages {
    /// Pages; one that was sent twice counts twice.
    pub pages: u64,
    /// Bytes in the stream, with their headers.
    pub bytes: u64,
}

/// A block of guest memory. The name lives as long as the SaveVMInspect.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMInspectBlock {
    /// sizeof(SaveVMInspectBlock).
    pub size: usize,
    /// Its name.
    pub name: *const c_char,
    /// Bytes of memory; 0 where the stream does not say.
    pub length: u64,
    /// Pages of one repeated byte, nearly always zero.
    pub zero: SaveVMInspectPages,
    /// Pages as they are.
    pub plain: SaveVMInspectPages,
    /// Pages as a difference to what was sent before.
    pub xbzrle: SaveVMInspectPages,
    /// Pages compressed with zlib.
    pub compressed: SaveVMInspectPages,
}

/// A field of a device, as the stream describes it. It and what it points to are gone when the callback returns.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMInspectField {
    /// What it is.
    pub kind: SaveVMInspectFieldKind,
    /// The field's name, an element's array's; NULL with SAVEVM_INSPECT_LEAVE.
    pub name: *const c_char,
    /// The name of its type in the description; NULL for what holds fields.
    pub type_name: *const c_char,
    /// What it is as a number, where it is one.
    pub value: u64,
    /// Where it is in the device's state.
    pub offset: usize,
    /// Its bytes; NULL for what holds fields.
    pub bytes: *const u8,
    /// How many.
    pub length: usize,
}

/// Takes one field after the other; not 0 ends it.
pub type SaveVMInspectFieldFn =
    Option<unsafe extern "C" fn(opaque: *mut c_void, field: *const SaveVMInspectField) -> c_int>;

/// # Safety
/// `errp` is NULL or points to NULL.
unsafe fn give(read: crate::error::Result<Inspected>, errp: *mut *mut CError) -> *mut SaveVMInspect {
    match read {
        Ok(inspected) => Box::into_raw(Box::new(inspected)).cast(),
        Err(err) => {
            // SAFETY: as the caller promised.
            unsafe { c_error::give(errp, err) };
            ptr::null_mut()
        }
    }
}

/// Fills in what is found of a read stream; -ENOENT where there is nothing.
///
/// # Safety
/// `s` is NULL or a read stream; `to` is NULL or begins with its size.
unsafe fn tell<T: SizedStruct>(
    s: *const SaveVMInspect,
    to: *mut T,
    find: impl FnOnce(&Inspected) -> Option<T>,
) -> c_int {
    guard(-libc::EIO, || {
        // SAFETY: as the caller promised.
        let Some(inspected) = (unsafe { inspected(s) }) else { return -libc::EINVAL };
        // SAFETY: as above.
        find(inspected).map_or(-libc::ENOENT, |found| code(unsafe { give_sized(to, &found) }))
    })
}

/// Reads a stream that is in memory, without copying it and without loading anything. A damaged stream is no failure: the
/// result has what comes before the damage, and savevm_inspect_summary() describes the damage. `max_memory` limits the bytes
/// that are kept (0: 1 GiB).
///
/// Returns: the stream, to be freed with savevm_inspect_free(); NULL if `data` is NULL.
///
/// # Safety
/// `data` is valid for `length` bytes during the call; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_inspect_buffer(
    data: *const c_void,
    length: usize,
    max_memory: usize,
    errp: *mut *mut CError,
) -> *mut SaveVMInspect {
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, ptr::null_mut(), || give(read_bytes(data.cast(), length, max_memory), errp)) }
}

/// As savevm_inspect_buffer(), from the position of `f` to its end. Long streams need little memory. `f` is still owned by the
/// caller, and is at its end.
///
/// Returns: the stream, to be freed with savevm_inspect_free(); NULL if `f` can't be read.
///
/// # Safety
/// `f` is NULL or a file; `errp` is NULL or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_inspect_file(
    f: *mut QEMUFile,
    max_memory: usize,
    errp: *mut *mut CError,
) -> *mut SaveVMInspect {
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, ptr::null_mut(), || give(read_file(file_ref(f), max_memory), errp)) }
}

/// Frees a stream that was read, and the strings and bytes that were obtained from it.
///
/// # Safety
/// `s` is NULL or what one of the two functions gave, and is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_inspect_free(s: *mut SaveVMInspect) {
    if !s.is_null() {
        // SAFETY: the contract of the function.
        guard((), || drop(unsafe { Box::from_raw(s.cast::<Inspected>()) }));
    }
}

/// Returns the properties of the whole stream.
///
/// Returns:
///   0        `summary` is filled in
///   -EINVAL  NULL, or the size of `summary` is too small
///
/// # Safety
/// `s` is NULL or a read stream; `summary` is NULL or begins with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_inspect_summary(s: *const SaveVMInspect, summary: *mut SaveVMInspectSummary) -> c_int {
    // SAFETY: the contract of the function.
    unsafe { tell(s, summary, |inspected| Some(inspected.summary())) }
}

/// Returns one item of the stream; `index` counts them in the order of the stream.
///
/// Returns:
///   0        `item` is filled in
///   -ENOENT  there are not so many items
///   -EINVAL  NULL, or the size of `item` is too small
///
/// # Safety
/// `s` is NULL or a read stream; `item` is NULL or begins with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_inspect_item(
    s: *const SaveVMInspect,
    index: usize,
    item: *mut SaveVMInspectItem,
) -> c_int {
    // SAFETY: the contract of the function.
    unsafe { tell(s, item, |inspected| inspected.item(index)) }
}

/// Returns one block of guest memory in the stream.
///
/// Returns:
///   0        `block` is filled in
///   -ENOENT  there are not so many blocks
///   -EINVAL  NULL, or the size of `block` is too small
///
/// # Safety
/// `s` is NULL or a read stream; `block` is NULL or begins with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_inspect_block(
    s: *const SaveVMInspect,
    index: usize,
    block: *mut SaveVMInspectBlock,
) -> c_int {
    // SAFETY: the contract of the function.
    unsafe { tell(s, block, |inspected| inspected.block(index)) }
}

/// Calls `field` for each field of an item's device, in the order of the stream, on the calling thread.
///
/// Returns:
///   0         all fields were passed
///   -ENOENT   the item is not the whole state of a device
///   -ENODATA  the stream does not describe the device
///   -EILSEQ   the description does not match the state; the fields that match were passed
///   -EINVAL   NULL
///   other     what `field` returned that was not 0
///
/// # Safety
/// `s` is NULL or a read stream, and `field` does not free it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_inspect_fields(
    s: *const SaveVMInspect,
    item: usize,
    field: SaveVMInspectFieldFn,
    opaque: *mut c_void,
) -> c_int {
    guard(-libc::EIO, || {
        // SAFETY: the contract of the function.
        let (Some(inspected), Some(field)) = (unsafe { inspected(s) }, field) else { return -libc::EINVAL };
        // SAFETY: the contract of the function.
        unsafe { inspected.fields(item, field, opaque) }
    })
}

/// Writes the stream to `out` as JSON.
///
/// Returns:
///   0        everything is written
///   -EINVAL  NULL, or an unknown format
///   -errno   the error of `out`
///
/// # Safety
/// `s` is NULL or a read stream; `out` is NULL or a file for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_inspect_document(
    s: *const SaveVMInspect,
    format: MaybeUninit<SaveVMInspectFormat>,
    out: *mut QEMUFile,
) -> c_int {
    guard(-libc::EIO, || {
        // SAFETY: the contract of the function.
        match unsafe { (inspected(s), file_ref(out)) } {
            (Some(inspected), Some(out)) => {
                c_enum(format).map_or(-libc::EINVAL, |format| inspected.document(format, out))
            }
            _ => -libc::EINVAL,
        }
    })
}
