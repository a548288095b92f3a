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

/// Kind of an item of a stream.
#[expect(non_camel_case_types, reason = "the names of the C interface")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMInspectItemKind {
    /// Magic and version.
    SAVEVM_INSPECT_HEADER = 0,
    /// The configuration section: the machine's name and properties.
    SAVEVM_INSPECT_CONFIGURATION = 1,
    /// The first section of a live device.
    SAVEVM_INSPECT_START = 2,
    /// Consecutive further sections of a live device.
    SAVEVM_INSPECT_PART = 3,
    /// The last section of a live device.
    SAVEVM_INSPECT_END = 4,
    /// The state of a device that is not live.
    SAVEVM_INSPECT_FULL = 5,
    /// A command to the destination.
    SAVEVM_INSPECT_COMMAND = 6,
    /// The end of the sections.
    SAVEVM_INSPECT_EOF = 7,
    /// The JSON description of the devices' layouts.
    SAVEVM_INSPECT_DESCRIPTION = 8,
}

/// Kind of a field that SaveVMInspectFieldFn receives.
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
    /// The innermost structure, array, list or subsection ends.
    SAVEVM_INSPECT_LEAVE = 4,
    /// A signed number: `value` as int64_t.
    SAVEVM_INSPECT_SIGNED = 5,
    /// An unsigned number.
    SAVEVM_INSPECT_UNSIGNED = 6,
    /// `value` is 0 or 1.
    SAVEVM_INSPECT_BOOL = 7,
    /// A pointer that is NULL.
    SAVEVM_INSPECT_NULL = 8,
    /// Bytes; the description has no type for them that this library knows.
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
    /// The document that QEMU's analyze-migration.py prints.
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

/// Properties of a whole stream. The caller sets `size`; only members within that size are filled in. Strings are owned by the
/// SaveVMInspect.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMInspectSummary {
    /// sizeof(SaveVMInspectSummary).
    pub size: usize,
    /// The version in the header.
    pub version: u32,
    /// Whether sections have footers: 1 or 0; -1: unknown, because there is no section.
    pub footers: c_int,
    /// Whether the stream ended with its EOF mark.
    pub complete: bool,
    /// Whether the stream has a description.
    pub described: bool,
    /// Whether pages of memory were sent over other channels (multifd).
    pub multifd: bool,
    /// Length of the stream in bytes.
    pub length: u64,
    /// Number of bytes after the stream.
    pub trailing: u64,
    /// The target's page size in bytes; 0: unknown.
    pub page_size: u64,
    /// Number of items for savevm_inspect_item().
    pub items: usize,
    /// Number of blocks for savevm_inspect_block().
    pub blocks: usize,
    /// The machine's name; NULL: not in the stream.
    pub machine: *const c_char,
    /// The damage as text: offset, section, what was expected and what was found. NULL: no damage.
    pub damage: *const c_char,
    /// Offset of the damage in bytes; -1: no damage.
    pub damage_offset: i64,
    /// Whether the only damage is that the stream ends too early.
    pub cut: bool,
}

/// An item of the stream. Strings and bytes are owned by the SaveVMInspect.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMInspectItem {
    /// sizeof(SaveVMInspectItem).
    pub size: usize,
    /// Kind.
    pub kind: SaveVMInspectItemKind,
    /// Number of packages around it.
    pub depth: u32,
    /// Offset in the stream in bytes.
    pub offset: u64,
    /// Size in bytes, with header and footer. The size of a package includes its contents.
    pub bytes: u64,
    /// The idstr of a section or the name of a command; NULL for others and for an unknown command.
    pub name: *const c_char,
    /// The number of a section or a command; 0 for others.
    pub id: u32,
    /// A section's instance; 0 for others.
    pub instance_id: u32,
    /// The version of a section's layout; 0 for others.
    pub version_id: u32,
    /// Number of consecutive sections of the same device in this item; 0 if it is no section.
    pub count: u64,
    /// The state of a device that is not live; NULL for others.
    pub state: *const u8,
    /// Size of the state in bytes.
    pub state_length: usize,
}

/// Number of pages of one kind, and their size in the stream.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMInspectPages {
    /// Number of pages; a page that was sent twice counts twice.
    pub pages: u64,
    /// Bytes in the stream, with record headers.
    pub bytes: u64,
}

/// A block of guest memory. The name is owned by the SaveVMInspect.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMInspectBlock {
    /// sizeof(SaveVMInspectBlock).
    pub size: usize,
    /// Name.
    pub name: *const c_char,
    /// Size of the block in bytes; 0: not in the stream.
    pub length: u64,
    /// Pages of one repeated byte, which is almost always zero.
    pub zero: SaveVMInspectPages,
    /// Pages with their contents.
    pub plain: SaveVMInspectPages,
    /// Pages as a difference to previous contents (XBZRLE).
    pub xbzrle: SaveVMInspectPages,
    /// Pages compressed with zlib.
    pub compressed: SaveVMInspectPages,
}

/// A field of a device, as the stream describes it. It is valid during the callback.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMInspectField {
    /// Kind.
    pub kind: SaveVMInspectFieldKind,
    /// The field's name; for an element, the name of the array; NULL with SAVEVM_INSPECT_LEAVE.
    pub name: *const c_char,
    /// The name of its type in the description; NULL for kinds that contain fields.
    pub type_name: *const c_char,
    /// The value, if the kind is a number or a bool; the version of a subsection.
    pub value: u64,
    /// Offset in the device's state in bytes.
    pub offset: usize,
    /// Its bytes; NULL for kinds that contain fields.
    pub bytes: *const u8,
    /// Number of bytes.
    pub length: usize,
}

/// Receives the fields one after the other. A result other than 0 ends savevm_inspect_fields().
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
