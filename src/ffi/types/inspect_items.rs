// SPDX-License-Identifier: LGPL-2.1-or-later
//! Structs and enums of what was read of a stream.

use crate::ffi::marshal::structs::{c_enums, sized_structs};
use std::ffi::{c_char, c_int, c_void};

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
