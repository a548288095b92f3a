// SPDX-License-Identifier: LGPL-2.1-or-later
//! Implements the interpreter's traits over C's structures: elements, and their memory.

use super::bulk;
use super::fresh::CFresh;
use super::layout::{Getter, Layout, Putter};
use super::state::{CDescription, CShape, CState, failed, string};
use super::types::VMStateField;
use crate::ffi::marshal::c_file::as_c;
use crate::file::MigFile;
use crate::sys::Span;
use crate::vmstate::model::{Extent, FieldShape, Fresh, Item, Items, Kind};
use crate::vmstate::{HostObject, Recorder};
use std::ffi::{CStr, c_void};
use std::ptr::{self, NonNull};

/// The elements of a field.
#[derive(Clone, Copy)]
pub(crate) struct CItems<L> {
    entry: CShape<L>,
    first: *mut u8,
    extent: Extent,
    kind: Kind,
    by_pointer: bool,
}

impl<L: Layout> CItems<L> {
    /// The caller moves everything out of a field that has memory.
    #[inline]
    pub(super) fn new(entry: CShape<L>, first: *mut u8, extent: Extent, kind: Kind, by_pointer: bool) -> Self {
        Self { entry, first, extent, kind, by_pointer }
    }
}

impl<L: Layout> Items for CItems<L> {
    type Item = CItem<L>;

    #[inline]
    fn get(&self, index: usize) -> CItem<L> {
        assert!(index < self.extent.count);
        let mut at = self.first.wrapping_add(self.extent.size.wrapping_mul(index));
        if self.by_pointer && !at.is_null() {
            // SAFETY: the flag says that the array holds pointers, and the index is in the array.
            at = unsafe { at.cast::<*mut u8>().read_unaligned() };
        }
        CItem::of(self.entry, at, self.extent.size, self.kind)
    }

    #[inline]
    fn is_run(&self) -> bool {
        let width = self.kind.width();
        let is_integer = width > 0 && self.kind != Kind::Descriptor;
        is_integer && width == self.extent.size && !self.by_pointer && !self.first.is_null()
    }

    #[inline]
    fn put_run(&self, file: &MigFile) {
        assert!(self.is_run());
        let width = self.kind.width();
        // SAFETY: a run is `count` integers of that width side by side.
        unsafe { bulk::put(file, self.first, self.extent.count * width, width) }
    }

    #[inline]
    fn get_run(&self, file: &MigFile) -> usize {
        assert!(self.is_run());
        // SAFETY: as in `put_run`.
        let whole = unsafe { bulk::get(file, self.first, self.extent.count, self.kind.width()) };
        if self.kind == Kind::Bool {
            // SAFETY: the run is this device's memory, of at least that many bytes.
            unsafe { bulk::normalise(self.first, self.extent.count.min(whole + 1)) };
        }
        whole
    }
}

/// One element.
#[derive(Clone, Copy)]
pub(crate) struct CItem<L> {
    /// `None` only if C called an info without a field.
    entry: Option<CShape<L>>,
    at: *mut u8,
    size: usize,
    kind: Kind,
}

impl<L: Layout> CItem<L> {
    /// Returns the element for which C calls one of the library's infos. `None` for a size that no object has, and for
    /// a container without a field.
    ///
    /// # Safety
    /// `at` must be NULL or memory of that kind and size; `entry` must be NULL or a field of that layout for it, where the
    /// kind needs one.
    pub(super) unsafe fn new(
        layout: L,
        entry: *const VMStateField,
        at: *mut c_void,
        size: usize,
        kind: Kind,
    ) -> Option<Self> {
        let needs_entry = matches!(kind, Kind::Tmp | Kind::TailQueue | Kind::List | Kind::Tree);
        let fits = isize::try_from(size).is_ok() && !(needs_entry && entry.is_null());
        // SAFETY: `entry` is NULL or a field of that layout (contract of `new`).
        let entry = unsafe { CShape::new(layout, entry) };
        fits.then_some(Self { entry, at: at.cast(), size, kind })
    }

    #[inline]
    pub(super) fn of(entry: CShape<L>, at: *mut u8, size: usize, kind: Kind) -> Self {
        Self { entry: Some(entry), at, size, kind }
    }

    /// Returns the description at `index` of those that the field names. A tree has two.
    fn inner(&self, index: usize) -> Option<CDescription<L>> {
        let first = self.entry?.inner()?;
        // SAFETY: where `index` is 1, the field names an array of two descriptions.
        if index == 0 { Some(first) } else { unsafe { first.following() } }
    }

    /// Returns a word of the element, or of a structure in it, as a pointer.
    fn link(at: *mut u8) -> *mut *mut u8 {
        at.cast()
    }

    /// Returns the place of a word of a bitmap. On 32-bit machines two `unsigned long` make a word of the stream.
    fn bitmap_at(&self, index: usize) -> (*mut usize, bool) {
        assert!(self.kind == Kind::Bitmap && index < self.size.div_ceil(64));
        let per_word = 64 / usize::BITS as usize;
        let has_high = per_word == 2 && index * 2 + 1 < self.size.div_ceil(32);
        (self.at.cast::<usize>().wrapping_add(index * per_word), has_high)
    }
}

impl<L: Layout> Item for CItem<L> {
    type State = CState<L>;
    type Fresh = CFresh<L>;

    #[inline]
    fn is_null(&self) -> bool {
        self.at.is_null()
    }

    #[inline]
    fn load<const N: usize>(&self) -> [u8; N] {
        assert!(self.kind.width() == N);
        debug_assert!(!self.at.is_null());
        // SAFETY: an element of this kind has N bytes, and callers have checked `is_null`.
        unsafe { self.at.cast::<[u8; N]>().read() }
    }

    #[inline]
    fn store<const N: usize>(&self, bytes: [u8; N]) {
        assert!(self.kind.width() == N);
        debug_assert!(!self.at.is_null());
        // SAFETY: an element of this kind has N bytes, and callers have checked `is_null`.
        unsafe { self.at.cast::<[u8; N]>().write(bytes) }
    }

    #[inline]
    fn size(&self) -> usize {
        self.size
    }

    fn put_bytes(&self, file: &MigFile) {
        assert!(self.kind == Kind::Buffer);
        // SAFETY: the buffer is memory of that size.
        unsafe { bulk::put(file, self.at, self.size, 1) }
    }

    fn span(&self) -> Span<'_> {
        assert!(self.kind == Kind::Buffer);
        // SAFETY: the buffer is memory of that size.
        unsafe { Span::from_raw(self.at, self.size) }
    }

    fn bitmap_word(&self, index: usize) -> u64 {
        let (at, has_high) = self.bitmap_at(index);
        // SAFETY: the place is inside the bitmap, whose length is a multiple of the machine's words.
        let low = unsafe { at.read_unaligned() } as u64;
        // SAFETY: `bitmap_at` returned that the second word is in the bitmap.
        if has_high { low | (unsafe { at.add(1).read_unaligned() } as u64) << 32 } else { low }
    }

    fn set_bitmap_word(&self, index: usize, word: u64) {
        let (at, has_high) = self.bitmap_at(index);
        // SAFETY: the place is inside the bitmap.
        unsafe { at.write_unaligned(word as usize) };
        if has_high {
            // SAFETY: `bitmap_at` returned that the second word is in the bitmap.
            unsafe { at.add(1).write_unaligned((word >> 32) as usize) };
        }
    }

    #[inline]
    fn state(&self) -> Option<CState<L>> {
        if self.at.is_null() {
            return None;
        }
        Some(CState::with(self.inner(0)?, self.at))
    }

    fn hint(&self) -> Option<String> {
        let hint = self.entry?.raw_hint();
        // SAFETY: NULL or a string.
        (!hint.is_null()).then(|| unsafe { CStr::from_ptr(hint) }.to_string_lossy().into_owned())
    }

    fn put_custom(&self, file: &MigFile, recorder: Option<&Recorder>) -> i32 {
        let Some(entry) = self.entry else { return -libc::EINVAL };
        let Some(info) = NonNull::new(entry.info().cast_mut()) else { return -libc::EINVAL };
        let vmdesc = recorder.map_or(ptr::null_mut(), |recorder| ptr::from_ref(recorder).cast_mut().cast());
        // SAFETY: the info fits the element (contract of `CState::new`); no borrow is held.
        unsafe {
            match entry.layout().putter(info) {
                Putter::None => -libc::EINVAL,
                Putter::Code(put) => put(as_c(file), self.at.cast(), self.size, entry.address(), vmdesc),
                Putter::Error(save) => {
                    let mut error = ptr::null_mut();
                    let saved = save(as_c(file), self.at.cast(), self.size, entry.address(), vmdesc, &raw mut error);
                    if saved { 0 } else { failed(file, error, "save") }
                }
            }
        }
    }

    fn get_custom(&self, file: &MigFile) -> i32 {
        let Some(entry) = self.entry else { return -libc::EINVAL };
        let Some(info) = NonNull::new(entry.info().cast_mut()) else { return -libc::EINVAL };
        // SAFETY: the info fits the element (contract of `CState::new`); no borrow is held.
        unsafe {
            match entry.layout().getter(info) {
                Getter::None => -libc::EINVAL,
                Getter::Code(get) => get(as_c(file), self.at.cast(), self.size, entry.address()),
                Getter::Error(load) => {
                    let mut error = ptr::null_mut();
                    let loaded = load(as_c(file), self.at.cast(), self.size, entry.address(), &raw mut error);
                    if loaded { 0 } else { failed(file, error, "load") }
                }
            }
        }
    }

    fn field_name(&self) -> &[u8] {
        // SAFETY: a field's name is a string.
        self.entry.map_or(b"", |entry| unsafe { string(entry.raw_name()) })
    }

    fn element_version(&self) -> i32 {
        self.entry.map_or(0, |entry| entry.raw_version())
    }

    fn element_description(&self) -> Option<CDescription<L>> {
        self.inner(0)
    }

    fn key_description(&self) -> Option<CDescription<L>> {
        if self.has_direct_keys() { None } else { self.inner(1) }
    }

    fn fresh(&self) -> Option<CFresh<L>> {
        CFresh::new(self.entry?.raw_size(), self.inner(0)?)
    }

    fn fresh_key(&self) -> Option<CFresh<L>> {
        CFresh::new(self.entry?.start(), self.key_description()?)
    }

    fn fresh_tmp(&self) -> Option<CFresh<L>> {
        if self.size < size_of::<*mut u8>() {
            return None;
        }
        let fresh = CFresh::new(self.size, self.inner(0)?)?;
        // SAFETY: the memory is fresh, aligned, and holds at least a pointer.
        unsafe { Self::link(fresh.state().address()).write(self.at) };
        Some(fresh)
    }

    fn elements(&self) -> impl Iterator<Item = CState<L>> {
        // In both kinds of heads and links, the first word points to the next element.
        let link = self.entry.map_or(0, |entry| entry.start());
        let table = self.inner(0);
        let mut from = if matches!(self.kind, Kind::TailQueue | Kind::List) { self.at } else { ptr::null_mut() };
        std::iter::from_fn(move || {
            let table = table?;
            if from.is_null() {
                return None;
            }
            // SAFETY: `from` is the head of the queue or the link of an element that is in it.
            let next = unsafe { Self::link(from).read_unaligned() };
            from = if next.is_null() { next } else { next.wrapping_add(link) };
            (!next.is_null()).then(|| CState::with(table, next))
        })
    }

    fn append(&self, fresh: CFresh<L>) -> bool {
        assert!(self.kind == Kind::TailQueue);
        let Some(entry) = self.entry else { return false };
        let word = size_of::<*mut u8>();
        // SAFETY: the head and each link are two pointers: to the next element, and to the last or previous link. The
        // head is initialised, or zero, which is checked.
        unsafe {
            let head_last = Self::link(self.at.add(word));
            let last = head_last.read_unaligned();
            if last.is_null() {
                return false;
            }
            let element = fresh.into_raw();
            let link = element.add(entry.start());
            Self::link(link).write_unaligned(ptr::null_mut());
            Self::link(link.add(word)).write_unaligned(last);
            Self::link(last).write_unaligned(element);
            head_last.write_unaligned(link);
        }
        true
    }

    fn insert_after(&self, previous: Option<CState<L>>, fresh: CFresh<L>) -> CState<L> {
        assert!(self.kind == Kind::List);
        let start = self.entry.map_or(0, |entry| entry.start());
        let state = fresh.state();
        let word = size_of::<*mut u8>();
        // SAFETY: the head is a pointer to the first element; a link is two: to the next element, and to the pointer
        // that leads here. The previous element is one that was inserted just before.
        unsafe {
            let element = fresh.into_raw();
            let link = element.add(start);
            let leads_here = match &previous {
                Some(previous) => previous.address().add(start),
                None => self.at,
            };
            // As in QEMU, an insertion after an element drops what followed that element.
            let next = if previous.is_none() { Self::link(self.at).read_unaligned() } else { ptr::null_mut() };
            if !next.is_null() {
                Self::link(next.add(start + word)).write_unaligned(link);
            }
            Self::link(link).write_unaligned(next);
            Self::link(link.add(word)).write_unaligned(leads_here);
            Self::link(leads_here).write_unaligned(element);
        }
        state
    }

    fn timer(&self) -> HostObject {
        HostObject::new(self.at.cast())
    }

    fn tree(&self) -> Option<HostObject> {
        if self.kind != Kind::Tree || self.at.is_null() {
            return None;
        }
        // SAFETY: the element is a pointer to a tree.
        let tree = unsafe { Self::link(self.at).read_unaligned() };
        (!tree.is_null()).then(|| HostObject::new(tree.cast()))
    }

    fn has_direct_keys(&self) -> bool {
        self.entry.is_none_or(|entry| entry.start() == 0)
    }

    fn key_state(&self, key: HostObject) -> Option<CState<L>> {
        let table = self.key_description()?;
        (!key.address().is_null()).then(|| CState::with(table, key.address().cast()))
    }

    fn value_state(&self, value: HostObject) -> Option<CState<L>> {
        let table = self.inner(0)?;
        (!value.address().is_null()).then(|| CState::with(table, value.address().cast()))
    }
}
