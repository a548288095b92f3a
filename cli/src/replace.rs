// SPDX-License-Identifier: LGPL-2.1-or-later
//! Replaces a file by one that is complete and on the disk.
//!
//! The new file has no name until it is complete (`O_TMPFILE`), so that a program that is killed leaves nothing behind. On file
//! systems without such files, and without /proc, it has a hidden name in the same directory.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::failure::{Context, Failure, Result};
use crate::system::link_open_file;
use crate::words::shown;

/// A new file. If it has its hidden name, dropping it removes the file.
struct Replacement {
    file: File,
    hidden: PathBuf,
    has_name: bool,
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if self.has_name {
            let _ = fs::remove_file(&self.hidden);
        }
    }
}

/// Opens a file without a name. Fails if the file could not be given a name later.
fn open_unnamed(directory: &Path) -> io::Result<File> {
    let file = File::options().write(true).custom_flags(libc::O_TMPFILE).open(directory)?;
    // The file is named through this link.
    fs::symlink_metadata(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    Ok(file)
}

impl Replacement {
    fn open(directory: &Path, hidden: PathBuf) -> io::Result<Self> {
        if let Ok(file) = open_unnamed(directory) {
            return Ok(Self { file, hidden, has_name: false });
        }
        let file = File::options().write(true).create_new(true).open(&hidden)?;
        Ok(Self { file, hidden, has_name: true })
    }

    /// Syncs the file, and renames it to `path` in one step.
    fn commit(&mut self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        if !self.has_name {
            link_open_file(self.file.as_fd(), &self.hidden)?;
            self.has_name = true;
        }
        fs::rename(&self.hidden, path)?;
        self.has_name = false;
        Ok(())
    }
}

/// Writes a new file with `write`, and gives it the name `path` when it is complete. Returns what `write` returned.
pub fn replace<T>(path: &Path, write: impl FnOnce(&mut File) -> io::Result<T>) -> Result<T> {
    let what = || format!("cannot write {}", shown(path));
    let name = path.file_name().ok_or_else(|| Failure::new(format!("{} is no file", shown(path))))?;
    let directory = path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let hidden = directory.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let mut new = Replacement::open(directory, hidden).context(what)?;
    let written = write(&mut new.file).context(what)?;
    new.commit(path).context(what)?;
    // Some file systems cannot sync a directory.
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    Ok(written)
}
