// SPDX-License-Identifier: LGPL-2.1-or-later
//! From `QEMUFile *` to the file and back.

use crate::ffi::marshal::castable::{self, Castable, Unique};
use crate::ffi::marshal::opaque::QEMUFile;
use crate::file::MigFile;
use std::ops::Deref;
use std::ptr::NonNull;

impl Castable for QEMUFile {
    type Object = MigFile;
    type Ownership = Unique;
}

/// The file behind a C pointer.
///
/// # Safety
/// `file` must be NULL or come from `into_c` or `as_c`, and not be closed yet.
#[inline]
pub(crate) unsafe fn file_ref<'a>(file: *mut QEMUFile) -> Option<&'a MigFile> {
    // SAFETY: as the caller promised.
    unsafe { castable::object(file) }
}

/// The file behind a C pointer. Returns from the calling function for NULL, with the value after the comma if it has a result. The
/// pointer fulfils the contract of `file_ref`, by the contract of the calling module.
macro_rules! file {
    ($file:expr $(, $null:expr)?) => {
        // SAFETY: the contract of the module.
        match unsafe { $crate::ffi::marshal::c_file::file_ref($file) } {
            Some(file) => file,
            None => return $($null)?,
        }
    };
}
pub(in crate::ffi) use file;

/// The C pointer of a file, for the length of a callback.
#[inline]
pub(crate) fn as_c(file: &MigFile) -> *mut QEMUFile {
    castable::lend(file)
}

/// Gives a file to C, which frees it with `qemu_fclose`.
pub(crate) fn into_c(file: MigFile) -> *mut QEMUFile {
    castable::give(file)
}

/// Takes a file back from C and frees it; `last` looks at it before. Where a load still works with it, its memory goes with
/// that load's `FileReference`.
///
/// # Safety
/// `file` must be NULL or come from `into_c` and be taken once.
pub(crate) unsafe fn close<T>(file: *mut QEMUFile, last: impl FnOnce(&MigFile) -> T) -> Option<T> {
    // SAFETY: the file came from `into_c` and was not closed yet, so it is alive until `close` below.
    let object = unsafe { file_ref(file) }?;
    let result = last(object);
    if object.references().close() {
        // SAFETY: the file came from `into_c`, and no load refers to it.
        drop(unsafe { castable::take(file) });
    }
    Some(result)
}

/// A file of C for as long as a load needs it, also when C closes it meanwhile.
pub(crate) struct FileReference(NonNull<QEMUFile>);

impl FileReference {
    /// # Safety
    /// As `file_ref`, for the moment of the call alone.
    pub(crate) unsafe fn new(file: *mut QEMUFile) -> Option<Self> {
        // SAFETY: as the caller promised.
        unsafe { file_ref(file) }?.references().add();
        NonNull::new(file).map(Self)
    }
}

impl Deref for FileReference {
    type Target = MigFile;
    fn deref(&self) -> &MigFile {
        // SAFETY: the file is not freed before its last reference is released.
        unsafe { self.0.cast::<MigFile>().as_ref() }
    }
}

impl Drop for FileReference {
    fn drop(&mut self) {
        if self.references().release() {
            // SAFETY: C closed the file, which came from `into_c`, and this was the last reference.
            drop(unsafe { castable::take(self.0.as_ptr()) });
        }
    }
}
