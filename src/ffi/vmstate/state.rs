// SPDX-License-Identifier: LGPL-2.1-or-later
//! Implements the interpreter's traits over C's structures: tables.
//!
//! Handles are copies of addresses. Only `CState::new` and `CItem::new` make a first handle, and both are unsafe: the
//! description must match the memory as long as the handle, and everything derived from it, is used. All other accesses
//! follow from this: the memory that is read and written is the memory that the description names.

use super::infos;
use super::items::CItem;
use super::items::CItems;
use super::layout::{ExistsFn, Hook, Layout, LoadedHook};
use super::types::{TestFn, VMStateDescription, VMStateField, VMStateInfo};
use crate::error::Error;
use crate::ffi::abi::Abi;
use crate::ffi::marshal::c_error;
use crate::ffi::marshal::c_file::as_c;
use crate::ffi::marshal::opaque::Error as CError;
use crate::file::MigFile;
use crate::sync::check_none_held;
use crate::vmstate::model::{Description, Direction, Extent, Field, FieldShape, Kind, State, flags};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{self, NonNull};

/// A description.
#[derive(Clone, Copy)]
pub(crate) struct CDescription<L> {
    table: NonNull<VMStateDescription>,
    layout: L,
}

/// An entry of a table of fields. The members of the entry are its methods.
#[derive(Clone, Copy)]
pub(crate) struct CShape<L> {
    entry: NonNull<VMStateField>,
    layout: L,
}

/// A description applied to memory.
#[derive(Clone, Copy)]
pub(crate) struct CState<L> {
    table: CDescription<L>,
    at: *mut u8,
}

/// A field applied to memory.
#[derive(Clone, Copy)]
pub(crate) struct CField<L> {
    entry: CShape<L>,
    /// The memory of the enclosing structure.
    base: *mut u8,
}

/// The entries of a table.
#[derive(Clone, Copy)]
struct Entries<L>(CShape<L>);

impl<L: Layout> Iterator for Entries<L> {
    type Item = CShape<L>;

    #[inline(always)]
    fn next(&mut self) -> Option<CShape<L>> {
        let shape = self.0;
        if shape.raw_name().is_null() {
            return None;
        }
        // SAFETY: a table of fields ends with an entry without a name, and this entry has one.
        self.0.entry = unsafe { shape.layout.next_field(shape.entry) };
        Some(shape)
    }
}

/// Fields applied to memory.
struct Fields<L> {
    entries: Entries<L>,
    base: *mut u8,
}

impl<L: Layout> Iterator for Fields<L> {
    type Item = CField<L>;

    #[inline(always)]
    fn next(&mut self) -> Option<CField<L>> {
        let entry = self.entries.next()?;
        Some(CField { entry, base: self.base })
    }
}

/// The end of a table in any layout, for descriptions without fields.
struct End([usize; Abi::FIELD_MAX / size_of::<usize>()]);

static NO_FIELDS: End = End([0; Abi::FIELD_MAX / size_of::<usize>()]);

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
fn subsections<L: Layout>(layout: L, list: *const *const VMStateDescription) -> impl Iterator<Item = CDescription<L>> {
    let mut next = list;
    std::iter::from_fn(move || {
        if next.is_null() {
            return None;
        }
        // SAFETY: the list comes from a description and ends with NULL, which was not passed. Its entries are
        // descriptions.
        let table = unsafe { CDescription::new(layout, *next) }?;
        next = next.wrapping_add(1);
        Some(table)
    })
}

/// Declares methods that read a member of a table.
macro_rules! members {
    ($($(#[$doc:meta])* $name:ident: $table:ident.$member:ident -> $type:ty;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub(super) fn $name(&self) -> $type {
            // SAFETY: the table is one of this layout, and stays as it is while the handle is used.
            unsafe { self.layout.$member(self.$table) }
        }
    )*};
}

impl<L: Layout> CDescription<L> {
    /// # Safety
    /// `table` must be NULL or a description of that layout that stays as it is while the handle is used.
    pub(super) unsafe fn new(layout: L, table: *const VMStateDescription) -> Option<Self> {
        NonNull::new(table.cast_mut()).map(|table| Self { table, layout })
    }

    members! {
        raw_name: table.description_name -> *const c_char;
        raw_fields: table.fields -> *const VMStateField;
        raw_subsections: table.subsections -> *const *const VMStateDescription;
        /// `priority`
        priority: table.priority -> u32;
        /// `dev_unplug_pending`
        unplug_pending: table.unplug_pending -> Option<TestFn>;
        /// `needed`
        needed: table.needed -> Option<TestFn>;
    }

    /// Returns the address of the table.
    pub(super) fn address(&self) -> NonNull<VMStateDescription> {
        self.table
    }

    /// Returns the oldest version that is read, by the table or by `load_state_old`.
    pub(super) fn oldest_version(&self) -> i32 {
        // SAFETY: `new` requires a description of this layout.
        let old = unsafe { self.layout.load_old(self.table) };
        old.map_or(i32::MAX, |(_, oldest)| oldest).min(self.minimum_version())
    }

    /// Returns the description after this one in an array of descriptions.
    ///
    /// # Safety
    /// This one must not be the last of the array.
    pub(super) unsafe fn following(self) -> Option<Self> {
        // SAFETY: another description of this layout follows (contract of `following`).
        unsafe { Self::new(self.layout, self.layout.after(self.table.as_ptr())) }
    }

    /// Returns the entries up to the one without a name.
    #[inline]
    fn entries(self) -> Entries<L> {
        let none = NonNull::from(&NO_FIELDS.0).cast();
        Entries(CShape { entry: NonNull::new(self.raw_fields().cast_mut()).unwrap_or(none), layout: self.layout })
    }

    /// Returns the flags of the entry behind the last field, if there are fields.
    pub(super) fn end_flags(self) -> Option<u32> {
        let mut entries = (!self.raw_fields().is_null()).then(|| self.entries())?;
        entries.by_ref().for_each(drop);
        Some(entries.0.own_flags())
    }
}

impl<L: Layout> Description for CDescription<L> {
    type Field = CShape<L>;

    fn name(&self) -> &[u8] {
        // SAFETY: a description's name is a string.
        unsafe { string(self.raw_name()) }
    }

    #[inline]
    fn version(&self) -> i32 {
        // SAFETY: `new` requires a description of this layout.
        unsafe { self.layout.description_version(self.table) }
    }

    #[inline]
    fn minimum_version(&self) -> i32 {
        // SAFETY: `new` requires a description of this layout.
        unsafe { self.layout.minimum_version(self.table) }
    }

    fn fields(&self) -> impl Iterator<Item = CShape<L>> {
        self.entries()
    }

    fn has_fields(&self) -> bool {
        !self.raw_fields().is_null()
    }

    fn has_subsections(&self) -> bool {
        !self.raw_subsections().is_null()
    }

    fn subsections(&self) -> impl Iterator<Item = Self> {
        subsections(self.layout, self.raw_subsections())
    }

    #[inline]
    fn identity(&self) -> usize {
        self.table.as_ptr() as usize
    }
}

impl<L: Layout> CShape<L> {
    /// # Safety
    /// `entry` must be NULL or an entry of a table of that layout that stays as it is while the handle is used.
    pub(super) unsafe fn new(layout: L, entry: *const VMStateField) -> Option<Self> {
        NonNull::new(entry.cast_mut()).map(|entry| Self { entry, layout })
    }

    members! {
        raw_name: entry.field_name -> *const c_char;
        raw_hint: entry.hint -> *const c_char;
        raw_flags: entry.field_flags -> u32;
        own_flags: entry.own_flags -> u32;
        raw_size: entry.field_size -> usize;
        start: entry.start -> usize;
        num: entry.num -> c_int;
        num_offset: entry.num_offset -> usize;
        size_offset: entry.size_offset -> usize;
        raw_offset: entry.offset -> usize;
        info: entry.info -> *const VMStateInfo;
        raw_inner: entry.inner -> *const VMStateDescription;
        raw_version: entry.field_version -> c_int;
        struct_version: entry.struct_version -> c_int;
        exists: entry.exists -> Option<ExistsFn>;
    }

    pub(super) fn address(&self) -> *const VMStateField {
        self.entry.as_ptr()
    }

    pub(super) fn layout(&self) -> L {
        self.layout
    }
}

impl<L: Layout> FieldShape for CShape<L> {
    type Description = CDescription<L>;

    fn name(&self) -> &[u8] {
        // SAFETY: a field's name is a string.
        unsafe { string(self.raw_name()) }
    }

    fn flags(&self) -> u32 {
        self.raw_flags()
    }

    fn info_name(&self) -> Option<&[u8]> {
        let info = NonNull::new(self.info().cast_mut())?;
        // SAFETY: an info of this layout.
        let name = unsafe { self.layout.info_name(info) };
        // SAFETY: the name is NULL or a string.
        (!name.is_null()).then(|| unsafe { string(name) })
    }

    #[inline]
    fn is_conditional(&self) -> bool {
        self.exists().is_some()
    }

    fn inner(&self) -> Option<CDescription<L>> {
        // SAFETY: the member is NULL or a description.
        unsafe { CDescription::new(self.layout, self.raw_inner()) }
    }

    fn version(&self) -> i32 {
        self.raw_version()
    }

    fn offset(&self) -> usize {
        self.raw_offset()
    }

    fn measure(&self) -> Option<usize> {
        match self.raw_flags() {
            bits if bits & flags::VARRAY != 0 => Some(self.num_offset()),
            bits if bits & flags::VBUFFER != 0 => Some(self.size_offset()),
            _ => None,
        }
    }

    fn size(&self) -> usize {
        self.raw_size()
    }

    fn room(&self) -> usize {
        if self.raw_flags() & flags::POINTER == 0 { self.start() } else { 0 }
    }

    fn loads(&self) -> Kind {
        if self.raw_flags() & (flags::STRUCT | flags::VSTRUCT) != 0 || self.info().is_null() {
            return Kind::Struct;
        }
        // SAFETY: an info of this layout.
        unsafe { infos::kind(self.layout, self.info(), Direction::Load) }
    }

    fn num(&self) -> i32 {
        CShape::num(self)
    }
}

impl<L: Layout> CState<L> {
    /// # Safety
    /// `table` must be NULL, or a description of that layout that does not change and that matches the memory at `at`, for as
    /// long as the handle and everything derived from it is used. `at` may be NULL only if no function of the table reads it
    /// unchecked. The functions of the table may be called on this thread.
    #[inline]
    pub(crate) unsafe fn new(layout: L, table: *const VMStateDescription, at: *mut c_void) -> Option<Self> {
        // SAFETY: `table` is NULL or a description that stays (contract of `CState::new`).
        let table = unsafe { CDescription::new(layout, table) }?;
        Some(Self { table, at: at.cast() })
    }

    #[inline]
    pub(super) fn with(table: CDescription<L>, at: *mut u8) -> Self {
        Self { table, at }
    }

    #[inline]
    pub(super) fn address(&self) -> *mut u8 {
        self.at
    }
}

/// Keeps the error of a hook for the interpreter, which finds it by the code.
pub(super) fn failed(file: &MigFile, error: *mut CError, what: &str) -> i32 {
    // SAFETY: the hook gave its error up, or left NULL.
    let error = unsafe { c_error::take(error, libc::EINVAL) };
    let error = error.unwrap_or_else(|| Error::invalid(format!("{what} failed without an error")));
    file.pending_error().set(Error::invalid(error.message()));
    -libc::EINVAL
}

impl<L: Layout> CState<L> {
    #[inline(always)]
    fn call(&self, file: &MigFile, hook: Hook, what: &'static str) -> i32 {
        if matches!(hook, Hook::None) {
            return 0;
        }
        check_none_held(what);
        let opaque = self.at.cast::<c_void>();
        match hook {
            Hook::None => 0,
            // SAFETY: the hook belongs to the description of this memory (contract of `CState::new`).
            Hook::Code(function) => unsafe { function(opaque) },
            Hook::Void(function) => {
                // SAFETY: as above.
                unsafe { function(opaque) };
                0
            }
            Hook::Error(function) => {
                let mut error = ptr::null_mut();
                // SAFETY: as above; `error` is NULL.
                if unsafe { function(opaque, &raw mut error) } { 0 } else { failed(file, error, what) }
            }
        }
    }
}

impl<L: Layout> State for CState<L> {
    type Description = CDescription<L>;
    type Field = CField<L>;

    #[inline]
    fn description(&self) -> CDescription<L> {
        self.table
    }

    #[inline]
    fn fields(&self) -> impl Iterator<Item = CField<L>> {
        Fields { entries: self.table.entries(), base: self.at }
    }

    #[inline]
    fn subsections(&self) -> impl Iterator<Item = Self> {
        let at = self.at;
        subsections(self.table.layout, self.table.raw_subsections()).map(move |table| Self { table, at })
    }

    fn has_pre_save(&self) -> bool {
        // SAFETY: the description is one of this layout.
        !matches!(unsafe { self.table.layout.pre_save(self.table.table) }, Hook::None)
    }

    #[inline]
    fn pre_save(&self, file: &MigFile) -> i32 {
        // SAFETY: the description is one of this layout.
        self.call(file, unsafe { self.table.layout.pre_save(self.table.table) }, "pre_save")
    }

    #[inline]
    fn post_save(&self, file: &MigFile) -> i32 {
        // SAFETY: the description is one of this layout.
        self.call(file, unsafe { self.table.layout.post_save(self.table.table) }, "post_save")
    }

    #[inline]
    fn pre_load(&self, file: &MigFile) -> i32 {
        // SAFETY: the description is one of this layout.
        self.call(file, unsafe { self.table.layout.pre_load(self.table.table) }, "pre_load")
    }

    #[cold]
    fn load_old(&self, file: &MigFile, version: i32) -> Option<i32> {
        // SAFETY: the description is one of this layout.
        let (function, oldest) = unsafe { self.table.layout.load_old(self.table.table) }?;
        if version < oldest {
            return None;
        }
        check_none_held("load_state_old");
        // SAFETY: the hook belongs to the description of this memory (contract of `CState::new`); no borrow is held.
        Some(unsafe { function(as_c(file), self.at.cast(), version) })
    }

    #[inline]
    fn post_load(&self, file: &MigFile, version: i32) -> i32 {
        let opaque = self.at.cast::<c_void>();
        // SAFETY: the description is one of this layout.
        match unsafe { self.table.layout.post_load(self.table.table) } {
            LoadedHook::None => 0,
            LoadedHook::Code(function) => {
                check_none_held("post_load");
                // SAFETY: the hook belongs to the description of this memory (contract of `CState::new`).
                unsafe { function(opaque, version) }
            }
            LoadedHook::Error(function) => {
                check_none_held("post_load_errp");
                let mut error = ptr::null_mut();
                // SAFETY: as above; `error` is NULL.
                if unsafe { function(opaque, version, &raw mut error) } {
                    0
                } else {
                    failed(file, error, "post_load_errp")
                }
            }
        }
    }

    #[inline]
    fn needed(&self) -> bool {
        match self.table.needed() {
            Some(function) => {
                check_none_held("needed");
                // SAFETY: the hook belongs to the description of this memory (contract of `CState::new`).
                unsafe { function(self.at.cast()) }
            }
            None => true,
        }
    }
}

impl<L: Layout> CField<L> {
    /// Returns a member of the enclosing structure, or `None` if that has no memory.
    #[inline]
    fn member<T: Copy>(&self, offset: usize) -> Option<T> {
        // SAFETY: the description says that there is a T at this offset.
        (!self.base.is_null()).then(|| unsafe { self.base.wrapping_add(offset).cast::<T>().read_unaligned() })
    }

    #[inline]
    fn place(&self) -> *mut u8 {
        self.base.wrapping_add(self.entry.raw_offset())
    }
}

impl<L: Layout> Field for CField<L> {
    type State = CState<L>;
    type Item = CItem<L>;
    type Items = CItems<L>;

    #[inline]
    fn shape(&self) -> CShape<L> {
        self.entry
    }

    #[inline]
    fn flags(&self) -> u32 {
        self.entry.raw_flags()
    }

    #[inline]
    fn exists(&self, version: i32) -> bool {
        match self.entry.exists() {
            // SAFETY: the function belongs to the description of this memory (contract of `CState::new`).
            Some(function) => unsafe { function(self.base.cast(), version) },
            None => self.entry.raw_version() <= version,
        }
    }

    fn struct_version(&self) -> i32 {
        self.entry.struct_version()
    }

    #[inline]
    fn num(&self) -> i32 {
        self.entry.num()
    }

    #[inline]
    fn size(&self) -> usize {
        self.entry.raw_size()
    }

    #[inline]
    fn start(&self) -> usize {
        self.entry.start()
    }

    fn count_member(&self) -> Option<i64> {
        let (bits, offset) = (self.flags(), self.entry.num_offset());
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
        self.member(self.entry.size_offset())
    }

    #[inline]
    fn kind(&self, direction: Direction) -> Kind {
        // SAFETY: the member is NULL or an info.
        unsafe { infos::kind(self.entry.layout, self.entry.info(), direction) }
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
    fn items(&self, extent: Extent, kind: Kind) -> Option<CItems<L>> {
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
    fn single(&self, kind: Kind) -> Option<CItem<L>> {
        if self.base.is_null() && kind != Kind::Custom {
            return None;
        }
        Some(CItem::of(self.entry, self.place(), self.entry.raw_size(), kind))
    }
}
