// SPDX-License-Identifier: LGPL-2.1-or-later
//! Fixture: descriptions made in Rust, and files over memory.

use crate::channel::memory::{Reader, Writer};
use crate::error::Error;
use crate::ffi::marshal::c_file::as_c;
use crate::ffi::marshal::current;
use crate::ffi::vmstate::types::{VMStateDescription, VMStateField, VMStateInfo};
use crate::ffi::vmstate::{vmstate_load_state, vmstate_save_state};
use crate::file::MigFile;
use crate::savevm::Vm;
use crate::vmstate::Recorder;
use crate::wire::limits::Limits;
use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::Arc;

/// An empty field, which also ends a table.
pub const FIELD: VMStateField = VMStateField {
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
};

/// An empty description of version 1.
pub const TABLE: VMStateDescription = VMStateDescription {
    name: c"thing".as_ptr(),
    unmigratable: 0,
    version_id: 1,
    minimum_version_id: 1,
    priority: 0,
    pre_load: None,
    post_load: None,
    pre_save: None,
    post_save: None,
    needed: None,
    dev_unplug_pending: None,
    fields: ptr::null(),
    subsections: ptr::null(),
};

/// An element that an info handles.
pub fn plain(name: &'static CStr, offset: usize, size: usize, info: &'static VMStateInfo) -> VMStateField {
    VMStateField { name: name.as_ptr(), offset, size, info, ..FIELD }
}

/// An element that is a structure.
pub fn nested(name: &'static CStr, offset: usize, size: usize, inner: &'static VMStateDescription) -> VMStateField {
    VMStateField { name: name.as_ptr(), offset, size, vmsd: inner, flags: STRUCT, ..FIELD }
}

pub use crate::vmstate::model::flags::*;

/// Returns the fields as a table that is never freed.
pub fn fields(list: impl IntoIterator<Item = VMStateField>) -> *const VMStateField {
    let list: Vec<_> = list.into_iter().chain([FIELD]).collect();
    Box::leak(list.into_boxed_slice()).as_ptr()
}

/// A description with a name and fields.
pub fn table(name: &'static CStr, list: impl IntoIterator<Item = VMStateField>) -> VMStateDescription {
    VMStateDescription { name: name.as_ptr(), fields: fields(list), ..TABLE }
}

/// Returns the description as one that is never freed.
pub fn leak(table: VMStateDescription) -> &'static VMStateDescription {
    Box::leak(Box::new(table))
}

/// Returns a list of subsections that is never freed.
pub fn subsections(list: &[&'static VMStateDescription]) -> *const *const VMStateDescription {
    let list: Vec<_> = list.iter().map(|table| ptr::from_ref(*table)).chain([ptr::null()]).collect();
    Box::leak(list.into_boxed_slice()).as_ptr()
}

/// The result of a save or load.
#[derive(Debug)]
pub struct Outcome {
    pub ret: c_int,
    /// The bytes that were written, or that were not read.
    pub bytes: Vec<u8>,
    /// The error behind `ret`.
    pub error: Option<Error>,
    /// The file's own error.
    pub latched: c_int,
}

impl Outcome {
    fn of(file: &MigFile, ret: c_int) -> Self {
        let error = (ret != 0).then(|| file.pending_error().take(ret));
        Self { ret, bytes: Vec::new(), error, latched: file.error() }
    }

    /// Returns the error's path and message. Panics without an error.
    #[track_caller]
    pub fn complaint(&self) -> String {
        let error = self.error.as_ref().expect("it failed");
        format!("{}: {}", error.path().unwrap_or_default(), error.message())
    }
}

pub fn writer() -> (MigFile, Arc<Writer>) {
    let writer = Arc::new(Writer::new());
    (MigFile::new(Arc::<Writer>::clone(&writer), true), writer)
}

/// Saves an object.
pub fn save<T>(table: &'static VMStateDescription, object: &mut T) -> Outcome {
    save_at(table, ptr::from_mut(object).cast(), None)
}

pub fn save_at(table: &'static VMStateDescription, object: *mut c_void, recorder: Option<&Recorder>) -> Outcome {
    let (file, writer) = writer();
    let vmdesc = recorder.map_or(ptr::null_mut(), |recorder| ptr::from_ref(recorder).cast_mut().cast());
    // SAFETY: each test passes an object that fits its description, or checks that a mismatch is found before it is
    // used.
    let ret = unsafe { vmstate_save_state(as_c(&file), table, object, vmdesc) };
    file.flush();
    Outcome { bytes: writer.take(), ..Outcome::of(&file, ret) }
}

/// Loads an object from bytes. The byte after them ends every search for subsections.
pub fn load<T>(table: &'static VMStateDescription, object: &mut T, bytes: &[u8]) -> Outcome {
    load_at(table, ptr::from_mut(object).cast(), bytes, table.version_id)
}

pub fn load_at(table: &'static VMStateDescription, object: *mut c_void, bytes: &[u8], version: c_int) -> Outcome {
    let stream: Vec<u8> = bytes.iter().copied().chain([0]).collect();
    let file = MigFile::new(Arc::new(Reader::new(stream)), false);
    // SAFETY: as in `save_at`.
    let ret = unsafe { vmstate_load_state(as_c(&file), table, object, version) };
    let outcome = Outcome::of(&file, ret);
    let mut rest = vec![0; 1 + bytes.len()];
    let count = if outcome.latched == 0 { file.get(&mut rest) } else { 0 };
    rest.truncate(count);
    Outcome { bytes: rest, ..outcome }
}

/// Loads from exactly these bytes, at whose end the stream ends.
pub fn load_cut<T>(table: &'static VMStateDescription, object: &mut T, bytes: &[u8]) -> Outcome {
    let file = MigFile::new(Arc::new(Reader::new(bytes.to_vec())), false);
    // SAFETY: as in `save_at`.
    let ret = unsafe { vmstate_load_state(as_c(&file), table, ptr::from_mut(object).cast(), table.version_id) };
    Outcome::of(&file, ret)
}

/// Returns a file that reads these bytes, for [`load_from`].
pub fn file_of(bytes: Vec<u8>) -> MigFile {
    MigFile::new(Arc::new(Reader::new(bytes)), false)
}

/// Loads the next state from a file that may hold several.
pub fn load_from<T>(file: &MigFile, table: &'static VMStateDescription, object: &mut T) -> Outcome {
    // SAFETY: as in `save_at`.
    let ret = unsafe { vmstate_load_state(as_c(file), table, ptr::from_mut(object).cast(), table.version_id) };
    Outcome::of(file, ret)
}

/// Runs a body under other limits.
pub fn with_limits<T>(limits: Limits, body: impl FnOnce() -> T) -> T {
    let vm = Arc::new(Vm::default());
    vm.set_limits(limits);
    current::with(&vm, body)
}
