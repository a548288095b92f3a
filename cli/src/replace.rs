// SPDX-License-Identifier: LGPL-2.1-or-later
//! Replaces a file by one that is complete and on the disk.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::failure::{Context, Failure, Result};
use crate::words::shown;

/// A file that is removed unless it was renamed.
struct Temporary(Option<PathBuf>);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

/// Writes a new file with `write`, and gives it the name `path` when it is complete. Returns what `write` returned.
pub fn replace<T>(path: &Path, write: impl FnOnce(&mut File) -> io::Result<T>) -> Result<T> {
    let what = || format!("cannot write {}", shown(path));
    let name = path.file_name().ok_or_else(|| Failure::new(format!("{} is no file", shown(path))))?;
    let directory = path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = directory.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let mut file = File::options().write(true).create_new(true).open(&beside).context(what)?;
    let mut temporary = Temporary(Some(beside.clone()));
    let written = write(&mut file).context(what)?;
    file.sync_all().context(what)?;
    fs::rename(&beside, path).context(what)?;
    temporary.0 = None;
    // Some file systems cannot sync a directory.
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    Ok(written)
}
