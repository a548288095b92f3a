// SPDX-License-Identifier: LGPL-2.1-or-later
//! Chains of incremental snapshots, which are read as one stream.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use savevm_stream::chain::{Chain, FILES_MAX, Files, Link, ReadAt, link, read_start};
use savevm_stream::inspect::Budget;

use crate::failure::{Context, Failure, Result};
use crate::words::shown;

/// A file on disk.
pub struct DiskFile(File);

impl ReadAt for DiskFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read_at(into, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    fn length(&self) -> io::Result<u64> {
        self.0.metadata().map(|data| data.len())
    }
}

/// Opens files on disk.
struct DiskFiles;

impl Files for DiskFiles {
    type File = DiskFile;

    fn open(&mut self, path: &Path) -> io::Result<(DiskFile, u128)> {
        // A FIFO must not make this wait.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let data = file.metadata()?;
        if !data.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        Ok((DiskFile(file), u128::from(data.dev()) << 64 | u128::from(data.ino())))
    }
}

/// Opens a snapshot with all its ancestors, and checks them.
pub fn open(path: &Path, max_memory: usize) -> Result<Arc<Chain<DiskFile>>> {
    Chain::open(&mut DiskFiles, &target_of(path), &mut Budget::new(max_memory)).map_err(Failure::new)
}

/// Returns the path of a file, or of the file to which a symbolic link leads: parents are named relative to the directory of that
/// one.
fn target_of(path: &Path) -> Cow<'_, Path> {
    match fs::symlink_metadata(path) {
        Ok(data) if data.is_symlink() => fs::canonicalize(path).map_or(path.into(), Into::into),
        _ => path.into(),
    }
}

/// Returns the path of the parent that the snapshot in the file `child` names.
pub fn path_of_parent(child: &Path, link: &Link<String>) -> PathBuf {
    target_of(child).parent().unwrap_or(Path::new("")).join(&link.name)
}

/// Returns the paths of a snapshot and of its ancestors as far as they can be found, without any checks.
pub fn paths(path: &Path) -> impl Iterator<Item = PathBuf> {
    let parent = |child: &PathBuf| Some(path_of_parent(child, &parent_of(child).ok()??));
    std::iter::successors(Some(path.to_owned()), parent).take(FILES_MAX)
}

/// Returns the first bytes of a file, up to `chain::START`.
pub fn start_of(path: &Path) -> Result<Vec<u8>> {
    let (file, _) = DiskFiles.open(path).context(|| format!("cannot open {}", shown(path)))?;
    read_start(&file).context(|| shown(path))
}

/// Returns the parent of the snapshot in a file, if it is incremental.
pub fn parent_of(path: &Path) -> Result<Option<Link<String>>> {
    Ok(link(&start_of(path)?))
}
