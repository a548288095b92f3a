// SPDX-License-Identifier: LGPL-2.1-or-later
//! Implements the interpreter's traits over C's structures: tables.
//!
//! Handles are copies of addresses. Only `CState::new` and `CItem::new` make a first handle, and both are unsafe: the
//! description must match the memory as long as the handle, and everything derived from it, is used. All other accesses
//! follow from this: the memory that is read and written is the memory that the description names.

use super::infos;
use super::items::CItem;
use super::items::CItems;
use super::types::VMStateDescription;
use super::types::VMStateField;
use crate::sync::check_none_held;
use crate::vmstate::model::{Description, Direction, Extent, Field, FieldShape, Kind, State, flags};
use std::ffi::{CStr, c_char, c_void};
use std::ptr::{self, NonNull};

/// A description.
#[derive(Clone, Copy)]
pub(crate) struct CDescription(NonNull<VMStateDescription>);

/// A field of a description.
#[derive(Clone, Copy)]
pub(crate) struct CShape(NonNull<VMStateField>);

/// A description applied to memory.
#[derive(Clone, Copy)]
pub(crate) struct CState {
    table: CDescription,
    at: *mut u8,
}

/// A field applied to memory.
#[derive(Clone, Copy)]
pub(crate) struct CField {
    entry: NonNull<VMStateField>,
    /// The memory of the enclosing structure.
    base: *mut u8,
}

/// The entries of a table.
#[derive(Clone, Copy)]
struct Entries(NonNull<VMStateField>);

impl Iterator for Entries {
    type Item = NonNull<VMStateField>;

    #[inline(always)]
    fn next(&mut self) -> Option<NonNull<VMStateField>> {
        let entry = self.0;
        // SAFETY: a table of fields ends with an entry without a name, and `entry` is not past it.
        if unsafe { entry.as_ref() }.name.is_null() {
            return None;
        }
        // SAFETY: the entry has a name, so another entry follows it.
        self.0 = unsafe { entry.add(1) };
        Some(entry)
    }
}

/// Fields applied to memory.
struct Fields {
    entries: Entries,
    base: *mut u8,
}

impl Iterator for Fields {
    type Item = CField;

    #[inline(always)]
    fn next(&mut self) -> Option<CField> {
        let entry = self.entries.next()?;
        Some(CField { entry, base: self.base })
    }
}

/// The end of a table, for descriptions without fields.
struct End(VMStateField);

// SAFETY: it is never written, and its pointers are NULL.
unsafe impl Sync for End {}

static NO_FIELDS: End = End(VMStateField {
    name: ptr::null(),
    err_hint: ptr::null(),
    offset: 0,
    size: 0,
    start: 0,
    num: 0,
    num_offset: 0,
    size_offset: 0,
    info: ptr::null(),
    flags: 0,
    vmsd: ptr::null(),
    version_id: 0,
    struct_version_id: 0,
    field_exists: None,
});

/// # Safety
/// `name` must be NULL or a terminated string that stays.
pub(super) unsafe fn string<'a>(name: *const c_char) -> &'a [u8] {
    if name.is_null() {
        return b"";
    }
    // SAFETY: `name` is a terminated string (contract of `string`).
    unsafe { CStr::from_ptr(name) }.to_bytes()
}

/// Returns the entries of a description's list of subsections.
#[inline]
fn subsections(list: *const *const VMStateDescription) -> impl Iterator<Item = CDescription> {
    let mut next = list;
    std::iter::from_fn(move || {
        if next.is_null() {
            return None;
        }
        // SAFETY: the list comes from a description and ends with NULL, which was not passed. Its entries are
        // descriptions.
        let table = unsafe { CDescription::new(*next) }?;
        next = next.wrapping_add(1);
        Some(table)
    })
}

impl CDescription {
    /// # Safety
    /// `table` must be NULL or a description that stays as it is while the handle is used.
    pub(super) unsafe fn new(table: *const VMStateDescription) -> Option<Self> {
        NonNull::new(table.cast_mut()).map(Self)
    }

    #[inline]
    fn table(&self) -> &VMStateDescription {
        // SAFETY: `new` requires a description that stays while the handle is used.
        unsafe { self.0.as_ref() }
    }

    /// Returns the entries up to the one without a name.
    #[inline]
    fn entries(self) -> Entries {
        let fields = self.table().fields.cast_mut();
        Entries(NonNull::new(fields).unwrap_or(NonNull::from(&NO_FIELDS.0)))
    }

    /// Returns the table with `priority`, `unmigratable` and `dev_unplug_pending`, for the registry.
    pub(super) fn raw(&self) -> &VMStateDescription {
        self.table()
    }
}

impl Description for CDescription {
    type Field = CShape;

    fn name(&self) -> &[u8] {
        // SAFETY: a description's name is a string.
        unsafe { string(self.table().name) }
    }

    #[inline]
    fn version(&self) -> i32 {
        self.table().version_id
    }

    #[inline]
    fn minimum_version(&self) -> i32 {
        self.table().minimum_version_id
    }

    fn fields(&self) -> impl Iterator<Item = CShape> {
        self.entries().map(CShape)
    }

    fn has_fields(&self) -> bool {
        !self.table().fields.is_null()
    }

    fn has_subsections(&self) -> bool {
        !self.table().subsections.is_null()
    }

    fn subsections(&self) -> impl Iterator<Item = Self> {
        subsections(self.table().subsections)
    }

    #[inline]
    fn identity(&self) -> usize {
        self.0.as_ptr() as usize
    }
}

impl CShape {
    fn entry(&self) -> &VMStateField {
        // SAFETY: entries come from tables that stay as they are.
        unsafe { self.0.as_ref() }
    }
}

impl FieldShape for CShape {
    type Description = CDescription;

    fn name(&self) -> &[u8] {
        // SAFETY: a field's name is a string.
        unsafe { string(self.entry().name) }
    }

    fn flags(&self) -> u32 {
        self.entry().flags
    }

    fn info_name(&self) -> Option<&[u8]> {
        // SAFETY: NULL or an info, whose name is NULL or a string.
        let name = unsafe { self.entry().info.as_ref()? }.name;
        // SAFETY: the name is NULL or a string.
        (!name.is_null()).then(|| unsafe { string(name) })
    }

    #[inline]
    fn is_conditional(&self) -> bool {
        self.entry().field_exists.is_some()
    }

    fn inner(&self) -> Option<CDescription> {
        // SAFETY: the member is NULL or a description.
        unsafe { CDescription::new(self.entry().vmsd) }
    }

    fn version(&self) -> i32 {
        self.entry().version_id
    }

    fn offset(&self) -> usize {
        self.entry().offset
    }

    fn measure(&self) -> Option<usize> {
        let entry = self.entry();
        match entry.flags {
            bits if bits & flags::VARRAY != 0 => Some(entry.num_offset),
            bits if bits & flags::VBUFFER != 0 => Some(entry.size_offset),
            _ => None,
        }
    }

    fn size(&self) -> usize {
        self.entry().size
    }

    fn room(&self) -> usize {
        if self.entry().flags & flags::POINTER == 0 { self.entry().start } else { 0 }
    }

    fn loads(&self) -> Kind {
        let entry = self.entry();
        if entry.flags & (flags::STRUCT | flags::VSTRUCT) != 0 || entry.info.is_null() {
            return Kind::Struct;
        }
        // SAFETY: an info.
        unsafe { infos::kind(entry.info, Direction::Load) }
    }

    fn num(&self) -> i32 {
        self.entry().num
    }
}

impl CState {
    /// # Safety
    /// `table` must be NULL, or a description that does not change and that matches the memory at `at`, for as long as the
    /// handle and everything derived from it is used. `at` may be NULL only if no function of the table reads it
    /// unchecked. The functions of the table may be called on this thread.
    #[inline]
    pub(crate) unsafe fn new(table: *const VMStateDescription, at: *mut c_void) -> Option<Self> {
        // SAFETY: `table` is NULL or a description that stays (contract of `CState::new`).
        let table = unsafe { CDescription::new(table) }?;
        Some(Self { table, at: at.cast() })
    }

    #[inline]
    pub(super) fn with(table: CDescription, at: *mut u8) -> Self {
        Self { table, at }
    }

    #[inline]
    pub(super) fn address(&self) -> *mut u8 {
        self.at
    }
}

/// Calls a hook of a description, or returns the value after `else` if there is none.
macro_rules! hook {
    ($self:ident.$member:ident($($argument:expr),*) else $missing:expr) => {
        match $self.table.table().$member {
            Some(function) => {
                check_none_held(stringify!($member));
                // SAFETY: the hook belongs to the description of this memory (contract of `CState::new`).
                unsafe { function($self.at.cast::<c_void>(), $($argument),*) }
            }
            None => $missing,
        }
    };
}

impl State for CState {
    type Description = CDescription;
    type Field = CField;

    #[inline]
    fn description(&self) -> CDescription {
        self.table
    }

    #[inline]
    fn fields(&self) -> impl Iterator<Item = CField> {
        Fields { entries: self.table.entries(), base: self.at }
    }

    #[inline]
    fn subsections(&self) -> impl Iterator<Item = Self> {
        let at = self.at;
        subsections(self.table.table().subsections).map(move |table| Self { table, at })
    }

    fn has_pre_save(&self) -> bool {
        self.table.table().pre_save.is_some()
    }

    #[inline]
    fn pre_save(&self) -> i32 {
        hook!(self.pre_save() else 0)
    }

    #[inline]
    fn post_save(&self) -> i32 {
        hook!(self.post_save() else 0)
    }

    #[inline]
    fn pre_load(&self) -> i32 {
        hook!(self.pre_load() else 0)
    }

    #[inline]
    fn post_load(&self, version: i32) -> i32 {
        hook!(self.post_load(version) else 0)
    }

    #[inline]
    fn needed(&self) -> bool {
        hook!(self.needed() else true)
    }
}

impl CField {
    #[inline]
    fn entry(&self) -> &VMStateField {
        // SAFETY: entries come from tables that stay as they are.
        unsafe { self.entry.as_ref() }
    }

    /// Returns a member of the enclosing structure, or `None` if that has no memory.
    #[inline]
    fn member<T: Copy>(&self, offset: usize) -> Option<T> {
        // SAFETY: the description says that there is a T at this offset.
        (!self.base.is_null()).then(|| unsafe { self.base.wrapping_add(offset).cast::<T>().read_unaligned() })
    }

    #[inline]
    fn place(&self) -> *mut u8 {
        self.base.wrapping_add(self.entry().offset)
    }
}

impl Field for CField {
    type State = CState;
    type Item = CItem;
    type Items = CItems;

    #[inline]
    fn shape(&self) -> CShape {
        CShape(self.entry)
    }

    #[inline]
    fn flags(&self) -> u32 {
        self.entry().flags
    }

    #[inline]
    fn exists(&self, version: i32) -> bool {
        match self.entry().field_exists {
            // SAFETY: the function belongs to the description of this memory (contract of `CState::new`).
            Some(function) => unsafe { function(self.base.cast(), version) },
            None => self.entry().version_id <= version,
        }
    }

    fn struct_version(&self) -> i32 {
        self.entry().struct_version_id
    }

    #[inline]
    fn num(&self) -> i32 {
        self.entry().num
    }

    #[inline]
    fn size(&self) -> usize {
        self.entry().size
    }

    #[inline]
    fn start(&self) -> usize {
        self.entry().start
    }

    fn count_member(&self) -> Option<i64> {
        let (bits, offset) = (self.flags(), self.entry().num_offset);
        if bits & flags::VARRAY_INT32 != 0 {
            self.member::<i32>(offset).map(i64::from)
        } else if bits & flags::VARRAY_UINT32 != 0 {
            self.member::<u32>(offset).map(i64::from)
        } else if bits & flags::VARRAY_UINT16 != 0 {
            self.member::<u16>(offset).map(i64::from)
        } else {
            self.member::<u8>(offset).map(i64::from)
        }
    }

    fn size_member(&self) -> Option<i32> {
        self.member(self.entry().size_offset)
    }

    #[inline]
    fn kind(&self, direction: Direction) -> Kind {
        // SAFETY: the member is NULL or an info.
        unsafe { infos::kind(self.entry().info, direction) }
    }

    fn allocate(&self, bytes: usize) -> bool {
        if self.base.is_null() {
            return false;
        }
        // SAFETY: calloc() takes no pointers.
        let memory = unsafe { libc::calloc(1, bytes) };
        if memory.is_null() {
            return false;
        }
        // SAFETY: the field is a pointer, as POINTER in its flags says, which the only caller has checked.
        unsafe { self.place().cast::<*mut c_void>().write_unaligned(memory) };
        true
    }

    #[inline]
    fn items(&self, extent: Extent, kind: Kind) -> Option<CItems> {
        let bits = self.flags();
        let follows = bits & (flags::POINTER | flags::ARRAY_OF_POINTER) != 0;
        if self.base.is_null() && (follows || kind != Kind::Custom) {
            return None;
        }
        let mut first = self.place();
        if bits & flags::POINTER != 0 {
            // SAFETY: the flag says that the field is a pointer, and there is memory.
            first = unsafe { first.cast::<*mut u8>().read_unaligned() };
            if first.is_null() && extent.count > 0 && extent.size > 0 {
                return None;
            }
        }
        Some(CItems::new(self.entry, first, extent, kind, bits & flags::ARRAY_OF_POINTER != 0))
    }

    #[inline]
    fn single(&self, kind: Kind) -> Option<CItem> {
        if self.base.is_null() && kind != Kind::Custom {
            return None;
        }
        Some(CItem::of(self.entry, self.place(), self.entry().size, kind))
    }
}
