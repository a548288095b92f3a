// SPDX-License-Identifier: LGPL-2.1-or-later
//! The interpreter's view of a description and of the memory that it describes.
//!
//! `src/ffi/vmstate` implements these traits over C's structures. A handle is a copy of addresses: a description and
//! memory. Making the first handle is `unsafe` there; its caller guarantees that the description matches the memory for
//! as long as the handle and everything derived from it is used. The interpreter is safe code.

use super::host::HostObject;
use super::record::Recorder;
use crate::file::MigFile;
use crate::sys::Span;

/// Bits of `VMStateField.flags` (QEMU 7.2, `enum VMStateFlags`).
pub mod flags {
    /// The offset leads to a pointer to the element or array.
    pub const POINTER: u32 = 0x2;
    /// A fixed number of elements.
    pub const ARRAY: u32 = 0x4;
    /// The element is a structure.
    pub const STRUCT: u32 = 0x8;
    /// The count is a signed 32-bit member.
    pub const VARRAY_INT32: u32 = 0x10;
    /// The array holds pointers to the elements.
    pub const ARRAY_OF_POINTER: u32 = 0x40;
    /// The count is a 16-bit member.
    pub const VARRAY_UINT16: u32 = 0x80;
    /// The size of an element is a signed 32-bit member.
    pub const VBUFFER: u32 = 0x100;
    /// That member counts units of the field's size.
    pub const MULTIPLY: u32 = 0x200;
    /// The count is an 8-bit member.
    pub const VARRAY_UINT8: u32 = 0x400;
    /// The count is an unsigned 32-bit member.
    pub const VARRAY_UINT32: u32 = 0x800;
    /// Absence is an error.
    pub const MUST_EXIST: u32 = 0x1000;
    /// Loading allocates the array.
    pub const ALLOC: u32 = 0x2000;
    /// The count member counts groups of `num` elements.
    pub const MULTIPLY_ELEMENTS: u32 = 0x4000;
    /// A structure in a version of its own.
    pub const VSTRUCT: u32 = 0x8000;

    /// Any count that is a member.
    pub const VARRAY: u32 = VARRAY_INT32 | VARRAY_UINT32 | VARRAY_UINT16 | VARRAY_UINT8;
    /// Everything but one element, in place, that is no structure.
    pub const NOT_PLAIN: u32 =
        POINTER | ARRAY | STRUCT | VARRAY | ARRAY_OF_POINTER | VBUFFER | MULTIPLY_ELEMENTS | VSTRUCT;
}

/// How an element is encoded: by one of the library's infos, or by an info that only the program knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One byte, 0 or 1 after loading.
    Bool,
    /// Integers, big-endian in the stream; signed and unsigned are the same bits.
    U8,
    /// 16 bits.
    U16,
    /// 32 bits.
    U32,
    /// 64 bits.
    U64,
    /// The stream must have the value that the device has.
    EqualU8,
    /// 16 bits.
    EqualU16,
    /// 32 bits.
    EqualU32,
    /// 64 bits.
    EqualU64,
    /// Not negative and at most the value that the device has.
    AtMostI32,
    /// `CPU_DoubleU`: a 64-bit word.
    Double,
    /// A timer of the host.
    Timer,
    /// Bytes as they are.
    Buffer,
    /// Zeros, ignored when loading.
    Unused,
    /// A structure that lives only while it is saved or loaded.
    Tmp,
    /// Bits in 64-bit words.
    Bitmap,
    /// A tail queue of structures.
    TailQueue,
    /// A list of structures.
    List,
    /// A balanced tree of the host.
    Tree,
    /// The marker for a null pointer.
    NullPointer,
    /// An open descriptor, an `int32_t`.
    Descriptor,
    /// A pair of functions of the program.
    Custom,
    /// No info: a structure.
    Struct,
}

impl Kind {
    /// Returns the size of an integer in memory in bytes; 0 for other kinds. In the stream it has the same size, except a
    /// descriptor.
    #[inline]
    pub const fn width(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::EqualU8 => 1,
            Self::U16 | Self::EqualU16 => 2,
            Self::U32 | Self::EqualU32 | Self::AtMostI32 | Self::Descriptor => 4,
            Self::U64 | Self::EqualU64 | Self::Double => 8,
            _ => 0,
        }
    }

    /// Returns the kind for saving. Checks only concern loading.
    #[inline]
    pub const fn without_check(self) -> Self {
        match self {
            Self::EqualU8 => Self::U8,
            Self::EqualU16 => Self::U16,
            Self::EqualU32 | Self::AtMostI32 => Self::U32,
            Self::EqualU64 | Self::Double => Self::U64,
            other => other,
        }
    }
}

/// Which function of an info is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// `put`
    Save,
    /// `get`
    Load,
}

/// Number and size of a field's elements, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Number of elements.
    pub count: usize,
    /// Distance of elements in bytes (in bits for a bitmap).
    pub size: usize,
}

/// A table of fields, without memory.
pub trait Description: Copy + 'static {
    /// The type of its fields.
    type Field: FieldShape<Description = Self>;

    /// Name, without the final NUL.
    fn name(&self) -> &[u8];
    /// The version that is written and the newest that is read.
    fn version(&self) -> i32;
    /// The oldest version that is read.
    fn minimum_version(&self) -> i32;
    /// The fields in order.
    fn fields(&self) -> impl Iterator<Item = Self::Field>;
    /// Whether there is a list of subsections, even an empty one.
    fn has_subsections(&self) -> bool;
    /// The subsections in order.
    fn subsections(&self) -> impl Iterator<Item = Self>;
    /// Whether there is a list of fields, which may be empty.
    fn has_fields(&self) -> bool;
    /// Equal for handles of one table. Different for tables that exist at the same time.
    fn identity(&self) -> usize;
}

/// A field, without memory.
pub trait FieldShape: Copy {
    /// The table that it is part of, and that it may contain.
    type Description: Description<Field = Self>;

    /// Name, without the final NUL.
    fn name(&self) -> &[u8];
    /// `flags`
    fn flags(&self) -> u32;
    /// Name of the info, if it has one.
    fn info_name(&self) -> Option<&[u8]>;
    /// Whether a function decides if the field is present.
    fn is_conditional(&self) -> bool;
    /// The description of the contents, if there is one.
    fn inner(&self) -> Option<Self::Description>;
    /// First version that has the field.
    fn version(&self) -> i32;
    /// `offset` of the entry, in bytes.
    fn offset(&self) -> usize;
    /// Offset of the member with the number or size of elements, if there is one.
    fn measure(&self) -> Option<usize>;
    /// `size` of the entry.
    fn size(&self) -> usize;
    /// Length of a variable array in place, in bytes; 0 if unknown.
    fn room(&self) -> usize;
    /// How elements are loaded.
    fn loads(&self) -> Kind;
    /// `num` of the entry: the number of elements of a fixed array.
    fn num(&self) -> i32;
}

/// A description applied to the memory of a device.
pub trait State: Copy {
    /// The table.
    type Description: Description;
    /// A field in that memory.
    type Field: Field<State = Self>;

    /// The table.
    fn description(&self) -> Self::Description;
    /// The fields in order.
    fn fields(&self) -> impl Iterator<Item = Self::Field>;
    /// The subsections in order, applied to the same memory.
    fn subsections(&self) -> impl Iterator<Item = Self>;

    /// Whether there is a `pre_save`.
    fn has_pre_save(&self) -> bool;
    /// Calls the hook before saving. Each hook calls C and returns 0 if there is none. A hook that returns an error leaves
    /// it with the file, under its code.
    fn pre_save(&self, file: &MigFile) -> i32;
    /// Calls the hook after saving, even after a failure.
    fn post_save(&self, file: &MigFile) -> i32;
    /// Calls the hook before loading.
    fn pre_load(&self, file: &MigFile) -> i32;
    /// Calls the function that loads a version below the minimum, instead of all other hooks and fields. `None` if there
    /// is none for this version.
    fn load_old(&self, file: &MigFile, version: i32) -> Option<i32>;
    /// Calls the hook after loading, with the stream's version.
    fn post_load(&self, file: &MigFile, version: i32) -> i32;
    /// Returns whether the part is saved; true without a hook.
    fn needed(&self) -> bool;
}

/// The item type of a state.
pub type ItemOf<S> = <<S as State>::Field as Field>::Item;

/// A field in the memory of a device.
pub trait Field: Copy {
    /// The state that it is part of.
    type State: State<Field = Self>;
    /// The type of an element.
    type Item: Item<State = Self::State>;
    /// The type of all elements.
    type Items: Items<Item = Self::Item>;

    /// The table's entry.
    fn shape(&self) -> <<Self::State as State>::Description as Description>::Field;
    /// `flags`, without a call of `shape`.
    fn flags(&self) -> u32;
    /// Returns whether the field is present: by its hook, or by its version.
    fn exists(&self, version: i32) -> bool;
    /// The version in which a VSTRUCT is written and read.
    fn struct_version(&self) -> i32;
    /// `num`, `size` and `start` of the entry.
    fn num(&self) -> i32;
    /// Bytes of an element, or the unit of a variable size.
    fn size(&self) -> usize;
    /// Containers: offset of the link, or size of a key. Variable arrays in place: length of the array in bytes, 0 if
    /// unknown.
    fn start(&self) -> usize;
    /// The count that a VARRAY flag names. `None` if the device has no memory.
    fn count_member(&self) -> Option<i64>;
    /// The size that VBUFFER names. `None` if the device has no memory.
    fn size_member(&self) -> Option<i32>;
    /// How the elements are stored.
    fn kind(&self, direction: Direction) -> Kind;
    /// Points the field's pointer to zeroed memory of `bytes` bytes, which the device then owns. Returns false without
    /// memory.
    fn allocate(&self, bytes: usize) -> bool;
    /// Returns the elements. `extent` is the result of `Extent::of`. `None` if a pointer on the way is null.
    fn items(&self, extent: Extent, kind: Kind) -> Option<Self::Items>;
    /// Returns the element of a field without any of `flags::NOT_PLAIN`. `None` as above.
    fn single(&self, kind: Kind) -> Option<Self::Item>;
}

/// The elements of a field.
pub trait Items: Copy {
    /// The type of an element.
    type Item: Item;

    /// Returns an element, through the pointer in an array of pointers. Panics if there is no such element.
    fn get(&self, index: usize) -> Self::Item;
    /// Returns whether the elements are adjacent integers.
    fn is_run(&self) -> bool;
    /// Writes all elements of a run, big-endian.
    fn put_run(&self, file: &MigFile);
    /// Reads all elements of a run, and makes booleans 0 or 1. Returns how many are complete. If the stream ends, one
    /// more is stored, whose missing bytes are zero.
    fn get_run(&self, file: &MigFile) -> usize;
}

/// One element in memory. Functions for one kind panic, or do nothing, on another kind.
pub trait Item: Copy {
    /// The type of structures in it.
    type State: State;
    /// The type of new structures that are not yet part of the device.
    type Fresh: Fresh<State = Self::State>;

    /// Returns whether there is no memory: a null pointer in an array of pointers. Must be checked before reading or
    /// writing, unless the element came from `Field::single`, which checks it.
    fn is_null(&self) -> bool;
    /// Reads an integer in the machine's byte order.
    fn load<const N: usize>(&self) -> [u8; N];
    /// Writes an integer in the machine's byte order.
    fn store<const N: usize>(&self, bytes: [u8; N]);
    /// Size in bytes (bits of a bitmap).
    fn size(&self) -> usize;
    /// Writes the bytes of a buffer.
    fn put_bytes(&self, file: &MigFile);
    /// Returns the memory of a buffer.
    fn span(&self) -> Span<'_>;
    /// Returns a word of a bitmap.
    fn bitmap_word(&self, index: usize) -> u64;
    /// Writes a word of a bitmap.
    fn set_bitmap_word(&self, index: usize, word: u64);
    /// Returns the structure: the field's description applied to the element. `None` without a description or memory.
    fn state(&self) -> Option<Self::State>;
    /// Returns the entry's hint for a failed check.
    fn hint(&self) -> Option<String>;
    /// Calls the program's `put`.
    fn put_custom(&self, file: &MigFile, recorder: Option<&Recorder>) -> i32;
    /// Calls the program's `get`.
    fn get_custom(&self, file: &MigFile) -> i32;

    /// Returns the name of its field, without the final NUL.
    fn field_name(&self) -> &[u8];
    /// Returns the version against which containers check their elements.
    fn element_version(&self) -> i32;
    /// Returns the description of the elements of a container, or of the values of a tree.
    fn element_description(&self) -> Option<<Self::State as State>::Description>;
    /// Returns the description of a tree's keys, unless keys are plain numbers.
    fn key_description(&self) -> Option<<Self::State as State>::Description>;
    /// Allocates a structure of the container, or a value of a tree.
    fn fresh(&self) -> Option<Self::Fresh>;
    /// Allocates a key of a tree.
    fn fresh_key(&self) -> Option<Self::Fresh>;
    /// Allocates a temporary structure, whose first word points to the element. `None` also if the pointer does not
    /// fit.
    fn fresh_tmp(&self) -> Option<Self::Fresh>;
    /// Returns the structures of a queue or list. Each link is read only when it is needed.
    fn elements(&self) -> impl Iterator<Item = Self::State>;
    /// Appends to a tail queue. Returns false if the queue was not initialised.
    fn append(&self, fresh: Self::Fresh) -> bool;
    /// Inserts into a list: at the head, or after `previous`.
    fn insert_after(&self, previous: Option<Self::State>, fresh: Self::Fresh) -> Self::State;
    /// Returns the timer.
    fn timer(&self) -> HostObject;
    /// Returns the tree, or `None` if the pointer to it is null.
    fn tree(&self) -> Option<HostObject>;
    /// Returns whether keys are plain numbers.
    fn has_direct_keys(&self) -> bool;
    /// Returns a key of the tree as a structure.
    fn key_state(&self, key: HostObject) -> Option<Self::State>;
    /// Returns a value of the tree as a structure.
    fn value_state(&self, value: HostObject) -> Option<Self::State>;
}

/// Memory that becomes part of a device after it is loaded. Dropping it frees it.
pub trait Fresh {
    /// The type of the structure in it.
    type State: State;

    /// Returns the structure.
    fn state(&self) -> Self::State;
    /// Returns its size in bytes.
    fn size(&self) -> usize;
    /// Releases the memory to its new owner.
    fn into_object(self) -> HostObject;
}
