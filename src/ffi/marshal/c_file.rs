// SPDX-License-Identifier: LGPL-2.1-or-later
//! From `QEMUFile *` to the file and back.

use crate::ffi::marshal::opaque::QEMUFile;
use crate::file::MigFile;
use std::ops::Deref;
use std::ptr::NonNull;

/// The file behind a C pointer.
///
/// # Safety
/// `file` must be NULL or come from `into_c` or `as_c`, and not be closed yet.
#[inline]
pub(crate) unsafe fn file_ref<'a>(file: *mut QEMUFile) -> Option<&'a MigFile> {
    // SAFETY: as the caller promised.
    unsafe { file.cast::<MigFile>().as_ref() }
}

/// The C pointer of a file, for the length of a callback.
#[inline]
pub(crate) fn as_c(file: &MigFile) -> *mut QEMUFile {
    std::ptr::from_ref(file).cast_mut().cast()
}

/// Gives a file to C, which frees it with `qemu_fclose`.
pub(crate) fn into_c(file: MigFile) -> *mut QEMUFile {
    Box::into_raw(Box::new(file)).cast()
}

/// Takes a file back from C and frees it; `last` looks at it before. Where a load still works with it, its memory goes with
/// that load's `FileReference`.
///
/// # Safety
/// `file` must be NULL or come from `into_c` and be taken once.
pub(crate) unsafe fn close<T>(file: *mut QEMUFile, last: impl FnOnce(&MigFile) -> T) -> Option<T> {
    let file = NonNull::new(file.cast::<MigFile>())?;
    // SAFETY: as the caller promised; nobody frees it before `close` says who does.
    let (result, free) = unsafe { (last(file.as_ref()), file.as_ref().references().close()) };
    if free {
        // SAFETY: it came from `Box::into_raw`, its owner gave it up, and nobody else works with it.
        drop(unsafe { Box::from_raw(file.as_ptr()) });
    }
    Some(result)
}

/// A file of C for as long as a load needs it, also when C closes it meanwhile.
pub(crate) struct FileReference(NonNull<MigFile>);

impl FileReference {
    /// # Safety
    /// As `file_ref`, for the moment of the call alone.
    pub(crate) unsafe fn new(file: *mut QEMUFile) -> Option<Self> {
        let file = NonNull::new(file.cast::<MigFile>())?;
        // SAFETY: as the caller promised.
        unsafe { file.as_ref() }.references().add();
        Some(Self(file))
    }
}

impl Deref for FileReference {
    type Target = MigFile;
    fn deref(&self) -> &MigFile {
        // SAFETY: nobody frees it before the lease is given back.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for FileReference {
    fn drop(&mut self) {
        if self.references().release() {
            // SAFETY: C closed it, which is only done to what came from `Box::into_raw`, and this was the last lease.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}
