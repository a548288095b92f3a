// SPDX-License-Identifier: LGPL-2.1-or-later
//! From `QEMUFile *` to the file and back.

use super::types::QEMUFile;
use crate::file::MigFile;

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

/// Takes a file back from C.
///
/// # Safety
/// `file` must be NULL or come from `into_c` and be taken once.
pub(crate) unsafe fn from_c(file: *mut QEMUFile) -> Option<Box<MigFile>> {
    // SAFETY: as the caller promised.
    (!file.is_null()).then(|| unsafe { Box::from_raw(file.cast::<MigFile>()) })
}
